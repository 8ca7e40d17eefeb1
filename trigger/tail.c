/* SPDX-License-Identifier: MIT */
#include "trigger/tail.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH_BYTES (1u << 20)
#define LANES_AHEAD 8u /* read beyond the known ones: new threads show up there */
#define LOOKS_AFTER 2u /* an event's time may be stored before it is committed */
#define NS_PER_BYTE 3.0 /* to decode and handle, until measured */
#define MEASURED_BYTES 4096u /* less says nothing about the price */
#define CHANCE_LEAST 0.01
#define DECODERS_MAX 512u /* of one ring: 3 MiB */
#define BUDGET_NS_MAX INT64_C(3600000000000)
#define LATE 4 /* budgets: what is left over by then waits for the next look */

struct known_lane {
	uint64_t last_units;
	struct dc_lane_decoder *decoder; /* NULL: nothing of it was decoded yet */
	uint32_t open; /* chunk it was in at the last look */
	uint32_t chunk, generation; /* the one its decoder is in; ~0: none */
	uint32_t moved; /* looks left in which it counts as moved */
};

struct known_chunk {
	uint64_t state; /* of what was delivered or skipped; generation and bytes count */
	uint32_t lane; /* of its header; ~0: not read yet */
	float weight; /* 0: not chosen */
	uint64_t look; /* the last one that considered it */
};

/* What is to be delivered of one chunk. */
struct piece {
	uint64_t state;
	uint64_t first_event; /* 0: goes on where its lane's decoder is */
	uint32_t index;
	uint32_t sealed;
	uint32_t from; /* first byte that was not delivered */
	uint32_t read_from; /* 0: all of it is decoded again, in silence up to @from */
	uint32_t lane;
	uint32_t offset; /* in the batch */
	bool fresh; /* nobody decided yet whether it is decoded */
	bool bad;
};

struct dc_tail {
	struct dc_ring *ring;
	struct dc_schema *schema;
	uint32_t schema_sites, schema_strings; /* in use when it was read */
	struct dc_ring_lane *entries; /* scratch: the lane table */
	struct known_lane *lanes;
	uint32_t lane_count; /* of both */
	struct known_chunk *chunks;
	uint32_t chunk_count;
	uint32_t decoders, next_evicted;
	uint64_t looks;
	uint32_t hand; /* of the ring, before the last one */
	bool behind; /* the last look left some to the next */
	struct piece *pieces; /* of this look */
	uint32_t piece_count;
	uint8_t *batch;
	double ns_per_byte;
	uint64_t random;
	struct dc_tail_totals totals;
	/* of the look under way */
	const struct dc_tail_handler *handler;
	void *arg;
	double weight;
	int64_t excused_ns;
};

static int64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static double random_part(struct dc_tail *t)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return (double)(t->random >> 11) * 0x1p-53;
}

/* ---- lanes ---- */

static int lanes_room(struct dc_tail *t, uint32_t count)
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
		r = lanes_room(t, used < h->lane_cap ? used : h->lane_cap);
		if (r < 0)
			return r;
	}
}

static void forget_lane(struct dc_tail *t, struct known_lane *l)
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
			forget_lane(t, l);
		l->last_units = e->last_units;
		any |= l->moved != 0;
	}
	return any;
}

/* ---- which chunks ---- */

static int chunks_room(struct dc_tail *t, uint32_t count)
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

