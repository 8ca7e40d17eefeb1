/* SPDX-License-Identifier: MIT */
#include "tests/series.h"

#include <math.h>

#define US 1000.0
#define MS 1000000.0

const char *series_name(enum series_kind kind)
{
	static const char *const names[SERIES_KINDS] = {
		[SERIES_NORMAL] = "normal",          [SERIES_LOGNORMAL] = "lognormal",
		[SERIES_BIMODAL] = "bimodal",        [SERIES_EXPONENTIAL] = "exponential",
		[SERIES_PARETO] = "pareto",          [SERIES_SWING] = "daily swing",
		[SERIES_DRIFT] = "slow drift",       [SERIES_STEP] = "step x10",
		[SERIES_CONSTANT] = "constant",      [SERIES_TICKS_US] = "ticks of 1 us",
		[SERIES_TICKS_MS] = "ticks of 1 ms",
	};

	return names[kind];
}

void series_init(struct series *s, enum series_kind kind, long count, uint64_t seed)
{
	*s = (struct series){
		.kind = kind, .random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .count = count, .spare = NAN};
	for (int i = 0; i < 8; i++)
		series_uniform(s);
}

double series_uniform(struct series *s)
{
	uint64_t z = s->random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double normal(struct series *s)
{
	double r = s->spare, angle;

	if (!isnan(r)) {
		s->spare = NAN;
		return r;
	}
	r = sqrt(-2 * log(1 - series_uniform(s)));
	angle = 2 * M_PI * series_uniform(s);
	s->spare = r * sin(angle);
	return r * cos(angle);
}

static double lognormal(struct series *s, double median, double sigma)
{
	return median * exp(sigma * normal(s));
}

static double ticks(double value, double tick)
{
	return fmax(tick, tick * round(value / tick));
}

double series_next(struct series *s)
{
	const double passed = (double)s->at++ / (double)s->count;

	switch (s->kind) {
	case SERIES_NORMAL:
		return fmax(1, 100 * US + 10 * US * normal(s));
	case SERIES_LOGNORMAL:
		return lognormal(s, 100 * US, 1);
	case SERIES_BIMODAL:
		return series_uniform(s) < 0.05 ? lognormal(s, 800 * US, 0.2) : lognormal(s, 20 * US, 0.3);
	case SERIES_EXPONENTIAL:
		return 1 - 100 * US * log(1 - series_uniform(s));
	case SERIES_PARETO:
		return 50 * US / sqrt(1 - series_uniform(s));
	case SERIES_SWING:
		return lognormal(s, 100 * US * exp2(sin(20 * M_PI * passed)), 0.5);
	case SERIES_DRIFT:
		return lognormal(s, 100 * US * pow(10, passed), 0.5);
	case SERIES_STEP:
		return lognormal(s, passed < 0.5 ? 100 * US : 1000 * US, 0.5);
	case SERIES_TICKS_US:
		return ticks(8 * US + 1.5 * US * normal(s), US);
	case SERIES_TICKS_MS:
		return ticks(lognormal(s, 3 * MS, 0.5), MS);
	default:
		return 100 * US;
	}
}

/* ---- a second of something ---- */

const char *tally_name(enum tally_kind kind)
{
	static const char *const names[TALLY_KINDS] = {
		[TALLY_SELDOM] = "seldom",	   [TALLY_FEW] = "a few",	      [TALLY_MANY] = "many",
		[TALLY_BURSTS] = "bursts",	   [TALLY_SWING] = "daily swing",     [TALLY_DRIFT] = "slow drift",
		[TALLY_CONSTANT] = "constant",	   [TALLY_STEP] = "step x20",	      [TALLY_QUEUE] = "queue, 70 %",
		[TALLY_BUSY_QUEUE] = "queue, 95 %", [TALLY_DAY_QUEUE] = "queue, daily", [TALLY_BATCHES] = "queue, batches",
		[TALLY_GAUGE] = "gauge, drift",	   [TALLY_TOTAL] = "total",	      [TALLY_GROWTH] = "queue, growth",
	};

	return names[kind];
}

void tally_init(struct tally *t, enum tally_kind kind, long seconds, uint64_t seed)
{
	*t = (struct tally){.kind = kind};
	series_init(&t->from, SERIES_NORMAL, seconds, seed);
}

static double poisson(struct series *s, double mean)
{
	double p = 1, least = exp(-mean);
	long n = 0;

	if (mean > 30)
		return fmax(0, round(mean + sqrt(mean) * normal(s)));
	while ((p *= 1 - series_uniform(s)) > least)
		n++;
	return (double)n;
}

/* Some of a burst falls into the second after the one in which it began. */
static double bursts(struct tally *t)
{
	const double carried = t->later;
	double now;

	t->later = 0;
	if (series_uniform(&t->from) > 1.0 / 1200)
		return carried;
	now = round(500 * series_uniform(&t->from));
	t->later = 500 - now;
	return carried + now;
}

static double rate(struct tally *t, double passed)
{
	switch (t->kind) {
	case TALLY_SELDOM:
		return poisson(&t->from, 0.1);
	case TALLY_FEW:
		return poisson(&t->from, 5);
	case TALLY_MANY:
		return poisson(&t->from, 200);
	case TALLY_BURSTS:
		return bursts(t);
	case TALLY_SWING:
		return poisson(&t->from, 50 * pow(4, sin(20 * M_PI * passed)));
	case TALLY_DRIFT:
		return poisson(&t->from, 20 * pow(10, passed));
	case TALLY_STEP:
		return poisson(&t->from, passed < 0.5 ? 20 : 400);
	default:
		return 1000;
	}
}

static void serve(struct tally *t, double come, double go)
{
	t->level = fmax(0, t->level + poisson(&t->from, come) - poisson(&t->from, go));
}

/* A quarter of a second. */
static double level(struct tally *t, double passed)
{
	const double second = passed * (double)t->from.count, middle = 0.5 * (double)t->from.count;

	switch (t->kind) {
	case TALLY_QUEUE:
		serve(t, 25, 25 / 0.7);
		break;
	case TALLY_BUSY_QUEUE:
		serve(t, 25, 25 / 0.95);
		break;
	case TALLY_DAY_QUEUE:
		serve(t, 25, 25 / (0.5 + 0.4 * sin(20 * M_PI * passed)));
		break;
	case TALLY_BATCHES:
		serve(t, 20 + (series_uniform(&t->from) < 1.0 / 4800 ? 20000 : 0), 45);
		break;
	case TALLY_GAUGE:
		return 200 * pow(10, passed) + 5 * normal(&t->from);
	case TALLY_TOTAL:
		return t->level += poisson(&t->from, 3);
	default:
		serve(t, 25, second > middle && second < middle + 600 ? 0 : 25 / 0.7);
	}
	return t->level;
}

void tally_next(struct tally *t, double ret_values[4])
{
	const double passed = (double)t->from.at++ / (double)t->from.count;

	if (t->kind < TALLY_LEVELS)
		ret_values[0] = rate(t, passed);
	for (unsigned i = 0; t->kind >= TALLY_LEVELS && i < 4; i++)
		ret_values[i] = level(t, passed);
}
