/* SPDX-License-Identifier: MIT */
#include "trigger/perf_event.h"

#include <errno.h>
#include <limits.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/perf_record.h"

static const uint64_t sample_always = PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU;

static void stacks(struct perf_event_attr *a, const struct dc_perf_shape *shape)
{
	a->sample_type = sample_always | PERF_SAMPLE_CALLCHAIN;
	if (!shape->copy_bytes)
		return;
	a->sample_type |= PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
	a->exclude_callchain_user = 1;
	a->sample_regs_user = dc_perf_regs_mask();
	a->sample_stack_user = shape->copy_bytes < DC_PERF_COPY_MAX ? shape->copy_bytes & ~7u : DC_PERF_COPY_MAX;
}

static void describe(enum dc_perf_kind kind, const struct dc_perf_shape *shape, struct perf_event_attr *a)
{
	a->type = PERF_TYPE_SOFTWARE;
	a->size = sizeof(*a);
	a->config = PERF_COUNT_SW_DUMMY;
	a->use_clockid = 1;
	a->clockid = CLOCK_MONOTONIC;
	a->exclude_hv = 1;
	a->exclude_kernel = !shape->kernel;
	a->inherit = !shape->host && kind != DC_PERF_ANCHOR;
	a->write_backward = kind == DC_PERF_ANCHOR ? shape->backward : kind != DC_PERF_CHANGES;
	switch (kind) {
	case DC_PERF_CPU:
		a->config = shape->host ? PERF_COUNT_SW_CPU_CLOCK : PERF_COUNT_SW_TASK_CLOCK;
		a->sample_period = 1000000000 / (shape->hz ? shape->hz : 1);
		a->exclude_idle = 1;
		stacks(a, shape);
		break;
	case DC_PERF_OFF:
		a->config = PERF_COUNT_SW_CONTEXT_SWITCHES;
		a->sample_period = shape->off_period;
		stacks(a, shape);
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
		a->disabled = 1;
		a->watermark = 1;
		a->wakeup_watermark = shape->wakeup_bytes;
		break;
	}
}

int dc_perf_open(enum dc_perf_kind kind, const struct dc_perf_shape *shape, uint32_t tid, uint32_t cpu, int *ret_fd,
		 uint64_t *ret_id)
{
	const pid_t whom = shape->host && kind != DC_PERF_ANCHOR ? -1 : (pid_t)tid;
	struct perf_event_attr attr = {0};
	CLEANUP(close_fd) int fd = -1;
	uint64_t id = 0;

	describe(kind, shape, &attr);
	fd = (int)syscall(SYS_perf_event_open, &attr, whom, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, PERF_EVENT_IOC_ID, &id) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	*ret_id = id;
	return 0;
}

int dc_perf_output(int fd, int anchor)
{
	return ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, anchor) < 0 ? -errno : 0;
}

int dc_perf_pause(int anchor, bool pause)
{
	return ioctl(anchor, PERF_EVENT_IOC_PAUSE_OUTPUT, pause ? 1 : 0) < 0 ? -errno : 0;
}

int dc_perf_paranoid(void)
{
	CLEANUP(fclose) FILE *f = fopen("/proc/sys/kernel/perf_event_paranoid", "re");
	int level;

	return f && fscanf(f, "%d", &level) == 1 ? level : INT_MAX;
}
