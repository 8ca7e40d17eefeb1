/* SPDX-License-Identifier: MIT */
/*
 * Has something become slow that was not, and stayed so? One wild value is unusual.h's; here many in a row count, however few
 * there are in an hour. In logarithms of two:
 *
 *                                         limit = 4 × most, or what people care about
 *     - - - - - - - - - - - - - - - - - - - - - -.-''-. - -     what each lies above it, at most 2, is added up; below it,
 *                  most: of what is known      .'               at most 4, taken off (Page 1954). Slower: when that comes
 *      .'.  means of sixteen  .'.             .'                to 12, by the values of a second at least
 *     '   '._.-''-.._.-'-.__.'   '-.__.-'-.__.'
 *     └──────────────── known ─────────┘└ held ┘ the last sixteen excuse nothing yet
 *
 *  - six values far beyond the limit are enough, of those that hardly exceed it it takes dozens; two thirds at least have to be slow.
 *  - who comes down again before the second is over, or was told of, is known from then on: a new level is told once.
 *  - nothing is, until 128 values and ten seconds are known. What is known fades by half in ten minutes.
 *
 * A level that changes little by little is followed; one that goes up and down is known at its highest. Fixed memory, a few ns
 * a value. `bench_unusual` prints false alarms on generated series.
 *
 * What is alike is of one kind: spans of one name whose texts are the same, but for words that have a digit. "GET /kv/17" and
 * "GET /kv/4" are, "GET /stats" is another. Of a name the sixteen most frequent kinds are followed (Misra and Gries 1982): each
 * that does not fit in takes one from the least of them, and its place when nothing is left of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/decode.h"

#define DC_SLOWER_MEAN_OF 16u
#define DC_SLOWER_KNOWN_LEAST (8 * DC_SLOWER_MEAN_OF)
#define DC_SLOWER_KNOWN_NS INT64_C(10000000000)
#define DC_SLOWER_LASTS_NS INT64_C(1000000000)

/* Logarithms are of two, straight between its powers: what matters is far more than that is off. */
struct dc_slower {
	uint64_t seen;
	int64_t first_ns;
	double sum; /* of the last few, up to sixteen */
	double held; /* mean of the sixteen before: known with the next */
	double most; /* largest known, fading since @most_ns */
	int64_t most_ns;
	double limit;
	double above; /* what was added up; 0: nothing is slow */
	double above_most; /* since it last was 0 ... */
	int64_t above_ns; /* ... which was then */
	double slow_sum; /* values since then, as they are */
	uint64_t slow;
};

void dc_slower_init(struct dc_slower *s);
/*
 * dc_slower_add() - learn from @value (> 0; others are ignored)
 * @least: what is below it is not slow
 * Return: whether this is the moment to say that they have become slow.
 */
bool dc_slower_add(struct dc_slower *s, double value, double least, int64_t now_ns);
/* What values have to exceed; INFINITY while too little is known. */
double dc_slower_limit(const struct dc_slower *s);

#define DC_KINDS_MAX 16u
#define DC_KIND_NONE 0u

struct dc_kinds {
	uint32_t ids[DC_KINDS_MAX]; /* DC_KIND_NONE: free */
	uint32_t counts[DC_KINDS_MAX]; /* seen, less what others took */
	struct dc_slower each[DC_KINDS_MAX];
	int64_t second_ns; /* when this one began */
	uint32_t began; /* in it */
	uint32_t usually; /* one in so many is looked at, as of the second before */
	uint32_t left_out_next;
	uint64_t random;
};

/*
 * dc_kinds_due() - whether the span that begins now is looked at
 * All are where a name has few; of one that has many some hundreds a second, at random: they say as much, and cost nothing.
 */
bool dc_kinds_due(struct dc_kinds *k, int64_t now_ns);

/* Of the texts among the arguments of a begin, @first and later ones. Never DC_KIND_NONE. */
uint32_t dc_kind_of(const struct dc_event *event, unsigned first);
/* Return: NULL: it is not among the most frequent ones. */
struct dc_slower *dc_kinds_find(struct dc_kinds *k, uint32_t kind);
