/* SPDX-License-Identifier: MIT */
/* The pair of bench_hotpath through LTTng-UST; see bench_hotpath_peer.c. */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "tests/bench_hotpath_lttng.h"

#include "tests/bench.h"

__attribute__((visibility("default"))) double lttng_pair_ns(long n);

double lttng_pair_ns(long n)
{
	double start = bench_now_ns();
	for (long i = 0; i < n; i++) {
		lttng_ust_tracepoint(dashcam_bench, pair_begin, (int)(i & 1023), (int)(i & 15));
		lttng_ust_tracepoint(dashcam_bench, pair_end);
	}
	return (bench_now_ns() - start) / (2.0 * (double)n);
}
