/* SPDX-License-Identifier: MIT */
/*
 * Processes that sample themselves: asking their guests to (ipc/samples.h), what came of it, and their samples as those that
 * the kernel takes look in a capture.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "persist/writer.h"
#include "trigger/ring.h"
#include "trigger/sampler.h"

#define DC_GUEST_COPY_BYTES (8u << 10) /* of a stack, where nobody says */
#define DC_GUEST_ASKED_NS INT64_C(5000000000) /* how long a guest goes on when nobody asks again */

/*
 * dc_guest_closed() - it has put itself under a seccomp filter: the calls that sampling takes may kill it
 * Filters that we live under as well are the container's, and kill nobody. Also true when nothing can be known.
 */
bool dc_guest_closed(const struct dc_ring *ring);

/*
 * dc_guest_ask() - sample yourself from now on, for DC_GUEST_ASKED_NS; @hz 0: no more
 * Return: 0; -EOPNOTSUPP: an older recorder, or a ring too small for samples; -EROFS; -errno.
 */
int dc_guest_ask(const struct dc_ring *ring, uint32_t hz, uint32_t copy_bytes);

/* dc_guest_notice() - let the threads come by with their next event of any site (@on), or no longer. Return: 0, -errno. */
int dc_guest_notice(const struct dc_ring *ring, bool on);

struct dc_guest_state {
	uint32_t hz; /* as asked for; 0: nobody did */
	uint32_t copy_bytes;
	uint32_t live; /* threads that record */
	uint32_t threads; /* of these, with a timer */
	uint32_t refused; /* could not */
	int32_t error; /* why, see ipc/samples.h */
	uint64_t taken;
	uint64_t lost;
};
/* All of it hints. Return: 0, -EOPNOTSUPP as above, -errno. */
int dc_guest_state(const struct dc_ring *ring, struct dc_guest_state *ret_state);

/* dc_guest_mode() - where the kernel does not sample (@mode: of dc_sampler_mode()) but the guest was asked to: that */
void dc_guest_mode(const struct dc_ring *ring, struct dc_sample_mode *mode);

/*
 * dc_guest_write() - SAMPLES blocks of the ring's [@from_units, @to_units], oldest first
 * Return: how many of CPU time there were (0 also where the ring gives nothing); the writer's error, -ENOMEM.
 */
int dc_guest_write(const struct dc_ring *ring, uint32_t process, uint64_t from_units, uint64_t to_units,
		   struct dc_writer *w, struct dc_sampler_totals *ret_totals);
