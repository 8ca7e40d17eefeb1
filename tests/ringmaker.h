/* SPDX-License-Identifier: MIT */
/*
 * Rings and chunks made by hand, for tests: a plain byte-by-byte writer of what ring.h and event.h describe,
 * which shares no line with the recorder or the decoder, so that a mistake in one shows against the other.
 *
 *     struct chunk_maker c;                                         one chunk
 *     chunk_maker_init(&c, &(struct chunk_maker_opts){ .lane = 3, .tid = 100 });
 *     chunk_maker_event(&c, DC_KIND_BEGIN, 1000, site, (struct maker_arg[]){ MAKE_U64(7) }, 1);
 *     chunk_maker_end(&c, 1010);
 *
 *     struct ring_maker *m = ring_maker_new(8192, 64, 8);           a whole ring, in memory
 *     uint16_t site = ring_maker_site(m, &(struct maker_site){ .name = "db.query", ... });
 *     uint32_t lane = ring_maker_lane(m, 100, "worker");
 *     ring_maker_event(m, lane, DC_KIND_BEGIN, 1000, site, args, 1);     switches chunks by itself, with OPEN copies
 *     ring_maker_write(m, "/tmp/x.ring");
 *
 * Misuse (a full pool, a bad argument) aborts: this is test code.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/decode.h"
#include "ipc/event.h"
#include "ipc/ring.h"

struct maker_arg {
	uint8_t type; /* DC_TYPE_* */
	bool dropped;
	union dc_value value;
};

#define MAKE_U64(x)                                                                                          \
	{                                                                                                    \
		.type = DC_TYPE_U64, .value.u = (x)                                                          \
	}
#define MAKE_I64(x)                                                                                          \
	{                                                                                                    \
		.type = DC_TYPE_I64, .value.i = (x)                                                          \
	}
#define MAKE_F64(x)                                                                                          \
	{                                                                                                    \
		.type = DC_TYPE_F64, .value.f = (x)                                                          \
	}
#define MAKE_BOOL(x)                                                                                         \
	{                                                                                                    \
		.type = DC_TYPE_BOOL, .value.u = (x)                                                         \
	}
#define MAKE_PTR(x)                                                                                          \
	{                                                                                                    \
		.type = DC_TYPE_PTR, .value.u = (x)                                                          \
	}
#define MAKE_STR(s)                                                                                          \
	{                                                                                                    \
		.type = DC_TYPE_STR, .value.text = {(s), sizeof(s) - 1, false }                              \
	}
#define MAKE_NULL_STR                                                                                        \
	{                                                                                                    \
		.type = DC_TYPE_STR                                                                          \
	}
#define MAKE_SECRET                                                                                          \
	{                                                                                                    \
		.type = DC_TYPE_SECRET                                                                       \
	}
#define MAKE_DROPPED(t)                                                                                      \
	{                                                                                                    \
		.type = (t), .dropped = true                                                                 \
	}

/* One chunk. */

struct chunk_maker_opts {
	uint64_t first_event;
	uint64_t start_units;
	uint32_t generation; /* 0: 1 */
	uint32_t lane;
	uint32_t tid;
	uint32_t serial; /* 0: 1 */
	uint32_t depth;
};

struct chunk_maker {
	uint8_t bytes[DC_CHUNK_BYTES_MAX];
	uint32_t used; /* what the state word's bytes would say */
	uint32_t events;
	uint64_t units;
};

void chunk_maker_init(struct chunk_maker *c, const struct chunk_maker_opts *opts);
/* OPEN; counted in the header's opens. */
void chunk_maker_open(struct chunk_maker *c, uint64_t start_units, uint16_t depth, uint16_t site,
		      const struct maker_arg *args, unsigned count);
/* BEGIN INSTANT COUNTER LOG ASYNC_* TRIGGER. All that take @units write a TIME record when the delta needs one. */
void chunk_maker_event(struct chunk_maker *c, unsigned kind, uint64_t units, uint16_t site,
		       const struct maker_arg *args, unsigned count);
