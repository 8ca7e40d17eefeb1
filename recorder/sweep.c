/* SPDX-License-Identifier: MIT */
/*
 * Dead rings. They are evidence, so they stay; but where no watcher collects them they must not fill the tmpfs. A process
 * that starts to record first looks whether the dead rings of its user exceed 256 MiB or 64 files, and then removes at
 * most four: those of orderly exits first, then the oldest, none younger than ten seconds.
 *
 * A directory of tmpfs lists its newest files first, so after a burst of short processes the old rings stand behind
 * thousands of young ones. Those are told by their names and not opened.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "recorder/recorder.h"

#define KEEP_BYTES (UINT64_C(256) << 20)
#define KEEP_FILES 64u
#define YOUNG_S 10
#define REMOVE_MAX 4u
#define LOOK_MAX 512u /* rings opened: bounds the time of a start */
#define NAMES_MAX 16384u /* names read, at some 0.1 µs */
#define CLOCK_TICKS 100u /* of start times, per second: USER_HZ */

struct dirent64_raw {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

struct dead {
	char name[48];
	int64_t seen_s;
	bool goodbye;
};

struct sweep {
	int dir;
	uint32_t uid;
	int64_t now_s;
	uint64_t boot_ticks; /* now, as start times count */
	uint32_t names;
	uint64_t bytes;
	uint32_t files;
	uint32_t looked;
	struct dead oldest[REMOVE_MAX]; /* best first */
	uint32_t count;
};

static bool is_ring_name(const char *name)
{
	size_t n = strlen(name);
	return n > 5 && n < sizeof((struct dead *)0)->name && memcmp(name + n - 5, ".ring", 5) == 0;
}

/* "<pid>.<start time>.<salt>.ring" of a process that is not as old as that. */
static bool is_young(const struct sweep *s, const char *name)
{
	uint64_t ticks = 0;
	const char *p = strchr(name, '.');
	for (p++; *p >= '0' && *p <= '9'; p++)
		ticks = ticks * 10 + (uint64_t)(*p - '0');
	return ticks + YOUNG_S * CLOCK_TICKS > s->boot_ticks && ticks <= s->boot_ticks;
}

static bool better(const struct dead *a, const struct dead *b)
{
	return a->goodbye != b->goodbye ? a->goodbye : a->seen_s < b->seen_s;
}

static void remember(struct sweep *s, const struct dead *d)
{
	uint32_t i = s->count;
	while (i && better(d, &s->oldest[i - 1]))
		i--;
	if (i == REMOVE_MAX)
		return;
	uint32_t last = s->count < REMOVE_MAX ? s->count++ : REMOVE_MAX - 1;
	memmove(&s->oldest[i + 1], &s->oldest[i], (last - i) * sizeof *d);
	s->oldest[i] = *d;
}

/* Dead: nobody holds the lock that the owner's mapping keeps. */
static bool is_dead(long fd)
{
	struct flock lock = { .l_type = F_WRLCK };
	return dc_sys(SYS_fcntl, fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

/* Last sign of life. mmap'ed stores do not touch the file's times; the anchors, one a second while events come, do. */
static int64_t last_seen_s(long fd, const struct stat *st)
{
	uint32_t used = 0;
	int64_t realtime_ns = 0;
	dc_sys(SYS_pread64, fd, &used, sizeof used, offsetof(struct dc_ring_header, anchors_used));
	uint64_t last = offsetof(struct dc_ring_header, anchors) + (used - 1) % DC_ANCHOR_MAX * sizeof(struct dc_anchor);
	if (used)
		dc_sys(SYS_pread64, fd, &realtime_ns, sizeof realtime_ns, last + offsetof(struct dc_anchor, realtime_ns));
	int64_t seen = realtime_ns / 1000000000;
	return seen > st->st_mtime ? seen : st->st_mtime;
}

static void look(struct sweep *s, const char *name)
{
	struct dead d = { 0 };
	struct stat st;
	long fd = dc_sys(SYS_openat, s->dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (dc_sys(SYS_fstat, fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == s->uid && is_dead(fd)) {
		uint32_t flags = 0;
		dc_sys(SYS_pread64, fd, &flags, sizeof flags, offsetof(struct dc_ring_header, flags));
		s->bytes += (uint64_t)st.st_blocks * 512;
		s->files++;
		memcpy(d.name, name, strlen(name) + 1);
		d.seen_s = last_seen_s(fd, &st);
		d.goodbye = flags & DC_RING_GOODBYE;
		if (s->now_s - d.seen_s >= YOUNG_S)
			remember(s, &d);
	}
	dc_sys(SYS_close, fd);
}

static void look_all(struct sweep *s)
{
	_Alignas(8) char entries[2048];
	for (;;) {
		long n = dc_sys(SYS_getdents64, s->dir, entries, sizeof entries);
		if (n <= 0)
			return;
		bool last = n < (long)sizeof entries / 2; /* an entry is under 300 bytes: more would have fitted */
		for (long at = 0; at < n;) {
			struct dirent64_raw *e = (struct dirent64_raw *)(entries + at);
			at += e->reclen;
			if (!is_ring_name(e->name) || is_young(s, e->name))
				continue;
			if (++s->looked > LOOK_MAX)
				return;
			look(s, e->name);
		}
		s->names += (uint32_t)n / 56; /* as long as ring names make an entry */
		if (last || s->names > NAMES_MAX)
			return;
	}
}

void dc_sweep(int dir_fd, uint32_t uid)
{
	struct timespec now = { 0 }, boot = { 0 };
	dc_sys(SYS_clock_gettime, CLOCK_REALTIME, &now);
	dc_sys(SYS_clock_gettime, CLOCK_BOOTTIME, &boot);
	struct sweep s = {
		.dir = dir_fd, .uid = uid, .now_s = now.tv_sec, .boot_ticks = (uint64_t)boot.tv_sec * CLOCK_TICKS
	};
	look_all(&s);
	if (s.bytes <= KEEP_BYTES && s.files <= KEEP_FILES)
		return;
	for (uint32_t i = 0; i < s.count; i++)
		dc_sys(SYS_unlinkat, dir_fd, s.oldest[i].name, 0);
}
