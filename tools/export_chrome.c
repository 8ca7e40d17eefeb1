/* SPDX-License-Identifier: MIT */
/*
 * Trace Event JSON, for ui.perfetto.dev and chrome://tracing ("Trace Event Format", Google, 2016).
 *
 * ts is in µs from the left edge of the window: an absolute time would not fit the doubles of a browser. A span that
 * was open at the left edge begins there, with its true beginning in its arguments: a viewer would otherwise zoom out
 * to the three days a hung request took. An end whose begin is not known is left out: it would close another span.
 *
 *     span B E   open B   async b e   counter C   flow s f   instant, log, context, stack i   trigger i (global)
 */
#include "tools/export.h"

#include <inttypes.h>
#include <string.h>

#include "tools/text.h"
#include "tools/words.h"

/* A signal handler's lane has spans of its own, in the middle of its thread's: it gets a track of its own. */
static uint64_t track(const struct export *x, const struct dc_cursor_event *e)
{
	return e->event.tid | (lanes_nested(x->lanes, e) ? UINT64_C(1) << 31 : 0);
}

static void common(struct export *x, const struct dc_cursor_event *e, const char *phase, const char *name)
{
	struct json *j = &x->json;
	int64_t ts = e->t_ns - x->from_ns;

	json_object(j, NULL);
	json_text(j, "ph", phase);
	json_micros(j, "ts", ts > 0 ? ts : 0);
	json_u64(j, "pid", process_pid(dc_capture_process(x->capture, e->process)));
	json_u64(j, "tid", track(x, e));
	json_text(j, "name", name ? name : "?");
}

static void category(struct export *x, const char *cat)
{
	json_text(&x->json, "cat", cat);
}

static void metadata(struct export *x, const char *what, uint32_t pid, uint64_t tid, const char *name)
{
	struct json *j = &x->json;

	json_object(j, NULL);
	json_text(j, "ph", "M");
	json_u64(j, "pid", pid);
	json_u64(j, "tid", tid);
	json_text(j, "name", what);
	json_object(j, "args");
	json_text(j, "name", name);
	json_end(j);
	json_end(j);
}

static void thread_name(struct export *x, const struct dc_cursor_event *e)
{
	const char *name = lanes_name(x->lanes, e);
	struct text text;

	text = lanes_nested(x->lanes, e) ? text_format("%s (signal handler)", name) : text_format("%s", name);
	if (*name)
		metadata(x, "thread_name", process_pid(dc_capture_process(x->capture, e->process)),
			 track(x, e), text.s);
}

static void begin(struct export *x, const struct dc_cursor_event *e)
{
	struct json *j = &x->json;
	int64_t since = export_begin_ns(x, &e->event);

	common(x, e, "B", export_name(x, e));
	category(x, "span");
	json_object(j, "args");
	export_args_members(x, e);
	if (e->event.kind == DC_KIND_OPEN && since)
		json_text(j, "open since", text_when(since).s);
	json_end(j);
	json_end(j);
}

static void end(struct export *x, const struct dc_cursor_event *e)
{
	if (!e->event.info)
		return;
	common(x, e, "E", export_name(x, e));
	category(x, "span");
	json_end(&x->json);
}

/* The first argument is the id. Same pid, category and id belong together. */
static void async(struct export *x, const struct dc_cursor_event *e, const char *phase)
{
	common(x, e, phase, export_name(x, e));
	category(x, "async");
	json_text(&x->json, "id",
		  text_format("0x%" PRIx64, e->event.arg_count > 0 ? e->event.args[0].u : 0).s);
	export_args(x, e);
	json_end(&x->json);
}

static void counter(struct export *x, const struct dc_cursor_event *e)
{
	common(x, e, "C", export_name(x, e));
	export_args(x, e);
	json_end(&x->json);
}

/* Flows cross processes: no scope but the id. */
static void flow(struct export *x, const struct dc_cursor_event *e)
{
	bool out = e->event.kind == DC_KIND_FLOW_OUT;

	common(x, e, out ? "s" : "f", "flow");
	category(x, "flow");
	json_text(&x->json, "id", text_format("0x%" PRIx64, e->event.flow_id).s);
	if (!out)
		json_text(&x->json, "bp", "e");
	json_end(&x->json);
}

static void instant(struct export *x, const struct dc_cursor_event *e)
{
	const char *name = export_name(x, e);
	char text[1024];

	if (e->event.kind == DC_KIND_LOG && e->event.info) {
		dc_event_format(&e->event, text, sizeof(text));
		name = text;
	} else if (e->event.kind == DC_KIND_CONTEXT) {
		name = "trace context";
	}
	common(x, e, "i", name);
	category(x, e->event.kind == DC_KIND_LOG && e->event.info ? word_level(e->event.info->level)
								  : word_kind(e->event.kind));
	json_text(&x->json, "s", e->event.kind == DC_KIND_TRIGGER ? "g" : "t");
	export_args(x, e);
	json_end(&x->json);
}

static void event(struct export *x, const struct dc_cursor_event *e)
{
	if (x->thread_new)
		thread_name(x, e);
	switch (e->event.kind) {
	case DC_KIND_BEGIN:
	case DC_KIND_OPEN:
		begin(x, e);
		break;
	case DC_KIND_END:
		end(x, e);
		break;
	case DC_KIND_ASYNC_BEGIN:
		async(x, e, "b");
		break;
	case DC_KIND_ASYNC_END:
		async(x, e, "e");
		break;
	case DC_KIND_COUNTER:
		counter(x, e);
		break;
	case DC_KIND_FLOW_OUT:
	case DC_KIND_FLOW_IN:
		flow(x, e);
		break;
	case DC_KIND_THREAD:
		break;
	default:
		instant(x, e);
	}
}

static void head(struct export *x)
{
	const struct dc_incident *incident = dc_capture_incident(x->capture);
	struct json *j = &x->json;

	json_object(j, NULL);
	json_text(j, "displayTimeUnit", "ns");
	json_object(j, "otherData");
	json_text(j, "recorder", "dashcam " DC_VERSION);
	json_text(j, "reason", incident->text);
	json_text(j, "triggered", text_rfc3339(incident->at_realtime_ns).s);
	json_text(j, "ts 0 is", text_rfc3339(x->from_ns).s);
	json_text(j, "host", incident->host);
	json_end(j);
	json_array(j, "traceEvents");
	for (unsigned i = 0; i < dc_capture_process_count(x->capture); i++) {
		const struct dc_process *p = dc_capture_process(x->capture, i);

		metadata(x, "process_name", process_pid(p), 0, p->name);
	}
}

static void tail(struct export *x)
{
	json_end(&x->json);
	json_end(&x->json);
}

const struct export_format export_chrome = {"chrome", head, event, tail};
