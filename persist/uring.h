/* SPDX-License-Identifier: MIT */
/* liburing, as far as the writer needs it: whole buffers to one file. The only file that knows io_uring. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct dc_uring;

/*
 * @buffers: @count of them, the caller's, until dc_uring_free(). They are registered with the kernel where
 * memlock allows (no page is then looked up or pinned per write); otherwise they are used as they are.
 * Return: 0, or -errno of io_uring_setup: EPERM (seccomp, kernel.io_uring_disabled), ENOSYS, ENOMEM ...
 */
int dc_uring_new(int fd, const struct iovec *buffers, unsigned count, struct dc_uring **ret_uring);

/* Waits for nothing; finish the writes first. */
void dc_uring_free(struct dc_uring *u);

bool dc_uring_registered(const struct dc_uring *u);

/*
 * Start writing the first @bytes of buffer @index; one behind the first @count is used as it is. At most
 * @count may be under way. Return: 0, -errno: nothing was started.
 */
int dc_uring_write(struct dc_uring *u, unsigned index, size_t bytes, uint64_t offset);

/* Whether dc_uring_wait() would return at once. */
bool dc_uring_ready(struct dc_uring *u);

/* Wait for one write to end. *@ret_result: bytes written, maybe fewer than asked for, or -errno. Return: 0, -errno. */
int dc_uring_wait(struct dc_uring *u, unsigned *ret_index, int *ret_result);
