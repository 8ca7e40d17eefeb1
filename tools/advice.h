/* SPDX-License-Identifier: MIT */
/* How large a ring would have to be for its window, and what to do where none can be so large. */
#pragma once

#include <stdint.h>
#include <stdio.h>

/*
 * cap_needed() - the cap under which a ring would hold @wanted_ns, from how long @cap_bytes lasted
 * Rounded up to what one would type. Return: bytes, UINT64_MAX when they are beyond counting.
 */
uint64_t cap_needed(uint64_t cap_bytes, int64_t held_ns, int64_t wanted_ns);

/* cap_most() - the largest a ring below @dir may be on this host; NULL: anywhere */
uint64_t cap_most(const char *dir);

/* cap_advice() - half a sentence for people: the setting that helps, or why none does and what to do instead */
void cap_advice(FILE *out, uint64_t needed, uint64_t most, int64_t wanted_ns);
