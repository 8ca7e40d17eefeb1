/* SPDX-License-Identifier: MIT */
/*
 * How a process does, as the kernel tells it: CPU, memory, descriptors, threads, faults, throttling, pressure. Facts for
 * rules (rules/evaluate.h) and for `top`; read once a second, and only what somebody asks for.
 */
#pragma once

#include <stdint.h>

#define DC_VITALS_CPU 1u
#define DC_VITALS_MEMORY 2u
#define DC_VITALS_FDS 4u
#define DC_VITALS_THREADS 8u
#define DC_VITALS_FAULTS 16u
#define DC_VITALS_CGROUP 32u /* throttling, OOM */
#define DC_VITALS_PSI 64u /* of its cgroup where it has one of its own, else of the host */
#define DC_VITALS_STATE 128u
#define DC_VITALS_LIMITS 256u /* *_limit */
#define DC_VITALS_WAITING 512u /* d_tid: some threads are looked at each time, in turn */

struct dc_vitals {
	uint32_t known; /* DC_VITALS_* that could be read; of the rest nothing is said */
	int64_t at_ns; /* CLOCK_MONOTONIC */
	uint64_t cpu_ns; /* ever */
	uint64_t rss_bytes;
	uint32_t fds;
	uint32_t threads;
	uint64_t rss_limit_bytes; /* of its cgroup, the tightest around it; 0: none, as of the others */
	uint32_t fds_limit; /* RLIMIT_NOFILE, the soft one */
	uint32_t threads_limit; /* RLIMIT_NPROC, which counts all of its user's, or pids.max of its cgroup */
	uint64_t major_faults; /* ever, of reaped children not */
	uint64_t cgroup_periods; /* cpu.stat nr_periods, nr_throttled */
	uint64_t cgroup_throttled;
	uint64_t cgroup_oom; /* memory.events: oom + oom_kill */
	uint64_t psi_us[3][2]; /* total of cpu, memory, io: some, full */
	char state; /* of the process: R S D T Z */
	uint32_t d_tid; /* a thread in D state; 0: none */
};

struct dc_vitals_source; /* descriptors kept open between looks */

/*
 * dc_vitals_open() - nothing is opened before it is first asked for
 * @start_time: a pid that is somebody else's by now is noticed, at once and later
 * @cgroup_root: where cgroups are mounted; NULL: /sys/fs/cgroup. Borrowed.
 * Return: NULL when there is no memory.
 */
struct dc_vitals_source *dc_vitals_open(uint32_t pid, uint64_t start_time, const char *cgroup_root);
void dc_vitals_close(struct dc_vitals_source *s);
/* @wants: DC_VITALS_*. Return: 0, -ESRCH: gone. */
int dc_vitals_read(struct dc_vitals_source *s, uint32_t wants, int64_t now_ns, struct dc_vitals *ret_vitals);
