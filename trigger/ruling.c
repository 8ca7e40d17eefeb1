/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fnmatch.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/live.h"
#include "trigger/ruling_inside.h"

#define TAILS_NS (SECOND_NS / 400) /* of a look at all rings: 1 % of a core at four looks a second */
#define TAIL_LEAST_NS (SECOND_NS / 50000) /* of one ring, whatever the others took: none is left out for good */
#define TAIL_AT_ONCE_NS (SECOND_NS / 5000) /* of one ring, before what its guest says is judged */
#define TAIL_AGAIN_NS (SECOND_NS / 1000)
#define VITALS_NS SECOND_NS
#define VITALS_QUIET_NS (4 * SECOND_NS) /* where only rules ask for them that ship: limits are not reached that fast */
#define IDLE_LOOKS 2u /* without an event */
#define CLOCKS (DC_CLOCK_CNTVCT + 1)
#define SITES_A_LOOK 512u /* of one ring, whose thresholds are thought over again; and how many of them change at most */
#define WRITES_A_LOOK 64u
#define CALM_EVENTS 16u /* a look, at most: it records little */
#define CALM_NS (SECOND_NS - SECOND_NS / 8) /* looks are not that exact */
#define CALM_TAIL_NS (4 * SECOND_NS - SECOND_NS / 8) /* ... at what it recorded, while no chunk is full, nothing is open or counted by the second */
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

/* Of several images of a process the first that lives has them: nothing is to be noticed twice. */
static void open_vitals(struct ruled *r)
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
	open_vitals(r);
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

static void look_at_once(struct ruled *r, int64_t budget_ns)
{
	look_at_tail(r, budget_ns, dc_ring_now(r->e->ring), dc_watcher_now_ns(), 0);
}

bool dc_ruling_follows(const struct dc_entry *e)
{
	return e->ruled && e->ruled->tail;
}

const struct dc_tail_totals *dc_ruling_heard(const struct dc_entry *e, uint64_t *ret_given_up)
{
	*ret_given_up = dc_evaluate_given_up(e->ruled->subject);
	return dc_tail_totals(e->ruled->tail);
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

static void reset_thresholds(struct ruled *r)
{
	for (uint32_t site = 1; site < r->threshold_count; site++)
		if (r->thresholds[site] && dc_ring_set_threshold(r->e->ring, site, 0) == 0)
			r->thresholds[site] = 0;
}

void dc_ruling_leave(struct dc_watcher *w)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		if (dc_roster_at(w->roster, i)->ruled)
			reset_thresholds(dc_roster_at(w->roster, i)->ruled);
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
		open_vitals(e->ruled); /* the image that had them may be gone */
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
		look_at_once(r, TAIL_AT_ONCE_NS);
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
		look_at_once(e->ruled, TAILS_NS);
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
			reset_thresholds(r);
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
