/* SPDX-License-Identifier: MIT */
/*
 * Threads and lanes: the slow ways into an event. A thread takes a lane at its first event and gives it back when it
 * exits; the next new thread goes on in the same lane and the same chunk, after a THREAD record.
 *
 * dc_thread_self leads here until the thread has a lane (static sentinel, always busy), while an event is in flight below
 * a signal handler (which records in a lane of its own), and after a fork (the page reads zero: idle, but without room).
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "recorder/recorder.h"

#define NONE UINT32_MAX
#define EXIT_ROUNDS 2u /* TSD destructors of others may still record in round 1 */

static struct dc_thread_ thread_none = { .busy = DC_BUSY_ };
__thread struct dc_thread_ *dc_thread_self __attribute__((tls_model("initial-exec"))) = &thread_none;
static __thread uint32_t leaving __attribute__((tls_model("initial-exec"))); /* 1: its destructor has run */
static __thread uint32_t adopting __attribute__((tls_model("initial-exec"))); /* a handler must not adopt on top */

static pthread_key_t exit_key;
static bool exit_key_made;

static uint32_t lane_reuse(struct dc_recorder *r)
{
	for (uint32_t i = 0; i < r->lane_cap / 64; i++) {
		uint64_t word = __atomic_load_n(&r->lanes_free[i], __ATOMIC_RELAXED); /* the fetch_and decides */
		while (word) {
			uint64_t bit = word & -word;
			/* [lane-free] acquire; pairs with the release in lane_leave(): the writer state is complete */
			if (__atomic_fetch_and(&r->lanes_free[i], ~bit, __ATOMIC_ACQUIRE) & bit)
				return i * 64 + (uint32_t)__builtin_ctzll(bit);
			word = __atomic_load_n(&r->lanes_free[i], __ATOMIC_RELAXED);
		}
	}
	return NONE;
}

static uint32_t lane_new(struct dc_recorder *r)
{
	uint32_t i = __atomic_load_n(&r->header->lanes_used, __ATOMIC_RELAXED);
	do {
		if (i >= r->lane_cap)
			return NONE;
		/* [table-publish] release; pairs with the reader's fence: an entry counted is a populated page or zero */
	} while (!__atomic_compare_exchange_n(&r->header->lanes_used, &i, i + 1, true, __ATOMIC_RELEASE,
					      __ATOMIC_RELAXED));
	return dc_populate(r, &r->lanes[i], sizeof r->lanes[i]) ? NONE : i;
}

/* The lane's line for its new thread. The chunk, if one is open, goes on. */
static void lane_enter(struct dc_recorder *r, struct dc_thread *t, uint32_t flags)
{
	struct dc_ring_lane *line = &r->lanes[t->lane];
	uint32_t tid = (uint32_t)dc_sys(SYS_gettid);
	__atomic_store_n(&line->serial, line->serial + 1, __ATOMIC_RELAXED); /* hints for lookers, each by itself */
	__atomic_store_n(&line->flags, (uint16_t)flags, __ATOMIC_RELAXED);
	__atomic_store_n(&line->depth, 0, __ATOMIC_RELAXED);
	memset(line->comm, 0, sizeof line->comm);
	__atomic_store_n(&line->tid, tid, __ATOMIC_RELAXED);
	t->stack_seen = 0;
	/* never 0 in the upper half, so a token is never 0; unlike any stamp of a parent image (random start) */
	t->fast.token = (uint64_t)(__atomic_fetch_add(&r->stamps, 1, __ATOMIC_RELAXED) | 1u << 31) << 32;
	__atomic_fetch_add(&r->lanes_live, 1, __ATOMIC_RELAXED); /* steers fairness */
}

/* A record that is no event: bytes go up, events do not. The caller has made the thread busy and has room. */
void dc_thread_record(struct dc_recorder *r, struct dc_thread *t)
{
	const struct dc_ring_lane *line = &r->lanes[t->lane];
	uint8_t *p = t->fast.at;
	p[0] = DC_KIND_THREAD;
	memcpy(p + 1, &line->tid, 4);
	memcpy(p + 5, &line->serial, 4);
	memcpy(p + 9, line->comm, 16);
	t->fast.at += 25;
	/* [chunk-commit] release; pairs with the reader's first acquire fence */
	__atomic_store_n(t->fast.state_word, dc_thread_state(&t->fast), __ATOMIC_RELEASE);
}

/*
 * A thread may have left in the middle of an event (asynchronous cancellation): what counts is what it committed. The
 * full time comes again, because the delta base may have moved without an event.
 */
static bool lane_resync(struct dc_thread *t)
{
	struct dc_thread_ *f = &t->fast;
	if (t->chunk == NONE)
		return false;
	uint64_t state = __atomic_load_n(f->state_word, __ATOMIC_RELAXED); /* ours: [lane-free] ordered it */
	f->at = f->chunk + dc_state_bytes(state);
	dc_thread_restate(f, state);
	if (f->at > f->limit)
		return false; /* full: the next chunk's header says whose it is */
	f->last = dc_units(f);
	f->at[0] = DC_KIND_TIME;
	dc_put8_(f->at + 1, f->last);
	f->at += 9; /* committed with the THREAD record that follows */
	return true;
}

