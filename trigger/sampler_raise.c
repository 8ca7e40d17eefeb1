/* SPDX-License-Identifier: MIT */
/*
 * More stacks for a while. A process that has events of its own gets them anew at another rate, which those it makes inherit;
 * where the host's are used, whose rate is nobody's alone, it gets one of its own beside them, and the host's samples of it
 * do not count as long. What a sample stands for follows from the id of its event, so rates can be told apart for ever.
 */
#include <errno.h>

#include "trigger/sampler_inside.h"

#define BIT(kind) (1u << (kind))

const struct raised *dc_process_raised(const struct process *p)
{
	return p->raised_count ? &p->raised[(p->raised_count - 1) % RAISED_MAX] : NULL;
}

bool dc_process_raised_at(const struct process *p, int64_t time_ns)
{
	for (uint32_t i = 0; i < p->raised_count && i < RAISED_MAX; i++)
		if (time_ns >= p->raised[i].from_ns && (!p->raised[i].to_ns || time_ns < p->raised[i].to_ns))
			return true;
	return false;
}

static void note(struct process *p, uint32_t hz, int64_t now)
{
	struct raised *last = p->raised_count ? &p->raised[(p->raised_count - 1) % RAISED_MAX] : NULL;

	if (last && !last->to_ns)
		last->to_ns = now;
	if (hz)
		p->raised[p->raised_count++ % RAISED_MAX] = (struct raised){.hz = hz, .from_ns = now};
}

void dc_process_inherit(struct process *child, const struct process *parent, int64_t now_ns)
{
	const struct raised *r = dc_process_raised(parent);

	child->group = parent->group;
	child->boost = parent->boost;
	if (r && !r->to_ns)
		note(child, r->hz, now_ns);
}

/* For all processes that these are the events of. */
static void note_all(struct dc_sampler *s, const struct group *g, uint32_t hz)
{
	const int64_t now = dc_sampler_now_ns();

	for (uint32_t i = 0; i < s->process_count; i++)
		if ((s->processes[i]->group == g || s->processes[i]->boost == g) && dc_process_alive(s->processes[i]))
			note(s->processes[i], hz, now);
}

static uint32_t wished(const struct dc_sampler *s, const struct group *g, const struct process *of)
{
	uint32_t most = of->wish_hz;

	for (uint32_t i = 0; g && i < s->process_count; i++) {
		const struct process *p = s->processes[i];

		if ((p->group == g || p->boost == g) && dc_process_alive(p) && p->wish_hz > most)
			most = p->wish_hz;
	}
	return most > s->config.hz ? most : s->config.hz;
}

/* Beside the host's. */
static int boost(struct dc_sampler *s, struct process *p, uint32_t hz)
{
	const uint32_t kinds = s->config.hz ? BIT(DC_PERF_CPU) : BIT(DC_PERF_CPU) | BIT(DC_PERF_SWITCHES);
	int r;

	if (p->boost)
		note_all(s, p->boost, 0);
	if (hz == s->config.hz) {
		dc_group_free(s, p->boost);
		return 0;
	}
	if (!p->boost)
		p->boost = dc_group_new(s, p->pid);
	if (!p->boost)
		return -ENOMEM;
	p->boost->boost = true;
	p->boost->hz = hz;
	r = dc_group_open(s, p->boost, kinds);
	if (r < 0)
		dc_group_free(s, p->boost);
	else
		note_all(s, p->boost, hz);
	return r;
}

static int rate_own(struct dc_sampler *s, struct group *g, uint32_t hz)
{
	const uint32_t all = BIT(DC_PERF_CPU) | BIT(DC_PERF_OFF) | BIT(DC_PERF_SWITCHES), before = g->hz;
	const uint32_t kinds = s->config.hz ? g->kinds & ~BIT(DC_PERF_SWITCHES) & all : all;
	int r = 0;

	note_all(s, g, 0);
	g->hz = hz;
	if (!hz)
		dc_group_close(s, g, all);
	else
		r = dc_group_open(s, g, kinds);
	if (r < 0) {
		g->hz = before;
		if (before)
			dc_group_open(s, g, kinds);
	}
	if (g->hz > s->config.hz)
		note_all(s, g, g->hz);
	return r;
}

static int raise_to(struct dc_sampler *s, uint32_t pid, uint32_t hz)
{
	struct process *p = dc_sampler_find(s, pid);
	bool host;
	struct group *g;

	if (!s->on || !p || !p->group || !dc_process_alive(p))
		return -ESRCH;
	if (p->group->handed) /* threads that have inherited an event keep its period */
		return -EOPNOTSUPP;
	dc_sampler_drain(s);
	p->wish_hz = hz;
	host = p->group == s->host;
	g = host ? p->boost : p->group;
	hz = wished(s, g, p);
	if (hz == (g ? g->hz : s->config.hz))
		return 0;
	return host ? boost(s, p, hz) : rate_own(s, g, hz);
}

int dc_sampler_raise(struct dc_sampler *s, uint32_t pid, uint32_t hz)
{
	int r;

	pthread_mutex_lock(&s->lock);
	r = raise_to(s, pid, hz);
	pthread_mutex_unlock(&s->lock);
	return r;
}

bool dc_sampler_follows(struct dc_sampler *s, uint32_t pid)
{
	const struct process *p;
	bool follows;

	pthread_mutex_lock(&s->lock);
	p = s->on ? dc_sampler_find(s, pid) : NULL;
	follows = p && p->group && p->group->kinds & BIT(DC_PERF_CHANGES);
	pthread_mutex_unlock(&s->lock);
	return follows;
}
