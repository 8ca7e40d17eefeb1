/* SPDX-License-Identifier: MIT */
/*
 * Blocks of chunks: a cache of the few that are in use, and the index of all chunks.
 *
 * Whatever a block is on disk, in the cache it is a CHUNKS payload: decompressed, its columns joined. The
 * index holds the best copy of every chunk, 48 bytes each: a second pass copies chunks that had grown since
 * the first, and of two copies of one chunk (same process, lane and first_event) the one with more in it
 * counts. Building it reads and checks every block once, so damage shows before the first event.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/grow.h"
#include "persist/capture_inside.h"
#include "persist/columns.h"

/* The cache. */

static void swap_buffers(uint8_t **a, size_t *a_room, uint8_t **b, size_t *b_room)
{
	uint8_t *p = *a;
	size_t room = *a_room;
	*a = *b;
	*a_room = *b_room;
	*b = p;
	*b_room = room;
}

static int slot_reserve(struct dc_cache_slot *slot, size_t bytes)
{
	if (bytes <= slot->room)
		return 0;
	free(slot->payload);
	slot->payload = malloc(bytes);
	slot->room = slot->payload ? bytes : 0;
	return slot->payload ? 0 : -ENOMEM;
}

static int join_into(struct dc_cache_slot *slot, const uint8_t *columns, size_t bytes)
{
	size_t joined;
	int r = dc_columns_joined_bytes(columns, bytes, &joined);

	if (r == 0 && joined > DC_BLOCK_PLAIN_MAX)
		r = -EBADMSG;
	if (r == 0)
		r = slot_reserve(slot, joined + DC_COLUMNS_SLACK);
	if (r == 0)
		r = dc_columns_join(columns, bytes, slot->payload, slot->room);
	if (r == 0)
		slot->bytes = joined;
	return r;
}

/* The payload just read; the slot's buffer is where the next one goes. */
static void slot_take(struct dc_capture *c, struct dc_cache_slot *slot, const struct dc_block_ref *b)
{
	slot->bytes = b->plain_bytes;
	if (b->flags & DC_BLOCK_ZSTD)
		swap_buffers(&slot->payload, &slot->room, &c->plain, &c->plain_room);
	else
		swap_buffers(&slot->payload, &slot->room, &c->stored, &c->stored_room);
}

static int slot_fill(struct dc_capture *c, struct dc_cache_slot *slot, const struct dc_block_ref *b)
{
	char name[DC_BLOCK_NAME_BYTES];
	const uint8_t *payload;
	int r = dc_capture_payload(c, b, &payload);

	if (r < 0)
		return r;
	if (b->type == DC_BLOCK_COLUMNS) {
		r = join_into(slot, payload, b->plain_bytes);
		if (r == -EBADMSG)
			dc_capture_fault(c, b->offset, "%s: its columns do not fit together, it is lost",
					 dc_block_name(b, name));
		return r;
	}
	slot_take(c, slot, b);
	return 0;
}

int dc_capture_columns(struct dc_capture *c, uint32_t block, struct dc_cache_slot *slot)
{
	const uint8_t *payload;

	/* Into the buffer of the block before, which is in the cache of the processor: two would not fit its L2. */
	swap_buffers(&slot->payload, &slot->room, &c->plain, &c->plain_room);
	int r = dc_capture_payload(c, &c->blocks[block], &payload);

	if (r == 0)
		slot_take(c, slot, &c->blocks[block]);
	return r;
}

/* The block's CHUNKS payload, valid until the next call. */
static int cached(struct dc_capture *c, uint32_t block, const struct dc_cache_slot **ret_slot)
{
	struct dc_cache_slot *slot = c->cache;

	for (unsigned i = 0; i < DC_CAPTURE_CACHE_SLOTS; i++) {
		if (c->cache[i].block == block) {
			slot = &c->cache[i];
			break;
		}
		if (c->cache[i].used < slot->used)
			slot = &c->cache[i];
	}
	slot->used = ++c->cache_clock;
	*ret_slot = slot;
	if (slot->block == block)
		return 0;
	slot->block = UINT32_MAX;
	int r = slot_fill(c, slot, &c->blocks[block]);
	if (r == 0)
		slot->block = block;
	return r;
}

