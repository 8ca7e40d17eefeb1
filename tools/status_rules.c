/* SPDX-License-Identifier: MIT */
#include "tools/status_rules.h"

#include <stdlib.h>
#include <string.h>

#include "tools/text.h"
#include "trigger/control.h"

#define RULES_MAX 256u /* of all watchers together */

struct status_rules {
	uint32_t count;
	struct dc_control_rule rules[RULES_MAX];
};

static void end_text(char *text, size_t size)
{
	text[size - 1] = '\0';
}

static void each(void *arg, const struct dc_control_reply *reply)
{
	struct status_rules *s = arg;
	struct dc_control_rule *r = &s->rules[s->count];

	if (reply->error || reply->op != DC_CONTROL_RULES || !reply->rule.name[0] || s->count == RULES_MAX)
		return;
	*r = reply->rule;
	end_text(r->name, sizeof(r->name));
	end_text(r->expression, sizeof(r->expression));
	end_text(r->waits_for, sizeof(r->waits_for));
	s->count++;
}

static int ask(void *arg, uint32_t pid, const char *dir)
{
	const struct dc_control_request request = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_RULES};
	char why[DC_WHY_BYTES];

	(void)pid;
	dc_control_ask(dir, &request, each, arg, why); /* no watcher: no rules */
	return 0;
}

struct status_rules *status_rules_ask(const char *dir)
{
	struct status_rules *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	ask(s, 0, dir);
	dc_rings_each_run(dir, ask, s);
	return s;
}

void status_rules_free(struct status_rules *s)
{
	free(s);
}

static void print(const char *text)
{
	text_print(stdout, text, strlen(text));
}

void status_rules_text(const struct status_rules *s)
{
	for (uint32_t i = 0; i < s->count; i++) {
		const struct dc_control_rule *r = &s->rules[i];

		fputs(i ? "rule " : "\nrule ", stdout);
		print(r->name);
		printf(": came true %s times", text_count(r->fired).s);
		if (r->suppressed)
			printf(", and %s more that its budget held back", text_count(r->suppressed).s);
		if (r->waits_for[0]) {
			fputs("; waits: nobody has recorded '", stdout);
			print(r->waits_for);
			fputs("' so far", stdout);
		}
		putchar('\n');
	}
}

void status_rules_json(struct json *j, const struct status_rules *s)
{
	json_array(j, "rules");
	for (uint32_t i = 0; i < s->count; i++) {
		const struct dc_control_rule *r = &s->rules[i];

		json_object(j, NULL);
		json_text(j, "name", r->name);
		json_text(j, "expression", r->expression);
		json_u64(j, "fired", r->fired);
		json_u64(j, "suppressed", r->suppressed);
		if (r->waits_for[0])
			json_text(j, "waits_for", r->waits_for);
		json_end(j);
	}
	json_end(j);
}
