/* SPDX-License-Identifier: MIT */
/*
 * Events that a signal handler leaves by siglongjmp(), at each of their instructions: single steps, by the trap flag. Before,
 * after and around them every event is there, in the lane of its thread, and the thread's pages come back when it exits.
 */
#include "tests/guests.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "recorder/dashcam.h"
#include "recorder/dashcam_inline.h"

#define AFTER 100

static bool steps_possible(void)
{
#if defined(__x86_64__)
	if (GUEST_SANITIZED)
		print_message("a sanitizer steps through its own code\n");
	return !GUEST_SANITIZED && !guest_emulated();
#else
	print_message("single steps are x86-64's here\n");
	return false;
#endif
}

static volatile long step, stop_at; /* instructions of the event so far; where it is left, 0: nowhere */
static volatile sig_atomic_t stepping;

static void steps_begin(long at)
{
	step = 0;
	stop_at = at;
	stepping = 1;
#if defined(__x86_64__) /* below the red zone */
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" ::: "memory", "cc");
#endif
}

static void steps_end(void)
{
	stepping = 0; /* the next trap is the last one */
}

static void no_more_steps(void *context)
{
#if defined(__x86_64__)
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100;
#else
	(void)context;
#endif
}

/* ---- what is stepped through ---- */

static __attribute__((noinline)) void instant(void)
{
	DC_INSTANT("stepped");
}

static __attribute__((noinline)) void text(void)
{
	DC_INSTANT("stepped", "n", 1, "text", "of some length", "m", 2);
}

static __attribute__((noinline)) void begin(void)
{
	DC_BEGIN("stepped", "a", 1, "b", 2);
}

static __attribute__((noinline)) void begin_text(void)
{
	DC_BEGIN("stepped", "a", "text");
}

static dc_span_t around, open_span;

static __attribute__((noinline)) void end(void)
{
	DC_END(open_span);
}

/* The next chunk comes with the first of them, the one before goes with the second. */
static __attribute__((noinline)) void twice(void)
{
	DC_INSTANT("stepped");
	DC_INSTANT("stepped");
}

static void open_inside(void)
{
	open_span = DC_BEGIN("inside", "n", 1);
}

static void open_two(void)
{
	open_inside();
	DC_BEGIN("innermost");
}

static void fill_chunk(void)
{
	open_inside();
	while (dc_thread_self->at < dc_thread_self->limit)
		DC_INSTANT("fill");
}

struct kind {
	const char *name;
	void (*prepare)(void);
	void (*run)(void);
	unsigned events;  /* of it, where it is not left */
	bool first;       /* of its thread */
	long stride;      /* steps from one place to the next, where not all are asked for */
};

/* ---- a thread for each instruction ---- */

static sigjmp_buf out;
static const struct kind *kind;
static bool deep; /* much deeper than the events after it, or where they are */
static long finished; /* steps of one that was not left */

static void on_step(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)info;
	if (!stepping)
		no_more_steps(context);
	else if (++step == stop_at)
		siglongjmp(out, 1);
}

static __attribute__((noinline)) void run_deeper(void)
{
	volatile char room[512];
	room[0] = 1;
	kind->run();
	__asm__ volatile("" ::"r"(room) : "memory");
}

static void *left_there(void *arg)
{
	around = (dc_span_t){0};
	if (!kind->first) {
		around = DC_BEGIN("around", "at", (intptr_t)arg);
		for (int i = 0; i < 10; i++)
			DC_INSTANT("before");
	}
	if (kind->prepare)
		kind->prepare();
	if (!sigsetjmp(out, 1)) {
		steps_begin((intptr_t)arg);
		if (deep)
			run_deeper();
		else
			kind->run();
		steps_end();
		finished = step;
	}
	for (int i = 0; i < AFTER; i++)
		DC_INSTANT("after", "at", (intptr_t)arg);
	DC_END(around);
	DC_INSTANT("level");
	return NULL;
}

static void one_thread(void *(*body)(void *arg), long at)
{
	pthread_t t;
	NEED(pthread_create(&t, NULL, body, (void *)at) == 0 && pthread_join(t, NULL) == 0);
}

static void traps_go_to(void (*handler)(int signo, siginfo_t *info, void *context))
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	NEED(sigaction(SIGTRAP, &sa, NULL) == 0);
}

