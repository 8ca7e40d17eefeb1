/* SPDX-License-Identifier: MIT */
/*
 * The watcher's sampler: which processes it samples, and who is told when that is refused. A ring that is not verified is
 * never a reason to sample a process.
 *
 * What the kernel refuses, the process may have handed over when it started (handover.h). Else it is asked to sample itself,
 * where it records; not one that has closed itself in. Programs do that when they begin, so they are given a second for it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "trigger/guest_samples.h"
#include "trigger/handover.h"
#include "trigger/proc.h"
#include "trigger/watcher_inside.h"

#define KEPT_MIN_NS (60 * SECOND_NS) /* of the dead: their capture may wait for a disk */
#define KEPT_ALL_NS (600 * SECOND_NS)
#define ASK_AFTER_NS SECOND_NS
#define ASK_TICKS 4u /* looks, of which there are four a second */
#define HURRY_TICKS 12u
#define RING_LEAST_BYTES 16384u

/* A process loaded code: its address space is read again at once, or it may be gone before. */
static void on_mapped(void *arg, uint32_t pid)
{
	struct dc_watcher *w = arg;
	const int64_t now = dc_watcher_now_ns();

	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct dc_entry *e = dc_roster_at(w->roster, i);

		if (e->gone || e->ring->pid != pid)
			continue;
		dc_maps_want(e->ring->maps);
		if (dc_maps_due(e->ring->maps, now))
			dc_maps_look(e->ring->maps, pid, e->ring->header.start_time);
	}
}

static bool renamed(struct dc_ring *ring)
{
	char before[sizeof(ring->header.name)];

	memcpy(before, ring->header.name, sizeof(before));
	dc_ring_bare_rename(ring);
	return strcmp(before, ring->header.name) != 0;
}

/* A rule hears of it under the name that it had; what follows is about the next one. */
void dc_sampling_execed(struct dc_watcher *w, struct dc_entry *e)
{
	dc_ruling_exec(w, e);
	if (renamed(e->ring))
		dc_ruling_renamed(w, e);
}

/* With a ring it is noticed by that one's end (judge.c). */
static void on_execed(void *arg, uint32_t pid)
{
	struct dc_watcher *w = arg;

	if (w->starting_pid == pid) { /* the first one is how a command begins */
		w->starting_pid = 0;
		return;
	}
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);

		if (e->ring->bare && e->ring->pid == pid && !e->gone && !e->superseded)
			dc_sampling_execed(w, e);
	}
}

static void on_forked(void *arg, uint32_t parent, uint32_t pid)
{
	struct dc_watcher *w = arg;

	(void)parent;
	dc_roster_add_bare(w->roster, pid, true);
}

/* Without samples there may still be a reason to follow processes: what rules are about. */
static bool wanted(const struct dc_watcher_config *c)
{
	return dc_rules_outside(c->rules) || dc_rules_raise(c->rules);
}

int dc_sampling_open(struct dc_watcher *w)
{
	w->ready = wanted(&w->config);

	const bool stacks = w->config.sample_hz || dc_rules_raise(w->config.rules);
	const struct dc_sampler_config config = {.hz = w->config.sample_hz,
						 .ring_bytes = stacks ? w->config.sample_bytes : RING_LEAST_BYTES,
						 .ready = w->ready,
						 .stacks = w->config.sample_stacks,
						 .host = w->config.sample_host,
						 .mapped = on_mapped,
						 .execed = on_execed,
						 .forked = w->config.sample_bare ? on_forked : NULL,
						 .arg = w};

	return dc_sampler_new(&config, &w->sampler);
}

/* --- what processes hand over --- */

static void leave_alone(struct dc_entry *e)
{
	dc_guest_ask(e->ring, 0, 0);
	if (e->noticed)
		dc_guest_notice(e->ring, false);
	e->asked_samples = e->noticed = false;
}

