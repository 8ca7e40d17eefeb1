/* SPDX-License-Identifier: MIT */
#include "trigger/maps_inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "trigger/proc.h"

#define TEXT_BYTES (64u << 10)
#define DELETED " (deleted)"

void dc_mapping_fini(struct mapping *p)
{
	dc_files_put(TAKE(p->file));
	free(TAKE(p->path));
}

bool dc_mapping_same_file(const struct mapping *a, const struct mapping *b)
{
	return a->dev == b->dev && a->ino == b->ino && strcmp(a->path, b->path) == 0;
}

/* Code is often in several parts: huge pages, probes, a JIT that grows. */
static bool goes_on(const struct mapping *a, const struct mapping *b)
{
	return a->end == b->start && dc_mapping_same_file(a, b) && (a->ino == 0 || a->offset + (a->end - a->start) == b->offset);
}

int dc_mapping_path(struct mapping *p, const char *path)
{
	const size_t length = strlen(path), suffix = strlen(DELETED);

	if (path[0] == '/' && length > suffix && strcmp(path + length - suffix, DELETED) == 0)
		p->flags |= DC_MAP_GONE;
	else if (strcmp(path, "[vdso]") == 0)
		p->flags |= DC_MAP_VDSO;
	p->path = strndup(*path ? path : "[anon]", p->flags & DC_MAP_GONE ? length - suffix : PATH_MAX);
	return p->path ? 0 : -ENOMEM;
}

static int keep(struct found *f, struct mapping *p, const char *path)
{
	struct mapping *last = f->count ? &f->mappings[f->count - 1] : NULL;

	if (dc_mapping_path(p, path) < 0)
		return -ENOMEM;
	if (last && goes_on(last, p)) {
		last->end = p->end;
		free(p->path);
	} else if (f->count == DC_MAPS_MAX) {
		free(p->path);
	} else {
		f->mappings[f->count++] = *p;
	}
	return 0;
}

/* "7f1c00000000-7f1c00021000 r-xp 00001000 fe:01 1234   /usr/lib/x.so" */
static int parse_line(struct found *f, const char *line)
{
	struct mapping p = {0};
	unsigned major, minor;
	uint64_t ino;
	char rights[5];
	int path = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &p.start, &p.end, rights, &p.offset,
		   &major, &minor, &ino, &path) < 7 ||
	    rights[2] != 'x' || p.end <= p.start || p.end > KERNEL_START)
		return 0;
	p.vma_end = p.end;
	p.dev = makedev(major, minor);
	p.ino = ino;
	return keep(f, &p, line + path);
}

/* All whole lines of @text, and what is left moved to its beginning. A line longer than the text is dropped. */
static int parse_text(struct found *f, char *text, size_t *used)
{
	char *at = text, *end;
	int r = 0;

	while (r == 0 && (end = memchr(at, '\n', *used - (size_t)(at - text)))) {
		*end = '\0';
		r = parse_line(f, at);
		at = end + 1;
	}
	*used -= (size_t)(at - text);
	memmove(text, at, *used);
	if (*used == TEXT_BYTES)
		*used = 0;
	return r;
}

/*
 * An address space that goes away (exit, exec) while it is read ends early, as if there were no more mappings. It is whole
 * only if afterwards there is still a first line.
 */
static int read_maps(int proc_fd, struct found *f)
{
	CLEANUP(close_fd) int fd = openat(proc_fd, "maps", O_RDONLY | O_CLOEXEC);
	CLEANUP(free) char *text = malloc(TEXT_BYTES);
	size_t used = 0;
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return -errno;
	if (!text)
		return -ENOMEM;
	do {
		n = read(fd, text + used, TEXT_BYTES - used);
		if (n < 0 && errno != EINTR)
			return -errno;
		used += n > 0 ? (size_t)n : 0;
		r = parse_text(f, text, &used);
	} while (r == 0 && n != 0);
	if (r == 0 && pread(fd, text, 1, 0) <= 0)
		r = -ESRCH;
	return r;
}

/* --- the files --- */

