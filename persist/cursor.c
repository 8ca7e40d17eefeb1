/* SPDX-License-Identifier: MIT */
/*
 * Events of all lanes of all processes in the order of time.
 *
 *    lanes ──► a heap by time of the next event ──► the caller
 *
 * A lane is READY when its next event is decoded: it then holds a copy of the chunk that is being decoded (so
 * the block may leave the cache) and a decoder. Before its first chunk is due and between two chunks it is
 * not: its key is then the time at which the next chunk begins. So memory follows the number of threads that
 * were busy at one moment, not the size of the file.
 *
 * THE LEFT EDGE. Before the first event the spans that were open at `from` are delivered, lane by lane. A
 * lane's last chunk that begins before the edge is decoded up to it, keeping what is begun and not ended; its
 * OPEN records tell of what had begun before the chunk. All arguments are in that one chunk. The lane then
 * starts over on this chunk and what lies before the edge is dropped.
 */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "persist/capture_inside.h"

struct cursor_lane {
	uint64_t key; /* time of the next event, or when the next chunk begins; in the incident's units */
	const struct dc_lane_ref *ref;
	uint32_t next_chunk; /* in c->chunks */
	uint32_t end_chunk;
	uint64_t from; /* the cut in units of the process */
	uint64_t to;
	uint32_t edge_chunk; /* where it starts; the OPEN records of this one are told at the edge */
	bool ready;          /* @event is the next one */
	uint8_t *bytes;      /* copy of the current chunk */
	struct dc_lane_decoder *decoder;
	struct dc_event event;
};

/* A span that is open at the left edge. The decoder forgets a site that came with its event; here it is kept. */
struct edge_span {
	struct dc_event event;
	bool set;
	struct inline_site *own; /* made when first needed */
};

struct inline_site {
	struct dc_site_info info;
	char name[256];
};

struct dc_cursor {
	struct dc_capture *capture;
	struct dc_cut cut;
	char *name;
	uint8_t **matches; /* by process: site id → does its name match; NULL without a name */

	struct cursor_lane *lanes;
	uint32_t lane_count;
	struct cursor_lane **heap;
	uint32_t heap_count;
	struct cursor_lane *delivered; /* its event is in the caller's hands: advance it first */

	uint32_t edge_lane;  /* next lane to look at for open spans */
	uint32_t edge_count; /* spans of the lane before it */
	uint32_t edge_told;  /* of those, delivered or not wanted */
	struct dc_lane_decoder edge_decoder;
	uint8_t edge_bytes[DC_CHUNK_BYTES_MAX];
	struct edge_span edge[DC_DECODE_DEPTH_MAX]; /* by depth */
};

DC_DEFINE_CLEANUP(dc_cursor, struct dc_cursor *, dc_cursor_close)

/* The heap: smallest key on top; lanes of the same key in their order, so that two readings agree. */

static bool before(const struct cursor_lane *a, const struct cursor_lane *b)
{
	return a->key != b->key ? a->key < b->key : a < b;
}

static void sift_down(struct dc_cursor *cur, uint32_t i)
{
	struct cursor_lane *lane = cur->heap[i];

	for (;;) {
		uint32_t child = 2 * i + 1;
		if (child >= cur->heap_count)
			break;
		if (child + 1 < cur->heap_count && before(cur->heap[child + 1], cur->heap[child]))
			child++;
		if (!before(cur->heap[child], lane))
			break;
		cur->heap[i] = cur->heap[child];
		i = child;
	}
	cur->heap[i] = lane;
}

/* Filters. */

static bool name_matches(const struct dc_cursor *cur, unsigned process, const struct dc_event *e)
{
	if (!cur->name)
		return true;
	if (!e->info)
		return false;
	if (e->site == DC_SITE_INLINE)
		return fnmatch(cur->name, e->info->name, 0) == 0;
	return cur->matches[process][e->site];
}

static bool wanted(const struct dc_cursor *cur, const struct cursor_lane *lane, const struct dc_event *e)
{
	if (cur->cut.tid && e->tid != cur->cut.tid)
		return false;
	return name_matches(cur, lane->ref->process, e);
}

/* A lane. */

static void lane_release(struct cursor_lane *lane)
{
	free(lane->bytes);
	free(lane->decoder);
	lane->bytes = NULL;
	lane->decoder = NULL;
	lane->ready = false;
}

