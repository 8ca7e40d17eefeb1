/* SPDX-License-Identifier: MIT */
/*
 * What is inside a COLUMNS payload behind its chunk entries. Shared by split and join, of no interest to others.
 *
 * Events of one kind and site have one SHAPE: all their bytes but the values follow from it, because the recorder
 * writes every number in as few bytes as it needs. So a chunk is a sequence of shape numbers (ops), and what is left
 * of an event are numbers: its delta and its arguments. The n-th events of a shape have their numbers at index n of
 * that shape's planes: one plane for the lowest bytes, one for the next, ... Bytes of one plane resemble each other,
 * those of a record do not; and a join never has to ask how long anything is.
 *
 *   op 0     an escape: bytes as they stand. Everything that is rare or odd (TIME, OPEN, THREAD, STACK, CONTEXT,
 *            sites that carry their name, numbers with more bytes than needed, bytes that do not parse)
 *   op n     shape n - 1
 *
 *   END has no site of its own; its shape's site is that of the span it closes (or 0), which tells a lot about its
 *   delta and costs nothing: the splitter knows the stack, the joiner need not.
 *
 *   delta    two planes, low and high. high = 0xff: the whole delta is the next of the wide ones (4 bytes)
 *   argument v[i] = base + x[i], or v[i-1] + base + x[i] where differences are smaller: running numbers, clocks,
 *            gauges. x has 0 to 8 planes: as many as its largest value needs
 *   text     its length as such a number (256: NULL), its bytes one after the other in a column of their own
 *
 * The payload: dc_chunks_block, entries, then
 *
 *   dc_columns_head | shapes | args of all shapes | chunk heads | ops | wide deltas | escape lengths (2 bytes) |
 *   high delta planes of all shapes | planes of all args | low delta planes of all shapes | escapes | texts of all args
 *
 * without gaps, so that sizes follow from counts, and one sum checks them all.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/event.h"
#include "ipc/ring.h"

#define DC_SHAPE_MAX 4095u
#define DC_OP_ESCAPE 0u
#define DC_DELTA_WIDE 0xff00u /* deltas from here on are wide */
#define DC_TEXT_NULL 256u

#define DC_COLUMN_NUMBER 0u
#define DC_COLUMN_TEXT 1u
#define DC_COLUMN_SECRET 2u /* no bytes at all */
#define DC_COLUMN_FLOW 3u /* 8 bytes without a code: the id of a flow */

struct dc_columns_head {
	uint32_t shape_count;
	uint32_t arg_count; /* of all shapes together */
	uint32_t op_bytes; /* 1, or 2 with more than 255 shapes */
	uint32_t op_count;
	uint32_t wide_count;
	uint32_t escape_count;
	uint32_t escape_bytes;
	uint32_t reserved;
};

struct dc_columns_shape {
	uint32_t count;
	uint16_t site;
	uint8_t kind;
	uint8_t arg_count;
};

struct dc_columns_arg {
	uint64_t base;
	uint64_t start; /* with differences: v[-1] */
	uint32_t text_bytes;
	uint8_t form; /* DC_COLUMN_* */
	uint8_t planes; /* 0..8 */
	uint8_t differences; /* 0 or 1 */
	uint8_t reserved;
};

static_assert(sizeof(struct dc_columns_head) == 32, "head");
static_assert(sizeof(struct dc_columns_shape) == 8, "shape");
static_assert(sizeof(struct dc_columns_arg) == 24, "arg");

/* Bytes of a chunk that are stored as its head. */
static inline size_t dc_chunk_head_bytes(size_t committed)
{
	return committed < sizeof(struct dc_chunk_header) ? committed : sizeof(struct dc_chunk_header);
}
