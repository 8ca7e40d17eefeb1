/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persist/stacks/message.h"
#include "persist/stacks/resolve_inside.h"
#include "persist/stacks/sandbox.h"

static const char *const usual_dirs[] = {"/usr/lib/debug", NULL};

/* A file is only mapped after it has been looked at; one that is a pipe or a device must not hold us up. */
static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	return fd < 0 ? -errno : fd;
}

/* Without a build-id nothing says that a file is the one that was mapped, but that it still lies there. */
static bool is_of(const struct dc_module *m, const struct dc_map_entry *map)
{
	if (map->build_id_bytes == 0)
		return m->build_id_bytes == 0 && !(map->flags & DC_MAP_GONE);
	return m->build_id_bytes == map->build_id_bytes && memcmp(m->build_id, map->build_id, map->build_id_bytes) == 0;
}

/* Takes @fd. Return: it, if it is the file of @map. */
static int judge(int fd, const struct dc_map_entry *map, struct dc_module **ret_module)
{
	CLEANUP(dc_module) struct dc_module *m = NULL;
	int r = fd < 0 ? fd : dc_module_open(fd, &m);

	if (r >= 0 && !is_of(m, map))
		r = -ESTALE;
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	if (ret_module)
		*ret_module = TAKE(m);
	return fd;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/*
 * In a directory like /usr/lib/debug, or one where somebody put files. Where only names are asked for, what was stripped
 * off a file does as well as the file.
 */
static int search_dir(const char *dir, const struct dc_map_entry *map, const char *path, bool names_only,
		      struct dc_module **ret_module)
{
	char by_id[64] = "", file[PATH_MAX];
	const char *const name = last_part(path);
	int r = -ENOENT;

	if (map->build_id_bytes == 0)
		return -ENOENT;
	for (unsigned i = 0; i < map->build_id_bytes; i++)
		snprintf(by_id + strlen(by_id), sizeof by_id - strlen(by_id), i == 1 ? "/%02x" : "%02x", map->build_id[i]);
	for (unsigned i = 0; i < 4 && r < 0; i++) {
		const bool debug = i % 2;

		if (debug && !names_only)
			continue;
		if (i < 2)
			snprintf(file, sizeof file, "%s/.build-id/%s%s", dir, by_id, debug ? ".debug" : "");
		else
			snprintf(file, sizeof file, "%s/%s%s", dir, name, debug ? ".debug" : "");
		r = judge(open_file(file), map, ret_module);
	}
	return r;
}

static int search(const struct dc_resolver *r, const struct dc_map_entry *map, const char *path,
		  struct dc_module **ret_module)
{
	const char *const *dir = r->options.debug_dirs ? r->options.debug_dirs : usual_dirs;
	int fd = -ENOENT;

	for (; *dir && fd < 0; dir++)
		fd = search_dir(*dir, map, path, !ret_module, ret_module);
	return fd;
}

int dc_resolve_open(const struct dc_resolver *r, uint32_t map, struct dc_module **ret_module)
{
	const struct dc_map_entry *e = &r->maps[map];
	const char *path = r->paths[map];
	int fd;

	if (e->flags & DC_MAP_KERNEL)
		return -ENOENT;
	if (e->flags & DC_MAP_VDSO) {
		fd = r->vdso_fd < 0 ? -ENOENT : fcntl(r->vdso_fd, F_DUPFD_CLOEXEC, 0);
		return judge(fd, e, ret_module);
	}
	if (r->options.open)
		fd = judge(r->options.open(r->options.open_arg, e, path), e, ret_module);
	else
		fd = path[0] == '/' ? judge(open_file(path), e, ret_module) : -ENOENT;
	return fd < 0 ? search(r, e, path, ret_module) : fd;
}

int dc_resolve_canon(const struct dc_map_entry *maps, const char *const *paths, uint32_t count, uint32_t *canon)
{
	struct dc_intern files = {0};
	CLEANUP(free) uint32_t *first = calloc((size_t)count + 1, sizeof *first);
	char key[PATH_MAX + 64];
	int r = first ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < count && r >= 0; i++) {
		const struct dc_map_entry *m = &maps[i];
		uint32_t number;
		int size;

		memset(key, 0, 32);
		memcpy(key, m->build_id, m->build_id_bytes);
		key[24] = (char)m->build_id_bytes;
		key[25] = (char)m->flags;
		size = snprintf(key + 32, sizeof key - 32, "%s", paths[i]);
		size = size < (int)sizeof key - 32 ? size : (int)sizeof key - 33;
		r = dc_intern_put(&files, key, 32 + (uint32_t)size, &number);
		if (r == 1)
			first[number] = i;
		if (r >= 0)
			canon[i] = first[number];
	}
	dc_intern_fini(&files);
	return r < 0 ? r : 0;
}

unsigned dc_resolve_cache_id(const struct dc_resolver *r, uint32_t map, const uint8_t **ret_id)
{
	const struct dc_map_entry *m = &r->maps[map];

	if (r->options.cache_fd <= 0)
		return 0;
	if (m->flags & DC_MAP_KERNEL) {
		*ret_id = r->boot_id;
		return r->boot_id_bytes;
	}
	*ret_id = m->build_id;
	return m->build_id_bytes;
}

int dc_resolve_tell_cut(const char *what, int out_fd)
{
	char why[80];

	if (!dc_sandbox_saw_cut())
		return 0;
	snprintf(why, sizeof why, "%s: a file was cut while it was read", what);
	return dc_message_send(out_fd, DC_MESSAGE_WHY, why, strlen(why));
}
