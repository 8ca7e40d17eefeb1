/* SPDX-License-Identifier: MIT */
/*
 * Where the ring of this process goes, and how large it may be.
 *
 *   where     a directory (no link) that is ours or root's; where others may write, sticky like /tmp
 *   how big   the least of what was asked, a quarter of the tmpfs's free space, a sixteenth of the cgroup's memory,
 *             RLIMIT_FSIZE (ftruncate beyond it kills by SIGXFSZ), and little under mlockall(MCL_FUTURE)
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "recorder/recorder.h"
#include "recorder/text.h"

#define CAP_LOCKED (UINT64_C(4) << 20) /* under MCL_FUTURE every mapped page is resident at once */

static bool dir_exists(const char *path)
{
	struct stat st;
	return dc_sys(SYS_newfstatat, AT_FDCWD, path, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

static void dir_choose(struct dc_place *p, const char *asked)
{
	if (asked) {
		dc_text_put(p->dir, sizeof p->dir, 0, asked);
	} else if (dir_exists("/run/dashcam")) {
		dc_text_put(p->dir, sizeof p->dir, 0, "/run/dashcam");
	} else {
		size_t at = dc_text_put(p->dir, sizeof p->dir, 0, "/dev/shm/dashcam-");
		dc_text_put_number(p->dir, sizeof p->dir, at, p->uid, 10);
	}
}

/* Ours or root's, and nobody else may put or take files in it unless it is sticky. */
static int dir_check(struct dc_place *p)
{
	struct stat st;
	long err = dc_sys(SYS_fstat, p->fd, &st);
	if (err < 0)
		return (int)err;
	if (st.st_uid != p->uid && st.st_uid != 0)
		return -EPERM;
	if ((st.st_mode & 022) && !(st.st_mode & S_ISVTX))
		return -EPERM;
	p->bytes = st.st_size;
	return 0;
}

/* tmpfs counts 20 bytes an entry: a directory this small holds no four rings, so there is nothing to sweep. */
bool dc_place_nearly_empty(const struct dc_place *p, uint64_t memory_bytes)
{
	return p->bytes < 6 * 20 && memory_bytes <= 64u << 20;
}

int dc_place_open(struct dc_place *p, const char *asked)
{
	if (asked && strlen(asked) >= sizeof p->dir)
		return -ENAMETOOLONG;
	dir_choose(p, asked);
	/* no links: in /dev/shm anybody may have made one that leads root's rings into /etc */
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	long fd = dc_sys(SYS_openat, AT_FDCWD, p->dir, flags, 0);
	if (fd == -ENOENT) {
		dc_sys(SYS_mkdirat, AT_FDCWD, p->dir, 0700);
		fd = dc_sys(SYS_openat, AT_FDCWD, p->dir, flags, 0);
	}
	if (fd < 0)
		return (int)fd;
	p->fd = (int)fd;
	return dir_check(p);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
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
	size_t at = dc_text_put(path, sizeof path, 0, "/sys/fs/cgroup");
	at = dc_text_put(path, sizeof path, at, v2 + 3);
	dc_text_put(path, sizeof path, at, "/memory.max");
	if (dc_slurp(path, text, sizeof text) <= 0 || text[0] < '0' || text[0] > '9')
		return UINT64_MAX;
	return dc_text_decimal(text);
}

int dc_place_cap(const struct dc_place *p, uint64_t memory_bytes, uint64_t *ret_cap)
{
	struct statfs fs;
	struct rlimit limit;
	bool locked = dc_pages_locked();
	uint64_t cap = least(memory_bytes, DC_RING_BYTES_MAX);
	if (dc_sys(SYS_fstatfs, p->fd, &fs) == 0)
		cap = least(cap, (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / DC_RING_FREE_PARTS);
	uint64_t cgroup = cgroup_memory();
	if (cgroup != UINT64_MAX)
		cap = least(cap, cgroup / 16);
	if (dc_sys(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		cap = least(cap, limit.rlim_cur);
	if (locked) /* what we lock the app cannot: leave it most of what it may lock */
		cap = least(cap, CAP_LOCKED);
	if (locked && dc_sys(SYS_prlimit64, 0, RLIMIT_MEMLOCK, NULL, &limit) == 0 &&
	    limit.rlim_cur != RLIM_INFINITY)
		cap = least(cap, limit.rlim_cur / 8);
	*ret_cap = cap;
	return cap < DC_RING_BYTES_MIN ? -ENOSPC : 0;
}