static void leave_everywhere(void *arg)
{
	struct dc_stats stats = {.size = sizeof stats};
	long stride = getenv("DASHCAM_LONG") ? 1 : ((const struct kind *)arg)->stride, threads = 2;
	kind = arg;
	traps_go_to(on_step);
	DC_INSTANT("level");
	one_thread(left_there, 0); /* sites are known from now on */
	one_thread(left_there, 0);
	for (int turn = 0; turn < 2; turn++) {
		deep = turn;
		for (long at = 1 + (stride > 1) * turn, last = finished; at <= last; at += stride, threads++)
			one_thread(left_there, at);
	}
	NEED(finished > 20);
	NEED(dc_stats(&stats) == 0 && stats.misplaced_ends == 0);
	NEED(kind->first || stats.lanes == 1); /* one that was just being taken is nobody's */
	DC_INSTANT("count", "threads", threads);
}

static bool same_thread(const struct guest_event *a, const struct guest_event *b)
{
	return a->lane == b->lane && a->serial == b->serial;
}

/* Of the thread that @at is of: its events stand side by side. */
static bool has(const struct guest_ring *r, const struct guest_event *at, unsigned kind, const char *name)
{
	while (at > r->event && same_thread(at - 1, at))
		at--;
	for (const struct guest_event *e = at; e < r->event + r->count && same_thread(e, at); e++)
		if (e->kind == kind && strcmp(e->name, name) == 0)
			return true;
	return false;
}

/* Events of a thread are all in one lane; no span is said to be open that never began; and at the end all are closed. */
static void check_threads(const struct guest_ring *r, bool first)
{
	for (const struct guest_event *e = r->event; e < r->event + r->count; e++) {
		if (strcmp(e->name, "level") == 0)
			assert_int_equal(e->depth, 0);
		if (strcmp(e->name, "level") == 0 && e->lane && !first)
			assert_true(has(r, e, DC_KIND_INSTANT, "before") && has(r, e, DC_KIND_INSTANT, "after"));
		if (e->kind == DC_KIND_OPEN)
			assert_true(has(r, e, DC_KIND_BEGIN, e->name));
	}
}

static void check_kind(const struct kind *k)
{
	static struct guest_rings rings;
	print_message("%s\n", k->name);
	assert_int_equal(guest_run(leave_everywhere, (void *)k), 0);
	struct guest_ring *r = guest_only(&rings);
	long threads = 0;
	sscanf(guest_find(r, 0, "count", 0)->text, "threads=%ld", &threads);
	assert_int_equal(guest_count(r, 0, "after"), AFTER * threads);
	assert_int_equal(guest_count(r, 0, "level"), threads + 1);
	assert_int_equal(guest_count(r, 0, "before"), k->first ? 0 : 10 * threads);
	assert_true(guest_count(r, DC_KIND_END, "around") == (size_t)(k->first ? 0 : threads));
	assert_true(guest_count(r, 0, "stepped") <= (size_t)threads * k->events);
	assert_true(guest_count(r, 0, "stepped") >= 2 * k->events);
	assert_int_equal(r->dropped, 0);
	/* an event that was the first of its chunk, left before it was committed, is missing there by number */
	assert_true(r->overwritten <= (k->run == twice || k->first ? (uint64_t)threads : 0));
	if (!k->first)
		assert_true(r->header.lanes_used <= 3); /* main, the threads one after the other, and the page to go on in */
	check_threads(r, k->first);
	guest_rings_free(&rings);
	guest_clean();
}

/* Claim: wherever an event is left, all others are there, in their lane; spans around it end where they end. */
static void test_left_anywhere(void **state)
{
	static const struct kind kinds[] = {
		{"instant", NULL, instant, 1, false, 2},
		{"instant with text", NULL, text, 1, false, 7},
		{"begin", NULL, begin, 1, false, 2},
		{"begin with text", NULL, begin_text, 1, false, 7},
		{"end", open_inside, end, 0, false, 2},
		{"end of what is not the innermost", open_two, end, 0, false, 7},
		{"next chunk", fill_chunk, twice, 2, false, 29},
		{"first", NULL, instant, 1, true, 97},
	};
	(void)state;
	if (!steps_possible())
		skip();
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		check_kind(&kinds[i]);
}

/* ---- what is deeper, and what is on top ---- */

static sigjmp_buf higher;
static volatile sig_atomic_t on_top;

static __attribute__((noinline)) void deeper(int events)
{
	volatile char room[4096];
	room[0] = 1;
	for (int i = 0; i < events; i++)
		DC_INSTANT("deeper");
	__asm__ volatile("" ::"r"(room) : "memory");
}

