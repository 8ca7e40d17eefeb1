/* SPDX-License-Identifier: MIT */
#include "trigger/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/ring_check.h"
#include "ipc/round.h"
#include "trigger/death.h"
#include "trigger/glance.h"
#include "trigger/proc.h"

#define CHUNKS_MAX (1u << 18) /* 8 GiB of 32 KiB chunks; bounds what a snapshot allocates */

/* A header older than this layout's size cannot exist: the first released one is a whole page. */
#define VOLATILE_OFF offsetof(struct dc_ring_header, flags)
#define VOLATILE_BYTES (offsetof(struct dc_ring_header, reserved2) - VOLATILE_OFF)
static_assert(VOLATILE_OFF % 8 == 0 && VOLATILE_BYTES % 8 == 0, "glances are of whole words");

/* The whole range or nothing: a short read means the file was truncated under us. */
static int read_exact(int fd, void *to, size_t bytes, uint64_t offset)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = pread(fd, (uint8_t *)to + done, bytes - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		done += (size_t)n;
	}
	return 0;
}

int dc_ring_pread(const struct dc_ring *ring, void *to, size_t bytes, uint64_t at)
{
	return read_exact(ring->fd, to, bytes, at);
}

int dc_ring_pwrite(const struct dc_ring *ring, const void *from, size_t bytes, uint64_t at)
{
	ssize_t n;

	if (!ring->writable)
		return -EROFS;
	n = pwrite(ring->fd, from, bytes, (off_t)at);
	return n < 0 ? -errno : n == (ssize_t)bytes ? 0 : -EIO;
}

static bool owned_by_process(uint32_t file_uid, uint32_t pid)
{
	uint32_t uids[4];

	if (file_uid == 0)
		return true;
	if (dc_proc_uids(pid, uids) < 0)
		return false;
	for (unsigned i = 0; i < 4; i++)
		if (uids[i] == file_uid)
			return true;
	return false;
}

/* A pid is the process of the ring only if it started when the ring says; else it was reused, or made up. */
static void identify(struct dc_ring *ring)
{
	const struct dc_ring_header *h = &ring->header;
	static const uint8_t unknown[16];
	struct dc_proc_stat st;
	uint64_t ours = dc_proc_pid_namespace();
	uint8_t boot_id[16] = {0};

	dc_proc_boot_id(boot_id);
	ring->elsewhere = memcmp(h->boot_id, boot_id, 16) != 0 && memcmp(h->boot_id, unknown, 16) != 0;
	if (ring->elsewhere)
		return;
	ring->pid = h->pid;
	if (ours && h->pid_namespace && h->pid_namespace != ours) {
		ring->pid = dc_proc_find(h->pid, h->start_time, h->pid_namespace);
		if (ring->pid == 0)
			return;
	}
	if (dc_proc_stat(ring->pid, &st) < 0 || st.start_time != h->start_time)
		return;
	ring->verified = owned_by_process(ring->uid, ring->pid) ||
			 dc_proc_maps(ring->pid, ring->dev, ring->ino);
}

