/* SPDX-License-Identifier: MIT */
/*
 * Is this one far beyond its own recent past? No number needed. A threshold that follows the asked tail of the distribution
 * on line: the realised rate of "yes" stays within ±10 % of the asked one on stationary data, whatever its shape; ties and
 * steps do not storm, and a constant never fires.
 *
 * Fixed memory, ≤ 20 ns a sample. `bench_unusual` prints rates and false alarms on generated series.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DC_UNUSUAL_ONE_IN 10000.0 /* when nobody says */

struct dc_unusual {
	double one_in;
	double state[15]; /* unusual.c's own */
};

void dc_unusual_init(struct dc_unusual *u, double one_in);
/* dc_unusual_add() - learn from @value (> 0), and say whether it was unusual given what was learnt before it. */
bool dc_unusual_add(struct dc_unusual *u, double value);
/* What a value has to exceed now; INFINITY while too little is known. */
double dc_unusual_threshold(const struct dc_unusual *u);
