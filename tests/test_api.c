/* SPDX-License-Identifier: MIT */
/*
 * The public API, there and back: what a program says through the macros is what the decoder reads from its
 * ring. Built twice: as it is, and with -DDC_INLINE.
 */
#include "tests/guests.h"

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "recorder/dashcam.h"

static void expect(const struct guest_ring *r, unsigned kind, const char *name, const char *text)
{
	const struct guest_event *e = guest_find(r, kind, name, 0);
	if (!e)
		fail_msg("no event '%s' of kind %u", name, kind);
	assert_string_equal(e->text, text);
}

static struct guest_ring *record(struct guest_rings *rings, void (*app)(void *))
{
	assert_int_equal(guest_run(app, NULL), 0);
	struct guest_ring *r = guest_only(rings);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(r->overwritten, 0);
	return r;
}

static void every_count(void *arg)
{
	(void)arg;
	DC_INSTANT("i0");
	DC_INSTANT("i1", "a", 1);
	DC_INSTANT("i2", "a", 1, "b", -2);
	DC_INSTANT("i3", "a", 1, "b", -2, "c", 3);
	DC_INSTANT("i4", "a", 1, "b", -2, "c", 3, "d", -4);
	DC_INSTANT("i5", "a", 1, "b", -2, "c", 3, "d", -4, "e", 5);
	DC_INSTANT("i6", "a", 1, "b", -2, "c", 3, "d", -4, "e", 5, "f", -6);
	DC_INSTANT("i7", "a", 1, "b", -2, "c", 3, "d", -4, "e", 5, "f", -6, "g", 7);
	DC_INSTANT("i8", "a", 1, "b", -2, "c", 3, "d", -4, "e", 5, "f", -6, "g", 7, "h", -8);
	DC_END(DC_BEGIN("s0"));
	DC_END(DC_BEGIN("s1", "a", 1));
	DC_END(DC_BEGIN("s2", "a", 1, "b", -2));
	DC_END(DC_BEGIN("s3", "a", 1, "b", -2, "c", 3));
	DC_END(DC_BEGIN("s8", "a", 1, "b", -2, "c", 3, "d", -4, "e", 5, "f", -6, "g", 7, "h", -8));
	DC_ASYNC_BEGIN("a1", 77);
	DC_ASYNC_BEGIN("a2", 77, "b", -2);
	DC_ASYNC_BEGIN("a8", 77u, "b", -2, "c", 3, "d", -4, "e", 5, "f", -6, "g", 7, "h", -8);
	DC_ASYNC_END("a1", 77);
	DC_LOG(DC_INFO, "plain");
	DC_LOG(DC_WARN, "one %d", 1);
	DC_LOG(DC_WARN, "two %d %s", 1, "x");
	DC_LOG(DC_WARN, "three %d %s %.1f", 1, "x", 2.5);
	DC_LOG(DC_WARN, "four %d %d %d %d", 1, 2, 3, 4);
	DC_LOG(DC_WARN, "five %d %d %d %d %d", 1, 2, 3, 4, 5);
	DC_LOG(DC_WARN, "six %d %d %d %d %d %d", 1, 2, 3, 4, 5, 6);
	DC_LOG(DC_WARN, "seven %d %d %d %d %d %d %d", 1, 2, 3, 4, 5, 6, 7);
	DC_LOG(DC_ERROR, "eight %d %d %d %d %d %d %d %d", 1, 2, 3, 4, 5, 6, 7, 8);
}

