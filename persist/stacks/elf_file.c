/* SPDX-License-Identifier: MIT */
#include "persist/stacks/elf_file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <gelf.h>

#define SEGMENTS_MAX 32u
#define SECTIONS_MAX (1u << 17)

struct stretch {
	uint64_t start;
	uint64_t end;
};

struct dc_elf {
	int fd;
	char *path; /* NULL: came by its descriptor or from memory */
	void *image; /* a copy in memory, else NULL */
	Elf *elf;
	uint16_t machine;
	struct stretch code[SEGMENTS_MAX];
	unsigned code_count;
	struct stretch *sections; /* that are loaded, by start */
	size_t section_count;
	const void *build_id;
	size_t build_id_bytes;
};

/* --- open --- */

static int check_header(struct dc_elf *e)
{
	GElf_Ehdr header;
	size_t sections;

	if (elf_kind(e->elf) != ELF_K_ELF || gelf_getclass(e->elf) != ELFCLASS64 || !gelf_getehdr(e->elf, &header))
		return -ENOEXEC;
	if (header.e_ident[EI_DATA] != (BYTE_ORDER == LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB))
		return -ENOEXEC;
	if (elf_getshdrnum(e->elf, &sections) < 0 || sections > SECTIONS_MAX)
		return -ENOEXEC;
	e->machine = header.e_machine;
	return 0;
}

static void find_code(struct dc_elf *e)
{
	size_t count = 0;
	GElf_Phdr p;

	if (elf_getphdrnum(e->elf, &count) < 0)
		return;
	for (size_t i = 0; i < count && i < 4096 && e->code_count < SEGMENTS_MAX; i++)
		if (gelf_getphdr(e->elf, (int)i, &p) && p.p_type == PT_LOAD && p.p_flags & PF_X &&
		    p.p_memsz <= UINT64_MAX - p.p_vaddr)
			e->code[e->code_count++] = (struct stretch){p.p_vaddr, p.p_vaddr + p.p_memsz};
}

static int by_start(const void *left, const void *right)
{
	const struct stretch *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

static int find_sections(struct dc_elf *e)
{
	size_t count = 0;
	GElf_Shdr s;

	if (elf_getshdrnum(e->elf, &count) < 0)
		return 0;
	e->sections = calloc(count + 1, sizeof *e->sections);
	if (!e->sections)
		return -ENOMEM;
	for (Elf_Scn *scn = NULL; (scn = elf_nextscn(e->elf, scn)) && e->section_count < count;)
		if (gelf_getshdr(scn, &s) && s.sh_flags & SHF_ALLOC && !(s.sh_flags & SHF_TLS) &&
		    s.sh_size <= UINT64_MAX - s.sh_addr)
			e->sections[e->section_count++] = (struct stretch){s.sh_addr, s.sh_addr + s.sh_size};
	qsort(e->sections, e->section_count, sizeof *e->sections, by_start);
	return 0;
}

static bool build_id_in(struct dc_elf *e, Elf_Data *data)
{
	size_t name, text;
	GElf_Nhdr note;

	for (size_t at = 0, next; data && (next = gelf_getnote(data, at, &note, &name, &text)) > at; at = next) {
		if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 || !note.n_descsz ||
		    memcmp((const char *)data->d_buf + name, "GNU", 4) != 0)
			continue;
		e->build_id = (const char *)data->d_buf + text;
		e->build_id_bytes = note.n_descsz;
		return true;
	}
	return false;
}

static void find_build_id(struct dc_elf *e)
{
	GElf_Shdr s;

	for (Elf_Scn *scn = NULL; (scn = elf_nextscn(e->elf, scn));)
		if (gelf_getshdr(scn, &s) && s.sh_type == SHT_NOTE && build_id_in(e, elf_getdata(scn, NULL)))
			return;
}

static int look_at(struct dc_elf *e)
{
	int r;

	if (!e->elf)
		return -ENOEXEC;
	r = check_header(e);
	if (r < 0)
		return r;
	find_code(e);
	find_build_id(e);
	return find_sections(e);
}

int dc_elf_open(int fd, struct dc_elf **ret_elf)
{
	CLEANUP(dc_elf) struct dc_elf *e = NULL;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(Elf64_Ehdr))
		return -ENOEXEC;
	e = calloc(1, sizeof *e);
	if (!e)
		return -ENOMEM;
	e->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (e->fd < 0)
		return -errno;
	elf_version(EV_CURRENT);
	e->elf = elf_begin(e->fd, ELF_C_READ_MMAP, NULL);
	r = look_at(e);
	if (r < 0)
		return r;
	*ret_elf = TAKE(e);
	return 0;
}

int dc_elf_open_path(const char *path, const struct dc_elf *other, struct dc_elf **ret_elf)
{
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat mine, its;
	int r;

	if (fd < 0)
		return -errno;
	if (other && other->fd >= 0 && fstat(fd, &mine) == 0 && fstat(other->fd, &its) == 0 &&
	    mine.st_dev == its.st_dev && mine.st_ino == its.st_ino)
		return -ELOOP;
	r = dc_elf_open(fd, ret_elf);
	if (r == 0)
		(*ret_elf)->path = strdup(path);
	return r;
}

int dc_elf_open_memory(const void *image, size_t bytes, struct dc_elf **ret_elf)
{
	CLEANUP(dc_elf) struct dc_elf *e = calloc(1, sizeof *e);
	int r;

	if (!e)
		return -ENOMEM;
	e->fd = -1;
	e->image = malloc(bytes ? bytes : 1);
	if (!e->image)
		return -ENOMEM;
	memcpy(e->image, image, bytes);
	elf_version(EV_CURRENT);
	e->elf = elf_memory(e->image, bytes);
	r = look_at(e);
	if (r < 0)
		return r;
	*ret_elf = TAKE(e);
	return 0;
}

