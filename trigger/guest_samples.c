/* SPDX-License-Identifier: MIT */
#include "trigger/guest_samples.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/registers.h"
#include "ipc/samples.h"
#include "trigger/proc.h"

#define HZ_MAX 1000u
#define PERIODS_MAX 1000u
#define NOTICE_BYTE 2u /* of an enable word, which has it for itself */

static_assert(DC_ENABLE_NOTICE == 1u << (8 * NOTICE_BYTE), "a byte of its own: others write the rest of the word");

/* --- asking --- */

static bool able(const struct dc_ring *ring)
{
	return !ring->bare && ring->header.samples_off;
}

bool dc_guest_closed(const struct dc_ring *ring)
{
	const int theirs = dc_proc_filters(ring->pid);

	return theirs < 0 || theirs > dc_proc_filters((uint32_t)getpid());
}

static uint64_t from_now(const struct dc_ring *ring, int64_t ns)
{
	const uint64_t now = dc_ring_now(ring);
	struct dc_clock clock;

	return dc_ring_clock(ring, &clock) == 0 ? dc_clock_units(&clock, dc_clock_realtime_ns(&clock, now) + ns) : 0;
}

int dc_guest_ask(const struct dc_ring *ring, uint32_t hz, uint32_t copy_bytes)
{
	const struct {
		uint32_t hz;
		uint64_t until;
		uint32_t copy_bytes;
	} __attribute__((packed)) wish = {hz, hz ? from_now(ring, DC_GUEST_ASKED_NS) : 0, copy_bytes};

	static_assert(offsetof(struct dc_ring_control, sample_until_units) == offsetof(struct dc_ring_control, sample_hz) + 4 &&
			      offsetof(struct dc_ring_control, sample_copy_bytes) ==
				      offsetof(struct dc_ring_control, sample_hz) + 12,
		      "one write says all of it");
	if (!able(ring))
		return -EOPNOTSUPP;
	return dc_ring_pwrite(ring, &wish, sizeof(wish),
			      ring->header.control_off + offsetof(struct dc_ring_control, sample_hz));
}

int dc_guest_notice(const struct dc_ring *ring, bool on)
{
	const uint8_t byte = on;
	struct dc_ring_look look;
	int r = able(ring) ? dc_ring_look(ring, &look) : -EOPNOTSUPP;

	for (uint32_t id = 1; r == 0 && id < look.sites_used; id++)
		r = dc_ring_pwrite(ring, &byte, 1,
				   ring->header.control_off + offsetof(struct dc_ring_control, enable) + 4 * id + NOTICE_BYTE);
	return r;
}

/* --- what came of it --- */

static int count_live(const struct dc_ring *ring, uint32_t *ret_live)
{
	CLEANUP(free) struct dc_ring_lane *lanes = NULL;
	struct dc_ring_look look;
	int r = dc_ring_look(ring, &look);

	if (r < 0)
		return r;
	lanes = calloc(look.lanes_used + 1, sizeof(*lanes));
	r = lanes ? dc_ring_pread(ring, lanes, look.lanes_used * sizeof(*lanes), ring->header.lanes_off) : -ENOMEM;
	*ret_live = 0;
	for (uint32_t i = 0; r == 0 && i < look.lanes_used; i++)
		*ret_live += lanes[i].tid && !(lanes[i].flags & (DC_LANE_FREE | DC_LANE_NESTED));
	return r;
}

int dc_guest_state(const struct dc_ring *ring, struct dc_guest_state *ret_state)
{
	struct dc_guest_state s = {0};
	struct dc_ring_samples head;
	struct dc_ring_control c;
	int r = able(ring) ? dc_ring_pread(ring, &c, offsetof(struct dc_ring_control, reserved), ring->header.control_off)
			   : -EOPNOTSUPP;

	if (r == 0)
		r = dc_ring_pread(ring, &head, sizeof(head), ring->header.samples_off);
	if (r == 0)
		r = count_live(ring, &s.live);
	if (r < 0)
		return r;
	s.hz = c.sample_hz < HZ_MAX ? c.sample_hz : HZ_MAX;
	s.copy_bytes = c.sample_copy_bytes < DC_SAMPLE_COPY_MAX ? c.sample_copy_bytes : DC_SAMPLE_COPY_MAX;
	s.threads = head.threads < s.live ? head.threads : s.live;
	s.refused = head.refused < s.live ? head.refused : s.live;
	s.error = head.error;
	s.taken = head.taken;
	s.lost = head.lost;
	*ret_state = s;
	return 0;
}

