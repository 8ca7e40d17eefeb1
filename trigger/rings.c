/* SPDX-License-Identifier: MIT */
#include "trigger/rings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/cleanup.h"

#define SYSTEM_DIR "/run/dashcam"

/* Decimal digits only, no sign, no spaces: what strtoull would let through besides is no name of ours. */
static const char *parse_decimal(const char *at, uint64_t max, uint64_t *ret_value)
{
	uint64_t v = 0;
	const char *start = at;

	for (; *at >= '0' && *at <= '9'; at++) {
		uint64_t digit = (uint64_t)(*at - '0');

		if (v > (max - digit) / 10)
			return NULL;
		v = v * 10 + digit;
	}
	if (at == start || (*start == '0' && at != start + 1))
		return NULL;
	*ret_value = v;
	return at;
}

static const char *parse_hex8(const char *at, uint32_t *ret_value)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 8; i++, at++) {
		if (*at >= '0' && *at <= '9')
			v = v << 4 | (uint32_t)(*at - '0');
		else if (*at >= 'a' && *at <= 'f')
			v = v << 4 | (uint32_t)(*at - 'a' + 10);
		else
			return NULL;
	}
	*ret_value = v;
	return at;
}

int dc_ring_name_parse(const char *text, struct dc_ring_name *ret_name)
{
	uint64_t pid, start_time;
	uint32_t random;
	const char *at = parse_decimal(text, INT32_MAX, &pid);

	if (!at || *at++ != '.' || pid == 0)
		return -EINVAL;
	at = parse_decimal(at, UINT64_MAX, &start_time);
	if (!at || *at++ != '.')
		return -EINVAL;
	at = parse_hex8(at, &random);
	if (!at || strcmp(at, ".ring") != 0)
		return -EINVAL;
	*ret_name = (struct dc_ring_name){.pid = (uint32_t)pid, .start_time = start_time, .random = random};
	return 0;
}

void dc_ring_name_format(const struct dc_ring_name *name, char ret_text[static DC_RING_NAME_BYTES])
{
	snprintf(ret_text, DC_RING_NAME_BYTES, "%u.%llu.%08x.ring", name->pid,
		 (unsigned long long)name->start_time, name->random);
}

uint32_t dc_rings_run_parse(const char *text)
{
	uint64_t pid;
	const char *end;

	if (strncmp(text, "run.", 4) != 0)
		return 0;
	end = parse_decimal(text + 4, INT32_MAX, &pid);
	return end && *end == '\0' ? (uint32_t)pid : 0;
}

int dc_rings_dir(char ret_path[static DC_RINGS_PATH_BYTES])
{
	const char *set = secure_getenv("DASHCAM_DIR");
	struct stat st;
	int n;

	if (set && *set)
		n = snprintf(ret_path, DC_RINGS_PATH_BYTES, "%s", set);
	else if (stat(SYSTEM_DIR, &st) == 0 && S_ISDIR(st.st_mode))
		n = snprintf(ret_path, DC_RINGS_PATH_BYTES, "%s", SYSTEM_DIR);
	else
		n = snprintf(ret_path, DC_RINGS_PATH_BYTES, "/dev/shm/dashcam-%u", (unsigned)geteuid());
	return n < (int)DC_RINGS_PATH_BYTES ? 0 : -ENAMETOOLONG;
}

static int check_dir(const char *path, const struct stat *st, char why[static DC_WHY_BYTES])
{
	uid_t me = geteuid();

	if (st->st_uid != 0 && st->st_uid != me && me != 0) {
		snprintf(why, DC_WHY_BYTES,
			 "ring directory '%.60s' belongs to uid %u, expected %u or root: set DASHCAM_DIR",
			 path, (unsigned)st->st_uid, (unsigned)me);
		return -EPERM;
	}
	if (st->st_mode & (S_IWGRP | S_IWOTH) && !(st->st_mode & S_ISVTX)) {
		snprintf(
			why, DC_WHY_BYTES,
			"ring directory '%.60s' is mode %04o: others could swap rings, chmod 1777 or 0700 it",
			path, (unsigned)(st->st_mode & 07777));
		return -EACCES;
	}
	return 0;
}

int dc_rings_open(const char *path, bool create, int *ret_fd, char ret_why[static DC_WHY_BYTES])
{
	CLEANUP(close_fd) int fd = -1;
	struct stat st;
	int r;

	if (create && mkdir(path, 0700) < 0 && errno != EEXIST) {
		r = -errno;
		snprintf(ret_why, DC_WHY_BYTES, "ring directory '%.60s': cannot create it: %s", path,
			 strerror(-r));
		return r;
	}
	/* The last component may not be a link unless root made it: in a shared /dev/shm anybody could place one. */
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		if (r == -ENOENT)
			snprintf(ret_why, DC_WHY_BYTES,
				 "ring directory '%.60s' does not exist: nothing has recorded here yet",
				 path);
		else
			snprintf(ret_why, DC_WHY_BYTES, "ring directory '%.60s': %s", path, strerror(-r));
		return r;
	}
	r = check_dir(path, &st, ret_why);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

int dc_rings_each_run(const char *dir, int (*each)(void *arg, uint32_t pid, const char *path), void *arg)
{
	CLEANUP(closedir) DIR *d = opendir(dir);
	char path[DC_RINGS_PATH_BYTES + 32];
	struct dirent *e;
	int r = 0;

	if (!d)
		return -errno;
	while (r == 0 && (e = readdir(d))) {
		uint32_t pid = dc_rings_run_parse(e->d_name);

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (pid && access(path, R_OK | X_OK) == 0)
			r = each(arg, pid, path);
	}
	return r;
}

int dc_rings_watcher(int dir_fd)
{
	CLEANUP(close_fd)
	int fd = openat(dir_fd, DC_RINGS_LOCK, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char text[16] = "";
	uint64_t pid;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	if (lock.l_type == F_UNLCK)
		return 0;
	/* Held, so somebody watches, even if the text is not (yet) a pid: 1 stands for "somebody". */
	if (pread(fd, text, sizeof(text) - 1, 0) <= 0 || !parse_decimal(text, INT32_MAX, &pid) || pid == 0)
		return 1;
	return (int)pid;
}
