/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/event.h"
#include "trigger/rules/evaluate.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define W_EXIT(code) ((code) << 8)
#define TID 100u

/* What fired, of a clock that only this file moves; a unit of the ring is 1 ns. */
static struct dc_rule_firing fired[64];
static char fired_names[64][32];
static unsigned firings;
static struct dc_evaluate *e;
static struct dc_subject *s;
static int64_t now;

static void on_fire(void *arg, const struct dc_rule_firing *f)
{
	assert_ptr_equal(arg, &firings);
	if (firings < 64) {
		fired[firings] = *f;
		snprintf(fired_names[firings], sizeof(fired_names[0]), "%s", f->name);
	}
	firings++;
}

static void add(struct dc_rules *rules, const char *name, const char *when)
{
	struct dc_rule_error error;
	struct dc_rule rule;

	dc_rule_defaults(&rule);
	snprintf(rule.name, sizeof(rule.name), "%s", name);
	if (dc_rule_parse(when, &rule.when, &error) < 0)
		fail_msg("%s: column %u: %s", when, error.column, error.why);
	assert_int_equal(dc_rules_add(rules, &rule), 0);
}

static int teardown(void **state)
{
	(void)state;
	dc_evaluate_free(e);
	e = NULL;
	return 0;
}

static void begin_with(const struct dc_rules *rules)
{
	teardown(NULL);
	now = 1000 * SECOND;
	firings = 0;
	memset(fired, 0, sizeof(fired));
	assert_int_equal(dc_evaluate_new(rules, on_fire, &firings, &e), 0);
	s = dc_evaluate_process(e, "server", 1e9, &now, now);
	assert_non_null(s);
}

/* One rule, one process. */
static void begin(const char *when)
{
	struct dc_rules rules = {0};

	add(&rules, "r", when);
	begin_with(&rules);
	dc_rules_cleanup(&rules);
}

static unsigned since(void)
{
	unsigned n = firings;

	firings = 0;
	return n;
}

static void look(int64_t ns)
{
	now += ns;
	dc_evaluate_tick(e, now);
}

/* ---- events ---- */

#define HTTP 1
#define DB 2
#define MISS 3
#define DEPTH 4
#define ERROR 5
#define WARN 6
#define PARK 7

static struct dc_site_info sites[] = {
	{.name = "?"},
	[HTTP] = {.name = "http.request",
		  .keys = {"route", "bytes", "load", "secret"},
		  .arg_count = 4,
		  .types = {DC_TYPE_STR, DC_TYPE_I64, DC_TYPE_F64, DC_TYPE_SECRET}},
	[DB] = {.name = "db.query"},
	[MISS] = {.name = "cache.miss", .keys = {"key"}, .arg_count = 1, .types = {DC_TYPE_U64}},
	[DEPTH] = {.name = "queue.depth", .keys = {"value"}, .arg_count = 1, .types = {DC_TYPE_I64}},
	[ERROR] = {.name = "e", .level = DC_LEVEL_ERROR},
	[WARN] = {.name = "w", .level = DC_LEVEL_WARN},
	[PARK] = {.name = "worker.park"},
};

static struct dc_event of(uint8_t kind, uint16_t site, uint32_t thread)
{
	return (struct dc_event){.units = (uint64_t)now,
				 .kind = kind,
				 .site = site,
				 .tid = TID + thread,
				 .serial = 1,
				 .lane = thread,
				 .start_units = UINT64_MAX,
				 .info = &sites[site]};
}

static void put(const struct dc_event *event)
{
	dc_evaluate_event(e, s, event, 1, now);
}

static void span_begin(uint16_t site, uint32_t thread, uint32_t depth)
{
	struct dc_event ev = of(DC_KIND_BEGIN, site, thread);

	ev.depth = depth;
	put(&ev);
}

static void span_end(uint16_t site, uint32_t thread, uint32_t depth, int64_t ns)
{
	struct dc_event ev = of(DC_KIND_END, site, thread);

	ev.depth = depth;
	ev.start_units = ev.units - (uint64_t)ns;
	put(&ev);
}

