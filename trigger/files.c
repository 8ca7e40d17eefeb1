/* SPDX-License-Identifier: MIT */
#include "trigger/files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/now.h"

static struct {
	pthread_mutex_t lock;
	uint32_t count;
	struct dc_file *files[DC_FILES_MAX];
} held = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock(void)
{
	pthread_mutex_lock(&held.lock);
}

static void unlock(void)
{
	pthread_mutex_unlock(&held.lock);
}

static void set_up(void)
{
	pthread_atfork(lock, unlock, unlock);
}

static void file_free(struct dc_file *f)
{
	if (!f)
		return;
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}

/* With the lock. */
static struct dc_file *find(dev_t dev, ino_t ino)
{
	for (uint32_t i = 0; i < held.count; i++)
		if (held.files[i]->ino == ino && held.files[i]->dev == dev)
			return held.files[i];
	return NULL;
}

struct dc_file *dc_files_get(dev_t dev, ino_t ino)
{
	struct dc_file *f;

	lock();
	f = find(dev, ino);
	if (f)
		f->refs++;
	unlock();
	return f;
}

/* With the lock: out of the table, to be freed without it. Return: NULL when all are in use. */
static struct dc_file *take_oldest_unused(void)
{
	uint32_t oldest = held.count;
	struct dc_file *f;

	for (uint32_t i = 0; i < held.count; i++)
		if (held.files[i]->refs == 0 &&
		    (oldest == held.count || held.files[i]->unused_ns < held.files[oldest]->unused_ns))
			oldest = i;
	if (oldest == held.count)
		return NULL;
	f = held.files[oldest];
	held.files[oldest] = held.files[--held.count];
	return f;
}

static struct dc_file *file_new(int fd, const struct stat *st, const char *path)
{
	struct dc_file *f = calloc(1, sizeof(*f));

	if (!f || !(f->path = strdup(path))) {
		free(f);
		close(fd);
		return NULL;
	}
	f->dev = st->st_dev;
	f->ino = st->st_ino;
	f->fd = fd;
	f->refs = 1;
	dc_build_id_read(fd, &f->id); /* what is no ELF file has none */
	return f;
}

struct dc_file *dc_files_add(int fd, const struct stat *st, const char *path)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct dc_file *f = file_new(fd, st, path), *known, *spare = NULL;

	pthread_once(&once, set_up);
	if (!f)
		return NULL;
	lock();
	known = find(f->dev, f->ino);
	if (known) {
		known->refs++;
		spare = f;
		f = known;
	} else {
		if (held.count == DC_FILES_MAX)
			spare = take_oldest_unused();
		if (held.count < DC_FILES_MAX)
			held.files[held.count++] = f;
		else
			close(TAKE_FD(f->fd));
	}
	unlock();
	file_free(spare);
	return f;
}

struct dc_file *dc_files_ref(struct dc_file *f)
{
	lock();
	f->refs++;
	unlock();
	return f;
}

void dc_files_put(struct dc_file *f)
{
	bool homeless;

	if (!f)
		return;
	lock();
	homeless = --f->refs == 0 && f->fd < 0;
	if (f->refs == 0)
		f->unused_ns = dc_now_ns();
	unlock();
	if (homeless)
		file_free(f);
}

void dc_files_sweep(int64_t now)
{
	struct dc_file *f;

	do {
		lock();
		f = take_oldest_unused();
		if (f && now - f->unused_ns < DC_FILES_KEEP_NS) {
			held.files[held.count++] = f;
			f = NULL;
		}
		unlock();
		file_free(f);
	} while (f);
}

static bool id_is(const struct dc_build_id *id, const struct dc_map_entry *map)
{
	return id->count == map->build_id_bytes && memcmp(id->bytes, map->build_id, id->count) == 0;
}

static int open_held(const struct dc_map_entry *map, const char *path)
{
	int fd = -ENOENT;

	lock();
	for (uint32_t i = 0; i < held.count && fd == -ENOENT; i++) {
		const struct dc_file *f = held.files[i];

		if (id_is(&f->id, map) && (f->id.count || strcmp(f->path, path) == 0)) {
			fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
			fd = fd < 0 ? -errno : fd;
		}
	}
	unlock();
	return fd;
}

/* The path may mean anything by now. */
static int open_path(const struct dc_map_entry *map, const char *path)
{
	CLEANUP(close_fd) int fd = -1;
	struct dc_build_id id = {0};
	struct stat st;

	if (path[0] != '/' || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return -ENOENT;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	if (dc_build_id_read(fd, &id) < 0 || !id_is(&id, map))
		return -ESTALE;
	return TAKE_FD(fd);
}

int dc_files_open(void *unused, const struct dc_map_entry *map, const char *path)
{
	int fd;

	(void)unused;
	if (map->build_id_bytes > sizeof(map->build_id))
		return -EBADMSG;
	fd = open_held(map, path);
	if (fd != -ENOENT)
		return fd;
	if (map->build_id_bytes == 0 && map->flags & DC_MAP_GONE)
		return -ENOENT;
	return open_path(map, path);
}
