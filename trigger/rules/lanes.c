/* SPDX-License-Identifier: MIT */
/*
 * Threads, as the lane table shows them four times a second: who fell silent, and which spans stay open. What lies around the
 * innermost span is known from the tail, as long as both agree on the innermost.
 *
 * Most threads that record nothing have nothing to do, and only look like one that is stuck. So silence without a number
 * is that of a thread that worked in regular beats, while the others go on as they did: a load that ends stops all of them.
 */
#include <math.h>
#include <string.h>

#include "trigger/rules/evaluate_inside.h"

#define EPOCH_NS (150 * SECOND_NS) /* pauses of the last 150 to 300 s count */
#define BLIND_NS (2 * SECOND_NS) /* looks further apart than this saw nothing in between */
#define SILENT_LEAST_NS (2.0 * 1e9)
#define SILENT_FACTOR 20.0 /* times as long as ever */
#define SILENT_AGE_NS (60.0 * 1e9)
#define BEATS_LEAST 50.0
#define BEATS_KEPT 2000.0
#define BEAT_SPREAD 3.0 /* regular: the longest pause is at most so many mean ones */
#define BEAT_MEAN_LEAST_NS 5e6
#define OTHERS_GO_ON 0.9
#define LOOKS_USUAL 240.0 /* a minute */
#define OPEN_LEAST_NS (2.0 * 1e9)
#define OPEN_FACTOR 20.0
#define OPEN_ENDED_LEAST 50u

struct lane_state *dc_lane_of(struct dc_subject *s, uint32_t lane)
{
	struct dc_evaluate *e = s->evaluate;
	uint32_t room = s->lane_room ? s->lane_room : 16;
	struct lane_state **more;

	if (lane < s->lane_room && s->lanes[lane])
		return s->lanes[lane];
	if (lane >= DC_LANE_MAX)
		return NULL;
	while (room <= lane)
		room *= 2;
	if (room != s->lane_room) {
		more = realloc(s->lanes, room * sizeof(struct lane_state *));
		if (!more)
			return NULL;
		memset(more + s->lane_room, 0, (room - s->lane_room) * sizeof(struct lane_state *));
		s->lanes = more;
		s->lane_room = room;
	}
	if (!s->lanes[lane] && e->lane_count < LANES_ALL_MAX) {
		s->lanes[lane] = calloc(1, sizeof(**s->lanes));
		e->lane_count += s->lanes[lane] != NULL;
	}
	return s->lanes[lane];
}

struct lane_state *dc_lane_by_tid(struct dc_subject *s, uint32_t tid)
{
	for (uint32_t i = 0; i < s->lane_room; i++)
		if (s->lanes[i] && s->lanes[i]->tid == tid)
			return s->lanes[i];
	return NULL;
}

void dc_lanes_free(struct dc_subject *s)
{
	for (uint32_t i = 0; i < s->lane_room; i++) {
		s->evaluate->lane_count -= s->lanes[i] != NULL;
		free(s->lanes[i]);
	}
	free(s->lanes);
	s->lanes = NULL;
	s->lane_room = 0;
}

/* ---- silence ---- */

static void activity_restart(struct activity *a, uint64_t last_units, uint64_t now_units, int64_t now_ns)
{
	*a = (struct activity){.last_units = last_units,
			       .look_units = now_units,
			       .look_ns = now_ns,
			       .born_ns = now_ns,
			       .epoch_ns = now_ns};
}

/* Return: false: nobody looked for a while, or the machine slept (units go on, @now_ns does not): what was known is void. */
static bool activity_look(struct activity *a, uint64_t last_units, uint64_t now_units, double ns_per_unit, int64_t now_ns)
{
	double passed_ns = now_units > a->look_units ? (double)(now_units - a->look_units) * ns_per_unit : 0;

	if (a->look_ns == 0 || now_ns - a->look_ns > BLIND_NS || passed_ns > (double)(now_ns - a->look_ns) + (double)SECOND_NS) {
		activity_restart(a, last_units, now_units, now_ns);
		return false;
	}
	if (now_ns - a->epoch_ns > EPOCH_NS) {
		a->gap_ns[1] = a->gap_ns[0];
		a->gap_ns[0] = 0;
		a->epoch_ns = now_ns;
	}
	if (last_units != a->last_units)
		a->gap_ns[0] = fmax(a->gap_ns[0], a->silent_ns);
	a->last_units = last_units;
	a->silent_ns = now_units > last_units ? (double)(now_units - last_units) * ns_per_unit : 0;
	a->silent_ns = fmin(a->silent_ns, (double)(now_ns - a->born_ns)); /* before that nobody looked */
	a->look_units = now_units;
	a->look_ns = now_ns;
	return true;
}

