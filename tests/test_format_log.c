/* SPDX-License-Identifier: MIT */
/* Claims about ipc/format_log.c: as printf would have written it, whatever the format. */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipc/decode.h"
#include "tests/ringmaker.h"

static struct dc_site_info info;
static struct dc_event event;
static char text[20000];

static const char *format(const char *f, const struct maker_arg *args, unsigned count)
{
	memset(&event, 0, sizeof event);
	info = (struct dc_site_info){.name = "log", .format = f, .arg_count = (uint8_t)count};
	event.info = &info;
	event.arg_count = (uint8_t)count;
	for (unsigned i = 0; i < count; i++) {
		info.types[i] = args[i].type;
		event.args[i] = args[i].value;
		event.args_dropped |= (uint16_t)(args[i].dropped << i);
	}
	size_t length = dc_event_format(&event, text, sizeof text);
	assert_int_equal(length, strlen(text));
	return text;
}

#define ONE(f, ...) format(f, (struct maker_arg[]){__VA_ARGS__}, 1)

/* What printf writes for @value, into a buffer of its own. */
#define PRINTF(f, value) (snprintf(expected, sizeof expected, f, value), expected)
static char expected[20000];

/* Integers: every conversion with flags, width, precision and length, next to printf itself. */
static void test_integers(void **state)
{
	(void)state;
#define SAME_INT(f, type, v) assert_string_equal(ONE(f, MAKE_I64((int64_t)(type)(v))), PRINTF(f, (type)(v)))
#define SAME_UINT(f, type, v) assert_string_equal(ONE(f, MAKE_U64((type)(v))), PRINTF(f, (type)(v)))
	SAME_INT("%d", int, 0);
	SAME_INT("%d", int, -1);
	SAME_INT("%i!", int, INT32_MIN);
	SAME_INT("[%8d]", int, -42);
	SAME_INT("[%-8d]", int, 42);
	SAME_INT("[%+08d]", int, 42);
	SAME_INT("[% .5d]", int, 42);
	SAME_INT("%ld", long, INT64_MIN);
	SAME_INT("%lld", long long, INT64_MAX);
	SAME_INT("%zd", ssize_t, -7);
	SAME_INT("%jd", intmax_t, -7);
	SAME_UINT("%u", unsigned, UINT32_MAX);
	SAME_UINT("%x", unsigned, 0xdeadbeef);
	SAME_UINT("%#X", unsigned, 0xdeadbeef);
	SAME_UINT("%#o", unsigned, 8);
	SAME_UINT("%lu", unsigned long, UINT64_MAX);
	SAME_UINT("%zu", size_t, UINT64_MAX);
	SAME_UINT("%016llx", unsigned long long, 0x123456789abc);
	assert_string_equal(ONE("%u", MAKE_I64(-1)), "4294967295"); /* an int given to %u */
	assert_string_equal(ONE("%x", MAKE_I64(-2)), "fffffffe");
	assert_string_equal(ONE("%hhd", MAKE_I64(300)), "44");
	assert_string_equal(ONE("%hd", MAKE_I64(70000)), "4464");
	assert_string_equal(ONE("%hhu", MAKE_I64(-1)), "255");
	assert_string_equal(ONE("%c", MAKE_I64('x')), "x");
	assert_string_equal(ONE("%3c|", MAKE_I64('x')), "  x|");
	assert_string_equal(ONE("%p", MAKE_PTR(0x1234)), "0x1234");
	assert_string_equal(ONE("%p", MAKE_PTR(0)), "(nil)");
	assert_string_equal(ONE("%d", MAKE_BOOL(1)), "1");
	assert_string_equal(ONE("%d", MAKE_U64(UINT64_C(1) << 40)),
			    "1099511627776"); /* shown whole rather than cut */
}

/* Doubles, next to printf; also one whose text is as long as they get. */
static void test_doubles(void **state)
{
	(void)state;
#define SAME_DOUBLE(f, v) assert_string_equal(ONE(f, MAKE_F64(v)), PRINTF(f, v))
	SAME_DOUBLE("%f", 1.5);
	SAME_DOUBLE("%.2f", -3.14159);
	SAME_DOUBLE("%10.3e|", 12345.678);
	SAME_DOUBLE("%g", 1e100);
	SAME_DOUBLE("%G", 1e-10);
	SAME_DOUBLE("%a", 1.0);
	SAME_DOUBLE("%f", DBL_MAX);
	SAME_DOUBLE("%.4000f", 0.1);
}

/* Texts with width and precision; not NUL-terminated, NULL, and cut ones. */
static void test_texts(void **state)
{
	(void)state;
	assert_string_equal(ONE("<%s>", MAKE_STR("abc")), "<abc>");
	assert_string_equal(ONE("<%6s>", MAKE_STR("abc")), "<   abc>");
	assert_string_equal(ONE("<%-6s>", MAKE_STR("abc")), "<abc   >");
	assert_string_equal(ONE("<%.2s>", MAKE_STR("abc")), "<ab>");
	assert_string_equal(ONE("<%s>", MAKE_NULL_STR), "<(null)>");
	struct maker_arg part = {.type = DC_TYPE_STR, .value.text = {"abcdef", 3, false}};
	assert_string_equal(format("<%s>", &part, 1), "<abc>");
	part.value.text.cut = true;
	assert_string_equal(format("<%s>", &part, 1), "<abc...>");
}

