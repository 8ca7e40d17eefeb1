/* SPDX-License-Identifier: MIT */
#include "persist/stacks/module.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE_MAX UINT64_C(65536) /* the largest page of the machines we know */
#define EH_PE_PCREL_SDATA4 0x1bu

/* @bytes at @offset of the file, NULL: not inside. */
static const void *image_at(const struct dc_module *m, uint64_t offset, uint64_t bytes)
{
	return offset <= m->bytes && bytes <= m->bytes - offset ? m->image + offset : NULL;
}

static int header_check(const struct dc_module *m, Elf64_Ehdr *ret_header)
{
	const void *at = image_at(m, 0, sizeof *ret_header);
	Elf64_Ehdr h;

	if (!at)
		return -ENOEXEC;
	memcpy(&h, at, sizeof h);
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
	    h.e_ident[EI_DATA] != ELFDATA2LSB)
		return -ENOEXEC;
	if ((h.e_type != ET_EXEC && h.e_type != ET_DYN) || (h.e_machine != EM_X86_64 && h.e_machine != EM_AARCH64))
		return -ENOEXEC;
	if (h.e_phentsize != sizeof(Elf64_Phdr) || !image_at(m, h.e_phoff, (uint64_t)h.e_phnum * sizeof(Elf64_Phdr)))
		return -EBADMSG;
	*ret_header = h;
	return 0;
}

/* A file that was cut has less than it says; what is there is of use. */
static uint64_t clip(const struct dc_module *m, uint64_t offset, uint64_t bytes)
{
	if (offset > m->bytes)
		return 0;
	return bytes < m->bytes - offset ? bytes : m->bytes - offset;
}

static int load_take(struct dc_module *m, const Elf64_Phdr *p)
{
	struct dc_module_segment *s = &m->segments[m->segment_count];

	if (p->p_vaddr + p->p_memsz < p->p_vaddr || p->p_offset + p->p_filesz < p->p_offset)
		return -EBADMSG;
	*s = (struct dc_module_segment){
		.vaddr = p->p_vaddr,
		.offset = p->p_offset,
		.file_bytes = clip(m, p->p_offset, p->p_filesz < p->p_memsz ? p->p_filesz : p->p_memsz),
		.memory_bytes = p->p_memsz,
		.executable = p->p_flags & PF_X,
	};
	m->segment_count++;
	return 0;
}

static void build_id_take(struct dc_module *m, const Elf64_Phdr *p)
{
	uint64_t align = p->p_align == 8 ? 8 : 4;
	uint64_t end = p->p_offset + clip(m, p->p_offset, p->p_filesz);

	for (uint64_t at = p->p_offset; at < end && end - at >= sizeof(Elf64_Nhdr) && !m->build_id_bytes;) {
		Elf64_Nhdr n;
		memcpy(&n, m->image + at, sizeof n);
		uint64_t name = at + sizeof n;
		uint64_t text = name + (n.n_namesz + align - 1) / align * align;
		uint64_t next = text + (n.n_descsz + align - 1) / align * align;

		if (text > end || n.n_descsz > end - text)
			return;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && memcmp(m->image + name, "GNU", 4) == 0 &&
		    n.n_descsz > 0 && n.n_descsz <= sizeof m->build_id) {
			memcpy(m->build_id, m->image + text, n.n_descsz);
			m->build_id_bytes = (uint8_t)n.n_descsz;
		}
		at = next;
	}
}

static int segments_take(struct dc_module *m, const Elf64_Ehdr *h)
{
	if (!(m->segments = calloc(h->e_phnum ? h->e_phnum : 1u, sizeof *m->segments)))
		return -ENOMEM;
	for (unsigned i = 0; i < h->e_phnum; i++) {
		Elf64_Phdr p;
		memcpy(&p, m->image + h->e_phoff + i * sizeof p, sizeof p);
		if (p.p_type == PT_LOAD) {
			int r = load_take(m, &p);
			if (r < 0)
				return r;
		} else if (p.p_type == PT_GNU_EH_FRAME) {
			m->eh_frame_hdr = p.p_vaddr;
			m->eh_frame_hdr_bytes = p.p_memsz;
		} else if (p.p_type == PT_NOTE && !m->build_id_bytes) {
			build_id_take(m, &p);
		}
	}
	return 0;
}

static void section_take(struct dc_module *m, const Elf64_Shdr *s, const char *name, uint64_t room)
{
	if (s->sh_type == SHT_NOBITS || (s->sh_flags & SHF_COMPRESSED) || !image_at(m, s->sh_offset, s->sh_size))
		return;
	if (room >= sizeof ".eh_frame" && memcmp(name, ".eh_frame", sizeof ".eh_frame") == 0) {
		m->eh_frame = s->sh_addr;
		m->eh_frame_bytes = s->sh_size;
	} else if (room >= sizeof ".debug_frame" && memcmp(name, ".debug_frame", sizeof ".debug_frame") == 0) {
		m->debug_frame_offset = s->sh_offset;
		m->debug_frame_bytes = s->sh_size;
	}
}

