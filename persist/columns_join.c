/* SPDX-License-Identifier: MIT */
/*
 * COLUMNS → CHUNKS. In the way of everybody who reads a settled capture by chunks, so it has to be fast: about 3 ns an
 * event.
 *
 * Stores are whole words that the next ones overlap, as in the recorder, so no loop runs over bytes; and the output has
 * room for one largest event behind its end, so that its end is looked at only once per event.
 */
#include "persist/columns.h"

#include <errno.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "persist/columns_inside.h"

#define inline_always static inline __attribute__((always_inline))
#define unlikely(x) __builtin_expect(!!(x), 0)

static_assert(DC_COLUMNS_SLACK >= 8 + DC_ARG_MAX * (2 + 255 + 32), "room for the largest event");

enum layout { /* of what follows the delta */
	BARE,
	NO_ARGS, /* only the site */
	ONE_NUMBER, /* the site and ... */
	TWO_NUMBERS,
	NUMBERS,
	MIXED,
	FLOW, /* 8 bytes */
};

static uint8_t layout_of(const struct dc_shape *s)
{
	static const uint8_t of_numbers[] = {NO_ARGS, ONE_NUMBER, TWO_NUMBERS};

	if (s->kind == DC_KIND_END)
		return BARE;
	if (s->kind == DC_KIND_FLOW_OUT || s->kind == DC_KIND_FLOW_IN)
		return FLOW;
	for (unsigned i = 0; i < s->arg_count; i++)
		if (s->args[i].form != DC_COLUMN_NUMBER)
			return MIXED;
	return s->arg_count < sizeof of_numbers ? of_numbers[s->arg_count] : NUMBERS;
}

/* In place of where the next event goes: the columns lie. It is not below any end, so no loop asks for it. */
#define LIE ((uint8_t *)UINTPTR_MAX)

inline_always void store2(uint8_t *to, uint16_t v)
{
	memcpy(to, &v, sizeof v);
}

inline_always void store8(uint8_t *to, uint64_t v)
{
	memcpy(to, &v, sizeof v);
}

/* The delta of the event at index @i; *@ret_more: its bytes but one. False: there is none. */
inline_always bool read_delta(struct dc_columns *c, const struct dc_shape *s, uint32_t i, uint32_t *ret_delta,
			      unsigned *ret_more)
{
	uint32_t delta = s->low[i] | (uint32_t)s->high[i] << 8;

	*ret_more = (delta + 0xff00) >> 16; /* 1 from 0x100 on, without a branch */
	*ret_delta = delta;
	if (__builtin_expect(delta < DC_DELTA_WIDE, 1))
		return true;
	if (!dc_columns_wide(c, &delta))
		return false;
	*ret_more = dc_value_bytes(delta) - 1;
	*ret_delta = delta;
	return true;
}

/* The number at index @i of planes of @stride entries. */
inline_always uint64_t column_number(struct dc_column *a, uint32_t i, size_t stride)
{
	const uint8_t *p = a->plane + i;
	uint64_t x = 0;

	switch (a->planes) {
	case 0:
		break;
	case 1:
		x = p[0];
		break;
	case 2:
		x = p[0] | (uint32_t)p[stride] << 8;
		break;
	default:
		for (unsigned k = a->planes; k--;)
			x = x << 8 | p[k * stride];
	}
	return a->previous = (a->previous & a->keep) + a->base + x;
}

inline_always uint8_t *join_one(struct dc_column *a, uint32_t i, size_t stride, uint8_t *out)
{
	uint64_t v = column_number(a, i, stride);
	unsigned bytes = dc_value_bytes(v);

	out[0] = (uint8_t)bytes;
	store8(out + 1, v);
	return out + 1 + bytes;
}

/* Loads before stores: the compiler must take every store of bytes for one into the columns' state. */
inline_always uint8_t *join_two(struct dc_column *a, uint32_t i, size_t stride, uint8_t *out)
{
	uint64_t v = column_number(&a[0], i, stride), w = column_number(&a[1], i, stride);
	unsigned v_bytes = dc_value_bytes(v), w_bytes = dc_value_bytes(w);

	out[0] = (uint8_t)(v_bytes | w_bytes << 4);
	store8(out + 1, v);
	store8(out + 1 + v_bytes, w);
	return out + 1 + v_bytes + w_bytes;
}

static uint8_t *join_many(struct dc_column *a, unsigned count, uint32_t i, size_t stride, uint8_t *out)
{
	for (; count >= 2; count -= 2, a += 2)
		out = join_two(a, i, stride, out);
	return count ? join_one(a, i, stride, out) : out;
}

/* In steps of 16 where the payload goes on far enough: past the text is slack, or more of the payload. */
static void copy_text(uint8_t *to, const uint8_t *from, size_t bytes, const uint8_t *end)
{
	if ((size_t)(end - from) < bytes + 16) {
		memcpy(to, from, bytes);
		return;
	}
	for (size_t i = 0; i < bytes; i += 16)
		memcpy(to + i, from + i, 16);
}

