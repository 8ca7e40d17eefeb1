/* SPDX-License-Identifier: MIT */
/* dashcam show: the events of a capture as text, one a line. Nothing is held but the line at hand. */
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <regex.h>
#include <string.h>

#include "tools/calls.h"
#include "tools/commands.h"
#include "tools/cut.h"
#include "tools/export.h"
#include "tools/lanes.h"
#include "tools/open.h"
#include "tools/show_stacks.h"
#include "tools/text.h"
#include "tools/trace.h"
#include "tools/words.h"

#define SAME_NS 1000000 /* a trigger event this close to the trigger is the trigger */
#define INDENT_MAX 24u  /* deeper spans are not moved further to the right */

struct show_options {
	const char *grep;
	const char *trace;
	bool stacks;
	bool json;
	struct cut_options cut;
};

static const struct option show_option_table[] = {
	CUT_OPTION_ROWS(show_options),
	{.name = "grep",
	 .letter = 'g',
	 .type = OPTION_TEXT,
	 .at = offsetof(struct show_options, grep),
	 .value = "REGEX",
	 .help = "only lines that match an extended regular expression, over thread, kind, name and "
		 "arguments"},
	{.name = "trace",
	 .letter = 't',
	 .type = OPTION_TEXT,
	 .at = offsetof(struct show_options, trace),
	 .value = "ID",
	 .help = "only what threads recorded while their trace context had this W3C trace id; its first digits are enough"},
	{.name = "stacks",
	 .letter = 's',
	 .type = OPTION_FLAG,
	 .at = offsetof(struct show_options, stacks),
	 .help = "also the sampled stacks, and at the trigger those of all threads"},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct show_options, json),
	 .help = "print the events as JSON, one object a line, as export does"},
	{0},
};

struct show {
	struct dc_capture *capture;
	struct lanes *lanes;
	int64_t trigger_ns;
	bool colour;
	bool one_process;
	bool trigger_shown;
	bool near; /* what else went on at the trigger, too: no filter asks for other things */
	struct stack_lines *stacks; /* sampled ones, by time, and those of the trigger */
	bool all_stacks;
	regex_t *grep; /* NULL: all */
	struct trace *trace; /* NULL: all */
	struct dc_cut traced; /* what of the trace is wanted: all before it has to be seen too, or its beginning is not known */
	struct export *json; /* NULL: text */
	FILE *line;    /* the part of a line that is searched: thread, kind, text */
	char *text;
	size_t length;
};

#define DIM "\033[2m"
#define PLAIN "\033[0m"

static const char *colour_of(const struct dc_event *e)
{
	switch (e->kind) {
	case DC_KIND_BEGIN:
	case DC_KIND_OPEN:
		return "\033[32m";
	case DC_KIND_LOG:
		if (e->info && e->info->level >= DC_LEVEL_WARN)
			return e->info->level > DC_LEVEL_WARN ? "\033[31m" : "\033[33m";
		return "";
	case DC_KIND_TRIGGER:
		return "\033[1;31m";
	case DC_KIND_COUNTER:
		return "\033[36m";
	default:
		return "";
	}
}

static void put(struct show *s, const char *text)
{
	text_print(s->line, text, strlen(text));
}

static void value(struct show *s, const struct dc_event *e, unsigned i)
{
	char text[2048];
	size_t length;

	if (e->args_dropped >> i & 1) {
		fputs("<dropped>", s->line);
	} else if (e->info->types[i] == DC_TYPE_STR && e->args[i].text.bytes) {
		text_quote(s->line, e->args[i].text.bytes, e->args[i].text.length);
		if (e->args[i].text.cut)
			fputs("...", s->line);
	} else {
		length = dc_value_format(e, i, text, sizeof(text));
		text_print(s->line, text, length < sizeof(text) ? length : sizeof(text) - 1);
	}
}

static void arguments(struct show *s, const struct dc_event *e)
{
	for (unsigned i = 0; e->info && i < e->arg_count; i++) {
		const char *key = e->info->keys[i];

		putc(' ', s->line);
		if (key && *key) {
			put(s, key);
			putc('=', s->line);
		}
		value(s, e, i);
	}
}

static void log_text(struct show *s, const struct dc_event *e)
{
	char text[4096];
	size_t length = dc_event_format(e, text, sizeof(text));

	text_print(s->line, text, length < sizeof(text) ? length : sizeof(text) - 1);
}

