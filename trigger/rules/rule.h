/* SPDX-License-Identifier: MIT */
/*
 * When the past is worth keeping: a rule, from its text to a tree that others evaluate.
 *
 *     rule       = or [ "every" NUMBER ( "-th" | "th" | "st" | "nd" | "rd" ) ] [ "probability" NUMBER "%" ]
 *     or         = and { "or" and }
 *     and        = not { "and" not }
 *     not        = [ "not" ] timed
 *     timed      = primary [ "for" TIME | "within" TIME ]
 *     primary    = "(" or ")" | leaf
 *     leaf       = "span" NAME [ where ] ( compare TIME | "open" compare TIME | "open" "unusual" | "unusual" [ "1" "in" NUMBER ]
 *                                        | "slower" [ compare TIME ] | PERCENTILE compare TIME "over" TIME | rate )
 *                | "event" NAME [ where ] [ rate ]
 *                | "log" [ compare LEVEL ] [ rate ]
 *                | "counter" NAME ( compare NUMBER | "unusual" )
 *                | "silent" | "thread" "silent" | "stopped" | "D" "state"
 *                | "exit" "signal" | "exit" "code" compare NUMBER | "exec" | "restart" compare NUMBER "in" TIME
 *                | "cpu" compare PERCENT | "rss" compare ( SIZE | limit ) | "rss" "grows" compare SIZE "/" UNIT
 *                | "fds" compare ( NUMBER | limit ) | "threads" compare ( NUMBER | limit ) | "major-faults" "rate" compare RATE [ "over" TIME ]
 *                | "throttled" compare PERCENT "over" TIME | "memory.events" "oom"
 *                | "psi" ( "cpu" | "memory" | "io" ) ( "some" | "full" ) compare PERCENT [ "over" TIME ]
 *     where      = "where" KEY compare ( STRING | NUMBER ) { "," KEY compare ( STRING | NUMBER ) }
 *     rate       = "rate" ( compare RATE [ "over" TIME ] | "unusual" )
 *     limit      = PERCENT "of" "limit"
 *     compare    = ">" | ">=" | "<" | "<=" | "==" | "!="
 *
 * NAME and STRING stand in double quotes; a NAME is a pattern of fnmatch(3). TIME is 250ms, 30s, 5m; RATE 1000/s, 3/min;
 * SIZE 2GiB; PERCENTILE p50, p99, p99.9. `for`: true all that time without a break; `within`: true at some moment of it.
 * The man page dashcam-rules(7) is this grammar in sentences.
 *
 * Trees are bounded (DC_RULE_NODES_MAX) and immutable: what a rule has seen is the evaluator's (evaluate.h).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/incident.h"

#define DC_RULE_NODES_MAX 32u
#define DC_RULE_WHERE_MAX 8u /* in all of an expression */
#define DC_RULE_TEXT_BYTES 512u

enum dc_rule_op {
	DC_RULE_AND = 1, /* of the two nodes @left, @right */
	DC_RULE_OR,
	DC_RULE_NOT, /* of @left */
	DC_RULE_FOR, /* @left, all of the last @over_ns */
	DC_RULE_WITHIN, /* @left, at some moment of the last @over_ns */
	/* leaves: what the program recorded */
	DC_RULE_SPAN_LASTS, /* one that ends now and lasted @compare @number ns */
	DC_RULE_SPAN_UNUSUAL, /* one that ends now, beyond what all but one in @number last; 0: the default */
	DC_RULE_SPAN_SLOWER, /* one that ends now, as many of its kind far slower than they were, and than @number ns */
	DC_RULE_SPAN_PERCENTILE, /* @percentile of the last @over_ns, @compare @number ns */
	DC_RULE_SPAN_OPEN, /* one not ended for @compare @number ns */
	DC_RULE_SPAN_OPEN_UNUSUAL, /* one not ended for far longer than its like ever took */
	DC_RULE_SPAN_RATE, /* ends per second over @over_ns */
	DC_RULE_EVENT, /* one happens */
	DC_RULE_EVENT_RATE,
	DC_RULE_LOG, /* one of a level @level_compare @level */
	DC_RULE_LOG_RATE,
	DC_RULE_COUNTER, /* last value @compare @number */
	/* ... and what can be seen of it from outside */
	DC_RULE_SILENT, /* no thread of the process records any more, which always did */
	DC_RULE_THREAD_SILENT, /* one thread */
	DC_RULE_STOPPED, /* T state */
	DC_RULE_D_STATE, /* a thread in uninterruptible sleep */
	DC_RULE_EXIT_SIGNAL,
	DC_RULE_EXIT_CODE,
	DC_RULE_EXEC,
	DC_RULE_RESTART, /* so many processes of that name started in @over_ns */
	DC_RULE_CPU, /* percent of one core */
	DC_RULE_RSS, /* bytes */
	DC_RULE_RSS_GROWS, /* bytes per second, over @over_ns */
	DC_RULE_FDS,
	DC_RULE_THREADS,
	DC_RULE_MAJOR_FAULTS, /* per second, over @over_ns */
	DC_RULE_THROTTLED, /* percent of the cgroup's periods, over @over_ns */
	DC_RULE_OOM, /* memory.events of the cgroup: oom or oom_kill went up */
	DC_RULE_PSI, /* percent of the time, over @over_ns */
};