static int lane_reserve(struct dc_cursor *cur, struct cursor_lane *lane)
{
	const struct dc_capture_process *p = &cur->capture->processes[lane->ref->process];

	if (lane->decoder)
		return 0;
	lane->bytes = malloc(p->ring.chunk_bytes);
	lane->decoder = malloc(sizeof *lane->decoder);
	if (!lane->bytes || !lane->decoder)
		return -ENOMEM;
	dc_lane_init(lane->decoder, p->schema);
	return 0;
}

/* A chunk into memory of our own, and the decoder on it. 1, or 0: it cannot be had. */
static int load(struct dc_capture *c, const struct dc_chunk_ref *ref, uint8_t *to, struct dc_lane_decoder *d)
{
	const uint8_t *bytes;
	int r = dc_capture_chunk(c, ref, &bytes);

	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* noted when its block was read */
	memcpy(to, bytes, ref->bytes);
	if (dc_lane_feed(d, to, ref->bytes) == 0)
		return 1;
	dc_capture_chunk_fault(c, ref, 0);
	return 0;
}

/* What of the current chunk is not for the caller: outside the cut, or told at the edge. */
static bool outside(const struct cursor_lane *lane, const struct dc_event *e)
{
	if (e->kind == DC_KIND_OPEN && lane->next_chunk - 1 == lane->edge_chunk)
		return true;
	return e->units < lane->from || e->units > lane->to;
}

/* The next event of the current chunk that is wanted. False: the chunk is over. */
static bool lane_step(struct dc_cursor *cur, struct cursor_lane *lane)
{
	struct dc_capture *c = cur->capture;
	const struct dc_chunk_ref *ref = &c->chunks[lane->next_chunk - 1];
	int r;

	do
		r = dc_lane_next(lane->decoder, &lane->event);
	while (r > 0 && (outside(lane, &lane->event) || !wanted(cur, lane, &lane->event)));
	if (r < 0)
		dc_capture_chunk_fault(c, ref, lane->decoder->next_event - ref->first_event);
	return r > 0;
}

static bool lane_has_more(const struct dc_cursor *cur, const struct cursor_lane *lane)
{
	return lane->next_chunk < lane->ref->first + lane->ref->count &&
	       cur->capture->chunks[lane->next_chunk].start_units <= lane->to;
}

static uint64_t chunk_key(const struct dc_cursor *cur, const struct cursor_lane *lane)
{
	uint64_t start = cur->capture->chunks[lane->next_chunk].start_units;
	return dc_capture_from_process(cur->capture, lane->ref->process,
				       start > lane->from ? start : lane->from);
}

/* To the lane's next event, or to its next chunk. Sets the key; false: the lane is at its end. */
static bool lane_advance(struct dc_cursor *cur, struct cursor_lane *lane)
{
	lane->ready = lane_step(cur, lane);
	if (lane->ready) {
		lane->key = dc_capture_from_process(cur->capture, lane->ref->process, lane->event.units);
		return true;
	}
	if (!lane_has_more(cur, lane)) {
		lane_release(lane);
		return false;
	}
	lane->key = chunk_key(cur, lane);
	return true;
}

/* The lane on top has no event: its next chunk is due. 1, 0: the lane is at its end. */
static int lane_continue(struct dc_cursor *cur, struct cursor_lane *lane)
{
	int r = lane_reserve(cur, lane);

	if (r == 0)
		r = load(cur->capture, &cur->capture->chunks[lane->next_chunk++], lane->bytes, lane->decoder);
	return r < 0 ? r : lane_advance(cur, lane);
}

/* The left edge. */

static int keep_site(struct edge_span *span)
{
	if (span->event.site != DC_SITE_INLINE)
		return 0;
	if (!span->own && !(span->own = malloc(sizeof *span->own)))
		return -ENOMEM;
	strncpy(span->own->name, span->event.info->name, sizeof span->own->name - 1);
	span->own->name[sizeof span->own->name - 1] = 0;
	span->own->info = *span->event.info;
	span->own->info.name = span->own->name;
	span->own->info.format = span->own->name;
	span->event.info = &span->own->info;
	return 0;
}

static int edge_event(struct dc_cursor *cur, const struct cursor_lane *lane, const struct dc_event *e)
{
	struct edge_span *span = &cur->edge[(e->depth - 1) % DC_DECODE_DEPTH_MAX];

	if (e->kind == DC_KIND_THREAD)
		cur->edge_count = 0;
	if (e->kind == DC_KIND_END && e->depth <= cur->edge_count) /* never more than are kept: depth may be any */
		cur->edge_count = e->depth ? e->depth - 1 : 0;
	if ((e->kind != DC_KIND_OPEN && e->kind != DC_KIND_BEGIN) || e->depth > DC_DECODE_DEPTH_MAX)
		return 0;
	while (cur->edge_count < e->depth) /* spans between, of which nothing is known */
		cur->edge[cur->edge_count++].set = false;
	span->event = *e;
	span->set = true;
	span->event.kind = DC_KIND_OPEN;
	if (e->kind == DC_KIND_BEGIN)
		span->event.start_units = e->units;
	if (span->event.units < lane->from)
		span->event.units = lane->from;
	return keep_site(span);
}

