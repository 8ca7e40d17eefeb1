/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>

#include "unwind_through.h"
#include "unwinding.h"

#if defined(__clang__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noipa))
#endif
#define COPY_MAX (1u << 20)
#define TRAIL_MAX 4096u

/* What the functions below say of themselves: their return addresses, innermost last. */
static uint64_t trail[TRAIL_MAX];
static unsigned trail_count;

#define ON_TRAIL() (trail[trail_count++] = (uint64_t)(uintptr_t)__builtin_return_address(0))
#define NO_TAIL_CALL() __asm__ volatile("" : : : "memory")

/* A sample, as somebody outside would take it. */
static uint64_t regs[DC_REGS];
static uint8_t *copy;
static uint32_t copy_bytes;

static struct scene scene;
static struct dc_unwound unwound;

static uint64_t handler_top; /* of the stack that a handler copies, 0: the thread's */

static uint64_t stack_top(void)
{
	pthread_attr_t attr;
	void *low;
	size_t bytes;

	assert_int_equal(pthread_getattr_np(pthread_self(), &attr), 0);
	assert_int_equal(pthread_attr_getstack(&attr, &low, &bytes), 0);
	pthread_attr_destroy(&attr);
	return (uint64_t)(uintptr_t)low + bytes;
}

__attribute__((no_sanitize("address"))) static void copy_words(uint64_t from, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes / 8; i++)
		((volatile uint64_t *)(void *)copy)[i] = ((volatile uint64_t *)(uintptr_t)from)[i];
}

static void sample_take(const ucontext_t *uc, uint64_t top)
{
	regs_of(uc, regs);
	uint64_t bytes = top - regs[DC_REG_SP];
	copy_bytes = (uint32_t)(bytes < COPY_MAX ? bytes : COPY_MAX);
	copy_words(regs[DC_REG_SP], copy_bytes);
}

NOINLINE static int capture(void *arg)
{
	ucontext_t uc;

	(void)arg;
	ON_TRAIL();
	getcontext(&uc);
	sample_take(&uc, handler_top ? handler_top : stack_top());
	return 0;
}

static void unwind(uint32_t bytes)
{
	assert_int_equal(dc_unwind(scene.unwinder, regs, DC_REGS, copy, bytes, &unwound), 0);
}

/* Frame @at and those behind it are the trail, innermost first. */
static void assert_trail(unsigned at)
{
	for (unsigned i = 0; i < trail_count && at + i < DC_STACKS_DEPTH_MAX; i++) {
		assert_true(at + i < unwound.count);
		assert_int_equal(unwound.addresses[at + i], trail[trail_count - 1 - i]);
		assert_int_equal(unwound.flags[at + i], DC_FRAME_CALL);
	}
}

