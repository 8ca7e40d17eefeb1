/* SPDX-License-Identifier: MIT */
/*
 * What a child of fork() finds. As a rule zeros: the recorder's and the threads' pages are wiped, so the child's first
 * event takes the slow path and starts a ring of its own; nothing has to run in between.
 *
 * One case needs hands: a signal handler forks on top of an event in flight, and the child goes back to it. That event
 * must find what it works on, or the child crashes. So before such a fork the pages are told to stay, and the child gets
 * plain memory where the ring was: the event ends there, unseen (it is in the parent's ring). What then?
 *
 *   fast path in flight   needs its thread's page only: the child forgets recorder and threads, its next event, even in
 *                         the same handler, makes new ones
 *   slow path in flight   works with the recorder as well: the child records nothing (limbo) until that is over
 *
 * The leader of a child has its parent's lane in dc_thread_self until it forgets it, and that lane's page may be handed
 * to another thread of the child. Raw clone() and _Fork() run no hooks: there the recorder sees to it when it starts
 * (pages.c: pages_inherit()), but such a child must not go back to an event it has interrupted.
 */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "recorder/recorder.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#define MADV_KEEPONFORK 19
#endif

static __thread struct {
	uint32_t slow; /* slow paths this thread is in */
	uint32_t limbo; /* a child, until slow is 0 */
	struct dc_ring_header *header; /* copy of the ring's, between prepare and the end of a fork that keeps */
} here __attribute__((tls_model("initial-exec")));

static void forget(void)
{
	dc_thread_forget();
	__atomic_store_n(&dc_recorder, NULL, __ATOMIC_RELAXED); /* the child has one thread */
}

void dc_slow_enter(void)
{
	here.slow++;
	DC_BARRIER_();
}

bool dc_slow_leave(void)
{
	DC_BARRIER_();
	if (--here.slow || !here.limbo)
		return false;
	here.limbo = 0;
	forget();
	return true;
}

static void before(void)
{
	struct dc_recorder *r = dc_recorder;
	const struct dc_thread_ *f = dc_thread_self;
	if (!r || (!here.slow && (!f->line || !(f->busy & DC_BUSY_))))
		return;
	void *copy = dc_sys_mmap(NULL, DC_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (DC_MAP_FAILED(copy))
		return;
	if (r->header)
		memcpy(copy, r->header, sizeof *r->header);
	dc_sys(SYS_madvise, r, dc_recorder_bytes(), MADV_KEEPONFORK);
	here.header = copy;
}

static void copy_drop(void)
{
	dc_sys(SYS_munmap, here.header, DC_PAGE_BYTES);
	here.header = NULL;
}

static void after_in_parent(void)
{
	if (!here.header)
		return;
	dc_sys(SYS_madvise, dc_recorder, dc_recorder_bytes(), MADV_WIPEONFORK);
	copy_drop();
}

/* Plain memory where the ring was. */
static void ring_stand_in(struct dc_recorder *r)
{
	if (!r->map || DC_MAP_FAILED(dc_sys_mmap(r->map, r->map_bytes, PROT_READ | PROT_WRITE,
						 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)))
		return;
	if (r->header)
		memcpy(r->header, here.header, sizeof *r->header);
}

/*
 * Where fork() has not wiped what it was told to (qemu-user forgets the advice, or another thread's fork was just keeping
 * the pages), by hand. Else the page is zero already.
 */
static void wipe(struct dc_recorder *r)
{
	if (r->phase == DC_PHASE_NONE)
		return;
	if (r->map)
		dc_sys(SYS_munmap, r->map, r->map_bytes);
	dc_sys(SYS_madvise, r, dc_recorder_bytes(), MADV_DONTNEED); /* private and anonymous: zeros from here on */
}

static void after_in_child(void)
{
	struct dc_recorder *r = dc_recorder;
	if (!here.header) {
		if (r) {
			wipe(r);
			dc_pages_keep(r);
		}
		dc_thread_forget();
		return;
	}
	ring_stand_in(r);
	copy_drop();
	here.limbo = here.slow > 0;
	if (here.limbo)
		r->phase = DC_PHASE_STARTING;
	else
		forget();
}

__attribute__((constructor)) static void fork_prepare(void)
{
	pthread_atfork(before, after_in_parent, after_in_child);
}
