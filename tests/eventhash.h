/* SPDX-License-Identifier: MIT */
/* All that an event says, as one number: two readings of the same events give the same numbers in the same order. */
#pragma once

#include <string.h>

#include "ipc/decode.h"

static inline void event_hash_add(uint64_t *hash, const void *bytes, size_t count)
{
	const uint8_t *p = bytes;

	*hash = (*hash ^ count) * 1099511628211u;
	while (count--)
		*hash = (*hash ^ *p++) * 1099511628211u;
}

static inline void event_hash_args(uint64_t *hash, const struct dc_event *e)
{
	for (unsigned i = 0; i < e->arg_count; i++) {
		const union dc_value *v = &e->args[i];

		if (e->args_dropped >> i & 1 || e->info->types[i] == DC_TYPE_SECRET)
			continue;
		if (e->info->types[i] != DC_TYPE_STR) {
			event_hash_add(hash, &v->u, sizeof v->u);
			continue;
		}
		event_hash_add(hash, (bool[]){v->text.bytes != NULL, v->text.cut}, 2 * sizeof(bool));
		event_hash_add(hash, v->text.bytes, v->text.bytes ? v->text.length : 0);
	}
}

static inline uint64_t event_hash(const struct dc_event *e)
{
	uint64_t hash = 14695981039346656037u;

	event_hash_add(&hash,
		       (uint64_t[]){e->units, e->start_units, e->kind, e->site, e->depth, e->tid, e->serial, e->lane,
				    e->arg_count, e->args_dropped, e->implied, e->from_open},
		       12 * sizeof(uint64_t));
	if (e->info)
		event_hash_add(&hash, e->info->name, strlen(e->info->name));
	event_hash_args(&hash, e);
	if (e->kind == DC_KIND_FLOW_OUT || e->kind == DC_KIND_FLOW_IN)
		event_hash_add(&hash, &e->flow_id, sizeof e->flow_id);
	if (e->kind == DC_KIND_CONTEXT)
		event_hash_add(&hash, &e->context, sizeof e->context);
	if (e->kind == DC_KIND_STACK)
		event_hash_add(&hash, e->stack, 8 * (size_t)e->stack_count);
	if (e->kind == DC_KIND_THREAD)
		event_hash_add(&hash, e->comm, 16);
	return hash;
}
