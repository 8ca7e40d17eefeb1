/* SPDX-License-Identifier: MIT */
/* What can be seen of a process from outside: how it does, how it ends, how often it is started again. */
#include <string.h>
#include <sys/wait.h>

#include "trigger/rules/evaluate_inside.h"

#define CPU_LEAST_NS (SECOND_NS / 5) /* less tells nothing: the kernel counts in ticks */

/* ---- growth over a window ---- */

/* The change of @value, and of @of, since the newest point that is old enough. Return: false: the window has not passed. */
static bool climb(struct climb *c, int64_t over_ns, double value, double of, int64_t now_ns, double *ret_value, double *ret_of)
{
	const uint32_t count = c->next < CLIMB_POINTS ? c->next : CLIMB_POINTS;
	bool found = false;

	for (uint32_t i = 1; i <= count && !found; i++) {
		const uint32_t at = (c->next - i) % CLIMB_POINTS;

		if (now_ns - c->at_ns[at] < over_ns - over_ns / 10)
			continue;
		*ret_value = value - c->value[at];
		*ret_of = of - c->of[at];
		found = true;
	}
	if (count == 0 || now_ns - c->at_ns[(c->next - 1) % CLIMB_POINTS] >= over_ns / (CLIMB_POINTS - 2)) {
		c->at_ns[c->next % CLIMB_POINTS] = now_ns;
		c->value[c->next % CLIMB_POINTS] = value;
		c->of[c->next++ % CLIMB_POINTS] = of;
	}
	return found;
}

/* ---- vitals ---- */

static uint32_t wanted_by(enum dc_rule_op op)
{
	switch (op) {
	case DC_RULE_STOPPED:
		return DC_VITALS_STATE;
	case DC_RULE_D_STATE:
		return DC_VITALS_WAITING;
	case DC_RULE_CPU:
		return DC_VITALS_CPU;
	case DC_RULE_RSS:
	case DC_RULE_RSS_GROWS:
		return DC_VITALS_MEMORY;
	case DC_RULE_FDS:
		return DC_VITALS_FDS;
	case DC_RULE_THREADS:
		return DC_VITALS_THREADS;
	case DC_RULE_MAJOR_FAULTS:
		return DC_VITALS_FAULTS;
	case DC_RULE_THROTTLED:
	case DC_RULE_OOM:
		return DC_VITALS_CGROUP;
	case DC_RULE_PSI:
		return DC_VITALS_PSI;
	default:
		return 0;
	}
}

uint32_t dc_vitals_wanted(const struct dc_rule_node *n)
{
	return wanted_by(n->op) | (n->of_limit ? DC_VITALS_LIMITS : 0);
}

/* What a condition over a window asks of @v, and of how much it is a part. */
static double counted(const struct dc_rule_node *n, const struct dc_vitals *v, double *ret_of)
{
	*ret_of = (double)v->at_ns / 1e9;
	switch (n->op) {
	case DC_RULE_RSS_GROWS:
		return (double)v->rss_bytes;
	case DC_RULE_MAJOR_FAULTS:
		return (double)v->major_faults;
	case DC_RULE_THROTTLED:
		*ret_of = (double)v->cgroup_periods;
		return 100 * (double)v->cgroup_throttled;
	default: /* DC_RULE_PSI: us of 1e6 a second, in percent */
		return (double)v->psi_us[n->pressure - 1][n->full] / 1e4;
	}
}

/* As it is, or as a part of what it may be, which says nothing where there is no bound. */
static bool level(const struct dc_rule_node *n, struct node_state *st, double value, double limit, double *ret_value)
{
	*ret_value = n->of_limit ? 100 * value / limit : value;
	st->amount = value;
	st->allowed = n->of_limit ? limit : 0;
	return !n->of_limit || limit > 0;
}

/* The value that a condition compares now. Return: false: not known yet. */
static bool vital(struct dc_subject *s, const struct dc_rule_node *n, struct node_state *st, const struct dc_vitals *v, double *ret_value)
{
	double value, of;

	switch (n->op) {
	case DC_RULE_STOPPED:
		*ret_value = v->state == 'T' || v->state == 't';
		return true;
	case DC_RULE_D_STATE:
		*ret_value = v->d_tid;
		st->tid = v->d_tid;
		return true;
	case DC_RULE_CPU:
		if (!s->has_vitals || !(s->vitals.known & DC_VITALS_CPU) || v->at_ns - s->vitals.at_ns < CPU_LEAST_NS)
			return false;
		*ret_value = 100 * ((double)v->cpu_ns - (double)s->vitals.cpu_ns) / (double)(v->at_ns - s->vitals.at_ns);
		return true;
	case DC_RULE_RSS:
		return level(n, st, (double)v->rss_bytes, (double)v->rss_limit_bytes, ret_value);
	case DC_RULE_FDS:
		return level(n, st, v->fds, v->fds_limit, ret_value);
	case DC_RULE_THREADS:
		return level(n, st, v->threads, v->threads_limit, ret_value);
	default:
		value = counted(n, v, &of);
		if (!st->climb || !climb(st->climb, n->over_ns, value, of, v->at_ns, &value, &of) || !(of > 0))
			return false;
		*ret_value = value / of;
		return true;
	}
}

static bool vital_holds(const struct dc_rule_node *n, double value)
{
	return n->op == DC_RULE_STOPPED || n->op == DC_RULE_D_STATE ? value > 0 : dc_rule_compares(n->compare, value, n->number);
}

static bool went_out_of_memory(const struct dc_subject *s, const struct dc_vitals *v)
{
	return s->has_vitals && (s->vitals.known & DC_VITALS_CGROUP) && v->cgroup_oom > s->vitals.cgroup_oom;
}

