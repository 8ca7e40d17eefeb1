/* SPDX-License-Identifier: MIT */
/* Rules about what a program records: spans, events, logs, counters, their arguments; what its guest is told, and tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "evaluating.h"

static void test_span_lasts(void **state)
{
	/* Each span that is too long fires, once a look; the firing says by how much and whose it was. The others are counted. */
	(void)state;
	begin("span \"http.*\" > 250ms");
	span(HTTP, 250 * MS);
	span(DB, 300 * MS);
	assert_int_equal(since(), 0);
	span_end(HTTP, 7, 1, 251 * MS);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 251e6) < 1 && fabs(fired[0].threshold - 250e6) < 1);
	assert_string_equal(fired_names[0], "http.request");
	assert_int_equal(fired[0].tid, TID + 7);
	assert_int_equal(fired[0].site, HTTP);
	assert_ptr_equal(fired[0].process, &now);
	assert_int_equal(fired[0].leaf->op, DC_RULE_SPAN_LASTS);
	since();
	span(HTTP, 300 * MS);
	span(HTTP, 301 * MS);
	assert_int_equal(since(), 0);
	assert_int_equal(untold, 0);
	look(250 * MS);
	assert_int_equal(untold, 2);
	span(HTTP, 302 * MS);
	assert_int_equal(firings, 1);
	look(250 * MS);
	assert_int_equal(untold, 2);
	span(HTTP, 303 * MS);
	span(HTTP, 304 * MS);
	evaluating_end(NULL); /* the process goes in the middle of a look */
	assert_int_equal(since(), 2);
	assert_int_equal(untold, 3);
}

static void test_span_bad_times(void **state)
{
	/* Spans whose begin is not known, or lies after their end, say nothing of how long they took. */
	struct dc_event ev;

	(void)state;
	begin("span \"*\" >= 0");
	ev = of(DC_KIND_END, HTTP, 0);
	put(&ev);
	ev.start_units = ev.units + 5;
	put(&ev);
	ev.info = NULL;
	ev.start_units = 1;
	put(&ev);
	assert_int_equal(since(), 0);
	span(HTTP, 0);
	assert_int_equal(since(), 1);
}

static void test_unusual(void **state)
{
	/* One far beyond its like fires, of each name by itself; what it is compared with is told. */
	(void)state;
	begin("span \"*\" unusual");
	for (unsigned i = 0; i < 20000; i++) {
		now += MS;
		span(HTTP, (int64_t)((1 + uniform()) * 1e6));
		span(DB, (int64_t)((1 + uniform()) * 1e9));
	}
	assert_int_equal(since(), 0);
	look(250 * MS);
	span(DB, 500 * MS);
	assert_int_equal(since(), 0);
	span(HTTP, 500 * MS);
	assert_int_equal(firings, 1);
	assert_true(fired[0].threshold > 1.9e6 && fired[0].threshold < 500e6);
	assert_true(fabs(fired[0].value - 500e6) < 1);
}

static void test_percentile(void **state)
{
	/* Two of a hundred beyond the limit are a 99th percentile above it; one is not. It is an edge: once until it goes back. */
	(void)state;
	begin("span \"http.request\" p99 > 50ms over 10s");
	for (unsigned i = 0; i < 99; i++)
		span(HTTP, MS);
	span(HTTP, 60 * MS);
	look(250 * MS);
	assert_int_equal(since(), 0);
	span(HTTP, 70 * MS);
	look(250 * MS);
	assert_int_equal(firings, 1);
	assert_true(fired[0].value > 50e6 && fired[0].value < 72e6);
	look(250 * MS);
	span(HTTP, 70 * MS);
	look(250 * MS);
	assert_int_equal(since(), 1);
	look(20 * SECOND);
	look(250 * MS);
	for (unsigned i = 0; i < 5; i++)
		span(HTTP, 60 * MS);
	look(250 * MS);
	assert_int_equal(since(), 1);
}

static void seconds_of(unsigned seconds, unsigned messages, uint16_t site)
{
	for (unsigned i = 0; i < 4 * seconds; i++) {
		for (unsigned k = 0; k < messages; k++)
			message(site);
		look(SECOND / 4);
	}
}

