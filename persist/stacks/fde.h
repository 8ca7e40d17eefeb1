/* SPDX-License-Identifier: MIT */
/*
 * Which frame description (FDE) speaks of an address of a module. Asked are, one after the other:
 *
 *   1. the search table in .eh_frame_hdr
 *   2. .eh_frame, where there is no such table: all of it is read once, at the first question
 *   3. .debug_frame, likewise
 *
 * A description and its common part (CIE) are found inside of one section, and what they say is given out between
 * pointers: rules.h reads it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_module;

struct dc_fde {
	uint64_t begin; /* the code that it describes, virtual addresses */
	uint64_t end;
	bool debug; /* from .debug_frame: */
	uint64_t at; /* false: virtual address; true: offset in the section */
	uint64_t common; /* .debug_frame: offset of the CIE in the section */
};

/* What one says: instructions, first the common ones, and what their operands are counted in. */
struct dc_fde_rules {
	const uint8_t *common;
	const uint8_t *common_end;
	const uint8_t *own;
	const uint8_t *own_end;
	uint64_t code_align;
	int64_t data_align;
	uint64_t return_column;
};

struct dc_fde_index {
	const struct dc_module *module;
	struct dc_fde *entries; /* sorted by begin */
	uint32_t count;
	bool built;
};

void dc_fde_index_init(struct dc_fde_index *x, const struct dc_module *m);
void dc_fde_index_fini(struct dc_fde_index *x);

/* Return: 0; -ENOENT; -ENOMEM. */
int dc_fde_find(struct dc_fde_index *x, uint64_t vaddr, struct dc_fde *ret_fde);
/* Return: 0; -EBADMSG: it makes no sense. */
int dc_fde_rules(const struct dc_fde_index *x, const struct dc_fde *fde, struct dc_fde_rules *ret_rules);
