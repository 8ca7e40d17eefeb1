/* SPDX-License-Identifier: MIT */
/*
 * Perf events that a process opens for itself and hands to its watcher, where the kernel does not let that one open them
 * (PR_SET_DUMPABLE=0: the rights are asked for at perf_event_open(), never again). So it is sampled as all others are, with
 * context switches and off-CPU stacks, and needs no timers, no signal and no system call for it later.
 *
 *   watcher   one that may not open events for just any process says in the second line of watch.lock what it would like,
 *             and listens at <ring directory>/handover (SOCK_SEQPACKET)
 *   guest     at its start, only if it is not dumpable: opens the events of each of its threads on each CPU, disabled, sends
 *             them, one message a thread and CPU (SCM_RIGHTS), and closes them. Nothing waits; nothing stays open. Threads
 *             that come later inherit. The socket's owner must be root or the guest's own user
 *   watcher   lets them write into rings of its own (PERF_EVENT_IOC_SET_OUTPUT), which outlive the guest, and enables them
 *
 * The period of an event that was inherited cannot be changed, so there is one of off-CPU stacks for each step of
 * dc_handover_shift(); the watcher enables the one that fits, in all threads.
 *
 * SECOND LINE of watch.lock: "handover VERSION HZ COPY_BYTES KERNEL CPUS FILTERS\n", decimal. KERNEL 1: the watcher may
 * see the kernel's frames. FILTERS: seccomp filters that the watcher has itself; a guest with more is closed in, and lets it be.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#include "ipc/perf_attr.h"

#define DC_HANDOVER_SOCKET "handover"
#define DC_HANDOVER_WORD "handover "
#define DC_HANDOVER_VERSION 1u
#define DC_HANDOVER_CPUS_MAX 128u /* beyond, a start would take too long */
#define DC_HANDOVER_THREADS_MAX 32u /* at its start a process has few */

/* So many switches away from the CPU to a stack: 1, 32, 1024, 32768, as powers of two. */
#define DC_HANDOVER_STEPS 4u
static inline uint32_t dc_handover_shift(uint32_t step)
{
	return step * 5;
}

#define DC_HANDOVER_EVENTS (2 + DC_HANDOVER_STEPS)

/* As many descriptors come with it, in this order. */
struct dc_handover {
	uint32_t version;
	uint32_t pid; /* as the sender sees itself: samples say it, too */
	uint32_t first; /* 1: the first message of this process: what it handed over before is void */
	uint16_t cpu;
	uint16_t count;
	struct {
		uint8_t kind; /* enum dc_perf_kind */
		uint8_t shift; /* DC_PERF_OFF: a stack at every 2^shift-th switch */
	} event[DC_HANDOVER_EVENTS];
	uint8_t reserved[4];
};
static_assert(sizeof(struct dc_handover) == 32, "the message");