static int on_handed(void *arg, struct dc_handed *handed)
{
	struct dc_watcher *w = arg;
	int r = dc_sampler_adopt(w->sampler, handed);

	for (uint32_t i = 0; r == 0 && i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);

		if (e->gone || e->ring->pid != handed->pid)
			continue;
		e->ask_samples_ns = 0;
		if (e->asked_samples)
			leave_alone(e);
	}
	return r;
}

/* Behind the pid, which others look for. */
static void say_offer(struct dc_watcher *w, const struct dc_sampler_offer *o)
{
	const int filters = dc_proc_filters((uint32_t)getpid());
	char text[128];
	int n = snprintf(text, sizeof(text), "%d\n" DC_HANDOVER_WORD "%u %u %u %u %u %d\n", (int)getpid(), DC_HANDOVER_VERSION,
			 o->hz, o->copy_bytes, o->kernel, o->cpus, filters < 0 ? 0 : filters);

	if (pwrite(w->lock_fd, text, (size_t)n, 0) != n)
		dc_watcher_say(w, "'%s': %s; what processes hand over will not come", DC_RINGS_LOCK, strerror(errno));
}

int dc_sampling_listen(struct dc_watcher *w)
{
	const struct dc_sampler_offer o = dc_sampler_offer(w->sampler);
	int r;

	if (!o.hz || !dc_handover_wanted())
		return 0;
	r = dc_handover_open(w->config.dir, on_handed, w, &w->handover);
	if (r < 0) {
		dc_watcher_say(w, "'%s': %s; processes that are not dumpable can only sample themselves", DC_HANDOVER_SOCKET,
			       strerror(-r));
		return 0;
	}
	say_offer(w, &o);
	return dc_watcher_listen(w, dc_handover_fd(w->handover), SOURCE_HANDOVER);
}

/* Said once of each kind: the same is true of all others, or `dashcam status` has the rest. */
enum said { SAID_REFUSED = 1, SAID_BARE = 2, SAID_ASKED = 4 };

static void say_refused(struct dc_watcher *w, const struct dc_entry *e)
{
	const enum said kind = e->asked_samples ? SAID_ASKED : e->ring->bare ? SAID_BARE : SAID_REFUSED;
	struct dc_sample_mode mode;

	if (w->sampling_said & kind)
		return;
	w->sampling_said |= kind;
	dc_sampler_mode(w->sampler, e->ring->pid, &mode);
	dc_watcher_say(w, "process '%s' (%u) is %s: %s", e->ring->header.name, e->ring->pid,
		       kind == SAID_ASKED  ? "asked to sample itself"
		       : kind == SAID_BARE ? "not sampled; if it records, it will be asked to sample itself"
					   : "not sampled, captures will have no stacks of it",
		       mode.why);
}

/* Once more, for the time to come. */
static int ask(const struct dc_watcher *w, const struct dc_entry *e)
{
	const uint32_t hz = e->raised_hz > w->config.sample_hz ? e->raised_hz : w->config.sample_hz;

	return dc_guest_closed(e->ring) ? -EPERM : dc_guest_ask(e->ring, hz, DC_GUEST_COPY_BYTES);
}

static void ask_first(struct dc_watcher *w, struct dc_entry *e)
{
	e->ask_samples_ns = 0;
	e->asked_samples = ask(w, e) == 0;
	e->noticed = e->asked_samples && dc_guest_notice(e->ring, true) == 0;
	say_refused(w, e);
}

void dc_sampling_add(struct dc_watcher *w, struct dc_entry *e)
{
	const struct dc_ring *ring = e->ring;
	struct dc_sample_mode mode;
	int r;

	if (!ring->verified || !ring->pid || (!w->config.sample_hz && !w->ready))
		return;
	r = dc_sampler_add(w->sampler, ring->pid);
	if (!w->config.sample_hz)
		return;
	dc_sampler_mode(w->sampler, ring->pid, &mode);
	if (mode.kernel)
		dc_maps_kernel(ring->maps);
	if (r == -ESRCH || mode.scope != DC_SAMPLE_SCOPE_NONE)
		return;
	if (ring->bare)
		ask_first(w, e);
	else
		e->ask_samples_ns = dc_watcher_now_ns() + ASK_AFTER_NS;
}

