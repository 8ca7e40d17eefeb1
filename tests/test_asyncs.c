/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "tests/evaluating.h"
#include "trigger/rules/async.h"

/* Begun in thread 3, ended in thread 4. */
static void job_begin(uint64_t id, int64_t ago, int64_t size)
{
	struct dc_event ev = of(DC_KIND_ASYNC_BEGIN, JOB, 3);

	ev.units -= (uint64_t)ago;
	ev.arg_count = 2;
	ev.args[0].u = id;
	ev.args[1].i = size;
	put(&ev);
}

static void job_end(uint64_t id, int64_t ago)
{
	struct dc_event ev = of(DC_KIND_ASYNC_END, JOB_DONE, 4);

	ev.units -= (uint64_t)ago;
	ev.arg_count = 1;
	ev.args[0].u = id;
	put(&ev);
}

static void test_slower(void **state)
{
	/* Those that go from thread to thread, too: of a name, for an id says nothing. */
	(void)state;
	begin("span \"job\" slower");
	for (uint64_t i = 0; i < 600; i++) {
		job_begin(i, (i < 500 ? 1 : 60) * MS, 9);
		job_end(i, 0);
		look(40 * MS);
		if (i < 510 || i > 560)
			assert_int_equal(firings, i > 560);
	}
}

static void test_async(void **state)
{
	/* From thread to thread, by id; in whichever order a look brings the two; with what was asked of its arguments. */
	(void)state;
	begin("span \"job\" where size > 5 > 250ms");
	job_begin(1, 300 * MS, 9);
	job_begin(2, 300 * MS, 9);
	job_begin(3, 200 * MS, 9);
	job_begin(4, 300 * MS, 5);
	assert_int_equal(since(), 0);
	job_end(1, 0);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 300e6) < 1);
	assert_int_equal(fired[0].tid, TID + 4);
	assert_int_equal(fired[0].at_units, now);
	assert_string_equal(fired_names[0], "job");
	since();
	look(250 * MS);
	job_end(3, 250 * MS);
	job_end(4, 250 * MS);
	job_end(1, 0); /* again: nobody began it */
	job_end(7, 10 * MS);
	look(1 * MS);
	assert_int_equal(since(), 0);
	job_begin(7, 300 * MS, 6);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 289e6) < 1);
	assert_int_equal(fired[0].at_units, now - 11 * MS);
	since();
	look(MS);
	job_end(8, 0);
	for (unsigned i = 0; i < 2; i++) /* two looks later its begin would be another one's */
		lane(3, now, 0, 0, 0), look(MS);
	job_begin(8, 400 * MS, 6);
	assert_int_equal(since(), 0);
	dc_evaluate_lost(subject);
	job_end(2, 0);
	assert_int_equal(since(), 0);
}

static void test_async_open(void **state)
{
	/* One that never ends is told once, and again when another does not; what may have ended unseen is not. */
	(void)state;
	begin("span \"job\" open unusual or span \"job\" open > 60s");
	for (unsigned i = 0; i < 100; i++) {
		job_begin(i, 50 * MS, 0);
		job_end(i, 0);
	}
	job_begin(1000, 0, 0);
	for (unsigned i = 0; i < 40; i++) {
		if (i == 20)
			job_begin(1001, 0, 0);
		lane(3, now, 0, 0, 0);
		look(100 * MS);
		if (i == 18)
			assert_int_equal(since(), 0);
	}
	assert_int_equal(firings, 1);
	assert_true(fired[0].value >= 2e9 && fired[0].value < 2.2e9 && fired[0].tid == 0);
	assert_string_equal(fired_names[0], "job");
	lane(3, now, 0, 0, 0), look(100 * MS);
	assert_int_equal(firings, 2);
	since();
	job_begin(1002, 0, 0); /* of a process that does nothing at all something else is wrong */
	for (unsigned i = 0; i < 30; i++)
		lane(3, now - (int64_t)i * 100 * MS, 0, 0, 0), look(100 * MS);
	assert_int_equal(since(), 0);
	dc_evaluate_lost(subject);
	look(3 * SECOND);
	lane(3, now, 0, 0, 0), look(100 * MS);
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 3000; i++) /* more than are followed: the oldest are given up */
		job_begin(2000 + i, 3 * SECOND - i, 0);
	for (unsigned i = 0; i < 3000 - DC_ASYNC_MAX; i++)
		job_end(2000 + i, 0);
	lane(3, now, 0, 0, 0), look(100 * MS);
	assert_int_equal(firings, 1);
	assert_true(untold <= DC_ASYNC_MAX);
}

static void test_waiting(void **state)
{
	/* What waits is told by name, with the oldest; a queue's counter with where it stands; as much as there is room for. */
	struct dc_evaluate_waiting w[3];

	(void)state;
	begin("stopped");
	assert_int_equal(dc_evaluate_waiting(subject, (uint64_t)now, w, 3), 0);
	for (unsigned i = 0; i < 5; i++)
		job_begin(i, (10 - (int64_t)i) * MS, 0);
	job_end(0, 0);
	counter(7, 0);
	counter(12, 1);
	assert_int_equal(dc_evaluate_waiting(subject, (uint64_t)now, w, 3), 2);
	assert_string_equal(w[0].name, "job");
	assert_int_equal(w[0].count, 4);
	assert_true(w[0].oldest_ns >= 9 * MS - 1 && w[0].oldest_ns <= 9 * MS);
	assert_string_equal(w[1].name, "queue.depth");
	assert_int_equal(w[1].count, 12);
	assert_int_equal(w[1].oldest_ns, 0);
	assert_int_equal(dc_evaluate_waiting(subject, (uint64_t)now, w, 1), 1);
	counter(0, 0);
	dc_evaluate_lost(subject);
	assert_int_equal(dc_evaluate_waiting(subject, (uint64_t)now, w, 3), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_async), cmocka_unit_test(test_slower),
		cmocka_unit_test(test_async_open),
		cmocka_unit_test(test_waiting),
	};

	return cmocka_run_group_tests(tests, NULL, evaluating_end);
}