int dc_capture_chunk(struct dc_capture *c, const struct dc_chunk_ref *ref, const uint8_t **ret_bytes)
{
	const struct dc_cache_slot *slot;
	int r = cached(c, ref->block, &slot);

	if (r < 0)
		return r;
	/* The block was read again since the index was made, and the file may be another by now. */
	if (slot->bytes < ref->offset || slot->bytes - ref->offset < ref->bytes)
		return -EBADMSG;
	*ret_bytes = slot->payload + ref->offset;
	return 0;
}

void dc_capture_chunk_fault(struct dc_capture *c, const struct dc_chunk_ref *ref, uint64_t decoded)
{
	const struct dc_block_ref *b = &c->blocks[ref->block];
	char name[DC_BLOCK_NAME_BYTES];

	dc_capture_fault(c, b->offset,
			 "%s: chunk of process %" PRIu32 " lane %" PRIu32 " does not parse, %" PRIu64
			 " of %" PRIu32 " events read",
			 dc_block_name(b, name), ref->process, ref->lane, decoded, ref->events);
}

/* The index. */

static int chunk_append(struct dc_capture *c, const struct dc_chunk_ref *ref)
{
	if (GROW(c->chunks, c->chunk_count, c->chunk_room, 1024) < 0)
		return -ENOMEM;
	c->chunks[c->chunk_count++] = *ref;
	return 0;
}

/*
 * What a block says about its chunks: its entries, and their headers. A block of columns is not joined for
 * that: the headers stand near the front of it.
 */
#define COLUMNS_FRONT_BYTES (120u << 10) /* a thousand entries and headers; zstd goes by 128 KiB, and no further */

struct listing {
	struct dc_chunks_block head;
	const uint8_t *entries;
	size_t bytes;           /* of the CHUNKS payload */
	const uint8_t *payload; /* the CHUNKS payload, or NULL and the headers in @heads */
	const uint8_t *heads;
};

/* False: the entry does not fit its block. */
static bool chunk_of(struct listing *l, uint32_t i, uint32_t chunk_bytes, struct dc_chunk_ref *ref,
		     bool *ret_empty)
{
	struct dc_chunk_copy copy;
	struct dc_chunk_header h;

	memcpy(&copy, l->entries + i * sizeof copy, sizeof copy);
	ref->bytes = dc_state_bytes(copy.state);
	ref->events = dc_state_events(copy.state);
	const uint8_t *head = l->heads;
	if (!l->payload)
		l->heads += ref->bytes < sizeof h ? ref->bytes : sizeof h;
	*ret_empty = copy.state == 0; /* recycled while it was copied: counted in LOSS */
	if (*ret_empty)
		return true;
	uint64_t offset = (uint64_t)l->head.data_offset + copy.offset;
	if (ref->bytes < sizeof h || ref->bytes > chunk_bytes || offset + ref->bytes > l->bytes)
		return false;
	memcpy(&h, l->payload ? l->payload + offset : head, sizeof h);
	ref->offset = (uint32_t)offset;
	ref->entry = i;
	ref->first_event = h.first_event;
	ref->start_units = h.start_units;
	ref->lane = h.lane;
	return true;
}

/* @bytes: of the payload; @there: of those at hand. */
static int list(struct listing *l, const uint8_t *payload, size_t there, size_t bytes)
{
	if (there < sizeof l->head)
		return -EBADMSG;
	memcpy(&l->head, payload, sizeof l->head);
	l->entries = payload + sizeof l->head;
	l->bytes = bytes;
	return l->head.data_offset <= bytes && l->head.data_offset >= sizeof l->head &&
			       l->head.count <=
				       (l->head.data_offset - sizeof l->head) / sizeof(struct dc_chunk_copy)
		       ? 0
		       : -EBADMSG;
}

static int list_chunks(struct dc_capture *c, uint32_t block, struct listing *l)
{
	const struct dc_cache_slot *slot;
	int r = cached(c, block, &slot);

	l->payload = r == 0 ? slot->payload : NULL;
	return r < 0 ? r : list(l, slot->payload, slot->bytes, slot->bytes);
}

static int list_columns(struct dc_capture *c, uint32_t block, struct listing *l)
{
	const uint8_t *front;
	size_t there, joined;
	int r = dc_capture_prefix(c, &c->blocks[block], COLUMNS_FRONT_BYTES, &front, &there);

	if (r < 0)
		return r;
	if (dc_columns_heads(front, there, &l->heads, &joined) < 0)
		return list_chunks(c, block,
				   l); /* more in front than usual, or damage: joining it will tell */
	return list(l, front, there, joined);
}

