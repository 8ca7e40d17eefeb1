/* SPDX-License-Identifier: MIT */
#include "tests/ringmaker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVENT_ROOM 1400u /* the largest event: 1 KiB of text and change */
#define DEPTH_MAX 256u
#define SITE_CAP 512u
#define MODULE_CAP 16u
#define STRINGS_BYTES 65536u
#define PID 4242u

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "ringmaker: %s\n", what);
	abort();
}

/* Bytes. */

static void put(struct chunk_maker *c, uint64_t v, unsigned bytes)
{
	must(c->used + bytes <= sizeof c->bytes, "chunk is full");
	for (unsigned i = 0; i < bytes; i++)
		c->bytes[c->used++] = (uint8_t)(v >> 8 * i);
}

static void put_bytes(struct chunk_maker *c, const void *from, size_t bytes)
{
	must(c->used + bytes <= sizeof c->bytes, "chunk is full");
	memcpy(c->bytes + c->used, from, bytes);
	c->used += (uint32_t)bytes;
}

static unsigned bytes_of(uint64_t v)
{
	unsigned n = 1;
	while (n < 8 && v >> 8 * n)
		n++;
	return n;
}

/* Arguments. */

static uint64_t swapped(double f)
{
	uint64_t v, swap = 0;
	memcpy(&v, &f, sizeof v);
	for (unsigned i = 0; i < 8; i++)
		swap |= (v >> 8 * i & 0xff) << (56 - 8 * i);
	return swap;
}

static uint64_t word_of(const struct maker_arg *a)
{
	if (a->type == DC_TYPE_I64)
		return a->value.i < 0 ? ~((uint64_t)a->value.i << 1) : (uint64_t)a->value.i << 1;
	if (a->type == DC_TYPE_F64)
		return swapped(a->value.f);
	return a->value.u;
}

static unsigned code_of(const struct maker_arg *a)
{
	if (a->dropped)
		return DC_CODE_DROPPED;
	if (a->type == DC_TYPE_SECRET)
		return 0;
	if (a->type != DC_TYPE_STR)
		return bytes_of(word_of(a));
	if (!a->value.text.bytes)
		return DC_CODE_STR_NULL;
	if (a->value.text.cut)
		return DC_CODE_STR_CUT;
	return a->value.text.length < 256 ? DC_CODE_STR_8 : DC_CODE_STR_16;
}

static void put_value(struct chunk_maker *c, const struct maker_arg *a)
{
	unsigned code = code_of(a);
	if (a->dropped || a->type == DC_TYPE_SECRET)
		return;
	if (a->type != DC_TYPE_STR) {
		put(c, word_of(a), code);
		return;
	}
	if (code == DC_CODE_STR_NULL)
		return;
	put(c, a->value.text.length, code == DC_CODE_STR_8 ? 1 : 2);
	put_bytes(c, a->value.text.bytes, a->value.text.length);
}

static void put_args(struct chunk_maker *c, const struct maker_arg *args, unsigned count)
{
	for (unsigned i = 0; i < count; i += 2) {
		bool two = i + 1 < count;
		put(c, code_of(&args[i]) | (two ? code_of(&args[i + 1]) << 4 : 0), 1);
		put_value(c, &args[i]);
		if (two)
			put_value(c, &args[i + 1]);
	}
}

/* Records. */

void chunk_maker_init(struct chunk_maker *c, const struct chunk_maker_opts *o)
{
	struct dc_chunk_header h = {.first_event = o->first_event,
				    .start_units = o->start_units,
				    .generation = o->generation ? o->generation : 1,
				    .lane = o->lane,
				    .tid = o->tid,
				    .serial = o->serial ? o->serial : 1,
				    .depth = o->depth};
	memset(c, 0, sizeof *c);
	put_bytes(c, &h, sizeof h);
	c->units = o->start_units;
}

void chunk_maker_time(struct chunk_maker *c, uint64_t units)
{
	put(c, DC_KIND_TIME, 1);
	put(c, units, 8);
	c->units = units;
}

static void put_head(struct chunk_maker *c, unsigned kind, uint64_t units)
{
	if (units < c->units || units - c->units > UINT32_MAX)
		chunk_maker_time(c, units);
	unsigned n = bytes_of(units - c->units);
	put(c, kind | (n - 1) << 5, 1);
	put(c, units - c->units, n);
	c->units = units;
	c->events++;
}

