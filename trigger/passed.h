/* SPDX-License-Identifier: MIT */
/*
 * Triggers of which a ring kept no slot: how many. A ring holds the last few triggers, and counts those of DC_TRIGGER(); spans
 * that were too long have slots, too, and are not counted. Who looks sees both numbers, but not at one moment: in a storm either
 * may be older than the other by whatever happened while the looker did not run.
 *
 * So both are kept as sums. What was passed over may have been of DC_TRIGGER(), what was counted and not told must have been
 * passed over or is in a slot of the next look: the lesser of the two is told. What one look does not say the next one does,
 * and when nothing happens any more, all have been told, each once: tests/test_passed.c goes through every order of looks.
 */
#pragma once

#include <stdint.h>

#define DC_PASSED_MAX (UINT64_C(1) << 32) /* no program asks more often between two looks, whatever its ring says */

struct dc_passed {
	uint64_t told; /* one by one, or as so many */
	uint64_t over; /* slots passed over, less those told of */
};

/* One that was in its slot. */
static inline void dc_passed_one(struct dc_passed *p)
{
	p->told++;
}

/* @counted: by the guest; @over: slots that this look passed over. Return: how many more are to be told. */
static inline uint64_t dc_passed_look(struct dc_passed *p, uint64_t counted, uint64_t over)
{
	uint64_t more = counted > p->told ? counted - p->told : 0;

	p->over = over < DC_PASSED_MAX - p->over ? p->over + over : DC_PASSED_MAX;
	if (more > p->over)
		more = p->over;
	p->told += more;
	p->over -= more;
	return more;
}
