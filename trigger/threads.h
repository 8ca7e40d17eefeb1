/* SPDX-License-Identifier: MIT */
/*
 * The stacks of all threads of a process, now: each is stopped by ptrace (seize, interrupt) for as long as it takes to copy
 * its registers and up to 64 KiB of its stack, then let go; one at a time. A thread that does not stop (D state, another
 * tracer) is noted with its state, its wait channel and its system call, which need no stopping. A process that is stopped
 * stays stopped, one that is held by another tracer is left alone.
 *
 * The caller's thread becomes the tracer, so all of it happens in one call.
 */
#pragma once

#include <stdint.h>

#include "persist/writer.h"

#define DC_THREADS_STACK_BYTES (64u << 10)
#define DC_THREADS_MAX 8192u

struct dc_threads_totals {
	uint32_t threads; /* seen */
	uint32_t taken; /* stopped and copied */
	uint32_t refused; /* by a tracer, by rights */
	uint64_t stopped_median_ns; /* how long one was held */
	uint64_t stopped_max_ns;
	uint64_t took_ns;
	char why[96]; /* first thing that did not work, for people; empty: all did */
};

/*
 * dc_threads_write() - SAMPLES blocks with one DC_SAMPLE_THREAD a thread of process @pid, started at @start_time
 * @process: its number in the incident. @budget_ns: wall clock for all of it; threads beyond are noted, not stopped.
 * Only for processes that are verified. Return: 0 (what could not be taken is in @ret_totals); -ESRCH; the writer's error.
 */
int dc_threads_write(uint32_t pid, uint64_t start_time, uint32_t process, int64_t budget_ns, struct dc_writer *w,
		     struct dc_threads_totals *ret_totals);
