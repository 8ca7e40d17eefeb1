/* SPDX-License-Identifier: MIT */
/* Names that processes record under, and what the rules count of each. */
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "ipc/event.h"
#include "trigger/rules/evaluate_inside.h"

/* ---- who watches a name ---- */

static bool wants_class(enum dc_rule_op op, enum thing_class class)
{
	switch (op) {
	case DC_RULE_SPAN_LASTS:
	case DC_RULE_SPAN_UNUSUAL:
	case DC_RULE_SPAN_SLOWER:
	case DC_RULE_SPAN_PERCENTILE:
	case DC_RULE_SPAN_OPEN:
	case DC_RULE_SPAN_OPEN_UNUSUAL:
	case DC_RULE_SPAN_RATE:
		return class == THING_SPAN;
	case DC_RULE_EVENT:
	case DC_RULE_EVENT_RATE:
		return class != THING_SPAN;
	case DC_RULE_COUNTER:
		return class == THING_COUNTER;
	default:
		return false;
	}
}

static bool has_window(const struct watch *w)
{
	return w->histogram || w->rate || w->surge;
}

static void watch_fini(struct dc_evaluate *e, struct watch *w)
{
	w->of->subject->windows -= has_window(w);
	if (w->on && w->of->nodes[w->node].watches_on > 0)
		w->of->nodes[w->node].watches_on--;
	if (w->histogram)
		e->histogram_count--;
	dc_histogram_free(w->histogram);
	free(w->rate);
	free(w->surge);
	free(w->unusual);
	e->kinds_count -= w->kinds != NULL;
	free(w->kinds);
}

struct dc_surge *dc_surge_new(const struct dc_rule_node *n, int64_t now_ns)
{
	struct dc_surge *s = malloc(sizeof(*s));

	if (s)
		dc_surge_init(s, n->op == DC_RULE_COUNTER ? DC_SURGE_LEVEL : DC_SURGE_RATE, now_ns);
	return s;
}

static bool watch_init(struct watch *w, struct rule_state *of, unsigned node)
{
	struct dc_evaluate *e = of->subject->evaluate;
	const struct dc_rule_node *n = node_of(of, node);

	*w = (struct watch){.of = of, .node = (uint8_t)node};
	if (n->unusual) {
		w->surge = dc_surge_new(n, 0);
		return w->surge;
	}
	switch (n->op) {
	case DC_RULE_SPAN_UNUSUAL:
		w->unusual = malloc(sizeof(*w->unusual));
		if (w->unusual)
			dc_unusual_init(w->unusual, n->number);
		return w->unusual;
	case DC_RULE_SPAN_SLOWER:
		if (e->kinds_count < KINDS_ALL_MAX)
			w->kinds = calloc(1, sizeof(*w->kinds));
		e->kinds_count += w->kinds != NULL;
		return w->kinds;
	case DC_RULE_SPAN_PERCENTILE:
		if (e->histogram_count < HISTOGRAMS_MAX)
			w->histogram = dc_histogram_new(n->over_ns);
		e->histogram_count += w->histogram != NULL;
		return w->histogram;
	case DC_RULE_SPAN_RATE:
	case DC_RULE_EVENT_RATE:
		w->rate = malloc(sizeof(*w->rate));
		if (w->rate)
			dc_rate_init(w->rate, n->over_ns);
		return w->rate;
	default:
		return true;
	}
}

static void watch_rule(struct thing *t, struct rule_state *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		const struct dc_rule_node *n = node_of(r, i);
		struct watch *more;

		if (!wants_class(n->op, t->class) || fnmatch(n->name, t->name, FNM_EXTMATCH) != 0)
			continue;
		more = realloc(t->watches, (t->watch_count + 1) * sizeof(*more));
		if (!more)
			return;
		t->watches = more;
		if (!watch_init(&more[t->watch_count], r, i))
			continue;
		r->subject->windows += has_window(&more[t->watch_count]);
		t->watch_count++;
	}
}

static bool is_watched_by(const struct thing *t, const struct rule_state *r)
{
	for (uint32_t i = 0; i < t->watch_count; i++)
		if (t->watches[i].of == r)
			return true;
	return false;
}

static void note_kinds(struct thing *t)
{
	t->kinds = NULL;
	for (uint32_t i = 0; i < t->watch_count && !t->kinds; i++)
		t->kinds = t->watches[i].kinds;
}

