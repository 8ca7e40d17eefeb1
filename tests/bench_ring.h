/* SPDX-License-Identifier: MIT */
/*
 * The calling process's own ring, read back by a benchmark: what is really in it, decoded, against what was
 * recorded. Not for rings that others are writing: nothing here retries.
 */
#pragma once

#include "ipc/decode.h"
#include "recorder/dashcam.h"

struct bench_ring {
	struct dc_stats stats;
	struct dc_ring_header *header; /* also the first byte of the map */
	const struct dc_chunk_entry *entries;
	size_t bytes;
};

/* Exits with a message when this process does not record. */
void bench_ring_open(struct bench_ring *ret_ring);
void bench_ring_close(struct bench_ring *ring);

/* Every event in the ring, lane by lane, each lane in order. Exits with a message when a chunk does not parse. */
void bench_ring_each(const struct bench_ring *ring, int (*each)(void *arg, const struct dc_event *event),
		     void *arg);

/* Events the ring counts as not recorded, whatever the reason. */
uint64_t bench_ring_dropped(const struct bench_ring *ring);
