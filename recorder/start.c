/* SPDX-License-Identifier: MIT */
/*
 * Starting to record: from nothing to a ring that readers accept, in well under 100 µs, with raw system calls only, in
 * any context. Whatever goes wrong undoes itself and leaves recording off; the app never notices more than an errno.
 *
 *   place.c      where the ring goes, and how large it may be
 *   ring.c       the file: made, locked, mapped, filled in
 *   switches.c   the words that sites ask before they record
 *   pages.c      the memory all of this is kept in, over forks
 *   handover.c   where a watcher may not sample us
 *
 * Here: who starts, who waits meanwhile, and when it is over.
 *
 * Signals are blocked from the election of the starter to its end: a handler that leaves by siglongjmp() would take the
 * starter away with half a ring, and nobody would ever start again; a slow one would keep all other threads waiting.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "recorder/recorder.h"
#include "recorder/text.h"

uint8_t dc_image;

static int prepared(struct dc_making *m)
{
	struct dc_recorder *r = m->r;
	int err = dc_place_open(&m->place, m->settings.dir);
	if (err)
		return err;
	if (!dc_place_nearly_empty(&m->place, m->settings.memory_bytes))
		dc_sweep(m->place.fd, m->place.uid);
	if ((err = dc_ring_make(m)))
		return err;
	dc_switches_restore(r);
	if (m->settings.doorbell) {
		size_t at = dc_text_put(r->doorbell, sizeof r->doorbell, 0, m->place.dir);
		dc_text_put(r->doorbell, sizeof r->doorbell, at, "/doorbell");
	}
	return 0;
}

static int start_now(struct dc_recorder *r, const struct dc_opts *opts)
{
	static struct dc_making m; /* one at a time; too large for the stack of a signal handler */
	memset(&m, 0, sizeof m);
	m.r = r;
	m.place.fd = m.fd = -1;
	dc_image = dc_image == 255 ? 1 : dc_image + 1;
	dc_switches_save();
	dc_settings_read(opts, &m.settings);
	if (m.settings.off) {
		dc_switches_off();
		return -EPERM;
	}
	m.place.uid = (uint32_t)dc_sys(SYS_geteuid);
	m.clock = dc_clock_usable(); /* before anything asks for the time */
	r->slow_clock = m.clock == DC_CLOCK_MONOTONIC;
	m.self = dc_self();
	r->pid = m.self.pid;
	int err = prepared(&m);
	if (err) {
		dc_ring_undo(&m);
		dc_switches_off();
	} else {
		dc_sys(SYS_close, m.fd);
		if (m.settings.crash)
			dc_crash_watch();
		dc_handover(&m);
	}
	if (m.place.fd >= 0)
		dc_sys(SYS_close, m.place.fd);
	return err;
}

/* ---- phases ---- */

/* Counts from before there was a header go there, whoever comes first. */
static void lost_early_move(struct dc_recorder *r)
{
	/* [lost-early] acquire and release, in one order with the phase: no count is left behind */
	uint64_t n = __atomic_exchange_n(&r->lost_early, 0, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&r->header->lost_early, n, __ATOMIC_RELAXED); /* a count */
}

/* An event of a thread that has no writer yet, while another starts or in a handler on top of its own first event. */
void dc_lost_early(struct dc_recorder *r)
{
	__atomic_fetch_add(&r->lost_early, 1, __ATOMIC_SEQ_CST); /* [lost-early] first the count, then the phase */
	uint32_t phase = __atomic_load_n(&r->phase, __ATOMIC_SEQ_CST); /* [phase] acquire */
	if (phase == DC_PHASE_ON || phase == DC_PHASE_STOPPED)
		lost_early_move(r);
}

void dc_missed(void)
{
	struct dc_recorder *r = dc_recorder;
	/* relaxed: `on` by now is as good as still starting */
	uint32_t phase = r ? __atomic_load_n(&r->phase, __ATOMIC_RELAXED) : DC_PHASE_OFF;
	if (phase == DC_PHASE_STARTING || phase == DC_PHASE_ON)
		dc_lost_early(r);
}

/*
 * First events of other threads while one thread starts: they would be lost, and with them the spans that stay open
 * longest. So they wait, bounded by turns (the clock may be forbidden here), and let a starter that lost its CPU have
 * theirs. A handler on top of the starter never waits.
 */
static __thread uint32_t starting_here __attribute__((tls_model("initial-exec")));

static uint32_t start_wait(const struct dc_recorder *r)
{
	uint32_t phase = DC_PHASE_STARTING;
	for (uint32_t i = 0; phase == DC_PHASE_STARTING && i < DC_TURNS && !starting_here; i++) {
		dc_turn(i);
		phase = __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE); /* [phase] acquire */
	}
	return phase;
}

