/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the evaluator share; nobody else includes it.
 *
 *   evaluate.c   rules, processes, reload           things.c   names and who watches them
 *   decide.c     a rule's tree, and firing          events.c   what a program recorded
 *   lanes.c      silence, spans that stay open      outside.c  vitals, ends, restarts
 *   asyncs.c     spans from thread to thread
 *
 *   dc_evaluate ─► dc_subject (process) ─► rule_state (one a rule) ─► node_state (one a condition)
 *                        │                       ▲
 *                        ├─► thing (a name) ─► watch: what one condition counts of this name
 *                        └─► lane_state
 *
 * Of a condition on a state `on` is kept; one on a moment is true only in the call of dc_decide() that tells of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "trigger/rules/async.h"
#include "trigger/rules/evaluate.h"
#include "trigger/rules/slower.h"
#include "trigger/rules/surge.h"
#include "trigger/rules/unusual.h"
#include "trigger/rules/window.h"

#define SECOND_NS INT64_C(1000000000)
#define NEVER INT64_MIN
#define THINGS_MAX 4096u /* names of one process */
#define THINGS_ALL_MAX 65536u /* of all: 20 MiB */
#define HISTOGRAMS_MAX 1024u /* of all: up to 150 KiB each */
#define LANES_ALL_MAX 65536u /* 45 MiB */
#define KINDS_ALL_MAX 4096u /* names of which kinds are told apart: 17 MiB */
#define ASYNC_TABLES_MAX 256u /* of all: 37 MiB */
#define THING_BUCKETS 64u
#define STACK_MAX 16u /* open spans of a lane that are remembered with their names */
#define SEEN_MAX 32u
#define NAMES_MAX 256u /* of processes, for restarts */
#define RESTARTS_MAX 128u
#define ENDS_MAX 64u

struct rule_state;

/* A number that only grows, or a level: how much it changed over a window. */
#define CLIMB_POINTS 10u
struct climb {
	uint32_t next; /* running count; slot = next % CLIMB_POINTS */
	int64_t at_ns[CLIMB_POINTS];
	double value[CLIMB_POINTS];
	double of[CLIMB_POINTS]; /* what it is a part of, or time */
};

struct node_state {
	bool on; /* a condition that lasts: holds */
	uint32_t watches_on; /* ... of how many names */
	uint64_t look; /* open, thread silent: the last look that found one */
	int64_t since_ns; /* FOR: its part holds since; WITHIN: held last; else: turned on. NEVER */
	double value, threshold; /* when it last turned on */
	double amount, allowed; /* of a limit, as last seen */
	const struct thing *thing;
	uint16_t site;
	uint32_t tid;
	uint64_t tick;
	struct dc_rate *rate; /* LOG_RATE */
	struct dc_surge *surge; /* ... unusual */
	struct climb *climb; /* of vitals */
};

struct rule_state {
	const struct dc_rule *rule;
	struct dc_subject *subject;
	bool was; /* the last look at it found it true */
	bool told; /* in this look */
	uint32_t id; /* of its name and text */
	uint64_t untold; /* ... so often more */
	uint64_t times; /* it came true */
	uint32_t count; /* of nodes */
	struct node_state nodes[];
};

struct watch {
	struct rule_state *of;
	uint8_t node;
	bool on; /* a condition that lasts: holds for this name */
	struct dc_unusual *unusual;
	struct dc_histogram *histogram;
	struct dc_rate *rate;
	struct dc_surge *surge;
	struct dc_kinds *kinds;
};

/* A name that a process records under; sites of one name are one thing. */
enum thing_class { THING_SPAN = 1, THING_EVENT, THING_COUNTER };

struct thing {
	struct thing *next;
	enum thing_class class;
	uint32_t watch_count;
	struct watch *watches; /* those of one rule lie side by side */
	struct dc_kinds *kinds; /* of the first watch that tells them apart: says which spans are looked at for that */
	uint64_t ended; /* spans: how many, and the longest, as far as the tail saw them */
	double longest_ns;
	double last; /* counters */
	char name[128]; /* cut */
};

