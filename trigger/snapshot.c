/* SPDX-License-Identifier: MIT */
#include "trigger/snapshot.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "ipc/now.h"

#define RUN_BYTES_MAX (1u << 20)
#define AHEAD_NS UINT64_C(100000000) /* of recycling that a copy wants to be ahead: disks pause as long */
#define AHEAD_CHUNKS 64u
#define FIRST_BYTES (sizeof(struct dc_chunk_header))

/* What the left edge of a lane looks like; from the chunk headers that went into the capture. */
struct lane_edge {
	uint64_t first_event; /* of its oldest chunk here */
	uint64_t start_units;
	uint64_t last_units;
	uint64_t events;
	bool seen;
	bool covered; /* a chunk older than the window was there: nothing is missing before it */
};

struct planned {
	uint32_t index;
	uint32_t lane;
	uint32_t sealed;
	uint32_t rank; /* place in the order of claiming, counted from the hand */
	uint64_t state;
	bool taken_before; /* an earlier pass has it with fewer bytes */
};

struct dc_snapshot {
	struct dc_ring *ring;
	uint32_t process;
	uint32_t passes;
	uint64_t from_units;
	uint64_t to_units;
	uint64_t budget_bytes;          /* what the file has memory for; bounds what lying entries may cost */
	uint64_t *taken;                /* by chunk: state word of the copy in the capture, 0: none */
	struct dc_chunk_entry *entries; /* scratch: the dense table */
	struct dc_chunk_entry *again;   /* scratch: the same, read a second time */
	struct planned *plan;
	uint32_t planned;
	uint32_t planned_hand; /* claims so far, when and as of the plan */
	uint64_t planned_ns;
	struct lane_edge *edges; /* by lane */
	struct dc_snapshot_totals totals;
};

int dc_snapshot_new(struct dc_ring *ring, uint32_t process, uint64_t from_units, uint64_t to_units,
		    struct dc_snapshot **ret_snapshot)
{
	CLEANUP(dc_snapshot) struct dc_snapshot *s = calloc(1, sizeof(*s));
	const uint32_t cap = ring->header.chunk_cap;

	if (!s)
		return -ENOMEM;
	s->ring = dc_ring_ref(ring);
	s->process = process;
	s->from_units = from_units;
	s->to_units = to_units;
	s->taken = calloc(cap, sizeof(*s->taken));
	s->entries = calloc(cap, sizeof(*s->entries));
	s->again = calloc(cap, sizeof(*s->again));
	s->plan = calloc(cap, sizeof(*s->plan));
	s->edges = calloc(ring->header.lane_cap, sizeof(*s->edges));
	if (!s->taken || !s->entries || !s->again || !s->plan || !s->edges)
		return -ENOMEM;
	*ret_snapshot = TAKE(s);
	return 0;
}

void dc_snapshot_free(struct dc_snapshot *s)
{
	if (!s)
		return;
	free(s->edges);
	free(s->plan);
	free(s->again);
	free(s->entries);
	free(s->taken);
	dc_ring_unref(s->ring);
	free(s);
}

static void read_ring(struct dc_snapshot *s, void *to, size_t bytes, uint64_t offset)
{
	uint64_t began = dc_now_ns();

	s->totals.truncated |= !dc_ring_read(s->ring, to, bytes, offset);
	s->totals.copy_ns += dc_now_ns() - began;
}

static void read_entries(struct dc_snapshot *s, struct dc_chunk_entry *to, uint32_t first, uint32_t count)
{
	uint64_t began = dc_now_ns();

	s->totals.truncated |= !dc_ring_states(s->ring, to, first, count);
	s->totals.copy_ns += dc_now_ns() - began;
}

/*
 * State words first, then what stands beside them. One reading of both is unordered: a state word already
 * sealed with the sealing time of the owner before would be skipped as older than the window. Where the word
 * has changed since, the time says nothing about it: such a chunk counts as sealed just now, is copied, and
 * then discarded by the second look.
 */
static void read_table(struct dc_snapshot *s, uint32_t count)
{
	const uint32_t now = (uint32_t)(dc_ring_now(s->ring) >> DC_COARSE_SHIFT);

	read_entries(s, s->entries, 0, count);
	/* [chunk-seal] acquire; pairs with the release of the seal: who saw it sealed sees when */
	atomic_thread_fence(memory_order_acquire);
	read_entries(s, s->again, 0, count);
	for (uint32_t i = 0; i < count; i++) {
		s->entries[i].lane = s->again[i].lane;
		s->entries[i].sealed = s->again[i].state == s->entries[i].state ? s->again[i].sealed : now;
	}
}

