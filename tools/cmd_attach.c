/* SPDX-License-Identifier: MIT */
/* dashcam attach: processes that run already, whatever they are, and a watcher of their own. */
#include <errno.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "tools/commands.h"
#include "tools/watching.h"
#include "trigger/run.h"

struct attach_options {
	struct watching_options watching;
	bool on_exit;
};

static const struct option attach_option_table[] = {
	{.name = "window",
	 .letter = 'w',
	 .type = OPTION_TIME,
	 .at = WATCHING_MEMBER(attach_options, window),
	 .value = "TIME",
	 .help = "how far back to save (else 30s)",
	 .min = 1000000,
	 .max = 168 * HOUR_NS},
	{.name = "out",
	 .letter = 'o',
	 .type = OPTION_DIR,
	 .at = WATCHING_MEMBER(attach_options, out),
	 .value = "DIR",
	 .help = "save captures in DIR, which is made when it is missing"},
	{.name = "on-exit",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct attach_options, on_exit),
	 .help = "save also at the end, when nothing went wrong"},
	{.name = "dir",
	 .type = OPTION_DIR,
	 .at = WATCHING_MEMBER(attach_options, dir),
	 .value = "DIR",
	 .help = "where 'dashcam trigger' looks for watchers, instead of $DASHCAM_DIR, /run/dashcam or "
		 "/dev/shm/dashcam-UID"},
	WATCHING_OPTION_ROWS(attach_options),
	{0},
};

static bool is_among(uint32_t pid, const uint32_t *pids, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* Each once, however often it was typed. */
static int take_pids(const struct operands *operands, uint32_t *ret_pids, uint32_t *ret_count)
{
	uint32_t count = 0;

	for (unsigned i = 0; i < operands->count; i++) {
		uint64_t pid;

		if (parse_count(operands->items[i], &pid) < 0 || pid == 0 || pid > INT32_MAX)
			return usage_error("'%s' is no process id", operands->items[i]);
		if (!is_among((uint32_t)pid, ret_pids, count))
			ret_pids[count++] = (uint32_t)pid;
	}
	*ret_count = count;
	return EXIT_OK;
}

static int attach_run(const void *options, const struct operands *operands)
{
	const struct attach_options *o = options;
	CLEANUP(free) uint32_t *pids = calloc(operands->count + 1, sizeof(*pids));
	struct dc_attach_config config = {.pids = pids, .on_exit = o->on_exit};
	CLEANUP(dc_rules) struct dc_rules rules = {0};
	struct watching_places places;
	char why[DC_WHY_BYTES] = "";
	int r;

	if (!pids)
		return failure("out of memory");
	if (o->watching.sample == 0)
		return usage_error("--sample off: then there is nothing to attach for");
	r = take_pids(operands, pids, &config.count);
	if (r == EXIT_OK)
		r = watching_configure(&o->watching, &places, &config.watcher);
	if (r == EXIT_OK)
		r = watching_rules(&o->watching, NULL, &rules);
	if (r != EXIT_OK)
		return r;
	config.watcher.rules = &rules;
	if (o->watching.out) /* a directory of one's own choice is used as it is */
		config.watcher.output.per_uid = false;
	r = dc_attach(&config, why);
	return r < 0 ? failure("%s", *why ? why : strerror(-r)) : EXIT_OK;
}

const struct command cmd_attach = {
	.name = "attach",
	.summary = "sample processes that run already, save their past when they die",
	.usage = "PID...",
	.about = "Samples the stacks and context switches of processes that know nothing of dashcam, with all their "
		 "threads and the processes they start from now on. Their past is saved when one dies by a signal, on "
		 "'dashcam trigger --pid PID', on SIGUSR1 to dashcam attach, and with --on-exit at the end.\n\n"
		 "It ends when all of them have ended, or by SIGTERM or SIGINT; the processes notice neither. "
		 "For one's own processes no privilege is needed where kernel.perf_event_paranoid is 2 or less; time "
		 "in the "
		 "kernel and where threads wait are seen where it is 1 or less, or by root.",
	.examples = "dashcam attach --window 5m $(pidof redis-server)\tthe last five minutes of it, should it crash\n",
	.see_also = "info rules run trigger watch",
	.options = attach_option_table,
	.options_size = sizeof(struct attach_options),
	.operand = OPERAND_GLOB,
	.operands_min = 1,
	.operands_max = 1024,
	.run = attach_run,
};
