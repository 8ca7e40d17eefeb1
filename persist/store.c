/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "persist/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/block.h"
#include "persist/fields.h"
#include "persist/writer.h"

#define STORE_ROOT "/var/lib/dashcam"
#define PART_NAME_BYTES 32 /* of process and reason in a file name */

static void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

/* --- where --- */

static int refuse(char *ret_why, int error, const char *path, const char *what)
{
	snprintf(ret_why, DC_STORE_WHY_BYTES, "capture directory '%.160s': %s", path, what);
	return error;
}

static int fail(char *ret_why, int error, const char *path)
{
	return refuse(ret_why, error, path, strerror(-error));
}

static int default_path(uint32_t uid, char *ret_path, size_t size)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int n;

	if (geteuid() == 0)
		n = snprintf(ret_path, size, STORE_ROOT "/%u", uid);
	else if (state && state[0] == '/')
		n = snprintf(ret_path, size, "%s/dashcam", state);
	else if (home && home[0] == '/')
		n = snprintf(ret_path, size, "%s/.local/state/dashcam", home);
	else
		return -ENOENT;
	return (size_t)n < size ? 0 : -ENAMETOOLONG;
}

/* mkdir -p for what is above the last component; those that are there stay as they are. */
static int make_parents(const char *path, mode_t mode)
{
	char parent[PATH_MAX];
	size_t length = strlen(path);

	if (length >= sizeof parent)
		return -ENAMETOOLONG;
	memcpy(parent, path, length + 1);
	for (char *slash = strchr(parent + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(parent, mode) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return 0;
}

/* Of what we made ourselves: root makes a directory for the user whose processes are recorded. */
static int give_to(int fd, uint32_t uid)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (geteuid() != 0 || st.st_uid == uid)
		return 0;
	return fchown(fd, uid, (gid_t)-1) < 0 ? -errno : 0;
}

static int check_directory(int fd, uint32_t uid, const char *path, char *ret_why)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(ret_why, -errno, path);
	if (st.st_uid != 0 && st.st_uid != geteuid() && st.st_uid != uid)
		return refuse(
			ret_why, -EPERM, path,
			"belongs to another user, who could replace captures; name one of your own (--out)");
	/* sticky, like /tmp: others may add files, not touch ours; ours are made O_EXCL and 0600 */
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(st.st_mode & S_ISVTX))
		return refuse(ret_why, -EPERM, path,
			      "is writable by others, who could replace captures; use 'chmod go-w' or "
			      "another (--out)");
	return 0;
}

static int open_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Return: the directory, whether it was there or not, -errno. */
static int make_directory(const char *path, uint32_t uid)
{
	CLEANUP(close_fd) int fd = -1;
	int r = make_parents(path, geteuid() == 0 ? 0755 : 0700);

	if (r < 0)
		return r;
	if (mkdir(path, 0700) < 0)
		return errno == EEXIST ? open_directory(path) : -errno;
	fd = open_directory(path);
	if (fd < 0)
		return fd;
	r = give_to(fd, uid);
	return r < 0 ? r : TAKE_FD(fd);
}

