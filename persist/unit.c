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
		return plain(value, "/s");
	case DC_UNIT_SIGNAL:
		return signal_text(value);
	default:
		return plain(value, "");
	}
}
