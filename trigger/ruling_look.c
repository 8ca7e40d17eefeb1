/* SPDX-License-Identifier: MIT */
/* The watcher's look at what rules are about: what was recorded, how processes do, and what guests shall compare with. */
#include <stdlib.h>
#include <string.h>

#include "trigger/live.h"
#include "trigger/ruling_inside.h"

#define TAIL_LEAST_NS (SECOND_NS / 50000) /* of one ring, whatever the others took: none is left out for good */
#define IDLE_LOOKS 2u /* without an event */
#define CLOCKS (DC_CLOCK_CNTVCT + 1)
#define SITES_A_LOOK 512u /* of one ring, whose thresholds are thought over again; and how many of them change at most */
#define WRITES_A_LOOK 64u
#define CALM_EVENTS 16u /* a look, at most: it records little */
#define CALM_TAIL_NS (4 * SECOND_NS - SECOND_NS / 8) /* ... at what it recorded, while no chunk is full, nothing is open or counted by the second */

/* --- what they recorded --- */

static const char *site_name(const struct ruled *r, uint16_t site)
{
	const struct dc_schema *schema = r->tail ? dc_tail_schema(r->tail) : NULL;

	return schema && site < schema->count ? schema->sites[site].name : "";
}

static void keep_lane(struct ruled *r, const struct dc_ring_lane *entry)
{
	struct lane_seen *lanes;

	if (r->lane_count == r->lane_room) {
		lanes = reallocarray(r->lanes, r->lane_room ? r->lane_room * 2 : 8, sizeof(*lanes));
		if (!lanes)
			return;
		r->lanes = lanes;
		r->lane_room = r->lane_room ? r->lane_room * 2 : 8;
	}
	lanes = &r->lanes[r->lane_count++];
	*lanes = (struct lane_seen){.tid = entry->tid,
				    .depth = entry->depth,
				    .open_units = entry->open_units,
				    .open_site = entry->open_site};
	memcpy(lanes->comm, entry->comm, sizeof(lanes->comm) - 1);
}

struct looking {
	struct ruled *r;
	struct dc_live *live; /* NULL: nobody asks for it */
	uint64_t now_units;
	int64_t now_ns;
};

static void on_lane(void *arg, uint32_t index, const struct dc_ring_lane *entry)
{
	const struct looking *l = arg;
	struct ruled *r = l->r;

	keep_lane(r, entry);
	dc_evaluate_lane(r->w->ruling->evaluate, r->subject, index, entry, entry->depth ? site_name(r, entry->open_site) : "",
			 l->now_units, l->now_ns);
	if (l->live)
		dc_live_lane(l->live, index, entry);
}

static void on_event(void *arg, const struct dc_event *event, double weight)
{
	const struct looking *l = arg;

	l->r->event_units = event->units;
	dc_evaluate_event(l->r->w->ruling->evaluate, l->r->subject, event, weight, l->now_ns);
	l->r->event_units = 0;
	if (l->live)
		dc_live_event(l->live, event, weight, l->now_ns);
}

static uint64_t left_out(const struct ruled *r)
{
	const struct dc_tail_totals *t = dc_tail_totals(r->tail);

	return t->skipped_chunks + t->lost_chunks;
}

static const struct dc_tail_handler handler = {.lane = on_lane, .event = on_event};

static struct looking look_begin(struct ruled *r, struct dc_live *live, uint64_t now_units, int64_t now_ns)
{
	r->laned_ns = now_ns;
	r->lane_count = 0;
	return (struct looking){.r = r, .live = live, .now_units = now_units, .now_ns = now_ns};
}

