/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "trigger/live.h"

#define SECOND INT64_C(1000000000)
#define UNITS_PER_S 5e8 /* 2 ns each */

static uint32_t sites;
static struct dc_site_info infos[400];
static char names[400][16];

static void make_infos(void)
{
	for (unsigned i = 0; i < 400; i++) {
		snprintf(names[i], sizeof(names[i]), "site.%u", i);
		infos[i] = (struct dc_site_info){.name = names[i], .kind = DC_KIND_BEGIN};
	}
	infos[2].kind = DC_KIND_COUNTER;
	infos[2].arg_count = 1;
	infos[2].types[0] = DC_TYPE_I64;
	infos[3].kind = DC_KIND_LOG;
	infos[3].level = DC_LEVEL_ERROR;
	infos[4].kind = DC_KIND_LOG;
	infos[4].level = DC_LEVEL_WARN;
}

static struct dc_live *make(void)
{
	struct dc_live *l = dc_live_new(UNITS_PER_S, &sites);

	make_infos();
	assert_non_null(l);
	return l;
}

static void happen(struct dc_live *l, uint8_t kind, uint16_t site, uint32_t depth, double weight, int64_t now)
{
	dc_live_event(
		l, &(struct dc_event){.kind = kind, .site = site, .depth = depth, .info = &infos[site], .units = 1000},
		weight, now);
}

static void span(struct dc_live *l, uint16_t site, uint64_t lasted_ns, double weight, int64_t now)
{
	happen(l, DC_KIND_BEGIN, site, 1, weight, now);
	dc_live_event(l,
		      &(struct dc_event){.kind = DC_KIND_END,
					 .site = site,
					 .depth = 1,
					 .info = &infos[site],
					 .start_units = 1000,
					 .units = 1000 + lasted_ns / 2},
		      weight, now);
}

static struct dc_live_row row_of(struct dc_live *l, const char *name, int64_t now)
{
	struct dc_live_row row;

	for (uint32_t i = 0; i < dc_live_count(l); i++) {
		dc_live_row(l, i, now, &row);
		if (strcmp(row.name, name) == 0)
			return row;
	}
	fail_msg("no row '%s'", name);
	return row;
}

static void near_to(double value, double truth)
{
	if (!(fabs(value - truth) <= 0.03 * fabs(truth)))
		fail_msg("%g is not within 3 %% of %g", value, truth);
}

static void test_spans(void **state)
{
	/* Rate and percentiles of the last ten seconds, in ns; what is older is gone, what was sampled says so for as long. */
	CLEANUP(dc_live) struct dc_live *l = make();
	struct dc_live_row row;
	int64_t now = 0;

	(void)state;
	for (unsigned i = 1; i <= 10000; i++, now += SECOND / 1000)
		span(l, 1, i % 1000 == 0 ? 5000000 : 1000 * (1 + i % 100), 1, now);
	row = row_of(l, "site.1", now);
	near_to(row.per_s, 1000);
	near_to(row.p50_ns, 50000);
	near_to(row.p99_ns, 99000);
	near_to(row.p999_ns, 100000);
	near_to(row.max_ns, 5000000);
	assert_false(row.sampled);
	near_to(dc_live_per_s(l, now), 1000); /* ends are not counted twice */
	for (unsigned i = 0; i < 100; i++, now += SECOND / 10)
		span(l, 1, 7000, 10, now);
	row = row_of(l, "site.1", now);
	near_to(row.per_s, 100);
	near_to(row.p999_ns, 7000);
	assert_true(row.sampled);
	now += 12 * SECOND;
	row = row_of(l, "site.1", now);
	assert_true(row.per_s == 0 && isnan(row.p50_ns) && isnan(row.max_ns) && !row.sampled);
}

static void test_others(void **state)
{
	/* Counters keep their last value; errors count at the log line and at the span around it, warnings nowhere. */
	CLEANUP(dc_live) struct dc_live *l = make();
	struct dc_event counter = {.kind = DC_KIND_COUNTER, .site = 2, .info = &infos[2], .arg_count = 1};
	int64_t now = 0;

	(void)state;
	for (unsigned i = 0; i < 1000; i++, now += SECOND / 100) {
		counter.args[0].i = -(int64_t)i;
		dc_live_event(l, &counter, 1, now);
		happen(l, DC_KIND_BEGIN, 1, 1, 1, now);
		happen(l, DC_KIND_LOG, 4, 1, 1, now);
		if (i % 10 == 0)
			happen(l, DC_KIND_LOG, 3, 1, 1, now);
	}
	assert_true(row_of(l, "site.2", now).last == -999);
	near_to(row_of(l, "site.2", now).per_s, 100);
	near_to(row_of(l, "site.3", now).errors_per_s, 10);
	near_to(row_of(l, "site.1", now).errors_per_s, 10);
	assert_true(row_of(l, "site.4", now).errors_per_s == 0);
	assert_true(isnan(row_of(l, "site.1", now).last));
	near_to(dc_live_per_s(l, now), 310);
}

