/* SPDX-License-Identifier: MIT */
/*
 * DWARF first, then symbols; every answer is kept. Of which files:
 *
 *     program ─── has .debug_info? ── yes ──────────────────► DWARF
 *        │             └─ no ── debug_file.h finds one? ──────► DWARF, of it and of the file dwz made
 *        └── .symtab, else that of the debug file, else .dynsym and .gnu_debugdata ──► symbols
 */
#include "persist/stacks/symbols.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "persist/stacks/answers.h"
#include "persist/stacks/debug_file.h"
#include "persist/stacks/demangle.h"
#include "persist/stacks/dwarf.h"
#include "persist/stacks/elf_file.h"
#include "persist/stacks/symbol_table.h"
#include "persist/stacks/texts.h"

#define TEXTS_BYTES (64u << 20)
#define DWARF_BYTES (128u << 20)
#define ANSWERS_MAX (1u << 20) /* then all are forgotten; texts are not */
#define DYNAMIC 1u
#define UNPACKED 2u
#define TABLE 3u
#define SEPARATE 4u

struct dc_symbols {
	struct dc_elf *program;
	struct dc_elf *debug; /* a separate file, or NULL */
	struct dc_elf *alt;
	struct dc_elf *unpacked;
	bool lines;
	size_t memory_bytes;
	bool built;
	bool table_own; /* has .symtab itself */
	bool kernel; /* names in the table are texts */
	struct dc_texts *texts;
	struct dc_symbol_table *table;
	struct dc_dwarf *dwarf;
	struct dc_answers *answers;
};

static const char *const default_dirs[] = {"/usr/lib/debug", NULL};

/* --- open --- */

static int symbols_new(struct dc_symbols **ret_symbols)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	r = dc_texts_new(TEXTS_BYTES, &s->texts);
	if (r == 0)
		r = dc_symbol_table_new(&s->table);
	if (r == 0)
		r = dc_answers_new(&s->answers);
	if (r < 0)
		return r;
	*ret_symbols = TAKE(s);
	return 0;
}

static bool has_section(struct dc_elf *e, const char *name)
{
	size_t bytes;

	return dc_elf_section(e, name, &bytes);
}

static void find_files(struct dc_symbols *s, const char *path, const char *const *dirs)
{
	struct dc_elf *with_dwarf = s->program;

	s->table_own = has_section(s->program, ".symtab");
	if ((!s->table_own || s->lines) && !dc_elf_has_dwarf(s->program)) {
		dc_debug_file_find(s->program, path, dirs, &s->debug);
		with_dwarf = s->debug;
	}
	if (with_dwarf && s->lines)
		dc_debug_file_find_alt(with_dwarf, path, dirs, &s->alt);
}

int dc_symbols_open(int fd, const char *path, const struct dc_symbols_options *options, struct dc_symbols **ret_symbols)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = NULL;
	int r;

	r = symbols_new(&s);
	if (r == 0)
		r = dc_elf_open(fd, &s->program);
	if (r < 0)
		return r;
	s->lines = !options || options->lines;
	s->memory_bytes = options && options->memory_bytes ? options->memory_bytes : DWARF_BYTES;
	find_files(s, path, options && options->debug_dirs ? options->debug_dirs : default_dirs);
	*ret_symbols = TAKE(s);
	return 0;
}

void dc_symbols_close(struct dc_symbols *s)
{
	if (!s)
		return;
	dc_answers_free(s->answers);
	dc_dwarf_close(s->dwarf);
	dc_symbol_table_free(s->table);
	dc_texts_free(s->texts);
	dc_elf_close(s->unpacked);
	dc_elf_close(s->alt);
	dc_elf_close(s->debug);
	dc_elf_close(s->program);
	free(s);
}

unsigned dc_symbols_source(struct dc_symbols *s)
{
	if (s->kernel)
		return DC_SYMBOLS_TABLE;
	if (s->lines && (dc_elf_has_dwarf(s->program) || (s->debug && dc_elf_has_dwarf(s->debug))))
		return DC_SYMBOLS_DWARF;
	if (s->table_own || (s->debug && has_section(s->debug, ".symtab")))
		return DC_SYMBOLS_TABLE;
	return has_section(s->program, ".dynsym") ? DC_SYMBOLS_DYNAMIC : DC_SYMBOLS_NONE;
}

/* --- tables --- */

static void add_dynamic(struct dc_symbols *s)
{
	dc_elf_add_symbols(s->program, ".dynsym", s->program, DYNAMIC, s->table);
	if (dc_debug_file_unpack(s->program, &s->unpacked) == 0)
		dc_elf_add_symbols(s->unpacked, ".symtab", s->program, UNPACKED, s->table);
}

/* What cannot be read is left out. */
static void build(struct dc_symbols *s)
{
	struct dc_elf *with_dwarf = s->debug ? s->debug : s->program;

	s->built = true;
	if (dc_elf_add_symbols(s->program, ".symtab", s->program, TABLE, s->table) < 0 &&
	    (!s->debug || dc_elf_add_symbols(s->debug, ".symtab", s->program, SEPARATE, s->table) < 0))
		add_dynamic(s);
	dc_symbol_table_build(s->table);
	if (s->lines)
		dc_dwarf_open(with_dwarf, s->alt, s->program, s->texts, s->memory_bytes, &s->dwarf);
}

