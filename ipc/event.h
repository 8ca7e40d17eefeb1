/* SPDX-License-Identifier: MIT */
/*
 * How an event looks inside a chunk. Written by the recorder, read by ipc/decode.c; ipc/scrub.c walks it to remove arguments.
 *
 * Byte-packed, little-endian, no alignment. Every record starts with a tag byte:
 *
 *     bits 0..4  kind (DC_KIND_*; 0 never occurs, so a zeroed page is never mistaken for events)
 *     bits 5..6  length of the delta - 1
 *     bit  7     zero
 *
 * An event is   tag | delta (1..4 bytes) | body      delta: units since the previous event of this chunk (or since the
 *                                                    chunk header's start_units, or the last TIME record)
 * A record that is no event (TIME, OPEN, THREAD) has no delta: its length bits are zero. A delta that is negative or
 * needs more than four bytes is preceded by a TIME record with the full time; the event's own delta is then 0 (1 byte).
 * Records that are no events are not counted in the state word's event count.
 *
 *   kind          body
 *   BEGIN         site:2  args                a span opens, depth + 1
 *   END           -                           the innermost span closes
 *   END_TO        depth:2                     spans deeper than `depth` close too, as implied; then the one at `depth`
 *   INSTANT       site:2  args
 *   COUNTER       site:2  args                one argument: the value
 *   LOG           site:2  args                the site's format and level; formatted by the reader
 *   ASYNC_BEGIN   site:2  args                first argument is the id (key "id")
 *   ASYNC_END     site:2  args                likewise
 *   FLOW_OUT/IN   id:8
 *   CONTEXT       flags:1 trace:16 span:8     W3C trace context, bytes in the order of the text form
 *   STACK         site:2  n:1  n × address:8  return addresses, innermost first
 *   TRIGGER       site:2  args                DC_TRIGGER(): its name is the reason
 *   TIME          units:8                     (no event) full time
 *   OPEN          start_units:8 depth:2 site:2 args     (no event) copy of the BEGIN of a span that is still open, at
 *                                             the head of a chunk; depth counts from 1. args_dropped: see below
 *   THREAD        tid:4 serial:4 comm:16      (no event) from here on this lane belongs to another thread
 *
 * args: the site's schema says how many and of which type; they come in pairs, each pair led by one code byte whose
 * low nibble belongs to the first and whose high nibble to the second (0 where there is no second):
 *
 *   type          nibble 1..8                                       other nibbles
 *   U64 BOOL PTR  bytes of the value that follow, little-endian     -
 *   I64           the same for the zigzag of the value              -
 *   F64           the same for the byte-swapped IEEE bits           -     (round numbers have zeros at the low end)
 *   STR           1: length:1 bytes   2: length:2 bytes             0: NULL, 3: as 2, but the text was cut
 *   SECRET        -                                                 0: recorded as present, no content
 *   any           -                                                 15: dropped (no room); no bytes follow
 *
 * A site id of DC_SITE_INLINE (table full) is followed by  arg_count:1 types:arg_count name_length:1 name  and then args,
 * whose keys are not known.
 */
#pragma once

#include <stdint.h>

#define DC_KIND_BEGIN 1u
#define DC_KIND_END 2u
#define DC_KIND_END_TO 3u
#define DC_KIND_INSTANT 4u
#define DC_KIND_COUNTER 5u
#define DC_KIND_LOG 6u
#define DC_KIND_ASYNC_BEGIN 7u
#define DC_KIND_ASYNC_END 8u
#define DC_KIND_FLOW_OUT 9u
#define DC_KIND_FLOW_IN 10u
#define DC_KIND_CONTEXT 11u
#define DC_KIND_STACK 12u
#define DC_KIND_TRIGGER 13u
#define DC_KIND_TIME 14u
#define DC_KIND_OPEN 15u
#define DC_KIND_THREAD 16u
#define DC_KIND_LAST 16u

#define DC_TYPE_NONE 0u
#define DC_TYPE_U64 1u
#define DC_TYPE_I64 2u
#define DC_TYPE_F64 3u
#define DC_TYPE_BOOL 4u
#define DC_TYPE_PTR 5u
#define DC_TYPE_STR 6u
#define DC_TYPE_SECRET 7u
#define DC_TYPE_LAST 7u

#define DC_CODE_STR_NULL 0u
#define DC_CODE_STR_8 1u
#define DC_CODE_STR_16 2u
#define DC_CODE_STR_CUT 3u
#define DC_CODE_DROPPED 15u

#define DC_STRINGS_PER_EVENT_BYTES 1024u /* all strings of one event together; the rest is cut */
#define DC_OPEN_OUTER 8u
#define DC_OPEN_INNER 24u
#define DC_STACK_FRAMES_MAX 30u

/* Levels of DC_LOG, by increasing weight. */
#define DC_LEVEL_TRACE 0u
#define DC_LEVEL_DEBUG 1u
#define DC_LEVEL_INFO 2u
#define DC_LEVEL_WARN 3u
#define DC_LEVEL_ERROR 4u
#define DC_LEVEL_FATAL 5u

static inline unsigned dc_tag_kind(uint8_t tag)
{
	return tag & 31u;
}

static inline unsigned dc_tag_delta_bytes(uint8_t tag)
{
	return (tag >> 5 & 3u) + 1;
}

/* Bytes needed for @v, 1..8. */
static inline unsigned dc_value_bytes(uint64_t v)
{
	return (unsigned)(71 - __builtin_clzll(v | 1)) >> 3;
}

static inline uint64_t dc_zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static inline int64_t dc_unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1 ^ (0 - (v & 1)));
}
