/* SPDX-License-Identifier: MIT */
#include "trigger/frame_pointers.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "ipc/cleanup.h"

#define TABLE_BYTES_MAX (4u << 20)
#define SEGMENTS_MAX 64u
#define FILES_MAX 32u
#define PCREL_SDATA4 0x1b /* DW_EH_PE_pcrel | DW_EH_PE_sdata4: what linkers write into .eh_frame_hdr */

#if defined(__x86_64__)
#define FRAME_REGISTER 6u
#else
#define FRAME_REGISTER 29u
#endif

/* --- where .eh_frame is --- */

struct table {
	uint64_t offset;
	uint64_t bytes;
};

static int read_at(int fd, void *to, size_t bytes, uint64_t offset)
{
	ssize_t n;

	if (offset > INT64_MAX)
		return -EBADMSG;
	n = pread(fd, to, bytes, (off_t)offset);
	return n < 0 ? -errno : (size_t)n == bytes ? 0 : -EBADMSG;
}

static int read_segments(int fd, Elf64_Phdr *ret_segments, unsigned *ret_count)
{
	Elf64_Ehdr h;
	int r = read_at(fd, &h, sizeof(h), 0);

	if (r == -EBADMSG || (r == 0 && (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64)))
		return -ENOEXEC;
	if (r < 0)
		return r;
	if (h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phnum == 0 || h.e_phnum > SEGMENTS_MAX)
		return -EBADMSG;
	*ret_count = h.e_phnum;
	return read_at(fd, ret_segments, h.e_phnum * sizeof(Elf64_Phdr), h.e_phoff);
}

/* The file's bytes from address @at to the end of the segment that has it. */
static int locate(const Elf64_Phdr *segments, unsigned count, uint64_t at, struct table *ret_table)
{
	for (unsigned i = 0; i < count; i++) {
		const Elf64_Phdr *s = &segments[i];

		if (s->p_type != PT_LOAD || at < s->p_vaddr || at - s->p_vaddr >= s->p_filesz)
			continue;
		*ret_table = (struct table){s->p_offset + (at - s->p_vaddr), s->p_filesz - (at - s->p_vaddr)};
		return 0;
	}
	return -EBADMSG;
}

/* .eh_frame_hdr begins with version 1, three encodings, and where .eh_frame is. */
static int find_table(int fd, struct table *ret_table)
{
	Elf64_Phdr segments[SEGMENTS_MAX];
	struct {
		uint8_t version, encodings[3];
		int32_t distance;
	} head;
	unsigned count;
	int r = read_segments(fd, segments, &count);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < count; i++) {
		if (segments[i].p_type != PT_GNU_EH_FRAME)
			continue;
		r = read_at(fd, &head, sizeof(head), segments[i].p_offset);
		if (r < 0)
			return r;
		if (head.version != 1 || head.encodings[0] != PCREL_SDATA4)
			return -ENOEXEC;
		return locate(segments, count, segments[i].p_vaddr + 4 + (uint64_t)(int64_t)head.distance, ret_table);
	}
	return -ENOEXEC;
}

/* --- what its entries say --- */

struct bytes {
	const uint8_t *at;
	const uint8_t *end;
};

static bool skip(struct bytes *b, uint64_t count)
{
	if ((uint64_t)(b->end - b->at) < count)
		return false;
	b->at += count;
	return true;
}

