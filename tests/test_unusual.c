/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/series.h"
#include "ipc/event.h"
#include "trigger/rules/slower.h"
#include "trigger/rules/surge.h"
#include "trigger/rules/unusual.h"

#define SECOND INT64_C(1000000000)
#define COUNT 1000000
#define PER_S 100
#define COOLDOWN (10 * PER_S)

struct seen {
	struct dc_unusual u;
	long fired, clear; /* ... of which beyond what one in clear_one_in exceeds */
	long last, crowded; /* pairs of firings within one cool-down */
};

static double *values, *sorted;

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void make(enum series_kind kind, uint64_t seed)
{
	struct series s;

	series_init(&s, kind, COUNT, seed);
	for (long i = 0; i < COUNT; i++)
		values[i] = sorted[i] = series_next(&s);
}

static double exceeded_by(long one_in)
{
	qsort(sorted, COUNT, sizeof(*sorted), by_value);
	return sorted[COUNT - COUNT / one_in];
}

static struct seen watch(double one_in, double clear)
{
	struct seen s = {.last = -COOLDOWN};

	dc_unusual_init(&s.u, one_in);
	for (long i = 0; i < COUNT; i++) {
		if (!dc_unusual_add(&s.u, values[i], i * (SECOND / PER_S)))
			continue;
		s.fired++;
		s.clear += values[i] > clear;
		s.crowded += i - s.last < COOLDOWN;
		s.last = i;
	}
	return s;
}

static void within(enum series_kind kind, double value, double least, double most)
{
	if (value < least || value > most)
		fail_msg("%s: %g is not within %g to %g", series_name(kind), value, least, most);
}

static void test_rate(void **state)
{
	/* On stationary data of any shape the realised rate is the asked one ± 10 %, and what fires is from the far end. */
	(void)state;
	for (enum series_kind kind = 0; kind < SERIES_STATIONARY; kind++) {
		make(kind, 11);
		const double clear = exceeded_by(100);
		const struct seen rare = watch(10000, clear), often = watch(1000, clear);

		within(kind, (double)rare.fired, 90, 110);
		within(kind, (double)often.fired, 900, 1100);
		within(kind, (double)rare.clear, 0.97 * (double)rare.fired, 110);
		within(kind, (double)often.clear, 0.97 * (double)often.fired, 1100);
		within(kind, (double)rare.crowded, 0, 0);
	}
}

static void test_no_storm(void **state)
{
	/* Swings, drift, a step, ticks and ties: the rate stays sane, and one cool-down never has two of them. */
	(void)state;
	for (enum series_kind kind = SERIES_STATIONARY; kind < SERIES_KINDS; kind++) {
		make(kind, 12);
		const struct seen rare = watch(10000, 0);

		within(kind, (double)rare.fired, 0, 150);
		within(kind, (double)rare.crowded, 0, 0);
	}
}

static void test_step(void **state)
{
	/* Ten times slower is told once, and is usual when the cool-down is over. */
	long before = 0, after = 0, later = 0;
	struct dc_unusual u;

	(void)state;
	make(SERIES_STEP, 13);
	dc_unusual_init(&u, 10000);
	for (long i = 0; i < COUNT; i++)
		if (dc_unusual_add(&u, values[i], i)) {
			before += i >= COUNT / 2 - COOLDOWN && i < COUNT / 2;
			after += i >= COUNT / 2 && i < COUNT / 2 + COOLDOWN;
			later += i >= COUNT / 2 + COOLDOWN && i < COUNT / 2 + 10 * COOLDOWN;
		}
	assert_int_equal(before, 0);
	assert_int_equal(after, 1);
	assert_in_range(later, 0, 2);
}

static void test_constant(void **state)
{
	/* A constant never fires, nor does one with noise, nor a step of one tick; ten times as much does, once. */
	static const double one_in[] = {10000, 1000, DC_UNUSUAL_FAR};
	struct series s;

	(void)state;
	for (unsigned k = 0; k < 3; k++) {
		struct dc_unusual u;
		long fired = 0;

		dc_unusual_init(&u, one_in[k]);
		series_init(&s, SERIES_CONSTANT, COUNT, 5);
		for (long i = 0; i < 300000; i++)
			fired += dc_unusual_add(&u, 5000 + (i % 1000 == 0) + series_uniform(&s), i * (SECOND / PER_S));
		assert_int_equal(fired, 0);
		for (long i = 0; i < 500; i++)
			fired += dc_unusual_add(&u, 50000, (300000 + i) * (SECOND / PER_S));
		assert_true(fired == 1 || (one_in[k] == 1000 && fired <= 5));
	}
}

