/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "persist/stacks/dwarf.h"

#include <dwarf.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <elfutils/libdw.h>

#include "persist/stacks/demangle.h"
#include "persist/stacks/segments.h"

/* What hostile DWARF may cost. Real units stay far below. */
#define UNITS_MAX (1u << 18)
#define DEPTH_MAX 256u
#define DIES_MAX (16u << 20) /* of one unit */
#define RANGES_MAX (4u << 20) /* of one unit; of all units together */
#define RANGES_READ_MAX (64u << 20)
#define ROWS_MAX (16u << 20) /* lines of one unit */

#define LOADS 64u /* units read before their pages of the file are given back */
#define LIBDW_ROW_BYTES 56u /* one line inside libdw, about; it keeps them until it is closed */

#define UNRESOLVED UINT32_MAX
#define NO_PARENT UINT32_MAX
#define SEQUENCE_END UINT32_MAX

struct function { /* with code; or an inlined copy of one */
	uint64_t start;
	uint32_t die; /* offset in the unit */
	uint32_t parent;
	uint32_t name; /* text, or UNRESOLVED */
	uint32_t call_file; /* text; of an inlined copy: where it was called */
	uint32_t call_line;
};

struct row { /* of the line table, from here to the next one */
	uint64_t address;
	uint32_t file; /* text, or SEQUENCE_END */
	uint32_t line;
};

struct unit {
	uint64_t die; /* offset of its first DIE */
	bool loaded;
	bool no_ranges;
	uint64_t used; /* when last */
	size_t bytes;
	struct function *functions;
	uint32_t function_count;
	struct dc_segment *segments;
	size_t segment_count;
	struct row *rows;
	size_t row_count;
};

struct dc_dwarf {
	struct dc_elf *debug;
	struct dc_elf *alt;
	const struct dc_elf *program;
	struct dc_texts *texts;
	Dwarf *dw;
	Dwarf *alt_dw;
	size_t bytes_max; /* of tables of units that are loaded, but for the one in use; and as much inside libdw */
	size_t dw_bytes; /* estimated */
	unsigned loads;
	struct unit *units; /* by offset */
	uint32_t unit_count;
	struct dc_segment *segments;
	size_t segment_count;
	uint64_t clock;
	size_t table_bytes;
};

struct ranges {
	struct dc_range *list;
	size_t read; /* also those that do not count: many entries may share a long list of them */
	size_t count;
	size_t room;
};

static int add_range(struct ranges *r, const struct dc_range *range)
{
	if (r->count == RANGES_MAX)
		return -E2BIG;
	if (GROW(r->list, r->count, r->room, 256) < 0)
		return -ENOMEM;
	r->list[r->count++] = *range;
	return 0;
}

/* Those of functions that the linker threw away lie at 0 or so, where no code is. Return: how many were added, -errno. */
static int add_ranges(const struct dc_dwarf *d, Dwarf_Die *die, uint32_t owner, struct ranges *all)
{
	Dwarf_Addr base, start, end;
	int added = 0, r;

	for (ptrdiff_t at = 0; (at = dwarf_ranges(die, at, &base, &start, &end)) > 0;) {
		if (all->read++ == RANGES_READ_MAX)
			return -E2BIG;
		if (start >= end || !dc_elf_executable(d->program, start))
			continue;
		r = add_range(all, &(struct dc_range){.start = start, .end = end, .rank = owner, .owner = owner});
		if (r < 0)
			return r;
		added++;
	}
	return added;
}

/* --- open --- */

static int open_libdw(struct dc_dwarf *d)
{
	d->dw = dwarf_begin_elf(dc_elf_handle(d->debug), DWARF_C_READ, NULL);
	if (!d->dw)
		return -ENOENT;
	if (d->alt_dw)
		dwarf_setalt(d->dw, d->alt_dw);
	d->dw_bytes = 0;
	d->loads = 0;
	dc_elf_forget(d->debug); /* compressed sections have been unpacked */
	return 0;
}

