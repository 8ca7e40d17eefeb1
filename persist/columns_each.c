/* SPDX-License-Identifier: MIT */
/*
 * COLUMNS → events, without the bytes of the chunks in between: the fastest way through a settled capture. Joining and
 * decoding again would cost three times as much.
 *
 * What an event means is no matter of this file (ipc/lane.h). Nor are the records that are kept as bytes: the decoder of
 * bytes reads them in their turn. Numbers come ready from columns_ready.c. So all there is to do here is to put the
 * events of all shapes in the order of the lane, to sum up their deltas, and to count the bytes they would have as
 * records, because that is where a chunk ends.
 *
 * Each shape has a struct dc_event of its own, in which stands already what all its events have in common: an END costs
 * 40 instructions, a BEGIN with two numbers 45, and every one more is felt.
 *
 * It takes only columns whose shapes say what the schema says. Others (made by a damaged or hostile writer) are left to
 * be joined.
 */
#include <errno.h>

#include "ipc/lane.h"
#include "persist/columns_inside.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

typedef int (*each_fn)(void *arg, const struct dc_event *event);

/* dc_ready.reading: what is to be done for an event. */
#define READ_END 0u
#define READ_EVENT 1u /* one with up to two numbers, or ... */
#define READ_MORE 2u /* more of them, texts, or a flow's */
#define READ_BEGIN 4u /* and a span opens */

/* --- what shapes mean --- */

static uint8_t form_of(uint8_t type)
{
	if (type == DC_TYPE_STR)
		return DC_COLUMN_TEXT;
	return type == DC_TYPE_SECRET ? DC_COLUMN_SECRET : DC_COLUMN_NUMBER;
}

static bool has_site(uint8_t kind)
{
	switch (kind) {
	case DC_KIND_BEGIN:
	case DC_KIND_INSTANT:
	case DC_KIND_COUNTER:
	case DC_KIND_LOG:
	case DC_KIND_ASYNC_BEGIN:
	case DC_KIND_ASYNC_END:
	case DC_KIND_TRIGGER:
		return true;
	default:
		return false;
	}
}

static bool understand_site(struct dc_ready *r, const struct dc_schema *schema)
{
	struct dc_shape *s = r->shape;
	const struct dc_site_info *info = &schema->sites[s->site < schema->count ? s->site : 0];

	if (!has_site(s->kind) || s->site >= schema->count || info->shape == DC_SHAPE_UNUSABLE ||
	    info->arg_count != s->arg_count)
		return false;
	r->reading = s->arg_count > 2 ? READ_MORE : READ_EVENT;
	if (s->kind == DC_KIND_BEGIN)
		r->reading |= READ_BEGIN;
	unsigned numbers = 0;
	for (unsigned i = 0; i < s->arg_count; i++) {
		s->args[i].type = info->types[i];
		if (s->args[i].form != form_of(info->types[i]))
			return false;
		if (s->args[i].form == DC_COLUMN_TEXT)
			r->reading |= READ_MORE;
		numbers += s->args[i].form == DC_COLUMN_NUMBER;
	}
	s->least_bytes = (uint8_t)(2 + sizeof s->site + (s->arg_count + 1) / 2 + numbers);
	r->span = s->site | DC_LANE_BEGUN;
	dc_lane_event(&r->event, s->kind, 0);
	dc_lane_set_site(&r->event, s->site, info);
	return true;
}

/* The site is that of the span it closes, if the writer was right. */
static bool understand_end(struct dc_ready *r, const struct dc_schema *schema)
{
	struct dc_shape *s = r->shape;

	r->reading = READ_END;
	s->least_bytes = 2;
	r->span = UINT32_MAX; /* no span */
	dc_lane_event(&r->event, DC_KIND_END, 0);
	if (s->site >= schema->count)
		return true;
	r->span = s->site | DC_LANE_BEGUN;
	dc_lane_set_site(&r->event, s->site, &schema->sites[s->site]);
	r->event.arg_count = 0;
	return true;
}

static bool understand(struct dc_ready *r, const struct dc_schema *schema)
{
	switch (r->shape->kind) {
	case DC_KIND_END:
		return understand_end(r, schema);
	case DC_KIND_FLOW_OUT:
	case DC_KIND_FLOW_IN:
		r->reading = READ_MORE;
		r->shape->least_bytes = 2 + 8;
		dc_lane_event(&r->event, r->shape->kind, 0);
		dc_lane_no_site(&r->event);
		return true;
	default:
		return understand_site(r, schema);
	}
}

