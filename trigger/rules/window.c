/* SPDX-License-Identifier: MIT */
#include "trigger/rules/window.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LINEAR_LOG2 5u /* 32 buckets to an octave */
#define LINEAR (1u << LINEAR_LOG2)
#define BUCKETS ((64 - LINEAR_LOG2) * LINEAR + LINEAR)
#define WHOLE_SLOTS (DC_WINDOW_SLOTS - 1)

/* Slots of one bucket lie side by side: a distribution spans few octaves, so few pages are ever touched. */
struct bucket {
	double sum; /* of its slots, kept so that a percentile is one pass over few numbers */
	double slots[DC_WINDOW_SLOTS];
};

struct dc_histogram {
	struct dc_rate all; /* keeps the time for the buckets, too */
	uint32_t low, high; /* buckets outside are zero; low > high: all are */
	uint64_t max[DC_WINDOW_SLOTS];
	struct bucket buckets[BUCKETS];
};

/* ---- time ---- */

void dc_rate_init(struct dc_rate *r, int64_t over_ns)
{
	*r = (struct dc_rate){.over_ns = over_ns,
			      .slot_ns = over_ns / WHOLE_SLOTS + (over_ns % WHOLE_SLOTS != 0),
			      .turn_ns = INT64_MAX,
			      .first_ns = INT64_MIN};
}

/* Up to @now_ns. Return: how many slots after the one that was being filled are empty now, all if it is that long ago. */
static uint32_t turn(struct dc_rate *r, int64_t now_ns)
{
	int64_t slots;

	if (r->first_ns == INT64_MIN) {
		r->first_ns = now_ns;
		if (r->over_ns)
			r->turn_ns = now_ns + r->slot_ns;
		return 0;
	}
	if (now_ns < r->turn_ns)
		return 0;
	slots = (now_ns - r->turn_ns) / r->slot_ns + 1;
	r->turn_ns += slots * r->slot_ns;
	if (slots > (int64_t)DC_WINDOW_SLOTS)
		slots = DC_WINDOW_SLOTS;
	for (int64_t i = 0; i < slots; i++) {
		r->filling = (r->filling + 1) % DC_WINDOW_SLOTS;
		r->slots[r->filling] = 0;
	}
	return (uint32_t)slots;
}

static uint32_t fading(const struct dc_rate *r)
{
	return (r->filling + 1) % DC_WINDOW_SLOTS;
}

/* How much of the fading slot has left the window. */
static double faded(const struct dc_rate *r, int64_t now_ns)
{
	const int64_t left = r->turn_ns - now_ns;

	return r->over_ns == 0 || left >= r->slot_ns ? 0 : 1 - (double)left / (double)r->slot_ns;
}

static double count(const struct dc_rate *r, int64_t now_ns)
{
	double sum = 0;

	for (uint32_t i = 0; i < DC_WINDOW_SLOTS; i++)
		sum += r->slots[i];
	return sum - r->slots[fading(r)] * faded(r, now_ns);
}

static double per_s(const struct dc_rate *r, int64_t now_ns)
{
	const double least = r->over_ns ? (double)r->slot_ns : 1e9;
	double passed = (double)(now_ns - r->first_ns);

	if (r->over_ns && passed > (double)r->over_ns)
		passed = (double)r->over_ns;
	return count(r, now_ns) * 1e9 / (passed > least ? passed : least);
}

void dc_rate_add(struct dc_rate *r, double weight, int64_t now_ns)
{
	turn(r, now_ns);
	r->slots[r->filling] += weight;
}

double dc_rate_count(struct dc_rate *r, int64_t now_ns)
{
	if (r->first_ns == INT64_MIN)
		return 0;
	turn(r, now_ns);
	return count(r, now_ns);
}

double dc_rate_per_s(struct dc_rate *r, int64_t now_ns)
{
	if (r->first_ns == INT64_MIN)
		return 0;
	turn(r, now_ns);
	return per_s(r, now_ns);
}

/* ---- distribution ---- */