/* Claim: every macro takes zero to eight arguments and each of them comes back under its key. */
static void test_counts(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, every_count);
	(void)state;
	expect(r, DC_KIND_INSTANT, "i0", "");
	expect(r, DC_KIND_INSTANT, "i1", "a=1");
	expect(r, DC_KIND_INSTANT, "i2", "a=1 b=-2");
	expect(r, DC_KIND_INSTANT, "i3", "a=1 b=-2 c=3");
	expect(r, DC_KIND_INSTANT, "i4", "a=1 b=-2 c=3 d=-4");
	expect(r, DC_KIND_INSTANT, "i5", "a=1 b=-2 c=3 d=-4 e=5");
	expect(r, DC_KIND_INSTANT, "i6", "a=1 b=-2 c=3 d=-4 e=5 f=-6");
	expect(r, DC_KIND_INSTANT, "i7", "a=1 b=-2 c=3 d=-4 e=5 f=-6 g=7");
	expect(r, DC_KIND_INSTANT, "i8", "a=1 b=-2 c=3 d=-4 e=5 f=-6 g=7 h=-8");
	expect(r, DC_KIND_BEGIN, "s0", "");
	expect(r, DC_KIND_BEGIN, "s1", "a=1");
	expect(r, DC_KIND_BEGIN, "s2", "a=1 b=-2");
	expect(r, DC_KIND_BEGIN, "s3", "a=1 b=-2 c=3");
	expect(r, DC_KIND_BEGIN, "s8", "a=1 b=-2 c=3 d=-4 e=5 f=-6 g=7 h=-8");
	assert_int_equal(guest_count(r, DC_KIND_END, NULL), 5);
	expect(r, DC_KIND_ASYNC_BEGIN, "a1", "id=77");
	expect(r, DC_KIND_ASYNC_BEGIN, "a2", "id=77 b=-2");
	expect(r, DC_KIND_ASYNC_BEGIN, "a8", "id=77 b=-2 c=3 d=-4 e=5 f=-6 g=7 h=-8");
	expect(r, DC_KIND_ASYNC_END, "a1", "id=77");
	static const char *const lines[] = {"plain",
					    "one 1",
					    "two 1 x",
					    "three 1 x 2.5",
					    "four 1 2 3 4",
					    "five 1 2 3 4 5",
					    "six 1 2 3 4 5 6",
					    "seven 1 2 3 4 5 6 7",
					    "eight 1 2 3 4 5 6 7 8"};
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		assert_string_equal(guest_find(r, DC_KIND_LOG, NULL, i)->text, lines[i]);
	assert_int_equal(guest_find(r, DC_KIND_LOG, NULL, 0)->level, DC_INFO);
	assert_int_equal(guest_find(r, DC_KIND_LOG, NULL, 8)->level, DC_ERROR);
	assert_int_equal(r->events, 9 + 2 * 5 + 4 + 9);
	guest_rings_free(&rings);
}

enum colour { RED, GREEN = 7 };

static void every_type(void *arg)
{
	(void)arg;
	signed char sc = -5;
	unsigned char uc = 250;
	short s = SHRT_MIN;
	unsigned short us = USHRT_MAX;
	long l = LONG_MIN;
	unsigned long ul = ULONG_MAX;
	long long ll = LLONG_MAX;
	unsigned long long ull = ULLONG_MAX;
	const volatile int cvi = -9;
	char text[] = "array";
	struct {
		unsigned bits : 3;
	} field = {5};
	DC_INSTANT("small", "c", (char)'A', "sc", sc, "uc", uc, "s", s, "us", us, "i", INT_MIN, "u",
		   UINT_MAX);
	DC_INSTANT("large", "l", l, "ul", ul, "ll", ll, "ull", ull);
	DC_INSTANT("one", "l", l);
	DC_INSTANT("two", "ul", ul, "l", l);
	DC_END(DC_BEGIN("begin one", "l", l));
	DC_END(DC_BEGIN("begin two", "l", l, "ul", ul));
	DC_INSTANT("zero", "i", 0, "u", 0u);
	DC_INSTANT("other", "b", (bool)true, "n", (bool)false, "e", GREEN, "field", (unsigned)field.bits,
		   "cvi", cvi);
	DC_INSTANT("real", "f", 1.5f, "d", -0.1, "max", DBL_MAX, "zero", 0.0);
	DC_INSTANT("pointer", "p", (void *)0x1234, "n", (void *)NULL, "i", (int *)0x10, "cv",
		   (const volatile int *)0x20);
	DC_INSTANT("text", "a", text, "l", "literal", "e", "", "n", (char *)NULL, "c", (const char *)text);
	DC_COUNTER("count", -12);
	DC_COUNTER("level", 0.25);
	DC_COUNTER("bytes", sizeof field);
}

