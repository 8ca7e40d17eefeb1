/* SPDX-License-Identifier: MIT */
/*
 * symbolcheck FILE STEP: what dc_symbols_at() says of every STEP-th address of the code of FILE, and of the beginning of
 * each function, against `eu-addr2line -f -i`. Names are compared demangled, files and lines as they are. Three kinds of
 * answers that are not the same have a reason, which is checked one by one (by libdw); the rest is different, and shown:
 *
 *   more     it sees only the symbol there: it does not look into namespaces (Rust and clang write functions there), nor
 *            into other units (link-time optimisation); symbol and line are the same as ours
 *   row      its chain is that of the beginning of the line's row, not of the address (dwfl_lineinfo() changes it):
 *            ours for that address is the same
 *   outside  no unit has code at the address, but it gives the last line of the unit before
 *
 * symbolcheck --llvm FILE STEP: functions (not lines) against llvm-symbolizer
 * symbolcheck --sparse FILE STEP: as without, but only every STEP-th address, not the beginnings of functions
 * symbolcheck --measure FILE STEP: how long it takes
 * symbolcheck --all FILE STEP, --print FILE ADDRESS...: the chains, in the form of eu-addr2line -f -i (without columns)
 * symbolcheck --tight FILE STEP: as --all, but no table is kept
 *
 * --debug-dir DIR before all this: where else debug info may be
 */
#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <elfutils/libdwfl.h>

#include "ipc/cleanup.h"
#include "persist/stacks/demangle.h"
#include "persist/stacks/symbols.h"

#define SHOWN_MAX 15u
#define LINE_BYTES 65536u

static struct { /* FILE's .symtab */
	const Elf64_Sym *symbols;
	size_t count;
	const char *texts;
} named;

struct addresses {
	uint64_t *list;
	size_t count;
	size_t room;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "symbolcheck: %s: %s\n", what, why);
	exit(2);
}

static void add(struct addresses *a, uint64_t address)
{
	if (a->count == a->room) {
		a->room = a->room ? a->room * 2 : 1024;
		a->list = realloc(a->list, a->room * sizeof *a->list);
		if (!a->list)
			die("addresses", "no memory");
	}
	a->list[a->count++] = address;
}

static int ascending(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

/* FILE is one of ours or of the compiler's: it is believed, and stays mapped. */
static void collect(const char *path, uint64_t step, bool functions, struct addresses *ret)
{
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	size_t kept = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path, "cannot be read");
	const uint8_t *image = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (image == MAP_FAILED)
		die(path, "cannot be mapped");
	const Elf64_Ehdr *e = (const void *)image;
	const Elf64_Shdr *s = (const void *)(image + e->e_shoff);
	for (unsigned i = 0; i < e->e_shnum; i++) {
		if (s[i].sh_type == SHT_PROGBITS && s[i].sh_flags & SHF_EXECINSTR)
			for (uint64_t at = 0; at < s[i].sh_size; at += step)
				add(ret, s[i].sh_addr + at);
		if (!functions || (s[i].sh_type != SHT_SYMTAB && s[i].sh_type != SHT_DYNSYM))
			continue;
		const Elf64_Sym *symbols = (const void *)(image + s[i].sh_offset);
		if (s[i].sh_type == SHT_SYMTAB) {
			named.symbols = symbols;
			named.count = s[i].sh_size / sizeof *symbols;
			named.texts = (const char *)image + s[s[i].sh_link].sh_offset;
		}
		for (size_t n = 0; n < s[i].sh_size / sizeof *symbols; n++)
			if (ELF64_ST_TYPE(symbols[n].st_info) == STT_FUNC && symbols[n].st_shndx != SHN_UNDEF)
				add(ret, symbols[n].st_value);
	}
	qsort(ret->list, ret->count, sizeof *ret->list, ascending);
	for (size_t i = 0; i < ret->count; i++)
		if (!kept || ret->list[kept - 1] != ret->list[i])
			ret->list[kept++] = ret->list[i];
	ret->count = kept;
}

static const char *const *debug_dirs; /* NULL: the default */
static size_t memory_bytes; /* 0: the default */

static struct dc_symbols *open_symbols(const char *path, bool lines)
{
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct dc_symbols *s = NULL;
	int r = fd < 0 ? -1
		       : dc_symbols_open(fd, path,
					 &(struct dc_symbols_options){.debug_dirs = debug_dirs,
								      .lines = lines,
								      .memory_bytes = memory_bytes},
					 &s);

	if (r < 0)
		die(path, "has no symbols");
	return s;
}

/* --- theirs --- */

struct level {
	char *function;
	char *place; /* file:line */
};

struct chain {
	struct level levels[DC_SYMBOLS_CHAIN_MAX];
	unsigned count;
};

