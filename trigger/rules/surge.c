/* SPDX-License-Identifier: MIT */
#include "trigger/rules/surge.h"

#include <math.h>

#define SLOT_NS INT64_C(1000000000)
#define HALF_NS (600.0 * 1e9)
#define OVER_RATE 3u
#define OVER_LEVEL 5u
#define HELD_RATE 3u
#define HELD_LEVEL DC_SURGE_SLOTS
#define GROWS 1.2

void dc_surge_init(struct dc_surge *s, enum dc_surge_of of, int64_t now_ns)
{
	*s = (struct dc_surge){.of = of, .turn_ns = now_ns ? now_ns + SLOT_NS : 0};
}

static double most_now(const struct dc_surge *s, int64_t now_ns)
{
	return s->most * exp2(-(double)(now_ns - s->most_ns) / HALF_NS);
}

static double limit_now(const struct dc_surge *s, int64_t now_ns)
{
	return fmax(s->of == DC_SURGE_RATE ? DC_SURGE_RATE_LEAST : DC_SURGE_LEVEL_LEAST, DC_SURGE_FACTOR * most_now(s, now_ns));
}

static void learn(struct dc_surge *s, const struct dc_surge_slot *slot)
{
	s->known += slot->recorded;
	if (slot->most <= most_now(s, s->turn_ns))
		return;
	s->most = slot->most;
	s->most_ns = s->turn_ns;
}

static struct dc_surge_slot *slot_before(struct dc_surge *s, uint32_t back)
{
	return &s->held[(s->next - back) % DC_SURGE_SLOTS];
}

/* Each of five seconds above the one before, and the last two far above those after the first, in which it came up. */
static bool grows(struct dc_surge *s)
{
	for (uint32_t i = 1; i < OVER_LEVEL; i++)
		if (slot_before(s, i)->least <= slot_before(s, i + 1)->least)
			return false;
	return slot_before(s, 1)->least + slot_before(s, 2)->least >=
	       GROWS * (slot_before(s, 3)->least + slot_before(s, 4)->least);
}

static bool surges(struct dc_surge *s)
{
	if (s->known < DC_SURGE_KNOWN_LEAST)
		return false;
	return s->of == DC_SURGE_RATE ? s->over >= OVER_RATE : s->over >= OVER_LEVEL && grows(s);
}

static void turn_on(struct dc_surge *s, double value, double limit)
{
	s->on = true;
	s->value = value;
	s->limit = limit;
	for (uint32_t i = 0; i < DC_SURGE_SLOTS; i++)
		learn(s, &s->held[i]);
}

/* The second being filled is over. */
static void close_slot(struct dc_surge *s)
{
	const struct dc_surge_slot now = s->filling;
	const double limit = limit_now(s, s->turn_ns);

	if (s->next >= (s->of == DC_SURGE_RATE ? HELD_RATE : HELD_LEVEL))
		learn(s, slot_before(s, s->of == DC_SURGE_RATE ? HELD_RATE : HELD_LEVEL));
	s->held[s->next++ % DC_SURGE_SLOTS] = now;
	s->over = now.least > limit ? s->over + 1 : 0;
	if (!s->on && surges(s))
		turn_on(s, now.most, limit);
	s->on = s->on && now.least > s->limit;
	s->filling = s->of == DC_SURGE_RATE ? (struct dc_surge_slot){.recorded = true}
					    : (struct dc_surge_slot){.least = s->last, .most = s->last};
	s->turn_ns += SLOT_NS;
}

/* After a long pause only as many seconds as matter are gone through. */
static void turn(struct dc_surge *s, int64_t now_ns)
{
	uint32_t closed = 0;

	while (now_ns >= s->turn_ns && closed++ < 2 * DC_SURGE_SLOTS)
		close_slot(s);
	if (now_ns >= s->turn_ns)
		s->turn_ns += (now_ns - s->turn_ns) / SLOT_NS * SLOT_NS + SLOT_NS;
}

static void begin(struct dc_surge *s, double value, int64_t now_ns)
{
	s->turn_ns = now_ns + SLOT_NS;
	s->filling = (struct dc_surge_slot){.least = s->of == DC_SURGE_LEVEL ? value : 0};
}

void dc_surge_add(struct dc_surge *s, double value, int64_t now_ns)
{
	if (!(value >= 0) || isinf(value))
		value = 0;
	if (s->turn_ns)
		turn(s, now_ns);
	else
		begin(s, value, now_ns);
	s->filling.recorded = true;
	if (s->of == DC_SURGE_RATE) {
		s->filling.least = s->filling.most += value;
		return;
	}
	s->filling.least = fmin(s->filling.least, value);
	s->filling.most = fmax(s->filling.most, value);
	s->last = value;
}

bool dc_surge_look(struct dc_surge *s, int64_t now_ns)
{
	if (s->turn_ns)
		turn(s, now_ns);
	return s->on;
}
