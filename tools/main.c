/* SPDX-License-Identifier: MIT */
/*
 * dashcam, the program: finds the command, parses its options, runs it.
 *
 * Tour: command.h says what a command is, commands.c lists them, each cmd_*.c is one (or a few that belong together).
 */
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "tools/command.h"

static int run_command(const struct command *c, char *const *argv)
{
	CLEANUP(free) void *options = malloc(c->options_size + 1);
	struct operands operands;
	int r;

	if (!options)
		return failure("out of memory");
	say_as(c->name);
	command_defaults(c, options);
	r = command_parse(c, argv, options, &operands);
	if (r == -ENOMEM)
		return failure("out of memory");
	if (r < 0)
		return EXIT_USAGE;
	if (r > 0) {
		help_command(stdout, c);
		return EXIT_OK;
	}
	r = c->run(options, &operands);
	free(operands.items);
	return r;
}

/* A full disk behind stdout is found at the last flush, and must not look like success. */
static int finish(int status)
{
	bool failed_before = ferror(stdout);

	if ((fflush(stdout) == 0 && !failed_before) || status != EXIT_OK)
		return status; /* of two failures the first one has been said */
	return failure("cannot write to standard output: %s", failed_before ? "it did not take all" : strerror(errno));
}

int main(int argc, char **argv)
{
	const struct command *c;
	const char *near;

	setlocale(LC_CTYPE, "");
	if (argc < 2) {
		help_overview(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		argv[1] = "help";
	else if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
		argv[1] = "version";
	c = command_find(argv[1]);
	if (c)
		return finish(run_command(c, argv + 2));
	near = closest_command(argv[1]);
	if (near)
		return usage_error("unknown command '%s' (did you mean '%s'?)", argv[1], near);
	return usage_error("unknown command '%s'", argv[1]);
}
