/* SPDX-License-Identifier: MIT */
/* persist/stacks/unwind.c: modules whose frames are described by hand, sensibly or not, and stacks of words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "unwinding.h"

/* A module at MADE_AT, its frames by hand, and a stack of words */

#define MADE_AT UINT64_C(0x10000000)
#define OTHER_AT UINT64_C(0x20000000) /* code without a module */
#define STACK_AT UINT64_C(0x7fff0000)
#define PC_AT (MADE_AT + MADE_CODE + 100)

#if defined(__x86_64__)
#define FP DC_REG_X86_RBP
#define RETURN_COLUMN 16
#define STACK_COLUMN 7
#else
#define FP DC_REG_ARM_X29
#define RETURN_COLUMN 30
#define STACK_COLUMN 31
#endif

static uint8_t image[MADE_BYTES];
static uint64_t regs[DC_REGS];
static struct dc_unwound unwound;

static void unwind_made(uint64_t pc, uint64_t fp, const uint64_t *words, unsigned count)
{
	CLEANUP(dc_module) struct dc_module *m = NULL;
	CLEANUP(dc_unwinder) struct dc_unwinder *u = NULL;
	struct dc_unwind_map maps[] = {{MADE_AT, MADE_AT + MADE_BYTES, 0, NULL}, {OTHER_AT, OTHER_AT + 4096, 0, NULL}};

	memset(regs, 0, sizeof regs);
	regs[DC_REG_PC] = pc;
	regs[DC_REG_SP] = STACK_AT;
	regs[FP] = fp;
	memset(&unwound, 0xee, sizeof unwound);
	if (dc_module_open_memory(image, sizeof image, &m) == 0)
		maps[0].module = m;
	assert_int_equal(dc_unwinder_new(maps, 2, &u), 0);
	assert_int_equal(dc_unwind(u, regs, DC_REGS, (const void *)words, count * 8, &unwound), 0);
	assert_true(unwound.count >= 1 && unwound.count <= DC_STACKS_DEPTH_MAX);
	assert_int_equal(unwound.addresses[0], pc);
	assert_true(unwound.stack_used <= count * 8);
}

static void unwind_rules(const uint8_t *rules, unsigned bytes, const uint64_t *words, unsigned count)
{
	module_make(rules, bytes, image);
	unwind_made(PC_AT, 0, words, count);
}

static void test_rules_by_hand(void **state)
{
	/* The plain rule; one that no row can say (rounding the stack pointer); a frame without a caller. */
	static const uint8_t rounded[] = {0x0f, 9, 0x70 + STACK_COLUMN, 0, 0x09, 0xf0, 0x1a, 0x23, 32, 0x96, 0x96};
	static const uint8_t outermost[] = {0x07, RETURN_COLUMN};
	static const uint8_t counted[] = {0x0f, 9, 0x70 + STACK_COLUMN, 8, 0x70 + FP, 0, 0x38, 0x1e, 0x22, 0x23, 8};
	uint64_t words[64] = {PC_AT + 1, 0, 0, PC_AT + 2, 0, 0, 0, PC_AT + 3};

	(void)state;
	unwind_rules(NULL, 0, words, 64);
	assert_int_equal(unwound.count, 2);
	assert_int_equal(unwound.addresses[1], PC_AT + 1);
	assert_true(unwound.to_root); /* the next word is 0 */
	assert_int_equal(unwound.stack_used, 16);

	unwind_rules(rounded, sizeof rounded, words, 64);
	assert_int_equal(unwound.count, 3);
	assert_int_equal(unwound.addresses[1], PC_AT + 2);
	assert_int_equal(unwound.addresses[2], PC_AT + 3);
	assert_true(unwound.to_root);

	module_make(counted, sizeof counted, image); /* CFA = sp + 8 + 8 * fp + 8 */
	unwind_made(PC_AT, 2, words, 64);
	assert_int_equal(unwound.addresses[1], PC_AT + 2);

	unwind_rules(outermost, sizeof outermost, words, 64);
	assert_int_equal(unwound.count, 1);
	assert_true(unwound.to_root);
	assert_int_equal(unwound.stack_used, 0);
}

