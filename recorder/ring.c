/* SPDX-License-Identifier: MIT */
/*
 * The ring of this process as a file: made, locked, mapped, filled in up to its first chunk; or undone without a trace.
 *
 *   lock      an OFD write lock that the mapping keeps when the descriptor is closed: held exactly as long as this
 *             process image lives (MADV_DONTFORK: no child keeps it)
 *   control   its part is mapped a second time: switches.c
 *   magic     last, by start.c
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "recorder/recorder.h"
#include "recorder/text.h"

#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif

#define CAP_UNPOPULATED (UINT64_C(8) << 20) /* before Linux 5.14 all of it is allocated at start */

static void random_bytes(void *at, size_t n)
{
	if (dc_sys(SYS_getrandom, at, n, 1 /* GRND_NONBLOCK */) != (long)n) {
		uint64_t t = dc_clock_slow() * 0x9e3779b97f4a7c15u; /* early boot: unique enough for a file name */
		memcpy(at, &t, n < sizeof t ? n : sizeof t);
	}
}

/* <dir>/<pid>.<start time>.<salt>.ring into the recorder. Return: where the name begins behind its directory. */
static size_t file_name(struct dc_making *m, uint32_t salt)
{
	char *name = m->r->ring;
	size_t size = sizeof m->r->ring, dir = dc_text_put(name, size, 0, m->place.dir);
	dir = dc_text_put(name, size, dir, "/");
	size_t at = dc_text_put_number(name, size, dir, m->r->pid, 10);
	at = dc_text_put(name, size, at, ".");
	at = dc_text_put_number(name, size, at, m->self.start_time, 10);
	at = dc_text_put(name, size, at, ".");
	for (int shift = 28; shift >= 0; shift -= 4)
		at = dc_text_put_number(name, size, at, salt >> shift & 15, 16);
	dc_text_put(name, size, at, ".ring");
	return dir;
}

static int file_create(struct dc_making *m)
{
	for (int tries = 0; tries < 4; tries++) {
		uint32_t salt;
		random_bytes(&salt, sizeof salt);
		const char *name = m->r->ring + file_name(m, salt);
		long fd = dc_sys(SYS_openat, m->place.fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0) {
			m->fd = (int)fd;
			m->r->stamps = salt;
			return 0;
		}
		if (fd != -EEXIST)
			return (int)fd;
	}
	return -EEXIST;
}

static void parts_find(struct dc_recorder *r, const struct dc_ring_header *l)
{
	uint32_t threads = dc_pages_threads();
	r->header = (struct dc_ring_header *)r->map;
	r->control = (struct dc_ring_control *)(r->map + l->control_off);
	r->sites = (struct dc_ring_site *)(r->map + l->sites_off);
	r->strings = (char *)(r->map + l->strings_off);
	r->modules = (struct dc_ring_module *)(r->map + l->modules_off);
	r->lanes = (struct dc_ring_lane *)(r->map + l->lanes_off);
	r->triggers = (struct dc_ring_trigger *)(r->map + l->triggers_off);
	r->crash = (struct dc_ring_crash *)(r->map + l->crash_off);
	r->samples = l->samples_off ? (struct dc_ring_samples *)(r->map + l->samples_off) : NULL;
	r->samples_room = l->samples_off ? (uint32_t)(l->samples_bytes - sizeof *r->samples) : 0;
	r->entries = (struct dc_chunk_entry *)(r->map + l->states_off);
	r->chunks = r->map + l->chunks_off;
	r->threads = (struct dc_thread *)((uint8_t *)r + DC_PAGE_BYTES);
	r->lane_cap = l->lane_cap < threads ? l->lane_cap : threads;
	r->chunk_cap = l->chunk_cap;
	r->chunk_bytes = l->chunk_bytes;
}

static int file_map(struct dc_making *m)
{
	struct dc_recorder *r = m->r;
	uint64_t bytes = m->layout.file_bytes;
	struct flock lock = { .l_type = F_WRLCK };
	long err = dc_sys(SYS_ftruncate, m->fd, bytes);
	if (err < 0)
		return (int)err;
	void *map = dc_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	if (DC_MAP_FAILED(map))
		return (int)(long)map;
	r->map = map;
	r->map_bytes = bytes;
	if ((err = dc_sys(SYS_fcntl, m->fd, F_OFD_SETLK, &lock)) < 0)
		return (int)err;
	dc_sys(SYS_madvise, map, bytes, MADV_DONTFORK);
	dc_sys(SYS_madvise, map, bytes, MADV_DONTDUMP);
	parts_find(r, &m->layout);
	return 0;
}

