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
#define UNWIND_BYTES (256u << 20) /* of samples that one child unwinds */
#define PAYLOAD_BYTES (1u << 20)
#define DIGIT_BITS 11u
#define DIGITS (1u << DIGIT_BITS)

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

/* --- the samples, in the order of the file --- */

struct place {
	uint64_t to; /* where it comes to lie, when all are written one after the other */
	uint32_t block;
	uint32_t offset; /* in its payload */
	uint32_t bytes;
	uint32_t unwound_bytes; /* what it takes once its stack is a number */
	uint32_t stack; /* 0: it stays as it is */
	uint8_t truncated;
	uint8_t able; /* to be unwound */
	uint8_t reserved[2];
};

struct moment {
	uint64_t at; /* monotonic_ns, such that it sorts without a sign */
	uint32_t place;
	uint32_t reserved;
};

struct settling {
	struct dc_capture *c;
	uint32_t process;
	struct dc_writer *w;
	struct dc_resolver *resolver; /* NULL: samples only get an order */
	struct place *places; /* in the order of the file */
	struct moment *moments; /* of @places, in that order until they are sorted */
	uint32_t count;
	uint32_t room;
	uint8_t *payload; /* SAMPLES being filled */
	size_t used;
	uint8_t *bytes; /* a batch, as it is to be written */
};

static void settling_cleanup(struct settling *s)
{
	dc_resolver_free(s->resolver);
	free(s->bytes);
	free(s->payload);
	free(s->moments);
	free(s->places);
}

/* Of the trigger the registers stay, too, as evidence. */
static struct dc_sample unwound_head(const struct dc_sample *head, uint32_t stack, bool truncated)
{
	const bool of_trigger = head->kind == DC_SAMPLE_THREAD || head->kind == DC_SAMPLE_CRASH;
	const size_t extra = ((size_t)head->extra_bytes + 7) & ~(size_t)7;
	struct dc_sample h = *head;

	h.stack = stack;
	h.flags |= truncated ? DC_SAMPLE_TRUNCATED : 0;
	h.ip_count = 0;
	h.stack_bytes = 0;
	h.reg_count = of_trigger ? h.reg_count : 0;
	h.bytes = (uint32_t)(sizeof h + 8 * (size_t)h.reg_count + extra);
	return h;
}

static int grow(struct settling *s)
{
	const uint32_t room = s->room ? 2 * s->room : 1024;
	struct place *places = realloc(s->places, room * sizeof *places);
	struct moment *moments = realloc(s->moments, room * sizeof *moments);

	s->places = places ? places : s->places;
	s->moments = moments ? moments : s->moments;
	if (!places || !moments)
		return -ENOMEM;
	s->room = room;
	return 0;
}

static int add_place(struct settling *s, uint32_t block, size_t offset, const struct dc_sample *head)
{
	if (s->count == PLACES_MAX)
		return -EFBIG;
	if (s->count == s->room && grow(s) < 0)
		return -ENOMEM;
	s->moments[s->count] = (struct moment){.at = (uint64_t)head->monotonic_ns ^ UINT64_C(1) << 63, .place = s->count};
	s->places[s->count++] = (struct place){.block = block,
					       .offset = (uint32_t)offset,
					       .bytes = head->bytes,
					       .unwound_bytes = unwound_head(head, 0, false).bytes,
					       .able = head->reg_count || head->ip_count};
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
	return r;
}

/* --- unwinding --- */

/* Blocks are read once for the samples in them, which come in the order of the file. */
struct reading {
	struct dc_capture *c;
	const struct place *next;
	uint32_t block; /* that of @payload, ~0: none */
	const uint8_t *payload;
};

static int read_place(struct reading *r, const struct place *p, struct dc_sample_parts *ret_parts)
{
	int e = r->block == p->block ? 0 : dc_capture_payload(r->c, &r->c->blocks[p->block], &r->payload);

	r->block = e < 0 ? UINT32_MAX : p->block;
	if (e == 0)
		e = dc_sample_at(r->payload + p->offset, p->bytes, ret_parts);
	if (e == 0 && ret_parts->head.bytes != p->bytes)
		e = -EBADMSG;
	return e; /* -EBADMSG: changed meanwhile */
}

static int next_sample(void *arg, struct dc_sample_parts *ret_parts)
{
	struct reading *r = arg;

	return read_place(r, r->next++, ret_parts);
}

static int unwind_some(struct settling *s, struct place *first, uint32_t count)
{
	struct reading reading = {.c = s->c, .next = first, .block = UINT32_MAX};
	struct dc_sample_source source = {.next = next_sample, .arg = &reading, .count = count};
	CLEANUP(free) uint32_t *stack_of = calloc((size_t)count + 1, sizeof *stack_of);
	CLEANUP(free) uint8_t *truncated = calloc((size_t)count + 1, 1);
	int r = stack_of && truncated ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < count; i++)
		source.able += first[i].able;
	if (r == 0)
		r = dc_resolver_unwind_from(s->resolver, &source, stack_of, truncated);
	for (uint32_t i = 0; i < count && r == 0; i++) {
		first[i].stack = stack_of[i];
		first[i].truncated = truncated[i];
	}
	return r;
}

static int unwind_all(struct settling *s)
{
	int r = 0;

	for (uint32_t first = 0, i; first < s->count && r == 0; first = i) {
		size_t bytes = 0;

		for (i = first; i < s->count && (i == first || bytes + s->places[i].bytes <= UNWIND_BYTES); i++)
			bytes += s->places[i].bytes;
		r = unwind_some(s, &s->places[first], i - first);
	}
	return r;
}