/*
 * While threads are missing their sites say so, from one look to the next: every other time at first, later one in four. In
 * between they cost what they always cost.
 */
static void ask_again(struct dc_watcher *w, struct dc_entry *e)
{
	const bool asks = e->sample_ticks % ASK_TICKS == 0, hurry = e->sample_ticks < HURRY_TICKS;
	struct dc_guest_state s;

	e->sample_ticks++;
	if (asks && ask(w, e) < 0) {
		leave_alone(e);
	} else if (e->noticed) {
		dc_guest_notice(e->ring, false);
		e->noticed = false;
	} else if ((asks || hurry) && dc_guest_state(e->ring, &s) == 0 && s.threads + s.refused < s.live) {
		e->noticed = dc_guest_notice(e->ring, true) == 0;
	}
}

void dc_sampling_tick(struct dc_watcher *w)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);

		if (e->gone)
			continue;
		if (e->ask_samples_ns && dc_watcher_now_ns() >= e->ask_samples_ns)
			ask_first(w, e);
		else if (e->asked_samples)
			ask_again(w, e);
	}
}

int dc_sampling_rate(struct dc_watcher *w, struct dc_entry *e, uint32_t hz)
{
	int r;

	e->raised_hz = hz;
	r = dc_sampler_raise(w->sampler, e->ring->pid, hz);
	if (r != -ESRCH || e->ring->bare)
		return r;
	if (!hz && !w->config.sample_hz) {
		leave_alone(e);
		return 0;
	}
	r = ask(w, e);
	if (r == 0 && !e->asked_samples)
		e->noticed = dc_guest_notice(e->ring, true) == 0;
	e->asked_samples = e->asked_samples || r == 0;
	return r;
}

void dc_sampling_close(struct dc_watcher *w)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++)
		if (dc_roster_at(w->roster, i)->asked_samples)
			leave_alone(dc_roster_at(w->roster, i));
}

void dc_sampling_mode(struct dc_watcher *w, const struct dc_ring *ring, struct dc_sample_mode *ret_mode)
{
	dc_sampler_mode(w->sampler, ring->pid, ret_mode);
	dc_guest_mode(ring, ret_mode);
}

void dc_sampling_remove(struct dc_watcher *w, const struct dc_ring *ring)
{
	const int64_t keep_ns = w->config.last_ns ? w->config.last_ns + KEPT_MIN_NS : KEPT_ALL_NS;

	if (ring->verified && ring->pid)
		dc_sampler_remove(w->sampler, ring->pid, keep_ns);
}

void dc_sampling_supersede(struct dc_watcher *w, const struct dc_ring *ring)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);

		if (!e->ring->bare || e->ring->pid != ring->pid ||
		    e->ring->header.start_time != ring->header.start_time)
			continue;
		e->superseded = e->gone = e->judged = true;
		e->gone_ns = dc_watcher_now_ns();
	}
}

int dc_watcher_sample(struct dc_watcher *w, uint32_t pid)
{
	int r;

	if (!w->config.sample_hz && !w->ready)
		return 0;
	r = dc_roster_add_bare(w->roster, pid, false);
	return r < 0 ? r : 0;
}

void dc_watcher_sample_early(struct dc_watcher *w, uint32_t pid)
{
	if (dc_sampler_add(w->sampler, pid) == 0 && dc_sampler_follows(w->sampler, pid))
		w->starting_pid = pid;
}

void dc_watcher_sampled(struct dc_watcher *w, uint32_t pid, struct dc_sample_mode *ret_mode)
{
	dc_sampler_mode(w->sampler, pid, ret_mode);
}