static int add_unit(struct dc_dwarf *d, Dwarf_Die *die, uint32_t *room, struct ranges *all)
{
	int r;

	if (d->unit_count == UNITS_MAX)
		return -E2BIG;
	if (GROW(d->units, d->unit_count, *room, 64) < 0)
		return -ENOMEM;
	r = add_ranges(d, die, d->unit_count, all);
	if (r < 0)
		return r;
	d->units[d->unit_count++] = (struct unit){.die = dwarf_dieoffset(die), .no_ranges = r == 0};
	return 0;
}

static int find_units(struct dc_dwarf *d, struct ranges *all)
{
	Dwarf_CU *cu = NULL;
	uint32_t room = 0;
	uint8_t type;
	Dwarf_Die die;
	int r = 0;

	while (r == 0 && dwarf_get_units(d->dw, cu, &cu, NULL, &type, &die, NULL) == 0)
		if ((type == DW_UT_compile || type == DW_UT_skeleton) && dwarf_tag(&die) == DW_TAG_compile_unit)
			r = add_unit(d, &die, &room, all);
		else if (type == DW_UT_skeleton && dwarf_tag(&die) == DW_TAG_skeleton_unit)
			r = add_unit(d, &die, &room, all);
	return r == -E2BIG ? 0 : r;
}

static int by_offset(const void *key, const void *member)
{
	uint64_t offset = *(const Dwarf_Off *)key, its = ((const struct unit *)member)->die;

	return offset < its ? -1 : offset > its;
}

/* Units that do not say themselves where their code is. */
static int find_aranges(struct dc_dwarf *d, struct ranges *all)
{
	Dwarf_Aranges *aranges;
	Dwarf_Addr start;
	Dwarf_Word bytes;
	Dwarf_Off offset;
	size_t count;
	int r = 0;

	if (dwarf_getaranges(d->dw, &aranges, &count) != 0)
		return 0;
	for (size_t i = 0; r == 0 && i < count; i++) {
		const struct unit *u;

		if (dwarf_getarangeinfo(dwarf_onearange(aranges, i), &start, &bytes, &offset) != 0 || !bytes ||
		    bytes > UINT64_MAX - start || !dc_elf_executable(d->program, start))
			continue;
		u = d->units ? bsearch(&offset, d->units, d->unit_count, sizeof *d->units, by_offset) : NULL;
		if (u && u->no_ranges)
			r = add_range(all, &(struct dc_range){.start = start,
							      .end = start + bytes,
							      .rank = (uint32_t)(u - d->units),
							      .owner = (uint32_t)(u - d->units)});
	}
	return r == -E2BIG ? 0 : r;
}

int dc_dwarf_open(struct dc_elf *debug, struct dc_elf *alt, const struct dc_elf *program, struct dc_texts *texts,
		  size_t memory_bytes, struct dc_dwarf **ret_dwarf)
{
	CLEANUP(dc_dwarf) struct dc_dwarf *d = calloc(1, sizeof *d);
	struct ranges all = {0};
	int r;

	if (!d)
		return -ENOMEM;
	*d = (struct dc_dwarf){
		.debug = debug, .alt = alt, .program = program, .texts = texts, .bytes_max = memory_bytes / 2};
	if (alt)
		d->alt_dw = dwarf_begin_elf(dc_elf_handle(alt), DWARF_C_READ, NULL);
	r = open_libdw(d);
	if (r == 0)
		r = find_units(d, &all);
	if (r == 0)
		r = find_aranges(d, &all);
	if (r == 0)
		r = dc_segments_build(all.list, all.count, &d->segments, &d->segment_count);
	free(all.list);
	if (r < 0)
		return r;
	*ret_dwarf = TAKE(d);
	return 0;
}

static void unload(struct dc_dwarf *d, struct unit *u)
{
	free(u->functions);
	free(u->segments);
	free(u->rows);
	d->table_bytes -= u->bytes;
	*u = (struct unit){.die = u->die};
}

