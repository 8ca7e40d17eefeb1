/* SPDX-License-Identifier: MIT */
/* perf_event_open(2), and nothing else of perf. Which events there are, and how each is asked for: ipc/perf_attr.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/perf_attr.h"

/*
 * dc_perf_open() - an event of thread @tid (0: the calling one) on @cpu, inherited by threads and children it makes
 * Return: fd and its id, or -errno (ESRCH: no such thread; ENODEV: no such CPU; EACCES, EPERM: refused; EMFILE).
 */
int dc_perf_open(enum dc_perf_kind kind, const struct dc_perf_shape *shape, uint32_t tid, uint32_t cpu, int *ret_fd,
		 uint64_t *ret_id);

/* Let the event write into @anchor's ring. */
int dc_perf_output(int fd, int anchor);
/* In all threads that inherited it, too. */
int dc_perf_enable(int fd, bool on);
int dc_perf_id(int fd, uint64_t *ret_id);
/* Nothing is written into its ring while it is paused. */
int dc_perf_pause(int anchor, bool pause);

/* /proc/sys/kernel/perf_event_paranoid; INT_MAX where there is no such file. */
int dc_perf_paranoid(void);