enum dc_rule_compare { DC_RULE_GT = 1, DC_RULE_GE, DC_RULE_LT, DC_RULE_LE, DC_RULE_EQ, DC_RULE_NE };
enum dc_rule_pressure { DC_RULE_PSI_CPU = 1, DC_RULE_PSI_MEMORY, DC_RULE_PSI_IO };

struct dc_rule_where {
	char key[64];
	enum dc_rule_compare compare;
	bool is_text; /* EQ and NE only; the pattern of fnmatch(3) is in @text */
	double number;
	char text[128];
};

struct dc_rule_node {
	enum dc_rule_op op;
	uint8_t left, right; /* indices into nodes[] */
	uint16_t column; /* of its first word in the text, from 1; and how long it is there */
	uint16_t length;
	char name[128]; /* SPAN_*, EVENT*, COUNTER: pattern */
	enum dc_rule_compare compare;
	double number; /* ns, bytes, per second, percent, or as written */
	bool unusual; /* *_RATE, COUNTER: instead of a comparison, far above what it lately was */
	bool of_limit; /* RSS, FDS, THREADS: @number is percent of what the process may have */
	double percentile; /* 0..100 */
	int64_t over_ns;
	uint8_t level; /* enum dc_level */
	enum dc_rule_compare level_compare;
	enum dc_rule_pressure pressure;
	bool full; /* PSI: full, else some */
	uint8_t where; /* index of the first of its conditions in where[] */
	uint8_t where_count;
};

struct dc_rule_expression {
	char text[DC_RULE_TEXT_BYTES]; /* as written */
	uint8_t root; /* the last node: those that a node is made of stand before it */
	uint8_t count;
	uint32_t every; /* fire each so-many-th time; 0, 1: each */
	double probability; /* 0..1 */
	struct dc_rule_node nodes[DC_RULE_NODES_MAX];
	uint8_t where_count;
	struct dc_rule_where where[DC_RULE_WHERE_MAX];
};

struct dc_rule_error {
	uint16_t column; /* from 1 */
	uint16_t length; /* of what is wrong there, at least 1 */
	char why[160]; /* "expected a time such as 250ms, found '250'" */
};

/* dc_rule_parse() - Return: 0; -EINVAL and *@ret_error. */
int dc_rule_parse(const char *text, struct dc_rule_expression *ret_expression, struct dc_rule_error *ret_error);

/* dc_rule_explain() - one sentence for people: "when one span 'http.request' lasts longer than 250 ms". */
void dc_rule_explain(const struct dc_rule_expression *e, char *ret_text, size_t size);

bool dc_rule_compares(enum dc_rule_compare compare, double value, double number);

/* Of the value of a condition, and of what it is compared with. DC_UNIT_NONE: it happens, or holds. */
enum dc_unit dc_rule_unit(const struct dc_rule_node *leaf);
/* Where it is compared with a part of a limit: of that. */
enum dc_unit dc_rule_amount_unit(const struct dc_rule_node *leaf);

/* ---- a rule: an expression, and what follows from it ---- */

enum dc_rule_scope {
	DC_RULE_SCOPE_PROCESS = 0, /* all images of the process that it came true for */
	DC_RULE_SCOPE_GROUP, /* and of every recorded process in its process group */
	DC_RULE_SCOPE_ALL,
};

#define DC_RULE_NAME_BYTES 64u
#define DC_RULE_HERE_DEFAULT INT64_C(-1) /* as the watcher's own option says */

struct dc_rule {
	char name[DC_RULE_NAME_BYTES]; /* section of the configuration; "when-1" ... of --when; of defaults "default.NAME" */
	struct dc_rule_expression when;
	char processes[96]; /* pattern of process names it is about; empty: all */
	int64_t last_ns; /* window before and after; DC_RULE_HERE_DEFAULT */
	int64_t after_ns;
	int64_t cooldown_ns;
	int32_t per_hour; /* -1: as the watcher's own option says */
	enum dc_rule_scope scope;
	uint32_t severity; /* 1..3 */
	bool capture; /* action: save the past */
	char run[256]; /* action: a command, through sh -c, incident as JSON on stdin; empty: none */
	int64_t run_limit_ns;
	uint32_t sample_hz; /* action: sample so often ... 0: no */
	int64_t sample_for_ns; /* ... for so long */
	bool quiet; /* ships with dashcam */
};

struct dc_rules {
	uint32_t count;
	struct dc_rule *rules;
};

/* A rule with all else at its default: captures, this process, severity 2. */
void dc_rule_defaults(struct dc_rule *rule);

/*
 * dc_rules_default() - those that ship enabled and need no numbers: death by a signal, unusual spans, spans of a kind that
 * became slower, a thread that fell silent, a span open far longer than its like, storms of warnings, queues that grow,
 * descriptors, threads or memory close to what the process may have, a process that was stopped
 * Return: 0, -ENOMEM.
 */
int dc_rules_default(struct dc_rules *ret_rules);
/* dc_rules_add() - a copy of @rule. Return: 0; -EEXIST: one of that name is there; -ENOSPC: 64; -ENOMEM. */
#define DC_RULES_MAX 64u
int dc_rules_add(struct dc_rules *rules, const struct dc_rule *rule);
void dc_rules_cleanup(struct dc_rules *rules);
/* Whether a rule that somebody wrote is about what can be seen of any process from outside; about exec; raises the rate. */
bool dc_rules_outside(const struct dc_rules *rules);
bool dc_rules_exec(const struct dc_rules *rules);
bool dc_rules_raise(const struct dc_rules *rules);