static const char *word_error(int error)
{
	return error == -EBUSY   ? "every signal has a handler already"
	       : error == -EPERM ? "threads block its signal"
	       : error == -EAGAIN ? "out of timers (ulimit -i)"
				  : "it gets no timers";
}

void dc_guest_mode(const struct dc_ring *ring, struct dc_sample_mode *mode)
{
	const struct dc_sample_mode of_kernel = *mode;
	struct dc_guest_state s;
	char who[48];

	if (mode->scope != DC_SAMPLE_SCOPE_NONE || dc_guest_state(ring, &s) < 0)
		return;
	if (!s.hz && ring->pid && dc_ring_alive(ring) == 1 && dc_guest_closed(ring))
		snprintf(mode->why, sizeof(mode->why), "it has a seccomp filter of its own; %.57s", of_kernel.why);
	if (!s.hz)
		return;
	*mode = (struct dc_sample_mode){.hz = s.hz, .copy_bytes = s.copy_bytes};
	mode->scope = s.threads || s.taken ? DC_SAMPLE_SCOPE_GUEST : DC_SAMPLE_SCOPE_NONE;
	snprintf(who, sizeof(who), "%u of %u threads that record", s.threads, s.live);
	if (!s.live) /* dead by now */
		memcpy(mode->why, of_kernel.why, sizeof(mode->why));
	else
		snprintf(mode->why, sizeof(mode->why), "%.36s%s %.57s", who, s.refused ? "," : ";",
			 s.refused ? word_error(s.error) : of_kernel.why);
}

/* --- samples --- */

struct part {
	uint8_t *bytes;
	uint32_t room; /* of all records */
	uint32_t have; /* of these bytes */
	uint64_t written;
};

static void part_cleanup(struct part *p)
{
	free(p->bytes);
}

/* What was never written is not there; what is written meanwhile does not check. */
static int load(const struct dc_ring *ring, struct part *p, struct dc_ring_samples *ret_head)
{
	int r = able(ring) ? dc_ring_pread(ring, ret_head, sizeof(*ret_head), ring->header.samples_off) : -EOPNOTSUPP;

	if (r < 0)
		return r;
	p->written = ret_head->written;
	p->room = (uint32_t)(ring->header.samples_bytes - sizeof(*ret_head));
	p->have = p->written < p->room ? (uint32_t)p->written & ~(DC_SAMPLE_ALIGN - 1) : p->room;
	p->bytes = malloc(p->have + 1);
	if (!p->bytes)
		return -ENOMEM;
	return dc_ring_pread(ring, p->bytes, p->have, ring->header.samples_off + sizeof(*ret_head));
}

/* The record at @place of the last lap; NULL: there is none, or not a whole one. */
static const struct dc_ring_sample *record_at(const struct part *p, uint32_t place)
{
	const struct dc_ring_sample *s = (const void *)(p->bytes + place);
	uint64_t at = p->written - p->written % p->room + place;

	if (at >= p->written)
		at -= p->room; /* before the first lap: no record says so */
	if (p->have - place < sizeof(*s) || s->at != at || s->bytes > p->have - place || s->bytes % DC_SAMPLE_ALIGN ||
	    s->bytes > DC_SAMPLE_BYTES_MAX || s->kind == 0 || s->kind > DC_RING_SAMPLE_LAST || s->stack_bytes % 8 ||
	    s->stack_bytes > DC_SAMPLE_COPY_MAX || (s->reg_count != DC_REGS_X86 && s->reg_count != DC_REGS_ARM) ||
	    dc_ring_sample_bytes(s->reg_count, s->stack_bytes) > s->bytes || (s->kind == DC_RING_SAMPLE_CPU && s->hz == 0) ||
	    dc_ring_sample_check(s, s->bytes) != s->check)
		return NULL;
	return s;
}

struct writing {
	struct dc_writer *w;
	uint32_t process;
	uint8_t *payload; /* NULL: none reserved */
	size_t used;
	struct dc_clock clock;
	uint32_t tick_shift;
	uint64_t from_units;
	uint64_t to_units;
	uint64_t oldest_units; /* of all that were there */
	uint64_t count; /* of CPU time: stacks of events say nothing of how it was sampled */
};

