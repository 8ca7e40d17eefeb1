/* SPDX-License-Identifier: MIT */
/*
 * Claim: for all code of libraries and programs that everybody runs, our reader of frame descriptions (rules.h) says what
 * libunwind says. Looked at are the first and the last byte of every line of every description, found by code that knows
 * of instructions only how long they are. Two differences are known, and counted:
 *
 *   - a description that has a rule for the stack pointer itself (longjmp's): libunwind takes the CFA for it
 *   - an expression that multiplies a register (OpenSSL's bn_mul_mont): libunwind cannot say it as a row; a step with
 *     registers that have values has to be the same
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "persist/stacks/bytes.h"
#include "persist/stacks/rules.h"
#include "tests/unwind_peer.h"
#include "tests/unwinding.h"

#define DESCRIPTIONS_MAX 3800u /* of a module, spread over it; DASHCAM_LONG: all */
#define DIFFERENT_MAX 10u /* printed */
#define STACK_FROM UINT64_C(0x7ff000000000)
#define STACK_WORDS 4096u

#if defined(__x86_64__)
#define FP DC_REG_X86_RBP
#else
#define FP DC_REG_ARM_X29
#endif

#define OP_ADVANCE_LOC 0x40u
#define OP_OFFSET 0x80u

/* DW_CFA_*: what follows it: LEB128 numbers, a block, or so many bytes. */
static const char *const operands[64] = {
	[0x02] = "1",  [0x03] = "2",  [0x04] = "4",  [0x0c] = "ll", [0x0d] = "l",  [0x0e] = "l",  [0x0f] = "b",
	[0x12] = "ll", [0x13] = "l",  [0x2e] = "l",  [0x05] = "ll", [0x06] = "l",  [0x07] = "l",  [0x08] = "l",
	[0x09] = "ll", [0x10] = "lb", [0x11] = "ll", [0x14] = "ll", [0x15] = "ll", [0x16] = "lb", [0x2f] = "ll",
};

/* Says where the register is that its first number names. */
static bool of_register(unsigned op)
{
	return op == 0x05 || op == 0x07 || op == 0x09 || op == 0x10 || op == 0x11 || (op >= 0x14 && op <= 0x16) ||
	       op == 0x2f;
}

/* A walk over one description. */
struct lines {
	struct dc_bytes next;
	uint64_t address;
	uint64_t code_align;
	bool rules_sp; /* one of the instructions by now */
};

static uint64_t operands_skip(struct dc_bytes *b, unsigned op)
{
	const char *kinds = operands[op] ? operands[op] : "";
	uint64_t first = 0;

	for (const char *k = kinds; *k; k++) {
		uint64_t v = *k == 'l' || *k == 'b' ? dc_bytes_uleb(b) : dc_bytes_unsigned(b, (unsigned)(*k - '0'));
		if (*k == 'b')
			dc_bytes_take(b, v);
		first = k == kinds ? v : first;
	}
	return first;
}

/* To the next line. Return: false: that was the last. */
static bool lines_next(struct lines *l)
{
	while (l->next.at < l->next.end && !l->next.failed) {
		unsigned op = *l->next.at++, low = op & 0x3f, high = op & 0xc0;
		if (high == OP_ADVANCE_LOC) {
			l->address += low * l->code_align;
			return true;
		}
		if (high == OP_OFFSET)
			dc_bytes_uleb(&l->next);
		if (high)
			continue;
		uint64_t first = operands_skip(&l->next, low);
		l->rules_sp |= of_register(low) && first == DC_REG_SP;
		if (low >= 0x02 && low <= 0x04) {
			l->address += first * l->code_align;
			return true;
		}
	}
	return false;
}

/* --- one place --- */

enum verdict { SAME, STACK_POINTER, MULTIPLIED, DIFFERENT };

struct asked {
	const struct dc_place *ours; /* the same, but where a difference is planted */
	const struct dc_place *theirs;
	bool rules_sp;
};

static struct peer *peer;
static uint64_t stack_words[STACK_WORDS];

