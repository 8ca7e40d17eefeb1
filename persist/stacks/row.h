/* SPDX-License-Identifier: MIT */
/*
 * What unwinding one frame takes, as a small program over the registers, and a table of these by program counter.
 *
 *   values:  0 .. DC_REGS-1: the registers of the frame
 *            DC_REGS ..:     words loaded, each from (an earlier value + offset)
 *   then registers of the caller are set to (a value + offset); those that are not named keep theirs
 *
 *   push %rbx; sub $32,%rsp    load v17 = [rsp+32], load v18 = [rsp+40]; set rbx = v17, rip = v18, rsp = rsp+48
 *
 * Every unwind rule that compilers write is of this form, those of signal frames and realigned stacks included.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/registers.h"

#define DC_ROW_LOADS_MAX 48u
#define DC_ROW_UNKNOWN 0xffu /* base of a register whose value is lost */

struct dc_rule {
	int32_t offset;
	uint8_t base; /* which value */
	uint8_t target; /* sets: which register */
	uint8_t reserved[2];
};

#define DC_ROW_STEP 1u
#define DC_ROW_END 2u /* the outermost frame: it has no caller */
#define DC_ROW_NONE 3u /* nobody knows */
#define DC_ROW_DIRECT 4u /* not of this form: ask each time */

struct dc_row {
	uint8_t kind;
	bool signal; /* a signal's trampoline: the caller was interrupted, it did not call */
	uint8_t loads;
	uint8_t sets;
	struct dc_rule rules[DC_ROW_LOADS_MAX + DC_REGS]; /* loads, sets */
};

/* Registers of one frame. */
struct dc_row_state {
	uint64_t values[DC_REGS + DC_ROW_LOADS_MAX];
	bool known[DC_REGS + DC_ROW_LOADS_MAX];
};

/* The only memory there is: a stack from its pointer up. */
struct dc_row_stack {
	uint64_t from;
	const uint8_t *bytes;
	uint64_t size;
	uint64_t used; /* of it, by now */
};

/* A load from elsewhere leaves its value unknown, and what is made of it. */
void dc_row_apply(const struct dc_row *row, struct dc_row_state *s, struct dc_row_stack *stack);
bool dc_row_read(struct dc_row_stack *stack, uint64_t address, uint64_t *ret_value);

struct dc_row_table {
	struct dc_row_slot *slots;
	uint32_t room; /* a power of two */
	uint32_t count;
	uint8_t *store; /* rows, cut to what they use */
	uint64_t store_bytes;
	uint64_t store_room;
};

void dc_row_table_fini(struct dc_row_table *t);
/* Return: NULL: not there. Valid until the next row is added. */
const struct dc_row *dc_row_find(const struct dc_row_table *t, uint64_t key);
/* It forgets everything when it has become large. Return: 0, -ENOMEM. */
int dc_row_add(struct dc_row_table *t, uint64_t key, const struct dc_row *row);
