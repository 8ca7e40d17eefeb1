/* SPDX-License-Identifier: MIT */
/*
 * A signal handler between any two instructions of the recorder: the trap flag of x86-64 stops after each. The handler
 * records, or it forks and both parent and child go on with what was interrupted, or it leaves by siglongjmp(). What is
 * stepped through: every public way into a ring that a thread has, the change to a new chunk among them.
 */
#include "tests/guests.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "recorder/dashcam.h"
#include "recorder/dashcam_inline.h"

#if defined(__x86_64__)

#define TRAP_FLAG 0x100
#define VISITS 3

enum { HANDLER_RECORDS, HANDLER_FORKS };

struct plan {
	int what;
	unsigned stride; /* of @steps, those at which the handler does it */
};

static struct plan plan;
static volatile unsigned steps, did;
static volatile bool in_child;
static uint8_t visits[1 << 16]; /* by address, since this way in began */

static void one_more(void)
{
	DC_INSTANT("by the handler", "n", did);
}

/*
 * A few times at each place are enough, and must be: the kernel's clock_gettime() begins anew when the time was advanced
 * meanwhile, and it is in every turn of that loop if it forks at every instruction.
 */
static bool is_place(uintptr_t address)
{
	uint8_t *seen = &visits[address * UINT64_C(0x9e3779b97f4a7c15) >> 48];
	*seen = (uint8_t)(*seen + (*seen < 255));
	return *seen <= VISITS;
}

static void at_step(uintptr_t address)
{
	if (!is_place(address) || ++steps % plan.stride)
		return;
	did = did + 1;
	if (plan.what == HANDLER_RECORDS) {
		one_more();
		return;
	}
	pid_t pid = fork();
	NEED(pid >= 0);
	if (pid == 0)
		in_child = true;
	else
		NEED(guest_wait(pid) == 0);
}

static void on_trap(int signo, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	(void)signo, (void)info;
	if (!in_child)
		at_step((uintptr_t)u->uc_mcontext.gregs[REG_RIP]);
	if (in_child)
		u->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

/* Past the red zone, which may be in use. */
static inline void trap_switch(void)
{
	__asm__ volatile("leaq -128(%%rsp), %%rsp\n\t"
			 "pushfq\n\t"
			 "xorq %0, (%%rsp)\n\t"
			 "popfq\n\t"
			 "leaq 128(%%rsp), %%rsp"
			 :
			 : "i"(TRAP_FLAG)
			 : "memory", "cc");
}

/* ---- what is stepped through ---- */

static uint64_t count;

static void span(void)
{
	dc_span_t s = DC_BEGIN("span", "a", count, "b", 3);
	DC_END(s);
}

static void text(void)
{
	dc_span_t s = DC_BEGIN("text", "t", "some text that is copied");
	DC_END(s);
}

static void log_line(void)
{
	DC_LOG(DC_INFO, "%d and %s", 1, "a text");
}

static void stack(void)
{
	DC_STACK("stack");
}

static void name(void)
{
	dc_thread_name("a name");
}

static void window(void)
{
	dc_window(UINT64_C(3600) * 1000000000);
}

static void stats(void)
{
	struct dc_stats s = {.size = sizeof s};
	int r = dc_stats(&s);
	NEED(r == 0 || in_child);
}

static void misplaced(void)
{
	DC_END((dc_span_t){0x12345});
}

static void flow(void)
{
	DC_FLOW_OUT(17);
}

static void asynchronous(void)
{
	DC_ASYNC_BEGIN("async", 9, "n", 2);
	DC_ASYNC_END("async", 9);
}

static void (*const ways[])(void) = {span, text, log_line, stack, name, window, stats, misplaced, flow, asynchronous};
#define WAYS (sizeof ways / sizeof ways[0])

/* So full that the next event goes to a new chunk. */
static void fill(void)
{
	while (dc_thread_self->at < dc_thread_self->limit)
		DC_INSTANT("fill");
}

static void child_is_whole(void)
{
	struct dc_stats s = {.size = sizeof s};
	for (int i = 0; i < 3; i++)
		span();
	NEED(dc_stats(&s) == 0 && s.lanes == 1 && s.dropped == 0);
	NEED(unlink(s.ring) == 0);
	_exit(0);
}

static void step_through(void (*way)(void))
{
	memset(visits, 0, sizeof visits);
	trap_switch();
	way();
	if (!in_child)
		trap_switch();
	if (in_child)
		child_is_whole();
}

static void app(void *arg)
{
	struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
	plan = *(const struct plan *)arg;
	NEED(sigaction(SIGTRAP, &trap, NULL) == 0);
	for (size_t i = 0; i < WAYS; i++)
		ways[i](); /* names are bound, sites known */
	one_more();
	did = 1;
	for (size_t i = 0; i < WAYS; i++) {
		step_through(ways[i]);
		fill();
		step_through(ways[i]);
		count++;
	}
	NEED(steps > 2000);
	DC_INSTANT("the end", "handlers", did, "spans", 2 * WAYS);
}

static void run(struct plan p)
{
	static struct guest_rings rings;
	assert_int_equal(guest_run(app, &p), 0);
	struct guest_ring *r = guest_only(&rings);
	const struct guest_event *end = guest_find(r, DC_KIND_INSTANT, "the end", 0);
	assert_non_null(end);
	unsigned handlers = 0;
	assert_int_equal(sscanf(end->text, "handlers=%u", &handlers), 1);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(guest_count(r, DC_KIND_INSTANT, "by the handler"), p.what == HANDLER_RECORDS ? handlers : 1);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "span"), 3);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "text"), 3);
	assert_int_equal(guest_count(r, DC_KIND_STACK, "stack"), 3);
	guest_rings_free(&rings);
}

