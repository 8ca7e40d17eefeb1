/* SPDX-License-Identifier: MIT */
#include "tools/checks.h"

#include <stdarg.h>
#include <string.h>

#include "tools/command.h"
#include "tools/text.h"

static const char *const state_words[] = {"Ok", "Degraded", "Failed"};

void checks_init(struct checks *c, bool as_json)
{
	*c = (struct checks){.as_json = as_json, .colour = colour_wanted(stdout)};
	json_init(&c->json, stdout, true);
	if (!as_json)
		return;
	json_object(&c->json, NULL);
	json_array(&c->json, "checks");
}

static void add_json(struct json *j, const char *name, enum check_state state, const char *found,
		     const char *means, const char *fix)
{
	json_object(j, NULL);
	json_text(j, "name", name);
	json_text(j, "state", state_words[state]);
	json_text(j, "found", found);
	if (means)
		json_text(j, "means", means);
	if (fix)
		json_text(j, "fix", fix);
	json_end(j);
}

static void add_text(const struct checks *c, const char *name, enum check_state state, const char *found,
		     const char *means, const char *fix)
{
	static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};

	printf("%s%-8s%s  %-16s  ", c->colour ? colours[state] : "", state_words[state],
	       c->colour ? "\033[0m" : "", name);
	text_print(stdout, found, strlen(found));
	putchar('\n');
	if (means)
		printf("%28smeans: %s\n", "", means);
	if (fix)
		printf("%28sfix:   %s\n", "", fix);
}

void checks_add(struct checks *c, const char *name, enum check_state state, const char *means,
		const char *fix, const char *found, ...)
{
	char text[512];
	va_list args;

	va_start(args, found);
	vsnprintf(text, sizeof(text), found, args);
	va_end(args);
	c->counts[state]++;
	if (state > c->worst)
		c->worst = state;
	if (c->as_json)
		add_json(&c->json, name, state, text, means, fix);
	else
		add_text(c, name, state, text, means, fix);
}

int checks_finish(struct checks *c)
{
	if (c->as_json) {
		json_end(&c->json);
		json_text(&c->json, "state", state_words[c->worst]);
		json_end(&c->json);
	} else {
		printf("\n%u ok, %u degraded, %u failed\n", c->counts[CHECK_OK], c->counts[CHECK_DEGRADED],
		       c->counts[CHECK_FAILED]);
	}
	return c->worst == CHECK_FAILED ? EXIT_FAILED : EXIT_OK;
}