static void watch_all(struct dc_subject *s, struct thing *t)
{
	for (uint32_t i = 0; i < s->evaluate->rules.count; i++)
		if (s->rules[i] && !is_watched_by(t, s->rules[i]))
			watch_rule(t, s->rules[i]);
	note_kinds(t);
}

/* ---- names ---- */

/* FNV-1a over what is kept of the name. */
static uint32_t hash(const char *name, size_t length, enum thing_class class)
{
	uint32_t h = 2166136261u ^ (uint32_t)class;

	for (size_t i = 0; i < length; i++)
		h = (h ^ (uint8_t)name[i]) * 16777619u;
	return h ^ h >> 16;
}

static struct thing *thing_named(struct dc_subject *s, const char *name, enum thing_class class)
{
	struct dc_evaluate *e = s->evaluate;
	const size_t length = strnlen(name, sizeof((struct thing){0}.name) - 1);
	struct thing **bucket = &s->buckets[hash(name, length, class) % THING_BUCKETS], *t;

	for (t = *bucket; t; t = t->next)
		if (t->class == class && memcmp(t->name, name, length) == 0 && t->name[length] == '\0')
			return t;
	if (s->thing_count == THINGS_MAX || e->thing_count == THINGS_ALL_MAX || length == 0)
		return NULL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	memcpy(t->name, name, length);
	t->class = class;
	t->next = *bucket;
	*bucket = t;
	s->thing_count++;
	e->thing_count++;
	watch_all(s, t);
	return t;
}

static bool sites_make_room(struct dc_subject *s, uint16_t site)
{
	uint32_t room = s->site_room ? s->site_room : 32;
	struct thing **more;

	while (room <= site)
		room *= 2;
	if (room == s->site_room)
		return true;
	more = realloc(s->sites, room * sizeof(struct thing *));
	if (!more)
		return false;
	memset(more + s->site_room, 0, (room - s->site_room) * sizeof(struct thing *));
	s->sites = more;
	s->site_room = room;
	return true;
}

struct thing *dc_thing_of(struct dc_subject *s, uint16_t site, const char *name, enum thing_class class)
{
	struct thing *t;

	if (site < s->site_room && s->sites[site] && s->sites[site]->class == class)
		return s->sites[site];
	if (!name)
		return NULL;
	t = thing_named(s, name, class);
	if (t && site < DC_SITE_MAX && sites_make_room(s, site))
		s->sites[site] = t;
	return t;
}

static void thing_free(struct dc_evaluate *e, struct thing *t)
{
	for (uint32_t i = 0; i < t->watch_count; i++)
		watch_fini(e, &t->watches[i]);
	free(t->watches);
	free(t);
}

void dc_things_free(struct dc_subject *s)
{
	for (unsigned b = 0; b < THING_BUCKETS; b++) {
		for (struct thing *t = s->buckets[b], *next; t; t = next) {
			next = t->next;
			thing_free(s->evaluate, t);
		}
		s->buckets[b] = NULL;
	}
	s->evaluate->thing_count -= s->thing_count;
	s->thing_count = 0;
	free(s->sites);
	s->sites = NULL;
	s->site_room = 0;
}

/* Rules have come and gone: watches of those that stay keep what they know. */
void dc_things_drop(struct dc_subject *s, const struct rule_state *gone)
{
	for (unsigned b = 0; b < THING_BUCKETS; b++) {
		for (struct thing *t = s->buckets[b]; t; t = t->next) {
			uint32_t kept = 0;

			for (uint32_t i = 0; i < t->watch_count; i++) {
				if (t->watches[i].of == gone)
					watch_fini(s->evaluate, &t->watches[i]);
				else
					t->watches[kept++] = t->watches[i];
			}
			t->watch_count = kept;
			note_kinds(t);
		}
	}
}

void dc_things_rewatch(struct dc_subject *s)
{
	for (unsigned b = 0; b < THING_BUCKETS; b++)
		for (struct thing *t = s->buckets[b]; t; t = t->next)
			watch_all(s, t);
}

/* ---- conditions that last, of a name ---- */