static void lane_fresh(struct dc_recorder *r, struct dc_thread *t, uint32_t lane)
{
	t->lane = lane;
	t->chunk = t->before = NONE;
	t->fast.busy = DC_BUSY_;
	memset(&t->own, 0, offsetof(struct dc_own, claims));
	t->fast.idle = r->slow_clock ? DC_IDLE_SLOW_ : 0;
	t->fast.threshold = r->control->threshold;
	t->fast.at = (uint8_t *)1; /* beyond the limit: the first event claims a chunk */
	t->fast.limit = NULL;
	t->fast.line = (struct dc_lane_line_ *)&r->lanes[lane];
	r->lanes[lane].chunk = NONE;
}

/* A lane with a chunk that has room, busy; NULL: none left, counted. */
static struct dc_thread *lane_take(struct dc_recorder *r, uint32_t flags)
{
	uint32_t lane = lane_reuse(r);
	bool reused = lane != NONE;
	if (!reused && (lane = lane_new(r)) == NONE) {
		__atomic_fetch_add(&r->header->lost_lanes, 1, __ATOMIC_RELAXED); /* a count */
		return NULL;
	}
	struct dc_thread *t = dc_page_of(r, lane);
	if (!reused)
		lane_fresh(r, t, lane);
	t->fast.busy = DC_BUSY_;
	t->exit_rounds = leaving; /* a thread that has left once and comes back, in a later destructor, has one round less */
	t->outer = NULL;
	lane_enter(r, t, flags);
	if (reused && lane_resync(t))
		dc_thread_record(r, t);
	return t;
}

/* The lane starts over with a fresh chunk; the one it has goes back to the pool as it stands in the ring. */
static void chunk_release(struct dc_recorder *r, struct dc_thread *t)
{
	t->events += dc_state_events(__atomic_load_n(&r->entries[t->chunk].state, __ATOMIC_RELAXED)); /* our own stores */
	dc_chunk_seal(r, t->chunk, (uint32_t)(t->fast.last >> DC_COARSE_SHIFT));
	t->chunk = NONE;
	t->fast.at = (uint8_t *)1;
	t->fast.limit = NULL;
	__atomic_store_n(&r->lanes[t->lane].chunk, NONE, __ATOMIC_RELAXED); /* a hint for lookers */
}

/*
 * The chunk stays open for the lane's next thread, so that 10,000 short threads do not take 10,000 chunks. Not where
 * lanes that wait would hold a good part of the pool, and not when the thread was cancelled in the middle of an event:
 * then nobody knows how far it got.
 */
static bool chunk_stays(const struct dc_recorder *r, const struct dc_thread *t)
{
	uint32_t used = __atomic_load_n(&r->header->lanes_used, __ATOMIC_RELAXED);
	uint32_t live = __atomic_load_n(&r->lanes_live, __ATOMIC_RELAXED);
	return t->fast.busy != DC_BUSY_ && used - live < r->chunk_cap / 4;
}

static void lane_leave(struct dc_recorder *r, struct dc_thread *t)
{
	struct dc_ring_lane *line = &r->lanes[t->lane];
	const bool whole = t->chunk != NONE && !t->switching;
	if (whole && t->before != NONE)
		dc_chunk_seal_before(r, t);
	if (whole && !chunk_stays(r, t))
		chunk_release(r, t);
	t->fast.busy = DC_BUSY_;
	__atomic_fetch_add(&r->misplaced, t->misplaced, __ATOMIC_RELAXED); /* a count */
	t->misplaced = 0;
	t->nested = NULL;
	__atomic_store_n(&line->flags, DC_LANE_FREE, __ATOMIC_RELAXED);
	__atomic_store_n(&line->tid, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&line->depth, 0, __ATOMIC_RELAXED);
	__atomic_fetch_sub(&r->lanes_live, 1, __ATOMIC_RELAXED);
	if (t->switching)
		return; /* cancelled between two chunks: which of them is whose, nobody can tell any more */
	/* [lane-free] release; pairs with the acquire in lane_reuse() */
	__atomic_fetch_or(&r->lanes_free[t->lane / 64], UINT64_C(1) << (t->lane % 64), __ATOMIC_RELEASE);
}

#if defined(__x86_64__)
#define ALIGNED_HERE __attribute__((force_align_arg_pointer))
#else
#define ALIGNED_HERE
#endif

/*
 * Runs as a TSD destructor; put off by a round, so that destructors of others that record do so in this lane. On whatever
 * stack pointer the thread had: musl cancels asynchronously between any two instructions, and goes on from there.
 */
