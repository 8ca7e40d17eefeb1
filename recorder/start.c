/* SPDX-License-Identifier: MIT */
/*
 * Starting to record: from nothing to a ring that readers accept, in well under 100 µs, with raw system calls only, in
 * any context. Whatever goes wrong undoes itself and leaves recording off; the app never notices more than an errno.
 *
 *   where     a directory (no link) that is ours or root's; where others may write, sticky like /tmp
 *   how big   the least of what was asked, a quarter of the tmpfs's free space, a sixteenth of the cgroup's memory,
 *             RLIMIT_FSIZE (ftruncate beyond it kills by SIGXFSZ), and little under mlockall(MCL_FUTURE)
 *   lock      an OFD write lock that the mapping keeps when the descriptor is closed: held exactly as long as this
 *             process image lives (MADV_DONTFORK: no child keeps it)
 *   control   its part is mapped a second time, read-only, at an address that children inherit; a child's own ring is
 *             mapped over it, so the sites' pointers stay good
 *   magic     last
 *
 * Signals are blocked from the election of the starter to its end: a handler that leaves by siglongjmp() would take the
 * starter away with half a ring, and nobody would ever start again; a slow one would keep all other threads waiting.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "recorder/recorder.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifndef F_OFD_SETLK
#define F_OFD_SETLK 37
#endif

#define CAP_MIN (UINT64_C(512) << 10)
#define CAP_LOCKED (UINT64_C(4) << 20) /* under MCL_FUTURE every mapped page is resident at once */
#define CAP_UNPOPULATED (UINT64_C(8) << 20) /* before Linux 5.14 all of it is allocated at start */
#define THREADS_LOCKED 64u

#define START_SPINS 4000u /* of ten-odd ns: as long as a start takes */
#define START_TURNS 6000u /* the rest yields the CPU */

/* dc_recorder.pages_taken */
#define PAGES_INHERITED 0u /* wiped by fork */
#define PAGES_OURS 1u
#define PAGES_LEFT 2u /* others take their place */

struct dc_recorder *dc_recorder;
uint8_t dc_image;

/* What a child inherits: see recorder.h. */
static struct {
	uint32_t threads; /* pages behind the recorder's */
	bool locked; /* MCL_FUTURE */
	void *control;
} lasting;

struct start {
	struct dc_recorder *r;
	struct dc_settings settings;
	struct dc_ring_header layout;
	char dir[80];
	struct dc_self self;
	uint32_t clock; /* DC_CLOCK_* */
	uint32_t uid;
	int64_t dir_bytes; /* of the directory itself */
	int dir_fd;
	int fd;
};

static size_t put(char *text, size_t size, size_t at, const char *more)
{
	while (*more && at + 1 < size)
		text[at++] = *more++;
	text[at] = 0;
	return at;
}

