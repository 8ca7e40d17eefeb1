/* SPDX-License-Identifier: MIT */
/* The only file that knows which INI parser it is (inih). */
#include "ipc/grow.h"
#include "tools/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/cleanup.h"

#define FILE_BYTES_MAX (1 << 20)
#define LINE_BYTES_MAX (INI_MAX_LINE - 2) /* inih would cut a longer line silently in two */

#define SECTION_BYTES 50u /* of inih, with the NUL: it would cut a longer name silently */

/* A section that begins in some line, as written between its brackets. */
struct header {
	char name[SECTION_BYTES];
	unsigned line;
	bool seen; /* has a key */
};

struct loading {
	struct config *config;
	const char *path;
	struct config_kind *kinds;
	struct header *headers; /* of the whole file, in order */
	unsigned count;
	unsigned room;
	const struct config_kind *open; /* kind of the section that keys go to */
	struct header *header; /* ... and where it begins; NULL: before any */
	int error;
	unsigned line; /* of the error; 0: the one inih is at */
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

static int store(struct loading *l, const struct option *o, const char *value, void *values)
{
	char why[256];
	const char *kept;
	int r;

	if (o->type == OPTION_FLAG) {
		r = store_flag(o, value, values, why);
	} else {
		kept = keep(l->config, value);
		if (!kept)
			return -ENOMEM;
		r = option_store(o, kept, values, why);
	}
	if (r < 0)
		snprintf(l->why, sizeof(l->why), "%s: '%.100s' %s", o->name, value, why);
	return r;
}

/* "rule" of "rule NAME"; *@ret_which is "NAME". */
static struct config_kind *kind_find(const struct loading *l, const char *section, const char **ret_which)
{
	const size_t length = strcspn(section, " ");

	for (struct config_kind *k = l->kinds; k->command; k++) {
		if (strncmp(k->command->name, section, length) != 0 || k->command->name[length] || !!k->open != !!section[length])
			continue;
		*ret_which = section + length + strspn(section + length, " ");
		return k;
	}
	return NULL;
}

static int unknown_section(struct loading *l, const char *section)
{
	char known[128] = "";

	for (const struct config_kind *k = l->kinds; k->command; k++)
		snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s[%s%s]", *known ? " or " : "", k->command->name,
			 k->open ? " NAME" : "");
	if (*section)
		snprintf(l->why, sizeof(l->why), "unknown section [%.60s], expected %s", section, known);
	else
		snprintf(l->why, sizeof(l->why), "a key before any section, expected %s", known);
	return -EINVAL;
}

static int section_close(struct loading *l)
{
	char why[256];
	int r = l->open && l->open->close ? l->open->close(l->open->arg, why) : 0;

	l->open = NULL;
	if (r < 0) {
		snprintf(l->why, sizeof(l->why), "%s", why);
		l->line = l->header->line;
	}
	return r;
}

static int section_open(struct loading *l, const char *section)
{
	struct header *end = l->headers + l->count, *h = l->header ? l->header + 1 : l->headers;
	struct config_kind *kind;
	const char *which;
	char why[256];
	int r = section_close(l);

	if (r < 0)
		return r;
	kind = kind_find(l, section, &which);
	if (!kind)
		return unknown_section(l, section);
	while (h < end && strcmp(h->name, section) != 0)
		h++;
	if (h == end) {
		snprintf(l->why, sizeof(l->why), "section [%s] has a blank before it", section);
		return -EINVAL;
	}
	h->seen = true;
	l->header = h;
	if (kind->open && (r = kind->open(kind->arg, which, h->line, &kind->values, why)) < 0)
		snprintf(l->why, sizeof(l->why), "%s", why);
	l->open = r < 0 ? NULL : kind;
	return r;
}

static bool is_open(const struct loading *l, const char *section)
{
	return l->open && l->header && strcmp(l->header->name, section) == 0;
}

