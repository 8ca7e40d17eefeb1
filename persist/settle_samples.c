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
#define UNWIND_BYTES (UINT64_C(1) << 30) /* of samples that one child unwinds */
#define KEPT_BYTES (64u << 20)
#define PAYLOAD_BYTES (1u << 20)
static_assert(DC_SAMPLES_ROOM >= DC_CAPTURE_PAYLOAD_ROOM, "a block is read to where its samples go");

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
	uint8_t reserved[3];
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
	struct dc_resolver *resolver;
	struct place *places; /* in the order of the file */
	struct moment *moments; /* of @places, in that order until they are sorted */
	uint32_t count;
	uint32_t room;
	uint8_t *kept; /* what unwound samples will be, one after the other: of the first kept_count places */
	uint32_t kept_count;
	size_t kept_bytes;
	size_t kept_room;
	uint8_t *payload; /* SAMPLES being filled */
	size_t used;
	uint8_t *bytes; /* a batch, as it is to be written */
};

static void settling_cleanup(struct settling *s)
{
	dc_resolver_free(s->resolver);
	free(s->bytes);
	free(s->payload);
	free(s->kept);
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
	h.flags |= head->ip_count && !head->reg_count ? DC_SAMPLE_WALKED : 0;
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

/* The sample as it is once it has been unwound, but for what unwinding finds. */
static void put_unwound(const struct dc_sample_parts *p, uint32_t stack, bool truncated, uint8_t *to)
{
	const struct dc_sample head = unwound_head(&p->head, stack, truncated);
	const size_t regs = 8 * (size_t)head.reg_count;

	memcpy(to, &head, sizeof head);
	memcpy(to + sizeof head, p->regs, regs);
	memcpy(to + sizeof head + regs, p->extra, head.bytes - sizeof head - regs);
}

/* So that nothing has to be read twice. Beyond the bound it is. */
static int keep(struct settling *s, const struct dc_sample_parts *p, uint32_t bytes)
{
	if (s->kept_count + 1 != s->count || s->kept_bytes + bytes > KEPT_BYTES)
		return 0;
	if (s->kept_room - s->kept_bytes < bytes) {
		const size_t room = 2 * s->kept_room + bytes + 65536;
		uint8_t *kept = realloc(s->kept, room);

		if (!kept)
			return -ENOMEM;
		s->kept = kept;
		s->kept_room = room;
	}
	put_unwound(p, p->head.stack, false, s->kept + s->kept_bytes);
	s->kept_bytes += bytes;
	s->kept_count++;
	return 0;
}

static int add_place(struct settling *s, uint32_t block, size_t offset, const struct dc_sample_parts *p)
{
	const uint32_t unwound_bytes = unwound_head(&p->head, 0, false).bytes;

	if (s->count == PLACES_MAX)
		return -EFBIG;
	if (s->count == s->room && grow(s) < 0)
		return -ENOMEM;
	s->moments[s->count] =
		(struct moment){.at = (uint64_t)p->head.monotonic_ns ^ UINT64_C(1) << 63, .place = s->count};
	s->places[s->count++] = (struct place){
		.block = block, .offset = (uint32_t)offset, .bytes = p->head.bytes, .unwound_bytes = unwound_bytes};
	return keep(s, p, unwound_bytes);
}

/* --- unwinding, while they are read --- */

struct unwinding {
	struct settling *s;
	struct dc_sample_source source;
	uint32_t first; /* place of its first sample */
	uint32_t block; /* to be looked at next */
	uint64_t bytes; /* by now */
};

static int list_block(struct unwinding *u, uint32_t block, const uint8_t *payload, size_t *ret_bytes)
{
	struct settling *s = u->s;
	const struct dc_block_ref *b = &s->c->blocks[block];
	char name[DC_BLOCK_NAME_BYTES];
	struct dc_sample_parts p;
	size_t at = 0;
	int r = 0;

	for (; at < b->plain_bytes && r == 0; at += p.head.bytes) {
		if (dc_sample_at(payload + at, b->plain_bytes - at, &p) < 0) {
			dc_capture_fault(s->c, b->offset, "%s: a sample does not parse, the rest is lost",
					 dc_block_name(b, name));
			break;
		}
		r = add_place(s, block, at, &p);
		u->source.count++;
		u->source.able += p.head.reg_count || p.head.ip_count;
	}
	*ret_bytes = at;
	return r;
}

static bool is_ours(const struct settling *s, uint32_t block)
{
	return s->c->blocks[block].type == DC_BLOCK_SAMPLES && s->c->blocks[block].process == s->process;
}

static int next_block(void *arg, uint8_t *to, size_t *ret_bytes)
{
	struct unwinding *u = arg;
	struct dc_capture *c = u->s->c;
	uint32_t block;
	int r;

	while (u->block < c->block_count && !is_ours(u->s, u->block))
		u->block++;
	if (u->block == c->block_count || u->bytes >= UNWIND_BYTES)
		return 0;
	block = u->block++;
	u->bytes += c->blocks[block].plain_bytes;
	r = dc_capture_payload_into(c, &c->blocks[block], to);
	if (r == 0)
		r = list_block(u, block, to, ret_bytes);
	return r == -EBADMSG ? 1 : r < 0 ? r : 1; /* -EBADMSG: noted */
}

static void put_stack(void *arg, uint32_t sample, uint32_t stack, bool truncated)
{
	struct unwinding *u = arg;
	struct place *p = &u->s->places[u->first + sample];

	p->stack = stack;
	p->truncated = truncated;
}

static int unwind_all(struct settling *s)
{
	struct unwinding u = {.s = s};
	int r = 0;

	while (r == 0 && u.block < s->c->block_count) {
		u.first = s->count;
		u.bytes = 0;
		u.source = (struct dc_sample_source){.next = next_block, .put = put_stack, .arg = &u};
		r = dc_resolver_unwind(s->resolver, &u.source);
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

/* Sorts, and says where each comes to lie. */
static int order_samples(struct settling *s)
{
	int r = s->count ? sort_moments(s) : 0;
	uint64_t to = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		struct place *p = &s->places[s->moments[i].place];

		p->to = to;
		to += written_bytes(p);
	}
	return r;
}

/* Blocks are read once for the samples in them, which come in the order of the file. */
struct reading {
	struct dc_capture *c;
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

/* A sample that was not kept, as it is to be written. */
static int load_place(struct reading *reading, const struct place *place, uint8_t *to)
{
	struct dc_sample_parts p;
	int r = read_place(reading, place, &p);

	if (r < 0)
		return r;
	if (!place->stack)
		memcpy(to, reading->payload + place->offset, place->bytes);
	else if (unwound_head(&p.head, 0, false).bytes == place->unwound_bytes)
		put_unwound(&p, place->stack, place->truncated, to);
	else
		r = -EBADMSG; /* changed meanwhile */
	return r;
}

static void load_kept(const struct place *place, const uint8_t *kept, uint8_t *to)
{
	struct dc_sample head;

	memcpy(to, kept, place->unwound_bytes);
	memcpy(&head, to, sizeof head);
	head.stack = place->stack ? place->stack : head.stack;
	head.flags |= place->truncated ? DC_SAMPLE_TRUNCATED : 0;
	memcpy(to, &head, sizeof head);
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
	size_t kept = 0;
	int r = 0;

	free(s->bytes);
	s->bytes = malloc(end - begin);
	if (!s->bytes)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->count && r == 0; i++) {
		const struct place *p = &s->places[i];
		/* What is as long as when it was unwound has nothing that unwinding leaves out. */
		const bool is_kept = i < s->kept_count && written_bytes(p) == p->unwound_bytes;

		if (p->to >= begin && p->to < end && is_kept)
			load_kept(p, s->kept + kept, s->bytes + (p->to - begin));
		else if (p->to >= begin && p->to < end)
			r = load_place(&reading, p, s->bytes + (p->to - begin));
		kept += p->unwound_bytes;
	}
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

static int write_samples(void *arg)
{
	struct settling *s = arg;
	uint64_t end = 0;
	int r = 0;

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
	result->unwind_cpu_ns += t.unwind_cpu_ns;
	result->name_cpu_ns += t.name_cpu_ns;
	result->stack_used = t.stack_used > result->stack_used ? t.stack_used : result->stack_used;
	if (!result->why[0])
		say_why(result, r);
}

static int name_and_write(struct settling *s, const struct dc_intern *addresses, struct dc_settle_result *result)
{
	int r = dc_resolver_addresses(s->resolver, (const uint64_t *)(const void *)addresses->bytes, addresses->count);

	if (r == 0)
		r = dc_resolver_name(s->resolver, 1, write_samples, s);
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
	int r;

	if (!dc_capture_has(c, process, DC_BLOCK_SAMPLES) && addresses->count == 0)
		return 0;
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
		r = order_samples(&s); /* before there is a child again: what is written while there is one is copied page by page */
	return r < 0 ? r : name_and_write(&s, addresses, result);
}
