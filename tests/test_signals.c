/* SPDX-License-Identifier: MIT */
/*
 * Signal handlers that record, whenever they come: on top of an event in flight, on an alternate stack, as the first
 * event of all, on top of one another. Lanes stay decodable and every event is either there or counted.
 */
#include "tests/guests.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "recorder/dashcam.h"

static volatile sig_atomic_t handled;

static void on_alarm(int signo)
{
	(void)signo;
	int kept = errno;
	errno = 4711;
	DC_SPAN("handler", "n", (int)handled, "text", "from a handler");
	DC_INSTANT("in handler");
	handled = handled + 1;
	NEED(errno == 4711);
	errno = kept;
}

static void alarms(long us)
{
	struct itimerval often = {{0, us}, {0, us}};
	NEED(setitimer(ITIMER_REAL, &often, NULL) == 0);
}

static void loop(int count)
{
	for (int i = 0; i < count; i++) {
		DC_SPAN("loop", "i", i);
		DC_INSTANT("text", "s",
			   "a text that takes a moment to copy, long enough to be interrupted now and then");
	}
}

static void storm(void *arg)
{
	(void)arg;
	signal(SIGALRM, on_alarm);
	loop(1);
	alarms(100);
	while (handled < 3000)
		loop(1000);
	alarms(0);
	struct dc_stats stats = {.size = sizeof stats};
	NEED(dc_stats(&stats) == 0 && stats.misplaced_ends == 0);
	DC_INSTANT("count", "handled", (int)handled);
	DC_INSTANT("level");
}