/* A LEB128 number, of which only small ones matter; signed ones are skipped the same way. */
static bool leb(struct bytes *b, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (unsigned shift = 0; b->at < b->end; shift += 7) {
		const uint8_t c = *b->at++;

		if (shift < 63)
			value |= (uint64_t)(c & 0x7f) << shift;
		if (!(c & 0x80)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

struct frame {
	bool with; /* a frame pointer */
	bool any; /* a frame at all */
};

/* Operands of call frame instructions 0x00 to 0x16: l a LEB128, b a block, 1 2 4 bytes, p a pointer (of 4 bytes), or none. */
static const char *const operands[] = {"",   "p", "1", "2", "4",  "ll", "l",  "l", "l",  "ll", "",  "",
				       "ll", "l", "l", "b", "lb", "ll", "ll", "l", "ll", "ll", "lb"};

static bool take_operands(struct bytes *b, const char *types, uint64_t *ret_first)
{
	uint64_t value;

	for (unsigned i = 0; types[i]; i++) {
		bool ok = true;

		value = 0;
		if (types[i] == 'l')
			ok = leb(b, &value);
		else if (types[i] == 'b')
			ok = leb(b, &value) && skip(b, value);
		else
			ok = skip(b, types[i] == 'p' ? 4u : (unsigned)(types[i] - '0'));
		if (!ok)
			return false;
		if (i == 0)
			*ret_first = value;
	}
	return true;
}

static void note(struct frame *f, unsigned op, uint64_t first)
{
	const bool cfa_register = op == 0x0c || op == 0x0d || op == 0x12; /* DW_CFA_def_cfa, .._register, .._sf */

	f->any = f->any || cfa_register || op == 0x0e || op == 0x0f || op == 0x13;
#if defined(__x86_64__)
	f->with = f->with || (cfa_register && first == FRAME_REGISTER);
#else
	f->with = f->with || (op == 0x05 && first == FRAME_REGISTER);
#endif
}

/* Return: false: something unknown; what was noted before it stays. */
static bool interpret(struct bytes b, struct frame *f)
{
	while (b.at < b.end) {
		const unsigned op = *b.at++, high = op & 0xc0;
		uint64_t first = 0;
		const char *types = high == 0x80 ? "l" : high ? "" : op < 0x17 ? operands[op] : NULL;

		if (op == 0x2d) /* DW_CFA_AARCH64_negate_ra_state */
			types = "";
		else if (op == 0x2e) /* DW_CFA_GNU_args_size */
			types = "l";
		if (!types || !take_operands(&b, types, &first))
			return false;
		if (high == 0x80) { /* DW_CFA_offset: the register is in the opcode */
			if (FRAME_REGISTER == 29 && (op & 0x3f) == FRAME_REGISTER)
				f->with = f->any = true;
			continue;
		}
		if (!high)
			note(f, op, first);
	}
	return true;
}

/* How many bytes an address takes in the FDEs of a CIE; 0: an encoding nobody uses in .eh_frame. */
static unsigned address_bytes(struct bytes cie)
{
	const char *text;
	uint64_t ignored;
	struct bytes b = cie;

	if (!skip(&b, 1)) /* version */
		return 0;
	text = (const char *)b.at;
	b.at = memchr(b.at, 0, (size_t)(b.end - b.at));
	if (!b.at)
		return 0;
	b.at++;
	if (text[0] != 'z')
		return 8;
	if (!leb(&b, &ignored) || !leb(&b, &ignored) || !leb(&b, &ignored) || !leb(&b, &ignored))
		return 0; /* alignments of code and data, return address, length of what follows */
	for (text++; *text; text++) {
		const uint8_t encoding = b.at < b.end ? *b.at : 0xff;

		if (*text == 'R')
			return (encoding & 7) == 3 ? 4 : (encoding & 7) == 4 || (encoding & 7) == 0 ? 8 : 0;
		if (*text == 'P') /* encoding and address of the personality */
			skip(&b, 1 + ((encoding & 7) == 3 ? 4u : 8u));
		else if (*text == 'L')
			skip(&b, 1);
	}
	return 8;
}

static void add_function(struct bytes b, unsigned width, struct dc_frame_share *share)
{
	uint64_t code = 0, augmentation;
	struct frame f = {0};

	if (!skip(&b, width) || (uint64_t)(b.end - b.at) < width)
		return;
	memcpy(&code, b.at, width);
	if (!skip(&b, width) || !leb(&b, &augmentation) || !skip(&b, augmentation))
		return;
	interpret(b, &f);
	if (code > UINT32_MAX || !f.any)
		return;
	share->code_bytes += code;
	share->with_bytes += f.with ? code : 0;
}

static void add_table(const uint8_t *table, size_t bytes, struct dc_frame_share *share)
{
	size_t at = 0, width_of = SIZE_MAX;
	unsigned width = 0;

	while (at + 8 <= bytes) {
		uint32_t length, id;
		struct bytes b;

		memcpy(&length, table + at, 4);
		memcpy(&id, table + at + 4, 4);
		if (length < 4 || length > bytes - at - 4) /* the end, or an entry of 4 GiB */
			return;
		b = (struct bytes){table + at + 8, table + at + 4 + length};
		if (id != 0 && id <= at + 4) {
			const size_t cie = at + 4 - id;
			uint32_t cie_length;

			if (cie != width_of) {
				memcpy(&cie_length, table + cie, 4);
				width = cie_length >= 4 && cie_length <= bytes - cie - 4
						? address_bytes(
							  (struct bytes){table + cie + 8, table + cie + 4 + cie_length})
						: 0;
				width_of = cie;
			}
			if (width)
				add_function(b, width, share);
		}
		at += 4 + (size_t)length;
	}
}

int dc_frame_share(int fd, struct dc_frame_share *ret_share)
{
	struct dc_frame_share share = {0};
	CLEANUP(free) uint8_t *bytes = NULL;
	struct table t;
	ssize_t n;
	int r = find_table(fd, &t);

	if (r < 0)
		return r;
	if (t.bytes > TABLE_BYTES_MAX)
		t.bytes = TABLE_BYTES_MAX;
	bytes = malloc(t.bytes ? t.bytes : 1);
	if (!bytes)
		return -ENOMEM;
	n = t.offset <= INT64_MAX ? pread(fd, bytes, t.bytes, (off_t)t.offset) : 0;
	if (n < 0)
		return -errno;
	add_table(bytes, (size_t)n, &share);
	*ret_share = share;
	return 0;
}

/* --- a process --- */

static int64_t changed_ns(const struct stat *st)
{
	return st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec;
}

static struct dc_frame_share share_of(int fd, const struct stat *st, struct dc_frame_cache *cache)
{
	struct dc_frame_share share = {0};
	const uint32_t known = cache->count < DC_FRAME_CACHE ? cache->count : DC_FRAME_CACHE;
	uint32_t slot;

	for (uint32_t i = 0; i < known; i++)
		if (cache->files[i].dev == st->st_dev && cache->files[i].ino == st->st_ino &&
		    cache->files[i].changed_ns == changed_ns(st))
			return cache->files[i].share;
	dc_frame_share(fd, &share); /* nothing known of it: it counts as nothing */
	slot = cache->count++ % DC_FRAME_CACHE;
	cache->files[slot].dev = st->st_dev;
	cache->files[slot].ino = st->st_ino;
	cache->files[slot].changed_ns = changed_ns(st);
	cache->files[slot].share = share;
	return share;
}

/* One line of /proc/PID/maps, of an executable mapping of a file. */
struct mapped {
	dev_t dev;
	ino_t ino;
	char path[512];
};

static bool parse_mapping(const char *line, struct mapped *ret_mapped)
{
	unsigned major, minor;
	unsigned long inode;
	char rights[5];
	int at = 0;

	if (sscanf(line, "%*x-%*x %4s %*x %x:%x %lu %n", rights, &major, &minor, &inode, &at) != 4 ||
	    rights[2] != 'x' || inode == 0 || line[at] != '/')
		return false;
	ret_mapped->dev = makedev(major, minor);
	ret_mapped->ino = inode;
	snprintf(ret_mapped->path, sizeof(ret_mapped->path), "%.*s", (int)strcspn(line + at, "\n"), line + at);
	return true;
}

static void add_file(uint32_t pid, const struct mapped *m, struct dc_frame_cache *cache, struct dc_frame_share *share)
{
	CLEANUP(close_fd) int fd = -1;
	struct dc_frame_share one;
	char path[600];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%u/root%s", pid, m->path);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_ino != m->ino)
		return;
	one = share_of(fd, &st, cache);
	share->with_bytes += one.with_bytes;
	share->code_bytes += one.code_bytes;
}

bool dc_frame_pointers(uint32_t pid, struct dc_frame_cache *cache)
{
	CLEANUP(fclose) FILE *f = NULL;
	struct dc_frame_share share = {0};
	struct mapped m, before = {0};
	char line[768];
	unsigned files = 0;

	snprintf(line, sizeof(line), "/proc/%u/maps", pid);
	f = fopen(line, "re");
	while (f && files < FILES_MAX && fgets(line, sizeof(line), f)) {
		if (!parse_mapping(line, &m) || (m.ino == before.ino && m.dev == before.dev))
			continue;
		add_file(pid, &m, cache, &share);
		before = m;
		files++;
	}
	return share.code_bytes && share.with_bytes >= share.code_bytes / 10 * 9;
}
