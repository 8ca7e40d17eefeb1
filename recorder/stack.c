/* SPDX-License-Identifier: MIT */
/*
 * DC_STACK(): return addresses of the calling thread, by frame pointers. A frame pointer is believed only inside the
 * stack we stand on: above the frame before it and below the thread control block (threads) or the top of the main
 * stack. Code without frame pointers ends the walk early: then the stack is copied (stack_copy.c); the first address, our
 * caller, is always there.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "recorder/recorder.h"

#define STACK_MAX_BYTES (64u << 20)

/* glibc and the loader put the main stack's top here; weak, because musl has no such name */
extern void *__libc_stack_end __attribute__((weak));

/* What calls main() and thread functions lies this close (glibc 2.31 to 2.41, musl, static ones); no function that calls back does. */
#define NEAR_BEFORE_BYTES 8192u
#define NEAR_BEHIND_BYTES 1024u
#define OUTER_FRAMES 3u
extern const char __libc_start_main __attribute__((weak));

static uintptr_t main_top(uintptr_t sp)
{
	uintptr_t top = &__libc_stack_end ? (uintptr_t)__libc_stack_end : 0;
	return top > sp && top - sp < STACK_MAX_BYTES ? top : 0;
}

/* An upper bound, of whatever thread that records; not all below it need be there. */
uintptr_t dc_stack_top(const struct dc_thread *t, uintptr_t sp)
{
	uintptr_t tcb = (uintptr_t)__builtin_thread_pointer();
	if (dc_recorder->lanes[t->lane].tid == dc_recorder->pid)
		return main_top(sp);
	return tcb > sp && tcb - sp < STACK_MAX_BYTES ? tcb : 0;
}

#if defined(__GLIBC__)
static bool on_alternate_stack(void)
{
	stack_t now = { .ss_flags = SS_ONSTACK };
	return dc_sys(SYS_sigaltstack, NULL, &now) < 0 || now.ss_flags & SS_ONSTACK;
}

/* The first, whose control block is elsewhere, or one of which nothing is known yet. A handler may fork meanwhile. */
static bool is_first_or_new(const struct dc_thread *t)
{
	dc_slow_enter();
	const struct dc_recorder *r = dc_recorder;
	const bool known = dc_page_is_of(r, &t->fast) && t->fast.line && r->lanes[t->lane].tid != r->pid;
	return dc_slow_leave() || !known;
}

/*
 * glibc places the control block of a thread above its stack, in the same mapping. Whether we stand on that stack is
 * asked of the kernel once for each depth: what lies above a place that was on it is on it too.
 */
static uintptr_t thread_top(uintptr_t sp)
{
	struct dc_thread *t = (struct dc_thread *)dc_thread_self;
	uintptr_t tcb = (uintptr_t)__builtin_thread_pointer();
	if (tcb <= sp || tcb - sp >= STACK_MAX_BYTES || is_first_or_new(t))
		return 0;
	if (!t->stack_seen || sp < t->stack_seen) {
		if (on_alternate_stack())
			return 0;
		t->stack_seen = sp;
	}
	return tcb;
}
#else
static uintptr_t thread_top(uintptr_t sp)
{
	(void)sp;
	return 0;
}
#endif

/* Highest address the walk may read, 0 when this is no stack we know (an alternate signal stack, a coroutine). */
uintptr_t dc_stack_own_top(uintptr_t sp)
{
	uintptr_t top = main_top(sp);
	return top ? top : thread_top(sp);
}

static unsigned walk(const uintptr_t *frame, uint64_t *addresses, unsigned max)
{
	unsigned n = 0;
	uintptr_t top = dc_stack_own_top((uintptr_t)frame);
	while (n < max && top && (uintptr_t)frame % sizeof *frame == 0 && (uintptr_t)frame + 16 <= top) {
		if (frame[1] < DC_PAGE_BYTES)
			break;
		addresses[n++] = frame[1];
		const uintptr_t *next = (const uintptr_t *)frame[0];
		if (next <= frame)
			break;
		frame = next;
	}
	return n;
}

static bool is_near(uint64_t address, uintptr_t function)
{
	return function && address - function + NEAR_BEFORE_BYTES < NEAR_BEFORE_BYTES + NEAR_BEHIND_BYTES;
}

/*
 * Whether the walk got to where main() or a thread's function is called from, which libc has beside what everybody may call;
 * what called that, up to _start or clone, may have been walked, too. Ends elsewhere may be in code that has no frame
 * pointers: there they lead nowhere, or anywhere.
 */
static bool whole(const uint64_t *addresses, unsigned n)
{
	for (unsigned i = n; i && i + OUTER_FRAMES > n; i--)
		if (is_near(addresses[i - 1], (uintptr_t)&__libc_start_main) || is_near(addresses[i - 1], (uintptr_t)pthread_create))
			return true;
	return n == DC_STACK_FRAMES_MAX;
}

static void note(const uint64_t *addresses, unsigned n, uint64_t units)
{
	const struct dc_recorder *r = dc_recorder; /* NULL: a handler forked on top of the event, and this is the child */
	const uint32_t copies = units && r ? r->copies : DC_COPIES_NONE;
	if (copies == DC_COPIES_ALL || (copies == DC_COPIES_AUTO && !whole(addresses, n)))
		dc_stack_copy(units);
}

void dc_stack(struct dc_site *site)
{
	uint64_t addresses[DC_STACK_FRAMES_MAX];
	addresses[0] = (uint64_t)(uintptr_t)__builtin_return_address(0);
	unsigned n = walk(__builtin_frame_address(0), addresses, DC_STACK_FRAMES_MAX);
	note(addresses, n, dc_stack_record(site, addresses, n ? n : 1));
}

void dc_stack_of_site(struct dc_site *site, uint16_t id)
{
	uint64_t addresses[DC_STACK_FRAMES_MAX];
	unsigned n = walk(__builtin_frame_address(0), addresses, DC_STACK_FRAMES_MAX);
	if (n)
		note(addresses, n, dc_stack_put(site, id, addresses, n));
}