static void test_far(void **state)
{
	/* Plain `unusual` is quiet for 2.8 hours of any of them, and tells at once of what is really far: once per size. */
	(void)state;
	for (enum series_kind kind = 0; kind < SERIES_KINDS; kind++) {
		struct seen s;
		double far;

		make(kind, 14);
		s = watch(DC_UNUSUAL_FAR, 0);
		within(kind, (double)s.fired, 0, kind == SERIES_STEP);
		far = 2 * dc_unusual_threshold(&s.u);
		assert_true(isfinite(far));
		within(kind, far / values[COUNT - 1], 2, kind == SERIES_PARETO ? 1e7 : 1e4);
		assert_true(dc_unusual_add(&s.u, far, COUNT * (SECOND / PER_S)));
		for (long i = 1; i < 3000; i++) /* others behind the same door, and again half a minute later */
			assert_false(dc_unusual_add(&s.u, i % 500 < 20 ? far * 0.9 : values[i],
						    (COUNT + i) * (SECOND / PER_S)));
	}
}

static void test_start(void **state)
{
	/* Nothing fires before enough is known, whatever comes; then the threshold is a number. */
	struct dc_unusual u;

	(void)state;
	dc_unusual_init(&u, 10000);
	for (long i = 1; i <= 5000; i++) {
		assert_true(isinf(dc_unusual_threshold(&u)));
		assert_false(dc_unusual_add(&u, i % 100 == 99 ? 1e9 * (double)i : 1 + (double)(i % 7), i));
	}
	dc_unusual_init(&u, DC_UNUSUAL_FAR);
	for (long i = 0; i < 100000; i++) /* 9.9 s */
		assert_false(dc_unusual_add(&u, i % 5000 == 4999 ? 1e6 * (double)i : 100 + (double)(i % 7), i * 99000));
}

static void test_nonsense(void **state)
{
	/* Zero, negative, infinite and NaN are not durations; the smallest and the largest are. */
	static const double odd[] = {0, -1, INFINITY, -INFINITY, NAN, 0x1p-1074, 1, 0x1p1000, 1e-300};
	struct dc_unusual u;

	(void)state;
	dc_unusual_init(&u, 2);
	for (long i = 0; i < 20000; i++) {
		const double x = odd[i % 9];

		assert_true(!dc_unusual_add(&u, x, i) || (x > 0 && isfinite(x)));
		assert_false(isnan(u.body) || isnan(u.spread) || isnan(u.threshold));
	}
}

/* Second by second. Return: how often it began to surge; *@ret_at: when it last did. */
static long surges(struct dc_surge *u, enum tally_kind kind, long seconds, long *ret_at)
{
	const bool levels = kind >= TALLY_LEVELS;
	struct tally t;
	long fired = 0;
	double v[4];

	dc_surge_init(u, levels ? DC_SURGE_LEVEL : DC_SURGE_RATE, 0);
	tally_init(&t, kind, seconds, 15);
	for (long i = 0; i < seconds; i++) {
		const bool was = u->on;

		tally_next(&t, v);
		for (unsigned k = 0; k < (levels ? 4u : 1u); k++)
			dc_surge_add(u, v[k], (i + 1) * SECOND + k * SECOND / 4);
		if (dc_surge_look(u, (i + 1) * SECOND + 3 * SECOND / 4) && !was) {
			fired++;
			*ret_at = i;
		}
	}
	return fired;
}

static void test_surge(void **state)
{
	/* Rates and levels of hours are quiet, whatever their shape; a step of a rate and a queue that grows are told once, soon. */
	(void)state;
	for (enum tally_kind kind = 0; kind < TALLY_KINDS; kind++) {
		const bool real = kind == TALLY_STEP || kind == TALLY_GROWTH;
		struct dc_surge u;
		long at = -1;
		const long fired = surges(&u, kind, 20000, &at);

		if (fired != real || (real && (at < 10000 || at > 10010)))
			fail_msg("%s: %ld times, last at %ld", tally_name(kind), fired, at);
	}
}

