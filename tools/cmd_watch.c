/* SPDX-License-Identifier: MIT */
/* dashcam watch: the watcher of a ring directory, as a service or in a terminal. */
#include <errno.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "tools/commands.h"
#include "tools/config.h"
#include "tools/watching.h"

struct watch_options {
	struct watching_options watching;
	const char *config;
	uint64_t per_hour;
	int64_t grace;
	const char *on_death;
	const char *sweep;
	uint64_t level;
};

static const struct option watch_option_table[] = {
	{.name = "config",
	 .letter = 'c',
	 .type = OPTION_FILE,
	 .at = offsetof(struct watch_options, config),
	 .value = "FILE",
	 .help = "read these options from FILE, see dashcam.conf(5); what is typed wins",
	 .not_in_file = true},
	{.name = "dir",
	 .type = OPTION_DIR,
	 .at = WATCHING_MEMBER(watch_options, dir),
	 .value = "DIR",
	 .help = "watch the rings in DIR instead of $DASHCAM_DIR, /run/dashcam or /dev/shm/dashcam-UID"},
	{.name = "out",
	 .letter = 'o',
	 .type = OPTION_DIR,
	 .at = WATCHING_MEMBER(watch_options, out),
	 .value = "DIR",
	 .help = "save captures in DIR; a watcher of root makes a directory in it for each user"},
	{.name = "window",
	 .type = OPTION_TIME,
	 .at = WATCHING_MEMBER(watch_options, window),
	 .value = "TIME",
	 .help = "how far back captures go; programs are asked to keep as much (else 30s, and what each "
		 "program keeps)",
	 .min = 1000000,
	 .max = 7 * DAY_NS},
	{.name = "per-hour",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct watch_options, per_hour),
	 .value = "N",
	 .help = "captures an hour for the same reason, 0 for no bound",
	 .fallback = "60",
	 .max = DC_BUDGET_HOUR_MAX},
	{.name = "grace",
	 .type = OPTION_TIME,
	 .at = offsetof(struct watch_options, grace),
	 .value = "TIME",
	 .help = "how long to keep the ring of a program that ended in a way nobody knows",
	 .fallback = "10m",
	 .max = 7 * DAY_NS},
	{.name = "on-death",
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct watch_options, on_death),
	 .value = "yes|no",
	 .help = "save when a program dies by a signal",
	 .choices = "yes|no",
	 .fallback = "yes"},
	{.name = "sweep",
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct watch_options, sweep),
	 .value = "yes|no",
	 .help = "remove rings of programs that are gone, when their grace is over",
	 .choices = "yes|no",
	 .fallback = "yes"},
	{.name = "level",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct watch_options, level),
	 .value = "N",
	 .help = "how hard to compress when settling, as with zstd",
	 .fallback = "3",
	 .min = 1,
	 .max = 19},
	WATCHING_OPTION_ROWS(watch_options),
	{0},
};

static bool is_yes(const char *choice)
{
	return strcmp(choice, "yes") == 0;
}

static void configure(const struct watch_options *o, struct dc_watcher_config *c)
{
	c->grace_ns = o->grace;
	c->budget.per_hour = (uint32_t)o->per_hour;
	c->on_death = is_yes(o->on_death);
	c->sweep = is_yes(o->sweep);
	c->zstd_level = (int)o->level;
}

/* Says once what to type to save the past: with --dir where the trigger would not find this watcher by itself. */
static void greet(const char *dir, const char *out)
{
	char usual[DC_RINGS_PATH_BYTES] = "";
	bool is_usual = dc_rings_dir(usual) == 0 && strcmp(usual, dir) == 0;

	say("watching '%s', captures go to '%s'; save the past now: dashcam trigger --all --wait%s%s", dir,
	    out, is_usual ? "" : " --dir ", is_usual ? "" : dir);
}

/* Where options and rules come from, at the start and on SIGHUP. */
struct origin {
	const char *path; /* NULL: there is no file */
	char *const *argv;
};

