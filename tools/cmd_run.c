/* SPDX-License-Identifier: MIT */
/* dashcam run: one command and its own watcher. */
#include <errno.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/places.h"
#include "tools/text.h"
#include "trigger/run.h"

#define HOUR_NS UINT64_C(3600000000000)

struct run_options {
	int64_t window;
	uint64_t memory;
	const char *out;
	int64_t after;
	bool on_exit;
	int64_t cooldown;
	uint64_t disk;
	const char *dir;
	bool pwrite;
};

static const struct option run_option_table[] = {
	{.name = "window",
	 .letter = 'w',
	 .type = OPTION_TIME,
	 .at = offsetof(struct run_options, window),
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
	 .min = 64 << 10,
	 .max = UINT64_C(1) << 40},
	{.name = "out",
	 .letter = 'o',
	 .type = OPTION_DIR,
	 .at = offsetof(struct run_options, out),
	 .value = "DIR",
	 .help = "save captures in DIR, which is made when it is missing"},
	{.name = "after",
	 .type = OPTION_TIME,
	 .at = offsetof(struct run_options, after),
	 .value = "TIME",
	 .help = "how long a capture goes on after a trigger of the program",
	 .fallback = "0s",
	 .max = HOUR_NS},
	{.name = "on-exit",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct run_options, on_exit),
	 .help = "save also when the command ends by itself"},
	{.name = "cooldown",
	 .type = OPTION_TIME,
	 .at = offsetof(struct run_options, cooldown),
	 .value = "TIME",
	 .help = "time between two captures for the same reason",
	 .fallback = "10s",
	 .max = 24 * HOUR_NS},
	{.name = "disk",
	 .type = OPTION_SIZE,
	 .at = offsetof(struct run_options, disk),
	 .value = "SIZE",
	 .help = "captures may take this much together; beyond it the least important and oldest go, 0 for "
		 "no "
		 "bound",
	 .fallback = "4GiB"},
	{.name = "dir",
	 .type = OPTION_DIR,
	 .at = offsetof(struct run_options, dir),
	 .value = "DIR",
	 .help = "put the rings below DIR instead of $DASHCAM_DIR, /run/dashcam or /dev/shm/dashcam-UID"},
	{.name = "pwrite",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct run_options, pwrite),
	 .help = "write with pwrite, do not try io_uring"},
	{0},
};

static void log_line(void *arg, const char *line)
{
	(void)arg;
	say("%s", line);
}

static void configure(const struct run_options *o, const char *dir, const char *out,
		      struct dc_watcher_config *c)
{
	dc_watcher_defaults(c);
	c->dir = dir;
	c->output = (struct dc_save_output){
		.dir = out,
		.per_uid = !o->out && geteuid() == 0,
		.writer_flags = o->pwrite ? DC_WRITER_PWRITE : 0,
	};
	if (o->window > 0)
		c->last_ns = c->window_ns = o->window;
	c->after_ns = o->after;
	c->budget.cooldown_ns = o->cooldown;
	c->disk_bytes = o->disk;
	c->log = log_line;
}

static int not_started(int r, const char *why)
{
	failure("%s", why);
	return r == -ENOENT                    ? DC_RUN_NOT_FOUND
	       : r == -EACCES || r == -ENOEXEC ? DC_RUN_NOT_STARTED
					       : EXIT_FAILED;
}

static int run_run(const void *options, const struct operands *operands)
{
	const struct run_options *o = options;
	char dir[DC_RINGS_PATH_BYTES], out[PLACE_BYTES], why[DC_WHY_BYTES] = "";
	struct text window = text_time_option(o->window), memory = text_size_option(o->memory);
	struct dc_run_config config = {
		.argv = operands->items,
		.window = o->window ? window.s : NULL,
		.memory = o->memory ? memory.s : NULL,
		.on_exit = o->on_exit,
	};
	int status, r;

	if (o->dir && strlen(o->dir) >= sizeof(dir))
		return failure("--dir: '%s' is too long", o->dir);
	if (o->dir)
		strcpy(dir, o->dir);
	else if (dc_rings_dir(dir) < 0)
		return failure("DASHCAM_DIR is too long");
	if (o->out)
		snprintf(out, sizeof(out), "%s", o->out);
	else if (place_captures(out) < 0)
		return failure("no home directory to save captures in: give --out DIR");
	configure(o, dir, out, &config.watcher);
	r = dc_run(&config, &status, why);
	return r < 0 ? not_started(r, *why ? why : strerror(-r)) : dc_run_end(status);
}

const struct command cmd_run = {
	.name = "run",
	.summary = "run a command and save its past when it dies by a signal",
	.usage = "[--] COMMAND [ARG...]",
	.about = "Runs COMMAND with a watcher of its own: nothing to configure, nothing left behind. "
		 "Its past is saved when it, or a process it started, dies by a signal or asks for it "
		 "(DC_TRIGGER), on 'dashcam "
		 "trigger --pid PID', on SIGUSR1 to dashcam run, and with --on-exit when it ends.\n\n"
		 "Options of dashcam end at COMMAND. Signals are passed on, and dashcam run exits as COMMAND "
		 "did.",
	.exit_status = "That of COMMAND; when it died by a signal, dashcam run dies by the same. "
		       "126 when COMMAND could not be started, 127 when it was not found, 1 when dashcam "
		       "failed before, 64 when "
		       "the arguments were wrong.",
	.examples = "dashcam run -- ./my-server --port 8080\trecord it, save its past should it crash\n"
		    "dashcam run --window 5m --memory 1GiB --out captures -- make test\tfive minutes, here\n",
	.see_also = "info recover trigger watch",
	.options = run_option_table,
	.options_size = sizeof(struct run_options),
	.operand = OPERAND_COMMAND,
	.operands_min = 1,
	.operands_max = UINT32_MAX,
	.run = run_run,
};
