/* SPDX-License-Identifier: MIT */
#include "tools/watching.h"

#include <string.h>
#include <unistd.h>

#include "tools/cause.h"
#include "tools/text.h"
#include "trigger/http.h"

static int find_places(const struct watching_options *o, struct watching_places *ret_places)
{
	if (o->dir && strlen(o->dir) >= sizeof(ret_places->dir))
		return failure("--dir: '%s' is too long", o->dir);
	if (o->dir)
		strcpy(ret_places->dir, o->dir);
	else if (dc_rings_dir(ret_places->dir) < 0)
		return failure("DASHCAM_DIR is too long");
	if (o->out && strlen(o->out) >= sizeof(ret_places->out))
		return failure("--out: '%s' is too long", o->out);
	if (o->out)
		strcpy(ret_places->out, o->out);
	else if (place_captures(ret_places->out) < 0)
		return failure("no home directory to save captures in: give --out DIR");
	return EXIT_OK;
}

int watching_rules(const struct watching_options *o, struct rule_source *source, struct dc_rules *ret_rules)
{
	CLEANUP(rule_source) struct rule_source *own = source ? NULL : rule_source_new(NULL, NULL);

	source = source ? source : own;
	if (!source)
		return EXIT_FAILED;
	if (rule_source_typed(source, &o->when) < 0)
		return EXIT_USAGE;
	return rule_source_take(source, strcmp(o->default_rules, "yes") == 0, o->sample, ret_rules) < 0 ? EXIT_FAILED : EXIT_OK;
}

static void log_line(void *arg, const char *line)
{
	(void)arg;
	say("%s", line);
}

/* On the standard input of a command that a rule runs: the words of `dashcam why --json`. */
static void describe(const struct dc_incident *in, const char *process, FILE *out)
{
	struct json j;

	json_init(&j, out, true);
	json_object(&j, NULL);
	json_text(&j, "rule", in->rule);
	json_text(&j, "reason", in->text);
	json_text(&j, "time", text_rfc3339(in->at_realtime_ns).s);
	json_text(&j, "host", in->host);
	json_text(&j, "process", process);
	json_u64(&j, "pid", in->trigger_pid);
	if (in->trigger_tid)
		json_u64(&j, "tid", in->trigger_tid);
	json_u64(&j, "severity", in->severity);
	json_u64(&j, "suppressed", in->suppressed);
	json_cause(&j, &in->cause);
	json_end(&j);
}

int watching_configure(const struct watching_options *o, struct watching_places *ret_places,
		       struct dc_watcher_config *ret_config)
{
	char why[DC_WHY_BYTES];
	int r = find_places(o, ret_places);

	if (r != EXIT_OK)
		return r;
	const char *metrics = strcmp(o->metrics, "off") == 0 ? NULL : o->metrics;

	if (metrics && dc_http_check(metrics, why) < 0)
		return usage_error("--metrics: %s", why);
	dc_watcher_defaults(ret_config);
	ret_config->dir = ret_places->dir;
	ret_config->output = (struct dc_save_output){
		.dir = ret_places->out,
		.per_uid = geteuid() == 0,
		.writer_flags = o->pwrite ? DC_WRITER_PWRITE : 0,
	};
	if (o->window > 0)
		ret_config->last_ns = ret_config->window_ns = o->window;
	ret_config->after_ns = o->after;
	ret_config->budget.cooldown_ns = o->cooldown;
	ret_config->disk_bytes = o->disk;
	ret_config->sample_hz = (uint32_t)o->sample;
	ret_config->sample_bytes = o->sample_memory;
	ret_config->sample_stacks = strcmp(o->stacks, "fp") == 0     ? DC_STACKS_FRAME_POINTERS
				    : strcmp(o->stacks, "copy") == 0 ? DC_STACKS_COPY
				    : strcmp(o->stacks, "guest") == 0 ? DC_STACKS_GUEST
								     : DC_STACKS_AUTO;
	ret_config->settle = strcmp(o->settle, "yes") == 0;
	ret_config->threads = strcmp(o->threads, "on") == 0;
	ret_config->sample_host = geteuid() == 0;
	ret_config->metrics = metrics;
	ret_config->log = log_line;
	ret_config->describe = describe;
	return EXIT_OK;
}
