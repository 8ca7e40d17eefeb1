/* SPDX-License-Identifier: MIT */
/*
 * What an event means for its lane: its site, its values, the spans it opens and closes. This exists once. Two readers
 * of how events are stored sit on it, and nobody else: decode.c, of the bytes of a chunk, and persist/columns_each.c,
 * of the columns of a settled capture. Inline, because it is most of what happens for an event.
 *
 * Depth is an argument and comes back, so that a reader's loop can keep it in a register; between chunks it is in the
 * decoder.
 */
#pragma once

#include "ipc/decode.h"

#define DC_LANE_DEPTH_LIMIT 0xffffu /* what END_TO and OPEN can name */

/* dc_lane_decoder.open.span: a site, and one of these */
#define DC_LANE_BEGUN (1u << 16) /* its begin was seen */
#define DC_LANE_COPIED (2u << 16) /* only an OPEN record of it */

#define dc_lane_inline static inline __attribute__((always_inline))
#define dc_lane_unlikely(x) __builtin_expect(!!(x), 0)

/* The end of a span brings no name, so that of a nameless site is kept from its begin. @depth counts from 0. */
__attribute__((noinline)) void dc_lane_keep_name(struct dc_lane_decoder *d, uint32_t depth);
__attribute__((noinline)) const struct dc_site_info *dc_lane_kept_site(struct dc_lane_decoder *d, uint32_t depth);

/* The value of argument @i, an integer, from the number it is stored as. */
dc_lane_inline uint64_t dc_lane_word(const struct dc_site_info *info, unsigned i, uint64_t w)
{
	uint64_t is_signed = info->zigzag >> i & 1;
	return (w >> is_signed) ^ (0 - (w & is_signed));
}

/* The same of any type that is stored as a number. */
dc_lane_inline union dc_value dc_lane_value(uint8_t type, uint64_t w)
{
	if (type == DC_TYPE_I64)
		return (union dc_value){.i = dc_unzigzag(w)};
	return (union dc_value){.u = type == DC_TYPE_F64 ? __builtin_bswap64(w) : w};
}

dc_lane_inline void dc_lane_set_thread(const struct dc_lane_decoder *d, struct dc_event *e)
{
	e->tid = d->tid;
	e->serial = d->serial;
	e->lane = d->lane;
}

/* Any event but END; its site is still missing. */
dc_lane_inline void dc_lane_event(struct dc_event *e, unsigned kind, uint64_t units)
{
	e->units = units;
	e->kind = (uint8_t)kind;
	e->implied = false;
	e->from_open = false;
	e->start_units = ~UINT64_C(0);
}

dc_lane_inline void dc_lane_set_site(struct dc_event *e, unsigned id, const struct dc_site_info *info)
{
	e->site = (uint16_t)id;
	e->info = info;
	e->arg_count = info->arg_count;
	e->args_dropped = 0;
}

/* Of a kind that has none. */
dc_lane_inline void dc_lane_no_site(struct dc_event *e)
{
	e->site = 0;
	e->arg_count = 0;
	e->args_dropped = 0;
	e->info = NULL;
}

/* A span opens. Return: the depth, now that it is open. */
dc_lane_inline uint32_t dc_lane_open(struct dc_lane_decoder *d, uint32_t depth, uint32_t span, uint64_t start_units)
{
	if (dc_lane_unlikely(depth >= DC_DECODE_DEPTH_MAX))
		return depth + (depth < DC_LANE_DEPTH_LIMIT);
	d->open.start_units[depth] = start_units;
	d->open.span[depth] = span;
	return depth + 1;
}

/* BEGIN. Return: as dc_lane_open(). */
dc_lane_inline uint32_t dc_lane_begin(struct dc_lane_decoder *d, uint32_t depth, const struct dc_event *e)
{
	if (dc_lane_unlikely(e->site == DC_SITE_INLINE && depth < DC_DECODE_DEPTH_MAX))
		dc_lane_keep_name(d, depth);
	return dc_lane_open(d, depth, e->site | DC_LANE_BEGUN, e->units);
}

/*
 * END of @span, for a reader who knows beforehand which one it closes and has set in *@e what follows from that. Sets
 * what is left but for the time; the depth is then one less. False: another span is open, dc_lane_end() tells which.
 */
dc_lane_inline bool dc_lane_end_of(const struct dc_lane_decoder *d, uint32_t depth, uint32_t span, struct dc_event *e)
{
	uint32_t top = depth - 1;

	if (dc_lane_unlikely(top >= DC_DECODE_DEPTH_MAX || d->open.span[top] != span))
		return false;
	e->start_units = d->open.start_units[top];
	e->depth = depth;
	return true;
}

/*
 * END: closes the innermost span into *@e, all of which but its time and @e->implied is set here. The END of a span that
 * was never open has depth 0. Return: the depth, now that it is closed.
 */
dc_lane_inline uint32_t dc_lane_end(struct dc_lane_decoder *d, uint32_t depth, struct dc_event *e)
{
	uint32_t top = depth - 1;

	e->kind = DC_KIND_END;
	e->arg_count = 0;
	e->args_dropped = 0;
	e->depth = depth;
	if (dc_lane_unlikely(top >= DC_DECODE_DEPTH_MAX || !d->open.span[top])) {
		e->from_open = false;
		e->site = 0;
		e->start_units = ~UINT64_C(0);
		e->info = NULL;
		return depth ? top : 0;
	}
	uint32_t span = d->open.span[top];
	uint16_t site = (uint16_t)span;
	e->from_open = span & DC_LANE_COPIED;
	e->site = site;
	e->start_units = d->open.start_units[top];
	e->info = dc_lane_unlikely(site == DC_SITE_INLINE) ? dc_lane_kept_site(d, top) : &d->schema->sites[site];
	return top;
}