/* Before Linux 5.14 there is no populating by madvise: allocate everything now. */
static int allocate_all(struct dc_making *m)
{
	long err = dc_sys(SYS_fallocate, m->fd, 0, 0, m->layout.file_bytes);
	if (err < 0)
		return (int)err;
	memset(m->r->pages, 0xff, sizeof m->r->pages);
	m->r->allocated = true;
	return 0;
}

static void header_fill(struct dc_making *m)
{
	struct dc_ring_header *h = m->r->header;
	*h = m->layout;
	h->version = DC_RING_VERSION;
	h->header_bytes = sizeof *h;
	h->clock = m->clock;
	h->tick_shift = DC_TICK_SHIFT_;
	h->pid = m->r->pid;
	h->uid = m->place.uid;
	h->gid = (uint32_t)dc_sys(SYS_getegid);
	h->start_time = m->self.start_time;
	h->pid_namespace = m->self.pid_namespace;
	h->window_ns = m->r->window_ns;
	h->started_tick = dc_ticks(m->r);
	memcpy(h->boot_id, dc_host()->boot_id, sizeof h->boot_id);
	if (m->settings.name)
		dc_text_put(h->name, sizeof h->name, 0, m->settings.name);
	else
		dc_self_name(h->name);
}

/* Pages every ring needs, and the first chunks. */
static int populate_first(struct dc_making *m)
{
	struct dc_recorder *r = m->r;
	int err = dc_populate(r, r->control, DC_PAGE_BYTES);
	if (!err)
		err = dc_populate_chunks(r, 0, 1); /* a page costs 2 to 3 µs; growth doubles from here */
	if (err)
		return err;
	dc_chunk_ready(r, 0);
	r->grow_step = 1;
	r->chunks_reserved = 1;
	r->header->chunks_grown = 1;
	return 0;
}

static int make(struct dc_making *m)
{
	struct dc_recorder *r = m->r;
	uint64_t cap;
	int err = dc_place_cap(&m->place, m->settings.memory_bytes, &cap);
	if (err)
		return err;
	dc_layout_fill(&m->layout, cap, dc_sites_count(), dc_strings_bytes());
	if (!m->layout.chunk_cap)
		return -ENOSPC;
	if ((err = file_create(m)) || (err = file_map(m)) || (err = dc_switches_map(r, &m->layout)))
		return err;
	/* the header page decides which way pages come */
	long populated = dc_sys(SYS_madvise, r->map, DC_PAGE_BYTES, 23 /* MADV_POPULATE_WRITE */);
	if (populated == -EINVAL && (cap > CAP_UNPOPULATED || (err = allocate_all(m))))
		return err ? err : -EAGAIN;
	if (populated < 0 && populated != -EINVAL)
		return -ENOSPC;
	r->pages[0] |= 1;
	r->window_ns = m->settings.window_ns;
	r->copies = m->settings.copies;
	header_fill(m);
	if ((err = populate_first(m)) || (err = dc_sites_restore(r)))
		return err;
	if (dc_modules_restore(r) == -ENOENT)
		dc_modules_scan(r, NULL); /* an event before our constructor */
	dc_anchor_take(r);
	return 0;
}

/* Nothing of a ring that did not come to be may be left behind, or the next try believes it. */
void dc_ring_undo(struct dc_making *m)
{
	struct dc_recorder *r = m->r;
	if (r->map)
		dc_sys(SYS_munmap, r->map, m->layout.file_bytes);
	if (m->fd >= 0) {
		if ((uint32_t)dc_sys(SYS_getpid) == r->pid) /* else we are a child that was forked during the start */
			dc_sys(SYS_unlinkat, AT_FDCWD, r->ring, 0);
		dc_sys(SYS_close, m->fd);
	}
	m->fd = -1;
	uint64_t lost_early = __atomic_load_n(&r->lost_early, __ATOMIC_RELAXED); /* a count that goes on */
	*r = (struct dc_recorder){
		.phase = DC_PHASE_STARTING,
		.pages_taken = r->pages_taken,
		.pid = r->pid,
		.slow_clock = r->slow_clock,
		.lost_early = lost_early,
	};
}

int dc_ring_make(struct dc_making *m)
{
	int err = make(m);
	if (err == -EAGAIN) { /* an old kernel: once more, smaller */
		dc_ring_undo(m);
		m->settings.memory_bytes = CAP_UNPOPULATED;
		err = make(m);
	}
	return err;
}