static bool sealed_before(uint32_t sealed, uint64_t units)
{
	return (int32_t)(sealed - (uint32_t)(units >> DC_COARSE_SHIFT)) < 0;
}

static bool wanted(struct dc_snapshot *s, uint32_t index, const struct dc_chunk_entry *e)
{
	const uint64_t state = e->state, had = s->taken[index];
	const uint32_t bytes = dc_state_bytes(state);

	if (bytes < FIRST_BYTES || bytes > s->ring->header.chunk_bytes)
		return false; /* just claimed, never used, or a lie */
	if (had && dc_state_generation(had) == dc_state_generation(state) && dc_state_bytes(had) >= bytes)
		return false;
	if ((state & DC_CHUNK_OWNED) || s->from_units == 0 || !sealed_before(e->sealed, s->from_units))
		return true;
	if (e->lane < s->ring->header.lane_cap)
		s->edges[e->lane].covered = true;
	return false;
}

/* Sealed ones by age, those of the same 10 ms as the hand passed them, so neighbours stay neighbours; owned
 * ones last. */
static int by_age(const void *left, const void *right)
{
	const struct planned *a = left, *b = right;
	const bool a_owned = a->state & DC_CHUNK_OWNED, b_owned = b->state & DC_CHUNK_OWNED;

	if (a_owned != b_owned)
		return a_owned ? 1 : -1;
	if (!a_owned && a->sealed != b->sealed)
		return (int32_t)(a->sealed - b->sealed) < 0 ? -1 : 1;
	return a->rank < b->rank ? -1 : a->rank > b->rank;
}

static void plan(struct dc_snapshot *s, const struct dc_ring_look *look)
{
	const uint32_t count = look->chunks_grown, start = count ? look->hand % count : 0;
	bool ordered = true;

	s->planned = 0;
	for (uint32_t rank = 0; rank < count; rank++) {
		const uint32_t index = (start + rank) % count;
		const struct dc_chunk_entry *e = &s->entries[index];
		struct planned *p = &s->plan[s->planned];

		if (!wanted(s, index, e))
			continue;
		*p = (struct planned){.index = index,
				      .lane = e->lane,
				      .sealed = e->sealed,
				      .rank = rank,
				      .state = e->state,
				      .taken_before = s->taken[index] &&
						      dc_state_generation(s->taken[index]) ==
							      dc_state_generation(e->state)};
		ordered = ordered && (s->planned == 0 || by_age(p - 1, p) < 0);
		s->planned++;
	}
	if (!ordered) /* the rule, once threads are many: a few owned chunks in between are enough */
		qsort(s->plan, s->planned, sizeof(*s->plan), by_age);
}

static uint32_t round64(uint32_t n)
{
	return (n + 63) & ~63u;
}

/* Part of a batch that one pread gets: chunks that follow each other in the file. */
struct run {
	uint32_t first; /* in the plan */
	uint32_t count;
	uint32_t offset; /* of its bytes in the batch's data */
	uint32_t bytes;
};

/* A chunk less than half full ends a run: the room behind its last byte would be read and written for nothing. */
static bool run_continues(const struct dc_snapshot *s, uint32_t next)
{
	const uint32_t chunk_bytes = s->ring->header.chunk_bytes;
	const struct planned *p = &s->plan[next], *before = p - 1;

	return p->index == before->index + 1 && dc_state_bytes(before->state) >= chunk_bytes / 2;
}

/*
 * The longest run from @first that fits into @room bytes with its entries in the block. Return: its bytes, 0:
 * no room.
 */
static uint32_t run_take(const struct dc_snapshot *s, uint32_t first, size_t room, struct run *ret_run)
{
	const uint32_t chunk_bytes = s->ring->header.chunk_bytes;
	uint32_t bytes = 0, count = 0;

	while (first + count < s->planned && (count == 0 || run_continues(s, first + count))) {
		const uint32_t whole = count * chunk_bytes;
		const uint32_t end = whole + round64(dc_state_bytes(s->plan[first + count].state));

		if (end + (count + 1) * sizeof(struct dc_chunk_copy) > room)
			break;
		bytes = end;
		count++;
	}
	*ret_run = (struct run){.first = first, .count = count, .bytes = bytes};
	return bytes;
}

struct batch {
	struct run runs[256];
	uint32_t run_count;
	uint32_t chunks;
	uint32_t data_offset; /* in the block's payload */
	uint32_t data_bytes;
};