static int64_t duration_ns(const struct show *s, const struct dc_event *e, uint64_t to_units)
{
	if (to_units < e->start_units)
		return 0;
	return (int64_t)dc_clock_duration_ns(dc_capture_clock(s->capture), to_units - e->start_units);
}

static void span_end(struct show *s, const struct dc_event *e)
{
	put(s, e->info ? e->info->name : "(its begin is not in the capture)");
	if (e->start_units != ~UINT64_C(0))
		fprintf(s->line, " %s", text_span(duration_ns(s, e, e->units)).s);
	if (e->implied)
		fputs(" (implied by the end of an outer span)", s->line);
}

static void span_open(struct show *s, const struct dc_event *e)
{
	const struct dc_incident *incident = dc_capture_incident(s->capture);

	put(s, e->info ? e->info->name : "?");
	arguments(s, e);
	if (e->start_units != ~UINT64_C(0))
		fprintf(s->line, " (open already, begun %s before the trigger)",
			text_span(duration_ns(s, e, incident->at_units)).s);
}

static void trace_context(struct show *s, const struct dc_trace_context *t)
{
	char id[33];

	trace_text(t->trace_id, id);
	fprintf(s->line, "%s-", id);
	for (unsigned i = 0; i < 8; i++)
		fprintf(s->line, "%02x", t->span_id[i]);
}

static void body(struct show *s, const struct dc_cursor_event *e)
{
	const struct dc_event *event = &e->event;

	switch (event->kind) {
	case DC_KIND_END:
		span_end(s, event);
		break;
	case DC_KIND_OPEN:
		span_open(s, event);
		break;
	case DC_KIND_LOG:
		log_text(s, event);
		break;
	case DC_KIND_FLOW_OUT:
	case DC_KIND_FLOW_IN:
		fprintf(s->line, "0x%" PRIx64, event->flow_id);
		break;
	case DC_KIND_CONTEXT:
		trace_context(s, &event->context);
		break;
	case DC_KIND_THREAD:
		put(s, event->comm);
		break;
	default:
		put(s, event->info ? event->info->name : "?");
		arguments(s, event);
		if (event->kind == DC_KIND_STACK && event->stack_count) {
			putc(' ', s->line);
			stack_lines_event(s->stacks, e, s->line);
		}
	}
}

/* "worker-1/4242", led by the process where there are several. */
static void thread(struct show *s, const struct dc_cursor_event *e)
{
	const char *name = lanes_name(s->lanes, e);
	long start = ftell(s->line), width = s->one_process ? 20 : 36;

	if (!s->one_process) {
		put(s, dc_capture_process(s->capture, e->process)->name);
		putc(' ', s->line);
	}
	put(s, *name ? name : "thread");
	fprintf(s->line, "/%u", e->event.tid);
	width -= ftell(s->line) - start;
	fprintf(s->line, "%*s ", width > 0 ? (int)width : 0, "");
}

static const char *kind(const struct dc_event *e)
{
	return e->kind == DC_KIND_LOG && e->info ? word_level(e->info->level) : word_kind(e->kind);
}

static int indent(const struct show *s, const struct dc_cursor_event *e)
{
	uint32_t depth = lanes_depth(s->lanes, e);

	return (int)(2 * (depth < INDENT_MAX ? depth : INDENT_MAX));
}

/* A line of the trigger's time; the columns are those of events. Of a thread, or of all of a process. */
static void near_line(const struct show *s, const char *thread, uint32_t id, const char *what, const char *name, uint64_t count, uint64_t ns)
{
	const int width = (int)strlen(thread);

	printf("%s%+13.6f  %s  ", s->colour ? DIM : "", 0.0, text_clock(s->trigger_ns).s);
	text_print(stdout, thread, strlen(thread));
	printf("/%-*u %-11s ", width < 19 ? 19 - width : 0, id, what);
	if (count)
		printf("%" PRIu64 " of ", count);
	text_print(stdout, name, strlen(name));
	if (ns)
		printf("%s %s", count ? ", the oldest" : "", text_span((int64_t)ns).s);
	printf("%s\n", s->colour ? PLAIN : "");
}

/* What a rule's watcher saw going on elsewhere: requests in flight, and what waited. */
static void near_lines(const struct show *s, const struct dc_cause *c)
{
	for (uint32_t i = 0; i < c->neighbour_count; i++) {
		const struct dc_neighbour *n = &c->neighbours[i];

		near_line(s, *n->thread ? n->thread : "thread", n->tid, "in flight", n->name, 0, n->open_ns);
	}
	for (uint32_t i = 0; i < c->waiting_count; i++)
		near_line(s, "process", c->waiting[i].pid, "waiting", c->waiting[i].name, c->waiting[i].count, c->waiting[i].open_ns);
}

