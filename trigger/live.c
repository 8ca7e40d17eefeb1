/* SPDX-License-Identifier: MIT */
#include "trigger/live.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/rules/async.h"
#include "trigger/rules/window.h"

#define DEPTH_MAX 16u /* spans around a log line or open in a thread that are known by name */
#define LANES_MAX 1024u

struct site {
	char name[DC_LIVE_NAME_BYTES];
	uint8_t kind;
	bool rest;
	int64_t sampled_ns; /* when something that stands for several came last; INT64_MIN: never */
	struct dc_rate rate;
	struct dc_rate errors;
	struct dc_histogram *lasted; /* NULL: no span */
	double last;
};

struct lane {
	uint32_t depth; /* as its table says */
	uint16_t open_site;
	uint16_t around[DEPTH_MAX]; /* site ids, outermost first; 0: not known */
};

struct dc_live {
	double units_per_s;
	int64_t sampled_ns; /* as of the sites */
	struct dc_rate rate;
	struct site *sites[DC_LIVE_SITES_MAX + 1]; /* the last one: all that are beyond the bound */
	uint32_t count;
	uint32_t *all;
	uint16_t of_id[DC_SITE_MAX]; /* index + 1; 0: none yet */
	struct lane *lanes;
	uint32_t lane_count;
	struct dc_async *async; /* NULL: it has none */
	uint32_t last_lane; /* told of; a lower one begins the next round */
};

struct dc_live *dc_live_new(double units_per_s, uint32_t *sites)
{
	struct dc_live *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->units_per_s = units_per_s;
	l->all = sites;
	l->sampled_ns = INT64_MIN;
	dc_rate_init(&l->rate, DC_LIVE_OVER_NS);
	return l;
}

static void site_free(struct site *s)
{
	dc_histogram_free(s->lasted);
	free(s);
}

void dc_live_free(struct dc_live *l)
{
	if (!l)
		return;
	for (uint32_t i = 0; i < l->count; i++)
		site_free(l->sites[i]);
	*l->all -= l->count;
	dc_async_free(l->async);
	free(l->lanes);
	free(l);
}

/* ---- sites ---- */

static struct site *site_new(struct dc_live *l, const char *name, uint8_t kind)
{
	struct site *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->lasted = kind == DC_KIND_BEGIN ? dc_histogram_new(DC_LIVE_OVER_NS) : NULL;
	if (kind == DC_KIND_BEGIN && !s->lasted) {
		free(s);
		return NULL;
	}
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->kind = kind;
	s->last = NAN;
	s->sampled_ns = INT64_MIN;
	dc_rate_init(&s->rate, DC_LIVE_OVER_NS);
	dc_rate_init(&s->errors, DC_LIVE_OVER_NS);
	l->sites[l->count++] = s;
	(*l->all)++;
	return s;
}

static bool full(const struct dc_live *l)
{
	return l->count >= DC_LIVE_SITES_MAX || *l->all >= DC_LIVE_SITES_ALL_MAX;
}

/* Of a run-time name there is no id; they, and sites beyond the bound, are one row of events without durations. */
static struct site *rest(struct dc_live *l)
{
	for (uint32_t i = 0; i < l->count; i++)
		if (l->sites[i]->rest)
			return l->sites[i];
	struct site *s = site_new(l, "...", DC_KIND_INSTANT);
	if (s)
		s->rest = true;
	return s;
}

static struct site *site_known(struct dc_live *l, uint16_t id, uint32_t index)
{
	l->of_id[id] = (uint16_t)(index + 1);
	return l->sites[index];
}

/* One row for where an async span begins, where it ends, and spans of the same name within a thread. */
static uint8_t row_kind(uint8_t kind)
{
	return kind == DC_KIND_ASYNC_BEGIN || kind == DC_KIND_ASYNC_END ? DC_KIND_BEGIN : kind;
}

static struct site *site_of(struct dc_live *l, const struct dc_event *e)
{
	const uint8_t kind = e->info ? row_kind(e->info->kind) : 0;
	struct site *s;

