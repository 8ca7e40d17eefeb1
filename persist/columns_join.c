/* SPDX-License-Identifier: MIT */
/*
 * COLUMNS → CHUNKS. In the way of everybody who reads a settled capture, so it has to be fast: about 3 ns an event.
 *
 * Two things make it so. Stores are whole words that the next ones overlap, as in the recorder, so no loop runs over
 * bytes. And bounds are not looked at where they cannot be passed: all planes of a shape have as many entries as the
 * shape has events, so one comparison covers all its columns; ops and escapes end together with them because their
 * counts add up; and the output has room for one largest event behind its end.
 */
#include "persist/columns.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "persist/columns_layout.h"

#define inline_always static inline __attribute__((always_inline))
#define unlikely(x) __builtin_expect(!!(x), 0)

struct arg {
	const uint8_t *plane; /* the lowest; the others follow at distances of shape.count */
	uint64_t base;
	uint64_t previous;
	uint64_t keep; /* all ones: differences; zero: not */
	const uint8_t *text;
	uint32_t text_left;
	uint8_t form;
	uint8_t planes;
};

enum layout { /* of what follows the delta */
	BARE,
	NO_ARGS, /* only the site */
	ONE_NUMBER, /* the site and ... */
	TWO_NUMBERS,
	NUMBERS,
	MIXED,
	FLOW, /* 8 bytes */
};

struct shape {
	const uint8_t *low; /* delta planes */
	const uint8_t *high;
	struct arg *args;
	uint32_t next; /* index of its next event */
	uint32_t count;
	uint16_t site;
	uint8_t kind;
	uint8_t arg_count;
	uint8_t layout;
};

struct joiner {
	struct shape *shapes; /* by op: as many as an op can say; those that do not exist have no events */
	struct arg *args;
	const uint8_t *heads;
	const uint8_t *ops;
	const uint8_t *lengths;
	const uint8_t *escapes;
	const uint8_t *wide;
	uint32_t escapes_left;
	uint32_t escape_bytes_left;
	uint32_t wide_left;
	bool two_byte_ops;
	const uint8_t *end; /* of the payload: nothing is loaded from there on */
};

static_assert(DC_COLUMNS_SLACK >= 8 + DC_ARG_MAX * (2 + 255 + 32), "room for the largest event");

static void joiner_cleanup(struct joiner *j)
{
	free(j->shapes);
	free(j->args);
}

/* --- validation: afterwards the counts are true and every column lies inside the payload --- */

struct rest {
	const uint8_t *at; /* next byte of the payload that no column has claimed */
	size_t left;
	bool bad;
};

static const uint8_t *claim(struct rest *rest, uint64_t bytes)
{
	const uint8_t *at = rest->at;

	if (bytes > rest->left) {
		rest->bad = true;
		return at;
	}
	rest->at += bytes;
	rest->left -= bytes;
	return at;
}

static int init_args(struct joiner *j, const struct dc_columns_head *h, const uint8_t *stored)
{
	for (uint32_t i = 0; i < h->arg_count; i++) {
		struct dc_columns_arg d;

		memcpy(&d, stored + i * sizeof d, sizeof d);
		if (d.planes > 8 || d.form > DC_COLUMN_FLOW || d.differences > 1)
			return -EBADMSG;
		j->args[i] = (struct arg){.base = d.base,
					  .previous = d.start,
					  .keep = 0 - (uint64_t)d.differences,
					  .text_left = d.text_bytes,
					  .form = d.form,
					  .planes = d.planes};
	}
	return 0;
}

static uint8_t layout_of(const struct arg *args, unsigned count)
{
	static const uint8_t of_numbers[] = { NO_ARGS, ONE_NUMBER, TWO_NUMBERS };

	for (unsigned i = 0; i < count; i++)
		if (args[i].form != DC_COLUMN_NUMBER)
			return MIXED;
	return count < sizeof of_numbers ? of_numbers[count] : NUMBERS;
}

static int init_shape(struct shape *s, const struct dc_columns_shape *d, struct arg *args)
{
	*s = (struct shape){ .args = args,
			     .count = d->count,
			     .site = d->site,
			     .kind = d->kind,
			     .arg_count = d->arg_count,
			     .layout = layout_of(args, d->arg_count) };
	if (d->kind == DC_KIND_END) {
		s->layout = BARE;
		return d->arg_count ? -EBADMSG : 0;
	}
	if (d->kind == DC_KIND_FLOW_OUT || d->kind == DC_KIND_FLOW_IN) {
		s->layout = FLOW;
		return d->arg_count == 1 && args[0].form == DC_COLUMN_FLOW ? 0 : -EBADMSG;
	}
	for (unsigned i = 0; i < d->arg_count; i++)
		if (args[i].form == DC_COLUMN_FLOW)
			return -EBADMSG;
	return d->kind && d->kind <= DC_KIND_LAST ? 0 : -EBADMSG;
}