/* It always recorded: for twice as long, and half of it was never quiet. */
static bool silent_for(const struct activity *a, double ns)
{
	const double before_ns = (double)(a->look_ns - a->born_ns) - a->silent_ns;

	return a->silent_ns >= ns && before_ns >= fmax(2 * ns, 5e9) && fmax(a->gap_ns[0], a->gap_ns[1]) <= ns / 2;
}

static double silence_limit(double longest_ns)
{
	return fmax(SILENT_LEAST_NS, SILENT_FACTOR * longest_ns);
}

/* Looks are a quarter of a second apart: a pause may have been as much longer. */
static bool process_silent(const struct activity *a, double number, double *ret_limit)
{
	*ret_limit = number > 0 ? number : silence_limit(fmax(a->gap_ns[0], a->gap_ns[1]) + 0.25e9);
	return number > 0 ? silent_for(a, number)
			  : a->silent_ns >= *ret_limit && (double)(a->look_ns - a->born_ns) - a->silent_ns >= SILENT_AGE_NS;
}

static bool beats_regularly(const struct beat *b)
{
	return b->count >= BEATS_LEAST && b->sum_ns >= BEAT_MEAN_LEAST_NS * b->count &&
	       b->longest_ns * b->count <= BEAT_SPREAD * b->sum_ns;
}

static bool others_go_on(const struct dc_subject *s)
{
	return s->moved >= 1 && s->moved >= OTHERS_GO_ON * (s->usually_moving - 1);
}

static bool thread_silent(const struct dc_subject *s, const struct lane_state *lane, double number, double *ret_limit)
{
	*ret_limit = number > 0 ? number : silence_limit(lane->beat.longest_ns);
	return number > 0 ? silent_for(&lane->activity, number)
			  : lane->activity.silent_ns >= *ret_limit && beats_regularly(&lane->beat) && others_go_on(s);
}

/* ---- a condition on one lane ---- */

static bool is_told(const struct told *t, uint32_t id)
{
	for (uint32_t i = 0; i < t->count; i++)
		if (t->ids[i] == id)
			return true;
	return t->count == TOLD_MAX; /* of so many at once nobody needs to hear more */
}

/* It holds for this lane; when it did not at the last look, that is news even where another lane has it already. */
static void lane_holds(struct lane_state *lane, struct rule_state *r, unsigned node, double value, double threshold,
		       const struct open_span *span, struct told *found, int64_t now_ns)
{
	const uint32_t id = r->id * DC_RULE_NODES_MAX + node;
	struct node_state *n = &r->nodes[node];

	n->look = r->subject->evaluate->look;
	if (is_told(found, id))
		return;
	found->ids[found->count++] = id;
	if (is_told(&lane->told, id))
		return;
	n->thing = span ? span->thing : NULL;
	n->site = span ? span->site : 0;
	n->tid = lane->tid;
	n->tick = 0;
	dc_node_set(n, true, value, threshold, now_ns);
	dc_decide(r, 0, 1u << node, now_ns);
}

static void look_at_silence(struct dc_subject *s, struct lane_state *lane, struct told *found, int64_t now_ns)
{
	double limit;

	for (uint32_t i = 0; i < s->evaluate->rules.count; i++) {
		struct rule_state *r = s->rules[i];

		for (unsigned k = 0; r && k < r->count; k++)
			if (node_of(r, k)->op == DC_RULE_THREAD_SILENT && thread_silent(s, lane, node_of(r, k)->number, &limit))
				lane_holds(lane, r, k, lane->activity.silent_ns, limit, NULL, found, now_ns);
	}
}

/* ---- spans that stay open ---- */

bool dc_open_holds(const struct dc_rule_node *n, const struct thing *t, double ns, double *ret_limit)
{
	if (n->op == DC_RULE_SPAN_OPEN) {
		*ret_limit = n->number;
		return dc_rule_compares(n->compare, ns, n->number);
	}
	*ret_limit = fmax(OPEN_LEAST_NS, OPEN_FACTOR * t->longest_ns);
	return n->op == DC_RULE_SPAN_OPEN_UNUSUAL && t->ended >= OPEN_ENDED_LEAST && ns >= *ret_limit;
}

