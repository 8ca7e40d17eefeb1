/* SPDX-License-Identifier: MIT */
/*
 * dashcam.conf: options, in a file. Sections and keys are those of dashcam.conf(5); the keys of [watch] are the options of
 * `dashcam watch`, with the same values, checked by the same code; a section [rule NAME] is a rule (tools/rules.h):
 *
 *     [watch]
 *     window = 30s
 *
 *     [rule slow-pay]
 *     when = span "http.request" where route == "/pay" > 250ms
 *
 * A line has at most 198 bytes. A text goes on in the next line, if that begins with a blank.
 */
#pragma once

#include "tools/command.h"

struct config {
	char **texts; /* what option values point into */
	unsigned count;
};

/* A kind of section: [NAME], or with @open [NAME WHICH], as many as there are. */
struct config_kind {
	const struct command *command; /* its name and options: the keys */
	void *values; /* command->options_size bytes; of [NAME WHICH]: set by @open */
	/* Another one begins; its keys have been stored. -EINVAL and a line in @why. */
	int (*open)(void *arg, const char *which, unsigned line, void **ret_values, char why[static 256]);
	int (*close)(void *arg, char why[static 256]);
	void *arg;
};

/*
 * config_load() - store every key of every section
 * @kinds: ended by one without a command
 * Return: 0; -EINVAL, or -errno of reading, after a line on stderr that names file and line. On error values may hold some
 * of it.
 */
int config_load(struct config *config, const char *path, struct config_kind *kinds);
void config_cleanup(struct config *config);
