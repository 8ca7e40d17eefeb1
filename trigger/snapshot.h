/* SPDX-License-Identifier: MIT */
/*
 * A consistent copy of a ring's window into a capture, while its writers keep writing.
 *
 * Nobody is stopped and no lock is taken. The dense table of state words is read once: that is the moment the
 * snapshot shows. Then the payload goes straight from the page cache into the capture writer's buffers,
 * oldest chunks first since they are recycled first, and after each buffer the state words are read again:
 *
 *     plan      s1 = all state words; fence(acquire); when each was sealed; drop what was sealed before `from`;
 *               order oldest first, owned ones last
 *     batch     fence(acquire); pread of neighbouring chunks in one go, into dc_writer_reserve()
 *               fence(acquire); s2 = state words of the batch
 *     keep      generation(s1) == generation(s2) and bytes(s1) <= bytes(s2): the first bytes(s1) bytes are what was
 *               committed at s1; bytes beyond are zeroed. Otherwise the chunk was recycled meanwhile: discarded, counted
 *     tables    written before (a cut capture has names) and after (every id in a copied chunk resolves)
 *
 * A chunk that was claimed again after the plan holds later events only; a second pass (`after`) finds those:
 * a pass adds the chunks the capture does not have yet and those which have grown since.
 *
 * All numbers are clamped by the validated header, and no more is copied than the file has memory: table
 * entries that lie about holes cannot make a capture larger than the ring.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/writer.h"
#include "trigger/ring.h"

struct dc_snapshot;

struct dc_snapshot_totals {
	uint64_t chunks;           /* in the capture */
	uint64_t events;           /* in those chunks, the window's edges not cut */
	uint64_t bytes;            /* committed ones */
	uint64_t discarded_chunks; /* recycled while they were copied */
	uint64_t took_ns;          /* all passes */
	uint64_t copy_ns;          /* of that, inside pread: the rest is planning, and waiting for the disk */
	bool truncated;            /* the file got shorter while we read it: its owner, or somebody, cut it */
};

/*
 * dc_snapshot_new() - prepare to copy [@from_units, @to_units] of a ring (its own units; 0 and ~0: no bound)
 * @process: number of the process in the incident
 * Takes a reference on @ring. Return: 0, -ENOMEM.
 */
int dc_snapshot_new(struct dc_ring *ring, uint32_t process, uint64_t from_units, uint64_t to_units,
		    struct dc_snapshot **ret_snapshot);
void dc_snapshot_free(struct dc_snapshot *s);
DC_DEFINE_CLEANUP(dc_snapshot, struct dc_snapshot *, dc_snapshot_free)

/*
 * dc_snapshot_pass() - one pass: TABLES (first pass only), CHUNKS ..., TABLES
 * Return: 0; the writer's error; -errno of the ring when nothing of it can be read. A ring truncated on the
 * way is no error: what was copied stays, totals.truncated says so.
 */
int dc_snapshot_pass(struct dc_snapshot *s, struct dc_writer *w);

/*
 * dc_snapshot_loss() - the LOSS block, after the last pass
 *
 * Gaps between the chunks of a lane show in their running numbers and are not repeated here. `overwritten` is what is
 * missing at the left edge: exact when recording began inside the window; else, when a lane's oldest chunk begins
 * after `from`, the lane's own rate carried back to `from`, never more than the events it ever had.
 */
int dc_snapshot_loss(struct dc_snapshot *s, struct dc_writer *w);

/* dc_snapshot_extend() - a later right edge, for passes to come. */
void dc_snapshot_extend(struct dc_snapshot *s, uint64_t to_units);

const struct dc_snapshot_totals *dc_snapshot_totals(const struct dc_snapshot *s);