static void test_surge_start(void **state)
{
	/* A load that sets in, and one that comes back after a night, are no surge of a queue; nor are pauses and nonsense. */
	struct dc_surge u;

	(void)state;
	dc_surge_init(&u, DC_SURGE_LEVEL, 0);
	for (long i = 1; i <= 200; i++) { /* up to 5000 in 50 s */
		dc_surge_add(&u, (double)i * 25, i * (SECOND / 4));
		assert_false(dc_surge_look(&u, i * (SECOND / 4)));
	}
	for (long i = 0; i < 100; i++) {
		dc_surge_add(&u, (double)(i % 10 == 0 ? 3 : 400), 30000 * SECOND + i * SECOND);
		assert_false(dc_surge_look(&u, 30000 * SECOND + i * SECOND));
	}
	dc_surge_add(&u, NAN, 40000 * SECOND);
	dc_surge_add(&u, -5, 39000 * SECOND);
	dc_surge_add(&u, INFINITY, 50000 * SECOND);
	assert_false(dc_surge_look(&u, INT64_MAX / 2));
	assert_true(u.last <= 0 && !isnan(u.most));
}

static void test_slower(void **state)
{
	/* Half an hour of any of them is quiet; ten times slower is told once, within a minute, whatever the noise. */
	const long count = 30 * 60 * PER_S;

	(void)state;
	for (enum series_kind kind = 0; kind < SERIES_KINDS; kind++) {
		struct dc_slower s;
		struct series from;
		long fired = 0, at = 0;

		series_init(&from, kind, count, 16);
		dc_slower_init(&s);
		for (long i = 0; i < count; i++)
			if (dc_slower_add(&s, series_next(&from), 0, i * (SECOND / PER_S))) {
				fired++;
				at = i;
			}
		within(kind, (double)fired, kind == SERIES_STEP, kind == SERIES_STEP);
		if (kind == SERIES_STEP)
			within(kind, (double)at, (double)count / 2, (double)count / 2 + 60 * PER_S);
	}
}

/* @count of @value, @apart ns from each other. Return: how often they were told; *@ret_nth: which one was. */
static unsigned many(struct dc_slower *s, double value, unsigned count, int64_t apart, int64_t *now_ns, unsigned *ret_nth)
{
	unsigned told = 0;

	for (unsigned i = 0; i < count; i++) {
		*now_ns += apart;
		if (!dc_slower_add(s, value * (1 + (i % 7) / 20.0), 50e6, *now_ns))
			continue;
		told++;
		*ret_nth = i;
	}
	return told;
}

static void test_slower_far(void **state)
{
	/* Few and far slower: told when there are some tens, once a level. Not what is short, nor what people do not feel. */
	const int64_t apart = SECOND / 25;
	struct dc_slower s;
	int64_t now_ns = 0;
	unsigned nth = 0;

	(void)state;
	dc_slower_init(&s);
	assert_int_equal(many(&s, 1e9, 30, apart, &now_ns, &nth), 0); /* nothing is known */
	dc_slower_init(&s);
	assert_int_equal(many(&s, 9e3, 2000, apart, &now_ns, &nth), 0);
	assert_int_equal(many(&s, 4e6, 200, apart, &now_ns, &nth), 0); /* 4 ms */
	assert_int_equal(many(&s, 9e3, 2000, apart, &now_ns, &nth), 0);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(many(&s, 2e8, 5, apart, &now_ns, &nth), 0); /* some, again and again */
		assert_int_equal(many(&s, 9e3, 200, apart, &now_ns, &nth), 0);
	}
	dc_slower_init(&s);
	assert_int_equal(many(&s, 9e3, 500, apart, &now_ns, &nth), 0);
	assert_int_equal(many(&s, 2e8, 1000, 0, &now_ns, &nth), 0); /* all at once: they waited for the same */
	assert_int_equal(many(&s, 9e3, 500, apart, &now_ns, &nth), 0);
	dc_slower_init(&s);
	assert_int_equal(many(&s, 9e3, 500, apart, &now_ns, &nth), 0);
	assert_int_equal(many(&s, 2e8, 500, apart, &now_ns, &nth), 1);
	assert_in_range(nth, 20, 45);
	assert_true(dc_slower_limit(&s) > 3e8);
	assert_int_equal(many(&s, 9e3, 500, apart, &now_ns, &nth), 0);
	assert_int_equal(many(&s, 2e8, 500, apart, &now_ns, &nth), 0); /* known */
	assert_int_equal(many(&s, 8e9, 500, apart, &now_ns, &nth), 1);
}

static void test_slower_nonsense(void **state)
{
	static const double odd[] = {0, -1, INFINITY, -INFINITY, NAN, 0x1p-1074, 1, 0x1p1000, 1e-300};
	struct dc_slower s;

	(void)state;
	dc_slower_init(&s);
	for (long i = 0; i < 20000; i++) {
		dc_slower_add(&s, odd[i % 9], i % 3 ? 0 : 1e300, i % 5 ? i * SECOND : INT64_MAX / 2);
		assert_false(isnan(s.sum) || isnan(s.most) || isnan(s.limit));
	}
}

