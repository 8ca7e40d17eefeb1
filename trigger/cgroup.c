/* SPDX-License-Identifier: MIT */
#include "trigger/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 4096u
#define UNOPENED (-1)
#define MISSING (-2) /* was asked for and is not there */

struct dc_cgroup {
	char text[TEXT_BYTES]; /* /proc/PID/cgroup */
	char v2[PATH_MAX / 2];     /* directories; empty: it has none */
	char cpu[PATH_MAX / 2];    /* ... of v1 */
	char memory[PATH_MAX / 2]; /* ... of v1 */
	char pids[PATH_MAX / 2];   /* ... of v1 */
	int throttling_fd, oom_fd, pressure_fd[3];
};

/* Whole of a small file into @text. Return: 0, -errno. */
static int read_at(int fd, char *text)
{
	const ssize_t n = pread(fd, text, TEXT_BYTES - 1, 0);

	if (n < 0)
		return -errno;
	text[n] = '\0';
	return 0;
}

/* The number behind @key and one more character, in the lines of @text from @line on. */
static bool number_of(const char *text, const char *key, uint64_t *ret_number)
{
	const size_t length = strlen(key);

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, length) == 0 && line[length] == ' ') {
			*ret_number = strtoull(line + length, NULL, 10);
			return true;
		}
	}
	return false;
}

static bool has_controller(const char *list, const char *name)
{
	const size_t length = strlen(name);

	for (const char *at = list; at && *at; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, name, length) == 0 && (at[length] == '\0' || at[length] == ','))
			return true;
	}
	return false;
}

/* A group outside of our own namespace shows as "/../..": there is no directory of that name for us. */
static void place(char ret_dir[static PATH_MAX / 2], const char *root, const char *controllers, const char *path)
{
	if (strstr(path, "/.."))
		return;
	if (snprintf(ret_dir, PATH_MAX / 2, "%s%s%s%s", root, *controllers ? "/" : "", controllers,
		     strcmp(path, "/") == 0 ? "" : path) >= PATH_MAX / 2)
		ret_dir[0] = '\0';
}

/* On a host that also has v1, v2 lies one directory deeper. */
static const char *unified(const char *root)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/cgroup.procs", root);
	return access(path, F_OK) == 0 ? "" : "unified";
}

/* "4:memory:/a/b" of v1, "0::/a/b" of v2. */
static void parse_line(struct dc_cgroup *g, const char *root, char *line)
{
	char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!path)
		return;
	*path++ = '\0';
	controllers++;
	if (!*controllers)
		place(g->v2, root, unified(root), path);
	else if (has_controller(controllers, "cpu"))
		place(g->cpu, root, controllers, path);
	else if (has_controller(controllers, "memory"))
		place(g->memory, root, controllers, path);
	else if (has_controller(controllers, "pids"))
		place(g->pids, root, controllers, path);
}

