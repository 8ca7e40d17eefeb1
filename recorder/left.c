/* SPDX-License-Identifier: MIT */
/*
 * Events in flight that nobody goes on with. A signal handler comes in the middle of one and goes away by siglongjmp(): the
 * thread's writer stays busy, with half an event behind what it committed.
 *
 * THAT IT WAS LEFT is seen by the next event that finds the writer busy. While an event is in flight, its writer says where
 * on the stack that is. Whoever records on top of it is a handler, so between the two lies what the kernel puts there for
 * every signal: the red zone, signal information, registers, more than 900 bytes. So an event that is less below it than
 * SIGNAL_FRAME, or above it, is not on top, and what was below it on the stack is gone.
 *
 *   surely         it is where the other was, but for a red zone: were that one alive, its own frame would be there, and no
 *                  stack of anybody. The lane goes on in its page, from what it committed, with the next chunk
 *   left           it is higher. That says nothing if there are two stacks: whoever stands on an alternate signal stack takes
 *                  the other for alive, and an event on it was left once its thread does not stand there any more. But a
 *                  handler may have switched stacks by itself (swapcontext(), SS_AUTODISARM). Then the event goes on one
 *                  day, and there would be two at one writer. Therefore nothing that it writes to is used again: the lane
 *                  goes on in another page and in another chunk. The old ones stay as they are, owned, until the thread
 *                  exits, when no stack of it is left. If the event does go on, it ends there, in a chunk of its lane, and
 *                  is read like all others
 *   not            it is deeper, like a handler's; or the place is not known, of objects compiled with an older header. It
 *                  goes where those of handlers go, the nested lane, until there is one that is not deeper
 *
 * Pages are bounded: DC_LEFT_MAX a process, less in small rings. When there is none, those go back whose event has ended
 * after all, and those left LEFT_COARSE ago: no handler that switches stacks takes so long to come back. Until then, events
 * are recorded in the nested lane, or counted where one was left in flight there, too.
 *
 * The open spans go on with the lane. Since one is known to the writer from after its begin was committed until before its end
 * is (dashcam_inline.h), each of them is open for readers too, whatever the instruction the event was left at; those that
 * the jump went past are closed as after every longjmp(), by the end of the span around them. The event left is none, like
 * the one that is being written at death.
 */
#include <signal.h>
#include <string.h>

#include "recorder/recorder.h"

#define SIGNAL_FRAME 512 /* half of what it is, for places that were taken a little deeper */
#define LEFT_COARSE 1000u /* some 10 s */
#if defined(__x86_64__)
#define SAME_BELOW 128 /* who puts a frame below an event without the kernel's help, leaves the red zone alone */
#else
#define SAME_BELOW SIGNAL_FRAME
#endif
#define SAME_ABOVE 64 /* registers that were saved first, and the return address */

enum dc_left dc_left(uint32_t where, uint32_t here)
{
	const int32_t above = (int32_t)(here - where);
	stack_t alternate;
	if (where == DC_BUSY_)
		return DC_LEFT_NOT;
	if (above > -SAME_BELOW && above <= SAME_ABOVE)
		return DC_LEFT_SURELY;
	if (dc_sys(SYS_sigaltstack, NULL, &alternate) < 0 || alternate.ss_flags & SS_ONSTACK)
		return DC_LEFT_NOT;
	if (!(alternate.ss_flags & SS_DISABLE) && where - (uint32_t)(uintptr_t)alternate.ss_sp < alternate.ss_size)
		return DC_LEFT;
	return above > -SIGNAL_FRAME ? DC_LEFT : DC_LEFT_NOT;
}

/* ---- pages ---- */

static uint32_t page_spare(struct dc_recorder *r)
{
	uint64_t bits = __atomic_load_n(&r->pages_spare, __ATOMIC_RELAXED); /* the fetch_and decides */
	while (bits) {
		const uint64_t bit = bits & -bits;
		/* [page-spare] acquire; pairs with the release in page_back(): nobody works with it any more */
		if (__atomic_fetch_and(&r->pages_spare, ~bit, __ATOMIC_ACQUIRE) & bit)
			return r->pages_lane[__builtin_ctzll(bit)];
		bits = __atomic_load_n(&r->pages_spare, __ATOMIC_RELAXED);
	}
	return DC_LANE_NOBODY;
}

