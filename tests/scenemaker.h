/* SPDX-License-Identifier: MIT */
/* The test's own process as something that was sampled: its mappings, and samples of its own stack. */
#pragma once

#include <stdint.h>

#include "persist/format.h"
#include "tests/stackmaker.h"

#define SELF_MAPS_MAX 128u
#define SELF_SAMPLE_STACK (32u << 10)

struct self_maps {
	uint32_t count;
	struct maker_map maps[SELF_MAPS_MAX]; /* for maker_maps() */
	struct dc_map_entry entries[SELF_MAPS_MAX]; /* for the resolver */
	const char *paths[SELF_MAPS_MAX];
	uint32_t own; /* of the program itself */
};
/* Executable mappings with their build-ids; aborts on any error. */
void self_maps(struct self_maps *m);

/*
 * self_sample() - where the caller of self_deep() is, @depth calls of self_deep() down: registers and stack
 * As a whole sample at the end of @b. The frames are: this, self_deep() @depth times, the caller...
 */
void self_sample(struct blob *b, unsigned depth, uint16_t kind, uint32_t tid, int64_t at_ns);
int self_deep(unsigned depth, int (*then)(void *arg), void *arg);