/* Return: the code, or -1. */
static int join_text(const struct dc_columns *c, struct dc_column *a, uint32_t i, size_t stride, uint8_t **out)
{
	const uint8_t *text;
	uint32_t length;

	if (!dc_column_text(a, column_number(a, i, stride), &text, &length))
		return -1;
	if (length == DC_TEXT_NULL)
		return DC_CODE_STR_NULL;
	*(*out)++ = (uint8_t)length;
	copy_text(*out, text, length, c->end);
	*out += length;
	return DC_CODE_STR_8;
}

static int join_arg(const struct dc_columns *c, struct dc_column *a, uint32_t i, size_t stride, uint8_t **out)
{
	uint64_t v;

	if (a->form == DC_COLUMN_TEXT)
		return join_text(c, a, i, stride, out);
	if (a->form == DC_COLUMN_SECRET)
		return 0;
	v = column_number(a, i, stride);
	store8(*out, v);
	*out += dc_value_bytes(v);
	return (int)dc_value_bytes(v);
}

static __attribute__((noinline)) uint8_t *join_mixed(const struct dc_columns *c, const struct dc_shape *s,
						     uint32_t i, uint8_t *out)
{
	uint8_t *code = out;

	for (unsigned a = 0; a < s->arg_count; a++) {
		int nibble;

		if (a % 2 == 0)
			code = out++;
		nibble = join_arg(c, &s->args[a], i, s->count, &out);
		if (nibble < 0)
			return LIE;
		*code = (uint8_t)(a % 2 ? *code | nibble << 4 : nibble);
	}
	return out;
}

static uint8_t *join_escape(struct dc_columns *c, uint8_t *out, const uint8_t *end)
{
	size_t bytes;
	const uint8_t *at = dc_columns_escape(c, &bytes);

	if (!at || (ptrdiff_t)bytes > end - out)
		return LIE;
	memcpy(out, at, bytes);
	return out + bytes;
}

inline_always uint8_t *join_site(const struct dc_shape *s, uint8_t *out)
{
	store2(out, s->site);
	return out + 2;
}

inline_always uint8_t *join_event(struct dc_columns *c, struct dc_shape *s, uint8_t *out)
{
	uint32_t i = s->next, count = s->count;
	uint32_t delta;
	unsigned more;

	if (unlikely(i >= count))
		return LIE;
	s->next = i + 1;
	if (unlikely(!read_delta(c, s, i, &delta, &more)))
		return LIE;
	store8(out, s->kind + (more << 5) + ((uint64_t)delta << 8));
	out += 2 + more;
	switch (s->layout) {
	case BARE:
		return out;
	case NO_ARGS:
		return join_site(s, out);
	case ONE_NUMBER:
		return join_one(s->args, i, count, join_site(s, out));
	case TWO_NUMBERS:
		return join_two(s->args, i, count, join_site(s, out));
	case NUMBERS:
		return join_many(s->args, s->arg_count, i, count, join_site(s, out));
	case FLOW:
		store8(out, column_number(s->args, i, count));
		return out + 8;
	default:
		return join_mixed(c, s, i, join_site(s, out));
	}
}

/*
 * Events up to exactly @end. Ops cannot run out before events and escapes do: each takes one of a count, and
 * the counts add up to theirs.
 */
inline_always int join_events(struct dc_columns *c, uint8_t *out, const uint8_t *end, const unsigned op_bytes)
{
	const uint8_t *ops = c->ops;

	while (out < end) {
		uint32_t op = dc_columns_op(ops, op_bytes);

		if (unlikely(op == DC_OP_ESCAPE))
			out = join_escape(c, out, end);
		else
			out = join_event(c, &c->shapes[op], out);
		ops += op_bytes;
	}
	c->ops = ops;
	return out == end ? 0 : -EBADMSG;
}

static int join_chunk(struct dc_columns *c, uint8_t *out)
{
	size_t bytes = dc_columns_chunk_bytes(c, c->chunk), head = dc_chunk_head_bytes(bytes);
	int r;

	c->chunk++;
	memcpy(out, c->heads, head);
	c->heads += head;
	if (c->two_byte_ops)
		r = join_events(c, out + head, out + bytes, 2);
	else
		r = join_events(c, out + head, out + bytes, 1);
	memset(out + bytes, 0, dc_columns_packed(bytes) - bytes);
	return r;
}

static void dc_columns_cleanup(struct dc_columns *c)
{
	dc_columns_close(c);
}

int dc_columns_join(const void *columns, size_t bytes, void *chunks, size_t room)
{
	CLEANUP(dc_columns) struct dc_columns c = {0};
	uint8_t *out = chunks;
	int r = dc_columns_open(&c, columns, bytes);

	if (r < 0)
		return r;
	if (room < c.block.data_offset + c.data_bytes + DC_COLUMNS_SLACK)
		return -ENOBUFS;
	for (uint32_t i = 1; i <= c.shape_count; i++)
		c.shapes[i].layout = layout_of(&c.shapes[i]);
	memcpy(out, columns, c.block.data_offset);
	out += c.block.data_offset;
	while (r == 0 && c.chunk < c.block.count) {
		size_t packed = dc_columns_packed(dc_columns_chunk_bytes(&c, c.chunk));

		r = join_chunk(&c, out);
		out += packed;
	}
	return r;
}