static void trigger_line(struct show *s)
{
	const struct dc_incident *incident = dc_capture_incident(s->capture);

	printf("%s%+13.6f  %s  ---- trigger: ", s->colour ? "\033[1;31m" : "", 0.0,
	       text_clock(s->trigger_ns).s);
	text_print(stdout, incident->text, strlen(incident->text));
	printf(" (%s) ----%s\n", word_cause(incident->reason), s->colour ? PLAIN : "");
	s->trigger_shown = true;
	if (s->near)
		near_lines(s, &incident->cause);
	stack_lines_trigger(s->stacks, s->all_stacks, stdout);
}

/* Samples up to the time of the event at hand. */
static int show_samples(struct show *s, int64_t until_ns)
{
	const struct stack_line *line;

	while (s->all_stacks && (line = stack_lines_next(s->stacks, until_ns))) {
		rewind(s->line);
		stack_line_print(s->stacks, line, !s->one_process, s->line);
		putc('\0', s->line);
		if (fflush(s->line) != 0)
			return -errno;
		if (s->grep && regexec(s->grep, s->text, 0, NULL, 0) != 0)
			continue;
		if (!s->trigger_shown && line->t_ns > s->trigger_ns)
			trigger_line(s);
		printf("%s%+13.6f  %s  %s%s\n", s->colour ? DIM : "", (double)(line->t_ns - s->trigger_ns) / 1e9,
		       text_clock(line->t_ns).s, s->text, s->colour ? PLAIN : "");
	}
	return 0;
}

static bool wanted(const struct show *s, const struct dc_cursor_event *e)
{
	const struct dc_cut *cut = &s->traced;

	if (!s->trace)
		return true;
	if (!trace_see(s->trace, e) || (cut->from_ns && e->t_ns < cut->from_ns))
		return false;
	return !cut->name || (e->event.info && fnmatch(cut->name, e->event.info->name, 0) == 0);
}

static int show_event(struct show *s, const struct dc_cursor_event *e)
{
	double relative = (double)(e->t_ns - s->trigger_ns) / 1e9;
	int r = show_samples(s, e->t_ns);

	if (r < 0)
		return r;
	lanes_see(s->lanes, e);
	if (!wanted(s, e))
		return 0;
	rewind(s->line);
	thread(s, e);
	fprintf(s->line, "%-11s %*s", kind(&e->event), indent(s, e), "");
	body(s, e);
	putc('\0', s->line);
	if (fflush(s->line) != 0)
		return -errno;
	if (s->grep && regexec(s->grep, s->text, 0, NULL, 0) != 0)
		return 0;
	if (s->json) {
		export_jsonl.event(s->json, e);
		return 0;
	}
	if (e->event.kind == DC_KIND_TRIGGER && llabs(e->t_ns - s->trigger_ns) < SAME_NS)
		s->trigger_shown = true; /* the program's own words for it */
	if (!s->trigger_shown && e->t_ns > s->trigger_ns)
		trigger_line(s);
	printf("%s%+13.6f  %s%s  %s%s%s\n", s->colour ? DIM : "", relative, text_clock(e->t_ns).s,
	       s->colour ? PLAIN : "", s->colour ? colour_of(&e->event) : "", s->text,
	       s->colour ? PLAIN : "");
	return 0;
}

static int show_events(struct show *s, const struct dc_cut *cut)
{
	CLEANUP(dc_cursor) struct dc_cursor *cursor = NULL;
	struct dc_cursor_event e;
	int r;

	r = dc_cursor_open(s->capture, cut, &cursor);
	while (r >= 0 && (r = dc_cursor_next(cursor, &e)) > 0) {
		r = show_event(s, &e);
		if (r < 0 || ferror(stdout))
			break;
	}
	if (r == 0)
		r = show_samples(s, INT64_MAX);
	if (r == 0 && !s->trigger_shown && !s->json && cut->to_ns == 0)
		trigger_line(s);
	return r < 0 ? r : 0;
}

static int grep_compile(const char *pattern, regex_t *ret_grep)
{
	char why[128];
	int r = regcomp(ret_grep, pattern, REG_EXTENDED | REG_NOSUB);

	if (r == 0)
		return EXIT_OK;
	regerror(r, ret_grep, why, sizeof(why));
	return usage_error("--grep: '%s' is no regular expression: %s", pattern, why);
}

