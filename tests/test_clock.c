/* SPDX-License-Identifier: MIT */
/* Claims about ipc/clock.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "ipc/clock.h"

#define SECOND INT64_C(1000000000)
#define EPOCH (INT64_C(1700000000) * SECOND)

static struct dc_clock c;

/* A TSC of 2.5 GHz that read 10^9 when CLOCK_MONOTONIC read 0. */
static struct dc_anchor at_second(int64_t second, int64_t realtime_offset)
{
	int64_t ns = second * SECOND;
	return (struct dc_anchor){(uint64_t)(1000000000 + second * 2500000000), EPOCH + ns + realtime_offset,
				  ns, ns};
}

static void add_seconds(int64_t first, int64_t last)
{
	for (int64_t s = first; s <= last; s++) {
		struct dc_anchor a = at_second(s, 0);
		assert_int_equal(dc_clock_add(&c, &a), 0);
	}
}

static uint64_t units_at(int64_t ns)
{
	return (uint64_t)(1000000000 + ns / 2 * 5) >> c.tick_shift;
}

static void near_ns(int64_t a, int64_t b, int64_t within)
{
	if (a - b > within || b - a > within)
		fail_msg("%lld and %lld are further apart than %lld", (long long)a, (long long)b,
			 (long long)within);
}

/* A time of CLOCK_MONOTONIC becomes realtime by the nearest anchor, also across a step; absurd ones stay in range. */
static void test_realtime_of(void **state)
{
	(void)state;
	dc_clock_init(&c, DC_CLOCK_TSC, 3);
	assert_int_equal(dc_clock_realtime_of(&c, 77), 77);
	add_seconds(10, 14);
	for (int64_t s = 15; s <= 20; s++) {
		struct dc_anchor a = at_second(s, 3600 * SECOND);
		assert_int_equal(dc_clock_add(&c, &a), 0);
	}
	for (int64_t ns = 1 * SECOND; ns < 40 * SECOND; ns += 77777777)
		assert_int_equal(dc_clock_realtime_of(&c, ns), EPOCH + ns + (2 * ns > 29 * SECOND ? 3600 * SECOND : 0));
	assert_true(dc_clock_realtime_of(&c, INT64_MAX) > EPOCH + 40 * SECOND);
	assert_true(dc_clock_realtime_of(&c, INT64_MIN) < EPOCH);
}

/* Between and beyond anchors, time is exact to the unit, and the inverse gives the unit back. */
static void test_line(void **state)
{
	(void)state;
	dc_clock_init(&c, DC_CLOCK_TSC, 3);
	add_seconds(10, 20);
	for (int64_t ns = 1 * SECOND; ns < 40 * SECOND; ns += 77777777) {
		uint64_t units = units_at(ns);
		near_ns(dc_clock_monotonic_ns(&c, units), ns, 4);
		near_ns(dc_clock_realtime_ns(&c, units), EPOCH + ns, 4);
		near_ns((int64_t)dc_clock_units(&c, EPOCH + ns), (int64_t)units, 2);
	}
	near_ns((int64_t)dc_clock_duration_ns(&c, 1000000), 3200000, 1);
}

/* The order in which anchors come does not matter. */
static void test_order(void **state)
{
	(void)state;
	static struct dc_clock forward;
	dc_clock_init(&c, DC_CLOCK_TSC, 3);
	add_seconds(1, 9);
	forward = c;
	dc_clock_init(&c, DC_CLOCK_TSC, 3);
	for (int64_t s = 9; s >= 1; s--) {
		struct dc_anchor a = at_second(s, 0);
		assert_int_equal(dc_clock_add(&c, &a), 0);
	}
	assert_int_equal(c.count, forward.count);
	assert_memory_equal(c.anchors, forward.anchors, c.count * sizeof c.anchors[0]);
}

/* A step of realtime shows between two anchors; spans keep their length across it. */
static void test_realtime_step(void **state)
{
	(void)state;
	dc_clock_init(&c, DC_CLOCK_TSC, 0);
	for (int64_t s = 1; s <= 10; s++) {
		struct dc_anchor a = at_second(s, s > 5 ? 3600 * SECOND : 0);
		assert_int_equal(dc_clock_add(&c, &a), 0);
	}
	near_ns(dc_clock_realtime_ns(&c, units_at(5200000000)), EPOCH + 5200000000, 1);
	near_ns(dc_clock_realtime_ns(&c, units_at(5800000000)), EPOCH + 5800000000 + 3600 * SECOND, 1);
	near_ns(dc_clock_monotonic_ns(&c, units_at(5800000000)) -
			dc_clock_monotonic_ns(&c, units_at(5200000000)),
		600000000, 1);
}

