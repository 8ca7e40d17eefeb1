/* SPDX-License-Identifier: MIT */
/*
 * Every event of a process, and what they add up to.
 *
 * Chunks are taken in the order of the file, so that each block is read once, with one decoder per lane. That is also
 * the order of each lane, as everything that writes captures goes forward in time; where a file has it otherwise,
 * lanes are taken one after the other instead, which is right in any case but may read blocks more than once.
 *
 * A block of columns of which every chunk is wanted, one after the other (in a settled file: all of them), is read
 * straight from the columns. Any other chunk comes by its bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "persist/capture_inside.h"
#include "persist/columns_inside.h"

typedef int (*each_fn)(void *arg, const struct dc_event *event);

/* The chunks of one process, in the order to take them. */
struct plan {
	uint32_t first_lane; /* in c->lanes */
	uint32_t lane_count;
	uint32_t *order;   /* numbers of chunks */
	uint32_t *lane_of; /* of each chunk, counted from first_lane; by chunk number - first chunk */
	uint32_t first_chunk;
	uint32_t chunk_count;
	struct dc_lane_decoder **decoders; /* by lane, made when first needed */
	struct dc_columns columns;         /* of the block that is read straight from them */
	struct dc_cache_slot payload;      /* its .block says which that is; ~0: none */
};

static void end_columns(struct plan *p)
{
	dc_columns_close(&p->columns);
	p->payload.block = UINT32_MAX;
}

static void plan_cleanup(struct plan *p)
{
	for (uint32_t i = 0; p->decoders && i < p->lane_count; i++)
		free(p->decoders[i]);
	end_columns(p);
	free(p->payload.payload);
	free(p->decoders);
	free(p->lane_of);
	free(p->order);
}

