/* SPDX-License-Identifier: MIT */
/* Text of a recorded program may hold any bytes; JSON and terminals must not get them all. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * utf8_length() - bytes of the well-formed UTF-8 sequence at @s (RFC 3629: no surrogates, nothing overlong,
 * at most U+10FFFF). Return: 1..4, 0 when there is none within @n bytes.
 */
static inline unsigned utf8_length(const uint8_t *s, size_t n)
{
	uint8_t low = 0x80, high = 0xbf;
	unsigned length;

	if (n == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	length = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (n < length)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (unsigned i = 2; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return length;
}
