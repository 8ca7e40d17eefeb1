/* SPDX-License-Identifier: MIT */
/* Which chunks hold what is new, and which of them are decoded when all would cost too much. */
#include <errno.h>
#include <stdlib.h>

#include "trigger/tail_inside.h"

#define CHANCE_LEAST 0.01

static double random_part(struct dc_tail *t)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return (double)(t->random >> 11) * 0x1p-53;
}

/* ---- which chunks ---- */

int dc_tail_chunks_room(struct dc_tail *t, uint32_t count)
{
	struct known_chunk *chunks;

	if (count <= t->chunk_count)
		return 0;
	chunks = reallocarray(t->chunks, count, sizeof(*chunks));
	if (!chunks)
		return -ENOMEM;
	t->chunks = chunks;
	for (uint32_t i = t->chunk_count; i < count; i++)
		t->chunks[i] = (struct known_chunk){.lane = ~0u};
	t->chunk_count = count;
	return 0;
}

static uint32_t steps(uint64_t from, uint64_t to)
{
	return (dc_state_generation(to) - dc_state_generation(from)) & 0x7fffffff;
}

/* Claims whose chunks nobody read are lost, and so is what its last owner may have added after the last look. */
static void count_recycled(struct dc_tail *t, const struct known_chunk *k, uint64_t state)
{
	const uint32_t passed = steps(k->state, state);

	t->totals.lost_chunks += passed < 0x40000000 ? passed - 1 : 0; /* backwards: a lie */
	if ((k->state & DC_CHUNK_OWNED) && k->weight > 0)
		t->totals.lost_chunks++;
}

/* Whether the decoder of its lane stopped where what is new of the chunk begins. */
static bool goes_on(const struct dc_tail *t, const struct known_chunk *k, uint32_t index)
{
	const struct known_lane *l = k->lane < t->lane_count ? &t->lanes[k->lane] : NULL;

	return l && l->decoder && l->chunk == index && l->generation == dc_state_generation(k->state);
}

/* Up to @state it is passed over. What state words say is not believed to grow only. */
static void pass_over(struct dc_tail *t, struct known_chunk *k, uint64_t state)
{
	const uint32_t events = dc_state_events(state), had = dc_state_events(k->state);
	const uint32_t bytes = dc_state_bytes(state), had_bytes = dc_state_bytes(k->state);

	t->totals.skipped_events += events > had ? events - had : 0;
	t->totals.skipped_bytes += bytes > had_bytes ? bytes - had_bytes : 0;
	k->state = state;
}

static void consider(struct dc_tail *t, uint32_t index, const struct dc_chunk_entry *e)
{
	struct known_chunk *k = &t->chunks[index];
	const uint32_t bytes = dc_state_bytes(e->state), had = dc_state_bytes(k->state);
	struct piece p = {.state = e->state, .index = index, .sealed = e->sealed};

	if (bytes < sizeof(struct dc_chunk_header) || bytes > t->ring->header.chunk_bytes)
		return; /* just claimed, never used, or a lie */
	if (k->look == t->looks)
		return; /* two lanes say they are in it */
	if (steps(k->state, e->state) == 0) {
		k->state |= e->state & DC_CHUNK_OWNED;
		k->state &= e->state | ~DC_CHUNK_OWNED;
		k->look = t->looks;
		if (bytes <= had)
			return;
		if (k->weight <= 0) {
			pass_over(t, k, e->state);
			return;
		}
		p.from = had;
		p.read_from = goes_on(t, k, index) ? had : 0;
	} else {
		count_recycled(t, k, e->state);
		*k = (struct known_chunk){.state = e->state & ~UINT64_C(0xffffffff), .lane = ~0u, .look = t->looks};
		p.fresh = true;
	}
	t->pieces[t->piece_count++] = p;
}

int dc_tail_consider_all(struct dc_tail *t)
{
	CLEANUP(free) struct dc_chunk_entry *entries = NULL;
	struct dc_ring_look look;
	int r = dc_ring_glance(t->ring, &look);

	t->looks++;
	if (r == 0)
		r = dc_tail_chunks_room(t, look.chunks_grown);
	if (r < 0)
		return r;
	entries = calloc(t->chunk_count + 1, sizeof(*entries));
	free(t->pieces);
	t->pieces = calloc(t->chunk_count + 1, sizeof(*t->pieces));
	t->piece_count = 0;
	if (!entries || !t->pieces)
		return -ENOMEM;
	t->totals.truncated |= !dc_ring_states(t->ring, entries, 0, t->chunk_count);
	for (uint32_t i = 0; i < t->chunk_count; i++)
		consider(t, i, &entries[i]);
	for (uint32_t i = 0; i < t->lane_count; i++)
		t->lanes[i].open = t->entries[i].chunk;
	return 0;
}

bool dc_tail_consider_open(struct dc_tail *t)
{
	struct dc_chunk_entry e;

	t->looks++;
	free(t->pieces);
	t->pieces = calloc(t->lane_count + 1, sizeof(*t->pieces));
	t->piece_count = 0;
	if (!t->pieces)
		return false;
	for (uint32_t i = 0; i < t->lane_count; i++) {
		const uint32_t index = t->lanes[i].open;

		if (!t->lanes[i].moved)
			continue;
		if (index >= t->chunk_count || t->entries[i].chunk != index || !dc_ring_states(t->ring, &e, index, 1) ||
		    steps(t->chunks[index].state, e.state))
			return false;
		consider(t, index, &e);
	}
	return true;
}

/* ---- which of them are decoded ---- */

static void skip(struct dc_tail *t, struct known_chunk *k, const struct piece *p)
{
	pass_over(t, k, p->state);
	k->weight = 0;
	t->totals.skipped_chunks++;
	t->totals.sampled = true;
}

/* The chance of a new chunk. What goes on in chunks chosen before comes first. */
static double chance(const struct dc_tail *t, int64_t budget_ns)
{
	double fresh = 1, old = 0, left;

	for (uint32_t i = 0; i < t->piece_count; i++) {
		const struct piece *p = &t->pieces[i];

		*(p->fresh ? &fresh : &old) += dc_state_bytes(p->state) - p->read_from;
	}
	left = ((double)budget_ns / t->ns_per_byte - old) / fresh;
	return left >= 1 ? 1 : left < CHANCE_LEAST ? CHANCE_LEAST : left;
}

/* Every so many-th from a random one on: the part that is decoded is as large as it should be. */
void dc_tail_choose(struct dc_tail *t, int64_t budget_ns)
{
	const double each = budget_ns > 0 ? chance(t, budget_ns) : 0;
	double passed = each < 1 ? random_part(t) : 0;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < t->piece_count; i++) {
		const struct piece p = t->pieces[i];
		struct known_chunk *k = &t->chunks[p.index];

		if (p.fresh) {
			passed += each;
			k->weight = passed >= 1 ? (float)(1 / each) : 0;
			passed -= passed >= 1;
		}
		if (k->weight <= 0 || budget_ns <= 0)
			skip(t, k, &p);
		else
			t->pieces[kept++] = p;
	}
	t->piece_count = kept;
}
