/* SPDX-License-Identifier: MIT */
/* The pair of bench_hotpath with the bodies in the caller. */
#define DC_INLINE
#include "recorder/dashcam.h"
#include "tests/bench.h"
#include "tests/bench_hotpath.h"

double hot_pair_inline_ns(long n)
{
	double start = bench_now_ns();
	for (long i = 0; i < n; i++) {
		dc_span_t s = DC_BEGIN("bench.pair", "a", (int)(i & 1023), "b", (int)(i & 15));
		DC_END(s);
	}
	return (bench_now_ns() - start) / (2.0 * (double)n);
}

int hot_work(int fd, int n)
{
	__asm__ volatile("" ::"r"(fd));
	return n;
}