struct open_span {
	uint64_t start_units;
	uint64_t where; /* bit: the arguments are what the watch of that number of its name asks for */
	struct thing *thing;
	uint32_t kind; /* DC_KIND_NONE: it is not looked at */
	uint16_t site;
};

/* How long something was quiet, from looks at when it was last busy. */
struct activity {
	uint64_t last_units;
	uint64_t look_units;
	int64_t look_ns;
	int64_t born_ns; /* of what is known */
	int64_t epoch_ns;
	double gap_ns[2]; /* longest, that came to an end: in this epoch and the one before */
	double silent_ns;
};

/* A thread that works in regular beats: pauses at depth 0, as the tail saw them. */
struct beat {
	uint64_t last_units;
	double count;
	double sum_ns;
	double longest_ns;
};

/* Conditions of rules, by rule_state.id and node: a reload keeps them. */
#define TOLD_MAX 8u
struct told {
	uint32_t count;
	uint32_t ids[TOLD_MAX];
};

struct lane_state {
	uint32_t tid, serial;
	uint8_t trace_id[16];
	uint32_t depth; /* of @stack that is known */
	struct open_span stack[STACK_MAX];
	struct beat beat;
	struct activity activity;
	struct told told; /* conditions that held at the last look */
};

/* A span that was told of: the guest and the tail both bring it. */
struct seen {
	uint64_t units;
	uint32_t tid;
	uint16_t site;
	bool by_guest;
	bool used;
};

struct dc_subject {
	struct dc_evaluate *evaluate;
	struct dc_subject *next, *previous;
	void *process;
	bool heard; /* of, since the last tick */
	int64_t ticked_ns;
	char name[64];
	double ns_per_unit; /* 0: it has no ring */
	struct rule_state **rules; /* as e->rules; NULL: none of its concern */
	struct rule_state **next_rules; /* while rules are loaded anew */
	struct thing *buckets[THING_BUCKETS];
	uint32_t thing_count;
	uint32_t windows; /* watches of names whose value time alone changes: rates, distributions, surges */
	bool logs; /* it logged what a rate is about */
	uint32_t site_room;
	struct thing **sites; /* by id, what is known of them */
	uint32_t lane_room;
	struct lane_state **lanes;
	struct seen seen[SEEN_MAX];
	uint32_t seen_next;
	int64_t lost_ns; /* when the tail left something out last; 0: never */
	uint32_t seen_by_guest; /* of them, that the tail has yet to bring: mostly none, then nothing is compared */
	uint64_t look; /* the last one that saw a lane */
	uint32_t moving, moved; /* lanes that recorded within the last second: so far in this look, in the one before */
	double usually_moving; /* slow mean of it */
	uint64_t newest_units, now_units;
	struct activity activity;
	struct dc_async *async; /* NULL: none yet, or no room */
	uint64_t moment_units; /* when what is being told happened; 0: with the event at hand */
	bool has_vitals;
	struct dc_vitals vitals;
};

struct restarts {
	char name[64];
	uint32_t ended; /* that no start followed yet */
	uint32_t next; /* running count; slot = next % RESTARTS_MAX */
	int64_t at_ns[RESTARTS_MAX];
};

struct dc_evaluate {
	struct dc_rules rules; /* own copy */
	struct dc_evaluate_handler handler;
	void *arg;
	uint32_t wants;
	uint32_t wants_levels; /* bit: of messages of that level some rule wants to hear */
	bool in_no_hurry; /* all rules ship with dashcam */
	struct dc_subject *subjects;
	uint32_t subject_count;
	uint32_t thing_count;
	uint32_t lane_count;
	uint32_t async_tables;
	uint32_t histogram_count;
	uint32_t kinds_count;
	int64_t now_ns; /* last heard */
	uint64_t look; /* running number */
	uint64_t random;
	uint32_t restart_count;
	struct restarts *restarts; /* NAMES_MAX of them, once one is asked for */
};

static inline const struct dc_rule_node *node_of(const struct rule_state *r, unsigned i)
{
	return &r->rule->when.nodes[i];
}

