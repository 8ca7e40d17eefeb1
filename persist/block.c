/* SPDX-License-Identifier: MIT */
#include "persist/block.h"

#include <errno.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define SUMMED_BYTES offsetof(struct dc_block_header, header_xxh3)

uint64_t dc_checksum(const void *data, size_t bytes)
{
	return XXH3_64bits(data, bytes);
}

static uint64_t round_up(uint64_t n, uint64_t align)
{
	return (n + align - 1) / align * align;
}

void dc_block_seal(struct dc_block_header *h, const void *payload, uint64_t align)
{
	h->magic = DC_BLOCK_MAGIC;
	h->next = round_up(sizeof *h + h->stored_bytes, align);
	h->payload_xxh3 = dc_checksum(payload, h->stored_bytes);
	h->header_xxh3 = dc_checksum(h, SUMMED_BYTES);
}

/* A fuzzer's changes have to get past the sums to reach what they protect. */
#ifdef DC_BLOCK_UNCHECKED
#define SUMS_MATCH(a, b) ((void)(a), (void)(b), true)
#else
#define SUMS_MATCH(a, b) ((a) == (b))
#endif

int dc_block_check(const struct dc_block_header *h, uint64_t room)
{
	if (room < sizeof *h || h->magic != DC_BLOCK_MAGIC ||
	    !SUMS_MATCH(h->header_xxh3, dc_checksum(h, SUMMED_BYTES)))
		return -EBADMSG;
	/* The sum is no secret: anybody can make a header whose sum is right and whose sizes lie. */
	if (h->next % DC_BLOCK_ALIGN || h->next < sizeof *h || h->stored_bytes > h->next - sizeof *h)
		return -EBADMSG;
	if (h->stored_bytes > DC_BLOCK_PLAIN_MAX || h->plain_bytes > DC_BLOCK_PLAIN_MAX)
		return -E2BIG;
	if (h->flags & ~DC_BLOCK_ZSTD)
		return -EPROTONOSUPPORT;
	if (!(h->flags & DC_BLOCK_ZSTD) && h->stored_bytes != h->plain_bytes)
		return -EBADMSG;
	return h->stored_bytes > room - sizeof *h ? -ENODATA : 0;
}

bool dc_block_intact(const struct dc_block_header *h, const void *payload)
{
	return SUMS_MATCH(dc_checksum(payload, h->stored_bytes), h->payload_xxh3);
}