/* Anchors that cannot be true are refused and change nothing. */
static void test_hostile(void **state)
{
	(void)state;
	dc_clock_init(&c, DC_CLOCK_TSC, 0);
	add_seconds(10, 12);
	struct dc_anchor good = at_second(11, 0);
	const struct dc_anchor bad[] = {
		{good.tick + 1, EPOCH, 5 * SECOND, 0},          /* monotonic runs backwards */
		{good.tick - 1, EPOCH, 14 * SECOND, 0},         /* the tick does */
		{at_second(13, 0).tick, EPOCH, 20 * SECOND, 0}, /* seven seconds in one */
		{0, EPOCH, -SECOND, 0},                         /* before the boot */
		{UINT64_MAX, EPOCH, INT64_MAX, 0},
		{at_second(1000, 0).tick, INT64_MIN, 1000 * SECOND, 0},
		{at_second(13, 0).tick, EPOCH, 12 * SECOND + 1, 0}, /* a clock a billion times too fast */
	};
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (dc_clock_add(&c, &bad[i]) != -EINVAL)
			fail_msg("anchor %u was believed", i);
	assert_int_equal(c.count, 3);
}

/* Two anchors almost at the same moment do not spoil the rate beyond them. */
static void test_close_anchors(void **state)
{
	(void)state;
	dc_clock_init(&c, DC_CLOCK_TSC, 0);
	struct dc_anchor a = at_second(10, 0), b = a;
	b.tick += 2500; /* 1 µs later, and 100 ns off */
	b.monotonic_ns += 1100;
	assert_int_equal(dc_clock_add(&c, &a), 0);
	assert_int_equal(dc_clock_add(&c, &b), 0);
	add_seconds(11, 12);
	near_ns(dc_clock_monotonic_ns(&c, units_at(60 * SECOND)), 60 * SECOND, 10);
	near_ns(dc_clock_monotonic_ns(&c, units_at(1 * SECOND)), 1 * SECOND, 10);
}

/* With one anchor, or none, nothing divides by zero, and CLOCK_MONOTONIC is what it is. */
static void test_few(void **state)
{
	(void)state;
	dc_clock_init(&c, DC_CLOCK_MONOTONIC, 0);
	assert_int_equal(dc_clock_realtime_ns(&c, 12345), 12345);
	assert_int_equal(dc_clock_units(&c, 12345), 12345);
	assert_int_equal(dc_clock_duration_ns(&c, 5), 5);
	struct dc_anchor a = {5000, EPOCH + 5000, 5000, 5000};
	assert_int_equal(dc_clock_add(&c, &a), 0);
	assert_int_equal(dc_clock_realtime_ns(&c, 6000), EPOCH + 6000);
	assert_int_equal(dc_clock_realtime_ns(&c, 1), EPOCH + 1);
	assert_int_equal(dc_clock_units(&c, EPOCH + 6000), 6000);
}

/* Units as large as they come, and realtimes of either end, give something and do no harm (UBSan looks on). */
static void test_extremes(void **state)
{
	(void)state;
	dc_clock_init(&c, DC_CLOCK_TSC, 16);
	add_seconds(1, 3);
	const uint64_t units[] = {0, 1, UINT64_MAX, UINT64_MAX >> 16, INT64_MAX};
	for (unsigned i = 0; i < sizeof units / sizeof units[0]; i++) {
		assert_true(dc_clock_realtime_ns(&c, units[i]) > 0);
		dc_clock_duration_ns(&c, units[i]);
	}
	assert_int_equal(dc_clock_units(&c, INT64_MIN), 0);
	assert_true(dc_clock_units(&c, INT64_MAX) > dc_clock_units(&c, EPOCH));
}

/* More anchors than there is room for are refused, not written. */
static void test_full(void **state)
{
	(void)state;
	dc_clock_init(&c, DC_CLOCK_TSC, 0);
	add_seconds(1, DC_CLOCK_ANCHORS_MAX);
	struct dc_anchor a = at_second(1000, 0);
	assert_int_equal(dc_clock_add(&c, &a), -ENOSPC);
	assert_int_equal(c.count, DC_CLOCK_ANCHORS_MAX);
}

/* This host's clocks, read together, agree with themselves. */
static void test_now(void **state)
{
	(void)state;
	struct dc_anchor a, b;
	const struct timespec pause = {0, 30000000};
	assert_int_equal(dc_clock_now(77, &a), -ENOTSUP);
	assert_int_equal(dc_clock_now(DC_CLOCK_MONOTONIC, &a), 0);
	assert_int_equal(a.tick, a.monotonic_ns);
#if defined(__x86_64__)
	assert_int_equal(dc_clock_now(DC_CLOCK_CNTVCT, &a), -ENOTSUP);
	dc_clock_init(&c, DC_CLOCK_TSC, 0);
	assert_int_equal(dc_clock_now(DC_CLOCK_TSC, &a), 0);
	nanosleep(&pause, NULL);
	assert_int_equal(dc_clock_now(DC_CLOCK_TSC, &b), 0);
	assert_true(b.tick > a.tick && b.monotonic_ns - a.monotonic_ns >= 30000000);
	assert_int_equal(dc_clock_add(&c, &a), 0);
	assert_int_equal(dc_clock_add(&c, &b), 0);
	near_ns(dc_clock_monotonic_ns(&c, b.tick), b.monotonic_ns, 1);
#else
	(void)b, (void)pause;
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line), cmocka_unit_test(test_realtime_of),          cmocka_unit_test(test_order),
		cmocka_unit_test(test_realtime_step), cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_close_anchors), cmocka_unit_test(test_few),
		cmocka_unit_test(test_extremes),      cmocka_unit_test(test_full),
		cmocka_unit_test(test_now),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
