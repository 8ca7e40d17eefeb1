/* SPDX-License-Identifier: MIT */
/* What a program recorded: by the tail, and of a span that lasted too long at once by the guest. */
#include <math.h>
#include <string.h>

#include "ipc/event.h"
#include "trigger/rules/evaluate_inside.h"

#define LOST_NS SECOND_NS /* so long after it left something out, that the tail is past a span does not say that it brought it */

/* Which conditions of one rule are true at this moment; told together when the next rule's watches begin. */
struct moments {
	struct rule_state *of;
	uint32_t bits;
	bool turned; /* one that lasts did */
};

static void moments_tell(struct moments *m, int64_t now_ns)
{
	if (m->bits || m->turned)
		dc_decide(m->of, m->bits, 0, now_ns);
	*m = (struct moments){0};
}

static void moments_at(struct moments *m, const struct watch *w, int64_t now_ns)
{
	if (m->of == w->of)
		return;
	moments_tell(m, now_ns);
	m->of = w->of;
}

/* ---- spans ---- */

uint64_t dc_where_bits(const struct thing *t, const struct dc_event *event)
{
	uint64_t bits = 0;

	for (uint32_t i = 0; i < t->watch_count && i < 64; i++) {
		const struct watch *w = &t->watches[i];
		const struct dc_rule_node *n = node_of(w->of, w->node);

		if (n->where_count > 0 && dc_where_holds(&w->of->rule->when, n, event))
			bits |= UINT64_C(1) << i;
	}
	return bits;
}

uint32_t dc_span_kind(const struct thing *t, const struct dc_event *event, unsigned first, int64_t now_ns)
{
	return t->kinds && dc_kinds_due(t->kinds, now_ns) ? dc_kind_of(event, first) : DC_KIND_NONE;
}

static void span_began(struct dc_subject *s, struct lane_state *lane, const struct dc_event *event, int64_t now_ns)
{
	struct thing *t = dc_thing_of(s, event->site, event->info ? event->info->name : NULL, THING_SPAN);
	struct open_span *o;

	if (event->depth == 0 || event->depth > STACK_MAX)
		return;
	o = &lane->stack[event->depth - 1];
	if (lane->depth < event->depth - 1) /* those around it were not seen to begin */
		memset(&lane->stack[lane->depth], 0, (event->depth - 1 - lane->depth) * sizeof(*o));
	lane->depth = event->depth;
	*o = (struct open_span){
		.start_units = event->kind == DC_KIND_OPEN ? event->start_units : event->units,
		.thing = t,
		.site = event->site,
		.where = t && t->watch_count ? dc_where_bits(t, event) : 0,
		.kind = t ? dc_span_kind(t, event, 0, now_ns) : DC_KIND_NONE,
	};
}

/* What the other side told already: the guest and the tail each bring every span that is long enough. */
static bool was_told(struct dc_subject *s, uint16_t site, uint32_t tid, uint64_t units, bool by_guest)
{
	if (!by_guest && s->seen_by_guest == 0)
		return false;
	for (unsigned i = 0; i < SEEN_MAX; i++) {
		struct seen *seen = &s->seen[i];

		if (seen->used || !seen->units || seen->by_guest == by_guest || seen->tid != tid || seen->site != site ||
		    seen->units + 1 < units || seen->units > units + 1)
			continue;
		seen->used = true;
		s->seen_by_guest -= seen->by_guest;
		return true;
	}
	return false;
}

static void tell(struct dc_subject *s, uint16_t site, uint32_t tid, uint64_t units, bool by_guest)
{
	struct seen *seen = &s->seen[s->seen_next++ % SEEN_MAX];

	s->seen_by_guest -= seen->by_guest && !seen->used;
	s->seen_by_guest += by_guest;
	*seen = (struct seen){.units = units, .tid = tid, .site = site, .by_guest = by_guest};
}

