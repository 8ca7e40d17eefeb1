/* SPDX-License-Identifier: MIT */
/* dashcam doctor: what on this host limits dashcam, what that means, and the fix. Changes nothing. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/utsname.h>

#include "ipc/cleanup.h"
#include "ipc/clock.h"
#include "persist/uring.h"
#include "tools/checks.h"
#include "tools/commands.h"
#include "tools/places.h"
#include "tools/ringlist.h"
#include "tools/text.h"
#include "tools/words.h"

#define TMPFS_MAGIC_NUMBER 0x01021994
#define RAMFS_MAGIC_NUMBER 0x858458f6
#define USUAL_CAP                                                                                            \
	(UINT64_C(64) << 20) /* DASHCAM_MEMORY's default; the ring takes at most 1/4 of what is free */
#define REGISTERED_BYTES (UINT64_C(8) << 20) /* the capture writer's buffers */
#define STORE_FREE_MIN (UINT64_C(1) << 30)

struct doctor_options {
	const char *dir;
	const char *store;
	bool json;
};

static const struct option doctor_option_table[] = {
	{.name = "dir",
	 .type = OPTION_DIR,
	 .at = offsetof(struct doctor_options, dir),
	 .value = "DIR",
	 .help = "check DIR as the ring directory"},
	{.name = "store",
	 .type = OPTION_DIR,
	 .at = offsetof(struct doctor_options, store),
	 .value = "DIR",
	 .help = "check DIR as the place where captures go"},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct doctor_options, json),
	 .help = "print JSON"},
	{0},
};

/* First line of a small file of /proc or /sys, "" when there is none. */
static struct text first_line(const char *path)
{
	CLEANUP(fclose) FILE *f = fopen(path, "re");
	struct text t = {""};

	if (f && fgets(t.s, sizeof(t.s), f))
		t.s[strcspn(t.s, "\n")] = '\0';
	return t;
}

static void check_kernel(struct checks *c)
{
	unsigned major = 0, minor = 0;
	struct utsname u;

	uname(&u);
	sscanf(u.release, "%u.%u", &major, &minor);
	if (major < 5 || (major == 5 && minor < 10))
		checks_add(c, "kernel", CHECK_FAILED, "dashcam is made for Linux 5.10 and later",
			   "use a newer kernel", "Linux %s", u.release);
	else if (major == 5 && minor < 14)
		checks_add(
			c, "kernel", CHECK_DEGRADED, "rings are allocated whole at start, with a smaller cap",
			"5.14 and later grow them page by page (MADV_POPULATE_WRITE)", "Linux %s", u.release);
	else
		checks_add(c, "kernel", CHECK_OK, NULL, NULL, "Linux %s, %s", u.release, u.machine);
}

static void check_clock(struct checks *c)
{
	struct text source = first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
	bool fast = strcmp(source.s, "tsc") == 0 || strcmp(source.s, "arch_sys_counter") == 0;

	if (fast)
		checks_add(c, "clock", CHECK_OK, NULL, NULL, "%s: read without a system call", source.s);
	else
		checks_add(c, "clock", CHECK_DEGRADED,
			   "events take their time from clock_gettime(), which costs several times as much",
			   "the kernel does not trust the TSC: dmesg | grep -i tsc; a VM may need invariant "
			   "TSC enabled",
			   "%s", *source.s ? source.s : "the clock source is not known");
}

static uint64_t free_bytes(const struct statfs *s)
{
	return (uint64_t)s->f_bavail * (uint64_t)s->f_bsize;
}

static void check_ring_space(struct checks *c, const char *dir, const struct statfs *s)
{
	uint64_t size = (uint64_t)s->f_blocks * (uint64_t)s->f_bsize;
	const char *means = "rings get a smaller cap, so the window may be shorter than asked for";
	const char *fix =
		"mount -o remount,size=1G /dev/shm; containers: docker run --shm-size=512m, in Kubernetes an "
		"emptyDir with medium: Memory";

	if ((long)s->f_type != TMPFS_MAGIC_NUMBER && (long)s->f_type != RAMFS_MAGIC_NUMBER)
		checks_add(c, "ring memory", CHECK_DEGRADED,
			   "the kernel writes the rings to disk all the time",
			   "put the ring directory on a tmpfs: DASHCAM_DIR=/dev/shm/...",
			   "'%s' is not on a tmpfs", dir);
	else if (free_bytes(s) / DC_RING_FREE_PARTS < DC_RING_BYTES_MIN)
		checks_add(c, "ring memory", CHECK_FAILED, "programs get no ring and record nothing", fix,
			   "%s of %s free in the tmpfs of '%s': a ring takes a quarter of it, and %s at least",
			   text_bytes(free_bytes(s)).s, text_bytes(size).s, dir, text_bytes(DC_RING_BYTES_MIN).s);
	else if (free_bytes(s) < USUAL_CAP)
		checks_add(c, "ring memory", CHECK_DEGRADED, means, fix, "%s of %s free in the tmpfs of '%s'",
			   text_bytes(free_bytes(s)).s, text_bytes(size).s, dir);
	else if (free_bytes(s) / DC_RING_FREE_PARTS < USUAL_CAP)
		checks_add(c, "ring memory", CHECK_DEGRADED, means, fix,
			   "%s of %s free: a cap of %s instead of %s", text_bytes(free_bytes(s)).s,
			   text_bytes(size).s, text_bytes(free_bytes(s) / DC_RING_FREE_PARTS).s, text_bytes(USUAL_CAP).s);
	else
		checks_add(c, "ring memory", CHECK_OK, NULL, NULL, "%s of %s free in the tmpfs of '%s'",
			   text_bytes(free_bytes(s)).s, text_bytes(size).s, dir);
}

