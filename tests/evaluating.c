/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "evaluating.h"

struct dc_rule_firing fired[64];
char fired_names[64][32];
unsigned firings;
uint64_t untold;
struct dc_evaluate *evaluate;
struct dc_subject *subject;
int64_t now;

static void on_fire(void *arg, const struct dc_rule_firing *f)
{
	assert_ptr_equal(arg, &firings);
	if (firings < 64) {
		fired[firings] = *f;
		snprintf(fired_names[firings], sizeof(fired_names[0]), "%s", f->name);
	}
	firings++;
}

static void on_untold(void *arg, const struct dc_rule *rule, void *process, uint64_t count)
{
	assert_ptr_equal(arg, &firings);
	assert_ptr_equal(process, &now);
	assert_true(rule->name[0] && count > 0);
	untold += count;
}

void add(struct dc_rules *rules, const char *name, const char *when)
{
	struct dc_rule_error error;
	struct dc_rule rule;

	dc_rule_defaults(&rule);
	snprintf(rule.name, sizeof(rule.name), "%s", name);
	if (dc_rule_parse(when, &rule.when, &error) < 0)
		fail_msg("%s: column %u: %s", when, error.column, error.why);
	assert_int_equal(dc_rules_add(rules, &rule), 0);
}

int evaluating_end(void **state)
{
	(void)state;
	dc_evaluate_free(evaluate);
	evaluate = NULL;
	return 0;
}

void begin_with(const struct dc_rules *rules)
{
	static const struct dc_evaluate_handler handler = {.fire = on_fire, .untold = on_untold};

	evaluating_end(NULL);
	now = 1000 * SECOND;
	firings = 0;
	untold = 0;
	memset(fired, 0, sizeof(fired));
	assert_int_equal(dc_evaluate_new(rules, &handler, &firings, &evaluate), 0);
	subject = dc_evaluate_process(evaluate, "server", 1e9, &now, now);
	assert_non_null(subject);
}

/* One rule, one process. */
void begin(const char *when)
{
	struct dc_rules rules = {0};

	add(&rules, "r", when);
	begin_with(&rules);
	dc_rules_cleanup(&rules);
}

unsigned since(void)
{
	unsigned n = firings;

	firings = 0;
	return n;
}

void look(int64_t ns)
{
	now += ns;
	dc_evaluate_tick(evaluate, now);
}

/* ---- events ---- */

struct dc_site_info sites[] = {
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
	[JOB] = {.name = "job", .keys = {"id", "size"}, .arg_count = 2, .types = {DC_TYPE_U64, DC_TYPE_I64}},
	[JOB_DONE] = {.name = "job", .keys = {"id"}, .arg_count = 1, .types = {DC_TYPE_U64}},
};

struct dc_event of(uint8_t kind, uint16_t site, uint32_t thread)
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

void put(const struct dc_event *event)
{
	dc_evaluate_event(evaluate, subject, event, 1, now);
}

void span_begin(uint16_t site, uint32_t thread, uint32_t depth)
{
	struct dc_event ev = of(DC_KIND_BEGIN, site, thread);

	ev.depth = depth;
	put(&ev);
}

void span_end(uint16_t site, uint32_t thread, uint32_t depth, int64_t ns)
{
	struct dc_event ev = of(DC_KIND_END, site, thread);

	ev.depth = depth;
	ev.start_units = ev.units - (uint64_t)ns;
	put(&ev);
}

/* A span of thread 0 that ends now. */
void span(uint16_t site, int64_t ns)
{
	span_end(site, 0, 1, ns);
}

void instant(uint16_t site, uint64_t value)
{
	struct dc_event ev = of(DC_KIND_INSTANT, site, 0);

	ev.arg_count = sites[site].arg_count;
	ev.args[0].u = value;
	put(&ev);
}

void counter(int64_t value, uint32_t thread)
{
	struct dc_event ev = of(DC_KIND_COUNTER, DEPTH, thread);

	ev.arg_count = 1;
	ev.args[0].i = value;
	put(&ev);
}

void message(uint16_t site)
{
	struct dc_event ev = of(DC_KIND_LOG, site, 0);

	put(&ev);
}

void lane(uint32_t thread, int64_t last_ns, uint32_t depth, uint16_t site, int64_t open_ns)
{
	struct dc_ring_lane entry = {.last_units = (uint64_t)last_ns,
				     .open_units = (uint64_t)open_ns,
				     .depth = depth,
				     .open_site = site,
				     .tid = TID + thread,
				     .serial = 1};

	dc_evaluate_lane(evaluate, subject, thread, &entry, depth ? sites[site].name : "", (uint64_t)now, now);
}

double uniform(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (double)(x >> 11) * 0x1p-53;
}
