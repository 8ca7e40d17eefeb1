/* SPDX-License-Identifier: MIT */
/*
 * The last so many seconds of a number: how many, and how they were distributed. Log-linear buckets as HdrHistogram has
 * them: 32 to an octave, so a percentile is off by 1.6 % at most; what is older fades out in eighths of the window.
 * Fixed memory, no division per sample.
 *
 * http://hdrhistogram.org (bucket layout), own code.
 */
#pragma once

#include <stdint.h>

struct dc_histogram;

/* @over_ns: of the window; 0: for ever. Return: NULL when there is no memory. */
struct dc_histogram *dc_histogram_new(int64_t over_ns);
void dc_histogram_free(struct dc_histogram *h);
void dc_histogram_add(struct dc_histogram *h, uint64_t value, double weight, int64_t now_ns);
/* Of what the window holds at @now_ns. NaN: nothing. @percentile 0..100. */
double dc_histogram_percentile(struct dc_histogram *h, double percentile, int64_t now_ns);
double dc_histogram_count(struct dc_histogram *h, int64_t now_ns);
double dc_histogram_max(struct dc_histogram *h, int64_t now_ns);
/* Count per second over as much of the window as has passed. */
double dc_histogram_rate(struct dc_histogram *h, int64_t now_ns);

/* Only how many. Caller's memory. */
struct dc_rate {
	int64_t over_ns;
	int64_t slot; /* number of the slot being filled */
	int64_t first_ns;
	double slots[9];
};
void dc_rate_init(struct dc_rate *r, int64_t over_ns);
void dc_rate_add(struct dc_rate *r, double weight, int64_t now_ns);
double dc_rate_per_s(struct dc_rate *r, int64_t now_ns);