/* The same with a site that is not in the table. */
void chunk_maker_inline(struct chunk_maker *c, unsigned kind, uint64_t units, const char *name,
			const struct maker_arg *args, unsigned count);
void chunk_maker_end(struct chunk_maker *c, uint64_t units);
void chunk_maker_end_to(struct chunk_maker *c, uint64_t units, uint16_t depth);
void chunk_maker_flow(struct chunk_maker *c, unsigned kind, uint64_t units, uint64_t id);
void chunk_maker_context(struct chunk_maker *c, uint64_t units, const struct dc_trace_context *context);
void chunk_maker_stack(struct chunk_maker *c, uint64_t units, uint16_t site, const uint64_t *addresses,
		       unsigned count);
void chunk_maker_time(struct chunk_maker *c, uint64_t units);
void chunk_maker_thread(struct chunk_maker *c, uint32_t tid, uint32_t serial, const char *comm);
/* The state word of a sealed chunk with these contents. */
uint64_t chunk_maker_state(const struct chunk_maker *c);

/* A whole ring. */

struct maker_site {
	const char *name;
	const char *file; /* NULL: "test.c" */
	uint32_t line;
	uint8_t kind; /* 0: BEGIN */
	uint8_t level;
	uint8_t arg_count;
	uint8_t types[DC_ARG_MAX];
	const char *keys[DC_ARG_MAX];
	const char *format;
};

struct ring_maker;

/* @chunk_bytes: 4096 to 32768; @chunk_cap: chunks; @lane_cap: lanes. Clock CLOCK_MONOTONIC, tick_shift 0, pid 4242. */
struct ring_maker *ring_maker_new(uint32_t chunk_bytes, uint32_t chunk_cap, uint32_t lane_cap);
void ring_maker_free(struct ring_maker *m);

/* The file's bytes, to look at or to spoil; and places in it. */
uint8_t *ring_maker_bytes(struct ring_maker *m, size_t *ret_bytes);
struct dc_ring_header *ring_maker_header(struct ring_maker *m);
struct dc_chunk_entry *ring_maker_entries(struct ring_maker *m);
uint8_t *ring_maker_chunk(struct ring_maker *m, uint32_t index);
struct dc_ring_lane *ring_maker_lanes(struct ring_maker *m);

uint32_t ring_maker_string(struct ring_maker *m, const char *text);            /* offset */
uint16_t ring_maker_site(struct ring_maker *m, const struct maker_site *site); /* id */
void ring_maker_module(struct ring_maker *m, const char *path, uint64_t base, uint64_t start, uint64_t end);
uint32_t ring_maker_lane(struct ring_maker *m, uint32_t tid, const char *comm); /* index */
void ring_maker_anchor(struct ring_maker *m, const struct dc_anchor *anchor);
void ring_maker_trigger(struct ring_maker *m, uint64_t tick, uint32_t tid, uint16_t site, const char *text);

/*
 * Events. When the lane's chunk is full it is sealed and another one taken: the oldest sealed one once the
 * pool is used up, so that old events are overwritten as in life. BEGIN and END keep the lane's open spans.
 */
void ring_maker_event(struct ring_maker *m, uint32_t lane, unsigned kind, uint64_t units, uint16_t site,
		      const struct maker_arg *args, unsigned count);
void ring_maker_end(struct ring_maker *m, uint32_t lane, uint64_t units);
/* For records the two above have not: a chunk with room for the largest. Call ring_maker_put() after writing it. */
struct chunk_maker *ring_maker_open_chunk(struct ring_maker *m, uint32_t lane, uint64_t units);
void ring_maker_put(struct ring_maker *m, uint32_t lane);
/* Seals the lane's chunk, as if its thread had exited and the chunk were full; the next event takes another. */
void ring_maker_seal(struct ring_maker *m, uint32_t lane);

/* Events written, the overwritten ones included. */
uint64_t ring_maker_events(const struct ring_maker *m);

/* Writes the file, mode 0600. 0 or -errno. */
int ring_maker_write(const struct ring_maker *m, const char *path);