static void look_at_tail(struct ruled *r, int64_t budget_ns, uint64_t now_units, int64_t now_ns, uint32_t place)
{
	const uint64_t before = dc_tail_totals(r->tail)->events, left = left_out(r);
	struct looking looking = look_begin(r, dc_living_of(r->w, r->e, place), now_units, now_ns);

	r->tailed_ns = now_ns;
	dc_tail_look(r->tail, budget_ns, &handler, &looking);
	if (left_out(r) != left) {
		dc_evaluate_lost(r->subject);
		if (looking.live)
			dc_live_lost(looking.live);
	}
	r->idle_looks = dc_tail_totals(r->tail)->events == before ? r->idle_looks + 1 : 0;
	r->calm = dc_tail_totals(r->tail)->events - before < CALM_EVENTS;
}

static void look_at_lanes(struct ruled *r, uint64_t now_units, int64_t now_ns)
{
	struct looking looking = look_begin(r, NULL, now_units, now_ns);

	dc_tail_lanes(r->tail, &handler, &looking);
}

void dc_ruled_look(struct ruled *r, int64_t budget_ns)
{
	look_at_tail(r, budget_ns, dc_ring_now(r->e->ring), dc_watcher_now_ns(), 0);
}

/* --- what guests compare with --- */

static bool grow_thresholds(struct ruled *r, uint32_t count)
{
	uint64_t *more;

	if (count <= r->threshold_count)
		return true;
	more = reallocarray(r->thresholds, count, sizeof(*more));
	if (!more)
		return false;
	memset(more + r->threshold_count, 0, (count - r->threshold_count) * sizeof(*more));
	r->thresholds = more;
	r->threshold_count = count;
	return true;
}

/* Distributions move with every event; a guest is told when it is by more than 3 %. */
static bool differs(uint64_t wanted, uint64_t told)
{
	const uint64_t off = wanted > told ? wanted - told : told - wanted;

	return off && (!wanted || !told || off > told / 32);
}

/* Guests compare what began and ended in one thread. */
static uint64_t wanted_threshold(const struct ruled *r, const struct dc_schema *schema, uint16_t site)
{
	if (schema->sites[site].kind != DC_KIND_BEGIN)
		return 0;
	return dc_evaluate_threshold(r->w->ruling->evaluate, r->subject, site, schema->sites[site].name);
}

/* Only where something happened, since nothing else changes them; and bounded, whatever a ring claims to have. */
static void push_thresholds(struct ruled *r)
{
	const struct dc_schema *schema = dc_tail_schema(r->tail);
	const uint64_t events = dc_tail_totals(r->tail)->events;
	const uint32_t count = schema ? (schema->count < DC_SITE_MAX ? schema->count : DC_SITE_MAX) : 0;
	uint32_t writes = 0, looked = 0;

	if (count < 2 || !r->e->ring->writable || (events == r->events && count == r->threshold_count && !r->thresholds_stale) ||
	    !grow_thresholds(r, count))
		return;
	for (; looked < count && looked < SITES_A_LOOK && writes < WRITES_A_LOOK; looked++) {
		const uint32_t site = r->threshold_next = r->threshold_next + 1 < count ? r->threshold_next + 1 : 1;
		const uint64_t wanted = wanted_threshold(r, schema, (uint16_t)site);

		if (!differs(wanted, r->thresholds[site]) || dc_ring_set_threshold(r->e->ring, site, wanted) < 0)
			continue;
		r->thresholds[site] = wanted;
		writes++;
	}
	if (looked == count) {
		r->events = events;
		r->thresholds_stale = false;
	}
}

void dc_ruled_reset_thresholds(struct ruled *r)
{
	for (uint32_t site = 1; site < r->threshold_count; site++)
		if (r->thresholds[site] && dc_ring_set_threshold(r->e->ring, site, 0) == 0)
			r->thresholds[site] = 0;
}

void dc_ruling_leave(struct dc_watcher *w)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		if (dc_roster_at(w->roster, i)->ruled)
			dc_ruled_reset_thresholds(dc_roster_at(w->roster, i)->ruled);
}

/* --- looks --- */

static bool looked_at(const struct dc_entry *e)
{
	return e->ruled && !e->gone && !e->superseded;
}

static bool anything_open(const struct ruled *r)
{
	for (uint32_t i = 0; i < r->lane_count; i++)
		if (r->lanes[i].depth > 0)
			return true;
	return false;
}