static void test_log_unusual(void **state)
{
	/* A program that hardly ever complains and then does so without end; one that always does is left alone. */
	(void)state;
	begin("log >= warn rate unusual and log >= warn rate > 50/s over 3s");
	seconds_of(14, 0, WARN);
	seconds_of(2, 300, WARN);
	assert_int_equal(since(), 0); /* two seconds are a burst */
	seconds_of(6, 300, WARN);
	assert_int_equal(firings, 1);
	assert_true(fired[0].value > 1000 && fired[0].threshold < 100 && fired[0].leaf->op == DC_RULE_LOG_RATE);
	since();
	seconds_of(20, 200, ERROR); /* it has become usual */
	seconds_of(20, 0, ERROR);
	seconds_of(20, 300, WARN);
	assert_int_equal(since(), 0);
	begin("log >= warn rate unusual and log >= warn rate > 50/s over 3s");
	seconds_of(8, 300, WARN); /* as it starts */
	seconds_of(20, 0, WARN);
	seconds_of(20, 3, ERROR); /* unusual, but few */
	assert_int_equal(since(), 0);
}

static void test_rate_unusual(void **state)
{
	/* Of each name by itself, with its conditions on arguments. */
	(void)state;
	begin("event \"cache.*\" where key == 7 rate unusual or span \"*\" rate unusual");
	for (unsigned i = 0; i < 200; i++) {
		instant(MISS, i < 120 ? 7 : 8);
		for (unsigned k = 0; k < (i < 120 ? 1 : 50); k++)
			instant(MISS, 8), span(HTTP, MS);
		look(SECOND / 4);
		if (i == 119)
			assert_int_equal(since(), 0);
	}
	assert_int_equal(firings, 1);
	assert_string_equal(fired_names[0], "http.request");
	assert_int_equal(fired[0].leaf->op, DC_RULE_SPAN_RATE);
}

static void test_counter_unusual(void **state)
{
	/* A queue that nobody empties fast enough fires by its name, with how far it came; one filled at once does not. */
	(void)state;
	begin("counter \"queue.*\" unusual");
	for (unsigned i = 0; i < 240; i++) {
		counter(i % 9, 0);
		counter(i == 100 ? 30000 : i > 100 && i < 160 ? (160 - i) * 500 : i % 7, 1);
		look(SECOND / 4);
	}
	assert_int_equal(since(), 0);
	begin("counter \"queue.*\" unusual");
	for (unsigned i = 0; i < 160; i++) {
		counter(i < 80 ? i % 9 : 25 * (i - 80), 0);
		look(SECOND / 4);
	}
	assert_int_equal(firings, 1);
	assert_string_equal(fired_names[0], "queue.depth");
	assert_true(fired[0].value > 500 && fired[0].value < 1000 && fired[0].threshold < 101 && fired[0].threshold > 99);
}
static void test_rates(void **state)
{
	/* More than so many: as soon as they are there, weights counted. Fewer: when the window has passed, and only then. */
	(void)state;
	begin("event \"cache.miss\" rate > 10/s over 5s");
	for (unsigned i = 0; i < 50; i++)
		instant(MISS, i);
	look(250 * MS);
	assert_int_equal(since(), 0);
	instant(MISS, 1);
	look(250 * MS);
	assert_int_equal(firings, 1);
	assert_true(fired[0].value > 10 && fired[0].value < 10.3);
	assert_string_equal(fired_names[0], "cache.miss");

	begin("event \"cache.*\" rate > 10/s over 5s");
	struct dc_event ev = of(DC_KIND_INSTANT, MISS, 0);
	dc_evaluate_event(evaluate, subject, &ev, 60, now);
	look(250 * MS);
	assert_int_equal(since(), 1);

	begin("span \"http.request\" rate < 2/s over 5s");
	for (unsigned i = 0; i < 80; i++) {
		span(HTTP, MS);
		look(250 * MS);
	}
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 20; i++)
		look(250 * MS);
	assert_int_equal(since(), 1);
}

static void test_by_seconds(void **state)
{
	/* Of a program that recorded nothing that is counted by the second, seldomer looks miss nothing. */
	(void)state;
	begin("event \"cache.miss\" rate > 10/s over 5s or counter \"queue.*\" unusual or span \"*\" unusual");
	assert_false(dc_evaluate_by_seconds(subject));
	span(HTTP, MS);
	assert_false(dc_evaluate_by_seconds(subject));
	instant(MISS, 1);
	assert_true(dc_evaluate_by_seconds(subject));
	begin("counter \"queue.*\" unusual");
	assert_false(dc_evaluate_by_seconds(subject));
	counter(1, 0);
	assert_true(dc_evaluate_by_seconds(subject));
	begin("log == warn rate >= 3/s");
	message(ERROR);
	assert_false(dc_evaluate_by_seconds(subject));
	message(WARN);
	assert_true(dc_evaluate_by_seconds(subject));
}