void chunk_maker_open(struct chunk_maker *c, uint64_t start_units, uint16_t depth, uint16_t site,
		      const struct maker_arg *args, unsigned count)
{
	uint32_t opens;
	memcpy(&opens, c->bytes + offsetof(struct dc_chunk_header, opens), sizeof opens);
	opens++;
	memcpy(c->bytes + offsetof(struct dc_chunk_header, opens), &opens, sizeof opens);
	put(c, DC_KIND_OPEN, 1);
	put(c, start_units, 8);
	put(c, depth, 2);
	put(c, site, 2);
	put_args(c, args, count);
}

void chunk_maker_event(struct chunk_maker *c, unsigned kind, uint64_t units, uint16_t site,
		       const struct maker_arg *args, unsigned count)
{
	put_head(c, kind, units);
	put(c, site, 2);
	put_args(c, args, count);
}

void chunk_maker_inline(struct chunk_maker *c, unsigned kind, uint64_t units, const char *name,
			const struct maker_arg *args, unsigned count)
{
	put_head(c, kind, units);
	put(c, DC_SITE_INLINE, 2);
	put(c, count, 1);
	for (unsigned i = 0; i < count; i++)
		put(c, args[i].type, 1);
	put(c, strlen(name), 1);
	put_bytes(c, name, strlen(name));
	put_args(c, args, count);
}

void chunk_maker_end(struct chunk_maker *c, uint64_t units)
{
	put_head(c, DC_KIND_END, units);
}

void chunk_maker_end_to(struct chunk_maker *c, uint64_t units, uint16_t depth)
{
	put_head(c, DC_KIND_END_TO, units);
	put(c, depth, 2);
}

void chunk_maker_flow(struct chunk_maker *c, unsigned kind, uint64_t units, uint64_t id)
{
	put_head(c, kind, units);
	put(c, id, 8);
}

void chunk_maker_context(struct chunk_maker *c, uint64_t units, const struct dc_trace_context *context)
{
	put_head(c, DC_KIND_CONTEXT, units);
	put(c, context->flags, 1);
	put_bytes(c, context->trace_id, sizeof context->trace_id);
	put_bytes(c, context->span_id, sizeof context->span_id);
}

void chunk_maker_stack(struct chunk_maker *c, uint64_t units, uint16_t site, const uint64_t *addresses,
		       unsigned count)
{
	put_head(c, DC_KIND_STACK, units);
	put(c, site, 2);
	put(c, count, 1);
	for (unsigned i = 0; i < count; i++)
		put(c, addresses[i], 8);
}

void chunk_maker_thread(struct chunk_maker *c, uint32_t tid, uint32_t serial, const char *comm)
{
	char name[16] = {0};
	snprintf(name, sizeof name, "%s", comm);
	put(c, DC_KIND_THREAD, 1);
	put(c, tid, 4);
	put(c, serial, 4);
	put_bytes(c, name, sizeof name);
}

uint64_t chunk_maker_state(const struct chunk_maker *c)
{
	uint32_t generation;
	memcpy(&generation, c->bytes + offsetof(struct dc_chunk_header, generation), sizeof generation);
	return (uint64_t)(generation & 0x7fffffff) << 32 | (uint64_t)c->events << 16 | c->used;
}

/* The ring. */

struct open_span {
	uint64_t units;
	uint16_t site;
	unsigned count;
	struct maker_arg args[DC_ARG_MAX]; /* texts are borrowed: tests use literals */
};

struct lane_state {
	struct chunk_maker chunk;
	uint32_t index;  /* in the pool; ~0: none open */
	uint32_t copied; /* bytes of the chunk that are in the pool already */
	uint64_t next_event;
	uint32_t depth;
	struct open_span *open; /* DEPTH_MAX */
};

struct ring_maker {
	uint8_t *bytes;
	size_t size;
	struct dc_ring_header *h;
	struct lane_state **lanes;
	uint64_t events;
	uint64_t seal_count; /* orders recycling when coarse times are equal */
	uint64_t *sealed_at;
};

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