/* @name of a mapping's file below /proc/PID. Return: 0, -ESTALE: that is another file; -EINVAL: none to be opened; -errno. */
static int hold_by(int proc_fd, const char *name, struct mapping *p, bool proves)
{
	CLEANUP(close_fd) int fd = -1;
	struct stat st, opened;

	if (fstatat(proc_fd, name, &st, 0) < 0)
		return -errno;
	if (!proves && st.st_ino != p->ino)
		return -ESTALE;
	if (!S_ISREG(st.st_mode))
		return -EINVAL; /* opening a device may already do something */
	p->file = dc_files_get(st.st_dev, st.st_ino);
	if (p->file)
		return 0;
	fd = openat(proc_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &opened) < 0)
		return -errno;
	if (opened.st_dev != st.st_dev || opened.st_ino != st.st_ino || !S_ISREG(opened.st_mode))
		return -ESTALE;
	p->file = dc_files_add(TAKE_FD(fd), &opened, p->path);
	return p->file ? 0 : -ENOMEM;
}

/*
 * By path only the inode says that it is the same file: the device that maps shows is another one than stat()'s on file
 * systems with subvolumes and layers.
 */
static void hold(int proc_fd, struct mapping *p, bool *map_files)
{
	char name[PATH_MAX + 8];
	int r = -EACCES;

	snprintf(name, sizeof(name), "map_files/%" PRIx64 "-%" PRIx64, p->start, p->vma_end);
	if (*map_files)
		r = hold_by(proc_fd, name, p, true);
	if (r != -EACCES && r != -EPERM && r != -ENOENT)
		return;
	*map_files = r == -ENOENT; /* no rights: for nothing of this process, then */
	if (p->flags & DC_MAP_GONE || p->path[0] != '/')
		return;
	snprintf(name, sizeof(name), "root%s", p->path);
	r = hold_by(proc_fd, name, p, false);
	if (r == -EACCES || r == -EPERM)
		r = hold_by(proc_fd, p->path, p, false);
	if (r == -ESTALE || r == -ENOENT)
		p->flags |= DC_MAP_GONE;
}

static void hold_all(int proc_fd, struct found *f)
{
	const void *vdso = (const void *)getauxval(AT_SYSINFO_EHDR); // NOLINT: an address, as the kernel says
	bool map_files = true;

	for (uint32_t i = 0; i < f->count; i++) {
		struct mapping *p = &f->mappings[i];

		if (p->ino)
			hold(proc_fd, p, &map_files);
		else if (p->flags & DC_MAP_VDSO && vdso)
			dc_build_id_of_image(vdso, 4096, &p->id); /* one kernel, one vdso; its first page has the notes */
	}
}

/*
 * Where the first thread has ended and others go on, only theirs show the address space. Its own directory in place of the
 * process's: that has the files, too. Return: 0, -ESRCH.
 */
static int look_through_thread(int *proc_fd)
{
	int task_fd = openat(*proc_fd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
	DIR *d = task_fd >= 0 ? fdopendir(task_fd) : NULL;
	struct dirent *e;

	if (!d) {
		if (task_fd >= 0)
			close(task_fd);
		return -ESRCH;
	}
	while ((e = readdir(d))) /* the last: the first is the one that has ended */
		if (e->d_name[0] != '.') {
			if (fd >= 0)
				close(fd);
			fd = openat(task_fd, e->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		}
	closedir(d);
	if (fd < 0)
		return -ESRCH;
	close(*proc_fd);
	*proc_fd = fd;
	return 0;
}

static bool is_process(uint32_t pid, uint64_t start_time)
{
	struct dc_proc_stat st;

	return pid && dc_proc_stat(pid, &st) == 0 && st.start_time == start_time;
}

/* The directory stays that of the process it was opened for, whoever has its pid by then. */
int dc_maps_read(uint32_t pid, uint64_t start_time, struct found *f)
{
	CLEANUP(close_fd) int proc_fd = -1;
	char path[32];
	int r;

	snprintf(path, sizeof(path), "/proc/%u", pid);
	proc_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc_fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (!is_process(pid, start_time))
		return -ESRCH;
	r = read_maps(proc_fd, f);
	if (r == -ESRCH && f->count == 0 && look_through_thread(&proc_fd) == 0)
		r = read_maps(proc_fd, f);
	if (r < 0)
		return r == -EPERM ? -EACCES : r == -ENOENT ? -ESRCH : r;
	hold_all(proc_fd, f);
	return 0;
}
