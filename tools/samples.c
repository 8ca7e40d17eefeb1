/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "tools/samples.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"

#define COUNT_MAX (1u << 22) /* of stacks and threads that a hostile file can ask for */

/* Threads and stacks by hashing; sorted when all is counted. */
struct index {
	uint32_t *slots; /* place + 1 */
	uint32_t size; /* power of two */
};

struct counting {
	struct samples *s;
	struct index stacks;
	struct index threads;
	uint32_t room, thread_room;
	int64_t switches_from_ns; /* all are there since then; before it nobody knows how long a thread was off */
	/* the off-CPU stack of each thread that waits for its thread to come back: in its thread's place */
	uint32_t *waiting; /* tally + 1, one a thread */
	struct wait {
		uint64_t weight;
		int64_t since_ns;
	} *waits;
};

#define SAME_SWITCH_NS 100000 /* between a sampled stack and the switch it was taken at */

static uint64_t hash_of(uint64_t key)
{
	key *= UINT64_C(0x9e3779b97f4a7c15);
	return key ^ key >> 29;
}

static int index_grow(struct index *i, uint32_t count, uint64_t (*key_at)(const struct samples *s, uint32_t place),
		      const struct samples *s)
{
	struct index bigger = {.size = i->size ? i->size * 2 : 256};

	if (count * 2 < i->size)
		return 0;
	if (count >= COUNT_MAX)
		return -E2BIG;
	bigger.slots = calloc(bigger.size, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (uint32_t place = 0; place < count; place++) {
		uint64_t at = hash_of(key_at(s, place)) & (bigger.size - 1);

		while (bigger.slots[at])
			at = (at + 1) & (bigger.size - 1);
		bigger.slots[at] = place + 1;
	}
	free(i->slots);
	*i = bigger;
	return 0;
}

/* Where @key is, or the free slot for it. */
static uint32_t *index_slot(const struct index *i, uint64_t key, uint64_t (*key_at)(const struct samples *s, uint32_t place),
			    const struct samples *s)
{
	uint64_t at = hash_of(key) & (i->size - 1);

	while (i->slots[at] && key_at(s, i->slots[at] - 1) != key)
		at = (at + 1) & (i->size - 1);
	return &i->slots[at];
}

static uint64_t tally_key(const struct samples *s, uint32_t place)
{
	return (uint64_t)s->tallies[place].tid << 32 | s->tallies[place].stack;
}

static uint64_t thread_key(const struct samples *s, uint32_t place)
{
	return s->threads[place].tid;
}

/* Return: place, or -errno. */
static int64_t tally_of(struct counting *c, uint32_t tid, uint32_t stack)
{
	struct samples *s = c->s;
	const int r = index_grow(&c->stacks, s->count, tally_key, s);
	uint32_t *slot;

	if (r < 0)
		return r;
	slot = index_slot(&c->stacks, (uint64_t)tid << 32 | stack, tally_key, s);
	if (*slot)
		return *slot - 1;
	if (GROW(s->tallies, s->count, c->room, 128) < 0)
		return -ENOMEM;
	s->tallies[s->count] = (struct tally){.tid = tid, .stack = stack};
	*slot = ++s->count;
	return s->count - 1;
}

static int threads_extend(struct counting *c)
{
	struct samples *s = c->s;
	const uint32_t room = c->thread_room ? c->thread_room * 2 : 64;
	struct thread_tally *threads = reallocarray(s->threads, room, sizeof(*threads));
	uint32_t *waiting;
	struct wait *waits;

	if (threads)
		s->threads = threads;
	waiting = threads ? reallocarray(c->waiting, room, sizeof(*waiting)) : NULL;
	if (waiting)
		c->waiting = waiting;
	waits = waiting ? reallocarray(c->waits, room, sizeof(*waits)) : NULL;
	if (!waits)
		return -ENOMEM;
	c->waits = waits;
	c->thread_room = room;
	return 0;
}

static int64_t thread_of(struct counting *c, uint32_t tid)
{
	struct samples *s = c->s;
	int r = index_grow(&c->threads, s->thread_count, thread_key, s);
	uint32_t *slot;

	if (r < 0)
		return r;
	slot = index_slot(&c->threads, tid, thread_key, s);
	if (*slot)
		return *slot - 1;
	r = s->thread_count == c->thread_room ? threads_extend(c) : 0;
	if (r < 0)
		return r;
	s->threads[s->thread_count] = (struct thread_tally){.tid = tid};
	c->waiting[s->thread_count] = 0;
	*slot = ++s->thread_count;
	return s->thread_count - 1;
}

static int count_cpu(struct counting *c, struct thread_tally *t, const struct dc_sample *h)
{
	const int64_t at = tally_of(c, h->tid, h->stack);

	c->waiting[t - c->s->threads] = 0; /* it runs: what is not known is when it came back */
	t->out_ns = 0;
	if (at < 0)
		return (int)at;
	t->cpu_samples++;
	t->cpu_ns += h->weight_ns;
	c->s->tallies[at].cpu_samples++;
	c->s->tallies[at].cpu_ns += h->weight_ns;
	c->s->cpu_samples++;
	c->s->cpu_ns += h->weight_ns;
	return 0;
}

/* It went off here; for how long the next switch of its thread tells. */
static int count_off(struct counting *c, uint32_t thread, const struct dc_sample *h)
{
	const int64_t at = tally_of(c, h->tid, h->stack);

	if (at < 0)
		return (int)at;
	c->s->tallies[at].off_samples++;
	c->s->off_samples++;
	if (h->monotonic_ns < c->switches_from_ns)
		return 0;
	c->waiting[thread] = (uint32_t)at + 1;
	c->waits[thread] = (struct wait){.weight = h->weight_ns ? h->weight_ns : 1, .since_ns = h->monotonic_ns};
	c->s->threads[thread].out_ns = h->monotonic_ns;
	return 0;
}

static void count_in(struct counting *c, uint32_t thread, int64_t now_ns)
{
	struct thread_tally *t = &c->s->threads[thread];
	const uint64_t off = t->out_ns && now_ns > t->out_ns ? (uint64_t)(now_ns - t->out_ns) : 0;
	struct tally *tally = c->waiting[thread] ? &c->s->tallies[c->waiting[thread] - 1] : NULL;

	t->off_ns += off;
	t->off_max_ns = off > t->off_max_ns ? off : t->off_max_ns;
	if (tally) {
		tally->off_ns += off * c->waits[thread].weight;
		tally->off_max_ns = off > tally->off_max_ns ? off : tally->off_max_ns;
	}
	c->waiting[thread] = 0;
	t->out_ns = 0;
}

static void count_switch(struct counting *c, uint32_t thread, const struct dc_sample *h)
{
	struct thread_tally *t = &c->s->threads[thread];

	c->s->switches = true;
	t->switches += h->kind != DC_SAMPLE_SWITCH_IN;
	t->preempted += h->kind == DC_SAMPLE_SWITCH_PREEMPT;
	if (h->monotonic_ns < c->switches_from_ns)
		return;
	if (h->kind == DC_SAMPLE_SWITCH_IN) {
		count_in(c, thread, h->monotonic_ns);
		return;
	}
	t->out_ns = h->monotonic_ns;
	if (c->waiting[thread] && h->monotonic_ns - c->waits[thread].since_ns > SAME_SWITCH_NS)
		c->waiting[thread] = 0; /* of an earlier one, whose end was not seen */
}

static void count_trigger(struct thread_tally *t, const struct dc_sample_view *v)
{
	if (v->thread) {
		t->stopped_here = true;
		t->state = *v->thread;
		t->stack = v->head.stack;
		snprintf(t->name, sizeof(t->name), "%.15s", v->thread->comm);
	}
	if (v->crash) {
		t->crashed = true;
		t->crash = *v->crash;
		t->crash_stack = v->head.stack;
	}
}

static int count_one(void *arg, const struct dc_sample_view *v)
{
	struct counting *c = arg;
	const struct dc_sample *h = &v->head;
	const int64_t thread = thread_of(c, h->tid);
	const bool switching = h->kind >= DC_SAMPLE_SWITCH_OUT && h->kind <= DC_SAMPLE_SWITCH_IN;

	if (thread < 0)
		return (int)thread;
	c->s->unresolved += !switching && !h->stack;
	switch (h->kind) {
	case DC_SAMPLE_CPU:
		return count_cpu(c, &c->s->threads[thread], h);
	case DC_SAMPLE_OFF:
		return count_off(c, (uint32_t)thread, h);
	case DC_SAMPLE_THREAD:
	case DC_SAMPLE_CRASH:
		count_trigger(&c->s->threads[thread], v);
		return 0;
	default:
		if (switching)
			count_switch(c, (uint32_t)thread, h);
		return 0;
	}
}

/* Off when the window ended: that long at least. */
static void close_open(struct counting *c, int64_t end_ns)
{
	for (uint32_t i = 0; i < c->s->thread_count; i++)
		if (c->s->threads[i].out_ns)
			count_in(c, i, end_ns);
}

static int note_end(void *arg, const struct dc_sample_view *v)
{
	int64_t *end_ns = arg;

	if (v->head.monotonic_ns > *end_ns)
		*end_ns = v->head.monotonic_ns;
	return 0;
}

/*
 * Few of many switches are sampled, and one long wait among them would stand for many: so what a thread was off in all,
 * which its switches tell exactly, is shared out among its stacks by what they had in the samples.
 */
static int share_out(struct counting *c)
{
	struct samples *s = c->s;
	double *weights = calloc(s->thread_count + 1, sizeof(*weights));
	int64_t thread;

	if (!weights)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->count; i++)
		if ((thread = thread_of(c, s->tallies[i].tid)) >= 0)
			weights[thread] += (double)s->tallies[i].off_ns;
	for (uint32_t i = 0; i < s->count; i++) {
		struct tally *t = &s->tallies[i];

		if ((thread = thread_of(c, t->tid)) >= 0 && weights[thread] > 0)
			t->off_ns = (uint64_t)((double)t->off_ns / weights[thread] * (double)s->threads[thread].off_ns);
	}
	free(weights);
	return 0;
}