/* At the given step of the thread's event an event of its own, and that one is left for the thread's. */
static void on_step_of_two(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)info;
	if (!stepping) {
		no_more_steps(context);
	} else if (++step == stop_at && !on_top) {
		on_top = 1;
		steps_begin(stop_at);
		DC_INSTANT("on top");
		steps_end();
		no_more_steps(context);
	} else if (step == stop_at) {
		siglongjmp(higher, 1);
	}
}

static void *leave_two(void *arg)
{
	on_top = 0;
	DC_INSTANT("before");
	if (!sigsetjmp(higher, 1)) {
		steps_begin((intptr_t)arg);
		instant();
		steps_end();
	}
	deeper(10);
	for (int i = 0; i < 10; i++)
		DC_INSTANT("after");
	deeper(10);
	return NULL;
}

static void two_levels(void *arg)
{
	struct sigaction sa = {.sa_sigaction = on_step_of_two, .sa_flags = SA_SIGINFO | SA_NODEFER};
	(void)arg;
	NEED(sigaction(SIGTRAP, &sa, NULL) == 0);
	DC_INSTANT("level");
	for (long at = 1; at < 40; at++)
		one_thread(leave_two, at);
}

/* Claim: two events on top of one another are left by one jump; what comes from deeper down is recorded meanwhile. */
static void test_left_two(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (!steps_possible())
		skip();
	assert_int_equal(guest_run(two_levels, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(guest_count(r, 0, "before"), 39);
	assert_int_equal(guest_count(r, 0, "after"), 390);
	assert_int_equal(guest_count(r, 0, "deeper") + r->dropped, 780);
	assert_true(guest_count(r, 0, "deeper") >= 390);
	guest_rings_free(&rings);
}

/* ---- a handler that switches stacks: the event was not left, and one day it goes on ---- */

#if defined(__GLIBC__)
static ucontext_t caller, low, high;

static void on_step_switch(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)info;
	if (!stepping) {
		no_more_steps(context);
	} else if (++step == stop_at) {
		steps_end();
		no_more_steps(context);
		swapcontext(&low, &high);
	}
}

static void on_low(void)
{
	DC_INSTANT("before");
	steps_begin(stop_at);
	instant();
	steps_end();
	for (int i = 0; i < AFTER; i++)
		DC_INSTANT("after");
}

static void on_high(void)
{
	for (int i = 0; i < AFTER; i++)
		DC_INSTANT("elsewhere");
}

static void coroutine(ucontext_t *c, void (*body)(void), uint8_t *stack, size_t bytes, ucontext_t *next)
{
	getcontext(c);
	c->uc_stack.ss_sp = stack;
	c->uc_stack.ss_size = bytes;
	c->uc_link = next;
	makecontext(c, body, 0);
}

static void *switch_stacks(void *arg)
{
	enum { BYTES = 256 << 10 };
	uint8_t *stacks = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(stacks != MAP_FAILED);
	stop_at = (intptr_t)arg;
	coroutine(&high, on_high, stacks + BYTES, BYTES, &low);
	coroutine(&low, on_low, stacks, BYTES, &caller);
	swapcontext(&caller, &low);
	munmap(stacks, 2 * BYTES);
	return NULL;
}

static void switch_everywhere(void *arg)
{
	(void)arg;
	traps_go_to(on_step_switch);
	DC_INSTANT("level");
	for (long at = 1; at < 40; at++)
		one_thread(switch_stacks, at);
}
#endif

/* Claim: an event that was taken for left, and goes on after all, is there like all others. */
static void test_not_left(void **state)
{
	(void)state;
#if defined(__GLIBC__)
	static struct guest_rings rings;
	if (!steps_possible())
		skip();
	assert_int_equal(guest_run(switch_everywhere, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(guest_count(r, 0, "before"), 39);
	assert_int_equal(guest_count(r, 0, "stepped"), 39);
	assert_int_equal(guest_count(r, 0, "elsewhere"), 39 * AFTER);
	assert_int_equal(guest_count(r, 0, "after"), 39 * AFTER);
	assert_int_equal(r->dropped, 0);
	guest_rings_free(&rings);
#else
	print_message("this libc has no swapcontext()\n");
	skip();
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_left_anywhere, guest_teardown),
		cmocka_unit_test_teardown(test_left_two, guest_teardown),
		cmocka_unit_test_teardown(test_not_left, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
