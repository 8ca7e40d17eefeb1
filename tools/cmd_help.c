/* SPDX-License-Identifier: MIT */
/* dashcam help, dashcam version */
#include "tools/commands.h"

#include <string.h>

static const struct option no_options[] = {{0}};

static int help_run(const void *options, const struct operands *operands)
{
	const struct command *c;

	(void)options;
	if (operands->count == 0) {
		help_overview(stdout);
		return EXIT_OK;
	}
	c = command_find(operands->items[0]);
	if (!c)
		return usage_error("no command is called '%s'", operands->items[0]);
	help_command(stdout, c);
	return EXIT_OK;
}

const struct command cmd_help = {
	.name = "help",
	.summary = "explain dashcam, or one command",
	.usage = "[COMMAND]",
	.about = "Without an argument, lists the commands; with one, explains it. The manual pages say more.",
	.see_also = "version",
	.options = no_options,
	.operand = OPERAND_TOPIC,
	.operands_max = 1,
	.run = help_run,
};

static int version_run(const void *options, const struct operands *operands)
{
	(void)options;
	(void)operands;
	puts("dashcam " DC_VERSION);
	return EXIT_OK;
}

const struct command cmd_version = {
	.name = "version",
	.summary = "print the version",
	.usage = "",
	.about = "Prints the version of this program.",
	.see_also = "doctor help",
	.options = no_options,
	.run = version_run,
};
