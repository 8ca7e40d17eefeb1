/* SPDX-License-Identifier: MIT */
/*
 * From recorder time to the clocks of people. All processes of a host share one tick counter, so one conversion, made
 * from anchors (moments read on all clocks together), serves a whole incident and keeps the processes on one line.
 *
 * Conversion is piecewise linear between the anchors around a moment and extends the nearest pair beyond them. A
 * realtime step (settimeofday, NTP) shows as a jump between two anchors: CLOCK_MONOTONIC is interpolated, realtime is
 * monotonic plus the offset of the nearest anchor, so spans keep their true length across a step.
 */
#pragma once

#include <stdint.h>

#include "ipc/ring.h"

#define DC_CLOCK_ANCHORS_MAX 256u

struct dc_clock {
	uint32_t kind; /* DC_CLOCK_* */
	uint32_t tick_shift;
	uint32_t count; /* anchors, ordered by tick */
	struct dc_anchor anchors[DC_CLOCK_ANCHORS_MAX];
};

/*
 * dc_clock_init() / dc_clock_add() - collect anchors; those that do not fit between their neighbours (a tick that runs
 * backwards against CLOCK_MONOTONIC, an absurd rate) are refused with -EINVAL: they may come from a hostile ring.
 */
void dc_clock_init(struct dc_clock *c, uint32_t kind, uint32_t tick_shift);
int dc_clock_add(struct dc_clock *c, const struct dc_anchor *anchor);

/* dc_clock_now() - read this host's clocks together (the tightest of a few tries). Return: 0, -ENOTSUP. */
int dc_clock_now(uint32_t kind, struct dc_anchor *ret_anchor);

int64_t dc_clock_realtime_ns(const struct dc_clock *c, uint64_t units);
int64_t dc_clock_monotonic_ns(const struct dc_clock *c, uint64_t units);
/* Of a time that the kernel gave (samples): realtime by the nearest anchor's offset. */
int64_t dc_clock_realtime_of(const struct dc_clock *c, int64_t monotonic_ns);
/* The inverse, for cutting by time. */
uint64_t dc_clock_units(const struct dc_clock *c, int64_t realtime_ns);
/* A duration. */
uint64_t dc_clock_duration_ns(const struct dc_clock *c, uint64_t units);
