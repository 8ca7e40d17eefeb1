/* SPDX-License-Identifier: MIT */
/* dashcam rules: what rules say, in sentences; where one is wrong. */
#include <errno.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/json.h"
#include "tools/rules.h"
#include "tools/text.h"
#include "tools/watching.h"

#define SENTENCE_BYTES 2048u
#define FAULTS_MAX 64u

struct rules_options {
	struct texts when;
	bool json;
};

static const struct option rules_option_table[] = {
	{.name = "when",
	 .type = OPTION_TEXTS,
	 .at = offsetof(struct rules_options, when),
	 .value = "EXPRESSION",
	 .help = "explain an expression, as 'dashcam run --when' takes it; may be given several times"},
	{.name = "json", .type = OPTION_FLAG, .at = offsetof(struct rules_options, json), .help = "print JSON"},
	{0},
};

struct fault {
	char name[DC_RULE_NAME_BYTES];
	char text[DC_RULE_TEXT_BYTES];
	unsigned line;
	struct dc_rule_error error;
};

struct checking {
	const char *path; /* NULL: typed */
	bool json;
	uint32_t count;
	struct fault faults[FAULTS_MAX];
};

static void on_fault(void *arg, const struct rule_fault *f)
{
	struct checking *c = arg;
	struct fault *keep = &c->faults[c->count < FAULTS_MAX ? c->count++ : FAULTS_MAX - 1];

	snprintf(keep->name, sizeof(keep->name), "%s", f->name);
	snprintf(keep->text, sizeof(keep->text), "%s", f->text);
	keep->line = f->line;
	keep->error = *f->error;
	if (c->json)
		return;
	if (f->line)
		say("'%s' line %u: rule '%s', column %u: %s", c->path, f->line, f->name, f->error->column, f->error->why);
	else
		say("--when, column %u: %s", f->error->column, f->error->why);
	rule_point(stderr, f->text, f->error);
}

/* ---- words ---- */

static const char *severity_word(uint32_t severity)
{
	return severity <= 1 ? "low" : severity == 2 ? "normal" : "high";
}

static const char *scope_word(enum dc_rule_scope scope)
{
	return scope == DC_RULE_SCOPE_PROCESS ? "process" : scope == DC_RULE_SCOPE_GROUP ? "group" : "all";
}

static void print_capture(const struct dc_rule *r)
{
	static const char *const of[] = {"the process", "its process group", "all processes"};

	printf("save the past of %s", of[r->scope]);
	if (r->last_ns >= 0)
		printf(", %s back", text_span(r->last_ns).s);
	if (r->after_ns >= 0)
		printf(", %s more", text_span(r->after_ns).s);
	if (r->severity != 2)
		printf(", severity %s", severity_word(r->severity));
	if (r->cooldown_ns >= 0)
		printf(", once in %s", text_span(r->cooldown_ns).s);
	if (r->per_hour > 0)
		printf(", %d an hour", r->per_hour);
}

static void print_actions(const struct dc_rule *r)
{
	const char *comma = "";

	fputs("  then ", stdout);
	if (r->capture) {
		print_capture(r);
		comma = "; ";
	}
	if (*r->run) {
		printf("%srun ", comma);
		text_quote(stdout, r->run, strlen(r->run));
		printf(" for at most %s", text_span(r->run_limit_ns).s);
		comma = "; ";
	}
	if (r->sample_hz) {
		printf("%ssample stacks %u times a second for %s", comma, r->sample_hz, text_span(r->sample_for_ns).s);
		comma = "; ";
	}
	puts(*comma ? "" : "nothing");
}

static void print_rule(const struct dc_rule *r)
{
	char sentence[SENTENCE_BYTES];

	text_print(stdout, r->name, strlen(r->name));
	if (*r->processes) {
		fputs(", of processes ", stdout);
		text_quote(stdout, r->processes, strlen(r->processes));
	}
	fputs("\n  ", stdout);
	dc_rule_explain(&r->when, sentence, sizeof(sentence));
	text_print(stdout, sentence, strlen(sentence));
	putchar('\n');
	print_actions(r);
}

/* ---- JSON ---- */

static void json_time(struct json *j, const char *key, int64_t ns)
{
	if (ns < 0)
		json_null(j, key);
	else
		json_i64(j, key, ns);
}

