/* SPDX-License-Identifier: MIT */
/*
 * The three kinds of traffic that sizes of captures are quoted for, the same bytes on every run. Times are in units of
 * 8 ticks of a 2.6 GHz TSC, as the recorder takes them on such a machine (3.08 ns).
 */
#pragma once

#include <stdint.h>

#include "tests/ringmaker.h"

enum mix {
	MIX_TIGHT, /* one thread: begin (two integers), end, as fast as it goes: 9 ns an event */
	MIX_PAIR_1US, /* the same with log-normal gaps, median 1 µs, sigma 1 */
	MIX_HTTP, /* four threads serving requests: parse, lock, query with reads, queue depth, reply */
};

/* A ring of 8 KiB chunks with at least @events events, none of them overwritten. The caller frees it. */
struct ring_maker *mix_ring(enum mix mix, uint64_t events);
