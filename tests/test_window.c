/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "tests/series.h"
#include "trigger/rules/window.h"

#define SECOND INT64_C(1000000000)
#define COUNT 40000

static const double asked[] = {1, 10, 50, 90, 99, 99.9, 99.99, 100};

struct sample {
	uint64_t value;
	double weight;
};

static int by_value(const void *a, const void *b)
{
	const struct sample *x = a, *y = b;

	return (x->value > y->value) - (x->value < y->value);
}

static uint64_t exactly(const struct sample *sorted, long n, double percentile)
{
	double all = 0, below = 0;

	for (long i = 0; i < n; i++)
		all += sorted[i].weight;
	for (long i = 0; i < n; i++) {
		below += sorted[i].weight;
		if (below >= all * percentile / 100 - 1e-9)
			return sorted[i].value;
	}
	return sorted[n - 1].value;
}

static void near_to(double value, double truth, double part)
{
	if (fabs(value - truth) > part * fabs(truth))
		fail_msg("%g is not within %g %% of %g", value, part * 100, truth);
}

static void compare(enum series_kind kind, bool weighted, double scale)
{
	struct sample *samples = test_malloc(COUNT * sizeof(*samples));
	CLEANUP(dc_histogram) struct dc_histogram *h = dc_histogram_new(10 * SECOND);
	struct series s;

	assert_non_null(h);
	series_init(&s, kind, COUNT, 7);
	for (long i = 0; i < COUNT; i++) {
		samples[i] = (struct sample){.value = (uint64_t)(series_next(&s) * scale),
					     .weight = weighted ? 1 + 20 * series_uniform(&s) : 1};
		dc_histogram_add(h, samples[i].value, samples[i].weight, 5 * SECOND + i);
	}
	qsort(samples, COUNT, sizeof(*samples), by_value);
	for (unsigned i = 0; i < sizeof(asked) / sizeof(asked[0]); i++)
		near_to(dc_histogram_percentile(h, asked[i], 6 * SECOND), (double)exactly(samples, COUNT, asked[i]),
			0.016);
	assert_true(dc_histogram_max(h, 6 * SECOND) == (double)samples[COUNT - 1].value);
	test_free(samples);
}

static void test_percentiles(void **state)
{
	/* Within 1.6 % of the exact ones, of any distribution, from ns to hours, weighted or not. */
	(void)state;
	for (enum series_kind kind = 0; kind < SERIES_KINDS; kind++) {
		compare(kind, false, 1);
		compare(kind, true, 1);
		compare(kind, false, 1e8);
	}
}

static void test_all_values(void **state)
{
	/* Every magnitude has a bucket whose middle is within 1.6 %; below 64 values are exact. */
	(void)state;
	for (uint64_t v = 1; v; v = v < 300 ? v + 1 : v > UINT64_MAX / 101 * 100 ? 0 : v + v / 100) {
		struct dc_histogram *h = dc_histogram_new(0);

		assert_non_null(h);
		dc_histogram_add(h, v, 1, 0);
		dc_histogram_add(h, UINT64_MAX, 1, 0); /* the maximum is kept exactly and would hide it */
		near_to(dc_histogram_percentile(h, 50, 0), (double)v, v < 64 ? 0 : 1.0 / 64);
		dc_histogram_free(h);
	}
}

static void test_nothing(void **state)
{
	/* An empty window has no percentile, and no storm is made of its first event. */
	CLEANUP(dc_histogram) struct dc_histogram *h = dc_histogram_new(8 * SECOND);

	(void)state;
	assert_non_null(h);
	assert_true(isnan(dc_histogram_percentile(h, 50, SECOND)));
	assert_true(dc_histogram_count(h, SECOND) == 0);
	assert_true(dc_histogram_rate(h, SECOND) == 0);
	dc_histogram_add(h, 0, 1, SECOND);
	assert_true(dc_histogram_percentile(h, 50, SECOND) == 0);
	near_to(dc_histogram_rate(h, SECOND), 1, 1e-9);
}

