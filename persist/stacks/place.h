/* SPDX-License-Identifier: MIT */
/* Where code lies: an executable mapping, seen from the module behind it. */
#pragma once

#include "persist/stacks/fde.h"
#include "persist/stacks/module.h"

struct dc_place {
	uint64_t start;
	uint64_t end;
	uint64_t bias; /* what is added to the module's virtual addresses */
	const struct dc_module *module; /* NULL: none is to be had */
	struct dc_fde_index *index; /* shared by all places of the module */
};

/* The @bytes bytes at @address of the process; @p may be NULL. NULL: not in the file. */
static inline const uint8_t *dc_place_code(const struct dc_place *p, uint64_t address, unsigned bytes)
{
	return p && p->module ? dc_module_at(p->module, address - p->bias, bytes) : NULL;
}
