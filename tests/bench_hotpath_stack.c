/* SPDX-License-Identifier: MIT */
/* DC_STACK under ten functions of the app, compiled with frame pointers. */
#include <sys/mman.h>

#include "ipc/event.h"
#include "recorder/dashcam.h"
#include "tests/bench.h"
#include "tests/bench_hotpath.h"

#define DEPTH 10

#ifdef __clang__
__attribute__((noinline)) /* it does not clone */
#else
__attribute__((noinline, noclone))
#endif
static double nested(int depth, long n)
{
	if (depth) {
		double ns = nested(depth - 1, n);
		__asm__ volatile("" ::"r"(depth)); /* no tail call */
		return ns;
	}
	double start = bench_now_ns();
	for (long i = 0; i < n; i++)
		DC_STACK("bench.stack");
	return (bench_now_ns() - start) / (double)n;
}

double hot_stack_ns(long n)
{
	return nested(DEPTH, n / 8);
}
