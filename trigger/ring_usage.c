/* SPDX-License-Identifier: MIT */
/* What `status` shows of a ring: what was recorded, what is still there, what it takes. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "trigger/ring.h"

#define DEPTH_MOST 65536u /* a lie, from there on */

/* Running number of the next event of a lane: where its open chunk began, and what was committed to it since. */
static uint64_t lane_events(const struct dc_ring *ring, const struct dc_ring_lane *lane)
{
	const struct dc_ring_header *h = &ring->header;
	struct dc_chunk_header chunk;
	struct dc_chunk_entry entry;

	if (lane->chunk >= h->chunk_cap ||
	    dc_ring_pread(ring, &entry, sizeof(entry), h->states_off + lane->chunk * sizeof(entry)) < 0 ||
	    dc_ring_pread(ring, &chunk, sizeof(chunk),
		       h->chunks_off + (uint64_t)lane->chunk * h->chunk_bytes) < 0)
		return 0;
	return chunk.first_event + dc_state_events(entry.state);
}

static int lanes_usage(const struct dc_ring *ring, uint32_t used, struct dc_ring_usage *u)
{
	CLEANUP(free) struct dc_ring_lane *lanes = calloc(used + 1, sizeof(*lanes));
	int r = lanes ? dc_ring_pread(ring, lanes, used * sizeof(*lanes), ring->header.lanes_off) : -ENOMEM;

	for (uint32_t i = 0; r == 0 && i < used; i++) {
		u->events += lane_events(ring, &lanes[i]);
		u->dropped += lanes[i].dropped;
		if (lanes[i].tid && !(lanes[i].flags & (DC_LANE_FREE | DC_LANE_NESTED))) {
			u->lanes++;
			u->open_spans += lanes[i].depth < DEPTH_MOST ? lanes[i].depth : DEPTH_MOST;
		}
	}
	return r;
}

/*
 * Chunks are recycled oldest first, so everything sealed after the oldest sealed one is still there. Until
 * the first chunk has been used a second time nothing is missing at all.
 */
static int chunks_usage(const struct dc_ring *ring, uint64_t now_units, struct dc_ring_usage *u,
			uint64_t *ret_units)
{
	const struct dc_ring_header *h = &ring->header;
	const uint32_t now = (uint32_t)(now_units >> DC_COARSE_SHIFT);
	CLEANUP(free) struct dc_chunk_entry *entries = calloc(u->chunks_grown + 1, sizeof(*entries));
	int r = entries ? dc_ring_pread(ring, entries, u->chunks_grown * sizeof(*entries), h->states_off)
			: -ENOMEM;
	int32_t oldest = 0;

	u->whole = true;
	for (uint32_t i = 0; r == 0 && i < u->chunks_grown; i++) {
		const uint64_t s = entries[i].state;

		if (dc_state_generation(s) > 1)
			u->whole = false;
		if (!(s & DC_CHUNK_OWNED) && dc_state_bytes(s) && (int32_t)(now - entries[i].sealed) > oldest)
			oldest = (int32_t)(now - entries[i].sealed);
	}
	*ret_units = (uint64_t)oldest << DC_COARSE_SHIFT;
	return r;
}

/*
 * A watcher's wish goes before the guest's own setting, as in the guest. The setting in ns is exact from the start;
 * the one in units is 0 until the guest knows its tick rate, and only older recorders tell no other.
 */
static int wanted_window(const struct dc_ring *ring, const struct dc_clock *clock, int64_t *ret_ns)
{
	uint64_t of_watcher = 0, ns = 0, units = 0;
	int r = dc_ring_pread(ring, &of_watcher, sizeof(of_watcher), ring->header.control_off + offsetof(struct dc_ring_control, window_units));

	if (r == 0)
		r = dc_ring_pread(ring, &ns, sizeof(ns), offsetof(struct dc_ring_header, window_ns));
	if (r == 0 && !ns)
		r = dc_ring_pread(ring, &units, sizeof(units), offsetof(struct dc_ring_header, window_units));
	if (r < 0)
		return r;
	if (of_watcher || !ns)
		ns = dc_clock_duration_ns(clock, of_watcher ? of_watcher : units);
	*ret_ns = ns < INT64_MAX ? (int64_t)ns : INT64_MAX;
	return 0;
}

int dc_ring_usage(const struct dc_ring *ring, struct dc_ring_usage *ret_usage)
{
	const struct dc_ring_header *h = &ring->header;
	struct dc_ring_usage u = {.cap_bytes = h->file_bytes, .chunk_cap = h->chunk_cap};
	struct dc_ring_look look = {0};
	struct dc_clock clock;
	struct timespec ts;
	struct stat st;
	uint64_t now = dc_ring_now(ring), units = 0, started = h->started_tick >> h->tick_shift;
	int r = dc_ring_look(ring, &look);

	if (r == 0)
		r = dc_ring_clock(ring, &clock);
	if (r < 0)
		return r;
	u.flags = look.flags;
	u.chunks_grown = look.chunks_grown;
	u.grow_failed = look.grow_failed;
	u.dropped = look.lost_early + look.lost_lanes;
	r = lanes_usage(ring, look.lanes_used, &u);
	if (r == 0)
		r = chunks_usage(ring, now, &u, &units);
	if (r == 0)
		r = wanted_window(ring, &clock, &u.wanted_window_ns);
	if (r == 0 && fstat(ring->fd, &st) < 0)
		r = -errno;
	if (r < 0)
		return r;
	if (u.whole)
		units = now > started ? now - started : 0;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	u.at_ns = ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
	u.memory_bytes = (uint64_t)st.st_blocks * 512;
	u.window_ns = (int64_t)dc_clock_duration_ns(&clock, units);
	*ret_usage = u;
	return 0;
}
