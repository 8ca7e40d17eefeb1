/* SPDX-License-Identifier: MIT */
/*
 * How many captures a rule may cause: a program that fires in a loop must not fill the disk, nor may one rule use up
 * what another needs. What is refused is counted, and the next capture that is made says how many there were.
 *
 * A rule is known by its name: a section of the configuration, or the kind of trigger ("api", "command", "death" ...)
 * together with the uid, so that one user's noise does not silence another's alarm. Times are CLOCK_MONOTONIC ns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DC_BUDGET_RULES_MAX 256u
#define DC_BUDGET_HOUR_MAX 1000u

struct dc_budget_limits {
	int64_t cooldown_ns; /* between two captures of one rule */
	uint32_t per_hour;   /* captures of one rule in any hour; 0: no bound */
};

struct dc_budget;

int dc_budget_new(const struct dc_budget_limits *limits, struct dc_budget **ret_budget);
void dc_budget_free(struct dc_budget *b);

enum dc_budget_verdict {
	DC_BUDGET_YES = 0,
	DC_BUDGET_COOLDOWN = 1,
	DC_BUDGET_HOUR = 2,
	DC_BUDGET_MEMORY = 3,
};

/*
 * dc_budget_take() - may this rule fire now?
 * DC_BUDGET_YES takes one from the budget and sets *@ret_suppressed to how often the rule was refused since
 * its capture before; any other verdict counts as refused, this time included.
 */
enum dc_budget_verdict dc_budget_take(struct dc_budget *b, const char *rule, uint32_t uid, int64_t now_ns,
				      uint32_t *ret_suppressed);
/* The same for a rule with limits of its own; they may have changed since it was asked for last. */
enum dc_budget_verdict dc_budget_take_within(struct dc_budget *b, const struct dc_budget_limits *limits, const char *rule,
					     uint32_t uid, int64_t now_ns, uint32_t *ret_suppressed);

/* It would have fired so often more, and nobody asked. */
void dc_budget_refuse(struct dc_budget *b, const char *rule, uint32_t uid, uint64_t count);

/* When the rule may fire again after a refusal; for messages. */
int64_t dc_budget_next_ns(const struct dc_budget *b, const char *rule, uint32_t uid, int64_t now_ns);

/* What was allowed and refused of a rule, ever, over all users. */
void dc_budget_count(const struct dc_budget *b, const char *rule, uint64_t *ret_taken, uint64_t *ret_suppressed);

/* All refusals ever. */
uint64_t dc_budget_suppressed(const struct dc_budget *b);
