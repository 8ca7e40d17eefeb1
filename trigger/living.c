/* SPDX-License-Identifier: MIT */
/* Live statistics of all processes of a watcher, while somebody asks for them; and how they are told. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/live.h"
#include "trigger/tail.h"
#include "trigger/watcher_inside.h"

#define BUDGET_NS INT64_C(2500000) /* a look, of four a second: 1 % of a core, over all processes */
#define BUDGET_LEAST_NS INT64_C(20000)

/* One image of a process. */
struct living {
	struct dc_ring *ring;
	struct dc_tail *tail; /* NULL: rules follow it already, and pass on what they hear */
	struct dc_live *live;
	bool there; /* the roster has it still */
	bool failed; /* cannot be followed: not tried again */
};

struct dc_living {
	int64_t until_ns;
	uint32_t sites; /* all of them together */
	uint32_t count;
	struct living items[DC_ROSTER_MAX];
};

struct looking {
	struct dc_live *live;
	int64_t now_ns;
};

static void on_lane(void *arg, uint32_t index, const struct dc_ring_lane *entry)
{
	const struct looking *l = arg;

	dc_live_lane(l->live, index, entry);
}

static void on_event(void *arg, const struct dc_event *event, double weight)
{
	const struct looking *l = arg;

	dc_live_event(l->live, event, weight, l->now_ns);
}

static void let_go(struct living *i)
{
	dc_live_free(i->live);
	dc_tail_free(i->tail);
	dc_ring_unref(i->ring);
}

static void let_go_all(struct dc_living *l)
{
	for (uint32_t i = 0; i < l->count; i++)
		let_go(&l->items[i]);
	l->count = 0;
}

void dc_living_free(struct dc_living *l)
{
	if (!l)
		return;
	let_go_all(l);
	free(l);
}

static double units_per_s(const struct dc_ring *ring)
{
	const uint64_t probe = UINT64_C(1) << 32;
	struct dc_clock clock;
	uint64_t ns = dc_ring_clock(ring, &clock) == 0 ? dc_clock_duration_ns(&clock, probe) : 0;

	return ns ? (double)probe / (double)ns * 1e9 : 0;
}

/* The roster keeps its order, so it is nearly always where it was. */
static struct living *item_of(struct dc_living *l, const struct dc_ring *ring, uint32_t hint)
{
	for (uint32_t i = 0; i < l->count; i++) {
		struct living *item = &l->items[(hint + i) % l->count];

		if (item->ring == ring)
			return item;
	}
	return NULL;
}

static struct living *item_new(struct dc_living *l, struct dc_ring *ring)
{
	struct living *item = &l->items[l->count];
	const double units = ring->bare || ring->elsewhere ? 0 : units_per_s(ring);

	*item = (struct living){.ring = dc_ring_ref(ring)};
	item->live = units > 0 ? dc_live_new(units, &l->sites) : NULL;
	item->failed = !item->live;
	l->count++;
	return item;
}

/* One tail of a ring is enough. */
static void follow(struct living *i, const struct dc_entry *e)
{
	if (dc_ruling_follows(e)) {
		dc_tail_free(i->tail);
		i->tail = NULL;
	} else if (!i->tail && !i->failed) {
		i->failed = dc_tail_new(i->ring, &i->tail) < 0;
	}
}

struct dc_live *dc_living_of(const struct dc_watcher *w, const struct dc_entry *e, uint32_t hint)
{
	struct living *i = w->living ? item_of(w->living, e->ring, hint) : NULL;

	return i ? i->live : NULL;
}

static void sweep(struct dc_living *l)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < l->count; i++) {
		if (l->items[i].there)
			l->items[kept++] = l->items[i];
		else
			let_go(&l->items[i]);
	}
	l->count = kept;
}

static void find_all(struct dc_watcher *w, struct dc_living *l)
{
	for (uint32_t i = 0; i < l->count; i++)
		l->items[i].there = false;
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);
		struct living *item = item_of(l, e->ring, i);

		if (e->gone || e->superseded)
			continue;
		if (!item && l->count < DC_ROSTER_MAX)
			item = item_new(l, e->ring);
		if (item) {
			item->there = true;
			follow(item, e);
		}
	}
	sweep(l);
}

void dc_living_look(struct dc_watcher *w, int64_t now_ns)
{
	static const struct dc_tail_handler handler = {.lane = on_lane, .event = on_event};
	struct dc_living *l = w->living;
	int64_t budget = BUDGET_NS;

	if (!l)
		return;
	if (now_ns > l->until_ns) {
		dc_living_free(TAKE(w->living));
		return;
	}
	find_all(w, l);
	for (uint32_t i = 0; i < l->count; i++) {
		struct looking looking = {.live = l->items[i].live, .now_ns = now_ns};
		const uint64_t before = l->items[i].tail ? dc_tail_totals(l->items[i].tail)->cpu_ns : 0;
		const int64_t share = budget / (int64_t)(l->count - i);

		if (!l->items[i].tail)
			continue;
		dc_tail_look(l->items[i].tail, share > BUDGET_LEAST_NS ? share : BUDGET_LEAST_NS, &handler, &looking);
		budget -= (int64_t)(dc_tail_totals(l->items[i].tail)->cpu_ns - before);
	}
}

