/* SPDX-License-Identifier: MIT */
/*
 * Which of its own chunks is a lane's oldest: what it gives up once it has its fair share (claim.c).
 *
 * A lane keeps its claims in their order, index and low bits of the generation in a word each, so its oldest chunk is
 * found at once however many lanes lie between. Others may take any of them meanwhile, so a word is a hint: the state word
 * says whether that claim still stands, and who takes it decides. The one claim that is never given out is that of the
 * current chunk: it is owned, and stays in the list until it is sealed and its turn has come. The one before it, which the
 * lane owns too until the current one has an event, is always sealed by now (chunk.c).
 *
 * A lane that holds more than the list has room for forgets the oldest, and has to find them again:
 *
 *              hand ->                                found
 *   table  ..a..b......c....d.........e..f..g..       [ a b c ]      forgotten and met again: given out first
 *            \__\______/                              claims
 *                                                     [ e f g ... ]  the youngest
 *
 * A hand passes over the table and collects what it meets, a few ahead of need. Once a lane gives up its own, the table
 * has its chunks in the order they were claimed, so what the hand meets is the oldest. The few ahead last while it crosses
 * a stretch that is all of other lanes; such come to be where a thread did not have a CPU for a while.
 *
 * That order is not kept where the lane has taken chunks of others in between. So the hand leaves alone what is young, and
 * meets it again the next time round: as a rule the youngest seven eighths of what the lane holds, to a tick of the coarse
 * clock. Marks, one at each sixteenth, say when how many were claimed; of a lane that grew or shrank lately they say less.
 *
 * Invariant: a chunk of the lane is on the list, found, or among the @unseen entries before the hand.
 *
 * One writer, the thread that has the lane; [lane-free] hands all of it over to the next. A nested lane has a page of its
 * own. A thread that is cancelled in here, or leaves by siglongjmp(), leaves at worst the chunk it has just taken: that one
 * stays owned, and out of use. A word too many does not stand; a sealed chunk without a word is for others to take.
 */
#include "recorder/recorder.h"

#define LOOK 1024u /* entries passed in one go */
#define INDEX_BITS 17u
#define INDEX_MAX ((1u << INDEX_BITS) - 1)
#define NONE DC_CHUNK_NONE
static_assert(DC_RING_BYTES_MAX / DC_CHUNK_BYTES_MAX <= INDEX_MAX + 1, "any chunk's index fits");

static uint32_t word_of(uint32_t i, uint32_t generation)
{
	return generation << INDEX_BITS | i;
}

static uint32_t held(const struct dc_recorder *r, const struct dc_thread *t)
{
	return __atomic_load_n(&r->lanes[t->lane].held, __ATOMIC_RELAXED); /* steers, bounds nothing */
}

/* Sealed, and not claimed since by anybody. Return: the state to take it by, 0: not to be had. */
static uint64_t state_of(const struct dc_recorder *r, const struct dc_thread *t, uint32_t i)
{
	const struct dc_chunk_entry *e = &r->entries[i];
	uint64_t state = __atomic_load_n(&e->state, __ATOMIC_RELAXED); /* who takes it does so with acquire */
	/* state 0 and lane 0 may be a chunk that is still being made, whoever asks */
	return !(state & DC_CHUNK_OWNED) && __atomic_load_n(&e->lane, __ATOMIC_RELAXED) == t->lane ? state : 0;
}

static bool stands(uint32_t word, uint64_t state)
{
	return state && (word_of(0, dc_state_generation(state)) ^ word) >> INDEX_BITS == 0;
}

/*
 * Which chunks are young: those sealed later than the oldest mark that leaves a sixteenth of what the lane holds to be
 * old, so that there always is something to collect. Return: false: none, there is no such mark.
 */
static bool young_since(const struct dc_own *own, uint32_t holds, uint32_t *ret_time)
{
	const uint32_t kept = own->marked < DC_OWN_MARKS ? own->marked : DC_OWN_MARKS;
	for (uint32_t k = kept; k; k--) {
		uint32_t i = (own->marked - k) % DC_OWN_MARKS;
		if (own->claimed - own->marks[i].claimed > holds - holds / DC_OWN_MARKS)
			continue;
		*ret_time = own->marks[i].time;
		return true;
	}
	return false;
}

