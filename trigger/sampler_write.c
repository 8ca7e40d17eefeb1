/* SPDX-License-Identifier: MIT */
/*
 * From the rings to a capture. Each ring is paused while what is wanted of it is copied and made into samples (some ms for
 * 8 MiB), then goes on; sorting and writing come after, without the lock.
 */
#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "trigger/perf_record.h"
#include "trigger/sampler_inside.h"

#define DISORDER_NS 1000000 /* a record's time is taken before its place in the ring */

struct entry {
	int64_t time_ns;
	size_t offset;
};

/* Samples of one process as they are found: newest first, CPU by CPU. */
struct gathering {
	const struct dc_sampler *s;
	const struct process *process;
	uint32_t pid;
	int64_t from_ns;
	int64_t to_ns;
	int64_t oldest_ns; /* of the ring that is being walked, of any process */
	uint8_t *bytes;
	size_t used;
	size_t size;
	struct entry *entries;
	size_t count;
	size_t capacity;
	struct dc_sampler_totals totals;
	int error;
};

static bool make_room(struct gathering *g)
{
	void *more;

	if (g->size - g->used < DC_PERF_SAMPLE_MAX) {
		const size_t size = g->size * 2 + 16 * DC_PERF_SAMPLE_MAX;

		more = realloc(g->bytes, size);
		if (!more)
			return false;
		g->bytes = more;
		g->size = size;
	}
	if (g->count == g->capacity) {
		const size_t capacity = g->capacity ? g->capacity * 2 : 1024;

		more = reallocarray(g->entries, capacity, sizeof(*g->entries));
		if (!more)
			return false;
		g->entries = more;
		g->capacity = capacity;
	}
	return true;
}

static int make_sample(struct gathering *g, const struct perf_event_header *record, size_t bytes, uint64_t id,
		       int64_t time_ns, struct dc_sample *ret_sample)
{
	const struct event_id *e = record->type == PERF_RECORD_SAMPLE ? dc_sampler_event(g->s, id) : NULL;
	const bool raised = g->s->host && dc_process_raised_at(g->process, time_ns);

	if (record->type != PERF_RECORD_SAMPLE)
		return dc_perf_record_switch(record, bytes, ret_sample);
	if (!e)
		return -ENOENT;
	if (e->kind == DC_PERF_OFF)
		return dc_perf_record_sample(record, bytes, e->copied, DC_SAMPLE_OFF, UINT64_C(1) << e->shift,
					     ret_sample);
	if (!e->hz || (!e->boost && raised)) /* the host's event goes on beside the process's own: one of them counts */
		return -ENOENT;
	return dc_perf_record_sample(record, bytes, e->copied, DC_SAMPLE_CPU, 1000000000 / e->hz, ret_sample);
}

static bool gather(void *arg, const struct perf_event_header *record, size_t bytes)
{
	struct gathering *g = arg;
	struct dc_perf_who who;
	struct dc_sample *sample;

	g->totals.lost += dc_perf_record_lost(record, bytes);
	if (dc_perf_record_who(record, bytes, &who) < 0)
		return true;
	g->oldest_ns = who.time_ns;
	if (who.time_ns < g->from_ns - DISORDER_NS)
		return false;
	if (who.pid != g->pid || who.tid == UINT32_MAX /* the last switch of a thread that is no more */ ||
	    who.time_ns < g->from_ns || who.time_ns > g->to_ns)
		return true;
	if (!make_room(g)) {
		g->error = -ENOMEM;
		return false;
	}
	sample = (struct dc_sample *)(void *)(g->bytes + g->used);
	if (make_sample(g, record, bytes, who.id, who.time_ns, sample) < 0)
		return true;
	g->entries[g->count++] = (struct entry){who.time_ns, g->used};
	g->used += sample->bytes;
	if (record->type == PERF_RECORD_SAMPLE)
		g->totals.samples++;
	else
		g->totals.switches++;
	return true;
}

/* Return: since when all of it is there. */
static int64_t gather_ring(struct gathering *g, const struct cpu *c, enum ring_of ring)
{
	bool whole;

	if (dc_perf_pause(c->anchor[ring], true) < 0)
		return INT64_MAX;
	g->oldest_ns = g->from_ns;
	whole = dc_perf_ring_walk(&c->ring[ring], 0, gather, g);
	dc_perf_pause(c->anchor[ring], false);
	return whole ? g->from_ns : g->oldest_ns;
}

static void gather_all(struct gathering *g)
{
	const struct cpus *of = g->process->own.count ? &g->process->own : &g->s->cpus;
	int64_t samples = g->from_ns, switches = g->from_ns;

	for (uint32_t i = 0; g->error == 0 && i < of->count; i++) {
		const int64_t a = gather_ring(g, &of->at[i], RING_STACKS);
		const int64_t b = gather_ring(g, &of->at[i], RING_SWITCHES);

		samples = a > samples ? a : samples;
		switches = b > switches ? b : switches;
	}
	g->totals.samples_from_ns = samples;
	g->totals.switches_from_ns = switches;
}

static int by_time(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->time_ns != y->time_ns)
		return x->time_ns < y->time_ns ? -1 : 1;
	return x->offset > y->offset ? -1 : x->offset < y->offset; /* found later: older */
}

static int write_blocks(const struct gathering *g, uint32_t process, struct dc_writer *w)
{
	size_t used = 0;
	uint8_t *payload = NULL;
	int r = 0;

	for (size_t i = 0; r == 0 && i < g->count; i++) {
		const struct dc_sample *s = (const struct dc_sample *)(const void *)(g->bytes + g->entries[i].offset);

		if (payload && used + s->bytes > DC_WRITER_PAYLOAD_MAX) {
			r = dc_writer_commit(w, DC_BLOCK_SAMPLES, process, used);
			payload = NULL;
			used = 0;
		}
		if (r == 0 && !payload && !(payload = dc_writer_reserve(w)))
			r = dc_writer_error(w);
		if (r < 0)
			return r;
		memcpy(payload + used, s, s->bytes);
		used += s->bytes;
	}
	return r == 0 && payload ? dc_writer_commit(w, DC_BLOCK_SAMPLES, process, used) : r;
}

int dc_sampler_write(struct dc_sampler *s, uint32_t pid, uint32_t process, int64_t from_ns, int64_t to_ns,
		     struct dc_writer *w, struct dc_sampler_totals *ret_totals)
{
	struct gathering g = {.s = s, .pid = pid, .from_ns = from_ns, .to_ns = to_ns};
	const struct raised *raised;
	const struct process *p;
	int r;

	pthread_mutex_lock(&s->lock);
	p = s->on ? dc_sampler_find(s, pid) : NULL;
	raised = p ? dc_process_raised(p) : NULL;
	if (p && p->from_ns > g.from_ns)
		g.from_ns = p->from_ns;
	if (p && !s->config.hz && raised && raised->from_ns > g.from_ns)
		g.from_ns = raised->from_ns;
	g.process = p;
	if (p && (p->group || p->forget_ns) && (s->config.hz || raised))
		gather_all(&g);
	pthread_mutex_unlock(&s->lock);
	r = g.error;
	if (r == 0 && g.count) {
		qsort(g.entries, g.count, sizeof(*g.entries), by_time);
		r = write_blocks(&g, process, w);
	}
	free(g.bytes);
	free(g.entries);
	if (r == 0)
		*ret_totals = g.totals;
	return r;
}
