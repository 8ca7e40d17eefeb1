/* SPDX-License-Identifier: MIT */
#include "persist/stacks/fde.h"

#include <errno.h>
#include <string.h>

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

static uint64_t u64_at(const void *p)
{
	uint64_t v;

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

static bool leb128_skip(const struct section *s, uint64_t *at, uint64_t end)
{
	while (*at < end)
		if (!(s->bytes[(*at)++] & 0x80))
			return true;
	return false;
}

/* Behind the CIE's numbers, one byte of text says what stands there ("zPLR"). -1: we cannot know. */
static int encoding_among(const struct section *s, const uint8_t *text, uint64_t at, uint64_t end)
{
	static const uint8_t widths[PE_FORM + 1] = {8, 0, 2, 4, 8, 0, 0, 0, 0, 0, 2, 4, 8};

	for (; *text && at < end; text++) {
		if (*text == 'R')
			return s->bytes[at];
		if (*text == 'P')
			at += 1u + widths[s->bytes[at] & PE_FORM];
		else if (*text == 'L')
			at++;
	}
	return *text ? -1 : (int)PE_ABSPTR;
}

/* How the descriptions of a CIE write their addresses; -1: we cannot know. */
static int encoding_of(const struct section *s, uint64_t common)
{
	struct record r;
	uint64_t next = common;

	if (common >= s->size || !record_next(s, &next, &r) || r.at != common || !r.is_common || r.end - r.body < 2)
		return -1;
	const uint8_t *text = s->bytes + r.body + 1;
	const uint8_t *text_end = memchr(text, 0, r.end - r.body - 1);
	if (!text_end)
		return -1;
	if (*text != 'z')
		return *text ? -1 : (int)PE_ABSPTR;
	uint64_t at = (uint64_t)(text_end + 1 - s->bytes);
	for (unsigned i = 0; i < 4; i++) /* alignment of code, of data, return address, length of what follows */
		if (!leb128_skip(s, &at, r.end))
			return -1;
	return encoding_among(s, text + 1, at, r.end);
}

/* Addresses as compilers write them: absolute or relative to their place, of 4 or 8 bytes. */
static bool range_of(const struct section *s, const struct record *r, int encoding, struct dc_fde *e)
{
	unsigned form = encoding & (int)PE_FORM;
	bool wide = form == PE_ABSPTR || form == PE_UDATA8 || form == PE_SDATA8;
	const uint8_t *p = s->bytes + r->body;
	uint64_t length;

	if (encoding < 0 || (encoding & ~(int)(PE_FORM | PE_PCREL)) || r->end - r->body < (wide ? 16 : 8) ||
	    (!wide && form != PE_UDATA4 && form != PE_SDATA4))
		return false;
	e->begin = wide ? u64_at(p) : form == PE_SDATA4 ? s32_at(p) : u32_at(p);
	length = wide ? u64_at(p + 8) : u32_at(p + 4);
	if (encoding & (int)PE_PCREL)
		e->begin += s->vaddr + r->body;
	e->end = e->begin + length;
	return e->begin < e->end;
}

static int entry_add(struct dc_fde_index *x, uint32_t *room, const struct dc_fde *e)
{
	if (x->count == *room) {
		uint32_t grown = *room ? *room * 2 : 256;
		void *entries = reallocarray(x->entries, grown, sizeof *x->entries);
		if (!entries)
			return -ENOMEM;
		x->entries = entries;
		*room = grown;
	}
	x->entries[x->count++] = *e;
	return 0;
}

static int section_read(struct dc_fde_index *x, uint32_t *room, const struct section *s)
{
	struct record r;
	uint64_t at = 0, common = UINT64_MAX;
	int encoding = -1, result = 0;

	while (result == 0 && record_next(s, &at, &r)) {
		struct dc_fde e = {.debug = s->debug, .at = s->vaddr + r.at, .common = r.common};
		if (r.is_common)
			continue;
		if (r.common != common)
			encoding = encoding_of(s, common = r.common);
		if (range_of(s, &r, encoding, &e))
			result = entry_add(x, room, &e);
	}
	return result;
}

static int by_begin(const void *pa, const void *pb)
{
	const struct dc_fde *a = pa, *b = pb;

	return a->begin < b->begin ? -1 : a->begin > b->begin;
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
	if (r == 0 && m->debug_frame_bytes)
		r = section_read(x, &room,
				 &(struct section){m->image + m->debug_frame_offset, m->debug_frame_bytes, 0, true});
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

/* The table knows where a function begins, not where it ends: that is for who reads what we found. */
static bool table_covers(const struct dc_module *m, uint64_t vaddr, struct dc_fde *fde)
{
	uint64_t at = fde->at;
	const uint8_t *length = dc_module_at(m, at, 8);

	if (!length || u32_at(length) < 12 || u32_at(length) == LENGTH_64)
		return false;
	uint64_t bytes = (uint64_t)u32_at(length) + 4;
	uint64_t common = at + 4 - u32_at(length + 4);
	const uint8_t *record = dc_module_at(m, at, bytes);
	const uint8_t *first = dc_module_at(m, common, 8);
	struct dc_fde e;
	if (!record || !first || common >= at)
		return false;
	/* Both as one section that begins at the CIE. */
	uint64_t whole = at + bytes - common;
	const uint8_t *section = dc_module_at(m, common, whole);
	if (!section)
		return false;
	struct section s = {section, whole, common, false};
	struct record r = {.at = at - common, .body = at - common + 8, .end = whole};
	if (!range_of(&s, &r, encoding_of(&s, 0), &e) || vaddr < e.begin || vaddr >= e.end)
		return false;
	fde->begin = e.begin;
	fde->end = e.end;
	return true;
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
