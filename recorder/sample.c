/* SPDX-License-Identifier: MIT */
/*
 * Threads that sample themselves, on request (ipc/samples.h). Nothing of this happens unless a watcher asks, and then only in
 * threads that record: each gives itself a timer of its CPU time when it comes by here, which is when its chunk is full, at
 * its first event, a new site, or, for as long as the watcher says so, with each event of a site. The handler deletes the timer when
 * nobody asks any more; so does a thread that exits.
 *
 *   signal    one real-time signal whose action is the default, from the top: somebody's own is never taken. A process
 *             where all of them are taken (Go, Java with some) is not sampled. That signal from elsewhere does what it
 *             would have done
 *   blocked   a thread that blocks the signal has no timer: it may be waiting for all signals by sigwait()
 *   fork      a child has no timers, and its pages say so; it keeps the handler, which then has nothing to do
 *
 * System calls, on request only: rt_sigaction, rt_sigprocmask, timer_create, timer_settime, process_vm_readv, rt_sigreturn,
 * timer_delete; madvise as always.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "ipc/registers.h"
#include "recorder/handler.h"
#include "recorder/recorder.h"

#define SIGNAL_FIRST 60 /* valgrind and qemu-user keep the last ones */
#define SIGNAL_LAST 36 /* libcs keep the first ones */
#define SIGEV_THREAD_ID_ 4
#define HZ_MAX 1000u
#define ASKED_AHEAD_UNITS (UINT64_C(1) << 36) /* a minute or more: a time beyond is none that a watcher gave */
#define TRY_COARSE 16u /* some 150 ms */

struct event { /* the kernel's sigevent */
	const void *value;
	int32_t signal;
	int32_t notify;
	int32_t tid;
	uint8_t rest[64 - 20];
};

struct period { /* the kernel's itimerspec, 64 bits */
	int64_t interval_s, interval_ns, value_s, value_ns;
};

/* What the control part asks for. 0: nothing. */
static uint32_t wanted_hz(const struct dc_recorder *r, uint64_t now)
{
	uint32_t hz = __atomic_load_n(&r->control->sample_hz, __ATOMIC_RELAXED); /* settings, all three */
	uint64_t until = __atomic_load_n(&r->control->sample_until_units, __ATOMIC_RELAXED);
	if (!hz || until <= now || until - now > ASKED_AHEAD_UNITS)
		return 0;
	return hz < HZ_MAX ? hz : HZ_MAX;
}

static uint32_t wanted_copy(const struct dc_recorder *r)
{
	uint32_t bytes = __atomic_load_n(&r->control->sample_copy_bytes, __ATOMIC_RELAXED);
	return (bytes < DC_SAMPLE_COPY_MAX ? bytes : DC_SAMPLE_COPY_MAX) & ~7u;
}

/* ---- the handler ---- */

static void timer_drop(struct dc_recorder *r, struct dc_thread *t)
{
	uint32_t timer = __atomic_exchange_n(&t->timer, 0, __ATOMIC_RELAXED); /* our handler may be on top of us */
	if (!timer)
		return;
	dc_sys(SYS_timer_delete, timer - 1);
	__atomic_fetch_sub(&r->samples->threads, 1, __ATOMIC_RELAXED); /* for lookers */
}

static long timer_start(const struct dc_thread *t)
{
	const int64_t ns = 1000000000 / t->timer_hz, s = ns / 1000000000;
	const struct period p = { s, ns - s * 1000000000, s, ns - s * 1000000000 };
	return dc_sys(SYS_timer_settime, t->timer - 1, 0, &p, NULL);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void take(struct dc_recorder *r, const struct dc_thread *t, const siginfo_t *info, const ucontext_t *u, uint64_t tick)
{
	uint64_t regs[DC_REGS], at;
	const unsigned count = dc_context_registers(u, regs);
	const uintptr_t sp = regs[DC_REG_SP], top = dc_stack_top(t, sp);
	const uint32_t room = wanted_copy(r), copy = (uint32_t)least(top > sp ? (top - sp) & ~UINT64_C(7) : room, room);
	const uint32_t bytes = dc_ring_sample_bytes(count, copy);
	struct dc_ring_sample *to = dc_sample_reserve(r, bytes, &at);
	if (!to)
		return;
	uint8_t *stack = (uint8_t *)(to + 1) + sizeof regs;
	memcpy(to + 1, regs, sizeof regs);
	const long copied = copy ? dc_self_read(r, stack, sp, copy) : 0;
	const uint32_t got = copied > 0 ? (uint32_t)copied & ~7u : 0;
	memset(stack + got, 0, bytes - sizeof *to - sizeof regs - got); /* of another record */
	const struct dc_ring_sample head = {
		.at = at,
		.tick = tick,
		.bytes = bytes,
		.tid = r->lanes[t->lane].tid,
		.kind = DC_RING_SAMPLE_CPU,
		.reg_count = (uint16_t)count,
		.stack_bytes = got,
		.periods = 1 + (info->si_overrun > 0 ? (uint32_t)info->si_overrun : 0),
		.hz = t->timer_hz,
		.cut = got == room,
	};
	dc_sample_commit(r, to, &head);
}

static void on_timer(const siginfo_t *info, const ucontext_t *u)
{
	struct dc_recorder *r = dc_recorder;
	struct dc_thread *t = (struct dc_thread *)dc_thread_self;
	/* [phase] acquire: a child, or a thread that is leaving, has nothing here */
	if (!r || __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) < DC_PHASE_ON || !t->fast.line || !t->timer)
		return;
	const uint64_t tick = dc_ticks(r);
	const uint32_t hz = wanted_hz(r, tick >> DC_TICK_SHIFT_);
	if (!hz) {
		timer_drop(r, t);
		return;
	}
	if (__atomic_load_n(&r->phase, __ATOMIC_RELAXED) == DC_PHASE_ON) /* not while it is stopped */
		take(r, t, info, u, tick);
	if (hz != t->timer_hz) {
		t->timer_hz = hz;
		timer_start(t);
	}
}