/* One key. Return: inih's 1 for "good", 0 for "wrong": it then remembers the line and goes on. */
static int handle(void *arg, const char *section, const char *key, const char *value)
{
	struct loading *l = arg;
	const struct option *o;
	const char *near;

	if (l->error)
		return 1;
	if (!is_open(l, section))
		l->error = section_open(l, section);
	if (l->error)
		return 0;
	l->error = -EINVAL;
	o = key_find(l->open->command, key);
	if (!o) {
		near = closest_option(l->open->command, key);
		snprintf(l->why, sizeof(l->why), "unknown key '%.60s'%s%s%s", key,
			 near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
		return 0;
	}
	l->error = store(l, o, value, l->open->values);
	return l->error == 0;
}

/* ---- what inih would not say ---- */

static int header_add(struct loading *l, const char *line, unsigned number)
{
	const size_t length = strcspn(line + 1, "]\n");
	struct header *h;

	if (length >= SECTION_BYTES) {
		say("'%s' line %u: the name of the section is too long, at most %u bytes are taken", l->path, number, SECTION_BYTES - 1);
		return -EINVAL;
	}
	if (GROW(l->headers, l->count, l->room, 16) < 0)
		return -ENOMEM;
	h = &l->headers[l->count];
	snprintf(h->name, SECTION_BYTES, "%.*s", (int)length, line + 1);
	h->line = number;
	h->seen = false;
	for (const struct header *before = l->headers; strchr(h->name, ' ') && before < h; before++) {
		if (strcmp(before->name, h->name) != 0)
			continue;
		say("'%s' line %u: section [%s] is there already, in line %u", l->path, number, before->name, before->line);
		return -EINVAL;
	}
	l->count++;
	return 0;
}

/* It would go on with the rest of an over-long line as if it were the next one, and pass over sections without a key. */
static int check_lines(struct loading *l, FILE *f)
{
	CLEANUP(free) char *line = NULL;
	size_t room = 0;
	unsigned number = 0;
	ssize_t n;
	int r = 0;

	while (r == 0 && (number++, (n = getline(&line, &room, f)) >= 0)) {
		if (n > LINE_BYTES_MAX || memchr(line, '\0', (size_t)n)) {
			say("'%s' line %u: %s", l->path, number,
			    n > LINE_BYTES_MAX ? "is too long, at most 198 bytes; a text goes on in a line that begins with a blank"
					       : "holds a NUL byte, expected text");
			return -EINVAL;
		}
		if (*line == '[')
			r = header_add(l, line, number);
	}
	if (r == 0 && ferror(f)) {
		r = -errno;
		say("'%s': %s", l->path, strerror(-r));
	}
	rewind(f);
	return r;
}

/* Sections without a key are not told by inih: a rule that somebody wrote the name of only. */
static int check_empty(struct loading *l)
{
	const char *which;

	for (unsigned i = 0; i < l->count; i++) {
		const struct config_kind *kind = kind_find(l, l->headers[i].name, &which);

		l->line = l->headers[i].line;
		if (!kind)
			return unknown_section(l, l->headers[i].name);
		if (!kind->open || l->headers[i].seen)
			continue;
		snprintf(l->why, sizeof(l->why), "section [%s] has no key", l->headers[i].name);
		return -EINVAL;
	}
	return 0;
}

static int load(struct loading *l, FILE *f)
{
	int line, r = check_lines(l, f);

	if (r < 0)
		return r;
	line = ini_parse_file(f, handle, l);
	if (l->error == 0 && line == 0)
		l->error = section_close(l);
	if (l->error == 0 && line == 0)
		l->error = check_empty(l);
	if (l->error == 0 && line == 0)
		return 0;
	say("'%s' line %u: %s; see 'man dashcam.conf'", l->path, l->line ? l->line : (unsigned)line,
	    *l->why ? l->why : "was not understood, expected [section] or key = value");
	return l->error ? l->error : -EINVAL;
}

/* It is read twice, so no pipe; and neither a device nor somebody's log is read to its end to find that it is none. */
static int open_file(const char *path, FILE **ret_file)
{
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? -EISDIR : 0;

	if (r < 0) {
		say("cannot read the configuration '%s': %s", path, strerror(-r));
		return r;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX) {
		say("cannot read the configuration '%s': %s", path, S_ISREG(st.st_mode) ? "it is larger than 1 MiB" : "it is not a regular file");
		return -ENOTSUP;
	}
	*ret_file = fdopen(fd, "r");
	if (!*ret_file)
		return -errno;
	TAKE_FD(fd);
	return 0;
}

int config_load(struct config *config, const char *path, struct config_kind *kinds)
{
	CLEANUP(fclose) FILE *f = NULL;
	struct loading l = {.config = config, .path = path, .kinds = kinds};
	int r = open_file(path, &f);

	if (r < 0)
		return r;
	r = load(&l, f);
	free(l.headers);
	return r;
}

void config_cleanup(struct config *config)
{
	for (unsigned i = 0; i < config->count; i++)
		free(config->texts[i]);
	free(config->texts);
	*config = (struct config){0};
}