static char *copy(const char *text)
{
	char *c = strdup(text);

	if (!c)
		die("a line", "no memory");
	return c;
}

/* "NAME", or "NAME inlined at FILE:LINE in SYMBOL" */
static char *take_function(char *line)
{
	static char buffer[DC_DEMANGLED_BYTES];
	static const char *const marks[] = {" inlined at ", " inlined from ", " inlined in "};

	for (unsigned i = 0; i < sizeof marks / sizeof *marks; i++) {
		char *mark = strstr(line, marks[i]);

		if (mark)
			*mark = 0;
	}
	return copy(strcmp(line, "??") == 0 ? "" : dc_demangle(line, buffer));
}

/* "FILE:LINE" or "FILE:LINE:COLUMN" */
static char *take_place(char *line)
{
	char *last = strrchr(line, ':'), *before;

	if (!last)
		return copy(line);
	*last = 0;
	before = strrchr(line, ':');
	if (!before || !before[1] || strspn(before + 1, "0123456789") != strlen(before + 1))
		*last = ':';
	return copy(strcmp(line, "??:0") == 0 ? ":0" : line);
}

static void clear(struct chain *c)
{
	while (c->count) {
		free(c->levels[--c->count].function);
		free(c->levels[c->count].place);
	}
}

static bool get_line(FILE *f, char line[static LINE_BYTES])
{
	if (!fgets(line, LINE_BYTES, f))
		return false;
	line[strcspn(line, "\n")] = 0;
	return true;
}

/* @line holds "0x..." and afterwards that of the next address, or nothing at the end. */
static void read_chain(FILE *f, char line[static LINE_BYTES], struct chain *ret)
{
	clear(ret);
	for (line[0] = 0; get_line(f, line) && strncmp(line, "0x", 2) != 0; line[0] = 0) {
		struct level *l = &ret->levels[ret->count];

		if (ret->count == DC_SYMBOLS_CHAIN_MAX)
			continue;
		l->function = take_function(line);
		if (!get_line(f, line))
			die("eu-addr2line", "its output ends early");
		l->place = take_place(line);
		ret->count++;
	}
}

/* --- compare --- */

struct totals {
	uint64_t asked, same, more, row, outside, different, named, inlined;
};

static bool functions_only; /* --llvm: it writes files in another form */
static Dwfl_Module *module; /* FILE, as eu-addr2line has it */
static struct dc_symbols *symbols_only; /* of FILE, without DWARF */

static bool same_level(const struct dc_symbol *ours, const struct level *theirs)
{
	char place[LINE_BYTES];

	snprintf(place, sizeof place, "%s:%u", ours->file, ours->line);
	return strcmp(ours->function, theirs->function) == 0 && (functions_only || strcmp(place, theirs->place) == 0);
}

static bool same_chain(const struct dc_symbol *ours, unsigned count, const struct chain *theirs)
{
	if (count == 0)
		return theirs->count == 1 &&
		       same_level(&(struct dc_symbol){.function = "", .file = ""}, theirs->levels);
	if (count != theirs->count)
		return false;
	for (unsigned i = 0; i < count; i++)
		if (!same_level(&ours[i], &theirs->levels[i]))
			return false;
	return true;
}

/* Also another name of it: of functions with one code linkers keep one, under the names of all. */
static bool is_alias(uint64_t start, const char *function)
{
	char buffer[DC_DEMANGLED_BYTES];

	for (size_t i = 0; i < named.count; i++)
		if (named.symbols[i].st_value == start &&
		    strcmp(dc_demangle(named.texts + named.symbols[i].st_name, buffer), function) == 0)
			return true;
	return false;
}

static bool is_symbol(uint64_t address, const struct level *theirs)
{
	struct dc_symbol symbol;

	return dc_symbols_at(symbols_only, address, &symbol, 1) == 1 &&
	       (strcmp(symbol.function, theirs->function) == 0 || is_alias(symbol.start, theirs->function));
}

/* They saw the symbol and the line only, and both agree with ours. */
static bool symbol_alone(uint64_t address, const struct dc_symbol *ours, const struct chain *theirs)
{
	char place[LINE_BYTES];

	snprintf(place, sizeof place, "%s:%u", ours[0].file, ours[0].line);
	return theirs->count == 1 && strcmp(place, theirs->levels[0].place) == 0 &&
	       is_symbol(address, &theirs->levels[0]);
}

static bool unit_at(uint64_t address, Dwarf_Die *ret_unit)
{
	Dwarf_Addr bias;
	Dwarf *dwarf = dwfl_module_getdwarf(module, &bias);

	return dwarf && dwarf_addrdie(dwarf, address, ret_unit) && dwarf_haspc(ret_unit, address) > 0;
}

