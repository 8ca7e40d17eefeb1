/* SPDX-License-Identifier: MIT */
#include "persist/unit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

struct scale {
	double size;
	const char *name;
};

static struct dc_unit_text scaled(double value, const struct scale *scales, size_t count, const char *per)
{
	struct dc_unit_text text;
	size_t at = 0;

	while (at + 1 < count && fabs(value) < scales[at].size)
		at++;
	value /= scales[at].size;
	snprintf(text.s, sizeof(text.s), "%.*f %s%s", fabs(value) < 10 ? 2 : fabs(value) < 100 ? 1 : 0, value,
		 scales[at].name, per);
	return text;
}

static struct dc_unit_text plain(double value, const char *unit)
{
	struct dc_unit_text text;

	if (fabs(value) >= 1000 && fabs(value) < 1e15)
		snprintf(text.s, sizeof(text.s), "%.0f%s", value, unit);
	else
		snprintf(text.s, sizeof(text.s), "%.3g%s", value, unit);
	return text;
}

static struct dc_unit_text signal_text(double value)
{
	const char *name = value >= 1 && value < 65 ? sigabbrev_np((int)value) : NULL;
	struct dc_unit_text text;

	if (!name)
		return plain(value, "");
	snprintf(text.s, sizeof(text.s), "SIG%s", name);
	return text;
}

static struct dc_unit_text code_text(double value)
{
	struct dc_unit_text text;

	snprintf(text.s, sizeof(text.s), "exit code %.10g", value);
	return text;
}

/* Of what is counted: the figure, and the word behind it. */
static const char *counted(enum dc_unit unit)
{
	return unit == DC_UNIT_DESCRIPTORS ? "descriptor"
	       : unit == DC_UNIT_THREADS   ? "thread"
	       : unit == DC_UNIT_TIMES	   ? "time"
					   : NULL;
}

static struct dc_unit_text count_text(double value, const char *word)
{
	char unit[16];

	snprintf(unit, sizeof(unit), " %s%s", word, fabs(value - 1) < 1e-9 ? "" : "s");
	return plain(value, unit);
}

/* In the unit in which it is at least one: what somebody asked for as 3/min is not read well as 0.05/s. */
static struct dc_unit_text rate_text(double per_s)
{
	const double size = fabs(per_s);

	if (size >= 1 || !(size > 0))
		return plain(per_s, "/s");
	return size * 60 >= 1 - 1e-9 ? plain(per_s * 60, "/min") : plain(per_s * 3600, "/h");
}

struct dc_unit_text dc_unit_text(double value, enum dc_unit unit)
{
	static const struct scale times[] = {{3.6e12, "h"}, {6e10, "min"}, {1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1, "ns"}};
	static const struct scale sizes[] = {{0x1p40, "TiB"}, {0x1p30, "GiB"}, {0x1p20, "MiB"}, {0x1p10, "KiB"}, {1, "B"}};

	if (!isfinite(value))
		return (struct dc_unit_text){"unknown"};
	switch (unit) {
	case DC_UNIT_NS:
		return scaled(value, times, COUNT(times), "");
	case DC_UNIT_BYTES:
		return scaled(value, sizes, COUNT(sizes), "");
	case DC_UNIT_BYTES_PER_SECOND:
		return scaled(value, sizes, COUNT(sizes), "/s");
	case DC_UNIT_PERCENT:
		return plain(value, " %");
	case DC_UNIT_PER_SECOND:
		return rate_text(value);
	case DC_UNIT_SIGNAL:
		return signal_text(value);
	case DC_UNIT_DESCRIPTORS:
	case DC_UNIT_THREADS:
	case DC_UNIT_TIMES:
		return count_text(value, counted(unit));
	case DC_UNIT_EXIT_CODE:
		return code_text(value);
	default:
		return plain(value, "");
	}
}

struct dc_unit_text dc_cause_value(const struct dc_cause *c)
{
	const char *word = counted(c->amount_unit);
	struct dc_unit_text text = {""}, value = dc_unit_text(c->value, c->unit);

	if (c->unit == DC_UNIT_NONE)
		return text;
	if (!(c->allowed > 0))
		return value;
	snprintf(text.s, sizeof(text.s), "%.24s of %.24s allowed%s%.10s%s, %.20s",
		 dc_unit_text(c->amount, word ? DC_UNIT_NUMBER : c->amount_unit).s,
		 dc_unit_text(c->allowed, word ? DC_UNIT_NUMBER : c->amount_unit).s, word ? " " : "", word ? word : "",
		 word ? "s" : "", value.s);
	return text;
}

/* How a process ended is what it is; and of what is counted the word stands with the value. */
struct dc_unit_text dc_cause_text(const struct dc_cause *c)
{
	struct dc_unit_text text = dc_cause_value(c);
	const size_t at = strlen(text.s);

	if (c->unit != DC_UNIT_NONE && c->unit != DC_UNIT_SIGNAL && c->unit != DC_UNIT_EXIT_CODE)
		snprintf(text.s + at, sizeof(text.s) - at, " against %.30s",
			 dc_unit_text(c->threshold, counted(c->unit) ? DC_UNIT_NUMBER : c->unit).s);
	return text;
}