static uint64_t place(uint64_t *at, uint64_t bytes, uint64_t align)
{
	uint64_t here = align_up(*at, align);
	*at = here + bytes;
	return here;
}

struct ring_maker *ring_maker_new(uint32_t chunk_bytes, uint32_t chunk_cap, uint32_t lane_cap)
{
	struct dc_ring_header h = {.magic = DC_RING_MAGIC,
				   .version = DC_RING_VERSION,
				   .header_bytes = sizeof h,
				   .site_cap = SITE_CAP,
				   .strings_bytes = STRINGS_BYTES,
				   .module_cap = MODULE_CAP,
				   .lane_cap = lane_cap,
				   .trigger_cap = DC_TRIGGER_SLOTS,
				   .chunk_bytes = chunk_bytes,
				   .chunk_cap = chunk_cap,
				   .clock = DC_CLOCK_MONOTONIC,
				   .pid = PID,
				   .start_time = 1,
				   .window_units = 30000000000,
				   .name = "maker",
				   .sites_used = 1,
				   .strings_used = 1};
	uint64_t at = sizeof h;
	h.control_off = place(&at, sizeof(struct dc_ring_control), DC_PAGE_BYTES);
	h.sites_off = place(&at, SITE_CAP * sizeof(struct dc_ring_site), DC_PAGE_BYTES);
	h.strings_off = place(&at, STRINGS_BYTES, DC_PAGE_BYTES);
	h.modules_off = place(&at, MODULE_CAP * sizeof(struct dc_ring_module), 64);
	h.lanes_off = place(&at, lane_cap * sizeof(struct dc_ring_lane), 64);
	h.triggers_off = place(&at, DC_TRIGGER_SLOTS * sizeof(struct dc_ring_trigger), 64);
	h.states_off = place(&at, chunk_cap * sizeof(struct dc_chunk_entry), 64);
	h.chunks_off = place(&at, (uint64_t)chunk_cap * chunk_bytes, DC_PAGE_BYTES);
	h.file_bytes = at;

	struct ring_maker *m = calloc(1, sizeof *m);
	must(m, "no memory");
	m->size = at;
	m->bytes = calloc(1, at);
	m->lanes = calloc(lane_cap, sizeof(void *));
	m->sealed_at = calloc(chunk_cap, sizeof *m->sealed_at);
	must(m->bytes && m->lanes && m->sealed_at, "no memory");
	m->h = (struct dc_ring_header *)m->bytes;
	*m->h = h;
	return m;
}

void ring_maker_free(struct ring_maker *m)
{
	for (uint32_t i = 0; i < m->h->lanes_used; i++) {
		free(m->lanes[i]->open);
		free(m->lanes[i]);
	}
	free(m->sealed_at);
	free(m->lanes);
	free(m->bytes);
	free(m);
}

uint8_t *ring_maker_bytes(struct ring_maker *m, size_t *ret_bytes)
{
	*ret_bytes = m->size;
	return m->bytes;
}

struct dc_ring_header *ring_maker_header(struct ring_maker *m)
{
	return m->h;
}

struct dc_chunk_entry *ring_maker_entries(struct ring_maker *m)
{
	return (struct dc_chunk_entry *)(m->bytes + m->h->states_off);
}

uint8_t *ring_maker_chunk(struct ring_maker *m, uint32_t index)
{
	return m->bytes + m->h->chunks_off + (size_t)index * m->h->chunk_bytes;
}

struct dc_ring_lane *ring_maker_lanes(struct ring_maker *m)
{
	return (struct dc_ring_lane *)(m->bytes + m->h->lanes_off);
}

uint32_t ring_maker_string(struct ring_maker *m, const char *text)
{
	size_t length = text ? strlen(text) + 1 : 0;
	uint32_t offset = m->h->strings_used;
	if (length <= 1)
		return 0;
	must(offset + length <= STRINGS_BYTES, "string table is full");
	memcpy(m->bytes + m->h->strings_off + offset, text, length);
	m->h->strings_used += (uint32_t)length;
	return offset;
}