static int set_up(void **state)
{
	(void)state;
	if (!copy)
		copy = malloc(COPY_MAX);
	trail_count = 0;
	scene_open(&scene, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	scene_close(&scene);
	return 0;
}

NOINLINE static int recurse(unsigned depth)
{
	ON_TRAIL();
	int r = depth ? recurse(depth - 1) : capture(NULL);
	NO_TAIL_CALL();
	return r + 1;
}

static void test_every_level_of_a_recursion(void **state)
{
	/* Each return address is found, up to the first code of the process, whose own description says that it is that. */
	(void)state;
	recurse(500);
	unwind(copy_bytes);
	assert_int_equal(unwound.flags[0], 0);
	assert_trail(1);
	assert_true(unwound.to_root);
	assert_true(unwound.count > 502);
}

static void test_too_deep_a_recursion_is_cut(void **state)
{
	/* DC_STACKS_DEPTH_MAX frames come back, right ones, and are not said to reach the root. */
	(void)state;
	recurse(2000);
	unwind(copy_bytes);
	assert_int_equal(unwound.count, DC_STACKS_DEPTH_MAX);
	assert_trail(1);
	assert_false(unwound.to_root);
}

NOINLINE static int sized(unsigned depth, unsigned bytes)
{
	char room[bytes];

	ON_TRAIL();
	memset(room, (int)depth, sizeof room);
	__asm__ volatile("" : : "r"(room) : "memory");
	int r = depth ? sized(depth - 1, bytes * 3 / 2 + 7) : capture(NULL);
	__asm__ volatile("" : : "r"(room) : "memory");
	return r;
}

static void test_frames_of_variable_size(void **state)
{
	/* Frames whose size only the frame pointer tells. */
	(void)state;
	sized(12, 1);
	unwind(copy_bytes);
	assert_trail(1);
	assert_true(unwound.to_root);
}

NOINLINE static int aligned(unsigned depth)
{
	_Alignas(128) volatile char line[256];

	ON_TRAIL();
	line[0] = (char)depth;
	int r = depth ? aligned(depth - 1) : capture(NULL);
	NO_TAIL_CALL();
	return r + line[0];
}

static void test_realigned_frames(void **state)
{
	/* Frames that round their stack pointer, and find the way back through memory. */
	(void)state;
	aligned(9);
	unwind(copy_bytes);
	assert_trail(1);
	assert_true(unwound.to_root);
}

NOINLINE static int tail(unsigned depth)
{
	if (!trail_count || trail[trail_count - 1] != (uint64_t)(uintptr_t)__builtin_return_address(0))
		ON_TRAIL();
	return depth ? tail(depth - 1) : capture(NULL);
}

static void test_tail_calls_leave_no_frame(void **state)
{
	/* Neither the function that was left nor anything made up stands between. */
	(void)state;
	tail(5);
	if (trail_count > 1 && trail[trail_count - 1] == trail[trail_count - 2])
		trail_count--;
	unwind(copy_bytes);
	assert_trail(1);
	assert_true(unwound.to_root);
}

static void *thread_body(void *arg)
{
	ON_TRAIL();
	recurse(3);
	NO_TAIL_CALL();
	return arg;
}

static void test_a_thread_ends_at_its_start(void **state)
{
	/* The last frames are those of the thread library, and they are the root. */
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, thread_body, NULL), 0);
	pthread_join(thread, NULL);
	unwind(copy_bytes);
	assert_trail(1);
	assert_true(unwound.to_root);
	assert_true(unwound.count <= trail_count + 3);
}

/* Signals */

static sigjmp_buf after_signal;
static uint64_t faulting[DC_REGS];

static void handle_from_inside(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)info;
	regs_of(context, faulting);
	capture(NULL);
	siglongjmp(after_signal, 1);
}

static void handle_from_outside(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)info;
	sample_take(context, handler_top);
	siglongjmp(after_signal, 1);
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

	assert_int_equal(sigaction(signal, &action, NULL), 0);
}

NOINLINE static int fault(void)
{
	ON_TRAIL();
	if (sigsetjmp(after_signal, 1) == 0)
		__builtin_trap();
	NO_TAIL_CALL();
	return 1;
}

/* On x86-64 libc has it, elsewhere the vdso, which emulated processes do not have. */
static bool trampoline_is_known(void)
{
#if defined(__x86_64__)
	return true;
#else
	return getauxval(AT_SYSINFO_EHDR) != 0;
#endif
}

static unsigned signal_frame(void)
{
	for (unsigned i = 0; i < unwound.count; i++)
		if (unwound.flags[i] == DC_FRAME_SIGNAL)
			return i;
	fail_msg("no signal frame among %u", unwound.count);
	return 0;
}

static void test_through_a_signal_handler(void **state)
{
	/* Behind the trampoline stands the instruction that was interrupted, exactly, and its callers. */
	(void)state;
	if (!trampoline_is_known())
		skip();
	handle(SIGILL, handle_from_inside, 0);
	handle(SIGTRAP, handle_from_inside, 0);
	fault();
	signal(SIGILL, SIG_DFL);
	signal(SIGTRAP, SIG_DFL);
	unwind(copy_bytes);
	unsigned at = signal_frame();
	assert_true(at >= 2);
	assert_int_equal(unwound.addresses[at + 1], faulting[DC_REG_PC]);
	assert_int_equal(unwound.flags[at + 1], 0);
	trail_count = 1; /* that of fault(); capture() stood behind it */
	assert_trail(at + 2);
	assert_true(unwound.to_root);
}

