/* SPDX-License-Identifier: MIT */
#include "trigger/perf_event.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/cleanup.h"

int dc_perf_open(enum dc_perf_kind kind, const struct dc_perf_shape *shape, uint32_t tid, uint32_t cpu, int *ret_fd,
		 uint64_t *ret_id)
{
	const pid_t whom = shape->host && kind != DC_PERF_ANCHOR ? -1 : (pid_t)tid;
	struct perf_event_attr attr = {0};
	CLEANUP(close_fd) int fd = -1;
	uint64_t id = 0;
	int r;

	dc_perf_describe(kind, shape, &attr);
	fd = (int)syscall(SYS_perf_event_open, &attr, whom, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = dc_perf_id(fd, &id);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	*ret_id = id;
	return 0;
}

int dc_perf_id(int fd, uint64_t *ret_id)
{
	uint64_t id = 0;

	if (ioctl(fd, PERF_EVENT_IOC_ID, &id) < 0)
		return -errno;
	*ret_id = id;
	return 0;
}

int dc_perf_enable(int fd, bool on)
{
	return ioctl(fd, on ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE, 0) < 0 ? -errno : 0;
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
