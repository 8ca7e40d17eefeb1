/* SPDX-License-Identifier: MIT */
#include "trigger/rules/rule.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define SECOND_NS INT64_C(1000000000)

/*
 * What a healthy program may leave open, or have take long, for as long as it likes: waiting for work, for peers, and
 * whole lives of connections and loops. Of all the rest a long one is worth a look. (Of waits, lock.wait is one.)
 */
#define NOT_IDLE "!(*idle*|*park*|*sleep*|*accept*|*poll.wait*|*epoll*|queue.wait*|*conn*|*session*|*.loop|main|io.read)"

/* Counters that say how many wait for somebody. Others grow for good reasons, totals for ever. */
#define QUEUE "@(*queue*|*waiting*|*backlog*|*pending*)"

bool dc_rule_compares(enum dc_rule_compare compare, double value, double number)
{
	if (isnan(value))
		return false; /* no value at all, which also != does not mean */
	switch (compare) {
	case DC_RULE_GT:
		return value > number;
	case DC_RULE_GE:
		return value >= number;
	case DC_RULE_LT:
		return value < number;
	case DC_RULE_LE:
		return value <= number;
	case DC_RULE_EQ:
		return !(value < number) && !(value > number);
	case DC_RULE_NE:
		return value < number || value > number;
	}
	return false;
}

enum dc_unit dc_rule_amount_unit(const struct dc_rule_node *leaf)
{
	switch (leaf->op) {
	case DC_RULE_SPAN_LASTS:
	case DC_RULE_SPAN_UNUSUAL:
	case DC_RULE_SPAN_SLOWER:
	case DC_RULE_SPAN_PERCENTILE:
	case DC_RULE_SPAN_OPEN:
	case DC_RULE_SPAN_OPEN_UNUSUAL:
	case DC_RULE_SILENT:
	case DC_RULE_THREAD_SILENT:
		return DC_UNIT_NS;
	case DC_RULE_SPAN_RATE:
	case DC_RULE_EVENT_RATE:
	case DC_RULE_LOG_RATE:
	case DC_RULE_MAJOR_FAULTS:
		return DC_UNIT_PER_SECOND;
	case DC_RULE_CPU:
	case DC_RULE_THROTTLED:
	case DC_RULE_PSI:
		return DC_UNIT_PERCENT;
	case DC_RULE_COUNTER:
		return DC_UNIT_NUMBER;
	case DC_RULE_EXIT_CODE:
		return DC_UNIT_EXIT_CODE;
	case DC_RULE_EXIT_SIGNAL:
		return DC_UNIT_SIGNAL;
	case DC_RULE_RESTART:
		return DC_UNIT_TIMES;
	case DC_RULE_FDS:
		return DC_UNIT_DESCRIPTORS;
	case DC_RULE_THREADS:
		return DC_UNIT_THREADS;
	case DC_RULE_RSS:
		return DC_UNIT_BYTES;
	case DC_RULE_RSS_GROWS:
		return DC_UNIT_BYTES_PER_SECOND;
	case DC_RULE_AND:
	case DC_RULE_OR:
	case DC_RULE_NOT:
	case DC_RULE_FOR:
	case DC_RULE_WITHIN:
	case DC_RULE_EVENT:
	case DC_RULE_LOG:
	case DC_RULE_STOPPED:
	case DC_RULE_D_STATE:
	case DC_RULE_EXEC:
	case DC_RULE_OOM:
		return DC_UNIT_NONE;
	}
	return DC_UNIT_NONE;
}

enum dc_unit dc_rule_unit(const struct dc_rule_node *leaf)
{
	return leaf->of_limit ? DC_UNIT_PERCENT : dc_rule_amount_unit(leaf);
}

