/* SPDX-License-Identifier: MIT */
/*
 * Figures that people type, in options, in dashcam.conf and in rules: one spelling everywhere.
 *
 *     size      64MiB   1.5GiB   4096   200KB      KiB, MiB, GiB, TiB count in 1024, KB, MB, GB, TB in 1000;
 *                                                  K, M, G, T are short for the former, no unit is bytes
 *     time      30s   500ms   1m30s   1.5h         ns, us, ms, s, m (or min), h, d; a unit is required, since nobody
 *                                                  knows whether "30" meant seconds or milliseconds
 *
 * Return: 0; -EINVAL when @text is not such a thing; -ERANGE when it is one that is negative or does not fit.
 */
#pragma once

#include <stdint.h>

int dc_quantity_count(const char *text, uint64_t *ret_count);
int dc_quantity_bytes(const char *text, uint64_t *ret_bytes);
int dc_quantity_time(const char *text, int64_t *ret_ns);
/* The digits at *@at, which follow a point, as billionths; those beyond the ninth only have to be digits. */
int dc_quantity_fraction(const char **at, uint64_t *ret_billionths);
