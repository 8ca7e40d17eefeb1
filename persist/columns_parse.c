/* SPDX-License-Identifier: MIT */
#include "persist/columns_parse.h"

#include <string.h>

#include "persist/columns_layout.h"

struct input {
	const uint8_t *at;
	const uint8_t *end;
};

struct schema {
	const uint8_t *types;
	unsigned count;
};

/* All of these return false where the bytes are no record. */

static bool take(struct input *in, size_t bytes, const uint8_t **ret_at)
{
	if ((size_t)(in->end - in->at) < bytes)
		return false;
	*ret_at = in->at;
	in->at += bytes;
	return true;
}

static bool skip(struct input *in, size_t bytes)
{
	const uint8_t *at;

	return take(in, bytes, &at);
}

static bool take_number(struct input *in, size_t bytes, uint64_t *ret_number)
{
	const uint8_t *at;

	if (!take(in, bytes, &at))
		return false;
	*ret_number = 0;
	memcpy(ret_number, at, bytes);
	return true;
}

static void add_number(struct dc_record *r, uint64_t v)
{
	r->numbers[r->number_count++] = v;
}

static bool take_text(struct input *in, struct dc_record *r, unsigned code)
{
	uint64_t length = DC_TEXT_NULL;

	if (code > DC_CODE_STR_CUT)
		return false;
	r->regular &= code <= DC_CODE_STR_8;
	if (code != DC_CODE_STR_NULL) {
		if (!take_number(in, code == DC_CODE_STR_8 ? 1 : 2, &length))
			return false;
		if (!take(in, length, &r->texts[r->text_count++]))
			return false;
	}
	add_number(r, length);
	return true;
}

static bool take_arg(struct input *in, struct dc_record *r, uint8_t type, unsigned code)
{
	uint64_t v;

	if (code == DC_CODE_DROPPED) {
		r->regular = false;
		return true;
	}
	if (type == DC_TYPE_STR)
		return take_text(in, r, code);
	if (type == DC_TYPE_SECRET)
		return code == 0;
	if (code < 1 || code > 8 || !take_number(in, code, &v))
		return false;
	r->regular &= dc_value_bytes(v) == code;
	add_number(r, v);
	return true;
}

static uint8_t form_of(uint8_t type)
{
	if (type == DC_TYPE_STR)
		return DC_COLUMN_TEXT;
	return type == DC_TYPE_SECRET ? DC_COLUMN_SECRET : DC_COLUMN_NUMBER;
}

static bool take_args(struct input *in, struct dc_record *r, const struct schema *schema)
{
	uint64_t pair = 0;

	for (unsigned i = 0; i < schema->count; i++) {
		uint8_t type = schema->types[i];

		if (type == DC_TYPE_NONE || type > DC_TYPE_LAST)
			return false;
		if (i % 2 == 0 && !take_number(in, 1, &pair))
			return false;
		if (!take_arg(in, r, type, (unsigned)(i % 2 ? pair >> 4 : pair & 15)))
			return false;
		r->forms[i] = form_of(type);
	}
	r->arg_count = (uint8_t)schema->count;
	return schema->count % 2 == 0 || pair >> 4 == 0;
}

/* A site that carries its name and schema with it: never regular. */
static bool take_inline_site(struct input *in, struct dc_record *r, struct schema *ret_schema)
{
	uint64_t count, length;

	r->regular = false;
	r->site = 0;
	if (!take_number(in, 1, &count) || count > DC_ARG_MAX || !take(in, count, &ret_schema->types))
		return false;
	ret_schema->count = (unsigned)count;
	return take_number(in, 1, &length) && skip(in, length);
}

static bool take_site(const struct dc_record_parser *p, struct input *in, struct dc_record *r,
		      struct schema *ret_schema)
{
	uint64_t id;

	if (!take_number(in, 2, &id))
		return false;
	if (id == DC_SITE_INLINE)
		return take_inline_site(in, r, ret_schema);
	if (id >= p->site_count || id >= DC_SITE_MAX || p->sites[id].arg_count > DC_ARG_MAX)
		return false;
	r->site = (uint16_t)id;
	*ret_schema = (struct schema){p->sites[id].types, p->sites[id].arg_count};
	return true;
}

static bool take_site_args(const struct dc_record_parser *p, struct input *in, struct dc_record *r)
{
	struct schema schema;

	return take_site(p, in, r, &schema) && take_args(in, r, &schema);
}

