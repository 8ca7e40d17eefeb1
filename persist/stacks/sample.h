/* SPDX-License-Identifier: MIT */
/* One sample as it lies in a SAMPLES block (format.h): where its parts are. The one place that takes them apart. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "persist/format.h"

struct dc_sample_parts {
	struct dc_sample head;
	const uint64_t *ips;
	const uint64_t *regs;
	const uint8_t *stack;
	const uint8_t *extra;
};

/*
 * dc_sample_at() - take apart the sample at @at, a multiple of 8, of which at most @bytes are there
 * The next one is head.bytes further. What lies behind the known parts is of a later version and not looked at.
 * Return: 0; -EBADMSG: its sizes do not fit.
 */
int dc_sample_at(const void *at, size_t bytes, struct dc_sample_parts *ret_parts);
