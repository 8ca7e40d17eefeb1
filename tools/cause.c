/* SPDX-License-Identifier: MIT */
#include "tools/cause.h"

#include "tools/trace.h"
#include "tools/words.h"

static void json_neighbours(struct json *j, const struct dc_cause *c)
{
	json_array(j, "neighbours");
	for (uint32_t i = 0; i < c->neighbour_count; i++) {
		const struct dc_neighbour *n = &c->neighbours[i];

		json_object(j, NULL);
		json_u64(j, "pid", n->pid);
		json_u64(j, "tid", n->tid);
		json_text(j, "thread", n->thread);
		json_text(j, "name", n->name);
		json_u64(j, "open_ns", n->open_ns);
		json_u64(j, "depth", n->depth);
		json_end(j);
	}
	json_end(j);
}

static void json_waiting(struct json *j, const struct dc_cause *c)
{
	json_array(j, "queued");
	for (uint32_t i = 0; i < c->waiting_count; i++) {
		const struct dc_waiting *w = &c->waiting[i];

		json_object(j, NULL);
		json_u64(j, "pid", w->pid);
		json_text(j, "name", w->name);
		json_u64(j, "count", w->count);
		if (w->open_ns)
			json_u64(j, "oldest_ns", w->open_ns);
		json_end(j);
	}
	json_end(j);
}

void json_cause(struct json *j, const struct dc_cause *c)
{
	char id[33];

	if (!*c->expression)
		return;
	json_text(j, "expression", c->expression);
	json_text(j, "sentence", c->sentence);
	if (*c->name)
		json_text(j, "name", c->name);
	if (*c->thread)
		json_text(j, "thread", c->thread);
	if (c->unit != DC_UNIT_NONE) {
		json_f64(j, "value", c->value);
		json_f64(j, "threshold", c->threshold);
		json_text(j, "unit", word_unit(c->unit));
	}
	if (c->allowed > 0) {
		json_f64(j, "amount", c->amount);
		json_f64(j, "allowed", c->allowed);
		json_text(j, "amount_unit", word_unit(c->amount_unit));
	}
	if (c->sample_hz) {
		json_u64(j, "sample_hz", c->sample_hz);
		json_i64(j, "sample_for_ns", c->sample_for_ns);
	}
	if (trace_text(c->trace_id, id))
		json_text(j, "trace_id", id);
	json_neighbours(j, c);
	json_waiting(j, c);
}
