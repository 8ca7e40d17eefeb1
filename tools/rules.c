/* SPDX-License-Identifier: MIT */
#include "tools/rules.h"

#include <errno.h>
#include <string.h>

#include "tools/text.h"
#include "trigger/budget.h"
#include "trigger/near.h"

#define DAY_NS (UINT64_C(86400) * 1000000000)
#define NOT_GIVEN UINT64_MAX

struct rule_values {
	struct texts when;
	const char *processes;
	int64_t last;
	int64_t after;
	int64_t cooldown;
	uint64_t per_hour;
	const char *scope;
	const char *severity;
	const char *capture;
	const char *run;
	int64_t run_limit;
	uint64_t sample;
	int64_t sample_for;
};

static const struct option rule_key_table[] = {
	{.name = "when",
	 .type = OPTION_TEXTS,
	 .at = offsetof(struct rule_values, when),
	 .value = "EXPRESSION",
	 .help = "when the rule fires, see dashcam-rules(7)"},
	{.name = "processes",
	 .type = OPTION_TEXT,
	 .at = offsetof(struct rule_values, processes),
	 .value = "PATTERN",
	 .help = "the names of the processes it is about (else all)"},
	{.name = "last",
	 .type = OPTION_TIME,
	 .at = offsetof(struct rule_values, last),
	 .value = "TIME",
	 .help = "how far back its captures go (else the window of the watcher)",
	 .max = 7 * DAY_NS,
	 .minus_one = true},
	{.name = "after",
	 .type = OPTION_TIME,
	 .at = offsetof(struct rule_values, after),
	 .value = "TIME",
	 .help = "how long its captures go on (else as the watcher's)",
	 .max = DAY_NS / 24,
	 .minus_one = true},
	{.name = "cooldown",
	 .type = OPTION_TIME,
	 .at = offsetof(struct rule_values, cooldown),
	 .value = "TIME",
	 .help = "time between two captures of the rule (else as the watcher's)",
	 .max = DAY_NS,
	 .minus_one = true},
	{.name = "per-hour",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct rule_values, per_hour),
	 .value = "N",
	 .help = "captures of the rule an hour, 0 for no bound (else as the watcher's)",
	 .max = DC_BUDGET_HOUR_MAX},
	{.name = "scope",
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct rule_values, scope),
	 .value = "process|group|all",
	 .help = "whose past a capture holds: of the process, of its process group, of all (else process)",
	 .choices = "process|group|all"},
	{.name = "severity",
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct rule_values, severity),
	 .value = "low|normal|high",
	 .help = "which captures go first when there is no room: those of low severity (else normal)",
	 .choices = "low|normal|high"},
	{.name = "capture",
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct rule_values, capture),
	 .value = "yes|no",
	 .help = "save the past (else yes)",
	 .choices = "yes|no"},
	{.name = "run",
	 .type = OPTION_TEXT,
	 .at = offsetof(struct rule_values, run),
	 .value = "COMMAND",
	 .help = "run a command by sh -c, as the user of the process, with the incident as JSON on its standard input"},
	{.name = "run-limit",
	 .type = OPTION_TIME,
	 .at = offsetof(struct rule_values, run_limit),
	 .value = "TIME",
	 .help = "how long the command may take (else 10s)",
	 .min = 1000000,
	 .max = DAY_NS / 24},
	{.name = "sample",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct rule_values, sample),
	 .value = "HZ",
	 .help = "sample stacks of these processes so often from then on, more often than --sample says",
	 .min = 1,
	 .max = 1000}, /* what a process that samples itself does at most, and a hundredth of a core or two */
	{.name = "sample-for",
	 .type = OPTION_TIME,
	 .at = offsetof(struct rule_values, sample_for),
	 .value = "TIME",
	 .help = "for so long (else 30s), also when rules are read anew meanwhile; of several rules the highest rate counts",
	 .min = 1000000000,
	 .max = DAY_NS / 24},
	{0},
};

const struct command rule_keys = {.name = "rule", .options = rule_key_table, .options_size = sizeof(struct rule_values)};

struct rule_source {
	struct dc_rules rules;
	struct dc_rules defaults;
	unsigned typed;
	void (*fault)(void *arg, const struct rule_fault *fault);
	void *fault_arg;
	/* the section being read */
	char name[DC_RULE_NAME_BYTES];
	unsigned line;
	struct rule_values values;
};

struct rule_source *rule_source_new(void (*fault)(void *arg, const struct rule_fault *fault), void *arg)
{
	struct rule_source *s = calloc(1, sizeof(*s));