void dc_rule_defaults(struct dc_rule *rule)
{
	*rule = (struct dc_rule){
		.last_ns = DC_RULE_HERE_DEFAULT,
		.after_ns = DC_RULE_HERE_DEFAULT,
		.cooldown_ns = DC_RULE_HERE_DEFAULT,
		.per_hour = -1,
		.severity = 2,
		.capture = true,
		.run_limit_ns = 10 * SECOND_NS,
		.sample_for_ns = 30 * SECOND_NS,
	};
}

int dc_rules_add(struct dc_rules *rules, const struct dc_rule *rule)
{
	struct dc_rule *more;

	for (uint32_t i = 0; i < rules->count; i++)
		if (strcmp(rules->rules[i].name, rule->name) == 0)
			return -EEXIST;
	if (rules->count == DC_RULES_MAX)
		return -ENOSPC;
	more = realloc(rules->rules, (rules->count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	rules->rules = more;
	more[rules->count++] = *rule;
	return 0;
}

static bool any_leaf(const struct dc_rules *rules, enum dc_rule_op from, enum dc_rule_op to)
{
	for (uint32_t i = 0; rules && i < rules->count; i++)
		for (uint32_t n = 0; n < rules->rules[i].when.count && !rules->rules[i].quiet; n++)
			if (rules->rules[i].when.nodes[n].op >= from && rules->rules[i].when.nodes[n].op <= to)
				return true;
	return false;
}

bool dc_rules_outside(const struct dc_rules *rules)
{
	return any_leaf(rules, DC_RULE_STOPPED, DC_RULE_PSI);
}

bool dc_rules_exec(const struct dc_rules *rules)
{
	return any_leaf(rules, DC_RULE_EXEC, DC_RULE_EXEC);
}

bool dc_rules_raise(const struct dc_rules *rules)
{
	for (uint32_t i = 0; rules && i < rules->count; i++)
		if (rules->rules[i].sample_hz)
			return true;
	return false;
}

void dc_rules_cleanup(struct dc_rules *rules)
{
	free(rules->rules);
	*rules = (struct dc_rules){0};
}

/*
 * Each stays quiet on a healthy program: what is unusual has also to be long enough for people to care, and evidence of
 * the same is not wanted every ten seconds.
 */
static const struct {
	const char *name;
	const char *when;
	uint32_t severity;
	bool budgeted;
} defaults[] = {
	{"default.exit-signal", "exit signal", 3, false},
	{"default.unusual", "span \"" NOT_IDLE "\" unusual and span \"*\" > 100ms", 2, true},
	{"default.slower", "span \"" NOT_IDLE "\" slower > 50ms", 2, true},
	{"default.silent-thread", "thread silent", 2, true},
	{"default.open-unusual", "span \"" NOT_IDLE "\" open unusual", 2, true},
	{"default.log-unusual", "log >= warn rate unusual and log >= warn rate > 50/s over 3s", 2, true},
	{"default.queue-unusual", "counter \"" QUEUE "\" unusual", 2, true},
	{"default.descriptors", "fds > 90% of limit", 2, true},
	{"default.threads", "threads > 90% of limit", 2, true},
	{"default.memory", "rss > 90% of limit", 2, true},
	{"default.stopped", "stopped for 3s", 2, true},
};

static int add_default(struct dc_rules *rules, unsigned i)
{
	struct dc_rule_error error;
	struct dc_rule rule;
	int r;

	dc_rule_defaults(&rule);
	r = dc_rule_parse(defaults[i].when, &rule.when, &error);
	if (r < 0)
		return r;
	strcpy(rule.name, defaults[i].name);
	rule.severity = defaults[i].severity;
	rule.quiet = true;
	if (defaults[i].budgeted) {
		rule.cooldown_ns = 60 * SECOND_NS;
		rule.per_hour = 10;
	}
	return dc_rules_add(rules, &rule);
}

int dc_rules_default(struct dc_rules *ret_rules)
{
	struct dc_rules rules = {0};

	for (unsigned i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++) {
		int r = add_default(&rules, i);

		if (r < 0) {
			dc_rules_cleanup(&rules);
			return r;
		}
	}
	*ret_rules = rules;
	return 0;
}
