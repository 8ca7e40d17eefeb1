/* SPDX-License-Identifier: MIT */
/*
 * DASHCAM* variables and dc_opts into settings. Explicit options win, then the environment, then the defaults. A setuid
 * program ignores the environment: it belongs to somebody else.
 */
#include <string.h>
#include <sys/auxv.h>

#include "recorder/recorder.h"

extern char **environ;

/* The value when @entry is @name=value, else NULL. */
static const char *value_of(const char *entry, const char *name)
{
	size_t n = strlen(name);
	return strncmp(entry, name, n) == 0 && entry[n] == '=' ? entry + n + 1 : NULL;
}

/* "64MiB", "1.5GiB", "30s", "500ms": digits, an optional fraction, a unit. 0: not understood. */
static uint64_t scaled_number(const char *text, const char *const *units, const uint64_t *scales, size_t count)
{
	uint64_t whole = 0, fraction = 0, divisor = 1;
	const char *p = text;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (whole > UINT64_MAX / 100)
			return 0;
		whole = whole * 10 + (uint64_t)(*p - '0');
	}
	if (*p == '.')
		for (p++; *p >= '0' && *p <= '9'; p++)
			if (divisor < 1000000) {
				fraction = fraction * 10 + (uint64_t)(*p - '0');
				divisor *= 10;
			}
	for (size_t i = 0; i < count; i++)
		if (strcmp(p, units[i]) == 0)
			return whole > UINT64_MAX / scales[i] / 2 ? 0 : whole * scales[i] + fraction * scales[i] / divisor;
	return 0;
}

static uint64_t bytes_of(const char *text)
{
	static const char *const units[] = { "", "B", "KiB", "MiB", "GiB", "K", "M", "G" };
	static const uint64_t scales[] = { 1, 1, 1 << 10, 1 << 20, 1 << 30, 1 << 10, 1 << 20, 1 << 30 };
	return scaled_number(text, units, scales, sizeof scales / sizeof *scales);
}

static uint64_t duration_of(const char *text)
{
	static const char *const units[] = { "s", "", "ms", "us", "m", "min", "h" };
	static const uint64_t scales[] = { 1000000000, 1000000000, 1000000,	  1000, 60000000000,
					   60000000000, 3600000000000 };
	return scaled_number(text, units, scales, sizeof scales / sizeof *scales);
}

static bool is_zero(const char *text)
{
	return text[0] == '0' && text[1] == 0;
}

static enum dc_copies copies_of(const char *text)
{
	return strcmp(text, "fp") == 0 ? DC_COPIES_NONE : strcmp(text, "copy") == 0 ? DC_COPIES_ALL : DC_COPIES_AUTO;
}

static void setting_take(struct dc_settings *s, const char *entry)
{
	const char *v;
	uint64_t n;
	if ((v = value_of(entry, "DASHCAM")))
		s->off = is_zero(v);
	else if ((v = value_of(entry, "DASHCAM_DOORBELL")))
		s->doorbell = !is_zero(v);
	else if ((v = value_of(entry, "DASHCAM_CRASH")))
		s->crash = !is_zero(v);
	else if ((v = value_of(entry, "DASHCAM_STACKS")))
		s->copies = copies_of(v);
	else if ((v = value_of(entry, "DASHCAM_DIR")))
		s->dir = v;
	else if ((v = value_of(entry, "DASHCAM_NAME")))
		s->name = v;
	else if ((v = value_of(entry, "DASHCAM_MEMORY")) && (n = bytes_of(v)))
		s->memory_bytes = n;
	else if ((v = value_of(entry, "DASHCAM_WINDOW")) && (n = duration_of(v)))
		s->window_ns = n;
}

void dc_settings_read(const struct dc_opts *opts, struct dc_settings *ret_settings)
{
	bool ignore = getauxval(AT_SECURE) || (opts && opts->ignore_environment);
	struct dc_settings s = { .doorbell = true, .crash = true, .memory_bytes = 64u << 20, .window_ns = 30000000000u };
	for (char **e = environ; !ignore && e && *e; e++)
		if (strncmp(*e, "DASHCAM", 7) == 0)
			setting_take(&s, *e);
	if (opts && opts->memory_bytes)
		s.memory_bytes = opts->memory_bytes;
	if (opts && opts->window_ns)
		s.window_ns = opts->window_ns;
	if (opts && opts->name)
		s.name = opts->name;
	if (opts && opts->dir)
		s.dir = opts->dir;
	if (s.dir && !*s.dir)
		s.dir = NULL;
	*ret_settings = s;
}
