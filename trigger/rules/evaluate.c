/* SPDX-License-Identifier: MIT */
/* Rules and processes: what is kept of each pair of them, and how it lives through a new configuration. */
#include "trigger/rules/evaluate.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include "trigger/rules/evaluate_inside.h"

#define TICK_NS (SECOND_NS - SECOND_NS / 8) /* looks are not that exact */

bool dc_is_of_lane(enum dc_rule_op op)
{
	return op == DC_RULE_SPAN_OPEN || op == DC_RULE_SPAN_OPEN_UNUSUAL || op == DC_RULE_THREAD_SILENT;
}

/* ---- a rule of a process ---- */

static void rule_free(struct rule_state *r)
{
	for (uint32_t i = 0; r && i < r->count; i++) {
		free(r->nodes[i].rate);
		free(r->nodes[i].surge);
		free(r->nodes[i].climb);
	}
	free(r);
}

static bool node_init(struct node_state *st, const struct dc_rule_node *n, int64_t now_ns)
{
	st->since_ns = NEVER;
	if (n->op == DC_RULE_LOG_RATE && n->unusual) {
		st->surge = dc_surge_new(n, now_ns);
		return st->surge;
	}
	if (n->op == DC_RULE_LOG_RATE) {
		st->rate = malloc(sizeof(*st->rate));
		if (st->rate)
			dc_rate_init(st->rate, n->over_ns);
		return st->rate;
	}
	if (n->over_ns > 0 && dc_vitals_wanted(n)) {
		st->climb = calloc(1, sizeof(*st->climb));
		return st->climb;
	}
	return true;
}

/* FNV-1a. */
static uint32_t id_of(const char *text, uint32_t id)
{
	for (; *text; text++)
		id = (id ^ (uint8_t)*text) * 16777619u;
	return id;
}

static struct rule_state *rule_new(struct dc_subject *s, const struct dc_rule *rule)
{
	const struct dc_rule_expression *when = &rule->when;
	struct rule_state *r = calloc(1, sizeof(*r) + when->count * sizeof(r->nodes[0]));

	if (!r)
		return NULL;
	r->rule = rule;
	r->subject = s;
	r->count = when->count;
	r->id = id_of(when->text, id_of(rule->name, 2166136261u));
	for (uint32_t i = 0; i < r->count; i++) {
		if (node_init(&r->nodes[i], &when->nodes[i], s->evaluate->now_ns))
			continue;
		rule_free(r);
		return NULL;
	}
	return r;
}

/* Taken out of @old, if the same rule is there. */
static struct rule_state *rule_take(const struct dc_rule *rule, struct rule_state **old, uint32_t old_count)
{
	struct rule_state *found;

	for (uint32_t i = 0; i < old_count; i++) {
		if (!old[i] || strcmp(old[i]->rule->name, rule->name) != 0 || strcmp(old[i]->rule->when.text, rule->when.text) != 0)
			continue;
		found = old[i];
		old[i] = NULL;
		found->rule = rule;
		return found;
	}
	return NULL;
}

/* Those of @rules that are about @s: as they were in @old, or new. One for which there is no memory is left out. */
static void rules_fill(struct dc_subject *s, const struct dc_rules *rules, struct rule_state **old, uint32_t old_count,
		       struct rule_state **all)
{
	for (uint32_t i = 0; i < rules->count; i++) {
		const struct dc_rule *rule = &rules->rules[i];

		if (*rule->processes && fnmatch(rule->processes, s->name, FNM_EXTMATCH) != 0)
			continue;
		all[i] = rule_take(rule, old, old_count);
		if (!all[i])
			all[i] = rule_new(s, rule);
	}
}

/* ---- all rules ---- */

static bool has_op(const struct dc_rules *rules, enum dc_rule_op op)
{
	for (uint32_t i = 0; i < rules->count; i++)
		for (uint32_t k = 0; k < rules->rules[i].when.count; k++)
			if (rules->rules[i].when.nodes[k].op == op)
				return true;
	return false;
}

