/* SPDX-License-Identifier: MIT */
/*
 * CHUNKS → COLUMNS, in three steps: parse all chunks into ops and one flat list of numbers, in the order of
 * events; deal the numbers out to one list per column; write each column in whichever form is smaller.
 *
 * Parsing (columns_parse.c) is for storage, not for meaning: a record is taken apart only if putting it together
 * again, by the recorder's own rule of the fewest bytes, gives the same bytes. Everything else is an escape.
 */
#include "persist/columns.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "persist/columns_layout.h"
#include "persist/columns_parse.h"

struct shape {
	struct dc_columns_shape stored;
	uint8_t forms[DC_ARG_MAX];
	struct dc_columns_arg args[DC_ARG_MAX];
	uint64_t *columns[1 + DC_ARG_MAX]; /* [0]: the deltas; `count` numbers each; NULL: has none */
	uint8_t *texts[DC_ARG_MAX];        /* where the argument's next text goes */
	uint32_t next;
};

struct splitter {
	struct dc_record_parser parser;
	uint16_t *shape_of;   /* by kind and site: op, 0: none yet */
	struct shape *shapes; /* by op; [0] unused */
	struct dc_columns_head head;
	uint16_t *ops;
	uint64_t *numbers; /* of all events that are no escapes: delta, then arguments */
	size_t number_count;
	uint64_t *dealt;       /* the same, column by column */
	const uint8_t **texts; /* of the same events, in order; their lengths are among the numbers */
	size_t text_count;
	uint32_t *wide;
	uint8_t *heads;
	size_t head_bytes;
	uint8_t *escapes;
	uint16_t *lengths;
	bool escaping; /* the op before is an escape of the same chunk: the next one may continue it */
};

static void splitter_cleanup(struct splitter *s)
{
	free(s->shape_of);
	free(s->shapes);
	free(s->ops);
	free(s->numbers);
	free(s->dealt);
	free(s->texts);
	free(s->wide);
	free(s->heads);
	free(s->escapes);
	free(s->lengths);
}

/* Room for the worst of @bytes; what is not used is never touched, so it costs nothing. */
static int splitter_init(struct splitter *s, size_t bytes, const struct dc_ring_site *sites,
			 uint32_t site_count)
{
	s->parser.sites = sites;
	s->parser.site_count = site_count;
	s->shape_of = calloc((DC_KIND_LAST + 1) * DC_SITE_MAX, sizeof *s->shape_of);
	s->shapes = calloc(DC_SHAPE_MAX + 1, sizeof *s->shapes);
	s->ops = malloc((bytes + 1) * sizeof *s->ops);
	s->numbers = malloc(2 * (bytes + 1) * sizeof *s->numbers);
	s->texts = malloc((bytes + 1) * sizeof *s->texts);
	s->wide = malloc((bytes + 1) * sizeof *s->wide);
	s->heads = malloc(bytes + 1);
	s->escapes = malloc(bytes + 1);
	s->lengths = malloc((bytes + 1) * sizeof *s->lengths);
	return s->shape_of && s->shapes && s->ops && s->numbers && s->texts && s->wide && s->heads &&
			       s->escapes && s->lengths
		       ? 0
		       : -ENOMEM;
}

/* --- first step: chunks to ops and numbers --- */

static uint16_t find_op(struct splitter *s, const struct dc_record *r)
{
	uint16_t *op = &s->shape_of[r->kind * DC_SITE_MAX + r->site];

	if (*op || s->head.shape_count == DC_SHAPE_MAX)
		return *op;
	*op = (uint16_t)++s->head.shape_count;
	struct shape *shape = &s->shapes[*op];
	shape->stored = (struct dc_columns_shape){
		.kind = r->kind, .site = r->site, .arg_count = r->arg_count};
	memcpy(shape->forms, r->forms, sizeof shape->forms);
	s->head.arg_count += r->arg_count;
	return *op;
}

static void add_escape(struct splitter *s, const uint8_t *bytes, size_t count)
{
	uint32_t last = s->head.escape_count - 1;

	memcpy(s->escapes + s->head.escape_bytes, bytes, count);
	s->head.escape_bytes += (uint32_t)count;
	if (s->escaping && s->lengths[last] + count <= UINT16_MAX) {
		s->lengths[last] = (uint16_t)(s->lengths[last] + count);
		return;
	}
	s->ops[s->head.op_count++] = DC_OP_ESCAPE;
	s->lengths[s->head.escape_count++] = (uint16_t)count;
	s->escaping = true;
}