/* A span of thread 0 that ends now. */
static void span(uint16_t site, int64_t ns)
{
	span_end(site, 0, 1, ns);
}

static void instant(uint16_t site, uint64_t value)
{
	struct dc_event ev = of(DC_KIND_INSTANT, site, 0);

	ev.arg_count = sites[site].arg_count;
	ev.args[0].u = value;
	put(&ev);
}

static void counter(int64_t value, uint32_t thread)
{
	struct dc_event ev = of(DC_KIND_COUNTER, DEPTH, thread);

	ev.arg_count = 1;
	ev.args[0].i = value;
	put(&ev);
}

static void message(uint16_t site)
{
	struct dc_event ev = of(DC_KIND_LOG, site, 0);

	put(&ev);
}

static void lane(uint32_t thread, int64_t last_ns, uint32_t depth, uint16_t site, int64_t open_ns)
{
	struct dc_ring_lane entry = {.last_units = (uint64_t)last_ns,
				     .open_units = (uint64_t)open_ns,
				     .depth = depth,
				     .open_site = site,
				     .tid = TID + thread,
				     .serial = 1};

	dc_evaluate_lane(e, s, thread, &entry, depth ? sites[site].name : "", (uint64_t)now, now);
}

/* ---- conditions ---- */

static void test_span_lasts(void **state)
{
	/* Each span that is too long fires, once a look; the firing says by how much, whose it was, and what was not told. */
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
	look(250 * MS);
	span(HTTP, 302 * MS);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].untold, 2);
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

static double uniform(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (double)(x >> 11) * 0x1p-53;
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

static void test_open(void **state)
{
	/* A span that does not end fires once, when it is too old; another one in another thread fires again. */
	(void)state;
	begin("span \"job*\" open > 30s or span \"db.query\" open > 30s");
	for (int i = 0; i < 40; i++) {
		look(SECOND);
		lane(0, now, 1, DB, 1000 * SECOND);
		lane(1, now, 1, HTTP, 1000 * SECOND);
	}
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, TID);
	assert_true(fired[0].value > 30e9 && fired[0].value <= 31e9);
	assert_string_equal(fired_names[0], "db.query");
	lane(2, now, 1, DB, 1005 * SECOND);
	look(SECOND);
	assert_int_equal(since(), 2);
	lane(0, now, 0, 0, 0);
	lane(2, now, 0, 0, 0);
	look(SECOND);
	lane(0, now, 1, DB, 1005 * SECOND);
	look(SECOND);
	assert_int_equal(since(), 1);
}

static void test_open_outer(void **state)
{
	/* A span is open also while another one inside it is; the tail knows of it, the lane table only of the innermost. */
	(void)state;
	begin("span \"http.request\" open > 5s");
	span_begin(HTTP, 0, 1);
	now += SECOND;
	span_begin(DB, 0, 2);
	lane(0, now, 2, DB, now);
	look(SECOND);
	assert_int_equal(since(), 0);
	now += 4 * SECOND;
	lane(0, 1001 * SECOND, 2, DB, 1001 * SECOND);
	assert_int_equal(since(), 1);
	lane(0, 1001 * SECOND, 2, DB, 1002 * SECOND); /* not the one the tail knows: what is around it is not known */
	look(SECOND);
	assert_int_equal(since(), 0);
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

static void test_open_unusual(void **state)
{
	/* Twenty times as long as the longest ever, and two seconds, once fifty have ended: before, nobody knows. */
	(void)state;
	begin("span \"*\" open unusual");
	for (unsigned i = 0; i < 49; i++)
		span(HTTP, 200 * MS);
	lane(0, now, 1, HTTP, now - 100 * SECOND);
	look(250 * MS);
	assert_int_equal(since(), 0);
	span(HTTP, 200 * MS);
	lane(0, now, 1, HTTP, now - 4 * SECOND + MS);
	assert_int_equal(since(), 0);
	lane(0, now, 1, HTTP, now - 4 * SECOND);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].threshold - 4e9) < 1);
	for (unsigned i = 0; i < 60; i++)
		span(DB, MS);
	lane(1, now, 1, DB, now - SECOND);
	assert_int_equal(since(), 1);
	look(250 * MS);
	lane(1, now, 1, DB, now - 2 * SECOND);
	assert_int_equal(since(), 1);
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
	dc_evaluate_event(e, s, &ev, 60, now);
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

