/* SPDX-License-Identifier: MIT */
/* dashcam export */
#include <errno.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/cut.h"
#include "tools/export.h"
#include "tools/open.h"
#include "tools/output.h"

struct export_options {
	const char *format;
	const char *output;
	bool off_cpu;
	bool events;
	struct cut_options cut;
};

static const struct option export_option_table[] = {
	{.name = "format",
	 .letter = 'f',
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct export_options, format),
	 .value = "FORMAT",
	 .choices = "jsonl|chrome|folded|pprof",
	 .fallback = "jsonl",
	 .help = "jsonl (one object an event), chrome (for ui.perfetto.dev), or of the samples folded (one stack a line, for "
		 "flame graphs) or pprof"},
	{.name = "off-cpu",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct export_options, off_cpu),
	 .help = "folded: where threads were off the CPU, in microseconds, instead of on it"},
	{.name = "events",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct export_options, events),
	 .help = "folded: where events with a stack came from, and how many, instead of samples"},
	{.name = "output",
	 .letter = 'o',
	 .type = OPTION_FILE,
	 .at = offsetof(struct export_options, output),
	 .value = "FILE",
	 .help = "write FILE instead of standard output; it appears when it is whole"},
	CUT_OPTION_ROWS(export_options),
	{0},
};

static const struct export_format *format_find(const char *name)
{
	return strcmp(name, "chrome") == 0 ? &export_chrome : &export_jsonl;
}

static int export_events(struct export *x, const struct export_format *format, const struct dc_cut *cut)
{
	CLEANUP(dc_cursor) struct dc_cursor *cursor = NULL;
	struct dc_cursor_event e;
	int r;

	r = dc_cursor_open(x->capture, cut, &cursor);
	if (r < 0)
		return r;
	format->head(x);
	while ((r = dc_cursor_next(cursor, &e)) > 0) {
		x->thread_new = lanes_see(x->lanes, &e);
		format->event(x, &e);
		if (ferror(x->json.out))
			break;
	}
	format->tail(x);
	return r < 0 ? r : 0;
}

static int export_all(struct export *x, const struct export_format *format, const struct dc_cut *cut)
{
	CLEANUP(export_stacks) struct export_stacks stacks = {0};
	const int r = export_stacks_open(x->capture, &stacks);

	x->stacks = &stacks;
	return r < 0 ? r : export_events(x, format, cut);
}

static bool is_profile(const char *format)
{
	return strcmp(format, "folded") == 0 || strcmp(format, "pprof") == 0;
}

static int export_profile(const struct export_options *o, struct dc_capture *c, const struct dc_cut *cut, FILE *out)
{
	if (strcmp(o->format, "pprof") == 0)
		return export_pprof(c, cut, out);
	return o->events ? export_folded_events(c, cut, out) : export_folded(c, cut, o->off_cpu, out);
}

static int64_t left_edge(const struct dc_capture *c, const struct dc_cut *cut)
{
	int64_t from_ns = dc_clock_realtime_ns(dc_capture_clock(c), dc_capture_incident(c)->from_units);

	return cut->from_ns > from_ns || (cut->everything && cut->from_ns) ? cut->from_ns : from_ns;
}

static int export_run(const void *options, const struct operands *operands)
{
	const struct export_options *o = options;
	const char *path = operands->items[0], *to = o->output ? o->output : "standard output";
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	CLEANUP(output) struct output out = {0};
	CLEANUP(lanes) struct lanes *lanes = NULL;
	struct export x;
	struct dc_cut cut;
	int r, r2;

	r = capture_open(path, &c);
	if (r != EXIT_OK)
		return r;
	r = cut_resolve(&o->cut, c, &cut);
	if (r != EXIT_OK)
		return r;
	if ((o->off_cpu || o->events) && strcmp(o->format, "folded") != 0)
		return usage_error("--%s is of --format folded; pprof has all", o->off_cpu ? "off-cpu" : "events");
	if (lanes_new(c, &lanes) < 0)
		return failure("out of memory");
	r = output_open(&out, o->output);
	if (r < 0)
		return failure("'%s': %s", to, strerror(-r));
	if (is_profile(o->format)) {
		r = export_profile(o, c, &cut, out.file);
		r2 = output_commit(&out);
		return r2 < 0 ? failure("'%s': %s", to, strerror(-r2)) : capture_status(c, path, r);
	}
	x = (struct export){.capture = c, .lanes = lanes, .from_ns = left_edge(c, &cut)};
	json_init(&x.json, out.file, false);
	r = export_all(&x, format_find(o->format), &cut);
	r2 = output_commit(&out);
	if (r2 < 0)
		return failure("'%s': %s", to, strerror(-r2));
	return capture_status(c, path, r);
}

const struct command cmd_export = {
	.name = "export",
	.summary = "turn a capture into JSON lines, a trace or a profile",
	.usage = "FILE",
	.about = "Writes the events of a capture, ordered by time over all threads and processes. "
		 "jsonl has one object a line, with t (ns, CLOCK_REALTIME), pid, tid, kind, name and args: "
		 "made for jq and "
		 "databases. "
		 "chrome is the Trace Event format that ui.perfetto.dev and chrome://tracing open.\n\n"
		 "folded and pprof are made of the samples: folded has one line for each stack of each thread, outermost "
		 "function first, and its microseconds; pprof is the protocol buffer of pprof, with samples, CPU time, "
		 "time off the CPU, and the events that have a stack.\n\n"
		 "Strings of the recorded program that are not UTF-8 are made so; the output is always valid "
		 "JSON.",
	.exit_status =
		"0 when all went well, 1 when it failed, 2 when the capture is damaged and what is whole was "
		"written, 64 when the arguments were wrong.",
	.examples =
		"dashcam export FILE | jq 'select(.kind==\"end\" and .duration_ns>1e6)'\tspans over 1 ms\n"
		"dashcam export FILE -f chrome -o trace.json\topen trace.json in ui.perfetto.dev\n"
		"dashcam export FILE -f folded | flamegraph.pl >flame.svg\ta flame graph\n"
		"dashcam export FILE -f folded --events --name cache.miss | flamegraph.pl >misses.svg\twho misses the cache\n"
		"dashcam export FILE -f pprof -o cpu.pb\tgo tool pprof -http=: cpu.pb\n",
	.see_also = "info show",
	.options = export_option_table,
	.options_size = sizeof(struct export_options),
	.operand = OPERAND_CAPTURE,
	.operands_min = 1,
	.operands_max = 1,
	.run = export_run,
};
