/* SPDX-License-Identifier: MIT */
/* What time it is for those who wait or measure: CLOCK_MONOTONIC. Events have their own clock, clock.h. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline int64_t dc_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}