static int open_file(int dir_fd, const char *name, struct dc_ring *ring)
{
	const int flags = O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;

	/* Look before opening for writing: opening a device or a FIFO may already do something. */
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		return -ELOOP;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	ring->fd = openat(dir_fd, name, O_RDWR | flags);
	ring->writable = ring->fd >= 0;
	if (ring->fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM))
		ring->fd = openat(dir_fd, name, O_RDONLY | flags);
	if (ring->fd < 0)
		return -errno;
	if (fstat(ring->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	ring->uid = st.st_uid;
	ring->gid = st.st_gid;
	ring->dev = st.st_dev;
	ring->ino = st.st_ino;
	return 0;
}

/* The header comes in three states: not yet (no magic, or the file not yet sized), good, or a lie. */
static int load_header(struct dc_ring *ring, const char **ret_why)
{
	struct dc_ring_header *h = &ring->header;
	struct stat st;
	int r = read_exact(ring->fd, &h->magic, sizeof(h->magic), 0);

	if (r == -EBADMSG || (r == 0 && h->magic == 0)) {
		*ret_why = "not set up yet";
		return -EAGAIN;
	}
	/* [ring-magic] acquire; pairs with the release store that ends the set-up: the rest is there */
	atomic_thread_fence(memory_order_acquire);
	if (r == 0)
		r = read_exact(ring->fd, h, sizeof(*h), 0);
	if (r < 0 || fstat(ring->fd, &st) < 0)
		return r < 0 ? r : -errno;
	r = dc_ring_check(h, (uint64_t)st.st_size, ret_why);
	if (r == 0 && h->chunk_cap > CHUNKS_MAX) {
		*ret_why = "has more than 262144 chunks: no recorder makes such a ring";
		return -EBADMSG;
	}
	return r;
}

static int refuse(const char *name, int r, const char *detail, char why[static DC_WHY_BYTES])
{
	if (!detail)
		detail = r == -ELOOP    ? "is a symbolic link, expected a regular file"
			 : r == -EINVAL ? "is not a regular file"
			 : r == -EBADMSG ? "not a ring, or cut within its header"
					 : strerror(-r);
	snprintf(why, DC_WHY_BYTES, "ring '%.80s': %s", name, detail);
	return r;
}

int dc_ring_open(int dir_fd, const char *name, struct dc_ring **ret_ring, char ret_why[static DC_WHY_BYTES])
{
	CLEANUP(dc_ring) struct dc_ring *ring = calloc(1, sizeof(*ring));
	const char *detail = NULL, *base = strrchr(name, '/');
	int r;

	if (!ring)
		return refuse(name, -ENOMEM, NULL, ret_why);
	ring->fd = ring->pidfd = -1;
	atomic_init(&ring->refs, 1);
	snprintf(ring->name, sizeof(ring->name), "%.100s", base ? base + 1 : name);
	r = open_file(dir_fd, name, ring);
	if (r == 0)
		r = load_header(ring, &detail);
	if (r < 0)
		return refuse(name, r, detail, ret_why);
	identify(ring);
	if (ring->verified && ring->pid) {
		ring->known = dc_known_new();
		ring->maps = dc_maps_new();
	}
	*ret_ring = TAKE(ring);
	return 0;
}

#define BARE_TICK_SHIFT 2u /* units of 4 ns */

void dc_ring_bare_rename(struct dc_ring *ring)
{
	char comm[32];

	if (dc_proc_read(ring->pid, "comm", comm, sizeof(comm)) > 0)
		snprintf(ring->header.name, sizeof(ring->header.name), "%.*s", (int)strcspn(comm, "\n"), comm);
}

static int identify_bare(struct dc_ring *ring, uint32_t pid)
{
	struct dc_ring_header *h = &ring->header;
	struct dc_proc_stat process;
	struct stat owner;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%u", pid);
	if (pid == 0 || dc_proc_stat(pid, &process) < 0 || stat(path, &owner) < 0)
		return -ESRCH;
	if (geteuid() != 0 && owner.st_uid != geteuid())
		return -EPERM;
	ring->pid = h->pid = pid;
	ring->uid = owner.st_uid;
	ring->gid = owner.st_gid;
	h->start_time = process.start_time;
	h->pid_namespace = dc_proc_pid_namespace();
	h->clock = DC_CLOCK_MONOTONIC;
	h->tick_shift = BARE_TICK_SHIFT;
	dc_proc_boot_id(h->boot_id);
	dc_ring_bare_rename(ring);
	dc_death_watch(pid, h->start_time, &ring->pidfd);
	return dc_clock_now(h->clock, &h->anchors[0]);
}

int dc_ring_bare(uint32_t pid, struct dc_ring **ret_ring)
{
	CLEANUP(dc_ring) struct dc_ring *ring = calloc(1, sizeof(*ring));
	int r;

	if (!ring)
		return -ENOMEM;
	ring->fd = ring->pidfd = -1;
	ring->bare = ring->verified = true;
	atomic_init(&ring->refs, 1);
	r = identify_bare(ring, pid);
	if (r < 0)
		return r;
	ring->known = dc_known_new();
	ring->maps = dc_maps_new();
	*ret_ring = TAKE(ring);
	return 0;
}

struct dc_ring *dc_ring_ref(struct dc_ring *ring)
{
	/* relaxed: whoever gives out a reference holds one itself */
	atomic_fetch_add_explicit(&ring->refs, 1, memory_order_relaxed);
	return ring;
}

void dc_ring_unref(struct dc_ring *ring)
{
	/* [ring-refs] acq_rel: the last one out sees everything the others did before they let go */
	if (!ring || atomic_fetch_sub_explicit(&ring->refs, 1, memory_order_acq_rel) != 1)
		return;
	dc_glance_unmap(ring->counters);
	dc_glance_unmap(ring->first_lanes);
	if (ring->fd >= 0)
		close(ring->fd);
	if (ring->pidfd >= 0)
		close(ring->pidfd);
	dc_known_free(ring->known);
	dc_maps_unref(ring->maps);
	free(ring);
}

static bool process_lives(const struct dc_ring *ring)
{
	struct pollfd p = {.fd = ring->pidfd, .events = POLLIN};
	struct dc_proc_stat st;

	if (ring->pidfd >= 0)
		return poll(&p, 1, 0) == 0;
	return dc_proc_stat(ring->pid, &st) == 0 && st.state != 'Z' && st.start_time == ring->header.start_time;
}

int dc_ring_alive(const struct dc_ring *ring)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (ring->bare)
		return process_lives(ring);
	if (fcntl(ring->fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	return lock.l_type != F_UNLCK;
}

static uint32_t clamp(uint32_t value, uint32_t max)
{
	return value < max ? value : max;
}

static void look_from(const struct dc_ring_header *cap, const struct dc_ring_header *h,
		      struct dc_ring_look *ret_look)
{
	*ret_look = (struct dc_ring_look){
		.flags = h->flags,
		.sites_used = clamp(h->sites_used, cap->site_cap),
		.strings_used = clamp(h->strings_used, cap->strings_bytes),
		.modules_used = clamp(h->modules_used, cap->module_cap),
		.lanes_used = clamp(h->lanes_used, cap->lane_cap),
		.chunks_grown = clamp(h->chunks_grown, cap->chunk_cap),
		.anchors_used = h->anchors_used,
		.hand = h->hand,
		.trigger_seq = h->trigger_seq,
		.triggers_asked = h->triggers_asked,
		.lost_early = h->lost_early,
		.lost_lanes = h->lost_lanes,
		.grow_failed = h->grow_failed,
	};
}

int dc_ring_look(const struct dc_ring *ring, struct dc_ring_look *ret_look)
{
	struct dc_ring_header h;
	int r;

	if (ring->bare) {
		*ret_look = (struct dc_ring_look){0};
		return 0;
	}
	r = read_exact(ring->fd, &h.flags, VOLATILE_BYTES, VOLATILE_OFF);

	if (r == 0)
		look_from(&ring->header, &h, ret_look);
	return r;
}

void dc_ring_watch(struct dc_ring *ring)
{
	if (ring->bare || ring->counters)
		return;
	ring->counters = dc_glance_map(ring->fd, 0);
	if (ring->header.lanes_off % DC_GLANCE_BYTES == 0)
		ring->first_lanes = dc_glance_map(ring->fd, ring->header.lanes_off);
}

/* Cut short once, it is read as all others are, and that says so. */
static void let_go(const void **page)
{
	dc_glance_unmap(*page);
	*page = NULL;
}

int dc_ring_glance(struct dc_ring *ring, struct dc_ring_look *ret_look)
{
	struct dc_ring_header h;

	if (!ring->counters)
		return dc_ring_look(ring, ret_look);
	if (!dc_glance_read((const uint8_t *)ring->counters + VOLATILE_OFF, &h.flags, VOLATILE_BYTES)) {
		let_go(&ring->counters);
		return dc_ring_look(ring, ret_look);
	}
	/* [table-publish] [trigger-slot] counts before the entries that they count */
	atomic_thread_fence(memory_order_acquire);
	look_from(&ring->header, &h, ret_look);
	return 0;
}

/* Where no lane is in use yet we make the page, as its first thread would. */
bool dc_ring_glance_lanes(struct dc_ring *ring, struct dc_ring_lane *ret_lanes, uint32_t count)
{
	const size_t bytes = count * sizeof(*ret_lanes);

	if (ring->first_lanes && bytes <= DC_GLANCE_BYTES) {
		if (dc_glance_read(ring->first_lanes, ret_lanes, bytes))
			return true;
		let_go(&ring->first_lanes);
	}
	return dc_ring_read(ring, ret_lanes, bytes, ring->header.lanes_off);
}

bool dc_ring_read(const struct dc_ring *ring, void *to, size_t bytes, uint64_t offset)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = pread(ring->fd, (uint8_t *)to + done, bytes - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	memset((uint8_t *)to + done, 0, bytes - done);
	return done == bytes;
}

bool dc_ring_states(const struct dc_ring *ring, struct dc_chunk_entry *to, uint32_t first, uint32_t count)
{
	return dc_ring_read(ring, to, count * sizeof(*to), ring->header.states_off + first * sizeof(*to));
}

int dc_ring_trigger(const struct dc_ring *ring, uint64_t seq, struct dc_ring_trigger *ret_trigger)
{
	const struct dc_ring_header *h = &ring->header;
	uint64_t at, before, again;
	struct dc_ring_trigger t;
	int r;

	if (seq == 0 || h->trigger_cap == 0)
		return -ESTALE;
	at = h->triggers_off + (seq - 1) % h->trigger_cap * sizeof(t);
	r = read_exact(ring->fd, &before, sizeof(before), at);
	if (r < 0)
		return r;
	/* [trigger-slot] the number before the text and again after it: one read of both is unordered */
	atomic_thread_fence(memory_order_acquire);
	r = read_exact(ring->fd, &t, sizeof(t), at);
	if (r < 0)
		return r;
	atomic_thread_fence(memory_order_acquire); /* [trigger-slot] as above */
	r = read_exact(ring->fd, &again, sizeof(again), at);
	if (r < 0)
		return r;
	if (before != seq || t.seq != seq || again != seq)
		return again > seq ? -ESTALE : -EAGAIN;
	t.text[sizeof(t.text) - 1] = '\0';
	*ret_trigger = t;
	return 0;
}

/* Where each part of the payload begins; the order is DC_BLOCK_TABLES's. */
struct parts {
	size_t header, sites, strings, modules, lanes, triggers, end;
};

static struct parts parts_of(const struct dc_tables_block *c)
{
	struct parts p = {.header = sizeof(*c)};

	p.sites = p.header + sizeof(struct dc_ring_header);
	p.strings = p.sites + c->site_count * sizeof(struct dc_ring_site);
	p.modules = p.strings + dc_round8(c->strings_bytes);
	p.lanes = p.modules + c->module_count * sizeof(struct dc_ring_module);
	p.triggers = p.lanes + c->lane_count * sizeof(struct dc_ring_lane);
	p.end = p.triggers + c->trigger_count * sizeof(struct dc_ring_trigger);
	return p;
}

static int read_tables(const struct dc_ring *ring, const struct dc_tables_block *c, const struct parts *p,
		       uint8_t *to)
{
	const struct dc_ring_header *h = &ring->header;
	int r = read_exact(ring->fd, to + p->sites, p->strings - p->sites, h->sites_off);

	if (r == 0)
		r = read_exact(ring->fd, to + p->strings, c->strings_bytes, h->strings_off);
	if (r == 0)
		r = read_exact(ring->fd, to + p->modules, p->lanes - p->modules, h->modules_off);
	if (r == 0)
		r = read_exact(ring->fd, to + p->lanes, p->triggers - p->lanes, h->lanes_off);
	if (r == 0)
		r = read_exact(ring->fd, to + p->triggers, p->end - p->triggers, h->triggers_off);
	return r;
}

int dc_ring_tables(const struct dc_ring *ring, struct dc_ring_tables *ret_tables)
{
	CLEANUP(free) uint8_t *bytes = NULL;
	struct dc_ring_header h;
	struct dc_ring_look look;
	struct dc_tables_block c = {.trigger_count = ring->header.trigger_cap};
	struct parts p;
	int r = read_exact(ring->fd, &h, sizeof(h), 0);

	if (r < 0)
		return r;
	memcpy(&h, &ring->header, VOLATILE_OFF);
	look_from(&ring->header, &h, &look);
	/* [table-publish] counts before entries: an entry below the count was complete when the count was read */
	atomic_thread_fence(memory_order_acquire);
	c.site_count = look.sites_used;
	c.strings_bytes = look.strings_used;
	c.module_count = look.modules_used;
	c.lane_count = look.lanes_used;
	p = parts_of(&c);
	bytes = calloc(1, p.end);
	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, &c, sizeof(c));
	memcpy(bytes + p.header, &h, sizeof(h));
	r = read_tables(ring, &c, &p, bytes);
	if (r < 0)
		return r;
	*ret_tables = (struct dc_ring_tables){.bytes = TAKE(bytes), .size = p.end, .counts = c};
	return 0;
}

const struct dc_ring_header *dc_ring_tables_header(const struct dc_ring_tables *t)
{
	return (const void *)(t->bytes + parts_of(&t->counts).header);
}

struct dc_ring_lane *dc_ring_tables_lanes(const struct dc_ring_tables *t)
{
	return (void *)(t->bytes + parts_of(&t->counts).lanes);
}

const struct dc_ring_site *dc_ring_tables_sites(const struct dc_ring_tables *t)
{
	return (const void *)(t->bytes + parts_of(&t->counts).sites);
}

const char *dc_ring_tables_strings(const struct dc_ring_tables *t)
{
	return (const char *)(t->bytes + parts_of(&t->counts).strings);
}

const struct dc_ring_module *dc_ring_tables_modules(const struct dc_ring_tables *t)
{
	return (const void *)(t->bytes + parts_of(&t->counts).modules);
}

/* Without a second moment there is no rate; only a ring whose anchors are all lies needs this. */
static int add_moment(uint32_t kind, struct dc_clock *clock)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	struct dc_anchor now;

	nanosleep(&moment, NULL);
	dc_clock_now(kind, &now);
	return dc_clock_add(clock, &now);
}

