/* SPDX-License-Identifier: MIT */
/* dashcam run: one command and its own watcher. */
#include <errno.h>
#include <string.h>

#include "ipc/ring.h"
#include "tools/commands.h"
#include "tools/text.h"
#include "tools/watching.h"
#include "trigger/run.h"

struct run_options {
	struct watching_options watching;
	uint64_t memory;
	bool on_exit;
};

static const struct option run_option_table[] = {
	{.name = "window",
	 .letter = 'w',
	 .type = OPTION_TIME,
	 .at = WATCHING_MEMBER(run_options, window),
	 .value = "TIME",
	 .help = "how far back to keep, and to save (else DASHCAM_WINDOW, else 30s)",
	 .min = 1000000,
	 .max = 168 * HOUR_NS},
	{.name = "memory",
	 .letter = 'm',
	 .type = OPTION_SIZE,
	 .at = offsetof(struct run_options, memory),
	 .value = "SIZE",
	 .help = "how large the ring of a process may grow (else DASHCAM_MEMORY, else 64MiB)",
	 .min = DC_RING_BYTES_MIN,
	 .max = DC_RING_BYTES_MAX},
	{.name = "out",
	 .letter = 'o',
	 .type = OPTION_DIR,
	 .at = WATCHING_MEMBER(run_options, out),
	 .value = "DIR",
	 .help = "save captures in DIR, which is made when it is missing"},
	{.name = "on-exit",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct run_options, on_exit),
	 .help = "save also when the command ends by itself"},
	{.name = "dir",
	 .type = OPTION_DIR,
	 .at = WATCHING_MEMBER(run_options, dir),
	 .value = "DIR",
	 .help = "put the rings below DIR instead of $DASHCAM_DIR, /run/dashcam or /dev/shm/dashcam-UID"},
	WATCHING_OPTION_ROWS(run_options),
	{0},
};

static int run_run(const void *options, const struct operands *operands)
{
	const struct run_options *o = options;
	struct text window = text_time_option(o->watching.window), memory = text_size_option(o->memory);
	struct dc_run_config config = {
		.argv = operands->items,
		.window = o->watching.window ? window.s : NULL,
		.memory = o->memory ? memory.s : NULL,
		.on_exit = o->on_exit,
	};
	CLEANUP(dc_rules) struct dc_rules rules = {0};
	struct watching_places places;
	char why[DC_WHY_BYTES] = "";
	int status, r;

	r = watching_configure(&o->watching, &places, &config.watcher);
	if (r == EXIT_OK)
		r = watching_rules(&o->watching, NULL, &rules);
	if (r != EXIT_OK)
		return r;
	config.watcher.rules = &rules;
	if (o->watching.out) /* a directory of one's own choice is used as it is */
		config.watcher.output.per_uid = false;
	r = dc_run(&config, &status, why);
	return r < 0 ? failure("%s", *why ? why : strerror(-r)) : dc_run_end(status);
}

const struct command cmd_run = {
	.name = "run",
	.summary = "run a command and save its past when it dies by a signal",
	.usage = "[--] COMMAND [ARG...]",
	.about = "Runs COMMAND with a watcher of its own: nothing to configure, nothing left behind. "
		 "Its past is saved when it, or a process it started, dies by a signal or asks for it "
		 "(DC_TRIGGER), when a rule comes true (--when, and those that 'dashcam rules' lists), on 'dashcam "
		 "trigger --pid PID', on SIGUSR1 to dashcam run, and with --on-exit when it ends.\n\n"
		 "Options of dashcam end at COMMAND. Signals are passed on, and dashcam run exits as COMMAND "
		 "did.",
	.exit_status = "That of COMMAND; when it died by a signal, dashcam run dies by the same. "
		       "126 when COMMAND could not be started, 127 when it was not found, 1 when dashcam "
		       "failed before, 64 when "
		       "the arguments were wrong.",
	.examples = "dashcam run -- ./my-server --port 8080\trecord it, save its past should it crash\n"
		    "dashcam run --window 5m --memory 1GiB --out captures -- make test\tfive minutes, here\n"
		    "dashcam run --when 'span \"http.request\" > 250ms' -- ./my-server\tsave the past of slow requests\n",
	.see_also = "info recover rules trigger watch",
	.options = run_option_table,
	.options_size = sizeof(struct run_options),
	.operand = OPERAND_COMMAND,
	.operands_min = 1,
	.operands_max = UINT32_MAX,
	.run = run_run,
};