int dc_store_open(uint32_t uid, const char *path, int *ret_fd, char ret_why[static DC_STORE_WHY_BYTES])
{
	CLEANUP(close_fd) int fd = -1;
	char chosen[PATH_MAX];
	size_t length;
	int r;

	if (!path && (r = default_path(uid, chosen, sizeof chosen)) < 0)
		return refuse(ret_why, r, "?",
			      "neither XDG_STATE_HOME nor HOME says where; name one (--out)");
	if (path && (size_t)snprintf(chosen, sizeof chosen, "%s", path) >= sizeof chosen)
		return fail(ret_why, -ENAMETOOLONG, path);
	/* A slash at the end would have a symbolic link followed. */
	for (length = strlen(chosen); length > 1 && chosen[length - 1] == '/';)
		chosen[--length] = 0;
	fd = open_directory(chosen);
	if (fd == -ENOENT)
		fd = make_directory(chosen, uid);
	if (fd == -ELOOP || fd == -ENOTDIR)
		return refuse(ret_why, fd, chosen, "is not a directory (a symbolic link is not followed)");
	if (fd < 0)
		return fail(ret_why, fd, chosen);
	r = check_directory(fd, uid, chosen, ret_why);
	if (r == 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

/* --- names --- */

static bool plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
	       c == '.';
}

/* Runs of anything else become one '-'; none at either end. */
static void sanitise(const char *text, char ret_part[static PART_NAME_BYTES + 1])
{
	size_t n = 0;

	for (; *text && n < PART_NAME_BYTES; text++) {
		if (plain(*text) && !(*text == '.' && n == 0))
			ret_part[n++] = *text;
		else if (n && ret_part[n - 1] != '-')
			ret_part[n++] = '-';
	}
	while (n && ret_part[n - 1] == '-')
		n--;
	ret_part[n] = 0;
}

static void format_time(int64_t realtime_ns, char *text, size_t size)
{
	time_t seconds = (time_t)(realtime_ns / 1000000000);
	struct tm tm;
	char day[32];

	if (realtime_ns < 0 || !gmtime_r(&seconds, &tm) ||
	    !strftime(day, sizeof day, "%Y-%m-%dT%H-%M-%S", &tm))
		snprintf(day, sizeof day, "1970-01-01T00-00-00");
	snprintf(text, size, "%s.%03dZ", day, realtime_ns < 0 ? 0 : (int)(realtime_ns / 1000000 % 1000));
}

static bool taken(int dir_fd, const char *name)
{
	struct stat st;
	char part[DC_STORE_NAME_BYTES + 8];

	snprintf(part, sizeof part, "%s.part", name);
	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ||
	       fstatat(dir_fd, part, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int dc_store_name(int dir_fd, int64_t realtime_ns, const char *process, const char *reason,
		  char ret_name[static DC_STORE_NAME_BYTES])
{
	char who[PART_NAME_BYTES + 1], why[PART_NAME_BYTES + 1], when[64], name[DC_STORE_NAME_BYTES];

	sanitise(process, who);
	sanitise(reason, why);
	format_time(realtime_ns, when, sizeof when);
	for (unsigned i = 1; i <= 100; i++) {
		int n = snprintf(name, sizeof name, "%s%s%s%s%s", when, *who ? "-" : "", who, *why ? "-" : "",
				 why);

		if (i > 1)
			n += snprintf(name + n, sizeof name - (size_t)n, "-%u", i);
		snprintf(name + n, sizeof name - (size_t)n, ".dcap");
		if (taken(dir_fd, name))
			continue;
		memcpy(ret_name, name, sizeof name);
		return 0;
	}
	return -EEXIST;
}

/* --- what is there --- */

static bool ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), s = strlen(suffix);

	return n > s && !strcmp(name + n - s, suffix);
}

/* Return: 0, -ENOENT where it is no capture's name. */
static int side_name(const char *name, const char *suffix, char *ret_name, size_t size)
{
	if (!ends_in(name, ".dcap") || strchr(name, '/'))
		return -ENOENT;
	return (size_t)snprintf(ret_name, size, "%s%s", name, suffix) < size ? 0 : -ENAMETOOLONG;
}

/* Exactly @bytes. Return: 0, -EBADMSG when the file is shorter, -errno. */
static int read_at(int fd, void *to, size_t bytes, uint64_t offset)
{
	ssize_t n;

	do
		n = pread(fd, to, bytes, (off_t)offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == bytes ? 0 : -EBADMSG;
}

/* One small block at *@at into @payload; *@at moves on to the next. Return: 0, -EBADMSG, -errno. */
static int read_block(int fd, uint64_t file_bytes, uint16_t type, uint64_t *at, void *payload, size_t room,
		      size_t *ret_bytes)
{
	struct dc_block_header h;
	int r = *at < file_bytes ? read_at(fd, &h, sizeof h, *at) : -EBADMSG;

	if (r < 0)
		return r;
	if (dc_block_check(&h, file_bytes - *at) < 0 || h.type != type || h.flags || h.stored_bytes > room)
		return -EBADMSG;
	r = read_at(fd, payload, h.stored_bytes, *at + sizeof h);
	if (r < 0)
		return r;
	*at += h.next;
	*ret_bytes = h.stored_bytes;
	return dc_block_intact(&h, payload) ? 0 : -EBADMSG;
}

/* FILE and INCIDENT come first in every capture. */
static int read_incident(int fd, uint64_t file_bytes, bool *ret_settled, struct dc_incident *ret_incident)
{
	uint8_t payload[DC_FIELDS_MAX];
	struct dc_file_block file;
	uint64_t at = 0;
	size_t bytes;
	int r = read_block(fd, file_bytes, DC_BLOCK_FILE, &at, payload, sizeof payload, &bytes);

	if (r < 0 || bytes < sizeof file)
		return r < 0 ? r : -EBADMSG;
	memcpy(&file, payload, sizeof file);
	if (file.incompat & ~DC_FORMAT_INCOMPAT_KNOWN)
		return -EPROTONOSUPPORT; /* what follows may mean something else than it does to us */
	*ret_settled = file.settled;
	r = read_block(fd, file_bytes, DC_BLOCK_INCIDENT, &at, payload, sizeof payload, &bytes);
	return r < 0 ? r : dc_incident_unpack(payload, bytes, ret_incident);
}

static bool has_mark(int dir_fd, const char *name)
{
	char mark[300];
	struct stat st;

	/* In doubt it is kept. */
	return side_name(name, ".keep", mark, sizeof mark) == 0 &&
	       (fstatat(dir_fd, mark, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT);
}

/* False: not a capture. */
static bool read_entry(int dir_fd, const char *name, struct dc_store_entry *e)
{
	CLEANUP(close_fd) int fd = -1;
	struct dc_incident incident;
	struct stat st;
	int r;

	if (!ends_in(name, ".dcap") || strlen(name) >= sizeof e->name)
		return false;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return false;
	*e = (struct dc_store_entry){.bytes = (uint64_t)st.st_blocks * 512,
				     .uid = st.st_uid,
				     .at_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec,
				     .kept = has_mark(dir_fd, name)};
	memcpy(e->name, name, strlen(name) + 1);
	fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	r = fd < 0 ? -errno : read_incident(fd, (uint64_t)st.st_size, &e->settled, &incident);
	e->damaged = r < 0;
	e->unreadable = r < 0 && r != -EBADMSG;
	e->newer = r == -EPROTONOSUPPORT;
	if (r < 0)
		return true;
	e->at_ns = incident.at_realtime_ns;
	e->severity = incident.severity;
	e->reason = incident.reason;
	memcpy(e->rule, incident.rule, sizeof e->rule);
	memcpy(e->text, incident.text, sizeof e->text);
	e->unit = incident.cause.unit;
	e->value = incident.cause.value;
	e->threshold = incident.cause.threshold;
	return true;
}

static int older(const void *left, const void *right)
{
	const struct dc_store_entry *a = left, *b = right;

	if (a->at_ns != b->at_ns)
		return a->at_ns < b->at_ns ? -1 : 1;
	return strcmp(a->name, b->name);
}

/* The directory anew, so that reading it starts at its beginning and @dir_fd keeps its place. */
static int open_listing(int dir_fd, DIR **ret_dir)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d;

	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		int r = -errno;

		close(fd);
		return r;
	}
	*ret_dir = d;
	return 0;
}

int dc_store_list(int dir_fd, struct dc_store_entry **ret_entries, unsigned *ret_count)
{
	CLEANUP(free) struct dc_store_entry *entries = NULL;
	CLEANUP(closedir) DIR *d = NULL;
	unsigned count = 0, room = 0;
	struct dirent *file;
	int r = open_listing(dir_fd, &d);

	if (r < 0)
		return r;
	while (errno = 0, file = readdir(d)) {
		if (GROW(entries, count, room, 16) < 0)
			return -ENOMEM;
		count += read_entry(dir_fd, file->d_name, &entries[count]);
	}
	if (errno)
		return -errno;
	if (count)
		qsort(entries, count, sizeof *entries, older);
	*ret_entries = TAKE(entries);
	*ret_count = count;
	return 0;
}

/* --- what stays and what goes --- */

int dc_store_keep(int dir_fd, const char *name, bool keep)
{
	CLEANUP(close_fd) int fd = -1;
	struct stat st;
	char mark[300];
	int r = side_name(name, ".keep", mark, sizeof mark);

	if (r < 0)
		return r;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!keep)
		return unlinkat(dir_fd, mark, 0) < 0 && errno != ENOENT ? -errno : 0;
	fd = openat(dir_fd, mark, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	return geteuid() == 0 && fchown(fd, st.st_uid, st.st_gid) < 0 ? -errno : 0;
}

int dc_store_remove(int dir_fd, const char *name)
{
	char mark[300];
	int r = side_name(name, ".keep", mark, sizeof mark);

	if (r < 0)
		return r;
	if (unlinkat(dir_fd, name, 0) < 0)
		return -errno;
	unlinkat(dir_fd, mark, 0);
	return 0;
}

static bool same_rule(const struct dc_store_entry *a, const struct dc_store_entry *b)
{
	return !strcmp(a->rule, b->rule) && (a->rule[0] || a->reason == b->reason);
}

/* Entries are ordered by age, so a later one is a newer one. A damaged one is nobody's newest. */
static bool may_go(const struct dc_store_entry *entries, unsigned count, unsigned i)
{
	if (entries[i].kept || entries[i].unreadable)
		return false;
	for (unsigned k = i + 1; k < count && !entries[i].damaged; k++)
		if (!entries[k].damaged && same_rule(&entries[i], &entries[k]))
			return true;
	return entries[i].damaged;
}

/* The lowest severity above @level, -1: none. */
static int64_t next_severity(const struct dc_store_entry *entries, unsigned count, int64_t level)
{
	int64_t next = -1;

	for (unsigned i = 0; i < count; i++)
		if (entries[i].severity > level && (next < 0 || entries[i].severity < next))
			next = entries[i].severity;
	return next;
}

uint64_t dc_store_victims(const struct dc_store_entry *entries, unsigned count, uint64_t budget_bytes,
			  bool *ret_victim)
{
	uint64_t used = 0, freed = 0;
	int64_t level = -1;

	for (unsigned i = 0; i < count; i++) {
		used += entries[i].bytes;
		ret_victim[i] = false;
	}
	while ((level = next_severity(entries, count, level)) >= 0)
		for (unsigned i = 0; i < count && used - freed > budget_bytes; i++)
			if (entries[i].severity == level && may_go(entries, count, i)) {
				ret_victim[i] = true;
				freed += entries[i].bytes;
			}
	return freed;
}

int dc_store_evict(int dir_fd, uint64_t budget_bytes, unsigned *ret_removed, uint64_t *ret_bytes)
{
	CLEANUP(free) struct dc_store_entry *entries = NULL;
	CLEANUP(free) bool *victim = NULL;
	unsigned count;
	int first = 0, r = dc_store_list(dir_fd, &entries, &count);

	if (r < 0)
		return r;
	victim = calloc(count + 1, sizeof *victim);
	if (!victim)
		return -ENOMEM;
	*ret_removed = 0;
	*ret_bytes = 0;
	dc_store_victims(entries, count, budget_bytes, victim);
	for (unsigned i = 0; i < count; i++) {
		if (!victim[i])
			continue;
		r = dc_store_remove(dir_fd, entries[i].name);
		if (r == 0) {
			*ret_removed += 1;
			*ret_bytes += entries[i].bytes;
		} else if (!first && r != -ENOENT) {
			first = r;
		}
	}
	return first;
}

static bool is_orphan(int dir_fd, const char *mark)
{
	char name[300];
	struct stat st;

	if (!ends_in(mark, ".dcap.keep"))
		return false;
	snprintf(name, sizeof name, "%.*s", (int)(strlen(mark) - strlen(".keep")), mark);
	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

int dc_store_sweep(int dir_fd)
{
	CLEANUP(closedir) DIR *d = NULL;
	struct dirent *file;
	int swept = 0, r = open_listing(dir_fd, &d);

	if (r < 0)
		return r;
	while ((file = readdir(d))) {
		if (ends_in(file->d_name, ".dcap.part"))
			swept += dc_writer_reclaim(dir_fd, file->d_name) == 0;
		else if (is_orphan(dir_fd, file->d_name))
			swept += unlinkat(dir_fd, file->d_name, 0) == 0;
	}
	return swept;
}

int dc_store_names(int dir_fd)
{
	int fd;

	if (mkdirat(dir_fd, ".names", 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(dir_fd, ".names", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}
