/* SPDX-License-Identifier: MIT */
/* dashcam trigger: asks the watchers of a ring directory to save the past now. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/json.h"
#include "tools/text.h"
#include "trigger/control.h"

struct trigger_options {
	uint64_t pid;
	const char *name;
	bool all;
	const char *reason;
	int64_t last;
	int64_t after;
	bool wait;
	const char *dir;
	bool json;
};

#define DAY_NS UINT64_C(86400000000000)

static const struct option trigger_option_table[] = {
	{.name = "pid",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct trigger_options, pid),
	 .value = "PID",
	 .help = "save this process",
	 .min = 1,
	 .max = UINT32_MAX},
	{.name = "name",
	 .type = OPTION_TEXT,
	 .at = offsetof(struct trigger_options, name),
	 .value = "GLOB",
	 .help = "save the processes whose name matches, as in 'worker*'"},
	{.name = "all",
	 .letter = 'a',
	 .type = OPTION_FLAG,
	 .at = offsetof(struct trigger_options, all),
	 .help = "save every process you may"},
	{.name = "reason",
	 .letter = 'm',
	 .type = OPTION_TEXT,
	 .at = offsetof(struct trigger_options, reason),
	 .value = "TEXT",
	 .help = "why; shown by info and ls"},
	{.name = "last",
	 .type = OPTION_TIME,
	 .at = offsetof(struct trigger_options, last),
	 .value = "TIME",
	 .help = "how far back; else as the watcher is configured",
	 .max = DAY_NS,
	 .minus_one = true},
	{.name = "after",
	 .type = OPTION_TIME,
	 .at = offsetof(struct trigger_options, after),
	 .value = "TIME",
	 .help = "go on for TIME after now; else as the watcher is configured",
	 .max = DAY_NS,
	 .minus_one = true},
	{.name = "wait",
	 .letter = 'w',
	 .type = OPTION_FLAG,
	 .at = offsetof(struct trigger_options, wait),
	 .help = "return when the capture is on disk"},
	{.name = "dir",
	 .type = OPTION_DIR,
	 .at = offsetof(struct trigger_options, dir),
	 .value = "DIR",
	 .help = "ask the watchers of this ring directory"},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct trigger_options, json),
	 .help = "print JSON"},
	{0},
};

struct asking {
	const struct trigger_options *options;
	struct dc_control_request request;
	struct json json;
	unsigned watchers; /* that answered */
	unsigned captures;
	bool unknown; /* one of them does not record what was asked for */
	int status;
	char why[DC_WHY_BYTES];
};

static void print_reply(struct asking *a, const struct dc_control_reply *r)
{
	if (!a->options->json) {
		if (*r->path)
			puts(r->path);
		else
			say("%s: 'dashcam ls' lists it, --wait prints its path", r->text);
		return;
	}
	json_object(&a->json, NULL);
	json_text(&a->json, "path", r->path);
	json_bool(&a->json, "durable", a->options->wait);
	json_u64(&a->json, "processes", r->processes);
	json_u64(&a->json, "events", r->events);
	json_u64(&a->json, "bytes", r->bytes);
	json_end(&a->json);
}

/* The reply was copied out of a datagram of a watcher we believe; its texts are still ended here. */
static void each_reply(void *arg, const struct dc_control_reply *reply)
{
	struct dc_control_reply r = *reply;
	struct asking *a = arg;

	r.path[sizeof(r.path) - 1] = r.text[sizeof(r.text) - 1] = '\0';
	if (r.error == -ESRCH) {
		a->unknown = true;
	} else if (r.error < 0) {
		a->status = failure("%s", *r.text ? r.text : strerror(-r.error));
	} else {
		a->captures++;
		print_reply(a, &r);
	}
}

static int ask(void *arg, uint32_t pid, const char *dir)
{
	struct asking *a = arg;
	char why[DC_WHY_BYTES];
	int r = dc_control_ask(dir, &a->request, each_reply, a, why);

	(void)pid;
	if (r >= 0)
		a->watchers++;
	else if (r != -ENOENT && r != -ECONNREFUSED)
		memcpy(a->why, why, sizeof(why));
	return 0;
}

static int request_fill(const struct trigger_options *o, struct dc_control_request *request)
{
	*request = (struct dc_control_request){
		.version = DC_CONTROL_VERSION,
		.op = DC_CONTROL_TRIGGER,
		.pid = (uint32_t)o->pid,
		.flags = (o->all ? DC_CONTROL_ALL : 0) | (o->wait ? DC_CONTROL_WAIT : 0),
		.last_ns = o->last,
		.after_ns = o->after,
	};
	if (o->name && strlen(o->name) >= sizeof(request->name))
		return usage_error("--name: '%s' is too long, at most %zu bytes", o->name,
				   sizeof(request->name) - 1);
	if (o->reason && strlen(o->reason) >= sizeof(request->reason))
		return usage_error("--reason: the text is too long, at most %zu bytes",
				   sizeof(request->reason) - 1);
	strcpy(request->name, o->name ? o->name : "");
	strcpy(request->reason, o->reason ? o->reason : "");
	return EXIT_OK;
}

static int verdict(const struct asking *a, const char *dir)
{
	if (a->status != EXIT_OK || a->captures > 0)
		return a->status;
	if (*a->why)
		return failure("%s", a->why);
	if (a->watchers == 0)
		return failure(
			"no watcher in '%s': start 'dashcam watch', or the program with 'dashcam run -- ...'",
			dir);
	if (a->request.pid)
		return failure("no watcher records process %u; 'dashcam status' lists those that are",
			       a->request.pid);
	return failure("no process to save; 'dashcam status' lists those that record");
}

static int trigger_run(const void *options, const struct operands *operands)
{
	const struct trigger_options *o = options;
	struct asking a = {.options = o};
	char dir[DC_RINGS_PATH_BYTES];
	int r;

	static_assert(DC_CONTROL_DEFAULT == -1, "what .minus_one stores");
	(void)operands;
	if ((o->pid > 0) + (o->name != NULL) + o->all != 1)
		return usage_error("which processes? give one of --pid, --name and --all");
	r = request_fill(o, &a.request);
	if (r != EXIT_OK)
		return r;
	if (o->dir)
		snprintf(dir, sizeof(dir), "%s", o->dir);
	else if (dc_rings_dir(dir) < 0)
		return failure("DASHCAM_DIR is too long");
	json_init(&a.json, stdout, true);
	if (o->json)
		json_array(&a.json, NULL);
	ask(&a, 0, dir);
	dc_rings_each_run(dir, ask, &a);
	if (o->json)
		json_end(&a.json);
	return verdict(&a, dir);
}

const struct command cmd_trigger = {
	.name = "trigger",
	.summary = "save the past now",
	.usage = "",
	.about = "Asks the watcher, and each 'dashcam run', to save the last seconds of the processes named, "
		 "and with --wait prints the "
		 "path of each capture. "
		 "Processes of several users become several captures, each readable by its owner. "
		 "You may save your own processes, root all.\n\n"
		 "Recording goes on meanwhile, and a capture takes nothing out of the rings: two of them "
		 "overlap.",
	.examples = "dashcam trigger --all --wait\tsave everything, print the file when it is on disk\n"
		    "dashcam trigger --name 'api*' -m 'checkout slow' --last 10s --after 2s\tten seconds "
		    "before, two after\n",
	.see_also = "info run show watch",
	.options = trigger_option_table,
	.options_size = sizeof(struct trigger_options),
	.run = trigger_run,
};