static void add_event(struct splitter *s, const struct dc_record *r, uint16_t op)
{
	struct shape *shape = &s->shapes[op];
	unsigned text = 0, number = 1;

	s->ops[s->head.op_count++] = op;
	s->escaping = false;
	shape->stored.count++;
	memcpy(s->numbers + s->number_count, r->numbers, r->number_count * sizeof *r->numbers);
	s->number_count += r->number_count;
	if (r->numbers[0] >= DC_DELTA_WIDE)
		s->wide[s->head.wide_count++] = (uint32_t)r->numbers[0];
	for (unsigned i = 0; i < r->arg_count; i++) {
		uint64_t v = r->forms[i] == DC_COLUMN_SECRET ? 0 : r->numbers[number++];

		if (r->forms[i] != DC_COLUMN_TEXT || v == DC_TEXT_NULL)
			continue;
		s->texts[s->text_count++] = r->texts[text++];
		shape->args[i].text_bytes += (uint32_t)v;
	}
}

static void add_chunk(struct splitter *s, const uint8_t *chunk, size_t bytes)
{
	size_t head = dc_chunk_head_bytes(bytes), n;
	const uint8_t *at = chunk + head, *end = chunk + bytes;
	struct dc_record r;

	memcpy(s->heads + s->head_bytes, chunk, head);
	s->head_bytes += head;
	s->escaping = false;
	s->parser.depth = 0;
	while ((n = dc_record_parse(&s->parser, at, (size_t)(end - at), &r)) > 0) {
		uint16_t op = r.regular ? find_op(s, &r) : DC_OP_ESCAPE;

		if (op)
			add_event(s, &r, op);
		else
			add_escape(s, at, n);
		at += n;
	}
	if (at < end)
		add_escape(s, at, (size_t)(end - at));
}

static bool all_zero(const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (bytes[i])
			return false;
	return true;
}

static int add_chunks(struct splitter *s, const uint8_t *payload, const struct dc_chunks_block *block,
		      size_t bytes)
{
	size_t data = 0;
	struct dc_chunk_copy e;

	for (uint32_t i = 0; i < block->count; i++) {
		memcpy(&e, payload + sizeof *block + i * sizeof e, sizeof e);
		size_t chunk_bytes = dc_state_bytes(e.state);

		if (e.offset != data || bytes - block->data_offset - data < dc_columns_packed(chunk_bytes))
			return -EINVAL;
		const uint8_t *chunk = payload + block->data_offset + data;

		if (!all_zero(chunk + chunk_bytes, dc_columns_packed(chunk_bytes) - chunk_bytes))
			return -EINVAL;
		add_chunk(s, chunk, chunk_bytes);
		data += dc_columns_packed(chunk_bytes);
	}
	return block->data_offset + data == bytes ? 0 : -EINVAL;
}

/* --- second step: one list per column --- */

static int deal(struct splitter *s)
{
	const uint64_t *number = s->numbers;
	uint64_t *at = s->dealt = malloc((s->number_count + 1) * sizeof *s->dealt);

	if (!s->dealt)
		return -ENOMEM;
	for (struct shape *shape = s->shapes + 1; shape <= s->shapes + s->head.shape_count; shape++)
		for (unsigned c = 0; c <= shape->stored.arg_count; c++) {
			if (c && shape->forms[c - 1] == DC_COLUMN_SECRET)
				continue;
			shape->columns[c] = at;
			at += shape->stored.count;
		}
	for (uint32_t i = 0; i < s->head.op_count; i++) {
		struct shape *shape = &s->shapes[s->ops[i]];
		uint32_t n = shape->next++;

		for (unsigned c = 0; s->ops[i] && c <= shape->stored.arg_count; c++)
			if (shape->columns[c])
				shape->columns[c][n] = *number++;
	}
	return 0;
}

/* --- third step: the smaller form --- */

/* log2 in 1/256, straight between powers of two: good enough to compare. */
static uint64_t log2_256(uint32_t v)
{
	unsigned bits = 31 - (unsigned)__builtin_clz(v);

	return bits * 256 + ((v << (31 - bits)) >> 23 & 255);
}

static uint64_t number_of(const uint64_t *column, uint32_t i, const struct dc_columns_arg *a)
{
	uint64_t before = !a->differences ? 0 : i ? column[i - 1] : a->start;

	return column[i] - before - a->base;
}

