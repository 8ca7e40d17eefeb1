/* SPDX-License-Identifier: MIT */
/*
 * COLUMNS → events, without the bytes of the chunks in between: the fastest way through a settled capture. Joining and
 * decoding again would cost twice as much.
 *
 * What an event means is no matter of this file (ipc/lane.h). Nor are the records that are kept as bytes: the decoder of
 * bytes reads them in their turn. So all there is to do here is to take the numbers of the next event from its columns,
 * and to count the bytes it would have as a record, because that is where a chunk ends.
 *
 * It takes only columns whose shapes say what the schema says. Others (made by a damaged or hostile writer) are left to
 * be joined.
 */
#include <errno.h>

#include "ipc/lane.h"
#include "persist/columns_inside.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

typedef int (*each_fn)(void *arg, const struct dc_event *event);

enum reading { /* how the numbers of an event become its arguments */
	       READ_END,
	       READ_NONE,
	       READ_ONE,
	       READ_TWO,
	       READ_WORDS,
	       READ_MIXED,
	       READ_FLOW,
};

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

static bool understand_site(struct dc_shape *s, const struct dc_schema *schema)
{
	static const uint8_t of_words[] = {READ_NONE, READ_ONE, READ_TWO};

	if (!has_site(s->kind) || s->site >= schema->count)
		return false;
	s->info = &schema->sites[s->site];
	if (s->info->shape == DC_SHAPE_UNUSABLE || s->info->arg_count != s->arg_count)
		return false;
	for (unsigned i = 0; i < s->arg_count; i++) {
		if (s->args[i].form != form_of(s->info->types[i]))
			return false;
		s->args[i].is_signed = s->info->zigzag >> i & 1;
	}
	s->least_bytes = (uint8_t)(2 + sizeof s->site + (s->arg_count + 1) / 2);
	s->reading = READ_MIXED;
	if (s->info->shape == DC_SHAPE_WORDS)
		s->reading = s->arg_count < sizeof of_words ? of_words[s->arg_count] : READ_WORDS;
	return true;
}

static bool understand(struct dc_shape *s, const struct dc_schema *schema)
{
	switch (s->kind) {
	case DC_KIND_END:
		s->reading = READ_END;
		s->least_bytes = 2;
		return true;
	case DC_KIND_FLOW_OUT:
	case DC_KIND_FLOW_IN:
		s->reading = READ_FLOW;
		s->least_bytes = 2 + 8;
		return true;
	default:
		return understand_site(s, schema);
	}
}

bool dc_columns_understand(struct dc_columns *c, const struct dc_schema *schema)
{
	for (uint32_t i = 1; i <= c->shape_count; i++)
		if (!understand(&c->shapes[i], schema))
			return false;
	return true;
}

/* --- events --- */

/* Where a chunk's reader is: a local of the loop that nobody has the address of, so that it lives in registers. */
struct place {
	const uint8_t *ops;
	uint64_t units;
	int64_t left; /* bytes of the chunk that the next records have */
	uint32_t depth;
};

/* A number as it is in a record; *@left goes down by its bytes. */
dc_columns_inline uint64_t read_number(struct dc_column *a, uint32_t i, size_t stride, int64_t *left)
{
	uint64_t w = dc_column_number(a, i, stride);

	*left -= dc_value_bytes(w);
	return w;
}

dc_columns_inline uint64_t read_word(struct dc_column *a, uint32_t i, size_t stride, int64_t *left)
{
	uint64_t w = read_number(a, i, stride, left);

	return a->is_signed ? (uint64_t)dc_unzigzag(w) : w;
}

static bool read_text(struct dc_column *a, uint32_t i, size_t stride, int64_t *left, struct dc_text *text)
{
	const uint8_t *bytes;

	*text = (struct dc_text){0};
	if (!dc_column_text(a, i, stride, &bytes, &text->length))
		return false;
	if (text->length == DC_TEXT_NULL) {
		text->length = 0;
		return true;
	}
	text->bytes = (const char *)bytes;
	*left -= 1 + text->length;
	return true;
}

/* Arguments of any types. False: a text is missing. */
static __attribute__((noinline)) bool read_mixed(const struct dc_shape *s, uint32_t i, int64_t *left,
						 struct dc_event *e)
{
	for (unsigned k = 0; k < s->arg_count; k++) {
		struct dc_column *a = &s->args[k];

		if (a->form == DC_COLUMN_SECRET)
			e->args[k].u = 0;
		else if (a->form == DC_COLUMN_NUMBER)
			e->args[k] = dc_lane_value(s->info->types[k], read_number(a, i, s->count, left));
		else if (!read_text(a, i, s->count, left, &e->args[k].text))
			return false;
	}
	return true;
}