static size_t put_number(char *text, size_t size, size_t at, uint64_t v, unsigned base)
{
	char digits[24];
	size_t n = sizeof digits - 1;
	digits[n] = 0;
	do {
		digits[--n] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	return put(text, size, at, digits + n);
}

/* ---- where ---- */

static bool dir_exists(const char *path)
{
	struct stat st;
	return dc_sys(SYS_newfstatat, AT_FDCWD, path, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

static void dir_choose(struct start *s)
{
	if (s->settings.dir) {
		put(s->dir, sizeof s->dir, 0, s->settings.dir);
	} else if (dir_exists("/run/dashcam")) {
		put(s->dir, sizeof s->dir, 0, "/run/dashcam");
	} else {
		size_t at = put(s->dir, sizeof s->dir, 0, "/dev/shm/dashcam-");
		put_number(s->dir, sizeof s->dir, at, s->uid, 10);
	}
}

/* Ours or root's, and nobody else may put or take files in it unless it is sticky. */
static int dir_check(struct start *s)
{
	struct stat st;
	long err = dc_sys(SYS_fstat, s->dir_fd, &st);
	if (err < 0)
		return (int)err;
	if (st.st_uid != s->uid && st.st_uid != 0)
		return -EPERM;
	if ((st.st_mode & 022) && !(st.st_mode & S_ISVTX))
		return -EPERM;
	s->dir_bytes = st.st_size;
	return 0;
}

/* tmpfs counts 20 bytes an entry: a directory this small holds no four rings, so there is nothing to sweep. */
static bool dir_nearly_empty(const struct start *s)
{
	return s->dir_bytes < 6 * 20 && s->settings.memory_bytes <= 64u << 20;
}

static int dir_open(struct start *s)
{
	if (s->settings.dir && strlen(s->settings.dir) >= sizeof s->dir)
		return -ENAMETOOLONG;
	dir_choose(s);
	/* no links: in /dev/shm anybody may have made one that leads root's rings into /etc */
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	long fd = dc_sys(SYS_openat, AT_FDCWD, s->dir, flags, 0);
	if (fd == -ENOENT) {
		dc_sys(SYS_mkdirat, AT_FDCWD, s->dir, 0700);
		fd = dc_sys(SYS_openat, AT_FDCWD, s->dir, flags, 0);
	}
	if (fd < 0)
		return (int)fd;
	s->dir_fd = (int)fd;
	return dir_check(s);
}

/* ---- how big ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t decimal(const char *text)
{
	uint64_t v = 0;
	for (; *text >= '0' && *text <= '9'; text++)
		v = v * 10 + (uint64_t)(*text - '0');
	return v;
}

/* memory.max of the cgroup (v2) we are in; UINT64_MAX: none. */
static uint64_t cgroup_memory(void)
{
	char text[512], path[600];
	if (dc_sys(SYS_faccessat, AT_FDCWD, "/sys/fs/cgroup/cgroup.controllers", 0) < 0)
		return UINT64_MAX; /* no unified hierarchy here */
	if (dc_slurp("/proc/self/cgroup", text, sizeof text) <= 0)
		return UINT64_MAX;
	char *v2 = strstr(text, "0::");
	if (!v2)
		return UINT64_MAX;
	char *end = strchr(v2, '\n');
	if (end)
		*end = 0;
	size_t at = put(path, sizeof path, 0, "/sys/fs/cgroup");
	at = put(path, sizeof path, at, v2 + 3);
	put(path, sizeof path, at, "/memory.max");
	if (dc_slurp(path, text, sizeof text) <= 0 || text[0] < '0' || text[0] > '9')
		return UINT64_MAX;
	return decimal(text);
}

static int cap_choose(struct start *s, uint64_t *ret_cap)
{
	struct statfs fs;
	struct rlimit limit;
	uint64_t cap = least(s->settings.memory_bytes, DC_RING_BYTES_MAX);
	if (dc_sys(SYS_fstatfs, s->dir_fd, &fs) == 0)
		cap = least(cap, (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / 4);
	uint64_t cgroup = cgroup_memory();
	if (cgroup != UINT64_MAX)
		cap = least(cap, cgroup / 16);
	if (dc_sys(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		cap = least(cap, limit.rlim_cur);
	if (lasting.locked) /* what we lock the app cannot: leave it most of what it may lock */
		cap = least(cap, CAP_LOCKED);
	if (lasting.locked && dc_sys(SYS_prlimit64, 0, RLIMIT_MEMLOCK, NULL, &limit) == 0 &&
	    limit.rlim_cur != RLIM_INFINITY)
		cap = least(cap, limit.rlim_cur / 8);
	*ret_cap = cap;
	return cap < CAP_MIN ? -ENOSPC : 0;
}

/* ---- the file ---- */

static void random_bytes(void *at, size_t n)
{
	if (dc_sys(SYS_getrandom, at, n, 1 /* GRND_NONBLOCK */) != (long)n) {
		uint64_t t = dc_clock_slow() * 0x9e3779b97f4a7c15u; /* early boot: unique enough for a file name */
		memcpy(at, &t, n < sizeof t ? n : sizeof t);
	}
}

static int file_create(struct start *s)
{
	for (int tries = 0; tries < 4; tries++) {
		uint32_t salt;
		random_bytes(&salt, sizeof salt);
		char *name = s->r->ring;
		size_t size = sizeof s->r->ring, dir = put(name, size, 0, s->dir);
		dir = put(name, size, dir, "/");
		size_t at = put_number(name, size, dir, s->r->pid, 10);
		at = put(name, size, at, ".");
		at = put_number(name, size, at, s->self.start_time, 10);
		at = put(name, size, at, ".");
		for (int shift = 28; shift >= 0; shift -= 4)
			at = put_number(name, size, at, salt >> shift & 15, 16);
		put(name, size, at, ".ring");
		long fd = dc_sys(SYS_openat, s->dir_fd, name + dir, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
				 0600);
		if (fd >= 0) {
			s->fd = (int)fd;
			s->r->stamps = salt;
			return 0;
		}
		if (fd != -EEXIST)
			return (int)fd;
	}
	return -EEXIST;
}

static int map_ring(struct start *s)
{
	struct dc_recorder *r = s->r;
	struct dc_ring_header *l = &s->layout;
	struct flock lock = { .l_type = F_WRLCK };
	long err = dc_sys(SYS_ftruncate, s->fd, l->file_bytes);
	if (err < 0)
		return (int)err;
	r->map = dc_sys_mmap(NULL, l->file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (DC_MAP_FAILED(r->map)) {
		err = (long)r->map;
		r->map = NULL;
		return (int)err;
	}
	r->map_bytes = l->file_bytes;
	if ((err = dc_sys(SYS_fcntl, s->fd, F_OFD_SETLK, &lock)) < 0)
		return (int)err;
	dc_sys(SYS_madvise, r->map, l->file_bytes, MADV_DONTFORK);
	dc_sys(SYS_madvise, r->map, l->file_bytes, MADV_DONTDUMP);
	r->header = (struct dc_ring_header *)r->map;
	r->control = (struct dc_ring_control *)(r->map + l->control_off);
	r->sites = (struct dc_ring_site *)(r->map + l->sites_off);
	r->strings = (char *)(r->map + l->strings_off);
	r->modules = (struct dc_ring_module *)(r->map + l->modules_off);
	r->lanes = (struct dc_ring_lane *)(r->map + l->lanes_off);
	r->triggers = (struct dc_ring_trigger *)(r->map + l->triggers_off);
	r->crash = (struct dc_ring_crash *)(r->map + l->crash_off);
	r->entries = (struct dc_chunk_entry *)(r->map + l->states_off);
	r->chunks = r->map + l->chunks_off;
	r->threads = (struct dc_thread *)((uint8_t *)r + DC_PAGE_BYTES);
	r->lane_cap = l->lane_cap < lasting.threads ? l->lane_cap : lasting.threads;
	r->chunk_cap = l->chunk_cap;
	r->chunk_bytes = l->chunk_bytes;
	return 0;
}

/* A second descriptor, so that the mapping holds no reference to the locked one. */
static int map_control(struct start *s)
{
	size_t bytes = s->layout.sites_off - s->layout.control_off;
	long fd = dc_sys(SYS_openat, AT_FDCWD, s->r->ring, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return (int)fd;
	int fixed = lasting.control ? MAP_FIXED : 0;
	void *at = dc_sys_mmap(lasting.control, bytes, PROT_READ, MAP_SHARED | fixed, (int)fd, s->layout.control_off);
	dc_sys(SYS_close, fd);
	if (DC_MAP_FAILED(at))
		return (int)(long)at;
	lasting.control = at;
	s->r->switches = at;
	return 0;
}

/* Before Linux 5.14 there is no populating by madvise: allocate everything now. */
static int allocate_all(struct start *s)
{
	long err = dc_sys(SYS_fallocate, s->fd, 0, 0, s->layout.file_bytes);
	if (err < 0)
		return (int)err;
	memset(s->r->pages, 0xff, sizeof s->r->pages);
	s->r->allocated = true;
	return 0;
}

static void header_fill(struct start *s)
{
	struct dc_ring_header *h = s->r->header;
	*h = s->layout;
	h->version = DC_RING_VERSION;
	h->header_bytes = sizeof *h;
	h->clock = s->clock;
	h->tick_shift = DC_TICK_SHIFT_;
	h->pid = s->r->pid;
	h->uid = s->uid;
	h->gid = (uint32_t)dc_sys(SYS_getegid);
	h->start_time = s->self.start_time;
	h->pid_namespace = s->self.pid_namespace;
	h->window_ns = s->r->window_ns;
	h->started_tick = dc_ticks(s->r);
	memcpy(h->boot_id, dc_host()->boot_id, sizeof h->boot_id);
	if (s->settings.name)
		put(h->name, sizeof h->name, 0, s->settings.name);
	else
		dc_self_name(h->name);
}

/* Pages every ring needs, and the first chunks. */
static int populate_first(struct start *s)
{
	struct dc_recorder *r = s->r;
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

static int ring_build(struct start *s)
{
	struct dc_recorder *r = s->r;
	uint64_t cap;
	int err = cap_choose(s, &cap);
	if (err)
		return err;
	dc_layout_fill(&s->layout, cap, dc_sites_count(), dc_strings_bytes());
	if (!s->layout.chunk_cap)
		return -ENOSPC;
	if ((err = file_create(s)) || (err = map_ring(s)) || (err = map_control(s)))
		return err;
	/* the header page decides which way pages come */
	long populated = dc_sys(SYS_madvise, r->map, DC_PAGE_BYTES, 23 /* MADV_POPULATE_WRITE */);
	if (populated == -EINVAL && (cap > CAP_UNPOPULATED || (err = allocate_all(s))))
		return err ? err : -EAGAIN;
	if (populated < 0 && populated != -EINVAL)
		return -ENOSPC;
	r->pages[0] |= 1;
	r->window_ns = s->settings.window_ns;
	header_fill(s);
	if ((err = populate_first(s)) || (err = dc_sites_restore(r)))
		return err;
	if (dc_modules_restore(r) == -ENOENT)
		dc_modules_scan(r, NULL); /* an event before our constructor */
	dc_anchor_take(r);
	return 0;
}

/* Switches of the parent, from the control mapping a child inherits; it is about to be mapped over. */
static uint32_t parent_enable[DC_SITE_MAX];

static void switches_save(void)
{
	const struct dc_ring_control *c = lasting.control;
	for (uint32_t i = 0; c && i < DC_SITE_MAX; i++)
		parent_enable[i] = __atomic_load_n(&c->enable[i], __ATOMIC_RELAXED) & ~DC_ENABLE_STOPPED; /* settings */
}

static void switches_restore(struct dc_recorder *r)
{
	for (uint32_t i = 1; i < r->header->site_cap; i++)
		if (parent_enable[i] && dc_populate(r, &r->control->enable[i], 4) == 0)
			r->control->enable[i] = parent_enable[i];
}

/*
 * Sites of a process that cannot record look at words that say off: a child's parent may be recording, and a view of a
 * file that is gone would keep its memory.
 */
static void switches_off(void)
{
	struct dc_ring_control *c = lasting.control;
	if (!c || DC_MAP_FAILED(dc_sys_mmap(c, sizeof *c, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)))
		return;
	for (uint32_t i = 0; i < DC_SITE_MAX; i++)
		c->enable[i] = parent_enable[i] | DC_ENABLE_STOPPED;
}

/* Nothing of a ring that did not come to be may be left behind, or the next try believes it. */
static void ring_undo(struct start *s)
{
	struct dc_recorder *r = s->r;
	if (r->map)
		dc_sys(SYS_munmap, r->map, s->layout.file_bytes);
	if (s->fd >= 0) {
		if ((uint32_t)dc_sys(SYS_getpid) == r->pid) /* else we are a child that was forked during the start */
			dc_sys(SYS_unlinkat, AT_FDCWD, r->ring, 0);
		dc_sys(SYS_close, s->fd);
	}
	s->fd = -1;
	uint64_t lost_early = __atomic_load_n(&r->lost_early, __ATOMIC_RELAXED); /* a count that goes on */
	*r = (struct dc_recorder){
		.phase = DC_PHASE_STARTING, .pages_taken = r->pages_taken, .pid = r->pid, .slow_clock = r->slow_clock, .lost_early = lost_early
	};
}

static int start_prepared(struct start *s)
{
	struct dc_recorder *r = s->r;
	bool child = lasting.control;
	int err = dir_open(s);
	if (err)
		return err;
	if (!dir_nearly_empty(s))
		dc_sweep(s->dir_fd, s->uid);
	err = ring_build(s);
	if (err == -EAGAIN) { /* an old kernel: once more, smaller */
		ring_undo(s);
		s->settings.memory_bytes = CAP_UNPOPULATED;
		err = ring_build(s);
	}
	if (err)
		return err;
	if (child)
		switches_restore(r);
	if (s->settings.doorbell)
		put(r->doorbell, sizeof r->doorbell, put(r->doorbell, sizeof r->doorbell, 0, s->dir), "/doorbell");
	return 0;
}

static int start_now(struct dc_recorder *r, const struct dc_opts *opts)
{
	static struct start s; /* one at a time; too large for the stack of a signal handler */
	memset(&s, 0, sizeof s);
	s.r = r;
	s.dir_fd = s.fd = -1;
	dc_image = dc_image == 255 ? 1 : dc_image + 1;
	switches_save();
	dc_settings_read(opts, &s.settings);
	if (s.settings.off) {
		switches_off();
		return -EPERM;
	}
	s.uid = (uint32_t)dc_sys(SYS_geteuid);
	s.clock = dc_clock_usable(); /* before anything asks for the time */
	r->slow_clock = s.clock == DC_CLOCK_MONOTONIC;
	s.self = dc_self();
	r->pid = s.self.pid;
	int err = start_prepared(&s);
	if (err) {
		ring_undo(&s);
		switches_off();
	} else {
		dc_sys(SYS_close, s.fd);
		if (s.settings.crash)
			dc_crash_watch();
	}
	if (s.dir_fd >= 0)
		dc_sys(SYS_close, s.dir_fd);
	return err;
}

/* ---- phases ---- */

static void *wiped_map(size_t pages)
{
	size_t bytes = pages * DC_PAGE_BYTES;
	void *at = dc_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!DC_MAP_FAILED(at))
		dc_sys(SYS_madvise, at, bytes, MADV_WIPEONFORK);
	return at;
}

/*
 * The recorder's page and those of the threads. A page that is resident without having been touched means
 * mlockall(MCL_FUTURE): then there are few threads and a small ring.
 */
static struct dc_recorder *pages_map(uint32_t *ret_threads, bool *ret_locked)
{
	uint8_t resident = 0;
	uint32_t threads = DC_LANE_MAX;
	void *at = wiped_map(1 + threads);
	if (!DC_MAP_FAILED(at)) {
		dc_sys(SYS_mincore, at, DC_PAGE_BYTES, &resident);
		if (resident & 1) {
			dc_sys(SYS_munmap, (uint8_t *)at + (1 + THREADS_LOCKED) * DC_PAGE_BYTES,
			       (threads - THREADS_LOCKED) * DC_PAGE_BYTES);
			threads = THREADS_LOCKED;
		}
	} else { /* RLIMIT_MEMLOCK or RLIMIT_AS */
		resident = 1;
		threads = THREADS_LOCKED;
		at = wiped_map(1 + threads);
	}
	*ret_threads = threads;
	*ret_locked = resident & 1;
	return DC_MAP_FAILED(at) ? NULL : at;
}

bool dc_pages_locked(void)
{
	return lasting.locked;
}

size_t dc_recorder_bytes(void)
{
	return (1 + (size_t)lasting.threads) * DC_PAGE_BYTES;
}

/* Fresh pages in the place of @old. NULL: none to be had. */
static struct dc_recorder *pages_new(struct dc_recorder *old)
{
	uint32_t threads;
	bool locked;
	struct dc_recorder *r = pages_map(&threads, &locked);
	if (!r)
		return NULL;
	lasting.threads = threads; /* whoever wins the exchange: both saw the same limits */
	lasting.locked = locked;
	r->pages_taken = PAGES_OURS;
	/* [recorder-page] release; pairs with the acquire in recorder_page(). The loser's pages go back */
	if (!__atomic_compare_exchange_n(&dc_recorder, &old, r, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		dc_sys(SYS_munmap, r, (1 + (size_t)threads) * DC_PAGE_BYTES);
		r = old;
	}
	return r;
}

/* While another thread is at it. */
static void turn(uint32_t i)
{
	if (i < START_SPINS)
		dc_pause();
	else
		dc_sys(SYS_sched_yield);
}

/*
 * The parent's pages, wiped, in a child of raw clone() that begins (fork() runs fork.c, which keeps them). The thread that
 * cloned is the child's leader. If the leader begins, it forgets its parent's lane and the pages are used again. If another
 * thread does, the leader may still have that lane in dc_thread_self, so its page must not go to anybody: there are others.
 */
static struct dc_recorder *pages_inherit(struct dc_recorder *r)
{
	bool leader = dc_sys(SYS_gettid) == dc_sys(SYS_getpid);
	uint32_t seen = PAGES_INHERITED;
	if (leader)
		dc_thread_forget();
	/* relaxed: elects one; pages that replace these are published by [recorder-page] */
	if (__atomic_compare_exchange_n(&r->pages_taken, &seen, leader ? PAGES_OURS : PAGES_LEFT, false,
					__ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return leader ? r : pages_new(r);
	if (seen == PAGES_OURS)
		return r;
	struct dc_recorder *now = r;
	for (uint32_t i = 0; now == r && i < START_TURNS; i++) { /* another thread is just mapping them */
		now = __atomic_load_n(&dc_recorder, __ATOMIC_ACQUIRE); /* [recorder-page] acquire */
		turn(i);
	}
	return now != r ? now : NULL;
}

void dc_pages_keep(struct dc_recorder *r)
{
	r->pages_taken = PAGES_OURS;
}

static struct dc_recorder *recorder_page(void)
{
	struct dc_recorder *r = __atomic_load_n(&dc_recorder, __ATOMIC_ACQUIRE); /* [recorder-page] acquire */
	if (DC_UNLIKELY_(!r))
		return pages_new(NULL);
	/* relaxed: constant from then on */
	if (DC_LIKELY_(__atomic_load_n(&r->pages_taken, __ATOMIC_RELAXED) == PAGES_OURS))
		return r;
	return pages_inherit(r);
}

/* Counts from before there was a header go there, whoever comes first. */
static void lost_early_move(struct dc_recorder *r)
{
	/* [lost-early] acquire and release, in one order with the phase: no count is left behind */
	uint64_t n = __atomic_exchange_n(&r->lost_early, 0, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&r->header->lost_early, n, __ATOMIC_RELAXED); /* a count */
}

/* An event of a thread that has no writer yet, while another starts or in a handler on top of its own first event. */
void dc_lost_early(struct dc_recorder *r)
{
	__atomic_fetch_add(&r->lost_early, 1, __ATOMIC_SEQ_CST); /* [lost-early] first the count, then the phase */
	uint32_t phase = __atomic_load_n(&r->phase, __ATOMIC_SEQ_CST); /* [phase] acquire */
	if (phase == DC_PHASE_ON || phase == DC_PHASE_STOPPED)
		lost_early_move(r);
}

void dc_missed(void)
{
	struct dc_recorder *r = dc_recorder;
	/* relaxed: `on` by now is as good as still starting */
	uint32_t phase = r ? __atomic_load_n(&r->phase, __ATOMIC_RELAXED) : DC_PHASE_OFF;
	if (phase == DC_PHASE_STARTING || phase == DC_PHASE_ON)
		dc_lost_early(r);
}

/*
 * First events of other threads while one thread starts: they would be lost, and with them the spans that stay open
 * longest. So they wait, bounded by turns (the clock may be forbidden here), and let a starter that lost its CPU have
 * theirs. A handler on top of the starter never waits.
 */
static __thread uint32_t starting_here __attribute__((tls_model("initial-exec")));

static uint32_t start_wait(const struct dc_recorder *r)
{
	uint32_t phase = DC_PHASE_STARTING;
	for (uint32_t i = 0; phase == DC_PHASE_STARTING && i < START_TURNS && !starting_here; i++) {
		turn(i);
		phase = __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE); /* [phase] acquire */
	}
	return phase;
}

/*
 * The kernel's mask, not libc's: glibc hides two signals of its own from sigprocmask(), and asynchronous cancellation is
 * one of them. Those that our own instructions raise stay: blocked, they would kill. A sandbox may answer a system call
 * of ours by SIGSYS.
 */
#define SIGNAL(n) (UINT64_C(1) << ((n) - 1))
#define SIGNALS_OWN                                                                                                    \
	(SIGNAL(SIGILL) | SIGNAL(SIGTRAP) | SIGNAL(SIGBUS) | SIGNAL(SIGFPE) | SIGNAL(SIGSEGV) | SIGNAL(SIGSYS))

static uint64_t signals_block(void)
{
	uint64_t all = ~SIGNALS_OWN, before = 0;
	dc_sys(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, sizeof all);
	return before;
}

static void signals_restore(uint64_t before)
{
	dc_sys(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
}

static int start_elected(struct dc_recorder *r, const struct dc_opts *opts)
{
	int err = start_now(r, opts);
	dc_control_off = err ? DC_ENABLE_OFF | DC_ENABLE_STOPPED : 0;
	if (!err) /* [ring-magic] release; pairs with the reader's pread: who sees it sees a whole header */
		__atomic_store_n(&r->header->magic, DC_RING_MAGIC, __ATOMIC_RELEASE);
	/* [phase] release; pairs with the acquire in dc_recorder_on() and dc_enter_slow() */
	__atomic_store_n(&r->phase, err ? DC_PHASE_OFF : DC_PHASE_ON, __ATOMIC_SEQ_CST);
	if (!err)
		lost_early_move(r);
	return err;
}

static int start_from(struct dc_recorder *r, uint32_t phase, const struct dc_opts *opts)
{
	int err = -EALREADY;
	uint64_t signals = signals_block();
	uint32_t outer = starting_here;
	starting_here = 1; /* first, so that no handler of a signal of our own making waits for us */
	DC_BARRIER_();
	if (__atomic_compare_exchange_n(&r->phase, &phase, DC_PHASE_STARTING, false, __ATOMIC_ACQUIRE,
					__ATOMIC_RELAXED)) /* [phase] acquire; elects one */
		err = start_elected(r, opts);
	DC_BARRIER_();
	starting_here = outer;
	signals_restore(signals);
	return err;
}

bool dc_recorder_on(void)
{
	struct dc_recorder *r = recorder_page();
	if (!r)
		return false;
	uint32_t phase = __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE); /* [phase] acquire */
	if (DC_LIKELY_(phase == DC_PHASE_ON))
		return true;
	if (phase == DC_PHASE_NONE && start_from(r, phase, NULL) == 0)
		return true;
	return start_wait(r) == DC_PHASE_ON;
}

static void stop_switch(struct dc_recorder *r, bool stopped)
{
	uint32_t used = __atomic_load_n(&r->header->sites_used, __ATOMIC_RELAXED); /* later ones ask the phase */
	for (uint32_t i = 1; i < used && i < r->header->site_cap; i++) {
		if (stopped)
			__atomic_fetch_or(&r->control->enable[i], DC_ENABLE_STOPPED, __ATOMIC_RELAXED);
		else
			__atomic_fetch_and(&r->control->enable[i], ~DC_ENABLE_STOPPED, __ATOMIC_RELAXED);
	}
}

static int start_again(struct dc_recorder *r)
{
	stop_switch(r, false);
	__atomic_fetch_and(&r->header->flags, ~DC_RING_STOPPED, __ATOMIC_RELAXED); /* a hint for readers */
	/* [phase] release; pairs with the acquire in dc_recorder_on() */
	__atomic_store_n(&r->phase, DC_PHASE_ON, __ATOMIC_RELEASE);
	return 0;
}

int dc_start(const struct dc_opts *opts)
{
	if (opts && opts->size != sizeof *opts)
		return -EINVAL;
	struct dc_recorder *r = recorder_page();
	if (!r)
		return -ENOMEM;
	uint32_t phase = __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE); /* [phase] acquire */
	switch (phase) {
	case DC_PHASE_NONE:
	case DC_PHASE_OFF:
		return start_from(r, phase, opts);
	case DC_PHASE_STOPPED:
		return start_again(r);
	default:
		return -EALREADY;
	}
}

int dc_stop(void)
{
	struct dc_recorder *r = dc_recorder;
	uint32_t on = DC_PHASE_ON;
	if (!r || !__atomic_compare_exchange_n(&r->phase, &on, DC_PHASE_STOPPED, false, __ATOMIC_ACQ_REL,
					       __ATOMIC_RELAXED)) /* [phase] */
		return -ESRCH;
	stop_switch(r, true);
	__atomic_fetch_or(&r->header->flags, DC_RING_STOPPED, __ATOMIC_RELAXED); /* a hint for readers */
	return 0;
}

/* An orderly exit. Threads may still record; the mark only says that nobody needs to wonder. */
__attribute__((destructor)) static void goodbye(void)
{
	struct dc_recorder *r = dc_recorder;
	uint32_t phase = r ? __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) : DC_PHASE_NONE; /* [phase] acquire */
	if (phase != DC_PHASE_ON && phase != DC_PHASE_STOPPED)
		return;
	r->next_anchor_units = 0;
	dc_anchor_take(r);
	__atomic_fetch_or(&r->header->flags, DC_RING_GOODBYE, __ATOMIC_RELAXED); /* read after the lock is gone */
}
