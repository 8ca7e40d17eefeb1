/* SPDX-License-Identifier: MIT */
/*
 * What people type: sizes, times and moments. Used for options, for dashcam.conf and for the environment, so
 * that one spelling works everywhere.
 *
 *     size      64MiB   1.5GiB   4096   200KB      KiB, MiB, GiB, TiB count in 1024, KB, MB, GB, TB in 1000;
 *                                                  K, M, G, T are short for the former, no unit is bytes
 *     time      30s   500ms   1m30s   1.5h         ns, us, ms, s, m (or min), h, d; a unit is required, since nobody
 *                                                  knows whether "30" meant seconds or milliseconds
 *     moment    -5s   +1s                          relative to the trigger
 *               14:03   14:03:07.25                the clock on the wall, on the day that lies nearest to the trigger
 *               2026-11-21T03:07:16Z               RFC 3339; a space instead of the T, no zone (local time) and no
 *                                                  seconds are accepted too
 *
 * Return: 0; -EINVAL when @text is not such a thing; -ERANGE when it is one that is negative or does not fit.
 */
#pragma once

#include <stdint.h>

int parse_count(const char *text, uint64_t *ret_count);
int parse_size(const char *text, uint64_t *ret_bytes);
int parse_time(const char *text, int64_t *ret_ns);

enum moment_kind {
	MOMENT_NONE,     /* not given */
	MOMENT_RELATIVE, /* ns after the trigger */
	MOMENT_CLOCK,    /* ns since local midnight */
	MOMENT_ABSOLUTE, /* CLOCK_REALTIME */
};

struct moment {
	enum moment_kind kind;
	int64_t ns;
};

int parse_moment(const char *text, struct moment *ret_moment);

/* The moment as CLOCK_REALTIME, given when the trigger fired. 0 for MOMENT_NONE: "no bound" in struct dc_cut. */
int64_t moment_resolve(const struct moment *m, int64_t trigger_ns);