/* For a rate. */
static void count(struct watch *w, double weight, int64_t now_ns)
{
	if (w->surge)
		dc_surge_add(w->surge, weight, now_ns);
	else
		dc_rate_add(w->rate, weight, now_ns);
}

/* Of its kind many are slower: no guest can tell that. */
static bool watch_slower(struct watch *w, const struct span *span, int64_t now_ns)
{
	struct dc_slower *s = span->kind == DC_KIND_NONE ? NULL : dc_kinds_find(w->kinds, span->kind);
	const double limit = s ? dc_slower_limit(s) : 0;

	if (!s || !dc_slower_add(s, span->ns, node_of(w->of, w->node)->number, now_ns))
		return false;
	dc_node_moment(&w->of->nodes[w->node], span->ns, limit, span->thing, span->site, span->tid);
	return true;
}

/* What one condition makes of a span that ended. Return: whether it is true at this moment. */
static bool watch_span(struct watch *w, const struct span *span, int64_t now_ns)
{
	const struct dc_rule_node *n = node_of(w->of, w->node);
	double threshold = n->number;
	bool now = false;

	switch (n->op) {
	case DC_RULE_SPAN_LASTS:
		now = dc_rule_compares(n->compare, span->ns, n->number);
		break;
	case DC_RULE_SPAN_UNUSUAL:
		threshold = dc_unusual_threshold(w->unusual);
		now = dc_unusual_add(w->unusual, span->ns, now_ns);
		break;
	case DC_RULE_SPAN_SLOWER:
		return watch_slower(w, span, now_ns);
	case DC_RULE_SPAN_PERCENTILE:
		if (!span->told)
			dc_histogram_add(w->histogram, (uint64_t)span->ns, span->weight, now_ns);
		return false;
	case DC_RULE_SPAN_RATE:
		count(w, span->weight, now_ns);
		return false;
	default:
		return false;
	}
	now = now && !span->told;
	if (now)
		dc_node_moment(&w->of->nodes[w->node], span->ns, threshold, span->thing, span->site, span->tid);
	return now;
}

bool dc_span_tell(const struct span *span, int64_t now_ns)
{
	struct moments m = {0};
	bool any = false;

	for (uint32_t i = 0; i < span->thing->watch_count; i++) {
		struct watch *w = &span->thing->watches[i];
		bool where = node_of(w->of, w->node)->where_count == 0 || (i < 64 && (span->where >> i & 1));

		moments_at(&m, w, now_ns);
		if (!where || !watch_span(w, span, now_ns))
			continue;
		m.bits |= 1u << w->node;
		any = true;
	}
	moments_tell(&m, now_ns);
	return any;
}

void dc_span_count(const struct span *span)
{
	span->thing->ended++;
	if (span->ns > span->thing->longest_ns)
		span->thing->longest_ns = span->ns;
}

static void span_ended(struct dc_subject *s, struct lane_state *lane, const struct dc_event *event, double weight, int64_t now_ns)
{
	const struct open_span *o = event->depth >= 1 && event->depth <= lane->depth ? &lane->stack[event->depth - 1] : NULL;
	struct span span = {.weight = weight, .site = event->site, .tid = event->tid};
	uint64_t units = event->units - event->start_units;

	if (event->depth >= 1 && lane->depth >= event->depth)
		lane->depth = event->depth - 1;
	if (event->start_units == UINT64_MAX || event->start_units > event->units || !event->info)
		return;
	span.thing = dc_thing_of(s, event->site, event->info->name, THING_SPAN);
	if (!span.thing)
		return;
	span.ns = (double)units * s->ns_per_unit;
	if (o && o->start_units == event->start_units && o->thing == span.thing) {
		span.where = o->where;
		span.kind = o->kind;
	}
	dc_span_count(&span);
	if (span.thing->watch_count == 0)
		return;
	span.told = was_told(s, event->site, event->tid, units, false);
	if (dc_span_tell(&span, now_ns))
		tell(s, event->site, event->tid, units, false);
}

/*
 * Whether the tail is past it in its thread, so that it has brought it. What the tail left out lately it has not; then the last
 * ones that each told are compared, as is a span that is the last thing its thread did.
 */