void dc_dwarf_close(struct dc_dwarf *d)
{
	if (!d)
		return;
	for (uint32_t i = 0; i < d->unit_count; i++)
		unload(d, &d->units[i]);
	free(d->units);
	free(d->segments);
	if (d->dw)
		dwarf_end(d->dw);
	if (d->alt_dw)
		dwarf_end(d->alt_dw);
	free(d);
}

/* --- a unit's functions --- */

struct walk {
	struct dc_dwarf *d;
	struct unit *u;
	const uint32_t *files; /* texts, by the numbers of the unit's file table */
	size_t file_count;
	uint32_t room;
	uint32_t dies;
	uint32_t rank;
	struct ranges ranges;
};

static bool number_of(Dwarf_Die *die, unsigned attribute, Dwarf_Word *ret_value)
{
	Dwarf_Attribute a;

	return dwarf_attr(die, attribute, &a) && dwarf_formudata(&a, ret_value) == 0;
}

static int add_function(struct walk *w, Dwarf_Die *die, uint32_t parent)
{
	struct unit *u = w->u;
	struct function f = {.die = (uint32_t)dwarf_cuoffset(die), .parent = parent, .name = UNRESOLVED};
	size_t first = w->ranges.count;
	Dwarf_Word value;
	int r;

	r = add_ranges(w->d, die, u->function_count, &w->ranges);
	if (r <= 0)
		return r;
	if (GROW(u->functions, u->function_count, w->room, 64) < 0)
		return -ENOMEM;
	f.start = w->ranges.list[first].start;
	if (number_of(die, DW_AT_call_file, &value) && value < w->file_count)
		f.call_file = w->files[value];
	if (number_of(die, DW_AT_call_line, &value))
		f.call_line = (uint32_t)value;
	u->functions[u->function_count++] = f;
	return 1;
}

static int walk(struct walk *w, Dwarf_Die *die, uint32_t parent, uint32_t depth);

/* Numbered in postorder, the innermost at an address has the smallest number: so libdw chooses, too. */
static int visit_function(struct walk *w, Dwarf_Die *die, uint32_t parent, uint32_t depth)
{
	size_t first = w->ranges.count, end;
	int r = add_function(w, die, parent);

	if (r <= 0)
		return r;
	end = w->ranges.count;
	r = walk(w, die, w->u->function_count - 1, depth + 1);
	for (size_t i = first; i < end; i++)
		w->ranges.list[i].rank = w->rank;
	w->rank++;
	return r;
}

static int visit(struct walk *w, Dwarf_Die *die, uint32_t parent, uint32_t depth)
{
	switch (dwarf_tag(die)) {
	case DW_TAG_subprogram:
		parent = NO_PARENT;
		/* fall through */
	case DW_TAG_inlined_subroutine:
		return visit_function(w, die, parent, depth);
	case DW_TAG_lexical_block:
	case DW_TAG_try_block:
	case DW_TAG_catch_block:
	case DW_TAG_with_stmt:
	case DW_TAG_namespace:
	case DW_TAG_module:
	case DW_TAG_class_type:
	case DW_TAG_structure_type:
	case DW_TAG_union_type:
	case DW_TAG_enumeration_type:
		return walk(w, die, parent, depth + 1);
	default:
		return 0;
	}
}

static int walk(struct walk *w, Dwarf_Die *die, uint32_t parent, uint32_t depth)
{
	Dwarf_Die child;
	int r = 0;

	if (depth > DEPTH_MAX || dwarf_child(die, &child) != 0)
		return 0;
	do {
		if (w->dies++ == DIES_MAX)
			return -E2BIG;
		r = visit(w, &child, parent, depth);
	} while (r == 0 && dwarf_siblingof(&child, &child) == 0);
	return r;
}

/* --- its files and lines --- */

static const char *text_of(Dwarf_Die *die, unsigned attribute)
{
	Dwarf_Attribute a;

	return dwarf_formstring(dwarf_attr_integrate(die, attribute, &a));
}

