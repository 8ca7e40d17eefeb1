/* SPDX-License-Identifier: MIT */
/*
 * Chunk bytes in, events out. The encoding is described in event.h, the promises in decode.h.
 *
 * THE SHAPE. step() decodes one record. It is inlined twice: with fast = true while at least FAST_BYTES of the chunk
 * remain, where the fixed part of any event (tag, delta, site, eight argument words: 75 bytes, and 8 of over-read)
 * may be loaded eight bytes at a time without a look at the end, and with fast = false for the rest. What has no
 * bound of its own (text, stacks, sites that carry their name) is checked against the end in both.
 *
 * The state that changes with every event lives in struct reader, a local of the loop, so that the compiler
 * keeps it in registers; it is written back when the loop ends.
 *
 * What bounds the speed is the chain tag -> length of delta -> argument code -> lengths -> next tag: about 17
 * cycles for a begin with two arguments, 9 for an end. Everything else runs beside it.
 */
#include "ipc/decode.h"

#include <errno.h>
#include <string.h>

#include "ipc/lane.h"

#define FAST_BYTES 128

#define STEP_EVENT 1 /* *e is an event */
#define STEP_SKIP 2  /* a record without one */

#define KIND_BIT(kind) (1u << (kind))
#define SITE_KINDS                                                                                           \
	(KIND_BIT(DC_KIND_BEGIN) | KIND_BIT(DC_KIND_INSTANT) | KIND_BIT(DC_KIND_COUNTER) |                   \
	 KIND_BIT(DC_KIND_LOG) | KIND_BIT(DC_KIND_ASYNC_BEGIN) | KIND_BIT(DC_KIND_ASYNC_END) |               \
	 KIND_BIT(DC_KIND_TRIGGER))
#define RARE_KINDS                                                                                           \
	(KIND_BIT(DC_KIND_END_TO) | KIND_BIT(DC_KIND_FLOW_OUT) | KIND_BIT(DC_KIND_FLOW_IN) |                 \
	 KIND_BIT(DC_KIND_CONTEXT) | KIND_BIT(DC_KIND_STACK))

#define inline_always static inline __attribute__((always_inline))
#define unlikely(x) __builtin_expect(!!(x), 0)

struct reader {
	const uint8_t *at;
	const uint8_t *end;
	uint64_t units;
	uint32_t depth;
	uint32_t implied_to;
};

static const uint64_t low_bytes[9] = {
	0, 0xff, 0xffff, 0xffffff, 0xffffffff, 0xffffffffff, 0xffffffffffff, 0xffffffffffffff, ~UINT64_C(0),
};

/* @n bytes, little-endian. The caller has checked that they are there; @fast says that eight are. */
inline_always uint64_t load(const uint8_t *p, const uint8_t *end, unsigned n, const bool fast)
{
	uint64_t v = 0;
	if (fast || end - p >= 8) {
		memcpy(&v, p, sizeof v);
		return v & low_bytes[n];
	}
	while (n--)
		v = v << 8 | p[n];
	return v;
}

inline_always bool missing(const uint8_t *p, const uint8_t *end, size_t n, const bool fast)
{
	return !fast && (size_t)(end - p) < n;
}

/* Integers only, none dropped: a load and an add per argument. NULL: something else is there, start over. */
inline_always const uint8_t *read_words(struct dc_event *e, const struct dc_site_info *info, const uint8_t *p)
{
	unsigned count = info->arg_count, i;

	for (i = 0; i + 2 <= count; i += 2) {
		unsigned code = *p++, a = code & 15, b = code >> 4;
		if (unlikely(((a - 1) | (b - 1)) > 7)) /* one of them is not 1 to 8 */
			return NULL;
		e->args[i].u = dc_lane_word(info, i, load(p, NULL, a, true));
		e->args[i + 1].u = dc_lane_word(info, i + 1, load(p + a, NULL, b, true));
		p += a + b;
	}
	if (count % 2) {
		unsigned code = *p++; /* its high nibble is zero */
		if (unlikely(code - 1 > 7))
			return NULL;
		e->args[i].u = dc_lane_word(info, i, load(p, NULL, code, true));
		p += code;
	}
	return p;
}

