/* SPDX-License-Identifier: MIT */
#include "trigger/roster.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "trigger/death.h"

#define UNREADY_MAX 64u
#define UNREADY_LOOKS 250u /* of DC_ROSTER_UNREADY_MS: a ring that takes longer than 5 s was never finished */
#define STORM_ACK_NS INT64_C(200000000) /* less than a quarter of a second: the next look of the timer does it */
#define UNLINKED_KEEP_NS INT64_C(10000000000)
#define LOCK_LOOKS 4u /* with a pidfd the lock is asked for once a second only: it shows nothing but exec */

/* A file whose header is not complete yet. Its process is watched already: it may die before the ring is seen. */
struct unready {
	char name[DC_RING_NAME_BYTES];
	uint32_t looks;
	int pidfd;
};

struct dc_roster {
	int dir_fd;
	int inotify_fd;
	struct dc_roster_handler handler;
	void *arg;
	bool full; /* said already */
	uint32_t ticks;
	uint32_t count;
	struct dc_entry **entries; /* DC_ROSTER_MAX pointers: entries stay where they are */
	uint32_t unready_count;
	struct unready unready[UNREADY_MAX];
};

static int watch_dir(struct dc_roster *r, const char *dir)
{
	return inotify_add_watch(r->inotify_fd, dir, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
}

int dc_roster_new(int dir_fd, const char *dir, const struct dc_roster_handler *handler, void *arg,
		  struct dc_roster **ret_roster)
{
	struct dc_roster *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->dir_fd = dir_fd;
	r->handler = *handler;
	r->arg = arg;
	r->entries = calloc(DC_ROSTER_MAX, sizeof(struct dc_entry *));
	r->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (r->inotify_fd < 0 || !r->entries || watch_dir(r, dir) < 0) {
		int error = r->entries ? -errno : -ENOMEM;

		dc_roster_free(r);
		return error;
	}
	*ret_roster = r;
	return 0;
}

static void entry_free(struct dc_roster *r, struct dc_entry *e)
{
	if (r->handler.forgotten)
		r->handler.forgotten(r->arg, e);
	if (e->pidfd >= 0)
		close(e->pidfd);
	dc_ring_unref(e->ring);
	free(e);
}

static void unready_free(struct unready *u)
{
	if (u->pidfd >= 0)
		close(TAKE_FD(u->pidfd));
}

void dc_roster_free(struct dc_roster *r)
{
	if (!r)
		return;
	for (uint32_t i = 0; i < r->count; i++)
		entry_free(r, r->entries[i]);
	free(r->entries);
	for (uint32_t i = 0; i < r->unready_count; i++)
		unready_free(&r->unready[i]);
	if (r->inotify_fd >= 0)
		close(r->inotify_fd);
	free(r);
}

int dc_roster_fd(const struct dc_roster *r)
{
	return r->inotify_fd;
}

uint32_t dc_roster_count(const struct dc_roster *r)
{
	return r->count;
}

struct dc_entry *dc_roster_at(const struct dc_roster *r, uint32_t index)
{
	return r->entries[index];
}

bool dc_entry_same(const struct dc_entry *a, const struct dc_entry *b)
{
	const struct dc_ring_header *x = &a->ring->header, *y = &b->ring->header;

	return x->pid == y->pid && x->start_time == y->start_time && x->pid_namespace == y->pid_namespace;
}

static bool known(const struct dc_roster *r, const char *name)
{
	for (uint32_t i = 0; i < r->count; i++)
		if (!r->entries[i]->ring->bare && strcmp(r->entries[i]->ring->name, name) == 0)
			return true;
	return false;
}

static bool room_for(struct dc_roster *r, uint32_t uid)
{
	uint32_t of_uid = 0;

	for (uint32_t i = 0; i < r->count; i++)
		of_uid += r->entries[i]->ring->uid == uid;
	if (r->count < DC_ROSTER_MAX && (uid == 0 || of_uid < DC_ROSTER_PER_UID_MAX))
		return true;
	if (!r->full) {
		char line[DC_WHY_BYTES];

		snprintf(line, sizeof(line), "uid %u has %u rings here: further ones are not watched", uid,
			 of_uid);
		r->handler.log(r->arg, line);
	}
	r->full = true;
	return false;
}

/* What a watcher before us has already acted on, it acknowledged; the low half is enough to tell. */
static uint64_t handled_before(const struct dc_ring *ring, uint64_t trigger_seq)
{
	uint32_t acked = 0;

	if (dc_ring_acked(ring, &acked) < 0 || (uint32_t)trigger_seq - acked > DC_TRIGGER_SLOTS)
		return trigger_seq > DC_TRIGGER_SLOTS ? trigger_seq - DC_TRIGGER_SLOTS : 0;
	return trigger_seq - ((uint32_t)trigger_seq - acked);
}

/* Those that a watcher before us was told of, and we are not. */
static uint64_t asked_before(const struct dc_ring *ring, const struct dc_ring_look *look, uint64_t handled)
{
	struct dc_ring_trigger t;
	uint64_t ours = 0;

	for (uint64_t i = 0; i < look->trigger_seq - handled; i++) /* no more than DC_TRIGGER_SLOTS */
		ours += dc_ring_trigger(ring, handled + 1 + i, &t) == 0 && t.reason == DC_TRIGGER_API;
	return look->triggers_asked > ours ? look->triggers_asked - ours : 0;
}

static void add(struct dc_roster *r, struct dc_ring *ring, int pidfd, bool descendant)
{
	struct dc_entry *e = calloc(1, sizeof(*e));
	struct dc_ring_look look = {0};

	if (!e || dc_ring_look(ring, &look) < 0) {
		free(e);
		if (pidfd >= 0)
			close(pidfd);
		return;
	}
	e->ring = dc_ring_ref(ring);
	dc_ring_watch(ring);
	e->pidfd = pidfd;
	e->descendant = descendant;
	e->trigger_seq = handled_before(ring, look.trigger_seq);
	e->passed.told = asked_before(ring, &look, e->trigger_seq);
	r->entries[r->count++] = e;
	r->handler.found(r->arg, e);
}

static struct dc_entry *living(const struct dc_roster *r, uint32_t pid)
{
	for (uint32_t i = 0; i < r->count; i++)
		if (r->entries[i]->ring->pid == pid && !r->entries[i]->gone && dc_ring_alive(r->entries[i]->ring) == 1)
			return r->entries[i];
	return NULL;
}

int dc_roster_add_bare(struct dc_roster *r, uint32_t pid, bool descendant)
{
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	int result;

	if (living(r, pid))
		return 1;
	result = dc_ring_bare(pid, &ring);
	if (result < 0)
		return result;
	if (!room_for(r, ring->uid))
		return -ENOSPC;
	add(r, ring, -1, descendant);
	return 0;
}

/* *@pidfd goes with it. */
static void remember_unready(struct dc_roster *r, const char *name, int *pidfd)
{
	struct unready *u;

	for (uint32_t i = 0; i < r->unready_count; i++)
		if (strcmp(r->unready[i].name, name) == 0)
			return;
	if (r->unready_count == UNREADY_MAX)
		return;
	u = &r->unready[r->unready_count++];
	*u = (struct unready){.pidfd = TAKE_FD(*pidfd)};
	snprintf(u->name, sizeof(u->name), "%.63s", name);
}

/* *@pidfd goes to the entry. Return: -EAGAIN when the ring is still being set up. */
static int try_open(struct dc_roster *r, const char *name, const struct dc_ring_name *parsed, int *pidfd)
{
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(close_fd) int other = -1;
	char why[DC_WHY_BYTES];
	int result;

	result = dc_ring_open(r->dir_fd, name, &ring, why);
	if (result == 0 && ring->pid != parsed->pid)
		other = TAKE_FD(*pidfd); /* the name's pid was one of another pid namespace: this is somebody else */
	if (result == 0 && room_for(r, ring->uid))
		add(r, ring, TAKE_FD(*pidfd), false);
	else if (result < 0 && result != -EAGAIN && result != -ENOENT)
		r->handler.log(r->arg, why);
	return result;
}

/* The process first, by the name of its ring: it may be about to die, and reaped nobody can be asked about it. */
static void discover(struct dc_roster *r, const char *name)
{
	CLEANUP(close_fd) int pidfd = -1;
	struct dc_ring_name parsed;

	if (dc_ring_name_parse(name, &parsed) < 0 || known(r, name))
		return;
	dc_death_watch(parsed.pid, parsed.start_time, &pidfd);
	if (try_open(r, name, &parsed, &pidfd) == -EAGAIN)
		remember_unready(r, name, &pidfd);
}

static void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

void dc_roster_scan(struct dc_roster *r)
{
	int fd = openat(r->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(closedir) DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (!d && fd >= 0)
		close(fd);
	while (d && (e = readdir(d)))
		discover(r, e->d_name);
}

int dc_roster_move(struct dc_roster *r, const char *dir)
{
	if (watch_dir(r, dir) < 0)
		return -errno;
	dc_roster_scan(r);
	return 0;
}

void dc_roster_retry(struct dc_roster *r)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < r->unready_count; i++) {
		struct unready u = r->unready[i];
		struct dc_ring_name parsed;

		dc_ring_name_parse(u.name, &parsed);
		if (!known(r, u.name) && try_open(r, u.name, &parsed, &u.pidfd) == -EAGAIN && ++u.looks < UNREADY_LOOKS)
			r->unready[kept++] = u;
		else
			unready_free(&u);
	}
	r->unready_count = kept;
}