static int init_shapes(struct joiner *j, const struct dc_columns_head *h, const uint8_t *stored)
{
	uint64_t ops = h->escape_count;
	uint32_t args = 0;

	for (uint32_t i = 0; i < h->shape_count; i++) {
		struct dc_columns_shape d;

		memcpy(&d, stored + i * sizeof d, sizeof d);
		if (d.arg_count > DC_ARG_MAX || d.arg_count > h->arg_count - args)
			return -EBADMSG;
		if (init_shape(&j->shapes[i + 1], &d, j->args + args) < 0)
			return -EBADMSG;
		args += d.arg_count;
		ops += d.count;
	}
	return ops == h->op_count && args == h->arg_count ? 0 : -EBADMSG;
}

/* Looked at where there is nothing after the last op; everywhere else, planes or lengths follow. */
static const uint8_t no_ops[2];

/* In the order of columns_layout.h. */
static int claim_columns(struct joiner *j, const struct dc_columns_head *h, size_t head_bytes,
			 struct rest *rest)
{
	struct shape *first = j->shapes + 1, *last = first + h->shape_count;

	j->heads = claim(rest, head_bytes);
	j->ops = claim(rest, (uint64_t)h->op_count * h->op_bytes);
	j->wide = claim(rest, (uint64_t)h->wide_count * 4);
	j->lengths = claim(rest, (uint64_t)h->escape_count * 2);
	for (struct shape *s = first; s < last; s++)
		s->high = claim(rest, s->count);
	for (struct shape *s = first; s < last; s++)
		for (unsigned i = 0; i < s->arg_count; i++)
			s->args[i].plane = claim(rest, (uint64_t)s->count * s->args[i].planes);
	for (struct shape *s = first; s < last; s++)
		s->low = claim(rest, s->count);
	j->escapes = claim(rest, h->escape_bytes);
	for (uint32_t i = 0; i < h->arg_count; i++)
		j->args[i].text = claim(rest, j->args[i].text_left);
	j->end = rest->at;
	if (!h->op_count)
		j->ops = no_ops;
	return rest->bad || rest->left ? -EBADMSG : 0;
}

static int init(struct joiner *j, const uint8_t *columns, size_t bytes, size_t head_bytes)
{
	struct rest rest = {columns, bytes, false};
	struct dc_columns_head h;
	const uint8_t *shapes, *args;

	if (bytes < sizeof h)
		return -EBADMSG;
	memcpy(&h, claim(&rest, sizeof h), sizeof h);
	if (h.shape_count > DC_SHAPE_MAX || h.arg_count > h.shape_count * DC_ARG_MAX ||
	    h.op_bytes != (h.shape_count > 255 ? 2 : 1))
		return -EBADMSG;
	shapes = claim(&rest, h.shape_count * sizeof(struct dc_columns_shape));
	args = claim(&rest, h.arg_count * sizeof(struct dc_columns_arg));
	if (rest.bad)
		return -EBADMSG;
	j->shapes = calloc(h.op_bytes == 2 ? DC_SHAPE_MAX + 1 : 256, sizeof *j->shapes);
	j->args = calloc(h.arg_count + 1, sizeof *j->args);
	if (!j->shapes || !j->args)
		return -ENOMEM;
	if (init_args(j, &h, args) < 0 || init_shapes(j, &h, shapes) < 0)
		return -EBADMSG;
	j->escapes_left = h.escape_count;
	j->escape_bytes_left = h.escape_bytes;
	j->wide_left = h.wide_count;
	j->two_byte_ops = h.op_bytes == 2;
	return claim_columns(j, &h, head_bytes, &rest);
}

/* --- joining --- */

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

inline_always uint64_t next_number(struct arg *a, uint32_t i, size_t stride)
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

inline_always uint8_t *join_one(struct arg *a, uint32_t i, size_t stride, uint8_t *out)
{
	uint64_t v = next_number(a, i, stride);
	unsigned bytes = dc_value_bytes(v);

	out[0] = (uint8_t)bytes;
	store8(out + 1, v);
	return out + 1 + bytes;
}

