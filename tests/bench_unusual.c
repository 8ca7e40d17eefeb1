/* SPDX-License-Identifier: MIT */
/*
 * How often the self-tuning detector fires where nothing is wrong, and what a sample costs. A million samples of each series,
 * 100 a second: ten seconds, the cool-down of a rule, are 1,000 of them.
 */
#include <math.h>

#include "tests/bench.h"
#include "tests/series.h"
#include "trigger/rules/unusual.h"

#define COUNT 1000000
#define PER_S 100
#define COOLDOWN (10 * PER_S)
#define SEED 1

struct result {
	long fired;
	long crowded; /* most within any one cool-down */
	double rate; /* realised to asked */
};

static double values[COUNT];

static void make(enum series_kind kind)
{
	struct series s;

	series_init(&s, kind, COUNT, SEED);
	for (long i = 0; i < COUNT; i++)
		values[i] = series_next(&s);
}

static struct result alarms(double one_in)
{
	static long at[COUNT];
	struct dc_unusual u;
	struct result r = {0};
	long first = 0;

	dc_unusual_init(&u, one_in);
	for (long i = 0; i < COUNT; i++) {
		if (!dc_unusual_add(&u, values[i], i * (INT64_C(1000000000) / PER_S)))
			continue;
		at[r.fired++] = i;
		while (at[first] <= i - COOLDOWN)
			first++;
		r.crowded = r.fired - first > r.crowded ? r.fired - first : r.crowded;
	}
	r.rate = one_in > 0 ? (double)r.fired * one_in / COUNT : 0;
	return r;
}

static double cost_ns(double one_in)
{
	double best = 1e9;

	for (int round = 0; round < 5; round++) {
		struct dc_unusual u;
		double start = bench_now_ns();
		long fired = 0;

		dc_unusual_init(&u, one_in);
		for (long i = 0; i < COUNT; i++)
			fired += dc_unusual_add(&u, values[i], i);
		__asm__ volatile("" ::"r"(fired));
		best = fmin(best, (bench_now_ns() - start) / COUNT);
	}
	return best;
}

int main(int argc, char **argv)
{
	struct bench_report report;
	double off = 0, worst_ns = 0;
	long crowded = 0, far = 0;

	bench_begin(&report, "bench_unusual", argc, argv);
	if (!report.json)
		printf("  %-14s %21s %21s %12s %9s\n  %-14s %10s %10s %10s %10s %12s %9s\n", "alarms in 10^6",
		       "1 in 10000", "1 in 1000", "far", "ns", "", "fired", "in 10 s", "fired", "in 10 s", "fired",
		       "a sample");
	for (enum series_kind kind = 0; kind < SERIES_KINDS; kind++) {
		make(kind);
		struct result rare = alarms(10000), often = alarms(1000), none = alarms(DC_UNUSUAL_FAR);
		const double ns = fmax(cost_ns(10000), cost_ns(DC_UNUSUAL_FAR));

		if (!report.json)
			printf("  %-14s %10ld %10ld %10ld %10ld %12ld %9.1f\n", series_name(kind), rare.fired,
			       rare.crowded, often.fired, often.crowded, none.fired, ns);
		worst_ns = fmax(worst_ns, ns);
		crowded = rare.crowded > crowded ? rare.crowded : crowded;
		far += kind == SERIES_STEP ? 0 : none.fired;
		if (kind < SERIES_STATIONARY)
			off = fmax(off, fmax(fabs(rare.rate - 1), fabs(often.rate - 1)));
	}
	bench_figure(&report, "rate_off", off, "x",
		     "realised rate off the asked one, worst of the first five; bar 0.1");
	bench_figure(&report, "crowded", (double)crowded, "", "most alarms of 1 in 10000 in any 10 s; bar 1");
	bench_figure(&report, "far_false", (double)far, "",
		     "alarms of plain `unusual`, all series but the step; bar 0");
	bench_figure(&report, "ns", worst_ns, "ns", "a sample; bar 20");
	bench_end(&report);
	return 0;
}