/* The directory, or where it will be made. */
static void check_ring_dir(struct checks *c, const char *dir)
{
	CLEANUP(close_fd) int fd = -1;
	char why[DC_WHY_BYTES], exists[PLACE_BYTES];
	struct statfs s;
	int r = dc_rings_open(dir, false, &fd, why);

	place_existing(dir, exists);
	if (r == 0)
		checks_add(c, "ring directory", CHECK_OK, NULL, NULL, "'%s'", dir);
	else if (r == -ENOENT)
		checks_add(c, "ring directory", CHECK_OK, NULL, NULL,
			   "'%s' does not exist yet: the first program makes it", dir);
	else
		checks_add(c, "ring directory", CHECK_FAILED,
			   "programs cannot record there, watchers do not believe it",
			   "repair it, or set DASHCAM_DIR for programs and watcher alike", "%s", why);
	if ((r == 0 || r == -ENOENT) && statfs(exists, &s) == 0)
		check_ring_space(c, exists, &s);
}

static void check_rings(struct checks *c, const char *dir)
{
	CLEANUP(ring_list) struct ring_list list = {0};
	struct ring_filter filter = {.dir = dir, .dead = true};
	struct dc_ring_usage usage;
	unsigned dead = 0;
	uint64_t bytes = 0;

	if ((dir && access(dir, F_OK) < 0) || ring_list_load(&filter, &list) != EXIT_OK)
		return; /* said above, or by it */
	for (unsigned i = 0; i < list.count; i++) {
		dead += !list.rings[i].alive;
		bytes += dc_ring_usage(list.rings[i].ring, &usage) == 0 ? usage.memory_bytes : 0;
	}
	checks_add(c, "rings", CHECK_OK, NULL, NULL,
		   "%u recording, %u of programs that are gone, %s together", list.count - dead, dead,
		   text_bytes(bytes).s);
	if (list.watcher)
		checks_add(c, "watcher", CHECK_OK, NULL, NULL, "pid %u", list.watcher);
	else
		checks_add(c, "watcher", CHECK_DEGRADED,
			   "nothing is saved by itself; rings of the dead can be recovered",
			   "systemctl enable --now dashcam, or dashcam watch, or dashcam run -- COMMAND",
			   "none in '%s'", list.dir);
}

static void check_uring(struct checks *c)
{
	struct dc_uring *u = NULL;
	char *buffer = aligned_alloc(4096, 1 << 20);
	struct iovec v = {buffer, 1 << 20};
	struct text disabled = first_line("/proc/sys/kernel/io_uring_disabled");
	const char *fix =
		disabled.s[0] > '0'
			? "sysctl kernel.io_uring_disabled=0"
			: "a seccomp filter refuses it: containers need a profile that allows io_uring";
	int r = buffer ? dc_uring_new(-1, &v, 1, &u) : -ENOMEM;

	if (r == 0)
		checks_add(c, "io_uring", CHECK_OK, NULL, NULL, "works%s",
			   dc_uring_registered(u) ? ", buffers registered" : "");
	else
		checks_add(c, "io_uring", CHECK_DEGRADED,
			   "captures are written with pwrite, somewhat more slowly", fix, "refused: %s",
			   strerror(-r));
	dc_uring_free(u);
	free(buffer);
}

static void check_memlock(struct checks *c)
{
	struct rlimit l;

	getrlimit(RLIMIT_MEMLOCK, &l);
	if (geteuid() == 0 || l.rlim_cur >= REGISTERED_BYTES)
		checks_add(c, "memlock", CHECK_OK, NULL, NULL, "%s",
			   l.rlim_cur == RLIM_INFINITY ? "unlimited" : text_bytes(l.rlim_cur).s);
	else
		checks_add(c, "memlock", CHECK_DEGRADED,
			   "buffers of captures are not registered, writing costs more CPU",
			   "LimitMEMLOCK=16M in the unit, or ulimit -l 16384", "%s, %s would be used",
			   text_bytes(l.rlim_cur).s, text_bytes(REGISTERED_BYTES).s);
}

