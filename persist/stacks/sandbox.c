/* SPDX-License-Identifier: MIT */
#include "persist/stacks/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/stacks/filter.h"

#define SECOND_NS INT64_C(1000000000)
#define NEW_FILES_MAX 256 /* open at a time */
#define READ_BYTES (256u << 10)
#define ZERO_PAGES_MAX 16384u /* in place of what is missing of files; a process has 65,530 mappings */

static void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

/* --- the child --- */

struct child {
	const struct dc_sandbox *limits;
	pid_t parent;
	int out_fd;
};

/* Handlers of the caller mean nothing here, and a sanitizer's would only get in the way of dying. */
static void drop_handlers(void)
{
	const struct sigaction by_default = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		sigaction(i, &by_default, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * A mapped file that somebody cuts is not there any more where it was: it reads as zeros, which whoever checks what it reads
 * takes for a damaged file; better than an end that costs all that came from other files.
 */
static void read_as_zeros(int signal, siginfo_t *info, void *context)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	void *at = (void *)((uintptr_t)info->si_addr & ~(page - 1));
	static unsigned pages;

	(void)context;
	if (info->si_code != BUS_ADRERR || pages++ >= ZERO_PAGES_MAX ||
	    mmap(at, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
}

static void bear_cut_files(void)
{
	const struct sigaction action = {.sa_sigaction = read_as_zeros, .sa_flags = SA_SIGINFO};

	sigaction(SIGBUS, &action, NULL);
}

/* Plain files and directories opened for reading: what the work may need of the caller's. */
static bool harmless(int fd)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	return fstat(fd, &st) == 0 && flags >= 0 && (flags & O_ACCMODE) == O_RDONLY &&
	       (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

/* Return: the highest descriptor; -errno. */
static int drop_descriptors(const struct child *c)
{
	CLEANUP(closedir) DIR *d = opendir("/proc/self/fd");
	int highest = c->out_fd;
	struct dirent *e;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		const int fd = e->d_name[0] == '.' ? -1 : atoi(e->d_name);

#ifdef DC_FILTER_SANITIZED
		if (fd == STDERR_FILENO)
			continue;
#endif
		if (fd >= 0 && fd != c->out_fd && fd != dirfd(d) && !harmless(fd))
			close(fd);
		else if (fd > highest)
			highest = fd;
	}
	return highest;
}

/* Shared memory that can be written is somebody else's, too: rings, control pages. */
static int drop_shared_memory(void)
{
	CLEANUP(fclose) FILE *f = fopen("/proc/self/maps", "re");
	uint64_t start, end;
	char line[512], rights[8];

	if (!f)
		return -errno;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &start, &end, rights) == 3 && rights[1] == 'w' &&
		    rights[3] == 's')
			munmap((void *)(uintptr_t)start, end - start);
	return 0;
}

static int limit(int what, uint64_t value)
{
	struct rlimit l;

	if (getrlimit(what, &l) < 0)
		return -errno;
	l.rlim_max = value < l.rlim_max ? value : l.rlim_max;
	l.rlim_cur = l.rlim_max;
	return setrlimit(what, &l) < 0 ? -errno : 0;
}

#ifndef DC_FILTER_SANITIZED
/* Private memory that could be written, as RLIMIT_DATA counts it. */
static int data_bytes(uint64_t *ret_bytes)
{
	CLEANUP(fclose) FILE *f = fopen("/proc/self/statm", "re");
	uint64_t pages;

	if (!f || fscanf(f, "%*s %*s %*s %*s %*s %" SCNu64, &pages) != 1)
		return -EIO;
	*ret_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

static int limit_memory(uint64_t more)
{
	uint64_t have;
	int r = more ? data_bytes(&have) : 0;

	return r < 0 || !more ? r : limit(RLIMIT_DATA, have + more);
}
#else
static int limit_memory(uint64_t more)
{
	(void)more;
	return 0;
}
#endif

/* When memory is short it is we who go. A hint. */
static void volunteer(void)
{
	CLEANUP(close_fd) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, "1000", 4) < 0)
		return;
}

static int set_limits(const struct child *c, int highest)
{
	/* A second more than the wall clock's, for rounding: a backstop should the parent not come to kill us. */
	const uint64_t seconds = (uint64_t)(c->limits->time_ns / SECOND_NS) + 2;
	int r = limit(RLIMIT_CPU, seconds);

	if (r == 0)
		r = limit(RLIMIT_CORE, 0);
	if (r == 0)
		r = limit(RLIMIT_NOFILE, (uint64_t)highest + NEW_FILES_MAX);
	if (r == 0)
		r = limit_memory(c->limits->memory_bytes);
	if (c->limits->nice)
		setpriority(PRIO_PROCESS, 0, c->limits->nice);
	return r;
}