static void rule_vitals(struct dc_subject *s, struct rule_state *r, const struct dc_vitals *v, int64_t now_ns)
{
	uint32_t moments = 0;
	bool any = false;

	for (unsigned i = 0; i < r->count; i++) {
		const struct dc_rule_node *n = node_of(r, i);
		const uint32_t wanted = dc_vitals_wanted(n);
		struct node_state *st = &r->nodes[i];
		double value = 0;

		if (!wanted)
			continue;
		any = true;
		if (n->op == DC_RULE_OOM) {
			if ((v->known & wanted) != wanted || !went_out_of_memory(s, v))
				continue;
			dc_node_moment(st, (double)(v->cgroup_oom - s->vitals.cgroup_oom), 0, NULL, 0, 0);
			moments |= 1u << i;
		} else if ((v->known & wanted) != wanted) {
			dc_node_set(st, false, 0, 0, now_ns);
		} else if (vital(s, n, st, v, &value)) {
			dc_node_set(st, vital_holds(n, value), value, n->number, now_ns);
		}
	}
	if (any)
		dc_decide(r, moments, 0, now_ns);
}

void dc_evaluate_vitals(struct dc_evaluate *e, struct dc_subject *s, const struct dc_vitals *v, int64_t now_ns)
{
	hear(e, s, now_ns);
	for (uint32_t i = 0; i < e->rules.count; i++)
		if (s->rules[i])
			rule_vitals(s, s->rules[i], v, now_ns);
	s->vitals = *v;
	s->has_vitals = true;
}

/* ---- ends and starts ---- */

/* All conditions of one kind become true at this moment, of the rules that have one. */
static void moment_of_all(struct dc_subject *s, enum dc_rule_op op, bool (*holds)(const struct dc_rule_node *n, double value), double value,
			  int64_t now_ns)
{
	for (uint32_t i = 0; i < s->evaluate->rules.count; i++) {
		struct rule_state *r = s->rules[i];
		uint32_t moments = 0;

		for (unsigned k = 0; r && k < r->count; k++) {
			const struct dc_rule_node *n = node_of(r, k);

			if (n->op != op || !holds(n, value))
				continue;
			dc_node_moment(&r->nodes[k], value, n->number, NULL, 0, 0);
			moments |= 1u << k;
		}
		if (moments)
			dc_decide(r, moments, 0, now_ns);
	}
}

static bool always_holds(const struct dc_rule_node *n, double value)
{
	(void)n;
	(void)value;
	return true;
}

static bool number_holds(const struct dc_rule_node *n, double value)
{
	return dc_rule_compares(n->compare, value, n->number);
}

/* Of processes with the name of @s; room is made by forgetting the one that was started again longest ago. */
static struct restarts *restarts_of(struct dc_evaluate *e, const char *name)
{
	struct restarts *oldest = NULL;
	int64_t oldest_ns = INT64_MAX, last_ns;

	if (!e->restarts)
		return NULL;
	for (uint32_t i = 0; i < e->restart_count; i++) {
		struct restarts *r = &e->restarts[i];

		if (strcmp(r->name, name) == 0)
			return r;
		last_ns = r->next ? r->at_ns[(r->next - 1) % RESTARTS_MAX] : NEVER;
		if (last_ns < oldest_ns) {
			oldest = r;
			oldest_ns = last_ns;
		}
	}
	if (e->restart_count < NAMES_MAX)
		oldest = &e->restarts[e->restart_count++];
	*oldest = (struct restarts){0};
	strcpy(oldest->name, name);
	return oldest;
}

static double restarts_within(const struct restarts *r, int64_t over_ns, int64_t now_ns)
{
	const uint32_t count = r->next < RESTARTS_MAX ? r->next : RESTARTS_MAX;
	double sum = 0;

	for (uint32_t i = 1; i <= count && now_ns - r->at_ns[(r->next - i) % RESTARTS_MAX] <= over_ns; i++)
		sum++;
	return sum;
}

/* A start counts only where one of that name ended before: a pool that starts its eight workers restarts nothing. */
void dc_restarts_started(struct dc_evaluate *e, struct dc_subject *s, int64_t now_ns)
{
	struct restarts *of = restarts_of(e, s->name);

	if (!of || of->ended == 0)
		return;
	of->ended--;
	of->at_ns[of->next++ % RESTARTS_MAX] = now_ns;
	for (uint32_t i = 0; i < e->rules.count; i++) {
		struct rule_state *r = s->rules[i];

		for (unsigned k = 0; r && k < r->count; k++) {
			const struct dc_rule_node *n = node_of(r, k);
			const double count = restarts_within(of, n->over_ns, now_ns);

			if (n->op != DC_RULE_RESTART || !dc_rule_compares(n->compare, count, n->number))
				continue;
			dc_node_moment(&r->nodes[k], count, n->number, NULL, 0, 0);
			dc_decide(r, 1u << k, 0, now_ns);
		}
	}
}

void dc_evaluate_ended(struct dc_evaluate *e, struct dc_subject *s, int wait_status, int64_t now_ns)
{
	struct restarts *of = restarts_of(e, s->name);

	hear(e, s, now_ns);
	if (of && of->ended < ENDS_MAX)
		of->ended++;
	if (WIFSIGNALED(wait_status))
		moment_of_all(s, DC_RULE_EXIT_SIGNAL, always_holds, WTERMSIG(wait_status), now_ns);
	else if (WIFEXITED(wait_status))
		moment_of_all(s, DC_RULE_EXIT_CODE, number_holds, WEXITSTATUS(wait_status), now_ns);
}

void dc_evaluate_exec(struct dc_evaluate *e, struct dc_subject *s, int64_t now_ns)
{
	hear(e, s, now_ns);
	moment_of_all(s, DC_RULE_EXEC, always_holds, 1, now_ns);
}
