/* SPDX-License-Identifier: MIT */
/*
 * A file written front to back through a few large buffers: while the disk takes some, the caller fills the next.
 *
 *     fill ──► send ──► (waiting) ──► in flight ──► (done) ──► fill ...
 *
 * As many are in flight as there are buffers. Only who is in a hurry gets more of them, mapped when needed
 * and given back when written: what they hold waits its turn.
 *
 * By io_uring on an O_DIRECT file where both are to be had, by pwrite otherwise, with the same bytes in the
 * file. What the kernel leaves half-done (short writes, EINTR) is finished by pwrite; an O_DIRECT that turns
 * out not to work is switched off. The first real error sticks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dc_output;

#define DC_OUTPUT_BUFFER_BYTES (1u << 20)

#define DC_OUTPUT_DIRECT 1u /* try O_DIRECT; every size sent is then a multiple of 4096 */
#define DC_OUTPUT_URING 2u  /* try io_uring */

/* @fd: the caller's, empty, open for writing. @count: buffers, at least 2. Return: 0, -ENOMEM. */
int dc_output_new(int fd, uint32_t flags, unsigned count, struct dc_output **ret_output);
/* Waits for what is in flight, whatever its result. */
void dc_output_free(struct dc_output *o);

/* About so many bytes will follow: room for them is made at once. A hint, whatever comes of it. */
void dc_output_expect(struct dc_output *o, uint64_t bytes);

/*
 * dc_output_hurry() - from now on do not let the caller wait for the disk, as long as there is memory
 * At most DC_OUTPUT_SPARE_MAX further buffers, and no more than a quarter of what the host has available.
 */
#define DC_OUTPUT_SPARE_MAX 256u
void dc_output_hurry(struct dc_output *o, bool hurry);

/* The buffer to fill, page-aligned; waits when none is free. The same one until it is sent. NULL: see error. */
void *dc_output_buffer(struct dc_output *o);
/* Append the first @bytes of it to the file. Return: 0, or the first error. */
int dc_output_send(struct dc_output *o, size_t bytes);
/* Wait for everything and give the file its final size (not yet fsync'ed). Return: 0, or the first error. */
int dc_output_drain(struct dc_output *o);

int dc_output_error(const struct dc_output *o);
uint64_t dc_output_bytes(const struct dc_output *o); /* sent so far */
const char *dc_output_method(const struct dc_output *o);
