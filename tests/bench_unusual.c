/* SPDX-License-Identifier: MIT */
/*
 * How often the self-tuning detector fires where nothing is wrong, and what a sample costs. A million samples of each series,
 * 100 a second: ten seconds, the cool-down of a rule, are 1,000 of them. Of rates
 * and levels (surge.h) eleven days each, second by second.
 */
#include <math.h>

#include "tests/bench.h"
#include "tests/series.h"
#include "ipc/event.h"
#include "trigger/rules/slower.h"
#include "trigger/rules/surge.h"
#include "trigger/rules/unusual.h"

#define COUNT 1000000
#define PER_S 100
#define COOLDOWN (10 * PER_S)
#define SEED 1
#define SECOND INT64_C(1000000000)

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

/* ---- many that are slower ---- */

static struct result slower(void)
{
	struct result r = {0};
	struct dc_slower s;
	long last = -60 * PER_S;

	dc_slower_init(&s);
	for (long i = 0; i < COUNT; i++) {
		if (!dc_slower_add(&s, values[i], 0, i * (INT64_C(1000000000) / PER_S)))
			continue;
		r.fired++;
		r.crowded += i - last < 60 * PER_S;
		last = i;
	}
	return r;
}

/* With what it takes to tell of which kind it is. @per_s: few are all looked at, of many a part is. */
static double slower_ns(long per_s)
{
	static const struct dc_site_info site = {.arg_count = 2, .types = {DC_TYPE_STR, DC_TYPE_STR}};
	struct dc_event event = {.arg_count = 2, .info = &site};
	double best = 1e9;

	event.args[0].text = (struct dc_text){.bytes = "GET", .length = 3};
	event.args[1].text = (struct dc_text){.bytes = "/kv/1234", .length = 8};
	for (int round = 0; round < 5; round++) {
		struct dc_kinds kinds = {0};
		double start = bench_now_ns();
		long fired = 0;

		for (long i = 0; i < COUNT; i++) {
			const int64_t now_ns = i * (SECOND / per_s);
			struct dc_slower *s;

			if (!dc_kinds_due(&kinds, now_ns))
				continue;
			s = dc_kinds_find(&kinds, dc_kind_of(&event, 0));
			fired += s && dc_slower_add(s, values[i], 0, now_ns);
		}
		__asm__ volatile("" ::"r"(fired));
		best = fmin(best, (bench_now_ns() - start) / COUNT);
	}
	return best;
}

/* ---- rates and levels ---- */

static struct result surges(enum tally_kind kind)
{
	const bool levels = kind >= TALLY_LEVELS;
	struct result r = {0};
	struct dc_surge u;
	struct tally t;
	double v[4];
	long last = -COOLDOWN;
	bool was = false;

	dc_surge_init(&u, levels ? DC_SURGE_LEVEL : DC_SURGE_RATE, 0);
	tally_init(&t, kind, COUNT, SEED);
	for (long i = 0; i < COUNT; i++) {
		tally_next(&t, v);
		for (unsigned k = 0; k < (levels ? 4u : 1u); k++)
			dc_surge_add(&u, v[k], (i + 1) * SECOND + k * SECOND / 4);
		if (dc_surge_look(&u, (i + 1) * SECOND + 3 * SECOND / 4) && !was) {
			r.fired++;
			r.crowded += i - last < 60;
			last = i;
		}
		was = u.on;
	}
	return r;
}

/* A rate that many are counted for, looked at four times a second. */
static double surge_ns(void)
{
	double best = 1e9;

	for (int round = 0; round < 5; round++) {
		double start = bench_now_ns();
		struct dc_surge u;
		long on = 0;

		dc_surge_init(&u, DC_SURGE_RATE, 0);
		for (long i = 0; i < COUNT; i++)
			dc_surge_add(&u, 1, SECOND + i * (SECOND / 1000));
		on = dc_surge_look(&u, SECOND);
		__asm__ volatile("" ::"r"(on));
		best = fmin(best, (bench_now_ns() - start) / COUNT);
	}
	return best;
}