static void test_a_handler_on_its_own_stack(void **state)
{
	/* The copy holds only that stack: the interrupted instruction is the last that can be known. */
	static _Alignas(16) uint8_t room[1 << 16];
	stack_t other = {.ss_sp = room, .ss_size = sizeof room}, none = {.ss_flags = SS_DISABLE};

	(void)state;
	if (!trampoline_is_known())
		skip();
	assert_int_equal(sigaltstack(&other, NULL), 0);
	handle(SIGILL, handle_from_inside, SA_ONSTACK);
	handle(SIGTRAP, handle_from_inside, SA_ONSTACK);
	handler_top = (uint64_t)(uintptr_t)(room + sizeof room);
	fault();
	handler_top = 0;
	signal(SIGILL, SIG_DFL);
	signal(SIGTRAP, SIG_DFL);
	assert_int_equal(sigaltstack(&none, NULL), 0);
	assert_true(copy_bytes < sizeof room);
	unwind(copy_bytes);
	unsigned at = signal_frame();
	assert_int_equal(unwound.addresses[at + 1], faulting[DC_REG_PC]);
	assert_int_equal(unwound.count, at + 2);
	assert_false(unwound.to_root);
}

NOINLINE static int call_nothing(void (*volatile nothing)(void))
{
	ON_TRAIL();
	handler_top = stack_top();
	if (sigsetjmp(after_signal, 1) == 0)
		nothing();
	handler_top = 0;
	return 1;
}

static void assert_bad_call(uint64_t pc)
{
	unwind(copy_bytes);
	assert_int_equal(unwound.addresses[0], pc);
	assert_int_equal(unwound.flags[1], DC_FRAME_CALL);
	uint64_t away = unwound.addresses[1] - (uint64_t)(uintptr_t)call_nothing;
	assert_true(away < 400);
	assert_trail(2);
	assert_true(unwound.to_root);
}

static void test_a_call_through_a_bad_pointer(void **state)
{
	/* NULL, and the heap: the caller is the first frame behind it. */
	static char heap[64];

	(void)state;
	handle(SIGSEGV, handle_from_outside, 0);
	call_nothing(NULL);
	assert_bad_call(0);
	trail_count = 0;
	call_nothing((void (*)(void))(uintptr_t)heap);
	assert_bad_call((uint64_t)(uintptr_t)heap);
	signal(SIGSEGV, SIG_DFL);
}

#if defined(__x86_64__)
/* Its frame is described by a word below the stack pointer; above it lies where a call of long ago returned to. */
void below_stack(void);
__asm__(".text\n"
	"call getpid@PLT\n"
	"long_ago:\n"
	"below_stack: .cfi_startproc\n"
	"mov %rsp, %rax; .cfi_def_cfa %rax, 8\n"
	"sub $128, %rsp; and $-64, %rsp\n"
	"lea long_ago(%rip), %rcx\n"
	"mov %rcx, 8(%rsp)\n"
	"mov %rax, -8(%rsp)\n"
	".cfi_escape 0x0f, 5, 0x77, 0x78, 0x06, 0x23, 8\n" /* CFA = *(rsp - 8) + 8 */
	"ud2; .cfi_endproc\n");

NOINLINE static int call_below_stack(void)
{
	ON_TRAIL();
	handler_top = stack_top();
	if (sigsetjmp(after_signal, 1) == 0)
		below_stack();
	handler_top = 0;
	return 1;
}

static void test_what_lies_below_the_stack_pointer(void **state)
{
	/* No copy has it: the caller is searched for, and what is left of other calls is not taken for it. */
	(void)state;
	handle(SIGILL, handle_from_outside, 0);
	call_below_stack();
	signal(SIGILL, SIG_DFL);
	unwind(copy_bytes);
	uint64_t away = unwound.addresses[1] - (uint64_t)(uintptr_t)call_below_stack;
	assert_true(away < 400);
	assert_trail(2);
	assert_true(unwound.to_root);
}
#endif