/* Names that the ring's lanes know better than the kernel; the first thread bears its process's. */
static void name_threads(struct dc_capture *c, unsigned process, struct samples *s)
{
	const struct dc_process *p = dc_capture_process(c, process);
	uint32_t count;
	const struct dc_ring_lane *lanes = dc_capture_lanes(c, process, &count);

	for (uint32_t i = 0; i < s->thread_count; i++)
		for (uint32_t k = 0; k < count; k++)
			if (lanes[k].tid == s->threads[i].tid && lanes[k].comm[0])
				snprintf(s->threads[i].name, sizeof(s->threads[i].name), "%.15s", lanes[k].comm);
	for (uint32_t i = 0; i < s->thread_count; i++)
		if (!s->threads[i].name[0] && (s->threads[i].tid == p->pid || s->threads[i].tid == p->ns_pid))
			snprintf(s->threads[i].name, sizeof(s->threads[i].name), "%.15s", p->name);
}

static int by_cpu(const void *left, const void *right)
{
	const struct tally *a = left, *b = right;

	if (a->cpu_ns != b->cpu_ns)
		return a->cpu_ns > b->cpu_ns ? -1 : 1;
	if (a->off_ns != b->off_ns)
		return a->off_ns > b->off_ns ? -1 : 1;
	return a->stack < b->stack ? -1 : a->stack > b->stack;
}

