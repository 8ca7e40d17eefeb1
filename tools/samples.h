/* SPDX-License-Identifier: MIT */
/*
 * The samples of a capture, counted: how much CPU time each stack stands for, how long threads were off the CPU and where.
 *
 * On the CPU: a sample stands for its weight_ns. Off it: the switches say for how long each thread was off in all, and that
 * is shared out among its sampled stacks by how long each of them was off. Where switches are missing there are no times.
 */
#pragma once

#include "persist/stacks/stacks.h"

/* One stack of one thread. */
struct tally {
	uint32_t stack;
	uint32_t tid;
	uint64_t cpu_samples;
	uint64_t cpu_ns;
	uint64_t off_samples;
	uint64_t off_ns;     /* its share of the thread's */
	uint64_t off_max_ns; /* longest one seen */
};

/* One thread. */
struct thread_tally {
	uint32_t tid;
	uint64_t cpu_samples;
	uint64_t cpu_ns; /* by samples */
	uint64_t off_ns; /* by switches: all of them */
	uint64_t switches;
	uint64_t preempted;
	uint64_t off_max_ns;
	/* of the trigger */
	bool stopped_here; /* there is a DC_SAMPLE_THREAD of it */
	struct dc_thread_state state;
	uint32_t stack;
	bool crashed;
	struct dc_crash_state crash;
	uint32_t crash_stack;
	int64_t out_ns; /* while counting: off since then, 0: on */
	char name[16];
};

struct samples {
	struct tally *tallies; /* by CPU time, most first */
	uint32_t count;
	struct thread_tally *threads; /* by tid */
	uint32_t thread_count;
	uint64_t cpu_samples, cpu_ns;
	uint64_t off_samples;
	uint64_t unresolved; /* samples without a stack number: the capture is raw, or they could not be unwound */
	bool switches; /* there are some */
};

/* Return: 0, -ENOMEM, -errno of reading. */
int samples_count(struct dc_capture *c, struct dc_stacks *s, unsigned process, const struct dc_cut *cut, struct samples *ret);
void samples_fini(struct samples *s);
const struct thread_tally *samples_thread(const struct samples *s, uint32_t tid); /* NULL: not seen */
