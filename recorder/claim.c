/* SPDX-License-Identifier: MIT */
/*
 * Which chunk a lane gets next. No queue and no lock: a shared hand moves over the dense table, a claimer looks at the
 * next few entries and takes one by compare-exchange; owned ones are skipped. Whoever is stopped here delays nobody.
 *
 * In this order:
 *   1. a chunk never used                                     (populated, generation 0)
 *   2. a chunk sealed longer ago than the window              whoever's it was
 *   3. growth of the pool towards the cap                     each by itself: see grow.c
 *   4. inside the window, at the cap:
 *        a lane that has its fair share recycles its own oldest chunk;
 *        a lane below it takes the oldest of a lane above it, or failing that any.
 *      So one runaway lane ends up eating its own tail, and quiet lanes keep their evidence.
 *
 * While a snapshot holds [hold_from, now], 2 leaves its chunks alone and growth is tried first; 4 still happens, because
 * recording never waits.
 */
#include <errno.h>

#include "recorder/recorder.h"

#define LOOK 8u /* entries looked at where the hand is */
#define LINE 4u /* entries of a cache line */
#define PLACES 32u /* cache lines looked at for a chunk of another lane */
#define TRIES 32u /* lost compare-exchanges before the event is dropped */
#define HOLD_MAX_UNITS (UINT64_C(1) << 30) /* a second or more on every clock: units are 1 ns or longer */
#define NONE DC_CHUNK_NONE

struct claim {
	struct dc_recorder *r;
	struct dc_thread *t;
	uint32_t now; /* coarse */
	uint32_t window;
	uint32_t hold_from;
	bool hold;
	uint32_t hand;
	uint32_t grown;
	uint32_t share; /* chunks a lane may hold before it must eat its own */
	bool own; /* what it took was its own oldest */
};

static uint32_t age(const struct claim *c, uint32_t sealed)
{
	int32_t d = (int32_t)(c->now - sealed);
	return d < 0 ? 0 : (uint32_t)d;
}

/* A snapshot may ask for patience, for at most a second whatever the control part says. */
static void hold_read(struct claim *c, uint64_t now)
{
	const struct dc_ring_control *ctl = c->r->control;
	uint64_t until = __atomic_load_n(&ctl->hold_until_units, __ATOMIC_RELAXED); /* a wish, not a lock */
	c->hold = until > now && until - now < HOLD_MAX_UNITS;
	c->hold_from = (uint32_t)(__atomic_load_n(&ctl->hold_from_units, __ATOMIC_RELAXED) >> DC_COARSE_SHIFT);
}

static uint32_t window_coarse(const struct dc_recorder *r)
{
	uint64_t wanted = __atomic_load_n(&r->control->window_units, __ATOMIC_RELAXED); /* a setting, no order needed */
	if (!wanted)
		wanted = __atomic_load_n(&r->window_units, __ATOMIC_RELAXED);
	uint64_t coarse = wanted >> DC_COARSE_SHIFT;
	return !wanted || coarse > INT32_MAX ? INT32_MAX : (uint32_t)coarse; /* 0: the tick rate is not known yet */
}

/* The youngest event that is gone: what dc_stats() calls the true window begins there. */
static void recycled(struct dc_recorder *r, uint64_t seen, uint32_t sealed)
{
	uint32_t last = __atomic_load_n(&r->recycled, __ATOMIC_RELAXED); /* a statistic; ordered by nothing */
	if (!dc_state_events(seen))
		return;
	while ((!last || (int32_t)(sealed - last) > 0) &&
	       !__atomic_compare_exchange_n(&r->recycled, &last, sealed ? sealed : 1, true, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED))
		;
}