bool dc_roster_unready(const struct dc_roster *r)
{
	return r->unready_count > 0;
}

void dc_roster_event(struct dc_roster *r)
{
	char bytes[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	while ((n = read(r->inotify_fd, bytes, sizeof(bytes))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *e = (const void *)(bytes + at);

			if (e->mask & IN_Q_OVERFLOW)
				dc_roster_scan(r);
			else if (e->len)
				discover(r, e->name);
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	}
	dc_roster_retry(r);
}

/* New triggers in order. One found half written is waited for until the next look, then passed over. */
static void handle_triggers(struct dc_roster *r, struct dc_entry *e, const struct dc_ring_look *l)
{
	uint64_t over = 0, missed;

	if (l->trigger_seq - e->trigger_seq > DC_TRIGGER_SLOTS) {
		over = l->trigger_seq - DC_TRIGGER_SLOTS - e->trigger_seq;
		e->trigger_seq = l->trigger_seq - DC_TRIGGER_SLOTS;
	}
	while (e->trigger_seq < l->trigger_seq) {
		const uint64_t seq = e->trigger_seq + 1;
		struct dc_ring_trigger t;
		int result = dc_ring_trigger(e->ring, seq, &t);

		if (result == -EAGAIN && e->stuck_seq != seq && !e->gone) {
			e->stuck_seq = seq;
			break;
		}
		e->trigger_seq = seq;
		over += result != 0;
		if (result != 0)
			continue;
		if (t.reason == DC_TRIGGER_API) {
			dc_passed_one(&e->passed);
			e->like = t;
		}
		r->handler.trigger(r->arg, e, &t);
	}
	e->unacked = true;
	missed = dc_passed_look(&e->passed, l->triggers_asked, over);
	if (missed)
		r->handler.overwritten(r->arg, e, missed, e->like.reason ? &e->like : NULL);
}

/* Whoever is acknowledged rings again, which costs it some system calls; in a storm once a look is enough. */
static void acknowledge(struct dc_entry *e, int64_t now_ns)
{
	if (!e->unacked || (e->storm && now_ns - e->acked_ns < STORM_ACK_NS))
		return;
	dc_ring_ack(e->ring, e->trigger_seq);
	e->unacked = e->storm = false;
	e->acked_ns = now_ns;
}

static void look(struct dc_roster *r, struct dc_entry *e, bool ask_lock, int64_t now_ns)
{
	struct dc_ring_look l;

	/* The lock first: whatever was stored before it was let go is in the look that follows. */
	const bool gone = ask_lock && dc_ring_alive(e->ring) != 1;

	if (dc_ring_glance(e->ring, &l) == 0) {
		e->goodbye = l.flags & DC_RING_GOODBYE;
		e->gone = gone;
		if (l.modules_used != e->modules)
			dc_maps_want(e->ring->maps);
		e->modules = l.modules_used;
		if (l.trigger_seq > e->trigger_seq || (e->passed.over && l.triggers_asked > e->passed.told))
			handle_triggers(r, e, &l);
		acknowledge(e, now_ns);
	}
	if (!gone)
		return;
	e->gone = true;
	e->gone_ns = now_ns;
	r->handler.gone(r->arg, e);
}

void dc_roster_look(struct dc_roster *r, struct dc_entry *e, int64_t now_ns)
{
	if (!e->gone)
		look(r, e, true, now_ns);
}

void dc_roster_tick(struct dc_roster *r, int64_t now_ns)
{
	const bool slow = r->ticks++ % LOCK_LOOKS == 0;

	for (uint32_t i = 0; i < r->count; i++) {
		struct dc_entry *e = r->entries[i];

		if (!e->gone)
			look(r, e, slow || e->pidfd < 0, now_ns);
	}
}

/* Only the very file we know: a name may have been used again. */
static void remove_file(const struct dc_roster *r, const struct dc_ring *ring)
{
	struct stat st;

	if (fstatat(r->dir_fd, ring->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == ring->ino &&
	    st.st_dev == ring->dev)
		unlinkat(r->dir_fd, ring->name, 0);
}

/* Its file was removed to make room; our descriptor is all that keeps the memory. */
static bool unlinked(const struct dc_ring *ring)
{
	struct stat st;

	return fstat(ring->fd, &st) == 0 && st.st_nlink == 0;
}

static bool of_no_use(const struct dc_entry *e, int64_t gone_for_ns, int64_t grace_ns, int64_t known_ns)
{
	if (!e->gone || !e->judged)
		return false;
	if (e->superseded || (e->descendant && !(e->exit_known && WIFSIGNALED(e->exit_status))))
		return true; /* builds and scripts make thousands of these */
	if (gone_for_ns >= (e->goodbye || e->exit_known ? known_ns : grace_ns))
		return true;
	return gone_for_ns >= UNLINKED_KEEP_NS && unlinked(e->ring);
}

void dc_roster_expire(struct dc_roster *r, int64_t now_ns, int64_t grace_ns, int64_t known_ns, bool sweep)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < r->count; i++) {
		struct dc_entry *e = r->entries[i];

		if (!of_no_use(e, now_ns - e->gone_ns, grace_ns, known_ns)) {
			r->entries[kept++] = e;
			continue;
		}
		if (sweep && !e->ring->bare)
			remove_file(r, e->ring);
		entry_free(r, e);
	}
	if (kept < r->count)
		r->full = false;
	r->count = kept;
}