/* Fills cur->edge with the spans that are open in @lane at the left edge. */
static int edge_read(struct dc_cursor *cur, const struct cursor_lane *lane)
{
	struct dc_capture *c = cur->capture;
	const struct dc_chunk_ref *ref = &c->chunks[lane->edge_chunk];
	struct dc_event e;

	cur->edge_count = 0;
	cur->edge_told = 0;
	dc_lane_init(&cur->edge_decoder, c->processes[ref->process].schema);
	int r = load(c, ref, cur->edge_bytes, &cur->edge_decoder);
	if (r <= 0)
		return r;
	while ((r = dc_lane_next(&cur->edge_decoder, &e)) > 0) {
		if (e.kind != DC_KIND_OPEN && e.units >= lane->from)
			return 0;
		r = edge_event(cur, lane, &e);
		if (r < 0)
			return r;
	}
	return 0; /* a fault is noted when the lane comes to it */
}

static void give(const struct dc_cursor *cur, const struct cursor_lane *lane, const struct dc_event *e,
		 struct dc_cursor_event *ret_event)
{
	const struct dc_capture *c = cur->capture;

	ret_event->event = *e;
	ret_event->process = lane->ref->process;
	ret_event->lane = lane->ref->lane;
	ret_event->t_ns = dc_clock_realtime_ns(&c->clock,
					       dc_capture_from_process(c, lane->ref->process, e->units));
}

/* 1: an open span; 0: all have been told. */
static int edge_next(struct dc_cursor *cur, struct dc_cursor_event *ret_event)
{
	for (;;) {
		while (cur->edge_told < cur->edge_count) {
			const struct cursor_lane *lane = &cur->lanes[cur->edge_lane - 1];
			const struct edge_span *span = &cur->edge[cur->edge_told++];
			if (!span->set || !wanted(cur, lane, &span->event))
				continue;
			give(cur, lane, &span->event, ret_event);
			return 1;
		}
		if (cur->edge_lane == cur->lane_count)
			return 0;
		int r = edge_read(cur, &cur->lanes[cur->edge_lane++]);
		if (r < 0)
			return r;
	}
}

/* All events. */

static void settle_top(struct dc_cursor *cur, bool stays)
{
	if (!stays)
		cur->heap[0] = cur->heap[--cur->heap_count];
	if (cur->heap_count)
		sift_down(cur, 0);
}

int dc_cursor_next(struct dc_cursor *cur, struct dc_cursor_event *ret_event)
{
	int r = edge_next(cur, ret_event);
	if (r)
		return r;
	if (cur->delivered) {
		struct cursor_lane *lane = TAKE(cur->delivered);
		settle_top(cur, lane_advance(cur, lane));
	}
	while (cur->heap_count) {
		struct cursor_lane *lane = cur->heap[0];
		if (lane->ready) {
			give(cur, lane, &lane->event, ret_event);
			cur->delivered = lane;
			return 1;
		}
		r = lane_continue(cur, lane);
		if (r < 0)
			return r;
		settle_top(cur, r > 0);
	}
	return 0;
}

/* Opening. */

static int match_names(struct dc_cursor *cur, const char *name)
{
	const struct dc_capture *c = cur->capture;

	if (!name)
		return 0;
	cur->name = strdup(name);
	cur->matches = calloc(c->process_count + 1, sizeof *cur->matches);
	if (!cur->name || !cur->matches)
		return -ENOMEM;
	for (unsigned i = 0; i < c->process_count; i++) {
		const struct dc_schema *schema = c->processes[i].schema;
		cur->matches[i] = calloc(schema->count, 1);
		if (!cur->matches[i])
			return -ENOMEM;
		for (uint32_t site = 0; site < schema->count; site++)
			cur->matches[i][site] = fnmatch(name, schema->sites[site].name, 0) == 0;
	}
	return 0;
}

static bool process_wanted(const struct dc_cursor *cur, unsigned i)
{
	const struct dc_capture_process *p = &cur->capture->processes[i];
	return !cur->cut.pid || p->fields.pid == cur->cut.pid || p->ring.pid == cur->cut.pid;
}