static void test_logs(void **state)
{
	(void)state;
	/* Levels are compared by weight; a rate is that of all messages of the level. */
	begin("log >= error");
	message(WARN);
	assert_int_equal(since(), 0);
	message(ERROR);
	assert_int_equal(since(), 1);
	begin("log == warn rate >= 3/s");
	message(WARN);
	message(WARN);
	message(ERROR);
	look(250 * MS);
	assert_int_equal(since(), 0);
	message(WARN);
	look(250 * MS);
	assert_int_equal(since(), 1);
}

static void test_counter(void **state)
{
	/* The last value counts, whoever recorded it; `for` wants it without a break. */
	(void)state;
	begin("counter \"queue.depth\" > 1000 for 2s");
	counter(1001, 0);
	look(1999 * MS);
	counter(5, 1);
	look(MS);
	counter(1001, 1);
	look(1999 * MS);
	assert_int_equal(since(), 0);
	look(MS);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 1001) < 1e-9 && fabs(fired[0].threshold - 1000) < 1e-9);
	look(5 * SECOND);
	assert_int_equal(since(), 1);
	begin("counter \"queue.depth\" == 0");
	look(SECOND);
	assert_int_equal(since(), 0);
	counter(0, 0);
	assert_int_equal(since(), 1);
	counter(0, 0);
	counter(1, 0);
	look(SECOND);
	counter(0, 0);
	assert_int_equal(since(), 1);
}

/* ---- arguments ---- */

static void request(uint32_t depth, const char *route, int64_t bytes, uint8_t kind)
{
	struct dc_event ev = of(kind, HTTP, 0);

	ev.depth = depth;
	ev.arg_count = 4;
	ev.args[0].text = (struct dc_text){.bytes = route, .length = route ? (uint32_t)strlen(route) : 0};
	ev.args[1].i = bytes;
	ev.args[2].f = 0.5;
	put(&ev);
}

static bool with(const char *where, const char *route, int64_t bytes)
{
	char when[256];

	snprintf(when, sizeof(when), "span \"http.request\" where %s > 5ms", where);
	begin(when);
	request(1, route, bytes, DC_KIND_BEGIN);
	now += 6 * MS;
	span_end(HTTP, 0, 1, 6 * MS);
	return since() == 1;
}

static void test_where(void **state)
{
	(void)state;
	assert_true(with("route == \"/pay\"", "/pay", 0));
	assert_false(with("route == \"/pay\"", "/pa", 0));
	assert_false(with("route == \"/pay\"", "/pays", 0));
	assert_true(with("route == \"/pay*\"", "/pay/7", 0));
	assert_true(with("route != \"/pay\"", "/", 0));
	assert_true(with("bytes >= 4096", "/", 4096));
	assert_false(with("bytes > 4096", "/", 4096));
	assert_true(with("bytes < 0", "/", -1));
	assert_true(with("load == 0.5", "/", 0));
	assert_true(with("route == \"/\", bytes == 7", "/", 7));
	assert_false(with("route == \"/\", bytes == 7", "/", 8));
	assert_false(with("nothing == 7", "/", 7));
	assert_false(with("route == 7", "7", 7));
	assert_false(with("secret == \"*\"", "/", 7));
}

static void requests(const char *route, int64_t took, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		request(1, route, i, DC_KIND_BEGIN);
		now += took;
		span_end(HTTP, 0, 1, took);
		look(40 * MS);
	}
}

static void test_slower(void **state)
{
	/* A route that becomes slow is told, though others of its name always were; by it, and once. */
	(void)state;
	begin("span \"http.*\" slower > 50ms");
	for (unsigned i = 0; i < 100; i++) {
		requests("/report", 400 * MS, 1);
		requests("/kv/7", MS, 4);
		requests("/kv/8", MS, 4);
		requests("/stats", 2 * MS, 2);
	}
	assert_int_equal(since(), 0);
	requests("/stats", 40 * MS, 60);
	requests("/report", 400 * MS, 60);
	assert_int_equal(since(), 0);
	requests("/stats", 300 * MS, 60);
	assert_int_equal(since(), 1);
	assert_true(fabs(fired[0].value - 300e6) < 1 && fired[0].threshold >= 50e6 && fired[0].tid == TID);
	requests("/stats", 2 * MS, 60);
	requests("/kv/9", 300 * MS, 60);
	assert_int_equal(since(), 1);
	begin("span \"http.*\" where route == \"/kv*\" slower");
	requests("/kv/7", MS, 400);
	requests("/stats", MS, 400);
	requests("/stats", 100 * MS, 100);
	assert_int_equal(since(), 0);
	requests("/kv/8", 100 * MS, 100);
	assert_int_equal(since(), 1);
}