static int flush(struct writing *g)
{
	const size_t used = g->used;

	g->used = 0;
	return TAKE(g->payload) ? dc_writer_commit(g->w, DC_BLOCK_SAMPLES, g->process, used) : 0;
}

static int put(struct writing *g, const struct dc_ring_sample *s)
{
	const size_t inside = 8 * (size_t)s->reg_count + s->stack_bytes;
	const uint32_t periods = s->periods < PERIODS_MAX ? s->periods : PERIODS_MAX;
	const struct dc_event_state event = {.units = s->tick >> g->tick_shift};
	const bool of_event = s->kind == DC_RING_SAMPLE_STACK;
	const struct dc_sample sample = {
		.bytes = (uint32_t)(sizeof(sample) + inside + (of_event ? sizeof(event) : 0)),
		.kind = of_event ? DC_SAMPLE_EVENT : DC_SAMPLE_CPU,
		.flags = s->cut ? DC_SAMPLE_STACK_CUT : 0,
		.tid = s->tid,
		.cpu = UINT32_MAX,
		.monotonic_ns = dc_clock_monotonic_ns(&g->clock, s->tick >> g->tick_shift),
		.weight_ns = of_event ? 0 : (uint64_t)periods * 1000000000 / s->hz,
		.stack_bytes = s->stack_bytes,
		.reg_count = s->reg_count,
		.extra_bytes = of_event ? sizeof(event) : 0,
	};
	int r = g->payload && g->used + sample.bytes > DC_WRITER_PAYLOAD_MAX ? flush(g) : 0;

	if (r == 0 && !g->payload && !(g->payload = dc_writer_reserve(g->w)))
		r = dc_writer_error(g->w);
	if (r < 0)
		return r;
	memcpy(g->payload + g->used, &sample, sizeof(sample));
	memcpy(g->payload + g->used + sizeof(sample), s + 1, inside);
	memcpy(g->payload + g->used + sizeof(sample) + inside, &event, sample.extra_bytes);
	g->used += sample.bytes;
	g->count += !of_event;
	return 0;
}

static int put_between(struct writing *g, const struct part *p, uint32_t first, uint32_t end)
{
	int r = 0;

	for (uint32_t place = first, step; r == 0 && place < end; place += step) {
		const struct dc_ring_sample *s = record_at(p, place);
		const uint64_t units = s ? s->tick >> g->tick_shift : 0;

		step = s ? s->bytes : DC_SAMPLE_ALIGN;
		if (!s)
			continue;
		g->oldest_units = units < g->oldest_units ? units : g->oldest_units;
		if (units >= g->from_units && units <= g->to_units)
			r = put(g, s);
	}
	return r;
}

int dc_guest_write(const struct dc_ring *ring, uint32_t process, uint64_t from_units, uint64_t to_units,
		   struct dc_writer *w, struct dc_sampler_totals *ret_totals)
{
	struct writing g = {.w = w, .process = process, .tick_shift = ring->header.tick_shift, .from_units = from_units,
			    .to_units = to_units, .oldest_units = UINT64_MAX};
	CLEANUP(part) struct part p = {0};
	struct dc_ring_samples head;
	uint32_t oldest;
	int r = load(ring, &p, &head);

	if (r < 0 || dc_ring_clock(ring, &g.clock) < 0)
		return r == -ENOMEM ? r : 0;
	oldest = p.written > p.room ? (uint32_t)(p.written % p.room) & ~(DC_SAMPLE_ALIGN - 1) : 0;
	r = put_between(&g, &p, oldest, p.have);
	if (r == 0)
		r = put_between(&g, &p, 0, oldest);
	if (r == 0)
		r = flush(&g);
	if (r < 0)
		return r;
	if (p.written <= p.room || g.oldest_units < from_units)
		g.oldest_units = from_units;
	*ret_totals = (struct dc_sampler_totals){.samples = g.count, .lost = head.lost};
	if (g.count)
		ret_totals->samples_from_ns = dc_clock_monotonic_ns(&g.clock, g.oldest_units);
	return g.count < INT32_MAX ? (int)g.count : INT32_MAX;
}