/* Several arguments, stars, and a percent sign. */
static void test_several(void **state)
{
	(void)state;
	struct maker_arg args[] = {MAKE_I64(7), MAKE_STR("peer"), MAKE_F64(0.5)};
	assert_string_equal(format("conn %d closed after %s: 100%% of %g", args, 3),
			    "conn 7 closed after peer: 100% of 0.5");
	struct maker_arg star[] = {MAKE_I64(6), MAKE_I64(3), MAKE_I64(42)};
	assert_string_equal(format("[%*.*d]", star, 3), "[   042]");
	star[0].value.i = -6;
	assert_string_equal(format("[%*.*d]", star, 3), "[042   ]");
	assert_string_equal(format("plain", NULL, 0), "plain");
	assert_string_equal(format("", NULL, 0), "");
}

/* Without a fitting argument a conversion stands as it is, and what follows is still right. */
static void test_misfits(void **state)
{
	(void)state;
	struct maker_arg args[] = {MAKE_STR("text"), MAKE_I64(5)};
	assert_string_equal(format("%d %d", args, 2), "%d 5");
	assert_string_equal(format("%s %s", args, 2), "text %s");
	assert_string_equal(format("%s %d %d %s", args, 2), "text 5 %d %s");
	assert_string_equal(ONE("%n", MAKE_PTR(0x1000)), "%n");
	assert_string_equal(ONE("%y", MAKE_I64(1)), "%y");
	assert_string_equal(ONE("100%", MAKE_I64(1)), "100%");
	assert_string_equal(ONE("%-", MAKE_I64(1)), "%-");
	assert_string_equal(ONE("%1$d", MAKE_I64(1)), "%1$d");
	assert_string_equal(ONE("%f", MAKE_I64(1)), "%f");
	assert_string_equal(ONE("%s", MAKE_SECRET), "<secret>");
	assert_string_equal(ONE("%s", MAKE_DROPPED(DC_TYPE_STR)), "<dropped>");
}

/* Absurd widths and precisions are bounded. */
static void test_absurd(void **state)
{
	(void)state;
	assert_int_equal(strlen(ONE("%999999999d", MAKE_I64(1))), 4096);
	assert_int_equal(strlen(ONE("%.999999999d", MAKE_I64(1))), 4096);
	assert_int_equal(strlen(ONE("%99999999999999999999s", MAKE_STR("x"))), 4096);
	struct maker_arg star[] = {MAKE_I64(INT64_MAX), MAKE_I64(INT64_MIN), MAKE_I64(1)};
	assert_int_equal(strlen(format("%*.*d", star, 3)), 4096);
}

/* A buffer that is too small is filled and ended, and the whole length returned. */
static void test_small_buffer(void **state)
{
	(void)state;
	ONE("value %d", MAKE_I64(123456));
	for (size_t size = 1; size < 16; size++) {
		char *small = malloc(size);
		assert_non_null(small);
		assert_int_equal(dc_event_format(&event, small, size), 12);
		assert_int_equal(strlen(small), size - 1 < 12 ? size - 1 : 12);
		assert_memory_equal(small, "value 123456", strlen(small));
		free(small);
	}
	assert_int_equal(dc_event_format(&event, NULL, 0), 12);
}

static const char *value(struct maker_arg arg)
{
	format("", &arg, 1);
	size_t length = dc_value_format(&event, 0, text, sizeof text);
	assert_int_equal(length, strlen(text));
	return text;
}

#define VALUE(...) value((struct maker_arg)__VA_ARGS__)

/* One value of each type. */
static void test_values(void **state)
{
	(void)state;
	assert_string_equal(VALUE(MAKE_U64(42)), "42");
	assert_string_equal(VALUE(MAKE_I64(-1)), "-1");
	assert_string_equal(VALUE(MAKE_F64(1.5)), "1.5");
	assert_string_equal(VALUE(MAKE_F64(0.1)), "0.1");
	assert_string_equal(VALUE(MAKE_F64(1.0 / 3)), "0.3333333333333333");
	assert_string_equal(VALUE(MAKE_BOOL(1)), "true");
	assert_string_equal(VALUE(MAKE_BOOL(0)), "false");
	assert_string_equal(VALUE(MAKE_PTR(0x7f00)), "0x7f00");
	assert_string_equal(VALUE(MAKE_STR("abc")), "abc");
	assert_string_equal(VALUE(MAKE_NULL_STR), "(null)");
	assert_string_equal(VALUE(MAKE_SECRET), "<secret>");
	assert_string_equal(VALUE(MAKE_DROPPED(DC_TYPE_I64)), "<dropped>");
	assert_int_equal(dc_value_format(&event, 5, text, sizeof text), strlen("<dropped>"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_integers),     cmocka_unit_test(test_doubles),
		cmocka_unit_test(test_texts),        cmocka_unit_test(test_several),
		cmocka_unit_test(test_misfits),      cmocka_unit_test(test_absurd),
		cmocka_unit_test(test_small_buffer), cmocka_unit_test(test_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
