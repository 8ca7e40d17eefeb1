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
