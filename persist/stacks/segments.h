/* SPDX-License-Identifier: MIT */
/*
 * Ranges of addresses that lie over each other, laid out flat: which one counts at an address is a binary search. For
 * units of DWARF, and for functions with those inlined in them.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define DC_SEGMENT_NONE UINT32_MAX

struct dc_range {
	uint64_t start;
	uint64_t end;
	uint32_t rank; /* where several are, the smallest counts: in a tree, numbers in postorder make it the innermost */
	uint32_t owner;
};

struct dc_segment { /* from here to the next one */
	uint64_t start;
	uint32_t owner;
};

/*
 * dc_segments_build() - lay out @ranges, which get sorted
 * They may overlap in any way; empty ones count as absent.
 * @ret_segments: sorted by start; caller frees. Return: 0, -ENOMEM.
 */
int dc_segments_build(struct dc_range *ranges, size_t count, struct dc_segment **ret_segments, size_t *ret_count);
/* Return: the owner, DC_SEGMENT_NONE. */
uint32_t dc_segments_at(const struct dc_segment *segments, size_t count, uint64_t address);