static int read_groups(int proc_fd, char text[static TEXT_BYTES])
{
	CLEANUP(close_fd) int fd = openat(proc_fd, "cgroup", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : read_at(fd, text);
}

bool dc_cgroup_moved(const struct dc_cgroup *g, int proc_fd)
{
	char text[TEXT_BYTES];

	return read_groups(proc_fd, text) == 0 && strcmp(text, g->text) != 0;
}

int dc_cgroup_open(int proc_fd, const char *root, struct dc_cgroup **ret_cgroup)
{
	char text[TEXT_BYTES], *save = NULL;
	struct dc_cgroup *g;
	int r = read_groups(proc_fd, text);

	if (r < 0)
		return r;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	strcpy(g->text, text);
	g->throttling_fd = g->oom_fd = g->pressure_fd[0] = g->pressure_fd[1] = g->pressure_fd[2] = UNOPENED;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		parse_line(g, root, line);
	*ret_cgroup = g;
	return 0;
}

static void close_if(int fd)
{
	if (fd >= 0)
		close(fd);
}

void dc_cgroup_close(struct dc_cgroup *g)
{
	if (!g)
		return;
	close_if(g->throttling_fd);
	close_if(g->oom_fd);
	for (unsigned i = 0; i < 3; i++)
		close_if(g->pressure_fd[i]);
	free(g);
}

static int open_in(const char *dir, const char *file)
{
	char path[PATH_MAX];
	int fd;

	if (!*dir)
		return MISSING;
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? MISSING : fd;
}

/* A quota may be of a group further out (of a pod, say), and only that one counts its periods. */
static int open_throttling(const struct dc_cgroup *g)
{
	char dir[sizeof(g->v2)], text[TEXT_BYTES], *cut;
	uint64_t periods = 0;

	strcpy(dir, g->v2);
	for (unsigned levels = 0; *dir && levels < 16; levels++) {
		const int fd = open_in(dir, "cpu.stat");

		if (fd >= 0 && read_at(fd, text) == 0 && number_of(text, "nr_periods", &periods) && periods)
			return fd;
		close_if(fd);
		cut = strrchr(dir, '/');
		if (!cut)
			break;
		*cut = '\0';
	}
	if (*g->cpu)
		return open_in(g->cpu, "cpu.stat");
	return open_in(g->v2, "cpu.stat");
}

int dc_cgroup_throttling(struct dc_cgroup *g, uint64_t *ret_periods, uint64_t *ret_throttled)
{
	char text[TEXT_BYTES];
	int r;

	if (g->throttling_fd == UNOPENED)
		g->throttling_fd = open_throttling(g);
	if (g->throttling_fd == MISSING)
		return -ENOENT;
	r = read_at(g->throttling_fd, text);
	if (r < 0)
		return r;
	return number_of(text, "nr_periods", ret_periods) && number_of(text, "nr_throttled", ret_throttled) ? 0 : -ENODATA;
}

int dc_cgroup_oom(struct dc_cgroup *g, uint64_t *ret_count)
{
	uint64_t oom = 0, kills = 0;
	char text[TEXT_BYTES];
	int r;

	if (g->oom_fd == UNOPENED)
		g->oom_fd = open_in(g->v2, "memory.events");
	if (g->oom_fd == MISSING && *g->memory)
		g->oom_fd = open_in(g->memory, "memory.oom_control");
	if (g->oom_fd < 0)
		return -ENOENT;
	r = read_at(g->oom_fd, text);
	if (r < 0)
		return r;
	if (!number_of(text, "oom_kill", &kills)) /* before Linux 4.13 v1 counts nothing */
		return -ENODATA;
	number_of(text, "oom", &oom); /* of v2 only */
	*ret_count = oom + kills;
	return 0;
}

/* The least of @file in @dir and the directories above it that have one. "max", and what v1 says instead, is none. */
static void least_of(const char *dir, const char *file, uint64_t *least)
{
	const uint64_t v1_none = UINT64_C(1) << 62;
	char at[PATH_MAX / 2], text[TEXT_BYTES], *cut;

	strcpy(at, dir);
	for (unsigned levels = 0; *at && levels < 16; levels++) {
		CLEANUP(close_fd) int fd = open_in(at, file);
		const uint64_t n = fd >= 0 && read_at(fd, text) == 0 ? strtoull(text, NULL, 10) : 0;

		if (n && n < v1_none && (!*least || n < *least))
			*least = n;
		cut = strrchr(at, '/');
		if (!cut || fd < 0)
			break;
		*cut = '\0';
	}
}

void dc_cgroup_limits(const struct dc_cgroup *g, uint64_t *ret_memory_bytes, uint64_t *ret_pids)
{
	*ret_memory_bytes = *ret_pids = 0;
	least_of(g->v2, "memory.max", ret_memory_bytes);
	least_of(g->memory, "memory.limit_in_bytes", ret_memory_bytes);
	least_of(g->v2, "pids.max", ret_pids);
	least_of(g->pids, "pids.max", ret_pids);
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=42" */
static uint64_t total_of(const char *text, const char *kind)
{
	const char *line = strstr(text, kind), *total = line ? strstr(line, "total=") : NULL;

	return total ? strtoull(total + 6, NULL, 10) : 0;
}

static int open_pressure(const struct dc_cgroup *g, const char *what)
{
	char file[32];
	int fd;

	snprintf(file, sizeof(file), "%s.pressure", what);
	fd = open_in(g->v2, file);
	return fd >= 0 ? fd : open_in("/proc/pressure", what);
}

int dc_cgroup_pressure(struct dc_cgroup *g, uint64_t ret_us[3][2])
{
	static const char *const whats[] = {"cpu", "memory", "io"};
	char text[TEXT_BYTES];

	for (unsigned i = 0; i < 3; i++) {
		int r;

		if (g->pressure_fd[i] == UNOPENED)
			g->pressure_fd[i] = open_pressure(g, whats[i]);
		if (g->pressure_fd[i] == MISSING)
			return -ENOENT;
		r = read_at(g->pressure_fd[i], text);
		if (r < 0)
			return r;
		ret_us[i][0] = total_of(text, "some");
		ret_us[i][1] = total_of(text, "full");
	}
	return 0;
}
