/* SPDX-License-Identifier: MIT */
/*
 * From a full chunk to the next: claim one, write its header, copy the begins of the spans still open to its head, record
 * the event, seal the old one. A thread killed in between leaves two owned chunks, both readable; it never leaves a hole.
 *
 * THE OLD ONE IS SEALED LAST. Were it sealed before the new one has an event, a thread that is stopped just there would have
 * nothing of its own that others may not take, and under load is stopped there often: its newest events would be gone while
 * older ones are still there. The event that comes here seals it once it is committed itself; where it is given up, the
 * next one that does not take the fast path, at the latest the one that finds the new chunk full.
 *
 * THE NEXT PAGES ARE ASKED FOR VERY LAST. A page that the TLB has forgotten costs a walk, longer than all the rest, and a CPU
 * goes on while it waits for one: here with what the application does next.
 *
 * Copies keep a hung request's arguments alive however often the ring turns over: the outermost 8 and innermost 24 open
 * spans, as long as they take no more than a quarter of the chunk. A span whose arguments do not fit keeps its name and
 * its start; what lies between outer and inner keeps its depth.
 */
#include <errno.h>
#include <string.h>

#include "recorder/recorder.h"

#define NONE UINT32_MAX
#define OPEN_FIXED 13u /* tag, start, depth, site */

struct copies {
	struct dc_thread_ *f;
	const uint8_t *from; /* the old chunk */
	uint8_t *base; /* the new one */
	uint8_t *at;
	uint8_t *end;
	uint32_t count;
};

static unsigned arguments(const struct dc_recorder *r, uint16_t site)
{
	return site < r->header->site_cap ? r->sites[site].arg_count : 0;
}

/* Codes that say "dropped": one byte a pair; where there is no second its nibble is 0. */
static void put_dropped(uint8_t *codes, unsigned count)
{
	memset(codes, 0xff, (count + 1) / 2);
	if (count % 2)
		codes[count / 2] = 0x0f;
}

/* Of half an address in @chunk. */
static const uint8_t *place(const uint8_t *chunk, uint16_t half)
{
	return chunk + (uint16_t)(half - (uint16_t)(uintptr_t)chunk);
}

static void copy_open(struct dc_recorder *r, struct copies *c, uint32_t depth)
{
	struct dc_open_ *o = &c->f->open[depth];
	const uint16_t bytes = (uint16_t)(o->end - o->args);
	unsigned args = arguments(r, o->site), codes = (args + 1) / 2;
	/* no bytes though it has arguments: they are gone */
	bool whole = (bytes || !codes) && c->at + OPEN_FIXED + bytes <= c->end;
	if (!whole)
		o->end = o->args;
	if (!whole && (o->site == DC_SITE_INLINE || c->at + OPEN_FIXED + codes > c->end))
		return; /* its name goes with its arguments, or there is no room left */
	uint64_t units = c->f->since[depth];
	uint16_t number = (uint16_t)(depth + 1);
	c->at[0] = DC_KIND_OPEN;
	memcpy(c->at + 1, &units, 8);
	memcpy(c->at + 9, &number, 2);
	memcpy(c->at + 11, &o->site, 2);
	c->at += OPEN_FIXED;
	if (whole) {
		memcpy(c->at, place(c->from, o->args), bytes);
		o->args = (uint16_t)(uintptr_t)c->at;
		c->at += bytes;
		o->end = (uint16_t)(uintptr_t)c->at;
	} else {
		put_dropped(c->at, args);
		c->at += codes;
	}
	c->count++;
}

static void copy_opens(struct dc_recorder *r, struct copies *c)
{
	uint32_t depth = (uint32_t)c->f->token, tracked = depth < DC_DEPTH_MAX_ ? depth : DC_DEPTH_MAX_;
	uint32_t inner = tracked > DC_OPEN_OUTER + DC_OPEN_INNER ? tracked - DC_OPEN_INNER : DC_OPEN_OUTER;
	for (uint32_t i = 0; i < tracked; i++) {
		if (i < DC_OPEN_OUTER || i >= inner)
			copy_open(r, c, i);
		else
			c->f->open[i].end = c->f->open[i].args;
	}
}

void dc_chunk_seal(struct dc_recorder *r, uint32_t i, uint32_t sealed)
{
	struct dc_chunk_entry *e = &r->entries[i];
	uint64_t state = __atomic_load_n(&e->state, __ATOMIC_RELAXED); /* our own last store */
	__atomic_store_n(&e->sealed, sealed, __ATOMIC_RELAXED); /* before the seal */
	/* [chunk-seal] release; pairs with the acquire of [chunk-claim]: our last stores come before the next owner's */
	__atomic_store_n(&e->state, state & ~DC_CHUNK_OWNED, __ATOMIC_RELEASE);
}

