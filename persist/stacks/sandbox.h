/* SPDX-License-Identifier: MIT */
/*
 * Work on hostile files in a child that can do nothing but read, compute and write to its pipe: seccomp (filter.h: no
 * network, no opening for writing, no new processes, no writes but to the pipe), limits of memory and CPU, a time-out. A
 * crash or a time-out there is an errno here.
 *
 *     parent                                child
 *     pipe, fork ─────────────────────────► lets go of what it must not have: descriptors but plain files and directories
 *     poll pipe and pidfd                   opened for reading, writable shared memory, signal handlers
 *       ◄──────── what @work writes ─────── limits, filter, @work
 *     at its end, the time-out, too many bytes: kill, wait
 *
 * Files that it maps may be cut meanwhile: what is gone reads as zeros.
 *
 * What it can still do is read files that the caller may read, so what comes back is not only untrusted but may be anything
 * the caller could read: it belongs in files whose owner may know that.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dc_sandbox {
	int64_t time_ns; /* wall clock, for all of it */
	/*
	 * Of its own beyond what it was born with, by RLIMIT_DATA: RLIMIT_AS would also count the files it maps, which are the
	 * page cache's, and debug info may be larger than all else. 0: no limit. None in sanitized builds: their shadow is data.
	 */
	uint64_t memory_bytes;
	int nice; /* 0..19 */
	int in_fd; /* of the caller, which @work may go on reading although it is no plain file; 0: none */
};

/*
 * dc_sandbox_run() - fork, lock down, run @work in the child with the write end of a pipe; collect what it writes
 * @work: its return, 0 or -errno, becomes ours when it ends by itself. It may use malloc: the parent's other threads do
 * not exist in the child, and glibc makes its heap usable there; locks of ours need pthread_atfork(). @out_fd blocks when
 * the parent is slow, and cannot be closed.
 * @max_bytes: more than that is cut off, the child killed, -E2BIG.
 * Return: 0; @work's error; -ETIMEDOUT; -E2BIG; -EFAULT: it crashed, or asked the kernel for what it must not have
 * (*@ret_signal, when not NULL, says how; SIGSYS is the latter); -EPERM where there is no seccomp; -ENOMEM; -errno of fork
 * and pipe. In every case what was written before is in *@ret_bytes (caller frees; may be NULL with size 0): the sender
 * frames it so that a whole part is of use.
 * Context: any thread. The child is waited for, whatever happens. SIGCHLD must not be ignored.
 */
int dc_sandbox_run(const struct dc_sandbox *limits, int (*work)(void *arg, int out_fd), void *arg, size_t max_bytes,
		   uint8_t **ret_bytes, size_t *ret_size, int *ret_signal);

/*
 * dc_sandbox_before_end() - for @work: @tell is called once when a signal is about to end the child
 * A fault, abort(), a file that was cut by more than can be borne. In the signal's handler, on a stack of its own; then the
 * signal does what it would have done. What it tells goes into the pipe: the parent may start another one without what this
 * one was at. dc_sandbox_saw_cut(): a file was cut, and what was gone read as zeros.
 */
void dc_sandbox_before_end(void (*tell)(void));
bool dc_sandbox_saw_cut(void);

/*
 * The same in parts, for a parent that has something to do meanwhile. Every one that was started has to be ended.
 *
 * dc_sandbox_give() - @size bytes at once into @to_fd, a pipe of the caller that the child reads by limits->in_fd
 * Waits until the pipe takes them, and takes what the child writes meanwhile. @to_fd must not block; that its reader is gone
 * is no SIGPIPE as long as the caller has the read end open, too. Return: 0; -EPIPE: the child has ended, or is to be; -errno.
 * dc_sandbox_cancel() - the child is killed when it is ended.
 * dc_sandbox_end(): as dc_sandbox_run(); or -ECANCELED.
 */
struct dc_sandboxed;

/* @limits: read only now. Return: 0, -ENOMEM, -errno of fork and pipe. */
int dc_sandbox_start(const struct dc_sandbox *limits, int (*work)(void *arg, int out_fd), void *arg, size_t max_bytes,
		     struct dc_sandboxed **ret_sandboxed);
int dc_sandbox_give(struct dc_sandboxed *s, int to_fd, const void *bytes, size_t size);
void dc_sandbox_cancel(struct dc_sandboxed *s);
int dc_sandbox_end(struct dc_sandboxed *s, uint8_t **ret_bytes, size_t *ret_size, int *ret_signal, int64_t *ret_cpu_ns);
