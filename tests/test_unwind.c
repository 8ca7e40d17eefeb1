/* SPDX-License-Identifier: MIT */
/* persist/stacks/unwind.c: stacks of this very program, in all shapes that compilers make. Made-up ones: test_unwind_made.c. */
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
#if defined(__x86_64__)
		TEST(test_what_lies_below_the_stack_pointer),
		TEST(test_every_instruction_of_calls_into_libraries),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
