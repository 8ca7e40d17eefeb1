/* SPDX-License-Identifier: MIT */
/*
 * What a frame's description (fde.h) says of leaving it: as a row (row.h), or, where that takes the very values (a stack
 * pointer that was rounded), done. Descriptions are a file's bytes, and may be hostile: none reads beyond them or takes long.
 */
#pragma once

#include "persist/stacks/place.h"
#include "persist/stacks/row.h"

/* Of code at @pc in @p, which has a module; of a return address: what is before it. DC_ROW_NONE: not described, or senselessly. */
void dc_rules_row(const struct dc_place *p, uint64_t pc, struct dc_row *ret_row);
/* The step itself, for a DC_ROW_DIRECT. Return: DC_ROW_STEP, DC_ROW_END, DC_ROW_NONE; @state is changed only by the first. */
uint8_t dc_rules_step(const struct dc_place *p, uint64_t pc, struct dc_row_state *state, struct dc_row_stack *stack);