static void test_senseless_rules_end_the_walk(void **state)
{
	/* An expression that jumps to itself; a CFA that stays, or goes down; registers and columns that no machine has. */
	static const uint8_t loop[] = {0x0f, 3, 0x2f, 0xfd, 0xff};
	static const uint8_t stays[] = {0x0e, 0, 0x05, RETURN_COLUMN, 0x7f};
	static const uint8_t down[] = {0x13, 1, 0x11, RETURN_COLUMN, 0x7f};
	static const uint8_t itself[] = {0x0f, 3, 0x70 + STACK_COLUMN, 0, 0x06};
	static const uint8_t no_register[] = {0x0c, 0xff, 0xff, 0x7f, 8};
	static const uint8_t no_rule[] = {0x3f, 0x3e, 0x3d};
	static const uint8_t restore[] = {0x0b, 0x0b, 0x0a, 0x0b, 0x0b};
	static const struct {
		const uint8_t *rules;
		unsigned bytes;
	} all[] = {{loop, sizeof loop},
		   {stays, sizeof stays},
		   {down, sizeof down},
		   {itself, sizeof itself},
		   {no_register, sizeof no_register},
		   {no_rule, sizeof no_rule},
		   {restore, sizeof restore}};
	uint64_t words[64] = {0};

	(void)state;
	words[0] = STACK_AT;
	for (unsigned i = 1; i < 64; i++)
		words[i] = PC_AT;
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		unwind_rules(all[i].rules, all[i].bytes, words, 64);
		assert_int_equal(unwound.count, 1);
		assert_false(unwound.to_root);
	}
}

static void test_registers_that_no_machine_has(void **state)
{
	/* What was left in one of them is lost, as it is in a vector register; the return address ends the walk. */
	static const uint8_t fp_in_200[] = {0x09, FP, 0xc8, 1}, to_200[] = {0x09, 0xc8, 1, FP, 0x05, 0xff, 0x7f, 1};
	static const uint8_t return_in_200[] = {0x09, RETURN_COLUMN, 0xc8, 1};
	uint64_t words[64] = {PC_AT + 1};

	(void)state;
	unwind_rules(fp_in_200, sizeof fp_in_200, words, 64);
	assert_int_equal(unwound.count, 2);
	assert_true(unwound.to_root);
	unwind_rules(to_200, sizeof to_200, words, 64);
	assert_int_equal(unwound.count, 2);
	unwind_rules(return_in_200, sizeof return_in_200, words, 64);
	assert_int_equal(unwound.count, 1);
	assert_false(unwound.to_root);
}

static void test_states_remembered_too_deeply(void **state)
{
	/* Some are, one within the other; a thousand are no description. */
	uint8_t rules[1000];
	uint64_t words[64] = {PC_AT + 1};

	(void)state;
	memset(rules, 0x0a, sizeof rules);
	memset(rules + 16, 0x0b, 16);
	unwind_rules(rules, 32, words, 64);
	assert_int_equal(unwound.count, 2);
	memset(rules, 0x0a, sizeof rules);
	unwind_rules(rules, 1000, words, 64);
	assert_int_equal(unwound.count, 1);
	assert_false(unwound.to_root);
}

static void test_a_description_of_itself(void **state)
{
	/* Whose common part is itself, stands behind it, or is no common part. */
	static const uint32_t places[] = {4, 0, UINT32_MAX, 5, 1u << 31};
	uint64_t words[64] = {PC_AT + 1};
	uint32_t length;

	(void)state;
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
		module_make(NULL, 0, image);
		memcpy(&length, image + MADE_FRAMES, sizeof length);
		memcpy(image + MADE_FRAMES + 4 + length + 4, &places[i], sizeof places[i]);
		unwind_made(PC_AT, 0, words, 64);
		assert_int_equal(unwound.count, 1);
	}
}

static void test_any_changed_byte_of_a_description(void **state)
{
	/* Each byte of the two records may be any other: the walk ends, within its bounds. */
	static const uint8_t rules[] = {0x0f, 9,   0x70 + STACK_COLUMN, 0, 0x09, 0xf0, 0x1a, 0x23, 32, 0x96, 0x96,
					0x0a, 0x0b};
	uint64_t words[64];

	(void)state;
	for (unsigned i = 0; i < 64; i++)
		words[i] = PC_AT + i;
	module_make(rules, sizeof rules, image);
	for (unsigned at = MADE_FRAMES; at < MADE_FRAMES + 64; at++)
		for (unsigned value = 0; value < 256; value++) {
			uint8_t old = image[at];
			image[at] = (uint8_t)value;
			unwind_made(PC_AT, STACK_AT + 64, words, 64);
			image[at] = old;
		}
}

static void test_any_changed_byte_of_the_vdso(void **state)
{
	/* A real file with a search table: headers, table and descriptions changed, unwound from all over its code. */
	static const uint8_t to[] = {0x00, 0x7f, 0x80, 0xff};
	CLEANUP(dc_module) struct dc_module *vdso = NULL;
	uint64_t words[64];

	(void)state;
	if (dc_module_open_vdso(&vdso) == -ENOENT)
		skip();
	CLEANUP(free) uint8_t *changed = malloc(vdso->bytes);
	memcpy(changed, vdso->image, vdso->bytes);
	for (unsigned i = 0; i < 64; i++)
		words[i] = MADE_AT + 0x100 + i * 0x30;
	for (size_t at = 0; at < vdso->bytes; at++)
		for (unsigned i = 0; i < sizeof to; i++) {
			CLEANUP(dc_module) struct dc_module *m = NULL;
			CLEANUP(dc_unwinder) struct dc_unwinder *u = NULL;
			uint8_t old = changed[at];
			changed[at] = to[i];
			if (dc_module_open_memory(changed, vdso->bytes, &m) == 0) {
				struct dc_unwind_map map = {MADE_AT, MADE_AT + vdso->bytes, 0, m};
				assert_int_equal(dc_unwinder_new(&map, 1, &u), 0);
				memset(regs, 0, sizeof regs);
				regs[DC_REG_SP] = STACK_AT;
				regs[DC_REG_PC] = MADE_AT + at;
				dc_unwind(u, regs, DC_REGS, (const void *)words, sizeof words, &unwound);
				assert_true(unwound.count >= 1 && unwound.stack_used <= sizeof words);
			}
			changed[at] = old;
		}
}

