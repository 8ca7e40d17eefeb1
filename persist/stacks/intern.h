/* SPDX-License-Identifier: MIT */
/* Equal bytes get the same number: a hash table of byte strings, numbered from 1 in the order they came. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct dc_intern { /* zeroed: empty */
	uint8_t *bytes; /* each at a multiple of 8 */
	size_t used;
	size_t room;
	struct dc_intern_item {
		uint64_t hash;
		uint64_t at;
		uint32_t size;
		uint32_t reserved;
	} *items; /* number n: items[n - 1] */
	uint32_t count;
	uint32_t item_room;
	uint32_t *slots; /* numbers, 0: free */
	uint32_t slot_count; /* a power of 2 */
};

/* *@ret_number: of the bytes, old or new. Return: 1: they are new; 0; -ENOMEM. */
int dc_intern_put(struct dc_intern *t, const void *bytes, uint32_t size, uint32_t *ret_number);
/* The bytes of a number from 1 to count: aligned to 8, valid until the next put. */
void *dc_intern_get(const struct dc_intern *t, uint32_t number, uint32_t *ret_size);
/* What all of it takes. */
size_t dc_intern_bytes(const struct dc_intern *t);
void dc_intern_fini(struct dc_intern *t);