/* Most messages are of a level that no rule is about, and are told of to none. */
static uint32_t levels_wanted(const struct dc_rule_node *n)
{
	uint32_t levels = 0;

	if (n->op != DC_RULE_LOG && n->op != DC_RULE_LOG_RATE)
		return 0;
	for (unsigned level = 0; level < 32; level++)
		levels |= (uint32_t)dc_rule_compares(n->level_compare, level, n->level) << level;
	return levels;
}

static void note_wants(struct dc_evaluate *e)
{
	e->wants = e->wants_levels = 0;
	e->in_no_hurry = true;
	for (uint32_t i = 0; i < e->rules.count; i++) {
		e->in_no_hurry &= e->rules.rules[i].quiet;
		for (uint32_t k = 0; k < e->rules.rules[i].when.count; k++) {
			e->wants |= dc_vitals_wanted(&e->rules.rules[i].when.nodes[k]);
			e->wants_levels |= levels_wanted(&e->rules.rules[i].when.nodes[k]);
		}
	}
}

static int rules_copy(const struct dc_rules *rules, struct dc_rules *ret_copy)
{
	struct dc_rules copy = {.count = rules ? rules->count : 0};

	copy.rules = calloc(copy.count + 1, sizeof(*copy.rules));
	if (!copy.rules)
		return -ENOMEM;
	if (copy.count)
		memcpy(copy.rules, rules->rules, copy.count * sizeof(*copy.rules));
	*ret_copy = copy;
	return 0;
}

/* The table of restarts is of names, not of rules: it is made when one asks, and stays. */
static int restarts_prepare(struct dc_evaluate *e, const struct dc_rules *rules)
{
	if (e->restarts || !has_op(rules, DC_RULE_RESTART))
		return 0;
	e->restarts = calloc(NAMES_MAX, sizeof(*e->restarts));
	return e->restarts ? 0 : -ENOMEM;
}

int dc_evaluate_new(const struct dc_rules *rules, const struct dc_evaluate_handler *handler, void *arg, struct dc_evaluate **ret_evaluate)
{
	struct dc_evaluate *e = calloc(1, sizeof(*e));
	int r = e ? rules_copy(rules, &e->rules) : -ENOMEM;

	if (r == 0)
		r = restarts_prepare(e, &e->rules);
	if (r < 0) {
		dc_evaluate_free(e);
		return r;
	}
	e->handler = *handler;
	e->arg = arg;
	e->look = 1;
	e->random = UINT64_C(0x9e3779b97f4a7c15);
	note_wants(e);
	*ret_evaluate = e;
	return 0;
}

void dc_evaluate_free(struct dc_evaluate *e)
{
	if (!e)
		return;
	while (e->subjects)
		dc_evaluate_forget(e, e->subjects);
	dc_rules_cleanup(&e->rules);
	free(e->restarts);
	free(e);
}

uint32_t dc_evaluate_wants(const struct dc_evaluate *e)
{
	return e->wants;
}

/* ---- another configuration ---- */

static void subject_reload(struct dc_subject *s, const struct dc_rules *rules, uint32_t old_count)
{
	struct rule_state **old = s->rules;

	rules_fill(s, rules, old, old_count, s->next_rules);
	for (uint32_t i = 0; i < old_count; i++) {
		if (old[i]) {
			dc_tell_untold(old[i]);
			dc_things_drop(s, old[i]);
		}
		rule_free(old[i]);
	}
	free(old);
	s->rules = TAKE(s->next_rules);
}

/* Room in every process first: from then on nothing can fail. */
static int subjects_prepare(struct dc_evaluate *e, uint32_t count)
{
	bool all = true;

	for (struct dc_subject *s = e->subjects; s; s = s->next) {
		s->next_rules = calloc(count + 1, sizeof(struct rule_state *));
		all = all && s->next_rules;
	}
	for (struct dc_subject *s = e->subjects; s && !all; s = s->next) {
		free(s->next_rules);
		s->next_rules = NULL;
	}
	return all ? 0 : -ENOMEM;
}

int dc_evaluate_reload(struct dc_evaluate *e, const struct dc_rules *rules)
{
	struct dc_rules old = e->rules, copy;
	int r = rules_copy(rules, &copy);

	if (r < 0)
		return r;
	r = restarts_prepare(e, &copy);
	if (r == 0)
		r = subjects_prepare(e, copy.count);
	if (r < 0) {
		dc_rules_cleanup(&copy);
		return r;
	}
	for (struct dc_subject *s = e->subjects; s; s = s->next)
		subject_reload(s, &copy, old.count);
	e->rules = copy;
	for (struct dc_subject *s = e->subjects; s; s = s->next)
		dc_things_rewatch(s);
	dc_rules_cleanup(&old);
	note_wants(e);
	return 0;
}

