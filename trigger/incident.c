/* SPDX-License-Identifier: MIT */
#include "trigger/incident.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include "trigger/proc.h"


const char *dc_reason_name(enum dc_reason reason)
{
	switch (reason) {
	case DC_REASON_API:
		return "api";
	case DC_REASON_COMMAND:
		return "command";
	case DC_REASON_SIGNAL:
		return "signal";
	case DC_REASON_DEATH:
		return "death";
	case DC_REASON_EXIT:
		return "exit";
	case DC_REASON_RECOVER:
		return "recover";
	case DC_REASON_SPAN:
		return "span";
	case DC_REASON_RULE:
		return "rule";
	}
	return "unknown";
}

void dc_incident_init(struct dc_incident *i, enum dc_reason reason, const char *text)
{
	struct utsname host;

	*i = (struct dc_incident){.reason = reason};
	snprintf(i->text, sizeof(i->text), "%s", text ? text : "");
	if (uname(&host) == 0) {
		snprintf(i->host, sizeof(i->host), "%s", host.nodename);
		snprintf(i->kernel, sizeof(i->kernel), "%s", host.release);
	}
	dc_proc_boot_id(i->boot_id);
}

void dc_incident_anchor(struct dc_incident *i)
{
	const uint32_t max = sizeof(i->anchors) / sizeof(i->anchors[0]);
	struct dc_anchor now;

	if (i->anchor_count < max && dc_clock_now(i->clock, &now) == 0)
		i->anchors[i->anchor_count++] = now;
}

/* A length of time in units; the clock says how long a known number of units lasts. */
static uint64_t units_of(const struct dc_clock *c, int64_t ns)
{
	const uint64_t probe = UINT64_C(1) << 32;
	const uint64_t lasts_ns = dc_clock_duration_ns(c, probe);

	return lasts_ns ? (uint64_t)((double)ns / (double)lasts_ns * (double)probe) : 0;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

int dc_incident_window(struct dc_incident *i, const struct dc_ring *ring, const struct dc_window *w)
{
	const struct dc_ring_header *h = &ring->header;
	const uint64_t now = dc_ring_now(ring), at = w->at_tick >> h->tick_shift;
	struct dc_clock clock;
	int r = dc_ring_clock(ring, &clock);

	if (r < 0)
		return r;
	i->clock = h->clock;
	i->tick_shift = h->tick_shift;
	i->anchor_count = 0;
	if (ring->elsewhere)
		memcpy(i->boot_id, h->boot_id, sizeof(i->boot_id));
	else
		dc_incident_anchor(i);
	i->asked_last_ns = w->last_ns;
	i->asked_after_ns = w->after_ns;
	i->at_units = at && at < now ? at : now;
	i->at_realtime_ns = dc_clock_realtime_ns(&clock, i->at_units);
	i->from_units = w->last_ns ? minus(i->at_units, units_of(&clock, w->last_ns)) : 0;
	i->to_units = i->at_units + units_of(&clock, w->after_ns);
	return 0;
}

/* Moment @units of the incident's clock, in the ring's: by how long before or after the firing it was. */
static uint64_t convert(const struct dc_incident *i, const struct dc_clock *from, const struct dc_clock *to,
			uint64_t units)
{
	const uint64_t at = dc_clock_units(to, i->at_realtime_ns);

	if (units < i->at_units)
		return minus(at, units_of(to, (int64_t)dc_clock_duration_ns(from, i->at_units - units)));
	return at + units_of(to, (int64_t)dc_clock_duration_ns(from, units - i->at_units));
}

int dc_incident_edges(const struct dc_incident *i, const struct dc_ring *ring, uint64_t *ret_from_units,
		      uint64_t *ret_to_units)
{
	const struct dc_ring_header *h = &ring->header;
	struct dc_clock ours, theirs;
	int r;

	if (h->clock == i->clock && h->tick_shift == i->tick_shift) {
		*ret_from_units = i->from_units;
		*ret_to_units = i->to_units;
		return 0;
	}
	r = dc_ring_clock(ring, &theirs);
	if (r < 0)
		return r;
	dc_clock_init(&ours, i->clock, i->tick_shift);
	for (uint32_t k = 0; k < i->anchor_count; k++)
		dc_clock_add(&ours, &i->anchors[k]);
	*ret_from_units = i->from_units ? convert(i, &ours, &theirs, i->from_units) : 0;
	*ret_to_units = convert(i, &ours, &theirs, i->to_units);
	return 0;
}

int dc_incident_extend(struct dc_incident *i, const struct dc_ring *ring, int64_t after_ns)
{
	struct dc_clock clock;
	struct dc_anchor now;
	uint64_t to;
	int r = dc_ring_clock(ring, &clock);

	if (r == 0)
		r = dc_clock_now(i->clock, &now);
	if (r < 0)
		return r;
	to = (now.tick >> i->tick_shift) + units_of(&clock, after_ns);
	if (to > i->to_units)
		i->to_units = to;
	return 0;
}

static void look_at_maps(const struct dc_ring *ring)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	dc_maps_want(ring->maps);
	if (dc_maps_due(ring->maps, ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec))
		dc_maps_look(ring->maps, ring->pid, ring->header.start_time);
}

void dc_process_fill(struct dc_process *p, const struct dc_ring *ring)
{
	const struct dc_ring_header *h = &ring->header;
	struct stat file;

	*p = (struct dc_process){.pid = ring->pid,
				 .ns_pid = h->pid,
				 .uid = ring->uid,
				 .verified = ring->verified,
				 .start_time = h->start_time,
				 .alive = dc_ring_alive(ring) == 1,
				 .cap_bytes = h->file_bytes};
	if (fstat(ring->fd, &file) == 0)
		p->memory_bytes = (uint64_t)file.st_blocks * 512;
	snprintf(p->name, sizeof(p->name), "%s", h->name);
	snprintf(p->ring, sizeof(p->ring), "%s", ring->name);
	dc_known_look(ring->known, ring->pid, h->pid, h->start_time); /* once more, if it still can be asked */
	look_at_maps(ring);
	dc_known_facts(ring->known, p->exe, sizeof(p->exe), p->cmdline, sizeof(p->cmdline));
}

void dc_process_died(struct dc_process *p, int status)
{
	p->exit_known = 1;
	p->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
	p->exit_signal = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
}
