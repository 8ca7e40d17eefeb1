/* SPDX-License-Identifier: MIT */
/*
 * Captures made from ringmaker's rings, through the project's own writer, for tests of what reads captures.
 * As in a snapshot: FILE INCIDENT { PROCESS TABLES CHUNKS... TABLES LOSS } END.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "persist/incident.h"
#include "persist/writer.h"
#include "tests/ringmaker.h"

#define CAPTURE_MAKER_CHUNKS                                                                                 \
	2u /* a block of chunks holds that many, so that small captures have several blocks */

struct capture_maker {
	const char *dir;                    /* created before */
	const char *name;                   /* ends in .dcap */
	const struct dc_incident *incident; /* NULL: everything, clock and unit as ringmaker's */
	struct ring_maker **rings;          /* pid of process i: 1000 + i; NULL: a process without a ring */
	unsigned ring_count;
	uint32_t chunks_per_block; /* 0: CAPTURE_MAKER_CHUNKS */
	uint32_t flags;            /* DC_WRITER_* */
	/* Called behind each process's PROCESS block, to write its maps, samples and stacks; NULL: none. */
	int (*stacks)(struct dc_writer *w, uint32_t process, void *arg);
	uint64_t lost_overwritten; /* into the LOSS block of process 0, lane 0 */
	/* Called after the first pass over the rings, to let events happen before a second one; NULL: one pass. */
	void (*between)(void *arg);
	void *arg;
};

/* 0 or -errno. */
int capture_maker_write(const struct capture_maker *m);

/* Makes a directory below $TMPDIR or /tmp and gives its name; the caller frees it with capture_maker_rmdir(). */
char *capture_maker_mkdir(void);
void capture_maker_rmdir(char *dir);