ALIGNED_HERE static void thread_exit(void *arg)
{
	struct dc_recorder *r = dc_recorder;
	struct dc_thread *t = arg;
	if (!r || !t->fast.line || dc_thread_self != &t->fast)
		return; /* wiped by fork, or not the lane this thread has */
	if (++t->exit_rounds < EXIT_ROUNDS) {
		pthread_setspecific(exit_key, t);
		return;
	}
	leaving = 1;
	dc_sample_leave(r, t);
	dc_crash_stack_leave(t->lane);
	dc_thread_self = &thread_none;
	DC_BARRIER_();
	if (t->nested)
		lane_leave(r, t->nested);
	lane_leave(r, t);
}

/*
 * glibc keeps the first 32 keys inside the thread; later ones would make pthread_setspecific() allocate. A process that
 * took 32 keys before this constructor gets no lane back from its threads until they run out, and is none the worse.
 */
__attribute__((constructor(101))) static void thread_exit_prepare(void)
{
	if (pthread_key_create(&exit_key, thread_exit))
		return;
	exit_key_made = exit_key < 32;
	if (!exit_key_made)
		pthread_key_delete(exit_key);
}

static struct dc_thread_ *adopt(struct dc_recorder *r)
{
	struct dc_thread *t = lane_take(r, 0);
	if (!t)
		return NULL;
	if (exit_key_made)
		pthread_setspecific(exit_key, t);
	dc_crash_stack_take(t->lane);
	dc_thread_self = &t->fast;
	if (DC_UNLIKELY_(__atomic_load_n(&r->control->sample_hz, __ATOMIC_RELAXED))) /* a wish from outside */
		dc_sample_look(r, t, dc_units(&t->fast));
	return &t->fast;
}

/* First event of this thread, or of this process, or since a fork. */
static struct dc_thread_ *enter_first(void)
{
	if (adopting) {
		if (dc_recorder)
			dc_lost_early(dc_recorder);
		return NULL;
	}
	adopting = 1;
	DC_BARRIER_();
	struct dc_thread_ *f = dc_thread_self;
	if (f->line && f->busy != DC_BUSY_) { /* a handler had its first event here just before `adopting` */
		f->busy = DC_BUSY_;
	} else {
		dc_thread_self = &thread_none;
		f = NULL;
		if (dc_recorder_on())
			f = adopt(dc_recorder);
		else
			dc_missed();
	}
	DC_BARRIER_();
	adopting = 0;
	return f;
}

static struct dc_thread *nested_make(struct dc_recorder *r, struct dc_thread *t)
{
	adopting = 1;
	DC_BARRIER_();
	struct dc_thread *n = t->nested; /* of a handler that came just before `adopting`, and is over */
	if (!n && (n = lane_take(r, DC_LANE_NESTED))) {
		n->outer = t;
		t->nested = n;
	}
	DC_BARRIER_();
	adopting = 0;
	return n;
}

static struct dc_thread_ *not_nested(struct dc_recorder *r, const struct dc_thread *t)
{
	__atomic_fetch_add(&r->lanes[t->lane].dropped, 1, __ATOMIC_RELAXED); /* a count */
	return NULL;
}

/* A handler on top of an event in flight: a lane of its own, kept for the next time. One level; deeper ones count. */
static struct dc_thread_ *enter_nested(struct dc_recorder *r, struct dc_thread *t)
{
	struct dc_thread *n = t->nested;
	if (adopting)
		return not_nested(r, t);
	if (n && n->fast.busy == DC_BUSY_) /* third level */
		return not_nested(r, n);
	if (!n && !(n = nested_make(r, t)))
		return NULL;
	n->fast.busy = DC_BUSY_;
	return &n->fast;
}

static struct dc_thread_ *with_room(struct dc_recorder *r, struct dc_thread_ *f)
{
	if (!f || f->at < f->limit)
		return f;
	if (dc_chunk_switch(r, (struct dc_thread *)f) == 0)
		return f;
	f->busy = f->idle; /* as it was: the next event tries again */
	return NULL;
}

static struct dc_thread_ *enter(struct dc_thread_ *f)
{
	struct dc_recorder *r = dc_recorder;
	/* [phase] acquire; pairs with the release in start_elected(): who sees `on` sees the maps */
	if (!f->line || !r || __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) < DC_PHASE_ON)
		return enter_first();
	return enter_nested(r, (struct dc_thread *)f);
}

struct dc_thread_ *dc_enter_slow(struct dc_thread_ *f, unsigned taken)
{
	dc_slow_enter();
	struct dc_recorder *r = dc_recorder;
	if (!dc_page_is_of(r, f))
		f = enter_first();
	else if (!taken || !f->line) /* taken, but wiped: a handler forked between the two looks at the page */
		f = enter(f);
	f = with_room(dc_recorder, f);
	return dc_slow_leave() ? NULL : f;
}

void dc_thread_forget(void)
{
	dc_thread_self = &thread_none;
}
