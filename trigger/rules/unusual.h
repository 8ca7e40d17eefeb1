/* SPDX-License-Identifier: MIT */
/*
 * Is this one far beyond its own recent past? No number needed. What is followed on line, in logarithms, so that ns and hours
 * are alike:
 *
 *        .-''-.                  body: what one in a hundred exceeds        spread: the mean of ln(value / body) there;
 *      .'      '-._               │                                                 how thick the tail is (Hill 1975)
 *     /            '''--..___     │           threshold
 *    '                       ''''-┼-----....____│_______
 *                                 └── spread ──┘
 *
 *  - `one in N`: threshold = body × exp(spread × (ln(N / 100) + lead)), where lead is how many more fired than were asked for:
 *    the realised rate stays within ±10 % of the asked one on stationary data of any shape, since each firing raises the
 *    threshold by what makes the next one e times rarer.
 *  - `far`, the default: beyond what one in 10⁹ would exceed if the tail went on as it is, beyond 4 times what one in 10⁴
 *    exceeds, and beyond twice the largest of the last minutes. A program that does what it always did fires never; how
 *    heavy its tail is, is taken from the tail.
 *
 * Ties and steps do not storm: where values repeat, one must exceed the largest usual by 10 % and by more than one tick;
 * what follows a firing within N / 10 samples belongs to it, meanwhile ten times slower has become usual. A constant never
 * fires, and nothing does until DC_UNUSUAL_START_SAMPLES or N / 2 are known (far: and DC_UNUSUAL_START_NS are over).
 *
 * Fixed memory, ≤ 20 ns a sample; values that stand for many (a tail that samples) are added once. `bench_unusual` prints
 * rates and false alarms on generated series.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DC_UNUSUAL_FAR 0.0 /* when nobody says one in how many */
#define DC_UNUSUAL_START_SAMPLES 1000u
#define DC_UNUSUAL_START_NS INT64_C(10000000000)
#define DC_UNUSUAL_HALF_NS INT64_C(600000000000) /* far: the largest ever counts half after that time */
#define DC_UNUSUAL_RECENT 8u

struct dc_unusual {
	double one_in; /* DC_UNUSUAL_FAR, or N */
	double body;
	double beyond; /* the part that exceeds body: 1/100, more for N < 1000 */
	double spread;
	double fall; /* factor on body for a sample below it */
	double lead; /* fired, less what was asked for; bounded */
	double threshold; /* as of the last one beyond body */
	double ties; /* of values near the threshold, the part that occurred just before */
	double recent[DC_UNUSUAL_RECENT]; /* the last of them */
	double most; /* largest, fading since @most_ns */
	int64_t most_ns;
	int64_t first_ns;
	uint64_t seen;
	uint64_t led; /* value of @seen when lead was brought up to date */
	uint64_t quiet_until; /* in samples seen: what comes before belongs to the last firing */
	uint32_t tail; /* how many exceeded body, up to where it matters */
	uint32_t run; /* ... in a row, just now */
	uint32_t next; /* place in @recent */
};

/* @one_in: DC_UNUSUAL_FAR, or 10 and more. */
void dc_unusual_init(struct dc_unusual *u, double one_in);
/* dc_unusual_add() - learn from @value (> 0; others are ignored), and say whether it was unusual given what came before it. */
bool dc_unusual_add(struct dc_unusual *u, double value, int64_t now_ns);
/* What a value has to exceed now; INFINITY while too little is known. */
double dc_unusual_threshold(const struct dc_unusual *u);