uint16_t ring_maker_site(struct ring_maker *m, const struct maker_site *site)
{
	must(m->h->sites_used < SITE_CAP, "site table is full");
	struct dc_ring_site *s = (struct dc_ring_site *)(m->bytes + m->h->sites_off) + m->h->sites_used;
	s->name = ring_maker_string(m, site->name);
	s->file = ring_maker_string(m, site->file ? site->file : "test.c");
	s->line = site->line;
	s->kind = site->kind ? site->kind : DC_KIND_BEGIN;
	s->level = site->level;
	s->arg_count = site->arg_count;
	memcpy(s->types, site->types, sizeof s->types);
	for (unsigned i = 0; i < DC_ARG_MAX; i++)
		s->keys[i] = ring_maker_string(m, site->keys[i]);
	s->format = ring_maker_string(m, site->format);
	s->published = 1;
	return (uint16_t)m->h->sites_used++;
}

void ring_maker_module(struct ring_maker *m, const char *path, uint64_t base, uint64_t start, uint64_t end)
{
	must(m->h->modules_used < MODULE_CAP, "module table is full");
	struct dc_ring_module *module = (struct dc_ring_module *)(m->bytes + m->h->modules_off) +
					m->h->modules_used++;
	*module = (struct dc_ring_module){.base = base,
					  .start = start,
					  .end = end,
					  .path = ring_maker_string(m, path),
					  .build_id_bytes = 20,
					  .published = 1};
	memset(module->build_id, 0xab, 20);
}

uint32_t ring_maker_lane(struct ring_maker *m, uint32_t tid, const char *comm)
{
	uint32_t i = m->h->lanes_used;
	must(i < m->h->lane_cap, "lane table is full");
	struct dc_ring_lane *lane = ring_maker_lanes(m) + i;
	lane->tid = tid;
	lane->serial = 1;
	lane->chunk = UINT32_MAX;
	snprintf(lane->comm, sizeof lane->comm, "%s", comm);
	m->lanes[i] = calloc(1, sizeof **m->lanes);
	must(m->lanes[i], "no memory");
	m->lanes[i]->open = calloc(DEPTH_MAX, sizeof(struct open_span));
	m->lanes[i]->index = UINT32_MAX;
	must(m->lanes[i]->open, "no memory");
	m->h->lanes_used++;
	return i;
}

void ring_maker_anchor(struct ring_maker *m, const struct dc_anchor *anchor)
{
	m->h->anchors[m->h->anchors_used++ % DC_ANCHOR_MAX] = *anchor;
}

void ring_maker_trigger(struct ring_maker *m, uint64_t tick, uint32_t tid, uint16_t site, const char *text)
{
	struct dc_ring_trigger *t = (struct dc_ring_trigger *)(m->bytes + m->h->triggers_off) +
				    m->h->trigger_seq % DC_TRIGGER_SLOTS;
	*t = (struct dc_ring_trigger){
		.seq = ++m->h->trigger_seq, .tick = tick, .tid = tid, .site = site, .reason = DC_TRIGGER_API};
	snprintf(t->text, sizeof t->text, "%s", text);
}

/* A fresh chunk, else the one sealed longest ago. */
static uint32_t claim(struct ring_maker *m)
{
	struct dc_chunk_entry *entry = ring_maker_entries(m);
	uint32_t best = UINT32_MAX;

	if (m->h->chunks_grown < m->h->chunk_cap)
		return m->h->chunks_grown++;
	for (uint32_t i = 0; i < m->h->chunk_cap; i++)
		if (!(entry[i].state & DC_CHUNK_OWNED) &&
		    (best == UINT32_MAX || m->sealed_at[i] < m->sealed_at[best]))
			best = i;
	must(best != UINT32_MAX, "every chunk is owned");
	ring_maker_lanes(m)[entry[best].lane].held--;
	return best;
}

static void copy_open_spans(struct lane_state *l)
{
	for (uint32_t i = 0; i < l->depth; i++) {
		const struct open_span *o = &l->open[i];
		if (i >= DC_OPEN_OUTER && i + DC_OPEN_INNER < l->depth)
			continue;
		chunk_maker_open(&l->chunk, o->units, (uint16_t)(i + 1), o->site, o->args, o->count);
	}
}