static int lock_down(const struct child *c)
{
	int highest, r;

	/* Of the thread that forked; it waits for us, so its end is that of the process. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	if (getppid() != c->parent)
		return -ESRCH;
	drop_handlers();
	bear_cut_files();
	volunteer();
	if (prctl(PR_SET_DUMPABLE, 0) < 0) /* now that nothing of ours in /proc is to be written any more */
		return -errno;
	highest = drop_descriptors(c);
	r = highest < 0 ? highest : drop_shared_memory();
	if (r == 0)
		r = set_limits(c, highest);
	return r < 0 ? r : dc_filter_enter(c->out_fd) < 0 ? -EPERM : 0;
}

/* --- the parent --- */

struct run {
	pid_t pid;
	int pid_fd;
	int in_fd; /* read end */
	int64_t deadline_ns;
	size_t max_bytes;
	uint8_t *bytes;
	size_t size;
	size_t room;
	int error; /* why we killed it */
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static int make_room(struct run *run)
{
	size_t room = run->room ? 2 * run->room : READ_BYTES;
	uint8_t *bytes;

	if (run->room - run->size >= READ_BYTES)
		return 0;
	bytes = realloc(run->bytes, room);
	if (!bytes)
		return -ENOMEM;
	run->bytes = bytes;
	run->room = room;
	return 0;
}

/* All that is in the pipe by now. Return: 1 when no more will come, 0, -E2BIG, -ENOMEM, -errno. */
static int drain(struct run *run)
{
	for (;;) {
		int r = make_room(run);
		ssize_t n = r < 0 ? r : read(run->in_fd, run->bytes + run->size, READ_BYTES);

		if (r < 0)
			return r;
		if (n == 0)
			return 1;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		run->size += (size_t)n;
		if (run->size > run->max_bytes) {
			run->size = run->max_bytes;
			return -E2BIG;
		}
	}
}

static int wait_for_either(struct run *run, bool open, bool *ret_ended)
{
	struct pollfd fds[2] = {{.fd = run->pid_fd, .events = POLLIN}, {.fd = open ? run->in_fd : -1, .events = POLLIN}};
	int64_t left = run->deadline_ns - now_ns();
	struct timespec ts = {left / SECOND_NS, left % SECOND_NS};

	if (left <= 0)
		return -ETIMEDOUT;
	if (ppoll(fds, 2, &ts, NULL) < 0 && errno != EINTR)
		return -errno;
	*ret_ended = fds[0].revents != 0;
	return 0;
}

/*
 * Until the child has ended, and what it wrote is here. The end of the pipe tells nothing: another thread's child may
 * hold the write end, too, for as long as it lives.
 */
static int collect(struct run *run)
{
	bool ended = false, open = true;
	int r = 0;

	while (r == 0 && !ended) {
		r = wait_for_either(run, open, &ended);
		if (r == 0 && open) {
			r = drain(run);
			open = r != 1;
			r = r == 1 ? 0 : r;
		}
	}
	return r;
}

static int outcome(const struct run *run, int *ret_signal)
{
	int status;

	while (waitpid(run->pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (run->error)
		return run->error;
	if (WIFEXITED(status))
		return -WEXITSTATUS(status);
	if (ret_signal)
		*ret_signal = WTERMSIG(status);
	return WTERMSIG(status) == SIGXCPU ? -ETIMEDOUT : -EFAULT;
}

static int attend(struct run *run, int *ret_signal)
{
	run->pid_fd = (int)syscall(SYS_pidfd_open, run->pid, 0);
	run->error = run->pid_fd < 0 ? -errno : fcntl(run->in_fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
	if (!run->error)
		run->error = collect(run);
	if (run->error)
		kill(run->pid, SIGKILL);
	if (run->pid_fd >= 0)
		close(run->pid_fd);
	return outcome(run, ret_signal);
}

__attribute__((noreturn)) static void be_child(const struct child *c, int (*work)(void *arg, int out_fd), void *arg)
{
	int r = lock_down(c);

	if (r == 0)
		r = work(arg, c->out_fd);
	_exit(r < 0 && r >= -255 ? -r : r == 0 ? 0 : EIO);
}

int dc_sandbox_run(const struct dc_sandbox *limits, int (*work)(void *arg, int out_fd), void *arg, size_t max_bytes,
		   uint8_t **ret_bytes, size_t *ret_size, int *ret_signal)
{
	struct run run = {.deadline_ns = now_ns() + limits->time_ns, .max_bytes = max_bytes};
	struct child child = {.limits = limits, .parent = getpid()};
	int pipe_fds[2], r;

	*ret_bytes = NULL;
	*ret_size = 0;
	if (ret_signal)
		*ret_signal = 0;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	run.in_fd = pipe_fds[0];
	child.out_fd = pipe_fds[1];
	run.pid = fork();
	if (run.pid == 0)
		be_child(&child, work, arg);
	r = run.pid < 0 ? -errno : 0;
	close(pipe_fds[1]);
	if (r == 0)
		r = attend(&run, ret_signal);
	close(run.in_fd);
	*ret_bytes = run.bytes;
	*ret_size = run.size;
	return r;
}
