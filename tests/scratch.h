/* SPDX-License-Identifier: MIT */
/*
 * Directories that a test makes for itself: below those of tests/run, which removes what tests that fail, or are killed,
 * leave there; without it below /dev/shm and /tmp.
 */
#pragma once

#define SCRATCH_BYTES 128

/* In memory, as rings are: $DASHCAM_SCRATCH/NAME.XXXXXX. Aborts where none can be made. */
void scratch_memory(const char *name, char ret_path[static SCRATCH_BYTES]);

/* On disk: $TMPDIR/NAME.XXXXXX. */
void scratch_disk(const char *name, char ret_path[static SCRATCH_BYTES]);

/* The directory and all that is in it. Of one that cannot be read no more than is possible. */
void scratch_remove(const char *path);