/* Takes entry @i if it is still as @seen. */
static bool take(const struct claim *c, uint32_t i, uint64_t seen)
{
	struct dc_recorder *r = c->r;
	struct dc_chunk_entry *e = &r->entries[i];
	/* [chunk-claim] acquire; pairs with the release of [chunk-seal]: the old owner's stores are over */
	if (!__atomic_compare_exchange_n(&e->state, &seen, dc_state_claimed(seen), false, __ATOMIC_ACQUIRE,
					 __ATOMIC_RELAXED))
		return false;
	recycled(r, seen, __atomic_load_n(&e->sealed, __ATOMIC_RELAXED));
	uint32_t old = __atomic_load_n(&e->lane, __ATOMIC_RELAXED);
	if (dc_state_generation(seen) && old == c->t->lane)
		return true; /* its own: it holds as many as before */
	/* held counts steer fairness and are never bounds: relaxed */
	if (dc_state_generation(seen) && old < r->lane_cap &&
	    __atomic_fetch_sub(&r->lanes[old].held, 1, __ATOMIC_RELAXED) == 2)
		__atomic_fetch_sub(&r->lanes_holding, 1, __ATOMIC_RELAXED);
	if (__atomic_fetch_add(&r->lanes[c->t->lane].held, 1, __ATOMIC_RELAXED) == 1)
		__atomic_fetch_add(&r->lanes_holding, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&e->lane, c->t->lane, __ATOMIC_RELAXED);
	return true;
}

/* A chunk never used whose pages are there. */
static bool is_ready(const struct dc_chunk_entry *e)
{
	/* [chunk-ready] acquire; pairs with the release in dc_chunk_ready() */
	return __atomic_load_n(&e->lane, __ATOMIC_ACQUIRE) == DC_LANE_NOBODY;
}

