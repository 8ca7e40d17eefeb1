/* SPDX-License-Identifier: MIT */
/* From copies of a ring's tables to what the decoder looks at for every event. All of it is a peer's: nothing
 * is believed. */
#include "ipc/decode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"

DC_DEFINE_CLEANUP(dc_schema, struct dc_schema *, dc_schema_free)

static const struct dc_site_info nameless = {
	.name = "?", .file = "?", .format = "", .keys = {"", "", "", "", "", "", "", ""}};

/* The caller has put a NUL behind the last byte, so every offset inside the table is a string. */
static const char *string_at(const char *strings, size_t bytes, uint32_t offset)
{
	return offset < bytes ? strings + offset : "?";
}

void dc_site_shape(struct dc_site_info *site)
{
	site->shape = DC_SHAPE_UNUSABLE;
	site->zigzag = 0;
	if (site->arg_count > DC_ARG_MAX)
		return;
	uint8_t shape = DC_SHAPE_WORDS;
	for (unsigned i = 0; i < site->arg_count; i++) {
		uint8_t type = site->types[i];
		if (type == DC_TYPE_NONE || type > DC_TYPE_LAST)
			return;
		if (type == DC_TYPE_F64 || type == DC_TYPE_STR || type == DC_TYPE_SECRET)
			shape = DC_SHAPE_MIXED;
		if (type == DC_TYPE_I64)
			site->zigzag |= UINT64_C(1) << i;
	}
	site->shape = shape;
}

static void fill(struct dc_site_info *info, const struct dc_ring_site *site, const char *strings,
		 size_t bytes)
{
	*info = nameless;
	if (site->published != 1)
		return;
	info->name = string_at(strings, bytes, site->name);
	info->file = string_at(strings, bytes, site->file);
	info->format = string_at(strings, bytes, site->format);
	info->line = site->line;
	info->kind = site->kind;
	info->level = site->level;
	info->arg_count = site->arg_count;
	memcpy(info->types, site->types, sizeof info->types);
	for (unsigned i = 0; i < DC_ARG_MAX; i++)
		info->keys[i] = string_at(strings, bytes, site->keys[i]);
	dc_site_shape(info);
}

int dc_schema_new(const struct dc_ring_site *sites, uint32_t site_count, const char *strings,
		  size_t strings_bytes, struct dc_schema **ret_schema)
{
	CLEANUP(dc_schema) struct dc_schema *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	if (site_count > DC_SITE_MAX)
		site_count = DC_SITE_MAX;
	s->count = site_count ? site_count : 1;
	s->sites = calloc(s->count, sizeof *s->sites);
	s->strings = malloc(strings_bytes + 1);
	if (!s->sites || !s->strings)
		return -ENOMEM;
	if (strings_bytes)
		memcpy(s->strings, strings, strings_bytes);
	s->strings[strings_bytes] = 0;
	s->sites[0] = nameless;
	for (uint32_t i = 1; i < site_count; i++)
		fill(&s->sites[i], &sites[i], s->strings, strings_bytes);
	*ret_schema = TAKE(s);
	return 0;
}

void dc_schema_free(struct dc_schema *schema)
{
	if (!schema)
		return;
	free(schema->strings);
	free(schema->sites);
	free(schema);
}
