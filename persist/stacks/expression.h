/* SPDX-License-Identifier: MIT */
/*
 * What DWARF's expressions (DWARF 5, 2.5) come to, of a frame whose registers and stack are known, or of any frame at that
 * place: then a value is "rsp + 8" or "what was loaded from there, - 16", and loads are those of a row (row.h).
 */
#pragma once

#include "persist/stacks/row.h"

#define DC_TERM_NUMBER DC_ROW_UNKNOWN /* no base: the offset alone */

struct dc_term {
	uint64_t offset;
	uint8_t base; /* which value of a row */
};

struct dc_terms {
	uint64_t pc; /* where the frame is: known in either case */
	struct dc_row *row; /* any frame: gets the loads; */
	const struct dc_row_state *state; /* or NULL, and this one */
	struct dc_row_stack *stack;
};

/* Return, also below: 0; -ENODATA: lost, or not in the copy; -EOPNOTSUPP: no row can say it. */
int dc_term_register(const struct dc_terms *t, uint64_t number, struct dc_term *ret_term);
int dc_term_load(const struct dc_terms *t, struct dc_term address, struct dc_term *ret_term);
/* @first: what its stack begins with, NULL: nothing. Return: also -EINVAL: it makes no sense, or does not end. */
int dc_expression(const struct dc_terms *t, const uint8_t *code, uint64_t bytes, const struct dc_term *first,
		  struct dc_term *ret_term);