static void test_other_ways_to_be_described(void **state)
{
	/* .eh_frame without a search table; .debug_frame alone. */
	(void)state;
	assert_int_equal(through_no_table(capture, NULL, 1234), 0);
	unwind(copy_bytes);
	assert_string_equal(scene_name(&scene, trail[0]), "libthrough_no_table.so");
	assert_trail(1);
	assert_true(unwound.to_root);

	trail_count = 0;
	assert_int_equal(through_debug_frame(capture, NULL, 1234), 0);
	unwind(copy_bytes);
	assert_string_equal(scene_name(&scene, trail[0]), "libthrough_debug_frame.so");
	assert_trail(1);
	assert_true(unwound.to_root);
}

static void test_used_is_what_a_copy_needs(void **state)
{
	/* With as many bytes as were used the result is the same, with half of them it is shorter. */
	struct dc_unwound first;

	(void)state;
	recurse(20);
	unwind(copy_bytes);
	first = unwound;
	assert_true(first.stack_used > 0 && first.stack_used < copy_bytes);
	unwind(first.stack_used);
	assert_int_equal(unwound.count, first.count);
	assert_true(unwound.to_root);
	assert_int_equal(unwound.stack_used, first.stack_used);
	unwind(first.stack_used / 2);
	assert_true(unwound.count < first.count);
	assert_false(unwound.to_root);
	assert_memory_equal(unwound.addresses, first.addresses, unwound.count * sizeof first.addresses[0]);
	unwind(0);
	assert_int_equal(unwound.addresses[0], regs[DC_REG_PC]);
	assert_int_equal(unwound.stack_used, 0);
}

static void test_registers_of_another_machine(void **state)
{
	/* Are refused. */
	(void)state;
	capture(NULL);
	assert_int_equal(
		dc_unwind(scene.unwinder, regs, DC_REGS_X86 + DC_REGS_ARM - DC_REGS, copy, copy_bytes, &unwound),
		-EINVAL);
	assert_int_equal(dc_unwind(scene.unwinder, regs, 0, copy, copy_bytes, &unwound), -EINVAL);
}

#if defined(__x86_64__)
/* One instruction after the other */

#define STEPS_MAX 40000u
#define STEP_STACK 16384u

struct stepped {
	uint64_t regs[DC_REGS];
	uint32_t bytes;
	uint8_t stack[STEP_STACK];
};

static struct stepped *steps;
static volatile unsigned step_count;
static uint64_t step_top;

/* No function of the library is called here: it may be the one that is interrupted. */
__attribute__((no_sanitize("address", "undefined"))) static void on_step(int signal, siginfo_t *info, void *context)
{
	struct stepped *s = &steps[step_count];

	(void)signal, (void)info;
	if (step_count == STEPS_MAX)
		return;
	regs_of(context, s->regs);
	uint64_t sp = s->regs[DC_REG_SP], bytes = step_top - sp;
	s->bytes = (uint32_t)(bytes < STEP_STACK ? bytes : STEP_STACK) & ~7u;
	for (uint32_t i = 0; i < s->bytes; i += 8)
		*(volatile uint64_t *)(void *)(s->stack + i) = *(volatile uint64_t *)(uintptr_t)(sp + i);
	step_count = step_count + 1;
}

/* The processor traps behind each instruction from the return of the one to the call of the other, and a little into it. */
void step_on(void);
void step_off(void);
__asm__(".text\n"
	"step_on: .cfi_startproc\n"
	"pushfq; .cfi_adjust_cfa_offset 8\n"
	"orl $0x100, (%rsp)\n"
	"popfq; .cfi_adjust_cfa_offset -8\n"
	"ret; .cfi_endproc\n"
	"step_off: .cfi_startproc\n"
	"pushfq; .cfi_adjust_cfa_offset 8\n"
	"andl $~0x100, (%rsp)\n"
	"popfq; .cfi_adjust_cfa_offset -8\n"
	"ret; .cfi_endproc\n");

static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

