/* SPDX-License-Identifier: MIT */
/*
 * Fatal signals. Where nobody handles one (runtimes use SIGSEGV normally, and keep it), a small handler notes in the ring
 * which thread it hit, its registers and its stack, rings for the watcher, gives it 50 ms at most to look at the other
 * threads while they stand, and lets the process die as it would have died: same signal, same siginfo, same core.
 *
 *   fault of an instruction   disposition back to SIG_DFL and return: it faults again, and the kernel does the rest
 *   sent (kill, abort, raise) the same, and the signal is sent once more with its own siginfo; pending until we return
 *   a fault in here           every signal is blocked, so the kernel kills at once; the slot is not complete, and that is all
 *
 * Eight threads may crash at once: the first takes the slot, the others wait until it is through, so that none of them
 * ends the process before. A child that has not recorded yet starts its ring here. The child of a vfork() has its parent's
 * memory, and records nothing.
 *
 * A handler needs a stack, and after an overflow there is none: every thread that records and has no alternate stack gets
 * one, by its lane. It is larger than we need: handlers of the app with SA_ONSTACK, which had the thread's own stack so far,
 * run there too. Only what is used is memory, and a page that nobody may touch lies below. Kept over fork, where the thread
 * may get another lane, and with it that one's stack. A thread that exits while it stands on its alternate stack (musl
 * cancels threads there) leaves its lane without one.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "ipc/registers.h"
#include "recorder/handler.h"
#include "recorder/recorder.h"

#define WAIT_NS UINT64_C(50000000)
#define KEPT_NS INT64_C(1000000000) /* a crash that the process survived makes room for the next */
#define STACK_ROOM_BYTES (64u << 10)

static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };

static bool watching; /* some signal is ours */
static uint8_t *stacks[DC_LANE_MAX]; /* by lane; NULL: none yet */
static uint64_t stacks_left[DC_LANE_MAX / 64]; /* bit: somebody may still stand on it, nobody gets it again */

/* ---- what is noted ---- */

/* Page by page from @sp to the first that is not there, behind one that is: after an overflow @sp is in the guard page. */
static uint32_t stack_copy(const struct dc_recorder *r, uint8_t *to, uint64_t sp, uint32_t room)
{
	uint32_t end = 0;
	for (uint32_t at = 0, bytes; at < room; at += bytes) {
		bytes = DC_PAGE_BYTES - (uint32_t)((sp + at) % DC_PAGE_BYTES);
		bytes = bytes < room - at ? bytes : room - at;
		if (dc_self_read(r, to + at, sp + at, bytes) == (long)bytes)
			end = at + bytes;
		else if (end)
			break;
	}
	return end;
}