/* Claim: every type of argument comes back as the value it was, at its extremes too. */
static void test_types(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, every_type);
	(void)state;
	expect(r, DC_KIND_INSTANT, "small", "c=65 sc=-5 uc=250 s=-32768 us=65535 i=-2147483648 u=4294967295");
	expect(r, DC_KIND_INSTANT, "large",
	       "l=-9223372036854775808 ul=18446744073709551615 ll=9223372036854775807 "
	       "ull=18446744073709551615");
	expect(r, DC_KIND_INSTANT, "one", "l=-9223372036854775808");
	expect(r, DC_KIND_INSTANT, "two", "ul=18446744073709551615 l=-9223372036854775808");
	expect(r, DC_KIND_BEGIN, "begin one", "l=-9223372036854775808");
	expect(r, DC_KIND_BEGIN, "begin two", "l=-9223372036854775808 ul=18446744073709551615");
	expect(r, DC_KIND_INSTANT, "zero", "i=0 u=0");
	expect(r, DC_KIND_INSTANT, "other", "b=true n=false e=7 field=5 cvi=-9");
	expect(r, DC_KIND_INSTANT, "real", "f=1.5 d=-0.1 max=1.7976931348623157e+308 zero=0");
	expect(r, DC_KIND_INSTANT, "pointer", "p=0x1234 n=0x0 i=0x10 cv=0x20");
	expect(r, DC_KIND_INSTANT, "text", "a=array l=literal e= n=(null) c=array");
	expect(r, DC_KIND_COUNTER, "count", "value=-12");
	expect(r, DC_KIND_COUNTER, "level", "value=0.25");
	expect(r, DC_KIND_COUNTER, "bytes", "value=4");
	guest_rings_free(&rings);
}

static char long_text[3000];

static void long_strings(void *arg)
{
	(void)arg;
	memset(long_text, 'x', sizeof long_text - 1);
	DC_INSTANT("cut", "s", long_text);
	DC_INSTANT("shared", "a", long_text + 3000 - 1 - 600, "b", long_text + 3000 - 1 - 600, "c",
		   long_text);
	DC_INSTANT("exact", "s", long_text + 3000 - 1 - 1024, "t", "");
	DC_INSTANT("byte", "s", long_text + 3000 - 1 - 255, "t", long_text + 3000 - 1 - 256);
	DC_END(DC_BEGIN("span", "s", long_text));
	for (int i = 0; i < 100; i++) /* over several chunks */
		DC_INSTANT("many", "s", long_text, "i", i);
	DC_LOG(DC_INFO, "%s|%d", long_text, 1);
}

/* Claim: strings of one event share 1 KiB; what is longer is cut, what follows is still there. */
static void test_long_strings(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, long_strings);
	(void)state;
	const char *cut = guest_find(r, 0, "cut", 0)->text;
	assert_int_equal(strspn(cut + 2, "x"), 1024);
	assert_int_equal(strspn(guest_find(r, 0, "exact", 0)->text + 2, "x"), 1024);
	const char *shared = guest_find(r, 0, "shared", 0)->text;
	assert_int_equal(strspn(shared + 2, "x"), 600);
	assert_int_equal(strspn(strstr(shared, "b=") + 2, "x"), 424);
	assert_non_null(strstr(shared, "c="));
	assert_int_equal(strspn(strstr(shared, "c=") + 2, "x"), 0);
	assert_int_equal(strlen(guest_find(r, 0, "byte", 0)->text), 255 + 256 + 5);
	assert_int_equal(strspn(guest_find(r, DC_KIND_BEGIN, "span", 0)->text + 2, "x"), 1024);
	assert_int_equal(guest_count(r, 0, "many"), 100);
	assert_non_null(strstr(guest_find(r, 0, "many", 99)->text, " i=99"));
	assert_non_null(strstr(guest_find(r, DC_KIND_LOG, NULL, 0)->text, "|1"));
	guest_rings_free(&rings);
}

static int evaluated;

__attribute__((used)) static const char *password(void) /* clang sees that nobody calls it */
{
	evaluated++;
	return "open sesame";
}

static void secrets(void *arg)
{
	(void)arg;
	char token[] = "open sesame";
	DC_INSTANT("login", "user", "alibaba", "token", DC_SECRET(token), "again", DC_SECRET(password()));
	DC_LOG(DC_INFO, "login %s", "alibaba");
	NEED(evaluated == 0);
}

/* Claim: of a secret the ring holds that there was one, and no byte of it. */
static void test_secret(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, secrets);
	(void)state;
	expect(r, DC_KIND_INSTANT, "login", "user=alibaba token=<secret> again=<secret>");
	FILE *f = fopen(r->path, "r");
	static char file[8 << 20];
	size_t n = fread(file, 1, sizeof file, f);
	fclose(f);
	assert_true(n > 1 << 20);
	assert_non_null(memmem(file, n, "alibaba", 7)); /* the search does find text */
	assert_null(memmem(file, n, "sesame", 6));
	guest_rings_free(&rings);
}