/* The innermost is that of the address, the rest is that of the row's beginning. */
static bool of_row(struct dc_symbols *s, uint64_t address, const struct dc_symbol *ours, const struct chain *theirs)
{
	struct dc_symbol at_row[DC_SYMBOLS_CHAIN_MAX];
	Dwarf_Line *line;
	Dwarf_Addr start;
	Dwarf_Die unit;
	unsigned count;

	if (!unit_at(address, &unit) || !(line = dwarf_getsrc_die(&unit, address)) || dwarf_lineaddr(line, &start) ||
	    !same_level(&ours[0], &theirs->levels[0]))
		return false;
	count = dc_symbols_at(s, start, at_row, DC_SYMBOLS_CHAIN_MAX);
	at_row[0] = ours[0];
	return same_chain(at_row, count, theirs);
}

/* llvm-symbolizer takes the name of the outermost function from the symbols: main.cold, an alias. */
static bool same_but_symbol(uint64_t address, struct dc_symbol *ours, unsigned count, const struct chain *theirs)
{
	if (!count || count != theirs->count || !is_symbol(address, &theirs->levels[count - 1]))
		return false;
	ours[count - 1].function = theirs->levels[count - 1].function;
	return same_chain(ours, count, theirs);
}

static bool outside(uint64_t address, const struct dc_symbol *ours, unsigned count, const struct chain *theirs)
{
	Dwarf_Die unit;

	return !unit_at(address, &unit) && count <= 1 && theirs->count == 1 && (!count || !ours[0].line) &&
	       (functions_only || strcmp(count ? ours[0].function : "", theirs->levels[0].function) == 0);
}

static void show(uint64_t address, const struct dc_symbol *ours, unsigned count, const struct chain *theirs)
{
	printf("%#" PRIx64 "\n", address);
	for (unsigned i = 0; i < count; i++)
		printf("  ours   %s %s:%u\n", ours[i].function, ours[i].file, ours[i].line);
	for (unsigned i = 0; i < theirs->count; i++)
		printf("  theirs %s %s\n", theirs->levels[i].function, theirs->levels[i].place);
}

static void compare(struct dc_symbols *s, uint64_t address, const struct chain *theirs, struct totals *t)
{
	struct dc_symbol ours[DC_SYMBOLS_CHAIN_MAX];
	unsigned count = dc_symbols_at(s, address, ours, DC_SYMBOLS_CHAIN_MAX);

	t->asked++;
	t->named += count && ours[0].function[0];
	t->inlined += count > 1;
	if (same_chain(ours, count, theirs))
		t->same++;
	else if (count && of_row(s, address, ours, theirs))
		t->row++;
	else if (functions_only && same_but_symbol(address, ours, count, theirs))
		t->more++;
	else if (outside(address, ours, count, theirs))
		t->outside++;
	else if (count && !functions_only && symbol_alone(address, ours, theirs))
		t->more++;
	else if (t->different++ < SHOWN_MAX)
		show(address, ours, count, theirs);
}

static Dwfl *open_theirs(const char *path)
{
	static char *where;
	static const Dwfl_Callbacks callbacks = {.find_debuginfo = dwfl_standard_find_debuginfo,
						 .section_address = dwfl_offline_section_address,
						 .debuginfo_path = &where};
	Dwfl *dwfl = dwfl_begin(&callbacks);

	where = debug_dirs ? (char *)debug_dirs[0] : NULL;
	module = dwfl_report_offline(dwfl, path, path, -1);
	if (!module || dwfl_report_end(dwfl, NULL, NULL) < 0)
		die(path, "cannot be opened by libdwfl");
	return dwfl;
}

static FILE *ask_them(const char *path, const struct addresses *a, char name[static 32])
{
	char command[4200];
	FILE *f;

	strcpy(name, "/tmp/symbolcheck.XXXXXX");
	int fd = mkstemp(name);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		die(name, "cannot be written");
	for (size_t i = 0; i < a->count; i++)
		fprintf(f, "%#" PRIx64 "\n", a->list[i]);
	fclose(f);
	if ((size_t)snprintf(command, sizeof command, "%s%s%s -e '%s' <'%s'",
			     functions_only ? "llvm-symbolizer -f -i -a --no-demangle --output-style=GNU"
					    : "eu-addr2line -f -i -a",
			     debug_dirs && !functions_only ? " --debuginfo-path=" : "",
			     debug_dirs && !functions_only ? debug_dirs[0] : "", path, name) >= sizeof command)
		die(path, "is too long");
	f = popen(command, "re");
	if (!f)
		die("eu-addr2line", "cannot be run");
	return f;
}

