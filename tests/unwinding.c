/* SPDX-License-Identifier: MIT */
#include "unwinding.h"

#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dc_module *module_of(struct scene *s, const char *path, uint32_t i)
{
	static char paths[SCENE_MAPS_MAX][512];
	CLEANUP(close_fd) int fd = -1;

	snprintf(paths[i], sizeof paths[i], "%s", path);
	for (uint32_t k = 0; k < i; k++)
		if (s->modules[k] && strcmp(paths[k], path) == 0)
			return (struct dc_module *)(uintptr_t)s->maps[k].module;
	if (strcmp(path, "[vdso]") == 0)
		return dc_module_open_vdso(&s->modules[i]) < 0 ? NULL : s->modules[i];
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 || dc_module_open(fd, &s->modules[i]) < 0 ? NULL : s->modules[i];
}

static void map_take(struct scene *s, const char *line)
{
	struct dc_unwind_map *m = &s->maps[s->count];
	char path[512] = "", rights[8];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %*s %511s", &m->start, &m->end, rights,
		   &m->offset, path) < 4 ||
	    rights[2] != 'x')
		return;
	if (s->count == SCENE_MAPS_MAX)
		errx(1, "more mappings than a test has");
	const char *slash = strrchr(path, '/');
	snprintf(s->names[s->count], sizeof s->names[0], "%.63s", slash ? slash + 1 : path);
	m->module = *path ? module_of(s, path, s->count) : NULL;
	s->count++;
}

void scene_open(struct scene *s, pid_t pid)
{
	char path[64], line[1024];

	memset(s, 0, sizeof *s);
	snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
	CLEANUP(fclose) FILE *f = fopen(pid ? path : "/proc/self/maps", "re");
	while (f && fgets(line, sizeof line, f))
		map_take(s, line);
	if (!s->count || dc_unwinder_new(s->maps, s->count, &s->unwinder) < 0)
		errx(1, "no maps of %d", (int)pid);
}

void scene_close(struct scene *s)
{
	dc_unwinder_free(s->unwinder);
	for (uint32_t i = 0; i < s->count; i++)
		dc_module_close(s->modules[i]);
}

const char *scene_name(const struct scene *s, uint64_t address)
{
	for (uint32_t i = 0; i < s->count; i++)
		if (address >= s->maps[i].start && address < s->maps[i].end)
			return s->names[i];
	return "";
}

void regs_of(const ucontext_t *uc, uint64_t *ret_regs)
{
#if defined(__x86_64__)
	static const int order[DC_REGS] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
					   REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
					   REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
	for (unsigned i = 0; i < DC_REGS; i++)
		ret_regs[i] = (uint64_t)uc->uc_mcontext.gregs[order[i]];
#else
	memcpy(ret_regs, uc->uc_mcontext.regs, 31 * sizeof *ret_regs);
	ret_regs[DC_REG_SP] = uc->uc_mcontext.sp;
	ret_regs[DC_REG_PC] = uc->uc_mcontext.pc;
#endif
}

uint32_t functions_of(const struct dc_module *m, uint64_t **ret_begins)
{
	const uint8_t *header = m->eh_frame_hdr ? dc_module_at(m, m->eh_frame_hdr, 12) : NULL;
	uint32_t count = 0;
	int32_t entry[2]; /* both from the header: where code begins, its description */

	if (header)
		memcpy(&count, header + 8, sizeof count);
	const uint8_t *table = count ? dc_module_at(m, m->eh_frame_hdr + 12, count * sizeof entry) : NULL;
	*ret_begins = table ? calloc(count, sizeof **ret_begins) : NULL;
	for (uint32_t i = 0; *ret_begins && i < count; i++) {
		memcpy(entry, table + i * sizeof entry, sizeof entry);
		(*ret_begins)[i] = m->eh_frame_hdr + (uint64_t)(int64_t)entry[0];
	}
	return *ret_begins ? count : 0;
}

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#define RETURN_COLUMN 16
#define STACK_COLUMN 7
#else
#define MACHINE EM_AARCH64
#define RETURN_COLUMN 30
#define STACK_COLUMN 31
#endif

/* A record of .eh_frame: its length, then @bytes of @body, filled up with DW_CFA_nop. */
static unsigned record_put(uint8_t *at, const void *body, unsigned bytes, unsigned room)
{
	uint32_t length = room - 4;

	memset(at, 0, room);
	memcpy(at, &length, sizeof length);
	memcpy(at + 4, body, bytes);
	return room;
}

static unsigned frames_make(const uint8_t *rules, unsigned bytes, uint8_t *at)
{
	/* version 1, "zR", code 1, data -8, return column, one byte: pc-relative of 4; CFA = sp + 8, return address at -8 */
	static const uint8_t common[] = {0,
					 0,
					 0,
					 0,
					 1,
					 'z',
					 'R',
					 0,
					 1,
					 0x78,
					 RETURN_COLUMN,
					 1,
					 0x1b,
					 0x0c,
					 STACK_COLUMN,
					 8,
					 0x80 | RETURN_COLUMN,
					 1};
	uint8_t own[MADE_CODE - MADE_FRAMES - 64] = {0};
	unsigned first = record_put(at, common, sizeof common, 24);
	uint32_t id = first + 4, begin = MADE_CODE - (MADE_FRAMES + first + 8), length = MADE_CODE_BYTES;

	memcpy(own, &id, 4);
	memcpy(own + 4, &begin, 4);
	memcpy(own + 8, &length, 4);
	if (bytes)
		memcpy(own + 13, rules, bytes);
	return first + record_put(at + first, own, 13 + bytes, (17 + bytes + 7) / 8 * 8) + 4;
}

void module_make(const uint8_t *rules, unsigned bytes, uint8_t *ret_image)
{
	static const char names[] = "\0.eh_frame\0.shstrtab";
	Elf64_Ehdr h = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = MACHINE,
		.e_phoff = sizeof h,
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1,
		.e_shoff = 0x100,
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = 3,
		.e_shstrndx = 2,
	};
	Elf64_Phdr load = {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_filesz = MADE_BYTES, .p_memsz = MADE_BYTES};
	Elf64_Shdr sections[3] = {
		[1] = {.sh_name = 1, .sh_type = SHT_PROGBITS, .sh_addr = MADE_FRAMES, .sh_offset = MADE_FRAMES},
		[2] = {.sh_name = 11, .sh_type = SHT_STRTAB, .sh_offset = 0x300, .sh_size = sizeof names},
	};

	memset(ret_image, 0, MADE_BYTES);
	sections[1].sh_size = frames_make(rules, bytes, ret_image + MADE_FRAMES);
	memcpy(ret_image, &h, sizeof h);
	memcpy(ret_image + h.e_phoff, &load, sizeof load);
	memcpy(ret_image + h.e_shoff, sections, sizeof sections);
	memcpy(ret_image + 0x300, names, sizeof names);
}
