/* SPDX-License-Identifier: MIT */
/*
 * What follows when a rule comes true, if its budget allows: a capture of the process, its group or all; a command; more
 * stacks for a while. What is
 * not allowed is counted by rule, and said in its next capture and in `dashcam status`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "persist/unit.h"
#include "trigger/proc.h"
#include "trigger/ruling_inside.h"

/* --- what a capture is told --- */

static const struct lane_seen *lane_of(const struct ruled *r, uint32_t tid)
{
	for (uint32_t i = 0; tid && i < r->lane_count; i++)
		if (r->lanes[i].tid == tid)
			return &r->lanes[i];
	return NULL;
}

/* As it calls itself; else as the kernel does, where its ids are ours. */
static void name_thread(const struct ruled *r, uint32_t tid, char name[static 16])
{
	const struct lane_seen *lane = lane_of(r, tid);
	const struct dc_ring *ring = r->e->ring;
	char file[32], comm[32];

	if (lane)
		memcpy(name, lane->comm, 16);
	if (!tid || name[0] || !ring->verified || !ring->pid || ring->pid != ring->header.pid)
		return;
	snprintf(file, sizeof(file), "task/%u/comm", tid);
	if (dc_proc_read(ring->pid, file, comm, sizeof(comm)) > 0)
		snprintf(name, 16, "%.*s", (int)strcspn(comm, "\n"), comm);
}

static uint64_t open_ns(const struct ruled *r, const struct lane_seen *lane)
{
	const uint64_t now = dc_ring_now(r->e->ring);
	struct dc_clock clock;

	if (lane->open_units >= now || dc_ring_clock(r->e->ring, &clock) < 0)
		return 0;
	return dc_clock_duration_ns(&clock, now - lane->open_units);
}

/* Those open longest, longest first. */
static void add_neighbour(struct dc_cause *cause, const struct dc_neighbour *n)
{
	uint32_t at = cause->neighbour_count;

	if (at == DC_NEIGHBOURS_MAX && cause->neighbours[--at].open_ns >= n->open_ns)
		return;
	for (; at > 0 && cause->neighbours[at - 1].open_ns < n->open_ns; at--)
		cause->neighbours[at] = cause->neighbours[at - 1];
	cause->neighbours[at] = *n;
	cause->neighbour_count += cause->neighbour_count < DC_NEIGHBOURS_MAX;
}

static void add_neighbours(struct dc_cause *cause, const struct ruled *r, uint32_t but_tid)
{
	const struct dc_schema *schema = r->tail ? dc_tail_schema(r->tail) : NULL;

	for (uint32_t i = 0; schema && i < r->lane_count; i++) {
		const struct lane_seen *lane = &r->lanes[i];
		struct dc_neighbour n = {.pid = r->e->ring->pid, .tid = lane->tid, .depth = lane->depth};

		if (!lane->depth || lane->tid == but_tid)
			continue;
		n.open_ns = open_ns(r, lane);
		snprintf(n.name, sizeof(n.name), "%.47s",
			 lane->open_site < schema->count ? schema->sites[lane->open_site].name : "?");
		memcpy(n.thread, lane->comm, sizeof(n.thread));
		add_neighbour(cause, &n);
	}
}

static void add_waiting(struct dc_cause *cause, const struct ruled *r)
{
	struct dc_evaluate_waiting w[DC_WAITING_MAX];
	uint32_t count = r->tail ? dc_evaluate_waiting(r->subject, dc_ring_now(r->e->ring), w, DC_WAITING_MAX - cause->waiting_count) : 0;

	for (uint32_t i = 0; i < count; i++) {
		struct dc_waiting *to = &cause->waiting[cause->waiting_count++];

		*to = (struct dc_waiting){.pid = r->e->ring->pid, .count = w[i].count, .open_ns = w[i].oldest_ns};
		snprintf(to->name, sizeof(to->name), "%.47s", w[i].name);
	}
}

static void make_cause(const struct dc_watcher *w, const struct dc_rule_firing *f, const struct selection *s,
		       struct dc_cause *ret_cause)
{
	const struct ruled *of = f->process;
	struct dc_cause *c = ret_cause;