void dc_elf_close(struct dc_elf *e)
{
	if (!e)
		return;
	elf_end(e->elf);
	free(e->sections);
	free(e->image);
	free(e->path);
	if (e->fd >= 0)
		close(e->fd);
	free(e);
}

struct Elf *dc_elf_handle(struct dc_elf *e)
{
	return e->elf;
}

int dc_elf_fd(const struct dc_elf *e)
{
	return e->fd;
}

const char *dc_elf_path(const struct dc_elf *e)
{
	return e->path;
}

/*
 * libelf maps the file read-only and keeps what it changes or unpacks elsewhere, so nothing is lost. Where it could not
 * map, the image is on the heap, which never gives out whole pages from their beginning.
 */
void dc_elf_forget(struct dc_elf *e)
{
	size_t bytes = 0;
	char *image = e->image ? NULL : elf_rawfile(e->elf, &bytes);

	if (image && (uintptr_t)image % (uintptr_t)sysconf(_SC_PAGESIZE) == 0)
		madvise(image, bytes, MADV_DONTNEED);
}

/* --- sections --- */

static Elf_Scn *find_section(struct dc_elf *e, const char *name, GElf_Shdr *ret_header)
{
	size_t names;

	if (elf_getshdrstrndx(e->elf, &names) < 0)
		return NULL;
	for (Elf_Scn *scn = NULL; (scn = elf_nextscn(e->elf, scn));) {
		const char *its;

		if (!gelf_getshdr(scn, ret_header) || ret_header->sh_type == SHT_NOBITS)
			continue;
		its = elf_strptr(e->elf, names, ret_header->sh_name);
		if (its && strcmp(its, name) == 0)
			return scn;
	}
	return NULL;
}

bool dc_elf_has_dwarf(struct dc_elf *e)
{
	GElf_Shdr s;

	return find_section(e, ".debug_info", &s) || find_section(e, ".zdebug_info", &s);
}

const void *dc_elf_section(struct dc_elf *e, const char *name, size_t *ret_bytes)
{
	GElf_Shdr s;
	Elf_Scn *scn = find_section(e, name, &s);
	Elf_Data *data = scn ? elf_rawdata(scn, NULL) : NULL;

	if (!data || !data->d_buf || !data->d_size)
		return NULL;
	*ret_bytes = data->d_size;
	return data->d_buf;
}

size_t dc_elf_build_id(struct dc_elf *e, const void **ret_build_id)
{
	*ret_build_id = e->build_id;
	return e->build_id_bytes;
}

bool dc_elf_executable(const struct dc_elf *e, uint64_t address)
{
	for (unsigned i = 0; i < e->code_count; i++)
		if (address >= e->code[i].start && address < e->code[i].end)
			return true;
	return !e->code_count;
}

/* --- symbols --- */

static uint64_t section_end(const struct dc_elf *e, uint64_t address)
{
	size_t low = 0, high = e->section_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (e->sections[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low && address < e->sections[low - 1].end ? e->sections[low - 1].end : address + 1;
}

static uint8_t binding_of(const GElf_Sym *s)
{
	switch (GELF_ST_BIND(s->st_info)) {
	case STB_GLOBAL:
		return 3;
	case STB_WEAK:
		return 2;
	case STB_LOCAL:
		return 1;
	default:
		return 0;
	}
}

/* @name is in the file's string table, so it ends. The marks of ARM say what kind of bytes follow, not whose. */
static bool names_code(const struct dc_elf *e, const GElf_Sym *s, const char *name)
{
	unsigned type = GELF_ST_TYPE(s->st_info);

	if (s->st_shndx == SHN_UNDEF || type == STT_SECTION || type == STT_FILE || type == STT_TLS || !name || !*name)
		return false;
	return !(e->machine == EM_AARCH64 && name[0] == '$' && strchr("xd", name[1]));
}

static Elf_Scn *symbol_section(struct dc_elf *e, const char *section, GElf_Shdr *ret_header)
{
	Elf_Scn *scn = find_section(e, section, ret_header);

	return scn && (ret_header->sh_type == SHT_SYMTAB || ret_header->sh_type == SHT_DYNSYM) ? scn : NULL;
}

int dc_elf_add_symbols(struct dc_elf *e, const char *section, const struct dc_elf *layout, uint8_t source,
		       struct dc_symbol_table *t)
{
	GElf_Shdr header;
	Elf_Scn *scn = symbol_section(e, section, &header);
	Elf_Data *data = scn ? elf_getdata(scn, NULL) : NULL;
	int count = 0;
	GElf_Sym s;

	if (!data || !header.sh_entsize)
		return -ENOENT;
	for (int i = 1; gelf_getsym(data, i, &s); i++) {
		bool absolute = s.st_shndx >= SHN_LORESERVE && s.st_shndx != SHN_XINDEX;
		struct dc_table_symbol symbol = {.start = s.st_value, .size = s.st_size, .name = s.st_name};
		int r;

		if (!names_code(e, &s, elf_strptr(e->elf, header.sh_link, s.st_name)))
			continue;
		symbol.binding = binding_of(&s);
		symbol.local = (unsigned)i < header.sh_info;
		symbol.source = source;
		symbol.limit = absolute ? s.st_value + 1 : section_end(layout, s.st_value);
		r = dc_symbol_table_add(t, &symbol);
		if (r < 0)
			return r;
		count++;
	}
	return count;
}

const char *dc_elf_symbol_name(struct dc_elf *e, const char *section, uint32_t name)
{
	GElf_Shdr header;
	const char *text = symbol_section(e, section, &header) ? elf_strptr(e->elf, header.sh_link, name) : NULL;

	return text ? text : "";
}