static void test_decay(void **state)
{
	/* What is older than the window is gone, and goes little by little: 1,000 at 100 ns, then 1,000 at 10,000 ns. */
	CLEANUP(dc_histogram) struct dc_histogram *h = dc_histogram_new(8 * SECOND);
	double before = 1e9;

	(void)state;
	assert_non_null(h);
	for (int i = 0; i < 8000; i++)
		dc_histogram_add(h, 100, 1, i * (SECOND / 1000));
	for (int i = 8000; i < 16000; i++) {
		dc_histogram_add(h, 10000, 1, i * (SECOND / 1000));
		if (i % 100 == 0) {
			const double old = 8000.0 - (i - 8000);

			near_to(dc_histogram_count(h, i * (SECOND / 1000)), 8000, 0.002);
			near_to(dc_histogram_percentile(h, 100 * (old - 10) / 8000, i * (SECOND / 1000)), 100, 0.016);
			near_to(dc_histogram_percentile(h, 100 * (old + 10) / 8000, i * (SECOND / 1000)), 10000, 0.016);
		}
	}
	for (int i = 16000; i < 24500; i += 10) {
		const double now = dc_histogram_count(h, i * (SECOND / 1000));

		assert_true(now <= before);
		before = now;
	}
	assert_true(before == 0);
	assert_true(isnan(dc_histogram_percentile(h, 50, 25 * SECOND)));
	assert_true(dc_histogram_max(h, 25 * SECOND) == 0);
}

static void test_partly_filled(void **state)
{
	/* A rate is over the time that has passed, not over a window that has not. */
	struct dc_rate r;

	(void)state;
	dc_rate_init(&r, 10 * SECOND);
	assert_true(dc_rate_per_s(&r, 77 * SECOND) == 0);
	for (int i = 0; i < 100000; i++) {
		const int64_t now = 100 * SECOND + i * (SECOND / 1000);

		dc_rate_add(&r, i % 2 ? 0.5 : 1.5, now);
		if (i >= 2000 && i % 61 == 0)
			near_to(dc_rate_per_s(&r, now), 1000, 0.002);
	}
	near_to(dc_rate_per_s(&r, 205 * SECOND), 500, 0.002); /* silent for half of it */
	assert_true(dc_rate_per_s(&r, 212 * SECOND) == 0);
}

static void test_gaps(void **state)
{
	/* A clock that leaps empties the window and goes on; one that goes backwards loses nothing and adds nothing twice. */
	static const int64_t leaps[] = {SECOND, 9 * SECOND, 11 * SECOND, 3600 * SECOND, INT64_MAX / 4};
	int64_t now = 5;

	(void)state;
	for (unsigned i = 0; i < sizeof(leaps) / sizeof(leaps[0]); i++) {
		CLEANUP(dc_histogram) struct dc_histogram *h = dc_histogram_new(8 * SECOND);

		assert_non_null(h);
		dc_histogram_add(h, 1000, 1, now);
		now += leaps[i];
		dc_histogram_add(h, 50, 1, now);
		assert_true(dc_histogram_count(h, now) == (leaps[i] < 8 * SECOND ? 2 : 1));
		dc_histogram_add(h, 50, 1, now - 3 * SECOND);
		assert_true(dc_histogram_count(h, now - 3 * SECOND) == (leaps[i] < 8 * SECOND ? 3 : 2));
		assert_true(dc_histogram_percentile(h, 1, now) == 50);
		assert_true(dc_histogram_max(h, now) == (leaps[i] < 9 * SECOND ? 1000 : 50));
	}
}

static void test_for_ever(void **state)
{
	/* A window of 0 forgets nothing. */
	CLEANUP(dc_histogram) struct dc_histogram *h = dc_histogram_new(0);

	(void)state;
	assert_non_null(h);
	for (int i = 0; i < 1000; i++)
		dc_histogram_add(h, 40, 1, i * 60 * SECOND);
	assert_true(dc_histogram_count(h, INT64_MAX / 2) == 1000);
	near_to(dc_histogram_rate(h, 60000 * SECOND), 1.0 / 60, 1e-9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_percentiles),   cmocka_unit_test(test_all_values),
		cmocka_unit_test(test_nothing),       cmocka_unit_test(test_decay),
		cmocka_unit_test(test_partly_filled), cmocka_unit_test(test_gaps),
		cmocka_unit_test(test_for_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