static void check_fsize(struct checks *c)
{
	struct rlimit l;

	getrlimit(RLIMIT_FSIZE, &l);
	if (l.rlim_cur >= USUAL_CAP)
		checks_add(c, "file size", CHECK_OK, NULL, NULL, "%s",
			   l.rlim_cur == RLIM_INFINITY ? "unlimited" : text_bytes(l.rlim_cur).s);
	else if (l.rlim_cur < DC_RING_BYTES_MIN)
		checks_add(c, "file size", CHECK_FAILED, "programs get no ring and record nothing",
			   "ulimit -f unlimited where the programs are started", "RLIMIT_FSIZE is %s", text_bytes(l.rlim_cur).s);
	else
		checks_add(c, "file size", CHECK_DEGRADED, "rings cannot be larger, so the window is shorter",
			   "ulimit -f unlimited where the programs are started", "RLIMIT_FSIZE is %s",
			   text_bytes(l.rlim_cur).s);
}

/* Stacks of other threads and processes. Root may always. */
static void check_perf(struct checks *c)
{
	struct text level = first_line("/proc/sys/kernel/perf_event_paranoid");

	if (geteuid() == 0 || (*level.s && strtol(level.s, NULL, 10) <= 1))
		checks_add(c, "perf", CHECK_OK, NULL, NULL, "perf_event_paranoid is %s%s",
			   *level.s ? level.s : "not there", geteuid() == 0 ? ", and root may anyway" : "");
	else
		checks_add(c, "perf", CHECK_DEGRADED,
			   "a watcher of this user cannot sample where threads spend their time",
			   "sysctl kernel.perf_event_paranoid=1, or give the watcher CAP_PERFMON",
			   "perf_event_paranoid is %s", *level.s ? level.s : "not there");
}

/* Where this cgroup's limit is found; a container sees its own at the root of its mount. */
static void check_cgroup(struct checks *c)
{
	struct text max = first_line("/sys/fs/cgroup/memory.max");
	uint64_t bytes;

	if (parse_count(max.s, &bytes) < 0)
		return;
	if (bytes / 16 < USUAL_CAP)
		checks_add(c, "cgroup memory", CHECK_DEGRADED, "a ring takes at most 1/16 of the limit",
			   "raise memory.max, or live with a shorter window", "memory.max is %s: a cap of %s",
			   text_bytes(bytes).s, text_bytes(bytes / 16).s);
	else
		checks_add(c, "cgroup memory", CHECK_OK, NULL, NULL, "memory.max is %s", text_bytes(bytes).s);
}

static void check_store(struct checks *c, const char *asked)
{
	char dir[PLACE_BYTES], exists[PLACE_BYTES];
	struct statfs s;

	if (asked)
		snprintf(dir, sizeof(dir), "%s", asked);
	else if (place_captures(dir) < 0)
		return;
	place_existing(dir, exists);
	if (access(exists, W_OK) < 0 || statfs(exists, &s) < 0)
		checks_add(c, "captures", CHECK_FAILED, "nothing can be saved",
			   "name a directory of yours: --out DIR", "'%s'%s: %s", dir, strcmp(dir, exists) == 0 ? "" : " cannot be made", strerror(errno));
	else if (free_bytes(&s) < STORE_FREE_MIN)
		checks_add(c, "captures", CHECK_DEGRADED,
			   "captures may find no room; they then wait and are retried",
			   "make room, or name another directory: --out DIR", "%s free for '%s'",
			   text_bytes(free_bytes(&s)).s, dir);
	else
		checks_add(c, "captures", CHECK_OK, NULL, NULL, "%s free for '%s'",
			   text_bytes(free_bytes(&s)).s, dir);
}

static int doctor_run(const void *options, const struct operands *operands)
{
	const struct doctor_options *o = options;
	char dir[DC_RINGS_PATH_BYTES];
	struct checks c;

	(void)operands;
	if (o->dir)
		snprintf(dir, sizeof(dir), "%s", o->dir);
	else if (dc_rings_dir(dir) < 0)
		return failure("DASHCAM_DIR is too long");
	checks_init(&c, o->json);
	check_kernel(&c);
	check_clock(&c);
	check_ring_dir(&c, dir);
	check_rings(&c, o->dir);
	check_fsize(&c);
	check_cgroup(&c);
	check_store(&c, o->store);
	check_uring(&c);
	check_memlock(&c);
	check_perf(&c);
	return checks_finish(&c);
}

const struct command cmd_doctor = {
	.name = "doctor",
	.summary = "say what on this host limits dashcam, and the fix",
	.usage = "",
	.about = "Checks what dashcam uses of this host: kernel, clock, the tmpfs of the rings and its size, "
		 "limits, the "
		 "place for captures, io_uring, permissions. "
		 "Each check is Ok, Degraded (it works, and says what it costs) or Failed, with what was "
		 "found and how to fix "
		 "it. "
		 "Nothing is changed.",
	.exit_status = "0 when no check failed, 1 when one did, 64 when the arguments were wrong.",
	.see_also = "selftest status",
	.options = doctor_option_table,
	.options_size = sizeof(struct doctor_options),
	.run = doctor_run,
};