/* Bits that an order-0 coder needs for the planes of about 4096 of the numbers. */
static uint64_t cost(const uint64_t *column, uint32_t count, const struct dc_columns_arg *a)
{
	uint32_t seen[256], step = count / 4096 + 1, n = (count + step - 1) / step;
	uint64_t bits = 0;

	for (unsigned k = 0; k < a->planes; k++) {
		memset(seen, 0, sizeof seen);
		for (uint32_t i = 0; i < count; i += step)
			seen[number_of(column, i, a) >> 8 * k & 255]++;
		for (unsigned v = 0; v < 256; v++)
			if (seen[v])
				bits += seen[v] * (log2_256(n) - log2_256(seen[v]));
	}
	return bits;
}

static uint8_t planes_for(uint64_t span)
{
	return span ? (uint8_t)dc_value_bytes(span) : 0;
}

static void plan_plain(const uint64_t *column, uint32_t count, struct dc_columns_arg *a)
{
	uint64_t least = UINT64_MAX, most = 0;

	for (uint32_t i = 0; i < count; i++) {
		least = column[i] < least ? column[i] : least;
		most = column[i] > most ? column[i] : most;
	}
	a->base = least;
	a->planes = planes_for(most - least);
}

static void plan_differences(const uint64_t *column, uint32_t count, struct dc_columns_arg *a)
{
	int64_t least = INT64_MAX, most = INT64_MIN;

	for (uint32_t i = 1; i < count; i++) {
		int64_t d = (int64_t)(column[i] - column[i - 1]);

		least = d < least ? d : least;
		most = d > most ? d : most;
	}
	a->differences = 1;
	a->base = (uint64_t)least;
	a->start = column[0] - a->base; /* so that the first number is 0, too */
	a->planes = planes_for((uint64_t)most - (uint64_t)least);
}

/* Differences cost the reader a dependency from event to event, so they have to be worth it. */
static void plan_column(const uint64_t *column, uint32_t count, struct dc_columns_arg *a)
{
	struct dc_columns_arg plain = *a, differences = *a;

	plan_plain(column, count, &plain);
	*a = plain;
	if (!plain.planes || count < 3)
		return;
	plan_differences(column, count, &differences);
	if (cost(column, count, &differences) < cost(column, count, &plain) / 8 * 7)
		*a = differences;
}

static void plan(struct splitter *s)
{
	for (struct shape *shape = s->shapes + 1; shape <= s->shapes + s->head.shape_count; shape++)
		for (unsigned i = 0; i < shape->stored.arg_count; i++) {
			shape->args[i].form = shape->forms[i];
			if (shape->columns[1 + i])
				plan_column(shape->columns[1 + i], shape->stored.count, &shape->args[i]);
		}
	s->head.op_bytes = s->head.shape_count > 255 ? 2 : 1;
}

/* --- writing, in the order of columns_layout.h --- */

static size_t columns_bytes(const struct splitter *s)
{
	const struct dc_columns_head *h = &s->head;
	size_t bytes = sizeof *h + h->shape_count * sizeof(struct dc_columns_shape) +
		       h->arg_count * sizeof(struct dc_columns_arg) + s->head_bytes +
		       (size_t)h->op_count * h->op_bytes + h->wide_count * 4 + h->escape_count * 2 +
		       h->escape_bytes;

	for (const struct shape *shape = s->shapes + 1; shape <= s->shapes + h->shape_count; shape++) {
		bytes += 2 * (size_t)shape->stored.count;
		for (unsigned i = 0; i < shape->stored.arg_count; i++)
			bytes += (size_t)shape->stored.count * shape->args[i].planes +
				 shape->args[i].text_bytes;
	}
	return bytes;
}

static uint8_t *put(uint8_t *to, const void *from, size_t bytes)
{
	memcpy(to, from, bytes);
	return to + bytes;
}

static uint8_t *put_tables(const struct splitter *s, uint8_t *to)
{
	const struct shape *last = s->shapes + s->head.shape_count;

	to = put(to, &s->head, sizeof s->head);
	for (const struct shape *shape = s->shapes + 1; shape <= last; shape++)
		to = put(to, &shape->stored, sizeof shape->stored);
	for (const struct shape *shape = s->shapes + 1; shape <= last; shape++)
		to = put(to, shape->args, shape->stored.arg_count * sizeof *shape->args);
	return to;
}

