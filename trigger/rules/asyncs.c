/* SPDX-License-Identifier: MIT */
/* Async spans, as rules see them: how long they took, and which of them do not end. Told at a look, not by the guest. */
#include <fnmatch.h>

#include "ipc/event.h"
#include "trigger/rules/evaluate_inside.h"

static bool make_table(struct dc_subject *s)
{
	if (!s->async && s->evaluate->async_tables < ASYNC_TABLES_MAX) {
		s->async = dc_async_new();
		s->evaluate->async_tables += s->async != NULL;
	}
	return s->async;
}

void dc_asyncs_free(struct dc_subject *s)
{
	s->evaluate->async_tables -= s->async != NULL;
	dc_async_free(s->async);
	s->async = NULL;
}

static void lasted(struct dc_subject *s, const struct dc_async_span *a, struct thing *t, uint16_t site, double weight, int64_t now_ns)
{
	struct span span = {.thing = t,
			    .where = a->where,
			    .kind = a->kind,
			    .ns = (double)(a->end_units - a->start_units) * s->ns_per_unit,
			    .weight = weight,
			    .site = site,
			    .tid = a->end_tid};

	dc_span_count(&span);
	s->moment_units = a->end_units; /* the event at hand may be its begin */
	dc_span_tell(&span, now_ns);
	s->moment_units = 0;
}

void dc_asyncs_event(struct dc_subject *s, const struct dc_event *event, double weight, int64_t now_ns)
{
	struct thing *t = event->info ? dc_thing_of(s, event->site, event->info->name, THING_SPAN) : NULL;
	struct dc_async_span a;
	uint64_t id;
	bool known;

	if (!t || !dc_async_id(event, &id) || !make_table(s))
		return;
	if (event->kind == DC_KIND_ASYNC_BEGIN)
		known = dc_async_begin(s->async,
				       &(struct dc_async_span){.of = t,
							       .id = id,
							       .start_units = event->units,
							       .where = dc_where_bits(t, event),
							       .kind = dc_span_kind(t, event, 1, now_ns)},
				       &a);
	else
		known = dc_async_end(s->async, t, id, event->units, event->tid, &a);
	if (known)
		lasted(s, &a, t, event->site, weight, now_ns);
}

uint64_t dc_evaluate_given_up(const struct dc_subject *s)
{
	return s->async ? dc_async_lost(s->async) : 0;
}

void dc_evaluate_lost(struct dc_subject *s)
{
	s->lost_ns = s->evaluate->now_ns;
	if (s->async)
		dc_async_forget(s->async);
}

/* ---- those that stay open ---- */

/* It is of no thread: who began it has gone on, who shall end it is not known. */
static void open_told(struct rule_state *r, unsigned node, const struct thing *t, double ns, double limit, int64_t now_ns)
{
	struct node_state *n = &r->nodes[node];

	n->thing = t;
	n->site = 0;
	n->tid = 0;
	n->tick = 0;
	dc_node_set(n, true, ns, limit, now_ns);
	dc_decide(r, 0, 1u << node, now_ns);
}

static void look_at(struct dc_subject *s, struct dc_async_span *a, int64_t now_ns)
{
	const struct thing *t = a->of;
	const double ns = (double)(s->now_units - a->start_units) * s->ns_per_unit;
	const bool still = s->moving == 0; /* nobody records, ends neither: it is stopped, or hangs as a whole, and others say so */
	double limit;

	for (uint32_t i = 0; i < t->watch_count && i < 32; i++) {
		const struct watch *w = &t->watches[i];
		const struct dc_rule_node *n = node_of(w->of, w->node);

		if ((n->where_count > 0 && !(a->where >> i & 1)) || !dc_open_holds(n, t, ns, &limit) || (still && n->op != DC_RULE_SPAN_OPEN))
			continue;
		w->of->nodes[w->node].look = s->evaluate->look;
		if (a->told >> i & 1)
			continue;
		a->told |= 1u << i;
		open_told(w->of, w->node, t, ns, limit, now_ns);
	}
}

void dc_asyncs_look(struct dc_subject *s, int64_t now_ns)
{
	if (!s->async || s->look != s->evaluate->look)
		return; /* nobody looked at it */
	for (struct dc_async_span *a = dc_async_each(s->async, NULL); a; a = dc_async_each(s->async, a))
		if (a->start_units < s->now_units)
			look_at(s, a, now_ns);
	dc_async_look(s->async);
}

/* ---- those that wait ---- */

static uint32_t waiting_spans(struct dc_subject *s, uint64_t now_units, struct dc_evaluate_waiting *waiting, uint32_t max)
{
	uint32_t count = 0, i;

	for (const struct dc_async_span *a = s->async ? dc_async_each(s->async, NULL) : NULL; a; a = dc_async_each(s->async, a)) {
		const struct thing *t = a->of;
		const double ns = a->start_units < now_units ? (double)(now_units - a->start_units) * s->ns_per_unit : 0;

		for (i = 0; i < count && waiting[i].name != t->name; i++)
			;
		if (i == max)
			continue;
		if (i == count)
			waiting[count++] = (struct dc_evaluate_waiting){.name = t->name};
		waiting[i].count++;
		if (ns > (double)waiting[i].oldest_ns)
			waiting[i].oldest_ns = (uint64_t)ns;
	}
	return count;
}

uint32_t dc_evaluate_waiting(struct dc_subject *s, uint64_t now_units, struct dc_evaluate_waiting *ret_waiting, uint32_t max)
{
	uint32_t count = waiting_spans(s, now_units, ret_waiting, max);

	for (unsigned b = 0; b < THING_BUCKETS; b++)
		for (const struct thing *t = s->buckets[b]; t && count < max; t = t->next)
			if (t->class == THING_COUNTER && t->last >= 1 && t->last < 1e18 && fnmatch("*queue.depth", t->name, 0) == 0)
				ret_waiting[count++] = (struct dc_evaluate_waiting){.name = t->name, .count = (uint64_t)t->last};
	return count;
}