static void row_print(const char *who, const struct dc_row *row)
{
	static const char *const kinds[] = {"?", "step", "end", "none", "direct"};

	printf("    %s: %s", who, kinds[row->kind]);
	for (unsigned i = 0; i < row->loads; i++)
		printf(" v%u=[v%u%+d]", DC_REGS + i, row->rules[i].base, row->rules[i].offset);
	for (unsigned i = row->loads; i < (unsigned)row->loads + row->sets; i++) {
		const struct dc_rule *r = &row->rules[i];
		if (r->base == DC_ROW_UNKNOWN)
			printf(" r%u=lost", r->target);
		else
			printf(" r%u=v%u%+d", r->target, r->base, r->offset);
	}
	printf("\n");
}

/* Loads may come in another order. */
static bool terms_same(const struct dc_row *a, struct dc_rule of_a, const struct dc_row *b, struct dc_rule of_b)
{
	while (of_a.offset == of_b.offset) {
		if (of_a.base == DC_ROW_UNKNOWN || of_a.base < DC_REGS || of_b.base == DC_ROW_UNKNOWN ||
		    of_b.base < DC_REGS)
			return of_a.base == of_b.base;
		of_a = a->rules[of_a.base - DC_REGS];
		of_b = b->rules[of_b.base - DC_REGS];
	}
	return false;
}

static struct dc_rule set_of(const struct dc_row *row, unsigned reg)
{
	for (unsigned i = row->loads; i < (unsigned)row->loads + row->sets; i++)
		if (row->rules[i].target == reg)
			return row->rules[i];
	return (struct dc_rule){.base = (uint8_t)reg, .target = (uint8_t)reg};
}

/* Return: SAME, STACK_POINTER: but for that, DIFFERENT. */
static enum verdict rows_judge(const struct dc_row *a, const struct dc_row *b)
{
	enum verdict v = a->kind == b->kind && a->signal == b->signal ? SAME : DIFFERENT;

	for (unsigned i = 0; i < DC_REGS && v != DIFFERENT; i++)
		if (!terms_same(a, set_of(a, i), b, set_of(b, i)))
			v = i == DC_REG_SP ? STACK_POINTER : DIFFERENT;
	return v;
}

/* Registers that have values: the stack's lie in it, and so does what its words point to; the others are small. */
static bool steps_same(const struct asked *a, uint64_t pc)
{
	struct dc_row_state ours = {0}, theirs;
	struct dc_row_stack stack = {
		.from = STACK_FROM, .bytes = (const uint8_t *)stack_words, .size = sizeof stack_words};

	for (unsigned i = 0; i < DC_REGS; i++) {
		ours.known[i] = true;
		ours.values[i] = i == DC_REG_SP || i == FP ? stack.from + 1024 + 8 * i : 3 + i;
	}
	ours.values[DC_REG_PC] = pc;
	theirs = ours;
	uint8_t kind = dc_rules_step(a->ours, pc, &ours, &stack);
	if (kind != peer_step(peer, a->theirs, pc, &theirs, &stack))
		return false;
	for (unsigned i = 0; i < DC_REGS && kind == DC_ROW_STEP; i++)
		if (ours.known[i] != theirs.known[i] || (ours.known[i] && ours.values[i] != theirs.values[i]))
			return false;
	return kind == DC_ROW_STEP;
}

static enum verdict place_judge(const struct asked *a, uint64_t pc, struct dc_row *ret_ours, struct dc_row *ret_theirs)
{
	dc_rules_row(a->ours, pc, ret_ours);
	peer_row(peer, a->theirs, pc, ret_theirs);
	if (ret_ours->kind == DC_ROW_DIRECT && (ret_theirs->kind == DC_ROW_DIRECT || ret_theirs->kind == DC_ROW_NONE))
		return !steps_same(a, pc) ? DIFFERENT : ret_theirs->kind == DC_ROW_DIRECT ? SAME : MULTIPLIED;
	enum verdict v = rows_judge(ret_ours, ret_theirs);
	return v == STACK_POINTER && !a->rules_sp ? DIFFERENT : v;
}

/* --- a module --- */

struct tally {
	const char *name;
	uint64_t descriptions;
	uint64_t places;
	uint64_t verdicts[DIFFERENT + 1];
};

