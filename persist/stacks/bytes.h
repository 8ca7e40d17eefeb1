/* SPDX-License-Identifier: MIT */
/*
 * Numbers out of bytes that somebody else wrote, one after the other and never beyond the end: what is not there reads as
 * 0, is remembered, and so are LEB128 numbers of more than 64 bits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct dc_bytes {
	const uint8_t *at;
	const uint8_t *end;
	bool failed;
};

/* Return: the next @count bytes, NULL: so many are not left. */
static inline const uint8_t *dc_bytes_take(struct dc_bytes *b, uint64_t count)
{
	const uint8_t *p = b->at;

	if (b->failed || count > (uint64_t)(b->end - b->at)) {
		b->failed = true;
		b->at = b->end;
		return NULL;
	}
	b->at += count;
	return p;
}

/* Of 1, 2, 4 or 8 bytes. */
static inline uint64_t dc_bytes_unsigned(struct dc_bytes *b, unsigned width)
{
	const uint8_t *p = dc_bytes_take(b, width);
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, width);
	return v;
}

static inline int64_t dc_bytes_signed(struct dc_bytes *b, unsigned width)
{
	return (int64_t)(dc_bytes_unsigned(b, width) << (64 - 8 * width)) >> (64 - 8 * width);
}

/* @ret_bits: how many there were, the sign's among them. */
static inline uint64_t dc_bytes_leb(struct dc_bytes *b, unsigned *ret_bits)
{
	uint64_t v = 0;
	unsigned bits = 0;
	uint8_t byte;

	do {
		byte = (uint8_t)dc_bytes_unsigned(b, 1);
		v |= bits < 64 ? (uint64_t)(byte & 0x7f) << bits : 0;
		bits += 7;
	} while (byte & 0x80 && bits < 70);
	b->failed |= byte >> 7;
	*ret_bits = bits;
	return v;
}

static inline uint64_t dc_bytes_uleb(struct dc_bytes *b)
{
	unsigned bits;

	return dc_bytes_leb(b, &bits);
}

static inline int64_t dc_bytes_sleb(struct dc_bytes *b)
{
	unsigned bits;
	const uint64_t v = dc_bytes_leb(b, &bits);

	return bits < 64 ? (int64_t)(v << (64 - bits)) >> (64 - bits) : (int64_t)v;
}
