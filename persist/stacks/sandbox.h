/* SPDX-License-Identifier: MIT */
/*
 * Work on hostile files in a child that can do nothing but read, compute and write to its pipe: seccomp (no network, no
 * opening for writing, no new processes, no writes but to the pipe), limits of memory and CPU, a time-out. A crash or a
 * time-out there is an errno here.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct dc_sandbox {
	int64_t time_ns; /* wall clock, for all of it */
	uint64_t memory_bytes;
	int nice; /* 0..19 */
};

/*
 * dc_sandbox_run() - fork, lock down, run @work in the child with the write end of a pipe; collect what it writes
 * @work: its return, 0 or -errno, becomes ours when it ends by itself. It may use malloc: the parent's other threads do
 * not exist in the child, and glibc makes its heap usable there.
 * @max_bytes: more than that is cut off, the child killed, -E2BIG.
 * Return: 0; @work's error; -ETIMEDOUT; -ENOMEM; -EFAULT: it crashed (*@ret_signal, when not NULL, says how); -errno of
 * fork. In every case what was written before is in *@ret_bytes (caller frees; may be NULL with size 0): the sender
 * frames it so that a whole part is of use.
 */
int dc_sandbox_run(const struct dc_sandbox *limits, int (*work)(void *arg, int out_fd), void *arg, size_t max_bytes,
		   uint8_t **ret_bytes, size_t *ret_size, int *ret_signal);