static void place_count(struct tally *t, const struct asked *a, uint64_t pc)
{
	struct dc_row ours, theirs;
	enum verdict v = place_judge(a, pc, &ours, &theirs);

	t->places++;
	if (t->verdicts[v]++ >= DIFFERENT_MAX || v != DIFFERENT)
		return;
	printf("  %s, %#" PRIx64 ":\n", t->name, pc);
	row_print("ours", &ours);
	row_print("libunwind", &theirs);
}

static struct lines lines_of(const struct dc_fde *fde, const struct dc_fde_rules *text)
{
	return (struct lines){
		.next = {.at = text->own, .end = text->own_end}, .address = fde->begin, .code_align = text->code_align};
}

static void description_count(struct tally *t, struct asked *a, uint64_t begin)
{
	struct dc_fde_rules text;
	struct dc_fde fde;

	assert_int_equal(dc_fde_find(a->ours->index, begin, &fde), 0);
	assert_int_equal(dc_fde_rules(a->ours->index, &fde, &text), 0);
	struct lines all = lines_of(&fde, &text), l = all;
	while (lines_next(&all))
		;
	a->rules_sp = all.rules_sp;
	t->descriptions++;
	place_count(t, a, fde.begin);
	while (lines_next(&l)) {
		if (l.address > fde.begin)
			place_count(t, a, l.address - 1);
		if (l.address < fde.end)
			place_count(t, a, l.address);
	}
	assert_false(l.next.failed);
	place_count(t, a, fde.end - 1);
}

static void module_compare(const char *name, const char *path)
{
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP(dc_module) struct dc_module *m = NULL;
	CLEANUP(free) uint64_t *begins = NULL;
	struct tally t = {.name = name};
	struct dc_fde_index index;

	assert_true(fd >= 0);
	assert_int_equal(dc_module_open(fd, &m), 0);
	uint32_t count = functions_of(m, &begins);
	assert_true(count > 0);
	dc_fde_index_init(&index, m);
	const struct dc_place place = {.end = UINT64_MAX, .module = m, .index = &index};
	struct asked a = {.ours = &place, .theirs = &place};
	uint32_t stride = getenv("DASHCAM_LONG") ? 1 : 1 + count / DESCRIPTIONS_MAX;
	for (uint32_t i = 0; i < count; i += stride)
		description_count(&t, &a, begins[i]);
	dc_fde_index_fini(&index);
	printf("%s: %" PRIu64 " of %u descriptions, %" PRIu64 " places; %" PRIu64
	       " have a rule for the stack pointer, %" PRIu64 " multiply a register, %" PRIu64 " differ\n",
	       name, t.descriptions, count, t.places, t.verdicts[STACK_POINTER], t.verdicts[MULTIPLIED],
	       t.verdicts[DIFFERENT]);
	assert_int_equal(t.verdicts[DIFFERENT], 0);
}

/* As the loader finds it. */
static void library_compare(const char *name)
{
	void *handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
	struct link_map *map;

	if (!handle) {
		printf("%s is not installed\n", name);
		skip();
	}
	assert_int_equal(dlinfo(handle, RTLD_DI_LINKMAP, &map), 0);
	module_compare(name, map->l_name);
	dlclose(handle);
}

static void program_compare(const char *path)
{
	if (!path || access(path, R_OK) < 0) {
		printf("%s is not installed\n", path ? path : "dashcam");
		skip();
	}
	module_compare(strrchr(path, '/') + 1, path);
}

static void test_libc(void **state)
{
	(void)state;
	library_compare("libc.so.6");
}

static void test_libstdcpp(void **state)
{
	(void)state;
	library_compare("libstdc++.so.6");
}

static void test_libcrypto(void **state)
{
	(void)state;
	library_compare("libcrypto.so.3");
}

static void test_python(void **state)
{
	(void)state;
	program_compare("/usr/bin/python3");
}

static void test_bash(void **state)
{
	(void)state;
	program_compare("/bin/bash");
}

static void test_dashcam(void **state)
{
	(void)state;
	program_compare(getenv("DASHCAM_BIN"));
}

/* --- that it can fail --- */

