/* SPDX-License-Identifier: MIT */
/* From a reason to incidents in the worker: which rings, whose, within which budget. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trigger/crash.h"
#include "trigger/proc.h"
#include "trigger/watcher_inside.h"

#define DEATH_TAKES_NS SECOND_NS /* from a fatal signal to the end of the process, core dump included, as a rule */

static const char *verdict_text(enum dc_budget_verdict v)
{
	return v == DC_BUDGET_COOLDOWN ? "still cooling down from the last one"
	       : v == DC_BUDGET_HOUR   ? "as many this hour as the budget allows"
				       : "no memory";
}

static void name_budget(enum dc_reason reason, const char *text, char ret_rule[static 64])
{
	snprintf(ret_rule, 64, "%s %.40s", dc_reason_name(reason), text);
}

/*
 * Apps' triggers are limited by what they are called, so a noisy one does not silence another; deaths have no
 * cool-down: each process dies once, and the hour bounds crash loops.
 */
static bool budget_allows(struct dc_watcher *w, const struct firing *f, uint32_t uid,
			  uint32_t *ret_suppressed)
{
	const bool death = f->reason == DC_REASON_DEATH;
	struct dc_budget *budget = death ? w->deaths : w->budget;
	const int64_t now = dc_watcher_now_ns();
	enum dc_budget_verdict v;
	char rule[64];

	*ret_suppressed = f->suppressed;
	if (!f->budgeted)
		return true;
	name_budget(f->reason, death ? "" : f->text, rule);
	v = dc_budget_take(budget, rule, uid, now, ret_suppressed);
	if (v != DC_BUDGET_YES && *ret_suppressed == 1) /* of a storm the first; the next capture says how many */
		dc_watcher_say(
			w, "trigger '%s' not saved: %s, next one in %lld s; more are only counted", f->text, verdict_text(v),
			(long long)((dc_budget_next_ns(budget, rule, uid, now) - now) / SECOND_NS + 1));
	return v == DC_BUDGET_YES;
}

/* What is known by now of how its processes ended. */
static void note_exits(const struct dc_watcher *w, struct dc_save *save)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct dc_entry *e = dc_roster_at(w->roster, i);

		for (uint32_t k = 0; e->exit_known && k < save->count; k++)
			if (save->members[k].ring == e->ring)
				dc_process_died(&save->members[k].process, e->exit_status);
	}
}

static int make_save(struct dc_watcher *w, const struct firing *f, struct dc_ring *const *rings,
		     uint32_t count, uint32_t suppressed, struct dc_save **ret_save)
{
	CLEANUP(dc_save) struct dc_save *save = NULL;
	struct dc_incident incident;
	int r;

	dc_incident_init(&incident, f->reason, f->text);
	incident.severity = f->severity;
	incident.suppressed = suppressed;
	incident.trigger_pid = f->pid;
	incident.trigger_tid = f->tid;
	incident.signal = f->signal;
	snprintf(incident.rule, sizeof(incident.rule), "%s", f->rule ? f->rule : "");
	if (f->cause)
		incident.cause = *f->cause;
	r = dc_incident_window(&incident, rings[0], &f->window);
	if (r == 0)
		r = dc_save_new(&incident, &w->config.output, &save);
	if (r == 0)
		save->sampler = w->sampler;
	if (r == 0 && w->config.threads)
		save->threads_ns = THREADS_NS;
	for (uint32_t i = 0; r == 0 && i < count; i++)
		r = dc_save_add(save, rings[i]);
	if (r < 0)
		return r;
	note_exits(w, save);
	*ret_save = TAKE(save);
	return 0;
}

/* Rings of one uid. Return: 1 and the job; 0: suppressed; -EBUSY: as much is under way as can be; -errno. */
static int fire_uid(struct dc_watcher *w, const struct firing *f, struct dc_ring *const *rings,
		    uint32_t count, uint64_t *ret_job)
{
	CLEANUP(dc_save) struct dc_save *save = NULL;
	uint32_t suppressed;
	int r;

	if (dc_worker_fold(w->worker, rings, count, f->window.after_ns, f->severity, 1, ret_job)) {
		for (uint32_t i = 0; i < count; i++)
			dc_crash_ack(rings[i]); /* its first pass may be over */
		return 1;
	}
	if (!budget_allows(w, f, rings[0]->uid, &suppressed))
		return 0;
	r = make_save(w, f, rings, count, suppressed, &save);
	if (r == 0)
		r = dc_worker_submit(w->worker, save, f->window.after_ns, ret_job);
	if (r < 0)
		return r;
	save = NULL; /* the worker's now */
	return 1;
}

static int by_uid(const void *a, const void *b)
{
	const struct dc_ring *x = *(struct dc_ring *const *)a, *y = *(struct dc_ring *const *)b;

	/* A real ring first: the first one's clock is the incident's. */
	return x->uid != y->uid ? (x->uid < y->uid ? -1 : 1) : x->bare - y->bare;
}

int dc_watcher_fire(struct dc_watcher *w, const struct firing *f, struct selection *s,
		    void (*each)(void *arg, uint64_t job), void *arg)
{
	int jobs = 0, error = 0;

	qsort(s->rings, s->count, sizeof(struct dc_ring *), by_uid);
	for (uint32_t at = 0, end; at < s->count; at = end) {
		uint64_t job;
		int r;

		for (end = at + 1; end < s->count && s->rings[end]->uid == s->rings[at]->uid; end++)
			;
		r = fire_uid(w, f, s->rings + at, end - at, &job);
		if (r == 1 && each)
			each(arg, job);
		jobs += r == 1;
		error = r < 0 ? r : error;
	}
	return jobs ? jobs : error;
}

