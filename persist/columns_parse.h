/* SPDX-License-Identifier: MIT */
/*
 * Taking one record of a chunk apart for storage. Unlike the decoder this asks not what a record means, but where it
 * ends, which numbers are in it, and whether the recorder's own rules would write it with the same bytes again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/event.h"
#include "ipc/ring.h"

#define DC_RECORD_DEPTH_MAX 256u

struct dc_record_parser {
	const struct dc_ring_site *sites;
	uint32_t site_count;
	uint32_t depth; /* open spans, as far as this chunk tells; zero it before each chunk */
	uint16_t stack[DC_RECORD_DEPTH_MAX]; /* their sites */
};

struct dc_record {
	bool regular; /* an event that follows from its kind, site and numbers */
	uint8_t kind;
	uint8_t arg_count;
	uint8_t number_count;
	uint8_t text_count;
	uint8_t stack_count; /* STACK: so many addresses of 8 bytes end the record */
	uint8_t forms[DC_ARG_MAX]; /* DC_COLUMN_* */
	uint16_t site; /* of END: of the span it closes, 0: not known */
	uint64_t numbers[1 + DC_ARG_MAX]; /* delta, then arguments; a text's is its length */
	const uint8_t *texts[DC_ARG_MAX]; /* those that are not NULL */
};

/* Return: bytes of the record at @at, 0 when these bytes are none (then nothing else of the chunk is parsed). */
size_t dc_record_parse(struct dc_record_parser *p, const uint8_t *at, size_t bytes, struct dc_record *ret_record);
