/* SPDX-License-Identifier: MIT */
#include "persist/compress.h"

#include <errno.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

struct dc_compressor {
	ZSTD_CCtx *context;
};

struct dc_decompressor {
	ZSTD_DCtx *context;
};

void dc_compressor_free(struct dc_compressor *c)
{
	if (!c)
		return;
	ZSTD_freeCCtx(c->context);
	free(c);
}

int dc_compressor_new(int level, struct dc_compressor **ret_compressor)
{
	struct dc_compressor *c = calloc(1, sizeof *c);

	if (!c)
		return -ENOMEM;
	c->context = ZSTD_createCCtx();
	if (!c->context) {
		free(c);
		return -ENOMEM;
	}
	/* Refused levels are clamped by zstd itself, so there is nothing to report. */
	ZSTD_CCtx_setParameter(c->context, ZSTD_c_compressionLevel, level);
	*ret_compressor = c;
	return 0;
}

size_t dc_compress_bound(size_t bytes)
{
	return ZSTD_compressBound(bytes);
}

int dc_compress(struct dc_compressor *c, const void *from, size_t bytes, void *to, size_t room,
		size_t *ret_bytes)
{
	size_t r = ZSTD_compress2(c->context, to, room, from, bytes);

	if (ZSTD_isError(r))
		return ZSTD_getErrorCode(r) == ZSTD_error_dstSize_tooSmall ? -ENOBUFS : -ENOMEM;
	*ret_bytes = r;
	return 0;
}

void dc_decompressor_free(struct dc_decompressor *d)
{
	if (!d)
		return;
	ZSTD_freeDCtx(d->context);
	free(d);
}

int dc_decompressor_new(struct dc_decompressor **ret_decompressor)
{
	struct dc_decompressor *d = calloc(1, sizeof *d);

	if (!d)
		return -ENOMEM;
	d->context = ZSTD_createDCtx();
	if (!d->context) {
		free(d);
		return -ENOMEM;
	}
	*ret_decompressor = d;
	return 0;
}

int dc_decompress(struct dc_decompressor *d, const void *from, size_t bytes, void *to, size_t plain_bytes)
{
	size_t r = ZSTD_decompressDCtx(d->context, to, plain_bytes, from, bytes);

	if (ZSTD_isError(r))
		return ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation ? -ENOMEM : -EBADMSG;
	return r == plain_bytes ? 0 : -EBADMSG;
}

int dc_decompress_prefix(struct dc_decompressor *d, const void *from, size_t bytes, void *to, size_t room,
			 size_t *ret_bytes)
{
	ZSTD_inBuffer in = {from, bytes, 0};
	ZSTD_outBuffer out = {to, room, 0};
	size_t r = 1;

	/* Nobody knows here how large the frame says it is, so its window is bounded: a block is 4 MiB. */
	ZSTD_DCtx_reset(d->context, ZSTD_reset_session_and_parameters);
	ZSTD_DCtx_setParameter(d->context, ZSTD_d_windowLogMax, 22);
	while (r && out.pos < out.size && !ZSTD_isError(r)) {
		const size_t at = in.pos + out.pos;

		r = ZSTD_decompressStream(d->context, &out, &in);
		if (in.pos + out.pos == at)
			break;
	}
	ZSTD_DCtx_reset(d->context, ZSTD_reset_session_only);
	if (ZSTD_isError(r))
		return ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation ? -ENOMEM : -EBADMSG;
	*ret_bytes = out.pos;
	return 0;
}
