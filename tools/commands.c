/* SPDX-License-Identifier: MIT */
#include "tools/commands.h"

#include <string.h>

const struct command *const commands[] = {
	&cmd_run,    &cmd_attach,   &cmd_watch,    &cmd_status,  &cmd_top,     &cmd_sites,   &cmd_rules,   &cmd_trigger, &cmd_ls, &cmd_why, &cmd_info,
	&cmd_show,   &cmd_report,   &cmd_export,   &cmd_recover, &cmd_settle,  &cmd_symbolize,  &cmd_keep,    &cmd_rm, &cmd_scrub,
	&cmd_doctor, &cmd_selftest, &cmd_help,    &cmd_version, NULL,
};

const struct command *command_find(const char *name)
{
	for (unsigned i = 0; commands[i]; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}
