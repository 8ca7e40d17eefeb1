/* SPDX-License-Identifier: MIT */
#include "tools/parse.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <time.h>

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

/* The digits after a point as billionths; further ones only have to be digits. */
static int fraction(const char **at, uint64_t *ret_billionths)
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
	if (*s == '.' && (s++, r = fraction(&s, &billionths)) < 0)
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

int parse_count(const char *text, uint64_t *ret_count)
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

int parse_size(const char *text, uint64_t *ret_bytes)
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
int parse_time(const char *text, int64_t *ret_ns)
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

/* Exactly two digits, at most @max. */
static int two_digits(const char **at, int max, int *ret_value)
{
	const char *s = *at;
	int v;

	if (!is_digit(s[0]) || !is_digit(s[1]))
		return -EINVAL;
	v = (s[0] - '0') * 10 + (s[1] - '0');
	if (v > max)
		return -EINVAL;
	*at = s + 2;
	*ret_value = v;
	return 0;
}

/* HH:MM[:SS[.fraction]] as ns since midnight. 60 is a second: RFC 3339 knows leap seconds. */
static int time_of_day(const char **at, int64_t *ret_ns)
{
	int hour, minute, second = 0;
	uint64_t billionths = 0;
	const char *s = *at;

	if (two_digits(&s, 23, &hour) < 0 || *s++ != ':' || two_digits(&s, 59, &minute) < 0)
		return -EINVAL;
	if (*s == ':' && (s++, two_digits(&s, 60, &second)) < 0)
		return -EINVAL;
	if (*s == '.' && (s++, fraction(&s, &billionths)) < 0)
		return -EINVAL;
	*at = s;
	*ret_ns = (hour * 3600 + minute * 60 + second) * SECOND_NS + (int64_t)billionths;
	return 0;
}

/* Z or +HH:MM, as the ns to take away from the time before it. */
static int zone(const char **at, int64_t *ret_offset_ns)
{
	const char *s = *at;
	int hour, minute;
	char sign = *s++;

	if (sign == 'Z' || sign == 'z') {
		*at = s;
		*ret_offset_ns = 0;
		return 0;
	}
	if ((sign != '+' && sign != '-') || two_digits(&s, 23, &hour) < 0 || *s++ != ':' ||
	    two_digits(&s, 59, &minute) < 0)
		return -EINVAL;
	*at = s;
	*ret_offset_ns = (sign == '-' ? -1 : 1) * (hour * 3600 + minute * 60) * SECOND_NS;
	return 0;
}

/* YYYY-MM-DD; refuses 31 February by seeing whether the calendar gives it back. Four digits keep ns in 64 bits. */
static int date(const char **at, struct tm *ret_day)
{
	struct tm day = {.tm_isdst = -1}, check;
	const char *s = *at;
	int century, year;

	if (two_digits(&s, 99, &century) < 0 || two_digits(&s, 99, &year) < 0 || *s++ != '-' ||
	    two_digits(&s, 12, &day.tm_mon) < 0 || *s++ != '-' || two_digits(&s, 31, &day.tm_mday) < 0)
		return -EINVAL;
	day.tm_year = century * 100 + year - 1900;
	day.tm_mon--;
	check = day;
	if (day.tm_year < 70 || day.tm_year > 300 || timegm(&check) < 0 || check.tm_mday != day.tm_mday ||
	    check.tm_mon != day.tm_mon)
		return -EINVAL;
	*at = s;
	*ret_day = day;
	return 0;
}

static int parse_absolute(const char *text, struct moment *ret_moment)
{
	int64_t of_day = 0, offset, ns;
	const char *s = text;
	struct tm day;

	if (date(&s, &day) < 0)
		return -EINVAL;
	if (*s && ((*s != 'T' && *s != 't' && *s != ' ') || (s++, time_of_day(&s, &of_day)) < 0))
		return -EINVAL;
	if (!*s) {
		day.tm_sec = (int)(of_day / SECOND_NS);
		ns = mktime(&day) * SECOND_NS + of_day % SECOND_NS;
	} else {
		if (zone(&s, &offset) < 0 || *s)
			return -EINVAL;
		ns = timegm(&day) * SECOND_NS + of_day - offset;
	}
	*ret_moment = (struct moment){MOMENT_ABSOLUTE, ns};
	return 0;
}

static int parse_relative(const char *text, struct moment *ret_moment)
{
	int64_t ns;
	int r;

	if (text[1] == '-')
		return -EINVAL;
	r = parse_time(text + 1, &ns);
	if (r < 0)
		return r;
	*ret_moment = (struct moment){MOMENT_RELATIVE, *text == '-' ? -ns : ns};
	return 0;
}

int parse_moment(const char *text, struct moment *ret_moment)
{
	const char *s = text;
	int64_t ns;

	if (*text == '-' || *text == '+')
		return parse_relative(text, ret_moment);
	if (strlen(text) >= 10 && text[4] == '-')
		return parse_absolute(text, ret_moment);
	if (time_of_day(&s, &ns) < 0 || *s)
		return -EINVAL;
	*ret_moment = (struct moment){MOMENT_CLOCK, ns};
	return 0;
}

/* 23:59:58 and a trigger at 00:00:03 belong to the same minute: the day is the one that brings them closest. */
static int64_t nearest_day(int64_t of_day_ns, int64_t trigger_ns)
{
	time_t trigger = (time_t)(trigger_ns / SECOND_NS);
	int64_t best = 0, gap = INT64_MAX;
	struct tm day;

	for (int shift = -1; shift <= 1; shift++) {
		localtime_r(&trigger, &day);
		day.tm_mday += shift;
		day.tm_hour = day.tm_min = 0;
		day.tm_sec = (int)(of_day_ns / SECOND_NS);
		day.tm_isdst = -1;
		int64_t ns = mktime(&day) * SECOND_NS + of_day_ns % SECOND_NS;
		int64_t away = ns > trigger_ns ? ns - trigger_ns : trigger_ns - ns;
		if (away < gap) {
			gap = away;
			best = ns;
		}
	}
	return best;
}

int64_t moment_resolve(const struct moment *m, int64_t trigger_ns)
{
	int64_t ns;

	switch (m->kind) {
	case MOMENT_NONE:
		return 0;
	case MOMENT_RELATIVE:
		if (__builtin_add_overflow(trigger_ns, m->ns, &ns))
			ns = m->ns < 0 ? 1 : INT64_MAX;
		return ns > 0 ? ns : 1;
	case MOMENT_CLOCK:
		return nearest_day(m->ns, trigger_ns);
	case MOMENT_ABSOLUTE:
		return m->ns;
	}
	return 0;
}
