/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fnmatch.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/ruling_inside.h"

#define TAIL_AT_ONCE_NS (SECOND_NS / 5000) /* of one ring, before what its guest says is judged */
#define TAIL_AGAIN_NS (SECOND_NS / 1000)
#define VITALS_NS SECOND_NS
#define VITALS_QUIET_NS (4 * SECOND_NS) /* where only rules ask for them that ship: limits are not reached that fast */
#define CALM_NS (SECOND_NS - SECOND_NS / 8) /* looks are not that exact */
#define COMMANDS_WAIT_NS (5 * SECOND_NS) /* at the end, for what rules have just started */

static bool about_recorded(const struct dc_rule *rule)
{
	for (uint32_t i = 0; i < rule->when.count; i++)
		if (rule->when.nodes[i].op >= DC_RULE_SPAN_LASTS && rule->when.nodes[i].op <= DC_RULE_THREAD_SILENT)
			return true;
	return false;
}

/* @shipped: those that ship with dashcam count, too. */
static bool wants_tail(const struct dc_rules *rules, bool shipped)
{
	for (uint32_t i = 0; i < rules->count; i++)
		if ((shipped || !rules->rules[i].quiet) && about_recorded(&rules->rules[i]))
			return true;
	return false;
}

static void use_rules(struct dc_ruling *ruling, const struct dc_rules *rules)
{
	ruling->rules = rules;
	ruling->wants_tail = wants_tail(rules, true);
	ruling->calm_ns = wants_tail(rules, false) ? 0 : CALM_NS;
	ruling->vitals_ns = dc_rules_outside(rules) ? VITALS_NS : VITALS_QUIET_NS;
	ruling->vitals_due_ns = 0;
	ruling->wants_exec = dc_rules_exec(rules);
}

static void on_command_log(void *arg, const char *line)
{
	dc_watcher_say(arg, "%s", line);
}

int dc_ruling_open(struct dc_watcher *w)
{
	static const struct dc_evaluate_handler acting = {.fire = dc_act, .untold = dc_act_untold};
	static const struct dc_rules none = {0};
	const struct dc_budget_limits limits = w->config.budget;
	struct dc_ruling *ruling;
	int r;

	if (!w->config.rules && !w->config.reload)
		return 0;
	ruling = w->ruling = calloc(1, sizeof(*ruling));
	if (!ruling)
		return -ENOMEM;
	use_rules(ruling, w->config.rules ? w->config.rules : &none);
	r = dc_evaluate_new(ruling->rules, &acting, w, &ruling->evaluate);
	if (r == 0)
		r = dc_budget_new(&limits, &ruling->budget);
	if (r == 0)
		r = dc_commands_new(on_command_log, w, &ruling->commands);
	return r;
}

static void wait_for_commands(struct dc_ruling *ruling)
{
	const int64_t until = dc_watcher_now_ns() + COMMANDS_WAIT_NS;

	while (ruling->commands && dc_commands_tick(ruling->commands, dc_watcher_now_ns()) && dc_watcher_now_ns() < until)
		poll(NULL, 0, 20);
}

void dc_ruling_close(struct dc_watcher *w)
{
	struct dc_ruling *ruling = w->ruling;

	if (!ruling)
		return;
	wait_for_commands(ruling);
	dc_commands_free(ruling->commands);
	dc_evaluate_free(ruling->evaluate);
	dc_budget_free(ruling->budget);
	dc_rules_cleanup(&ruling->own[0]);
	dc_rules_cleanup(&ruling->own[1]);
	free(ruling);
	w->ruling = NULL;
}

/* --- processes --- */

static double units_per_s(const struct dc_ring *ring)
{
	const uint64_t probe = UINT64_C(1) << 32;
	struct dc_clock clock;
	uint64_t lasts_ns;

	if (ring->bare || dc_ring_clock(ring, &clock) < 0 || !(lasts_ns = dc_clock_duration_ns(&clock, probe)))
		return 0;
	return (double)probe / (double)lasts_ns * 1e9;
}