/* Both threads record with every look, @quiet do not; for so many looks. */
static void work(unsigned looks, bool first, bool second)
{
	static int64_t last[2];

	for (unsigned i = 0; i < looks; i++) {
		now += 250 * MS;
		last[0] = first ? now - MS : last[0];
		last[1] = second ? now - 2 * MS : last[1];
		lane(0, last[0], 0, 0, 0);
		lane(1, last[1], 0, 0, 0);
		dc_evaluate_tick(e, now);
	}
}

static void test_silent(void **state)
{
	/* All threads of a process that always recorded have been quiet for so long; one alone that goes on is enough. */
	(void)state;
	begin("silent for 5s");
	work(60, true, true);
	work(60, true, false);
	assert_int_equal(since(), 0);
	work(19, false, false);
	assert_int_equal(since(), 0);
	work(2, false, false);
	assert_int_equal(firings, 1);
	assert_true(fired[0].value >= 5e9 && fired[0].value < 5.6e9);
	work(40, false, false);
	assert_int_equal(since(), 1);
	/* It may come back and go again, but a pause that it made before is no news. */
	work(100, true, true);
	work(60, false, false);
	assert_int_equal(since(), 0);
}

static void test_silent_is_not(void **state)
{
	/* A process that just began, one whose threads ended, one that nobody looked at, a machine that slept. */
	struct dc_ring_lane gone = {.tid = TID, .serial = 1, .flags = DC_LANE_FREE};

	(void)state;
	begin("silent for 5s or thread silent for 5s");
	work(4, true, true);
	work(60, false, false);
	assert_int_equal(since(), 0);

	begin("silent for 5s or thread silent for 5s");
	work(100, true, true);
	for (unsigned i = 0; i < 60; i++) {
		now += 250 * MS;
		dc_evaluate_lane(e, s, 0, &gone, "", (uint64_t)now, now);
		dc_evaluate_lane(e, s, 1, &gone, "", (uint64_t)now, now);
		dc_evaluate_tick(e, now);
	}
	assert_int_equal(since(), 0);

	begin("silent for 5s or thread silent for 5s");
	work(100, true, true);
	now += 600 * SECOND;
	work(10, false, false);
	assert_int_equal(since(), 0);

	begin("silent for 5s or thread silent for 5s");
	work(100, true, true);
	for (unsigned i = 0; i < 8; i++) {
		struct dc_ring_lane entry = {.last_units = (uint64_t)now, .tid = TID, .serial = 1};

		dc_evaluate_lane(e, s, 0, &entry, "", (uint64_t)(now + (i + 2) * 250 * MS + 3600 * SECOND), now + (i + 2) * 250 * MS);
	}
	dc_evaluate_tick(e, now + 2 * SECOND);
	assert_int_equal(since(), 0);
}

static void test_thread_silent(void **state)
{
	(void)state;
	/* One thread stops, the other goes on. */
	begin("thread silent for 3s");
	work(60, true, true);
	work(11, true, false);
	assert_int_equal(since(), 0);
	work(2, true, false);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, TID + 1);
	work(40, true, false);
	assert_int_equal(since(), 1);
	work(13, false, false);
	assert_int_equal(since(), 1);
	assert_int_equal(fired[0].tid, TID);
}