bool dc_columns_understand(struct dc_columns *c, const struct dc_schema *schema)
{
	if (!dc_columns_ready_new(c))
		return false;
	for (uint32_t i = 1; i <= c->shape_count; i++)
		if (!understand(&c->ready[i], schema))
			return false;
	return true;
}

/* --- events --- */

/* Where a chunk's reader is: a local of the loop that nobody has the address of, so that it lives in registers. */
struct place {
	const uint8_t *ops;
	uint64_t sum; /* of steps: in the upper half, where in the chunk the next record would be */
	uint64_t since; /* the time to which its lower half is to be added */
	uint32_t depth;
};

/* Events have two bytes at least, wide deltas are not summed up. */
static_assert((uint64_t)DC_DELTA_WIDE * (UINT16_MAX / 2 + 1) <= UINT32_MAX, "deltas of a chunk fit half a sum");

dc_columns_inline uint64_t units_of(const struct place *p)
{
	return p->since + (uint32_t)p->sum;
}

static bool read_text(struct dc_column *a, union dc_value *value, int *bytes)
{
	struct dc_text text = {0};
	const uint8_t *at;

	if (!dc_column_text(a, value->u, &at, &text.length))
		return false;
	if (text.length == DC_TEXT_NULL) {
		text.length = 0;
	} else {
		text.bytes = (const char *)at;
		*bytes += 1 + (int)text.length;
	}
	value->text = text;
	return true;
}

/* READ_MORE. Return: the bytes that texts have in a record, -1: one is missing. */
static __attribute__((noinline)) int read_more(struct dc_ready *n, const uint64_t *at)
{
	struct dc_event *e = &n->event;
	int bytes = 0;

	e->flow_id = at[DC_READY_STRIDE];
	for (unsigned k = 0; k < e->arg_count; k++) {
		e->args[k].u = at[(k + 1) * DC_READY_STRIDE];
		if (n->shape->args[k].form == DC_COLUMN_TEXT && !read_text(&n->shape->args[k], &e->args[k], &bytes))
			return -1;
	}
	return bytes;
}

/*
 * The step at @n where there is none yet: the shape's next events are to be made ready, or the delta is a wide one, which
 * the step then has instead. 0: there is no further event.
 */
static __attribute__((noinline)) uint64_t read_step(struct dc_columns *c, struct dc_ready *n)
{
	uint32_t delta;

	if (*n->at == DC_READY_NONE && !dc_columns_ready(n))
		return 0;
	if ((uint32_t)*n->at < DC_DELTA_WIDE)
		return *n->at;
	if (!dc_columns_wide(c, &delta))
		return 0;
	return delta | ((*n->at >> 32) + dc_value_bytes(delta) - 2) << 32; /* two bytes are counted */
}

/* An END where another span is open than the writer said. Return: the depth, now that it is closed. */
static __attribute__((noinline)) uint32_t end_other(struct dc_lane_decoder *d, uint32_t depth, uint64_t units,
						    struct dc_event *e)
{
	e->units = units;
	e->implied = false;
	return dc_lane_end(d, depth, e);
}

/* The next event of @n, and @step is its. NULL: it lacks a text. */
dc_columns_inline const struct dc_event *read_event(struct dc_columns *c, struct dc_lane_decoder *d, struct dc_ready *n,
						    uint64_t step, struct place *p)
{
	const uint64_t *at = n->at;
	struct dc_event *e = &n->event;

	n->at = at + 1;
	p->sum += step;
	e->units = units_of(p);
	if (n->reading == READ_END) {
		if (unlikely(!dc_lane_end_of(d, p->depth, n->span, e))) {
			e = &c->ready->event;
			p->depth = end_other(d, p->depth, units_of(p), e);
			return e;
		}
		p->depth--;
		return e;
	}
	e->args[0].u = at[DC_READY_STRIDE];
	e->args[1].u = at[2 * DC_READY_STRIDE];
	if (n->reading & READ_MORE) {
		int bytes = read_more(n, at);

		if (bytes < 0)
			return NULL;
		p->sum += (uint64_t)bytes << 32;
	}
	if (n->reading & READ_BEGIN)
		p->depth = dc_lane_open(d, p->depth, n->span, e->units);
	e->depth = p->depth;
	return e;
}

