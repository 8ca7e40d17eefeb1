/* SPDX-License-Identifier: MIT */
/*
 * Where a watcher is at home: the ring directory, the lock in it that says so, and the sockets by which it is found there.
 *
 * Somebody may remove the directory (a log-out with RemoveIPC, a hand in /dev/shm). What was found in it stays held; programs
 * that start later make the directory anew, and with the next look the watcher moves in there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/handover.h"
#include "trigger/watcher_inside.h"

/* In the shared directory, which is root's, root takes over what somebody else left there, or put. */
static int open_lock(const struct dc_watcher *w)
{
	const int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	struct stat dir, lock;
	int fd;

	if (geteuid() == 0 && fstat(w->dir_fd, &dir) == 0 && dir.st_uid == 0 &&
	    fstatat(w->dir_fd, DC_RINGS_LOCK, &lock, AT_SYMLINK_NOFOLLOW) == 0 && lock.st_uid != 0)
		unlinkat(w->dir_fd, DC_RINGS_LOCK, 0);
	fd = openat(w->dir_fd, DC_RINGS_LOCK, flags);
	return fd >= 0 ? fd : openat(w->dir_fd, DC_RINGS_LOCK, flags | O_CREAT | O_EXCL, 0644);
}

/* watch.lock: locked for as long as we live, and says who we are. */
static int take_lock(struct dc_watcher *w, char why[static DC_WHY_BYTES])
{
	const struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char text[16];
	int n;

	w->lock_fd = open_lock(w);
	if (w->lock_fd < 0) {
		n = -errno;
		if (dc_rings_watcher(w->dir_fd) <= 0) {
			snprintf(why, DC_WHY_BYTES, "cannot watch '%.80s': %s", w->config.dir,
				 n == -EEXIST ? "its watch.lock is another user's" : strerror(-n));
			return n;
		}
	}
	if (w->lock_fd < 0 || fcntl(w->lock_fd, F_OFD_SETLK, &lock) < 0) {
		snprintf(why, DC_WHY_BYTES, "'%.80s' is watched already, by process %d", w->config.dir,
			 dc_rings_watcher(w->dir_fd));
		return -EBUSY;
	}
	n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(w->lock_fd, 0) < 0 || pwrite(w->lock_fd, text, (size_t)n, 0) != n)
		return 0; /* the lock is what counts, the text is for people */
	return 0;
}

int dc_home_listen(struct dc_watcher *w)
{
	int r = dc_control_new(w->config.dir, dc_watcher_on_request, w, &w->control);

	if (r == 0)
		r = w->doorbell_fd = dc_control_bind(w->config.dir, DC_RINGS_DOORBELL, SOCK_DGRAM, 0666);
	if (r >= 0)
		r = dc_watcher_listen(w, dc_control_fd(w->control), SOURCE_CONTROL);
	return r < 0 ? r : dc_watcher_listen(w, w->doorbell_fd, SOURCE_DOORBELL);
}

int dc_home_open(struct dc_watcher *w, char why[static DC_WHY_BYTES])
{
	int r = dc_rings_open(w->config.dir, true, &w->dir_fd, why);

	return r < 0 ? r : take_lock(w, why);
}

/* Descriptors of the old directory keep their numbers: everybody who has them is in the new one. */
static int move_in(struct dc_watcher *w, int fd, char why[static DC_WHY_BYTES])
{
	int r;

	snprintf(why, DC_WHY_BYTES, "ring directory '%.80s' is another one, which cannot be watched", w->config.dir);
	close(TAKE_FD(w->doorbell_fd));
	close(TAKE_FD(w->lock_fd));
	if (dup3(fd, w->dir_fd, O_CLOEXEC) < 0)
		return -errno;
	r = take_lock(w, why);
	if (r < 0)
		return r;
	dc_control_free(TAKE(w->control));
	memset(w->waiters, 0, sizeof(w->waiters)); /* they have been hung up on */
	r = dc_home_listen(w);
	if (r >= 0)
		r = dc_sampling_listen(w);
	return r < 0 ? r : dc_roster_move(w->roster, w->config.dir);
}

static void move_out(struct dc_watcher *w)
{
	dc_watcher_say(w, "ring directory '%.80s' was removed: what was found there is still watched, what starts now once it is there again",
		       w->config.dir);
	dc_control_leave(w->control);
	dc_handover_close(TAKE(w->handover)); /* who is to find it starts in the next one */
	w->homeless = true;
}

void dc_home_look(struct dc_watcher *w)
{
	CLEANUP(close_fd) int fd = -1;
	char why[DC_WHY_BYTES];
	struct stat ours, there;

	if (fstat(w->dir_fd, &ours) < 0)
		return;
	if (lstat(w->config.dir, &there) == 0 && there.st_ino == ours.st_ino && there.st_dev == ours.st_dev)
		return;
	if (!w->homeless)
		move_out(w);
	if (dc_rings_open(w->config.dir, false, &fd, why) < 0)
		return;
	if (move_in(w, fd, why) < 0) {
		dc_watcher_say(w, "%s", why);
		w->stop = true;
		return;
	}
	dc_watcher_say(w, "ring directory '%.80s' is there again and watched", w->config.dir);
	w->homeless = false;
}
