/* SPDX-License-Identifier: MIT */
/*
 * Where rings are and what they are called: the rules that a guest and its watchers share.
 *
 *   directory   $DASHCAM_DIR, else /run/dashcam (1777, like /tmp) where it exists, else /dev/shm/dashcam-<uid> (0700)
 *   ring        <pid>.<start-time>.<8 hex digits>.ring: pid and start time alone collide, exec keeps both
 *   doorbell    datagram socket of the watcher in that directory: guests only wake it
 *   watch.sock  commands to that watcher
 *   handover    perf events of processes that it may not open any for (ipc/handover.h), where there may be such
 *   watch.lock  locked (OFD) by that watcher for as long as it lives; names its pid, and what it would have handed over
 *   run.<pid>/  private directory (0700) of one `dashcam run`, with the same things inside
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DC_RINGS_PATH_BYTES 256u
#define DC_RING_NAME_BYTES 64u
#define DC_WHY_BYTES 160u

#define DC_RINGS_DOORBELL "doorbell"
#define DC_RINGS_SOCKET "watch.sock"
#define DC_RINGS_LOCK "watch.lock"

struct dc_ring_name {
	uint32_t pid;        /* in the guest's pid namespace */
	uint64_t start_time; /* /proc/self/stat field 22 */
	uint32_t random;
};

/* dc_ring_name_parse() - Return: 0, -EINVAL when @text is not exactly the name of a ring. */
int dc_ring_name_parse(const char *text, struct dc_ring_name *ret_name);

/* dc_ring_name_format() - the inverse; for tests and messages. */
void dc_ring_name_format(const struct dc_ring_name *name, char ret_text[static DC_RING_NAME_BYTES]);

/* dc_rings_run_parse() - Return: the pid of "run.<pid>", 0 when @text is no such name. */
uint32_t dc_rings_run_parse(const char *text);

/*
 * dc_rings_dir() - the ring directory of this user, by the rules above
 * Return: 0, -ENAMETOOLONG. The directory may not exist yet.
 */
int dc_rings_dir(char ret_path[static DC_RINGS_PATH_BYTES]);

/*
 * dc_rings_open() - open a ring directory and check that its rings can be believed to be their owners'
 * @create: make it (0700) when it is missing
 * @ret_why: on error one line for people: what was found, what was expected, what to do
 *
 * It must be a directory, of ours or root's (root may look into anybody's), and when others may write to it, sticky.
 * Return: 0, -ENOENT, -ENOTDIR, -EPERM (not ours), -EACCES (world-writable without the sticky bit), -errno.
 */
int dc_rings_open(const char *path, bool create, int *ret_fd, char ret_why[static DC_WHY_BYTES]);

/*
 * dc_rings_each_run() - every run.<pid> directory of @dir that we may read
 * @each is given the pid and the path; a non-zero return stops and is returned.
 */
int dc_rings_each_run(const char *dir, int (*each)(void *arg, uint32_t pid, const char *path), void *arg);

/* dc_rings_watcher() - pid of the living watcher of this directory (it holds watch.lock), 0: none, < 0: -errno. */
int dc_rings_watcher(int dir_fd);
