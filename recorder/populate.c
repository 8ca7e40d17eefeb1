/* SPDX-License-Identifier: MIT */
/*
 * Pages of the ring before their first touch. A store to a hole of a full tmpfs is a SIGBUS in the middle of the app;
 * MADV_POPULATE_WRITE (Linux 5.14) says -EFAULT or -ENOMEM instead and also spares the later page fault.
 */
#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "recorder/recorder.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static int populate(const void *at, size_t bytes)
{
	uintptr_t page = getauxval(AT_PAGESZ);
	uintptr_t from = (uintptr_t)at & ~(page - 1);
	uintptr_t to = ((uintptr_t)at + bytes + page - 1) & ~(page - 1);
	long ret = dc_sys(SYS_madvise, from, to - from, MADV_POPULATE_WRITE);
	return ret < 0 ? -ENOSPC : 0;
}

static bool page_known(struct dc_recorder *r, size_t page)
{
	/* relaxed: the bit only says that a system call was made; its effect is visible to every thread */
	return __atomic_load_n(&r->pages[page / 32], __ATOMIC_RELAXED) >> (page % 32) & 1;
}

int dc_populate(struct dc_recorder *r, const void *at, size_t bytes)
{
	size_t first = (size_t)((const uint8_t *)at - r->map) / DC_PAGE_BYTES;
	size_t last = (size_t)((const uint8_t *)at - r->map + bytes - 1) / DC_PAGE_BYTES;
	for (size_t page = first; page <= last; page++) {
		if (page_known(r, page))
			continue;
		int err = populate(r->map + page * DC_PAGE_BYTES, DC_PAGE_BYTES);
		if (err) {
			__atomic_fetch_add(&r->header->grow_failed, 1, __ATOMIC_RELAXED); /* a statistic */
			return err;
		}
		__atomic_fetch_or(&r->pages[page / 32], 1u << (page % 32), __ATOMIC_RELAXED); /* as above */
	}
	return 0;
}

int dc_populate_chunks(struct dc_recorder *r, uint32_t first, uint32_t count)
{
	if (r->allocated)
		return 0;
	int err = dc_populate(r, r->entries + first, count * sizeof *r->entries);
	if (err)
		return err;
	return populate(r->chunks + (size_t)first * r->chunk_bytes, (size_t)count * r->chunk_bytes);
}