/* Claim: a handler that records between any two instructions loses nothing, of its own and of what it interrupts. */
static void test_handler_records(void **state)
{
	(void)state;
	if (guest_emulated())
		skip();
	run((struct plan){HANDLER_RECORDS, 1});
}

/*
 * Claim: a handler that forks there leaves a child that goes on, records and has a ring of its own. At a third of them;
 * with DASHCAM_LONG at all.
 */
static void test_handler_forks(void **state)
{
	(void)state;
	if (guest_emulated())
		skip();
	run((struct plan){HANDLER_FORKS, getenv("DASHCAM_LONG") ? 1 : 3});
}

/* ---- the handler does not come back: each time in a thread of its own, some steps further ---- */

struct jump {
	void (*way)(void);
	bool full;        /* its event goes to a new chunk */
	unsigned at_step; /* of @way */
	bool over;        /* @way was over by then */
};

#define AFTER 3 /* events of the thread after the jump */

static sigjmp_buf out;
static unsigned jump_in;

static void on_trap_jump(int signo)
{
	(void)signo;
	if (!--jump_in)
		siglongjmp(out, 1);
}

static void *jumper(void *arg)
{
	struct jump *j = arg;
	DC_INSTANT("a thread's first");
	if (j->full)
		fill();
	jump_in = j->at_step;
	if (!sigsetjmp(out, 1)) {
		trap_switch();
		j->way();
		trap_switch();
		j->over = true;
	}
	for (int i = 0; i < AFTER; i++)
		DC_INSTANT("after the jump", "i", i);
	return NULL;
}

static void app_jumps(void *arg)
{
	const unsigned apart = *(const unsigned *)arg;
	struct dc_opts opts = DC_OPTS_INIT;
	unsigned threads = 0;
	opts.window_ns = UINT64_C(3600) * 1000000000;
	NEED(dc_start(&opts) == 0 && signal(SIGTRAP, on_trap_jump) != SIG_ERR);
	for (size_t i = 0; i < WAYS; i++)
		ways[i]();
	for (size_t i = 0; i < 2 * WAYS; i++) {
		struct jump j = {.way = ways[i / 2], .full = i % 2};
		for (j.at_step = 1; !j.over; j.at_step += apart) {
			pthread_t t;
			NEED(pthread_create(&t, NULL, jumper, &j) == 0 && pthread_join(t, NULL) == 0);
			threads++;
		}
	}
	NEED(threads > 10000 / apart);
	DC_INSTANT("the end", "threads", threads);
}

/* Claim: a handler that leaves by siglongjmp() between any two instructions costs its thread no later event. */
static void test_handler_jumps(void **state)
{
	static struct guest_rings rings;
	unsigned apart = getenv("DASHCAM_LONG") ? 17 : 151, threads = 0;
	(void)state;
	if (guest_emulated())
		skip();
	assert_int_equal(guest_run(app_jumps, &apart), 0);
	struct guest_ring *r = guest_only(&rings);
	const struct guest_event *end = guest_find(r, DC_KIND_INSTANT, "the end", 0);
	assert_non_null(end);
	assert_int_equal(sscanf(end->text, "threads=%u", &threads), 1);
	assert_int_equal(guest_count(r, DC_KIND_INSTANT, "after the jump"), AFTER * threads);
	assert_int_equal(r->dropped, 0);
	guest_rings_free(&rings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_handler_records, guest_teardown),
		cmocka_unit_test_teardown(test_handler_forks, guest_teardown),
		cmocka_unit_test_teardown(test_handler_jumps, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
	puts("skipped: steps by x86-64's trap flag");
	return 77;
}

#endif