/* Fills a block as far as it goes, beginning at @first of the plan. */
static void batch_take(const struct dc_snapshot *s, uint32_t first, struct batch *b)
{
	size_t room = DC_WRITER_PAYLOAD_MAX - sizeof(struct dc_chunks_block) - 64;
	const size_t most = sizeof(b->runs) / sizeof(b->runs[0]);

	b->run_count = b->chunks = b->data_bytes = 0;
	while (b->run_count < most && first + b->chunks < s->planned) {
		struct run *r = &b->runs[b->run_count];

		if (run_take(s, first + b->chunks, room, r) == 0)
			break;
		r->offset = b->data_bytes;
		room -= r->bytes + r->count * sizeof(struct dc_chunk_copy);
		b->data_bytes += r->bytes;
		b->chunks += r->count;
		b->run_count++;
	}
	b->data_offset = round64(
		(uint32_t)(sizeof(struct dc_chunks_block) + b->chunks * sizeof(struct dc_chunk_copy)));
}

static void batch_copy(struct dc_snapshot *s, const struct batch *b, uint8_t *data)
{
	const struct dc_ring_header *h = &s->ring->header;

	/* [chunk-commit] the state words of the plan before the bytes they speak of */
	atomic_thread_fence(memory_order_acquire);
	for (uint32_t i = 0; i < b->run_count; i++) {
		const struct run *r = &b->runs[i];

		read_ring(s, data + r->offset, r->bytes,
			  h->chunks_off + (uint64_t)s->plan[r->first].index * h->chunk_bytes);
	}
	/* [chunk-reuse] who saw a byte of a new generation sees the new generation in the state word */
	atomic_thread_fence(memory_order_acquire);
	for (uint32_t i = 0; i < b->run_count; i++) {
		const struct run *r = &b->runs[i];
		const uint32_t first = s->plan[r->first].index;

		read_entries(s, &s->entries[first], first, r->count);
	}
}

static void note_edge(struct dc_snapshot *s, const struct planned *p, const struct dc_chunk_header *h)
{
	const uint32_t lasted = p->sealed - (uint32_t)(h->start_units >> DC_COARSE_SHIFT); /* coarse */
	const bool owned = p->state & DC_CHUNK_OWNED; /* then `sealed` is of the owner before */
	const uint64_t last = h->start_units + (owned ? 0 : (uint64_t)lasted << DC_COARSE_SHIFT);
	struct lane_edge *e;

	if (p->lane >= s->ring->header.lane_cap)
		return;
	e = &s->edges[p->lane];
	if (!e->seen || h->start_units < e->start_units) {
		e->first_event = h->first_event;
		e->start_units = h->start_units;
	}
	if (!e->seen || last > e->last_units)
		e->last_units = last;
	e->seen = true;
	e->events += dc_state_events(p->state);
}

static void count_chunk(struct dc_snapshot *s, const struct planned *p, struct dc_writer *w)
{
	struct dc_snapshot_totals *t = &s->totals;
	const uint64_t before = p->taken_before ? s->taken[p->index] : 0;
	const uint64_t chunks = !p->taken_before;
	const uint64_t events = dc_state_events(p->state) - dc_state_events(before);
	const uint64_t bytes = dc_state_bytes(p->state) - dc_state_bytes(before);

	t->chunks += chunks;
	t->events += events;
	t->bytes += bytes;
	dc_writer_count(w, chunks, events, bytes);
	s->taken[p->index] = p->state;
}

/* Whether the copy is good; if so its bytes beyond the committed ones, which no reader looks at, are made to
 * say nothing. */
static bool keep_chunk(struct dc_snapshot *s, struct planned *p, uint8_t *chunk, uint32_t room)
{
	const uint32_t bytes = dc_state_bytes(p->state);
	struct dc_chunk_header h;

	if (!dc_ring_state_kept(p->state, s->entries[p->index].state)) {
		s->totals.discarded_chunks++;
		return false;
	}
	memcpy(&h, chunk, sizeof(h));
	if (h.start_units > s->to_units) {
		/* too late, but proof of what came before it: all of the lane in the window may be overwritten */
		if (!p->taken_before)
			note_edge(s, p, &h);
		return false;
	}
	p->lane = h.lane; /* committed with the chunk; the table's may be of the next owner already */
	memset(chunk + bytes, 0, room - bytes);
	if (!p->taken_before)
		note_edge(s, p, &h);
	return true;
}

