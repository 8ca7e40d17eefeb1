/* SPDX-License-Identifier: MIT */
/*
 * Rules against what is known of processes. No system call, no clock, no ring in here: the watcher pushes facts, this says
 * which rule came true, of whom, by which value. So all of it is tested with made-up facts.
 *
 *     tail.c     ── each event of a process ──────────► dc_evaluate_event()     spans, events, logs, counters
 *     fire.c     ── a guest's own "span over" ────────► dc_evaluate_span_over() at once
 *     vitals.c   ── /proc, cgroup, psi ───────────────► dc_evaluate_vitals()    once a second, if any rule asks
 *     lanes      ── the lane table ───────────────────► dc_evaluate_lane()      4 times a second
 *     judge.c    ── ended, exec ──────────────────────► dc_evaluate_ended() ...
 *                                                        dc_evaluate_tick()      conditions that need time to pass
 *                                                              │
 *                              fire(arg, &firing)  ◄───────────┘   at most once per look for a rule and process, and how
 *                                                                  often more it would have been
 *
 * A leaf about something that happens (SPAN_LASTS, SPAN_UNUSUAL, SPAN_SLOWER, EVENT, LOG, EXIT_*, EXEC) is true at that moment
 * only, `within` keeps it; a leaf about a state keeps its last value. The rule fires when its expression turns from false to
 * true, and for leaves of the first kind each time.
 *
 * Thresholds go the other way: dc_evaluate_threshold() is what the guest shall compare a site's spans with, the least that
 * any rule wants, so that the very span that is too long fires. Reloaded rules keep the state of leaves whose text and rule
 * name stayed the same (dc_evaluate_reload()).
 *
 * Everything here is of the watcher's loop (one thread). Memory is bounded: DC_EVALUATE_PROCESSES_MAX processes, sites as
 * their rings have, per leaf and site one window (window.h) where a rule asks for rates or percentiles.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ipc/decode.h"
#include "trigger/rules/rule.h"
#include "trigger/vitals.h"

struct dc_evaluate;
struct dc_subject; /* a process, as the evaluator knows it */

/* Why a rule fired: enough for `why` to tell it in five lines. Strings last until the call returns. */
struct dc_rule_firing {
	const struct dc_rule *rule;
	void *process; /* as given to dc_evaluate_process() */
	const struct dc_rule_node *leaf; /* the one that decided */
	double value; /* that made it true, in the leaf's unit */
	double threshold; /* what it was compared with; of unusual what is usual */
	double amount; /* of a limit, whose part in percent the value is */
	double allowed; /* that limit; 0: none */
	const char *name; /* of the span, event, counter; "" */
	uint16_t site;
	uint32_t tid; /* 0: not of one thread */
	uint64_t at_tick; /* raw clock of the ring when it happened; 0: now */
	uint64_t at_units; /* the same in units, where that is what is known; 0: see at_tick */
	uint8_t trace_id[16]; /* trace context the thread was in; zeros: none known */
};

/*
 * @fire: a rule came true
 * @untold: it did so @count times more in the same look, which are counted and not told one by one. After the firing, by the
 * end of the look; also when the process or the rule goes before.
 */
struct dc_evaluate_handler {
	void (*fire)(void *arg, const struct dc_rule_firing *firing);
	void (*untold)(void *arg, const struct dc_rule *rule, void *process, uint64_t count);
};
int dc_evaluate_new(const struct dc_rules *rules, const struct dc_evaluate_handler *handler, void *arg, struct dc_evaluate **ret_evaluate);
void dc_evaluate_free(struct dc_evaluate *e);
int dc_evaluate_reload(struct dc_evaluate *e, const struct dc_rules *rules);

/* What of the outside any rule asks about: nobody reads /proc for nothing. Bits of DC_VITALS_*. */
uint32_t dc_evaluate_wants(const struct dc_evaluate *e);

/* @units_per_s: of its ring's clock; 0: it has no ring. Return: NULL when there is no memory or room. */
#define DC_EVALUATE_PROCESSES_MAX 4096u
struct dc_subject *dc_evaluate_process(struct dc_evaluate *e, const char *name, double units_per_s, void *process, int64_t now_ns);
void dc_evaluate_forget(struct dc_evaluate *e, struct dc_subject *s);

/* One event out of the tail. @weight: how many it stands for, 1 unless the tail samples. */
void dc_evaluate_event(struct dc_evaluate *e, struct dc_subject *s, const struct dc_event *event, double weight, int64_t now_ns);
/* Async spans that are open, by name, and counters of queues (named *queue.depth) that are not zero. Return: how many of @max. */
struct dc_evaluate_waiting {
	const char *name; /* until the process is forgotten */
	uint64_t count;
	uint64_t oldest_ns; /* 0: a counter */
};
uint32_t dc_evaluate_waiting(struct dc_subject *s, uint64_t now_units, struct dc_evaluate_waiting *ret_waiting, uint32_t max);
/* Those that were open and given up: more than DC_ASYNC_MAX were, or events were lost. */
uint64_t dc_evaluate_given_up(const struct dc_subject *s);
/* Some of its events were lost: what seems open may have ended. */
void dc_evaluate_lost(struct dc_subject *s);
/*
 * The guest says a span of @site lasted @units, ended at raw @tick, which is @at_units. Rules with `where` wait for the tail to
 * bring it; the same span is not told twice, whoever brings it first. Look at the tail before: then its trace context is known.
 */
void dc_evaluate_span_over(struct dc_evaluate *e, struct dc_subject *s, uint16_t site, const char *name, uint64_t units,
			   uint32_t tid, uint64_t tick, uint64_t at_units, int64_t now_ns);
/*
 * A lane as the table has it, of a process that lives and records (not DC_RING_STOPPED). @now_units: of the ring's clock.
 * @open_name: of its open_site, "" when it has none.
 */
void dc_evaluate_lane(struct dc_evaluate *e, struct dc_subject *s, uint32_t lane, const struct dc_ring_lane *entry,
		      const char *open_name, uint64_t now_units, int64_t now_ns);
void dc_evaluate_vitals(struct dc_evaluate *e, struct dc_subject *s, const struct dc_vitals *v, int64_t now_ns);
void dc_evaluate_ended(struct dc_evaluate *e, struct dc_subject *s, int wait_status, int64_t now_ns);
void dc_evaluate_exec(struct dc_evaluate *e, struct dc_subject *s, int64_t now_ns);
/* Whether a rule counts by the second what it recorded so far, or follows it from thread to thread: then news of it matter. */
bool dc_evaluate_by_seconds(const struct dc_subject *s);
/* Ends a look: after the lanes, events and vitals of all processes. */
void dc_evaluate_tick(struct dc_evaluate *e, int64_t now_ns);

/*
 * The least span of @site, in units of its ring, that the guest shall report; 0: none. Changes as distributions do: to be
 * asked again with each look. @name: of the site, which need not have recorded anything yet.
 */
uint64_t dc_evaluate_threshold(struct dc_evaluate *e, struct dc_subject *s, uint16_t site, const char *name);
