/* SPDX-License-Identifier: MIT */
#include "trigger/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "trigger/ring.h"

/* What is passed on to the command, when it was sent to us. */
static const int forwarded[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR2, SIGALRM, SIGWINCH, SIGCONT};

struct run {
	const struct dc_run_config *config;
	struct dc_watcher *watcher;
	char dir[DC_RINGS_PATH_BYTES];
	sigset_t signals; /* ours, besides the watcher's */
	sigset_t mask_before;
	struct rlimit files_before;
	pid_t child;
	int status;
	bool ended;
	unsigned found;
};

static void say(const struct run *r, const char *line)
{
	if (r->config->watcher.log)
		r->config->watcher.log(r->config->watcher.log_arg, line);
}

/* --- private directories --- */

static void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

static bool ring_is_evidence(int dir_fd, const char *name, int64_t grace_ns)
{
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	struct dc_ring_look look;
	char why[DC_WHY_BYTES];
	struct timespec now;
	struct stat st;

	if (dc_ring_open(dir_fd, name, &ring, why) < 0)
		return false;
	if (dc_ring_alive(ring) == 1)
		return true;
	if (dc_ring_look(ring, &look) < 0 || look.flags & DC_RING_GOODBYE || fstat(ring->fd, &st) < 0)
		return false;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec - st.st_mtim.tv_sec < grace_ns / 1000000000;
}

/* @grace_ns: <0: any ring is */
static bool holds_evidence(int dir_fd, int64_t grace_ns)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(closedir) DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dc_ring_name name;
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (dc_ring_name_parse(e->d_name, &name) == 0 &&
		    (grace_ns < 0 || ring_is_evidence(dir_fd, e->d_name, grace_ns)))
			return true;
	return false;
}

/* Files of ours only, by name: whatever else is in there stays, and keeps the directory. */
static void remove_dir(int parent_fd, const char *name)
{
	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEANUP(closedir) DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dc_ring_name ring;
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (dc_ring_name_parse(e->d_name, &ring) == 0 || strcmp(e->d_name, DC_RINGS_DOORBELL) == 0 ||
		    strcmp(e->d_name, DC_RINGS_SOCKET) == 0 || strcmp(e->d_name, DC_RINGS_LOCK) == 0)
			unlinkat(fd, e->d_name, 0);
	unlinkat(parent_fd, name, AT_REMOVEDIR);
}

static void sweep_one(int parent_fd, const char *name, int64_t grace_ns)
{
	CLEANUP(close_fd) int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_uid != geteuid() || dc_rings_watcher(fd) != 0)
		return;
	if (kill((pid_t)dc_rings_run_parse(name), 0) < 0 && errno == ESRCH && !holds_evidence(fd, grace_ns))
		remove_dir(parent_fd, name);
}

void dc_run_sweep(const char *dir, int64_t grace_ns)
{
	CLEANUP(closedir) DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (dc_rings_run_parse(e->d_name))
			sweep_one(dirfd(d), e->d_name, grace_ns);
}

/* A directory of our pid's name can only be one that another process of that pid left; its evidence moves aside. */
static int make_dir(struct run *r, char why[static DC_WHY_BYTES])
{
	const char *parent = r->config->watcher.dir;
	CLEANUP(close_fd) int fd = -1;
	int e = dc_rings_open(parent, true, &fd, why);

	if (e < 0)
		return e;
	dc_run_sweep(parent, r->config->watcher.grace_ns);
	if (snprintf(r->dir, sizeof(r->dir), "%s/run.%d", parent, (int)getpid()) >= (int)sizeof(r->dir)) {
		snprintf(why, DC_WHY_BYTES, "ring directory '%.80s': its name is too long", parent);
		return -ENAMETOOLONG;
	}
	if (mkdir(r->dir, 0700) == 0)
		return 0;
	if (errno == EEXIST) {
		remove_dir(fd, strrchr(r->dir, '/') + 1);
		if (mkdir(r->dir, 0700) == 0)
			return 0;
	}
	e = -errno;
	snprintf(why, DC_WHY_BYTES, "ring directory '%.80s': cannot be made: %s", r->dir, strerror(-e));
	return e;
}

