/* SPDX-License-Identifier: MIT */
/*
 * What the children of resolve.h send through their pipe: heads with a checksum, each with a payload padded to 8. A child
 * that dies while it writes leaves a cut one, which is as if it had not been sent.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define DC_MESSAGE_FRAMES 1u /* struct dc_frame: numbers of this child, from 1, go on over its messages */
#define DC_MESSAGE_STACKS 2u /* n:4 and n frame numbers:4, likewise */
#define DC_MESSAGE_SAMPLES 3u /* struct dc_message_sample, in the order of the samples, which goes on over its messages */
#define DC_MESSAGE_ADDRESSES 4u /* frame numbers:4, in the order of the addresses; needs no answer but that there are frames */
#define DC_MESSAGE_BEGIN 5u /* struct dc_message_module: looking into it now */
#define DC_MESSAGE_NAMES 6u /* payload of a NAMES block; numbers of this child, from 1 */
#define DC_MESSAGE_NAMED 7u /* struct dc_message_module, then struct dc_message_name: all of that module is answered */
#define DC_MESSAGE_WHY 8u /* a text without NUL */
#define DC_MESSAGE_FAULT 9u /* struct dc_message_fault: the last one of a child that dies of a fault */

struct dc_message {
	uint32_t type;
	uint32_t reserved;
	uint64_t bytes; /* of the payload */
	uint64_t xxh3; /* of the payload */
};

struct dc_message_sample {
	uint32_t stack; /* 0: not unwound */
	uint32_t stack_used; /* bytes of its copy; more than there were: it was cut too early; ~0: says nothing about copies */
	uint32_t end; /* DC_MESSAGE_END_* */
};

#define DC_MESSAGE_END_ROOT 0u /* at the outermost frame */
#define DC_MESSAGE_END_BEFORE 1u
#define DC_MESSAGE_END_UNKNOWN 2u /* a chain of frame pointers */
#define DC_MESSAGE_END_LAST 2u

struct dc_message_fault { /* one of them is ~0 */
	uint32_t sample; /* it was at, counted from its first */
	uint32_t map; /* whose file it was opening */
};

struct dc_message_module {
	uint32_t map;
	uint32_t source; /* DC_SYMBOLS_* */
};

struct dc_message_name {
	uint32_t frame; /* number, of the parent */
	uint32_t name; /* 0: known to have none */
	uint32_t cached; /* 1: the answer is from the cache */
	uint32_t reserved;
	uint64_t offset; /* of the frame: in the module's own numbering */
};

/* Return: 0, -errno of write. */
int dc_message_send(int fd, uint32_t type, const void *payload, size_t bytes);
/* The message at *@at, which is moved behind it. Return: 1; 0: there is no further whole one. */
int dc_message_next(const uint8_t *bytes, size_t size, size_t *at, struct dc_message *ret_message, const uint8_t **ret_payload);
