/* SPDX-License-Identifier: MIT */
/* Rules as trees; rules that are read anew, rules of several processes; bounds; and an hour of a healthy program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "evaluating.h"

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
	assert_int_equal(dc_evaluate_reload(evaluate, &next), 0);
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
	assert_int_equal(dc_evaluate_reload(evaluate, &next), 0);
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
	struct dc_subject *other = dc_evaluate_process(evaluate, "client", 1e9, NULL, now), *same = dc_evaluate_process(evaluate, "serve", 1e9, NULL, now);
	counter(11, 0);
	subject = other;
	counter(11, 0);
	assert_int_equal(since(), 1);
	subject = same;
	counter(11, 0);
	assert_int_equal(since(), 1);
	dc_evaluate_forget(evaluate, same);
	strcpy(rules.rules[0].processes, "client");
	assert_int_equal(dc_evaluate_reload(evaluate, &rules), 0);
	subject = other;
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
	assert_int_equal(dc_evaluate_threshold(evaluate, subject, 0xffff, "n1"), dc_evaluate_threshold(evaluate, subject, 0xffff, "n3"));
	for (unsigned i = 1; i < DC_EVALUATE_PROCESSES_MAX; i++)
		assert_non_null(dc_evaluate_process(evaluate, "p", 1e9, NULL, now));
	assert_null(dc_evaluate_process(evaluate, "p", 1e9, NULL, now));
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
		dc_evaluate_tick(evaluate, now);
		if (firings > 0)
			fail_msg("minute %.1f: '%s' of '%s': %g, usually %g", minute, fired[0].rule->name, fired_names[0], fired[0].value,
				 fired[0].threshold);
	}
	dc_evaluate_ended(evaluate, subject, W_EXIT(0), now);
	assert_int_equal(since(), 0);
	/* It is not deaf: one request that hangs, one that took for ever, and the end by a signal. */
	now += 250 * MS;
	lane(0, now - 20 * SECOND, 1, HTTP, now - 20 * SECOND);
	look(0);
	assert_int_equal(since(), 1);
	span_end(HTTP, 1, 1, 20 * SECOND);
	assert_int_equal(since(), 1);
	dc_evaluate_ended(evaluate, subject, SIGKILL, now);
	assert_int_equal(since(), 1);
	dc_rules_cleanup(&rules);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_within),
		cmocka_unit_test(test_same_moment),
		cmocka_unit_test(test_chance),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_processes),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_healthy),
	};

	return cmocka_run_group_tests(tests, NULL, evaluating_end);
}
