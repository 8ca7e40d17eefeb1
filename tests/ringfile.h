/* SPDX-License-Identifier: MIT */
/*
 * A ring file for tests of the reading side: laid out by hand, written by the protocol of ipc/ring.h,
 * independent of the recorder. Chunk payloads are a counter pattern (see ringfile_event()), so that a copy
 * can be proved right byte by byte.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/ring.h"
#include "ipc/samples.h"
#include "tests/scratch.h"

struct ringfile {
	int fd; /* holds the liveness lock while it is open */
	uint8_t *map;
	uint64_t map_bytes;
	char dir[SCRATCH_BYTES];
	char path[256];
	char name[64];
	struct dc_ring_header *header;
	struct dc_ring_control *control;
	struct dc_ring_lane *lanes;
	struct dc_ring_trigger *triggers;
	struct dc_chunk_entry *entries;
};

/* A writer of one lane. */
struct ringfile_writer {
	struct ringfile *ring;
	uint32_t lane;
	uint32_t chunk; /* ~0: none yet */
	uint64_t next_event;
	uint64_t state;
};

/* Creates <dir>/<pid>.<start-time>.<random>.ring of this process with @chunks chunks; aborts the test when it
 * cannot. */
void ringfile_make(struct ringfile *r, const char *dir, uint32_t chunks, uint32_t chunk_bytes);
void ringfile_unlock(struct ringfile *r); /* as if the owner had died */
void ringfile_remove(struct ringfile *r);

uint64_t ringfile_now(const struct ringfile *r); /* units */

void ringfile_writer_init(struct ringfile_writer *w, struct ringfile *r, uint32_t lane);
/*
 * One event of 8 payload bytes: an INSTANT (tag, 1-byte delta of 1 unit, site 1) followed by a site argument that
 * holds the low 3 bytes of its running number. Claims a chunk when needed. Return: false when no chunk was free.
 */
bool ringfile_event(struct ringfile_writer *w);
void ringfile_seal(struct ringfile_writer *w);
/* Whether @bytes of a chunk's copy are exactly events first_event.. of ringfile_event(). */
bool ringfile_chunk_good(const uint8_t *chunk, uint32_t bytes, uint32_t events);

/* One more record of the samples part, by the protocol of ipc/samples.h; the stack is its bytes counted up. */
struct dc_ring_sample *ringfile_sample(struct ringfile *r, uint32_t tid, uint64_t tick, uint32_t stack_bytes);

void ringfile_trigger(struct ringfile *r, const char *text);
