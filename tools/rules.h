/* SPDX-License-Identifier: MIT */
/*
 * Where the rules of a watcher come from: those that ship with dashcam, the sections [rule NAME] of a configuration, --when of
 * the command line. A section [rule default.NAME] changes the one that ships under that name.
 */
#pragma once

#include "tools/config.h"
#include "trigger/rules/rule.h"

struct rule_source;

/* The keys of a section; its values are this file's own. */
extern const struct command rule_keys;

/* What is wrong with an expression: where it was written, and its column there. */
struct rule_fault {
	const char *name; /* of the rule */
	unsigned line; /* of its section; 0: typed */
	const char *text;
	const struct dc_rule_error *error;
};

/*
 * rule_source_new() - nothing yet
 * @fault: hears of each expression that is wrong, which is then left out; NULL: the first one ends the loading, in a line.
 */
struct rule_source *rule_source_new(void (*fault)(void *arg, const struct rule_fault *fault), void *arg);
void rule_source_free(struct rule_source *s);
DC_DEFINE_CLEANUP(rule_source, struct rule_source *, rule_source_free)

/* For config_load(). */
struct config_kind rule_source_kind(struct rule_source *s);
/* Expressions of --when, named when-1 and so on. Return: 0; -EINVAL after a line on stderr. */
int rule_source_typed(struct rule_source *s, const struct texts *when);
/*
 * All of it, behind those that ship if @defaults. The caller cleans it up.
 * @sample_hz: how often stacks are sampled anyway: a rule that asks for no more is refused.
 * Return: 0; -EINVAL, -ENOMEM after a line on stderr.
 */
int rule_source_take(struct rule_source *s, bool defaults, uint64_t sample_hz, struct dc_rules *ret_rules);

/* "  span ... > 250\n                ^~~\n": the text, and where in it the error is. */
void rule_point(FILE *out, const char *text, const struct dc_rule_error *error);
