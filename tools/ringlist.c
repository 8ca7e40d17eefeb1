/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "tools/ringlist.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "tools/command.h"

#define RINGS_MAX 4096u /* anybody may fill a directory of mode 1777 */

static inline void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

uint32_t ring_pid(const struct dc_ring *ring)
{
	return ring->pid ? ring->pid : ring->header.pid;
}

struct scan {
	const struct ring_filter *filter;
	struct ring_list *list;
	unsigned room;
};

static bool wanted(const struct ring_filter *f, const struct dc_ring *ring)
{
	if (f->pid && ring_pid(ring) != f->pid)
		return false;
	return !f->name || fnmatch(f->name, ring->header.name, 0) == 0;
}

static int append(struct scan *s, struct dc_ring *ring, bool alive, uint32_t watcher)
{
	struct ring_list *list = s->list;

	if (GROW(list->rings, list->count, s->room, 16) < 0)
		return -ENOMEM;
	list->rings[list->count++] = (struct listed_ring){ring, alive, watcher};
	return 0;
}

/* A ring that is just being created (-EAGAIN) or was just removed (-ENOENT) is simply not there, another user's is no business of ours. */
static int scan_one(struct scan *s, int dir_fd, const char *name, uint32_t watcher)
{
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	char why[DC_WHY_BYTES];
	bool alive;
	int r;

	r = dc_ring_open(dir_fd, name, &ring, why);
	if (r == -EAGAIN || r == -ENOENT || r == -EACCES)
		return 0;
	if (r < 0) {
		s->list->refused++;
		memcpy(s->list->why, why, sizeof(why));
		return 0;
	}
	alive = dc_ring_alive(ring) != 0;
	if (!wanted(s->filter, ring) || (!alive && !s->filter->dead))
		return 0;
	r = append(s, ring, alive, watcher);
	if (r == 0)
		ring = NULL;
	return r;
}

static int scan_dir(struct scan *s, int fd, uint32_t watcher)
{
	CLEANUP(closedir) DIR *dir = NULL;
	struct dc_ring_name name;
	struct dirent *entry;
	int copy = dup(fd), r = 0;

	dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir)
		return -errno;
	while (r == 0 && s->list->count < RINGS_MAX && (entry = readdir(dir)))
		if (dc_ring_name_parse(entry->d_name, &name) == 0)
			r = scan_one(s, fd, entry->d_name, watcher);
	return r;
}

static uint32_t watcher_of(int fd)
{
	int pid = dc_rings_watcher(fd);

	return pid > 0 ? (uint32_t)pid : 0;
}

static int scan_run(void *arg, uint32_t pid, const char *path)
{
	CLEANUP(close_fd) int fd = -1;
	char why[DC_WHY_BYTES];

	(void)pid;
	if (dc_rings_open(path, false, &fd, why) < 0)
		return 0;
	return scan_dir(arg, fd, watcher_of(fd));
}

static int by_pid(const void *a, const void *b)
{
	const struct dc_ring_header *x = &((const struct listed_ring *)a)->ring->header;
	const struct dc_ring_header *y = &((const struct listed_ring *)b)->ring->header;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return (x->started_tick > y->started_tick) - (x->started_tick < y->started_tick);
}

int ring_list_load(const struct ring_filter *filter, struct ring_list *ret_list)
{
	CLEANUP(close_fd) int fd = -1;
	struct ring_list *list = ret_list;
	struct scan s = {.filter = filter, .list = list};
	char why[DC_WHY_BYTES];
	int r;

	*list = (struct ring_list){0};
	if (filter->dir && strlen(filter->dir) >= sizeof(list->dir))
		return failure("--dir: '%s' is too long", filter->dir);
	if (filter->dir)
		strcpy(list->dir, filter->dir);
	else if (dc_rings_dir(list->dir) < 0)
		return failure("DASHCAM_DIR is too long");
	r = dc_rings_open(list->dir, false, &fd, why);
	if (r == -ENOENT && !filter->dir)
		return EXIT_OK;
	if (r < 0)
		return failure("%s", why);
	list->dir_exists = true;
	list->watcher = watcher_of(fd);
	r = scan_dir(&s, fd, list->watcher);
	if (r == 0)
		r = dc_rings_each_run(list->dir, scan_run, &s);
	if (r < 0) {
		ring_list_cleanup(list);
		return failure("'%s': %s", list->dir, strerror(-r));
	}
	if (list->count) /* NULL is not an array, not even an empty one */
		qsort(list->rings, list->count, sizeof(*list->rings), by_pid);
	return EXIT_OK;
}

void ring_list_cleanup(struct ring_list *list)
{
	for (unsigned i = 0; i < list->count; i++)
		dc_ring_unref(list->rings[i].ring);
	free(list->rings);
	list->rings = NULL;
	list->count = 0;
}