/*
 * The kernel's mask, not libc's: glibc hides two signals of its own from sigprocmask(), and asynchronous cancellation is
 * one of them. Those that our own instructions raise stay: blocked, they would kill. A sandbox may answer a system call
 * of ours by SIGSYS.
 */
#define SIGNAL(n) (UINT64_C(1) << ((n) - 1))
#define SIGNALS_OWN                                                                                                    \
	(SIGNAL(SIGILL) | SIGNAL(SIGTRAP) | SIGNAL(SIGBUS) | SIGNAL(SIGFPE) | SIGNAL(SIGSEGV) | SIGNAL(SIGSYS))

static uint64_t signals_block(void)
{
	uint64_t all = ~SIGNALS_OWN, before = 0;
	dc_sys(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, sizeof all);
	return before;
}

static void signals_restore(uint64_t before)
{
	dc_sys(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
}

static int start_elected(struct dc_recorder *r, const struct dc_opts *opts)
{
	int err = start_now(r, opts);
	dc_control_off = err ? DC_ENABLE_OFF | DC_ENABLE_STOPPED : DC_ODD_;
	if (!err) /* [ring-magic] release; pairs with the reader's pread: who sees it sees a whole header */
		__atomic_store_n(&r->header->magic, DC_RING_MAGIC, __ATOMIC_RELEASE);
	/* [phase] release; pairs with the acquire in dc_recorder_on() and dc_enter_slow() */
	__atomic_store_n(&r->phase, err ? DC_PHASE_OFF : DC_PHASE_ON, __ATOMIC_SEQ_CST);
	if (!err)
		lost_early_move(r);
	return err;
}

static int start_from(struct dc_recorder *r, uint32_t phase, const struct dc_opts *opts)
{
	int err = -EALREADY;
	uint64_t signals = signals_block();
	uint32_t outer = starting_here;
	starting_here = 1; /* first, so that no handler of a signal of our own making waits for us */
	DC_BARRIER_();
	if (__atomic_compare_exchange_n(&r->phase, &phase, DC_PHASE_STARTING, false, __ATOMIC_ACQUIRE,
					__ATOMIC_RELAXED)) /* [phase] acquire; elects one */
		err = start_elected(r, opts);
	DC_BARRIER_();
	starting_here = outer;
	signals_restore(signals);
	return err;
}

bool dc_recorder_on(void)
{
	struct dc_recorder *r = dc_recorder_page();
	if (!r)
		return false;
	uint32_t phase = __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE); /* [phase] acquire */
	if (DC_LIKELY_(phase == DC_PHASE_ON))
		return true;
	if (phase == DC_PHASE_NONE && start_from(r, phase, NULL) == 0)
		return true;
	return start_wait(r) == DC_PHASE_ON;
}

static int start_again(struct dc_recorder *r)
{
	dc_switches_stop(r, false);
	__atomic_fetch_and(&r->header->flags, ~DC_RING_STOPPED, __ATOMIC_RELAXED); /* a hint for readers */
	/* [phase] release; pairs with the acquire in dc_recorder_on() */
	__atomic_store_n(&r->phase, DC_PHASE_ON, __ATOMIC_RELEASE);
	return 0;
}

int dc_start(const struct dc_opts *opts)
{
	if (opts && opts->size != sizeof *opts)
		return -EINVAL;
	struct dc_recorder *r = dc_recorder_page();
	if (!r)
		return -ENOMEM;
	uint32_t phase = __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE); /* [phase] acquire */
	switch (phase) {
	case DC_PHASE_NONE:
	case DC_PHASE_OFF:
		return start_from(r, phase, opts);
	case DC_PHASE_STOPPED:
		return start_again(r);
	default:
		return -EALREADY;
	}
}

int dc_stop(void)
{
	struct dc_recorder *r = dc_recorder;
	uint32_t on = DC_PHASE_ON;
	if (!r || !__atomic_compare_exchange_n(&r->phase, &on, DC_PHASE_STOPPED, false, __ATOMIC_ACQ_REL,
					       __ATOMIC_RELAXED)) /* [phase] */
		return -ESRCH;
	dc_switches_stop(r, true);
	__atomic_fetch_or(&r->header->flags, DC_RING_STOPPED, __ATOMIC_RELAXED); /* a hint for readers */
	return 0;
}

/* An orderly exit. Threads may still record; the mark only says that nobody needs to wonder. */
__attribute__((destructor)) static void goodbye(void)
{
	struct dc_recorder *r = dc_recorder;
	uint32_t phase = r ? __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) : DC_PHASE_NONE; /* [phase] acquire */
	if (phase != DC_PHASE_ON && phase != DC_PHASE_STOPPED)
		return;
	r->next_anchor_units = 0;
	dc_anchor_take(r);
	__atomic_fetch_or(&r->header->flags, DC_RING_GOODBYE, __ATOMIC_RELAXED); /* read after the lock is gone */
}
