/* SPDX-License-Identifier: MIT */
/*
 * What /proc says about a process. Facts only, read once; a pid may be somebody else's a moment later, so
 * callers compare the start time before and after. The environment of a process is never read.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* /proc/PID/stat. @exit_status is a wait status; 0 where the kernel does not let us see it. */
struct dc_proc_stat {
	char state;          /* R S D T Z X */
	uint64_t start_time; /* field 22 */
	int exit_status;     /* field 52 */
};
int dc_proc_stat(uint32_t pid, struct dc_proc_stat *ret_stat);

/* Real, effective, saved and file system uid. */
int dc_proc_uids(uint32_t pid, uint32_t ret_uids[static 4]);

/* One short file such as "comm"; always NUL-terminated. Return: bytes read, cut to @size - 1, or -errno. */
ssize_t dc_proc_read(uint32_t pid, const char *file, char *ret_text, size_t size);

/*
 * dc_proc_filters() - seccomp filters of any of its threads; strict mode counts as INT_MAX
 * Looks at the first threads of many. Return: how many, -errno.
 */
int dc_proc_filters(uint32_t pid);

/* The executable's path. */
int dc_proc_exe(uint32_t pid, char *ret_path, size_t size);

/* Inode number of our own pid namespace; 0 when /proc does not show it. */
uint64_t dc_proc_pid_namespace(void);

/*
 * dc_proc_find() - the pid here of a process that calls itself @ns_pid in another pid namespace
 * Found by its start time and the last number of NSpid. Return: pid, 0 when it is not visible from here.
 */
uint32_t dc_proc_find(uint32_t ns_pid, uint64_t start_time, uint64_t pid_namespace);

/* Whether the process maps this file; needs the right to look (/proc/PID/map_files). */
bool dc_proc_maps(uint32_t pid, dev_t dev, ino_t ino);

/* Which boot of this host it is; untouched when /proc does not say. */
void dc_proc_boot_id(uint8_t ret_id[static 16]);