NOINLINE static int work(void)
{
	static int numbers[] = {5, 2, 9, 1, 7};
	struct timespec now;
	char text[100];

	ON_TRAIL();
	step_on();
	qsort(numbers, 5, sizeof numbers[0], by_value);
	clock_gettime(CLOCK_MONOTONIC, &now);
	int r = snprintf(text, sizeof text, "%d %s %g", numbers[2], "words", (double)now.tv_nsec);
	free(malloc((size_t)r));
	step_off();
	NO_TAIL_CALL();
	return r;
}

static void *work_thread(void *arg)
{
	ON_TRAIL();
	step_top = stack_top() - 64;
	if (step_top - (uint64_t)(uintptr_t)&arg > STEP_STACK)
		step_top = (uint64_t)(uintptr_t)&arg + STEP_STACK / 2;
	work();
	NO_TAIL_CALL();
	return arg;
}

static void test_every_instruction_of_calls_into_libraries(void **state)
{
	/*
	 * Wherever a sample may fall: in prologues and epilogues, PLT entries, the dynamic linker that resolves them, call
	 * backs, assembly, the vdso. The outer frames are always the same.
	 */
	struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	unsigned in_vdso = 0, in_us = 0;
	pthread_t thread;

	(void)state;
	steps = mmap(NULL, STEPS_MAX * sizeof *steps, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(steps, MAP_FAILED);
	assert_int_equal(sigaction(SIGTRAP, &action, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, work_thread, NULL), 0);
	pthread_join(thread, NULL);
	signal(SIGTRAP, SIG_DFL);
	assert_true(step_count > 1000 && step_count < STEPS_MAX);
	for (unsigned i = 0; i < step_count; i++) {
		const struct stepped *s = &steps[i];
		assert_int_equal(dc_unwind(scene.unwinder, s->regs, DC_REGS, s->stack, s->bytes, &unwound), 0);
		unsigned at = 0;
		while (at < unwound.count && unwound.addresses[at] != trail[1])
			at++;
		if (at == unwound.count || unwound.addresses[at + 1] != trail[0])
			fail_msg("step %u at %#lx in %s: %u frames, the second %#lx", i, s->regs[DC_REG_PC],
				 scene_name(&scene, s->regs[DC_REG_PC]), unwound.count, unwound.addresses[1]);
		assert_true(at >= 1 && at + 2 < unwound.count);
		assert_true(unwound.to_root);
		in_vdso += strcmp(scene_name(&scene, s->regs[DC_REG_PC]), "[vdso]") == 0;
		in_us += strcmp(scene_name(&scene, s->regs[DC_REG_PC]), "test_unwind") == 0;
	}
	print_message("%u steps, %u of them in the vdso, %u in the program\n", step_count, in_vdso, in_us);
	assert_true(in_vdso > 0 && in_us > 0);
	munmap(steps, STEPS_MAX * sizeof *steps);
}
#endif

/* Made up: a module at MADE_AT, its frames by hand, and a stack of words */

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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_level_of_a_recursion),
		TEST(test_too_deep_a_recursion_is_cut),
		TEST(test_frames_of_variable_size),
		TEST(test_realigned_frames),
		TEST(test_tail_calls_leave_no_frame),
		TEST(test_a_thread_ends_at_its_start),
		TEST(test_through_a_signal_handler),
		TEST(test_a_handler_on_its_own_stack),
		TEST(test_a_call_through_a_bad_pointer),
		TEST(test_other_ways_to_be_described),
		TEST(test_used_is_what_a_copy_needs),
		TEST(test_registers_of_another_machine),
		TEST(test_rules_by_hand),
		TEST(test_senseless_rules_end_the_walk),
		TEST(test_registers_that_no_machine_has),
		TEST(test_states_remembered_too_deeply),
		TEST(test_a_description_of_itself),
		TEST(test_any_changed_byte_of_a_description),
		TEST(test_any_changed_byte_of_the_vdso),
		TEST(test_a_signal_frame_by_hand),
		TEST(test_code_that_nothing_describes),
#if defined(__x86_64__)
		TEST(test_what_lies_below_the_stack_pointer),
		TEST(test_every_instruction_of_calls_into_libraries),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