/* The condition holds while it does for any name. Return: whether that turned. */
bool dc_watch_set(struct watch *w, const struct thing *t, bool on, double value, double threshold, int64_t now_ns)
{
	struct node_state *n = &w->of->nodes[w->node];

	if (on != w->on)
		n->watches_on += on ? 1u : UINT32_MAX;
	w->on = on;
	if (on) {
		n->thing = t;
		n->tid = 0;
		n->tick = 0;
		return dc_node_set(n, true, value, threshold, now_ns);
	}
	return n->watches_on == 0 && dc_node_set(n, false, 0, 0, now_ns);
}

/*
 * A percentile is told by what lies beyond it, and one sample there tells nothing: the largest of ten is no 99th percentile.
 * So two have to be beyond the limit, of a hundred or of five.
 */
bool dc_watch_percentile(struct watch *w, const struct thing *t, int64_t now_ns)
{
	const struct dc_rule_node *n = node_of(w->of, w->node);
	const double count = dc_histogram_count(w->histogram, now_ns);
	double value = dc_histogram_percentile(w->histogram, n->percentile, now_ns);
	double second = count >= 2 ? dc_histogram_percentile(w->histogram, 100 - 150 / count, now_ns) : NAN;
	double least = n->percentile > 50 ? fmin(value, second) : value;

	return dc_watch_set(w, t, count >= 2 && dc_rule_compares(n->compare, least, n->number), least, n->number, now_ns);
}

/* More than so many are so many as soon as they are there; fewer only when all of the window has passed. */
static bool watch_rate(struct watch *w, const struct thing *t, int64_t now_ns)
{
	const struct dc_rule_node *n = node_of(w->of, w->node);
	double per_s = dc_rate_count(w->rate, now_ns) * (double)SECOND_NS / (double)n->over_ns;
	bool whole = w->rate->first_ns != NEVER && now_ns - w->rate->first_ns >= n->over_ns;
	bool more = n->compare == DC_RULE_GT || n->compare == DC_RULE_GE;

	return dc_watch_set(w, t, (more || whole) && dc_rule_compares(n->compare, per_s, n->number), per_s, n->number, now_ns);
}

static void watch_surge(struct watch *w, const struct thing *t, int64_t now_ns)
{
	const bool on = dc_surge_look(w->surge, now_ns);

	dc_watch_set(w, t, on, w->surge->value, w->surge->limit, now_ns);
}

void dc_things_look(struct dc_subject *s, int64_t now_ns)
{
	for (unsigned b = 0; b < THING_BUCKETS; b++) {
		for (struct thing *t = s->buckets[b]; t; t = t->next) {
			for (uint32_t i = 0; i < t->watch_count; i++) {
				if (t->watches[i].histogram)
					dc_watch_percentile(&t->watches[i], t, now_ns);
				else if (t->watches[i].rate)
					watch_rate(&t->watches[i], t, now_ns);
				else if (t->watches[i].surge)
					watch_surge(&t->watches[i], t, now_ns);
			}
		}
	}
}

/* ---- arguments ---- */

static bool text_holds(const struct dc_rule_where *w, const struct dc_event *event, unsigned i)
{
	char text[256];

	if (event->info->types[i] == DC_TYPE_SECRET)
		return false;
	dc_value_format(event, i, text, sizeof(text));
	return (fnmatch(w->text, text, FNM_EXTMATCH) == 0) == (w->compare == DC_RULE_EQ);
}

double dc_number_of(const struct dc_event *event, unsigned i)
{
	switch (event->info->types[i]) {
	case DC_TYPE_U64:
	case DC_TYPE_BOOL:
	case DC_TYPE_PTR:
		return (double)event->args[i].u;
	case DC_TYPE_I64:
		return (double)event->args[i].i;
	case DC_TYPE_F64:
		return event->args[i].f;
	default:
		return NAN;
	}
}

static bool one_where_holds(const struct dc_rule_where *w, const struct dc_event *event)
{
	for (unsigned i = 0; i < event->arg_count; i++) {
		if (!event->info->keys[i] || strcmp(event->info->keys[i], w->key) != 0)
			continue;
		if (event->args_dropped >> i & 1)
			return false;
		return w->is_text ? text_holds(w, event, i) : dc_rule_compares(w->compare, dc_number_of(event, i), w->number);
	}
	return false;
}

bool dc_where_holds(const struct dc_rule_expression *e, const struct dc_rule_node *n, const struct dc_event *event)
{
	for (unsigned i = 0; i < n->where_count; i++)
		if (!event->info || !one_where_holds(&e->where[n->where + i], event))
			return false;
	return true;
}