static void look_at_span(struct dc_subject *s, struct lane_state *lane, const struct open_span *span, uint64_t now_units,
			 struct told *found, int64_t now_ns)
{
	const struct thing *t = span->thing;
	double ns, limit;

	if (!t || span->start_units == 0 || span->start_units >= now_units)
		return;
	ns = (double)(now_units - span->start_units) * s->ns_per_unit;
	for (uint32_t i = 0; i < t->watch_count; i++) {
		const struct watch *w = &t->watches[i];
		const struct dc_rule_node *n = node_of(w->of, w->node);

		if (n->where_count > 0 && !(i < 64 && (span->where >> i & 1)))
			continue;
		if (dc_is_of_lane(n->op) && dc_open_holds(n, t, ns, &limit))
			lane_holds(lane, w->of, w->node, ns, limit, span, found, now_ns);
	}
}

static void look_at_spans(struct dc_subject *s, struct lane_state *lane, const struct dc_ring_lane *entry, const char *open_name,
			  uint64_t now_units, struct told *found, int64_t now_ns)
{
	const struct open_span *top = lane->depth > 0 ? &lane->stack[lane->depth - 1] : NULL;
	struct open_span innermost = {.start_units = entry->open_units, .site = entry->open_site};

	if (entry->depth == 0)
		return;
	if (top && lane->depth == entry->depth && top->start_units == entry->open_units && top->site == entry->open_site) {
		for (uint32_t i = 0; i < lane->depth; i++)
			look_at_span(s, lane, &lane->stack[i], now_units, found, now_ns);
		return;
	}
	innermost.thing = dc_thing_of(s, entry->open_site, open_name, THING_SPAN);
	look_at_span(s, lane, &innermost, now_units, found, now_ns);
}

void dc_evaluate_lane(struct dc_evaluate *e, struct dc_subject *s, uint32_t index, const struct dc_ring_lane *entry,
		      const char *open_name, uint64_t now_units, int64_t now_ns)
{
	struct lane_state *lane = dc_lane_of(s, index);
	struct told found = {0};

	hear(e, s, now_ns);
	if (s->look != e->look) {
		s->look = e->look;
		s->moved = s->moving;
		s->moving = 0;
		s->newest_units = 0;
	}
	s->now_units = now_units;
	if (!lane || (entry->flags & DC_LANE_NESTED))
		return;
	if (entry->tid == 0 || (entry->flags & DC_LANE_FREE)) {
		*lane = (struct lane_state){0}; /* its thread ended in order */
		return;
	}
	if (lane->tid != entry->tid || lane->serial != entry->serial)
		*lane = (struct lane_state){.tid = entry->tid, .serial = entry->serial};
	if (entry->last_units > s->newest_units)
		s->newest_units = entry->last_units;
	if (!activity_look(&lane->activity, entry->last_units, now_units, s->ns_per_unit, now_ns))
		lane->beat = (struct beat){0};
	s->moving += lane->activity.silent_ns < (double)SECOND_NS;
	look_at_silence(s, lane, &found, now_ns);
	look_at_spans(s, lane, entry, open_name, now_units, &found, now_ns);
	lane->told = found;
}

/* ---- the end of a look ---- */

static void look_at_node(struct dc_subject *s, struct rule_state *r, unsigned i, int64_t now_ns)
{
	const struct dc_rule_node *n = node_of(r, i);
	struct node_state *st = &r->nodes[i];
	double limit;
	bool silent;

	if (dc_is_of_lane(n->op) && st->on && st->look != s->look)
		dc_node_set(st, false, 0, 0, now_ns);
	if (n->op != DC_RULE_SILENT)
		return;
	silent = process_silent(&s->activity, n->number, &limit);
	dc_node_set(st, silent, s->activity.silent_ns, limit, now_ns);
}

void dc_lanes_look(struct dc_subject *s, int64_t now_ns)
{
	if (s->look != s->evaluate->look)
		return; /* nobody looked at its lanes */
	if (s->newest_units > 0)
		activity_look(&s->activity, s->newest_units, s->now_units, s->ns_per_unit, now_ns);
	else
		s->activity = (struct activity){0}; /* all its threads have ended */
	s->usually_moving += (s->moving - s->usually_moving) / LOOKS_USUAL;
	for (uint32_t i = 0; i < s->evaluate->rules.count; i++)
		for (unsigned k = 0; s->rules[i] && k < s->rules[i]->count; k++)
			look_at_node(s, s->rules[i], k, now_ns);
}