/* Thread 1 records @beats pauses of @pause, thread 0 all the time. */
static void beats(unsigned looks, bool first, bool second, int64_t pause, double jitter)
{
	static int64_t last[2], next;

	for (unsigned i = 0; i < looks; i++) {
		int64_t from = now, to = now + 250 * MS;

		if (next < from)
			next = from;
		for (; second && next <= to; next += (int64_t)((double)pause * (1 + jitter * uniform()))) {
			now = last[1] = next;
			counter(1, 1);
		}
		now = to;
		last[0] = first ? now - MS : last[0];
		lane(0, last[0], 0, 0, 0);
		lane(1, last[1], 0, 0, 0);
		dc_evaluate_tick(e, now);
	}
}

static void test_thread_silent_by_itself(void **state)
{
	(void)state;
	/* Without a number: who worked in regular beats and stopped, while the others go on as they did. */
	begin("thread silent");
	beats(400, true, true, 100 * MS, 0.2);
	assert_int_equal(since(), 0);
	beats(40, true, false, 0, 0);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, TID + 1);
	/* All stop: there is nothing to do. */
	begin("thread silent");
	beats(400, true, true, 100 * MS, 0.2);
	beats(400, false, false, 0, 0);
	assert_int_equal(since(), 0);
	/* One that never worked in beats has nothing to do, perhaps. */
	begin("thread silent");
	beats(400, true, true, 20 * MS, 40);
	beats(400, true, false, 0, 0);
	assert_int_equal(since(), 0);
}

/* ---- from outside ---- */

static struct dc_vitals vitals;

static void vital(int64_t ns)
{
	now += ns;
	vitals.at_ns = now;
	dc_evaluate_vitals(e, s, &vitals, now);
	dc_evaluate_tick(e, now);
}

static void begin_vitals(const char *when)
{
	begin(when);
	vitals = (struct dc_vitals){.known = UINT32_MAX, .state = 'S'};
	vital(0);
	assert_int_equal(since(), 0);
}

static void test_vitals(void **state)
{
	(void)state;
	begin_vitals("cpu > 95%");
	assert_int_equal(dc_evaluate_wants(e), DC_VITALS_CPU);
	vitals.cpu_ns += 950 * MS;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.cpu_ns += 960 * MS;
	vital(SECOND);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 96) < 1e-6);
	vitals.cpu_ns += 960 * MS;
	vital(SECOND);
	assert_int_equal(since(), 1); /* an edge */

	begin_vitals("rss > 2GiB or fds > 900 or threads >= 500");
	assert_int_equal(dc_evaluate_wants(e), DC_VITALS_MEMORY | DC_VITALS_FDS | DC_VITALS_THREADS);
	vitals.rss_bytes = UINT64_C(2) << 30;
	vitals.fds = 900;
	vitals.threads = 499;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.fds = 901;
	vital(SECOND);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].leaf->op, DC_RULE_FDS);
	since();
	vitals.threads = 500;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.threads = vitals.fds = 0;
	vital(SECOND);
	vitals.rss_bytes++;
	vital(SECOND);
	assert_int_equal(since(), 1);

	begin_vitals("fds > 90% of limit");
	assert_int_equal(dc_evaluate_wants(e), DC_VITALS_FDS | DC_VITALS_LIMITS);
	vitals.fds = 900;
	vital(SECOND); /* no limit at all */
	vitals.fds_limit = 1000;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.fds++;
	vital(SECOND);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 90.1) < 1e-9 && fabs(fired[0].threshold - 90) < 1e-9);
	assert_true(fabs(fired[0].amount - 901) < 1e-9 && fabs(fired[0].allowed - 1000) < 1e-9);

	begin_vitals("stopped");
	vitals.state = 'T';
	vitals.known = DC_VITALS_STATE;
	vital(SECOND);
	assert_int_equal(since(), 1);
	vitals.known = 0; /* not known any more is not true any more */
	vital(SECOND);
	vitals.known = DC_VITALS_STATE;
	vital(SECOND);
	assert_int_equal(since(), 1);

	begin_vitals("D state for 10s");
	vitals.d_tid = 77;
	for (unsigned i = 0; i < 10; i++)
		vital(SECOND);
	assert_int_equal(since(), 0);
	vital(SECOND);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, 77);
}

