/* SPDX-License-Identifier: MIT */
/* Rules about threads, as the lane table has them: spans that stay open, threads and processes that fall silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "evaluating.h"

static void test_open(void **state)
{
	/* A span that does not end fires once, when it is too old; another one in another thread fires again. */
	(void)state;
	begin("span \"job*\" open > 30s or span \"db.query\" open > 30s");
	for (int i = 0; i < 40; i++) {
		look(SECOND);
		lane(0, now, 1, DB, 1000 * SECOND);
		lane(1, now, 1, HTTP, 1000 * SECOND);
	}
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, TID);
	assert_true(fired[0].value > 30e9 && fired[0].value <= 31e9);
	assert_string_equal(fired_names[0], "db.query");
	lane(2, now, 1, DB, 1005 * SECOND);
	look(SECOND);
	assert_int_equal(since(), 2);
	lane(0, now, 0, 0, 0);
	lane(2, now, 0, 0, 0);
	look(SECOND);
	lane(0, now, 1, DB, 1005 * SECOND);
	look(SECOND);
	assert_int_equal(since(), 1);
}

static void test_open_outer(void **state)
{
	/* A span is open also while another one inside it is; the tail knows of it, the lane table only of the innermost. */
	(void)state;
	begin("span \"http.request\" open > 5s");
	span_begin(HTTP, 0, 1);
	now += SECOND;
	span_begin(DB, 0, 2);
	lane(0, now, 2, DB, now);
	look(SECOND);
	assert_int_equal(since(), 0);
	now += 4 * SECOND;
	lane(0, 1001 * SECOND, 2, DB, 1001 * SECOND);
	assert_int_equal(since(), 1);
	lane(0, 1001 * SECOND, 2, DB, 1002 * SECOND); /* not the one the tail knows: what is around it is not known */
	look(SECOND);
	assert_int_equal(since(), 0);
}

static void test_open_unusual(void **state)
{
	/* Twenty times as long as the longest ever, and two seconds, once fifty have ended: before, nobody knows. */
	(void)state;
	begin("span \"*\" open unusual");
	for (unsigned i = 0; i < 49; i++)
		span(HTTP, 200 * MS);
	lane(0, now, 1, HTTP, now - 100 * SECOND);
	look(250 * MS);
	assert_int_equal(since(), 0);
	span(HTTP, 200 * MS);
	lane(0, now, 1, HTTP, now - 4 * SECOND + MS);
	assert_int_equal(since(), 0);
	lane(0, now, 1, HTTP, now - 4 * SECOND);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].threshold - 4e9) < 1);
	for (unsigned i = 0; i < 60; i++)
		span(DB, MS);
	lane(1, now, 1, DB, now - SECOND);
	assert_int_equal(since(), 1);
	look(250 * MS);
	lane(1, now, 1, DB, now - 2 * SECOND);
	assert_int_equal(since(), 1);
}

/* Both threads record with every look, @quiet do not; for so many looks. */
static void work(unsigned looks, bool first, bool second)
{
	static int64_t last[2];

	for (unsigned i = 0; i < looks; i++) {
		now += 250 * MS;
		last[0] = first ? now - MS : last[0];
		last[1] = second ? now - 2 * MS : last[1];
		lane(0, last[0], 0, 0, 0);
		lane(1, last[1], 0, 0, 0);
		dc_evaluate_tick(evaluate, now);
	}
}

static void test_silent(void **state)
{
	/* All threads of a process that always recorded have been quiet for so long; one alone that goes on is enough. */
	(void)state;
	begin("silent for 5s");
	work(60, true, true);
	work(60, true, false);
	assert_int_equal(since(), 0);
	work(19, false, false);
	assert_int_equal(since(), 0);
	work(2, false, false);
	assert_int_equal(firings, 1);
	assert_true(fired[0].value >= 5e9 && fired[0].value < 5.6e9);
	work(40, false, false);
	assert_int_equal(since(), 1);
	/* It may come back and go again, but a pause that it made before is no news. */
	work(100, true, true);
	work(60, false, false);
	assert_int_equal(since(), 0);
}