/* --- writing, in the order of time --- */

/* One digit of a radix sort, which keeps the order of the file where times are the same. */
static void sort_digit(const struct moment *from, struct moment *to, uint32_t count, unsigned shift)
{
	uint32_t at[DIGITS] = {0}, sum = 0;

	for (uint32_t i = 0; i < count; i++)
		at[from[i].at >> shift & (DIGITS - 1)]++;
	for (uint32_t d = 0; d < DIGITS; d++) {
		const uint32_t these = at[d];

		at[d] = sum;
		sum += these;
	}
	for (uint32_t i = 0; i < count; i++)
		to[at[from[i].at >> shift & (DIGITS - 1)]++] = from[i];
}

static int sort_moments(struct settling *s)
{
	CLEANUP(free) struct moment *other = calloc((size_t)s->count + 1, sizeof *other);
	uint64_t differ = 0;

	if (!other)
		return -ENOMEM;
	for (uint32_t i = 1; i < s->count; i++)
		differ |= s->moments[i].at ^ s->moments[0].at;
	for (unsigned shift = 0; shift < 64 && differ >> shift; shift += DIGIT_BITS) {
		struct moment *sorted = other;

		sort_digit(s->moments, sorted, s->count, shift);
		other = s->moments;
		s->moments = sorted;
	}
	return 0;
}

static size_t written_bytes(const struct place *p)
{
	return p->stack ? p->unwound_bytes : p->bytes;
}

static void give_places(struct settling *s)
{
	uint64_t to = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		struct place *p = &s->places[s->moments[i].place];

		p->to = to;
		to += written_bytes(p);
	}
}

/* A sample as it is to be written. */
static int load_place(struct reading *reading, const struct place *place, uint8_t *to)
{
	struct dc_sample_parts p;
	int r = read_place(reading, place, &p);

	if (r < 0)
		return r;
	if (!place->stack) {
		memcpy(to, reading->payload + place->offset, place->bytes);
		return 0;
	}
	const struct dc_sample head = unwound_head(&p.head, place->stack, place->truncated);
	const size_t regs = 8 * (size_t)head.reg_count;
	if (head.bytes != place->unwound_bytes)
		return -EBADMSG; /* changed meanwhile */
	memcpy(to, &head, sizeof head);
	memcpy(to + sizeof head, p.regs, regs);
	memcpy(to + sizeof head + regs, p.extra, head.bytes - sizeof head - regs);
	return 0;
}

/* How many from the moment @first on make a batch, and where it ends. */
static uint32_t batch_of(const struct settling *s, uint32_t first, uint64_t *ret_end)
{
	const uint64_t begin = s->places[s->moments[first].place].to;
	uint32_t count = 0;

	for (uint64_t end = begin; first + count < s->count; count++) {
		end += written_bytes(&s->places[s->moments[first + count].place]);
		if (count && end - begin > BATCH_BYTES)
			break;
		*ret_end = end;
	}
	return count;
}

static int load_batch(struct settling *s, uint64_t begin, uint64_t end)
{
	struct reading reading = {.c = s->c, .block = UINT32_MAX};
	int r = 0;

	free(s->bytes);
	s->bytes = malloc(end - begin);
	if (!s->bytes)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->count && r == 0; i++)
		if (s->places[i].to >= begin && s->places[i].to < end)
			r = load_place(&reading, &s->places[i], s->bytes + (s->places[i].to - begin));
	return r;
}

static int flush(struct settling *s)
{
	int r = s->used ? dc_writer_block_zstd(s->w, DC_BLOCK_SAMPLES, s->process, s->payload, s->used) : 0;

	s->used = 0;
	return r;
}

static int put_sample(struct settling *s, const uint8_t *sample, size_t bytes)
{
	int r = s->used + bytes > PAYLOAD_BYTES ? flush(s) : 0;

	memcpy(s->payload + s->used, sample, bytes);
	s->used += bytes;
	return r;
}

static int write_batch(struct settling *s, uint32_t first, uint32_t count, uint64_t end)
{
	const uint64_t begin = s->places[s->moments[first].place].to;
	int r = load_batch(s, begin, end);

	for (uint32_t i = first; i < first + count && r == 0; i++) {
		const struct place *p = &s->places[s->moments[i].place];

		r = put_sample(s, s->bytes + (p->to - begin), written_bytes(p));
	}
	return r;
}

static int write_samples(struct settling *s)
{
	int r = s->count ? sort_moments(s) : 0;
	uint64_t end = 0;

	give_places(s);
	for (uint32_t first = 0, count; first < s->count && r == 0; first += count) {
		count = batch_of(s, first, &end);
		r = write_batch(s, first, count, end);
	}
	return r < 0 ? r : flush(s);
}

/* --- the whole --- */

static int write_block(void *arg, uint16_t type, const void *payload, size_t bytes)
{
	struct settling *s = arg;

	return dc_writer_block_zstd(s->w, type, s->process, payload, bytes);
}

static void say_why(struct dc_settle_result *result, const struct dc_resolver *r)
{
	const char *why = dc_resolver_why(r);
	char nameless[128];

	dc_resolver_nameless(r, nameless, sizeof nameless);
	snprintf(result->why, sizeof result->why, "%s%s%s%s", why, why[0] && nameless[0] ? "; " : "",
		 nameless[0] ? "no names in " : "", nameless);
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
		say_why(result, r);
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
		r = unwind_all(&s);
	if (r == 0)
		r = write_samples(&s);
	return r < 0 ? r : name_and_write(&s, addresses, result);
}