dc_columns_inline bool read_args(const struct dc_shape *s, uint32_t i, struct place *p, struct dc_event *e)
{
	int64_t left = p->left;
	bool there = true;

	switch (s->reading) {
	case READ_NONE:
		return true;
	case READ_ONE:
		e->args[0].u = read_word(&s->args[0], i, s->count, &p->left);
		return true;
	case READ_TWO:
		e->args[0].u = read_word(&s->args[0], i, s->count, &p->left);
		e->args[1].u = read_word(&s->args[1], i, s->count, &p->left);
		return true;
	case READ_WORDS:
		for (unsigned k = 0; k < s->arg_count; k++)
			e->args[k].u = read_word(&s->args[k], i, s->count, &p->left);
		return true;
	default:
		there = read_mixed(s, i, &left, e);
		p->left = left;
		return there;
	}
}

/* The next event of @s. False: there is none. */
dc_columns_inline bool read_event(struct dc_columns *c, struct dc_lane_decoder *d, struct dc_shape *s, struct place *p,
				  struct dc_event *e)
{
	uint32_t i = s->next, delta;
	unsigned more;

	if (unlikely(i >= s->count || !dc_columns_delta(c, s, i, &delta, &more)))
		return false;
	s->next = i + 1;
	p->units += delta;
	p->left -= s->least_bytes + more;
	if (s->reading == READ_END) {
		e->units = p->units;
		e->implied = false;
		p->depth = dc_lane_end(d, p->depth, e);
		return true;
	}
	dc_lane_event(e, s->kind, p->units);
	if (unlikely(s->reading == READ_FLOW)) {
		dc_lane_no_site(e);
		e->flow_id = dc_column_number(s->args, i, s->count);
	} else {
		dc_lane_set_site(e, s->site, s->info);
		if (unlikely(!read_args(s, i, p, e)))
			return false;
		if (s->kind == DC_KIND_BEGIN)
			p->depth = dc_lane_begin(d, p->depth, e);
	}
	e->depth = p->depth;
	return true;
}

/* The columns' and the decoder's state between records. Ops from those in @c on are events that were not counted. */
dc_columns_inline void pause(struct dc_columns *c, struct dc_lane_decoder *d, const struct place *p, unsigned op_bytes)
{
	uint64_t events = (uint64_t)(p->ops - c->ops) / op_bytes;

	c->ops = p->ops;
	d->units = p->units;
	d->depth = p->depth;
	d->events += events;
	d->next_event += events;
}

static int give_up(struct dc_lane_decoder *d)
{
	d->faulty = true;
	return -EBADMSG;
}

static __attribute__((noinline)) int read_escape(struct dc_columns *c, struct dc_lane_decoder *d, each_fn each,
						 void *arg, size_t *ret_bytes)
{
	const uint8_t *at = dc_columns_escape(c, ret_bytes);

	return at ? dc_lane_more(d, at, *ret_bytes, each, arg) : give_up(d);
}

dc_columns_inline int read_chunk(struct dc_columns *c, struct dc_lane_decoder *d, size_t bytes, each_fn each, void *arg,
				 const unsigned op_bytes)
{
	struct place p = {c->ops, d->units, (int64_t)bytes, d->depth};
	struct dc_event e;
	int r = 0;

	dc_lane_set_thread(d, &e);
	while (r == 0 && p.left > 0) {
		uint32_t op = dc_columns_op(p.ops, op_bytes);

		p.ops += op_bytes;
		if (unlikely(op == DC_OP_ESCAPE)) {
			size_t escaped = 0;

			c->ops += op_bytes; /* this one is no event */
			pause(c, d, &p, op_bytes);
			r = read_escape(c, d, each, arg, &escaped);
			dc_lane_set_thread(d, &e); /* the bytes may have named another */
			p = (struct place){c->ops, d->units, p.left - (int64_t)escaped, d->depth};
		} else if (read_event(c, d, &c->shapes[op], &p, &e)) {
			r = each(arg, &e);
		} else {
			c->ops += op_bytes;
			r = give_up(d);
		}
	}
	pause(c, d, &p, op_bytes);
	return r == 0 && p.left < 0 ? give_up(d) : r;
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
