/* SPDX-License-Identifier: MIT */
#include "trigger/rules/unusual.h"

#include <math.h>

#define BODY_SAMPLES 100u /* known before body is more than the largest so far */
#define SPREAD_SAMPLES 64.0 /* beyond body: what spread remembers */
#define SPREAD_LEAST 1e-3
#define SPREAD_CONSTANT 5e-3 /* a tail thinner than this is noise on a constant */
#define STEP 0.25 /* of body, in spreads */
#define RUN_MAX 64u
#define LEAD_MAX 12.0
#define LEAD_MIN (-6.0)
#define NEAR 2.3 /* spreads below the threshold: ten times as many */
#define TIES_MANY 0.25
#define MARGIN 1.1
#define FAR_ONE_IN 1e9
#define FAR_TIMES 4.0 /* ... what one in FAR_OF exceeds */
#define FAR_OF 1e4
#define FAR_MOST 2.0 /* times the largest of the last minutes */
#define FAR_QUIET 100u

void dc_unusual_init(struct dc_unusual *u, double one_in)
{
	const double n = one_in > 0 && one_in < 10 ? 10 : one_in;

	*u = (struct dc_unusual){.one_in = n, .beyond = 0.01, .spread = SPREAD_LEAST, .fall = 1, .threshold = INFINITY};
	if (n > 0 && 10 / n > u->beyond)
		u->beyond = 10 / n < 0.5 ? 10 / n : 0.5;
}

static uint64_t start_samples(const struct dc_unusual *u)
{
	const double half = u->one_in / 2;

	return half > DC_UNUSUAL_START_SAMPLES ? (uint64_t)half : DC_UNUSUAL_START_SAMPLES;
}

static bool knows_enough(const struct dc_unusual *u, int64_t now_ns)
{
	return u->seen > start_samples(u) && (u->one_in > 0 || now_ns - u->first_ns >= DC_UNUSUAL_START_NS);
}

/* The first ones: the largest stands for body, and how far it is from the mean for the tail. */
static void begin(struct dc_unusual *u, double value, int64_t now_ns)
{
	if (u->seen == 1)
		u->first_ns = u->most_ns = now_ns;
	u->lead += value; /* the sum, until lead is needed */
	u->body = value > u->body ? value : u->body;
	u->most = u->body;
	if (u->seen == BODY_SAMPLES) {
		const double spread = log(u->body * BODY_SAMPLES / u->lead) / log(BODY_SAMPLES);

		u->spread = spread > SPREAD_LEAST ? spread : SPREAD_LEAST;
		u->fall = exp(-STEP * u->spread * u->beyond);
		u->lead = 0;
	}
}

/* How far it exceeds body goes into spread, bounded: one wild value says little about the tail. */
static void learn_tail(struct dc_unusual *u, double value)
{
	const double bound = 8 * u->spread + 0.1, excess = log(value / u->body);

	if (u->tail < (uint32_t)SPREAD_SAMPLES)
		u->tail++;
	u->spread += ((excess < bound ? excess : bound) - u->spread) /
		     (u->tail + 4 < SPREAD_SAMPLES ? u->tail + 4 : SPREAD_SAMPLES);
	if (u->spread < SPREAD_LEAST)
		u->spread = SPREAD_LEAST;
	/* in a row they mean a new level: larger and larger steps, not beyond it */
	const double step = exp(STEP * u->spread);
	const double to = u->body * pow(step, (1 - u->beyond) * (u->run < RUN_MAX ? ++u->run : RUN_MAX));

	u->body = to < value * step ? to : value * step;
	u->fall = exp(-STEP * u->spread * u->beyond);
}

static void follow_lead(struct dc_unusual *u)
{
	const uint64_t from = u->led > start_samples(u) ? u->led : start_samples(u);

	if (u->one_in > 0 && u->seen > from)
		u->lead -= (double)(u->seen - from) / u->one_in;
	u->lead = u->lead < LEAD_MIN ? LEAD_MIN : u->lead;
	u->led = u->seen;
}

