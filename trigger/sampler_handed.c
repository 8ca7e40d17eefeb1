/* SPDX-License-Identifier: MIT */
/*
 * Events that a process opened for itself (ipc/handover.h). They write into rings of their own: what a process hands over may
 * be shaped as it likes, and who holds an event may look into its ring, so neither what others are sampled with nor what
 * they were seen doing may be where these write. What comes of them is believed of that process only.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ipc/handover.h"
#include "trigger/handover.h"
#include "trigger/sampler_inside.h"

#define HANDED_MAX 64u /* processes with rings of their own, those included that are gone and whose rings are kept */
#define OWN_BYTES (2u << 20) /* of stacks, per CPU */
#define OWN_ALL_BYTES (32u << 20) /* ... and of all CPUs */
#define BIT(kind) (1u << (kind))

uint32_t dc_group_fit(uint32_t shift)
{
	uint32_t step = 0;

	while (step + 1 < DC_HANDOVER_STEPS && dc_handover_shift(step) < shift)
		step++;
	return dc_handover_shift(step);
}

void dc_group_step(struct group *g)
{
	for (uint32_t i = 0; i < g->event_count; i++)
		if (g->events[i].kind == DC_PERF_OFF)
			dc_perf_enable(g->events[i].fd, g->events[i].shift == g->shift);
}

static uint32_t handed_count(const struct dc_sampler *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->process_count; i++)
		n += s->processes[i]->own.count != 0;
	return n;
}

static int own_rings(const struct dc_sampler *s, struct process *p)
{
	const uint64_t most = OWN_ALL_BYTES / s->cpus.count, wanted = s->config.ring_bytes ? s->config.ring_bytes : OWN_BYTES;

	return p->own.count ? 0 : dc_cpus_open(s, RING_CHANGES, wanted < most ? wanted : most, &p->own);
}

/* A group without events, for those of @p that are about to come. */
static int begin(struct dc_sampler *s, struct process *p)
{
	int r = own_rings(s, p);

	if (r < 0)
		return r;
	p->group = dc_group_new(s, p->pid);
	if (!p->group)
		return -ENOMEM;
	p->group->handed = true;
	p->group->copy_bytes = dc_sampler_offer(s).copy_bytes;
	p->group->shift = dc_handover_shift(1); /* until it is known how often they switch */
	p->why[0] = '\0';
	return 0;
}

/* Whose events these are: one that we do not sample, or who began to hand over. */
static int find(struct dc_sampler *s, const struct dc_handed *h, struct process **ret_process)
{
	struct process *p = dc_sampler_find(s, h->pid);
	const bool alive = p && dc_process_alive(p);

	if (!s->on || s->host || !s->config.hz)
		return -EOPNOTSUPP;
	if (!h->first && (!alive || !p->group || !p->group->handed))
		return -ESRCH;
	if (alive && p->group && !p->group->handed)
		return -EALREADY;
	if (h->first && alive && p->group)
		dc_group_free(s, p->group);
	if (h->first && (!alive || !p->own.count) && handed_count(s) >= HANDED_MAX)
		return -ENOSPC;
	if (!alive)
		p = dc_process_new(s, h->pid, dc_sampler_now_ns());
	*ret_process = p;
	return p ? 0 : -ENOMEM;
}

static const struct cpu *cpu_of(const struct process *p, uint32_t cpu)
{
	for (uint32_t i = 0; i < p->own.count; i++)
		if (p->own.at[i].cpu == cpu)
			return &p->own.at[i];
	return NULL;
}

/* The kernel refuses one of another CPU, another clock, or another direction. */
static int take(struct dc_sampler *s, struct process *p, const struct cpu *c, struct dc_handed *h, uint32_t i)
{
	struct event e = {.fd = h->event[i].fd, .kind = h->event[i].kind, .shift = h->event[i].shift};
	int r = dc_perf_id(e.fd, &e.id);

	if (r == 0)
		r = dc_perf_output(e.fd, c->anchor[e.kind == DC_PERF_SWITCHES ? RING_SWITCHES : RING_STACKS]);
	if (r == 0)
		r = dc_group_keep(s, p->group, &e);
	if (r < 0)
		return r;
	h->event[i].fd = -1;
	p->group->kinds |= BIT(e.kind);
	return e.kind == DC_PERF_OFF && e.shift != p->group->shift ? 0 : dc_perf_enable(e.fd, true);
}

static int adopt(struct dc_sampler *s, struct dc_handed *h)
{
	struct process *p;
	const struct cpu *c;
	int r = find(s, h, &p);

	if (r == 0 && h->first)
		r = begin(s, p);
	if (r < 0)
		return r;
	c = cpu_of(p, h->cpu);
	if (!c)
		r = -ENODEV;
	else if (p->group->event_count + h->count > p->own.count * DC_HANDOVER_EVENTS * DC_HANDOVER_THREADS_MAX)
		r = -E2BIG;
	for (uint32_t i = 0; r == 0 && i < h->count; i++)
		r = take(s, p, c, h, i);
	if (r < 0) { /* all of it, or nothing */
		dc_group_free(s, p->group);
		snprintf(p->why, sizeof(p->why), "what it handed over cannot be used: %.40s", strerror(-r));
	}
	return r;
}

int dc_sampler_adopt(struct dc_sampler *s, struct dc_handed *h)
{
	int r;

	pthread_mutex_lock(&s->lock);
	r = adopt(s, h);
	pthread_mutex_unlock(&s->lock);
	return r;
}

struct dc_sampler_offer dc_sampler_offer(const struct dc_sampler *s)
{
	const uint32_t copy = s->config.copy_bytes ? s->config.copy_bytes : DC_SAMPLER_COPY_FIRST;

	if (!s->on || s->host)
		return (struct dc_sampler_offer){0};
	return (struct dc_sampler_offer){.hz = s->config.hz,
					 .copy_bytes = s->config.stacks == DC_STACKS_FRAME_POINTERS ? 0 : copy,
					 .kernel = s->kernel,
					 .cpus = s->cpus.at[s->cpus.count - 1].cpu + 1};
}