void dc_watcher_select_process(const struct dc_watcher *w, const struct dc_entry *of, struct selection *s)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct dc_entry *e = dc_roster_at(w->roster, i);

		if (dc_entry_same(e, of) && e->ring->uid == of->ring->uid && !e->superseded)
			s->rings[s->count++] = e->ring;
	}
}

/* Somebody else's by now, a pid would name a group that is none of ours. A zombie still has its own. */
void dc_watcher_note_group(struct dc_entry *e)
{
	const struct dc_ring *ring = e->ring;
	struct dc_proc_stat st;
	pid_t group;

	if (!ring->pid || (group = getpgid((pid_t)ring->pid)) <= 0)
		return;
	if (dc_proc_stat(ring->pid, &st) == 0 && st.start_time == ring->header.start_time)
		e->group = (uint32_t)group;
}

void dc_watcher_select_group(const struct dc_watcher *w, struct dc_entry *of, struct selection *s)
{
	if (!of->gone)
		dc_watcher_note_group(of);
	dc_watcher_select_process(w, of, s);
	for (uint32_t i = 0; of->group && i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);

		if (e->superseded || dc_entry_same(e, of))
			continue;
		if (!e->gone) /* shells move their children after they were seen */
			dc_watcher_note_group(e);
		if (e->group == of->group)
			s->rings[s->count++] = e->ring;
	}
}

static int say_if_lost(struct dc_watcher *w, const struct firing *f, int r)
{
	if (r < 0) {
		w->failed++;
		dc_watcher_say(w, "trigger '%s' not saved: %s", f->text,
			       r == -EBUSY ? "too many captures are under way" : strerror(-r));
	}
	return r;
}

void dc_watcher_select_all(const struct dc_watcher *w, bool alive_only, struct selection *s)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct dc_entry *e = dc_roster_at(w->roster, i);

		if (!e->superseded && (!alive_only || !e->gone))
			s->rings[s->count++] = e->ring;
	}
}

int dc_watcher_save_all(struct dc_watcher *w, enum dc_reason reason, const char *text, bool alive_only)
{
	CLEANUP(free) struct selection *s = calloc(1, sizeof(*s));
	const struct firing f = {.reason = reason,
				 .text = text,
				 .severity = SEVERITY_ASKED,
				 .window = {.last_ns = w->config.last_ns}};

	if (!s)
		return -ENOMEM;
	dc_watcher_select_all(w, alive_only, s);
	return say_if_lost(w, &f, dc_watcher_fire(w, &f, s, NULL, NULL));
}

/* A trigger that is older than what a capture would cover was for a watcher that was not there. */
static bool too_old(const struct dc_watcher *w, const struct dc_ring *ring, uint64_t tick)
{
	const uint32_t shift = ring->header.tick_shift;
	const uint64_t now = dc_ring_now(ring), at = tick >> shift;
	const int64_t bound_ns = w->config.last_ns ? w->config.last_ns : 30 * SECOND_NS;
	struct dc_clock clock;

	return at < now && dc_ring_clock(ring, &clock) == 0 &&
	       dc_clock_duration_ns(&clock, now - at) > (uint64_t)bound_ns;
}

/*
 * A fatal signal has just hit it, and it waits for us. The capture stays open until its death is noticed, which ends it, so
 * that how it ended is told too. A process that gets over it has given us a capture for nothing.
 */
static void on_crash(struct dc_watcher *w, struct dc_entry *e, const struct dc_ring_trigger *t)
{
	const int signal = t->value > 0 && t->value <= SIGSYS ? (int)t->value : SIGKILL;

	if (w->config.on_death && dc_watcher_save_death(w, e, signal, DEATH_TAKES_NS) > 0)
		e->crashed = signal;
	else
		dc_crash_ack(e->ring);
}

void dc_watcher_on_trigger(void *arg, struct dc_entry *e, const struct dc_ring_trigger *t)
{
	struct dc_watcher *w = arg;
	CLEANUP(free) struct selection *s = calloc(1, sizeof(*s));
	const struct firing f = {
		.reason = t->reason == DC_TRIGGER_SPAN ? DC_REASON_SPAN : DC_REASON_API,
		.text = t->text,
		.severity = SEVERITY_APP,
		.pid = e->ring->pid ? e->ring->pid : e->ring->header.pid,
		.tid = t->tid,
		.budgeted = true,
		.window = {.last_ns = w->config.last_ns, .after_ns = w->config.after_ns, .at_tick = t->tick}};

	if (!s || too_old(w, e->ring, t->tick))
		return;
	if (t->reason == DC_TRIGGER_CRASH) {
		on_crash(w, e, t);
		return;
	}
	if (t->reason == DC_TRIGGER_SPAN && dc_ruling_span_over(w, e, t))
		return;
	dc_watcher_select_process(w, e, s);
	say_if_lost(w, &f, dc_watcher_fire(w, &f, s, NULL, NULL));
}

/* They are of the same look as those that were told: whatever became of those, these only count. */
void dc_watcher_on_overwritten(void *arg, struct dc_entry *e, uint64_t count, const struct dc_ring_trigger *like)
{
	struct dc_watcher *w = arg;
	CLEANUP(free) struct selection *s = calloc(1, sizeof(*s));
	char rule[64];
	uint64_t job;

	if (!s)
		return;
	dc_watcher_select_process(w, e, s);
	if (dc_worker_fold(w->worker, s->rings, s->count, w->config.after_ns, SEVERITY_APP, count, &job))
		return;
	name_budget(DC_REASON_API, like ? like->text : "", rule);
	dc_budget_refuse(w->budget, rule, e->ring->uid, count);
}
