/* SPDX-License-Identifier: MIT */
/*
 * The arguments of an event as members of a JSON object.
 *
 * Keys come from the recorded program: two may be equal and some are missing (logs, events of a full site
 * table); each still gets a key of its own: "n", then "n#2"; without a key "0", "1", by position.
 */
#include "tools/export.h"

#include <inttypes.h>
#include <string.h>

#include "tools/words.h"

static const char *key_of(const struct dc_event *e, unsigned i, char made_up[static 300])
{
	const char *key = e->info->keys[i] ? e->info->keys[i] : "";
	unsigned equal = 1;

	if (!*key) {
		snprintf(made_up, 300, "%u", i);
		return made_up;
	}
	for (unsigned j = 0; j < i; j++)
		equal += e->info->keys[j] && strcmp(e->info->keys[j], key) == 0;
	if (equal == 1)
		return key;
	snprintf(made_up, 300, "%.256s#%u", key, equal);
	return made_up;
}

static void pointer(struct json *j, const char *key, uint64_t address)
{
	char text[32];

	snprintf(text, sizeof(text), "0x%" PRIx64, address);
	json_text(j, key, text);
}

static void argument(struct json *j, const char *key, uint8_t type, const union dc_value *v)
{
	switch (type) {
	case DC_TYPE_U64:
		json_u64(j, key, v->u);
		break;
	case DC_TYPE_I64:
		json_i64(j, key, v->i);
		break;
	case DC_TYPE_F64:
		json_f64(j, key, v->f);
		break;
	case DC_TYPE_BOOL:
		json_bool(j, key, v->u);
		break;
	case DC_TYPE_PTR:
		pointer(j, key, v->u);
		break;
	case DC_TYPE_STR:
		if (v->text.bytes)
			json_bytes(j, key, v->text.bytes, v->text.length);
		else
			json_null(j, key);
		break;
	default:
		json_text(j, key, "<secret>");
	}
}

static void hex(char *out, const uint8_t *bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sprintf(out + 2 * i, "%02x", bytes[i]);
}

static void trace_context(struct json *j, const struct dc_trace_context *t)
{
	char trace[33], span[17], text[56];

	hex(trace, t->trace_id, 16);
	hex(span, t->span_id, 8);
	snprintf(text, sizeof(text), "00-%s-%s-%02x", trace, span, t->flags);
	json_text(j, "traceparent", text);
}

static int frame(void *arg, const struct call *c)
{
	json_text(arg, NULL, c->function);
	return 0;
}

static void frames(struct export *x, const struct dc_cursor_event *e)
{
	json_array(&x->json, "frames");
	if (e->process < x->stacks->count)
		event_stacks_calls(&x->stacks->of_events[e->process], &e->event, frame, &x->json);
	json_end(&x->json);
}

void export_args_members(struct export *x, const struct dc_cursor_event *e)
{
	const struct dc_event *event = &e->event;
	char made_up[300];

	for (unsigned i = 0; event->info && event->kind != DC_KIND_END && i < event->arg_count; i++) {
		const char *key = key_of(event, i, made_up);

		if (event->args_dropped >> i & 1)
			json_text(&x->json, key, "<dropped>");
		else
			argument(&x->json, key, event->info->types[i], &event->args[i]);
	}
	if (event->kind == DC_KIND_FLOW_OUT || event->kind == DC_KIND_FLOW_IN)
		pointer(&x->json, "id", event->flow_id);
	else if (event->kind == DC_KIND_CONTEXT)
		trace_context(&x->json, &event->context);
	else if (event->kind == DC_KIND_STACK)
		frames(x, e);
}

void export_args(struct export *x, const struct dc_cursor_event *e)
{
	json_object(&x->json, "args");
	export_args_members(x, e);
	json_end(&x->json);
}

const char *export_name(const struct export *x, const struct dc_cursor_event *e)
{
	(void)x;
	if (e->event.kind == DC_KIND_THREAD)
		return e->event.comm;
	return e->event.info ? e->event.info->name : NULL;
}

int64_t export_begin_ns(const struct export *x, const struct dc_event *e)
{
	if (e->start_units == ~UINT64_C(0))
		return 0;
	return dc_clock_realtime_ns(dc_capture_clock(x->capture), e->start_units);
}