static void json_rule(struct json *j, const struct dc_rule *r)
{
	char sentence[SENTENCE_BYTES];

	dc_rule_explain(&r->when, sentence, sizeof(sentence));
	json_object(j, NULL);
	json_text(j, "name", r->name);
	json_text(j, "when", r->when.text);
	json_text(j, "sentence", sentence);
	json_text(j, "processes", r->processes);
	json_time(j, "last_ns", r->last_ns);
	json_time(j, "after_ns", r->after_ns);
	json_time(j, "cooldown_ns", r->cooldown_ns);
	json_time(j, "per_hour", r->per_hour);
	json_text(j, "scope", scope_word(r->scope));
	json_text(j, "severity", severity_word(r->severity));
	json_bool(j, "capture", r->capture);
	json_text(j, "run", r->run);
	json_i64(j, "run_limit_ns", r->run_limit_ns);
	json_u64(j, "sample_hz", r->sample_hz);
	json_i64(j, "sample_for_ns", r->sample_for_ns);
	json_end(j);
}

static int print_json(const struct dc_rules *rules, const struct checking *c)
{
	struct json j;

	json_init(&j, stdout, true);
	json_object(&j, NULL);
	json_array(&j, "rules");
	for (uint32_t i = 0; i < rules->count; i++)
		json_rule(&j, &rules->rules[i]);
	json_end(&j);
	json_array(&j, "errors");
	for (uint32_t i = 0; i < c->count; i++) {
		const struct fault *f = &c->faults[i];

		json_object(&j, NULL);
		json_text(&j, "rule", f->name);
		json_u64(&j, "line", f->line);
		json_text(&j, "text", f->text);
		json_u64(&j, "column", f->error.column);
		json_u64(&j, "length", f->error.length);
		json_text(&j, "why", f->error.why);
		json_end(&j);
	}
	json_end(&j);
	json_end(&j);
	return json_finish(&j);
}

/* ---- the command ---- */

/* All that a watcher would take from the file, [watch] included: what it would refuse is refused here. */
static int read_rules(const struct rules_options *o, struct checking *c, struct dc_rules *ret_rules)
{
	CLEANUP(rule_source) struct rule_source *source = rule_source_new(on_fault, c);
	CLEANUP(config) struct config config = {0};
	bool defaults = !c->path && o->when.count == 0;
	uint64_t sample_hz = 0;
	int r = source ? 0 : -ENOMEM;

	if (r == 0 && c->path)
		r = watch_check(&config, c->path, source, &defaults, &sample_hz);
	if (r == 0)
		r = rule_source_typed(source, &o->when);
	return r < 0 ? r : rule_source_take(source, defaults, sample_hz, ret_rules);
}

static int check(const struct rules_options *o, const char *path)
{
	CLEANUP(free) struct checking *c = calloc(1, sizeof(*c));
	struct dc_rules rules;
	int r;

	if (!c)
		return failure("out of memory");
	c->path = path;
	c->json = o->json;
	r = read_rules(o, c, &rules);
	if (r < 0)
		return r == -EINVAL ? EXIT_DAMAGED : EXIT_FAILED; /* wrong; not there, not ours to read */
	if (o->json)
		r = print_json(&rules, c);
	else
		for (uint32_t i = r = 0; i < rules.count; i++)
			print_rule(&rules.rules[i]);
	dc_rules_cleanup(&rules);
	return r < 0 ? failure("standard output: %s", strerror(-r)) : c->count ? EXIT_DAMAGED : EXIT_OK;
}

static int rules_run(const void *options, const struct operands *operands)
{
	if (operands->count == 0)
		return check(options, NULL);
	if (strcmp(operands->items[0], "check") != 0)
		return usage_error("unknown word '%s', expected 'check FILE'", operands->items[0]);
	if (operands->count != 2)
		return usage_error("expected a configuration: dashcam rules check FILE");
	return check(options, operands->items[1]);
}

const struct command cmd_rules = {
	.name = "rules",
	.summary = "explain the rules that notice what is worth saving, check a configuration",
	.usage = "[check FILE]",
	.about = "Without an argument, says what the rules are that a watcher has by itself. "
		 "With 'check FILE', reads a dashcam.conf(5) as 'dashcam watch' would and says each rule in a sentence; of one that is wrong "
		 "it shows the column, and what would have been right. "
		 "The language is that of dashcam-rules(7).",
	.exit_status = "0 when all rules are good, 1 when the file cannot be read, 2 when it or a rule is wrong, 64 when the "
		       "arguments were wrong.",
	.examples = "dashcam rules check /etc/dashcam.conf\twhat a watcher would look for\n"
		    "dashcam rules --when 'cpu > 95% for 5s'\ttry an expression\n",
	.see_also = "run watch",
	.options = rules_option_table,
	.options_size = sizeof(struct rules_options),
	.operand = OPERAND_FILE,
	.operands_max = 2,
	.run = rules_run,
};