static void bench_surges(struct bench_report *report)
{
	long far = 0, crowded = 0, missed = 0;

	if (!report->json)
		printf("  %-14s %10s %12s\n", "in 10^6 s", "surges", "within 60 s");
	for (enum tally_kind kind = 0; kind < TALLY_KINDS; kind++) {
		const struct result r = surges(kind);
		const bool real = kind == TALLY_STEP || kind == TALLY_GROWTH;

		if (!report->json)
			printf("  %-14s %10ld %12ld\n", tally_name(kind), r.fired, r.crowded);
		far += real ? 0 : r.fired;
		missed += real && r.fired != 1;
		crowded += r.crowded;
	}
	bench_figure(report, "surge_false", (double)far, "", "alarms of rates and counters, but for the step and the growth; bar 0");
	bench_figure(report, "surge_missed", (double)missed, "", "of those two, not told exactly once; bar 0");
	bench_figure(report, "surge_crowded", (double)crowded, "", "alarms less than 60 s after another; bar 0");
	bench_figure(report, "surge_ns", surge_ns(), "ns", "a value, a thousand a second; bar 20");
}

int main(int argc, char **argv)
{
	struct bench_report report;
	double off = 0, worst_ns = 0, many_ns = 0, all_ns = 0;
	long crowded = 0, far = 0, many = 0, stepped = 0, told_again = 0;

	bench_begin(&report, "bench_unusual", argc, argv);
	if (!report.json)
		printf("  %-14s %21s %21s %12s %9s %9s\n  %-14s %10s %10s %10s %10s %12s %9s %9s\n", "alarms in 10^6",
		       "1 in 10000", "1 in 1000", "far", "ns", "slower", "", "fired", "in 10 s", "fired", "in 10 s", "fired",
		       "a sample", "fired");
	for (enum series_kind kind = 0; kind < SERIES_KINDS; kind++) {
		make(kind);
		struct result rare = alarms(10000), often = alarms(1000), none = alarms(DC_UNUSUAL_FAR), row = slower();
		const double ns = fmax(cost_ns(10000), cost_ns(DC_UNUSUAL_FAR));

		if (!report.json)
			printf("  %-14s %10ld %10ld %10ld %10ld %12ld %9.1f %9ld\n", series_name(kind), rare.fired,
			       rare.crowded, often.fired, often.crowded, none.fired, ns, row.fired);
		worst_ns = fmax(worst_ns, ns);
		all_ns = fmax(all_ns, slower_ns(PER_S));
		many_ns = fmax(many_ns, slower_ns(100000));
		crowded = rare.crowded > crowded ? rare.crowded : crowded;
		far += kind == SERIES_STEP ? 0 : none.fired;
		*(kind == SERIES_STEP ? &stepped : &many) += row.fired;
		told_again += row.crowded;
		if (kind < SERIES_STATIONARY)
			off = fmax(off, fmax(fabs(rare.rate - 1), fabs(often.rate - 1)));
	}
	bench_figure(&report, "rate_off", off, "x",
		     "realised rate off the asked one, worst of the first five; bar 0.1");
	bench_figure(&report, "crowded", (double)crowded, "", "most alarms of 1 in 10000 in any 10 s; bar 1");
	bench_figure(&report, "far_false", (double)far, "",
		     "alarms of plain `unusual`, all series but the step; bar 0");
	bench_figure(&report, "ns", worst_ns, "ns", "a sample; bar 20");
	bench_figure(&report, "slower_false", (double)many, "", "alarms of `slower`, all series but the step; bar 0");
	bench_figure(&report, "slower_step", (double)stepped, "", "of that one; bar 1");
	bench_figure(&report, "slower_crowded", (double)told_again, "", "alarms less than 60 s after another; bar 0");
	bench_figure(&report, "slower_ns", many_ns, "ns", "a sample, a hundred thousand a second, with the kind of its texts; bar 20");
	bench_figure(&report, "slower_all_ns", all_ns, "ns", "... a hundred a second, all of which are looked at");
	bench_surges(&report);
	bench_end(&report);
	return 0;
}
