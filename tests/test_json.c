/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/json.h"
#include "ipc/utf8.h"

struct sink {
	FILE *file;
	char *text;
	size_t length;
	struct json json;
};

static struct json *sink_open(struct sink *s)
{
	s->file = open_memstream(&s->text, &s->length);
	assert_non_null(s->file);
	json_init(&s->json, s->file, false);
	return &s->json;
}

static void sink_expect(struct sink *s, const char *expected)
{
	assert_int_equal(json_finish(&s->json), 0);
	fclose(s->file);
	assert_string_equal(s->text, expected);
	free(s->text);
}

/* Commas, colons and nesting come out right in one line. */
static void test_structure(void **state)
{
	struct sink s;
	struct json *j = sink_open(&s);

	(void)state;
	json_object(j, NULL);
	json_u64(j, "a", UINT64_MAX);
	json_array(j, "b");
	json_i64(j, NULL, INT64_MIN);
	json_object(j, NULL);
	json_end(j);
	json_end(j);
	json_array(j, "c");
	json_end(j);
	json_bool(j, "d", true);
	json_null(j, "e");
	json_u64(j, "f", 0);
	json_end(j);
	sink_expect(
		&s,
		"{\"a\":18446744073709551615,\"b\":[-9223372036854775808,{}],\"c\":[],\"d\":true,\"e\":null,"
		"\"f\":0}\n");
}

/* The pretty form differs in white space only. */
static void test_pretty(void **state)
{
	struct sink s;
	struct json *j = sink_open(&s);

	(void)state;
	j->pretty = true;
	json_object(j, NULL);
	json_text(j, "a", "b");
	json_array(j, "c");
	json_end(j);
	json_end(j);
	sink_expect(&s, "{\n\t\"a\": \"b\",\n\t\"c\": []\n}\n");
}

static void expect_quoted(const char *bytes, size_t length, const char *expected)
{
	struct sink s;
	struct json *j = sink_open(&s);

	json_bytes(j, NULL, bytes, length);
	sink_expect(&s, expected);
}

/* Quotes, control characters and NUL are escaped; well-formed UTF-8 is left as it is. */
static void test_escapes(void **state)
{
	(void)state;
	expect_quoted("a\"b\\c", 5, "\"a\\\"b\\\\c\"");
	expect_quoted("\b\t\n\v\f\r\x1f\x7f", 8, "\"\\b\\t\\n\\u000b\\f\\r\\u001f\\u007f\"");
	expect_quoted("a\0b", 3, "\"a\\u0000b\"");
	expect_quoted("caf\xc3\xa9 \xf0\x9f\x9a\x97", 10, "\"caf\xc3\xa9 \xf0\x9f\x9a\x97\"");
	expect_quoted("", 0, "\"\"");
}

/* What is not UTF-8 becomes U+FFFD, byte by byte: overlong forms, surrogates, cut sequences, beyond U+10FFFF. */
static void test_not_utf8(void **state)
{
	(void)state;
	expect_quoted("\xff", 1, "\"\\ufffd\"");
	expect_quoted("\xc0\xaf", 2, "\"\\ufffd\\ufffd\"");
	expect_quoted("\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\"");
	expect_quoted("\xe2\x82", 2, "\"\\ufffd\\ufffd\"");
	expect_quoted("\xf4\x90\x80\x80", 4, "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
	expect_quoted("x\x80y", 3, "\"x\\ufffdy\"");
}

/* utf8_length() agrees with the definition over every code point, and no sequence is longer than what is there. */
static void test_utf8_exhaustive(void **state)
{
	(void)state;
	for (uint32_t c = 0; c < 0x110000; c++) {
		uint8_t s[4];
		unsigned n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
		unsigned expected = c >= 0xd800 && c < 0xe000 ? 0 : n;

		for (unsigned i = n; i-- > 1;)
			s[i] = (uint8_t)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
		s[0] = (uint8_t)(n == 1 ? c : (0xf00u >> n & 0xff) | c >> 6 * (n - 1));
		if (utf8_length(s, n) != expected || (n > 1 && utf8_length(s, n - 1) != 0))
			fail_msg("U+%04X", c);
	}
}

/* Doubles survive a round trip; those JSON has no number for become strings. */
static void test_doubles(void **state)
{
	struct sink s;
	struct json *j = sink_open(&s);

	(void)state;
	json_array(j, NULL);
	json_f64(j, NULL, 0.1);
	json_f64(j, NULL, 1.0 / 3);
	json_f64(j, NULL, -1e300);
	json_f64(j, NULL, NAN);
	json_f64(j, NULL, -INFINITY);
	json_fixed(j, NULL, 2.0 / 3, 2);
	json_end(j);
	sink_expect(&s, "[0.1,0.33333333333333331,-1e+300,\"NaN\",\"-Infinity\",0.67]\n");
}

/* Microseconds keep their nanoseconds, below zero too. */
static void test_micros(void **state)
{
	struct sink s;
	struct json *j = sink_open(&s);

	(void)state;
	json_array(j, NULL);
	json_micros(j, NULL, 1795000000123456789);
	json_micros(j, NULL, -1);
	json_micros(j, NULL, INT64_MIN);
	json_end(j);
	sink_expect(&s, "[1795000000123456.789,-0.001,-9223372036854775.808]\n");
}

/* An error of the stream is reported once, at the end. */
static void test_full(void **state)
{
	FILE *f = fopen("/dev/full", "w");
	struct json j;

	(void)state;
	assert_non_null(f);
	json_init(&j, f, false);
	json_text(&j, NULL, "lost");
	assert_int_equal(json_finish(&j), -ENOSPC);
	fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_structure),       cmocka_unit_test(test_pretty),
		cmocka_unit_test(test_escapes),         cmocka_unit_test(test_not_utf8),
		cmocka_unit_test(test_utf8_exhaustive), cmocka_unit_test(test_doubles),
		cmocka_unit_test(test_micros),          cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