static bool was_brought(struct dc_subject *s, uint32_t tid, uint64_t at_units, int64_t now_ns)
{
	const struct lane_state *lane = dc_lane_by_tid(s, tid);

	return lane && lane->beat.last_units >= at_units && (!s->lost_ns || now_ns - s->lost_ns > LOST_NS);
}

/* Of what the guest told; it is learnt from when the tail brings it. Return: whether it is true at this moment. */
static bool watch_over(struct watch *w, const struct span *span, bool *turned, int64_t now_ns)
{
	const struct dc_rule_node *n = node_of(w->of, w->node);
	double threshold = n->number;

	switch (n->op) {
	case DC_RULE_SPAN_LASTS:
		if (span->told || !dc_rule_compares(n->compare, span->ns, threshold))
			return false;
		break;
	case DC_RULE_SPAN_UNUSUAL:
		threshold = dc_unusual_threshold(w->unusual);
		if (span->told || !(span->ns > threshold))
			return false;
		break;
	case DC_RULE_SPAN_PERCENTILE:
		if (!span->told)
			dc_histogram_add(w->histogram, (uint64_t)span->ns, 1, now_ns);
		if (!dc_watch_percentile(w, span->thing, now_ns))
			return false;
		w->of->nodes[w->node].tid = span->tid;
		w->of->nodes[w->node].site = span->site;
		*turned = true;
		return false;
	default:
		return false;
	}
	dc_node_moment(&w->of->nodes[w->node], span->ns, threshold, span->thing, span->site, span->tid);
	return true;
}

void dc_evaluate_span_over(struct dc_evaluate *e, struct dc_subject *s, uint16_t site, const char *name, uint64_t units,
			   uint32_t tid, uint64_t tick, uint64_t at_units, int64_t now_ns)
{
	struct span span = {.thing = dc_thing_of(s, site, name, THING_SPAN),
			    .site = site,
			    .tid = tid,
			    .told = was_brought(s, tid, at_units, now_ns)};
	struct moments m = {0};

	hear(e, s, now_ns);
	if (!span.thing || (!span.told && was_told(s, site, tid, units, true)))
		return;
	if (!span.told)
		tell(s, site, tid, units, true);
	span.ns = (double)units * s->ns_per_unit;
	for (uint32_t i = 0; i < span.thing->watch_count; i++) {
		struct watch *w = &span.thing->watches[i];

		if (node_of(w->of, w->node)->where_count > 0)
			continue;
		moments_at(&m, w, now_ns);
		if (watch_over(w, &span, &m.turned, now_ns))
			m.bits |= 1u << w->node;
		if (m.bits >> w->node & 1 || m.turned)
			w->of->nodes[w->node].tick = tick;
	}
	moments_tell(&m, now_ns);
}

/* ---- events, counters, logs ---- */

static void happened(struct dc_subject *s, const struct dc_event *event, double weight, int64_t now_ns)
{
	const bool counts = event->kind == DC_KIND_COUNTER;
	struct thing *t = event->info ? dc_thing_of(s, event->site, event->info->name, counts ? THING_COUNTER : THING_EVENT) : NULL;
	const double value = counts && event->arg_count > 0 ? dc_number_of(event, 0) : NAN;
	struct moments m = {0};

	if (t && counts)
		t->last = value;
	for (uint32_t i = 0; t && i < t->watch_count; i++) {
		struct watch *w = &t->watches[i];
		const struct dc_rule_node *n = node_of(w->of, w->node);

		moments_at(&m, w, now_ns);
		if (!dc_where_holds(&w->of->rule->when, n, event))
			continue;
		if (n->op == DC_RULE_EVENT) {
			dc_node_moment(&w->of->nodes[w->node], isnan(value) ? 1 : value, 0, t, event->site, event->tid);
			m.bits |= 1u << w->node;
		} else if (n->op == DC_RULE_EVENT_RATE) {
			count(w, weight, now_ns);
		} else if (n->op == DC_RULE_COUNTER && w->surge) {
			dc_surge_add(w->surge, value, now_ns);
		} else if (n->op == DC_RULE_COUNTER) {
			m.turned |= dc_watch_set(w, t, dc_rule_compares(n->compare, value, n->number), value, n->number, now_ns);
		}
	}
	moments_tell(&m, now_ns);
}

