/* SPDX-License-Identifier: MIT */
/*
 * What a process does right now, by site: how often, how long, how many are open, what went wrong; over the last ten seconds.
 * Made of what a tail delivers (tail.h), nothing is recorded extra. For `dashcam top` and the metrics.
 *
 * Bounded: DC_LIVE_SITES_MAX sites of a process, DC_LIVE_SITES_ALL_MAX over all; those beyond are counted together.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "ipc/decode.h"

#define DC_LIVE_OVER_NS INT64_C(10000000000)
#define DC_LIVE_SITES_MAX 256u
#define DC_LIVE_SITES_ALL_MAX 2048u
#define DC_LIVE_NAME_BYTES 96u

struct dc_live;

struct dc_live_row {
	char name[DC_LIVE_NAME_BYTES]; /* of the site, cut; "..." for those beyond the bound */
	uint8_t kind; /* DC_KIND_BEGIN for spans */
	bool sampled; /* some of it stands for more than itself */
	uint32_t open; /* spans now, async ones too */
	double per_s;
	double errors_per_s; /* log lines of level error and above: at their own site, and at the span they are in */
	double p50_ns, p99_ns, p999_ns, max_ns; /* spans; NaN: none ended */
	double last; /* counters: the last value; NaN */
};

/* @sites: how many all together have; the caller's, shared by all of them. Return: NULL when there is no memory. */
struct dc_live *dc_live_new(double units_per_s, uint32_t *sites);
void dc_live_free(struct dc_live *l);
DC_DEFINE_CLEANUP(dc_live, struct dc_live *, dc_live_free)

/* As a tail's handler gets them. */
void dc_live_lane(struct dc_live *l, uint32_t index, const struct dc_ring_lane *entry);
void dc_live_event(struct dc_live *l, const struct dc_event *event, double weight, int64_t now_ns);

/* Some events were lost: async spans that seem open may have ended. */
void dc_live_lost(struct dc_live *l);

/* Sites seen so far, and one of them as it is now. */
uint32_t dc_live_count(const struct dc_live *l);
void dc_live_row(struct dc_live *l, uint32_t index, int64_t now_ns, struct dc_live_row *ret_row);
/* Async spans that were open and given up: there were too many, or events were lost. */
uint64_t dc_live_given_up(const struct dc_live *l);
/* Whether anything of the last ten seconds stands for more than itself. */
bool dc_live_sampled(const struct dc_live *l, int64_t now_ns);
/* Events of all sites, per second; ends of spans are not counted. */
double dc_live_per_s(struct dc_live *l, int64_t now_ns);
