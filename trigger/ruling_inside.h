/* SPDX-License-Identifier: MIT */
/* What ruling.c (whom rules are about), ruling_look.c (facts in) and act.c (decisions out) share; nobody else includes it. */
#pragma once

#include "trigger/command.h"
#include "trigger/rules/evaluate.h"
#include "trigger/ruling.h"
#include "trigger/tail.h"
#include "trigger/vitals.h"
#include "trigger/watcher_inside.h"

/* The built-in of judge.c: it holds the dying process, so it does not wait for a rule to tell it. */
#define RULE_EXIT_SIGNAL "default.exit-signal"

#define TAILS_NS (SECOND_NS / 400) /* of a look at all rings: 1 % of a core at four looks a second */

struct lane_seen { /* at the last look */
	uint32_t tid;
	uint32_t depth;
	uint64_t open_units;
	uint16_t open_site;
	char comm[16];
};

/* One image of a process, as rules see it. */
struct ruled {
	struct dc_watcher *w;
	struct dc_entry *e;
	struct dc_subject *subject;
	struct dc_tail *tail;            /* NULL: no ring, or no rule is about what it records */
	struct dc_vitals_source *vitals; /* NULL: another image of its process has them, or it may not be looked at */
	bool ended;                      /* told */
	int64_t tailed_ns;               /* last look at its tail */
	int64_t laned_ns;                /* ... or only at its lanes */
	uint64_t event_units;            /* of the event that is being told of; 0: none */
	uint32_t idle_looks;             /* at its tail, without an event, in a row */
	bool skipped;                    /* the last one was left out for that */
	bool calm;                       /* few events came at its last look, and nobody watches live */
	uint64_t events;                 /* delivered by then, at the last look at thresholds */
	struct lane_seen *lanes;
	uint32_t lane_count, lane_room;
	uint64_t *thresholds; /* by site: what its guest compares with */
	uint32_t threshold_count;
	uint32_t threshold_next; /* site to go on with */
	bool thresholds_stale;   /* rules changed */
};

struct dc_ruling {
	struct dc_evaluate *evaluate;
	const struct dc_rules *rules; /* the configuration's, or own */
	struct dc_rules own[2];       /* read again: the rules there are, and those before them */
	unsigned at;
	bool wants_tail;
	bool wants_exec;
	int64_t calm_ns; /* between looks at a ring that records little; 0: at each */
	int64_t vitals_ns; /* so often */
	int64_t vitals_due_ns;
	struct dc_budget *budget;
	struct dc_commands *commands;
	uint64_t acted; /* so often something followed from a rule */
};

/* ---- ruling.c ---- */

/* Of several images of a process the first that lives has them: nothing is to be noticed twice. */
void dc_ruled_open_vitals(struct ruled *r);

/* ---- ruling_look.c ---- */

/* What it recorded since the last look, now and not with the others. */
void dc_ruled_look(struct ruled *r, int64_t budget_ns);
void dc_ruled_reset_thresholds(struct ruled *r);

/* ---- act.c: the evaluator's word ---- */

void dc_act(void *arg, const struct dc_rule_firing *firing);
void dc_act_untold(void *arg, const struct dc_rule *rule, void *process, uint64_t count);
