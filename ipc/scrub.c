/* SPDX-License-Identifier: MIT */
/*
 * A walk over the records of a chunk that copies them towards its start, leaving out what is to go. The encoding is
 * described in event.h; unlike the decoder this needs no time and no depth, only where each record and argument ends.
 *
 *     | header | copied ... |  free  | not yet walked ... |
 *                           out      at                   end
 */
#include "ipc/scrub.h"

#include <errno.h>
#include <string.h>

struct walk {
	const uint8_t *at; /* never before out */
	const uint8_t *end;
	uint8_t *out;
	const struct dc_schema *schema;
	dc_scrub_choice *choose;
	void *arg;
	struct dc_scrubbed result;
};

static bool has(const struct walk *w, size_t bytes)
{
	return (size_t)(w->end - w->at) >= bytes;
}

static int copy(struct walk *w, size_t bytes)
{
	if (!has(w, bytes))
		return -EBADMSG;
	memmove(w->out, w->at, bytes);
	w->out += bytes;
	w->at += bytes;
	return 0;
}

/* Bytes of an argument's value, its length field included; < 0: it does not parse. */
static long value_bytes(const struct walk *w, const uint8_t *at, uint8_t type, unsigned code)
{
	size_t room = (size_t)(w->end - at), bytes = code;

	if (code == DC_CODE_DROPPED)
		return 0;
	if (type == DC_TYPE_SECRET)
		return code == 0 ? 0 : -EBADMSG;
	if (type == DC_TYPE_STR) {
		if (code == DC_CODE_STR_NULL)
			return 0;
		if (code > DC_CODE_STR_CUT || room < 2)
			return -EBADMSG;
		bytes = code == DC_CODE_STR_8 ? 1u + at[0] : 2u + (at[0] | (unsigned)at[1] << 8);
	} else if (code == 0 || code > 8) {
		return -EBADMSG;
	}
	return bytes <= room ? (long)bytes : -EBADMSG;
}

/* @at is on the first value of a pair; the code byte is rewritten at @code_at once both are known. */
static int pair(struct walk *w, const struct dc_site_info *site, const uint8_t *types, unsigned first,
		unsigned count)
{
	uint8_t *code_at = w->out;
	unsigned codes, kept = 0;

	if (!has(w, 1))
		return -EBADMSG;
	codes = *w->at++;
	w->out++;
	for (unsigned i = first; i < first + 2 && i < count; i++) {
		unsigned shift = i == first ? 0 : 4, code = codes >> shift & 15;
		long bytes = value_bytes(w, w->at, types[i], code);

		if (bytes < 0)
			return -EBADMSG;
		if (w->choose(w->arg, site, i)) {
			w->result.removed += code != DC_CODE_DROPPED;
			code = DC_CODE_DROPPED;
			w->at += bytes;
		} else {
			copy(w, (size_t)bytes);
		}
		kept |= code << shift;
	}
	*code_at = (uint8_t)kept;
	return 0;
}

static int arguments(struct walk *w, const struct dc_site_info *site, const uint8_t *types, unsigned count)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < count; i += 2)
		r = pair(w, site, types, i, count);
	return r;
}

/* arg_count:1 types:arg_count name_length:1 name. The types are kept aside: they are about to be copied over. */
static int inline_site(struct walk *w, uint8_t types[static DC_ARG_MAX], unsigned *ret_count)
{
	unsigned count;

	if (!has(w, 1) || w->at[0] > DC_ARG_MAX)
		return -EBADMSG;
	count = w->at[0];
	if (!has(w, 2 + count))
		return -EBADMSG;
	memcpy(types, w->at + 1, count);
	*ret_count = count;
	return copy(w, 2u + count + w->at[1 + count]);
}

/* site:2, and then its arguments or what a stack has in their place. */
static int site_body(struct walk *w, bool is_stack)
{
	uint8_t types[DC_ARG_MAX] = {0};
	const struct dc_site_info *site = NULL;
	unsigned id, count = 0;
	int r;

	if (!has(w, 2))
		return -EBADMSG;
	id = w->at[0] | (unsigned)w->at[1] << 8;
	r = copy(w, 2);
	if (r == 0 && id == DC_SITE_INLINE) {
		r = inline_site(w, types, &count);
	} else if (id < w->schema->count) {
		site = &w->schema->sites[id];
		count = site->arg_count <= DC_ARG_MAX ? site->arg_count : 0;
		memcpy(types, site->types, count);
	} else {
		r = -EBADMSG;
	}
	if (r < 0)
		return r;
	if (is_stack)
		return has(w, 1) ? copy(w, 1 + 8 * (size_t)w->at[0]) : -EBADMSG;
	return arguments(w, site, types, count);
}

static int body(struct walk *w, unsigned kind)
{
	int r;

	switch (kind) {
	case DC_KIND_END:
		return 0;
	case DC_KIND_END_TO:
		return copy(w, 2);
	case DC_KIND_FLOW_OUT:
	case DC_KIND_FLOW_IN:
	case DC_KIND_TIME:
		return copy(w, 8);
	case DC_KIND_CONTEXT:
		return copy(w, 25);
	case DC_KIND_THREAD:
		return copy(w, 24);
	case DC_KIND_OPEN:
		r = copy(w, 10);
		return r < 0 ? r : site_body(w, false);
	case DC_KIND_STACK:
		return site_body(w, true);
	case DC_KIND_BEGIN:
	case DC_KIND_INSTANT:
	case DC_KIND_COUNTER:
	case DC_KIND_LOG:
	case DC_KIND_ASYNC_BEGIN:
	case DC_KIND_ASYNC_END:
	case DC_KIND_TRIGGER:
		return site_body(w, false);
	default:
		return -EBADMSG;
	}
}

static bool is_event(unsigned kind)
{
	return kind != DC_KIND_TIME && kind != DC_KIND_OPEN && kind != DC_KIND_THREAD;
}

static int record(struct walk *w)
{
	unsigned kind = dc_tag_kind(*w->at);
	int r = copy(w, is_event(kind) ? 1 + dc_tag_delta_bytes(*w->at) : 1);

	return r < 0 ? r : body(w, kind);
}

int dc_chunk_scrub(uint8_t *chunk, size_t bytes, const struct dc_schema *schema, dc_scrub_choice *choose,
		   void *arg, struct dc_scrubbed *ret_scrubbed)
{
	struct walk w = {.schema = schema, .choose = choose, .arg = arg};
	uint8_t *whole;

	if (bytes < sizeof(struct dc_chunk_header))
		return -EBADMSG;
	w.at = w.out = whole = chunk + sizeof(struct dc_chunk_header);
	w.end = chunk + bytes;
	while (w.at < w.end) {
		unsigned kind = dc_tag_kind(*w.at);

		if (record(&w) < 0) {
			w.result.cut = true;
			break;
		}
		whole = w.out;
		w.result.events += is_event(kind);
	}
	w.result.bytes = (size_t)(whole - chunk);
	memset(whole, 0, (size_t)(chunk + bytes - whole));
	*ret_scrubbed = w.result;
	return 0;
}
