/* SPDX-License-Identifier: MIT */
/*
 * libunwind needs microseconds for a frame, and a capture has a million of them at a few thousand places. So each place is
 * asked for once: libunwind makes one step over made-up registers and an endless made-up stack, and every value in them
 * says what it is (see TAG). What comes out is read as a row (row.h): "rbx is now what was loaded from 32 above the old
 * rsp". A second step with other values has to give the same row; rules that are not of this form give two rows, and are
 * asked for again at each frame, with the real registers and the real stack.
 *
 * Memory, for libunwind, is the stack copy, the module of the program counter, and a WINDOW with what we made for it. Each
 * step has a budget of words that it may read: rules can hold loops.
 */
#include "persist/stacks/unwind.h"

#include <elf.h>
#include <errno.h>
#include <libunwind.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <ucontext.h>

#include "persist/stacks/fde.h"
#include "persist/stacks/row.h"

/* libunwind exports it, and has no header for it: it is what its other remote users search tables with, too. */
#define dwarf_search_unwind_table UNW_OBJ(dwarf_search_unwind_table)
int dwarf_search_unwind_table(unw_addr_space_t as, unw_word_t ip, unw_dyn_info_t *di, unw_proc_info_t *pi,
			      int need_info, void *arg);

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#define FRAME_POINTER DC_REG_X86_RBP
#else
#define MACHINE EM_AARCH64
#define FRAME_POINTER DC_REG_ARM_X29
#endif

#define CODE_BYTES 12u /* that are enough to know a trampoline or a PLT entry */

#define WORDS_MAX (1u << 16) /* that one step reads */

#define SEARCH_WORDS 256u /* of the stack, for a return address */
#define SEARCH_JUMPS_BYTES 256u /* of a function that chooses one by what the processor can do */
#define SEARCH_FRAMES 2u /* behind a searched one that make it credible, without a root */

/* No address of a program looks like these: 8 bits mark, 8 bits which value, 48 bits a middle plus an offset. */
#define TAG UINT64_C(0x5a)
#define TAG_MIDDLE (UINT64_C(1) << 40)
#define TAG_MIDDLE_OTHER 2040u /* 8 modulo 16: rules that round to 16 show themselves */

/* One word of zeros, the search table of one entry; behind it a description from .debug_frame. */
#define WINDOW UINT64_C(0x4b00000000000000)
#define WINDOW_RECORD_MAX 32768u
#define WINDOW_COMMON 16u

struct place {
	uint64_t start;
	uint64_t end;
	uint64_t bias; /* what is added to the module's virtual addresses */
	const struct dc_module *module;
	struct dc_fde_index *index; /* shared by all places of the module */
};

struct dc_unwinder {
	unw_addr_space_t space;
	struct dc_row_table rows;
	uint32_t count;
	struct place *places;
	struct dc_fde_index *indexes; /* one a place; used is that of the first place of each module */
	uint8_t window[WINDOW_COMMON + 2 * WINDOW_RECORD_MAX];
	struct dc_unwound trial; /* where a search leads */
};

