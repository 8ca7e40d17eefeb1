/* SPDX-License-Identifier: MIT */
/* Text in buffers of fixed size, for paths and numbers: what would be stdio where nothing of libc's may be called. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Adds @more at @at, as much as fits; always NUL-terminated. Return: where the next goes. */
static inline size_t dc_text_put(char *text, size_t size, size_t at, const char *more)
{
	while (*more && at + 1 < size)
		text[at++] = *more++;
	text[at] = 0;
	return at;
}

static inline size_t dc_text_put_number(char *text, size_t size, size_t at, uint64_t v, unsigned base)
{
	char digits[24];
	size_t n = sizeof digits - 1;
	digits[n] = 0;
	do {
		digits[--n] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	return dc_text_put(text, size, at, digits + n);
}

/* The digits that @text begins with; 0: none. */
static inline uint64_t dc_text_decimal(const char *text)
{
	uint64_t v = 0;
	for (; *text >= '0' && *text <= '9'; text++)
		v = v * 10 + (uint64_t)(*text - '0');
	return v;
}