/* Entries of the chunks worth keeping; the others leave a hole in the data that nothing points to. Return: how many. */
static uint32_t batch_keep(struct dc_snapshot *s, const struct batch *b, uint8_t *data,
			   struct dc_chunk_copy *copies, struct dc_writer *w)
{
	const uint32_t chunk_bytes = s->ring->header.chunk_bytes;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < b->run_count; i++) {
		const struct run *r = &b->runs[i];

		for (uint32_t j = 0; j < r->count; j++) {
			struct planned *p = &s->plan[r->first + j];
			const uint32_t at = j * chunk_bytes;
			const uint32_t room = j + 1 < r->count ? chunk_bytes : r->bytes - at;

			if (!keep_chunk(s, p, data + r->offset + at, room))
				continue;
			copies[kept++] = (struct dc_chunk_copy){.state = p->state,
								.offset = r->offset + at,
								.index = p->index,
								.lane = p->lane,
								.sealed = p->sealed};
			count_chunk(s, p, w);
		}
	}
	return kept;
}

static int batch_write(struct dc_snapshot *s, const struct batch *b, struct dc_writer *w)
{
	uint8_t *payload = dc_writer_reserve(w);
	struct dc_chunks_block *head = (void *)payload;

	if (!payload)
		return dc_writer_error(w);
	memset(payload, 0, b->data_offset);
	batch_copy(s, b, payload + b->data_offset);
	*head = (struct dc_chunks_block){.chunk_bytes = s->ring->header.chunk_bytes,
					 .data_offset = b->data_offset};
	head->count = batch_keep(s, b, payload + b->data_offset, (struct dc_chunk_copy *)(head + 1), w);
	return dc_writer_commit(w, DC_BLOCK_CHUNKS, s->process,
				b->data_offset + (head->count ? b->data_bytes : 0));
}

/* Chunks of the plan that are not the same any more need not be copied to find that out. */
static void drop_gone(struct dc_snapshot *s, uint32_t first)
{
	uint32_t kept = first;

	read_entries(s, s->entries, 0, s->ring->header.chunk_cap);
	for (uint32_t i = first; i < s->planned; i++) {
		const struct planned *p = &s->plan[i];

		if (dc_state_generation(s->entries[p->index].state) == dc_state_generation(p->state))
			s->plan[kept++] = *p;
		else
			s->totals.discarded_chunks++;
	}
	s->planned = kept;
}

/*
 * Recycling goes through the plan in its order, about one chunk for each step of the hand; but lanes recycle
 * their own, and one may run at twice the pace it had in the window. When recycling is about to overtake the
 * copy, which goes at the disk's pace, what is next is kept in memory rather than lost.
 */
static void keep_ahead(struct dc_snapshot *s, struct dc_writer *w, uint32_t first, uint32_t passed)
{
	const uint64_t took = dc_now_ns() - s->planned_ns + 1;
	struct dc_ring_look look;
	uint64_t claims, ahead;

	if (dc_ring_look(s->ring, &look) < 0)
		return;
	claims = look.hand - s->planned_hand;
	ahead = 2 * claims + claims * AHEAD_NS / took + AHEAD_CHUNKS;
	dc_writer_hurry(w, claims && passed < ahead);
	if (passed < 2 * claims)
		drop_gone(s, first);
}

static int copy_chunks(struct dc_snapshot *s, struct dc_writer *w)
{
	const uint32_t planned = s->planned;
	struct batch b;
	int r = 0;

	for (uint32_t next = 0; r == 0 && next < s->planned; next += b.chunks) {
		keep_ahead(s, w, next, next + planned - s->planned);
		batch_take(s, next, &b);
		if (b.chunks == 0 || b.data_bytes > s->budget_bytes)
			break;
		s->budget_bytes -= b.data_bytes;
		r = batch_write(s, &b, w);
	}
	dc_writer_hurry(w, false);
	return r;
}

static void announce(const struct dc_snapshot *s, struct dc_writer *w)
{
	uint64_t bytes = DC_WRITER_PAYLOAD_MAX; /* the tables, and what blocks are rounded up by */

	for (uint32_t i = 0; i < s->planned; i++)
		bytes += round64(dc_state_bytes(s->plan[i].state)) + sizeof(struct dc_chunk_copy);
	dc_writer_expect(w, bytes < s->budget_bytes ? bytes : s->budget_bytes);
}

/* Memory in use, and one chunk per lane more: the rounding of partly filled ones. */
static int refill_budget(struct dc_snapshot *s)
{
	struct stat st;

	if (fstat(s->ring->fd, &st) < 0)
		return -errno;
	s->budget_bytes = (uint64_t)st.st_blocks * 512 + DC_WRITER_PAYLOAD_MAX;
	return 0;
}