/* The bounds of the cut in the incident's units. */
static void bounds(const struct dc_cursor *cur, uint64_t *ret_from, uint64_t *ret_to)
{
	const struct dc_capture *c = cur->capture;
	uint64_t from = cur->cut.everything ? 0 : c->incident.from_units;
	uint64_t to = cur->cut.everything ? UINT64_MAX : c->incident.to_units;

	if (cur->cut.from_ns && dc_clock_units(&c->clock, cur->cut.from_ns) > from)
		from = dc_clock_units(&c->clock, cur->cut.from_ns);
	if (cur->cut.to_ns && dc_clock_units(&c->clock, cur->cut.to_ns) < to)
		to = dc_clock_units(&c->clock, cur->cut.to_ns);
	*ret_from = from;
	*ret_to = to;
}

/* The last chunk that begins before the edge, else the first there is. */
static uint32_t find_edge_chunk(const struct dc_capture *c, const struct dc_lane_ref *ref, uint64_t from)
{
	uint32_t edge = ref->first;
	for (uint32_t i = 1; i < ref->count && c->chunks[ref->first + i].start_units <= from; i++)
		edge = ref->first + i;
	return edge;
}

static void add_lane(struct dc_cursor *cur, const struct dc_lane_ref *ref, uint64_t from, uint64_t to)
{
	struct dc_capture *c = cur->capture;
	struct cursor_lane *lane = &cur->lanes[cur->lane_count];

	lane->ref = ref;
	lane->from = dc_capture_to_process(c, ref->process, from);
	lane->to = dc_capture_to_process(c, ref->process, to);
	lane->edge_chunk = find_edge_chunk(c, ref, lane->from);
	lane->next_chunk = lane->edge_chunk;
	if (c->chunks[lane->edge_chunk].start_units > lane->to)
		return;
	lane->key = chunk_key(cur, lane);
	cur->lane_count++;
}

/* By the place of the chunk at the edge, so that looking at all of them reads no block twice. */
static int by_edge_place(const void *left, const void *right, void *chunks)
{
	const struct dc_chunk_ref *a = (struct dc_chunk_ref *)chunks +
				       ((const struct cursor_lane *)left)->edge_chunk;
	const struct dc_chunk_ref *b = (struct dc_chunk_ref *)chunks +
				       ((const struct cursor_lane *)right)->edge_chunk;

	if (a->block != b->block)
		return a->block < b->block ? -1 : 1;
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int add_lanes(struct dc_cursor *cur)
{
	struct dc_capture *c = cur->capture;
	uint64_t from, to;

	bounds(cur, &from, &to);
	cur->lanes = calloc(c->lane_count + 1, sizeof *cur->lanes);
	cur->heap = calloc(c->lane_count + 1, sizeof *cur->heap);
	if (!cur->lanes || !cur->heap)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->lane_count && from <= to; i++)
		if (process_wanted(cur, c->lanes[i].process))
			add_lane(cur, &c->lanes[i], from, to);
	qsort_r(cur->lanes, cur->lane_count, sizeof *cur->lanes, by_edge_place, c->chunks);
	for (uint32_t i = 0; i < cur->lane_count; i++)
		cur->heap[cur->heap_count++] = &cur->lanes[i];
	for (uint32_t i = cur->heap_count / 2; i--;)
		sift_down(cur, i);
	return 0;
}

int dc_cursor_open(struct dc_capture *c, const struct dc_cut *cut, struct dc_cursor **ret_cursor)
{
	CLEANUP(dc_cursor) struct dc_cursor *cur = calloc(1, sizeof *cur);
	if (!cur)
		return -ENOMEM;
	cur->capture = c;
	cur->cut = *cut;
	int r = dc_capture_index(c);
	if (r == 0)
		r = match_names(cur, cut->name);
	if (r == 0)
		r = add_lanes(cur);
	if (r == 0)
		*ret_cursor = TAKE(cur);
	return r;
}

void dc_cursor_close(struct dc_cursor *cur)
{
	if (!cur)
		return;
	for (unsigned i = 0; i < DC_DECODE_DEPTH_MAX; i++)
		free(cur->edge[i].own);
	for (uint32_t i = 0; i < cur->lane_count; i++)
		lane_release(&cur->lanes[i]);
	free(cur->heap);
	free(cur->lanes);
	for (unsigned i = 0; cur->matches && i < cur->capture->process_count; i++)
		free(cur->matches[i]);
	free(cur->matches);
	free(cur->name);
	free(cur);
}
