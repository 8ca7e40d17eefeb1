/* SPDX-License-Identifier: MIT */
#include "trigger/maps.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "ipc/now.h"
#include "trigger/proc.h"

#define TEXT_BYTES (64u << 10)
#define DELETED " (deleted)"
#define LOOK_SHARE 100 /* times as long as a look took, until the next one */
#define BLOCK_BYTES (512u << 10)
#define KERNEL_START (UINT64_C(1) << 63)

struct mapping {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t vma_end; /* of its first part, as map_files calls it: adjoining parts are one here */
	dev_t dev; /* as the kernel prints it; on btrfs and overlays not what stat() says */
	ino_t ino; /* 0: of no file */
	uint8_t flags;
	int64_t from_ns;
	int64_t until_ns;
	uint64_t serial;
	struct dc_build_id id; /* of what is no file */
	struct dc_file *file;
	char *path;
};

/* What one look found, in order of addresses. */
struct found {
	uint32_t count;
	struct mapping *mappings; /* DC_MAPS_MAX */
};

struct dc_maps {
	_Atomic uint32_t refs;
	pthread_mutex_t lock; /* everything below */
	_Atomic bool wanted; /* written under the lock; asked without it, of every process at every look */
	int64_t due_ns;
	int64_t looked_ns; /* CLOCK_MONOTONIC of the last look, 0: none yet */
	uint64_t last_serial;
	uint32_t count;
	uint32_t room;
	struct mapping *mappings; /* in the order they were seen */
};

/* relaxed, both: the lock is what orders; who asks without it and misses a wish sees it at the next look */
static void want(struct dc_maps *m, bool yes)
{
	atomic_store_explicit(&m->wanted, yes, memory_order_relaxed);
}

static bool wanted(struct dc_maps *m)
{
	return atomic_load_explicit(&m->wanted, memory_order_relaxed);
}

struct dc_maps *dc_maps_new(void)
{
	struct dc_maps *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	atomic_init(&m->refs, 1);
	pthread_mutex_init(&m->lock, NULL);
	want(m, true);
	return m;
}

struct dc_maps *dc_maps_ref(struct dc_maps *m)
{
	/* relaxed: whoever gives out a reference holds one itself */
	if (m)
		atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
	return m;
}

static void mapping_fini(struct mapping *p)
{
	dc_files_put(TAKE(p->file));
	free(TAKE(p->path));
}

void dc_maps_unref(struct dc_maps *m)
{
	/* [maps-refs] acq_rel: the last one out sees everything the others did before they let go */
	if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < m->count; i++)
		mapping_fini(&m->mappings[i]);
	free(m->mappings);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

void dc_maps_want(struct dc_maps *m)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	want(m, true);
	pthread_mutex_unlock(&m->lock);
}

bool dc_maps_due(struct dc_maps *m, int64_t now)
{
	bool due;

	if (!m || !wanted(m))
		return false;
	pthread_mutex_lock(&m->lock);
	due = wanted(m) && now >= m->due_ns;
	pthread_mutex_unlock(&m->lock);
	return due;
}

uint32_t dc_maps_count(struct dc_maps *m)
{
	uint32_t count;

	if (!m)
		return 0;
	pthread_mutex_lock(&m->lock);
	count = m->count;
	pthread_mutex_unlock(&m->lock);
	return count;
}

bool dc_maps_of_process(struct dc_maps *m)
{
	bool any = false;

	if (!m)
		return false;
	pthread_mutex_lock(&m->lock);
	for (uint32_t i = 0; i < m->count && !any; i++)
		any = !(m->mappings[i].flags & DC_MAP_KERNEL);
	pthread_mutex_unlock(&m->lock);
	return any;
}

/* --- what /proc/PID/maps says --- */

static void found_cleanup(struct found *f)
{
	for (uint32_t i = 0; i < f->count; i++)
		mapping_fini(&f->mappings[i]);
	free(f->mappings);
}

static bool same_file(const struct mapping *a, const struct mapping *b)
{
	return a->dev == b->dev && a->ino == b->ino && strcmp(a->path, b->path) == 0;
}

/* Code is often in several parts: huge pages, probes, a JIT that grows. */
static bool goes_on(const struct mapping *a, const struct mapping *b)
{
	return a->end == b->start && same_file(a, b) && (a->ino == 0 || a->offset + (a->end - a->start) == b->offset);
}

/* Return: 0, -ENOMEM. */
static int take_path(struct mapping *p, const char *path)
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

	if (take_path(p, path) < 0)
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

/* --- from what was found to what is known; with the lock --- */