static void leave_dir(const struct run *r, unsigned unsaved)
{
	CLEANUP(close_fd) int parent = open(r->config->watcher.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(close_fd) int fd = open(r->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char line[DC_RINGS_PATH_BYTES + 128];

	if (holds_evidence(fd, unsaved ? -1 : 0)) { /* what was only sampled has no ring to recover */
		snprintf(line, sizeof(line), "rings stay in '%s': %s", r->dir,
			 unsaved ? "not all of the past could be saved, see 'dashcam recover'"
				 : "processes that the command left behind still record");
		say(r, line);
		return;
	}
	remove_dir(parent, strrchr(r->dir, '/') + 1);
}

/* --- the command --- */

static void set_environment(const struct run *r)
{
	setenv("DASHCAM_DIR", r->dir, 1);
	if (r->config->window)
		setenv("DASHCAM_WINDOW", r->config->window, 1);
	if (r->config->memory)
		setenv("DASHCAM_MEMORY", r->config->memory, 1);
}

/* After fork in a process with threads: only calls that signal handlers may make. */
__attribute__((noreturn)) static void become_command(const struct run *r, int report_fd, const int gate[2])
{
	char ignored;
	int error;

	close(gate[1]); /* or it would keep its own gate shut */
	while (read(gate[0], &ignored, 1) < 0 && errno == EINTR)
		continue;

	setrlimit(RLIMIT_NOFILE, &r->files_before);
	pthread_sigmask(SIG_SETMASK, &r->mask_before, NULL);
	execvp(r->config->argv[0], r->config->argv);
	error = errno;
	if (write(report_fd, &error, sizeof(error)) != sizeof(error))
		_exit(DC_RUN_NOT_STARTED);
	_exit(error == ENOENT ? DC_RUN_NOT_FOUND : DC_RUN_NOT_STARTED);
}

static int open_pipes(int report[2], int gate[2])
{
	int error;

	if (pipe2(report, O_CLOEXEC) < 0)
		return -1;
	if (pipe2(gate, O_CLOEXEC) == 0)
		return 0;
	error = errno;
	close(report[0]);
	close(report[1]);
	errno = error;
	return -1;
}

/*
 * The command begins when the gate opens: it is sampled by then, and nothing of it is missing.
 * The pipe closes by itself at a successful exec, and carries its errno after a failed one. Return: 0; 1: it cannot be
 * run, which has been said, and its status is known; -errno.
 */
static int start(struct run *r)
{
	char line[DC_WHY_BYTES];
	int report[2], gate[2], error = 0;
	ssize_t n;

	if (open_pipes(report, gate) < 0)
		return -errno;
	r->child = fork();
	if (r->child == 0)
		become_command(r, report[1], gate);
	if (r->child < 0)
		error = -errno;
	else
		dc_watcher_sample_early(r->watcher, (uint32_t)r->child);
	close(gate[0]);
	close(gate[1]);
	close(report[1]);
	do
		n = error ? 0 : read(report[0], &error, sizeof(error));
	while (n < 0 && errno == EINTR);
	close(report[0]);
	if (error <= 0)
		return error;
	waitpid(r->child, &r->status, 0);
	snprintf(line, sizeof(line), "cannot run '%.100s': %s", r->config->argv[0], strerror(error));
	say(r, line);
	return 1;
}

static void reap(struct run *r)
{
	int status;

	if (r->ended || waitpid(r->child, &status, WNOHANG) != r->child || WIFSTOPPED(status))
		return; /* stopped: by another thread of ours, that copies stacks */
	r->ended = true;
	r->status = status;
	dc_watcher_exited(r->watcher, (uint32_t)r->child, status);
	dc_watcher_stop(r->watcher);
}

/* A terminal's Ctrl-C goes to the whole group, so the command has it already; what was sent to us alone it has not. */
static bool on_signal(void *arg, const struct signalfd_siginfo *info)
{
	struct run *r = arg;

	if (info->ssi_signo == SIGCHLD) {
		reap(r);
		return true;
	}
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++) {
		if ((int)info->ssi_signo != forwarded[i])
			continue;
		if (info->ssi_code != SI_KERNEL && r->child > 0 && !r->ended)
			kill(r->child, forwarded[i]);
		return true;
	}
	return false;
}

static void on_found(void *arg, const struct dc_ring *ring)
{
	struct run *r = arg;

	r->found++;
	if (r->config->watcher.on_found)
		r->config->watcher.on_found(r->config->watcher.on_arg, ring);
}

static void on_saved(void *arg, const char *path)
{
	struct run *r = arg;

	if (r->config->watcher.on_saved)
		r->config->watcher.on_saved(r->config->watcher.on_arg, path);
}

static int open_watcher(struct run *r, char why[static DC_WHY_BYTES])
{
	struct dc_watcher_config c = r->config->watcher;

	sigemptyset(&r->signals);
	sigaddset(&r->signals, SIGCHLD);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(&r->signals, forwarded[i]);
	pthread_sigmask(SIG_SETMASK, NULL, &r->mask_before);
	getrlimit(RLIMIT_NOFILE, &r->files_before);
	c.dir = r->dir;
	c.sample_bare = true;
	c.sweep = false; /* the directory goes as a whole */
	c.signals = &r->signals;
	c.on_signal = on_signal;
	c.on_signal_arg = r;
	c.on_found = on_found;
	c.on_saved = on_saved;
	c.on_arg = r;
	return dc_watcher_open(&c, &r->watcher, why);
}

static void save_exit(struct run *r)
{
	char text[160];

	if (!r->config->on_exit || !WIFEXITED(r->status))
		return;
	snprintf(text, sizeof(text), "%.100s exited with status %d", r->config->argv[0],
		 WEXITSTATUS(r->status));
	dc_watcher_save_all(r->watcher, DC_REASON_EXIT, text, false);
}

static void say_how_to_save(struct run *r)
{
	char line[128];

	snprintf(line, sizeof(line), "to save the past now: dashcam trigger --pid %d (or kill -USR1 %d)",
		 (int)r->child, (int)getpid());
	say(r, line);
}

/* Whether the recorder is inside cannot be seen from here. Return: what keeps any program from recording; NULL: nothing does. */
static const char *what_prevents_rings(const struct run *r, char text[static 160])
{
	const char *off = getenv("DASHCAM");
	struct rlimit files;
	struct statfs fs;

	if (off && strcmp(off, "0") == 0)
		return "DASHCAM=0";
	if (getrlimit(RLIMIT_FSIZE, &files) == 0 && files.rlim_cur < DC_RING_BYTES_MIN)
		return "RLIMIT_FSIZE is smaller than a ring, see 'dashcam doctor'";
	if (statfs(r->dir, &fs) < 0 ||
	    (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / DC_RING_FREE_PARTS >= DC_RING_BYTES_MIN)
		return NULL;
	snprintf(text, 160, "'%.80s' has no room for a ring, see 'dashcam doctor'", r->config->watcher.dir);
	return text;
}

static void say_no_ring(struct run *r)
{
	struct dc_sample_mode mode;
	char line[480], text[160];
	const char *why = what_prevents_rings(r, text);
	const int n = why ? snprintf(line, sizeof(line), "'%.100s' recorded nothing (%s)", r->config->argv[0], why)
			  : snprintf(line, sizeof(line), "'%.100s' has no recorder inside", r->config->argv[0]);
	char *rest = line + n;
	const size_t room = sizeof(line) - (size_t)n;

	dc_watcher_sampled(r->watcher, (uint32_t)r->child, &mode);
	if (mode.scope != DC_SAMPLE_SCOPE_NONE)
		snprintf(rest, room, ": it was only sampled, %u stacks a second", mode.hz);
	else if (why)
		snprintf(rest, room, ", nor was it sampled: %.160s", mode.why);
	else
		snprintf(rest, room, ", nothing was recorded: link it with -ldashcam (not sampled: %.160s)", mode.why);
	say(r, line);
}

static int watch(struct run *r)
{
	int e;

	set_environment(r);
	e = start(r);
	if (e != 0)
		return e < 0 ? e : 0;
	dc_watcher_sample(r->watcher, (uint32_t)r->child);
	say_how_to_save(r);
	reap(r); /* it may have ended before anybody looked */
	e = dc_watcher_loop(r->watcher);
	if (e < 0) /* the command goes on without us watching; its status is still owed */
		while (waitpid(r->child, &r->status, 0) == r->child && WIFSTOPPED(r->status))
			continue;
	save_exit(r);
	if (!r->found)
		say_no_ring(r);
	return 0;
}

int dc_run(const struct dc_run_config *config, int *ret_status, char ret_why[static DC_WHY_BYTES])
{
	struct run r = {.config = config};
	unsigned unsaved = 0;
	int e = make_dir(&r, ret_why);

	if (e < 0)
		return e;
	e = open_watcher(&r, ret_why);
	if (e == 0)
		e = watch(&r);
	if (r.watcher)
		unsaved = dc_watcher_close(r.watcher, true);
	leave_dir(&r, unsaved);
	pthread_sigmask(SIG_SETMASK, &r.mask_before, NULL);
	if (e == 0)
		*ret_status = r.status;
	return e;
}

/* --- processes that run already --- */

static int attach_one(struct run *r, uint32_t pid, char why[static DC_WHY_BYTES])
{
	struct dc_sample_mode mode;
	char line[256];
	int e = dc_watcher_sample(r->watcher, pid);

	if (e < 0) {
		snprintf(why, DC_WHY_BYTES, "cannot attach to process %u: %s", pid,
			 e == -ESRCH   ? "there is no such process"
			 : e == -EPERM ? "it is another user's"
				       : strerror(-e));
		return e;
	}
	dc_watcher_sampled(r->watcher, pid, &mode);
	if (mode.scope != DC_SAMPLE_SCOPE_NONE)
		snprintf(line, sizeof(line),
			 "process %u is sampled, %u stacks a second; to save the past: dashcam trigger --pid %u", pid, mode.hz,
			 pid);
	else
		snprintf(line, sizeof(line), "process %u is watched, but cannot be sampled: %s", pid, mode.why);
	say(r, line);
	return 0;
}

static int attach(struct run *r, const struct dc_attach_config *config, char why[static DC_WHY_BYTES])
{
	int e = 0;

	for (uint32_t i = 0; e == 0 && i < config->count; i++)
		e = attach_one(r, config->pids[i], why);
	if (e == 0)
		e = dc_watcher_loop(r->watcher);
	if (e == 0 && config->on_exit)
		dc_watcher_save_all(r->watcher, DC_REASON_EXIT, "dashcam attach ended", false);
	return e;
}

int dc_attach(const struct dc_attach_config *config, char ret_why[static DC_WHY_BYTES])
{
	const struct dc_run_config around = {.watcher = config->watcher};
	struct run r = {.config = &around};
	struct dc_watcher_config c = config->watcher;
	unsigned unsaved = 0;
	int e = make_dir(&r, ret_why);

	if (e < 0)
		return e;
	pthread_sigmask(SIG_SETMASK, NULL, &r.mask_before);
	c.dir = r.dir;
	c.sweep = false;
	c.sample_bare = c.stop_alone = true;
	e = dc_watcher_open(&c, &r.watcher, ret_why);
	if (e == 0)
		e = attach(&r, config, ret_why);
	if (r.watcher)
		unsaved = dc_watcher_close(r.watcher, true);
	leave_dir(&r, unsaved);
	pthread_sigmask(SIG_SETMASK, &r.mask_before, NULL);
	return e;
}

int dc_run_end(int status)
{
	const int signal_number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	const struct rlimit no_core = {0};
	sigset_t set;

	if (!signal_number)
		return WEXITSTATUS(status);
	setrlimit(RLIMIT_CORE, &no_core); /* the command's core is the one that matters */
	signal(signal_number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, signal_number);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	raise(signal_number);
	return 128 + signal_number; /* a signal that cannot end us */
}