static void mark(struct dc_own *own, uint32_t holds, uint32_t now)
{
	if (own->marked && own->claimed - own->marks[(own->marked - 1) % DC_OWN_MARKS].claimed < holds / DC_OWN_MARKS)
		return;
	own->marks[own->marked % DC_OWN_MARKS].claimed = own->claimed;
	own->marks[own->marked % DC_OWN_MARKS].time = now;
	own->marked++;
}

static void found(struct dc_own *own, uint32_t word)
{
	own->found[(own->found_first + own->found_count) % DC_OWN_FOUND] = word;
	own->found_count++;
}

/*
 * Collects, but no more than a thirty-second of what the lane holds: in a table that is in order the old ones end soon
 * after. It passes a good many entries at a time, and as many as it takes where there is nothing to give out.
 *
 * A young one that it leaves alone is on the list where that has room for all the lane holds; else it is unseen again.
 */
static void look_ahead(const struct dc_recorder *r, struct dc_thread *t)
{
	struct dc_own *own = &t->own;
	const uint32_t grown = __atomic_load_n(&r->header->chunks_grown, __ATOMIC_ACQUIRE); /* [chunks-grown] acquire */
	const uint32_t holds = held(r, t), some = 1 + holds / 32;
	const uint32_t wanted = some < DC_OWN_FOUND ? some : DC_OWN_FOUND;
	const bool listed = holds <= DC_OWN_KEPT;
	const uint32_t most = listed ? LOOK : grown;
	uint32_t since = 0;
	const bool young = young_since(own, holds, &since);

	for (uint32_t k = 0; own->unseen && own->found_count < wanted && k < (own->found_count ? LOOK : most); k++) {
		uint32_t i = own->hand < grown ? own->hand : 0;
		uint64_t state = state_of(r, t, i);
		own->hand = i + 1;
		own->unseen--;
		if (!state)
			continue;
		/* relaxed: our own store, of a chunk that is ours */
		if (young && (int32_t)(__atomic_load_n(&r->entries[i].sealed, __ATOMIC_RELAXED) - since) > 0)
			own->unseen = listed ? own->unseen : grown;
		else
			found(own, word_of(i, dc_state_generation(state)));
	}
}

static uint32_t pop(const uint32_t *words, uint32_t size, uint32_t *first, uint32_t *count)
{
	uint32_t word = words[*first];
	*first = (*first + 1) % size;
	--*count;
	return word;
}

static uint32_t pop_found(struct dc_own *own)
{
	return pop(own->found, DC_OWN_FOUND, &own->found_first, &own->found_count);
}

static uint32_t pop_claim(struct dc_own *own)
{
	return pop(own->claims, DC_OWN_KEPT, &own->first, &own->count);
}

uint32_t dc_own_oldest(const struct dc_recorder *r, struct dc_thread *t, uint64_t *ret_state)
{
	struct dc_own *own = &t->own;
	const uint32_t current = t->chunk != NONE; /* the youngest */

	look_ahead(r, t);
	while (own->found_count || own->count > current) {
		const bool met = own->found_count;
		uint32_t word = met ? pop_found(own) : pop_claim(own);
		uint64_t state = state_of(r, t, word & INDEX_MAX);
		if (stands(word, state)) {
			*ret_state = state;
			return word & INDEX_MAX;
		}
		if (met && !own->found_count)
			look_ahead(r, t); /* others have taken all of them */
	}
	return NONE;
}

uint32_t dc_own_expected(const struct dc_own *own)
{
	return (own->found_count ? own->found[own->found_first] : own->claims[own->first]) & INDEX_MAX;
}

/* By the count of what the lane holds, if that says it; else by what is overwritten here. */
static void forget(const struct dc_recorder *r, struct dc_thread *t, uint32_t word)
{
	struct dc_own *own = &t->own;
	if (held(r, t) <= DC_OWN_KEPT && !stands(word, state_of(r, t, word & INDEX_MAX)))
		return;
	if (!own->unseen && !own->found_count)
		own->hand = word & INDEX_MAX; /* the oldest of all */
	own->unseen = __atomic_load_n(&r->header->chunks_grown, __ATOMIC_ACQUIRE); /* [chunks-grown] acquire */
}

void dc_own_push(const struct dc_recorder *r, struct dc_thread *t, uint32_t i, uint32_t generation, uint32_t now)
{
	struct dc_own *own = &t->own;
	if (own->count >= DC_OWN_KEPT)
		forget(r, t, pop_claim(own));
	own->claims[(own->first + own->count) % DC_OWN_KEPT] = word_of(i, generation);
	own->count++;
	own->claimed++;
	mark(own, held(r, t), now);
}