static void test_where_nested(void **state)
{
	/* Each of nested spans keeps its own arguments; one whose begin was not seen has none. */
	(void)state;
	begin("span \"http.request\" where route == \"/slow\" > 5ms");
	request(1, "/slow", 0, DC_KIND_BEGIN);
	now += MS;
	request(2, "/fast", 0, DC_KIND_BEGIN);
	now += 6 * MS;
	span_end(HTTP, 0, 2, 6 * MS);
	assert_int_equal(since(), 0);
	span_end(HTTP, 0, 1, 7 * MS);
	assert_int_equal(since(), 1);
	look(SECOND);
	span_end(HTTP, 0, 1, 7 * MS);
	assert_int_equal(since(), 0);
	request(1, "/slow", 0, DC_KIND_BEGIN);
	now += 9 * MS;
	span_end(HTTP, 0, 1, 8 * MS); /* ended another one */
	assert_int_equal(since(), 0);
	begin("event \"cache.miss\" where key == 3");
	instant(MISS, 2);
	assert_int_equal(since(), 0);
	instant(MISS, 3);
	assert_int_equal(since(), 1);
}

static void test_trace(void **state)
{
	/* A firing carries the trace context of its thread: that of the work it is about, not of the one before. */
	struct dc_event context = {.kind = DC_KIND_CONTEXT, .tid = TID, .serial = 1, .context = {.trace_id = {1, 2, 3}}};
	static const uint8_t none[16];

	(void)state;
	begin("span \"http.request\" > 5ms");
	span_begin(HTTP, 0, 1);
	put(&context);
	now += 6 * MS;
	span_end(HTTP, 0, 1, 6 * MS);
	assert_int_equal(since(), 1);
	assert_memory_equal(fired[0].trace_id, context.context.trace_id, 16);
	look(SECOND);
	span_begin(HTTP, 0, 1);
	now += 6 * MS;
	span_end(HTTP, 0, 1, 6 * MS);
	assert_int_equal(since(), 1);
	assert_memory_equal(fired[0].trace_id, none, 16);
}

/* ---- the guest ---- */

static uint64_t threshold(uint16_t site)
{
	return dc_evaluate_threshold(evaluate, subject, site, sites[site].name);
}

static void test_thresholds(void **state)
{
	struct dc_rules rules = {0};

	(void)state;
	/* The least that any rule wants; of `and` the greater; nothing where arguments decide, or what is short. */
	add(&rules, "a", "span \"http.*\" > 250ms");
	add(&rules, "b", "span \"*\" >= 300ms");
	add(&rules, "c", "span \"http.request\" where route == \"/\" > 1ms");
	add(&rules, "d", "span \"http.request\" < 1ms");
	add(&rules, "e", "span \"db.query\" > 10ms and span \"*\" > 20ms");
	add(&rules, "f", "span \"db.query\" > 3ms and stopped and not span \"*\" > 1ms");
	begin_with(&rules);
	assert_int_equal(threshold(HTTP), 250 * MS);
	assert_int_equal(threshold(DB), 3 * MS);
	assert_int_equal(threshold(PARK), 300 * MS);
	dc_rules_cleanup(&rules);
	begin("span \"db.query\" > 10ms and span \"*\" > 20ms");
	assert_int_equal(threshold(DB), 20 * MS);
	assert_int_equal(threshold(HTTP), 0);
	begin("span \"db.query\" > 10ms or event \"x\"");
	assert_int_equal(threshold(DB), 10 * MS);
	begin("exit signal");
	assert_int_equal(threshold(DB), 0);
	begin("span \"*\" slower > 50ms"); /* one says nothing about that */
	assert_int_equal(threshold(DB), 0);
	begin("span \"*\" slower and span \"*\" > 50ms");
	assert_int_equal(threshold(DB), 0);
	/* Unusual: as soon as it is known, what is unusual. */
	begin("span \"*\" unusual and span \"*\" > 1us");
	assert_int_equal(threshold(HTTP), 0);
	for (unsigned i = 0; i < 20000; i++) {
		now += MS;
		span(HTTP, (int64_t)((1 + uniform()) * 1e6));
	}
	assert_in_range(threshold(HTTP), 2 * MS, 100 * MS);
}

