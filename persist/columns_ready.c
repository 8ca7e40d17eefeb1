/* SPDX-License-Identifier: MIT */
/*
 * The numbers of a shape's next events, out of its planes, 64 events at a time: for columns_each.c, which has nothing left
 * to do per number than to copy it.
 *
 * All of this is loops without a branch over arrays that stay in the first-level cache. Compilers make vectors of them,
 * and a number costs a fifth of what it takes to get them one by one. So everything that can be said of a number without
 * knowing where in the lane it stands is said here: its value, and its bytes as a part of a record.
 */
#include <stdlib.h>

#include "persist/columns_inside.h"

#define EVENTS DC_READY_EVENTS

static const uint64_t none = DC_READY_NONE;

/* At least two arguments, so that a reader need not ask whether there are any. */
static size_t numbers_of(const struct dc_shape *s)
{
	return s->count ? (1 + (s->arg_count > 2 ? s->arg_count : 2)) * DC_READY_STRIDE : 0;
}

static bool allocate(struct dc_columns *c, uint32_t ops)
{
	size_t numbers = 0;

	for (uint32_t i = 1; i <= c->shape_count; i++)
		numbers += numbers_of(&c->shapes[i]);
	c->ready = calloc(c->shape_count + 1, sizeof *c->ready);
	c->by_op = malloc(ops * sizeof(struct dc_ready *));
	c->numbers = calloc(numbers + 1, sizeof *c->numbers);
	return c->ready && c->by_op && c->numbers;
}

bool dc_columns_ready_new(struct dc_columns *c)
{
	const uint32_t ops = c->two_byte_ops ? DC_SHAPE_MAX + 1 : 256;

	if (!allocate(c, ops))
		return false;
	for (uint32_t i = 0; i < ops; i++)
		c->by_op[i] = i <= c->shape_count ? &c->ready[i] : c->ready;
	uint64_t *next = c->numbers;
	for (uint32_t i = 0; i <= c->shape_count; i++) {
		c->ready[i].at = &none;
		c->ready[i].steps = next;
		c->ready[i].shape = &c->shapes[i]; /* the first has no events */
		next += numbers_of(&c->shapes[i]);
	}
	return true;
}

/* --- one argument of @n events, the first of them at index @at --- */

/* What the planes say, and the base. Return: the bits that are set in any of them. */
dc_columns_inline uint64_t gather(const struct dc_column *a, uint32_t at, size_t stride, unsigned n,
				  uint64_t *restrict v)
{
	const uint8_t *restrict p = a->plane + at, *restrict q = p + (a->planes > 1 ? stride : 0);
	const uint64_t base = a->base;
	uint64_t bits = 0;

	switch (a->planes) {
	case 0:
		for (unsigned i = 0; i < n; i++)
			v[i] = base;
		return base;
	case 1:
		for (unsigned i = 0; i < n; i++)
			bits |= v[i] = base + p[i];
		return bits;
	case 2:
		for (unsigned i = 0; i < n; i++)
			bits |= v[i] = base + (p[i] | (uint32_t)q[i] << 8);
		return bits;
	default:
		for (unsigned i = 0; i < n; i++)
			v[i] = base + p[i];
		for (unsigned k = 1; k < a->planes; k++, q += stride)
			for (unsigned i = 0; i < n; i++)
				bits |= v[i] += (uint64_t)q[i] << 8 * k;
		return bits; /* and some */
	}
}

/* Return: as gather(). */
dc_columns_inline uint64_t sum_up(struct dc_column *a, unsigned n, uint64_t *v)
{
	uint64_t sum = a->previous, bits = 0;

#pragma GCC unroll 4
	for (unsigned i = 0; i < n; i++)
		bits |= v[i] = sum += v[i];
	a->previous = sum;
	return bits;
}

/* Adds to each step how many bytes its number has beyond the first; no number has others than @bits. */
dc_columns_inline void count_bytes(const uint64_t *restrict v, unsigned n, uint64_t bits, uint64_t *restrict steps)
{
	if (bits < 1u << 8)
		return;
	if (bits < 1u << 16) {
		for (unsigned i = 0; i < n; i++)
			steps[i] += (v[i] + 0xff00) >> 16 << 32;
	} else if (bits < UINT64_C(1) << 32) { /* a carry for each power of 256 that is reached */
		for (unsigned i = 0; i < n; i++)
			steps[i] += ((v[i] + 0xffffff00) >> 32 << 32) + ((v[i] + 0xffff0000) >> 32 << 32) +
				    ((v[i] + 0xff000000) >> 32 << 32);
	} else {
		for (unsigned i = 0; i < n; i++)
			steps[i] += (uint64_t)(dc_value_bytes(v[i]) - 1) << 32;
	}
}

dc_columns_inline void interpret(uint8_t type, unsigned n, uint64_t *v)
{
	if (type == DC_TYPE_I64)
		for (unsigned i = 0; i < n; i++)
			v[i] = (uint64_t)dc_unzigzag(v[i]);
	else if (type == DC_TYPE_F64)
		for (unsigned i = 0; i < n; i++)
			v[i] = __builtin_bswap64(v[i]);
}

/* --- events --- */

dc_columns_inline void take_deltas(const struct dc_shape *s, unsigned n, uint64_t *restrict steps)
{
	const uint8_t *restrict low = s->low + s->next, *restrict high = s->high + s->next;
	const uint64_t bytes = (uint64_t)s->least_bytes << 32;

	for (unsigned i = 0; i < n; i++) {
		uint64_t delta = low[i] | (uint32_t)high[i] << 8;

		steps[i] = delta + bytes + ((delta + 0xff00) >> 16 << 32);
	}
}

dc_columns_inline void take(struct dc_ready *r, unsigned n)
{
	struct dc_shape *s = r->shape;
	uint64_t *v = r->steps;

	take_deltas(s, n, r->steps);
	for (struct dc_column *a = s->args; a < s->args + s->arg_count; a++) {
		v += DC_READY_STRIDE;
		if (a->form == DC_COLUMN_SECRET)
			continue;
		uint64_t bits = gather(a, s->next, s->count, n, v);
		if (a->keep)
			bits = sum_up(a, n, v);
		if (a->form == DC_COLUMN_NUMBER)
			count_bytes(v, n, bits, r->steps);
		interpret(a->type, n, v);
	}
	s->next += n;
	r->at = r->steps;
	r->steps[n] = DC_READY_NONE;
}

bool dc_columns_ready(struct dc_ready *r)
{
	uint32_t left = r->shape->count - r->shape->next;

	if (left >= EVENTS) /* the usual case; its loops have no ends to care for */
		take(r, EVENTS);
	else if (left)
		take(r, left);
	return left;
}