static void test_vitals_over_time(void **state)
{
	(void)state;
	begin_vitals("rss grows > 60MiB/min");
	for (unsigned i = 0; i < 120; i++) {
		vitals.rss_bytes += 1 << 20;
		vital(SECOND);
	}
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 60; i++) {
		vitals.rss_bytes += 3 << 19;
		vital(SECOND);
	}
	assert_int_equal(since(), 1);

	begin_vitals("major-faults rate > 100/s");
	vitals.major_faults = 100;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.major_faults = 201;
	vital(SECOND);
	assert_int_equal(since(), 1);

	begin_vitals("throttled > 20% over 10s");
	for (unsigned i = 0; i < 30; i++) {
		vitals.cgroup_periods += 10;
		vitals.cgroup_throttled += 2;
		vital(SECOND);
	}
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 10; i++) {
		vitals.cgroup_periods += 10;
		vitals.cgroup_throttled += 9;
		vital(SECOND);
	}
	assert_int_equal(since(), 1);

	begin_vitals("psi memory some > 20% over 10s");
	for (unsigned i = 0; i < 11; i++) {
		vitals.psi_us[1][0] += 190000;
		vitals.psi_us[0][0] += 900000;
		vital(SECOND);
	}
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 11; i++) {
		vitals.psi_us[1][0] += 250000;
		vital(SECOND);
	}
	assert_int_equal(since(), 1);

	begin_vitals("memory.events oom");
	vital(SECOND);
	vitals.cgroup_oom = 1;
	vital(SECOND);
	vital(SECOND);
	assert_int_equal(since(), 1);
}

static void test_ends(void **state)
{
	(void)state;
	begin("exit signal");
	dc_evaluate_ended(e, s, W_EXIT(1), now);
	assert_int_equal(since(), 0);
	dc_evaluate_ended(e, s, SIGSEGV, now);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - SIGSEGV) < 1e-9);
	begin("exit code != 0 and not exit signal");
	dc_evaluate_ended(e, s, W_EXIT(0), now);
	dc_evaluate_ended(e, s, SIGTERM, now);
	assert_int_equal(since(), 0);
	dc_evaluate_ended(e, s, W_EXIT(3), now);
	assert_int_equal(since(), 1);
	begin("exec");
	dc_evaluate_exec(e, s, now);
	assert_int_equal(since(), 1);
}

static void test_restart(void **state)
{
	/* A pool of processes that starts is no restart; one that ends and starts again and again is; other names are others. */
	struct dc_subject *all[9];

	(void)state;
	begin("restart > 3 in 60s");
	for (unsigned i = 0; i < 9; i++)
		all[i] = dc_evaluate_process(e, "server", 1e9, NULL, now);
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 4; i++) {
		dc_evaluate_ended(e, all[i], W_EXIT(1), now);
		dc_evaluate_forget(e, all[i]);
		assert_int_equal(since(), 0);
		now += 5 * SECOND;
		dc_evaluate_process(e, i % 2 ? "other" : "server", 1e9, NULL, now);
	}
	assert_int_equal(since(), 0);
	dc_evaluate_process(e, "server", 1e9, NULL, now);
	dc_evaluate_process(e, "server", 1e9, NULL, now);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 4) < 1e-9);
	dc_evaluate_process(e, "server", 1e9, NULL, now); /* nobody ended for this one */
	assert_int_equal(since(), 1);
}

/* ---- the tree ---- */

static void test_within(void **state)
{
	/* What happens at a moment holds for as long as is said; then, and with it, the other condition fires once. */
	(void)state;
	begin("event \"cache.miss\" within 5s and counter \"queue.depth\" > 10");
	instant(MISS, 0);
	look(5 * SECOND);
	counter(11, 0);
	assert_int_equal(since(), 1);
	look(SECOND);
	instant(MISS, 0);
	assert_int_equal(since(), 1);
	instant(MISS, 0);
	look(4 * SECOND);
	instant(MISS, 0);
	look(5 * SECOND);
	assert_int_equal(since(), 0);
	counter(0, 0);
	look(SECOND);
	counter(11, 0);
	assert_int_equal(since(), 0);
}

