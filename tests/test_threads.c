/* SPDX-License-Identifier: MIT */
/*
 * Threads that come and go, by every door: their lanes and chunks serve the next ones, nothing is dropped,
 * and spans left by longjmp are closed by the next end.
 */
#include "tests/guests.h"

#include <pthread.h>
#include <setjmp.h>
#include <string.h>
#include <unistd.h>

#include "recorder/dashcam.h"

static void *one_event(void *arg)
{
	DC_INSTANT("short", "i", (int)(intptr_t)arg);
	return NULL;
}

static void many_threads(void *arg)
{
	pthread_t t;
	int count = (int)(intptr_t)arg;
	for (int i = 0; i < count; i++) {
		NEED(pthread_create(&t, NULL, one_event, (void *)(intptr_t)i) == 0);
		NEED(pthread_join(t, NULL) == 0);
	}
}

/* Claim: 10,000 short threads use a handful of lanes and every one of them is there, under its own serial. */
static void test_short_threads(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(many_threads, (void *)10000), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(r->overwritten, 0);
	assert_true(r->header.lanes_used <= 2);
	assert_int_equal(r->events, 10000);
	uint32_t last = 0;
	for (size_t i = 0; i < r->count; i++) {
		if (r->event[i].kind != DC_KIND_INSTANT)
			continue;
		assert_true(r->event[i].serial > last);
		last = r->event[i].serial;
	}
	assert_int_equal(last, 10000);
	guest_rings_free(&rings);
}

static pthread_barrier_t all_here;

static void *a_while(void *arg)
{
	pthread_barrier_wait(&all_here);
	for (int i = 0; i < 3; i++) {
		DC_SPAN("tick", "thread", (int)(intptr_t)arg);
		usleep(1000000);
	}
	pthread_barrier_wait(&all_here);
	return NULL;
}

static void thousand(void *arg)
{
	static pthread_t t[1000];
	pthread_attr_t attr;
	(void)arg;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	pthread_barrier_init(&all_here, NULL, 1001);
	NEED(dc_start(NULL) == 0);
	for (int i = 0; i < 1000; i++)
		NEED(pthread_create(&t[i], &attr, a_while, (void *)(intptr_t)i) == 0);
	pthread_barrier_wait(&all_here);
	pthread_barrier_wait(&all_here);
	for (int i = 0; i < 1000; i++)
		pthread_join(t[i], NULL);
	/* their chunks are not held for ever: one thread alone has the ring to itself */
	for (int i = 0; i < 100000; i++)
		DC_INSTANT("alone", "i", i);
}

/* Claim: 1,000 threads at one span a second fit the default ring without any loss. */
static void test_thousand_threads(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(thousand, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(r->overwritten, 0);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "tick"), 3000);
	assert_int_equal(guest_count(r, DC_KIND_END, NULL), 3000);
	assert_int_equal(guest_count(r, 0, "alone"), 100000);
	guest_rings_free(&rings);
}

static void crowd_then_one(void *arg)
{
	static pthread_t t[220];
	struct dc_opts opts = DC_OPTS_INIT;
	(void)arg;
	opts.memory_bytes = 1 << 20; /* fewer chunks than threads */
	NEED(dc_start(&opts) == 0);
	pthread_barrier_init(&all_here, NULL, 221);
	for (int i = 0; i < 220; i++)
		NEED(pthread_create(&t[i], NULL, a_while, NULL) == 0);
	pthread_barrier_wait(&all_here);
	pthread_barrier_wait(&all_here);
	for (int i = 0; i < 220; i++)
		pthread_join(t[i], NULL);
	struct dc_stats before = {.size = sizeof before}, after = {.size = sizeof after};
	NEED(dc_stats(&before) == 0);
	for (int i = 0; i < 100000; i++)
		DC_INSTANT("alone", "i", i);
	NEED(dc_stats(&after) == 0);
	NEED(after.dropped == before.dropped);
}