static void test_open(void **state)
{
	/* Open spans by name: the innermost from the lane table, those around it as heard; ended threads have none. */
	CLEANUP(dc_live) struct dc_live *l = make();
	struct dc_ring_lane lanes[2] = {{.depth = 2, .open_site = 5}, {.depth = 1, .open_site = 1}};

	(void)state;
	happen(l, DC_KIND_BEGIN, 1, 1, 1, 0);
	happen(l, DC_KIND_BEGIN, 5, 2, 1, 0);
	for (uint32_t i = 0; i < 2; i++)
		dc_live_lane(l, i, &lanes[i]);
	assert_int_equal(row_of(l, "site.1", 0).open, 2);
	assert_int_equal(row_of(l, "site.5", 0).open, 1);
	dc_live_lane(l, 1, &lanes[1]);
	assert_int_equal(row_of(l, "site.1", 0).open, 1);
	assert_int_equal(row_of(l, "site.5", 0).open, 0);
	dc_live_lane(l, 100000, &lanes[0]); /* more than are kept: ignored */
	lanes[1].depth = UINT32_MAX;
	dc_live_lane(l, 1, &lanes[1]);
	assert_in_range(row_of(l, "site.1", 0).open, 1, 20);
}

static void test_one_name(void **state)
{
	/* A name recorded in two places is one row, also of what is open; of another kind it is another. */
	CLEANUP(dc_live) struct dc_live *l = make();
	const struct dc_ring_lane lane = {.depth = 2, .open_site = 6};

	(void)state;
	strcpy(names[6], names[5]);
	happen(l, DC_KIND_BEGIN, 5, 1, 1, 0);
	happen(l, DC_KIND_BEGIN, 6, 2, 1, 0);
	dc_live_lane(l, 0, &lane);
	assert_int_equal(dc_live_count(l), 1);
	assert_int_equal(row_of(l, "site.5", 0).open, 2);
	infos[7].kind = DC_KIND_INSTANT;
	strcpy(names[7], names[5]);
	happen(l, DC_KIND_INSTANT, 7, 2, 1, 0);
	assert_int_equal(dc_live_count(l), 2);
}

static void async(struct dc_live *l, uint8_t kind, uint64_t id, uint64_t units)
{
	const uint16_t site = kind == DC_KIND_ASYNC_BEGIN ? 8 : 9;
	struct dc_event e = {.kind = kind, .site = site, .info = &infos[site], .arg_count = 1, .units = units};

	e.args[0].u = id;
	dc_live_event(l, &e, 1, 0);
}

static void test_async(void **state)
{
	/* One row of both its sites: how long they took, and how many are open. */
	CLEANUP(dc_live) struct dc_live *l = make();
	struct dc_live_row row;

	(void)state;
	strcpy(names[9], names[8]);
	infos[8].kind = DC_KIND_ASYNC_BEGIN;
	infos[9].kind = DC_KIND_ASYNC_END;
	infos[8].arg_count = infos[9].arg_count = 1;
	infos[8].types[0] = infos[9].types[0] = DC_TYPE_U64;
	for (unsigned i = 0; i < 20; i++) {
		async(l, i & 1 ? DC_KIND_ASYNC_BEGIN : DC_KIND_ASYNC_END, i, i & 1 ? 1000 : 501000);
		async(l, i & 1 ? DC_KIND_ASYNC_END : DC_KIND_ASYNC_BEGIN, i, i & 1 ? 501000 : 1000);
	}
	async(l, DC_KIND_ASYNC_BEGIN, 100, 1000);
	async(l, DC_KIND_ASYNC_BEGIN, 101, 1000);
	async(l, DC_KIND_ASYNC_END, 102, 1000); /* begun before anybody looked */
	row = row_of(l, "site.8", 0);
	assert_int_equal(row.kind, DC_KIND_BEGIN);
	assert_int_equal(row.open, 2);
	near_to(row.p50_ns, 1e6);
	near_to(row.per_s, 16); /* twenty in the first slot of an eighth of ten seconds */
	assert_int_equal(dc_live_count(l), 1);
	dc_live_lost(l);
	assert_int_equal(row_of(l, "site.8", 0).open, 0);
}

static void test_bounds(void **state)
{
	/* Beyond the bound sites are one row; all are given back; an event without a site, or with a name of its own, is no harm. */
	struct dc_live *l = make();

	(void)state;
	for (uint16_t i = 1; i < 400; i++)
		span(l, i, 100, 1, 0);
	assert_int_equal(dc_live_count(l), DC_LIVE_SITES_MAX + 1);
	assert_int_equal(sites, DC_LIVE_SITES_MAX + 1);
	dc_live_event(l, &(struct dc_event){.kind = DC_KIND_FLOW_OUT}, 1, 0);
	dc_live_event(l, &(struct dc_event){.kind = DC_KIND_INSTANT, .site = DC_SITE_INLINE, .info = &infos[7]}, 1, 0);
	dc_live_event(
		l, &(struct dc_event){.kind = DC_KIND_END, .site = 1, .info = &infos[1], .start_units = ~UINT64_C(0)},
		1, 0);
	assert_true(row_of(l, "...", 0).per_s > 0);
	dc_live_free(l);
	assert_int_equal(sites, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spans),    cmocka_unit_test(test_others), cmocka_unit_test(test_open),
		cmocka_unit_test(test_one_name), cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_async),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
