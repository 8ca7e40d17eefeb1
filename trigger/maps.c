/* SPDX-License-Identifier: MIT */
#include "trigger/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/now.h"
#include "trigger/maps_inside.h"

#define LOOK_SHARE 100 /* times as long as a look took, until the next one */

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

void dc_maps_unref(struct dc_maps *m)
{
	/* [maps-refs] acq_rel: the last one out sees everything the others did before they let go */
	if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < m->count; i++)
		dc_mapping_fini(&m->mappings[i]);
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
		if (!same || same->end != old->end || same->offset != old->offset || !dc_mapping_same_file(old, same)) {
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
			dc_mapping_fini(&p);
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

static int look(struct dc_maps *m, uint32_t pid, uint64_t start_time, int64_t now)
{
	CLEANUP(found) struct found f = {.mappings = calloc(DC_MAPS_MAX, sizeof(*f.mappings))};
	int r = f.mappings ? dc_maps_read(pid, start_time, &f) : -ENOMEM;

	if (r < 0)
		return r;
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
		if (dc_mapping_path(&p, strings + e->path) < 0)
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
