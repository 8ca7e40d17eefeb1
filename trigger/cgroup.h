/* SPDX-License-Identifier: MIT */
/*
 * What the control group of a process says: throttling, OOM, pressure. cgroup v2 wherever it has it; throttling and OOM kills
 * of v1 too, where a host still mounts that. Files are opened when they are first asked for and stay open.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_cgroup;

/*
 * dc_cgroup_open() - the group of a process
 * @proc_fd: its directory in /proc
 * @root: where cgroups are mounted: "/sys/fs/cgroup", or a test's own
 * Return: 0, -ENOMEM, -errno of /proc/PID/cgroup.
 */
int dc_cgroup_open(int proc_fd, const char *root, struct dc_cgroup **ret_cgroup);
void dc_cgroup_close(struct dc_cgroup *g);
/* Whether the process is in another one by now. */
bool dc_cgroup_moved(const struct dc_cgroup *g, int proc_fd);
DC_DEFINE_CLEANUP(dc_cgroup, struct dc_cgroup *, dc_cgroup_close)

/* All return 0, or -errno where it has none: no such controller, the group was removed. */
int dc_cgroup_throttling(struct dc_cgroup *g, uint64_t *ret_periods, uint64_t *ret_throttled);
/* OOM, and kills by it. */
int dc_cgroup_oom(struct dc_cgroup *g, uint64_t *ret_count);
/* What it may have at most, itself or the groups it lies in; 0: no bound. Read anew each time: bounds are moved. */
void dc_cgroup_limits(const struct dc_cgroup *g, uint64_t *ret_memory_bytes, uint64_t *ret_pids);
/* Of the group where it has pressure of its own, else of the host. [cpu, memory, io][some, full], µs in all. */
int dc_cgroup_pressure(struct dc_cgroup *g, uint64_t ret_us[3][2]);
