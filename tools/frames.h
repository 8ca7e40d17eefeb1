/* SPDX-License-Identifier: MIT */
/* An address of a recorded program as people can use it: module and offset, for addr2line and the like. */
#pragma once

#include <stdint.h>

#include "persist/capture.h"

struct frame_text {
	char s[320]; /* "libc.so.6+0x29d90", or the bare address where no module covers it */
};

struct frame_text frame_text(const struct dc_capture *c, unsigned process, uint64_t address);