/* ---- processes ---- */

struct dc_subject *dc_evaluate_process(struct dc_evaluate *e, const char *name, double units_per_s, void *process, int64_t now_ns)
{
	struct dc_subject *s;

	e->now_ns = now_ns;
	if (e->subject_count == DC_EVALUATE_PROCESSES_MAX)
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->evaluate = e;
	s->heard = true;
	s->process = process;
	s->ns_per_unit = units_per_s > 0 ? (double)SECOND_NS / units_per_s : 0;
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->rules = calloc(e->rules.count + 1, sizeof(struct rule_state *));
	if (!s->rules) {
		free(s);
		return NULL;
	}
	rules_fill(s, &e->rules, NULL, 0, s->rules);
	s->next = e->subjects;
	if (s->next)
		s->next->previous = s;
	e->subjects = s;
	e->subject_count++;
	dc_restarts_started(e, s, now_ns);
	return s;
}

void dc_evaluate_forget(struct dc_evaluate *e, struct dc_subject *s)
{
	if (!s)
		return;
	if (s->next)
		s->next->previous = s->previous;
	if (s->previous)
		s->previous->next = s->next;
	else
		e->subjects = s->next;
	e->subject_count--;
	for (uint32_t i = 0; i < e->rules.count; i++)
		if (s->rules[i])
			dc_tell_untold(s->rules[i]);
	dc_asyncs_free(s);
	dc_things_free(s);
	dc_lanes_free(s);
	for (uint32_t i = 0; i < e->rules.count; i++)
		rule_free(s->rules[i]);
	free(s->rules);
	free(s);
}

/* ---- the end of a look ---- */

static void look_at_log(const struct dc_rule_node *n, struct node_state *st, int64_t now_ns)
{
	const bool more = n->compare == DC_RULE_GT || n->compare == DC_RULE_GE;
	struct dc_rate *rate = st->rate;
	double per_s;

	if (st->surge) {
		const bool on = dc_surge_look(st->surge, now_ns);

		dc_node_set(st, on, st->surge->value, st->surge->limit, now_ns);
	}
	if (!rate || (!more && (rate->first_ns == NEVER || now_ns - rate->first_ns < n->over_ns)))
		return;
	per_s = dc_rate_count(rate, now_ns) * (double)SECOND_NS / (double)n->over_ns;
	dc_node_set(st, dc_rule_compares(n->compare, per_s, n->number), per_s, n->number, now_ns);
}

static void subject_tick(struct dc_subject *s, int64_t now_ns)
{
	if (s->windows)
		dc_things_look(s, now_ns);
	dc_asyncs_look(s, now_ns);
	dc_lanes_look(s, now_ns);
	for (uint32_t i = 0; i < s->evaluate->rules.count; i++) {
		struct rule_state *r = s->rules[i];

		if (!r)
			continue;
		for (uint32_t k = 0; k < r->count; k++)
			look_at_log(node_of(r, k), &r->nodes[k], now_ns);
		dc_decide(r, 0, 0, now_ns);
		dc_tell_untold(r);
		r->told = false;
	}
	s->heard = false;
	s->ticked_ns = now_ns;
}

bool dc_evaluate_by_seconds(const struct dc_subject *s)
{
	return s->windows || s->logs || s->async;
}

/* Of whom nothing was heard only time can make a difference, and rules that ship count it in seconds. */
static bool tick_due(const struct dc_subject *s, int64_t now_ns)
{
	return s->heard || !s->evaluate->in_no_hurry || now_ns - s->ticked_ns >= TICK_NS;
}

void dc_evaluate_tick(struct dc_evaluate *e, int64_t now_ns)
{
	e->now_ns = now_ns;
	for (struct dc_subject *s = e->subjects; s; s = s->next)
		if (tick_due(s, now_ns))
			subject_tick(s, now_ns);
	e->look++;
}
