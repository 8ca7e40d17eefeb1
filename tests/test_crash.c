/* SPDX-License-Identifier: MIT */
/*
 * Fatal signals: the ring says which thread was hit, where and how its stack looked; the process dies as it would have died
 * without us.
 */
#include "tests/guests.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/registers.h"
#include "recorder/dashcam.h"

#ifdef __clang__
#define NOINLINE __attribute__((noinline)) /* it does not clone */
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif

static void *volatile null;
static void (*volatile null_function)(void);
static volatile int sink;

/* ---- ways to die ---- */

NOINLINE static void read_null(void)
{
	sink = *(volatile int *)null;
	sink++;
}

static void die_read(void *arg)
{
	(void)arg;
	DC_SPAN("reading", "n", 1);
	read_null();
}

NOINLINE static void call_null(void)
{
	null_function();
	sink++;
}

static void die_call(void *arg)
{
	(void)arg;
	DC_INSTANT("calling");
	call_null();
}

static void die_abort(void *arg)
{
	(void)arg;
	DC_INSTANT("aborting");
	abort();
}

static void die_trap(void *arg)
{
	(void)arg;
	DC_INSTANT("trapping");
#if defined(__x86_64__)
	__asm__ volatile("ud2");
#else
	__asm__ volatile(".inst 0");
#endif
}

NOINLINE static int recurse(int n)
{
	volatile char frame[256];
	frame[0] = (char)n;
	return n ? recurse(n + 1) + frame[0] : 0;
}

static void die_overflow(void *arg)
{
	(void)arg;
	DC_INSTANT("recursing");
	sink = recurse(1);
}

static void *overflow_thread(void *arg)
{
	die_overflow(arg);
	return NULL;
}

static void die_overflow_in_thread(void *arg)
{
	pthread_t t;
	DC_INSTANT("main");
	pthread_create(&t, NULL, overflow_thread, arg);
	pthread_join(t, NULL);
}

static void on_user(int sig)
{
	(void)sig;
	read_null();
	sink++; /* no tail call */
}

static void die_in_handler(void *arg)
{
	(void)arg;
	DC_INSTANT("raising");
	signal(SIGUSR1, on_user);
	raise(SIGUSR1);
}

static void die_unrecorded(void *arg)
{
	(void)arg;
	DC_INSTANT("parent");
	pid_t pid = fork();
	if (pid == 0)
		read_null();
	int status;
	NEED(waitpid(pid, &status, 0) == pid);
	NEED(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static pthread_barrier_t barrier;

static void *crash_thread(void *arg)
{
	(void)arg;
	DC_INSTANT("ready");
	pthread_barrier_wait(&barrier);
	read_null();
	return NULL;
}

static void die_all(void *arg)
{
	pthread_t t;
	pthread_barrier_init(&barrier, NULL, 8);
	for (int i = 0; i < 8; i++)
		pthread_create(&t, NULL, crash_thread, arg);
	pause();
}

/* ---- what must be there ---- */

static bool copies_stack(void)
{
	int from = 7, to = 0;
	struct iovec a = {&to, sizeof to}, b = {&from, sizeof from};
	return process_vm_readv(getpid(), &a, 1, &b, 1, 0) == sizeof to;
}

static const struct dc_ring_crash *crash_of(const struct guest_ring *r, int sig)
{
	assert_true(r->header.flags & DC_RING_CRASHED);
	assert_int_equal(r->crash.seq, 1);
	assert_int_equal(r->crash.signal, sig);
	assert_int_equal(r->crash.reg_count, DC_REGS);
	assert_int_equal(r->crash.regs[DC_REG_SP], r->crash.sp);
	return &r->crash;
}

static bool inside(uint64_t address, void (*function)(void))
{
	return address >= (uintptr_t)function && address - (uintptr_t)function < 64;
}

static bool on_stack(const struct guest_ring *r, void (*function)(void))
{
	for (uint32_t i = 0; i + 8 <= r->crash.stack_bytes; i += 8) {
		uint64_t word;
		memcpy(&word, r->crash_stack + i, sizeof word);
		if (inside(word, function))
			return true;
	}
	return false;
}

static struct guest_ring *die(struct guest_rings *rings, void (*how)(void *), int sig)
{
	assert_int_equal(guest_run(how, NULL), 1000 + sig);
	return guest_only(rings);
}

/* Claim: a fault is recorded with the faulting instruction, the address, the stack; what was recorded before stays. */
static void test_read(void **state)
{
	static struct guest_rings rings;
	(void)state;
	struct guest_ring *r = die(&rings, die_read, SIGSEGV);
	const struct dc_ring_crash *c = crash_of(r, SIGSEGV);
	assert_int_equal(c->address, 0);
	assert_int_equal(c->code, SEGV_MAPERR);
	assert_int_equal(c->tid, r->header.pid);
	assert_true(inside(c->regs[DC_REG_PC], read_null));
	if (copies_stack())
		assert_true(c->stack_bytes > 512);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "reading"), 1);
	assert_int_equal(r->header.flags & DC_RING_GOODBYE, 0);
	guest_rings_free(&rings);
}

