/* SPDX-License-Identifier: MIT */
/*
 * Commands that rules run: `sh -c TEXT`, the incident as JSON on standard input.
 *
 * None may hurt the watcher, or get more than the process it is about has: started by a watcher of root it runs as that
 * process's user, without groups, privileges to gain, descriptors or environment of ours; it has so long, then its whole
 * process group is killed; a few run at once, what comes meanwhile is refused and counted. The loop never waits for one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DC_COMMANDS_MAX 4u

struct dc_commands;

/* @log: one line each for how they ended. */
int dc_commands_new(void (*log)(void *arg, const char *line), void *arg, struct dc_commands **ret_commands);
void dc_commands_free(struct dc_commands *c); /* kills what still runs */

struct dc_command {
	const char *rule; /* for messages, and $DASHCAM_RULE */
	const char *text;
	uint32_t pid; /* of the process it is about: $DASHCAM_PID */
	uint32_t uid, gid;
	int64_t limit_ns;
	const char *input;
	size_t input_bytes;
};

/* Return: 0; -EBUSY: as many run as may; -errno. */
int dc_commands_run(struct dc_commands *c, const struct dc_command *command, int64_t now_ns);
/* Takes what has ended, ends what has had its time. Return: how many still run. */
uint32_t dc_commands_tick(struct dc_commands *c, int64_t now_ns);
