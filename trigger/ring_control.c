/* SPDX-License-Identifier: MIT */
/* The control part of a ring: what a watcher tells the guest. */
#include <errno.h>
#include <stdlib.h>

#include "trigger/ring.h"

#define CONTROL_AT(ring, field) ((ring)->header.control_off + offsetof(struct dc_ring_control, field))

int dc_ring_set_window(const struct dc_ring *ring, uint32_t watcher_pid, uint64_t window_units)
{
	int r = dc_ring_pwrite(ring, &watcher_pid, sizeof(watcher_pid), CONTROL_AT(ring, watcher_pid));

	return r < 0 ? r
		     : dc_ring_pwrite(ring, &window_units, sizeof(window_units), CONTROL_AT(ring, window_units));
}

int dc_ring_set_hold(const struct dc_ring *ring, uint64_t from_units, uint64_t until_units)
{
	const uint64_t hold[2] = {from_units, until_units};

	static_assert(offsetof(struct dc_ring_control, hold_until_units) ==
			      offsetof(struct dc_ring_control, hold_from_units) + 8,
		      "one write sets both");
	return dc_ring_pwrite(ring, hold, sizeof(hold), CONTROL_AT(ring, hold_from_units));
}

int dc_ring_set_enable(const struct dc_ring *ring, uint32_t site, uint32_t word)
{
	if (site >= DC_SITE_MAX)
		return -EINVAL;
	return dc_ring_pwrite(ring, &word, sizeof(word), CONTROL_AT(ring, enable) + site * sizeof(word));
}

int dc_ring_set_threshold(const struct dc_ring *ring, uint32_t site, uint64_t span_units)
{
	const uint64_t word = span_units ? ~span_units : 0;

	if (site >= DC_SITE_MAX)
		return -EINVAL;
	return dc_ring_pwrite(ring, &word, sizeof(word), CONTROL_AT(ring, threshold) + site * sizeof(word));
}

int dc_ring_ack(const struct dc_ring *ring, uint64_t trigger_seq)
{
	const uint32_t low = (uint32_t)trigger_seq;

	return dc_ring_pwrite(ring, &low, sizeof(low), CONTROL_AT(ring, doorbell_ack));
}

int dc_ring_ack_crash(const struct dc_ring *ring, uint64_t crash_seq)
{
	const uint32_t low = (uint32_t)crash_seq;

	return dc_ring_pwrite(ring, &low, sizeof(low), CONTROL_AT(ring, crash_ack));
}

int dc_ring_acked(const struct dc_ring *ring, uint32_t *ret_seq)
{
	return dc_ring_pread(ring, ret_seq, sizeof(*ret_seq), CONTROL_AT(ring, doorbell_ack));
}

int dc_ring_control(const struct dc_ring *ring, struct dc_ring_control **ret_control)
{
	CLEANUP(free) struct dc_ring_control *c = malloc(sizeof(*c));
	int r = c ? dc_ring_pread(ring, c, sizeof(*c), ring->header.control_off) : -ENOMEM;

	if (r == 0)
		*ret_control = TAKE(c);
	return r;
}
