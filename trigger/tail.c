/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/tail_inside.h"

#define LANES_AHEAD 8u /* read beyond the known ones: new threads show up there */
#define LOOKS_AFTER 2u /* an event's time may be stored before it is committed */
#define NS_PER_BYTE 3.0 /* to decode and handle, until measured */
#define MEASURED_BYTES 4096u /* less says nothing about the price */
#define BUDGET_NS_MAX INT64_C(3600000000000)
#define LATE 4 /* budgets: what is left over by then waits for the next look */

/* ---- lanes ---- */

int dc_tail_lanes_room(struct dc_tail *t, uint32_t count)
{
	struct dc_ring_lane *entries = reallocarray(t->entries, count, sizeof(*entries));
	struct known_lane *lanes;

	if (entries)
		t->entries = entries;
	lanes = reallocarray(t->lanes, count, sizeof(*lanes));
	if (lanes)
		t->lanes = lanes;
	if (!entries || !lanes)
		return -ENOMEM;
	for (uint32_t i = t->lane_count; i < count; i++)
		t->lanes[i] = (struct known_lane){.open = ~0u, .chunk = ~0u};
	t->lane_count = count;
	return 0;
}

/* A glance, more only while the table is in use up to where it was read. */
static int read_lanes(struct dc_tail *t)
{
	const struct dc_ring_header *h = &t->ring->header;

	for (;;) {
		uint32_t used = t->lane_count;
		int r = 0;

		if (!dc_ring_glance_lanes(t->ring, t->entries, t->lane_count)) {
			t->totals.truncated = true;
			return -EBADMSG;
		}
		while (used && t->entries[used - 1].tid == 0)
			used--;
		if (t->lane_count == h->lane_cap || used + LANES_AHEAD / 2 <= t->lane_count)
			return 0;
		used = used + LANES_AHEAD + used / 2;
		r = dc_tail_lanes_room(t, used < h->lane_cap ? used : h->lane_cap);
		if (r < 0)
			return r;
	}
}

void dc_tail_forget_lane(struct dc_tail *t, struct known_lane *l)
{
	t->decoders -= l->decoder != NULL;
	free(l->decoder);
	l->decoder = NULL;
	l->chunk = ~0u;
}

/* Of every lane that has a thread. */
static void tell_lanes(struct dc_tail *t, const struct dc_tail_handler *handler, void *arg)
{
	for (uint32_t i = 0; i < t->lane_count; i++) {
		struct dc_ring_lane *e = &t->entries[i];

		e->comm[sizeof(e->comm) - 1] = 0;
		if (handler->lane && e->tid && !(e->flags & DC_LANE_FREE))
			handler->lane(arg, i, e);
	}
}

/* Return: whether any moved. */
static bool note_moves(struct dc_tail *t)
{
	bool any = false;

	for (uint32_t i = 0; i < t->lane_count; i++) {
		const struct dc_ring_lane *e = &t->entries[i];
		struct known_lane *l = &t->lanes[i];

		if (e->last_units != l->last_units)
			l->moved = LOOKS_AFTER;
		else if (l->moved)
			l->moved--;
		else if (e->flags & DC_LANE_FREE)
			dc_tail_forget_lane(t, l);
		l->last_units = e->last_units;
		any |= l->moved != 0;
	}
	return any;
}

/* ---- a look ---- */

/* Oldest first, so that the lanes' decoders see little out of order; those being written last. */
static int by_age(const void *left, const void *right)
{
	const struct piece *a = left, *b = right;
	const bool a_owned = a->state & DC_CHUNK_OWNED, b_owned = b->state & DC_CHUNK_OWNED;

	if (a_owned != b_owned)
		return a_owned ? 1 : -1;
	if (!a_owned && a->sealed != b->sealed)
		return (int32_t)(a->sealed - b->sealed) < 0 ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

static uint64_t bytes_of_pieces(const struct dc_tail *t)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < t->piece_count; i++)
		bytes += dc_state_bytes(t->pieces[i].state) - t->pieces[i].read_from;
	return bytes;
}

static void learn_price(struct dc_tail *t, uint64_t bytes, int64_t took_ns)
{
	t->totals.cpu_ns += (uint64_t)took_ns;
	if (bytes >= MEASURED_BYTES)
		t->ns_per_byte += ((double)took_ns / (double)bytes - t->ns_per_byte) / 4;
}

/* @began: 0: so little that asking the clock would cost as much, and it is not. */
static int take_pieces(struct dc_tail *t, uint64_t size, int64_t began, int64_t budget_ns)
{
	const uint64_t bytes = t->totals.bytes;
	int r;

	t->excused_ns = 0;
	qsort(t->pieces, t->piece_count, sizeof(*t->pieces), by_age);
	t->batch = malloc(size < BATCH_BYTES ? size + 1 : BATCH_BYTES);
	r = t->batch ? dc_tail_decode_all(t, began ? began + LATE * budget_ns : INT64_MAX) : -ENOMEM;
	free(TAKE(t->batch));
	if (began)
		learn_price(t, t->totals.bytes - bytes, dc_tail_cpu_ns() - t->excused_ns - began);
	else
		t->totals.cpu_ns += (uint64_t)((double)size * t->ns_per_byte);
	return r;
}

