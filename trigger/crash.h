/* SPDX-License-Identifier: MIT */
/*
 * What the handler in a dying process noted (recorder/crash.c, struct dc_ring_crash), into a capture; and letting that
 * process go, which waits for us for 50 ms at most.
 */
#pragma once

#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/writer.h"
#include "trigger/ring.h"

struct dc_crash {
	struct dc_ring_crash head; /* checked: counts are in range */
	uint8_t *stack; /* head.stack_bytes */
};

/* Return: 0; -ENODATA: there is none; -EAGAIN: being written; -EBADMSG: it lies; -errno. Caller frees by dc_crash_fini(). */
int dc_crash_read(const struct dc_ring *ring, struct dc_crash *ret_crash);
void dc_crash_fini(struct dc_crash *c);

/* dc_crash_write() - a SAMPLES block with it. Return: 1, 0 when there is none, the writer's error, -ENOMEM. */
int dc_crash_write(const struct dc_ring *ring, struct dc_writer *w, uint32_t process);

/* dc_crash_ack() - we have what we want of it. A ring without a crash, or not ours to write: nothing happens. */
void dc_crash_ack(const struct dc_ring *ring);
