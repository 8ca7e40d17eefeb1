/* SPDX-License-Identifier: MIT */
/*
 * What living rings recorded since the last look, decoded: each event once, soon, at a bounded price. Distributions are the
 * watcher's, not the guest's: they are made of this.
 *
 * A look reads the lane table; of lanes that moved, the state words and then the committed bytes that were not read yet
 * (acquire, payload, acquire, as a snapshot does: a chunk recycled meanwhile is dropped and counted). All looks together may
 * take @budget of one core: beyond it only a random part of the new chunks is decoded, events carry a weight, and the rates
 * made of them are marked sampled. Nothing is decoded twice; what was missed is counted.
 *
 * Every byte is hostile: it goes through ipc/decode.h, and is bounded by the validated header.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/decode.h"
#include "trigger/ring.h"

struct dc_tail;

struct dc_tail_totals {
	uint64_t events; /* delivered */
	uint64_t skipped_chunks; /* by chance, to stay inside the budget */
	uint64_t lost_chunks; /* recycled before or while they were read, or not to be decoded */
	bool sampled; /* the last look skipped some */
};

/* From now on: what was recorded before is not delivered. Takes a reference. Return: 0, -ENOMEM, -errno of the ring. */
int dc_tail_new(struct dc_ring *ring, struct dc_tail **ret_tail);
void dc_tail_free(struct dc_tail *t);

/*
 * dc_tail_look() - deliver what is new
 * @budget_ns: CPU time this look may take, about; 0: none is decoded, all is skipped
 * @lane: called for each lane of the table that a thread has, before its events; may be NULL
 * Return: 0, -errno when the ring cannot be read.
 */
struct dc_tail_handler {
	void (*lane)(void *arg, uint32_t index, const struct dc_ring_lane *entry);
	void (*event)(void *arg, const struct dc_event *event, double weight);
};
int dc_tail_look(struct dc_tail *t, int64_t budget_ns, const struct dc_tail_handler *handler, void *arg);

const struct dc_tail_totals *dc_tail_totals(const struct dc_tail *t);
/* Names of sites, as of the last look. */
const struct dc_schema *dc_tail_schema(const struct dc_tail *t);