static const char ours; /* what a timer of ours says */

static void on_signal(int signal, siginfo_t *info, void *context)
{
	if (info->si_code == SI_TIMER && info->si_value.sival_ptr == &ours)
		on_timer(info, context);
	else
		dc_signal_default(signal, info);
}

/* ---- who has a timer ---- */

/* One that nobody uses; ours, if another thread, or our parent, was first. 0: none. */
static int signal_choose(void)
{
	const struct dc_action action = dc_action_of(on_signal, SA_SIGINFO | SA_ONSTACK | SA_RESTART);
	for (int n = SIGNAL_FIRST; n >= SIGNAL_LAST; n--) {
		struct dc_action now;
		if (dc_sys(SYS_rt_sigaction, n, NULL, &now, sizeof now.mask) < 0)
			continue;
		if (now.handler == on_signal)
			return n;
		if (!now.handler && dc_sys(SYS_rt_sigaction, n, &action, NULL, sizeof action.mask) == 0)
			return n;
	}
	return 0;
}

static bool blocked(int signal)
{
	uint64_t mask = 0;
	dc_sys(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof mask);
	return mask >> (signal - 1) & 1;
}

/* Return: 0, -EBUSY: no signal, -EPERM: blocked here, -errno: timers are refused. */
static long timer_make(struct dc_recorder *r, struct dc_thread *t, uint32_t hz)
{
	int signal = signal_choose();
	__atomic_store_n(&r->samples->signal, (uint32_t)signal, __ATOMIC_RELAXED); /* for lookers */
	if (!signal)
		return -EBUSY;
	if (blocked(signal))
		return -EPERM;
	struct event event = { .value = &ours, .signal = signal, .notify = SIGEV_THREAD_ID_ };
	event.tid = (int32_t)r->lanes[t->lane].tid;
	int32_t id;
	long err = dc_sys(SYS_timer_create, CLOCK_THREAD_CPUTIME_ID, &event, &id);
	if (err < 0)
		return err;
	t->timer_hz = hz;
	t->timer = (uint32_t)id + 1;
	return timer_start(t);
}

/* For lookers; a thread counts once. */
static void refused(struct dc_recorder *r, struct dc_thread *t, long error)
{
	if (error < 0)
		__atomic_store_n(&r->samples->error, (int32_t)error, __ATOMIC_RELAXED);
	if (t->timer_refused != (error < 0))
		__atomic_fetch_add(&r->samples->refused, error < 0 ? 1u : -1u, __ATOMIC_RELAXED);
	t->timer_refused = error < 0;
}

static void arm(struct dc_recorder *r, struct dc_thread *t, uint32_t hz)
{
	if (!dc_samples_ready(r))
		return; /* its count of lost ones is not there either */
	long err = timer_make(r, t, hz);
	if (!err)
		__atomic_fetch_add(&r->samples->threads, 1, __ATOMIC_RELAXED);
	refused(r, t, err);
}

void dc_sample_look(struct dc_recorder *r, struct dc_thread *t, uint64_t now)
{
	const uint32_t coarse = (uint32_t)(now >> DC_COARSE_SHIFT) | 1;
	if (t->outer) /* a handler on top of an event; the timer is the thread's */
		t = t->outer;
	const uint32_t hz = wanted_hz(r, now);
	if (!hz || t->timer || !r->samples || (t->timer_tried && coarse - t->timer_tried < TRY_COARSE))
		return;
	t->timer_tried = coarse; /* also what keeps a handler on top of us from a second one */
	DC_BARRIER_();
	arm(r, t, hz);
}

/* Nobody asks any more, and has not said so: the next event of the site is a plain one. */
static void notice_over(struct dc_recorder *r, const struct dc_site *site)
{
	uint32_t *word = &r->control->enable[site->id < DC_SITE_MAX ? site->id : 0]; /* a switch: relaxed */
	if (__atomic_load_n(word, __ATOMIC_RELAXED) & DC_ENABLE_NOTICE)
		__atomic_fetch_and(word, ~DC_ENABLE_NOTICE, __ATOMIC_RELAXED);
}

void dc_sample_notice(const struct dc_site *site)
{
	dc_slow_enter();
	struct dc_recorder *r = dc_recorder;
	struct dc_thread *t = (struct dc_thread *)dc_thread_self;
	/* [phase] acquire: sees the maps */
	if (r && __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) == DC_PHASE_ON) {
		uint64_t now = dc_ticks(r) >> DC_TICK_SHIFT_;
		if (!wanted_hz(r, now))
			notice_over(r, site);
		else if (t->fast.line)
			dc_sample_look(r, t, now);
	}
	dc_slow_leave();
}

void dc_sample_leave(struct dc_recorder *r, struct dc_thread *t)
{
	timer_drop(r, t);
	if (t->timer_refused)
		refused(r, t, 0);
	t->timer_tried = 0;
}