static uint32_t take_fresh(const struct claim *c)
{
	struct dc_recorder *r = c->r;
	/* relaxed: the compare-exchange on the state word decides who has it, this only spreads the takers */
	uint32_t i = __atomic_load_n(&r->chunks_fresh, __ATOMIC_RELAXED);
	while (i < __atomic_load_n(&r->header->chunks_grown, __ATOMIC_ACQUIRE)) { /* [chunks-grown] acquire */
		if (!__atomic_compare_exchange_n(&r->chunks_fresh, &i, i + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			continue;
		if (is_ready(&r->entries[i]) && take(c, i, 0))
			return i;
		i++; /* its grower has kept it, or is slow: then the hand comes by later */
	}
	return NONE;
}

struct look {
	uint32_t any, any_age; /* sealed longest ago among those looked at */
	uint64_t any_state;
	uint32_t rich, rich_age; /* the same among lanes above their share */
	uint64_t rich_state;
};

static void look_at(const struct claim *c, uint32_t i, struct look *l)
{
	const struct dc_chunk_entry *e = &c->r->entries[i];
	uint64_t state = __atomic_load_n(&e->state, __ATOMIC_RELAXED); /* take() decides with acquire */
	if (state & DC_CHUNK_OWNED)
		return;
	if (!state && !is_ready(e))
		return;
	uint32_t a = state ? age(c, __atomic_load_n(&e->sealed, __ATOMIC_RELAXED)) : UINT32_MAX;
	if (l->any == NONE || a > l->any_age) {
		l->any = i;
		l->any_age = a;
		l->any_state = state;
	}
	uint32_t lane = __atomic_load_n(&e->lane, __ATOMIC_RELAXED);
	if (lane >= c->r->lane_cap || __atomic_load_n(&c->r->lanes[lane].held, __ATOMIC_RELAXED) <= c->share)
		return;
	if (l->rich == NONE || a > l->rich_age) {
		l->rich = i;
		l->rich_age = a;
		l->rich_state = state;
	}
}

static void look_from(const struct claim *c, uint32_t first, uint32_t count, struct look *l)
{
	for (uint32_t k = 0; k < count && k < c->grown; k++)
		look_at(c, (first + k) % c->grown, l);
}

static uint32_t take_expired(const struct claim *c, struct look *l)
{
	look_from(c, c->hand, LOOK, l);
	if (l->any == NONE || l->any_age <= c->window)
		return NONE;
	if (l->any_state && c->hold && (int32_t)(c->now - l->any_age - c->hold_from) >= 0)
		return NONE;
	return take(c, l->any, l->any_state) ? l->any : NONE;
}

static uint32_t take_own(const struct claim *c)
{
	uint64_t seen;
	uint32_t i;
	while ((i = dc_own_oldest(c->r, c->t, &seen)) != NONE && !take(c, i, seen))
		;
	return i;
}

/*
 * The hand meets chunks of any age, and those side by side are mostly of one. So this looks in many places, by steps through
 * the whole pool, and takes the oldest: an old one. It is for a lane below its share, on its way there.
 */
static uint32_t take_others(const struct claim *c, struct look *l)
{
	for (uint32_t place = 1; place < PLACES; place++) {
		uint32_t at = (uint32_t)((c->hand + (uint64_t)place * c->grown / PLACES) % c->grown);
		look_from(c, at - at % LINE, LINE, l);
	}
	if (l->rich != NONE) /* lost to another claimer: look again, rather than take from a lane that has little */
		return take(c, l->rich, l->rich_state) ? l->rich : NONE;
	if (l->any != NONE && take(c, l->any, l->any_state))
		return l->any;
	return NONE;
}

static uint32_t claim_once(struct claim *c)
{
	struct look l = { .any = NONE, .rich = NONE };
	uint32_t i = take_fresh(c);
	if (i != NONE)
		return i;
	c->hand = __atomic_fetch_add(&c->r->header->hand, 1, __ATOMIC_RELAXED); /* only spreads claimers */
	i = take_expired(c, &l);
	if (i != NONE)
		return i;
	i = dc_grow(c->r, c->now);
	if (i != NONE && take(c, i, 0))
		return i;
	if (__atomic_load_n(&c->r->lanes[c->t->lane].held, __ATOMIC_RELAXED) >= c->share && (i = take_own(c)) != NONE) {
		c->own = true;
		return i;
	}
	return take_others(c, &l);
}

/* Threads that are gone count as long as they have evidence in the ring: it is kept as well as that of others. */
static uint32_t share(const struct dc_recorder *r, uint32_t grown)
{
	uint32_t live = __atomic_load_n(&r->lanes_live, __ATOMIC_RELAXED); /* both steer, neither bounds */
	uint32_t holding = __atomic_load_n(&r->lanes_holding, __ATOMIC_RELAXED);
	uint32_t lanes = live > holding ? live : holding;
	return grown / (lanes ? lanes : 1);
}

/* Most likely as this time: by the oldest of its own, or where the hand goes on. A guess that costs little where it is wrong. */
static uint32_t next_of(const struct claim *c, uint32_t i)
{
	return c->own ? dc_own_expected(&c->t->own) : (i + 1) % c->grown;
}

/* The next chunk is long out of the caches by now: its entry, header and first events are asked for a whole chunk ahead. */
void dc_chunk_expect(const struct dc_recorder *r, const struct dc_thread *t)
{
	const uint8_t *chunk = r->chunks + (size_t)t->own.next * r->chunk_bytes;
	__builtin_prefetch(&r->entries[t->own.next], 1);
	for (unsigned line = 0; line < DC_EXPECTED_LINES; line++)
		__builtin_prefetch(chunk + line * 64, 1);
}

uint32_t dc_chunk_claim(struct dc_recorder *r, struct dc_thread *t, uint64_t now, uint32_t *ret_generation)
{
	struct claim c = { .r = r, .t = t, .now = (uint32_t)(now >> DC_COARSE_SHIFT), .window = window_coarse(r) };
	hold_read(&c, now);
	for (unsigned n = 0; n < TRIES; n++) {
		c.grown = __atomic_load_n(&r->header->chunks_grown, __ATOMIC_ACQUIRE); /* [chunks-grown] acquire */
		c.share = share(r, c.grown);
		uint32_t i = claim_once(&c);
		if (i == NONE)
			continue;
		*ret_generation = dc_state_generation(__atomic_load_n(&r->entries[i].state, __ATOMIC_RELAXED)); /* ours */
		dc_own_push(r, t, i, *ret_generation, c.now);
		t->own.next = next_of(&c, i);
		/* [chunk-reuse] release fence; pairs with the reader's second acquire fence: a byte of the new
		 * generation is never seen under the old state word */
		__atomic_thread_fence(__ATOMIC_RELEASE);
		return i;
	}
	return NONE;
}