/* Claim: under a storm of timer signals no event is lost, torn or put at the wrong depth. */
static void test_storm(void **state)
{
	static struct guest_rings rings;
	char text[64];
	(void)state;
	assert_int_equal(guest_run(storm, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(r->dropped, 0);
	const struct guest_event *count = guest_find(r, 0, "count", 0);
	snprintf(text, sizeof text, "handled=%zu", guest_count(r, 0, "in handler"));
	if (r->header.chunks_grown < r->header.chunk_cap)
		assert_string_equal(count->text, text);
	assert_int_equal(guest_find(r, 0, "level", 0)->depth, 0);
	assert_true(r->header.lanes_used >= 1 && r->header.lanes_used <= 2);
	for (size_t i = 0; i < r->count; i++)
		if (r->event[i].kind == DC_KIND_END)
			assert_false(r->event[i].implied);
	guest_rings_free(&rings);
}

static void *small_stack(size_t bytes)
{
	/* with a page below that nobody may touch */
	uint8_t *at = mmap(NULL, bytes + 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(at != MAP_FAILED && mprotect(at + 65536, bytes, PROT_READ | PROT_WRITE) == 0);
	stack_t ss = {.ss_sp = at + 65536, .ss_size = bytes};
	NEED(sigaltstack(&ss, NULL) == 0);
	return at;
}

static void first_in_handler(void *arg)
{
	(void)arg;
	small_stack(GUEST_SANITIZED ? 1 << 20 : 12288);
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK};
	sigaction(SIGUSR1, &sa, NULL);
	raise(SIGUSR1);
	NEED(handled == 1);
	DC_INSTANT("after");
}

/* Claim: the first event of a process may be in a handler on a small alternate stack. */
static void test_first_in_handler(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(first_in_handler, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "handler"), 1);
	assert_int_equal(guest_count(r, 0, "after"), 1);
	assert_int_equal(r->dropped, 0);
	guest_rings_free(&rings);
}

static void on_stack_alarm(int signo)
{
	on_alarm(signo);
	DC_STACK("from an alternate stack");
}

static void storm_on_stack(void *arg)
{
	(void)arg;
	small_stack(GUEST_SANITIZED ? 1 << 20 : 16384);
	struct sigaction sa = {.sa_handler = on_stack_alarm, .sa_flags = SA_ONSTACK};
	sigaction(SIGALRM, &sa, NULL);
	loop(1);
	alarms(100);
	while (handled < 300)
		loop(100);
	alarms(0);
}

/* Claim: the same on an alternate stack, stack traces included. */
static void test_storm_on_stack(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(storm_on_stack, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(r->dropped, 0);
	assert_true(guest_count(r, DC_KIND_STACK, NULL) >= 300);
	guest_rings_free(&rings);
}

static void start_under_fire(void *arg)
{
	(void)arg;
	signal(SIGALRM, on_alarm);
	alarms(20 + (intptr_t)arg % 60);
	while (!handled)
		continue;
	loop(10);
	alarms(0);
	struct dc_stats stats = {.size = sizeof stats};
	NEED(dc_stats(&stats) == 0);
	/* each handler made three events: a begin, an instant, an end; ends of lost begins are none */
	DC_INSTANT("count", "handled", (int)handled);
}

/* Claim: signals while the recorder starts lose events only as counted ones. */
static void test_start_under_fire(void **state)
{
	static struct guest_rings rings;
	(void)state;
	for (intptr_t i = 0; i < (GUEST_SANITIZED ? 10 : 30); i++) {
		assert_int_equal(guest_run(start_under_fire, (void *)i), 0);
		struct guest_ring *r = guest_only(&rings);
		int expected = 0;
		sscanf(guest_find(r, 0, "count", 0)->text, "handled=%d", &expected);
		uint64_t made = guest_count(r, DC_KIND_BEGIN, "handler") + guest_count(r, 0, "in handler");
		assert_int_equal(made + r->dropped, 2 * (uint64_t)expected);
		guest_rings_free(&rings);
		guest_clean();
	}
}

static void on_outer(int signo)
{
	(void)signo;
	for (int i = 0; i < 20; i++)
		DC_INSTANT("outer", "s",
			   "a text that takes a moment to copy, long enough to be interrupted now and then");
}

static void three_levels(void *arg)
{
	struct itimerval often = {{0, 300}, {0, 300}};
	(void)arg;
	signal(SIGVTALRM, on_outer);
	signal(SIGALRM, on_alarm);
	NEED(setitimer(ITIMER_VIRTUAL, &often, NULL) == 0);
	alarms(100);
	while (handled < 3000)
		loop(100);
	alarms(0);
	memset(&often, 0, sizeof often);
	NEED(setitimer(ITIMER_VIRTUAL, &often, NULL) == 0);
	DC_INSTANT("count", "handled", (int)handled);
}

/* Claim: handlers on top of handlers are recorded two deep; the third level is counted, event by event. */
static void test_three_levels(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(three_levels, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	int expected = 0;
	sscanf(guest_find(r, 0, "count", 0)->text, "handled=%d", &expected);
	uint64_t made = guest_count(r, DC_KIND_BEGIN, "handler") + guest_count(r, 0, "in handler");
	if (r->header.chunks_grown < r->header.chunk_cap) {
		assert_true(made + r->dropped >= 2 * (uint64_t)expected);
		assert_true(made <= 2 * (uint64_t)expected);
	}
	guest_rings_free(&rings);
}

static sigjmp_buf out;

static void on_jump(int signo)
{
	(void)signo;
	DC_INSTANT("jumping");
	handled = handled + 1;
	siglongjmp(out, 1);
}

static void jump_out(void *arg)
{
	(void)arg;
	signal(SIGALRM, on_jump);
	sigsetjmp(out, 1);
	if (handled < 200) {
		alarms(300);
		for (;;)
			loop(10);
	}
	alarms(0);
	loop(1000);
}

/* Claim: handlers that leave by siglongjmp, out of the middle of events, harm neither app nor ring. */
static void test_jump_out(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(jump_out, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	/* an event that was jumped out of stays in flight for ever: what comes goes to the nested lane, then
	 * is counted */
	assert_true(guest_count(r, DC_KIND_BEGIN, "loop") + r->dropped >= 1000);
	guest_rings_free(&rings);
}

static void on_jump_early(int signo)
{
	(void)signo;
	handled = handled + 1;
	siglongjmp(out, 1);
}

/* A start takes some 100 µs, many times that under a sanitizer: later children jump out later. */
static void jump_out_of_start(void *arg)
{
	struct dc_stats stats = {.size = sizeof stats};
	struct itimerval once = {.it_value = {0, 10 + (intptr_t)arg % 25 * (GUEST_SANITIZED ? 100 : 10)}};
	signal(SIGALRM, on_jump_early);
	if (sigsetjmp(out, 1) == 0) {
		NEED(setitimer(ITIMER_REAL, &once, NULL) == 0);
		for (;;)
			loop(1);
	}
	NEED(handled == 1);
	loop(10);
	NEED(dc_stats(&stats) == 0 && stats.ring[0]);
	DC_INSTANT("after");
}

/* Claim: a handler that leaves by siglongjmp() while the process starts to record leaves a process that records. */
static void test_jump_out_of_start(void **state)
{
	static struct guest_rings rings;
	(void)state;
	for (intptr_t i = 0; i < (GUEST_SANITIZED ? 25 : 100); i++) {
		assert_int_equal(guest_run(jump_out_of_start, (void *)i), 0);
		struct guest_ring *r = guest_only(&rings);
		assert_int_equal(r->header.magic, DC_RING_MAGIC);
		guest_rings_free(&rings);
		guest_clean();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_storm, guest_teardown),
		cmocka_unit_test_teardown(test_first_in_handler, guest_teardown),
		cmocka_unit_test_teardown(test_storm_on_stack, guest_teardown),
		cmocka_unit_test_teardown(test_start_under_fire, guest_teardown),
		cmocka_unit_test_teardown(test_three_levels, guest_teardown),
		cmocka_unit_test_teardown(test_jump_out, guest_teardown),
		cmocka_unit_test_teardown(test_jump_out_of_start, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