/* Files have no section table when they were stripped of it: then .eh_frame is known from its header only. */
static void sections_take(struct dc_module *m, const Elf64_Ehdr *h)
{
	Elf64_Shdr first, names, s;

	if (!h->e_shoff || h->e_shentsize != sizeof s || !image_at(m, h->e_shoff, sizeof s))
		return;
	memcpy(&first, m->image + h->e_shoff, sizeof first);
	uint64_t count = h->e_shnum ? h->e_shnum : first.sh_size;
	uint64_t names_index = h->e_shstrndx == SHN_XINDEX ? first.sh_link : h->e_shstrndx;
	if (count > m->bytes / sizeof s || !image_at(m, h->e_shoff, count * sizeof s) || names_index >= count)
		return;
	memcpy(&names, m->image + h->e_shoff + names_index * sizeof s, sizeof names);
	const char *texts = image_at(m, names.sh_offset, names.sh_size);
	for (uint64_t i = 0; texts && i < count; i++) {
		memcpy(&s, m->image + h->e_shoff + i * sizeof s, sizeof s);
		if (s.sh_name < names.sh_size)
			section_take(m, &s, texts + s.sh_name, names.sh_size - s.sh_name);
	}
}

static const struct dc_module_segment *segment_of(const struct dc_module *m, uint64_t vaddr)
{
	for (uint32_t i = 0; i < m->segment_count; i++)
		if (vaddr - m->segments[i].vaddr < m->segments[i].file_bytes)
			return &m->segments[i];
	return NULL;
}

/* Without a section table nothing says how long it is: it is taken to reach to the end of its segment. */
static void eh_frame_from_header(struct dc_module *m)
{
	const uint8_t *header = dc_module_at(m, m->eh_frame_hdr, 8);
	int32_t distance;

	if (!header || header[0] != 1 || header[1] != EH_PE_PCREL_SDATA4)
		return;
	memcpy(&distance, header + 4, sizeof distance);
	uint64_t at = m->eh_frame_hdr + 4 + (uint64_t)(int64_t)distance;
	const struct dc_module_segment *s = segment_of(m, at);
	if (s) {
		m->eh_frame = at;
		m->eh_frame_bytes = s->file_bytes - (at - s->vaddr);
	}
}

static int module_parse(struct dc_module *m)
{
	Elf64_Ehdr h;
	int r = header_check(m, &h);

	if (r < 0)
		return r;
	m->machine = h.e_machine;
	r = segments_take(m, &h);
	if (r < 0)
		return r;
	sections_take(m, &h);
	if (!m->eh_frame && m->eh_frame_hdr)
		eh_frame_from_header(m);
	return 0;
}

static int module_new(const void *image, size_t bytes, bool mapped, struct dc_module **ret_module)
{
	struct dc_module *m = calloc(1, sizeof *m);

	if (!m) {
		if (mapped)
			munmap((void *)(uintptr_t)image, bytes);
		return -ENOMEM;
	}
	*m = (struct dc_module){.image = image, .bytes = bytes, .mapped = mapped};
	int r = module_parse(m);
	if (r < 0) {
		dc_module_close(m);
		return r;
	}
	*ret_module = m;
	return 0;
}

int dc_module_open(int fd, struct dc_module **ret_module)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(Elf64_Ehdr))
		return -ENOEXEC;
	void *image = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (image == MAP_FAILED)
		return -errno;
	return module_new(image, (size_t)st.st_size, true, ret_module);
}

int dc_module_open_memory(const void *image, size_t bytes, struct dc_module **ret_module)
{
	return module_new(image, bytes, false, ret_module);
}

int dc_module_open_vdso(struct dc_module **ret_module)
{
	const uint8_t *image = (const uint8_t *)(uintptr_t)getauxval(AT_SYSINFO_EHDR);

	if (!image)
		return -ENOENT;
	/* The kernel's own: believed. It ends with its section table. */
	const Elf64_Ehdr *h = (const void *)image;
	uint64_t bytes = h->e_shoff + (uint64_t)h->e_shnum * h->e_shentsize;
	for (unsigned i = 0; i < h->e_phnum; i++) {
		const Elf64_Phdr *p = (const Elf64_Phdr *)(const void *)(image + h->e_phoff) + i;
		if (p->p_offset + p->p_filesz > bytes)
			bytes = p->p_offset + p->p_filesz;
	}
	return module_new(image, bytes, false, ret_module);
}

void dc_module_close(struct dc_module *m)
{
	if (!m)
		return;
	if (m->mapped)
		munmap((void *)(uintptr_t)m->image, m->bytes);
	free(m->segments);
	free(m);
}

bool dc_module_vaddr(const struct dc_module *m, uint64_t offset, uint64_t *ret_vaddr)
{
	const struct dc_module_segment *best = NULL;
	uint64_t best_cost = UINT64_MAX;

	for (uint32_t i = 0; i < m->segment_count; i++) {
		const struct dc_module_segment *s = &m->segments[i];
		uint64_t before = offset < s->offset ? s->offset - offset : 0; /* a mapping begins at a page */
		if (before >= PAGE_MAX || (!before && offset - s->offset >= s->file_bytes) || before > s->vaddr)
			continue;
		uint64_t cost = before + (s->executable ? 0 : PAGE_MAX);
		if (cost < best_cost) {
			best = s;
			best_cost = cost;
		}
	}
	if (!best)
		return false;
	*ret_vaddr = best->vaddr + (offset - best->offset);
	return true;
}

const void *dc_module_at(const struct dc_module *m, uint64_t vaddr, size_t bytes)
{
	const struct dc_module_segment *s = segment_of(m, vaddr);

	return s && bytes <= s->file_bytes - (vaddr - s->vaddr) ? m->image + s->offset + (vaddr - s->vaddr) : NULL;
}