static int64_t monotonic_ns(void)
{
	struct timespec t = { 0 };
	dc_sys(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void fill(struct dc_recorder *r, struct dc_ring_crash *c, const siginfo_t *info, const ucontext_t *u)
{
	c->tid = c->claimed;
	c->signal = info->si_signo;
	c->code = info->si_code;
	c->address = info->si_code > 0 ? (uint64_t)(uintptr_t)info->si_addr : 0;
	c->sender_pid = info->si_code <= 0 ? (uint32_t)info->si_pid : 0;
	c->sender_uid = info->si_code <= 0 ? info->si_uid : 0;
	c->tick = dc_ticks(r);
	c->monotonic_ns = monotonic_ns();
	c->reg_count = dc_context_registers(u, c->regs);
	c->sp = c->regs[DC_REG_SP];
	c->stack_bytes = stack_copy(r, (uint8_t *)(c + 1), c->sp, (uint32_t)(r->header->crash_bytes - sizeof *c));
}

static const char *text_of(int signal)
{
	switch (signal) {
	case SIGSEGV:
		return "SIGSEGV";
	case SIGBUS:
		return "SIGBUS";
	case SIGILL:
		return "SIGILL";
	case SIGFPE:
		return "SIGFPE";
	default:
		return "SIGABRT";
	}
}

/* ---- who and how long ---- */

static bool waits(uint64_t since_units, const struct dc_recorder *r)
{
	dc_sys(SYS_sched_yield);
	return (dc_ticks(r) >> DC_TICK_SHIFT_) - since_units < dc_units_of_ns(r, WAIT_NS);
}

/* Others wait until the one that was first is through. */
static void wait_for_first(const struct dc_recorder *r, const struct dc_ring_crash *c)
{
	const uint64_t since = dc_ticks(r) >> DC_TICK_SHIFT_;
	/* [crash-slot] acquire; what it says is complete */
	while (!__atomic_load_n(&c->seq, __ATOMIC_ACQUIRE) && waits(since, r))
		;
}

/* Nobody there, nobody waited for. */
static void wait_for_watcher(const struct dc_recorder *r, const struct dc_ring_crash *c)
{
	const uint64_t since = dc_ticks(r) >> DC_TICK_SHIFT_;
	const uint32_t seq = (uint32_t)c->seq;
	if (!__atomic_load_n(&r->control->watcher_pid, __ATOMIC_RELAXED)) /* hints from outside, both */
		return;
	while (__atomic_load_n(&r->control->crash_ack, __ATOMIC_RELAXED) != seq && waits(since, r))
		;
}

static bool claim(struct dc_ring_crash *c, uint32_t tid)
{
	uint32_t nobody = 0;
	/* relaxed: elects one; what it writes is published by [crash-slot] */
	if (__atomic_compare_exchange_n(&c->claimed, &nobody, tid, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return true;
	/* [crash-slot] acquire: complete, and so long ago that the process must have survived it */
	return __atomic_load_n(&c->seq, __ATOMIC_ACQUIRE) && monotonic_ns() - c->monotonic_ns > KEPT_NS &&
	       __atomic_compare_exchange_n(&c->claimed, &nobody, tid, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static void note(struct dc_recorder *r, const siginfo_t *info, const ucontext_t *u)
{
	struct dc_ring_crash *c = r->crash;
	uint32_t tid = (uint32_t)dc_sys(SYS_gettid);
	if (!r->header->crash_off || dc_populate(r, c, r->header->crash_bytes))
		return;
	if (!claim(c, tid)) {
		wait_for_first(r, c);
		wait_for_watcher(r, c);
		return;
	}
	uint64_t seq = c->seq + 1;
	__atomic_store_n(&c->seq, 0, __ATOMIC_RELAXED); /* the fence orders it before the fields */
	__atomic_thread_fence(__ATOMIC_RELEASE); /* [crash-slot] zero before the fields */
	fill(r, c, info, u);
	/* [crash-slot] release; pairs with the watcher's pread and with wait_for_first() */
	__atomic_store_n(&c->seq, seq, __ATOMIC_RELEASE);
	__atomic_fetch_or(&r->header->flags, DC_RING_CRASHED, __ATOMIC_RELAXED); /* a hint: the slot itself tells */
	dc_trigger_crash(r, info->si_signo, text_of(info->si_signo));
	wait_for_watcher(r, c);
}

static void on_fatal(int signal, siginfo_t *info, void *context)
{
	dc_slow_enter();
	if (dc_recorder_on() && dc_recorder->pid == (uint32_t)dc_sys(SYS_getpid))
		note(dc_recorder, info, context);
	dc_slow_leave();
	dc_signal_default(signal, info);
}

/* ---- setting up ---- */

void dc_crash_watch(void)
{
	const struct dc_action ours = dc_action_of(on_fatal, SA_SIGINFO | SA_ONSTACK);
	for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++) {
		struct dc_action now;
		if (dc_sys(SYS_rt_sigaction, fatal[i], NULL, &now, sizeof now.mask) < 0)
			continue;
		if (!now.handler) /* SIG_DFL */
			dc_sys(SYS_rt_sigaction, fatal[i], &ours, NULL, sizeof ours.mask);
		watching = watching || !now.handler || now.handler == on_fatal; /* a child has its parent's */
	}
}

static size_t stack_bytes(void)
{
	const int before = errno;
	size_t least = getauxval(AT_MINSIGSTKSZ); /* says by errno that it is not known */
	errno = before;
	return (STACK_ROOM_BYTES + least + DC_PAGE_BYTES - 1) & ~(size_t)(DC_PAGE_BYTES - 1);
}

/* The lane is the caller's, and so is its slot. */
static uint8_t *stack_of(uint32_t lane)
{
	const size_t bytes = stack_bytes(), guard = 16 * DC_PAGE_BYTES; /* a page of any machine */
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
	if (stacks[lane])
		return stacks[lane];
	uint8_t *at = dc_sys_mmap(NULL, guard + bytes, PROT_NONE, flags, -1, 0);
	if (DC_MAP_FAILED(at))
		return NULL;
	if (DC_MAP_FAILED(dc_sys_mmap(at + guard, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0)))
		return NULL; /* out of mappings: what is reserved stays reserved */
	stacks[lane] = at + guard;
	return stacks[lane];
}

/* Whose alternate stack that is, most likely @guess's; NOBODY: not one of ours. */
static uint32_t lane_of(const stack_t *s, uint32_t guess)
{
	if (s->ss_sp == stacks[guess])
		return guess;
	for (uint32_t lane = 0; lane < DC_LANE_MAX; lane++)
		if (s->ss_sp == stacks[lane])
			return lane;
	return DC_LANE_NOBODY;
}

static bool left(uint32_t lane)
{
	/* relaxed: [lane-free] orders it for who takes the lane */
	return __atomic_load_n(&stacks_left[lane / 64], __ATOMIC_RELAXED) >> (lane % 64) & 1;
}

void dc_crash_stack_take(uint32_t lane)
{
	stack_t now;
	if (!watching || left(lane) || dc_pages_locked()) /* mlockall(MCL_FUTURE) would make all of it resident */
		return;
	if (dc_sys(SYS_sigaltstack, NULL, &now) < 0 || now.ss_flags & SS_ONSTACK)
		return;
	if (!(now.ss_flags & SS_DISABLE) && lane_of(&now, lane) == DC_LANE_NOBODY)
		return; /* it has one of its own */
	const stack_t ours = { .ss_sp = stack_of(lane), .ss_size = stack_bytes() };
	if (ours.ss_sp)
		dc_sys(SYS_sigaltstack, &ours, NULL);
}

void dc_crash_stack_leave(uint32_t of)
{
	const stack_t none = { .ss_flags = SS_DISABLE };
	stack_t now;
	if (!watching || dc_sys(SYS_sigaltstack, NULL, &now) < 0 || now.ss_flags & SS_DISABLE)
		return;
	const uint32_t lane = lane_of(&now, of);
	if (lane == DC_LANE_NOBODY)
		return;
	if (now.ss_flags & SS_ONSTACK) /* relaxed: see left() */
		__atomic_fetch_or(&stacks_left[lane / 64], UINT64_C(1) << (lane % 64), __ATOMIC_RELAXED);
	else
		dc_sys(SYS_sigaltstack, &none, NULL);
}