static int check(const char *path, uint64_t step, bool functions)
{
	struct dc_symbols *s = open_symbols(path, true);
	struct addresses a = {0};
	struct totals t = {0};
	struct chain theirs = {.count = 0};
	static char line[LINE_BYTES];
	char name[32];
	FILE *f;

	collect(path, step, functions, &a);
	f = ask_them(path, &a, name);
	Dwfl *dwfl = open_theirs(path);
	symbols_only = open_symbols(path, false);
	if (!get_line(f, line))
		die("eu-addr2line", "says nothing");
	for (size_t i = 0; i < a.count; i++) {
		if (strtoull(line, NULL, 16) != a.list[i])
			die("eu-addr2line", "answers in another order");
		read_chain(f, line, &theirs);
		compare(s, a.list[i], &theirs, &t);
	}
	clear(&theirs);
	pclose(f);
	unlink(name);
	printf("%s: %" PRIu64 " addresses, %" PRIu64 " named, %" PRIu64 " inlined; %s: %" PRIu64 " same, %" PRIu64
	       " more, %" PRIu64 " row, %" PRIu64 " outside, %" PRIu64 " different\n",
	       path, t.asked, t.named, t.inlined, functions_only ? "llvm-symbolizer" : "eu-addr2line", t.same, t.more,
	       t.row, t.outside, t.different);
	free(a.list);
	dwfl_end(dwfl);
	dc_symbols_close(symbols_only);
	dc_symbols_close(s);
	return t.different > 0;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int measure(const char *path, uint64_t step)
{
	struct dc_symbol chain[DC_SYMBOLS_CHAIN_MAX];
	struct addresses a = {0};
	double from, cold, first;
	struct dc_symbols *s;
	unsigned levels = 0;

	collect(path, step, true, &a);
	from = seconds();
	s = open_symbols(path, true);
	dc_symbols_at(s, a.list[0], chain, DC_SYMBOLS_CHAIN_MAX);
	first = seconds() - from;
	for (size_t i = 0; i < a.count; i++)
		levels += dc_symbols_at(s, a.list[i], chain, DC_SYMBOLS_CHAIN_MAX);
	cold = seconds() - from;
	from = seconds();
	for (size_t i = 0; i < a.count; i++)
		dc_symbols_at(s, a.list[i], chain, DC_SYMBOLS_CHAIN_MAX);
	printf("%s: first answer %.1f ms, %zu cold in %.1f ms (%.2f us each, %u functions), again %.3f us each\n", path,
	       first * 1e3, a.count, cold * 1e3, cold / (double)a.count * 1e6, levels,
	       (seconds() - from) / (double)a.count * 1e6);
	free(a.list);
	dc_symbols_close(s);
	return 0;
}

static void print(struct dc_symbols *s, uint64_t address)
{
	struct dc_symbol chain[DC_SYMBOLS_CHAIN_MAX];
	unsigned count = dc_symbols_at(s, address, chain, DC_SYMBOLS_CHAIN_MAX);

	printf("%#" PRIx64 "\n", address);
	for (unsigned i = 0; i < count; i++)
		printf("%s\n%s:%u\n", chain[i].function, chain[i].file, chain[i].line);
	if (!count)
		printf("??\n??:0\n");
}

static int print_some(const char *path, char **addresses, int count)
{
	struct dc_symbols *s = open_symbols(path, true);

	for (int i = 0; i < count; i++)
		print(s, strtoull(addresses[i], NULL, 16));
	dc_symbols_close(s);
	return 0;
}

static int print_all(const char *path, uint64_t step)
{
	struct dc_symbols *s = open_symbols(path, true);
	struct addresses a = {0};

	collect(path, step, false, &a);
	for (size_t i = 0; i < a.count; i++)
		print(s, a.list[i]);
	free(a.list);
	dc_symbols_close(s);
	return 0;
}

int main(int argc, char **argv)
{
	static const char *dirs[2];
	const char *how = argc == 4 ? argv[1] : "";

	if (argc > 4 && strcmp(argv[1], "--debug-dir") == 0) {
		dirs[0] = argv[2];
		debug_dirs = dirs;
		argv += 2;
		argc -= 2;
		how = argc == 4 ? argv[1] : "";
	}
	memory_bytes = strcmp(how, "--tight") == 0;
	if (argc > 3 && strcmp(argv[1], "--print") == 0)
		return print_some(argv[2], argv + 3, argc - 3);
	if (argc < 3 || !strtoull(argv[argc - 1], NULL, 0))
		die("usage",
		    "symbolcheck [--debug-dir DIR] [--all|--tight|--llvm|--measure|--sparse] FILE STEP | --print FILE "
		    "ADDRESS...");
	if (strcmp(how, "--all") == 0 || memory_bytes)
		return print_all(argv[2], strtoull(argv[3], NULL, 0));
	if (strcmp(how, "--measure") == 0)
		return measure(argv[2], strtoull(argv[3], NULL, 0));
	functions_only = strcmp(how, "--llvm") == 0;
	return check(argv[argc - 2], strtoull(argv[argc - 1], NULL, 0), strcmp(how, "--sparse") != 0);
}