static uint32_t symbol_text(struct dc_symbols *s, const struct dc_table_symbol *symbol)
{
	char buffer[DC_DEMANGLED_BYTES];
	const char *name = "";

	if (s->kernel)
		return symbol->name;
	if (symbol->source == DYNAMIC)
		name = dc_elf_symbol_name(s->program, ".dynsym", symbol->name);
	else if (symbol->source == UNPACKED)
		name = dc_elf_symbol_name(s->unpacked, ".symtab", symbol->name);
	else
		name = dc_elf_symbol_name(symbol->source == SEPARATE ? s->debug : s->program, ".symtab", symbol->name);
	return dc_texts_add(s->texts, dc_demangle(name, buffer));
}

/* A function without a name in its DWARF has its symbol's. */
static unsigned ask(struct dc_symbols *s, uint64_t vaddr, struct dc_level levels[static DC_SYMBOLS_CHAIN_MAX])
{
	const struct dc_table_symbol *symbol = dc_symbol_table_at(s->table, vaddr);
	struct dc_level *outer = levels;
	unsigned count = 0;

	memset(levels, 0, sizeof *levels);
	if (s->dwarf)
		count = dc_dwarf_at(s->dwarf, vaddr, levels, DC_SYMBOLS_CHAIN_MAX);
	if (count)
		outer = &levels[count - 1];
	if (symbol) {
		if (!outer->function)
			outer->function = symbol_text(s, symbol);
		outer->start = symbol->start;
	}
	return count || symbol || outer->file ? (count ? count : 1) : 0;
}

/* --- answers --- */

static unsigned copy(const struct dc_symbols *s, const struct dc_level *levels, uint32_t count,
		     struct dc_symbol *ret_chain, unsigned room)
{
	if (count > room)
		count = room;
	for (unsigned i = 0; i < count; i++)
		ret_chain[i] = (struct dc_symbol){.function = dc_texts_at(s->texts, levels[i].function),
						  .file = dc_texts_at(s->texts, levels[i].file),
						  .line = levels[i].line,
						  .start = levels[i].start};
	return count;
}

unsigned dc_symbols_at(struct dc_symbols *s, uint64_t vaddr, struct dc_symbol *ret_chain, unsigned room)
{
	struct dc_level asked[DC_SYMBOLS_CHAIN_MAX];
	uint32_t count;
	const struct dc_level *levels = dc_answers_find(s->answers, vaddr, &count);

	if (levels)
		return copy(s, levels, count, ret_chain, room);
	if (!s->built)
		build(s);
	count = ask(s, vaddr, asked);
	if (dc_answers_count(s->answers) >= ANSWERS_MAX || dc_answers_level_count(s->answers) >= 4 * ANSWERS_MAX)
		dc_answers_forget(s->answers);
	dc_answers_add(s->answers, vaddr, asked, count); /* no memory: it is asked again */
	return copy(s, asked, count, ret_chain, room);
}

/* --- the kernel --- */

/* "ffffffff81000000 T _stext", "ffffffffc0001000 t ext4_map_blocks\t[ext4]". Return: false: not code, or not such a line. */
static bool parse_line(char *line, uint64_t *ret_start, char **ret_name)
{
	char *tab, *type;

	*ret_start = strtoull(line, &type, 16);
	if (type == line || type[0] != ' ' || !type[1] || !strchr("tTwW", type[1]) || type[2] != ' ')
		return false;
	type[strcspn(type, "\n")] = 0;
	tab = strchr(type, '\t');
	if (tab)
		*tab = ' ';
	*ret_name = type + 3;
	return **ret_name;
}

static int read_kallsyms(struct dc_symbols *s, FILE *f)
{
	bool any = false;
	char line[1024];
	uint64_t start;
	char *name;
	int r = 0;

	while (r == 0 && fgets(line, sizeof line, f)) {
		if (!parse_line(line, &start, &name) || !start)
			continue;
		any = true;
		r = dc_symbol_table_add(s->table, &(struct dc_table_symbol){.start = start,
									    .limit = UINT64_MAX,
									    .binding = 3,
									    .name = dc_texts_add(s->texts, name)});
	}
	if (r == 0 && ferror(f))
		return -EIO;
	return r < 0 ? r : any ? 0 : -EACCES;
}

int dc_symbols_open_kallsyms(int fd, struct dc_symbols **ret_symbols)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = NULL;
	CLEANUP(close_fd) int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	CLEANUP(fclose) FILE *f = own < 0 ? NULL : fdopen(own, "r");
	int r;

	if (!f)
		return -errno;
	own = -1;
	r = symbols_new(&s);
	if (r == 0)
		r = read_kallsyms(s, f);
	if (r == 0)
		r = dc_symbol_table_build(s->table);
	if (r < 0)
		return r;
	s->kernel = s->built = true;
	*ret_symbols = TAKE(s);
	return 0;
}

int dc_symbols_open_kernel(struct dc_symbols **ret_symbols)
{
	CLEANUP(close_fd) int fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : dc_symbols_open_kallsyms(fd, ret_symbols);
}
