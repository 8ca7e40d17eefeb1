/* SPDX-License-Identifier: MIT */
#include "persist/stacks/debug_file.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <lzma.h>

#define BUILD_ID_MAX 64u
#define CHECKSUM_BYTES_MAX (INT64_C(2) << 30) /* a larger file needs a build-id to be believed */

struct wanted {
	const struct dc_elf *program; /* itself does not count */
	const void *build_id;
	size_t build_id_bytes; /* 0: by checksum */
	uint32_t checksum;
	bool dwarf; /* must have it, */
	bool symbols; /* or these */
	struct dc_elf *found;
};

/* --- is it the one? --- */

static bool checksum_fits(const struct dc_elf *e, uint32_t checksum)
{
	uint8_t buffer[16384];
	uint32_t sum = 0;
	off_t at = 0;
	ssize_t n = -1;

	while (at < CHECKSUM_BYTES_MAX && (n = pread(dc_elf_fd(e), buffer, sizeof buffer, at)) > 0) {
		sum = lzma_crc32(buffer, (size_t)n, sum);
		at += n;
	}
	return n == 0 && sum == checksum;
}

static bool fits(const struct wanted *w, struct dc_elf *e)
{
	const void *its;

	size_t bytes;

	if ((w->dwarf && !dc_elf_has_dwarf(e)) || (w->symbols && !dc_elf_section(e, ".symtab", &bytes)))
		return false;
	if (!w->build_id_bytes)
		return checksum_fits(e, w->checksum);
	return dc_elf_build_id(e, &its) == w->build_id_bytes && memcmp(its, w->build_id, w->build_id_bytes) == 0;
}

__attribute__((format(printf, 2, 3))) static bool try(struct wanted *w, const char *format, ...)
{
	CLEANUP(dc_elf) struct dc_elf *e = NULL;
	char path[PATH_MAX];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(path, sizeof path, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= sizeof path || dc_elf_open_path(path, w->program, &e) < 0 || !fits(w, e))
		return false;
	w->found = TAKE(e);
	return true;
}

/* --- where it may be --- */

static bool try_build_id(struct wanted *w, const char *const *dirs)
{
	const uint8_t *id = w->build_id;
	char hex[2 * BUILD_ID_MAX + 1];

	if (w->build_id_bytes < 2 || w->build_id_bytes > BUILD_ID_MAX)
		return false;
	for (size_t i = 0; i < w->build_id_bytes; i++)
		snprintf(hex + 2 * i, 3, "%02x", id[i]);
	for (; *dirs; dirs++)
		if (try(w, "%s/.build-id/%.2s/%s.debug", *dirs, hex, hex + 2))
			return true;
	return false;
}

/* @directory has no slash at its end; below @dir it is tried whole, then without its first parts (/usr/lib is /lib). */
static bool try_below(struct wanted *w, const char *dir, const char *directory, const char *name)
{
	const char *slash = directory;

	for (; slash; slash = strchr(slash + 1, '/'))
		if (try(w, "%s/%s/%s", dir, slash[0] == '/' ? slash + 1 : slash, name))
			return true;
	return try(w, "%s/%s", dir, name);
}

static bool try_name(struct wanted *w, const char *directory, const char *const *dirs, const char *name)
{
	if (try(w, "%s/%s", directory, name) || try(w, "%s/.debug/%s", directory, name))
		return true;
	for (; *dirs; dirs++)
		if (try_below(w, *dirs, directory, name))
			return true;
	return false;
}

static bool directory_of(const char *path, char ret_directory[static PATH_MAX])
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	size_t length = slash ? (size_t)(slash - path) : 1;

	if (!path || length >= PATH_MAX)
		return false;
	memcpy(ret_directory, slash ? path : ".", length);
	ret_directory[length] = 0;
	return true;
}

/* @ret_name: in the section, which holds an end, and, after padding, the checksum. */
static bool debuglink(struct dc_elf *program, const char **ret_name, uint32_t *ret_checksum)
{
	size_t bytes, length;
	const char *data = dc_elf_section(program, ".gnu_debuglink", &bytes);

	if (!data)
		return false;
	length = strnlen(data, bytes);
	if (!length || length > NAME_MAX || ((length + 4) & ~(size_t)3) + 4 > bytes || memchr(data, '/', length))
		return false;
	memcpy(ret_checksum, data + ((length + 4) & ~(size_t)3), 4);
	*ret_name = data;
	return true;
}

