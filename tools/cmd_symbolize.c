/* SPDX-License-Identifier: MIT */
/* dashcam symbolize: names for the stacks of a capture, later or elsewhere. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "persist/symbolize.h"
#include "tools/commands.h"
#include "tools/debuginfod.h"
#include "tools/json.h"
#include "tools/open.h"
#include "tools/text.h"

#define DEBUG_DIR "/usr/lib/debug"

struct symbolize_options {
	struct texts debug_dirs;
	bool again;
	bool debuginfod;
	int64_t timeout;
	bool json;
};

static const struct option symbolize_option_table[] = {
	{.name = "debug-dir",
	 .letter = 'd',
	 .type = OPTION_TEXTS,
	 .at = offsetof(struct symbolize_options, debug_dirs),
	 .value = "DIR",
	 .help = "look for programs and debug info in DIR, by build-id or by name; may be given several times"},
	{.name = "again",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct symbolize_options, again),
	 .help = "also frames that have a name: there may be lines now"},
	{.name = "debuginfod",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct symbolize_options, debuginfod),
	 .help = "first fetch debug info from the servers of $DEBUGINFOD_URLS"},
	{.name = "timeout",
	 .type = OPTION_TIME,
	 .at = offsetof(struct symbolize_options, timeout),
	 .value = "TIME",
	 .help = "for all of it",
	 .fallback = "60s",
	 .min = 100000000,
	 .max = UINT64_C(86400000000000)},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct symbolize_options, json),
	 .help = "print JSON"},
	{0},
};

static void print_text(const char *path, const struct dc_symbolize_result *result, bool changed)
{
	text_print(stdout, path, strlen(path));
	printf(": %s of %s frames have a name", text_count(result->named).s, text_count(result->frames).s);
	if (changed)
		printf(", %s had one before\n", text_count(result->named_before).s);
	else
		puts(", nothing new is known");
}

static void print_json(const char *path, const struct dc_symbolize_result *result, bool changed, const struct fetched *fetched)
{
	struct json j;

	json_init(&j, stdout, true);
	json_object(&j, NULL);
	json_text(&j, "file", path);
	json_bool(&j, "changed", changed);
	json_u64(&j, "frames", result->frames);
	json_u64(&j, "named_before", result->named_before);
	json_u64(&j, "named", result->named);
	json_u64(&j, "fetched", fetched->got);
	json_text(&j, "why", result->why);
	json_end(&j);
}

static int failed(const char *path, int error)
{
	switch (error) {
	case -EINVAL:
		return failure("'%s' is a raw capture: 'dashcam settle' names its stacks", path);
	case -ENODATA:
		return failure("'%s' is not a capture, or too damaged; it stays as it is", path);
	case -EEXIST:
		return failure("'%s': somebody is rewriting it", path);
	default:
		return failure("'%s': %s; it stays as it is", path, strerror(-error));
	}
}

static int name_frames(const struct symbolize_options *o, const char *path, const struct fetched *fetched)
{
	CLEANUP(free) char *of_dir = strdup(path), *of_name = strdup(path);
	CLEANUP(close_fd) int dir_fd = of_dir ? open(dirname(of_dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	const char *dirs[TEXTS_MAX + 3];
	struct dc_resolve_options options = {.debug_dirs = dirs, .time_ns = o->timeout};
	struct dc_symbolize_result result = {0};
	unsigned n = 0;
	int r;

	if (!of_name || dir_fd < 0)
		return failure("'%s': %s", path, strerror(of_name ? errno : ENOMEM));
	for (unsigned i = 0; i < o->debug_dirs.count; i++)
		dirs[n++] = o->debug_dirs.items[i];
	if (fetched->dir[0])
		dirs[n++] = fetched->dir;
	dirs[n++] = DEBUG_DIR;
	dirs[n] = NULL;
	r = dc_symbolize(dir_fd, basename(of_name), &options, o->again || o->debuginfod, &result);
	if (r < 0)
		return failed(path, r);
	if (result.why[0])
		say("'%s': %s", path, result.why);
	if (o->json)
		print_json(path, &result, r == 0, fetched);
	else
		print_text(path, &result, r == 0);
	return EXIT_OK;
}

static int check_dirs(const struct symbolize_options *o)
{
	for (unsigned i = 0; i < o->debug_dirs.count; i++) {
		CLEANUP(close_fd) int fd = open(o->debug_dirs.items[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			return failure("--debug-dir '%s': %s", o->debug_dirs.items[i], strerror(errno));
	}
	return EXIT_OK;
}

static int symbolize_run(const void *options, const struct operands *operands)
{
	const struct symbolize_options *o = options;
	CLEANUP(fetched) struct fetched fetched = {0};
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	int r = check_dirs(o);

	if (r == EXIT_OK)
		r = capture_open(operands->items[0], &c);
	if (r == EXIT_OK && o->debuginfod)
		r = debuginfod_fetch(c, o->timeout, &fetched);
	if (r == EXIT_OK)
		r = name_frames(o, operands->items[0], &fetched);
	return r == EXIT_OK ? capture_status(c, operands->items[0], 0) : r;
}

const struct command cmd_symbolize = {
	.name = "symbolize",
	.summary = "give the stacks of a capture names that were not at hand when it settled",
	.usage = "FILE",
	.about = "Every frame of a capture keeps its module, the module's build-id and its offset, so that names can be added "
		 "later and on another machine: from the programs themselves, where they have the same build-id, from "
		 "/usr/lib/debug, and from the directories given. Directories are searched by build-id (.build-id/ab/cdef.debug) "
		 "and by file name.\n\n"
		 "ELF and DWARF are read in a child that may do nothing else; what crashes it costs names. The capture is replaced "
		 "when the new one is whole and on disk.",
	.exit_status = "0 when all went well, 1 when it failed, 2 when the capture is damaged and what is whole was named, 64 when "
		       "the arguments were wrong.",
	.examples = "dashcam symbolize FILE --debug-dir build/\tthe program was stripped where it ran\n"
		    "dashcam symbolize FILE --debuginfod\task the distribution's server\n",
	.see_also = "info report settle show",
	.options = symbolize_option_table,
	.options_size = sizeof(struct symbolize_options),
	.operand = OPERAND_CAPTURE,
	.operands_min = 1,
	.operands_max = 1,
	.run = symbolize_run,
};