static void test_same_moment(void **state)
{
	/* Two conditions on one span are true together, on two spans they are not. */
	(void)state;
	begin("span \"http.*\" > 5ms and span \"*.request\" < 50ms");
	span(HTTP, 20 * MS);
	assert_int_equal(since(), 1);
	look(SECOND);
	span(HTTP, 60 * MS);
	span(HTTP, MS);
	span(DB, 20 * MS);
	assert_int_equal(since(), 0);
	begin("span \"http.request\" > 5ms or counter \"queue.depth\" > 10");
	counter(11, 0);
	assert_int_equal(since(), 1);
	look(SECOND);
	span(HTTP, 6 * MS); /* it is true already */
	assert_int_equal(since(), 0);
	begin("event \"cache.miss\" and not counter \"queue.depth\" > 10");
	counter(11, 0);
	instant(MISS, 1);
	assert_int_equal(since(), 0);
	counter(9, 0);
	instant(MISS, 1);
	assert_int_equal(since(), 1);
}

static void test_chance(void **state)
{
	(void)state;
	begin("event \"cache.miss\" every 10-th");
	for (unsigned i = 0; i < 100; i++) {
		instant(MISS, i);
		look(250 * MS);
	}
	assert_int_equal(since(), 10);
	begin("event \"cache.miss\" probability 20%");
	for (unsigned i = 0; i < 10000; i++) {
		instant(MISS, i);
		look(250 * MS);
	}
	assert_in_range(firings, 1850, 2150);
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
	return dc_evaluate_threshold(e, s, site, sites[site].name);
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
	dc_evaluate_span_over(e, s, HTTP, "http.request", 6 * MS, TID, 4711, now);
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
	dc_evaluate_span_over(e, s, HTTP, "http.request", 6 * MS, TID, 1, now);
	assert_int_equal(since(), 1);
	dc_evaluate_span_over(e, s, HTTP, "http.request", 6 * MS, TID, 1, now);
	assert_int_equal(since(), 1);
	dc_evaluate_span_over(e, s, HTTP, "http.request", 4 * MS, TID, 1, now);
	assert_int_equal(since(), 0);
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
	dc_evaluate_span_over(e, s, HTTP, "http.request", 70 * MS, TID + 3, 99, now);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, TID + 3);
	assert_int_equal(fired[0].at_tick, 99);
	assert_int_equal(threshold(HTTP), 0);
	span_end(HTTP, 3, 1, 70 * MS);
	look(250 * MS);
	assert_int_equal(since(), 1);
}

/* ---- a new configuration ---- */

static void test_reload(void **state)
{
	struct dc_rules rules = {0}, next = {0};

	(void)state;
	/* What a rule has seen stays while its name and text do: half of its window, that it is true already. */
	add(&rules, "rate", "event \"cache.miss\" rate > 10/s over 5s");
	add(&rules, "state", "counter \"queue.depth\" > 10");
	add(&rules, "gone", "event \"cache.miss\"");
	add(&rules, "other", "counter \"queue.depth\" > 20 for 2s");
	add(&rules, "open", "span \"db.query\" open > 5s");
	begin_with(&rules);
	for (unsigned i = 0; i < 40; i++)
		instant(MISS, 0);
	counter(100, 0);
	lane(0, now, 1, DB, now - 6 * SECOND);
	look(SECOND);
	assert_int_equal(since(), 3);
	add(&next, "new", "event \"cache.miss\" every 2nd");
	add(&next, "open", "span \"db.query\" open > 5s");
	add(&next, "other", "counter \"queue.depth\" > 30 for 2s");
	add(&next, "state", "counter \"queue.depth\" > 10");
	add(&next, "rate", "event \"cache.miss\" rate > 10/s over 5s");
	assert_int_equal(dc_evaluate_reload(e, &next), 0);
	dc_rules_cleanup(&rules);
	dc_rules_cleanup(&next);
	look(SECOND);
	counter(101, 0);
	lane(0, now, 1, DB, now - 8 * SECOND);
	look(SECOND);
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 11; i++)
		instant(MISS, 0);
	assert_int_equal(since(), 1); /* "new", every 2nd; the rest is not told in this look */
	look(250 * MS);
	assert_int_equal(firings, 1);
	assert_string_equal(fired[0].rule->name, "rate");
	since();
	look(2 * SECOND); /* the number of "other" changed: it began anew */
	assert_int_equal(firings, 1);
	assert_string_equal(fired[0].rule->name, "other");
	memset(&next, 0, sizeof(next));
	assert_int_equal(dc_evaluate_reload(e, &next), 0);
	since();
	span(HTTP, SECOND);
	look(SECOND);
	assert_int_equal(since(), 0);
}