	if (!e->info)
		return NULL;
	if (e->site >= DC_SITE_MAX)
		return rest(l);
	if (l->of_id[e->site])
		return l->sites[l->of_id[e->site] - 1];
	for (uint32_t i = 0; i < l->count; i++) /* one name in several places is one row */
		if (l->sites[i]->kind == kind && strncmp(l->sites[i]->name, e->info->name, DC_LIVE_NAME_BYTES - 1) == 0)
			return site_known(l, e->site, i);
	if (full(l))
		return rest(l);
	s = site_new(l, e->info->name, kind);
	return s ? site_known(l, e->site, l->count - 1) : NULL;
}

/* ---- what is open ---- */

static struct lane *lane_at(struct dc_live *l, uint32_t index)
{
	struct lane *lanes;

	if (index < l->lane_count)
		return &l->lanes[index];
	if (index >= LANES_MAX)
		return NULL;
	lanes = reallocarray(l->lanes, index + 8, sizeof(*lanes));
	if (!lanes)
		return NULL;
	memset(lanes + l->lane_count, 0, (index + 8 - l->lane_count) * sizeof(*lanes));
	l->lanes = lanes;
	l->lane_count = index + 8;
	return &lanes[index];
}

void dc_live_lane(struct dc_live *l, uint32_t index, const struct dc_ring_lane *entry)
{
	struct lane *lane = lane_at(l, index);

	if (!lane)
		return;
	if (index <= l->last_lane) { /* threads that ended are not told of any more */
		for (uint32_t i = 0; i < l->lane_count; i++)
			l->lanes[i].depth = 0;
		if (l->async)
			dc_async_look(l->async);
	}
	l->last_lane = index;
	lane->depth = entry->depth;
	lane->open_site = entry->open_site;
}

static void note_open(struct dc_live *l, const struct dc_event *e)
{
	struct lane *lane = lane_at(l, e->lane);

	if (lane && e->depth && e->depth <= DEPTH_MAX)
		lane->around[e->depth - 1] = e->site < DC_SITE_MAX ? e->site : 0;
}

static struct site *span_around(struct dc_live *l, const struct dc_event *e)
{
	const struct lane *lane = e->lane < l->lane_count ? &l->lanes[e->lane] : NULL;
	const uint16_t id = lane && e->depth && e->depth <= DEPTH_MAX ? lane->around[e->depth - 1] : 0;

	return id && l->of_id[id] ? l->sites[l->of_id[id] - 1] : NULL;
}

static bool is_of(const struct dc_live *l, uint16_t id, uint32_t index)
{
	return id < DC_SITE_MAX && l->of_id[id] == index + 1;
}

/* The innermost one is in the table; those around it as they were heard of. */
static uint32_t open_now(const struct dc_live *l, uint32_t index)
{
	uint32_t open = 0;

	for (uint32_t i = 0; i < l->lane_count; i++) {
		const struct lane *lane = &l->lanes[i];

		open += lane->depth && is_of(l, lane->open_site, index);
		for (uint32_t d = 0; d + 1 < lane->depth && d < DEPTH_MAX; d++)
			open += is_of(l, lane->around[d], index);
	}
	return open;
}

/* ---- events ---- */

static void add_lasted(struct dc_live *l, struct site *s, uint64_t units, double weight, int64_t now_ns)
{
	dc_rate_add(&s->rate, weight, now_ns);
	dc_histogram_add(s->lasted, (uint64_t)((double)units / l->units_per_s * 1e9), weight, now_ns);
}

static void add_span(struct dc_live *l, struct site *s, const struct dc_event *e, double weight, int64_t now_ns)
{
	if (s->lasted && e->start_units != ~UINT64_C(0) && e->units >= e->start_units)
		add_lasted(l, s, e->units - e->start_units, weight, now_ns);
}

static void add_async(struct dc_live *l, struct site *s, const struct dc_event *e, double weight, int64_t now_ns)
{
	struct dc_async_span span;
	uint64_t id;
	bool known;

	if (!l->async)
		l->async = dc_async_new();
	if (!l->async || !dc_async_id(e, &id))
		return;
	if (e->kind == DC_KIND_ASYNC_BEGIN)
		known = dc_async_begin(l->async, &(struct dc_async_span){.of = s, .id = id, .start_units = e->units}, &span);
	else
		known = dc_async_end(l->async, s, id, e->units, e->tid, &span);
	if (known)
		add_lasted(l, s, span.end_units - span.start_units, weight, now_ns);
}

