/* SPDX-License-Identifier: MIT */
#include "trigger/rules/slower.h"

#include <math.h>
#include <string.h>

#include "ipc/event.h"

#define FACTOR 2.0 /* 4 times */
#define UP_MOST 2.0
#define DOWN_MOST 4.0
#define ENOUGH 12.0
#define ABOVE_MOST (2 * ENOUGH) /* else a long time of it would take as long to come down from */
#define HALF_NS 600e9
#define SECOND_NS INT64_C(1000000000)
#define A_SECOND 2048u /* of a name are looked at, on average */
#define KIND_BYTES 48u /* of a text: what follows says which one of many it is */

/* A double is its logarithm already, but for the scale. */
static double log2_near(double value)
{
	int64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return (double)bits * 0x1p-52 - 1023;
}

static double exp2_near(double logarithm)
{
	const int64_t bits = logarithm > -1023 && logarithm < 1024 ? (int64_t)((logarithm + 1023) * 0x1p52) : 0;
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

void dc_slower_init(struct dc_slower *s)
{
	*s = (struct dc_slower){.held = -INFINITY, .most = -INFINITY, .limit = INFINITY};
}

static double most_now(const struct dc_slower *s, int64_t now_ns)
{
	return s->most - (double)(now_ns - s->most_ns) / HALF_NS;
}

static void learn(struct dc_slower *s, double level, int64_t now_ns)
{
	if (level <= most_now(s, now_ns))
		return;
	s->most = level;
	s->most_ns = now_ns;
}

static void set_limit(struct dc_slower *s, double least, int64_t now_ns)
{
	if (s->seen >= DC_SLOWER_KNOWN_LEAST && now_ns - s->first_ns >= DC_SLOWER_KNOWN_NS)
		s->limit = fmax(most_now(s, now_ns) + FACTOR, least > 0 ? log2_near(least) : -INFINITY);
}

static void come_down(struct dc_slower *s)
{
	s->above = s->above_most = 0;
	s->slow = 0;
	s->slow_sum = 0;
}

/* All of that level is known now. */
static void learn_level(struct dc_slower *s, double least, int64_t now_ns)
{
	learn(s, s->slow_sum / (double)s->slow, now_ns);
	set_limit(s, least, now_ns);
	come_down(s);
}

/* Return: whether it is enough, for long enough. */
static bool add_up(struct dc_slower *s, double logarithm, double least, int64_t now_ns)
{
	const double by = logarithm - s->limit;

	if (s->slow == 0)
		s->above_ns = now_ns;
	s->above = fmin(s->above + (by > UP_MOST ? UP_MOST : by < -DOWN_MOST ? -DOWN_MOST : by), ABOVE_MOST);
	if (s->above <= 0) {
		if (s->above_most >= ENOUGH)
			learn_level(s, least, now_ns);
		come_down(s);
		return false;
	}
	s->slow++;
	s->slow_sum += logarithm;
	s->above_most = fmax(s->above_most, s->above);
	if (s->above < ENOUGH || by <= 0 || now_ns - s->above_ns < DC_SLOWER_LASTS_NS)
		return false;
	learn_level(s, least, now_ns);
	return true;
}

static void close_sixteen(struct dc_slower *s, double least, int64_t now_ns)
{
	const double mean = s->sum / DC_SLOWER_MEAN_OF;

	s->sum = 0;
	if (s->slow)
		return;
	learn(s, s->held, now_ns);
	s->held = mean;
	set_limit(s, least, now_ns);
}

bool dc_slower_add(struct dc_slower *s, double value, double least, int64_t now_ns)
{
	bool tells = false;
	double logarithm;

	if (!(value > 0) || isinf(value))
		return false;
	if (s->seen++ == 0)
		s->first_ns = now_ns;
	logarithm = log2_near(value);
	if (s->slow || logarithm > s->limit)
		tells = add_up(s, logarithm, least, now_ns);
	s->sum += logarithm < s->limit + UP_MOST ? logarithm : s->limit + UP_MOST;
	if (s->seen % DC_SLOWER_MEAN_OF == 0)
		close_sixteen(s, least, now_ns);
	return tells;
}

double dc_slower_limit(const struct dc_slower *s)
{
	return isinf(s->limit) ? INFINITY : exp2_near(s->limit);
}

/* ---- kinds ---- */

static bool is_digit(uint8_t c)
{
	return (uint8_t)(c - '0') <= 9;
}

static bool is_of_word(uint8_t c)
{
	return (uint8_t)((c | 32) - 'a') < 26 || c >= 0x80 || c == '_';
}

/* By nine, not eight: bytes eight apart do not fall on each other. */
static uint64_t mix(uint64_t h, uint8_t c)
{
	return (h << 9 | h >> 55) ^ c;
}

/* Words that have a digit are numbers, and names of one of many: left out. */
static uint64_t read_text(uint64_t h, const struct dc_text *text)
{
	const uint32_t length = text->length < KIND_BYTES ? text->length : KIND_BYTES;
	uint64_t word = h = mix(h, 0xff); /* between any two */
	bool left_out = false;

	for (uint32_t i = 0; i < length; i++) {
		const uint8_t c = (uint8_t)text->bytes[i];

		if (is_digit(c)) {
			left_out = true;
			h = word;
		} else if (!is_of_word(c)) {
			word = h = mix(h, c);
			left_out = false;
		} else if (!left_out) {
			h = mix(h, c);
		}
	}
	return h;
}

/* It need not be hard to guess: who makes two kinds meet mixes up their own spans only. */
uint32_t dc_kind_of(const struct dc_event *event, unsigned first)
{
	uint64_t h = 0;

	for (unsigned i = first; event->info && i < event->arg_count; i++)
		if (event->info->types[i] == DC_TYPE_STR && !(event->args_dropped >> i & 1) &&
		    event->args[i].text.bytes)
			h = read_text(h, &event->args[i].text);
	h = (h + 1) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
	return h ? (uint32_t)h : 1;
}

/* Not each so-many-th: what alternates would always be one and the same. */
bool dc_kinds_due(struct dc_kinds *k, int64_t now_ns)
{
	uint32_t stride;

	if (now_ns - k->second_ns >= SECOND_NS) {
		k->usually = k->began / A_SECOND + 1;
		k->began = 0;
		k->second_ns = now_ns;
	}
	k->began += k->began < UINT32_MAX;
	if (k->left_out_next > 0) {
		k->left_out_next--;
		return false;
	}
	stride = k->began / A_SECOND + 1 > k->usually ? k->began / A_SECOND + 1 : k->usually;
	k->random = k->random * UINT64_C(6364136223846793005) + 1442695040888963407u; /* Knuth's */
	k->left_out_next = (uint32_t)((k->random >> 32) * (2 * (uint64_t)stride - 1) >> 32);
	return true;
}

static struct dc_slower *take_place(struct dc_kinds *k, uint32_t at, uint32_t kind)
{
	k->ids[at] = kind;
	k->counts[at] = 1;
	dc_slower_init(&k->each[at]);
	return &k->each[at];
}

struct dc_slower *dc_kinds_find(struct dc_kinds *k, uint32_t kind)
{
	uint32_t least = 0;

	for (uint32_t i = 0; i < DC_KINDS_MAX; i++) {
		if (k->ids[i] == kind) {
			k->counts[i] += k->counts[i] < UINT32_MAX;
			return &k->each[i];
		}
		if (k->counts[i] < k->counts[least])
			least = i;
	}
	if (k->counts[least] > 0 && --k->counts[least] > 0)
		return NULL;
	return take_place(k, least, kind);
}
