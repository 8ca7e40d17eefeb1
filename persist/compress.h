/* SPDX-License-Identifier: MIT */
/* zstd, for the payloads of settled captures. The only file that knows which compressor it is. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct dc_compressor;
struct dc_decompressor;

int dc_compressor_new(int level, struct dc_compressor **ret_compressor);
void dc_compressor_free(struct dc_compressor *c);

/* Room that dc_compress() needs for @bytes in the worst case. */
size_t dc_compress_bound(size_t bytes);

/* Return: 0 and the size of the one frame written to @to, -ENOBUFS when it does not fit @room, -ENOMEM. */
int dc_compress(struct dc_compressor *c, const void *from, size_t bytes, void *to, size_t room,
		size_t *ret_bytes);

int dc_decompressor_new(struct dc_decompressor **ret_decompressor);
void dc_decompressor_free(struct dc_decompressor *d);

/*
 * dc_decompress() - one frame, from an untrusted file, into exactly @plain_bytes bytes at @to
 * Return: 0, -EBADMSG when it is no frame, does not end, or is not of that size; -ENOMEM.
 */
int dc_decompress(struct dc_decompressor *d, const void *from, size_t bytes, void *to, size_t plain_bytes);

/*
 * dc_decompress_prefix() - as much of a frame as fits @room, for a look at the head of a block
 * Return: 0 and the bytes written, which are fewer than @room only at the end of the frame; -EBADMSG, -ENOMEM.
 */
int dc_decompress_prefix(struct dc_decompressor *d, const void *from, size_t bytes, void *to, size_t room,
			 size_t *ret_bytes);