/* Spreads beyond body where one in @n is left, if the tail goes on as it is. */
static double depth(const struct dc_unusual *u, double n)
{
	return log(n * u->beyond);
}

static double most_now(const struct dc_unusual *u, int64_t now_ns)
{
	return u->most * exp2(-(double)(now_ns - u->most_ns) / (double)DC_UNUSUAL_HALF_NS);
}

static double threshold_far(const struct dc_unusual *u, int64_t now_ns)
{
	const double rare = u->body * exp(u->spread * depth(u, FAR_ONE_IN));
	const double times = u->body * exp(u->spread * depth(u, FAR_OF)) * FAR_TIMES;

	return fmax(fmax(rare, times), most_now(u, now_ns) * FAR_MOST);
}

static double threshold_one_in(const struct dc_unusual *u)
{
	return u->body * exp(u->spread * (depth(u, u->one_in) + u->lead));
}

/* Largest of the recent ones near the threshold, and the least distance between any two that differ. */
static double recent_most(const struct dc_unusual *u, double *ret_tick)
{
	double most = 0, tick = INFINITY;

	for (uint32_t i = 0; i < DC_UNUSUAL_RECENT; i++) {
		most = fmax(most, u->recent[i]);
		for (uint32_t j = 0; j < i; j++) {
			const double apart = fabs(u->recent[i] - u->recent[j]);

			if (apart > 0 && apart < tick && u->recent[j] > 0 && u->recent[i] > 0)
				tick = apart;
		}
	}
	*ret_tick = isinf(tick) ? 0 : tick;
	return most;
}

/* Values that repeat, or hardly differ: whatever the rate, only a real distance counts. */
static bool within_ties(const struct dc_unusual *u, double value)
{
	double tick, most;

	if (u->ties < TIES_MANY && u->spread > SPREAD_CONSTANT)
		return false;
	most = fmax(recent_most(u, &tick), u->body);
	return value <= most * MARGIN || value <= most + tick;
}

static void learn_ties(struct dc_unusual *u, double value)
{
	bool tie = false;

	for (uint32_t i = 0; i < DC_UNUSUAL_RECENT; i++)
		tie |= u->recent[i] == value;
	u->ties += ((tie ? 1 : 0) - u->ties) / (2 * DC_UNUSUAL_RECENT);
	u->recent[u->next++ % DC_UNUSUAL_RECENT] = value;
}

static bool beyond_body(struct dc_unusual *u, double value, int64_t now_ns)
{
	bool fires;

	follow_lead(u);
	u->threshold = u->one_in > 0 ? threshold_one_in(u) : threshold_far(u, now_ns);
	fires = value > u->threshold && u->seen > u->quiet_until && knows_enough(u, now_ns) && !within_ties(u, value);
	if (value > u->threshold * exp(-NEAR * u->spread))
		learn_ties(u, value);
	if (value > most_now(u, now_ns)) {
		u->most = value;
		u->most_ns = now_ns;
	}
	learn_tail(u, value);
	if (fires) {
		u->lead = fmin(u->lead + 1, LEAD_MAX);
		u->quiet_until = u->seen + (u->one_in > 0 ? (uint64_t)(u->one_in / 10) : FAR_QUIET);
	}
	return fires;
}

bool dc_unusual_add(struct dc_unusual *u, double value, int64_t now_ns)
{
	if (!(value > 0) || isinf(value))
		return false;
	u->seen++;
	if (u->seen <= BODY_SAMPLES) {
		begin(u, value, now_ns);
		return false;
	}
	if (value > u->body)
		return beyond_body(u, value, now_ns);
	u->run = 0;
	u->body *= u->fall;
	return false;
}

double dc_unusual_threshold(const struct dc_unusual *u)
{
	return u->seen > start_samples(u) ? u->threshold : INFINITY;
}