int dc_ring_clock(const struct dc_ring *ring, struct dc_clock *ret_clock)
{
	const uint32_t kind = ring->header.clock;
	struct dc_anchor anchors[DC_ANCHOR_MAX], now;
	int r = 0;

	if (ring->bare)
		memcpy(anchors, ring->header.anchors, sizeof(anchors));
	else
		r = read_exact(ring->fd, anchors, sizeof(anchors), offsetof(struct dc_ring_header, anchors));

	if (r == 0 && !ring->elsewhere)
		r = dc_clock_now(kind, &now);
	if (r < 0)
		return r;
	dc_clock_init(ret_clock, kind, ring->header.tick_shift);
	/* Ours first: what the guest claims must fit it, not the other way round. */
	if (!ring->elsewhere)
		r = dc_clock_add(ret_clock, &now);
	for (unsigned i = 0; i < DC_ANCHOR_MAX; i++)
		if (anchors[i].tick)
			dc_clock_add(ret_clock,
				     &anchors[i]); /* a refused one is a lie or torn: the others serve */
	if (r == 0 && !ring->elsewhere && ret_clock->count == 1)
		r = add_moment(kind, ret_clock);
	return r;
}

uint64_t dc_ring_last(const struct dc_ring *ring)
{
	CLEANUP(free) struct dc_ring_lane *lanes = NULL;
	struct dc_ring_look look;
	uint64_t last = 0;

	if (dc_ring_look(ring, &look) < 0)
		return 0;
	lanes = calloc(look.lanes_used + 1, sizeof(*lanes));
	if (!lanes ||
	    read_exact(ring->fd, lanes, look.lanes_used * sizeof(*lanes), ring->header.lanes_off) < 0)
		return 0;
	for (uint32_t i = 0; i < look.lanes_used; i++)
		last = lanes[i].last_units > last ? lanes[i].last_units : last;
	return last;
}

uint64_t dc_ring_now(const struct dc_ring *ring)
{
	struct dc_anchor now;

	if (ring->elsewhere)
		return dc_ring_last(ring);
	return dc_clock_now(ring->header.clock, &now) == 0 ? now.tick >> ring->header.tick_shift : 0;
}