/* Every fact begins with it. */
static inline void hear(struct dc_evaluate *e, struct dc_subject *s, int64_t now_ns)
{
	e->now_ns = now_ns;
	s->heard = true;
}

bool dc_is_of_lane(enum dc_rule_op op); /* evaluate.c: is looked at lane by lane */

/* ---- decide.c ---- */

/*
 * dc_decide() - look at a rule again: states may have changed, time may have passed
 * @moments: bits of conditions that are true now and only now
 * @anew: of conditions that were true already, and are so again, of something else
 */
void dc_decide(struct rule_state *r, uint32_t moments, uint32_t anew, int64_t now_ns);
/* What came true again in this look is counted; nothing of it is lost with the process or the rule. */
void dc_tell_untold(struct rule_state *r);
/* A condition on a state turns, or its value changes while it holds. Return: whether it turned. */
bool dc_node_set(struct node_state *n, bool on, double value, double threshold, int64_t now_ns);
void dc_node_moment(struct node_state *n, double value, double threshold, const struct thing *thing, uint16_t site, uint32_t tid);

/* ---- things.c ---- */

/* The name of a site, known or made known. NULL: no room, no memory, or no name. */
struct thing *dc_thing_of(struct dc_subject *s, uint16_t site, const char *name, enum thing_class class);
void dc_things_free(struct dc_subject *s);
/* A rule goes; rules have come. Watches of those that stay keep what they know. */
void dc_things_drop(struct dc_subject *s, const struct rule_state *gone);
void dc_things_rewatch(struct dc_subject *s);
/* What rates and distributions come to now. */
void dc_things_look(struct dc_subject *s, int64_t now_ns);
/* Return: whether the condition turned, of all names together. */
bool dc_watch_set(struct watch *w, const struct thing *t, bool on, double value, double threshold, int64_t now_ns);
bool dc_watch_percentile(struct watch *w, const struct thing *t, int64_t now_ns);

bool dc_where_holds(const struct dc_rule_expression *e, const struct dc_rule_node *n, const struct dc_event *event);
/* NULL: no memory. */
struct dc_surge *dc_surge_new(const struct dc_rule_node *n, int64_t now_ns);
double dc_number_of(const struct dc_event *event, unsigned i); /* NaN: it is none */

/* ---- events.c ---- */

/* One that ended. */
struct span {
	struct thing *thing;
	uint64_t where;
	uint32_t kind;
	double ns;
	double weight;
	uint16_t site;
	uint32_t tid;
	bool told; /* by the guest */
};
/* Arguments are known when a span begins; what they decide is kept until it ends. Bit i: of watch i of its name. */
uint64_t dc_where_bits(const struct thing *t, const struct dc_event *event);
/* The kind is told by texts from @first on, of spans that are to be looked at. */
uint32_t dc_span_kind(const struct thing *t, const struct dc_event *event, unsigned first, int64_t now_ns);
void dc_span_count(const struct span *span);
/* Return: whether it made any condition true. */
bool dc_span_tell(const struct span *span, int64_t now_ns);

/* ---- asyncs.c ---- */
void dc_asyncs_event(struct dc_subject *s, const struct dc_event *event, double weight, int64_t now_ns);
void dc_asyncs_look(struct dc_subject *s, int64_t now_ns); /* before the end of that of the lanes */
void dc_asyncs_free(struct dc_subject *s);

/* ---- lanes.c ---- */
/* Whether a span of @t that is open for @ns is what @n is about. */
bool dc_open_holds(const struct dc_rule_node *n, const struct thing *t, double ns, double *ret_limit);
struct lane_state *dc_lane_of(struct dc_subject *s, uint32_t lane);
struct lane_state *dc_lane_by_tid(struct dc_subject *s, uint32_t tid);
void dc_lanes_free(struct dc_subject *s);
void dc_lanes_look(struct dc_subject *s, int64_t now_ns); /* at the end of a look */

/* ---- outside.c ---- */
void dc_restarts_started(struct dc_evaluate *e, struct dc_subject *s, int64_t now_ns);
uint32_t dc_vitals_wanted(const struct dc_rule_node *n);
