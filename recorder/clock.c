/* SPDX-License-Identifier: MIT */
/*
 * What the tick counter says in the time of people: anchors, moments read on all clocks together, and its rate.
 */
#include <time.h>

#include "recorder/recorder.h"

/* The vDSO reads the tick counter too: a process that forbade itself the counter must ask the kernel. */
static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;
	if (DC_UNLIKELY_(dc_ticks_forbidden))
		dc_sys(SYS_clock_gettime, id, &ts);
	else
		clock_gettime(id, &ts); /* cannot fail for these clocks */
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

uint64_t dc_clock_slow(void)
{
	return (uint64_t)clock_ns(CLOCK_MONOTONIC);
}

uint64_t dc_ticks(const struct dc_recorder *r)
{
	bool slow = r ? r->slow_clock : dc_clock_usable() == DC_CLOCK_MONOTONIC;
	return slow ? dc_clock_slow() : dc_ticks_();
}

/* The tightest of three tries, so that a preemption between the clocks does not become a lie about them. */
static struct dc_anchor anchor_now(const struct dc_recorder *r)
{
	struct dc_anchor best = { 0 };
	uint64_t width = UINT64_MAX;
	for (int i = 0; i < 3; i++) {
		uint64_t before = dc_ticks(r);
		struct dc_anchor a = {
			.realtime_ns = clock_ns(CLOCK_REALTIME),
			.monotonic_ns = clock_ns(CLOCK_MONOTONIC),
			.boottime_ns = clock_ns(CLOCK_BOOTTIME),
		};
		uint64_t after = dc_ticks(r);
		a.tick = before + (after - before) / 2;
		if (after - before < width) {
			width = after - before;
			best = a;
		}
	}
	return best;
}

/* About once a second, by whichever thread switches chunks first; the compare-exchange picks it. */
void dc_anchor_take(struct dc_recorder *r)
{
	uint64_t now = dc_ticks(r) >> DC_TICK_SHIFT_;
	uint64_t due = __atomic_load_n(&r->next_anchor_units, __ATOMIC_RELAXED);
	/* 2^28 units: 0.8 s at 3 ns. The exact pace does not matter, conversion uses the times inside. */
	if (now < due ||
	    !__atomic_compare_exchange_n(&r->next_anchor_units, &due, now + (UINT64_C(1) << 28), false,
					 __ATOMIC_RELAXED, __ATOMIC_RELAXED)) /* only elects; publishes nothing */
		return;
	struct dc_anchor times = anchor_now(r);
	/* relaxed: picks a slot; one whose tick is 0 is not looked at. Who is slow by seconds still has its own */
	uint32_t n = __atomic_fetch_add(&r->header->anchors_used, 1, __ATOMIC_RELAXED);
	struct dc_anchor *a = &r->header->anchors[n % DC_ANCHOR_MAX];
	__atomic_store_n(&a->tick, 0, __ATOMIC_RELAXED); /* the fence orders it before the fields */
	__atomic_thread_fence(__ATOMIC_RELEASE); /* [table-publish] release; who sees a new field sees no old tick */
	__atomic_store_n(&a->realtime_ns, times.realtime_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&a->monotonic_ns, times.monotonic_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&a->boottime_ns, times.boottime_ns, __ATOMIC_RELAXED);
	/* [table-publish] release; pairs with the reader's acquire fence after its pread of the header */
	__atomic_store_n(&a->tick, times.tick, __ATOMIC_RELEASE);
}

/* ---- the rate of the tick counter: no system call tells it, the anchors do once some time has passed ---- */

#define RATE_BASE_NS 1000000 /* clock_gettime() is good to some 50 ns: 1 ms makes that 50 ppm */
#define RATE_DOUBT 1024 /* of the base: a thread that lost the CPU between the clocks asks again */

static uint64_t tick_rate; /* ticks per second; of the machine, so children inherit it. 0: not known yet */

static bool rate_from_start(const struct dc_recorder *r)
{
	if (r->slow_clock) {
		tick_rate = 1000000000;
		return true;
	}
	const struct dc_anchor *a = &r->header->anchors[0];
	uint64_t elapsed_ns = (uint64_t)(clock_ns(CLOCK_MONOTONIC) - a->monotonic_ns);
	uint64_t elapsed = dc_ticks_() - a->tick;
	uint64_t doubt_ns = (uint64_t)(clock_ns(CLOCK_MONOTONIC) - a->monotonic_ns) - elapsed_ns;
	if (elapsed_ns < RATE_BASE_NS || doubt_ns > elapsed_ns / RATE_DOUBT)
		return false;
	/* past seconds, ticks per ms are exact enough and the product below would overflow */
	uint64_t rate = elapsed_ns < UINT64_C(1) << 32 ? elapsed * 1000000000 / elapsed_ns :
							 elapsed / (elapsed_ns / 1000000) * 1000;
	__atomic_store_n(&tick_rate, rate, __ATOMIC_RELAXED); /* whoever comes: the same */
	return true;
}

static uint64_t units_per_second(const struct dc_recorder *r)
{
	while (!__atomic_load_n(&tick_rate, __ATOMIC_RELAXED) && !rate_from_start(r))
		;
	return __atomic_load_n(&tick_rate, __ATOMIC_RELAXED) >> DC_TICK_SHIFT_;
}

uint64_t dc_units_of_ns(const struct dc_recorder *r, uint64_t ns)
{
	uint64_t rate = units_per_second(r);
	return ns / 1000000000 * rate + ns % 1000000000 * rate / 1000000000;
}

uint64_t dc_ns_of_units(const struct dc_recorder *r, uint64_t units)
{
	uint64_t rate = units_per_second(r);
	return units / rate * 1000000000 + units % rate * 1000000000 / rate;
}

/* At chunk switches until it is done: before the first millisecond nothing can be older than the window anyway. */
void dc_window_calibrate(struct dc_recorder *r)
{
	if (!__atomic_load_n(&tick_rate, __ATOMIC_RELAXED) && !rate_from_start(r))
		return;
	uint64_t units = dc_units_of_ns(r, __atomic_load_n(&r->window_ns, __ATOMIC_RELAXED));
	__atomic_store_n(&r->window_units, units ? units : 1, __ATOMIC_RELAXED); /* a setting, read at the next claim */
	__atomic_store_n(&r->header->window_units, units ? units : 1, __ATOMIC_RELAXED);
}