/* A watcher before us may have been killed: what it told the guest still stands there. */
static void adopt_thresholds(struct ruled *r)
{
	CLEANUP(free) struct dc_ring_control *control = NULL;
	struct dc_ring_look look;

	if (dc_ring_look(r->e->ring, &look) < 0 || dc_ring_control(r->e->ring, &control) < 0)
		return;
	r->thresholds = calloc(look.sites_used + 1, sizeof(*r->thresholds));
	for (uint32_t i = 0; r->thresholds && i < look.sites_used; i++)
		r->thresholds[i] = control->threshold[i] ? ~control->threshold[i] : 0;
	r->threshold_count = r->thresholds ? look.sites_used : 0;
	r->thresholds_stale = true;
}

static void open_tail(struct ruled *r)
{
	if (r->tail || r->e->ring->bare || !r->w->ruling->wants_tail || dc_tail_new(r->e->ring, &r->tail) < 0)
		return;
	if (!r->thresholds)
		adopt_thresholds(r);
}

static bool has_vitals(const struct dc_watcher *w, const struct dc_entry *e)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct dc_entry *other = dc_roster_at(w->roster, i);

		if (other != e && other->ruled && other->ruled->vitals && !other->gone && dc_entry_same(other, e))
			return true;
	}
	return false;
}

void dc_ruled_open_vitals(struct ruled *r)
{
	const struct dc_ring *ring = r->e->ring;

	if (!r->vitals && ring->verified && ring->pid && !has_vitals(r->w, r->e))
		r->vitals = dc_vitals_open(ring->pid, ring->header.start_time, NULL);
}

/* The name it has now is the one that rules go by, and the one that restarts are counted of. */
void dc_ruling_renamed(struct dc_watcher *w, struct dc_entry *e)
{
	struct ruled *r = e->ruled;
	struct dc_subject *next;

	if (!r)
		return;
	next = dc_evaluate_process(w->ruling->evaluate, e->ring->header.name, 0, r, dc_watcher_now_ns());
	if (!next)
		return;
	dc_evaluate_forget(w->ruling->evaluate, r->subject);
	r->subject = next;
}

bool dc_ruling_wants_exec(const struct dc_watcher *w)
{
	return w->ruling && w->ruling->wants_exec;
}

void dc_ruling_found(struct dc_watcher *w, struct dc_entry *e, int64_t now_ns)
{
	struct ruled *r;

	if (!w->ruling || e->ring->elsewhere)
		return;
	r = calloc(1, sizeof(*r));
	if (!r)
		return;
	r->w = w;
	r->e = e;
	r->subject = dc_evaluate_process(w->ruling->evaluate, e->ring->header.name, units_per_s(e->ring), r, now_ns);
	if (!r->subject) {
		free(r);
		return;
	}
	e->ruled = r;
	open_tail(r);
	dc_ruled_open_vitals(r);
}

void dc_ruling_forget(struct dc_watcher *w, struct dc_entry *e)
{
	struct ruled *r = e->ruled;

	if (!r)
		return;
	e->ruled = NULL;
	dc_evaluate_forget(w->ruling->evaluate, r->subject);
	dc_tail_free(r->tail);
	dc_vitals_close(r->vitals);
	free(r->lanes);
	free(r->thresholds);
	free(r);
}

/* --- who is followed --- */

bool dc_ruling_follows(const struct dc_entry *e)
{
	return e->ruled && e->ruled->tail;
}

const struct dc_tail_totals *dc_ruling_heard(const struct dc_entry *e, uint64_t *ret_given_up)
{
	*ret_given_up = dc_evaluate_given_up(e->ruled->subject);
	return dc_tail_totals(e->ruled->tail);
}

/* --- what is told at once --- */

bool dc_ruling_span_over(struct dc_watcher *w, struct dc_entry *e, const struct dc_ring_trigger *t)
{
	const int64_t now_ns = dc_watcher_now_ns();
	const uint64_t acted = w->ruling ? w->ruling->acted : 0;
	struct ruled *r = e->ruled;
	char name[sizeof(t->text) + 1];

	if (!r || !r->tail || t->site >= r->threshold_count || !r->thresholds[t->site])
		return false;
	if (now_ns - r->tailed_ns > TAIL_AGAIN_NS) /* a storm is not worth a look each */
		dc_ruled_look(r, TAIL_AT_ONCE_NS);
	snprintf(name, sizeof(name), "%.*s", (int)sizeof(t->text), t->text);
	dc_evaluate_span_over(w->ruling->evaluate, r->subject, t->site, name, t->value, t->tid, t->tick,
			      t->tick >> e->ring->header.tick_shift, now_ns);
	e->storm = acted == w->ruling->acted;
	return true;
}