static int by_tid(const void *left, const void *right)
{
	const struct thread_tally *a = left, *b = right;

	return a->tid < b->tid ? -1 : a->tid > b->tid;
}

int samples_count(struct dc_capture *capture, struct dc_stacks *stacks, unsigned process, const struct dc_cut *cut,
		  struct samples *ret)
{
	struct counting c = {.s = ret, .switches_from_ns = dc_capture_process(capture, process)->switches_from_ns};
	int64_t end_ns = 0;
	int r;

	*ret = (struct samples){0};
	r = dc_stacks_each(stacks, cut, count_one, &c);
	if (r == 0)
		r = dc_stacks_each(stacks, cut, note_end, &end_ns);
	if (r == 0) {
		close_open(&c, end_ns);
		r = share_out(&c);
	}
	if (r == 0) {
		name_threads(capture, process, ret);
		if (ret->count)
			qsort(ret->tallies, ret->count, sizeof(*ret->tallies), by_cpu);
		if (ret->thread_count)
			qsort(ret->threads, ret->thread_count, sizeof(*ret->threads), by_tid);
	}
	free(c.stacks.slots);
	free(c.threads.slots);
	free(c.waiting);
	free(c.waits);
	if (r < 0)
		samples_fini(ret);
	return r;
}

void samples_fini(struct samples *s)
{
	free(TAKE(s->tallies));
	free(TAKE(s->threads));
	s->count = s->thread_count = 0;
}

const struct thread_tally *samples_thread(const struct samples *s, uint32_t tid)
{
	const struct thread_tally key = {.tid = tid};

	return s->thread_count ? bsearch(&key, s->threads, s->thread_count, sizeof(key), by_tid) : NULL;
}
