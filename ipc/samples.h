/* SPDX-License-Identifier: MIT */
/*
 * The samples part of a ring: stacks that the guest takes of its own threads. Those of DC_STACK() that frame pointers do not
 * lead out of (recorder/stack_copy.c); and where the kernel does not let a watcher sample a process (perf refused in a
 * container, PR_SET_DUMPABLE=0 and nothing handed over: ipc/handover.h), the watcher asks the guest, by the control part, and
 * the guest's threads sample themselves; never else.
 *
 *   watcher   control.sample_hz, _copy_bytes, _until_units (again each second: a watcher that dies asks no more), and for a
 *             moment DC_ENABLE_NOTICE in the words of all sites, so that threads come by that seldom need a chunk
 *   guest     each thread that comes by gives itself a timer of its CPU time. The handler copies registers and a piece of
 *             the stack into this part; when nobody asks any more it deletes its timer
 *
 * Only threads that record can: others never come by. `threads` and `refused` say how many do and how many could not.
 *
 * THE PART is a head and room for records, which go round and are overwritten, oldest first. Records belong to no lane and
 * take no chunks, so samples never cost events.
 *
 *   reserve   a compare-exchange of `written` by the record's size, to the beginning where it would go round the end
 *   write     registers, stack, head; `check` last. No lock: a record that another one, a whole lap later, writes over,
 *             or that was read halfway, does not check and is none
 *   read      at any multiple of 64: @at is what `written` must have been there in the last lap, and the check is right
 *
 * Pages are populated as they are needed, 64 KiB at a time. The part is a sixteenth of the ring's cap.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define DC_SAMPLE_ALIGN 64u
#define DC_SAMPLE_COPY_MAX (16u << 10) /* of a stack, whatever is asked for */
#define DC_SAMPLE_BYTES_MAX (DC_SAMPLE_COPY_MAX + 512u) /* of a record */

/* Written by the guest; hints for readers but for @written, which says which records can be there. */
struct dc_ring_samples {
	uint64_t written; /* running count of bytes; a record's place is what it was % (samples_bytes - this head) */
	uint64_t taken;
	uint64_t lost; /* no page to be had, or no room in time */
	uint32_t threads; /* have a timer */
	uint32_t refused; /* threads that could not: @error says of one of them why */
	int32_t error; /* -errno; -EBUSY: no signal is free for it, -EPERM: the thread blocks it */
	uint32_t signal; /* 0: none chosen yet */
	uint64_t reserved[3];
};

#define DC_RING_SAMPLE_CPU 1u /* its timer fired: @periods of 1/@hz s of CPU time */
#define DC_RING_SAMPLE_STACK 2u /* of a STACK event: @tick >> tick_shift is its time, exactly; no @periods, no @hz */
#define DC_RING_SAMPLE_LAST 2u

struct dc_ring_sample {
	uint64_t at; /* what `written` was */
	uint64_t check; /* dc_ring_sample_check() */
	uint64_t tick; /* raw clock */
	uint32_t bytes; /* of all of it, a multiple of 64 */
	uint32_t tid;
	uint16_t kind; /* DC_RING_SAMPLE_* */
	uint16_t reg_count; /* ipc/registers.h; they follow, then the stack from the stack pointer up */
	uint32_t stack_bytes;
	uint32_t periods;
	uint32_t hz;
	uint32_t cut; /* 1: the stack goes on where the copy ends */
	uint32_t reserved0;
	uint64_t reserved;
};

static_assert(sizeof(struct dc_ring_samples) == 64, "head of the samples is one line");
static_assert(offsetof(struct dc_ring_samples, threads) == 24, "dc_ring_samples.threads");
static_assert(sizeof(struct dc_ring_sample) == 64, "head of a sample is one line");
static_assert(offsetof(struct dc_ring_sample, check) == 8, "dc_ring_sample.check");

/* Bytes of a record with so much in it. */
static inline uint32_t dc_ring_sample_bytes(uint32_t reg_count, uint32_t stack_bytes)
{
	uint32_t bytes = (uint32_t)sizeof(struct dc_ring_sample) + 8 * reg_count + stack_bytes;

	return (bytes + DC_SAMPLE_ALIGN - 1) & ~(DC_SAMPLE_ALIGN - 1);
}

/* Of all words of a record but @check itself: two sums, so that also their order counts. */
static inline uint64_t dc_ring_sample_check(const struct dc_ring_sample *s, uint32_t bytes)
{
	const uint64_t *word = (const uint64_t *)(const void *)s;
	uint64_t sum = DC_SAMPLE_ALIGN, sums = 0;

	for (uint32_t i = 0; i < bytes / 8; i++) {
		sum += i == offsetof(struct dc_ring_sample, check) / 8 ? 0 : word[i];
		sums += sum;
	}
	return sum ^ (sums << 32 | sums >> 32);
}
