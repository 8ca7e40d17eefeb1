/* SPDX-License-Identifier: MIT */
/*
 * Which events are open. One of a kind per thread and CPU (the kernel maps no ring of an inherited event that is not bound
 * to a CPU); threads and processes made later inherit them. A period cannot be changed for what was inherited, so tuning
 * opens the events again.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/grow.h"
#include "trigger/perf_record.h"
#include "trigger/sampler_inside.h"

#define LOOKS_MAX 6u /* for threads that are made while we look */
#define COUNTED_MAX 256u /* switches per look and CPU that are counted; the rest by their bytes */
#define WINDOW_FIRST_NS SECOND_NS
#define WINDOW_NS (4 * SECOND_NS)

#define BIT(kind) (1u << (kind))
#define STACK_KINDS (BIT(DC_PERF_CPU) | BIT(DC_PERF_OFF))

static const enum ring_of ring_of_kind[DC_PERF_KINDS] = {
	[DC_PERF_CPU] = RING_STACKS,
	[DC_PERF_OFF] = RING_STACKS,
	[DC_PERF_SWITCHES] = RING_SWITCHES,
	[DC_PERF_CHANGES] = RING_CHANGES,
};

/* --- ids --- */

static struct event_id *find_id(const struct dc_sampler *s, uint64_t id)
{
	uint32_t low = 0, high = s->id_count;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if (s->ids[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < s->id_count && s->ids[low].id == id ? &s->ids[low] : NULL;
}

const struct event_id *dc_sampler_event(const struct dc_sampler *s, uint64_t id)
{
	return find_id(s, id);
}

static int add_id(struct dc_sampler *s, const struct group *g, const struct event *e)
{
	uint32_t at = s->id_count;

	if (GROW(s->ids, s->id_count, s->id_capacity, 64) < 0)
		return -ENOMEM;
	for (; at > 0 && s->ids[at - 1].id > e->id; at--)
		s->ids[at] = s->ids[at - 1];
	s->ids[at] = (struct event_id){.id = e->id,
				       .kind = e->kind,
				       .shift = e->shift,
				       .copied = g->copy_bytes != 0,
				       .boost = g->boost,
				       .hz = g->hz};
	s->id_count++;
	return 0;
}

/* --- groups --- */

struct group *dc_group_new(struct dc_sampler *s, uint32_t root)
{
	struct group **more = reallocarray(s->groups, s->group_count + 1, sizeof(struct group *));
	struct group *g = calloc(1, sizeof(*g));

	if (more)
		s->groups = more;
	if (!more || !g) {
		free(g);
		return NULL;
	}
	g->root = root;
	g->hz = s->config.hz;
	g->shift = OFF_SHIFT_FIRST;
	g->window_ns = dc_sampler_now_ns();
	dc_group_decide(s, g);
	s->groups[s->group_count++] = g;
	return g;
}

void dc_group_close(struct dc_sampler *s, struct group *g, uint32_t kinds)
{
	const int64_t now = dc_sampler_now_ns();
	uint32_t kept = 0;

	for (uint32_t i = 0; i < g->event_count; i++) {
		struct event *e = &g->events[i];
		struct event_id *id = find_id(s, e->id);

		if (!(kinds & BIT(e->kind))) {
			g->events[kept++] = *e;
			continue;
		}
		close(e->fd);
		if (id)
			id->gone_ns = now;
	}
	g->event_count = kept;
	g->kinds &= ~kinds;
}

void dc_group_free(struct dc_sampler *s, struct group *g)
{
	dc_group_close(s, g, UINT32_MAX);
	for (uint32_t i = 0; i < s->process_count; i++) {
		if (s->processes[i]->group == g)
			s->processes[i]->group = NULL;
		if (s->processes[i]->boost == g)
			s->processes[i]->boost = NULL;
	}
	for (uint32_t i = 0; i < s->group_count; i++)
		if (s->groups[i] == g)
			s->groups[i] = s->groups[--s->group_count];
	free(g->events);
	free(g);
}

void dc_group_decide(struct dc_sampler *s, struct group *g)
{
	bool copy = s->config.stacks == DC_STACKS_COPY;

	if (s->config.stacks == DC_STACKS_AUTO)
		copy = g->root == 0 || !dc_frame_pointers(g->root, &s->frames);
	if (!s->copy_bytes)
		s->copy_bytes = s->config.copy_bytes ? s->config.copy_bytes : DC_SAMPLER_COPY_FIRST;
	g->copy_bytes = copy ? s->copy_bytes : 0;
}

int dc_group_keep(struct dc_sampler *s, struct group *g, const struct event *e)
{
	if (GROW(g->events, g->event_count, g->event_capacity, 16) < 0 || add_id(s, g, e) < 0)
		return -ENOMEM;
	g->events[g->event_count++] = *e;
	return 0;
}

static int open_event(struct dc_sampler *s, struct group *g, enum dc_perf_kind kind, uint32_t tid, const struct cpu *c)
{
	const struct dc_perf_shape shape = {.hz = g->hz,
					    .off_period = UINT64_C(1) << g->shift,
					    .copy_bytes = g->copy_bytes,
					    .kernel = s->kernel,
					    .host = g->root == 0,
					    .tasks = g->root != 0 || s->config.forked};
	CLEANUP(close_fd) int fd = -1;
	struct event e = {.kind = (uint8_t)kind, .shift = kind == DC_PERF_OFF ? (uint8_t)g->shift : 0};
	int r = dc_perf_open(kind, &shape, tid, c->cpu, &fd, &e.id);

	if (r < 0)
		return r;
	e.fd = fd;
	r = dc_perf_output(fd, c->anchor[ring_of_kind[kind]]);
	if (r == 0)
		r = dc_group_keep(s, g, &e);
	if (r == 0)
		fd = -1;
	return r;
}

/* Changes last: a thread that is seen to be made from then on has inherited all the others. */
static int open_thread(struct dc_sampler *s, struct group *g, uint32_t kinds, uint32_t tid)
{
	for (unsigned kind = 0; kind < DC_PERF_KINDS; kind++)
		for (uint32_t i = 0; (kinds & BIT(kind)) && i < s->cpus.count; i++) {
			const int r = open_event(s, g, (enum dc_perf_kind)kind, tid, &s->cpus.at[i]);

			if (r < 0 && r != -ENODEV) /* a CPU that went away */
				return r;
		}
	return 0;
}

/* --- the threads of a process, some of which may be made while we look --- */

struct opened {
	struct {
		uint32_t tid;
		int64_t since_ns; /* from then on its new threads inherit */
	} * threads;
	uint32_t count;
	uint32_t capacity;
};

static int64_t opened_since(const struct opened *o, uint32_t tid)
{
	for (uint32_t i = o->count; i-- > 0;)
		if (o->threads[i].tid == tid)
			return o->threads[i].since_ns;
	return INT64_MAX;
}

static int note_opened(struct opened *o, uint32_t tid, int64_t since_ns)
{
	if (GROW(o->threads, o->count, o->capacity, 64) < 0)
		return -ENOMEM;
	o->threads[o->count].tid = tid;
	o->threads[o->count++].since_ns = since_ns;
	return 0;
}

static bool inherited(const struct dc_sampler *s, const struct opened *o, uint32_t tid)
{
	const uint32_t known = s->fork_count < FORKS_MAX ? s->fork_count : FORKS_MAX;

	for (uint32_t i = 0; i < known; i++)
		if (s->forks[i].tid == tid && opened_since(o, s->forks[i].by) <= s->forks[i].at_ns)
			return true;
	return false;
}

static int look_at(struct dc_sampler *s, struct group *g, uint32_t kinds, uint32_t tid, struct opened *o, bool *ret_new)
{
	int r;

	if (opened_since(o, tid) != INT64_MAX)
		return 0;
	*ret_new = true;
	if (inherited(s, o, tid))
		return note_opened(o, tid, 0);
	r = open_thread(s, g, kinds, tid);
	if (r == -ESRCH)
		return 0; /* it ended */
	return r < 0 ? r : note_opened(o, tid, dc_sampler_now_ns());
}

static int list_threads(uint32_t pid, DIR **ret_dir)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%u/task", pid);
	*ret_dir = opendir(path);
	return *ret_dir ? 0 : errno == ENOENT ? -ESRCH : -errno;
}

static int open_process(struct dc_sampler *s, struct group *g, uint32_t kinds, uint32_t pid, struct opened *o)
{
	bool new = true;
	int r = 0;

	for (unsigned look = 0; r == 0 && new &&look < LOOKS_MAX; look++) {
		struct dirent *e;
		DIR *d;

		new = false;
		r = list_threads(pid, &d);
		if (r < 0)
			return look ? 0 : r;
		while (r == 0 && (e = readdir(d))) {
			const uint32_t tid = (uint32_t)strtoul(e->d_name, NULL, 10);

			if (tid)
				r = look_at(s, g, kinds, tid, o, &new);
		}
		closedir(d);
		dc_sampler_drain(s);
	}
	return r;
}

static int open_processes(struct dc_sampler *s, struct group *g, uint32_t kinds)
{
	struct opened o = {0};
	int r = -ESRCH;

	for (uint32_t i = 0; i < s->process_count; i++) {
		const struct process *p = s->processes[i];
		int one;

		if ((p->group != g && p->boost != g) || p->ended)
			continue;
		one = open_process(s, g, kinds, p->pid, &o);
		if (one != -ESRCH)
			r = one;
		if (one < 0 && one != -ESRCH)
			break;
	}
	free(o.threads);
	return r;
}

int dc_group_open(struct dc_sampler *s, struct group *g, uint32_t kinds)
{
	int r;

	if (!s->kernel) /* where the kernel's mode is hidden no switch is ever sampled: it happens there */
		kinds &= ~BIT(DC_PERF_OFF);
	dc_group_close(s, g, kinds);
	r = g->root == 0 ? open_thread(s, g, kinds, 0) : open_processes(s, g, kinds);
	if (r < 0)
		dc_group_close(s, g, kinds);
	else
		g->kinds |= kinds;
	return r;
}

/* --- tuning --- */

struct counting {
	struct dc_sampler *s;
	uint32_t seen;
	uint64_t bytes;
	struct process *last;
	struct process *only; /* whose ring it is; NULL: everybody's */
};

static bool count_switch(void *arg, const struct perf_event_header *record, size_t bytes)
{
	struct counting *c = arg;
	struct dc_perf_who who;

	c->bytes += bytes;
	if (dc_perf_record_who(record, bytes, &who) < 0 || !(record->misc & PERF_RECORD_MISC_SWITCH_OUT))
		return c->bytes < COUNTED_MAX * 32;
	if (c->only) {
		c->only->group->here++;
	} else if (c->s->host) {
		c->s->host->here++;
	} else {
		if (!c->last || c->last->pid != who.pid)
			c->last = dc_sampler_find(c->s, who.pid);
		if (c->last && c->last->group)
			c->last->group->here++;
	}
	c->seen++;
	return c->seen < COUNTED_MAX;
}

/* The newest ones of each CPU stand for all that came since. */
static void count_ring(struct dc_sampler *s, struct cpu *c, struct process *of)
{
	struct counting counting = {.s = s, .only = of};
	uint64_t written;
	double all;

	if (!c->ring[RING_SWITCHES].page)
		return;
	written = dc_perf_ring_written(&c->ring[RING_SWITCHES]);
	if (written == c->counted)
		return;
	dc_perf_ring_walk(&c->ring[RING_SWITCHES], c->counted, count_switch, &counting);
	all = counting.bytes ? (double)(written - c->counted) / (double)counting.bytes : 0;
	for (uint32_t k = 0; k < s->group_count; k++) {
		s->groups[k]->switches += s->groups[k]->here * all;
		s->groups[k]->here = 0;
	}
	c->counted = written;
}

static void count_switches(struct dc_sampler *s)
{
	for (uint32_t i = 0; i < s->cpus.count; i++)
		count_ring(s, &s->cpus.at[i], NULL);
	for (uint32_t k = 0; k < s->process_count; k++)
		for (uint32_t i = 0; i < s->processes[k]->own.count && s->processes[k]->group; i++)
			count_ring(s, &s->processes[k]->own.at[i], s->processes[k]);
}

static uint32_t shift_for(double rate, double most)
{
	uint32_t shift = 0;

	while (shift < OFF_SHIFT_MAX && rate > most * (double)(UINT64_C(1) << shift))
		shift++;
	return shift;
}

static void retune(struct dc_sampler *s, struct group *g, uint32_t wanted, int64_t now)
{
	const uint32_t before = g->shift;

	g->shift = g->handed ? dc_group_fit(wanted) : wanted;
	g->window_ns = now;
	g->needed = 0;
	g->settled = true;
	if (g->handed && g->shift != before)
		dc_group_step(g);
	else if (!g->handed && g->kinds & BIT(DC_PERF_OFF))
		dc_group_open(s, g, BIT(DC_PERF_OFF));
}

/* Up at once (rings fill with what nobody needs), down when a whole window agrees. */
static void tune(struct dc_sampler *s, struct group *g, double most, double rate, int64_t now)
{
	const uint32_t needed = shift_for(rate, most);

	if (needed > g->needed)
		g->needed = needed;
	if (needed > g->shift && rate > 1.5 * most * (double)(UINT64_C(1) << g->shift))
		retune(s, g, needed, now);
	else if (now - g->window_ns < (g->settled ? WINDOW_NS : WINDOW_FIRST_NS))
		return;
	else if (g->needed + 1 < g->shift || (g->needed == 0 && g->shift))
		retune(s, g, g->needed, now);
	g->window_ns = now;
	g->needed = 0;
	g->settled = true;
}

/* It called exec, or the copies turned out to be far too large or too small. */
static void reshape(struct dc_sampler *s, struct group *g)
{
	const uint32_t before = g->copy_bytes;

	if (g->handed)
		return;
	if (g->decide)
		dc_group_decide(s, g);
	else if (before)
		g->copy_bytes = s->copy_bytes;
	g->decide = false;
	if (g->copy_bytes != before && (g->kinds & STACK_KINDS))
		dc_group_open(s, g, g->kinds & STACK_KINDS);
}

/* So many a second and CPU in all: the rings are shared. */
static double allowed(const struct dc_sampler *s, const struct group *g, uint32_t busy)
{
	const double all = (double)g->hz * (double)s->cpus.count / (busy ? busy : 1);

	return !s->host && all > g->hz ? g->hz : all;
}

void dc_group_tune_all(struct dc_sampler *s, int64_t now)
{
	const double seconds = s->tuned_ns ? (double)(now - s->tuned_ns) / 1e9 : 0;
	uint32_t busy = 0;

	if (s->tuned_ns && seconds < 0.1)
		return;
	s->tuned_ns = now;
	count_switches(s);
	for (uint32_t i = 0; i < s->group_count; i++)
		busy += s->groups[i]->switches > 0;
	for (uint32_t i = 0; i < s->group_count; i++) {
		struct group *g = s->groups[i];

		if (seconds > 0 && g->hz)
			tune(s, g, allowed(s, g, busy), g->switches / seconds, now);
		g->switches = 0;
		reshape(s, g);
	}
}
