/* SPDX-License-Identifier: MIT */
/*
 * A COLUMNS payload being read. Shared by those who do, of no interest to others:
 *
 *   columns_open.c   finds the columns and checks that they fit the payload
 *   columns_join.c   back to the bytes of the chunks
 *   columns_each.c   straight to events
 *   columns_ready.c  for it: the numbers of a shape's next events, many at a time
 *
 * All numbers of one shape's n-th event stand at index n of that shape's planes, and every reader takes the events of a
 * shape one after the other.
 *
 * Bounds are not looked at where they cannot be passed. All planes of a shape have as many entries as the shape has
 * events, so one comparison covers all its columns; ops and escapes end together with them because their counts add up.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ipc/decode.h"
#include "persist/columns_layout.h"
#include "persist/format.h"

#define dc_columns_inline static inline __attribute__((always_inline))

/* The values of one argument of one shape. */
struct dc_column {
	const uint8_t *plane; /* the lowest; the others follow at distances of shape.count */
	uint64_t base;
	uint64_t previous;
	uint64_t keep; /* all ones: differences; zero: not */
	const uint8_t *text;
	uint32_t text_left;
	uint8_t form;
	uint8_t planes;
	uint8_t type; /* columns_each.c: DC_TYPE_* of the argument */
};

struct dc_shape {
	const uint8_t *low; /* delta planes */
	const uint8_t *high;
	struct dc_column *args;
	uint32_t next; /* index of its next event */
	uint32_t count;
	uint16_t site;
	uint8_t kind;
	uint8_t arg_count;
	uint8_t layout; /* columns_join.c: what follows the delta */
	uint8_t least_bytes; /* columns_each.c: of a record, but for what depends on its numbers */
};

/*
 * The next events of a shape, as columns_each.c takes them. A step is the delta of an event and, in the upper half, the
 * bytes it has as a record (as far as planes tell: of texts and wide deltas the reader adds what they have). Argument k
 * of the event whose step is at[0] is at[(k + 1) * DC_READY_STRIDE]. Behind the last step is DC_READY_NONE, which looks
 * like a wide delta, so that readers ask for both at once.
 */
#define DC_READY_EVENTS 64
#define DC_READY_STRIDE (DC_READY_EVENTS + 2)
#define DC_READY_NONE UINT64_MAX

struct dc_ready {
	const uint64_t *at;
	uint64_t *steps;
	struct dc_shape *shape;
	uint32_t span; /* that opens or closes */
	uint8_t reading;
	struct dc_event event; /* what all of them have in common is set */
};

struct dc_columns {
	struct dc_shape *shapes; /* by op: as many as an op can say; those that do not exist have no events */
	struct dc_column *args;
	struct dc_ready *ready; /* of shape i, from 1 on; the first is of no shape */
	struct dc_ready **by_op; /* as many as an op can say: its shape's, or the first */
	uint64_t *numbers; /* of all that are ready */
	uint32_t shape_count;
	struct dc_chunks_block block;
	const uint8_t *entries;
	size_t data_bytes; /* of the chunks, once joined */
	uint32_t chunk; /* number of the next one: the columns below are those of it and what follows */
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

/* The payload must stay until close, which is due also after an error. Return: 0, -EBADMSG, -ENOMEM. */
int dc_columns_open(struct dc_columns *c, const void *columns, size_t bytes);
void dc_columns_close(struct dc_columns *c);

/*
 * dc_columns_understand() - what the shapes mean, before dc_columns_each()
 * @schema: of the process; must stay until close
 *
 * Return: false when shapes and schema contradict each other (or memory is short): then only the joined chunks can tell
 * what is in them.
 */
bool dc_columns_understand(struct dc_columns *c, const struct dc_schema *schema);

/*
 * dc_columns_each() - the events of the next chunk, as dc_lane_decode() gives them from its bytes
 *
 * A chunk whose columns do not fit together yields the events before the fault, and @d is faulty; nothing more can be
 * read from the columns then. Return: as dc_lane_decode().
 */
int dc_columns_each(struct dc_columns *c, struct dc_lane_decoder *d,
		    int (*each)(void *arg, const struct dc_event *event), void *arg);

/*
 * dc_columns_ready_new() - room for the ready events of all shapes, none of which are yet
 * dc_columns_ready() - takes the next ones of @r->shape out of their planes
 *
 * Return: false when there is no memory, when the shape has no further event.
 */
bool dc_columns_ready_new(struct dc_columns *c);
bool dc_columns_ready(struct dc_ready *r);

/* Committed bytes of chunk @i. */
static inline size_t dc_columns_chunk_bytes(const struct dc_columns *c, uint32_t i)
{
	struct dc_chunk_copy e;

	memcpy(&e, c->entries + i * sizeof e, sizeof e);
	return dc_state_bytes(e.state);
}

dc_columns_inline uint32_t dc_columns_op(const uint8_t *ops, const unsigned op_bytes)
{
	return op_bytes == 1 ? ops[0] : (ops[0] | (uint32_t)ops[1] << 8) & DC_SHAPE_MAX;
}

/* A delta that two planes cannot say. False: there is none left. */
static __attribute__((noinline, unused)) bool dc_columns_wide(struct dc_columns *c, uint32_t *ret_delta)
{
	if (!c->wide_left)
		return false;
	memcpy(ret_delta, c->wide, sizeof *ret_delta);
	c->wide += sizeof *ret_delta;
	c->wide_left--;
	return true;
}

/* The next text, whose number is @length: *@ret_text and its length, or DC_TEXT_NULL. False: there is none. */
static inline bool dc_column_text(struct dc_column *a, uint64_t length, const uint8_t **ret_text, uint32_t *ret_length)
{
	*ret_length = DC_TEXT_NULL;
	if (length == DC_TEXT_NULL)
		return true;
	if (length > 255 || length > a->text_left)
		return false;
	*ret_text = a->text;
	*ret_length = (uint32_t)length;
	a->text += length;
	a->text_left -= (uint32_t)length;
	return true;
}

/* The next escape. NULL: there is none. */
static inline const uint8_t *dc_columns_escape(struct dc_columns *c, size_t *ret_bytes)
{
	const uint8_t *at = c->escapes;
	uint16_t bytes;

	if (!c->escapes_left)
		return NULL;
	memcpy(&bytes, c->lengths, sizeof bytes);
	if (bytes > c->escape_bytes_left)
		return NULL;
	c->lengths += sizeof bytes;
	c->escapes += bytes;
	c->escapes_left--;
	c->escape_bytes_left -= bytes;
	*ret_bytes = bytes;
	return at;
}