inline_always int read_text(struct dc_text *text, unsigned code, const uint8_t **pp, const uint8_t *end)
{
	const uint8_t *p = *pp;
	unsigned length_bytes = code == DC_CODE_STR_8 ? 1 : 2;

	*text = (struct dc_text){0};
	if (code == DC_CODE_STR_NULL)
		return 0;
	if (code > DC_CODE_STR_CUT || end - p < (ptrdiff_t)length_bytes)
		return -EBADMSG;
	text->length = (uint32_t)load(p, end, length_bytes, false);
	p += length_bytes;
	if (end - p < (ptrdiff_t)text->length)
		return -EBADMSG;
	text->bytes = (const char *)p;
	text->cut = code == DC_CODE_STR_CUT;
	*pp = p + text->length;
	return 0;
}

/* One argument of any type but text. */
inline_always int read_word(union dc_value *v, uint8_t type, unsigned code, const uint8_t **pp,
			    const uint8_t *end)
{
	if (type == DC_TYPE_SECRET) {
		v->u = 0;
		return code ? -EBADMSG : 0;
	}
	if (code - 1 > 7 || end - *pp < (ptrdiff_t)code)
		return -EBADMSG;
	uint64_t w = load(*pp, end, code, false);
	*pp += code;
	*v = dc_lane_value(type, w);
	return 0;
}

/* Any types, every byte checked. Out of line: texts and doubles pay for themselves. */
static __attribute__((noinline)) int read_mixed(struct dc_event *e, const struct dc_site_info *info,
						const uint8_t **pp, const uint8_t *end)
{
	unsigned pair = 0;

	for (unsigned i = 0; i < info->arg_count; i++) {
		if (i % 2 == 0) {
			if (*pp == end)
				return -EBADMSG;
			pair = *(*pp)++;
		}
		unsigned code = i % 2 ? pair >> 4 : pair & 15;
		int r = 0;
		if (code == DC_CODE_DROPPED) {
			memset(&e->args[i], 0, sizeof e->args[i]);
			e->args_dropped |= (uint16_t)(1u << i);
		} else if (info->types[i] == DC_TYPE_STR) {
			r = read_text(&e->args[i].text, code, pp, end);
		} else {
			r = read_word(&e->args[i], info->types[i], code, pp, end);
		}
		if (r < 0)
			return r;
	}
	return info->arg_count % 2 && pair >> 4 ? -EBADMSG : 0;
}

/* DC_SITE_INLINE: the event brings its own schema. It lasts until the next such event. */
static const struct dc_site_info *read_inline_site(struct dc_lane_decoder *d, const uint8_t **pp,
						   const uint8_t *end)
{
	struct dc_site_info *site = &d->inline_site;
	const uint8_t *p = *pp;

	if (p == end || *p > DC_ARG_MAX || end - p < 2 + *p)
		return NULL;
	unsigned count = *p++;
	*site = d->schema->sites[0];
	site->arg_count = (uint8_t)count;
	memset(site->types, 0, sizeof site->types);
	memcpy(site->types, p, count);
	p += count;
	unsigned length = *p++;
	if (end - p < (ptrdiff_t)length)
		return NULL;
	memcpy(d->inline_name, p, length);
	d->inline_name[length] = 0;
	site->name = d->inline_name;
	site->format = d->inline_name;
	*pp = p + length;
	dc_site_shape(site);
	return site->shape == DC_SHAPE_UNUSABLE ? NULL : site;
}

/* Also DC_SITE_INLINE, which no table reaches. NULL: no site an event may have. */
static const struct dc_site_info *site_of(struct dc_lane_decoder *d, unsigned id, const uint8_t **pp,
					  const uint8_t *end)
{
	if (id == DC_SITE_INLINE)
		return read_inline_site(d, pp, end);
	if (id >= d->schema->count || d->schema->sites[id].shape == DC_SHAPE_UNUSABLE)
		return NULL;
	return &d->schema->sites[id];
}

static __attribute__((noinline)) int read_any_args(struct dc_lane_decoder *d, struct dc_event *e, unsigned id,
						   const uint8_t **pp, const uint8_t *end)
{
	const struct dc_site_info *info = site_of(d, id, pp, end);
	if (!info)
		return -EBADMSG;
	dc_lane_set_site(e, id, info);
	return read_mixed(e, info, pp, end);
}

/* site:2 args. On success *@pp is behind them. */
inline_always int read_site_args(struct dc_lane_decoder *d, struct dc_event *e, const uint8_t **pp,
				 const uint8_t *end, const bool fast)
{
	const uint8_t *p = *pp;
	if (missing(p, end, 2, fast))
		return -EBADMSG;
	unsigned id = (unsigned)(p[0] | p[1] << 8);
	p += 2;
	if (fast && !unlikely(id >= d->schema->count) && d->schema->sites[id].shape == DC_SHAPE_WORDS) {
		const uint8_t *behind = read_words(e, &d->schema->sites[id], p);
		if (!unlikely(!behind)) {
			dc_lane_set_site(e, id, &d->schema->sites[id]);
			*pp = behind;
			return 0;
		}
	}
	int r = read_any_args(d, e, id, &p, end);
	*pp = p;
	return r;
}