/* That of a lane that no thread will have. NULL: enough of them are left. */
static struct dc_thread *page_new(struct dc_recorder *r)
{
	const uint32_t max = r->chunk_cap / 16 < DC_LEFT_MAX ? r->chunk_cap / 16 : DC_LEFT_MAX;
	uint32_t lane = page_spare(r), i = __atomic_load_n(&r->pages_made, __ATOMIC_RELAXED); /* the exchange decides */
	if (lane != DC_LANE_NOBODY)
		return dc_page_of(r, lane);
	do {
		if (i >= max)
			return NULL;
	} while (!__atomic_compare_exchange_n(&r->pages_made, &i, i + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	if ((lane = dc_lane_new(r)) == DC_LANE_NOBODY)
		return NULL;
	r->pages_lane[i] = lane;
	__atomic_store_n(&r->lanes[lane].flags, DC_LANE_FREE, __ATOMIC_RELAXED); /* a hint for lookers */
	return dc_page_of(r, lane);
}

/* A lane's own page is not among them, and waits for the lane. */
static void page_back(struct dc_recorder *r, const struct dc_thread *t)
{
	uint32_t i = 0;
	while (i < DC_LEFT_MAX && t != dc_page_of(r, r->pages_lane[i]))
		i++;
	/* [page-spare] release; pairs with the acquire in page_spare() */
	__atomic_fetch_or(&r->pages_spare, i < DC_LEFT_MAX ? UINT64_C(1) << i : 0, __ATOMIC_RELEASE);
}

/* Its event is over, or its thread: what was committed goes the way of all chunks. */
static void page_settle(struct dc_recorder *r, struct dc_thread *t)
{
	if (t->nested)
		dc_lane_leave(r, t->nested);
	t->nested = NULL;
	if (t->switching == DC_SWITCHING) /* which of them is whose, nobody can tell any more */
		return;
	if (t->before != DC_CHUNK_NONE)
		dc_chunk_seal_before(r, t);
	if (t->chunk != DC_CHUNK_NONE)
		dc_chunk_seal(r, t->chunk, (uint32_t)(t->fast.last >> DC_COARSE_SHIFT));
	t->chunk = DC_CHUNK_NONE;
}

static bool is_over(const struct dc_thread *t, uint32_t now)
{
	return !(t->fast.busy & DC_BUSY_) || now - t->left_since > LEFT_COARSE;
}

/* Those that were left before @t was. */
static void pages_settle(struct dc_recorder *r, struct dc_thread *t)
{
	const uint32_t now = (uint32_t)(dc_units(&t->fast) >> DC_COARSE_SHIFT);
	for (struct dc_thread *p = t; p->left;) {
		struct dc_thread *left = p->left;
		if (!is_over(left, now)) {
			p = left;
			continue;
		}
		p->left = left->left;
		page_settle(r, left);
		page_back(r, left);
	}
}

struct dc_thread *dc_left_settle(struct dc_recorder *r, struct dc_thread *t)
{
	struct dc_thread *own = dc_page_of(r, t->lane), *next;
	for (struct dc_thread *p = t->left; p; p = next) {
		next = p->left;
		page_settle(r, p);
		page_back(r, p);
	}
	t->left = NULL;
	if (t != own) {
		*own = *t;
		page_back(r, t);
	}
	return own;
}

/* ---- going on ---- */

static void line_renew(struct dc_thread *t)
{
	const uint32_t depth = (uint32_t)t->fast.token;
	dc_line_(t->fast.line, t->fast.last, depth);
	if (depth && depth <= DC_DEPTH_MAX_)
		dc_line_open_(t->fast.line, t->fast.open[depth - 1].site, t->fast.since[depth - 1]);
}

/* Some of them may be in a chunk already that the lane does not have. */
static void arguments_forget(struct dc_thread *t)
{
	for (uint32_t i = 0; t->switching && i < DC_DEPTH_MAX_; i++)
		t->fast.open[i].end = t->fast.open[i].args;
	t->switching = 0;
}

/*
 * As if its chunk were full: the head of the next one says which spans are open. An event left as the first of its chunk was
 * not committed; its number is left out, because two chunks that begin with the same one would be two copies to readers.
 */
static void go_on_here(struct dc_recorder *r, struct dc_thread *t)
{
	struct dc_thread_ *f = &t->fast;
	arguments_forget(t);
	line_renew(t);
	if (t->chunk == DC_CHUNK_NONE)
		return;
	const uint64_t state = __atomic_load_n(&r->entries[t->chunk].state, __ATOMIC_RELAXED); /* our own stores */
	dc_thread_restate(f, state);
	dc_chunk_widen(r, t);
	if (t->before != DC_CHUNK_NONE)
		dc_chunk_seal_before(r, t);
	t->events += !dc_state_events(state);
	f->at = f->limit;
	dc_thread_restate(f, state);
}

/* The running number of the lane's next event, as the ring has it: a chunk whose index stands in the page has its header. */
static uint64_t next_event(const struct dc_recorder *r, const struct dc_thread *t)
{
	if (t->chunk == DC_CHUNK_NONE)
		return t->events;
	const struct dc_chunk_header *h = (const void *)(r->chunks + (size_t)t->chunk * r->chunk_bytes);
	uint32_t events = dc_state_events(__atomic_load_n(&r->entries[t->chunk].state, __ATOMIC_RELAXED)); /* our own stores */
	return h->first_event + (events ? events : 1);
}

/* What is the thread's, not an event's. A nested lane with an event in flight was left with this one. */
static void rest_move(struct dc_thread *to, struct dc_thread *from)
{
	to->outer = from->outer;
	if (from->nested && !(from->nested->fast.busy & DC_BUSY_)) {
		to->nested = from->nested;
		to->nested->outer = to;
		from->nested = NULL;
	}
	to->exit_rounds = from->exit_rounds;
	to->stack_seen = from->stack_seen;
	to->misplaced = from->misplaced;
	from->misplaced = 0;
	to->timer_hz = from->timer_hz;
	to->timer_tried = from->timer_tried;
	to->timer_refused = from->timer_refused;
	to->timer = __atomic_exchange_n(&from->timer, 0, __ATOMIC_RELAXED); /* its handler may be on top of us */
}

static struct dc_thread *go_on_elsewhere(struct dc_recorder *r, struct dc_thread *t, uint32_t here)
{
	struct dc_thread *to = page_new(r);
	if (!to) {
		pages_settle(r, t);
		to = page_new(r);
	}
	if (!to)
		return NULL;
	memset(to, 0, sizeof *to);
	dc_lane_fresh(r, to, t->lane);
	to->fast.busy = here;
	to->fast.last = t->fast.last;
	to->fast.token = t->fast.token;
	to->fast.chunk = t->fast.chunk; /* where the arguments of open spans are */
	memcpy(to->fast.since, t->fast.since, sizeof to->fast.since);
	memcpy(to->fast.open, t->fast.open, sizeof to->fast.open);
	to->switching = t->switching;
	arguments_forget(to);
	line_renew(to);
	to->events = next_event(r, t);
	to->own.unseen = __atomic_load_n(&r->header->chunks_grown, __ATOMIC_RELAXED); /* all are forgotten, but found again */
	rest_move(to, t);
	t->left_since = (uint32_t)(dc_units(&t->fast) >> DC_COARSE_SHIFT);
	to->left = t;
	return to;
}

struct dc_thread *dc_left_go_on(struct dc_recorder *r, struct dc_thread *t, uint32_t here)
{
	const uint32_t where = t->fast.busy;
	const enum dc_left left = dc_left(where, here);
	if (left == DC_LEFT_NOT)
		return NULL;
	t->fast.busy = here; /* a handler on top of us is on top of us */
	DC_BARRIER_();
	dc_slow_alone();
	if (left == DC_LEFT_SURELY && t->switching != DC_SWITCHING) {
		go_on_here(r, t);
		return t;
	}
	struct dc_thread *to = go_on_elsewhere(r, t, here);
	if (!to)
		t->fast.busy = where;
	return to;
}