static uint32_t kind(const char *first, const char *second)
{
	static const struct dc_site_info site = {.arg_count = 3, .types = {DC_TYPE_STR, DC_TYPE_I64, DC_TYPE_STR}};
	static int64_t number;
	struct dc_event event = {.arg_count = 3, .info = &site};

	event.args[0].text = (struct dc_text){.bytes = first, .length = first ? (uint32_t)strlen(first) : 0};
	event.args[1].i = number++;
	event.args[2].text = (struct dc_text){.bytes = second, .length = second ? (uint32_t)strlen(second) : 0};
	return dc_kind_of(&event, 0);
}

static void test_kinds(void **state)
{
	/* Texts that differ in words with digits only are of one kind; others are not. */
	static const char *const alike[][2] = {
		{"/kv/17", "/kv/4"}, {"/peer/host-3", "/peer/host-77"}, {"/a/1/b", "/a/2/b"}, {"/x/5f3a-99", "/x/0cafe-1"}, {"", "17"}};
	static const char *const unlike[][2] = {
		{"/kv/17", "/stats"}, {"/v1/users/7", "/v1/orders/7"}, {"/a", "/b"}, {"/a/1/b", "/a/1/c"}, {"GET", "get"}, {"ab", "ba"}, {"", "/"}};

	(void)state;
	for (unsigned i = 0; i < sizeof(alike) / sizeof(alike[0]); i++)
		assert_int_equal(kind("GET", alike[i][0]), kind("GET", alike[i][1]));
	for (unsigned i = 0; i < sizeof(unlike) / sizeof(unlike[0]); i++)
		assert_int_not_equal(kind("GET", unlike[i][0]), kind("GET", unlike[i][1]));
	assert_int_not_equal(kind("GET", "/"), kind("PUT", "/"));
	assert_int_not_equal(kind("a", "bc"), kind("ab", "c"));
	assert_int_not_equal(kind(NULL, NULL), DC_KIND_NONE);
}

static void test_kinds_flood(void **state)
{
	/* However many kinds there are: the frequent ones keep what is known of them, in the memory that there is. */
	static struct dc_kinds kinds;
	uint64_t random = 1;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		random = random * UINT64_C(6364136223846793005) + 1;
		struct dc_slower *s = dc_kinds_find(&kinds, i % 8 == 0 ? 7 : i % 8 == 1 ? 9 : (uint32_t)(random >> 32) | 1 << 20);

		if (s)
			dc_slower_add(s, 1000, 0, i * (SECOND / 1000));
	}
	assert_true(dc_kinds_find(&kinds, 7)->seen >= 24000);
	assert_true(dc_kinds_find(&kinds, 9)->seen >= 24000);
}

static void test_kinds_due(void **state)
{
	/* All of few are looked at; of many some hundreds a second, and not always the same of those that take turns. */
	static struct dc_kinds kinds;
	unsigned looked = 0, even = 0;

	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		looked += dc_kinds_due(&kinds, SECOND + i * (SECOND / 500));
	assert_int_equal(looked, 5000);
	looked = 0;
	for (unsigned i = 0; i < 500000; i++) {
		const bool due = dc_kinds_due(&kinds, 20 * SECOND + i * (SECOND / 100000));

		looked += due;
		even += due && i % 2 == 0;
	}
	assert_in_range(looked, 8000, 24000);
	assert_in_range(even, looked / 3, looked * 2 / 3);
}

static int setup(void **state)
{
	(void)state;
	values = calloc(COUNT, sizeof(*values));
	sorted = calloc(COUNT, sizeof(*sorted));
	return values && sorted ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	free(values);
	free(sorted);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate),     cmocka_unit_test(test_no_storm), cmocka_unit_test(test_step),
		cmocka_unit_test(test_constant), cmocka_unit_test(test_far),      cmocka_unit_test(test_start),
		cmocka_unit_test(test_nonsense), cmocka_unit_test(test_surge),    cmocka_unit_test(test_surge_start),
		cmocka_unit_test(test_slower),   cmocka_unit_test(test_slower_far), cmocka_unit_test(test_slower_nonsense),
		cmocka_unit_test(test_kinds),    cmocka_unit_test(test_kinds_flood), cmocka_unit_test(test_kinds_due),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
