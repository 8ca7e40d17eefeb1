/* SPDX-License-Identifier: MIT */
/* From ticks to the clocks of people and back: see clock.h for what is promised about steps and about hostile
 * anchors. */
#include "ipc/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

/*
 * Reading all clocks together is uncertain by some 50 ns. Two anchors closer than this say more about that
 * than about the clock, so the second one is let go (once there are two at all), and extrapolation looks for
 * a partner this far off.
 */
#define CLOSE_NS INT64_C(20000000)
#define BASELINE_NS INT64_C(1000000000)
#define NS_PER_TICK_MIN 0.01    /* 100 GHz */
#define NS_PER_TICK_MAX 10000.0 /* 100 kHz */
#define DISAGREE_NS                                                                                          \
	1000000.0 /* an anchor may miss what the others predict by this and 1/16 of the distance */
#define DISAGREE_RATE (1.0 / 16)
#define SANE_NS (INT64_MAX / 4) /* of any clock: 73 years, and sums of four stay in range */

void dc_clock_init(struct dc_clock *c, uint32_t kind, uint32_t tick_shift)
{
	memset(c, 0, sizeof *c);
	c->kind = kind;
	c->tick_shift = tick_shift;
}

/* The first anchor whose tick is above @tick. */
static uint32_t upper(const struct dc_clock *c, uint64_t tick)
{
	uint32_t low = 0, high = c->count;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (c->anchors[middle].tick <= tick)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int64_t clamp_ns(double ns)
{
	return ns > (double)SANE_NS ? SANE_NS : ns < -(double)SANE_NS ? -SANE_NS : (int64_t)ns;
}

/* Signed distance between two ticks as a double: exact up to 2^53 ticks (a month of TSC), and never undefined. */
static double tick_distance(uint64_t from, uint64_t to)
{
	return to >= from ? (double)(to - from) : -(double)(from - to);
}

static double pair_rate(const struct dc_anchor *a, const struct dc_anchor *b)
{
	return (double)(b->monotonic_ns - a->monotonic_ns) / tick_distance(a->tick, b->tick);
}

static bool far_enough(const struct dc_anchor *a, const struct dc_anchor *b)
{
	return b->monotonic_ns - a->monotonic_ns >= BASELINE_NS;
}

/* The line that holds at @tick: a point on it and its slope in ns per tick. */
static const struct dc_anchor *line_at(const struct dc_clock *c, uint64_t tick, double *ret_rate)
{
	const struct dc_anchor *a = c->anchors;
	uint32_t i = upper(c, tick), k;

	if (c->count < 2) {
		*ret_rate = 1;
		return a;
	}
	if (i == 0) { /* before the first: its nearest partner far enough away */
		for (k = 1; k + 1 < c->count && !far_enough(&a[0], &a[k]); k++)
			;
		*ret_rate = pair_rate(&a[0], &a[k]);
		return &a[0];
	}
	if (i == c->count) {
		for (k = c->count - 2; k > 0 && !far_enough(&a[k], &a[i - 1]); k--)
			;
		*ret_rate = pair_rate(&a[k], &a[i - 1]);
		return &a[i - 1];
	}
	*ret_rate = pair_rate(&a[i - 1], &a[i]);
	return &a[i - 1];
}

static int64_t monotonic_at(const struct dc_clock *c, uint64_t tick)
{
	double rate;
	const struct dc_anchor *a = line_at(c, tick, &rate);

	return a->monotonic_ns + clamp_ns(tick_distance(a->tick, tick) * rate);
}

static bool sane(const struct dc_anchor *a)
{
	return a->monotonic_ns >= 0 && a->monotonic_ns < SANE_NS && a->realtime_ns > -SANE_NS &&
	       a->realtime_ns < SANE_NS;
}

/* @a before @b on both clocks, at a rate some machine could have. */
static bool plausible(const struct dc_anchor *a, const struct dc_anchor *b)
{
	if (a->tick >= b->tick || a->monotonic_ns >= b->monotonic_ns)
		return false;
	double rate = pair_rate(a, b);
	return rate >= NS_PER_TICK_MIN && rate <= NS_PER_TICK_MAX;
}

static bool agrees(const struct dc_clock *c, const struct dc_anchor *a)
{
	double rate;
	const struct dc_anchor *line = line_at(c, a->tick, &rate);
	if (c->anchors[c->count - 1].monotonic_ns - c->anchors[0].monotonic_ns < CLOSE_NS)
		return true; /* they do not know the rate themselves */
	double distance = tick_distance(line->tick, a->tick) * rate;
	double miss = (double)(a->monotonic_ns - line->monotonic_ns) - distance;

	distance = distance < 0 ? -distance : distance;
	miss = miss < 0 ? -miss : miss;
	return miss <= DISAGREE_NS + DISAGREE_RATE * distance;
}

static bool close_to(const struct dc_anchor *a, const struct dc_anchor *b)
{
	int64_t distance = a->monotonic_ns - b->monotonic_ns;
	return distance > -CLOSE_NS && distance < CLOSE_NS;
}

int dc_clock_add(struct dc_clock *c, const struct dc_anchor *anchor)
{
	uint32_t i = upper(c, anchor->tick);
	struct dc_anchor *next = c->anchors + i, *previous = i ? next - 1 : NULL;

	if (!sane(anchor))
		return -EINVAL;
	if (previous && memcmp(previous, anchor, sizeof *anchor) == 0)
		return 0;
	if ((previous && !plausible(previous, anchor)) || (i < c->count && !plausible(anchor, next)))
		return -EINVAL;
	if (c->count >= 2 && !agrees(c, anchor))
		return -EINVAL;
	if (c->count >= 2 &&
	    ((previous && close_to(previous, anchor)) || (i < c->count && close_to(anchor, next))))
		return 0; /* says nothing new */
	if (c->count == DC_CLOCK_ANCHORS_MAX)
		return -ENOSPC;
	memmove(next + 1, next, (c->count - i) * sizeof *next);
	*next = *anchor;
	c->count++;
	return 0;
}

static int64_t read_clock(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int read_tick(uint32_t kind, uint64_t *ret_tick)
{
	if (kind == DC_CLOCK_MONOTONIC) {
		*ret_tick = (uint64_t)read_clock(CLOCK_MONOTONIC);
		return 0;
	}
#if defined(__x86_64__)
	if (kind == DC_CLOCK_TSC) {
		unsigned processor;
		*ret_tick = __rdtscp(&processor);
		return 0;
	}
#elif defined(__aarch64__)
	if (kind == DC_CLOCK_CNTVCT) {
		__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(*ret_tick)::"memory");
		return 0;
	}
#endif
	return -ENOTSUP;
}

int dc_clock_now(uint32_t kind, struct dc_anchor *ret_anchor)
{
	uint64_t best = UINT64_MAX;

	for (int attempt = 0; attempt < 8; attempt++) {
		struct dc_anchor a;
		uint64_t before, after;
		int r = read_tick(kind, &before);
		if (r < 0)
			return r;
		a.realtime_ns = read_clock(CLOCK_REALTIME);
		a.monotonic_ns = read_clock(CLOCK_MONOTONIC); /* in the middle: the others hang on it */
		a.boottime_ns = read_clock(CLOCK_BOOTTIME);
		read_tick(kind, &after);
		a.tick = kind == DC_CLOCK_MONOTONIC ? (uint64_t)a.monotonic_ns
						    : before + (after - before) / 2;
		if (after - before < best) {
			best = after - before;
			*ret_anchor = a;
		}
	}
	return 0;
}

static uint64_t to_tick(const struct dc_clock *c, uint64_t units)
{
	return units > UINT64_MAX >> c->tick_shift ? UINT64_MAX : units << c->tick_shift;
}

static int64_t offset_of(const struct dc_anchor *a)
{
	return a->realtime_ns - a->monotonic_ns;
}

/* Realtime less monotonic at @tick: of the anchor nearest by ticks. */
static int64_t offset_at(const struct dc_clock *c, uint64_t tick)
{
	uint32_t i = upper(c, tick);

	if (i == 0)
		return offset_of(&c->anchors[0]);
	if (i == c->count || tick - c->anchors[i - 1].tick <= c->anchors[i].tick - tick)
		return offset_of(&c->anchors[i - 1]);
	return offset_of(&c->anchors[i]);
}

int64_t dc_clock_monotonic_ns(const struct dc_clock *c, uint64_t units)
{
	uint64_t tick = to_tick(c, units);
	if (c->count == 0)
		return tick > SANE_NS ? SANE_NS : (int64_t)tick;
	return monotonic_at(c, tick);
}

int64_t dc_clock_realtime_ns(const struct dc_clock *c, uint64_t units)
{
	int64_t monotonic_ns = dc_clock_monotonic_ns(c, units);
	return c->count ? monotonic_ns + offset_at(c, to_tick(c, units)) : monotonic_ns;
}

int64_t dc_clock_realtime_of(const struct dc_clock *c, int64_t monotonic_ns)
{
	const struct dc_anchor *a = c->anchors;
	uint32_t low = 0, high = c->count;

	if (monotonic_ns > SANE_NS || monotonic_ns < -SANE_NS)
		monotonic_ns = monotonic_ns < 0 ? -SANE_NS : SANE_NS;
	if (c->count == 0)
		return monotonic_ns;
	while (low < high) { /* anchors are in order by CLOCK_MONOTONIC, too */
		uint32_t middle = (low + high) / 2;
		if (a[middle].monotonic_ns <= monotonic_ns)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == c->count ||
	    (low && monotonic_ns - a[low - 1].monotonic_ns <= a[low].monotonic_ns - monotonic_ns))
		low--;
	return monotonic_ns + offset_of(&a[low]);
}

/* The tick at which CLOCK_MONOTONIC read @ns: the lines of line_at(), found by their other end. */
static uint64_t tick_of_monotonic(const struct dc_clock *c, int64_t ns)
{
	uint32_t i = 0;
	double rate;

	while (i + 1 < c->count && c->anchors[i + 1].monotonic_ns <= ns)
		i++;
	uint64_t near = c->anchors[i].tick;
	if (ns < c->anchors[i].monotonic_ns)
		near = near ? near - 1 : 0;
	const struct dc_anchor *a = line_at(c, near, &rate);
	double tick = (double)(ns - a->monotonic_ns) / rate;
	if (tick < 0)
		return -tick >= (double)a->tick ? 0 : a->tick - (uint64_t)-tick;
	return tick >= (double)(UINT64_MAX - a->tick) ? UINT64_MAX : a->tick + (uint64_t)tick;
}

uint64_t dc_clock_units(const struct dc_clock *c, int64_t realtime_ns)
{
	const struct dc_anchor *nearest = c->anchors;
	uint64_t best = UINT64_MAX;

	if (c->count == 0)
		return realtime_ns < 0 ? 0 : (uint64_t)realtime_ns >> c->tick_shift;
	for (uint32_t i = 0; i < c->count; i++) {
		int64_t there = c->anchors[i].realtime_ns;
		uint64_t distance = there > realtime_ns ? (uint64_t)there - (uint64_t)realtime_ns
							: (uint64_t)realtime_ns - (uint64_t)there;
		if (distance < best) {
			best = distance;
			nearest = &c->anchors[i];
		}
	}
	if (realtime_ns < -2 * SANE_NS) /* so that the difference fits */
		return 0;
	if (realtime_ns > 2 * SANE_NS)
		return UINT64_MAX >> c->tick_shift;
	return tick_of_monotonic(c, realtime_ns - offset_of(nearest)) >> c->tick_shift;
}

uint64_t dc_clock_duration_ns(const struct dc_clock *c, uint64_t units)
{
	double ticks = (double)units * (double)(UINT64_C(1) << c->tick_shift);
	double ns = c->count < 2 ? ticks : ticks * pair_rate(&c->anchors[0], &c->anchors[c->count - 1]);
	return ns >= (double)SANE_NS ? SANE_NS : (uint64_t)(ns + 0.5);
}