static void rest(void *arg)
{
	(void)arg;
	DC_FLOW_OUT(0xdeadbeefcafe);
	DC_FLOW_IN(7);
	DC_TRACE_CONTEXT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	DC_TRACE_CONTEXT(
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"); /* upper case is not allowed */
	DC_TRACE_CONTEXT("00-short");
	DC_TRACE_CONTEXT(NULL);
	DC_STACK("here");
	DC_TRIGGER("checkout failed", "order", 5);
	DC_TRIGGER("again");
	dc_thread_name("renamed with a long name");
	DC_INSTANT("after");
	errno = 4711;
	DC_INSTANT("errno", "s", "text");
	DC_TRIGGER("errno");
	NEED(errno == 4711);
}

/* Claim: flows, trace contexts, stacks, triggers and thread names arrive; malformed contexts do not; errno stays. */
static void test_rest(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, rest);
	(void)state;
	assert_true(guest_find(r, DC_KIND_FLOW_OUT, NULL, 0)->flow_id == 0xdeadbeefcafe);
	assert_int_equal(guest_find(r, DC_KIND_FLOW_IN, NULL, 0)->flow_id, 7);
	assert_int_equal(guest_count(r, DC_KIND_CONTEXT, NULL), 1);
	assert_string_equal(guest_find(r, DC_KIND_CONTEXT, NULL, 0)->text,
			    "0af7651916cd43dd8448eb211c80319cb7ad6b7169203331/01");
	assert_true(guest_find(r, DC_KIND_STACK, "here", 0)->stack_count >= 1);
	expect(r, DC_KIND_TRIGGER, "checkout failed", "order=5");
	assert_int_equal(r->header.trigger_seq, 3);
	assert_string_equal(guest_find(r, DC_KIND_THREAD, NULL, 0)->text, "renamed with a ");
	assert_string_equal(r->lane[0].comm, "renamed with a ");
	assert_true(r->header.flags & DC_RING_GOODBYE);
	guest_rings_free(&rings);
}

static void named_inside(void *arg)
{
	(void)arg;
	DC_SPAN("outer", "n", 1);
	dc_thread_name("worker");
	DC_SPAN("inner");
}

/* Claim: a thread that names itself inside a span keeps its spans. */
static void test_name_inside_span(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, named_inside);
	(void)state;
	assert_int_equal(guest_find(r, DC_KIND_BEGIN, "inner", 0)->depth, 2);
	assert_int_equal(guest_count(r, DC_KIND_END, "outer"), 1);
	assert_int_equal(guest_count(r, DC_KIND_END, "inner"), 1);
	guest_rings_free(&rings);
}

static void forget_ends(void)
{
	DC_BEGIN("forgotten", "n", 1);
	DC_BEGIN("also forgotten");
}

static void nesting(void *arg)
{
	struct dc_stats stats = {.size = sizeof stats};
	(void)arg;
	dc_span_t twice;
	{
		DC_SPAN("scope", "i", 1);
		dc_span_t s = DC_BEGIN("manual");
		forget_ends();
		DC_END(s);
	}
	twice = DC_BEGIN("twice");
	DC_END(twice);
	DC_END(twice);
	DC_END((dc_span_t){0});
	NEED(dc_stats(&stats) == 0 && stats.misplaced_ends == 1);
	NEED(stats.dropped == 0);
}

/* Claim: an end closes what lies above it, marked as implied; an end too many is counted and records nothing. */
static void test_nesting(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, nesting);
	(void)state;
	assert_true(guest_find(r, DC_KIND_END, "forgotten", 0)->implied);
	assert_true(guest_find(r, DC_KIND_END, "also forgotten", 0)->implied);
	assert_false(guest_find(r, DC_KIND_END, "manual", 0)->implied);
	assert_int_equal(guest_find(r, DC_KIND_END, "scope", 0)->depth, 1);
	assert_int_equal(guest_count(r, DC_KIND_END, "twice"), 1);
	guest_rings_free(&rings);
}

static void deep(void *arg)
{
	dc_span_t s[300];
	(void)arg;
	for (int i = 0; i < 300; i++)
		s[i] = DC_BEGIN("deep", "i", i, "text", "carried");
	for (int i = 0; i < 20000; i++) /* many chunks further on */
		DC_INSTANT("noise", "i", i);
	for (int i = 299; i >= 0; i--)
		DC_END(s[i]);
	DC_INSTANT("level");
}

