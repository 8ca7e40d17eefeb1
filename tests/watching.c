/* SPDX-License-Identifier: MIT */
#include "watching.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/death.h"

#define NEED(x)                                                                                              \
	do {                                                                                                 \
		if (!(x)) {                                                                                  \
			perror("watching: " #x);                                                             \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

#define AT_ONCE 8u /* tests of a group: they wait for looks, four a second, and for nothing else */

static void log_line(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "watcher: %s\n", line);
}

void watching_begin(struct watching *t)
{
	memset(t, 0, sizeof(*t));
	scratch_memory("dcwatch", t->rings);
	scratch_disk("dcwatch", t->out);
	dc_watcher_defaults(&t->config);
	t->config.dir = t->rings;
	t->config.output.dir = t->out;
	t->config.budget = (struct dc_budget_limits){0};
	t->config.settle = false; /* raw files are what these tests look at */
	t->config.log = log_line;
	setenv("DASHCAM_DIR", t->rings, 1);
	setenv("DASHCAM_MEMORY", "4MiB", 1);
}

void watching_kill(struct watching *t, pid_t pid, int signal_number)
{
	kill(pid, signal_number);
	waitpid(pid, NULL, 0);
	for (unsigned i = 0; i < t->guest_count; i++)
		if (t->guests[i] == pid)
			t->guests[i] = 0;
}

void watching_end(struct watching *t)
{
	for (unsigned i = 0; i < t->guest_count; i++)
		if (t->guests[i])
			watching_kill(t, t->guests[i], SIGKILL);
	if (t->watcher)
		watching_stop(t, SIGTERM);
	scratch_remove(t->rings);
	scratch_remove(t->out);
}

static void watch(const struct watching *t, int ready_fd)
{
	struct dc_watcher *w;
	char why[DC_WHY_BYTES];
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = dc_watcher_open(&t->config, &w, why);
	if (r < 0) {
		fprintf(stderr, "watcher: %s\n", why);
		_exit(1);
	}
	NEED(write(ready_fd, "r", 1) == 1);
	r = dc_watcher_loop(w);
	dc_watcher_close(w, false);
	_exit(r < 0 ? 1 : 0);
}

void watching_start(struct watching *t)
{
	int ready[2];
	char c;

	NEED(pipe(ready) == 0);
	t->watcher = fork();
	if (t->watcher == 0)
		watch(t, ready[1]);
	close(ready[1]);
	NEED(t->watcher > 0 && read(ready[0], &c, 1) == 1);
	close(ready[0]);
}

int watching_stop(struct watching *t, int signal_number)
{
	int status = 0;

	kill(t->watcher, signal_number);
	NEED(waitpid(t->watcher, &status, 0) == t->watcher);
	t->watcher = 0;
	return status;
}

static void become_guest(const char *const *words, int out)
{
	char path[512];
	const char *argv[16] = {"guest"};
	const char *build = getenv("DASHCAM_BUILD");

	for (unsigned i = 0; words[i] && i < 14; i++)
		argv[i + 1] = words[i];
	snprintf(path, sizeof(path), "%s/tests/guest", build ? build : ".");
	dup2(out, STDOUT_FILENO);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execv(path, (char *const *)argv);
	perror(path);
	_exit(127);
}

pid_t watching_guest(struct watching *t, bool ready, const char *const *words)
{
	int out[2];
	char c;
	pid_t pid;

	NEED(pipe(out) == 0 && t->guest_count < 128);
	pid = fork();
	if (pid == 0)
		become_guest(words, out[1]);
	NEED(pid > 0);
	close(out[1]);
	if (ready)
		NEED(read(out[0], &c, 1) == 1);
	close(out[0]);
	t->guests[t->guest_count++] = pid;
	return pid;
}

static int is_capture(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > 5 && strcmp(e->d_name + n - 5, ".dcap") == 0;
}

static unsigned count_captures(const struct watching *t)
{
	struct dirent **names = NULL;
	int n = scandir(t->out, &names, is_capture, alphasort);

	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
	return n > 0 ? (unsigned)n : 0;
}

unsigned watching_captures(struct watching *t, unsigned count)
{
	for (unsigned i = 0; i < 500 && count_captures(t) < count; i++)
		usleep(10000);
	usleep(300000);
	return count_captures(t);
}

struct dc_capture *watching_capture(struct watching *t, unsigned index)
{
	struct dc_capture *c = NULL;
	struct dirent **names = NULL;
	char path[512], why[160];
	int n = scandir(t->out, &names, is_capture, alphasort);

	NEED((int)index < n);
	snprintf(path, sizeof(path), "%s/%s", t->out, names[index]->d_name);
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
	if (dc_capture_open(path, &c, why) < 0) {
		fprintf(stderr, "%s: %s\n", path, why);
		abort();
	}
	return c;
}

static void keep(void *arg, const struct dc_control_reply *reply)
{
	((struct watching_reply *)arg)->last = *reply;
}

struct watching_reply watching_ask(struct watching *t, const struct dc_control_request *request)
{
	struct watching_reply r = {0};
	char why[DC_WHY_BYTES];

	r.count = dc_control_ask(t->rings, request, keep, &r, why);
	if (r.count < 0)
		fprintf(stderr, "ask: %s\n", why);
	return r;
}

struct watching_reply watching_trigger_all(struct watching *t, const char *reason, int64_t last_ns,
					   int64_t after_ns)
{
	struct dc_control_request q = {.version = DC_CONTROL_VERSION,
				       .op = DC_CONTROL_TRIGGER,
				       .flags = DC_CONTROL_ALL | DC_CONTROL_WAIT,
				       .last_ns = last_ns,
				       .after_ns = after_ns};

	snprintf(q.reason, sizeof(q.reason), "%s", reason);
	return watching_ask(t, &q);
}

static void saw_exit(void *arg, uint32_t pid, int status)
{
	(void)pid;
	*(bool *)arg |= WIFEXITED(status) && WEXITSTATUS(status) == 77;
}

bool watching_connector_tells(void)
{
	CLEANUP(close_fd) int fd = -1;
	bool seen = false;
	pid_t pid;

	if (dc_death_connector(&fd) < 0)
		return false;
	pid = fork();
	if (pid == 0)
		_exit(77);
	waitpid(pid, NULL, 0);
	for (unsigned i = 0; i < 100 && !seen; i++) {
		usleep(10000);
		dc_death_connector_read(fd, saw_exit, &seen);
	}
	return seen;
}

/* ---- many tests that wait ---- */

struct running {
	pid_t pid;
	int output; /* a file in memory */
};

static void run_one(const char *name, const struct CMUnitTest *test, struct running *r)
{
	NEED((r->output = memfd_create(test->name, MFD_CLOEXEC)) >= 0);
	fflush(stdout);
	NEED((r->pid = fork()) >= 0);
	if (r->pid > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	NEED(dup2(r->output, STDOUT_FILENO) >= 0 && dup2(r->output, STDERR_FILENO) >= 0);
	exit(_cmocka_run_group_tests(name, test, 1, NULL, NULL));
}

static bool passed(struct running *r)
{
	off_t at = 0;
	int status;

	NEED(waitpid(r->pid, &status, 0) == r->pid);
	while (sendfile(STDOUT_FILENO, r->output, &at, 1 << 20) > 0)
		continue;
	close(r->output);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int watching_run_tests(const char *name, const struct CMUnitTest *tests, size_t count)
{
	CLEANUP(free) struct running *all = calloc(count, sizeof(*all));
	size_t begun = 0;
	int failed = 0;

	NEED(all);
	for (size_t i = 0; i < count; i++) {
		for (; begun < count && begun < i + AT_ONCE; begun++)
			run_one(name, &tests[begun], &all[begun]);
		failed += !passed(&all[i]);
	}
	printf("%zu tests, %d failed\n", count, failed);
	return failed;
}