static void test_told_once(void **state)
{
	/* The guest and the tail bring the same span: whoever is first, it counts once. A second one counts. */
	(void)state;
	begin("span \"http.request\" > 5ms");
	dc_evaluate_span_over(evaluate, subject, HTTP, "http.request", 6 * MS, TID, 4711, now, now);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].at_tick, 4711);
	assert_int_equal(fired[0].tid, TID);
	look(250 * MS);
	span(HTTP, 6 * MS);
	assert_int_equal(since(), 1);
	span(HTTP, 6 * MS);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].at_tick, 0);
	look(250 * MS);
	dc_evaluate_span_over(evaluate, subject, HTTP, "http.request", 6 * MS, TID, 1, now, now);
	assert_int_equal(since(), 1);
	dc_evaluate_span_over(evaluate, subject, HTTP, "http.request", 6 * MS, TID, 1, now, now);
	assert_int_equal(since(), 1);
	dc_evaluate_span_over(evaluate, subject, HTTP, "http.request", 4 * MS, TID, 1, now, now);
	assert_int_equal(since(), 0);
}

static void test_told_once_in_a_storm(void **state)
{
	/* The guest's word on a span may come when the tail is hundreds of spans further: it counts once all the same. */
	(void)state;
	begin("span \"http.request\" > 5ms");
	for (unsigned i = 0; i < 300; i++) {
		now += 10 * MS;
		span(HTTP, (int64_t)(6 * MS + i));
	}
	for (unsigned i = 200; i < 299; i++)
		dc_evaluate_span_over(evaluate, subject, HTTP, "http.request", (uint64_t)(6 * MS + i), TID, 1,
				      (uint64_t)(now - (299 - i) * 10 * MS + 1), now);
	look(250 * MS);
	assert_int_equal(since() + untold, 300);
	dc_evaluate_lost(subject); /* so it may never have brought this one */
	dc_evaluate_span_over(evaluate, subject, HTTP, "http.request", 9 * MS, TID, 1, (uint64_t)(now - SECOND), now);
	assert_int_equal(since(), 1);
}

static void test_percentile_at_once(void **state)
{
	/* A percentile that is near its limit is tipped by the very span that is too slow; while it is far, nobody is bothered. */
	(void)state;
	begin("span \"http.request\" p99 > 50ms over 10s");
	for (unsigned i = 0; i < 1000; i++)
		span(HTTP, MS);
	look(250 * MS);
	assert_int_equal(threshold(HTTP), 0);
	for (unsigned i = 0; i < 10; i++)
		span(HTTP, 60 * MS);
	look(250 * MS);
	assert_int_equal(since(), 0);
	assert_int_equal(threshold(HTTP), 50 * MS);
	dc_evaluate_span_over(evaluate, subject, HTTP, "http.request", 70 * MS, TID + 3, 99, now, now);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, TID + 3);
	assert_int_equal(fired[0].at_tick, 99);
	assert_int_equal(threshold(HTTP), 0);
	span_end(HTTP, 3, 1, 70 * MS);
	look(250 * MS);
	assert_int_equal(since(), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_span_lasts),
		cmocka_unit_test(test_span_bad_times),
		cmocka_unit_test(test_unusual),
		cmocka_unit_test(test_percentile),
		cmocka_unit_test(test_log_unusual),
		cmocka_unit_test(test_rate_unusual),
		cmocka_unit_test(test_counter_unusual),
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_by_seconds), cmocka_unit_test(test_logs),
		cmocka_unit_test(test_counter),
		cmocka_unit_test(test_where),
		cmocka_unit_test(test_slower),
		cmocka_unit_test(test_where_nested),
		cmocka_unit_test(test_trace),
		cmocka_unit_test(test_thresholds),
		cmocka_unit_test(test_told_once),
		cmocka_unit_test(test_told_once_in_a_storm),
		cmocka_unit_test(test_percentile_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, evaluating_end);
}