static uint8_t *put_ops(const struct splitter *s, uint8_t *to)
{
	if (s->head.op_bytes == 2)
		return put(to, s->ops, s->head.op_count * sizeof *s->ops);
	for (uint32_t i = 0; i < s->head.op_count; i++)
		*to++ = (uint8_t)s->ops[i];
	return to;
}

static uint8_t *put_deltas(const struct shape *shape, unsigned shift, uint8_t *to)
{
	for (uint32_t i = 0; i < shape->stored.count; i++) {
		uint64_t d = shape->columns[0][i];

		*to++ = (uint8_t)((d < DC_DELTA_WIDE ? d : DC_DELTA_WIDE) >> shift);
	}
	return to;
}

static uint8_t *put_planes(const struct shape *shape, unsigned i, uint8_t *to)
{
	for (unsigned k = 0; k < shape->args[i].planes; k++)
		for (uint32_t n = 0; n < shape->stored.count; n++)
			*to++ = (uint8_t)(number_of(shape->columns[1 + i], n, &shape->args[i]) >> 8 * k);
	return to;
}

/* All texts were met in the order of events; each goes to its argument's column. */
static uint8_t *put_texts(struct splitter *s, uint8_t *to)
{
	const uint8_t **text = s->texts;

	for (struct shape *shape = s->shapes + 1; shape <= s->shapes + s->head.shape_count; shape++) {
		shape->next = 0;
		for (unsigned i = 0; i < shape->stored.arg_count; i++) {
			shape->texts[i] = to;
			to += shape->args[i].text_bytes;
		}
	}
	for (uint32_t o = 0; s->text_count && o < s->head.op_count; o++) {
		struct shape *shape = &s->shapes[s->ops[o]];
		uint32_t n = shape->next++;

		for (unsigned i = 0; i < shape->stored.arg_count; i++) {
			if (shape->forms[i] != DC_COLUMN_TEXT || shape->columns[1 + i][n] == DC_TEXT_NULL)
				continue;
			shape->texts[i] = put(shape->texts[i], *text++, shape->columns[1 + i][n]);
		}
	}
	return to;
}

static uint8_t *put_columns(struct splitter *s, uint8_t *to)
{
	const struct shape *first = s->shapes + 1, *last = s->shapes + s->head.shape_count;

	to = put_tables(s, to);
	to = put(to, s->heads, s->head_bytes);
	to = put_ops(s, to);
	to = put(to, s->wide, s->head.wide_count * sizeof *s->wide);
	to = put(to, s->lengths, s->head.escape_count * sizeof *s->lengths);
	for (const struct shape *shape = first; shape <= last; shape++)
		to = put_deltas(shape, 8, to);
	for (const struct shape *shape = first; shape <= last; shape++)
		for (unsigned i = 0; i < shape->stored.arg_count; i++)
			to = put_planes(shape, i, to);
	for (const struct shape *shape = first; shape <= last; shape++)
		to = put_deltas(shape, 0, to);
	to = put(to, s->escapes, s->head.escape_bytes);
	return put_texts(s, to);
}

static int check_payload(const uint8_t *payload, size_t bytes, struct dc_chunks_block *ret_block)
{
	if (bytes < sizeof *ret_block || bytes > DC_BLOCK_PLAIN_MAX)
		return -EINVAL;
	memcpy(ret_block, payload, sizeof *ret_block);
	if (ret_block->count > (bytes - sizeof *ret_block) / sizeof(struct dc_chunk_copy))
		return -EINVAL;
	if (ret_block->data_offset != sizeof *ret_block + ret_block->count * sizeof(struct dc_chunk_copy))
		return -EINVAL;
	return 0;
}

int dc_columns_split(const void *chunks, size_t bytes, const struct dc_ring_site *sites, uint32_t site_count,
		     void **ret_columns, size_t *ret_bytes)
{
	CLEANUP(splitter) struct splitter s = {0};
	struct dc_chunks_block block;
	uint8_t *to;
	int r = check_payload(chunks, bytes, &block);

	if (r == 0)
		r = splitter_init(&s, bytes, sites, site_count);
	if (r == 0)
		r = add_chunks(&s, chunks, &block, bytes);
	if (r == 0)
		r = deal(&s);
	if (r < 0)
		return r;
	plan(&s);
	*ret_bytes = block.data_offset + columns_bytes(&s);
	to = malloc(*ret_bytes);
	if (!to)
		return -ENOMEM;
	*ret_columns = to;
	put_columns(&s, put(to, chunks, block.data_offset));
	return 0;
}
