/* SPDX-License-Identifier: MIT */
/*
 * Which perf events sample a process, and how each is asked for: by the watcher (trigger/perf_event.h), or, where it may not,
 * by the guest, which hands them over (ipc/handover.h).
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

#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

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
	bool later; /* disabled until somebody enables it */
	bool no_kernel_chain; /* what the kernel did is counted, but not told */
};

/* Registers of ipc/registers.h in the order of the kernel's mask: asm/perf_regs.h. */
static inline uint64_t dc_perf_regs_mask(void)
{
#if defined(__x86_64__)
	return UINT64_C(0x1ff) | UINT64_C(0xff) << 16; /* AX BX CX DX SI DI BP SP IP, R8 to R15 */
#else
	return (UINT64_C(1) << 33) - 1; /* X0 .. X29, LR, SP, PC */
#endif
}

static inline void dc_perf_describe_stacks(const struct dc_perf_shape *shape, struct perf_event_attr *a)
{
	a->sample_type = PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU | PERF_SAMPLE_CALLCHAIN;
	a->exclude_callchain_kernel = shape->no_kernel_chain;
	if (!shape->copy_bytes)
		return;
	a->sample_type |= PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
	a->exclude_callchain_user = 1;
	a->sample_regs_user = dc_perf_regs_mask();
	a->sample_stack_user = shape->copy_bytes < DC_PERF_COPY_MAX ? shape->copy_bytes & ~7u : DC_PERF_COPY_MAX;
}

/* @ret_attr must be zero. */
static inline void dc_perf_describe(enum dc_perf_kind kind, const struct dc_perf_shape *shape, struct perf_event_attr *ret_attr)
{
	struct perf_event_attr *a = ret_attr;

	a->type = PERF_TYPE_SOFTWARE;
	a->size = sizeof(*a);
	a->config = PERF_COUNT_SW_DUMMY;
	a->use_clockid = 1;
	a->clockid = CLOCK_MONOTONIC;
	a->exclude_hv = 1;
	a->exclude_kernel = !shape->kernel;
	a->inherit = !shape->host && kind != DC_PERF_ANCHOR;
	a->write_backward = kind == DC_PERF_ANCHOR ? shape->backward : kind != DC_PERF_CHANGES;
	a->disabled = kind == DC_PERF_ANCHOR || shape->later;
	switch (kind) {
	case DC_PERF_CPU:
		a->config = shape->host ? PERF_COUNT_SW_CPU_CLOCK : PERF_COUNT_SW_TASK_CLOCK;
		a->sample_period = 1000000000 / (shape->hz ? shape->hz : 1);
		a->exclude_idle = 1;
		dc_perf_describe_stacks(shape, a);
		break;
	case DC_PERF_OFF:
		a->config = PERF_COUNT_SW_CONTEXT_SWITCHES;
		a->sample_period = shape->off_period;
		dc_perf_describe_stacks(shape, a);
		break;
	case DC_PERF_SWITCHES:
		a->sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU;
		a->sample_id_all = 1;
		a->context_switch = 1;
		break;
	case DC_PERF_CHANGES:
		a->mmap = 1;
		a->comm = a->comm_exec = a->task = shape->tasks;
		break;
	case DC_PERF_ANCHOR:
		a->watermark = 1;
		a->wakeup_watermark = shape->wakeup_bytes;
		break;
	}
}