/* Claim: after a call through a null pointer the way back is on the stack, or in the link register. */
static void test_call(void **state)
{
	static struct guest_rings rings;
	(void)state;
	struct guest_ring *r = die(&rings, die_call, SIGSEGV);
	const struct dc_ring_crash *c = crash_of(r, SIGSEGV);
	assert_int_equal(c->regs[DC_REG_PC], 0);
#if defined(__x86_64__)
	if (copies_stack())
		assert_true(on_stack(r, call_null));
#else
	(void)on_stack;
	assert_true(inside(c->regs[DC_REG_ARM_LR], call_null));
#endif
	guest_rings_free(&rings);
}

/* Claim: abort() and illegal instructions end as they would. */
static void test_others(void **state)
{
	static struct guest_rings rings;
	(void)state;
	crash_of(die(&rings, die_abort, SIGABRT), SIGABRT);
	guest_rings_free(&rings);
	guest_clean();
	crash_of(die(&rings, die_trap, SIGILL), SIGILL);
	guest_rings_free(&rings);
}

/* Claim: a stack that overflowed is no reason to know nothing: main's and a thread's. */
static void test_overflow(void **state)
{
	static struct guest_rings rings;
	(void)state;
	const struct dc_ring_crash *c = crash_of(die(&rings, die_overflow, SIGSEGV), SIGSEGV);
	assert_true(inside(c->regs[DC_REG_PC], (void (*)(void))recurse) || c->regs[DC_REG_PC] > (uintptr_t)recurse);
	if (copies_stack())
		assert_true(c->stack_bytes > 16 * 1024 && on_stack(&rings.ring[0], (void (*)(void))recurse));
	guest_rings_free(&rings);
	guest_clean();
	struct guest_ring *r = die(&rings, die_overflow_in_thread, SIGSEGV);
	assert_true(crash_of(r, SIGSEGV)->tid != r->header.pid);
	guest_rings_free(&rings);
}

/* Claim: a crash in the app's own signal handler is one like any other. */
static void test_in_handler(void **state)
{
	static struct guest_rings rings;
	(void)state;
	struct guest_ring *r = die(&rings, die_in_handler, SIGSEGV);
	assert_true(inside(crash_of(r, SIGSEGV)->regs[DC_REG_PC], read_null));
	if (copies_stack())
		assert_true(on_stack(r, (void (*)(void))on_user));
	guest_rings_free(&rings);
}

/* Claim: a child that has recorded nothing yet has a ring with its crash. */
static void test_child(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(die_unrecorded, NULL), 0);
	guest_rings(&rings);
	assert_int_equal(rings.count, 2);
	assert_int_equal(rings.ring[0].crash.seq, 0);
	assert_true(inside(crash_of(&rings.ring[1], SIGSEGV)->regs[DC_REG_PC], read_null));
	guest_rings_free(&rings);
}

/* Claim: of eight threads that crash at once one is recorded, completely, each time. */
static void test_eight(void **state)
{
	static struct guest_rings rings;
	(void)state;
	for (int i = 0; i < 25; i++) {
		struct guest_ring *r = die(&rings, die_all, SIGSEGV);
		assert_true(inside(crash_of(r, SIGSEGV)->regs[DC_REG_PC], read_null));
		guest_rings_free(&rings);
		guest_clean();
	}
}