void dc_living_asked(struct dc_watcher *w, int64_t for_ns)
{
	const int64_t now = dc_watcher_now_ns();

	if (!w->living)
		w->living = calloc(1, sizeof(*w->living));
	if (!w->living)
		return;
	if (w->living->until_ns == 0)
		find_all(w, w->living); /* from now on, not from the next look */
	if (w->living->until_ns < now + for_ns)
		w->living->until_ns = now + for_ns;
}

/* ---- rows ---- */

static void name_process(const struct dc_ring *ring, struct dc_control_live *row)
{
	*row = (struct dc_control_live){.pid = ring->pid ? ring->pid : ring->header.pid,
					.uid = ring->uid,
					.p50_ns = NAN,
					.p99_ns = NAN,
					.p999_ns = NAN,
					.max_ns = NAN,
					.last = NAN};
	snprintf(row->name, sizeof(row->name), "%.63s", ring->header.name);
}

static void tell_left_out(const struct living *i, const struct dc_entry *e, struct dc_control_live *row)
{
	const struct dc_tail_totals *totals = NULL;

	if (dc_ruling_follows(e)) {
		totals = dc_ruling_heard(e, &row->given_up);
	} else if (i->tail) {
		totals = dc_tail_totals(i->tail);
		row->given_up = dc_live_given_up(i->live);
	}
	if (!totals)
		return;
	row->left_out_events = totals->skipped_events;
	row->left_out_bytes = totals->skipped_bytes;
	row->lost_chunks = totals->lost_chunks;
}

static void process_row(const struct living *i, const struct dc_entry *e, int64_t now_ns, struct dc_control_live *row)
{
	struct dc_ring_usage usage;

	name_process(i->ring, row);
	row->per_s = dc_live_per_s(i->live, now_ns);
	tell_left_out(i, e, row);
	if (dc_ring_usage(i->ring, &usage) < 0)
		return;
	row->open = usage.open_spans;
	row->window_ns = usage.window_ns;
	row->wanted_window_ns = usage.wanted_window_ns;
	row->dropped = usage.dropped;
	row->flags = dc_live_sampled(i->live, now_ns) ? DC_CONTROL_LIVE_SAMPLED : 0;
}

static void site_row(const struct living *i, uint32_t index, int64_t now_ns, struct dc_control_live *row)
{
	struct dc_live_row r;

	name_process(i->ring, row);
	dc_live_row(i->live, index, now_ns, &r);
	row->kind = r.kind;
	row->flags = r.sampled ? DC_CONTROL_LIVE_SAMPLED : 0;
	row->open = r.open;
	row->per_s = r.per_s;
	row->errors_per_s = r.errors_per_s;
	row->p50_ns = r.p50_ns;
	row->p99_ns = r.p99_ns;
	row->p999_ns = r.p999_ns;
	row->max_ns = r.max_ns;
	row->last = r.last;
	memcpy(row->site, r.name, sizeof(row->site));
}

uint32_t dc_living_rows(struct dc_watcher *w, bool (*want)(void *arg, const struct dc_entry *e), void *arg,
			uint32_t first, uint32_t most, void (*each)(void *arg, const struct dc_control_live *row), void *each_arg)
{
	const int64_t now = dc_watcher_now_ns();
	struct dc_control_live row;
	uint32_t n = 0;

	for (uint32_t k = 0; w->living && k < dc_roster_count(w->roster); k++) {
		const struct dc_entry *e = dc_roster_at(w->roster, k);
		const struct living *i = item_of(w->living, e->ring, k);

		if (!i || i->failed || e->gone || (want && !want(arg, e)))
			continue;
		for (uint32_t s = 0; s <= dc_live_count(i->live); s++, n++) {
			if (n < first || n - first >= most)
				continue;
			if (s == 0)
				process_row(i, e, now, &row);
			else
				site_row(i, s - 1, now, &row);
			each(each_arg, &row);
		}
	}
	return n;
}

/* ---- to clients ---- */

struct asked {
	struct dc_watcher *w;
	uint64_t client;
	const struct ucred *peer;
	const struct dc_control_request *q;
	uint32_t count;
	struct dc_control_live rows[DC_CONTROL_LIVE_MAX];
};

static bool wanted(void *arg, const struct dc_entry *e)
{
	const struct asked *a = arg;

	return dc_watcher_asked_for(e, a->peer, a->q);
}

static void keep(void *arg, const struct dc_control_live *row)
{
	struct asked *a = arg;

	a->rows[a->count++] = *row;
}

void dc_living_serve(struct dc_watcher *w, uint64_t client, const struct ucred *peer,
		     const struct dc_control_request *q)
{
	struct dc_control_reply reply = {.op = DC_CONTROL_LIVE};
	struct asked a = {.w = w, .client = client, .peer = peer, .q = q};

	dc_living_asked(w, DC_CONTROL_LIVE_NS);
	reply.events = dc_living_rows(w, wanted, &a, q->first > 0 ? (uint32_t)q->first : 0, DC_CONTROL_LIVE_MAX, keep, &a);
	for (uint32_t i = 0; i < a.count; i++) {
		reply.live = a.rows[i];
		reply.more = a.count - 1 - i;
		dc_control_reply(w->control, client, &reply);
	}
	if (a.count == 0)
		dc_control_reply(w->control, client, &reply);
}