/* We read a module with the first rules, libunwind one with the second. */
static enum verdict judge_made(const void *ours, unsigned ours_bytes, const void *theirs, unsigned theirs_bytes,
			       bool rules_sp)
{
	static uint8_t images[2][MADE_BYTES];
	struct dc_fde_index indexes[2];
	struct dc_module *modules[2];
	struct dc_place places[2];
	struct dc_row rows[2];

	module_make(ours, ours_bytes, images[0]);
	module_make(theirs, theirs_bytes, images[1]);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(dc_module_open_memory(images[i], MADE_BYTES, &modules[i]), 0);
		dc_fde_index_init(&indexes[i], modules[i]);
		places[i] = (struct dc_place){.end = UINT64_MAX, .module = modules[i], .index = &indexes[i]};
	}
	const struct asked a = {.ours = &places[0], .theirs = &places[1], .rules_sp = rules_sp};
	enum verdict v = place_judge(&a, MADE_CODE + 8, &rows[0], &rows[1]);
	for (unsigned i = 0; i < 2; i++) {
		dc_fde_index_fini(&indexes[i]);
		dc_module_close(modules[i]);
	}
	return v;
}

#define JUDGE(ours, theirs, rules_sp) judge_made(ours, sizeof(ours), theirs, sizeof(theirs), rules_sp)

static void test_a_wrong_row_is_seen(void **state)
{
	/* Another offset of the CFA; a line that begins a byte later than the place; another register; and none of them twice. */
	static const uint8_t plain[] = {0x0e, 16}, deeper[] = {0x0e, 24}, late[] = {0x49, 0x0e, 16},
			     early[] = {0x48, 0x0e, 16};
	static const uint8_t saved[] = {0x0e, 16, 0x80 | FP, 2}, lost[] = {0x0e, 16, 0x07, FP};

	(void)state;
	assert_int_equal(JUDGE(plain, plain, false), SAME);
	assert_int_equal(JUDGE(early, plain, false), SAME);
	assert_int_equal(JUDGE(plain, deeper, false), DIFFERENT);
	assert_int_equal(JUDGE(late, early, false), DIFFERENT);
	assert_int_equal(JUDGE(saved, plain, false), DIFFERENT);
	assert_int_equal(JUDGE(saved, lost, false), DIFFERENT);
	assert_int_equal(JUDGE(saved, saved, false), SAME);
}

static void test_known_differences_hide_no_other(void **state)
{
	/* A rule for the stack pointer, alone and beside a wrong one; a product in an expression, and another one. */
	static const uint8_t sp[] = {0x0e, 16, 0x09, DC_REG_SP, FP};
	static const uint8_t sp_wrong[] = {0x0e, 16, 0x09, DC_REG_SP, FP, 0x07, FP};
	static const uint8_t by_8[] = {0x0f, 9, 0x70 + DC_REG_SP, 8, 0x70, 0, 0x38, 0x1e, 0x22, 0x23, 8};
	static const uint8_t by_9[] = {0x0f, 9, 0x70 + DC_REG_SP, 8, 0x70, 0, 0x39, 0x1e, 0x22, 0x23, 8};

	(void)state;
	assert_int_equal(JUDGE(sp, sp, true), STACK_POINTER);
	assert_int_equal(JUDGE(sp, sp, false), DIFFERENT);
	assert_int_equal(JUDGE(sp, sp_wrong, true), DIFFERENT);
	assert_int_equal(JUDGE(by_8, by_8, false), MULTIPLIED);
	assert_int_equal(JUDGE(by_8, by_9, false), DIFFERENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_wrong_row_is_seen),
		cmocka_unit_test(test_known_differences_hide_no_other),
		cmocka_unit_test(test_libc),
		cmocka_unit_test(test_libstdcpp),
		cmocka_unit_test(test_libcrypto),
		cmocka_unit_test(test_python),
		cmocka_unit_test(test_bash),
		cmocka_unit_test(test_dashcam),
	};
	int r = peer_new(&peer);

	if (r == -ENOSYS) {
		printf("built without libunwind (package libunwind-dev)\n");
		return 77;
	}
	for (unsigned i = 0; i < STACK_WORDS; i++)
		stack_words[i] = STACK_FROM + sizeof stack_words / 4 + 8 * (i % (STACK_WORDS / 2));
	r = r < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
	peer_free(peer);
	return r;
}
