/* SPDX-License-Identifier: MIT */
/*
 * The columns of a COLUMNS payload: where they are, and that they are as large as the counts say. Afterwards the counts
 * are true and every column lies inside the payload, which is what the readers (columns_inside.h) rely on.
 */
#include "persist/columns.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "persist/columns_inside.h"

/* --- the columns --- */

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

static int init_args(struct dc_columns *c, const struct dc_columns_head *h, const uint8_t *stored)
{
	for (uint32_t i = 0; i < h->arg_count; i++) {
		struct dc_columns_arg d;

		memcpy(&d, stored + i * sizeof d, sizeof d);
		if (d.planes > 8 || d.form > DC_COLUMN_FLOW || d.differences > 1)
			return -EBADMSG;
		c->args[i] = (struct dc_column){.base = d.base,
						.previous = d.start,
						.keep = 0 - (uint64_t)d.differences,
						.text_left = d.text_bytes,
						.form = d.form,
						.planes = d.planes};
	}
	return 0;
}

static int init_shape(struct dc_shape *s, const struct dc_columns_shape *d, struct dc_column *args)
{
	*s = (struct dc_shape){
		.args = args, .count = d->count, .site = d->site, .kind = d->kind, .arg_count = d->arg_count};
	if (d->kind == DC_KIND_END)
		return d->arg_count ? -EBADMSG : 0;
	if (d->kind == DC_KIND_FLOW_OUT || d->kind == DC_KIND_FLOW_IN)
		return d->arg_count == 1 && args[0].form == DC_COLUMN_FLOW ? 0 : -EBADMSG;
	for (unsigned i = 0; i < d->arg_count; i++)
		if (args[i].form == DC_COLUMN_FLOW)
			return -EBADMSG;
	return d->kind && d->kind <= DC_KIND_LAST ? 0 : -EBADMSG;
}

static int init_shapes(struct dc_columns *c, const struct dc_columns_head *h, const uint8_t *stored)
{
	uint64_t ops = h->escape_count;
	uint32_t args = 0;

	for (uint32_t i = 0; i < h->shape_count; i++) {
		struct dc_columns_shape d;

		memcpy(&d, stored + i * sizeof d, sizeof d);
		if (d.arg_count > DC_ARG_MAX || d.arg_count > h->arg_count - args)
			return -EBADMSG;
		if (init_shape(&c->shapes[i + 1], &d, c->args + args) < 0)
			return -EBADMSG;
		args += d.arg_count;
		ops += d.count;
	}
	return ops == h->op_count && args == h->arg_count ? 0 : -EBADMSG;
}

/* Looked at where there is nothing after the last op; everywhere else, planes or lengths follow. */
static const uint8_t no_ops[2];

/* In the order of columns_layout.h. */
static int claim_columns(struct dc_columns *c, const struct dc_columns_head *h, size_t head_bytes, struct rest *rest)
{
	struct dc_shape *first = c->shapes + 1, *last = first + h->shape_count;

	c->heads = claim(rest, head_bytes);
	c->ops = claim(rest, (uint64_t)h->op_count * h->op_bytes);
	c->wide = claim(rest, (uint64_t)h->wide_count * 4);
	c->lengths = claim(rest, (uint64_t)h->escape_count * 2);
	for (struct dc_shape *s = first; s < last; s++)
		s->high = claim(rest, s->count);
	for (struct dc_shape *s = first; s < last; s++)
		for (unsigned i = 0; i < s->arg_count; i++)
			s->args[i].plane = claim(rest, (uint64_t)s->count * s->args[i].planes);
	for (struct dc_shape *s = first; s < last; s++)
		s->low = claim(rest, s->count);
	c->escapes = claim(rest, h->escape_bytes);
	for (uint32_t i = 0; i < h->arg_count; i++)
		c->args[i].text = claim(rest, c->args[i].text_left);
	c->end = rest->at;
	if (!h->op_count)
		c->ops = no_ops;
	return rest->bad || rest->left ? -EBADMSG : 0;
}

static int find_columns(struct dc_columns *c, const uint8_t *columns, size_t bytes, size_t head_bytes)
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
	c->shapes = calloc(h.op_bytes == 2 ? DC_SHAPE_MAX + 1 : 256, sizeof *c->shapes);
	c->args = calloc(h.arg_count + 1, sizeof *c->args);
	if (!c->shapes || !c->args)
		return -ENOMEM;
	if (init_args(c, &h, args) < 0 || init_shapes(c, &h, shapes) < 0)
		return -EBADMSG;
	c->shape_count = h.shape_count;
	c->escapes_left = h.escape_count;
	c->escape_bytes_left = h.escape_bytes;
	c->wide_left = h.wide_count;
	c->two_byte_ops = h.op_bytes == 2;
	return claim_columns(c, &h, head_bytes, &rest);
}

/* --- the payload around them --- */

/*
 * The chunks header, with entries that are there and packed. Sets the bytes of the chunks and of their heads.
 */
static int check_entries(const uint8_t *columns, size_t bytes, struct dc_chunks_block *ret_block, size_t *ret_data,
			 size_t *ret_heads)
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

int dc_columns_open(struct dc_columns *c, const void *columns, size_t bytes)
{
	const uint8_t *from = columns;
	size_t heads;
	int r;

	*c = (struct dc_columns){0};
	r = check_entries(from, bytes, &c->block, &c->data_bytes, &heads);
	if (r < 0)
		return r;
	c->entries = from + sizeof c->block;
	return find_columns(c, from + c->block.data_offset, bytes - c->block.data_offset, heads);
}

void dc_columns_close(struct dc_columns *c)
{
	free(c->shapes);
	free(c->args);
	free(c->ready);
	free(c->by_op);
	free(c->numbers);
	*c = (struct dc_columns){0};
}
