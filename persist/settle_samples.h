/* SPDX-License-Identifier: MIT */
/*
 * The samples of a process while its capture settles: put in the order of time, unwound, their stacks and names written
 * behind them. Shared by settle.c and symbolize.c.
 *
 * Each block is read once: checked, listed, and handed to the child that unwinds it while the next one is read. What stays
 * of a sample without its stack is kept until it is written. Bounded however many there are: 48 bytes each for the order, and
 * 64 MiB of what is kept; what is beyond that, or could not be unwound, is read again, batch by batch.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/capture_inside.h"
#include "persist/stacks/intern.h"
#include "persist/writer.h"

/* --- the maps of a process, as resolving wants them --- */

struct dc_stacks;

struct dc_resolve_maps {
	uint32_t count;
	struct dc_map_entry *entries;
	const char **paths; /* of @stacks */
	struct dc_stacks *stacks;
};
/* Return: 0, -ENOMEM, -errno of reading. Numbers that no block has get an empty entry. */
int dc_resolve_maps_init(struct dc_resolve_maps *m, struct dc_capture *c, uint32_t process);
void dc_resolve_maps_fini(struct dc_resolve_maps *m);

/* Was it captured since this kernel was started? Else its addresses mean nothing here. */
bool dc_same_boot(const struct dc_capture *c);

/* True: this process has blocks of @type. */
bool dc_capture_has(const struct dc_capture *c, uint32_t process, uint16_t type);

/*
 * dc_settle_samples() - SAMPLES, STACKS, FRAMES and NAMES of @process into @w
 * @addresses: 8 bytes each: return addresses of its events, to be named, too.
 * Samples that cannot be unwound stay as they are, as all do when the child fails: @result says why. Return: 0, the writer's
 * error, -ENOMEM, -EFBIG: more samples than this takes; -errno of reading.
 */
int dc_settle_samples(struct dc_capture *c, uint32_t process, struct dc_writer *w, const struct dc_resolve_options *options,
		      const struct dc_intern *addresses, struct dc_settle_result *result);
