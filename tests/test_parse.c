/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "tools/parse.h"

#define S INT64_C(1000000000)

static void assert_size(const char *text, uint64_t bytes)
{
	uint64_t v = 1;

	assert_int_equal(parse_size(text, &v), 0);
	assert_int_equal(v, bytes);
}

/* Sizes take binary and decimal units, any case, and fractions. */
static void test_size(void **state)
{
	(void)state;
	assert_size("0", 0);
	assert_size("4096", 4096);
	assert_size("1B", 1);
	assert_size("64MiB", 64u << 20);
	assert_size("64mib", 64u << 20);
	assert_size("64M", 64u << 20);
	assert_size("1.5GiB", 3u << 29);
	assert_size("200KB", 200000);
	assert_size("2TB", UINT64_C(2000000000000));
	assert_size("18446744073709551615", UINT64_MAX);
}

/* Nothing that is not a size is taken for one; what was negative or too large is told apart. */
static void test_size_refused(void **state)
{
	static const char *const bad[] = {"",       "MiB", "64 MiB", "64Mi", "0x10", "1e6",
					  "64MiB ", "+1",  "--1",    ".5M",  "1.M",  "nan"};
	uint64_t v = 77;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse_size(bad[i], &v), -EINVAL);
	assert_int_equal(parse_size("-1", &v), -ERANGE);
	assert_int_equal(parse_size("-64MiB", &v), -ERANGE);
	assert_int_equal(parse_size("18446744073709551616", &v), -ERANGE);
	assert_int_equal(parse_size("99999999TiB", &v), -ERANGE);
	assert_int_equal(v, 77);
}

static void assert_time(const char *text, int64_t ns)
{
	int64_t v = 1;

	assert_int_equal(parse_time(text, &v), 0);
	assert_int_equal(v, ns);
}

/* Times have a unit and may be sums. */
static void test_time(void **state)
{
	(void)state;
	assert_time("30s", 30 * S);
	assert_time("500ms", S / 2);
	assert_time("1.5h", 5400 * S);
	assert_time("1m30s", 90 * S);
	assert_time("2min", 120 * S);
	assert_time("1d", 86400 * S);
	assert_time("7us", 7000);
	assert_time("9ns", 9);
	assert_time("0", 0);
	assert_time("0.123456789s", 123456789);
}

/* A time without a unit is refused rather than guessed. */
static void test_time_refused(void **state)
{
	static const char *const bad[] = {"", "30", "s", "30 s", "1s2", "1y", "s30", "1.s"};
	int64_t v = 77;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse_time(bad[i], &v), -EINVAL);
	assert_int_equal(parse_time("-1s", &v), -ERANGE);
	assert_int_equal(parse_time("300000d", &v), -ERANGE);
	assert_int_equal(parse_time("99999999999999999999s", &v), -ERANGE);
	assert_int_equal(v, 77);
}

/* Counts are whole and not negative. */
static void test_count(void **state)
{
	uint64_t v = 77;

	(void)state;
	assert_int_equal(parse_count("x", &v), -EINVAL);
	assert_int_equal(parse_count("1.5", &v), -EINVAL);
	assert_int_equal(parse_count("", &v), -EINVAL);
	assert_int_equal(parse_count("-3", &v), -ERANGE);
	assert_int_equal(v, 77);
	assert_int_equal(parse_count("12", &v), 0);
	assert_int_equal(v, 12);
}

static int64_t resolved(const char *text, int64_t trigger_ns)
{
	struct moment m;

	assert_int_equal(parse_moment(text, &m), 0);
	return moment_resolve(&m, trigger_ns);
}

/* Relative moments count from the trigger, whatever their size. */
static void test_moment_relative(void **state)
{
	int64_t at = 1795000000 * S;

	(void)state;
	assert_int_equal(resolved("-5s", at), at - 5 * S);
	assert_int_equal(resolved("+1.5s", at), at + S + S / 2);
	assert_int_equal(resolved("-100000d", at), 1);
	assert_int_equal(moment_resolve(&(struct moment){MOMENT_NONE, 0}, at), 0);
}

/* RFC 3339 with any zone; without one it is local time. */
static void test_moment_absolute(void **state)
{
	int64_t at = 1795000000 * S;

	(void)state;
	assert_int_equal(resolved("2026-11-18T11:06:40Z", 0), at);
	assert_int_equal(resolved("2026-11-18 13:36:40.25+02:30", 0), at + S / 4);
	assert_int_equal(resolved("2026-11-18T08:06:40-03:00", 0), at);
	assert_int_equal(resolved("2026-11-18T08:06:40", 0), at); /* local: UTC-3 */
	assert_int_equal(resolved("2026-11-18", 0), 1794970800 * S);
}

/* A clock time means the day that brings it closest to the trigger, also across midnight. */
static void test_moment_clock(void **state)
{
	int64_t midnight = 1794970800 * S; /* 2026-11-18, local */

	(void)state;
	assert_int_equal(resolved("08:06:40", midnight + 40000 * S), midnight + 29200 * S);
	assert_int_equal(resolved("23:59:58.5", midnight + 3 * S), midnight - S - S / 2);
	assert_int_equal(resolved("00:01", midnight - 3 * S), midnight + 60 * S);
}

/* What only looks like a moment is refused. */
static void test_moment_refused(void **state)
{
	static const char *const bad[] = {"",
					  "5s",
					  "-5",
					  "--5s",
					  "24:00",
					  "12:60",
					  "12:00:61",
					  "1:00",
					  "12:00:00.",
					  "2026-02-31",
					  "2026-13-01",
					  "2026-11-18X",
					  "2026-11-18T25:00",
					  "2026-11-18T08:06:40+1",
					  "-1s-2s"};
	struct moment m = {0};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_true(parse_moment(bad[i], &m) < 0);
	assert_int_equal(m.kind, MOMENT_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_size_refused),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_time_refused),
		cmocka_unit_test(test_count),
		cmocka_unit_test(test_moment_relative),
		cmocka_unit_test(test_moment_absolute),
		cmocka_unit_test(test_moment_clock),
		cmocka_unit_test(test_moment_refused),
	};

	setenv("TZ", "XYZ3", 1); /* three hours behind UTC, no summer time */
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
