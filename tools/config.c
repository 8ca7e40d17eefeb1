/* SPDX-License-Identifier: MIT */
/* The only file that knows which INI parser it is (inih). */
#include "tools/config.h"

#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ipc/cleanup.h"

#define LINE_BYTES_MAX (INI_MAX_LINE - 2) /* inih would cut a longer line silently in two */

struct loading {
	struct config *config;
	const struct command *command;
	void *options;
	int error;
	char why[512]; /* of the first wrong line */
};

static char *keep(struct config *c, const char *text)
{
	char **texts = realloc(c->texts, (c->count + 1) * sizeof(*texts));
	char *copy = texts ? strdup(text) : NULL;

	if (texts)
		c->texts = texts;
	if (copy)
		c->texts[c->count++] = copy;
	return copy;
}

static const struct option *key_find(const struct command *c, const char *key)
{
	for (const struct option *o = c->options; o->name; o++)
		if (strcmp(o->name, key) == 0 && !o->not_in_file)
			return o;
	return NULL;
}

static int store_flag(const struct option *o, const char *value, void *options, char why[static 256])
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off",
										    "0"};
	bool *at = (bool *)((char *)options + o->at);

	for (unsigned i = 0; i < 4; i++) {
		if (strcasecmp(value, yes[i]) == 0 || strcasecmp(value, no[i]) == 0) {
			*at = strcasecmp(value, yes[i]) == 0;
			return 0;
		}
	}
	snprintf(why, 256, "was not understood, expected yes or no");
	return -EINVAL;
}

static int store(struct loading *l, const struct option *o, const char *value)
{
	char why[256];
	const char *kept;
	int r;

	if (o->type == OPTION_FLAG) {
		r = store_flag(o, value, l->options, why);
	} else {
		kept = keep(l->config, value);
		if (!kept)
			return -ENOMEM;
		r = option_store(o, kept, l->options, why);
	}
	if (r < 0)
		snprintf(l->why, sizeof(l->why), "%s: '%.100s' %s", o->name, value, why);
	return r;
}

/* One key. Return: inih's 1 for "good", 0 for "wrong": it then remembers the line and goes on. */
static int handle(void *arg, const char *section, const char *key, const char *value)
{
	struct loading *l = arg;
	const struct option *o;
	const char *near;

	if (l->error)
		return 1;
	l->error = -EINVAL;
	if (strcmp(section, l->command->name) != 0) {
		snprintf(l->why, sizeof(l->why), "unknown section [%.60s], expected [%s]", section,
			 l->command->name);
		return 0;
	}
	o = key_find(l->command, key);
	if (!o) {
		near = closest_option(l->command, key);
		snprintf(l->why, sizeof(l->why), "unknown key '%.60s'%s%s%s", key,
			 near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
		return 0;
	}
	l->error = store(l, o, value);
	return l->error == 0;
}

/* inih would go on with the rest of an over-long line as if it were the next one. */
static int check_lines(const char *path, FILE *f)
{
	CLEANUP(free) char *line = NULL;
	size_t room = 0;
	unsigned number = 0;
	ssize_t n;

	while (number++, (n = getline(&line, &room, f)) >= 0) {
		if (n <= LINE_BYTES_MAX && !memchr(line, '\0', (size_t)n))
			continue;
		say("'%s' line %u: %s", path, number,
		    n > LINE_BYTES_MAX ? "is too long, at most 198 bytes"
				       : "holds a NUL byte, expected text");
		return -EINVAL;
	}
	if (ferror(f)) {
		int r = -errno;

		say("'%s': %s", path, strerror(-r));
		return r;
	}
	rewind(f);
	return 0;
}

int config_load(struct config *config, const char *path, const struct command *c, void *options)
{
	CLEANUP(fclose) FILE *f = fopen(path, "re");
	struct loading l = {.config = config, .command = c, .options = options};
	int line, r;

	if (!f) {
		r = -errno;
		say("cannot read the configuration '%s': %s", path, strerror(-r));
		return r;
	}
	r = check_lines(path, f);
	if (r < 0)
		return r;
	line = ini_parse_file(f, handle, &l);
	if (line == 0)
		return 0;
	say("'%s' line %d: %s; see 'man dashcam.conf'", path, line,
	    *l.why ? l.why : "was not understood, expected [section] or key = value");
	return l.error ? l.error : -EINVAL;
}

void config_cleanup(struct config *config)
{
	for (unsigned i = 0; i < config->count; i++)
		free(config->texts[i]);
	free(config->texts);
	*config = (struct config){0};
}