void dc_ruling_exec(struct dc_watcher *w, struct dc_entry *e)
{
	if (e->ruled)
		dc_evaluate_exec(w->ruling->evaluate, e->ruled->subject, dc_watcher_now_ns());
}

void dc_ruling_gone(struct dc_entry *e)
{
	if (e->ruled && e->ruled->tail)
		dc_ruled_look(e->ruled, TAILS_NS);
}

/* Once for a process, though it may have had several images. */
void dc_ruling_ended(struct dc_watcher *w, struct dc_entry *e)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct dc_entry *other = dc_roster_at(w->roster, i);

		if (other != e && other->ruled && other->ruled->ended && dc_entry_same(other, e))
			return;
	}
	if (!e->ruled || e->ruled->ended || !e->exit_known)
		return;
	e->ruled->ended = true;
	dc_evaluate_ended(w->ruling->evaluate, e->ruled->subject, e->exit_status, dc_watcher_now_ns());
}

/* --- other rules --- */

static void follow_rules(struct dc_watcher *w)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct ruled *r = dc_roster_at(w->roster, i)->ruled;

		if (!r || r->e->gone)
			continue;
		r->thresholds_stale = true;
		if (!w->ruling->wants_tail) {
			dc_ruled_reset_thresholds(r);
			dc_tail_free(TAKE(r->tail));
		}
		open_tail(r);
	}
}

void dc_ruling_reload(struct dc_watcher *w)
{
	struct dc_ruling *ruling = w->ruling;
	struct dc_rules *next = ruling ? &ruling->own[!ruling->at] : NULL;

	if (!ruling || !w->config.reload)
		return;
	dc_rules_cleanup(next);
	if (w->config.reload(w->config.reload_arg, next) < 0) { /* it has said what is wrong */
		dc_watcher_say(w, "rules not read again: the old ones stay");
		return;
	}
	if (dc_evaluate_reload(ruling->evaluate, next) < 0) {
		dc_watcher_say(w, "rules not read again: no memory; the old ones stay");
		return;
	}
	use_rules(ruling, next);
	ruling->at = !ruling->at;
	follow_rules(w);
	dc_watcher_say(w, "%u rule%s read again", next->count, next->count == 1 ? "" : "s");
}

/* --- status --- */

static bool anybody_has(const struct dc_watcher *w, const char *pattern)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct ruled *r = dc_roster_at(w->roster, i)->ruled;
		const struct dc_schema *schema = r && r->tail ? dc_tail_schema(r->tail) : NULL;

		for (uint32_t s = 1; schema && s < schema->count; s++)
			if (fnmatch(pattern, schema->sites[s].name, FNM_EXTMATCH) == 0)
				return true;
	}
	return false;
}

/* A rule may be about something that no process has recorded so far. */
static void tell_waiting(const struct dc_watcher *w, const struct dc_rule *rule, struct dc_control_rule *ret_rule)
{
	for (uint32_t i = 0; i < rule->when.count; i++) {
		const struct dc_rule_node *n = &rule->when.nodes[i];

		if (!n->name[0] || anybody_has(w, n->name))
			continue;
		snprintf(ret_rule->waits_for, sizeof(ret_rule->waits_for), "%.95s", n->name);
		return;
	}
}

uint64_t dc_ruling_suppressed(const struct dc_watcher *w)
{
	return w->ruling ? dc_budget_suppressed(w->ruling->budget) : 0;
}

bool dc_ruling_tell(const struct dc_watcher *w, uint32_t index, struct dc_control_rule *ret_rule)
{
	const struct dc_rule *rule;

	if (!w->ruling || index >= w->ruling->rules->count)
		return false;
	rule = &w->ruling->rules->rules[index];
	*ret_rule = (struct dc_control_rule){0};
	snprintf(ret_rule->name, sizeof(ret_rule->name), "%.63s", rule->name);
	snprintf(ret_rule->expression, sizeof(ret_rule->expression), "%.255s", rule->when.text);
	dc_budget_count(w->ruling->budget, rule->name, &ret_rule->fired, &ret_rule->suppressed);
	tell_waiting(w, rule, ret_rule);
	return true;
}