void dc_lane_keep_name(struct dc_lane_decoder *d, uint32_t depth)
{
	char *name = d->inline_spans[d->inline_count % DC_DECODE_INLINE_MAX];
	size_t n = strnlen(d->inline_name, sizeof d->inline_spans[0] - 1);

	memcpy(name, d->inline_name, n);
	name[n] = 0;
	d->open.inline_number[depth] = d->inline_count++;
}

const struct dc_site_info *dc_lane_kept_site(struct dc_lane_decoder *d, uint32_t depth)
{
	uint32_t number = d->open.inline_number[depth];

	if (d->inline_count - number > DC_DECODE_INLINE_MAX)
		return &d->schema->sites[0];
	d->inline_site = d->schema->sites[0];
	d->inline_site.name = d->inline_spans[number % DC_DECODE_INLINE_MAX];
	return &d->inline_site;
}

static void span_end_implied(struct dc_lane_decoder *d, struct reader *r, struct dc_event *e)
{
	e->units = r->units;
	e->implied = r->depth > r->implied_to;
	if (!e->implied)
		r->implied_to = 0;
	r->depth = dc_lane_end(d, r->depth, e);
}

static int read_end_to(struct dc_lane_decoder *d, struct reader *r, struct dc_event *e, const uint8_t **pp)
{
	if (r->end - *pp < 2)
		return -EBADMSG;
	uint32_t to = (uint32_t)load(*pp, r->end, 2, false);
	if (to == 0 || to > r->depth)
		return -EBADMSG;
	*pp += 2;
	r->implied_to = to;
	span_end_implied(d, r, e);
	return 0;
}

static int read_flow(const struct reader *r, struct dc_event *e, const uint8_t **pp)
{
	if (r->end - *pp < 8)
		return -EBADMSG;
	e->flow_id = load(*pp, r->end, 8, false);
	*pp += 8;
	return 0;
}

static int read_context(const struct reader *r, struct dc_event *e, const uint8_t **pp)
{
	const uint8_t *p = *pp;
	if (r->end - p < 25)
		return -EBADMSG;
	e->context.flags = p[0];
	memcpy(e->context.trace_id, p + 1, 16);
	memcpy(e->context.span_id, p + 17, 8);
	*pp = p + 25;
	return 0;
}

static int read_stack(struct dc_lane_decoder *d, const struct reader *r, struct dc_event *e,
		      const uint8_t **pp)
{
	const uint8_t *p = *pp;
	if (r->end - p < 2)
		return -EBADMSG;
	uint16_t id = (uint16_t)load(p, r->end, 2, false);
	p += 2;
	e->info = site_of(d, id, &p, r->end);
	if (!e->info || p == r->end)
		return -EBADMSG;
	unsigned count = *p++;
	if (count > DC_STACK_FRAMES_MAX || r->end - p < 8 * (ptrdiff_t)count)
		return -EBADMSG;
	e->site = id;
	e->stack = p;
	e->stack_count = count;
	*pp = p + 8 * count;
	return 0;
}

/* Events of which a lane has few. */
static __attribute__((noinline)) int read_rare(struct dc_lane_decoder *d, struct reader *r,
					       struct dc_event *e, const uint8_t **pp)
{
	dc_lane_no_site(e);
	switch (e->kind) {
	case DC_KIND_END_TO:
		return read_end_to(d, r, e, pp);
	case DC_KIND_CONTEXT:
		return read_context(r, e, pp);
	case DC_KIND_STACK:
		return read_stack(d, r, e, pp);
	default:
		return read_flow(r, e, pp);
	}
}

static int read_time(struct reader *r)
{
	if (r->end - r->at < 8)
		return -EBADMSG;
	r->units = load(r->at, r->end, 8, false);
	r->at += 8;
	return STEP_SKIP;
}

