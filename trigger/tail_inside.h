/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the tail share; nobody else includes it.
 *
 *   tail.c          lanes, and a look: what it may cost, in which order   tail_chunks.c   which chunks are new, which are decoded
 *   tail_decode.c   copying them, decoding what was copied
 */
#pragma once

#include <time.h>

#include "trigger/tail.h"

#define BATCH_BYTES (1u << 20)

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

static inline int64_t dc_tail_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- tail.c ---- */

int dc_tail_lanes_room(struct dc_tail *t, uint32_t count);
void dc_tail_forget_lane(struct dc_tail *t, struct known_lane *l);

/* ---- tail_chunks.c ---- */

int dc_tail_chunks_room(struct dc_tail *t, uint32_t count);
/* What is new becomes the pieces of this look: of all chunks. */
int dc_tail_consider_all(struct dc_tail *t);
/* Lanes that stayed where they were: one word each. Return: whether that was all. */
bool dc_tail_consider_open(struct dc_tail *t);
/* Of the pieces those are left that are decoded. */
void dc_tail_choose(struct dc_tail *t, int64_t budget_ns);

/* ---- tail_decode.c ---- */

int dc_tail_read_schema(struct dc_tail *t, const struct dc_ring_look *look);
/* What is left over when time is up stays undelivered, and is looked at first the next time. */
int dc_tail_decode_all(struct dc_tail *t, int64_t until_ns);
