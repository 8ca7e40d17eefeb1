/* SPDX-License-Identifier: MIT */
/*
 * libunwind makes one step over made-up registers and an endless made-up stack, and every value in them says what it is
 * (see TAG). What comes out is read as a row (row.h): "rbx is now what was loaded from 32 above the old rsp". A second step
 * with other values has to give the same row; rules that are not of this form give two.
 *
 * Memory, for libunwind, is the stack, the module of the program counter, and at WINDOW a word of zeros. Each step has a
 * budget of words that it may read: rules can hold loops.
 */
#include "tests/unwind_peer.h"

#include <errno.h>

#ifdef WITH_LIBUNWIND
#include <libunwind.h>
#include <stdlib.h>
#include <string.h>

/* libunwind exports it, and has no header for it: it is what its other remote users search tables with, too. */
#define dwarf_search_unwind_table UNW_OBJ(dwarf_search_unwind_table)
int dwarf_search_unwind_table(unw_addr_space_t as, unw_word_t ip, unw_dyn_info_t *di, unw_proc_info_t *pi,
			      int need_info, void *arg);
#define WORDS_MAX (1u << 16) /* that one step reads */

/* No address of a program looks like these: 8 bits mark, 8 bits which value, 48 bits a middle plus an offset. */
#define TAG UINT64_C(0x5a)
#define TAG_MIDDLE (UINT64_C(1) << 40)
#define TAG_MIDDLE_OTHER 2040u /* 8 modulo 16: rules that round to 16 show themselves */

#define WINDOW UINT64_C(0x4b00000000000000) /* the search table of one entry */

struct peer {
	struct unw_addr_space *space;
};

/* One step of libunwind. */
struct question {
	const struct peer *peer;
	const struct dc_place *place;
	uint64_t pc;
	uint32_t words_left;
	bool found; /* a description of the place */
	/* either made-up values, */
	uint64_t middle;
	struct dc_row *row;
	/* or the real ones */
	const struct dc_row_state *state;
	struct dc_row_stack *stack;
};

static uint64_t tagged(uint64_t which, uint64_t middle)
{
	return TAG << 56 | which << 48 | middle;
}

static bool untagged(const struct question *q, uint64_t value, struct dc_rule *ret_rule)
{
	uint64_t which = value >> 48 & 0xff;
	int64_t offset = (int64_t)((value & ((UINT64_C(1) << 48) - 1)) - q->middle);

	if (value >> 56 != TAG || which >= DC_REGS + q->row->loads || offset != (int32_t)offset)
		return false;
	*ret_rule = (struct dc_rule){.offset = (int32_t)offset, .base = (uint8_t)which};
	return true;
}

/* The same place holds the same value, however often it is read. */
static bool load_made_up(struct question *q, uint64_t address, uint64_t *ret_value)
{
	struct dc_row *row = q->row;
	struct dc_rule rule;
	unsigned i = 0;

	if (!untagged(q, address, &rule))
		return false;
	while (i < row->loads && (row->rules[i].base != rule.base || row->rules[i].offset != rule.offset))
		i++;
	if (i == DC_ROW_LOADS_MAX)
		return false;
	if (i == row->loads)
		row->rules[row->loads++] = rule;
	*ret_value = tagged(DC_REGS + i, q->middle);
	return true;
}

/* Words are read whole, also where a segment ends within one. */
static int load_module(const struct question *q, uint64_t address, uint64_t *ret_value)
{
	for (unsigned bytes = sizeof *ret_value; bytes; bytes--) {
		const uint8_t *p = dc_place_code(q->place, address, bytes);
		if (p) {
			*ret_value = 0;
			memcpy(ret_value, p, bytes);
			return 0;
		}
	}
	return -UNW_EINVAL;
}

static int access_mem(unw_addr_space_t space, unw_word_t address, unw_word_t *value, int write, void *arg)
{
	struct question *q = arg;

	(void)space;
	if (write || q->words_left == 0)
		return -UNW_EINVAL;
	q->words_left--;
	if (address == WINDOW) {
		*value = 0;
		return 0;
	}
	if (q->state ? dc_row_read(q->stack, address, value) : load_made_up(q, address, value))
		return 0;
	return load_module(q, address, value);
}

static int access_reg(unw_addr_space_t space, unw_regnum_t number, unw_word_t *value, int write, void *arg)
{
	const struct question *q = arg;

	(void)space;
	if (write || number < 0 || number >= (int)DC_REGS)
		return -UNW_EBADREG;
	if (number == DC_REG_PC) {
		*value = q->pc;
		return 0;
	}
	if (q->state && !q->state->known[number])
		return -UNW_EBADREG;
	*value = q->state ? q->state->values[number] : tagged((uint64_t)number, q->middle);
	return 0;
}

static int access_fpreg(unw_addr_space_t space, unw_regnum_t number, unw_fpreg_t *value, int write, void *arg)
{
	(void)space, (void)number, (void)value, (void)write, (void)arg;
	return -UNW_EBADREG;
}

static int get_dyn_info(unw_addr_space_t space, unw_word_t *address, void *arg)
{
	(void)space, (void)address, (void)arg;
	return -UNW_ENOINFO;
}

static int get_name(unw_addr_space_t space, unw_word_t address, char *name, size_t bytes, unw_word_t *offset, void *arg)
{
	(void)space, (void)address, (void)name, (void)bytes, (void)offset, (void)arg;
	return -UNW_ENOINFO;
}

static void put_info(unw_addr_space_t space, unw_proc_info_t *info, void *arg)
{
	(void)space, (void)info, (void)arg;
}

static int resume(unw_addr_space_t space, unw_cursor_t *cursor, void *arg)
{
	(void)space, (void)cursor, (void)arg;
	return -UNW_EINVAL;
}