static bool take_stack(const struct dc_record_parser *p, struct input *in, struct dc_record *r)
{
	struct schema schema;
	uint64_t frames;

	r->regular = false;
	if (!take_site(p, in, r, &schema) || !take_number(in, 1, &frames))
		return false;
	r->stack_count = (uint8_t)frames;
	return skip(in, 8 * frames);
}

static bool take_flow(struct input *in, struct dc_record *r)
{
	uint64_t id;

	if (!take_number(in, 8, &id))
		return false;
	add_number(r, id);
	r->forms[0] = DC_COLUMN_FLOW;
	r->arg_count = 1;
	return true;
}

/* --- the stack: a guess that makes ENDs compress better, so nothing depends on its being right --- */

static void open_span(struct dc_record_parser *p, uint32_t depth, uint16_t site)
{
	if (depth && depth <= DC_RECORD_DEPTH_MAX)
		p->stack[depth - 1] = site;
	p->depth = depth;
}

static uint16_t close_span(struct dc_record_parser *p)
{
	if (!p->depth)
		return 0;
	p->depth--;
	return p->depth < DC_RECORD_DEPTH_MAX ? p->stack[p->depth] : 0;
}

static bool take_end_to(struct dc_record_parser *p, struct input *in, struct dc_record *r)
{
	uint64_t depth;

	r->regular = false;
	if (!take_number(in, 2, &depth))
		return false;
	if (depth && depth <= p->depth)
		p->depth = (uint32_t)depth - 1;
	return true;
}

static bool take_open(struct dc_record_parser *p, struct input *in, struct dc_record *r)
{
	uint64_t depth;

	r->regular = false;
	if (!skip(in, 8) || !take_number(in, 2, &depth) || !take_site_args(p, in, r))
		return false;
	/* Between the outermost and the innermost copies some may be missing. */
	for (uint32_t d = p->depth; d < DC_RECORD_DEPTH_MAX && d + 1 < depth; d++)
		p->stack[d] = 0;
	open_span(p, (uint32_t)depth, r->site);
	return true;
}

static bool take_event(struct dc_record_parser *p, struct input *in, struct dc_record *r)
{
	switch (r->kind) {
	case DC_KIND_BEGIN:
		if (!take_site_args(p, in, r))
			return false;
		open_span(p, p->depth + 1, r->site);
		return true;
	case DC_KIND_END:
		r->site = close_span(p);
		return true;
	case DC_KIND_END_TO:
		return take_end_to(p, in, r);
	case DC_KIND_INSTANT:
	case DC_KIND_COUNTER:
	case DC_KIND_LOG:
	case DC_KIND_ASYNC_BEGIN:
	case DC_KIND_ASYNC_END:
	case DC_KIND_TRIGGER:
		return take_site_args(p, in, r);
	case DC_KIND_FLOW_OUT:
	case DC_KIND_FLOW_IN:
		return take_flow(in, r);
	case DC_KIND_CONTEXT:
		r->regular = false;
		return skip(in, 25);
	case DC_KIND_STACK:
		return take_stack(p, in, r);
	default:
		return false;
	}
}

static bool take_record(struct dc_record_parser *p, struct input *in, struct dc_record *r)
{
	uint64_t tag, delta;
	unsigned delta_bytes;

	if (!take_number(in, 1, &tag) || tag & 0x80)
		return false;
	r->kind = (uint8_t)dc_tag_kind((uint8_t)tag);
	r->regular = false;
	if (r->kind == DC_KIND_TIME)
		return skip(in, 8);
	if (r->kind == DC_KIND_THREAD)
		return skip(in, 24);
	if (r->kind == DC_KIND_OPEN)
		return take_open(p, in, r);
	delta_bytes = dc_tag_delta_bytes((uint8_t)tag);
	if (!take_number(in, delta_bytes, &delta))
		return false;
	r->regular = dc_value_bytes(delta) == delta_bytes;
	add_number(r, delta);
	return take_event(p, in, r);
}

size_t dc_record_parse(struct dc_record_parser *p, const uint8_t *at, size_t bytes,
		       struct dc_record *ret_record)
{
	struct input in = {at, at + bytes};

	memset(ret_record, 0, sizeof *ret_record);
	return take_record(p, &in, ret_record) ? (size_t)(in.at - at) : 0;
}