/* Loads before stores: the compiler must take every store of bytes for one into the columns' state. */
inline_always uint8_t *join_two(struct arg *a, uint32_t i, size_t stride, uint8_t *out)
{
	uint64_t v = next_number(&a[0], i, stride), w = next_number(&a[1], i, stride);
	unsigned v_bytes = dc_value_bytes(v), w_bytes = dc_value_bytes(w);

	out[0] = (uint8_t)(v_bytes | w_bytes << 4);
	store8(out + 1, v);
	store8(out + 1 + v_bytes, w);
	return out + 1 + v_bytes + w_bytes;
}

static uint8_t *join_many(struct arg *a, unsigned count, uint32_t i, size_t stride, uint8_t *out)
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
static int join_text(const struct joiner *j, struct arg *a, uint32_t i, size_t stride, uint8_t **out)
{
	uint64_t length = next_number(a, i, stride);

	if (length == DC_TEXT_NULL)
		return DC_CODE_STR_NULL;
	if (length > 255 || length > a->text_left)
		return -1;
	*(*out)++ = (uint8_t)length;
	copy_text(*out, a->text, length, j->end);
	*out += length;
	a->text += length;
	a->text_left -= (uint32_t)length;
	return DC_CODE_STR_8;
}

static int join_arg(const struct joiner *j, struct arg *a, uint32_t i, size_t stride, uint8_t **out)
{
	uint64_t v;

	if (a->form == DC_COLUMN_TEXT)
		return join_text(j, a, i, stride, out);
	if (a->form == DC_COLUMN_SECRET)
		return 0;
	v = next_number(a, i, stride);
	store8(*out, v);
	*out += dc_value_bytes(v);
	return (int)dc_value_bytes(v);
}

static __attribute__((noinline)) uint8_t *join_mixed(const struct joiner *j, const struct shape *s,
						     uint32_t i, uint8_t *out)
{
	uint8_t *code = out;

	for (unsigned a = 0; a < s->arg_count; a++) {
		int nibble;

		if (a % 2 == 0)
			code = out++;
		nibble = join_arg(j, &s->args[a], i, s->count, &out);
		if (nibble < 0)
			return LIE;
		*code = (uint8_t)(a % 2 ? *code | nibble << 4 : nibble);
	}
	return out;
}

static uint8_t *join_escape(struct joiner *j, uint8_t *out, const uint8_t *end)
{
	uint16_t bytes;

	if (!j->escapes_left)
		return LIE;
	memcpy(&bytes, j->lengths, sizeof bytes);
	if (bytes > j->escape_bytes_left || bytes > end - out)
		return LIE;
	memcpy(out, j->escapes, bytes);
	j->lengths += sizeof bytes;
	j->escapes += bytes;
	j->escapes_left--;
	j->escape_bytes_left -= bytes;
	return out + bytes;
}

/* A delta that two planes cannot say, or -1 when there is none left. */
static __attribute__((noinline)) int64_t next_wide(struct joiner *j)
{
	uint32_t delta;

	if (!j->wide_left)
		return -1;
	memcpy(&delta, j->wide, sizeof delta);
	j->wide += sizeof delta;
	j->wide_left--;
	return delta;
}

inline_always uint8_t *join_site(const struct shape *s, uint8_t *out)
{
	store2(out, s->site);
	return out + 2;
}

inline_always uint8_t *join_event(struct joiner *j, struct shape *s, uint8_t *out)
{
	uint32_t i = s->next, count = s->count;
	int64_t delta;
	unsigned more; /* bytes of the delta after its first */

	if (unlikely(i >= count))
		return LIE;
	s->next = i + 1;
	delta = s->low[i] | s->high[i] << 8;
	more = (unsigned)((delta + 0xff00) >> 16); /* 1 from 0x100 on, without a branch */
	if (unlikely(delta >= DC_DELTA_WIDE)) {
		delta = next_wide(j);
		if (delta < 0)
			return LIE;
		more = dc_value_bytes((uint64_t)delta) - 1;
	}
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
		store8(out, next_number(s->args, i, count));
		return out + 8;
	default:
		return join_mixed(j, s, i, join_site(s, out));
	}
}

/*
 * Events up to exactly @end. Ops cannot run out before events and escapes do: each takes one of a count, and
 * the counts add up to theirs.
 */