void dc_live_lost(struct dc_live *l)
{
	if (l->async)
		dc_async_forget(l->async);
}

static void add_other(struct dc_live *l, struct site *s, const struct dc_event *e, double weight, int64_t now_ns)
{
	struct site *around;

	dc_rate_add(&s->rate, weight, now_ns);
	if (e->kind == DC_KIND_COUNTER && e->arg_count)
		s->last = e->info->types[0] == DC_TYPE_F64   ? e->args[0].f
			  : e->info->types[0] == DC_TYPE_I64 ? (double)e->args[0].i
							     : (double)e->args[0].u;
	if (e->kind != DC_KIND_LOG || e->info->level < DC_LEVEL_ERROR)
		return;
	dc_rate_add(&s->errors, weight, now_ns);
	around = span_around(l, e);
	if (around)
		dc_rate_add(&around->errors, weight, now_ns);
}

void dc_live_event(struct dc_live *l, const struct dc_event *e, double weight, int64_t now_ns)
{
	struct site *s = site_of(l, e);

	if (e->kind == DC_KIND_BEGIN || e->kind == DC_KIND_OPEN)
		note_open(l, e);
	if (e->kind != DC_KIND_END && e->kind != DC_KIND_OPEN && e->kind != DC_KIND_THREAD)
		dc_rate_add(&l->rate, weight, now_ns);
	if (!s)
		return;
	if (weight > 1)
		s->sampled_ns = l->sampled_ns = now_ns;
	if (e->kind == DC_KIND_END)
		add_span(l, s, e, weight, now_ns);
	else if (s->lasted && (e->kind == DC_KIND_ASYNC_BEGIN || e->kind == DC_KIND_ASYNC_END))
		add_async(l, s, e, weight, now_ns);
	else if (e->kind != DC_KIND_BEGIN && e->kind != DC_KIND_OPEN && e->kind != DC_KIND_STACK)
		add_other(l, s, e, weight, now_ns);
}

/* ---- rows ---- */

uint32_t dc_live_count(const struct dc_live *l)
{
	return l->count;
}

void dc_live_row(struct dc_live *l, uint32_t index, int64_t now_ns, struct dc_live_row *ret_row)
{
	struct site *s = l->sites[index];

	*ret_row = (struct dc_live_row){.kind = s->kind,
					.sampled = s->sampled_ns > now_ns - DC_LIVE_OVER_NS,
					.per_s = dc_rate_per_s(&s->rate, now_ns),
					.errors_per_s = dc_rate_per_s(&s->errors, now_ns),
					.p50_ns = NAN,
					.p99_ns = NAN,
					.p999_ns = NAN,
					.max_ns = NAN,
					.last = s->last};
	memcpy(ret_row->name, s->name, sizeof(s->name));
	if (!s->lasted)
		return;
	ret_row->open = open_now(l, index) + (l->async ? dc_async_open(l->async, s) : 0);
	ret_row->p50_ns = dc_histogram_percentile(s->lasted, 50, now_ns);
	ret_row->p99_ns = dc_histogram_percentile(s->lasted, 99, now_ns);
	ret_row->p999_ns = dc_histogram_percentile(s->lasted, 99.9, now_ns);
	if (dc_histogram_count(s->lasted, now_ns) > 0)
		ret_row->max_ns = dc_histogram_max(s->lasted, now_ns);
}

uint64_t dc_live_given_up(const struct dc_live *l)
{
	return l->async ? dc_async_lost(l->async) : 0;
}

bool dc_live_sampled(const struct dc_live *l, int64_t now_ns)
{
	return l->sampled_ns > now_ns - DC_LIVE_OVER_NS;
}

double dc_live_per_s(struct dc_live *l, int64_t now_ns)
{
	return dc_rate_per_s(&l->rate, now_ns);
}
