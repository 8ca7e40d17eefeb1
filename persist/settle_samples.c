/* SPDX-License-Identifier: MIT */
#include "persist/settle_samples.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persist/stacks/resolve.h"
#include "persist/stacks/sample.h"
#include "persist/stacks/stacks.h"

#define PLACES_MAX (4u << 20)
#define BATCH_BYTES (32u << 20)
#define PAYLOAD_BYTES (1u << 20)
#define FIELD_BITS 20u /* of a block's number, and of sizes in a block by 8 */

/* --- maps --- */

int dc_resolve_maps_init(struct dc_resolve_maps *m, struct dc_capture *c, uint32_t process)
{
	int r = dc_stacks_open(c, process, &m->stacks);

	if (r < 0)
		return r;
	m->count = dc_stacks_map_count(m->stacks);
	m->entries = calloc((size_t)m->count + 1, sizeof *m->entries);
	m->paths = calloc((size_t)m->count + 1, sizeof *m->paths);
	if (!m->entries || !m->paths)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->count; i++) {
		const struct dc_map_view v = dc_stacks_map(m->stacks, i);

		if (v.entry)
			m->entries[i] = *v.entry;
		m->paths[i] = v.path;
	}
	return 0;
}

void dc_resolve_maps_fini(struct dc_resolve_maps *m)
{
	free(m->paths);
	free(m->entries);
	dc_stacks_close(m->stacks);
}

static void dc_resolve_maps_cleanup(struct dc_resolve_maps *m)
{
	dc_resolve_maps_fini(m);
}

/* 36 characters, of which the hexadecimal ones count. */
static bool boot_id_is(const char *text, const uint8_t *id)
{
	char hex[33];
	unsigned n = 0;

	for (; *text && n < 32; text++)
		if (*text != '-')
			hex[n++] = *text;
	for (unsigned i = 0; i < 16; i++) {
		char byte[3];

		snprintf(byte, sizeof byte, "%02x", id[i]);
		if (n < 32 || memcmp(byte, hex + 2 * i, 2))
			return false;
	}
	return true;
}

bool dc_same_boot(const struct dc_capture *c)
{
	CLEANUP(close_fd) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char text[64] = "";

	return fd >= 0 && read(fd, text, sizeof text - 1) > 0 && boot_id_is(text, c->incident.boot_id);
}

bool dc_capture_has(const struct dc_capture *c, uint32_t process, uint16_t type)
{
	for (uint32_t i = 0; i < c->block_count; i++)
		if (c->blocks[i].process == process && c->blocks[i].type == type)
			return true;
	return false;
}

/* --- the order of samples --- */

struct place {
	int64_t at_ns;
	uint64_t where; /* block, offset / 8 and bytes / 8, of FIELD_BITS each: in the order of the file */
};

static_assert(DC_CAPTURE_BLOCK_MAX <= 1u << FIELD_BITS && DC_BLOCK_PLAIN_MAX / 8 < 1u << FIELD_BITS, "a place has room");

struct settling {
	struct dc_capture *c;
	uint32_t process;
	struct dc_writer *w;
	struct dc_resolver *resolver; /* NULL: samples only get an order */
	struct place *places;
	uint32_t count;
	uint32_t room;
	uint8_t *payload; /* SAMPLES being filled */
	size_t used;
	/* a batch */
	uint8_t *bytes;
	const struct dc_sample **samples; /* of @places, in their order */
	uint32_t *stack_of;
	uint8_t *truncated;
};

static void settling_cleanup(struct settling *s)
{
	dc_resolver_free(s->resolver);
	free(s->truncated);
	free(s->stack_of);
	free(s->samples);
	free(s->bytes);
	free(s->payload);
	free(s->places);
}

static uint32_t block_of(const struct place *p)
{
	return (uint32_t)(p->where >> 2 * FIELD_BITS);
}

static uint32_t offset_of(const struct place *p)
{
	return 8 * ((uint32_t)(p->where >> FIELD_BITS) & ((1u << FIELD_BITS) - 1));
}

static uint32_t bytes_of(const struct place *p)
{
	return 8 * ((uint32_t)p->where & ((1u << FIELD_BITS) - 1));
}

static int by_time(const void *left, const void *right)
{
	const struct place *a = left, *b = right;

	if (a->at_ns != b->at_ns)
		return a->at_ns < b->at_ns ? -1 : 1;
	return a->where < b->where ? -1 : a->where > b->where;
}

static int by_where(const void *left, const void *right)
{
	const struct place *const *a = left, *const *b = right;

	return (*a)->where < (*b)->where ? -1 : (*a)->where > (*b)->where;
}