	if (s) {
		s->fault = fault;
		s->fault_arg = arg;
	}
	if (!s || dc_rules_default(&s->defaults) < 0) {
		say("out of memory");
		free(s);
		return NULL;
	}
	return s;
}

void rule_source_free(struct rule_source *s)
{
	dc_rules_cleanup(&s->rules);
	dc_rules_cleanup(&s->defaults);
	free(s);
}

static const struct dc_rule *rule_named(const struct dc_rules *rules, const char *name)
{
	for (uint32_t i = 0; i < rules->count; i++)
		if (strcmp(rules->rules[i].name, name) == 0)
			return &rules->rules[i];
	return NULL;
}

/* ---- one rule ---- */

static int parse(struct rule_source *s, const char *name, unsigned line, const char *text, struct dc_rule_expression *ret_when, char why[256])
{
	struct dc_rule_error error;

	if (dc_rule_parse(text, ret_when, &error) == 0)
		return 0;
	if (s->fault)
		s->fault(s->fault_arg, &(struct rule_fault){.name = name, .line = line, .text = text, .error = &error});
	if (line)
		snprintf(why, 256, "rule '%.60s', column %u: %s", name, error.column, error.why);
	else
		snprintf(why, 256, "column %u: %s", error.column, error.why);
	return -EINVAL;
}

static int add(struct rule_source *s, const struct dc_rule *rule, char why[256])
{
	int r = dc_rules_add(&s->rules, rule);

	if (r == -EEXIST)
		snprintf(why, 256, "rule '%s' is there already", rule->name);
	else if (r == -ENOSPC)
		snprintf(why, 256, "rule '%s' is one too many, at most %u are taken", rule->name, DC_RULES_MAX);
	else if (r < 0)
		snprintf(why, 256, "out of memory");
	return r;
}

static uint32_t severity_of(const char *word)
{
	return strcmp(word, "low") == 0 ? 1 : strcmp(word, "normal") == 0 ? 2 : 3;
}

static enum dc_rule_scope scope_of(const char *word)
{
	return strcmp(word, "process") == 0 ? DC_RULE_SCOPE_PROCESS : strcmp(word, "group") == 0 ? DC_RULE_SCOPE_GROUP : DC_RULE_SCOPE_ALL;
}

static int copy_text(char *to, size_t size, const char *key, const char *text, char why[256])
{
	if (!text)
		return 0;
	if (strlen(text) >= size) {
		snprintf(why, 256, "%s: '%.60s...' is too long, at most %zu bytes are taken", key, text, size - 1);
		return -EINVAL;
	}
	strcpy(to, text);
	return 0;
}

/* What was given, over what is there. */
static int apply(const struct rule_values *v, struct dc_rule *rule, char why[256])
{
	int r = copy_text(rule->processes, sizeof(rule->processes), "processes", v->processes, why);

	if (r == 0)
		r = copy_text(rule->run, sizeof(rule->run), "run", v->run, why);
	if (v->last >= 0)
		rule->last_ns = v->last;
	if (v->after >= 0)
		rule->after_ns = v->after;
	if (v->cooldown >= 0)
		rule->cooldown_ns = v->cooldown;
	if (v->per_hour != NOT_GIVEN)
		rule->per_hour = (int32_t)v->per_hour;
	if (v->scope)
		rule->scope = scope_of(v->scope);
	if (v->severity)
		rule->severity = severity_of(v->severity);
	if (v->capture)
		rule->capture = strcmp(v->capture, "yes") == 0;
	if (v->run_limit)
		rule->run_limit_ns = v->run_limit;
	if (v->sample)
		rule->sample_hz = (uint32_t)v->sample;
	if (v->sample_for)
		rule->sample_for_ns = v->sample_for;
	return r;
}

/* ---- sections ---- */

static int section_open(void *arg, const char *which, unsigned line, void **ret_values, char why[static 256])
{
	struct rule_source *s = arg;
	const char *near = NULL;
	unsigned best = 99;

	if (!*which || strlen(which) >= sizeof(s->name) || strpbrk(which, " \t'\"")) {
		snprintf(why, 256, "[rule %.50s]: expected a name of one word", which);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < s->defaults.count; i++)
		if (dc_near(which, s->defaults.rules[i].name, &best))
			near = s->defaults.rules[i].name;
	if (strncmp(which, "default.", 8) == 0 && !rule_named(&s->defaults, which)) {
		snprintf(why, 256, "[rule %s]: no rule of this name ships with dashcam%s%s%s", which, near ? " (did you mean '" : "",
			 near ? near : "", near ? "'?)" : "");
		return -EINVAL;
	}
	strcpy(s->name, which);
	s->line = line;
	command_defaults(&rule_keys, &s->values);
	s->values.per_hour = NOT_GIVEN;
	*ret_values = &s->values;
	return 0;
}