	*c = (struct dc_cause){.unit = dc_rule_unit(f->leaf),
			       .value = f->value,
			       .threshold = f->threshold,
			       .amount = f->amount,
			       .allowed = f->allowed,
			       .amount_unit = f->allowed > 0 ? dc_rule_amount_unit(f->leaf) : DC_UNIT_NONE};
	snprintf(c->expression, sizeof(c->expression), "%s", f->rule->when.text);
	dc_rule_explain(&f->rule->when, c->sentence, sizeof(c->sentence));
	snprintf(c->name, sizeof(c->name), "%.95s", f->name ? f->name : "");
	c->sample_hz = f->rule->sample_hz;
	c->sample_for_ns = f->rule->sample_hz ? f->rule->sample_for_ns : 0;
	name_thread(of, f->tid, c->thread);
	memcpy(c->trace_id, f->trace_id, sizeof(c->trace_id));
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct dc_entry *e = dc_roster_at(w->roster, i);

		for (uint32_t k = 0; e->ruled && !e->gone && k < s->count; k++) {
			if (s->rings[k] != e->ring)
				continue;
			add_neighbours(c, e->ruled, dc_entry_same(e, of->e) ? f->tid : 0);
			add_waiting(c, e->ruled);
		}
	}
}

/* "slow-pay: http.request 612 ms (span "http.request" > 250ms)" */
static void make_text(const struct dc_rule *rule, const struct dc_cause *c, char *text, size_t size)
{
	const struct dc_unit_text value = dc_cause_value(c);
	const int n = snprintf(text, size, "%s: %s%s%s (%s)", rule->name, c->name, *c->name && value.s[0] ? " " : "", value.s,
			       c->expression);

	if (n >= (int)size)
		strcpy(text + size - 4, "...");
}

/* --- of whom --- */

static void select_scope(const struct dc_watcher *w, const struct dc_rule *rule, struct dc_entry *of, struct selection *s)
{
	switch (rule->scope) {
	case DC_RULE_SCOPE_ALL:
		dc_watcher_select_all(w, false, s);
		break;
	case DC_RULE_SCOPE_GROUP:
		dc_watcher_select_group(w, of, s);
		break;
	default:
		dc_watcher_select_process(w, of, s);
	}
}

static const struct dc_rule *of_deaths(const struct dc_watcher *w)
{
	for (uint32_t i = 0; w->ruling && i < w->ruling->rules->count; i++)
		if (strcmp(w->ruling->rules->rules[i].name, RULE_EXIT_SIGNAL) == 0)
			return &w->ruling->rules->rules[i];
	return NULL;
}

bool dc_ruling_select_death(const struct dc_watcher *w, struct dc_entry *e, struct selection *s)
{
	const struct dc_rule *rule = of_deaths(w);

	if (rule)
		select_scope(w, rule, e, s);
	else
		dc_watcher_select_process(w, e, s);
	return !rule || rule->capture;
}

/* --- what is done --- */

static bool allowed(struct dc_watcher *w, const struct dc_rule_firing *f, uint32_t uid, uint32_t *ret_suppressed)
{
	const struct dc_budget_limits *usual = &w->config.budget;
	const struct dc_budget_limits limits = {
		.cooldown_ns = f->rule->cooldown_ns == DC_RULE_HERE_DEFAULT ? usual->cooldown_ns : f->rule->cooldown_ns,
		.per_hour = f->rule->per_hour < 0 ? usual->per_hour : (uint32_t)f->rule->per_hour};

	return dc_budget_take_within(w->ruling->budget, &limits, f->rule->name, uid, dc_watcher_now_ns(), ret_suppressed) ==
	       DC_BUDGET_YES;
}

static void capture(struct dc_watcher *w, const struct dc_rule_firing *f, const struct firing *firing, struct selection *s)
{
	const int r = dc_watcher_fire(w, firing, s, NULL, NULL);

	if (r >= 0)
		return;
	w->failed++;
	dc_watcher_say(w, "rule '%s': '%s' not saved: %s", f->rule->name, firing->text,
		       r == -EBUSY ? "too many captures are under way" : strerror(-r));
}

static void run(struct dc_watcher *w, const struct dc_rule *rule, const struct dc_ring *ring, const struct dc_incident *incident,
		int64_t now_ns)
{
	CLEANUP(free) char *json = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&json, &bytes);
	int r;

	if (!out)
		return;
	if (w->config.describe)
		w->config.describe(incident, ring->header.name, out);
	fclose(out);
	const struct dc_command command = {.rule = rule->name,
					   .text = rule->run,
					   .pid = incident->trigger_pid,
					   .uid = ring->uid,
					   .gid = ring->gid,
					   .limit_ns = rule->run_limit_ns,
					   .input = json,
					   .input_bytes = bytes};
	r = dc_commands_run(w->ruling->commands, &command, now_ns);
	if (r < 0)
		dc_watcher_say(w, "rule '%s': its command was not run: %s", rule->name,
			       r == -EBUSY ? "as many as may run are running" : strerror(-r));
}

