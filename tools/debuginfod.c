/* SPDX-License-Identifier: MIT */
#include "tools/debuginfod.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/now.h"
#include "persist/stacks/stacks.h"
#include "tools/command.h"

#define PROGRAM "debuginfod-find"
#define ID_TEXT_BYTES 49

extern char **environ;

static int start(const char *id, int *ret_out, pid_t *ret_pid)
{
	char *const argv[] = {(char *)PROGRAM, (char *)"debuginfo", (char *)id, NULL};
	posix_spawn_file_actions_t actions;
	int out[2], r;

	if (pipe2(out, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	r = -posix_spawnp(ret_pid, PROGRAM, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(out[1]);
	if (r < 0) {
		close(out[0]);
		return r;
	}
	*ret_out = out[0];
	return 0;
}

/* The path it prints, until @until_ns. Return: its length, 0: none in time. */
static size_t read_path(int fd, int64_t until_ns, char *ret_path, size_t size)
{
	size_t n = 0;

	while (n + 1 < size) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		const int64_t left_ms = (until_ns - dc_now_ns()) / 1000000;
		ssize_t got;

		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) <= 0)
			return 0;
		got = read(fd, ret_path + n, size - 1 - n);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	ret_path[n] = 0;
	ret_path[strcspn(ret_path, "\n")] = 0;
	return strlen(ret_path);
}

/* Return: 1 and the path, 0: it is not to be had, -errno: the program cannot be run. */
static int ask(const char *id, int64_t until_ns, char *ret_path, size_t size)
{
	CLEANUP(close_fd) int out = -1;
	int status;
	pid_t pid;
	size_t n;
	int r = start(id, &out, &pid);

	if (r < 0)
		return r;
	n = read_path(out, until_ns, ret_path, size);
	if (!n)
		kill(pid, SIGKILL); /* out of time, or saying nothing */
	waitpid(pid, &status, 0);
	return n && WIFEXITED(status) && WEXITSTATUS(status) == 0 && ret_path[0] == '/';
}

static int make_dir(struct fetched *f)
{
	const char *tmp = getenv("TMPDIR");
	char path[sizeof(f->dir)];

	if (snprintf(path, sizeof(path), "%.40s/dashcam.XXXXXX", tmp && *tmp ? tmp : "/tmp") >= (int)sizeof(path) || !mkdtemp(path))
		return failure("no temporary directory: %s", strerror(errno));
	memcpy(f->dir, path, sizeof(f->dir));
	return EXIT_OK;
}

/* <dir>/.build-id/ab/cdef.debug */
static void put(const struct fetched *f, const char *id, const char *path)
{
	char at[160];

	snprintf(at, sizeof(at), "%s/.build-id", f->dir);
	mkdir(at, 0700);
	snprintf(at, sizeof(at), "%s/.build-id/%.2s", f->dir, id);
	mkdir(at, 0700);
	snprintf(at, sizeof(at), "%s/.build-id/%.2s/%s.debug", f->dir, id, id + 2);
	if (symlink(path, at) < 0 && errno != EEXIST)
		say("'%s': %s", at, strerror(errno));
}

static void id_text(const struct dc_map_entry *e, char ret_text[static ID_TEXT_BYTES])
{
	*ret_text = 0;
	for (unsigned i = 0; i < e->build_id_bytes && i < sizeof(e->build_id); i++)
		snprintf(ret_text + 2 * i, 3, "%02x", e->build_id[i]);
}

static int fetch_process(struct dc_capture *c, unsigned process, int64_t until_ns, struct fetched *f)
{
	CLEANUP(dc_stacks) struct dc_stacks *s = NULL;
	char id[ID_TEXT_BYTES], path[4096], before[ID_TEXT_BYTES] = "";
	int r = dc_stacks_open(c, process, &s);

	if (r < 0)
		return failure("its stacks cannot be read: %s", strerror(-r));
	for (uint32_t i = 0; i < dc_stacks_map_count(s); i++) {
		const struct dc_map_view m = dc_stacks_map(s, i);

		if (!m.entry || m.entry->build_id_bytes < 2)
			continue;
		id_text(m.entry, id);
		if (strcmp(id, before) == 0) /* mappings of one file stand together */
			continue;
		memcpy(before, id, sizeof(before));
		r = ask(id, until_ns, path, sizeof(path));
		if (r < 0)
			return failure("'%s': %s (Debian: package debuginfod)", PROGRAM, strerror(-r));
		f->asked++;
		f->got += r == 1;
		if (r == 1)
			put(f, id, path);
	}
	return EXIT_OK;
}

int debuginfod_fetch(struct dc_capture *c, int64_t time_ns, struct fetched *ret_fetched)
{
	const char *urls = getenv("DEBUGINFOD_URLS");
	const int64_t until_ns = dc_now_ns() + time_ns;
	int r;

	if (!urls || !*urls)
		return failure("--debuginfod: DEBUGINFOD_URLS names no server");
	r = make_dir(ret_fetched);
	for (unsigned p = 0; r == EXIT_OK && p < dc_capture_process_count(c); p++)
		r = fetch_process(c, p, until_ns, ret_fetched);
	return r;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

void fetched_cleanup(struct fetched *f)
{
	if (f->dir[0])
		nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}
