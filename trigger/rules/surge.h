/* SPDX-License-Identifier: MIT */
/*
 * Has a number left all that it lately was? Of rates (how often something happens) and of levels (where a queue stands), which
 * have too few values, and too little of a shape, for unusual.h. Second by second:
 *
 *                                                       limit = 10 × most
 *     - - - - - - - - - - - - - - - - - - - - - - - - - - - .:'- - - - -
 *                                                        .:'
 *          .        most (of what is known)           .:'
 *     ..-'' ''-._..-''-.__.-'''-.__..-''-.__.-''--'''
 *     └────────────────── known ────────────┘└─ held ─┘ the last seconds: not known yet, or they would excuse themselves
 *
 *  - a rate surges when it exceeds the limit in three seconds one after the other: a burst of one second lies in two at most.
 *    The last three are held.
 *  - a level surges when it did not come down to the limit for five seconds and grew in each: what was put into a queue at
 *    once goes down from there, a queue that nobody empties fast enough does not. The last ten are held.
 *
 * Of a rate 10 in a second, of a level 100 is no surge yet, whatever was usual. Nothing is until ten seconds are known; those in
 * which a level is not recorded are not, since a queue without traffic says nothing about one with. Most fades by half in
 * ten minutes. When it surged, all of it is known at once: a new plateau is told once.
 *
 * Fixed memory, a few ns a value, some tens of ns a second. `bench_unusual` prints false alarms on generated series.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DC_SURGE_FACTOR 10.0
#define DC_SURGE_RATE_LEAST 10.0
#define DC_SURGE_LEVEL_LEAST 100.0
#define DC_SURGE_KNOWN_LEAST 10u /* seconds */
#define DC_SURGE_SLOTS 10u

enum dc_surge_of { DC_SURGE_RATE = 1, DC_SURGE_LEVEL };

struct dc_surge_slot {
	double least, most; /* of a rate both are how many */
	bool recorded;
};

struct dc_surge {
	enum dc_surge_of of;
	bool on;
	int64_t turn_ns; /* when the second being filled is over; 0: nothing was heard yet */
	struct dc_surge_slot filling;
	struct dc_surge_slot held[DC_SURGE_SLOTS]; /* the newest is held[(next - 1) % DC_SURGE_SLOTS] */
	uint32_t next;
	uint32_t over; /* seconds in a row, just now */
	double last; /* of a level: where it stands */
	double most; /* known; fading since @most_ns */
	int64_t most_ns;
	uint64_t known; /* seconds */
	double value, limit; /* when it surged last */
};

/* @now_ns: of a rate that is known to be zero since then; 0: from the first value on. */
void dc_surge_init(struct dc_surge *s, enum dc_surge_of of, int64_t now_ns);
/* A rate: so many more; a level: it stands there now. Not finite or below zero: as zero. */
void dc_surge_add(struct dc_surge *s, double value, int64_t now_ns);
/* dc_surge_look() - whether it surges, as of the last whole second; to be asked once a second or more often. */
bool dc_surge_look(struct dc_surge *s, int64_t now_ns);