static void run_for(struct dc_watcher *w, const struct dc_rule_firing *f, const struct firing *firing)
{
	const struct ruled *of = f->process;
	CLEANUP(free) struct dc_incident *incident = calloc(1, sizeof(*incident));

	if (!incident)
		return;
	dc_incident_init(incident, DC_REASON_RULE, firing->text);
	if (dc_incident_window(incident, of->e->ring, &firing->window) < 0)
		return;
	snprintf(incident->rule, sizeof(incident->rule), "%s", f->rule->name);
	incident->severity = firing->severity;
	incident->suppressed = firing->suppressed;
	incident->trigger_pid = firing->pid;
	incident->trigger_tid = firing->tid;
	incident->cause = *firing->cause;
	run(w, f->rule, of->e->ring, incident, dc_watcher_now_ns());
}

/* Of all that the capture is of. */
static void raise_rate(struct dc_watcher *w, const struct dc_rule *rule, const struct selection *s)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		for (uint32_t k = 0; k < s->count; k++)
			if (s->rings[k] == dc_roster_at(w->roster, i)->ring)
				dc_raising_begin(w, dc_roster_at(w->roster, i), rule->name, rule->sample_hz, rule->sample_for_ns);
}

/* judge.c has saved the death already. */
static bool is_built_in(const struct dc_rule *rule)
{
	return strcmp(rule->name, RULE_EXIT_SIGNAL) == 0;
}

static void act(struct dc_watcher *w, const struct dc_rule_firing *f, struct selection *s)
{
	const struct ruled *of = f->process;
	const struct dc_ring *ring = of->e->ring;
	const struct dc_rule *rule = f->rule;
	CLEANUP(free) struct dc_cause *cause = calloc(1, sizeof(*cause));
	const uint64_t at_units = f->at_units ? f->at_units : of->event_units;
	char text[256];
	struct firing firing = {
		.reason = DC_REASON_RULE,
		.text = text,
		.rule = rule->name,
		.cause = cause,
		.severity = rule->severity,
		.pid = ring->pid ? ring->pid : ring->header.pid,
		.tid = f->tid,
		.window = {.last_ns = rule->last_ns == DC_RULE_HERE_DEFAULT ? w->config.last_ns : rule->last_ns,
			   .after_ns = rule->after_ns == DC_RULE_HERE_DEFAULT ? w->config.after_ns : rule->after_ns,
			   .at_tick = f->at_tick ? f->at_tick : at_units << ring->header.tick_shift},
	};

	if (!cause || !allowed(w, f, ring->uid, &firing.suppressed))
		return;
	w->ruling->acted++;
	select_scope(w, rule, of->e, s);
	make_cause(w, f, s, cause);
	make_text(rule, cause, text, sizeof(text));
	if (rule->capture && !is_built_in(rule))
		capture(w, f, &firing, s);
	else if (!rule->capture)
		dc_watcher_say(w, "rule '%s': %s[%u]: %s", rule->name, ring->header.name, firing.pid, text + strlen(rule->name) + 2);
	if (rule->run[0])
		run_for(w, f, &firing);
	if (rule->sample_hz)
		raise_rate(w, rule, s);
}

static int64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * SECOND_NS + ts.tv_nsec;
}

void dc_act(void *arg, const struct dc_rule_firing *firing)
{
	const struct ruled *of = firing->process;
	const int64_t began = cpu_ns();
	struct dc_watcher *w = arg;
	CLEANUP(free) struct selection *s = NULL;

	if (is_built_in(firing->rule) && !firing->rule->run[0] && !firing->rule->sample_hz)
		return;
	s = calloc(1, sizeof(*s));
	if (s)
		act(w, firing, s);
	if (of->tail)
		dc_tail_excuse(of->tail, cpu_ns() - began);
}

void dc_act_untold(void *arg, const struct dc_rule *rule, void *process, uint64_t count)
{
	const struct dc_watcher *w = arg;
	const struct ruled *of = process;

	if (strcmp(rule->name, RULE_EXIT_SIGNAL) != 0)
		dc_budget_refuse(w->ruling->budget, rule->name, of->e->ring->uid, count);
}
