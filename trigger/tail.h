/* SPDX-License-Identifier: MIT */
/*
 * What living rings recorded since the last look, decoded: each event once, soon, at a bounded price. Distributions are the
 * watcher's, not the guest's: they are made of this.
 *
 *     lanes     a glance at the table, nothing else of a ring whose threads are idle
 *     states    of lanes that moved: the word of the chunk they are in, or all words where one went on to another chunk
 *     choose    chunks that are new, when all of them would cost more than the budget: a random part, each of its events
 *               then stands for 1 / chance. A chunk that was chosen (or not) remains so until it is recycled
 *     copy      fence(acquire); pread of what was not delivered yet; fence(acquire); state words again: a chunk recycled
 *               meanwhile is dropped and counted, as in snapshot.h
 *     decode    lane by lane, oldest first; names last, so that every id resolves
 *
 * Nothing is delivered twice. What was recycled between two looks is counted. Every byte is hostile: it goes through
 * ipc/decode.h, and every count is bounded by the validated header.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "ipc/decode.h"
#include "trigger/ring.h"

struct dc_tail;

struct dc_tail_totals {
	uint64_t events; /* delivered */
	uint64_t bytes; /* of them */
	uint64_t skipped_chunks; /* by chance, to stay inside the budget */
	uint64_t skipped_events; /* in them, as their state words say */
	uint64_t skipped_bytes;
	uint64_t lost_chunks; /* recycled before or while they were read, or not to be decoded */
	uint64_t cpu_ns; /* of looks at rings that had something new, handlers included */
	bool sampled; /* the last look skipped some, or delivered events that stand for several */
	bool truncated; /* the file got shorter */
};

/*
 * dc_tail_new() - from now on: what was recorded before is not delivered
 * Takes a reference. Return: 0, -ENOMEM, -EINVAL: there is no ring (dc_ring_bare()), -errno of the ring.
 */
int dc_tail_new(struct dc_ring *ring, struct dc_tail **ret_tail);
void dc_tail_free(struct dc_tail *t);
DC_DEFINE_CLEANUP(dc_tail, struct dc_tail *, dc_tail_free)

/*
 * @lane: called for each lane of the table that a thread has, before any event; may be NULL
 * @event: of one lane in its order, one lane after the other; all it points to lasts until the call returns
 */
struct dc_tail_handler {
	void (*lane)(void *arg, uint32_t index, const struct dc_ring_lane *entry);
	void (*event)(void *arg, const struct dc_event *event, double weight);
};
/*
 * dc_tail_look() - deliver what is new
 * @budget_ns: CPU time this look may take, about; 0: none is decoded, all is skipped
 * Return: 0; -ENOMEM, some is then left for the next look; -EBADMSG, -errno when the ring cannot be read.
 */
int dc_tail_look(struct dc_tail *t, int64_t budget_ns, const struct dc_tail_handler *handler, void *arg);

/* dc_tail_lanes() - tell of the lanes only, which is a glance; what they recorded waits for the next look. Return: as above. */
int dc_tail_lanes(struct dc_tail *t, const struct dc_tail_handler *handler, void *arg);
/* Whether a thread went on to another chunk since the last look: until then it is little that waits. */
bool dc_tail_claimed(const struct dc_tail *t);

/*
 * dc_tail_excuse() - in a handler: so much of its time went into what followed from an event, a capture for example
 * That is not the price of events: else the next ones would be taken for too dear, and part of them be left out.
 */
void dc_tail_excuse(struct dc_tail *t, int64_t cpu_ns);

const struct dc_tail_totals *dc_tail_totals(const struct dc_tail *t);
/* Names of sites, as of the last look that delivered events; the next one may replace it. */
const struct dc_schema *dc_tail_schema(const struct dc_tail *t);
