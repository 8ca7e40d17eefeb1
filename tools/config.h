/* SPDX-License-Identifier: MIT */
/*
 * dashcam.conf: the options of a command, in a file. Sections and keys are those of dashcam.conf(5); the keys
 * of [watch] are the options of `dashcam watch`, with the same values, checked by the same code:
 *
 *     [watch]
 *     window = 30s
 *     per-hour = 20
 */
#pragma once

#include "tools/command.h"

struct config {
	char **texts; /* what option values point into */
	unsigned count;
};

/*
 * config_load() - store every key of the section [c->name] into @options
 * Return: 0; -EINVAL, or -errno of reading, after a line on stderr that names file and line. On error
 * @options may hold some of it.
 */
int config_load(struct config *config, const char *path, const struct command *c, void *options);
void config_cleanup(struct config *config);