static int read_open(struct dc_lane_decoder *d, struct reader *r, struct dc_event *e)
{
	if (r->end - r->at < 10)
		return -EBADMSG;
	uint64_t start_units = load(r->at, r->end, 8, false);
	uint32_t depth = (uint32_t)load(r->at + 8, r->end, 2, false);
	r->at += 10;
	int rc = read_site_args(d, e, &r->at, r->end, false);
	if (rc < 0)
		return rc;
	if (depth == 0 || depth > r->depth)
		return -EBADMSG;
	if (d->follows)
		return STEP_SKIP;
	if (depth <= DC_DECODE_DEPTH_MAX) {
		d->open.start_units[depth - 1] = start_units;
		d->open.span[depth - 1] = e->site | DC_LANE_COPIED;
		if (e->site == DC_SITE_INLINE)
			dc_lane_keep_name(d, depth - 1);
	}
	e->units = r->units;
	e->depth = depth;
	e->start_units = start_units;
	return STEP_EVENT;
}

static int read_thread(struct dc_lane_decoder *d, struct reader *r, struct dc_event *e)
{
	const uint8_t *p = r->at;
	if (r->end - p < 24 || p[23] != 0)
		return -EBADMSG;
	uint32_t tid = (uint32_t)load(p, r->end, 4, false), serial = (uint32_t)load(p + 4, r->end, 4, false);
	if (tid != d->tid || serial != d->serial)
		r->depth = 0; /* else the same thread has taken a name */
	d->tid = tid;
	d->serial = serial;
	r->at = p + 24;
	e->units = r->units;
	dc_lane_no_site(e);
	e->depth = r->depth;
	e->tid = d->tid;
	e->serial = d->serial;
	e->comm = (const char *)p + 8;
	return STEP_EVENT;
}

/* Records that are no events: no delta, not counted. */
static __attribute__((noinline)) int read_record(struct dc_lane_decoder *d, struct reader *r,
						 struct dc_event *e)
{
	uint8_t tag = *r->at++;
	e->kind = tag;
	e->implied = false;
	e->from_open = false;
	e->start_units = ~UINT64_C(0);
	switch (tag) { /* the whole tag: its other bits are zero */
	case DC_KIND_TIME:
		return read_time(r);
	case DC_KIND_OPEN:
		return read_open(d, r, e);
	case DC_KIND_THREAD:
		return read_thread(d, r, e);
	default:
		return -EBADMSG;
	}
}

/* One record: STEP_EVENT, STEP_SKIP or -EBADMSG. Needs r->at < r->end; *@counts is raised when the ring counts it. */
inline_always int step(struct dc_lane_decoder *d, struct reader *r, struct dc_event *e, uint64_t *counts,
		       const bool fast)
{
	const uint8_t *p = r->at;
	unsigned tag = *p, kind = dc_tag_kind((uint8_t)tag), delta_bytes = (tag >> 5) + 1;

	if (unlikely(delta_bytes > 4 ||
		     !(KIND_BIT(kind) & (SITE_KINDS | RARE_KINDS | KIND_BIT(DC_KIND_END))))) {
		struct reader copy = *r; /* so that the address of @r never leaves this function */
		int rc = read_record(d, &copy, e);
		*r = copy;
		return rc;
	}
	if (missing(p, r->end, 1 + delta_bytes, fast))
		return -EBADMSG;
	r->units += load(p + 1, r->end, delta_bytes, fast);
	p += 1 + delta_bytes;
	if (kind == DC_KIND_END) {
		e->units = r->units;
		e->implied = false;
		r->depth = dc_lane_end(d, r->depth, e);
		r->at = p;
		++*counts;
		return STEP_EVENT;
	}
	dc_lane_event(e, kind, r->units);
	if (KIND_BIT(kind) & SITE_KINDS) {
		int rc = read_site_args(d, e, &p, r->end, fast);
		if (unlikely(rc < 0))
			return rc;
		if (kind == DC_KIND_BEGIN)
			r->depth = dc_lane_begin(d, r->depth, e);
		e->depth = r->depth;
		r->at = p;
		++*counts;
		return STEP_EVENT;
	}
	struct reader copy = *r;
	e->depth = copy.depth;
	int rc = read_rare(d, &copy, e, &p);
	if (rc < 0)
		return rc;
	copy.at = p;
	*r = copy;
	++*counts;
	return STEP_EVENT;
}

/* The state between calls, and back. */
static struct reader reader_resume(const struct dc_lane_decoder *d)
{
	return (struct reader){d->at, d->end, d->units, d->depth, d->implied_to};
}

static void reader_pause(struct dc_lane_decoder *d, const struct reader *r, uint64_t counted)
{
	d->at = r->at;
	d->units = r->units;
	d->depth = r->depth;
	d->implied_to = r->implied_to;
	d->events += counted;
	d->next_event += counted;
}

/* Nothing after a fault is believed. */
static int give_up(struct dc_lane_decoder *d, struct reader *r)
{
	d->faulty = true;
	r->at = r->end;
	r->implied_to = 0;
	return -EBADMSG;
}