static int consider_all(struct dc_tail *t)
{
	CLEANUP(free) struct dc_chunk_entry *entries = NULL;
	struct dc_ring_look look;
	int r = dc_ring_glance(t->ring, &look);

	t->looks++;
	if (r == 0)
		r = chunks_room(t, look.chunks_grown);
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

/* Lanes that stayed where they were: one word each. Return: whether that was all. */
static bool consider_open(struct dc_tail *t)
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
static void choose(struct dc_tail *t, int64_t budget_ns)
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

static int by_lane(const void *left, const void *right)
{
	const struct piece *a = left, *b = right;

	if (a->lane != b->lane)
		return a->lane < b->lane ? -1 : 1;
	return a->first_event < b->first_event ? -1 : a->first_event > b->first_event;
}

/* ---- copying ---- */

/* Who wrote it: from its header, or as known from before. */
static void identify(struct dc_tail *t, struct piece *p)
{
	struct known_chunk *k = &t->chunks[p->index];
	struct dc_chunk_header h;

	if (p->read_from) {
		p->lane = k->lane;
		return;
	}
	memcpy(&h, t->batch + p->offset, sizeof(h));
	p->lane = h.lane;
	p->first_event = h.first_event;
	p->bad |= h.lane >= t->ring->header.lane_cap || (h.generation & 0x7fffffff) != dc_state_generation(p->state);
	k->lane = h.lane;
}

/* As many from @first on as fit. Return: how many; each is then whole, or bad. */
static uint32_t copy_batch(struct dc_tail *t, uint32_t first)
{
	const struct dc_ring_header *h = &t->ring->header;
	uint32_t bytes = 0, end = first;

	/* [chunk-commit] acquire: the state words before the bytes they speak of */
	atomic_thread_fence(memory_order_acquire);
	for (; end < t->piece_count; end++) {
		struct piece *p = &t->pieces[end];
		const uint32_t size = dc_state_bytes(p->state) - p->read_from;

		if (bytes + size > BATCH_BYTES)
			break;
		p->offset = bytes;
		bytes += size;
		t->totals.truncated |= !dc_ring_read(t->ring, t->batch + p->offset, size,
						     h->chunks_off + (uint64_t)p->index * h->chunk_bytes +
							     p->read_from);
	}
	/* [chunk-reuse] acquire: who saw a byte of a new generation sees the new generation in the state word */
	atomic_thread_fence(memory_order_acquire);
	for (uint32_t i = first; i < end; i++) {
		struct dc_chunk_entry now;

		dc_ring_states(t->ring, &now, t->pieces[i].index, 1);
		t->pieces[i].bad = !dc_ring_state_kept(t->pieces[i].state, now.state);
		identify(t, &t->pieces[i]);
	}
	return end - first;
}

static int read_schema(struct dc_tail *t, const struct dc_ring_look *look)
{
	CLEANUP(dc_ring_tables) struct dc_ring_tables tables = {0};
	struct dc_schema *schema = NULL;
	int r = dc_ring_tables(t->ring, &tables);

	if (r == 0)
		r = dc_schema_new(dc_ring_tables_sites(&tables), tables.counts.site_count,
				  dc_ring_tables_strings(&tables), tables.counts.strings_bytes, &schema);
	if (r < 0)
		return r;
	dc_schema_free(t->schema);
	t->schema = schema;
	t->schema_sites = look->sites_used;
	t->schema_strings = look->strings_used;
	return 0;
}

/* After the bytes, so that whatever they name is there. */
static int refresh_schema(struct dc_tail *t)
{
	struct dc_ring_look look;
	int r = dc_ring_glance(t->ring, &look);

	if (r < 0 || (t->schema && t->schema_sites == look.sites_used && t->schema_strings == look.strings_used))
		return r;
	return read_schema(t, &look);
}

/* ---- decoding ---- */

static int deliver(void *arg, const struct dc_event *event)
{
	struct dc_tail *t = arg;

	t->handler->event(t->arg, event, t->weight);
	/* as the state word counts: these are not events of the ring */
	t->totals.events += event->kind != DC_KIND_OPEN && event->kind != DC_KIND_THREAD && !event->implied;
	return 0;
}

static int silence(void *arg, const struct dc_event *event)
{
	(void)arg, (void)event;
	return 0;
}

/* A lane without a decoder costs reading its chunk from the head again, no more. */
static void evict(struct dc_tail *t)
{
	while (t->decoders >= DECODERS_MAX)
		forget_lane(t, &t->lanes[t->next_evicted++ % t->lane_count]);
}

static int lane_ready(struct dc_tail *t, uint32_t lane)
{
	struct known_lane *l;
	int r = lane < t->lane_count ? 0 : lanes_room(t, lane + 1);

	if (r < 0)
		return r;
	l = &t->lanes[lane];
	if (!l->decoder) {
		evict(t);
		l->decoder = malloc(sizeof(*l->decoder));
		if (!l->decoder)
			return -ENOMEM;
		t->decoders++;
		dc_lane_init(l->decoder, t->schema);
	}
	l->decoder->schema = t->schema;
	return 0;
}

static int decode_from_head(struct dc_tail *t, struct dc_lane_decoder *d, const struct piece *p)
{
	const uint8_t *chunk = t->batch + p->offset;
	const uint32_t bytes = dc_state_bytes(p->state), head = sizeof(struct dc_chunk_header);
	const uint32_t from = p->from > head ? p->from : head;
	int r = dc_lane_feed(d, chunk, bytes);

	if (r == 0)
		r = dc_lane_more(d, chunk + head, from - head, silence, NULL);
	return r < 0 ? r : dc_lane_more(d, chunk + from, bytes - from, deliver, t);
}

static int decode(struct dc_tail *t, const struct piece *p)
{
	const uint32_t bytes = dc_state_bytes(p->state);
	struct known_chunk *k = &t->chunks[p->index];
	struct known_lane *l;
	int r = lane_ready(t, p->lane);

	if (r < 0)
		return r;
	l = &t->lanes[p->lane];
	t->weight = (double)k->weight;
	if (p->read_from)
		r = dc_lane_more(l->decoder, t->batch + p->offset, bytes - p->read_from, deliver, t);
	else
		r = decode_from_head(t, l->decoder, p);
	l->chunk = p->index;
	l->generation = dc_state_generation(p->state);
	k->state = p->state;
	t->totals.bytes += bytes - p->from;
	t->totals.sampled |= t->weight > 1;
	return r;
}

/* Of what cannot be used nothing more is tried. */
static void lose(struct dc_tail *t, const struct piece *p)
{
	t->chunks[p->index].state = p->state;
	t->chunks[p->index].weight = 0;
	t->totals.lost_chunks++;
}

static bool in_time(const struct dc_tail *t, int64_t until_ns)
{
	return until_ns == INT64_MAX || cpu_ns() - t->excused_ns < until_ns;
}

/* What is left over when time is up stays undelivered, and is looked at first the next time. */
static int decode_all(struct dc_tail *t, int64_t until_ns)
{
	uint32_t done = 0, handled = 0;
	int r = 0;

	while (r == 0 && done < t->piece_count && in_time(t, until_ns)) {
		const uint32_t count = copy_batch(t, done);

		r = refresh_schema(t);
		qsort(t->pieces + done, count, sizeof(*t->pieces), by_lane);
		for (uint32_t i = done; r == 0 && i < done + count && in_time(t, until_ns); i++) {
			const struct piece *p = &t->pieces[i];

			r = p->bad ? -EBADMSG : decode(t, p);
			if (r == -EBADMSG) {
				lose(t, p);
				r = 0;
			}
			handled += r == 0;
		}
		done += count;
	}
	t->behind = handled < t->piece_count;
	return r;
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
	r = t->batch ? decode_all(t, began ? began + LATE * budget_ns : INT64_MAX) : -ENOMEM;
	free(TAKE(t->batch));
	if (began)
		learn_price(t, t->totals.bytes - bytes, cpu_ns() - t->excused_ns - began);
	else
		t->totals.cpu_ns += (uint64_t)((double)size * t->ns_per_byte);
	return r;
}

static int look_at_chunks(struct dc_tail *t, int64_t budget_ns)
{
	int64_t began = 0;
	uint64_t size;
	int r = 0;

	if (t->behind || !consider_open(t)) {
		began = cpu_ns();
		r = consider_all(t);
	}
	t->totals.sampled = false;
	if (r < 0)
		return r;
	choose(t, budget_ns);
	if (t->piece_count == 0)
		return 0;
	size = bytes_of_pieces(t);
	if (!began && size >= MEASURED_BYTES)
		began = cpu_ns();
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
		r = read_schema(t, &look);
	if (r == 0)
		r = lanes_room(t, look.lanes_used + LANES_AHEAD < t->ring->header.lane_cap
					  ? look.lanes_used + LANES_AHEAD
					  : t->ring->header.lane_cap);
	if (r == 0)
		r = read_lanes(t);
	if (r == 0)
		r = chunks_room(t, look.chunks_grown);
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
	t->random = ((uint64_t)ring->ino << 32 ^ (uint64_t)cpu_ns()) | 1;
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