/* Grow rather than recycle what is being copied; the guest itself bounds it to a second. */
static void hold(struct dc_snapshot *s)
{
	uint64_t now = dc_ring_now(s->ring);
	struct dc_clock clock;

	if (s->ring->writable && now && dc_ring_alive(s->ring) == 1 && dc_ring_clock(s->ring, &clock) == 0) {
		uint64_t until = dc_clock_units(&clock, dc_clock_realtime_ns(&clock, now) + 1000000000);

		dc_ring_set_hold(s->ring, s->from_units, until);
	}
}

static int write_tables(struct dc_snapshot *s, struct dc_writer *w)
{
	CLEANUP(dc_ring_tables) struct dc_ring_tables t = {0};
	int r = dc_ring_tables(s->ring, &t);

	if (r == -EBADMSG) {
		s->totals.truncated = true;
		return s->passes ? 0 : r;
	}
	if (r < 0)
		return r;
	dc_known_name_lanes(s->ring->known, dc_ring_tables_lanes(&t), t.counts.lane_count);
	return dc_writer_block(w, DC_BLOCK_TABLES, s->process, t.bytes, t.size);
}

static int pass(struct dc_snapshot *s, struct dc_writer *w)
{
	struct dc_ring_look look;
	int r = s->passes ? 0 : write_tables(s, w);

	if (r == 0)
		r = dc_ring_look(s->ring, &look);
	if (r == 0)
		r = refill_budget(s);
	if (r < 0)
		return r;
	s->passes++;
	s->planned_hand = look.hand;
	s->planned_ns = dc_now_ns();
	read_table(s, look.chunks_grown);
	plan(s, &look);
	announce(s, w);
	r = copy_chunks(s, w);
	return r < 0 ? r : write_tables(s, w);
}

int dc_snapshot_pass(struct dc_snapshot *s, struct dc_writer *w)
{
	uint64_t began = dc_now_ns();
	int r;

	hold(s);
	r = pass(s, w);
	if (s->ring->writable)
		dc_ring_set_hold(s->ring, 0, 0);
	s->totals.took_ns += dc_now_ns() - began;
	return r;
}

static uint64_t overwritten(const struct dc_snapshot *s, const struct lane_edge *e)
{
	const struct dc_ring_header *h = &s->ring->header;
	const uint64_t from = s->from_units;
	const uint64_t edge = e->start_units < s->to_units ? e->start_units : s->to_units;
	double rate;

	if (!e->seen || e->covered || e->first_event == 0 || e->start_units <= from)
		return 0;
	if (h->started_tick >> h->tick_shift >= from)
		return e->first_event;
	if (e->last_units <= e->start_units)
		return 0;
	rate = (double)e->events / (double)(e->last_units - e->start_units) * (double)(edge - from);
	return rate < (double)e->first_event ? (uint64_t)rate : e->first_event;
}

int dc_snapshot_loss(struct dc_snapshot *s, struct dc_writer *w)
{
	CLEANUP(dc_ring_tables) struct dc_ring_tables t = {0};
	CLEANUP(free) struct dc_loss_entry *loss = NULL;
	struct dc_loss_entry all = {.lane = ~0u, .discarded_chunks = s->totals.discarded_chunks};
	const struct dc_ring_lane *lanes;
	uint32_t n = 0;
	int r = dc_ring_tables(s->ring, &t);

	if (r < 0)
		return r == -EBADMSG ? dc_writer_block(w, DC_BLOCK_LOSS, s->process, &all, sizeof(all)) : r;
	loss = calloc(t.counts.lane_count + 1, sizeof(*loss));
	if (!loss)
		return -ENOMEM;
	lanes = dc_ring_tables_lanes(&t);
	for (uint32_t i = 0; i < t.counts.lane_count; i++) {
		const uint64_t gone = overwritten(s, &s->edges[i]), dropped = lanes[i].dropped;

		if (gone || dropped)
			loss[n++] = (struct dc_loss_entry){
				.lane = i, .overwritten = gone, .dropped = dropped};
	}
	all.dropped = dc_ring_tables_header(&t)->lost_early + dc_ring_tables_header(&t)->lost_lanes;
	loss[n++] = all;
	return dc_writer_block(w, DC_BLOCK_LOSS, s->process, loss, n * sizeof(*loss));
}

void dc_snapshot_extend(struct dc_snapshot *s, uint64_t to_units)
{
	if (to_units > s->to_units)
		s->to_units = to_units;
}

const struct dc_snapshot_totals *dc_snapshot_totals(const struct dc_snapshot *s)
{
	return &s->totals;
}
