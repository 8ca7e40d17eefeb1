/* SPDX-License-Identifier: MIT */
/*
 * The last so many seconds of a number: how many, and how they were distributed. Log-linear buckets as HdrHistogram has
 * them: 32 to an octave, so a percentile is off by 1.6 % at most.
 *
 *     slots      [ fading ][      ][      ][      ][      ][      ][      ][      ][ filling ]
 *                    │                                                                  │
 *                    └ counts less and less while the last one fills up: the window ────┘ is @over_ns long at any moment
 *
 * Fixed memory, no division per sample. A clock that stands still or goes backwards adds to the slot being filled; one that
 * leaps empties what is too old by then.
 *
 * http://hdrhistogram.org (bucket layout), own code.
 */
#pragma once

#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_histogram;

/* @over_ns: of the window, at least 1 us; 0: for ever. Return: NULL when there is no memory. */
struct dc_histogram *dc_histogram_new(int64_t over_ns);
void dc_histogram_free(struct dc_histogram *h);
DC_DEFINE_CLEANUP(dc_histogram, struct dc_histogram *, dc_histogram_free)
/* @weight: how many it stands for. */
void dc_histogram_add(struct dc_histogram *h, uint64_t value, double weight, int64_t now_ns);
/* Of what the window holds at @now_ns. NaN: nothing. @percentile 0..100; never above the maximum. */
double dc_histogram_percentile(struct dc_histogram *h, double percentile, int64_t now_ns);
double dc_histogram_count(struct dc_histogram *h, int64_t now_ns);
/* Exact; of all slots, the fading one too. 0: nothing. */
double dc_histogram_max(struct dc_histogram *h, int64_t now_ns);
/* Count per second over as much of the window as has passed since the first sample, at least an eighth of it. */
double dc_histogram_rate(struct dc_histogram *h, int64_t now_ns);

/* Only how many. Caller's memory. */
#define DC_WINDOW_SLOTS 9u
struct dc_rate {
	int64_t over_ns;
	int64_t slot_ns;
	int64_t turn_ns; /* when the slot being filled is full; of one without an end INT64_MAX */
	int64_t first_ns; /* of the first sample ever; INT64_MIN: none yet */
	uint32_t filling; /* index of the slot being filled; the next one, in the ring, is the fading one */
	double slots[DC_WINDOW_SLOTS];
};
/* @over_ns as for dc_histogram_new(). */
void dc_rate_init(struct dc_rate *r, int64_t over_ns);
void dc_rate_add(struct dc_rate *r, double weight, int64_t now_ns);
double dc_rate_count(struct dc_rate *r, int64_t now_ns);
double dc_rate_per_s(struct dc_rate *r, int64_t now_ns);