static void test_silent_is_not(void **state)
{
	/* A process that just began, one whose threads ended, one that nobody looked at, a machine that slept. */
	struct dc_ring_lane gone = {.tid = TID, .serial = 1, .flags = DC_LANE_FREE};

	(void)state;
	begin("silent for 5s or thread silent for 5s");
	work(4, true, true);
	work(60, false, false);
	assert_int_equal(since(), 0);

	begin("silent for 5s or thread silent for 5s");
	work(100, true, true);
	for (unsigned i = 0; i < 60; i++) {
		now += 250 * MS;
		dc_evaluate_lane(evaluate, subject, 0, &gone, "", (uint64_t)now, now);
		dc_evaluate_lane(evaluate, subject, 1, &gone, "", (uint64_t)now, now);
		dc_evaluate_tick(evaluate, now);
	}
	assert_int_equal(since(), 0);

	begin("silent for 5s or thread silent for 5s");
	work(100, true, true);
	now += 600 * SECOND;
	work(10, false, false);
	assert_int_equal(since(), 0);

	begin("silent for 5s or thread silent for 5s");
	work(100, true, true);
	for (unsigned i = 0; i < 8; i++) {
		struct dc_ring_lane entry = {.last_units = (uint64_t)now, .tid = TID, .serial = 1};

		dc_evaluate_lane(evaluate, subject, 0, &entry, "", (uint64_t)(now + (i + 2) * 250 * MS + 3600 * SECOND), now + (i + 2) * 250 * MS);
	}
	dc_evaluate_tick(evaluate, now + 2 * SECOND);
	assert_int_equal(since(), 0);
}

static void test_thread_silent(void **state)
{
	(void)state;
	/* One thread stops, the other goes on. */
	begin("thread silent for 3s");
	work(60, true, true);
	work(11, true, false);
	assert_int_equal(since(), 0);
	work(2, true, false);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, TID + 1);
	work(40, true, false);
	assert_int_equal(since(), 1);
	work(13, false, false);
	assert_int_equal(since(), 1);
	assert_int_equal(fired[0].tid, TID);
}

/* Thread 1 records @beats pauses of @pause, thread 0 all the time. */
static void beats(unsigned looks, bool first, bool second, int64_t pause, double jitter)
{
	static int64_t last[2], next;

	for (unsigned i = 0; i < looks; i++) {
		int64_t from = now, to = now + 250 * MS;

		if (next < from)
			next = from;
		for (; second && next <= to; next += (int64_t)((double)pause * (1 + jitter * uniform()))) {
			now = last[1] = next;
			counter(1, 1);
		}
		now = to;
		last[0] = first ? now - MS : last[0];
		lane(0, last[0], 0, 0, 0);
		lane(1, last[1], 0, 0, 0);
		dc_evaluate_tick(evaluate, now);
	}
}

static void test_thread_silent_by_itself(void **state)
{
	(void)state;
	/* Without a number: who worked in regular beats and stopped, while the others go on as they did. */
	begin("thread silent");
	beats(400, true, true, 100 * MS, 0.2);
	assert_int_equal(since(), 0);
	beats(40, true, false, 0, 0);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, TID + 1);
	/* All stop: there is nothing to do. */
	begin("thread silent");
	beats(400, true, true, 100 * MS, 0.2);
	beats(400, false, false, 0, 0);
	assert_int_equal(since(), 0);
	/* One that never worked in beats has nothing to do, perhaps. */
	begin("thread silent");
	beats(400, true, true, 20 * MS, 40);
	beats(400, true, false, 0, 0);
	assert_int_equal(since(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_open_outer),
		cmocka_unit_test(test_open_unusual),
		cmocka_unit_test(test_silent),
		cmocka_unit_test(test_silent_is_not),
		cmocka_unit_test(test_thread_silent),
		cmocka_unit_test(test_thread_silent_by_itself),
	};

	return cmocka_run_group_tests(tests, NULL, evaluating_end);
}
