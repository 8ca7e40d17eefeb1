/* SPDX-License-Identifier: MIT */
/* Sizes in files and messages: whatever has a length of its own is padded to eight bytes. */
#pragma once

#include <stdint.h>

static inline uint64_t dc_round8(uint64_t n)
{
	return (n + 7) & ~UINT64_C(7);
}
