/* SPDX-License-Identifier: MIT */
/*
 * Removing arguments from a capture, by name: what a person does before the file is given away. Every event
 * stays; the arguments are marked as dropped, and their bytes are nowhere in the new file.
 */
#pragma once

#include <stdint.h>

struct dc_scrub_totals {
	uint64_t arguments;       /* removed */
	uint64_t chunks_cut;      /* held something that did not parse; from there on they are gone */
	uint64_t blocks_left_out; /* damaged, or of a type that only a newer version knows the inside of */
};

/*
 * dc_scrub() - rewrite a capture without the arguments called one of @keys
 * Arguments whose names are not known (of events that did not fit the site table) are removed as well. A
 * settled capture is settled again, a raw one with samples is settled before: their copied stacks do not stay, the functions in
 * them do. The new file is renamed over the old one when it is whole and on disk; on
 * any error the old one stays. The old file's blocks on the device are freed, not wiped.
 *
 * Return: 0; 1: there was nothing to remove, the file is as it was; -EBADMSG, -ENODATA: not a capture, or
 * nothing whole in it; -errno.
 */
int dc_scrub(int dir_fd, const char *name, const char *const *keys, unsigned count,
	     struct dc_scrub_totals *ret_totals);