/* Claim: chunks of threads that are gone do not starve those that stay, however small the ring. */
static void test_crowd(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(crowd_then_one, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_true(guest_count(r, 0, "alone") > 10000);
	guest_rings_free(&rings);
}

static pthread_key_t early_key, late_key;

static void record_at_exit(void *arg)
{
	DC_INSTANT("destructor", "round", (int)(intptr_t)arg);
	if ((intptr_t)arg < 3)
		pthread_setspecific(early_key, (void *)((intptr_t)arg + 1));
}

static void *leaves_keys(void *arg)
{
	(void)arg;
	pthread_setspecific(early_key, (void *)1);
	pthread_setspecific(late_key, (void *)1);
	DC_INSTANT("body");
	return NULL;
}

static void *leaves_by_exit(void *arg)
{
	DC_SPAN("exits", "n", 1);
	(void)arg;
	pthread_exit(NULL);
}

static volatile bool left;

static void *waits_for_cancel(void *arg)
{
	(void)arg;
	DC_SPAN("cancelled");
	while (!left)
		usleep(1000);
	return NULL;
}

static void *cancelled_anywhere(void *arg)
{
	(void)arg;
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (int i = 0; i < 20000; i++)
		DC_INSTANT("anywhere", "i", i, "text", "text to copy while the cancellation comes");
	return NULL;
}

static void exits(void *arg)
{
	pthread_t t;
	(void)arg;
	NEED(pthread_key_create(&early_key, record_at_exit) == 0);
	NEED(pthread_key_create(&late_key, record_at_exit) == 0);
	for (int i = 0; i < 100; i++) {
		NEED(pthread_create(&t, NULL, leaves_keys, NULL) == 0 && pthread_join(t, NULL) == 0);
		NEED(pthread_create(&t, NULL, leaves_by_exit, NULL) == 0 && pthread_join(t, NULL) == 0);
		NEED(pthread_create(&t, NULL, waits_for_cancel, NULL) == 0);
		usleep(200);
		NEED(pthread_cancel(t) == 0 && pthread_join(t, NULL) == 0);
	}
}

/* Claim: events of TSD destructors, of threads that call pthread_exit() and of cancelled ones are recorded;
 * lanes come back. */
static void test_exits(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(exits, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(guest_count(r, 0, "destructor"), 400);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "exits"), 100);
	assert_true(r->header.lanes_used <= 4);
	guest_rings_free(&rings);
}

static void cancels(void *arg)
{
	pthread_t t;
	(void)arg;
	DC_INSTANT("start");
	for (int i = 0; i < 300; i++) {
		NEED(pthread_create(&t, NULL, cancelled_anywhere, NULL) == 0);
		usleep((unsigned)(i * 7 % 400));
		NEED(pthread_cancel(t) == 0 && pthread_join(t, NULL) == 0);
	}
	usleep(100000); /* a grower that was cancelled is given up after a while */
	many_threads((void *)300);
	for (int i = 0; i < 50000; i++)
		DC_INSTANT("afterwards", "i", i);
}

/* Claim: a thread cancelled asynchronously, in the middle of an event, leaves a lane that others can use. */
static void test_async_cancel(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (GUEST_SANITIZED) {
		print_message("sanitizers do not outlive an asynchronous cancellation\n");
		skip();
	}
	assert_int_equal(guest_run(cancels, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(guest_count(r, 0, "short"), 300);
	assert_int_equal(guest_count(r, 0, "afterwards"), 50000);
	assert_true(r->header.lanes_used < 100); /* one cancelled while it took its lane keeps it */
	guest_rings_free(&rings);
}

static jmp_buf out;

static void jump(int depth)
{
	for (; depth >= 0; depth--)
		DC_BEGIN("skipped", "depth", depth);
	longjmp(out, 1);
}

static __attribute__((noinline)) void land(int depth, int events)
{
	if (setjmp(out))
		return;
	for (int i = 0; i < events; i++)
		DC_INSTANT("noise");
	jump(depth);
}

static void jumps(void *arg)
{
	struct dc_stats stats = {.size = sizeof stats};
	(void)arg;
	for (int i = 0; i < 100; i++) {
		dc_span_t s = DC_BEGIN("setjmp");
		land(5, 0);
		DC_END(s);
	}
	NEED(dc_stats(&stats) == 0 && stats.misplaced_ends == 0);
	/* from deeper than is tracked, across chunks */
	dc_span_t s = DC_BEGIN("setjmp deep");
	land(500, 3000);
	DC_END(s);
	DC_INSTANT("level");
}

/* Claim: spans left by longjmp are closed, as implied, by the end of the span around them. */
static void test_longjmp(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(jumps, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	size_t implied = 0;
	for (size_t i = 0; i < r->count; i++)
		implied += r->event[i].kind == DC_KIND_END && strcmp(r->event[i].name, "skipped") == 0 &&
			   r->event[i].implied;
	assert_true(implied >= 600);
	assert_int_equal(guest_count(r, DC_KIND_END, "setjmp"), 100);
	assert_int_equal(guest_find(r, 0, "level", 0)->depth, 0);
	guest_rings_free(&rings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_short_threads, guest_teardown),
		cmocka_unit_test_teardown(test_thousand_threads, guest_teardown),
		cmocka_unit_test_teardown(test_crowd, guest_teardown),
		cmocka_unit_test_teardown(test_exits, guest_teardown),
		cmocka_unit_test_teardown(test_async_cancel, guest_teardown),
		cmocka_unit_test_teardown(test_longjmp, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
