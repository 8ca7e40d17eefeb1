/* SPDX-License-Identifier: MIT */
#include "trigger/build_id.h"

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define SEGMENTS_MAX 128u
#define NOTES_BYTES 4096u /* read of one PT_NOTE: the build-id is among the first ones wherever a linker put it */

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OUR_DATA ELFDATA2LSB
#else
#define OUR_DATA ELFDATA2MSB
#endif

/* A file, or bytes in memory. */
struct source {
	int fd; /* -1: @image */
	const uint8_t *image;
	size_t bytes;
};

/* Return: how many of @bytes were there, -errno. */
static ssize_t take(const struct source *s, void *to, size_t bytes, uint64_t at)
{
	ssize_t n;

	if (at > INT64_MAX)
		return -EBADMSG;
	if (s->fd < 0) {
		if (at >= s->bytes)
			return 0;
		n = (ssize_t)(bytes < s->bytes - at ? bytes : s->bytes - at);
		memcpy(to, s->image + at, (size_t)n);
		return n;
	}
	do
		n = pread(s->fd, to, bytes, (off_t)at);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static size_t round_up(size_t n, size_t align)
{
	return (n + align - 1) & ~(align - 1);
}

int dc_build_id_of_notes(const void *notes, size_t bytes, size_t align, struct dc_build_id *ret_id)
{
	const uint8_t *p = notes;
	size_t at = 0;

	align = align == 8 ? 8 : 4;
	while (bytes - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		size_t name = at + sizeof(n), text, next;

		memcpy(&n, p + at, sizeof(n));
		if (n.n_namesz > bytes || n.n_descsz > bytes)
			break;
		text = round_up(name + n.n_namesz, align);
		next = round_up(text + n.n_descsz, align);
		if (text > bytes || n.n_descsz > bytes - text)
			break;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && memcmp(p + name, "GNU", 4) == 0 && n.n_descsz &&
		    n.n_descsz <= DC_BUILD_ID_BYTES) {
			*ret_id = (struct dc_build_id){.count = (uint8_t)n.n_descsz};
			memcpy(ret_id->bytes, p + text, n.n_descsz);
			return 0;
		}
		if (next >= bytes)
			break;
		at = next;
	}
	return -ENOENT;
}

static bool is_ours(const Elf64_Ehdr *e)
{
	return memcmp(e->e_ident, ELFMAG, SELFMAG) == 0 && e->e_ident[EI_CLASS] == ELFCLASS64 &&
	       e->e_ident[EI_DATA] == OUR_DATA;
}

static int read_from(const struct source *s, struct dc_build_id *ret_id)
{
	uint8_t notes[NOTES_BYTES];
	Elf64_Phdr segments[SEGMENTS_MAX];
	Elf64_Ehdr e;
	ssize_t n = take(s, &e, sizeof(e), 0);

	if (n < 0)
		return (int)n;
	if (n < (ssize_t)sizeof(e) || !is_ours(&e))
		return -ENOEXEC;
	if (e.e_phentsize != sizeof(segments[0]) || e.e_phnum > SEGMENTS_MAX)
		return -EBADMSG;
	n = take(s, segments, e.e_phnum * sizeof(segments[0]), e.e_phoff);
	if (n < (ssize_t)(e.e_phnum * sizeof(segments[0])))
		return n < 0 ? (int)n : -EBADMSG;
	for (unsigned i = 0; i < e.e_phnum; i++) {
		size_t bytes = segments[i].p_filesz < sizeof(notes) ? (size_t)segments[i].p_filesz : sizeof(notes);

		if (segments[i].p_type != PT_NOTE)
			continue;
		n = take(s, notes, bytes, segments[i].p_offset);
		if (n > 0 && dc_build_id_of_notes(notes, (size_t)n, segments[i].p_align, ret_id) == 0)
			return 0;
	}
	*ret_id = (struct dc_build_id){0};
	return 0;
}

int dc_build_id_read(int fd, struct dc_build_id *ret_id)
{
	const struct source s = {.fd = fd};

	return read_from(&s, ret_id);
}

int dc_build_id_of_image(const void *image, size_t bytes, struct dc_build_id *ret_id)
{
	const struct source s = {.fd = -1, .image = image, .bytes = bytes};

	return read_from(&s, ret_id);
}