static int by_place(const void *left, const void *right, void *chunks)
{
	const struct dc_chunk_ref *a = (struct dc_chunk_ref *)chunks + *(const uint32_t *)left;
	const struct dc_chunk_ref *b = (struct dc_chunk_ref *)chunks + *(const uint32_t *)right;

	if (a->block != b->block)
		return a->block < b->block ? -1 : 1;
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* Chunk numbers go up within a lane; so must they in the order of the file. */
static bool keeps_lanes_in_order(const struct plan *p)
{
	CLEANUP(free) uint32_t *last = calloc(p->lane_count ? p->lane_count : 1, sizeof *last);
	if (!last)
		return false;
	for (uint32_t i = 0; i < p->chunk_count; i++) {
		uint32_t lane = p->lane_of[p->order[i] - p->first_chunk];
		if (p->order[i] + 1 < last[lane])
			return false;
		last[lane] = p->order[i] + 1;
	}
	return true;
}

static int plan_init(struct plan *p, struct dc_capture *c, unsigned process)
{
	p->payload.block = UINT32_MAX;
	while (p->first_lane < c->lane_count && c->lanes[p->first_lane].process < process)
		p->first_lane++;
	const struct dc_lane_ref *lane = c->lanes + p->first_lane;
	while (p->first_lane + p->lane_count < c->lane_count && lane[p->lane_count].process == process)
		p->chunk_count += lane[p->lane_count++].count;
	p->first_chunk = p->lane_count ? lane->first : 0;
	p->order = calloc(p->chunk_count + 1, sizeof *p->order);
	p->lane_of = calloc(p->chunk_count + 1, sizeof *p->lane_of);
	p->decoders = calloc(p->lane_count + 1, sizeof *p->decoders);
	if (!p->order || !p->lane_of || !p->decoders)
		return -ENOMEM;
	for (uint32_t i = 0, n = 0; i < p->lane_count; i++)
		for (uint32_t k = 0; k < lane[i].count; k++, n++) {
			p->order[n] = p->first_chunk + n;
			p->lane_of[n] = i;
		}
	qsort_r(p->order, p->chunk_count, sizeof *p->order, by_place, c->chunks);
	if (!keeps_lanes_in_order(p))
		for (uint32_t n = 0; n < p->chunk_count; n++)
			p->order[n] = p->first_chunk + n;
	return 0;
}

static struct dc_lane_decoder *decoder_of(struct plan *p, uint32_t lane, const struct dc_schema *schema)
{
	if (!p->decoders[lane]) {
		p->decoders[lane] = malloc(sizeof **p->decoders);
		if (p->decoders[lane])
			dc_lane_init(p->decoders[lane], schema);
	}
	return p->decoders[lane];
}

/* Whether the chunks at @place and after are those of @block, all of them and in its order. */
static bool are_next(const struct dc_capture *c, const struct plan *p, uint32_t place, uint32_t block)
{
	if (p->columns.block.count > p->chunk_count - place)
		return false;
	for (uint32_t i = 0; i < p->columns.block.count; i++) {
		const struct dc_chunk_ref *ref = &c->chunks[p->order[place + i]];

		if (ref->block != block || ref->entry != i ||
		    ref->bytes != dc_columns_chunk_bytes(&p->columns, i))
			return false;
	}
	return true;
}

/* What is wrong with a block, if anything, will be found and said when its chunks are asked for instead. */
static void begin_columns(struct dc_capture *c, struct plan *p, uint32_t place)
{
	const struct dc_chunk_ref *ref = &c->chunks[p->order[place]];

	if (ref->entry || c->blocks[ref->block].type != DC_BLOCK_COLUMNS ||
	    dc_capture_columns(c, ref->block, &p->payload) < 0)
		return;
	if (dc_columns_open(&p->columns, p->payload.payload, p->payload.bytes) == 0 &&
	    are_next(c, p, place, ref->block) &&
	    dc_columns_understand(&p->columns, c->processes[ref->process].schema))
		p->payload.block = ref->block;
	else
		end_columns(p);
}

/* What totals want to know besides the events: when a chunk begins, and when all of it was delivered. */
struct hooks {
	void (*begin)(void *arg, const struct dc_chunk_ref *ref, const struct dc_lane_decoder *d);
	void (*end)(void *arg, const struct dc_chunk_ref *ref);
};

static void no_begin(void *arg, const struct dc_chunk_ref *ref, const struct dc_lane_decoder *d)
{
	(void)arg, (void)ref, (void)d;
}

static void no_end(void *arg, const struct dc_chunk_ref *ref)
{
	(void)arg, (void)ref;
}

static const struct hooks no_hooks = {no_begin, no_end};

static int decode_chunk(struct dc_capture *c, struct plan *p, const struct dc_chunk_ref *ref, each_fn each,
			void *arg, const struct hooks *hooks)
{
	uint32_t lane = p->lane_of[ref - c->chunks - p->first_chunk];
	struct dc_lane_decoder *d = decoder_of(p, lane, c->processes[ref->process].schema);
	const bool columns = ref->block == p->payload.block;
	const uint8_t *bytes;

	if (!d)
		return -ENOMEM;
	int r = columns ? 0 : dc_capture_chunk(c, ref, &bytes);
	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* noted when its block was read */
	hooks->begin(arg, ref, d);
	uint64_t before = d->events;
	r = columns ? dc_columns_each(&p->columns, d, each, arg)
		    : dc_lane_decode(d, bytes, ref->bytes, each, arg);
	if (d->faulty || (r == 0 && d->events - before != ref->events))
		dc_capture_chunk_fault(c, ref, d->events - before);
	if (columns && (d->faulty || p->columns.chunk == p->columns.block.count))
		end_columns(p);
	if (d->faulty)
		r = 0;
	hooks->end(arg, ref);
	return r;
}

static int each_chunk(struct dc_capture *c, unsigned process, each_fn each, void *arg,
		      const struct hooks *hooks)
{
	CLEANUP(plan) struct plan p = {0};
	int r = dc_capture_index(c);

	if (r == 0)
		r = plan_init(&p, c, process);
	for (uint32_t i = 0; i < p.chunk_count && r == 0; i++) {
		if (p.payload.block == UINT32_MAX)
			begin_columns(c, &p, i);
		r = decode_chunk(c, &p, &c->chunks[p.order[i]], each, arg, hooks);
	}
	return r;
}

int dc_capture_each(struct dc_capture *c, unsigned process,
		    int (*each)(void *arg, const struct dc_event *event), void *arg)
{
	return each_chunk(c, process, each, arg, &no_hooks);
}

/* Totals. */

struct summing {
	struct dc_capture_totals totals;
	uint64_t from;
	uint64_t to;
	uint64_t chunk_events;           /* of the current chunk, in the window */
	const struct dc_lane_ref *lanes; /* of the process */
	bool *seen;                      /* lane has an event in the window; by its place in @lanes */
	uint32_t lane_count;
};

static int sum_event(void *arg, const struct dc_event *e)
{
	struct summing *s = arg;

	if (e->units < s->from || e->units > s->to || e->kind == DC_KIND_OPEN || e->kind == DC_KIND_THREAD ||
	    e->implied)
		return 0;
	s->chunk_events++;
	if (e->units < s->totals.first_units)
		s->totals.first_units = e->units;
	if (e->units > s->totals.last_units)
		s->totals.last_units = e->units;
	return 0;
}

/* A gap before a chunk of the window is a gap in the window: what lies wholly before it was not asked for. */
static void sum_begin(void *arg, const struct dc_chunk_ref *ref, const struct dc_lane_decoder *d)
{
	struct summing *s = arg;

	s->chunk_events = 0;
	if (d->next_event != UINT64_MAX && ref->first_event > d->next_event && ref->start_units >= s->from &&
	    ref->start_units <= s->to)
		s->totals.overwritten += ref->first_event - d->next_event;
}

static int by_lane(const void *key, const void *element)
{
	const struct dc_chunk_ref *ref = key;
	const struct dc_lane_ref *lane = element;
	return ref->lane < lane->lane ? -1 : ref->lane > lane->lane;
}

static void sum_end(void *arg, const struct dc_chunk_ref *ref)
{
	struct summing *s = arg;

	if (!s->chunk_events)
		return;
	s->totals.events += s->chunk_events;
	s->totals.raw_bytes += ref->bytes;
	const struct dc_lane_ref *lane = bsearch(ref, s->lanes, s->lane_count, sizeof *lane, by_lane);
	s->totals.lanes += lane && !s->seen[lane - s->lanes];
	if (lane)
		s->seen[lane - s->lanes] = true;
}

static const struct hooks sum_hooks = {sum_begin, sum_end};

static int sum(struct dc_capture *c, unsigned i, struct dc_capture_totals *ret_totals)
{
	const struct dc_capture_process *p = &c->processes[i];
	struct summing s = {.totals.first_units = UINT64_MAX};
	int r = dc_capture_index(c);

	if (r < 0)
		return r;
	s.lanes = c->lanes;
	while (s.lanes < c->lanes + c->lane_count && s.lanes->process < i)
		s.lanes++;
	while (s.lanes + s.lane_count < c->lanes + c->lane_count && s.lanes[s.lane_count].process == i)
		s.lane_count++;
	CLEANUP(free) bool *seen = calloc(s.lane_count + 1, sizeof *seen);
	if (!seen)
		return -ENOMEM;
	s.seen = seen;
	dc_capture_window(c, i, &s.from, &s.to);
	r = each_chunk(c, i, sum_event, &s, &sum_hooks);
	s.totals.overwritten += p->lost_overwritten;
	s.totals.dropped = p->lost_dropped;
	s.totals.discarded = p->lost_discarded;
	if (r == 0)
		*ret_totals = s.totals;
	return r;
}

int dc_capture_totals(struct dc_capture *c, unsigned i, struct dc_capture_totals *ret_totals)
{
	struct dc_capture_process *p = &c->processes[i];
	int r = p->has_totals ? 0 : sum(c, i, &p->totals);

	if (r < 0)
		return r;
	p->has_totals = true;
	*ret_totals = p->totals;
	return 0;
}