static int add_place(struct settling *s, uint32_t block, size_t offset, const struct dc_sample *head)
{
	if (s->count == PLACES_MAX)
		return -EFBIG;
	if (s->count == s->room) {
		uint32_t room = s->room ? 2 * s->room : 1024;
		struct place *more = realloc(s->places, room * sizeof *more);

		if (!more)
			return -ENOMEM;
		s->places = more;
		s->room = room;
	}
	s->places[s->count++] = (struct place){
		head->monotonic_ns, (uint64_t)block << 2 * FIELD_BITS | offset / 8 << FIELD_BITS | head->bytes / 8};
	return 0;
}

static int list_block(struct settling *s, uint32_t block)
{
	const struct dc_block_ref *b = &s->c->blocks[block];
	char name[DC_BLOCK_NAME_BYTES];
	struct dc_sample_parts p;
	const uint8_t *payload;
	int r = dc_capture_payload(s->c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* noted */
	for (size_t at = 0; at < b->plain_bytes && r == 0; at += p.head.bytes) {
		if (dc_sample_at(payload + at, b->plain_bytes - at, &p) < 0) {
			dc_capture_fault(s->c, b->offset, "%s: a sample does not parse, the rest is lost",
					 dc_block_name(b, name));
			break;
		}
		r = add_place(s, block, at, &p.head);
	}
	return r;
}

static int list_samples(struct settling *s)
{
	int r = 0;

	for (uint32_t i = 0; i < s->c->block_count && r == 0; i++)
		if (s->c->blocks[i].type == DC_BLOCK_SAMPLES && s->c->blocks[i].process == s->process)
			r = list_block(s, i);
	if (s->count)
		qsort(s->places, s->count, sizeof *s->places, by_time);
	return r;
}

/* --- a batch --- */

/* How many from @first on make a batch, and what they take. */
static uint32_t batch_of(const struct settling *s, uint32_t first, size_t *ret_bytes)
{
	uint32_t count = 0;
	size_t bytes = 0;

	while (first + count < s->count && (count == 0 || bytes + bytes_of(&s->places[first + count]) <= BATCH_BYTES))
		bytes += bytes_of(&s->places[first + count++]);
	*ret_bytes = bytes;
	return count;
}

/* From one block, which is read once: those of @order up to the first one of another block. Return: how many, -errno. */
static int64_t load_block(struct settling *s, const struct place *const *order, uint32_t count, uint8_t *to,
			  const struct place *first)
{
	const uint32_t block = block_of(order[0]);
	const uint8_t *payload;
	uint32_t i = 0;
	int r = dc_capture_payload(s->c, &s->c->blocks[block], &payload);

	for (; r == 0 && i < count && block_of(order[i]) == block; i++) {
		struct dc_sample_parts p;

		memcpy(to, payload + offset_of(order[i]), bytes_of(order[i]));
		if (dc_sample_at(to, bytes_of(order[i]), &p) < 0 || p.head.bytes != bytes_of(order[i]))
			r = -EBADMSG; /* changed meanwhile */
		s->samples[order[i] - first] = (const void *)to;
		to += bytes_of(order[i]);
	}
	return r < 0 ? r : (int64_t)i;
}

static int load_batch(struct settling *s, uint32_t first, uint32_t count, size_t bytes)
{
	CLEANUP(free) const struct place **order = calloc((size_t)count + 1, sizeof(*order));
	uint8_t *to;

	free(s->bytes);
	free(s->samples);
	free(s->stack_of);
	free(s->truncated);
	s->bytes = to = malloc(bytes + 1);
	s->samples = calloc((size_t)count + 1, sizeof(*s->samples));
	s->stack_of = calloc((size_t)count + 1, sizeof *s->stack_of);
	s->truncated = calloc((size_t)count + 1, 1);
	if (!order || !to || !s->samples || !s->stack_of || !s->truncated)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		order[i] = &s->places[first + i];
	qsort(order, count, sizeof(*order), by_where);
	for (uint32_t i = 0; i < count;) {
		int64_t n = load_block(s, order + i, count - i, to, &s->places[first]);

		if (n < 0)
			return (int)n;
		for (; n; n--)
			to += bytes_of(order[i++]);
	}
	return 0;
}

static int flush(struct settling *s)
{
	int r = s->used ? dc_writer_block_zstd(s->w, DC_BLOCK_SAMPLES, s->process, s->payload, s->used) : 0;

	s->used = 0;
	return r;
}

/* Unwound: its stack has become a number. Of the trigger the registers stay, too, as evidence. */
static void put_unwound(struct settling *s, const struct dc_sample_parts *p, uint32_t stack, bool truncated)
{
	const bool of_trigger = p->head.kind == DC_SAMPLE_THREAD || p->head.kind == DC_SAMPLE_CRASH;
	const size_t extra = ((size_t)p->head.extra_bytes + 7) & ~(size_t)7;
	struct dc_sample head = p->head;
	uint8_t *to = s->payload + s->used;

	head.stack = stack;
	head.flags |= truncated ? DC_SAMPLE_TRUNCATED : 0;
	head.ip_count = 0;
	head.stack_bytes = 0;
	head.reg_count = of_trigger ? head.reg_count : 0;
	head.bytes = (uint32_t)(sizeof head + 8 * (size_t)head.reg_count + extra);
	memcpy(to, &head, sizeof head);
	memcpy(to + sizeof head, p->regs, 8 * (size_t)head.reg_count);
	memcpy(to + head.bytes - extra, p->extra, extra);
	s->used += head.bytes;
}

static int put_sample(struct settling *s, uint32_t i)
{
	struct dc_sample_parts p;
	int r = dc_sample_at(s->samples[i], s->samples[i]->bytes, &p);

	if (r == 0 && s->used + p.head.bytes > PAYLOAD_BYTES)
		r = flush(s);
	if (r < 0)
		return r;
	if (s->stack_of[i]) {
		put_unwound(s, &p, s->stack_of[i], s->truncated[i]);
		return 0;
	}
	memcpy(s->payload + s->used, s->samples[i], p.head.bytes);
	s->used += p.head.bytes;
	return 0;
}

static int settle_batches(struct settling *s)
{
	size_t bytes;
	uint32_t count;
	int r = 0;

	for (uint32_t first = 0; first < s->count && r == 0; first += count) {
		count = batch_of(s, first, &bytes);
		r = load_batch(s, first, count, bytes);
		if (r == 0 && s->resolver)
			r = dc_resolver_unwind(s->resolver, s->samples, count, s->stack_of, s->truncated);
		for (uint32_t i = 0; i < count && r == 0; i++)
			r = put_sample(s, i);
	}
	return r < 0 ? r : flush(s);
}

/* --- the whole --- */

static int write_block(void *arg, uint16_t type, const void *payload, size_t bytes)
{
	struct settling *s = arg;

	return dc_writer_block_zstd(s->w, type, s->process, payload, bytes);
}

static void add_up(struct dc_settle_result *result, const struct dc_resolver *r)
{
	struct dc_resolve_totals t;

	dc_resolver_totals(r, &t);
	result->samples += t.samples;
	result->unwound += t.unwound;
	result->to_root += t.to_root;
	result->frames += t.frame_count;
	result->named += t.named;
	result->stack_used = t.stack_used > result->stack_used ? t.stack_used : result->stack_used;
	if (!result->why[0])
		snprintf(result->why, sizeof result->why, "%s", dc_resolver_why(r));
}

static int name_and_write(struct settling *s, const struct dc_intern *addresses, struct dc_settle_result *result)
{
	int r = dc_resolver_addresses(s->resolver, (const uint64_t *)(const void *)addresses->bytes, addresses->count);

	if (r == 0)
		r = dc_resolver_name(s->resolver, 1);
	if (r == 0)
		r = dc_resolver_blocks(s->resolver, 1u << DC_BLOCK_STACKS | 1u << DC_BLOCK_FRAMES | 1u << DC_BLOCK_NAMES,
				       write_block, s);
	add_up(result, s->resolver);
	return r;
}

int dc_settle_samples(struct dc_capture *c, uint32_t process, struct dc_writer *w, const struct dc_resolve_options *options,
		      const struct dc_intern *addresses, struct dc_settle_result *result)
{
	CLEANUP(settling) struct settling s = {.c = c, .process = process, .w = w};
	CLEANUP(dc_resolve_maps) struct dc_resolve_maps maps = {0};
	struct dc_resolve_options own = *options;
	int r = list_samples(&s);

	if (r < 0 || (s.count == 0 && addresses->count == 0))
		return r;
	own.no_kernel |= !dc_same_boot(c);
	r = dc_resolve_maps_init(&maps, c, process);
	if (r == 0)
		r = dc_resolver_new(maps.entries, maps.paths, maps.count, &own, &s.resolver);
	s.payload = malloc(PAYLOAD_BYTES + DC_BLOCK_PLAIN_MAX); /* one sample may be as large as a block */
	if (r == 0 && !s.payload)
		r = -ENOMEM;
	if (r == 0)
		r = settle_batches(&s);
	return r < 0 ? r : name_and_write(&s, addresses, result);
}
