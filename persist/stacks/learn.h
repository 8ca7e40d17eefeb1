/* SPDX-License-Identifier: MIT */
/* What libunwind makes of one frame's description, as a row (row.h) where it can be one. How: learn.c. */
#pragma once

#include "persist/stacks/place.h"
#include "persist/stacks/row.h"

#define DC_LEARNER_RECORD_MAX 32768u
#define DC_LEARNER_COMMON 16u

struct dc_learner {
	struct unw_addr_space *space;
	uint8_t window[DC_LEARNER_COMMON + 2 * DC_LEARNER_RECORD_MAX]; /* memory that we make up for it */
};

/* Return: 0, -ENOMEM. */
int dc_learner_init(struct dc_learner *l);
void dc_learner_fini(struct dc_learner *l);

/* Of code at @pc in @p, which has a module; of a return address: what is before it. */
void dc_learn_row(struct dc_learner *l, const struct dc_place *p, uint64_t pc, struct dc_row *ret_row);
/* The step itself, for a DC_ROW_DIRECT. Return: DC_ROW_STEP, DC_ROW_END, DC_ROW_NONE; @state is changed only by the first. */
uint8_t dc_learn_step(struct dc_learner *l, const struct dc_place *p, uint64_t pc, struct dc_row_state *state,
		      struct dc_row_stack *stack);
