/* SPDX-License-Identifier: MIT */
/*
 * One JSON object an event, one event a line, ordered by time over all lanes:
 *
 *     {"t":1795000000123456789,"pid":4240,"tid":4242,"kind":"begin","name":"db.query","depth":2,"args":{"id":7}}
 *
 * t is CLOCK_REALTIME in ns. begin, end and open carry depth (1 is the outermost), end also duration_ns, open
 * since when.
 */
#include "tools/export.h"

#include <string.h>

#include "tools/words.h"

static void head(struct export *x)
{
	(void)x;
}

static void depth(struct export *x, const struct dc_event *e)
{
	const struct dc_clock *clock = dc_capture_clock(x->capture);

	json_u64(&x->json, "depth", e->depth);
	if (e->kind == DC_KIND_OPEN && export_begin_ns(x, e))
		json_i64(&x->json, "since", export_begin_ns(x, e));
	if (e->kind == DC_KIND_END && e->start_units != ~UINT64_C(0))
		json_u64(&x->json, "duration_ns", dc_clock_duration_ns(clock, e->units - e->start_units));
	if (e->implied)
		json_bool(&x->json, "implied", true);
}

static void log_line(struct export *x, const struct dc_event *e)
{
	char text[4096];
	size_t length = dc_event_format(e, text, sizeof(text));

	json_text(&x->json, "level", word_level(e->info->level));
	json_bytes(&x->json, "text", text, length < sizeof(text) ? length : sizeof(text) - 1);
}

static void event(struct export *x, const struct dc_cursor_event *e)
{
	const char *name = export_name(x, e), *thread = lanes_name(x->lanes, e);
	struct json *j = &x->json;
	uint8_t kind = e->event.kind;

	json_object(j, NULL);
	json_i64(j, "t", e->t_ns);
	json_u64(j, "pid", process_pid(dc_capture_process(x->capture, e->process)));
	json_u64(j, "tid", e->event.tid);
	json_text(j, "kind", word_kind(kind));
	if (name)
		json_text(j, "name", name);
	else
		json_null(j, "name");
	if (x->thread_new && *thread)
		json_text(j, "thread", thread);
	if (kind == DC_KIND_BEGIN || kind == DC_KIND_END || kind == DC_KIND_OPEN)
		depth(x, &e->event);
	if (kind == DC_KIND_LOG && e->event.info)
		log_line(x, &e->event);
	export_args(x, e);
	json_end(j);
}

static void tail(struct export *x)
{
	(void)x;
}

const struct export_format export_jsonl = {"jsonl", head, event, tail};