/* Names that are not absolute begin in the directory that the compiler ran in. */
static uint32_t add_file(struct dc_dwarf *d, const char *directory, const char *name)
{
	char path[PATH_MAX];

	if (!name || name[0] == '/' || !directory ||
	    (size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path)
		return dc_texts_add(d->texts, name);
	return dc_texts_add(d->texts, path);
}

static int load_files(struct dc_dwarf *d, Dwarf_Die *die, uint32_t **ret_texts, size_t *ret_count)
{
	const char *directory = text_of(die, DW_AT_comp_dir);
	Dwarf_Files *files;
	size_t count;
	uint32_t *texts;

	if (dwarf_getsrcfiles(die, &files, &count) != 0)
		return 0;
	texts = calloc(count + 1, sizeof *texts);
	if (!texts)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		texts[i] = add_file(d, directory, dwarf_filesrc(files, i, NULL, NULL));
	*ret_texts = texts;
	*ret_count = count;
	return 0;
}

static struct row row_of(Dwarf_Lines *lines, size_t i, const uint32_t *texts, size_t text_count)
{
	Dwarf_Line *line = dwarf_onesrcline(lines, i);
	Dwarf_Addr address = 0;
	Dwarf_Files *files;
	bool end = true;
	int number = 0;
	size_t file;

	dwarf_lineaddr(line, &address);
	dwarf_lineendsequence(line, &end);
	dwarf_lineno(line, &number);
	if (end)
		return (struct row){.address = address, .file = SEQUENCE_END};
	if (dwarf_line_file(line, &files, &file) != 0 || file >= text_count)
		return (struct row){.address = address};
	return (struct row){.address = address, .file = texts[file], .line = (uint32_t)number};
}

/* Of several rows with one address the last one counts. */
static int load_rows(struct dc_dwarf *d, struct unit *u, Dwarf_Die *die, const uint32_t *texts, size_t text_count)
{
	Dwarf_Lines *lines;
	size_t count;

	if (dwarf_getsrclines(die, &lines, &count) != 0)
		return 0;
	d->dw_bytes += count * LIBDW_ROW_BYTES;
	if (!count || count > ROWS_MAX)
		return 0;
	u->rows = calloc(count, sizeof *u->rows);
	if (!u->rows)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct row row = row_of(lines, i, texts, text_count);

		if (u->row_count && u->rows[u->row_count - 1].address == row.address)
			u->row_count--;
		u->rows[u->row_count++] = row;
	}
	return 0;
}

/* --- load --- */

/* @ret_die: of the unit in this file; @ret_code: where its functions are, in a split unit another file's. */
static bool unit_dies(struct dc_dwarf *d, const struct unit *u, Dwarf_Die *ret_die, Dwarf_Die *ret_code)
{
	uint8_t type;

	if (!dwarf_offdie(d->dw, u->die, ret_die) ||
	    dwarf_cu_info(ret_die->cu, NULL, &type, NULL, NULL, NULL, NULL, NULL))
		return false;
	*ret_code = *ret_die;
	if (type == DW_UT_skeleton &&
	    (dwarf_cu_info(ret_die->cu, NULL, NULL, NULL, ret_code, NULL, NULL, NULL) || !ret_code->addr))
		*ret_code = *ret_die;
	return true;
}

static int load_functions(struct walk *w, Dwarf_Die *code)
{
	struct unit *u = w->u;
	int r = walk(w, code, NO_PARENT, 1);

	if (r == 0 || r == -E2BIG)
		r = dc_segments_build(w->ranges.list, w->ranges.count, &u->segments, &u->segment_count);
	free(w->ranges.list);
	return r;
}

static int load_from(struct dc_dwarf *d, struct unit *u, Dwarf_Die *die, Dwarf_Die *code)
{
	CLEANUP(free) uint32_t *files = NULL;
	CLEANUP(free) uint32_t *code_files = NULL;
	size_t file_count = 0, code_file_count = 0;
	struct walk w = {.d = d, .u = u};
	int r;

	r = load_files(d, die, &files, &file_count);
	if (r == 0)
		r = load_rows(d, u, die, files, file_count);
	if (r == 0 && code->cu != die->cu)
		r = load_files(d, code, &code_files, &code_file_count);
	if (r < 0)
		return r;
	w.files = code_files ? code_files : files;
	w.file_count = code_files ? code_file_count : file_count;
	return load_functions(&w, code);
}

