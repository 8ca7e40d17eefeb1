/* SPDX-License-Identifier: MIT */
/*
 * The stacks of all threads of a process, now: each is stopped by ptrace (seize, interrupt) for as long as it takes to copy
 * its registers and up to 64 KiB of its stack, then let go; one at a time. What it waits in (state, wait channel, system
 * call) is read before, while it still waits there.
 *
 *     list ──► for each: /proc ──► seize, interrupt ──► stopped ──► registers, stack ──► detach ──► SAMPLES
 *                                       │ not yet (D state): looked at again after each of the others
 *                                       └─ refused: another tracer, no rights: noted
 *
 * What the threads notice of it: nothing but the time. Signals that come meanwhile are passed on. A process that is stopped
 * stays stopped. System calls go on: most the kernel restarts by itself, with what is left of their time-outs. A few waits
 * (epoll_wait, sigtimedwait, semop, io_uring_enter, sockets with a time-out of theirs) it would end with EINTR; on x86-64 those are
 * made to restart too, unless a signal handler runs, with their whole time-out. On aarch64 these see EINTR, as they would
 * from SIGSTOP and SIGCONT.
 *
 * A tracer is a thread: all happens in one made for this call, and whatever is still seized when it ends the kernel lets go.
 * Waiting for children in other threads of the caller may show stops of a traced child: WIFSTOPPED is to be ignored there.
 */
#pragma once

#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/writer.h"

#define DC_THREADS_STACK_BYTES (64u << 10)
#define DC_THREADS_MAX 8192u

struct dc_threads_totals {
	uint32_t threads; /* seen */
	uint32_t taken; /* stopped and copied */
	uint32_t refused; /* by a tracer, by rights */
	uint64_t stopped_median_ns; /* how long one was held, from the request to stop until it was let go */
	uint64_t stopped_max_ns;
	uint64_t took_ns;
	char why[96]; /* first thing that did not work, for people; empty: all did */
};

/* How many threads a process has, about; 0: it is gone. */
uint32_t dc_threads_count(uint32_t pid);

/*
 * dc_threads_write() - SAMPLES blocks with one DC_SAMPLE_THREAD a thread of process @pid, started at @start_time
 * @process: its number in the incident. @budget_ns: wall clock for all of it; threads beyond are noted, not stopped.
 * Thread ids are those the process itself uses (its pid namespace). Only for processes that are verified.
 * Return: 0 (what could not be taken is in @ret_totals); -ESRCH; the writer's error; -errno of the thread made for it.
 */
int dc_threads_write(uint32_t pid, uint64_t start_time, uint32_t process, int64_t budget_ns, struct dc_writer *w,
		     struct dc_threads_totals *ret_totals);

/*
 * The same in two steps, for who has no file yet and somebody who waits: of a process that dies.
 *
 * dc_threads_take() - into memory, at most DC_THREADS_KEPT_BYTES; what has no room there is noted as if it was out of time
 * dc_threads_put() - what was taken, as often as it takes to have it in a file. Return: 0, the writer's error.
 */
struct dc_threads;

#define DC_THREADS_KEPT_BYTES (32u << 20)

int dc_threads_take(uint32_t pid, uint64_t start_time, int64_t budget_ns, struct dc_threads **ret_threads,
		    struct dc_threads_totals *ret_totals);
int dc_threads_put(const struct dc_threads *threads, uint32_t process, struct dc_writer *w);
void dc_threads_free(struct dc_threads *threads);
DC_DEFINE_CLEANUP(dc_threads, struct dc_threads *, dc_threads_free)
