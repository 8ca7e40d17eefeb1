/* SPDX-License-Identifier: MIT */
/*
 * The pages of the recorder and of its threads: one mapping, wiped by fork, so that a child finds the state before the
 * first event whatever made it. Which of them a child may use again is decided here.
 */
#include <sys/mman.h>

#include "recorder/recorder.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#define TURNS_SPINNING 4000u
#define THREADS_LOCKED 64u /* under MCL_FUTURE every mapped page is resident at once */

/* dc_recorder.pages_taken */
#define PAGES_INHERITED 0u /* wiped by fork */
#define PAGES_OURS 1u
#define PAGES_LEFT 2u /* others take their place */

struct dc_recorder *dc_recorder;

/* What a child inherits. */
static struct {
	uint32_t threads; /* pages behind the recorder's */
	bool locked; /* MCL_FUTURE */
} kept;

static void *wiped_map(size_t pages)
{
	size_t bytes = pages * DC_PAGE_BYTES;
	void *at = dc_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!DC_MAP_FAILED(at))
		dc_sys(SYS_madvise, at, bytes, MADV_WIPEONFORK);
	return at;
}

/*
 * The recorder's page and those of the threads. A page that is resident without having been touched means
 * mlockall(MCL_FUTURE): then there are few threads and a small ring.
 */
static struct dc_recorder *pages_map(uint32_t *ret_threads, bool *ret_locked)
{
	uint8_t resident = 0;
	uint32_t threads = DC_LANE_MAX;
	void *at = wiped_map(1 + threads);
	if (!DC_MAP_FAILED(at)) {
		dc_sys(SYS_mincore, at, DC_PAGE_BYTES, &resident);
		if (resident & 1) {
			dc_sys(SYS_munmap, (uint8_t *)at + (1 + THREADS_LOCKED) * DC_PAGE_BYTES,
			       (threads - THREADS_LOCKED) * DC_PAGE_BYTES);
			threads = THREADS_LOCKED;
		}
	} else { /* RLIMIT_MEMLOCK or RLIMIT_AS */
		resident = 1;
		threads = THREADS_LOCKED;
		at = wiped_map(1 + threads);
	}
	*ret_threads = threads;
	*ret_locked = resident & 1;
	return DC_MAP_FAILED(at) ? NULL : at;
}

uint32_t dc_pages_threads(void)
{
	return kept.threads;
}

bool dc_pages_locked(void)
{
	return kept.locked;
}

size_t dc_recorder_bytes(void)
{
	return (1 + (size_t)kept.threads) * DC_PAGE_BYTES;
}

/* Fresh pages in the place of @old. NULL: none to be had. */
static struct dc_recorder *pages_new(struct dc_recorder *old)
{
	uint32_t threads;
	bool locked;
	struct dc_recorder *r = pages_map(&threads, &locked);
	if (!r)
		return NULL;
	kept.threads = threads; /* whoever wins the exchange: both saw the same limits */
	kept.locked = locked;
	r->pages_taken = PAGES_OURS;
	/* [recorder-page] release; pairs with the acquire in dc_recorder_page(). The loser's pages go back */
	if (!__atomic_compare_exchange_n(&dc_recorder, &old, r, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		dc_sys(SYS_munmap, r, (1 + (size_t)threads) * DC_PAGE_BYTES);
		r = old;
	}
	return r;
}

void dc_turn(uint32_t i)
{
	if (i < TURNS_SPINNING)
		dc_pause();
	else
		dc_sys(SYS_sched_yield);
}

/*
 * The parent's pages, wiped, in a child of raw clone() that begins (fork() runs fork.c, which keeps them). The thread that
 * cloned is the child's leader. If the leader begins, it forgets its parent's lane and the pages are used again. If another
 * thread does, the leader may still have that lane in dc_thread_self, so its page must not go to anybody: there are others.
 */
static struct dc_recorder *pages_inherit(struct dc_recorder *r)
{
	bool leader = dc_sys(SYS_gettid) == dc_sys(SYS_getpid);
	uint32_t seen = PAGES_INHERITED;
	if (leader)
		dc_thread_forget();
	/* relaxed: elects one; pages that replace these are published by [recorder-page] */
	if (__atomic_compare_exchange_n(&r->pages_taken, &seen, leader ? PAGES_OURS : PAGES_LEFT, false,
					__ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return leader ? r : pages_new(r);
	if (seen == PAGES_OURS)
		return r;
	struct dc_recorder *now = r;
	for (uint32_t i = 0; now == r && i < DC_TURNS; i++) { /* another thread is just mapping them */
		now = __atomic_load_n(&dc_recorder, __ATOMIC_ACQUIRE); /* [recorder-page] acquire */
		dc_turn(i);
	}
	return now != r ? now : NULL;
}

void dc_pages_keep(struct dc_recorder *r)
{
	r->pages_taken = PAGES_OURS;
}

struct dc_recorder *dc_recorder_page(void)
{
	struct dc_recorder *r = __atomic_load_n(&dc_recorder, __ATOMIC_ACQUIRE); /* [recorder-page] acquire */
	if (DC_UNLIKELY_(!r))
		return pages_new(NULL);
	/* relaxed: constant from then on */
	if (DC_LIKELY_(__atomic_load_n(&r->pages_taken, __ATOMIC_RELAXED) == PAGES_OURS))
		return r;
	return pages_inherit(r);
}
