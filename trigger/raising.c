/* SPDX-License-Identifier: MIT */
/*
 * More stacks of some processes for a while, because a rule asked for them. Of several wishes the highest counts, for as long
 * as it lasts; then the next one. A wish is the process's from then on: it outlives its rule when rules are read anew, goes
 * over to the next image at exec, and ends with the process.
 */
#include <errno.h>
#include <string.h>

#include "trigger/watcher_inside.h"

static uint32_t highest(struct dc_entry *e, int64_t now_ns)
{
	uint32_t hz = 0;

	for (unsigned i = 0; i < DC_RAISES_MAX; i++) {
		if (now_ns >= e->raises[i].until_ns)
			e->raises[i].hz = 0;
		hz = e->raises[i].hz > hz ? e->raises[i].hz : hz;
	}
	return hz;
}

/* Beside others of other rates; where there is no room instead of the lowest. */
static void keep(struct dc_entry *e, uint32_t hz, int64_t until_ns)
{
	struct dc_raise *at = &e->raises[0];

	for (unsigned i = 1; i < DC_RAISES_MAX && at->hz != hz; i++)
		if (e->raises[i].hz == hz || e->raises[i].hz < at->hz)
			at = &e->raises[i];
	if (at->hz == hz && at->until_ns > until_ns)
		return;
	*at = (struct dc_raise){.hz = hz, .until_ns = until_ns};
}

static void refused(struct dc_watcher *w, struct dc_entry *e, const char *rule, int error)
{
	struct dc_sample_mode mode;

	memset(e->raises, 0, sizeof(e->raises));
	e->raised_hz = 0;
	dc_sampling_mode(w, e->ring, &mode);
	dc_watcher_say(w, "rule '%s': '%s' (%u) is not sampled more often: %s", rule, e->ring->header.name, e->ring->pid,
		       mode.scope == DC_SAMPLE_SCOPE_NONE && mode.why[0] ? mode.why : strerror(-error));
}

static void say_begun(struct dc_watcher *w, const struct dc_entry *e, const char *rule, uint32_t hz, int64_t for_ns)
{
	dc_watcher_say(w, "rule '%s': '%s' (%u) is sampled %u times a second for %.3g s%s", rule, e->ring->header.name,
		       e->ring->pid, hz, (double)for_ns / 1e9,
		       e->raised_hz > hz ? ", once another rule's wish for more is over" : "");
}

void dc_raising_begin(struct dc_watcher *w, struct dc_entry *e, const char *rule, uint32_t hz, int64_t for_ns)
{
	const int64_t now = dc_watcher_now_ns();
	uint32_t most;
	int r = 0;

	if (e->gone || e->superseded || !e->ring->verified || !e->ring->pid || hz <= w->config.sample_hz)
		return;
	highest(e, now);
	keep(e, hz, now + for_ns);
	most = highest(e, now);
	if (!e->raised_hz)
		e->raised_ns = now;
	if (most != e->raised_hz)
		r = dc_sampling_rate(w, e, most);
	if (r < 0)
		refused(w, e, rule, r);
	else
		say_begun(w, e, rule, hz, for_ns);
}

static void say_ended(struct dc_watcher *w, const struct dc_entry *e, uint32_t hz)
{
	if (hz)
		dc_watcher_say(w, "'%s' (%u) is sampled %u times a second from now on", e->ring->header.name, e->ring->pid, hz);
	else
		dc_watcher_say(w, "'%s' (%u) is not sampled any more", e->ring->header.name, e->ring->pid);
}

void dc_raising_tick(struct dc_watcher *w)
{
	const int64_t now = dc_watcher_now_ns();

	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *e = dc_roster_at(w->roster, i);
		uint32_t hz;

		if (e->gone || !e->raised_hz || (hz = highest(e, now)) == e->raised_hz)
			continue;
		dc_sampling_rate(w, e, hz);
		say_ended(w, e, hz ? hz : w->config.sample_hz);
	}
}

void dc_raising_inherit(struct dc_watcher *w, struct dc_entry *e)
{
	for (uint32_t i = 0; i < dc_roster_count(w->roster); i++) {
		struct dc_entry *of = dc_roster_at(w->roster, i);

		if (of == e || !of->raised_hz || !dc_entry_same(of, e))
			continue;
		memcpy(e->raises, of->raises, sizeof(e->raises));
		e->raised_hz = of->raised_hz;
		e->raised_ns = of->raised_ns;
		memset(of->raises, 0, sizeof(of->raises));
		of->raised_hz = 0;
		dc_sampling_rate(w, e, e->raised_hz);
	}
}
