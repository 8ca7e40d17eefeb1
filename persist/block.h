/* SPDX-License-Identifier: MIT */
/*
 * Block headers: built by the writer, checked by the reader. The only place that knows how they are summed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/format.h"

/* XXH3_64bits of @bytes at @data; about 10 GB/s. */
uint64_t dc_checksum(const void *data, size_t bytes);

/*
 * dc_block_seal() - fill in everything of a header but what the caller set
 * The caller has set type, flags, process, sequence, stored_bytes and plain_bytes and zeroed the rest. @align
 * is DC_RAW_ALIGN or DC_BLOCK_ALIGN; bytes between the payload's end and header + next are zeros in the file.
 */
void dc_block_seal(struct dc_block_header *h, const void *payload, uint64_t align);

/*
 * dc_block_check() - is this a header, and may it be believed?
 * @h: a copy, from an untrusted file
 * @room: bytes from the header's first byte to the end of the file
 *
 * After 0 the sizes are bounded: stored_bytes and plain_bytes <= DC_BLOCK_PLAIN_MAX, and header and payload
 * together <= next.
 *
 * Return: 0; -EBADMSG: not a header, or damaged (look for the next one at the next multiple of DC_BLOCK_ALIGN);
 * -ENODATA: a good header whose payload is cut off by the end of the file; -E2BIG: a good header of a block larger
 * than DC_BLOCK_PLAIN_MAX (skip it by next); -EPROTONOSUPPORT: a good header with unknown flags (likewise).
 */
int dc_block_check(const struct dc_block_header *h, uint64_t room);

/* Does the stored payload match? @payload: the h->stored_bytes bytes after the header. */
bool dc_block_intact(const struct dc_block_header *h, const void *payload);