static int index_block(struct dc_capture *c, uint32_t block)
{
	const struct dc_block_ref *b = &c->blocks[block];
	struct dc_chunk_ref ref = {.process = b->process, .block = block};
	struct listing l = {0};
	char name[DC_BLOCK_NAME_BYTES];
	uint32_t bad = 0;
	int r = b->type == DC_BLOCK_COLUMNS ? list_columns(c, block, &l) : list_chunks(c, block, &l);

	if (r == -EBADMSG) {
		dc_capture_fault(c, b->offset, "%s: no chunk of it can be read", dc_block_name(b, name));
		return 0;
	}
	for (uint32_t i = 0; r == 0 && i < l.head.count; i++) {
		bool empty;
		if (!chunk_of(&l, i, c->processes[b->process].ring.chunk_bytes, &ref, &empty))
			bad++;
		else if (!empty && c->chunk_count < DC_CAPTURE_CHUNK_MAX)
			r = chunk_append(c, &ref);
	}
	if (bad)
		dc_capture_fault(c, b->offset, "%s: %" PRIu32 " of %" PRIu32 " chunks lie outside of it",
				 dc_block_name(b, name), bad, l.head.count);
	return r;
}

static int by_number(const void *left, const void *right)
{
	const struct dc_chunk_ref *a = left, *b = right;

	if (a->process != b->process)
		return a->process < b->process ? -1 : 1;
	if (a->lane != b->lane)
		return a->lane < b->lane ? -1 : 1;
	if (a->first_event != b->first_event)
		return a->first_event < b->first_event ? -1 : 1;
	if (a->events != b->events) /* the fuller copy first: it stays */
		return a->events > b->events ? -1 : 1;
	if (a->bytes != b->bytes)
		return a->bytes > b->bytes ? -1 : 1;
	return 0;
}

static bool same_lane(const struct dc_chunk_ref *a, const struct dc_chunk_ref *b)
{
	return a->process == b->process && a->lane == b->lane;
}

static void keep_fullest(struct dc_capture *c)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < c->chunk_count; i++)
		if (!kept || !same_lane(&c->chunks[kept - 1], &c->chunks[i]) ||
		    c->chunks[kept - 1].first_event != c->chunks[i].first_event)
			c->chunks[kept++] = c->chunks[i];
	c->chunk_count = kept;
}

static int make_lanes(struct dc_capture *c)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < c->chunk_count; i++)
		count += i == 0 || !same_lane(&c->chunks[i - 1], &c->chunks[i]);
	c->lanes = calloc(count ? count : 1, sizeof *c->lanes);
	if (!c->lanes)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->chunk_count; i++) {
		const struct dc_chunk_ref *ref = &c->chunks[i];
		if (i == 0 || !same_lane(ref - 1, ref))
			c->lanes[c->lane_count++] = (struct dc_lane_ref){
				.process = ref->process, .lane = ref->lane, .first = i};
		c->lanes[c->lane_count - 1].count++;
	}
	return 0;
}

static bool holds_chunks(const struct dc_capture *c, const struct dc_block_ref *b)
{
	return (b->type == DC_BLOCK_CHUNKS || b->type == DC_BLOCK_COLUMNS) && b->process < c->process_count &&
	       c->processes[b->process].has_tables;
}

int dc_capture_index(struct dc_capture *c)
{
	int r = 0;

	if (c->indexed)
		return 0;
	c->chunk_count = 0;
	for (uint32_t i = 0; i < c->block_count && r == 0; i++)
		if (holds_chunks(c, &c->blocks[i]))
			r = index_block(c, i);
	if (r < 0)
		return r;
	if (c->chunk_count == DC_CAPTURE_CHUNK_MAX)
		dc_capture_fault(c, c->bytes, "more than %u chunks: the rest is not read",
				 DC_CAPTURE_CHUNK_MAX);
	if (c->chunk_count)
		qsort(c->chunks, c->chunk_count, sizeof *c->chunks, by_number);
	keep_fullest(c);
	r = make_lanes(c);
	c->indexed = r == 0;
	return r;
}
