/* SPDX-License-Identifier: MIT */
/*
 * Chunks as columns: what makes a settled capture small. The payload of a CHUNKS block goes in, that of a COLUMNS
 * block comes out (and is then compressed); dc_columns_join() gives back the CHUNKS payload, byte for byte.
 *
 * This is a pure matter of storage: it never fails on odd bytes. What does not look like the recorder's own
 * encoding is kept as it stands. Layout and reasons are in columns_layout.h and FORMAT.md. Reading events without
 * joining is a matter inside of persist, see columns_inside.h.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "persist/format.h"

/* A join stores whole words, and at most one event, past the end of what it gives back. */
#define DC_COLUMNS_SLACK 4096u

/*
 * dc_columns_split() - CHUNKS payload → COLUMNS payload
 * @chunks, @bytes: a packed payload: chunks without gaps and in the order of the entries, see dc_columns_packed()
 * @sites, @site_count: the ring's site table (what an event's arguments are); may be empty
 * @ret_columns: malloc'ed; the caller frees it
 *
 * Return: 0, -EINVAL when the payload is not packed, -ENOMEM.
 */
int dc_columns_split(const void *chunks, size_t bytes, const struct dc_ring_site *sites, uint32_t site_count,
		     void **ret_columns, size_t *ret_bytes);

/*
 * dc_columns_joined_bytes() - how large the CHUNKS payload of a COLUMNS payload is, without DC_COLUMNS_SLACK
 * Return: 0, -EBADMSG.
 */
int dc_columns_joined_bytes(const void *columns, size_t bytes, size_t *ret_bytes);

/*
 * dc_columns_join() - COLUMNS payload (decompressed, untrusted) → CHUNKS payload
 * @chunks, @room: where to; at least dc_columns_joined_bytes() + DC_COLUMNS_SLACK bytes
 *
 * What comes out has the size asked for and is then to be validated like any CHUNKS payload.
 * Return: 0, -EBADMSG, -ENOBUFS, -ENOMEM.
 */
int dc_columns_join(const void *columns, size_t bytes, void *chunks, size_t room);

/*
 * dc_columns_heads() - the headers of all chunks, from the head of a COLUMNS payload, without joining it
 * @columns, @bytes: the payload, or a prefix of it
 * @ret_heads: the first min(64, committed) bytes of each chunk, one after the other
 * @ret_joined: what dc_columns_joined_bytes() would say
 *
 * Return: 0; -EBADMSG: @columns is no COLUMNS payload, or @bytes of it are not enough.
 */
int dc_columns_heads(const void *columns, size_t bytes, const uint8_t **ret_heads, size_t *ret_joined);

/* Where the next chunk of a packed payload begins: chunks follow each other, each at a multiple of 8, zeros between. */
static inline size_t dc_columns_packed(size_t bytes)
{
	return (bytes + 7) & ~(size_t)7;
}