static void test_a_signal_frame_by_hand(void **state)
{
	/* A trampoline is known by its instructions, without a description, and gives back all registers. */
#if defined(__x86_64__)
	static const uint8_t code[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
	struct {
		ucontext_t context;
	} frame = {0};
	frame.context.uc_mcontext.gregs[REG_RIP] = OTHER_AT + 10;
	frame.context.uc_mcontext.gregs[REG_RSP] = STACK_AT + 2048;
	frame.context.uc_mcontext.gregs[REG_RBP] = STACK_AT + 4000;
#else
	static const uint8_t code[] = {0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4};
	struct {
		siginfo_t info;
		ucontext_t context;
	} frame = {0};
	frame.context.uc_mcontext.pc = OTHER_AT + 10;
	frame.context.uc_mcontext.sp = STACK_AT + 2048;
	frame.context.uc_mcontext.regs[FP] = STACK_AT + 4000;
#endif
	uint64_t words[640] = {0};

	(void)state;
	module_make(NULL, 0, image);
	memset(image + MADE_FRAMES, 0, 64);
	memcpy(image + MADE_CODE, code, sizeof code);
	_Static_assert(sizeof frame <= sizeof words, "the stack has room for it");
	memcpy(words, &frame, sizeof frame);
	words[500] = 0;
	words[501] = OTHER_AT + 30;
	unwind_made(MADE_AT + MADE_CODE, 0, words, 640);
	assert_int_equal(unwound.count, 3);
	assert_int_equal(unwound.flags[0], DC_FRAME_SIGNAL);
	assert_int_equal(unwound.addresses[1], OTHER_AT + 10);
	assert_int_equal(unwound.flags[1], 0);
	assert_int_equal(unwound.addresses[2], OTHER_AT + 30);
	assert_true(unwound.to_root);
}

static void test_code_that_nothing_describes(void **state)
{
	/* By the frame pointer, while it leads up the stack to known code; 0 is where the ABI begins. */
	uint64_t words[64] = {0};

	(void)state;
	memset(image, 0, sizeof image);
	words[4] = STACK_AT + 80;
	words[5] = OTHER_AT + 20;
	words[10] = 0;
	words[11] = OTHER_AT + 30;
	unwind_made(OTHER_AT + 10, STACK_AT + 32, words, 64);
	assert_int_equal(unwound.count, 3);
	assert_int_equal(unwound.addresses[1], OTHER_AT + 20);
	assert_int_equal(unwound.addresses[2], OTHER_AT + 30);
	assert_int_equal(unwound.flags[2], DC_FRAME_CALL);
	assert_true(unwound.to_root);
	assert_int_equal(unwound.stack_used, 96);

	words[10] = STACK_AT + 32; /* back */
	unwind_made(OTHER_AT + 10, STACK_AT + 32, words, 64);
	assert_int_equal(unwound.count, 2);
	assert_false(unwound.to_root);

	words[5] = 0x1234; /* to nowhere */
	unwind_made(OTHER_AT + 10, STACK_AT + 32, words, 64);
	assert_int_equal(unwound.count, 1);
	unwind_made(OTHER_AT + 10, STACK_AT - 32, words, 64); /* not this stack */
	assert_int_equal(unwound.count, 1);
	unwind_made(OTHER_AT + 10, 0, words, 64); /* a frame pointer of 0 in the innermost frame says nothing */
	assert_int_equal(unwound.count, 1);
	assert_false(unwound.to_root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules_by_hand),
		cmocka_unit_test(test_senseless_rules_end_the_walk),
		cmocka_unit_test(test_registers_that_no_machine_has),
		cmocka_unit_test(test_states_remembered_too_deeply),
		cmocka_unit_test(test_a_description_of_itself),
		cmocka_unit_test(test_any_changed_byte_of_a_description),
		cmocka_unit_test(test_any_changed_byte_of_the_vdso),
		cmocka_unit_test(test_a_signal_frame_by_hand),
		cmocka_unit_test(test_code_that_nothing_describes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