inline_always int join_events(struct joiner *j, uint8_t *out, const uint8_t *end, const unsigned op_bytes)
{
	const uint8_t *ops = j->ops;

	while (out < end) {
		uint32_t op = op_bytes == 1 ? ops[0] : (ops[0] | (uint32_t)ops[1] << 8) & DC_SHAPE_MAX;

		if (unlikely(op == DC_OP_ESCAPE))
			out = join_escape(j, out, end);
		else
			out = join_event(j, &j->shapes[op], out);
		ops += op_bytes;
	}
	j->ops = ops;
	return out == end ? 0 : -EBADMSG;
}

static int join_chunk(struct joiner *j, uint8_t *out, size_t bytes)
{
	size_t head = dc_chunk_head_bytes(bytes);
	int r;

	memcpy(out, j->heads, head);
	j->heads += head;
	if (j->two_byte_ops)
		r = join_events(j, out + head, out + bytes, 2);
	else
		r = join_events(j, out + head, out + bytes, 1);
	memset(out + bytes, 0, dc_columns_packed(bytes) - bytes);
	return r;
}

/* --- the payload around the columns --- */

/*
 * The chunks header, with entries that are there and packed. Sets the bytes of the chunks and of their heads.
 */
static int check_entries(const uint8_t *columns, size_t bytes, struct dc_chunks_block *ret_block,
			 size_t *ret_data, size_t *ret_heads)
{
	struct dc_chunk_copy e;
	size_t data = 0, heads = 0;

	if (bytes < sizeof *ret_block)
		return -EBADMSG;
	memcpy(ret_block, columns, sizeof *ret_block);
	if (ret_block->count > (bytes - sizeof *ret_block) / sizeof e ||
	    ret_block->data_offset != sizeof *ret_block + ret_block->count * sizeof e)
		return -EBADMSG;
	for (uint32_t i = 0; i < ret_block->count; i++) {
		memcpy(&e, columns + sizeof *ret_block + i * sizeof e, sizeof e);
		if (e.offset != data)
			return -EBADMSG;
		data += dc_columns_packed(dc_state_bytes(e.state));
		heads += dc_chunk_head_bytes(dc_state_bytes(e.state));
		if (data > DC_BLOCK_PLAIN_MAX)
			return -EBADMSG;
	}
	*ret_data = data;
	*ret_heads = heads;
	return 0;
}

int dc_columns_joined_bytes(const void *columns, size_t bytes, size_t *ret_bytes)
{
	struct dc_chunks_block block;
	size_t data, heads;
	int r = check_entries(columns, bytes, &block, &data, &heads);

	if (r == 0)
		*ret_bytes = block.data_offset + data;
	return r;
}

int dc_columns_heads(const void *columns, size_t bytes, const uint8_t **ret_heads, size_t *ret_joined)
{
	const uint8_t *from = columns;
	struct dc_chunks_block block;
	struct dc_columns_head h;
	size_t data, heads, at;
	int r = check_entries(from, bytes, &block, &data, &heads);

	if (r < 0)
		return r;
	if (bytes - block.data_offset < sizeof h)
		return -EBADMSG;
	memcpy(&h, from + block.data_offset, sizeof h);
	if (h.shape_count > DC_SHAPE_MAX || h.arg_count > h.shape_count * DC_ARG_MAX)
		return -EBADMSG;
	at = block.data_offset + sizeof h + h.shape_count * sizeof(struct dc_columns_shape) +
	     h.arg_count * sizeof(struct dc_columns_arg);
	if (at > bytes || bytes - at < heads)
		return -EBADMSG;
	*ret_heads = from + at;
	*ret_joined = block.data_offset + data;
	return 0;
}

int dc_columns_join(const void *columns, size_t bytes, void *chunks, size_t room)
{
	CLEANUP(joiner) struct joiner j = {0};
	const uint8_t *from = columns;
	uint8_t *out = chunks;
	struct dc_chunks_block block;
	struct dc_chunk_copy e;
	size_t data, heads;
	int r = check_entries(from, bytes, &block, &data, &heads);

	if (r < 0)
		return r;
	if (room < block.data_offset + data + DC_COLUMNS_SLACK)
		return -ENOBUFS;
	r = init(&j, from + block.data_offset, bytes - block.data_offset, heads);
	memcpy(out, from, block.data_offset);
	out += block.data_offset;
	for (uint32_t i = 0; i < block.count && r == 0; i++) {
		memcpy(&e, from + sizeof block + i * sizeof e, sizeof e);
		r = join_chunk(&j, out, dc_state_bytes(e.state));
		out += dc_columns_packed(dc_state_bytes(e.state));
	}
	return r;
}
