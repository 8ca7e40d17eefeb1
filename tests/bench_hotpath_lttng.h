/* SPDX-License-Identifier: MIT */
/* Tracepoints of the peer: begin with two integers, end without. The form is LTTng's (lttng-ust(3)). */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER dashcam_bench
#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "tests/bench_hotpath_lttng.h"
#if !defined(BENCH_HOTPATH_LTTNG_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define BENCH_HOTPATH_LTTNG_H
#include <lttng/tracepoint.h>
LTTNG_UST_TRACEPOINT_EVENT(dashcam_bench, pair_begin, LTTNG_UST_TP_ARGS(int, a, int, b),
			   LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(int, a, a) lttng_ust_field_integer(int, b, b)))
LTTNG_UST_TRACEPOINT_EVENT(dashcam_bench, pair_end, LTTNG_UST_TP_ARGS(), LTTNG_UST_TP_FIELDS())
#endif
#include <lttng/tracepoint-event.h>
