/* SPDX-License-Identifier: MIT */
/*
 * perf_event_open(2), and nothing else of perf: which events the sampler needs and how each is asked for.
 *
 *   DC_PERF_CPU       a stack every 1/hz s of CPU time                     ─┐ into the ring of stacks
 *   DC_PERF_OFF       a stack at every n-th switch away from the CPU       ─┘
 *   DC_PERF_SWITCHES  PERF_RECORD_SWITCH of every context switch              into the ring of switches
 *   DC_PERF_CHANGES   new executable mappings, exec, fork                     into the ring that is read
 *   DC_PERF_ANCHOR    nothing at all: it owns a ring, which the others write into (PERF_EVENT_IOC_SET_OUTPUT), so that
 *                     memory is bounded by CPUs, not by processes
 *
 * PERF_SAMPLE_PERIOD is never asked for: a software event with a fixed period that reports it is sampled every time
 * (perf_swevent_event()). What a sample stands for follows from the id of its event instead.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum dc_perf_kind {
	DC_PERF_CPU = 0,
	DC_PERF_OFF = 1,
	DC_PERF_SWITCHES = 2,
	DC_PERF_CHANGES = 3,
	DC_PERF_KINDS = 4,
	DC_PERF_ANCHOR = 4,
};

#define DC_PERF_COPY_MAX (60u << 10) /* a record is shorter than 64 KiB */

struct dc_perf_shape {
	uint32_t hz;
	uint64_t off_period;
	uint32_t copy_bytes; /* of the stack, a multiple of 8; 0: frame pointers */
	bool kernel; /* kernel mode too */
	bool host; /* all processes of a CPU: pid is ignored */
	bool tasks; /* DC_PERF_CHANGES: also who makes whom, and exec */
	bool backward; /* an anchor's ring is overwritten */
	uint32_t wakeup_bytes; /* an anchor's */
};

/*
 * dc_perf_open() - an event of thread @tid (0: the calling one) on @cpu, inherited by threads and children it makes
 * Return: fd and its id, or -errno (ESRCH: no such thread; ENODEV: no such CPU; EACCES, EPERM: refused; EMFILE).
 */
int dc_perf_open(enum dc_perf_kind kind, const struct dc_perf_shape *shape, uint32_t tid, uint32_t cpu, int *ret_fd,
		 uint64_t *ret_id);

/* Let the event write into @anchor's ring. */
int dc_perf_output(int fd, int anchor);
/* Nothing is written into its ring while it is paused. */
int dc_perf_pause(int anchor, bool pause);

/* /proc/sys/kernel/perf_event_paranoid; INT_MAX where there is no such file. */
int dc_perf_paranoid(void);