static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t *info, int need_info, void *arg)
{
	struct question *q = arg;
	struct dc_fde fde;

	if (dc_fde_find(q->place->index, ip - q->place->bias, &fde) < 0 || fde.debug)
		return -UNW_ENOINFO;
	/* A table of one entry: offset 0 from start_ip, and 0 from segbase. */
	unw_dyn_info_t table = {
		.start_ip = ip,
		.end_ip = ip + 1,
		.format = UNW_INFO_FORMAT_IP_OFFSET,
		.u.rti = {.segbase = q->place->bias + fde.at, .table_len = 1, .table_data = WINDOW},
	};
	memset(info, 0, sizeof *info);
	int r = dwarf_search_unwind_table(space, ip, &table, info, need_info, arg);
	q->found = r >= 0;
	return r;
}

static int step(struct question *q, unw_cursor_t *cursor)
{
	q->words_left = WORDS_MAX;
	q->found = false;
	memset(cursor, 0, sizeof *cursor); /* it does not set all that it reads */
	int r = unw_init_remote(cursor, q->peer->space, q);
	if (r >= 0)
		r = unw_step(cursor);
	return q->found ? r : -UNW_ENOINFO; /* without a description it guesses */
}

/* On aarch64 what returns is the link register: there the program counter stays that of the frame that was left. */
static bool caller_reg(unw_cursor_t *cursor, unsigned i, uint64_t *ret_value)
{
	unw_word_t value;

	if (unw_get_reg(cursor, i == DC_REG_PC ? UNW_REG_IP : (int)i, &value) < 0)
		return false;
	*ret_value = value;
	return true;
}

/* 0 is said of the outermost frame, whose return address is undefined, and on aarch64 also of what it makes no sense of. */
static uint8_t step_kind(unw_cursor_t *cursor, int r)
{
	uint64_t pc;

	if (r > 0)
		return DC_ROW_STEP;
	return r == 0 && (!caller_reg(cursor, DC_REG_PC, &pc) || pc == 0) ? DC_ROW_END : DC_ROW_NONE;
}

static void row_ask(struct question *q)
{
	struct dc_row *row = q->row;
	struct dc_rule sets[DC_REGS];
	unw_cursor_t cursor;

	row->kind = step_kind(&cursor, step(q, &cursor));
	for (unsigned i = 0; i < DC_REGS && row->kind == DC_ROW_STEP; i++) {
		struct dc_rule rule = {.base = DC_ROW_UNKNOWN};
		uint64_t value;
		if (caller_reg(&cursor, i, &value) && !untagged(q, value, &rule))
			row->kind = DC_ROW_DIRECT;
		rule.target = (uint8_t)i;
		if (rule.base != i || rule.offset != 0)
			sets[row->sets++] = rule;
	}
	if (row->kind == DC_ROW_STEP)
		memcpy(row->rules + row->loads, sets, row->sets * sizeof sets[0]);
	else
		*row = (struct dc_row){.kind = row->kind};
}

void peer_row(struct peer *p, const struct dc_place *place, uint64_t pc, struct dc_row *ret_row)
{
	struct dc_row row = {0}, other = {0};
	struct question q = {.peer = p, .place = place, .pc = pc, .middle = TAG_MIDDLE, .row = &row};

	row_ask(&q);
	if (row.kind == DC_ROW_STEP) {
		q.middle += TAG_MIDDLE_OTHER;
		q.row = &other;
		row_ask(&q);
		if (memcmp(&row, &other, sizeof other) != 0)
			row = (struct dc_row){.kind = DC_ROW_DIRECT};
	}
	*ret_row = row;
}

uint8_t peer_step(struct peer *p, const struct dc_place *place, uint64_t pc, struct dc_row_state *state,
		  struct dc_row_stack *stack)
{
	struct dc_row_state old = *state;
	struct question q = {.peer = p, .place = place, .pc = pc, .state = &old, .stack = stack};
	unw_cursor_t cursor;
	uint8_t kind = step_kind(&cursor, step(&q, &cursor));

	for (unsigned i = 0; i < DC_REGS && kind == DC_ROW_STEP; i++)
		state->known[i] = caller_reg(&cursor, i, &state->values[i]);
	return kind;
}

int peer_new(struct peer **ret_peer)
{
	static unw_accessors_t accessors = {
		.find_proc_info = find_proc_info,
		.put_unwind_info = put_info,
		.get_dyn_info_list_addr = get_dyn_info,
		.access_mem = access_mem,
		.access_reg = access_reg,
		.access_fpreg = access_fpreg,
		.resume = resume,
		.get_proc_name = get_name,
	};
	CLEANUP(peer) struct peer *p = calloc(1, sizeof *p);

	if (!p || !(p->space = unw_create_addr_space(&accessors, 0)))
		return -ENOMEM;
	unw_set_caching_policy(p->space, UNW_CACHE_NONE);
	*ret_peer = TAKE(p);
	return 0;
}

void peer_free(struct peer *p)
{
	if (p && p->space)
		unw_destroy_addr_space(p->space);
	free(p);
}

#else

int peer_new(struct peer **ret_peer)
{
	(void)ret_peer;
	return -ENOSYS;
}

void peer_free(struct peer *p)
{
	(void)p;
}

void peer_row(struct peer *p, const struct dc_place *place, uint64_t pc, struct dc_row *ret_row)
{
	(void)p, (void)place, (void)pc;
	*ret_row = (struct dc_row){.kind = DC_ROW_NONE};
}

uint8_t peer_step(struct peer *p, const struct dc_place *place, uint64_t pc, struct dc_row_state *state,
		  struct dc_row_stack *stack)
{
	(void)p, (void)place, (void)pc, (void)state, (void)stack;
	return DC_ROW_NONE;
}
#endif