static int show_capture(struct show *s, const struct dc_cut *cut, bool as_json)
{
	struct export json = {.capture = s->capture, .thread_new = true}; /* named in each: its first may be filtered out */
	CLEANUP(export_stacks) struct export_stacks names = {0};
	int r;

	if (lanes_new(s->capture, &s->lanes) < 0)
		return -ENOMEM;
	json.lanes = s->lanes;
	json.stacks = &names;
	json_init(&json.json, stdout, false);
	s->json = as_json ? &json : NULL;
	r = as_json ? export_stacks_open(s->capture, &names) : 0;
	if (r == 0)
		r = stack_lines_new(s->capture, cut, s->all_stacks, &s->stacks);
	if (r < 0) {
		lanes_free(s->lanes);
		return r;
	}
	s->line = open_memstream(&s->text, &s->length);
	r = s->line ? show_events(s, cut) : -errno;
	if (s->line)
		fclose(s->line);
	free(s->text);
	stack_lines_free(s->stacks);
	lanes_free(s->lanes);
	return r;
}

static int show_run(const void *options, const struct operands *operands)
{
	const struct show_options *o = options;
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	struct show s = {.colour = colour_wanted(stdout)};
	struct dc_cut cut;
	regex_t grep;
	int r;

	if (o->json && o->stacks)
		return usage_error("--stacks: JSON has events only; 'dashcam export -f folded' and '-f pprof' have stacks");
	r = capture_open(operands->items[0], &c);
	if (r != EXIT_OK)
		return r;
	r = cut_resolve(&o->cut, c, &cut);
	if (r != EXIT_OK)
		return r;
	if (o->grep) {
		r = grep_compile(o->grep, &grep);
		if (r != EXIT_OK)
			return r;
		s.grep = &grep;
	}
	CLEANUP(trace) struct trace *trace = NULL;
	r = o->trace ? trace_new(c, o->trace, &trace) : 0;
	if (r == -EINVAL)
		return usage_error("--trace: '%s' is no trace id: expected up to 32 hex digits", o->trace);
	if (trace) {
		s.traced = cut;
		cut.from_ns = 0;
		cut.name = NULL;
		s.trace = trace;
	}
	s.capture = c;
	s.all_stacks = o->stacks;
	s.near = !o->grep && !o->trace && !o->cut.name && !o->cut.pid && !o->cut.tid;
	s.trigger_ns = dc_capture_incident(c)->at_realtime_ns;
	s.one_process = dc_capture_process_count(c) == 1;
	if (r == 0)
		r = show_capture(&s, &cut, o->json);
	if (s.grep)
		regfree(&grep);
	r = capture_status(c, operands->items[0], r);
	if (r == EXIT_OK && trace && !trace_found(trace))
		return failure("--trace: no thread of this capture worked on a trace '%s'", o->trace);
	return r;
}

const struct command cmd_show = {
	.name = "show",
	.summary = "print the events of a capture, one a line",
	.usage = "FILE",
	.about = "Prints the events of a capture, ordered by time over all threads and processes. "
		 "Each line has the time in seconds relative to the trigger, the time on the clock, the "
		 "thread, the kind of "
		 "event, and what was recorded; spans are indented by depth, and their ends say how long "
		 "they took. "
		 "Spans that were open when the window began come first. "
		 "Behind the trigger of a rule stand the spans in flight elsewhere and what was waiting, unless other "
		 "things are asked for; behind that of a crash its stack; with --stacks also what was sampled, innermost function "
		 "first, and what every thread was doing when it was stopped at the trigger.\n\n"
		 "Strings of the recorded program are printed with control characters escaped. "
		 "Colours are used on a terminal only, and never when NO_COLOR is set.",
	.exit_status =
		"0 when all went well, 1 when it failed, 2 when the capture is damaged and what is whole was "
		"printed, 64 when the arguments were wrong.",
	.examples = "dashcam show FILE --from -5s\tthe last five seconds before the trigger\n"
		    "dashcam show FILE --name 'db.*' --tid 4242\twhat one thread asked the database\n"
		    "dashcam show FILE --trace 4bf92f35\tone request through all its processes\n"
		    "dashcam show FILE --grep 'error|timeout'\twherever one of the words occurs\n",
	.see_also = "export info",
	.options = show_option_table,
	.options_size = sizeof(struct show_options),
	.operand = OPERAND_CAPTURE,
	.operands_min = 1,
	.operands_max = 1,
	.run = show_run,
};