static void test_processes(void **state)
{
	struct dc_rules rules = {0};

	(void)state;
	/* A rule is about the processes it names; each has its own state; one that is forgotten is no more. */
	add(&rules, "r", "counter \"queue.depth\" > 10");
	strcpy(rules.rules[0].processes, "serv*");
	begin_with(&rules);
	struct dc_subject *other = dc_evaluate_process(e, "client", 1e9, NULL, now), *same = dc_evaluate_process(e, "serve", 1e9, NULL, now);
	counter(11, 0);
	s = other;
	counter(11, 0);
	assert_int_equal(since(), 1);
	s = same;
	counter(11, 0);
	assert_int_equal(since(), 1);
	dc_evaluate_forget(e, same);
	strcpy(rules.rules[0].processes, "client");
	assert_int_equal(dc_evaluate_reload(e, &rules), 0);
	s = other;
	counter(12, 0);
	assert_int_equal(since(), 1);
	dc_rules_cleanup(&rules);
}

/* ---- bounds ---- */

static void test_bounds(void **state)
{
	/* Names, lanes, processes and figures that no program has: all refused in peace. */
	static char names[5000][16];
	struct dc_site_info info = {.arg_count = 1, .types = {DC_TYPE_F64}, .keys = {"value"}};
	struct dc_event ev;

	(void)state;
	begin("span \"*\" p99 > 1ms over 10s or span \"*\" unusual or counter \"*\" > 5 or span \"*\" open unusual or thread silent");
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(names[i], sizeof(names[i]), "n%u", i);
		info.name = names[i];
		ev = of(DC_KIND_END, 0, 0);
		ev.site = (uint16_t)(i % 2 ? 0xffff : i);
		ev.info = &info;
		ev.depth = UINT32_MAX;
		ev.lane = i * 7919u;
		ev.start_units = 0;
		put(&ev);
		ev.kind = DC_KIND_BEGIN;
		put(&ev);
		ev.kind = DC_KIND_COUNTER;
		ev.arg_count = 1;
		ev.args[0].f = i % 3 ? (double)NAN : INFINITY;
		put(&ev);
		lane(i, INT64_MAX, UINT32_MAX, 0, -1);
	}
	look(SECOND);
	assert_int_equal(dc_evaluate_threshold(e, s, 0xffff, "n1"), dc_evaluate_threshold(e, s, 0xffff, "n3"));
	for (unsigned i = 1; i < DC_EVALUATE_PROCESSES_MAX; i++)
		assert_non_null(dc_evaluate_process(e, "p", 1e9, NULL, now));
	assert_null(dc_evaluate_process(e, "p", 1e9, NULL, now));
}

/* ---- healthy programs ---- */

static double normal(void)
{
	return sqrt(-2 * log(uniform() + 1e-300)) * cos(6.283185307179586 * uniform());
}

/*
 * An hour of a server: start, a load that swings, comes in bursts and stops for minutes; spans in spans, tails as heavy as those
 * of real ones, a thread in beats, connections that stay, threads that park; then the end.
 */
