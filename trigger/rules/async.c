/* SPDX-License-Identifier: MIT */
#include "trigger/rules/async.h"

#include <stdlib.h>
#include <string.h>

#include "ipc/event.h"

#define BUCKETS (DC_ASYNC_MAX / 2)
#define NONE 0u /* slots[0] is the end of every list */
#define EARLY UINT64_MAX /* start_units of an end that waits for its begin */

struct slot {
	struct dc_async_span span; /* first: dc_async_each() */
	uint32_t next; /* of its bucket; of free ones */
	uint32_t older, newer;
	uint32_t look;
};

struct dc_async {
	struct slot slots[DC_ASYNC_MAX + 1];
	uint32_t buckets[BUCKETS];
	uint32_t used; /* slots ever */
	uint32_t free;
	uint32_t early;
	uint32_t look;
	uint64_t lost;
};

struct dc_async *dc_async_new(void)
{
	return calloc(1, sizeof(struct dc_async));
}

void dc_async_free(struct dc_async *a)
{
	free(a);
}

bool dc_async_id(const struct dc_event *event, uint64_t *ret_id)
{
	uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

	if (!event->info || event->arg_count == 0 || (event->args_dropped & 1) || event->info->types[0] == DC_TYPE_SECRET)
		return false;
	if (event->info->types[0] != DC_TYPE_STR) {
		*ret_id = event->args[0].u;
		return true;
	}
	for (uint32_t i = 0; event->args[0].text.bytes && i < event->args[0].text.length; i++)
		h = (h ^ (uint8_t)event->args[0].text.bytes[i]) * UINT64_C(1099511628211);
	*ret_id = h;
	return true;
}

/* ---- lists ---- */

static uint32_t *bucket_of(struct dc_async *a, const void *of, uint64_t id)
{
	const uint64_t h = ((uint64_t)(uintptr_t)of ^ id * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);

	return &a->buckets[(h >> 32) % BUCKETS];
}

static uint32_t find(struct dc_async *a, const void *of, uint64_t id)
{
	uint32_t i = *bucket_of(a, of, id);

	while (i != NONE && (a->slots[i].span.of != of || a->slots[i].span.id != id))
		i = a->slots[i].next;
	return i;
}

static bool is_early(const struct dc_async *a, uint32_t i)
{
	return a->slots[i].span.start_units == EARLY;
}

static void take_out(struct dc_async *a, uint32_t i)
{
	struct slot *s = &a->slots[i];
	uint32_t *at = bucket_of(a, s->span.of, s->span.id);

	while (*at != i)
		at = &a->slots[*at].next;
	*at = s->next;
	a->slots[s->older].newer = s->newer;
	a->slots[s->newer].older = s->older;
	a->early -= is_early(a, i);
	s->next = a->free;
	a->free = i;
}

static void give_up(struct dc_async *a, uint32_t i)
{
	a->lost += !is_early(a, i);
	take_out(a, i);
}

static uint32_t free_slot(struct dc_async *a)
{
	uint32_t i = a->free;

	if (i == NONE && a->used < DC_ASYNC_MAX)
		return ++a->used;
	if (i == NONE) {
		give_up(a, a->slots[NONE].newer);
		i = a->free;
	}
	a->free = a->slots[i].next;
	return i;
}

/* The newest stands before NONE, the oldest after it. */
static void put(struct dc_async *a, const struct dc_async_span *span)
{
	const uint32_t i = free_slot(a);
	uint32_t *bucket = bucket_of(a, span->of, span->id);
	struct slot *s = &a->slots[i];

	*s = (struct slot){.span = *span, .next = *bucket, .older = a->slots[NONE].older, .newer = NONE, .look = a->look};
	*bucket = i;
	a->slots[s->older].newer = i;
	a->slots[NONE].older = i;
	a->early += is_early(a, i);
}

/* ---- spans ---- */

bool dc_async_begin(struct dc_async *a, const struct dc_async_span *begun, struct dc_async_span *ret_span)
{
	const uint32_t i = find(a, begun->of, begun->id);
	const struct dc_async_span *early = &a->slots[i].span;

	if (i != NONE && is_early(a, i) && early->end_units >= begun->start_units) {
		*ret_span = *begun;
		ret_span->end_units = early->end_units;
		ret_span->end_tid = early->end_tid;
		take_out(a, i);
		return true;
	}
	if (i != NONE)
		give_up(a, i); /* its id is used again */
	if (begun->start_units != EARLY)
		put(a, begun);
	return false;
}

bool dc_async_end(struct dc_async *a, const void *of, uint64_t id, uint64_t units, uint32_t tid, struct dc_async_span *ret_span)
{
	const struct dc_async_span end = {.of = of, .id = id, .start_units = EARLY, .end_units = units, .end_tid = tid};
	const uint32_t i = find(a, of, id);

	if (i == NONE) {
		put(a, &end);
		return false;
	}
	if (is_early(a, i) || a->slots[i].span.start_units > units)
		return false; /* ended twice, or before it began */
	*ret_span = a->slots[i].span;
	ret_span->end_units = units;
	ret_span->end_tid = tid;
	take_out(a, i);
	return true;
}

void dc_async_look(struct dc_async *a)
{
	for (uint32_t i = a->slots[NONE].newer, newer; a->early && i != NONE; i = newer) {
		newer = a->slots[i].newer;
		if (is_early(a, i) && a->look - a->slots[i].look >= 1)
			take_out(a, i);
	}
	a->look++;
}

void dc_async_forget(struct dc_async *a)
{
	while (a->slots[NONE].newer != NONE)
		give_up(a, a->slots[NONE].newer);
}

struct dc_async_span *dc_async_each(struct dc_async *a, const struct dc_async_span *before)
{
	uint32_t i = before ? ((const struct slot *)(const void *)before)->newer : a->slots[NONE].newer;

	while (i != NONE && is_early(a, i))
		i = a->slots[i].newer;
	return i == NONE ? NULL : &a->slots[i].span;
}

uint32_t dc_async_open(struct dc_async *a, const void *of)
{
	uint32_t open = 0;

	for (const struct dc_async_span *s = dc_async_each(a, NULL); s; s = dc_async_each(a, s))
		open += s->of == of;
	return open;
}

uint64_t dc_async_lost(const struct dc_async *a)
{
	return a->lost;
}