static bool is_of_level(const struct dc_rule_node *n, const struct dc_event *event)
{
	return dc_rule_compares(n->level_compare, event->info->level, n->level);
}

static void logged(struct dc_subject *s, const struct dc_event *event, double weight, int64_t now_ns)
{
	for (uint32_t i = 0; i < s->evaluate->rules.count; i++) {
		struct rule_state *r = s->rules[i];
		uint32_t bits = 0;

		for (unsigned k = 0; r && k < r->count; k++) {
			const struct dc_rule_node *n = node_of(r, k);

			if ((n->op != DC_RULE_LOG && n->op != DC_RULE_LOG_RATE) || !is_of_level(n, event))
				continue;
			s->logs |= n->op == DC_RULE_LOG_RATE;
			if (r->nodes[k].rate)
				dc_rate_add(r->nodes[k].rate, weight, now_ns);
			if (r->nodes[k].surge)
				dc_surge_add(r->nodes[k].surge, weight, now_ns);
			if (n->op == DC_RULE_LOG) {
				dc_node_moment(&r->nodes[k], event->info->level, n->level, NULL, event->site, event->tid);
				bits |= 1u << k;
			}
		}
		if (bits)
			dc_decide(r, bits, 0, now_ns);
	}
}

/* ---- the lane around them ---- */

/* The pause before an event at depth 0, of a thread that may work in beats. */
static void beat(struct dc_subject *s, struct lane_state *lane, const struct dc_event *event)
{
	const bool outside = event->depth == 0 || (event->kind == DC_KIND_BEGIN && event->depth == 1);
	struct beat *b = &lane->beat;
	double ns;

	if (outside && b->last_units && event->units > b->last_units) {
		ns = (double)(event->units - b->last_units) * s->ns_per_unit;
		if (ns > 1e6) { /* less is a pause within the work */
			b->count++;
			b->sum_ns += ns;
			b->longest_ns = ns > b->longest_ns ? ns : b->longest_ns;
		}
	}
	b->last_units = event->units;
}

static void lane_restart(struct lane_state *lane, const struct dc_event *event)
{
	*lane = (struct lane_state){.tid = event->tid, .serial = event->serial};
}

void dc_evaluate_event(struct dc_evaluate *e, struct dc_subject *s, const struct dc_event *event, double weight, int64_t now_ns)
{
	struct lane_state *lane = dc_lane_of(s, event->lane);

	hear(e, s, now_ns);
	if (!lane)
		return;
	if (lane->tid != event->tid || lane->serial != event->serial || event->kind == DC_KIND_THREAD)
		lane_restart(lane, event);
	if (event->kind != DC_KIND_OPEN && event->kind != DC_KIND_THREAD)
		beat(s, lane, event);
	switch (event->kind) {
	case DC_KIND_BEGIN:
	case DC_KIND_OPEN:
		span_began(s, lane, event, now_ns);
		break;
	case DC_KIND_END:
		span_ended(s, lane, event, weight, now_ns);
		if (event->depth <= 1) /* what the context was of is over */
			memset(lane->trace_id, 0, sizeof(lane->trace_id));
		break;
	case DC_KIND_ASYNC_BEGIN:
	case DC_KIND_ASYNC_END:
		dc_asyncs_event(s, event, weight, now_ns);
		break;
	case DC_KIND_INSTANT:
	case DC_KIND_TRIGGER:
	case DC_KIND_COUNTER:
		happened(s, event, weight, now_ns);
		break;
	case DC_KIND_LOG:
		if (event->info && e->wants_levels >> (event->info->level < 31 ? event->info->level : 31) & 1)
			logged(s, event, weight, now_ns);
		break;
	case DC_KIND_CONTEXT:
		memcpy(lane->trace_id, event->context.trace_id, sizeof(lane->trace_id));
		break;
	default:
		break;
	}
}