/* One step of libunwind. */
struct question {
	struct dc_unwinder *unwinder;
	const struct place *place;
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

/* The registers of a walk, and where it is. */
struct walk {
	struct dc_unwinder *unwinder;
	struct dc_row_state state;
	struct dc_row_stack stack;
	struct dc_unwound *out;
	bool called; /* the program counter is a return address */
	bool trial; /* a caller that was searched for: each return address has to stand behind a call, */
	bool failed; /* one does not */
};

static const struct place *place_of(const struct dc_unwinder *u, uint64_t address)
{
	uint32_t low = 0, high = u->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (u->places[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low && address < u->places[low - 1].end ? &u->places[low - 1] : NULL;
}

static const uint8_t *code_at(const struct place *p, uint64_t address, unsigned bytes)
{
	return p && p->module ? dc_module_at(p->module, address - p->bias, bytes) : NULL;
}

/* libunwind's side */

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
static int load_made_up(struct question *q, uint64_t address, uint64_t *ret_value)
{
	struct dc_row *row = q->row;
	struct dc_rule rule;
	unsigned i = 0;

	if (!untagged(q, address, &rule))
		return -UNW_EINVAL;
	while (i < row->loads && (row->rules[i].base != rule.base || row->rules[i].offset != rule.offset))
		i++;
	if (i == DC_ROW_LOADS_MAX)
		return -UNW_EINVAL;
	if (i == row->loads)
		row->rules[row->loads++] = rule;
	*ret_value = tagged(DC_REGS + i, q->middle);
	return 0;
}

/* Words are read whole, also where a segment ends within one. */
static int load_module(const struct question *q, uint64_t address, uint64_t *ret_value)
{
	for (unsigned bytes = sizeof *ret_value; bytes; bytes--) {
		const uint8_t *p = code_at(q->place, address, bytes);
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
	uint64_t at = address - WINDOW;

	(void)space;
	if (write || q->words_left == 0)
		return -UNW_EINVAL;
	q->words_left--;
	if (at <= sizeof q->unwinder->window - sizeof *value) {
		memcpy(value, q->unwinder->window + at, sizeof *value);
		return 0;
	}
	if (q->state ? dc_row_read(q->stack, address, value) : load_made_up(q, address, value) == 0)
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

/* Into the window, its length and place checked. Return: bytes, 0: it is not as it should be. */
static uint32_t window_copy(struct dc_unwinder *u, const struct dc_module *m, uint64_t from, uint32_t to)
{
	const uint8_t *section = m->image + m->debug_frame_offset;
	uint32_t length;

	if (from > m->debug_frame_bytes || m->debug_frame_bytes - from < sizeof length)
		return 0;
	memcpy(&length, section + from, sizeof length);
	if (length < 9 || length > WINDOW_RECORD_MAX - 16 || length > m->debug_frame_bytes - from - sizeof length)
		return 0;
	memcpy(u->window + to, section + from, length + sizeof length);
	memcpy(u->window + to, &length, sizeof length);
	return length + (uint32_t)sizeof length;
}

/* Version 4 has two sizes, which are the machine's, behind its text: without them it is version 3. */
static bool window_common_as_3(uint8_t *common, uint32_t bytes)
{
	uint8_t *version = common + 8;
	uint8_t *text_end = memchr(version + 1, 0, bytes - 9);

	if (*version != 4)
		return true;
	if (!text_end || text_end + 3 > common + bytes)
		return false;
	*version = 3;
	memmove(text_end + 1, text_end + 3, (size_t)(common + bytes - (text_end + 3)));
	memset(common + bytes - 2, 0, 2); /* DW_CFA_nop */
	return true;
}

/*
 * .debug_frame differs from .eh_frame, which is what libunwind reads from elsewhere, in how the two records refer to each
 * other, and its addresses are the file's.
 */
static bool window_fill(struct dc_unwinder *u, const struct place *p, const struct dc_fde *fde, uint64_t *ret_address)
{
	uint32_t bytes = window_copy(u, p->module, fde->common, WINDOW_COMMON);
	uint32_t at = WINDOW_COMMON + (bytes + 7) / 8 * 8;
	uint32_t id = 0;
	uint64_t begin;

	if (!bytes || !window_copy(u, p->module, fde->at, at) || !window_common_as_3(u->window + WINDOW_COMMON, bytes))
		return false;
	memcpy(u->window + WINDOW_COMMON + 4, &id, sizeof id);
	id = at + 4 - WINDOW_COMMON;
	memcpy(u->window + at + 4, &id, sizeof id);
	memcpy(&begin, u->window + at + 8, sizeof begin);
	begin += p->bias;
	memcpy(u->window + at + 8, &begin, sizeof begin);
	*ret_address = WINDOW + at;
	return true;
}

static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t *info, int need_info, void *arg)
{
	struct question *q = arg;
	struct dc_fde fde;
	uint64_t address;

	if (!q->place->index || dc_fde_find(q->place->index, ip - q->place->bias, &fde) < 0)
		return -UNW_ENOINFO;
	if (!fde.debug)
		address = q->place->bias + fde.at;
	else if (!window_fill(q->unwinder, q->place, &fde, &address))
		return -UNW_ENOINFO;
	/* A table of one entry: offset 0 from start_ip, and 0 from segbase. */
	unw_dyn_info_t table = {
		.start_ip = ip,
		.end_ip = ip + 1,
		.format = UNW_INFO_FORMAT_IP_OFFSET,
		.u.rti = {.segbase = address, .table_len = 1, .table_data = WINDOW},
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
	int r = unw_init_remote(cursor, q->unwinder->space, q);
	if (r >= 0)
		r = unw_step(cursor);
	/* Without a description it guesses; we have a guess of our own, which looks closer. */
	return q->found ? r : -UNW_ENOINFO;
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
		row->loads = row->sets = 0;
}

static void row_learn(struct dc_unwinder *u, const struct place *p, uint64_t pc, struct dc_row *ret_row)
{
	struct dc_row other = {0};
	struct question q = {.unwinder = u, .place = p, .pc = pc, .middle = TAG_MIDDLE, .row = ret_row};

	row_ask(&q);
	if (ret_row->kind != DC_ROW_STEP)
		return;
	q.middle += TAG_MIDDLE_OTHER;
	q.row = &other;
	row_ask(&q);
	if (memcmp(ret_row, &other, sizeof other) != 0)
		*ret_row = (struct dc_row){.kind = DC_ROW_DIRECT};
}

/* The step itself, where no row can say it. */
static uint8_t step_direct(struct walk *w, const struct place *p, uint64_t pc)
{
	struct dc_row_state *s = &w->state, old = *s;
	struct question q = {.unwinder = w->unwinder, .place = p, .pc = pc, .state = &old, .stack = &w->stack};
	unw_cursor_t cursor;
	uint8_t kind = step_kind(&cursor, step(&q, &cursor));

	for (unsigned i = 0; i < DC_REGS && kind == DC_ROW_STEP; i++)
		s->known[i] = caller_reg(&cursor, i, &s->values[i]);
	return kind;
}

/* Code that is known by its bytes */

static void row_load(struct dc_row *row, unsigned base, int32_t offset)
{
	row->rules[row->loads++] = (struct dc_rule){.offset = offset, .base = (uint8_t)base};
}

static void row_set(struct dc_row *row, unsigned target, unsigned base, int32_t offset)
{
	row->rules[row->loads + row->sets++] = (struct dc_rule){
		.offset = offset, .base = (uint8_t)base, .target = (uint8_t)target};
}

/* To what a frame pointer points: that of the caller, and the return address. */
static struct dc_row row_chain(void)
{
	struct dc_row row = {.kind = DC_ROW_STEP};

	row_load(&row, FRAME_POINTER, 0);
	row_load(&row, FRAME_POINTER, 8);
	row_set(&row, DC_REG_SP, FRAME_POINTER, 16);
	row_set(&row, FRAME_POINTER, DC_REGS, 0);
	row_set(&row, DC_REG_PC, DC_REGS + 1, 0);
	return row;
}

#if defined(__x86_64__)
/* Nothing was pushed since the call. */
static struct dc_row row_bare(void)
{
	struct dc_row row = {.kind = DC_ROW_STEP};

	row_load(&row, DC_REG_SP, 0);
	row_set(&row, DC_REG_SP, DC_REG_SP, 8);
	row_set(&row, DC_REG_PC, DC_REGS, 0);
	return row;
}

static bool is_trampoline(const uint8_t *code)
{
	static const uint8_t wide[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05}; /* mov $15,%rax; syscall */
	static const uint8_t narrow[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05}; /* mov $15,%eax; syscall */

	return memcmp(code, wide, sizeof wide) == 0 || memcmp(code, narrow, sizeof narrow) == 0;
}

/* The kernel's struct ucontext lies at the stack pointer. */
static struct dc_row row_signal(void)
{
	static const uint8_t order[] = {8,
					9,
					10,
					11,
					12,
					13,
					14,
					15,
					DC_REG_X86_RDI,
					DC_REG_X86_RSI,
					DC_REG_X86_RBP,
					DC_REG_X86_RBX,
					DC_REG_X86_RDX,
					DC_REG_X86_RAX,
					DC_REG_X86_RCX,
					DC_REG_X86_RSP,
					DC_REG_X86_RIP};
	struct dc_row row = {.kind = DC_ROW_STEP, .signal = true};

	for (unsigned i = 0; i < sizeof order; i++)
		row_load(&row, DC_REG_SP, (int32_t)(offsetof(ucontext_t, uc_mcontext.gregs) + 8 * i));
	for (unsigned i = 0; i < sizeof order; i++)
		row_set(&row, order[i], DC_REGS + i, 0);
	return row;
}

/* A jump through the GOT: [endbr64] [bnd] jmp *x(%rip); in the entry for lazy binding a push x(%rip) stands before it. */
static bool is_plt(const struct place *p, uint64_t pc, const uint8_t *code)
{
	static const uint8_t endbr[] = {0xf3, 0x0f, 0x1e, 0xfa};
	const uint8_t *before = code_at(p, pc - 6, 2);

	if (before && before[0] == 0xff && before[1] == 0x35)
		return false;
	if (memcmp(code, endbr, sizeof endbr) == 0)
		code += sizeof endbr;
	code += code[0] == 0xf2;
	return code[0] == 0xff && code[1] == 0x25;
}

/* Where the call that ends at @address leads; false: it is none, or leads through a register or memory. */
static bool call_target(const struct place *p, uint64_t address, uint64_t *ret_target)
{
	const uint8_t *code = code_at(p, address - 5, 5);
	int32_t distance;

	if (!code || code[0] != 0xe8)
		return false;
	memcpy(&distance, code + 1, sizeof distance);
	*ret_target = address + (uint64_t)(int64_t)distance;
	return true;
}

/* Whether near the start of a function there is a jump to between @begin and @end. */
static bool jumps_into(const struct place *p, uint64_t function, uint64_t begin, uint64_t end)
{
	for (uint64_t at = function; at < function + SEARCH_JUMPS_BYTES; at++) {
		const uint8_t *code = code_at(p, at, 6);
		bool near = code && code[0] == 0xe9;
		bool conditional = code && code[0] == 0x0f && (code[1] & 0xf0) == 0x80;
		int32_t distance;
		if (!near && !conditional)
			continue;
		memcpy(&distance, code + 1 + conditional, sizeof distance);
		uint64_t target = at + 5 + conditional + (uint64_t)(int64_t)distance;
		if (target >= begin && target < end)
			return true;
	}
	return false;
}

/* Whether a call ends at @address: e8 and four bytes, or ff /2 of up to seven. */
static bool is_behind_call(const struct place *p, uint64_t address)
{
	const uint8_t *code;
	uint64_t target;

	if (call_target(p, address, &target))
		return true;
	for (unsigned bytes = 2; bytes <= 7; bytes++) {
		code = code_at(p, address - bytes, bytes);
		if (code && code[0] == 0xff && (code[1] & 0x38) == 0x10)
			return true;
	}
	return false;
}

static uint64_t code_address(uint64_t pc)
{
	return pc;
}
#else
static uint32_t instruction(const uint8_t *code)
{
	uint32_t i;

	memcpy(&i, code, sizeof i);
	return i;
}

/* Nothing was saved since the call. */
static struct dc_row row_bare(void)
{
	struct dc_row row = {.kind = DC_ROW_STEP};

	row_set(&row, DC_REG_PC, DC_REG_ARM_LR, 0);
	return row;
}

static bool is_trampoline(const uint8_t *code)
{
	return instruction(code) == 0xd2801168 && instruction(code + 4) == 0xd4000001; /* mov x8,#139; svc #0 */
}

/* The kernel's siginfo lies at the stack pointer, and struct ucontext behind it. */
static struct dc_row row_signal(void)
{
	struct dc_row row = {.kind = DC_ROW_STEP, .signal = true};

	for (unsigned i = 0; i < DC_REGS; i++)
		row_load(&row, DC_REG_SP,
			 (int32_t)(sizeof(siginfo_t) + offsetof(ucontext_t, uc_mcontext.regs) + 8 * i));
	for (unsigned i = 0; i < DC_REGS; i++)
		row_set(&row, i, DC_REGS + i, 0);
	return row;
}

/* adrp x16; ldr x17 */
static bool is_plt(const struct place *p, uint64_t pc, const uint8_t *code)
{
	(void)p, (void)pc;
	return (instruction(code) & 0x9f00001f) == 0x90000010 && (instruction(code + 4) & 0xffc003ff) == 0xf9400211;
}

static bool call_target(const struct place *p, uint64_t address, uint64_t *ret_target)
{
	const uint8_t *code = code_at(p, address - 4, 4);
	uint32_t i = code ? instruction(code) : 0;

	*ret_target = address - 4 + (uint64_t)((int64_t)((uint64_t)i << 38) >> 36);
	return i >> 26 == 0x25;
}

/* Whether near the start of a function there is a b or b.cond to between @begin and @end. */
static bool jumps_into(const struct place *p, uint64_t function, uint64_t begin, uint64_t end)
{
	for (uint64_t at = function; at < function + SEARCH_JUMPS_BYTES; at += 4) {
		const uint8_t *code = code_at(p, at, 4);
		uint32_t i = code ? instruction(code) : 0;
		uint64_t target = 0;
		if (i >> 26 == 0x05)
			target = at + (uint64_t)((int64_t)((uint64_t)i << 38) >> 36);
		else if (i >> 24 == 0x54)
			target = at + (uint64_t)((int64_t)((uint64_t)(i & 0xffffe0) << 40) >> 43);
		if (target >= begin && target < end)
			return true;
	}
	return false;
}

static bool is_behind_call(const struct place *p, uint64_t address)
{
	const uint8_t *code = code_at(p, address - 4, 4);
	uint32_t i = code ? instruction(code) : 0;

	return i >> 26 == 0x25 || (i & 0xfefff000) == 0xd63f0000; /* bl; blr, blraa and its like */
}

/* Return addresses are signed in the bits that no address uses. */
static uint64_t code_address(uint64_t pc)
{
	return pc & ((UINT64_C(1) << 48) - 1);
}
#endif

/* Trampolines may be described wrongly, or not. */
static void row_make(struct dc_unwinder *u, const struct place *p, uint64_t pc, bool called, struct dc_row *ret_row)
{
	const uint8_t *code = code_at(p, pc, CODE_BYTES);

	*ret_row = (struct dc_row){.kind = DC_ROW_NONE};
	if (code && is_trampoline(code))
		*ret_row = row_signal();
	else if (p->module)
		row_learn(u, p, pc - called, ret_row);
	if (ret_row->kind == DC_ROW_NONE && code && !called && is_plt(p, pc, code))
		*ret_row = row_bare();
}

/* A return address belongs to the call before it. NULL: nothing is mapped there. */
static const struct dc_row *row_at(struct dc_unwinder *u, uint64_t pc, bool called)
{
	uint64_t key = pc << 1 | called;
	const struct dc_row *known = dc_row_find(&u->rows, key);
	const struct place *p;
	struct dc_row row;

	if (pc >> 63) /* the kernel's half; the key has no room for it */
		return NULL;
	if (known || !(p = place_of(u, pc - called)))
		return known;
	row_make(u, p, pc, called, &row);
	return dc_row_add(&u->rows, key, &row) == 0 ? dc_row_find(&u->rows, key) : NULL;
}

/* The walk */

/* Whether a guess leads somewhere: up the stack, to where something was called from. */
static bool guess_holds(const struct walk *w, const struct dc_row_state *next, bool must_see_call)
{
	const struct dc_row_state *old = &w->state;
	uint64_t pc = code_address(next->values[DC_REG_PC]);
	const struct place *p = place_of(w->unwinder, pc);

	if (!next->known[DC_REG_PC] || !next->known[DC_REG_SP] || !p ||
	    next->values[DC_REG_SP] < old->values[DC_REG_SP] || next->values[DC_REG_SP] % 8)
		return false;
	return code_at(p, pc - 1, 1) ? is_behind_call(p, pc) : !must_see_call;
}

static bool guess_chain(struct walk *w)
{
	struct dc_row_state next = w->state;
	struct dc_row row = row_chain();
	uint64_t old = w->state.values[FRAME_POINTER];
	uint64_t *fp = &next.values[FRAME_POINTER];

	if (!w->state.known[FRAME_POINTER] || old < w->state.values[DC_REG_SP])
		return false;
	dc_row_apply(&row, &next, &w->stack);
	if (!guess_holds(w, &next, false) || (*fp != 0 && *fp <= old))
		return false;
	w->state = next;
	return true;
}

static bool guess_bare(struct walk *w, bool must_see_call)
{
	struct dc_row_state next = w->state;
	struct dc_row row = row_bare();

	dc_row_apply(&row, &next, &w->stack);
	if (!guess_holds(w, &next, must_see_call))
		return false;
	w->state = next;
	return true;
}

static bool frame_walk(struct walk *w);

/*
 * Whether the call before a return address led to where we are: to this function, or to one that chooses among several and
 * jumps here. Stacks are full of return addresses of calls that are over, whole chains of them.
 */
static bool call_led_to(const struct dc_unwinder *u, uint64_t address, uint64_t pc)
{
	const struct place *caller = place_of(u, address), *here = place_of(u, pc);
	uint64_t target;
	struct dc_fde fde;

	if (!here || !here->index || !caller || caller->module != here->module ||
	    !call_target(caller, address, &target) || dc_fde_find(here->index, pc - here->bias, &fde) < 0)
		return false;
	return target - here->bias == fde.begin ||
	       jumps_into(here, target, fde.begin + here->bias, fde.end + here->bias);
}

/*
 * Whether a word of the stack is the return address to go on from: in code that is described, behind a call, and all that
 * follows from it is so too, to the outermost frame or to where the copy ends.
 */
static bool search_holds(struct walk *w, uint64_t pc, uint64_t sp)
{
	struct dc_unwinder *u = w->unwinder;
	struct walk t = *w;

	if (pc >> 63 || !call_led_to(u, pc, w->state.values[DC_REG_PC]))
		return false;
	t.state.values[DC_REG_PC] = pc;
	t.state.values[DC_REG_SP] = sp;
	t.called = t.trial = true;
	t.failed = false;
	t.out = &u->trial;
	t.out->count = 0;
	t.out->to_root = false;
	while (t.out->count < DC_STACKS_DEPTH_MAX && frame_walk(&t))
		;
	w->stack.used = t.stack.used; /* a shorter copy might have led elsewhere */
	return !t.failed && (t.out->to_root || t.out->count > SEARCH_FRAMES);
}

/*
 * The last resort of an innermost frame: assembly whose frame is described by what lies below the stack pointer, where no
 * copy reaches (SHA-2 of OpenSSL). Registers stay as they are.
 */
static bool search(struct walk *w)
{
	uint64_t sp = w->state.values[DC_REG_SP], pc;

	if (w->called || w->trial)
		return false;
	for (unsigned i = 0; i < SEARCH_WORDS && dc_row_read(&w->stack, sp, &pc); i++) {
		sp += sizeof pc;
		if (search_holds(w, code_address(pc), sp)) {
			w->state.values[DC_REG_PC] = pc;
			w->state.values[DC_REG_SP] = sp;
			return true;
		}
	}
	return false;
}

/* Code that nothing describes. A frame pointer of 0 is how the ABI marks the outermost frame. */
static bool guess(struct walk *w, bool outside)
{
	if (outside)
		return guess_bare(w, false) || guess_chain(w);
	if (guess_chain(w) || (!w->called && guess_bare(w, true)))
		return true;
	if (w->called && w->state.known[FRAME_POINTER] && w->state.values[FRAME_POINTER] == 0)
		w->out->to_root = true;
	return false;
}

/* Stacks grow downwards: callers lie above. Only a signal may have come from another stack. */
static bool arrived(struct walk *w, uint64_t old_sp, bool signal)
{
	struct dc_row_state *s = &w->state;
	bool moved = s->values[DC_REG_SP] > old_sp;

#if defined(__aarch64__)
	moved = moved || (!w->called && s->values[DC_REG_SP] == old_sp); /* a leaf keeps its return address in lr */
#endif
	if (!s->known[DC_REG_PC] || !s->known[DC_REG_SP])
		return false;
	s->values[DC_REG_PC] = code_address(s->values[DC_REG_PC]);
	if (s->values[DC_REG_PC] == 0 && !signal) {
		w->out->to_root = true;
		return false;
	}
	w->called = !signal;
	w->failed = w->trial && !signal &&
		    !is_behind_call(place_of(w->unwinder, s->values[DC_REG_PC]), s->values[DC_REG_PC]);
	return (signal || moved) && !w->failed;
}

static void frame_add(struct walk *w, uint64_t pc, uint8_t flags)
{
	w->out->addresses[w->out->count] = pc;
	w->out->flags[w->out->count++] = flags;
}

/* As its row says, if that is of use. */
static void frame_leave(struct walk *w, const struct dc_row *row)
{
	struct dc_row_state *s = &w->state;

	if (w->called || w->trial) {
		dc_row_apply(row, s, &w->stack);
		return;
	}
	struct dc_row_state old = *s;
	dc_row_apply(row, s, &w->stack);
	if (s->known[DC_REG_PC] && s->known[DC_REG_SP])
		return;
	struct dc_row_state lost = *s;
	*s = old;
	if (!search(w))
		*s = lost;
}

/* One frame noted, and left. Return: false: that was the last one. */
static bool frame_walk(struct walk *w)
{
	struct dc_unwinder *u = w->unwinder;
	uint64_t pc = w->state.values[DC_REG_PC], sp = w->state.values[DC_REG_SP];
	const struct dc_row *row = row_at(u, pc, w->called);

	if (!row && w->called)
		return false; /* no return address: what led here was wrong */
	bool signal = row && row->signal;
	frame_add(w, pc, signal ? DC_FRAME_SIGNAL : w->called ? DC_FRAME_CALL : 0);
	uint8_t kind = row ? row->kind : DC_ROW_NONE;
	if (kind == DC_ROW_STEP)
		frame_leave(w, row);
	else if (kind == DC_ROW_DIRECT)
		kind = step_direct(w, place_of(u, pc - w->called), pc - w->called);
	if (kind == DC_ROW_END)
		w->out->to_root = true;
	if (kind == DC_ROW_END || (kind == DC_ROW_NONE && !guess(w, !row)))
		return false;
	return arrived(w, sp, signal);
}

int dc_unwind(struct dc_unwinder *u, const uint64_t *regs, unsigned reg_count, const uint8_t *stack,
	      uint32_t stack_bytes, struct dc_unwound *ret_unwound)
{
	struct walk w;

	if (reg_count != DC_REGS)
		return -EINVAL;
	w.unwinder = u;
	w.stack = (struct dc_row_stack){.from = regs[DC_REG_SP], .bytes = stack, .size = stack_bytes};
	w.out = ret_unwound;
	w.called = w.trial = w.failed = false;
	memcpy(w.state.values, regs, DC_REGS * sizeof *regs);
	memset(w.state.known, true, DC_REGS);
	ret_unwound->count = 0;
	ret_unwound->to_root = false;
	while (ret_unwound->count < DC_STACKS_DEPTH_MAX && frame_walk(&w))
		;
	ret_unwound->stack_used = (uint32_t)w.stack.used;
	return 0;
}

static void place_init(struct dc_unwinder *u, uint32_t i, const struct dc_unwind_map *map)
{
	struct place *p = &u->places[i];
	uint64_t vaddr;

	*p = (struct place){.start = map->start, .end = map->end};
	if (!map->module || map->module->machine != MACHINE || !dc_module_vaddr(map->module, map->offset, &vaddr))
		return;
	p->module = map->module;
	p->bias = map->start - vaddr;
	for (uint32_t k = 0; k < i && !p->index; k++)
		if (u->places[k].module == p->module)
			p->index = u->places[k].index;
	if (!p->index) {
		p->index = &u->indexes[i];
		dc_fde_index_init(p->index, p->module);
	}
}

int dc_unwinder_new(const struct dc_unwind_map *maps, uint32_t count, struct dc_unwinder **ret_unwinder)
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
	CLEANUP(dc_unwinder) struct dc_unwinder *u = calloc(1, sizeof *u);

	if (!u)
		return -ENOMEM;
	u->places = calloc(count ? count : 1, sizeof *u->places);
	u->indexes = calloc(count ? count : 1, sizeof *u->indexes);
	u->space = unw_create_addr_space(&accessors, 0);
	if (!u->places || !u->indexes || !u->space)
		return -ENOMEM;
	unw_set_caching_policy(u->space, UNW_CACHE_NONE); /* what it says is kept in rows */
	for (u->count = 0; u->count < count; u->count++)
		place_init(u, u->count, &maps[u->count]);
	*ret_unwinder = TAKE(u);
	return 0;
}

void dc_unwinder_free(struct dc_unwinder *u)
{
	if (!u)
		return;
	if (u->space)
		unw_destroy_addr_space(u->space);
	for (uint32_t i = 0; i < u->count; i++)
		dc_fde_index_fini(&u->indexes[i]);
	dc_row_table_fini(&u->rows);
	free(u->indexes);
	free(u->places);
	free(u);
}
