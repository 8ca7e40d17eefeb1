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
/* What a second of something has: how many (rates), or where it stands (levels, four times a second). */
enum tally_kind {
	TALLY_SELDOM = 0, /* Poisson, one in ten seconds */
	TALLY_FEW, /* 5 a second */
	TALLY_MANY, /* 200 a second */
	TALLY_BURSTS, /* mostly nothing; once in 20 minutes 500 within a second that begins anywhere */
	TALLY_SWING, /* 50 a second, up and down by a factor of 4, ten times */
	TALLY_DRIFT, /* 20 a second in the beginning, 200 at the end */
	TALLY_CONSTANT, /* 1000 a second */
	TALLY_STEP, /* 20 a second, from the middle on 400 */
	TALLY_LEVELS, /* --- those that follow are levels --- */
	TALLY_QUEUE = TALLY_LEVELS, /* single server, 70 % busy, a hundred arrivals a second */
	TALLY_BUSY_QUEUE, /* 95 % busy */
	TALLY_DAY_QUEUE, /* from 10 % to 90 % busy and back, ten times */
	TALLY_BATCHES, /* once in 20 minutes 20,000 are put into it at once; a hundred a second leave */
	TALLY_GAUGE, /* 200 that hardly change, 2000 at the end */
	TALLY_TOTAL, /* never falls: no queue */
	TALLY_GROWTH, /* a queue as the first one; from the middle on nobody empties it for ten minutes */
	TALLY_KINDS,
};

struct tally {
	enum tally_kind kind;
	struct series from;
	double level, later;
};

const char *tally_name(enum tally_kind kind);
void tally_init(struct tally *t, enum tally_kind kind, long seconds, uint64_t seed);
/* One second: how many of a rate, in [0]; else four levels of it. */
void tally_next(struct tally *t, double ret_values[4]);

/* In ns, above 0. */
double series_next(struct series *s);
/* 0 <= x < 1 */
double series_uniform(struct series *s);
