/* SPDX-License-Identifier: MIT */
/* Copying what was chosen, so that it can be believed, and decoding it. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/tail_inside.h"

#define DECODERS_MAX 512u /* of one ring: 3 MiB */

static int by_lane(const void *left, const void *right)
{
	const struct piece *a = left, *b = right;

	if (a->lane != b->lane)
		return a->lane < b->lane ? -1 : 1;
	return a->first_event < b->first_event ? -1 : a->first_event > b->first_event;
}

/* ---- copying ---- */

/* Who wrote it: from its header, or as known from before. */
static void identify(struct dc_tail *t, struct piece *p)
{
	struct known_chunk *k = &t->chunks[p->index];
	struct dc_chunk_header h;

	if (p->read_from) {
		p->lane = k->lane;
		return;
	}
	memcpy(&h, t->batch + p->offset, sizeof(h));
	p->lane = h.lane;
	p->first_event = h.first_event;
	p->bad |= h.lane >= t->ring->header.lane_cap || (h.generation & 0x7fffffff) != dc_state_generation(p->state);
	k->lane = h.lane;
}

/* As many from @first on as fit. Return: how many; each is then whole, or bad. */
static uint32_t copy_batch(struct dc_tail *t, uint32_t first)
{
	const struct dc_ring_header *h = &t->ring->header;
	uint32_t bytes = 0, end = first;

	/* [chunk-commit] acquire: the state words before the bytes they speak of */
	atomic_thread_fence(memory_order_acquire);
	for (; end < t->piece_count; end++) {
		struct piece *p = &t->pieces[end];
		const uint32_t size = dc_state_bytes(p->state) - p->read_from;

		if (bytes + size > BATCH_BYTES)
			break;
		p->offset = bytes;
		bytes += size;
		t->totals.truncated |= !dc_ring_read(t->ring, t->batch + p->offset, size,
						     h->chunks_off + (uint64_t)p->index * h->chunk_bytes +
							     p->read_from);
	}
	/* [chunk-reuse] acquire: who saw a byte of a new generation sees the new generation in the state word */
	atomic_thread_fence(memory_order_acquire);
	for (uint32_t i = first; i < end; i++) {
		struct dc_chunk_entry now;

		dc_ring_states(t->ring, &now, t->pieces[i].index, 1);
		t->pieces[i].bad = !dc_ring_state_kept(t->pieces[i].state, now.state);
		identify(t, &t->pieces[i]);
	}
	return end - first;
}

int dc_tail_read_schema(struct dc_tail *t, const struct dc_ring_look *look)
{
	CLEANUP(dc_ring_tables) struct dc_ring_tables tables = {0};
	struct dc_schema *schema = NULL;
	int r = dc_ring_tables(t->ring, &tables);

	if (r == 0)
		r = dc_schema_new(dc_ring_tables_sites(&tables), tables.counts.site_count,
				  dc_ring_tables_strings(&tables), tables.counts.strings_bytes, &schema);
	if (r < 0)
		return r;
	dc_schema_free(t->schema);
	t->schema = schema;
	t->schema_sites = look->sites_used;
	t->schema_strings = look->strings_used;
	return 0;
}

/* After the bytes, so that whatever they name is there. */
static int refresh_schema(struct dc_tail *t)
{
	struct dc_ring_look look;
	int r = dc_ring_glance(t->ring, &look);

	if (r < 0 || (t->schema && t->schema_sites == look.sites_used && t->schema_strings == look.strings_used))
		return r;
	return dc_tail_read_schema(t, &look);
}

/* ---- decoding ---- */

static int deliver(void *arg, const struct dc_event *event)
{
	struct dc_tail *t = arg;

	t->handler->event(t->arg, event, t->weight);
	/* as the state word counts: these are not events of the ring */
	t->totals.events += event->kind != DC_KIND_OPEN && event->kind != DC_KIND_THREAD && !event->implied;
	return 0;
}

static int silence(void *arg, const struct dc_event *event)
{
	(void)arg, (void)event;
	return 0;
}

/* A lane without a decoder costs reading its chunk from the head again, no more. */
static void evict(struct dc_tail *t)
{
	while (t->decoders >= DECODERS_MAX)
		dc_tail_forget_lane(t, &t->lanes[t->next_evicted++ % t->lane_count]);
}

static int lane_ready(struct dc_tail *t, uint32_t lane)
{
	struct known_lane *l;
	int r = lane < t->lane_count ? 0 : dc_tail_lanes_room(t, lane + 1);

	if (r < 0)
		return r;
	l = &t->lanes[lane];
	if (!l->decoder) {
		evict(t);
		l->decoder = malloc(sizeof(*l->decoder));
		if (!l->decoder)
			return -ENOMEM;
		t->decoders++;
		dc_lane_init(l->decoder, t->schema);
	}
	l->decoder->schema = t->schema;
	return 0;
}

static int decode_from_head(struct dc_tail *t, struct dc_lane_decoder *d, const struct piece *p)
{
	const uint8_t *chunk = t->batch + p->offset;
	const uint32_t bytes = dc_state_bytes(p->state), head = sizeof(struct dc_chunk_header);
	const uint32_t from = p->from > head ? p->from : head;
	int r = dc_lane_feed(d, chunk, bytes);

	if (r == 0)
		r = dc_lane_more(d, chunk + head, from - head, silence, NULL);
	return r < 0 ? r : dc_lane_more(d, chunk + from, bytes - from, deliver, t);
}

static int decode(struct dc_tail *t, const struct piece *p)
{
	const uint32_t bytes = dc_state_bytes(p->state);
	struct known_chunk *k = &t->chunks[p->index];
	struct known_lane *l;
	int r = lane_ready(t, p->lane);

	if (r < 0)
		return r;
	l = &t->lanes[p->lane];
	t->weight = (double)k->weight;
	if (p->read_from)
		r = dc_lane_more(l->decoder, t->batch + p->offset, bytes - p->read_from, deliver, t);
	else
		r = decode_from_head(t, l->decoder, p);
	l->chunk = p->index;
	l->generation = dc_state_generation(p->state);
	k->state = p->state;
	t->totals.bytes += bytes - p->from;
	t->totals.sampled |= t->weight > 1;
	return r;
}

/* Of what cannot be used nothing more is tried. */
static void lose(struct dc_tail *t, const struct piece *p)
{
	t->chunks[p->index].state = p->state;
	t->chunks[p->index].weight = 0;
	t->totals.lost_chunks++;
}

static bool in_time(const struct dc_tail *t, int64_t until_ns)
{
	return until_ns == INT64_MAX || dc_tail_cpu_ns() - t->excused_ns < until_ns;
}

int dc_tail_decode_all(struct dc_tail *t, int64_t until_ns)
{
	uint32_t done = 0, handled = 0;
	int r = 0;

	while (r == 0 && done < t->piece_count && in_time(t, until_ns)) {
		const uint32_t count = copy_batch(t, done);

		r = refresh_schema(t);
		qsort(t->pieces + done, count, sizeof(*t->pieces), by_lane);
		for (uint32_t i = done; r == 0 && i < done + count && in_time(t, until_ns); i++) {
			const struct piece *p = &t->pieces[i];

			r = p->bad ? -EBADMSG : decode(t, p);
			if (r == -EBADMSG) {
				lose(t, p);
				r = 0;
			}
			handled += r == 0;
		}
		done += count;
	}
	t->behind = handled < t->piece_count;
	return r;
}
