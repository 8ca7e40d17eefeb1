/* SPDX-License-Identifier: MIT */
#include "tools/parse.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "trigger/quantity.h"

#define SECOND_NS INT64_C(1000000000)

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

int parse_count(const char *text, uint64_t *ret_count)
{
	return dc_quantity_count(text, ret_count);
}

int parse_size(const char *text, uint64_t *ret_bytes)
{
	return dc_quantity_bytes(text, ret_bytes);
}

int parse_time(const char *text, int64_t *ret_ns)
{
	return dc_quantity_time(text, ret_ns);
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
	if (*s == '.' && (s++, dc_quantity_fraction(&s, &billionths)) < 0)
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