static void make_room(struct dc_dwarf *d)
{
	while (d->table_bytes > d->bytes_max) {
		struct unit *oldest = NULL;

		for (struct unit *u = d->units; u < d->units + d->unit_count; u++)
			if (u->loaded && u->bytes && (!oldest || u->used < oldest->used))
				oldest = u;
		if (!oldest)
			return;
		unload(d, oldest);
	}
	if (++d->loads % LOADS == 0)
		dc_elf_forget(d->debug);
	if (d->dw_bytes > d->bytes_max) {
		dwarf_end(d->dw);
		d->dw = NULL;
		open_libdw(d);
	}
}

/* What cannot be read is as if it were not there; it is not tried again. */
static void load(struct dc_dwarf *d, struct unit *u)
{
	Dwarf_Die die, code;

	make_room(d);
	if (!d->dw)
		return;
	if (unit_dies(d, u, &die, &code))
		load_from(d, u, &die, &code);
	u->loaded = true;
	u->bytes = u->function_count * sizeof *u->functions + u->segment_count * sizeof *u->segments +
		   u->row_count * sizeof *u->rows;
	d->table_bytes += u->bytes;
}

/* --- look up --- */

static uint32_t name_of(struct dc_dwarf *d, const struct unit *u, const struct function *f)
{
	char buffer[DC_DEMANGLED_BYTES];
	Dwarf_Die unit, code, die;
	const char *name;

	if (!d->dw || !unit_dies(d, u, &unit, &code) ||
	    !dwarf_offdie(dwarf_cu_getdwarf(code.cu), dwarf_dieoffset(&code) - dwarf_cuoffset(&code) + f->die, &die))
		return 0;
	name = text_of(&die, DW_AT_linkage_name);
	if (!name)
		name = text_of(&die, DW_AT_MIPS_linkage_name);
	if (!name)
		name = dwarf_diename(&die);
	return name ? dc_texts_add(d->texts, dc_demangle(name, buffer)) : 0;
}

static void place_at(const struct unit *u, uint64_t address, struct dc_level *ret_level)
{
	size_t low = 0, high = u->row_count;
	const struct row *row;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (u->rows[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	row = low ? &u->rows[low - 1] : NULL;
	if (!row || row->file == SEQUENCE_END)
		return;
	ret_level->file = row->file;
	ret_level->line = row->line;
}

static unsigned functions_at(struct dc_dwarf *d, struct unit *u, uint64_t address, struct dc_level *ret_levels,
			     unsigned room)
{
	uint32_t n = dc_segments_at(u->segments, u->segment_count, address);
	unsigned count = 0;

	for (; n != NO_PARENT && count < room; n = u->functions[n].parent) {
		struct function *f = &u->functions[n];

		if (f->name == UNRESOLVED)
			f->name = name_of(d, u, f);
		ret_levels[count].function = f->name;
		ret_levels[count++].start = f->start;
		if (f->parent != NO_PARENT && count < room) {
			ret_levels[count].file = f->call_file;
			ret_levels[count].line = f->call_line;
		}
	}
	return count;
}

unsigned dc_dwarf_at(struct dc_dwarf *d, uint64_t address, struct dc_level *ret_levels, unsigned room)
{
	uint32_t n = dc_segments_at(d->segments, d->segment_count, address);
	struct unit *u;

	memset(ret_levels, 0, room * sizeof *ret_levels);
	if (n == DC_SEGMENT_NONE || !room)
		return 0;
	u = &d->units[n];
	if (!u->loaded)
		load(d, u);
	u->used = ++d->clock;
	place_at(u, address, &ret_levels[0]);
	return functions_at(d, u, address, ret_levels, room);
}