/* Forgotten first: a thread cancelled in here must not seal what is somebody else's by then. */
void dc_chunk_seal_before(struct dc_recorder *r, struct dc_thread *t)
{
	uint32_t before = t->before;
	t->before = NONE;
	DC_BARRIER_();
	dc_chunk_seal(r, before, t->before_sealed);
}

/*
 * Writing goes on line after line, and the CPU runs ahead of it up to the end of a page. So the later pages are asked for
 * now: else the first event on each waits for memory and a page walk, more than one event in a thousand.
 */
static void pages_expect(const struct dc_recorder *r, const struct dc_thread *t)
{
	dc_chunk_expect(r, t);
	for (uint32_t page = DC_PAGE_BYTES; page < r->chunk_bytes; page += DC_PAGE_BYTES)
		for (unsigned line = 0; line < DC_EXPECTED_LINES; line++)
			__builtin_prefetch(t->fast.chunk + page + line * 64, 1);
}

bool dc_chunk_begun(struct dc_thread_ *f)
{
	struct dc_thread *t = (struct dc_thread *)f;
	dc_slow_enter();
	struct dc_recorder *r = dc_recorder;
	const bool ours = dc_page_is_of(r, f);
	if (ours && dc_state_events(dc_thread_state(f))) {
		dc_chunk_seal_before(r, t);
		pages_expect(r, t);
	}
	return !dc_slow_leave() && ours;
}

static void install(struct dc_recorder *r, struct dc_thread *t, uint32_t i, uint32_t generation, uint64_t now)
{
	struct dc_thread_ *f = &t->fast;
	uint8_t *base = r->chunks + (size_t)i * r->chunk_bytes;
	struct copies c = { .f = f,
			    .from = f->chunk,
			    .base = base,
			    .at = base + sizeof(struct dc_chunk_header),
			    .end = base + sizeof(struct dc_chunk_header) + r->chunk_bytes / 4 };
	uint64_t events = t->events + (t->chunk != NONE ? dc_state_events(dc_thread_state(f)) : 0);
	copy_opens(r, &c);
	*(struct dc_chunk_header *)base = (struct dc_chunk_header){
		.first_event = events,
		.start_units = now,
		.generation = generation,
		.lane = t->lane,
		.tid = r->lanes[t->lane].tid,
		.serial = r->lanes[t->lane].serial,
		.depth = (uint32_t)f->token,
		.opens = c.count,
	};
	t->switching = 1; /* up to here the old chunk is the lane's, whoever goes on with it */
	DC_BARRIER_();
	t->before = t->chunk;
	t->before_sealed = (uint32_t)(f->last >> DC_COARSE_SHIFT);
	t->events = events;
	t->chunk = i;
	f->chunk = base;
	f->at = c.at;
	f->limit = base + r->chunk_bytes - DC_CHUNK_SLACK;
	f->last = now;
	f->state_word = &r->entries[i].state;
	dc_thread_restate(f, DC_CHUNK_OWNED | (uint64_t)generation << 32 | (uint64_t)(c.at - base));
	/* [chunk-commit] release; pairs with the reader's first acquire fence: the header is there */
	__atomic_store_n(f->state_word, dc_thread_state(f), __ATOMIC_RELEASE);
	DC_BARRIER_();
	t->switching = 0;
	__atomic_store_n(&r->lanes[t->lane].chunk, i, __ATOMIC_RELAXED); /* a hint for lookers */
	if (t->before == NONE)
		pages_expect(r, t);
}

int dc_chunk_switch(struct dc_recorder *r, struct dc_thread *t)
{
	uint32_t generation;
	if (t->before != NONE)
		dc_chunk_seal_before(r, t);
	uint64_t now = dc_units(&t->fast);
	if (DC_UNLIKELY_(!__atomic_load_n(&r->window_units, __ATOMIC_RELAXED)))
		dc_window_calibrate(r);
	uint32_t i = dc_chunk_claim(r, t, now, &generation);
	if (i == NONE) {
		__atomic_fetch_add(&r->lanes[t->lane].dropped, 1, __ATOMIC_RELAXED); /* a count */
		return -ENOSPC;
	}
	install(r, t, i, generation, now);
	if (now >= __atomic_load_n(&r->next_anchor_units, __ATOMIC_RELAXED))
		dc_anchor_take(r);
	if (DC_UNLIKELY_(__atomic_load_n(&r->control->sample_hz, __ATOMIC_RELAXED))) /* a wish from outside */
		dc_sample_look(r, t, now);
	return 0;
}