static void test_healthy(void **state)
{
	struct dc_rules rules;
	int64_t last[4] = {0}, parked_since[4] = {0}, housekeeping = 0;

	(void)state;
	assert_int_equal(dc_rules_default(&rules), 0);
	begin_with(&rules);
	for (unsigned looks = 0; looks < 4 * 3600; looks++) {
		const double minute = looks / 240.0;
		const double swing = 1 + 0.9 * sin(minute / 60 * 6.28), noise = normal();
		const bool idle = (minute > 17 && minute < 25) || (minute > 40 && minute < 41) || minute > 59;
		double load = idle ? (minute < 25 ? 0.0003 : 0.02) : swing * (looks % 900 < 20 ? 4 : 1) * (1 + 0.1 * noise);
		const int64_t from = now;

		for (unsigned t = 0; t < 4; t++) {
			double ms = 1 + load * 2; /* queues make all slower under load */

			for (int64_t at = from; load > 0 && (at += (int64_t)(-log(uniform() + 1e-12) * 25e6 / load)) < from + 250 * MS;) {
				int64_t took = (int64_t)(exp(normal() * 0.8) * ms * 1e6);

				now = at;
				if (parked_since[t])
					span_end(PARK, t, 1, at - parked_since[t]);
				span_begin(HTTP, t, 1);
				span_end(DB, t, 2, took / 2);
				now = at += took;
				span_end(HTTP, t, 1, took);
				parked_since[t] = last[t] = at;
			}
			now = from + 250 * MS;
			last[t] = last[t] > now ? now : last[t];
			lane(t, last[t], 1, PARK, parked_since[t] ? parked_since[t] : from);
		}
		for (; housekeeping < now; housekeeping += 100 * MS)
			counter((int64_t)load, 4);
		lane(4, housekeeping - 100 * MS, 0, 0, 0);
		dc_evaluate_tick(e, now);
		if (firings > 0)
			fail_msg("minute %.1f: '%s' of '%s': %g, usually %g", minute, fired[0].rule->name, fired_names[0], fired[0].value,
				 fired[0].threshold);
	}
	dc_evaluate_ended(e, s, W_EXIT(0), now);
	assert_int_equal(since(), 0);
	/* It is not deaf: one request that hangs, one that took for ever, and the end by a signal. */
	now += 250 * MS;
	lane(0, now - 20 * SECOND, 1, HTTP, now - 20 * SECOND);
	look(0);
	assert_int_equal(since(), 1);
	span_end(HTTP, 1, 1, 20 * SECOND);
	assert_int_equal(since(), 1);
	dc_evaluate_ended(e, s, SIGKILL, now);
	assert_int_equal(since(), 1);
	dc_rules_cleanup(&rules);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_span_lasts),
		cmocka_unit_test(test_span_bad_times),
		cmocka_unit_test(test_unusual),
		cmocka_unit_test(test_percentile),
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_open_outer),
		cmocka_unit_test(test_log_unusual),
		cmocka_unit_test(test_rate_unusual),
		cmocka_unit_test(test_counter_unusual),
		cmocka_unit_test(test_open_unusual),
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_logs),
		cmocka_unit_test(test_counter),
		cmocka_unit_test(test_silent),
		cmocka_unit_test(test_silent_is_not),
		cmocka_unit_test(test_thread_silent),
		cmocka_unit_test(test_thread_silent_by_itself),
		cmocka_unit_test(test_vitals),
		cmocka_unit_test(test_vitals_over_time),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_within),
		cmocka_unit_test(test_same_moment),
		cmocka_unit_test(test_chance),
		cmocka_unit_test(test_where),
		cmocka_unit_test(test_where_nested),
		cmocka_unit_test(test_trace),
		cmocka_unit_test(test_thresholds),
		cmocka_unit_test(test_told_once),
		cmocka_unit_test(test_percentile_at_once),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_processes),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_healthy),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