/* Lines of one expression, as one. */
static int join(const struct texts *lines, char text[DC_RULE_TEXT_BYTES], char why[256])
{
	size_t at = 0;

	*text = '\0';
	for (unsigned i = 0; i < lines->count; i++) {
		at += (size_t)snprintf(text + at, DC_RULE_TEXT_BYTES - at, "%s%s", i > 0 ? " " : "", lines->items[i]);
		if (at < DC_RULE_TEXT_BYTES)
			continue;
		snprintf(why, 256, "when: the expression is too long, at most %u bytes are taken", DC_RULE_TEXT_BYTES - 1);
		return -EINVAL;
	}
	return 0;
}

static int section_close(void *arg, char why[static 256])
{
	struct rule_source *s = arg;
	const struct dc_rule *shipped = rule_named(&s->defaults, s->name);
	char text[DC_RULE_TEXT_BYTES];
	struct dc_rule rule;
	int r = join(&s->values.when, text, why);

	if (r < 0)
		return r;
	if (!*text && !shipped) {
		snprintf(why, 256, "rule '%s' has no key 'when'", s->name);
		return -EINVAL;
	}
	dc_rule_defaults(&rule);
	if (shipped)
		rule = *shipped;
	strcpy(rule.name, s->name);
	r = *text ? parse(s, s->name, s->line, text, &rule.when, why) : 0;
	if (r < 0 && s->fault)
		return 0;
	if (r == 0)
		r = apply(&s->values, &rule, why);
	return r < 0 ? r : add(s, &rule, why);
}

struct config_kind rule_source_kind(struct rule_source *s)
{
	return (struct config_kind){.command = &rule_keys, .open = section_open, .close = section_close, .arg = s};
}

/* ---- all of them ---- */

int rule_source_typed(struct rule_source *s, const struct texts *when)
{
	struct dc_rule rule;
	char why[256];
	int r = 0;

	for (unsigned i = 0; i < when->count && r == 0; i++) {
		dc_rule_defaults(&rule);
		snprintf(rule.name, sizeof(rule.name), "when-%u", ++s->typed);
		r = parse(s, rule.name, 0, when->items[i], &rule.when, why);
		if (r < 0 && s->fault) {
			r = 0;
			continue;
		}
		if (r == 0)
			r = add(s, &rule, why);
		if (r < 0)
			say("--when: %s", why);
	}
	return r;
}

static int check_rate(const struct dc_rule *rule, uint64_t sample_hz)
{
	if (!rule->sample_hz || rule->sample_hz > sample_hz)
		return 0;
	say("rule '%s': sample = %u raises nothing, %llu stacks a second are sampled anyway", rule->name, rule->sample_hz,
	    (unsigned long long)sample_hz);
	return -EINVAL;
}

int rule_source_take(struct rule_source *s, bool defaults, uint64_t sample_hz, struct dc_rules *ret_rules)
{
	struct dc_rules all = {0};
	int r = 0;

	for (uint32_t i = 0; defaults && i < s->defaults.count && r == 0; i++)
		if (!rule_named(&s->rules, s->defaults.rules[i].name))
			r = dc_rules_add(&all, &s->defaults.rules[i]);
	for (uint32_t i = 0; i < s->rules.count && r == 0; i++)
		r = dc_rules_add(&all, &s->rules.rules[i]);
	for (uint32_t i = 0; i < s->rules.count && r == 0; i++)
		r = check_rate(&s->rules.rules[i], sample_hz);
	if (r < 0) {
		if (r != -EINVAL)
			say(r == -ENOSPC ? "too many rules: at most %u are taken, with those that ship" : "out of memory", DC_RULES_MAX);
		dc_rules_cleanup(&all);
		return r;
	}
	*ret_rules = all;
	return 0;
}

static bool is_first_byte(char c)
{
	return ((unsigned char)c & 0xc0) != 0x80;
}

void rule_point(FILE *out, const char *text, const struct dc_rule_error *error)
{
	unsigned at = 0;

	fputs("  ", out);
	text_print(out, text, strlen(text));
	fputs("\n  ", out);
	for (; at + 1u < error->column && text[at]; at++)
		if (is_first_byte(text[at]))
			putc(' ', out);
	for (unsigned i = 0; i < error->length; i++)
		if (i == 0 || (text[at + i - 1] && text[at + i] && is_first_byte(text[at + i])))
			putc(i == 0 ? '^' : '~', out);
	putc('\n', out);
}