/* Without a link: NAME.debug and NAME, as people keep unstripped copies. Without a build-id nothing could tell it is one. */
static bool try_own_name(struct wanted *w, const char *path, const char *directory, const char *const *dirs)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char with[NAME_MAX + 8];

	if (!w->build_id_bytes || (size_t)snprintf(with, sizeof with, "%s.debug", name) >= sizeof with)
		return false;
	if (try_name(w, directory, dirs, with))
		return true;
	for (; *dirs; dirs++)
		if (try_below(w, *dirs, directory, name))
			return true;
	return false;
}

static bool find(struct wanted *w, struct dc_elf *program, const char *path, const char *const *dirs)
{
	char directory[PATH_MAX];
	const char *name;

	if (!try_build_id(w, dirs) && directory_of(path, directory)) {
		if (!debuglink(program, &name, &w->checksum) || !try_name(w, directory, dirs, name))
			try_own_name(w, path, directory, dirs);
	}
	return w->found;
}

int dc_debug_file_find(struct dc_elf *program, const char *path, const char *const *dirs, struct dc_elf **ret_debug)
{
	struct wanted w = {.program = program, .dwarf = true};
	size_t bytes;

	w.build_id_bytes = dc_elf_build_id(program, &w.build_id);
	if (!find(&w, program, path, dirs) && !dc_elf_section(program, ".symtab", &bytes)) {
		w.dwarf = false; /* built without -g, and stripped */
		w.symbols = true;
		find(&w, program, path, dirs);
	}
	if (!w.found)
		return -ENOENT;
	*ret_debug = w.found;
	return 0;
}

int dc_debug_file_find_alt(struct dc_elf *debug, const char *path, const char *const *dirs, struct dc_elf **ret_alt)
{
	struct wanted w = {.program = debug};
	size_t bytes, length;
	const char *data = dc_elf_section(debug, ".gnu_debugaltlink", &bytes), *slash;
	char directory[PATH_MAX];

	if (!data)
		return -ENOENT;
	length = strnlen(data, bytes);
	if (!length || length + 1 >= bytes || length >= PATH_MAX)
		return -ENOENT;
	w.build_id = data + length + 1;
	w.build_id_bytes = bytes - length - 1;
	slash = strrchr(data, '/');
	if (!try_build_id(&w, dirs) && !(data[0] == '/' && try(&w, "%s", data)) &&
	    !(data[0] != '/' && directory_of(dc_elf_path(debug) ? dc_elf_path(debug) : path, directory) &&
	      try(&w, "%s/%s", directory, data)))
		for (const char *const *dir = dirs; *dir && !w.found; dir++)
			if (!try(&w, "%s/.dwz/%s", *dir, slash ? slash + 1 : data))
				try(&w, "%s/%s", *dir, slash ? slash + 1 : data);
	if (!w.found)
		return -ENOENT;
	*ret_alt = w.found;
	return 0;
}

/* --- .gnu_debugdata --- */

static int unpack(const uint8_t *packed, size_t packed_bytes, uint8_t *room, size_t room_bytes, size_t *ret_bytes)
{
	uint64_t memory = DC_DEBUG_UNPACKED_MAX;
	size_t in = 0;
	lzma_ret r;

	*ret_bytes = 0;
	r = lzma_stream_buffer_decode(&memory, 0, NULL, packed, &in, packed_bytes, room, ret_bytes, room_bytes);
	if (r == LZMA_BUF_ERROR)
		return -E2BIG; /* the room ran out; an input that is cut off is LZMA_DATA_ERROR */
	return r == LZMA_OK ? 0 : -EBADMSG;
}

int dc_debug_file_unpack(struct dc_elf *program, struct dc_elf **ret_packed)
{
	size_t packed_bytes, bytes, room_bytes;
	const void *packed = dc_elf_section(program, ".gnu_debugdata", &packed_bytes);
	int r = -E2BIG;

	if (!packed)
		return -ENOENT;
	for (room_bytes = 256u << 10; r == -E2BIG && room_bytes <= DC_DEBUG_UNPACKED_MAX; room_bytes *= 4) {
		CLEANUP(free) uint8_t *room = malloc(room_bytes);

		if (!room)
			return -ENOMEM;
		r = unpack(packed, packed_bytes, room, room_bytes, &bytes);
		if (r == 0)
			r = dc_elf_open_memory(room, bytes, ret_packed);
	}
	return r == -ENOMEM || r == 0 ? r : -EBADMSG;
}