/* ---- what the guest shall compare with ---- */

#define SAYS_NOTHING (-1.0)

/* Least span in ns that could tip it. A percentile: only while few more would, else any long one would call. */
static double percentile_threshold(const struct watch *w, int64_t now_ns)
{
	const struct dc_rule_node *n = node_of(w->of, w->node);
	const double count = dc_histogram_count(w->histogram, now_ns), beyond = 100 - n->percentile;
	const bool more = n->compare == DC_RULE_GT || n->compare == DC_RULE_GE;

	if (w->on || !more || count < 1)
		return INFINITY;
	/* one more long span is 1 / count of all; half of what is needed is close */
	return count * beyond < 150 || dc_histogram_percentile(w->histogram, 100 - beyond / 2, now_ns) > n->number ? n->number : INFINITY;
}

static double watch_threshold(const struct watch *w, int64_t now_ns)
{
	const struct dc_rule_node *n = node_of(w->of, w->node);

	if (n->where_count > 0)
		return INFINITY;
	switch (n->op) {
	case DC_RULE_SPAN_LASTS:
		return n->compare == DC_RULE_GT || n->compare == DC_RULE_GE ? n->number : INFINITY;
	case DC_RULE_SPAN_UNUSUAL:
		return dc_unusual_threshold(w->unusual);
	case DC_RULE_SPAN_PERCENTILE:
		return percentile_threshold(w, now_ns);
	case DC_RULE_SPAN_SLOWER:
		return INFINITY;
	default:
		return SAYS_NOTHING;
	}
}

static double either(double a, double b)
{
	return a < 0 ? b : b < 0 ? a : fmin(a, b);
}

/* Of a rule whose watches of @t are those from @first on: `and` needs both, `or` the lesser, the rest is as its part. */
static double rule_threshold(const struct thing *t, uint32_t first, int64_t now_ns)
{
	const struct rule_state *r = t->watches[first].of;
	double v[DC_RULE_NODES_MAX];

	for (unsigned i = 0; i < r->count; i++) {
		const struct dc_rule_node *n = node_of(r, i);

		v[i] = SAYS_NOTHING;
		if (n->op == DC_RULE_AND)
			v[i] = fmax(v[n->left], v[n->right]);
		else if (n->op == DC_RULE_OR)
			v[i] = either(v[n->left], v[n->right]);
		else if (n->op == DC_RULE_FOR || n->op == DC_RULE_WITHIN)
			v[i] = isinf(v[n->left]) ? SAYS_NOTHING : v[n->left];
		else if (first < t->watch_count && t->watches[first].of == r && t->watches[first].node == i)
			v[i] = watch_threshold(&t->watches[first++], now_ns);
		else if (n->op == DC_RULE_SPAN_LASTS || n->op == DC_RULE_SPAN_UNUSUAL || n->op == DC_RULE_SPAN_SLOWER)
			v[i] = INFINITY; /* of other names */
	}
	return v[r->count - 1];
}

uint64_t dc_evaluate_threshold(struct dc_evaluate *e, struct dc_subject *s, uint16_t site, const char *name)
{
	const struct thing *t = s->ns_per_unit > 0 ? dc_thing_of(s, site, name, THING_SPAN) : NULL;
	double least = SAYS_NOTHING, units;

	for (uint32_t i = 0; t && i < t->watch_count; i++)
		if (i == 0 || t->watches[i].of != t->watches[i - 1].of)
			least = either(least, rule_threshold(t, i, e->now_ns));
	if (least < 0 || isinf(least))
		return 0;
	units = ceil(least / s->ns_per_unit);
	return units < 1 ? 1 : units < 0x1p62 ? (uint64_t)units : 0;
}
