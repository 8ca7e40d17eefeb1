/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/parse.h"
#include "tools/text.h"

/* Figures get the unit that keeps them short. */
static void test_figures(void **state)
{
	(void)state;
	assert_string_equal(text_bytes(0).s, "0 B");
	assert_string_equal(text_bytes(1023).s, "1023 B");
	assert_string_equal(text_bytes(64 << 20).s, "64.0 MiB");
	assert_string_equal(text_bytes((1 << 20) - 1).s, "1.0 MiB");
	assert_string_equal(text_bytes(UINT64_MAX).s, "16.0 EiB");
	assert_string_equal(text_count(0).s, "0");
	assert_string_equal(text_count(999).s, "999");
	assert_string_equal(text_count(1234567).s, "1,234,567");
	assert_string_equal(text_count(UINT64_MAX).s, "18,446,744,073,709,551,615");
}

/* Spans have three digits; rounding never shows 1000 of a unit. */
static void test_spans(void **state)
{
	(void)state;
	assert_string_equal(text_span(0).s, "0 ns");
	assert_string_equal(text_span(999).s, "999 ns");
	assert_string_equal(text_span(3412345).s, "3.41 ms");
	assert_string_equal(text_span(999999).s, "1.00 ms");
	assert_string_equal(text_span(28400000000).s, "28.4 s");
	assert_string_equal(text_span(150000000000).s, "2 m 30 s");
	assert_string_equal(text_span(-5000000).s, "-5.00 ms");
	assert_string_equal(text_span(INT64_MIN).s, "-106751 d 23 h");
}

/* text_size_option() and text_time_option() say what the parser understands as the same value. */
static void test_options_round_trip(void **state)
{
	static const uint64_t sizes[] = {0, 1, 1024, 1536, 64u << 20, UINT64_C(5) << 30, UINT64_MAX};
	static const int64_t times[] = {0, 1, 1500, 30000000000, 90000000000, 3600000000000, INT64_MAX};
	uint64_t bytes;
	int64_t ns;

	(void)state;
	assert_string_equal(text_size_option(64 << 20).s, "64MiB");
	assert_string_equal(text_time_option(30000000000).s, "30s");
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(parse_size(text_size_option(sizes[i]).s, &bytes), 0);
		assert_int_equal(bytes, sizes[i]);
		assert_int_equal(parse_time(text_time_option(times[i]).s, &ns), 0);
		assert_int_equal(ns, times[i]);
	}
}

/* Times before 1970 (a damaged file) still have fractions between 0 and 1. */
static void test_times(void **state)
{
	(void)state;
	assert_string_equal(text_when(1795000000123456789).s, "2026-11-18 08:06:40.123456 -0300");
	assert_string_equal(text_clock(1795000000123456789).s, "08:06:40.123456");
	assert_string_equal(text_rfc3339(1795000000123456789).s, "2026-11-18T11:06:40.123456789Z");
	assert_string_equal(text_rfc3339(-1).s, "1969-12-31T23:59:59.999999999Z");
}

static void expect_print(void (*print)(FILE *, const char *, size_t), const char *bytes, size_t length,
			 const char *expected)
{
	char *text;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	print(f, bytes, length);
	fclose(f);
	assert_string_equal(text, expected);
	free(text);
}

/* No byte of a recorded program moves the cursor: C0, DEL, C1 (also as UTF-8) and broken UTF-8 are escaped. */
static void test_print_is_safe(void **state)
{
	(void)state;
	expect_print(text_print, "a\x1b[2Jb", 6, "a\\x1b[2Jb");
	expect_print(text_print, "a\nb\tc\r\0", 7, "a\\nb\\tc\\r\\x00");
	expect_print(text_print,
		     "\x7f\xc2\x9b"
		     "1m",
		     5,
		     "\\x7f\\xc2\\x9b"
		     "1m");
	expect_print(text_print, "caf\xc3\xa9\xff", 6, "caf\xc3\xa9\\xff");
	expect_print(text_quote, "word", 4, "word");
	expect_print(text_quote, "two words", 9, "\"two words\"");
	expect_print(text_quote, "a \"b\\\x1b", 6, "\"a \\\"b\\\\\\x1b\"");
	expect_print(text_quote, "", 0, "\"\"");
	expect_print(text_quote, "a\n", 2, "\"a\\n\"");
}

/* A word of a command that people are told to type is one word to their shell, and none of it is a command to it. */
static void test_words(void **state)
{
	char word[16];

	(void)state;
	text_word("a/b-1.dcap", word, sizeof(word));
	assert_string_equal(word, "a/b-1.dcap");
	text_word("o ut/$(x)", word, sizeof(word));
	assert_string_equal(word, "'o ut/$(x)'");
	text_word("it's", word, sizeof(word));
	assert_string_equal(word, "'it'\\''s'");
	text_word("", word, sizeof(word));
	assert_string_equal(word, "''");
	text_word("13 characters", word, sizeof(word));
	assert_string_equal(word, "'13 characters'");
	text_word("14 characters.", word, sizeof(word)); /* no room for quotes */
	assert_string_equal(word, "14 characters.");
}

/* Columns are as wide as their widest cell, counted in characters, not bytes; the last one is not padded. */
static void test_table(void **state)
{
	struct table t;
	char *text;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	assert_non_null(f);
	table_init(&t, "NAME|N>|WHAT|");
	table_cell(&t, "caf\xc3\xa9-long");
	table_cell(&t, "%d", 7);
	table_cell(&t, "x");
	table_cell(&t, "b");
	table_cell(&t, "%d", 1234);
	table_cell(&t, "\x1b");
	assert_int_equal(table_print(&t, f), 0);
	fclose(f);
	assert_string_equal(text, "NAME          N  WHAT\n"
				  "caf\xc3\xa9-long     7  x\n"
				  "b          1234  \\x1b\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_figures),
		cmocka_unit_test(test_spans),
		cmocka_unit_test(test_options_round_trip),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_print_is_safe),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_table),
	};

	setenv("TZ", "XYZ3", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
