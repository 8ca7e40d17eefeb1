/* SPDX-License-Identifier: MIT */
#include "trigger/crash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/registers.h"
#include "ipc/round.h"

static bool in_range(const struct dc_ring *ring, const struct dc_ring_crash *c)
{
	return (c->reg_count == DC_REGS_X86 || c->reg_count == DC_REGS_ARM) &&
	       c->stack_bytes <= ring->header.crash_bytes - sizeof(*c) && c->signal > 0 && c->signal <= 64;
}

int dc_crash_read(const struct dc_ring *ring, struct dc_crash *ret_crash)
{
	const uint64_t at = ring->header.crash_off;
	CLEANUP(free) uint8_t *stack = NULL;
	struct dc_ring_crash c;
	uint64_t again;
	int r;

	if (!at)
		return -ENODATA;
	r = dc_ring_pread(ring, &c, sizeof(c), at);
	if (r < 0)
		return r;
	if (!c.seq)
		return c.claimed ? -EAGAIN : -ENODATA;
	if (!in_range(ring, &c))
		return -EBADMSG;
	stack = malloc(c.stack_bytes + 1);
	if (!stack)
		return -ENOMEM;
	r = dc_ring_pread(ring, stack, c.stack_bytes, at + sizeof(c));
	if (r == 0) /* [crash-slot] acquire: the second look; another crash may have taken the slot meanwhile */
		r = dc_ring_pread(ring, &again, sizeof(again), at + offsetof(struct dc_ring_crash, seq));
	if (r < 0)
		return r;
	if (again != c.seq)
		return -EAGAIN;
	*ret_crash = (struct dc_crash){.head = c, .stack = TAKE(stack)};
	return 0;
}

void dc_crash_fini(struct dc_crash *c)
{
	free(TAKE(c->stack));
}

/* The record of a SAMPLES block. @room: how much stack would have been copied. Caller frees. */
static uint8_t *sample_of(const struct dc_crash *c, uint64_t room, size_t *ret_bytes)
{
	const struct dc_ring_crash *h = &c->head;
	const struct dc_crash_state state = {.signal = h->signal,
					     .code = h->code,
					     .address = h->address,
					     .sender_pid = h->sender_pid,
					     .sender_uid = h->sender_uid};
	const size_t regs = sizeof(struct dc_sample), stack = regs + h->reg_count * sizeof(h->regs[0]),
		     extra = stack + dc_round8(h->stack_bytes), bytes = extra + sizeof(state);
	const struct dc_sample s = {.bytes = (uint32_t)bytes,
				    .kind = DC_SAMPLE_CRASH,
				    .flags = h->stack_bytes < room ? 0 : DC_SAMPLE_STACK_CUT,
				    .tid = h->tid,
				    .cpu = UINT32_MAX,
				    .monotonic_ns = h->monotonic_ns,
				    .stack_bytes = h->stack_bytes,
				    .reg_count = (uint16_t)h->reg_count,
				    .extra_bytes = sizeof(state)};
	uint8_t *to = calloc(1, bytes);

	if (!to)
		return NULL;
	memcpy(to, &s, sizeof(s));
	memcpy(to + regs, h->regs, stack - regs);
	memcpy(to + stack, c->stack, h->stack_bytes);
	memcpy(to + extra, &state, sizeof(state));
	*ret_bytes = bytes;
	return to;
}

int dc_crash_write(const struct dc_ring *ring, struct dc_writer *w, uint32_t process)
{
	CLEANUP(free) uint8_t *sample = NULL;
	struct dc_crash c;
	size_t bytes;
	int r = dc_crash_read(ring, &c);

	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return 0; /* none that can be used; the ring's events are what there is */
	sample = sample_of(&c, ring->header.crash_bytes - sizeof(c.head), &bytes);
	dc_crash_fini(&c);
	if (!sample)
		return -ENOMEM;
	r = dc_writer_block(w, DC_BLOCK_SAMPLES, process, sample, bytes);
	return r < 0 ? r : 1;
}

void dc_crash_ack(const struct dc_ring *ring)
{
	struct dc_crash c;

	if (dc_crash_read(ring, &c) < 0)
		return;
	dc_ring_ack_crash(ring, c.head.seq);
	dc_crash_fini(&c);
}
