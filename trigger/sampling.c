/* SPDX-License-Identifier: MIT */
/*
 * The watcher's sampler: which processes it samples, and who is told when that is refused. A ring that is not verified is
 * never a reason to sample a process.
 */
#include <errno.h>

#include "trigger/watcher_inside.h"

#define KEPT_MIN_NS (60 * SECOND_NS) /* of the dead: their capture may wait for a disk */
#define KEPT_ALL_NS (600 * SECOND_NS)

/* A process loaded code: its address space is read again at once, or it may be gone before. */
static void on_mapped(void *arg, uint32_t pid)
{
	struct dc_watcher *w = arg;
	const int64_t now = dc_watcher_now_ns();

	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		const struct dc_entry *e = dc_roster_at(w->roster, i);

		if (e->gone || e->ring->pid != pid)
			continue;
		if (e->ring->bare)
			dc_ring_bare_rename(e->ring);
		dc_maps_want(e->ring->maps);
		if (dc_maps_due(e->ring->maps, now))
			dc_maps_look(e->ring->maps, pid, e->ring->header.start_time);
	}
}

static void on_forked(void *arg, uint32_t parent, uint32_t pid)
{
	struct dc_watcher *w = arg;

	(void)parent;
	dc_roster_add_bare(w->roster, pid, true);
}

int dc_sampling_open(struct dc_watcher *w)
{
	const struct dc_sampler_config config = {.hz = w->config.sample_hz,
						 .ring_bytes = w->config.sample_bytes,
						 .stacks = w->config.sample_stacks,
						 .host = w->config.sample_host,
						 .mapped = on_mapped,
						 .forked = w->config.sample_bare ? on_forked : NULL,
						 .arg = w};

	return dc_sampler_new(&config, &w->sampler);
}

/* Said once: the same is true of all others, or `dashcam status` has the rest. */
static void say_refused(struct dc_watcher *w, const struct dc_ring *ring)
{
	struct dc_sample_mode mode;

	if (w->sampling_refused)
		return;
	w->sampling_refused = true;
	dc_sampler_mode(w->sampler, ring->pid, &mode);
	dc_watcher_say(w, "process '%s' (%u) is not sampled, captures will have no stacks of it: %s", ring->header.name,
		       ring->pid, mode.why);
}

void dc_sampling_add(struct dc_watcher *w, const struct dc_ring *ring)
{
	struct dc_sample_mode mode;
	int r;

	if (!ring->verified || !ring->pid || !w->config.sample_hz)
		return;
	r = dc_sampler_add(w->sampler, ring->pid);
	dc_sampler_mode(w->sampler, ring->pid, &mode);
	if (mode.kernel)
		dc_maps_kernel(ring->maps);
	if (r != -ESRCH && mode.scope == DC_SAMPLE_SCOPE_NONE)
		say_refused(w, ring);
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

	if (!w->config.sample_hz)
		return 0;
	r = dc_roster_add_bare(w->roster, pid, false);
	return r < 0 ? r : 0;
}

void dc_watcher_sample_early(struct dc_watcher *w, uint32_t pid)
{
	dc_sampler_add(w->sampler, pid);
}

void dc_watcher_sampled(struct dc_watcher *w, uint32_t pid, struct dc_sample_mode *ret_mode)
{
	dc_sampler_mode(w->sampler, pid, ret_mode);
}