/* The thread of the lane, in all events. */
static void set_thread(struct dc_columns *c, const struct dc_lane_decoder *d)
{
	const struct dc_event *e = &c->ready->event;

	if (e->tid == d->tid && e->serial == d->serial && e->lane == d->lane)
		return;
	for (uint32_t i = 0; i <= c->shape_count; i++)
		dc_lane_set_thread(d, &c->ready[i].event);
}

/* The columns' and the decoder's state between records. Ops from those in @c on are events that were not counted. */
dc_columns_inline void pause(struct dc_columns *c, struct dc_lane_decoder *d, const struct place *p, unsigned op_bytes)
{
	uint64_t events = (uint64_t)(p->ops - c->ops) / op_bytes;

	c->ops = p->ops;
	d->units = units_of(p);
	d->depth = p->depth;
	d->events += events;
	d->next_event += events;
}

static int give_up(struct dc_lane_decoder *d)
{
	d->faulty = true;
	return -EBADMSG;
}

/* The op that was read last has no event to it. */
static int give_up_op(struct dc_columns *c, struct dc_lane_decoder *d, unsigned op_bytes)
{
	c->ops += op_bytes;
	return give_up(d);
}

static __attribute__((noinline)) int read_bytes(struct dc_columns *c, struct dc_lane_decoder *d, each_fn each,
						void *arg, size_t *ret_bytes)
{
	const uint8_t *at = dc_columns_escape(c, ret_bytes);

	return at ? dc_lane_more(d, at, *ret_bytes, each, arg) : give_up(d);
}

/* The op before @p->ops is an escape. */
dc_columns_inline int read_escape(struct dc_columns *c, struct dc_lane_decoder *d, each_fn each, void *arg,
				  struct place *p, const unsigned op_bytes)
{
	size_t bytes = 0;
	int r;

	c->ops += op_bytes; /* it is no event */
	pause(c, d, p, op_bytes);
	r = read_bytes(c, d, each, arg, &bytes);
	set_thread(c, d); /* they may have named another */
	*p = (struct place){c->ops, ((p->sum >> 32) + bytes) << 32, d->units, d->depth};
	return r;
}

dc_columns_inline int read_chunk(struct dc_columns *c, struct dc_lane_decoder *d, size_t bytes, each_fn each, void *arg,
				 const unsigned op_bytes)
{
	struct place p = {c->ops, 0, d->units, d->depth};
	struct dc_ready *const *const by_op = c->by_op;
	const uint64_t end = (uint64_t)bytes << 32;
	int r = 0;

	set_thread(c, d);
	while (r == 0 && p.sum < end) {
		const uint32_t op = dc_columns_op(p.ops, op_bytes);
		struct dc_ready *n = by_op[op];
		uint64_t step = *n->at;

		p.ops += op_bytes;
		if (unlikely((uint32_t)step >= DC_DELTA_WIDE)) {
			if (op == DC_OP_ESCAPE) {
				r = read_escape(c, d, each, arg, &p, op_bytes);
				continue;
			}
			step = read_step(c, n);
			if (!step) {
				r = give_up_op(c, d, op_bytes);
				continue;
			}
			p.since += (uint32_t)step;
			step = step >> 32 << 32;
		}
		const struct dc_event *e = read_event(c, d, n, step, &p);
		r = unlikely(!e) ? give_up_op(c, d, op_bytes) : each(arg, e);
	}
	pause(c, d, &p, op_bytes);
	return r == 0 && p.sum >> 32 != bytes ? give_up(d) : r;
}

int dc_columns_each(struct dc_columns *c, struct dc_lane_decoder *d, each_fn each, void *arg)
{
	size_t bytes = dc_columns_chunk_bytes(c, c->chunk), head = dc_chunk_head_bytes(bytes);
	int r = dc_lane_feed(d, c->heads, bytes); /* looks at the head only */

	d->end = d->at;
	c->chunk++;
	c->heads += head;
	if (r < 0)
		return r;
	if (c->two_byte_ops)
		return read_chunk(c, d, bytes - head, each, arg, 2);
	return read_chunk(c, d, bytes - head, each, arg, 1);
}
