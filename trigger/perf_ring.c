/* SPDX-License-Identifier: MIT */
#include "trigger/perf_ring.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RECORD_MAX 65536u /* perf_event_header.size has 16 bits */

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

int dc_perf_ring_map(int fd, uint64_t bytes, bool overwritten, struct dc_perf_ring *ret_ring)
{
	const int prot = PROT_READ | (overwritten ? 0 : PROT_WRITE);
	struct dc_perf_ring r = {.bytes = bytes};

	r.bounce = malloc(RECORD_MAX);
	if (!r.bounce)
		return -ENOMEM;
	r.page = mmap(NULL, page_bytes() + r.bytes, prot, MAP_SHARED, fd, 0);
	if (r.page == MAP_FAILED) {
		const int error = errno;

		free(r.bounce);
		return -error;
	}
	*ret_ring = r;
	return 0;
}

void dc_perf_ring_unmap(struct dc_perf_ring *r)
{
	if (r->page)
		munmap(r->page, page_bytes() + r->bytes);
	free(r->bounce);
	*r = (struct dc_perf_ring){0};
}

static const uint8_t *data_of(const struct dc_perf_ring *r)
{
	return (const uint8_t *)r->page + page_bytes();
}

static uint64_t head_of(const struct dc_perf_ring *r)
{
	const struct perf_event_mmap_page *page = r->page;

	/* [perf-ring] acquire; pairs with the kernel's release after a record's bytes (perf_output_put_handle()) */
	return __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE);
}

uint64_t dc_perf_ring_written(const struct dc_perf_ring *r)
{
	return 0 - head_of(r); /* it counts down from 0 */
}

/*
 * The record at @at, of which no more than @room bytes can be. NULL: there is none. Its size is read once: whose events these
 * are may let the ring go on while it is read.
 */
static const struct perf_event_header *record_at(const struct dc_perf_ring *r, uint64_t at, uint64_t room, size_t *ret_bytes)
{
	const uint8_t *data = data_of(r);
	const uint64_t offset = at & (r->bytes - 1), to_end = r->bytes - offset;
	struct perf_event_header h;

	if (room < sizeof(h) || (at & 7) != 0) /* records are multiples of 8, so a header never goes round the end */
		return NULL;
	memcpy(&h, data + offset, sizeof(h));
	if (h.size < sizeof(h) || (h.size & 7) != 0 || h.size > room)
		return NULL;
	*ret_bytes = h.size;
	if (h.size <= to_end)
		return (const struct perf_event_header *)(const void *)(data + offset);
	memcpy(r->bounce, data + offset, to_end);
	memcpy(r->bounce + to_end, data, h.size - to_end);
	memcpy(r->bounce, &h, sizeof(h)); /* the size that was checked */
	return (const struct perf_event_header *)(const void *)r->bounce;
}

bool dc_perf_ring_walk(const struct dc_perf_ring *r, uint64_t since, dc_perf_each *each, void *arg)
{
	const uint64_t head = head_of(r), written = 0 - head;
	const uint64_t wanted = written - since;
	const uint64_t room = wanted < r->bytes ? wanted : r->bytes;
	const struct perf_event_header *h;
	uint64_t seen = 0;
	size_t bytes;

	while (seen < room && (h = record_at(r, head + seen, room - seen, &bytes)) != NULL) {
		if (!each(arg, h, bytes))
			return true;
		seen += bytes;
	}
	return seen == wanted;
}

void dc_perf_ring_read(struct dc_perf_ring *r, dc_perf_each *each, void *arg)
{
	struct perf_event_mmap_page *page = r->page;
	const uint64_t head = head_of(r);
	const struct perf_event_header *h;
	uint64_t tail = page->data_tail; /* only we write it */
	bool more = true;
	size_t bytes;

	if (head - tail > r->bytes)
		tail = head;
	while (more && tail != head && (h = record_at(r, tail, head - tail, &bytes)) != NULL) {
		more = each(arg, h, bytes);
		tail += bytes;
	}
	if (more)
		tail = head; /* also over something that is no record */
	/* [perf-ring] release; pairs with the kernel's reading of it before it writes over these bytes */
	__atomic_store_n(&page->data_tail, tail, __ATOMIC_RELEASE);
}