static int by_start(const void *a, const void *b)
{
	const struct mapping *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* What was there before and still is goes out of @f, what is not any more gets its time. */
static void match(struct dc_maps *m, struct found *f, int64_t now)
{
	for (uint32_t i = 0; i < m->count; i++) {
		struct mapping *old = &m->mappings[i], *same;

		if (old->until_ns || old->flags & DC_MAP_KERNEL)
			continue;
		same = bsearch(old, f->mappings, f->count, sizeof(*old), by_start);
		if (!same || same->end != old->end || same->offset != old->offset || !same_file(old, same)) {
			old->until_ns = now;
			continue;
		}
		old->flags |= same->flags;
		if (!old->file)
			old->file = TAKE(same->file);
		same->serial = old->serial; /* known */
	}
}

static void forget_oldest_gone(struct dc_maps *m, uint32_t wanted)
{
	uint32_t kept = 0, over = m->count + wanted > DC_MAPS_MAX ? m->count + wanted - DC_MAPS_MAX : 0;

	for (uint32_t i = 0; i < m->count; i++) {
		struct mapping p = m->mappings[i];

		if (over && p.until_ns) {
			mapping_fini(&p);
			over--;
		} else {
			m->mappings[kept++] = p;
		}
	}
	m->count = kept;
}

static int make_room(struct dc_maps *m, uint32_t wanted)
{
	uint32_t room = m->count + wanted;
	struct mapping *mappings;

	if (room > DC_MAPS_MAX)
		room = DC_MAPS_MAX;
	if (room <= m->room)
		return 0;
	mappings = reallocarray(m->mappings, room, sizeof(*mappings));
	if (!mappings)
		return -ENOMEM;
	m->mappings = mappings;
	m->room = room;
	return 0;
}

static int merge(struct dc_maps *m, struct found *f, int64_t now)
{
	uint32_t fresh = 0;

	match(m, f, now);
	for (uint32_t i = 0; i < f->count; i++)
		fresh += f->mappings[i].serial == 0;
	forget_oldest_gone(m, fresh);
	if (make_room(m, fresh) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->count && m->count < m->room; i++) {
		struct mapping *p = &f->mappings[i];

		if (p->serial)
			continue;
		p->serial = ++m->last_serial;
		p->from_ns = m->looked_ns;
		m->mappings[m->count++] = *p;
		p->file = NULL;
		p->path = NULL;
	}
	m->looked_ns = now;
	return 0;
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
static int look(struct dc_maps *m, uint32_t pid, uint64_t start_time, int64_t now)
{
	CLEANUP(found) struct found f = {.mappings = calloc(DC_MAPS_MAX, sizeof(*f.mappings))};
	CLEANUP(close_fd) int proc_fd = -1;
	char path[32];
	int r;

	if (!f.mappings)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/proc/%u", pid);
	proc_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc_fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (!is_process(pid, start_time))
		return -ESRCH;
	r = read_maps(proc_fd, &f);
	if (r == -ESRCH && f.count == 0 && look_through_thread(&proc_fd) == 0)
		r = read_maps(proc_fd, &f);
	if (r < 0)
		return r == -EPERM ? -EACCES : r == -ENOENT ? -ESRCH : r;
	hold_all(proc_fd, &f);
	pthread_mutex_lock(&m->lock);
	r = merge(m, &f, now);
	pthread_mutex_unlock(&m->lock);
	return r;
}

int dc_maps_look(struct dc_maps *m, uint32_t pid, uint64_t start_time)
{
	const int64_t began = dc_now_ns();
	int r;

	if (!m)
		return 0;
	pthread_mutex_lock(&m->lock);
	want(m, false); /* what changes from here on is worth another look */
	pthread_mutex_unlock(&m->lock);
	r = look(m, pid, start_time, began);
	pthread_mutex_lock(&m->lock);
	m->due_ns = began + (dc_now_ns() - began) * LOOK_SHARE;
	pthread_mutex_unlock(&m->lock);
	return r;
}

static bool module_is_whole(const struct dc_ring_module *e, const char *strings, uint32_t strings_bytes)
{
	return e->published && e->end > e->start && e->end <= KERNEL_START &&
	       e->build_id_bytes <= DC_BUILD_ID_BYTES && e->path < strings_bytes &&
	       memchr(strings + e->path, '\0', strings_bytes - e->path);
}

struct dc_maps *dc_maps_of_modules(const struct dc_ring_module *modules, uint32_t count, const char *strings,
				   uint32_t strings_bytes)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();

	count = count < DC_MAPS_MAX ? count : DC_MAPS_MAX;
	if (!m || make_room(m, count) < 0)
		return NULL;
	for (uint32_t i = 0; i < count; i++) {
		const struct dc_ring_module *e = &modules[i];
		struct mapping p = {.start = e->start, .end = e->end};

		if (!module_is_whole(e, strings, strings_bytes))
			continue;
		if (take_path(&p, strings + e->path) < 0)
			return NULL;
		p.id.count = e->build_id_bytes;
		memcpy(p.id.bytes, e->build_id, e->build_id_bytes);
		p.serial = ++m->last_serial;
		m->mappings[m->count++] = p;
	}
	return TAKE(m);
}

void dc_maps_kernel(struct dc_maps *m)
{
	CLEANUP(close_fd) int fd = open("/sys/kernel/notes", O_RDONLY | O_CLOEXEC);
	struct mapping p = {.start = KERNEL_START, .end = UINT64_MAX, .flags = DC_MAP_KERNEL};
	uint8_t notes[4096];
	ssize_t n = fd < 0 ? 0 : read(fd, notes, sizeof(notes));

	if (!m || !(p.path = strdup("[kernel.kallsyms]")))
		return;
	if (n > 0)
		dc_build_id_of_notes(notes, (size_t)n, 4, &p.id);
	pthread_mutex_lock(&m->lock);
	for (uint32_t i = 0; i < m->count && p.path; i++)
		if (m->mappings[i].flags & DC_MAP_KERNEL)
			free(TAKE(p.path));
	if (p.path && make_room(m, 1) == 0 && m->count < m->room) {
		p.serial = ++m->last_serial;
		m->mappings[m->count++] = p;
		p.path = NULL;
	}
	pthread_mutex_unlock(&m->lock);
	free(p.path);
}

/* --- blocks --- */

static void fill_entry(struct dc_map_entry *e, const struct mapping *p, uint32_t path)
{
	const struct dc_build_id *id = p->file ? &p->file->id : &p->id;

	*e = (struct dc_map_entry){
		.start = p->start,
		.end = p->end,
		.offset = p->offset,
		.from_ns = p->from_ns,
		.until_ns = p->until_ns,
		.path = path,
		.flags = p->flags,
		.build_id_bytes = id->count,
	};
	memcpy(e->build_id, id->bytes, id->count);
}

/* The next entries that fit into a block, with the lock. Return: its bytes, 0: there are no more; -ENOMEM. */
static ssize_t fill_block(const struct dc_maps *m, struct dc_maps_mark *mark, uint8_t **ret_payload)
{
	struct dc_maps_block head = {.first = mark->count};
	size_t bytes = sizeof(head), text;
	uint32_t first = 0, i;
	uint8_t *payload;

	while (first < m->count && m->mappings[first].serial <= mark->serial)
		first++;
	for (i = first; i < m->count && bytes < BLOCK_BYTES; i++, head.count++) {
		bytes += sizeof(struct dc_map_entry) + strlen(m->mappings[i].path) + 1;
		head.strings_bytes += (uint32_t)strlen(m->mappings[i].path) + 1;
	}
	if (head.count == 0)
		return 0;
	payload = malloc(bytes);
	if (!payload)
		return -ENOMEM;
	text = bytes - head.strings_bytes;
	memcpy(payload, &head, sizeof(head));
	for (uint32_t k = 0, at = 0; k < head.count; k++) {
		const struct mapping *p = &m->mappings[first + k];
		struct dc_map_entry e;

		fill_entry(&e, p, at);
		memcpy(payload + sizeof(head) + k * sizeof(e), &e, sizeof(e));
		memcpy(payload + text + at, p->path, strlen(p->path) + 1);
		at += (uint32_t)strlen(p->path) + 1;
		mark->serial = p->serial;
	}
	mark->count += head.count;
	*ret_payload = payload;
	return (ssize_t)bytes;
}

int dc_maps_write(struct dc_maps *m, struct dc_writer *w, uint32_t process, struct dc_maps_mark *mark)
{
	ssize_t bytes = m != NULL;
	int r = 0;

	while (r == 0 && bytes > 0) {
		CLEANUP(free) uint8_t *payload = NULL;

		pthread_mutex_lock(&m->lock);
		bytes = fill_block(m, mark, &payload);
		pthread_mutex_unlock(&m->lock);
		if (bytes > 0)
			r = dc_writer_block(w, DC_BLOCK_MAPS, process, payload, (size_t)bytes);
	}
	return bytes < 0 ? (int)bytes : r;
}