static volatile sig_atomic_t handled;
static struct sigaction before;

static void on_segv(int sig)
{
	(void)sig;
	handled++;
	signal(SIGSEGV, SIG_DFL);
}

static void die_handled(void *arg)
{
	(void)arg;
	signal(SIGSEGV, on_segv);
	DC_INSTANT("mine");
	read_null();
}

static void on_segv_chain(int sig, siginfo_t *info, void *context)
{
	handled++;
	before.sa_sigaction(sig, info, context);
}

static void die_chained(void *arg)
{
	struct sigaction mine = {.sa_sigaction = on_segv_chain, .sa_flags = SA_SIGINFO};
	(void)arg;
	DC_INSTANT("mine");
	sigaction(SIGSEGV, &mine, &before);
	read_null();
	_exit(handled); /* would be an endless loop if our handler went back to theirs */
}

/* Claim: a signal the app handles is the app's; a handler that calls the one before it finds ours, and ends. */
static void test_handlers(void **state)
{
	static struct guest_rings rings;
	(void)state;
	struct guest_ring *r = die(&rings, die_handled, SIGSEGV);
	assert_int_equal(r->crash.seq, 0);
	guest_rings_free(&rings);
	guest_clean();
	crash_of(die(&rings, die_chained, SIGSEGV), SIGSEGV);
	guest_rings_free(&rings);
}

static void die_off(void *arg)
{
	setenv("DASHCAM_CRASH", "0", 1);
	die_read(arg);
}

/* Claim: DASHCAM_CRASH=0 leaves signals alone. */
static void test_off(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(die(&rings, die_off, SIGSEGV)->crash.seq, 0);
	guest_rings_free(&rings);
}

static void die_sent(void *arg)
{
	(void)arg;
	DC_INSTANT("waiting");
	for (;;)
		pause();
}

/* The signals that @pid gets until it dies of one. Return: how many were seen. */
static int trace(pid_t pid, siginfo_t *seen, int room)
{
	int n = 0, status;
	while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
		if (n < room && ptrace(PTRACE_GETSIGINFO, pid, NULL, &seen[n]) == 0)
			n++;
		ptrace(PTRACE_CONT, pid, NULL, (void *)(uintptr_t)WSTOPSIG(status));
	}
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	return n;
}

/* Claim: a signal that was sent kills with the siginfo it was sent with; a fault, with that of the fault. */
static void test_siginfo(void **state)
{
	static struct guest_rings rings;
	siginfo_t seen[4] = {0};
	(void)state;
	pid_t pid = guest_start(die_sent, NULL);
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0) { /* qemu-user */
		kill(pid, SIGKILL);
		guest_wait(pid);
		skip();
	}
	for (rings.count = 0; rings.count == 0; guest_rings(&rings)) /* it has begun */
		;
	guest_rings_free(&rings);
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	kill(pid, SIGSEGV);
	assert_int_equal(trace(pid, seen, 4), 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(seen[i].si_signo, SIGSEGV);
		assert_int_equal(seen[i].si_code, SI_USER);
		assert_int_equal(seen[i].si_pid, getpid());
	}
	assert_int_equal(crash_of(guest_only(&rings), SIGSEGV)->sender_pid, getpid());
	guest_rings_free(&rings);
	guest_clean();
	pid = guest_start(die_read, NULL);
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0 && trace(pid, seen, 4) == 2)
		assert_memory_equal(&seen[0], &seen[1], sizeof(siginfo_t));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_read, guest_teardown),
		cmocka_unit_test_teardown(test_call, guest_teardown),
		cmocka_unit_test_teardown(test_others, guest_teardown),
		cmocka_unit_test_teardown(test_overflow, guest_teardown),
		cmocka_unit_test_teardown(test_in_handler, guest_teardown),
		cmocka_unit_test_teardown(test_child, guest_teardown),
		cmocka_unit_test_teardown(test_eight, guest_teardown),
		cmocka_unit_test_teardown(test_handlers, guest_teardown),
		cmocka_unit_test_teardown(test_off, guest_teardown),
		cmocka_unit_test_teardown(test_siginfo, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