int dc_lane_next(struct dc_lane_decoder *d, struct dc_event *ret_event)
{
	struct reader r = reader_resume(d);
	uint64_t counted = 0;
	int rc = STEP_SKIP;

	dc_lane_set_thread(d, ret_event);
	if (r.implied_to) {
		span_end_implied(d, &r, ret_event);
		rc = STEP_EVENT;
	}
	while (rc == STEP_SKIP && r.at < r.end)
		rc = r.end - r.at >= FAST_BYTES ? step(d, &r, ret_event, &counted, true)
						: step(d, &r, ret_event, &counted, false);
	if (rc < 0)
		give_up(d, &r);
	reader_pause(d, &r, counted);
	return rc < 0 ? rc : rc == STEP_EVENT;
}

typedef int (*each_fn)(void *arg, const struct dc_event *event);

/* Everything up to the last FAST_BYTES (@fast), or up to the end. Return: what stopped it, 0: nothing. */
inline_always int run(struct dc_lane_decoder *d, struct dc_event *e, each_fn each, void *arg, const bool fast)
{
	struct reader r = reader_resume(d);
	uint64_t counted = 0;
	const ptrdiff_t least = fast ? FAST_BYTES : 1;
	int rc = 0;

	while (rc == 0 && (r.implied_to || r.end - r.at >= least)) {
		int s = STEP_EVENT;
		if (unlikely(r.implied_to)) {
			struct reader copy = r;
			span_end_implied(d, &copy, e);
			r = copy;
		} else {
			s = step(d, &r, e, &counted, fast);
		}
		if (s == STEP_EVENT)
			rc = each(arg, e);
		else if (unlikely(s < 0))
			rc = give_up(d, &r);
	}
	reader_pause(d, &r, counted);
	return rc;
}

int dc_lane_more(struct dc_lane_decoder *d, const uint8_t *at, size_t bytes, each_fn each, void *arg)
{
	struct dc_event e;
	int r;

	d->at = at;
	d->end = at + bytes;
	dc_lane_set_thread(d, &e);
	r = run(d, &e, each, arg, true);
	return r ? r : run(d, &e, each, arg, false);
}

int dc_lane_decode(struct dc_lane_decoder *d, const uint8_t *chunk, size_t bytes, each_fn each, void *arg)
{
	int r = dc_lane_feed(d, chunk, bytes);

	return r < 0 ? r : dc_lane_more(d, d->at, (size_t)(d->end - d->at), each, arg);
}

void dc_lane_init(struct dc_lane_decoder *d, const struct dc_schema *schema)
{
	memset(d, 0, sizeof *d);
	d->schema = schema;
	d->next_event = ~UINT64_C(0);
}

static bool header_is_one(const struct dc_chunk_header *h)
{
	return h->depth <= DC_LANE_DEPTH_LIMIT && h->opens <= DC_OPEN_OUTER + DC_OPEN_INNER && h->opens <= h->depth &&
	       h->first_event < UINT64_MAX - 0xffff;
}

static bool continues(const struct dc_lane_decoder *d, const struct dc_chunk_header *h)
{
	return h->first_event == d->next_event && h->depth == d->depth && h->serial == d->serial &&
	       h->tid == d->tid;
}

static void forget_spans(struct dc_lane_decoder *d, uint32_t depth)
{
	d->depth = depth;
	for (uint32_t i = 0; i < depth && i < DC_DECODE_DEPTH_MAX; i++)
		d->open.span[i] = 0;
}

int dc_lane_feed(struct dc_lane_decoder *d, const uint8_t *chunk, size_t bytes)
{
	struct dc_chunk_header h;

	d->at = d->end = chunk;
	d->implied_to = 0;
	d->faulty = true;
	if (bytes < sizeof h || bytes > DC_CHUNK_BYTES_MAX)
		return -EBADMSG;
	memcpy(&h, chunk, sizeof h);
	if (!header_is_one(&h))
		return -EBADMSG;
	d->faulty = false;
	d->follows = continues(d, &h);
	if (!d->follows) {
		if (d->next_event != ~UINT64_C(0) && h.first_event > d->next_event)
			d->overwritten += h.first_event - d->next_event;
		forget_spans(d, h.depth);
	}
	d->next_event = h.first_event;
	d->tid = h.tid;
	d->serial = h.serial;
	d->lane = h.lane;
	d->units = h.start_units;
	d->at = chunk + sizeof h;
	d->end = chunk + bytes;
	return 0;
}