/* Claim: 300 spans deep and many chunks later every span ends, in order, and depth comes back to 0. */
static void test_deep(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, deep);
	(void)state;
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "deep"), 300);
	assert_int_equal(guest_count(r, DC_KIND_END, NULL), 300);
	assert_int_equal(guest_find(r, DC_KIND_INSTANT, "level", 0)->depth, 0);
	assert_int_equal(r->lane[0].depth, 0);
	guest_rings_free(&rings);
}

static void runtime_sites(void *arg)
{
	char name[32];
	(void)arg;
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "route %d", i % 2);
		dc_span_t s = dc_begin(dc_site_new(DC_SITE_SPAN, name));
		dc_counter(dc_site_new(DC_SITE_COUNTER, name), -i);
		dc_instant(dc_site_new(DC_SITE_INSTANT, name));
		DC_END(s);
	}
	NEED(dc_site_new(DC_SITE_SPAN, "route 0") == dc_site_new(DC_SITE_SPAN, "route 0"));
	NEED(dc_site_new(DC_SITE_SPAN, "route 0") != dc_site_new(DC_SITE_INSTANT, "route 0"));
}

/* Claim: sites made at run time record under their names, one for each kind and name. */
static void test_runtime_sites(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, runtime_sites);
	(void)state;
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "route 0"), 2);
	assert_int_equal(guest_count(r, DC_KIND_END, "route 1"), 1);
	assert_string_equal(guest_find(r, DC_KIND_COUNTER, "route 0", 1)->text, "value=-2");
	assert_int_equal(r->header.sites_used, 1 + 6);
	guest_rings_free(&rings);
}

static void start_stop(void *arg)
{
	struct dc_opts opts = DC_OPTS_INIT;
	struct dc_stats stats = {.size = sizeof stats};
	(void)arg;
	opts.name = "chosen";
	opts.memory_bytes = 8 << 20;
	opts.window_ns = 5000000000;
	NEED(dc_stop() == -ESRCH);
	NEED(dc_stats(&stats) == -ESRCH);
	NEED(dc_start(&opts) == 0);
	NEED(dc_start(NULL) == -EALREADY);
	opts.size = 3;
	NEED(dc_start(&opts) == -EINVAL);
	for (int i = 0; i < 100; i++) {
		DC_INSTANT("on", "i", i);
		dc_span_t s = DC_BEGIN("across");
		NEED(dc_stop() == 0);
		NEED(dc_stop() == -ESRCH);
		DC_INSTANT("off", "i", i);
		DC_END(s);
		NEED(dc_start(NULL) == 0);
	}
	dc_window(7000000000);
	NEED(dc_stats(&stats) == 0);
	NEED(stats.wanted_window_ns > 6900000000 && stats.wanted_window_ns < 7100000000);
	NEED(stats.cap_bytes <= 8 << 20 && stats.memory_bytes <= 512 << 10 && stats.memory_bytes >= 16 << 10);
	NEED(stats.lanes == 1 && stats.dropped == 0 && stats.misplaced_ends == 0);
	NEED(strstr(stats.ring, ".ring"));
	stats.size = 1;
	NEED(dc_stats(&stats) == -EINVAL);
}

/* Claim: dc_stop() and dc_start() switch the same ring off and on; options and statistics are what they say. */
static void test_start_stop(void **state)
{
	static struct guest_rings rings;
	struct guest_ring *r = record(&rings, start_stop);
	(void)state;
	assert_int_equal(guest_count(r, 0, "on"), 100);
	assert_int_equal(guest_count(r, 0, "off"), 0);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "across"), 100);
	assert_int_equal(guest_count(r, DC_KIND_END, "across"), 100);
	assert_string_equal(r->header.name, "chosen");
	assert_int_equal(r->header.flags, DC_RING_GOODBYE);
	guest_rings_free(&rings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_counts, guest_teardown),
		cmocka_unit_test_teardown(test_types, guest_teardown),
		cmocka_unit_test_teardown(test_long_strings, guest_teardown),
		cmocka_unit_test_teardown(test_secret, guest_teardown),
		cmocka_unit_test_teardown(test_rest, guest_teardown),
		cmocka_unit_test_teardown(test_name_inside_span, guest_teardown),
		cmocka_unit_test_teardown(test_nesting, guest_teardown),
		cmocka_unit_test_teardown(test_deep, guest_teardown),
		cmocka_unit_test_teardown(test_runtime_sites, guest_teardown),
		cmocka_unit_test_teardown(test_start_stop, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
