/* SPDX-License-Identifier: MIT */
/* A size as the watcher's lines say it: dc_size_text(3500).s is "3.4 KiB" until the end of the statement. */
#pragma once

#include <stdint.h>
#include <stdio.h>

struct dc_size {
	char s[24];
};

static inline struct dc_size dc_size_text(uint64_t bytes)
{
	static const char units[][4] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double n = (double)bytes / 1024;
	struct dc_size text;
	unsigned unit = 0;

	for (; n >= 1023.95 && unit < 5; unit++)
		n /= 1024;
	snprintf(text.s, sizeof(text.s), "%.1f %.3s", n, units[unit]);
	return text;
}