/* Defaults, then the file, then what was typed once more: it wins. Return: EXIT_*, after a line on stderr. */
static int read_all(const struct origin *from, struct config *config, struct watch_options *o, struct dc_rules *ret_rules)
{
	CLEANUP(rule_source) struct rule_source *source = rule_source_new(NULL, NULL);
	struct operands again = {0};
	int r;

	if (!source)
		return EXIT_FAILED;
	command_defaults(&cmd_watch, o);
	if (from->path) {
		struct config_kind kinds[] = {{.command = &cmd_watch, .values = o}, rule_source_kind(source), {0}};

		if (config_load(config, from->path, kinds) < 0)
			return EXIT_FAILED;
	}
	r = command_parse(&cmd_watch, from->argv, o, &again);
	free(again.items);
	return r < 0 ? failure("out of memory") : watching_rules(&o->watching, source, ret_rules);
}

int watch_check(struct config *config, const char *path, struct rule_source *source, bool *ret_defaults, uint64_t *ret_sample_hz)
{
	struct watch_options o;
	struct config_kind kinds[] = {{.command = &cmd_watch, .values = &o}, rule_source_kind(source), {0}};
	int r;

	command_defaults(&cmd_watch, &o);
	r = config_load(config, path, kinds);
	if (r < 0)
		return r;
	*ret_defaults = is_yes(o.watching.default_rules);
	*ret_sample_hz = o.watching.sample;
	return 0;
}

/* SIGHUP: the rules anew. All else stays as it was at the start. */
static int reload(void *arg, struct dc_rules *ret_rules)
{
	CLEANUP(config) struct config config = {0};
	struct watch_options o;

	return read_all(arg, &config, &o, ret_rules) == EXIT_OK ? 0 : -EINVAL;
}

static int watch(const struct watch_options *o, struct origin *from, const struct dc_rules *rules)
{
	struct watching_places places;
	struct dc_watcher_config config;
	struct dc_watcher *w = NULL;
	char why[DC_WHY_BYTES];
	int r = watching_configure(&o->watching, &places, &config);

	if (r != EXIT_OK)
		return r;
	configure(o, &config);
	config.rules = rules;
	config.reload = from->path ? reload : NULL;
	config.reload_arg = from;
	r = dc_watcher_open(&config, &w, why);
	if (r < 0)
		return failure("%s", why);
	greet(places.dir, places.out);
	r = dc_watcher_loop(w);
	dc_watcher_close(w, false);
	return r < 0 ? failure("'%s': %s", places.dir, strerror(-r)) : EXIT_OK;
}

static int watch_run(const void *options, const struct operands *operands)
{
	const struct watch_options *typed = options;
	struct origin from = {.path = typed->config, .argv = operands->argv};
	CLEANUP(config) struct config config = {0};
	CLEANUP(dc_rules) struct dc_rules rules = {0};
	struct watch_options o;
	int r = read_all(&from, &config, &o, &rules);

	return r != EXIT_OK ? r : watch(&o, &from, &rules);
}

const struct command cmd_watch = {
	.name = "watch",
	.summary = "watch every recording process; save its past when something happens",
	.usage = "",
	.about = "Watches the rings of a directory and saves captures: when a program asks for it "
		 "(DC_TRIGGER), when one dies "
		 "by a signal, on 'dashcam trigger', and on SIGUSR1 (everything). "
		 "One watcher serves a host or a user. "
		 "Programs record whether it runs or not; one that is started late or again finds what the "
		 "rings still hold.\n\n"
		 "It saves, too, when a rule comes true: those of the configuration and of --when, and those that 'dashcam rules' "
		 "lists. SIGHUP has it read the rules of its configuration anew; they keep what they have seen.\n\n"
		 "SIGTERM and SIGINT end it after the captures under way. "
		 "Under systemd it reports readiness and feeds the watchdog.",
	.examples = "dashcam watch --window 60s --disk 20GiB\ta minute back, at most 20 GiB of captures\n"
		    "kill -USR1 $(pidof dashcam)\tsave everything now, without a second dashcam\n"
		    "dashcam watch --when 'log >= error rate > 10/s'\tand when errors abound\n",
	.see_also = "doctor ls rules run status trigger",
	.options = watch_option_table,
	.options_size = sizeof(struct watch_options),
	.run = watch_run,
};
