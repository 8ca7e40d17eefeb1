/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "persist/stacks/fde.h"

#include <errno.h>
#include <string.h>

#include "persist/stacks/bytes.h"
#include "persist/stacks/module.h"

/* DW_EH_PE_*: how a pointer is written (LSB, Core, 10.5.1) */
#define PE_FORM 0x0fu
#define PE_ABSPTR 0x00u
#define PE_UDATA4 0x03u
#define PE_UDATA8 0x04u
#define PE_SDATA4 0x0bu
#define PE_SDATA8 0x0cu
#define PE_PCREL 0x10u
#define PE_DATAREL_SDATA4 0x3bu

#define HEADER_BYTES 12u /* of .eh_frame_hdr with pointers of four bytes, before its table */
#define LENGTH_64 UINT32_MAX
#define DEBUG_CIE UINT32_MAX

/* .eh_frame or .debug_frame */
struct section {
	const uint8_t *bytes;
	uint64_t size;
	uint64_t vaddr; /* 0 for .debug_frame */
	bool debug;
};

/* One description, its length and what it belongs to already checked. */
struct record {
	uint64_t at; /* in the section */
	uint64_t body; /* behind the CIE's place */
	uint64_t end;
	uint64_t common; /* of an FDE */
	bool is_common;
};

static uint32_t u32_at(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static uint64_t s32_at(const void *p)
{
	return (uint64_t)(int64_t)(int32_t)u32_at(p);
}

/* The search table, where it is written as all linkers do; NULL: there is none. */
static const uint8_t *table_of(const struct dc_module *m, uint64_t *ret_count)
{
	const uint8_t *h = m->eh_frame_hdr ? dc_module_at(m, m->eh_frame_hdr, HEADER_BYTES) : NULL;

	if (!h || h[0] != 1 || ((h[1] & PE_FORM) != PE_SDATA4 && (h[1] & PE_FORM) != PE_UDATA4) || h[2] != PE_UDATA4 ||
	    h[3] != PE_DATAREL_SDATA4)
		return NULL;
	*ret_count = u32_at(h + 8);
	return *ret_count ? dc_module_at(m, m->eh_frame_hdr + HEADER_BYTES, *ret_count * 8) : NULL;
}

static bool table_find(const struct dc_module *m, const uint8_t *table, uint64_t count, uint64_t vaddr,
		       struct dc_fde *ret_fde)
{
	uint64_t low = 0, high = count;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		if (m->eh_frame_hdr + s32_at(table + 8 * middle) <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return false;
	*ret_fde = (struct dc_fde){.at = m->eh_frame_hdr + s32_at(table + 8 * (low - 1) + 4)};
	return true;
}

/* Return: false: the section ends here, or is beyond use. */
static bool record_next(const struct section *s, uint64_t *at, struct record *ret_record)
{
	while (*at < s->size && s->size - *at >= 8) {
		uint64_t start = *at;
		uint32_t length = u32_at(s->bytes + start);

		if (length == 0) { /* ends what one object file brought */
			*at += 4;
			continue;
		}
		if (length == LENGTH_64 || length < 4 || length > s->size - start - 4)
			return false;
		uint32_t id = u32_at(s->bytes + start + 4);
		*at = start + 4 + length;
		*ret_record = (struct record){
			.at = start,
			.body = start + 8,
			.end = *at,
			.common = s->debug ? id : start + 4 - id,
			.is_common = id == (s->debug ? DEBUG_CIE : 0),
		};
		return true;
	}
	return false;
}

/* What the descriptions of a CIE have in common. */
struct common {
	int encoding; /* of addresses; -1: we cannot know */
	bool augmented; /* each has data of its own, whose length it tells */
	struct dc_fde_rules rules;
};

/* Behind the CIE's numbers, one byte of text says what stands there ("zPLR"). -1: we cannot know. */
static int encoding_among(const char *text, struct dc_bytes *data)
{
	static const uint8_t widths[PE_FORM + 1] = {8, 0, 2, 4, 8, 0, 0, 0, 0, 0, 2, 4, 8};
	int encoding = PE_ABSPTR;

	for (; *text && !data->failed; text++) {
		if (*text == 'R')
			encoding = (int)dc_bytes_unsigned(data, 1);
		else if (*text == 'P') {
			uint8_t width = widths[dc_bytes_unsigned(data, 1) & PE_FORM];
			data->failed |= !width;
			dc_bytes_take(data, width);
		} else if (*text == 'L')
			dc_bytes_take(data, 1);
		else if (!strchr("SBG", *text)) /* a signal's frame, how aarch64 signs and tags: nothing stands there */
			return -1;
	}
	return data->failed ? -1 : encoding;
}

static bool common_read(const struct section *s, uint64_t at, struct common *ret_common)
{
	struct common c = {.encoding = PE_ABSPTR};
	struct record r;
	uint64_t next = at;

	if (at >= s->size || !record_next(s, &next, &r) || r.at != at || !r.is_common)
		return false;
	struct dc_bytes b = {.at = s->bytes + r.body, .end = s->bytes + r.end};
	uint64_t version = dc_bytes_unsigned(&b, 1);
	const char *text = (const char *)b.at;
	const uint8_t *text_end = memchr(b.at, 0, (size_t)(b.end - b.at));
	if (!text_end || (version != 1 && version != 3 && version != 4) || (*text && *text != 'z'))
		return false;
	b.at = text_end + 1;
	if (version == 4 && dc_bytes_unsigned(&b, 2) != 8) /* bytes of an address, of a segment */
		return false;
	c.rules.code_align = dc_bytes_uleb(&b);
	c.rules.data_align = dc_bytes_sleb(&b);
	c.rules.return_column = version == 1 ? dc_bytes_unsigned(&b, 1) : dc_bytes_uleb(&b);
	c.augmented = *text == 'z';
	if (c.augmented) {
		uint64_t bytes = dc_bytes_uleb(&b);
		struct dc_bytes data = {.at = dc_bytes_take(&b, bytes), .end = b.at};
		c.encoding = b.failed ? -1 : encoding_among(text + 1, &data);
	}
	c.rules.common = b.at;
	c.rules.common_end = b.end;
	*ret_common = c;
	return !b.failed && c.encoding >= 0;
}

/* Addresses as compilers write them: absolute or relative to their place, of 4 or 8 bytes. 0: otherwise. */
static unsigned width_of(int encoding)
{
	switch (encoding & ~(int)PE_PCREL) {
	case PE_ABSPTR:
	case PE_UDATA8:
	case PE_SDATA8:
		return 8;
	case PE_UDATA4:
	case PE_SDATA4:
		return 4;
	default:
		return 0;
	}
}

static bool range_of(const struct section *s, const struct record *r, int encoding, struct dc_fde *e)
{
	struct dc_bytes b = {.at = s->bytes + r->body, .end = s->bytes + r->end};
	unsigned width = width_of(encoding);

	if (!width)
		return false;
	e->begin = (encoding & (int)PE_FORM) == PE_SDATA4 ? (uint64_t)dc_bytes_signed(&b, width)
							  : dc_bytes_unsigned(&b, width);
	if (encoding & (int)PE_PCREL)
		e->begin += s->vaddr + r->body;
	e->end = e->begin + dc_bytes_unsigned(&b, width);
	return !b.failed && e->begin < e->end;
}

static int entry_add(struct dc_fde_index *x, uint32_t *room, const struct dc_fde *e)
{
	if (GROW(x->entries, x->count, *room, 256) < 0)
		return -ENOMEM;
	x->entries[x->count++] = *e;
	return 0;
}

static int section_read(struct dc_fde_index *x, uint32_t *room, const struct section *s)
{
	struct record r;
	struct common c = {.encoding = -1};
	uint64_t at = 0, common = UINT64_MAX;
	int result = 0;

	while (result == 0 && record_next(s, &at, &r)) {
		struct dc_fde e = {.debug = s->debug, .at = s->vaddr + r.at, .common = r.common};
		if (r.is_common)
			continue;
		if (r.common != common && !common_read(s, common = r.common, &c))
			c.encoding = -1;
		if (c.encoding >= 0 && range_of(s, &r, c.encoding, &e))
			result = entry_add(x, room, &e);
	}
	return result;
}

static int by_begin(const void *pa, const void *pb)
{
	const struct dc_fde *a = pa, *b = pb;

	return a->begin < b->begin ? -1 : a->begin > b->begin;
}

static struct section section_of_debug(const struct dc_module *m)
{
	return (struct section){m->image + m->debug_frame_offset, m->debug_frame_bytes, 0, true};
}

static int index_build(struct dc_fde_index *x)
{
	const struct dc_module *m = x->module;
	uint64_t table_count;
	uint32_t room = 0;
	int r = 0;

	x->built = true;
	if (m->eh_frame && !table_of(m, &table_count)) {
		const uint8_t *bytes = dc_module_at(m, m->eh_frame, m->eh_frame_bytes);
		if (bytes)
			r = section_read(x, &room, &(struct section){bytes, m->eh_frame_bytes, m->eh_frame, false});
	}
	if (r == 0 && m->debug_frame_bytes) {
		struct section debug = section_of_debug(m);
		r = section_read(x, &room, &debug);
	}
	if (x->count)
		qsort(x->entries, x->count, sizeof *x->entries, by_begin);
	return r;
}

static int index_find(const struct dc_fde_index *x, uint64_t vaddr, struct dc_fde *ret_fde)
{
	uint32_t low = 0, high = x->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (x->entries[middle].begin <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || vaddr >= x->entries[low - 1].end)
		return -ENOENT;
	*ret_fde = x->entries[low - 1];
	return 0;
}

void dc_fde_index_init(struct dc_fde_index *x, const struct dc_module *m)
{
	*x = (struct dc_fde_index){.module = m};
}

void dc_fde_index_fini(struct dc_fde_index *x)
{
	free(x->entries);
	*x = (struct dc_fde_index){0};
}

/* A description in .eh_frame and its CIE, which stands before it, as one section that begins at the CIE. */
static bool section_around(const struct dc_module *m, uint64_t at, struct section *ret_section,
			   struct record *ret_record)
{
	const uint8_t *length = dc_module_at(m, at, 8);

	if (!length || u32_at(length) < 12 || u32_at(length) == LENGTH_64)
		return false;
	uint64_t common = at + 4 - u32_at(length + 4);
	uint64_t whole = at + 4 + u32_at(length) - common;
	const uint8_t *section = common < at ? dc_module_at(m, common, whole) : NULL;
	if (!section)
		return false;
	*ret_section = (struct section){section, whole, common, false};
	*ret_record = (struct record){.at = at - common, .body = at - common + 8, .end = whole};
	return true;
}

static bool record_of(const struct dc_module *m, const struct dc_fde *fde, struct section *ret_section,
		      struct record *ret_record)
{
	uint64_t at = fde->at;

	if (!fde->debug)
		return section_around(m, fde->at, ret_section, ret_record);
	*ret_section = section_of_debug(m);
	return record_next(ret_section, &at, ret_record) && !ret_record->is_common;
}

/* The table knows where a function begins, not where it ends: that is for who reads what we found. */
static bool table_covers(const struct dc_module *m, uint64_t vaddr, struct dc_fde *fde)
{
	struct section s;
	struct record r;
	struct common c;

	return section_around(m, fde->at, &s, &r) && common_read(&s, 0, &c) && range_of(&s, &r, c.encoding, fde) &&
	       vaddr >= fde->begin && vaddr < fde->end;
}

int dc_fde_find(struct dc_fde_index *x, uint64_t vaddr, struct dc_fde *ret_fde)
{
	uint64_t count;
	const uint8_t *table = table_of(x->module, &count);

	if (table && table_find(x->module, table, count, vaddr, ret_fde) && table_covers(x->module, vaddr, ret_fde))
		return 0;
	if (!x->built) {
		int r = index_build(x);
		if (r < 0)
			return r;
	}
	return index_find(x, vaddr, ret_fde);
}

int dc_fde_rules(const struct dc_fde_index *x, const struct dc_fde *fde, struct dc_fde_rules *ret_rules)
{
	struct section s;
	struct record r;
	struct common c;

	if (!record_of(x->module, fde, &s, &r) || !common_read(&s, r.common, &c))
		return -EBADMSG;
	struct dc_bytes b = {.at = s.bytes + r.body, .end = s.bytes + r.end};
	dc_bytes_take(&b, 2u * width_of(c.encoding));
	if (c.augmented)
		dc_bytes_take(&b, dc_bytes_uleb(&b));
	if (b.failed)
		return -EBADMSG;
	*ret_rules = c.rules;
	ret_rules->own = b.at;
	ret_rules->own_end = b.end;
	return 0;
}