enum due { DUE_NOT, DUE_LANES, DUE_TAIL };

/*
 * One that records nothing now is looked at every other time. One that records little is looked at once a second, unless
 * somebody wrote a rule or watches live, and what it recorded seldomer still: the rules that ship wait for seconds, and a span
 * that is too long calls by itself.
 */
static enum due due(const struct dc_entry *e, int64_t now_ns)
{
	const struct ruled *r = e->ruled;

	if (!looked_at(e) || !r->tail)
		return DUE_NOT;
	if (!r->calm || !r->w->ruling->calm_ns || r->w->living)
		return r->idle_looks < IDLE_LOOKS || r->skipped ? DUE_TAIL : DUE_NOT;
	if (now_ns - r->laned_ns < r->w->ruling->calm_ns)
		return DUE_NOT;
	return now_ns - r->tailed_ns >= CALM_TAIL_NS || anything_open(r) || dc_evaluate_by_seconds(r->subject) ||
			       dc_tail_claimed(r->tail)
		       ? DUE_TAIL
		       : DUE_LANES;
}

/* Asking a clock for each ring would cost as much as half of its look. */
static uint64_t units_now(const struct dc_ring *ring, uint64_t ticks[static CLOCKS])
{
	const uint32_t kind = ring->header.clock;
	struct dc_anchor now;

	if (kind >= CLOCKS)
		return dc_ring_now(ring);
	if (!ticks[kind] && dc_clock_now(kind, &now) == 0)
		ticks[kind] = now.tick;
	return ticks[kind] >> ring->header.tick_shift;
}

/* Who has little to tell leaves its share to those after it. */
static int64_t share_of(int64_t until_ns, uint32_t left)
{
	const int64_t share = (until_ns - dc_watcher_now_ns()) / (left ? left : 1);

	return share > TAIL_LEAST_NS ? share : TAIL_LEAST_NS;
}

static void look_at_tails(struct dc_watcher *w, int64_t now_ns)
{
	const int64_t until_ns = dc_watcher_now_ns() + TAILS_NS; /* what was done since @now_ns is none of theirs */
	uint64_t ticks[CLOCKS] = {0};
	uint32_t left = 0;

	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		left += due(dc_roster_at(w->roster, i), now_ns) == DUE_TAIL;
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);
		const enum due what = due(e, now_ns);

		if (e->ruled)
			e->ruled->skipped = what == DUE_NOT;
		if (what == DUE_LANES)
			look_at_lanes(e->ruled, units_now(e->ring, ticks), now_ns);
		if (what != DUE_TAIL)
			continue;
		look_at_tail(e->ruled, share_of(until_ns, left), units_now(e->ring, ticks), now_ns, i);
		left -= left > 0;
		push_thresholds(e->ruled);
	}
}

static void look_at_vitals(struct dc_watcher *w, int64_t now_ns)
{
	const uint32_t wants = dc_evaluate_wants(w->ruling->evaluate);
	struct dc_vitals v;

	if (!wants || now_ns < w->ruling->vitals_due_ns)
		return;
	w->ruling->vitals_due_ns = now_ns + w->ruling->vitals_ns - SECOND_NS / 8; /* looks are not that exact */
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);

		if (!looked_at(e))
			continue;
		dc_ruled_open_vitals(e->ruled); /* the image that had them may be gone */
		if (e->ruled->vitals && dc_vitals_read(e->ruled->vitals, wants, now_ns, &v) == 0)
			dc_evaluate_vitals(w->ruling->evaluate, e->ruled->subject, &v, now_ns);
	}
}

void dc_ruling_look(struct dc_watcher *w, int64_t now_ns)
{
	if (!w->ruling)
		return;
	look_at_tails(w, now_ns);
	look_at_vitals(w, now_ns);
	dc_evaluate_tick(w->ruling->evaluate, now_ns);
	dc_commands_tick(w->ruling->commands, now_ns);
}
