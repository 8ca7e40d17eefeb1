/* SPDX-License-Identifier: MIT */
#include "trigger/quantity.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define SECOND_NS INT64_C(1000000000)
#define DAY_NS (86400 * SECOND_NS)

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{"", 1},
	{"B", 1},
	{"K", UINT64_C(1) << 10},
	{"KiB", UINT64_C(1) << 10},
	{"KB", 1000},
	{"M", UINT64_C(1) << 20},
	{"MiB", UINT64_C(1) << 20},
	{"MB", 1000000},
	{"G", UINT64_C(1) << 30},
	{"GiB", UINT64_C(1) << 30},
	{"GB", UINT64_C(1000000000)},
	{"T", UINT64_C(1) << 40},
	{"TiB", UINT64_C(1) << 40},
	{"TB", UINT64_C(1000000000000)},
	{NULL, 0},
};

static const struct unit time_units[] = {
	{"ns", 1},
	{"us", 1000},
	{"ms", 1000000},
	{"s", SECOND_NS},
	{"m", 60 * SECOND_NS},
	{"min", 60 * SECOND_NS},
	{"h", 3600 * SECOND_NS},
	{"d", DAY_NS},
	{NULL, 0},
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Whole digits into *@ret_value, past them in *@at. */
static int digits(const char **at, uint64_t *ret_value)
{
	const char *s = *at;
	uint64_t v = 0;

	if (!is_digit(*s))
		return -EINVAL;
	for (; is_digit(*s); s++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	*at = s;
	*ret_value = v;
	return 0;
}

int dc_quantity_fraction(const char **at, uint64_t *ret_billionths)
{
	const char *s = *at;
	uint64_t v = 0, scale = 100000000;

	if (!is_digit(*s))
		return -EINVAL;
	for (; is_digit(*s); s++, scale /= 10)
		v += (uint64_t)(*s - '0') * scale;
	*at = s;
	*ret_billionths = v;
	return 0;
}

static const struct unit *unit_find(const struct unit *units, const char *name, size_t length)
{
	for (; units->name; units++)
		if (strlen(units->name) == length && strncasecmp(units->name, name, length) == 0)
			return units;
	return NULL;
}

/* One "1.5h": number, optional fraction, unit. */
static int quantity(const char **at, const struct unit *units, uint64_t *ret_value)
{
	const char *s = *at, *name;
	uint64_t whole, billionths = 0, value;
	const struct unit *unit;
	int r;

	r = digits(&s, &whole);
	if (r < 0)
		return r;
	if (*s == '.' && (s++, r = dc_quantity_fraction(&s, &billionths)) < 0)
		return r;
	for (name = s; is_letter(*s);)
		s++;
	unit = unit_find(units, name, (size_t)(s - name));
	if (!unit)
		return -EINVAL;
	if (__builtin_mul_overflow(whole, unit->factor, &value) ||
	    __builtin_add_overflow(value, (uint64_t)((__uint128_t)billionths * unit->factor / SECOND_NS),
				   &value))
		return -ERANGE;
	*at = s;
	*ret_value = value;
	return 0;
}

int dc_quantity_count(const char *text, uint64_t *ret_count)
{
	const char *s = text + (*text == '-');
	uint64_t v;
	int r;

	r = digits(&s, &v);
	if (r < 0)
		return r;
	if (*s)
		return -EINVAL;
	if (*text == '-')
		return -ERANGE;
	*ret_count = v;
	return 0;
}

int dc_quantity_bytes(const char *text, uint64_t *ret_bytes)
{
	const char *s = text + (*text == '-');
	uint64_t v;
	int r;

	r = quantity(&s, size_units, &v);
	if (r < 0)
		return r;
	if (*s)
		return -EINVAL;
	if (*text == '-')
		return -ERANGE;
	*ret_bytes = v;
	return 0;
}

/* A bare "0" is the same in every unit. */
int dc_quantity_time(const char *text, int64_t *ret_ns)
{
	const char *s = text + (*text == '-');
	uint64_t sum = 0, v;
	int r;

	if (strcmp(s, "0") == 0) {
		*ret_ns = 0;
		return 0;
	}
	do {
		r = quantity(&s, time_units, &v);
		if (r < 0)
			return r;
		if (__builtin_add_overflow(sum, v, &sum) || sum > INT64_MAX)
			return -ERANGE;
	} while (*s);
	if (*text == '-')
		return -ERANGE;
	*ret_ns = (int64_t)sum;
	return 0;
}