static int look_at_chunks(struct dc_tail *t, int64_t budget_ns)
{
	int64_t began = 0;
	uint64_t size;
	int r = 0;

	if (t->behind || !dc_tail_consider_open(t)) {
		began = dc_tail_cpu_ns();
		r = dc_tail_consider_all(t);
	}
	t->totals.sampled = false;
	if (r < 0)
		return r;
	dc_tail_choose(t, budget_ns);
	if (t->piece_count == 0)
		return 0;
	size = bytes_of_pieces(t);
	if (!began && size >= MEASURED_BYTES)
		began = dc_tail_cpu_ns();
	return take_pieces(t, size, began, budget_ns);
}

int dc_tail_lanes(struct dc_tail *t, const struct dc_tail_handler *handler, void *arg)
{
	int r = read_lanes(t);

	if (r == 0)
		tell_lanes(t, handler, arg);
	return r;
}

bool dc_tail_claimed(const struct dc_tail *t)
{
	struct dc_ring_look look;

	return dc_ring_glance(t->ring, &look) < 0 || look.hand != t->hand;
}

static void note_hand(struct dc_tail *t)
{
	struct dc_ring_look look;

	if (dc_ring_glance(t->ring, &look) == 0)
		t->hand = look.hand;
}

int dc_tail_look(struct dc_tail *t, int64_t budget_ns, const struct dc_tail_handler *handler, void *arg)
{
	int r;

	note_hand(t);
	r = dc_tail_lanes(t, handler, arg);
	if (r < 0)
		return r;
	if (budget_ns > BUDGET_NS_MAX)
		budget_ns = BUDGET_NS_MAX;
	t->handler = handler;
	t->arg = arg;
	if (note_moves(t) || t->behind)
		r = look_at_chunks(t, budget_ns);
	else
		t->totals.sampled = false;
	free(TAKE(t->pieces));
	t->piece_count = 0;
	return r;
}

/* ---- life ---- */

/* All there is counts as delivered. The chunks that threads are in are chosen: what comes next in them is wanted. */
static int begin(struct dc_tail *t)
{
	CLEANUP(free) struct dc_chunk_entry *entries = NULL;
	struct dc_ring_look look;
	int r = dc_ring_glance(t->ring, &look);

	if (r == 0)
		r = dc_tail_read_schema(t, &look);
	if (r == 0)
		r = dc_tail_lanes_room(t, look.lanes_used + LANES_AHEAD < t->ring->header.lane_cap
					  ? look.lanes_used + LANES_AHEAD
					  : t->ring->header.lane_cap);
	if (r == 0)
		r = read_lanes(t);
	if (r == 0)
		r = dc_tail_chunks_room(t, look.chunks_grown);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < t->lane_count; i++) {
		t->lanes[i].last_units = t->entries[i].last_units;
		t->lanes[i].open = t->entries[i].chunk;
	}
	entries = calloc(t->chunk_count + 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	dc_ring_states(t->ring, entries, 0, t->chunk_count);
	for (uint32_t i = 0; i < t->chunk_count; i++)
		t->chunks[i] = (struct known_chunk){.state = entries[i].state, .lane = ~0u, .weight = 1};
	return 0;
}

int dc_tail_new(struct dc_ring *ring, struct dc_tail **ret_tail)
{
	CLEANUP(dc_tail) struct dc_tail *t = NULL;
	int r;

	if (ring->bare)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->ring = dc_ring_ref(ring);
	t->ns_per_byte = NS_PER_BYTE;
	t->random = ((uint64_t)ring->ino << 32 ^ (uint64_t)dc_tail_cpu_ns()) | 1;
	r = begin(t);
	if (r == 0)
		*ret_tail = TAKE(t);
	return r;
}

void dc_tail_free(struct dc_tail *t)
{
	if (!t)
		return;
	for (uint32_t i = 0; i < t->lane_count; i++)
		free(t->lanes[i].decoder);
	free(t->batch);
	free(t->pieces);
	free(t->chunks);
	free(t->lanes);
	free(t->entries);
	dc_schema_free(t->schema);
	dc_ring_unref(t->ring);
	free(t);
}

void dc_tail_excuse(struct dc_tail *t, int64_t cpu_ns)
{
	t->excused_ns += cpu_ns;
}

const struct dc_tail_totals *dc_tail_totals(const struct dc_tail *t)
{
	return &t->totals;
}

const struct dc_schema *dc_tail_schema(const struct dc_tail *t)
{
	return t->schema;
}