/* Exact below 64, then 32 buckets to each octave. */
static uint32_t bucket_of(uint64_t value)
{
	const uint32_t octave = 63u - (uint32_t)__builtin_clzll(value | LINEAR);
	const uint32_t shift = octave - LINEAR_LOG2;

	return shift * LINEAR + (uint32_t)(value >> shift);
}

static double bucket_middle(uint32_t b)
{
	const uint32_t shift = b < 2 * LINEAR ? 0 : b / LINEAR - 1;
	const uint64_t low = (uint64_t)(b - shift * LINEAR) << shift;

	return (double)low + (double)((UINT64_C(1) << shift) - 1) / 2;
}

struct dc_histogram *dc_histogram_new(int64_t over_ns)
{
	struct dc_histogram *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	dc_rate_init(&h->all, over_ns);
	h->low = BUCKETS;
	return h;
}

void dc_histogram_free(struct dc_histogram *h)
{
	free(h);
}

/* Summed anew, not subtracted: what is empty is exactly zero. */
static void bucket_empty(struct bucket *b, const struct dc_rate *r, uint32_t slots)
{
	for (uint32_t i = 0; i < slots; i++)
		b->slots[(r->filling + DC_WINDOW_SLOTS - i) % DC_WINDOW_SLOTS] = 0;
	b->sum = 0;
	for (uint32_t i = 0; i < DC_WINDOW_SLOTS; i++)
		b->sum += b->slots[i];
}

static void histogram_turn(struct dc_histogram *h, int64_t now_ns)
{
	const uint32_t slots = turn(&h->all, now_ns);
	uint32_t low = BUCKETS, high = 0;

	if (__builtin_expect(slots == 0, 1))
		return;
	for (uint32_t i = 0; i < slots; i++)
		h->max[(h->all.filling + DC_WINDOW_SLOTS - i) % DC_WINDOW_SLOTS] = 0;
	for (uint32_t b = h->low; b <= h->high && b < BUCKETS; b++) {
		bucket_empty(&h->buckets[b], &h->all, slots);
		if (h->buckets[b].sum > 0) {
			low = low < b ? low : b;
			high = b;
		}
	}
	h->low = low;
	h->high = high;
}

void dc_histogram_add(struct dc_histogram *h, uint64_t value, double weight, int64_t now_ns)
{
	const uint32_t b = bucket_of(value);

	histogram_turn(h, now_ns);
	const uint32_t slot = h->all.filling;
	h->all.slots[slot] += weight;
	h->buckets[b].slots[slot] += weight;
	h->buckets[b].sum += weight;
	if (value > h->max[slot])
		h->max[slot] = value;
	if (b < h->low)
		h->low = b;
	if (b > h->high)
		h->high = b;
}

double dc_histogram_count(struct dc_histogram *h, int64_t now_ns)
{
	if (h->all.first_ns == INT64_MIN)
		return 0;
	histogram_turn(h, now_ns);
	return count(&h->all, now_ns);
}

double dc_histogram_rate(struct dc_histogram *h, int64_t now_ns)
{
	if (h->all.first_ns == INT64_MIN)
		return 0;
	histogram_turn(h, now_ns);
	return per_s(&h->all, now_ns);
}

double dc_histogram_max(struct dc_histogram *h, int64_t now_ns)
{
	uint64_t max = 0;

	if (h->all.first_ns == INT64_MIN)
		return 0;
	histogram_turn(h, now_ns);
	for (uint32_t i = 0; i < DC_WINDOW_SLOTS; i++)
		max = h->max[i] > max ? h->max[i] : max;
	return (double)max;
}

double dc_histogram_percentile(struct dc_histogram *h, double percentile, int64_t now_ns)
{
	const double max = dc_histogram_max(h, now_ns);
	const uint32_t oldest = fading(&h->all);
	const double part = faded(&h->all, now_ns);
	double below = count(&h->all, now_ns) * percentile / 100, middle = NAN;

	for (uint32_t b = h->low; b <= h->high && b < BUCKETS; b++) {
		const double here = h->buckets[b].sum - h->buckets[b].slots[oldest] * part;

		if (here <= 0)
			continue;
		middle = bucket_middle(b);
		below -= here;
		if (below <= 0)
			break;
	}
	return middle > max ? max : middle;
}
