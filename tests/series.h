/* SPDX-License-Identifier: MIT */
/* Series of numbers as spans have them, the same at every run: what windows and `unusual` are tested and measured with. */
#pragma once

#include <stdint.h>

enum series_kind {
	SERIES_NORMAL = 0, /* mean 100 us, sd 10 us */
	SERIES_LOGNORMAL, /* median 100 us, sigma 1 */
	SERIES_BIMODAL, /* hits about 20 us, one in twenty a miss about 800 us */
	SERIES_EXPONENTIAL, /* mean 100 us */
	SERIES_PARETO, /* alpha 2, least 50 us */
	SERIES_STATIONARY, /* --- those before have the same distribution all the time --- */
	SERIES_SWING = SERIES_STATIONARY, /* lognormal, its level up and down by a factor of 4, ten times */
	SERIES_DRIFT, /* lognormal, ten times slower at the end than at the beginning, little by little */
	SERIES_STEP, /* lognormal, ten times slower from the middle on */
	SERIES_CONSTANT,
	SERIES_TICKS_US, /* normal of mean 8 us in ticks of 1 us */
	SERIES_TICKS_MS, /* lognormal of median 3 ms in ticks of 1 ms */
	SERIES_KINDS,
};

struct series {
	enum series_kind kind;
	uint64_t random;
	long at, count; /* values had, and to be had */
	double spare; /* of a pair of normal ones */
};

const char *series_name(enum series_kind kind);
void series_init(struct series *s, enum series_kind kind, long count, uint64_t seed);
/* In ns, above 0. */
double series_next(struct series *s);
/* 0 <= x < 1 */
double series_uniform(struct series *s);
