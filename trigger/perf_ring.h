/* SPDX-License-Identifier: MIT */
/*
 * One mapped ring of perf records (perf_event_mmap_page and data behind it), of either kind:
 *
 *   overwritten   mapped PROT_READ by an event with write_backward. The kernel writes each record in front of the one
 *                 before and lowers data_head, so what lies from data_head up is newest first, until records are met whose
 *                 rest is overwritten: at the latest one ring's size above data_head.
 *                 Nobody reads it until dc_perf_ring_walk(), between dc_perf_pause(true) and (false).
 *   read          mapped for writing; records from data_tail to data_head, oldest first; what finds it full is counted by a
 *                 PERF_RECORD_LOST.
 *
 * Only the kernel writes here; sizes are checked all the same, since an overwritten end looks like anything. What it writes
 * may be what a process wishes, and when (trigger/handover.h): each byte is read once, or as one that may be another by then.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct perf_event_header;

struct dc_perf_ring {
	void *page; /* NULL: not mapped */
	uint64_t bytes; /* of data, a power of two */
	uint8_t *bounce; /* a record that goes round the end, in one piece */
};

/*
 * dc_perf_ring_map() - map the ring of event @fd
 * @bytes: a power of two, at least a page. Return: 0; -EPERM: beyond what may be locked; -ENOMEM; -errno.
 */
int dc_perf_ring_map(int fd, uint64_t bytes, bool overwritten, struct dc_perf_ring *ret_ring);
void dc_perf_ring_unmap(struct dc_perf_ring *r);

/* Bytes ever written into an overwritten ring. */
uint64_t dc_perf_ring_written(const struct dc_perf_ring *r);

/* @bytes of them, header included. Return: false: enough. */
typedef bool dc_perf_each(void *arg, const struct perf_event_header *record, size_t bytes);

/*
 * dc_perf_ring_walk() - the records of an overwritten ring, newest first
 * @since: of dc_perf_ring_written(): only what was written after; 0: all that is left.
 * Return: true when all since then was seen (or @each had enough), false when older ones are overwritten.
 */
bool dc_perf_ring_walk(const struct dc_perf_ring *r, uint64_t since, dc_perf_each *each, void *arg);

/* dc_perf_ring_read() - take what waits in a ring that is read, oldest first. */
void dc_perf_ring_read(struct dc_perf_ring *r, dc_perf_each *each, void *arg);
