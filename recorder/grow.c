/* SPDX-License-Identifier: MIT */
/*
 * The pool grows from one chunk towards the cap, by whoever finds nothing that may be recycled. There is no lock and
 * nobody waits: to recycle while somebody else grows would cost the window for as long as a grower that was preempted
 * sleeps. Each grower has a range of its own.
 *
 *   reserve    a range nobody has
 *   populate   its entries and its pages. Refused: the range goes back, or if others have reserved behind it, is lost
 *   own        the last chunk is for who did the work: at full rate other threads use up new chunks as fast as one thread
 *              populates them
 *   ready      the rest: lane = DC_LANE_NOBODY in its entry. Before that claimers leave an unused entry alone, because
 *              its pages may not be there
 *   publish    chunks_grown, at least to the end of the range. It may pass over a range of a slower grower, whose chunks
 *              count once they are ready
 *
 * One grower at a time takes large steps; others only what they need themselves, so that 1,000 threads that begin at once
 * do not take a thousand steps.
 */
#include "recorder/recorder.h"

#define STEP_BYTES (256u << 10) /* the largest: some 50 µs */
#define REFUSED_COARSE 64u /* about half a second until a full tmpfs is asked again */

/* Return: how many chunks from *@ret_first on, 0: at the cap. */
static uint32_t reserve(struct dc_recorder *r, uint32_t step, uint32_t *ret_first)
{
	uint32_t first = __atomic_load_n(&r->chunks_reserved, __ATOMIC_RELAXED); /* the exchange decides */
	uint32_t count;
	do {
		count = step < r->chunk_cap - first ? step : r->chunk_cap - first;
	} while (count && !__atomic_compare_exchange_n(&r->chunks_reserved, &first, first + count, true, __ATOMIC_RELAXED,
						       __ATOMIC_RELAXED));
	*ret_first = first;
	return count;
}

static void give_back(struct dc_recorder *r, uint32_t first, uint32_t count)
{
	uint32_t end = first + count;
	__atomic_compare_exchange_n(&r->chunks_reserved, &end, first, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

void dc_chunk_ready(struct dc_recorder *r, uint32_t i)
{
	/* [chunk-ready] release; pairs with the acquire in chunk_is_ready(): who sees it finds its pages */
	__atomic_store_n(&r->entries[i].lane, DC_LANE_NOBODY, __ATOMIC_RELEASE);
}

static void publish(struct dc_recorder *r, uint32_t end)
{
	uint32_t *grown = &r->header->chunks_grown;
	uint32_t seen = __atomic_load_n(grown, __ATOMIC_RELAXED);
	/* [chunks-grown] release; pairs with the acquire of who looks at entries: their pages are there */
	while (seen < end && !__atomic_compare_exchange_n(grown, &seen, end, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

static uint32_t grow_by(struct dc_recorder *r, uint32_t now, uint32_t step)
{
	uint32_t first, count = reserve(r, step, &first);
	if (!count)
		return DC_CHUNK_NONE;
	if (dc_populate_chunks(r, first, count)) {
		give_back(r, first, count);
		__atomic_store_n(&r->grow_refused, now ? now : 1, __ATOMIC_RELAXED); /* a hint */
		__atomic_fetch_add(&r->header->grow_failed, 1, __ATOMIC_RELAXED); /* a statistic */
		return DC_CHUNK_NONE;
	}
	for (uint32_t i = first; i < first + count - 1; i++)
		dc_chunk_ready(r, i);
	publish(r, first + count);
	return first + count - 1;
}

uint32_t dc_grow(struct dc_recorder *r, uint32_t now)
{
	uint32_t refused = __atomic_load_n(&r->grow_refused, __ATOMIC_RELAXED); /* these are hints */
	uint32_t step = 1, idle = 0;
	if (refused && now - refused < REFUSED_COARSE)
		return DC_CHUNK_NONE;
	if (__atomic_load_n(&r->chunks_reserved, __ATOMIC_RELAXED) >= r->chunk_cap) /* what is given back is asked for later */
		return DC_CHUNK_NONE;
	/* [growing] acquire; pairs with the release below: the step is as its last user left it */
	bool large = __atomic_compare_exchange_n(&r->growing, &idle, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
	if (large) {
		step = r->grow_step;
		if (step * r->chunk_bytes < STEP_BYTES)
			r->grow_step = step * 2;
	}
	uint32_t own = grow_by(r, now, step);
	if (large) /* [growing] release; pairs with the acquire above. A thread cancelled in there leaves small steps */
		__atomic_store_n(&r->growing, 0, __ATOMIC_RELEASE);
	return own;
}