static void take_chunk(struct ring_maker *m, uint32_t lane, uint64_t units)
{
	struct lane_state *l = m->lanes[lane];
	struct dc_ring_lane *table = ring_maker_lanes(m) + lane;

	l->index = claim(m);
	struct dc_chunk_entry *entry = ring_maker_entries(m) + l->index;
	uint64_t state = dc_state_claimed(entry->state);
	chunk_maker_init(&l->chunk, &(struct chunk_maker_opts){.first_event = l->next_event,
							       .start_units = units,
							       .generation = dc_state_generation(state),
							       .lane = lane,
							       .tid = table->tid,
							       .serial = table->serial,
							       .depth = l->depth});
	l->copied = 0;
	copy_open_spans(l);
	entry->lane = lane;
	table->chunk = l->index;
	table->held++;
	ring_maker_put(m, lane);
}

void ring_maker_put(struct ring_maker *m, uint32_t lane)
{
	struct lane_state *l = m->lanes[lane];
	struct dc_chunk_entry *entry = ring_maker_entries(m) + l->index;
	uint64_t first;

	must(l->chunk.used <= m->h->chunk_bytes, "chunk overflows");
	memcpy(&first, l->chunk.bytes, sizeof first);
	m->events += first + l->chunk.events - l->next_event;
	l->next_event = first + l->chunk.events;
	entry->state = DC_CHUNK_OWNED | chunk_maker_state(&l->chunk);
	entry->sealed = (uint32_t)(l->chunk.units >> DC_COARSE_SHIFT);
	uint8_t *pool = ring_maker_chunk(m, l->index);
	memcpy(pool, l->chunk.bytes, sizeof(struct dc_chunk_header)); /* opens may have changed */
	memcpy(pool + l->copied, l->chunk.bytes + l->copied, l->chunk.used - l->copied);
	l->copied = l->chunk.used;
	struct dc_ring_lane *table = ring_maker_lanes(m) + lane;
	table->last_units = l->chunk.units;
	table->depth = l->depth;
	table->open_units = l->depth ? l->open[l->depth - 1].units : 0;
	table->open_site = l->depth ? l->open[l->depth - 1].site : 0;
}

void ring_maker_seal(struct ring_maker *m, uint32_t lane)
{
	struct lane_state *l = m->lanes[lane];
	if (l->index == UINT32_MAX)
		return;
	ring_maker_entries(m)[l->index].state &= ~DC_CHUNK_OWNED;
	m->sealed_at[l->index] = ++m->seal_count;
	l->index = UINT32_MAX;
	ring_maker_lanes(m)[lane].chunk = UINT32_MAX;
}

struct chunk_maker *ring_maker_open_chunk(struct ring_maker *m, uint32_t lane, uint64_t units)
{
	struct lane_state *l = m->lanes[lane];
	if (l->index != UINT32_MAX && l->chunk.used + EVENT_ROOM > m->h->chunk_bytes - DC_CHUNK_SLACK)
		ring_maker_seal(m, lane);
	if (l->index == UINT32_MAX)
		take_chunk(m, lane, units);
	return &l->chunk;
}

void ring_maker_event(struct ring_maker *m, uint32_t lane, unsigned kind, uint64_t units, uint16_t site,
		      const struct maker_arg *args, unsigned count)
{
	struct lane_state *l = m->lanes[lane];
	chunk_maker_event(ring_maker_open_chunk(m, lane, units), kind, units, site, args, count);
	if (kind == DC_KIND_BEGIN) {
		must(l->depth < DEPTH_MAX, "too many open spans");
		struct open_span *o = &l->open[l->depth++];
		*o = (struct open_span){.units = units, .site = site, .count = count};
		if (count)
			memcpy(o->args, args, count * sizeof *args);
	}
	ring_maker_put(m, lane);
}

void ring_maker_end(struct ring_maker *m, uint32_t lane, uint64_t units)
{
	struct lane_state *l = m->lanes[lane];
	must(l->depth > 0, "no open span");
	chunk_maker_end(ring_maker_open_chunk(m, lane, units), units);
	l->depth--;
	ring_maker_put(m, lane);
}

uint64_t ring_maker_events(const struct ring_maker *m)
{
	return m->events;
}

int ring_maker_write(const struct ring_maker *m, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int r = 0;
	for (size_t done = 0; done < m->size && r == 0;) {
		ssize_t n = write(fd, m->bytes + done, m->size - done);
		if (n < 0)
			r = -errno;
		else
			done += (size_t)n;
	}
	close(fd);
	return r;
}
