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
#include "ipc/now.h"
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

/* --- before its end --- */

static void (*tell_end)(void); /* NULL: nobody wants to know */

/* Whatever is wrong with our memory, this much can be said. Then the signal does what it would have done. */
static void on_end(int signal)
{
	void (*tell)(void) = TAKE(tell_end);

	sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	if (tell)
		tell();
	raise(signal); /* when we return */
}

void dc_sandbox_before_end(void (*tell)(void))
{
	static const int ends[] = {SIGSEGV, SIGFPE, SIGILL, SIGABRT};
	static uint8_t stack[64 << 10]; /* ours may be what is used up */
	const stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
	const struct sigaction action = {.sa_handler = on_end, .sa_flags = SA_ONSTACK};

	tell_end = tell;
	sigaltstack(&other, NULL);
	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
		sigaction(ends[i], &action, NULL);
}

/*
 * A mapped file that somebody cuts is not there any more where it was: it reads as zeros, which whoever checks what it reads
 * takes for a damaged file; better than an end that costs all that came from other files.
 */
static volatile unsigned zero_pages;

bool dc_sandbox_saw_cut(void)
{
	return zero_pages > 0;
}

static void read_as_zeros(int signal, siginfo_t *info, void *context)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	void *at = (void *)((uintptr_t)info->si_addr & ~(page - 1));

	(void)context;
	if (info->si_code != BUS_ADRERR || zero_pages++ >= ZERO_PAGES_MAX ||
	    mmap(at, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		on_end(signal);
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

static bool kept(const struct child *c, int fd)
{
	return fd == c->out_fd || (c->limits->in_fd > 0 && fd == c->limits->in_fd) || harmless(fd);
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
		if (fd >= 0 && fd != dirfd(d) && !kept(c, fd))
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

struct dc_sandboxed {
	pid_t pid;
	int pid_fd;
	int from_fd; /* read end */
	int64_t deadline_ns;
	size_t max_bytes;
	uint8_t *bytes;
	size_t size;
	size_t room;
	int64_t cpu_ns; /* that it took, once it was waited for */
	bool ended;
	bool open; /* there may be more to read */
	int error; /* why we kill it */
};

static int make_room(struct dc_sandboxed *s)
{
	size_t room = s->room ? 2 * s->room : READ_BYTES;
	uint8_t *bytes;

	if (s->room - s->size >= READ_BYTES)
		return 0;
	bytes = realloc(s->bytes, room);
	if (!bytes)
		return -ENOMEM;
	s->bytes = bytes;
	s->room = room;
	return 0;
}

/* All that is in the pipe by now. Return: 1 when no more will come, 0, -E2BIG, -ENOMEM, -errno. */
static int drain(struct dc_sandboxed *s)
{
	for (;;) {
		int r = make_room(s);
		ssize_t n = r < 0 ? r : read(s->from_fd, s->bytes + s->size, READ_BYTES);

		if (r < 0)
			return r;
		if (n == 0)
			return 1;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		s->size += (size_t)n;
		if (s->size > s->max_bytes) {
			s->size = s->max_bytes;
			return -E2BIG;
		}
	}
}

/* Until the child has ended or written something, or @to_fd (-1: none) takes something. */
static int wait_for_any(struct dc_sandboxed *s, int to_fd, bool *ret_takes)
{
	struct pollfd fds[3] = {{.fd = s->pid_fd, .events = POLLIN},
				{.fd = s->open ? s->from_fd : -1, .events = POLLIN},
				{.fd = to_fd, .events = POLLOUT}};
	int64_t left = s->deadline_ns - dc_now_ns();
	struct timespec ts = {left / SECOND_NS, left % SECOND_NS};

	if (left <= 0)
		return -ETIMEDOUT;
	if (ppoll(fds, 3, &ts, NULL) < 0)
		return errno == EINTR ? 0 : -errno;
	s->ended = fds[0].revents != 0;
	*ret_takes = fds[2].revents != 0;
	return 0;
}

/* Once around. What the child wrote before its end is there when it has ended. */
static void attend(struct dc_sandboxed *s, int to_fd, bool *ret_takes)
{
	int r = wait_for_any(s, to_fd, ret_takes);

	if (r == 0 && s->open) {
		r = drain(s);
		s->open = r == 0;
		r = r == 1 ? 0 : r;
	}
	s->error = r;
}

static int64_t time_of(struct timeval t)
{
	return t.tv_sec * SECOND_NS + t.tv_usec * INT64_C(1000);
}

static int outcome(struct dc_sandboxed *s, int *ret_signal)
{
	struct rusage used;
	int status;

	while (wait4(s->pid, &status, 0, &used) < 0)
		if (errno != EINTR)
			return -errno;
	s->cpu_ns = time_of(used.ru_utime) + time_of(used.ru_stime);
	if (s->error)
		return s->error;
	if (WIFEXITED(status))
		return -WEXITSTATUS(status);
	if (ret_signal)
		*ret_signal = WTERMSIG(status);
	return WTERMSIG(status) == SIGXCPU ? -ETIMEDOUT : -EFAULT;
}

__attribute__((noreturn)) static void be_child(const struct child *c, int (*work)(void *arg, int out_fd), void *arg)
{
	int r = lock_down(c);

	if (r == 0)
		r = work(arg, c->out_fd);
	_exit(r < 0 && r >= -255 ? -r : r == 0 ? 0 : EIO);
}

int dc_sandbox_start(const struct dc_sandbox *limits, int (*work)(void *arg, int out_fd), void *arg, size_t max_bytes,
		     struct dc_sandboxed **ret_sandboxed)
{
	CLEANUP(free) struct dc_sandboxed *s = calloc(1, sizeof *s);
	struct child child = {.limits = limits, .parent = getpid()};
	int pipe_fds[2], r;

	if (!s)
		return -ENOMEM;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	*s = (struct dc_sandboxed){
		.from_fd = pipe_fds[0], .deadline_ns = dc_now_ns() + limits->time_ns, .max_bytes = max_bytes, .open = true};
	child.out_fd = pipe_fds[1];
	s->pid = fork();
	if (s->pid == 0)
		be_child(&child, work, arg);
	r = s->pid < 0 ? -errno : 0;
	close(pipe_fds[1]);
	if (r < 0) {
		close(s->from_fd);
		return r;
	}
	s->pid_fd = (int)syscall(SYS_pidfd_open, s->pid, 0);
	if (s->pid_fd < 0 || fcntl(s->from_fd, F_SETFL, O_NONBLOCK) < 0)
		s->error = -errno;
	*ret_sandboxed = TAKE(s);
	return 0;
}

int dc_sandbox_give(struct dc_sandboxed *s, int to_fd, const void *bytes, size_t size)
{
	bool takes = false;

	while (!s->error && !s->ended && !takes)
		attend(s, to_fd, &takes);
	if (s->error || s->ended)
		return -EPIPE;
	if (write(to_fd, bytes, size) != (ssize_t)size)
		s->error = errno ? -errno : -EIO;
	return s->error;
}

void dc_sandbox_cancel(struct dc_sandboxed *s)
{
	s->error = s->error ? s->error : -ECANCELED;
}

/* The end of the pipe tells nothing: another thread's child may hold the write end, too, for as long as it lives. */
int dc_sandbox_end(struct dc_sandboxed *s, uint8_t **ret_bytes, size_t *ret_size, int *ret_signal, int64_t *ret_cpu_ns)
{
	bool takes;
	int r;

	while (!s->error && !s->ended)
		attend(s, -1, &takes);
	if (s->error)
		kill(s->pid, SIGKILL);
	if (s->pid_fd >= 0)
		close(s->pid_fd);
	if (ret_signal)
		*ret_signal = 0;
	r = outcome(s, ret_signal);
	close(s->from_fd);
	*ret_bytes = s->bytes;
	*ret_size = s->size;
	*ret_cpu_ns = s->cpu_ns;
	free(s);
	return r;
}

int dc_sandbox_run(const struct dc_sandbox *limits, int (*work)(void *arg, int out_fd), void *arg, size_t max_bytes,
		   uint8_t **ret_bytes, size_t *ret_size, int *ret_signal)
{
	struct dc_sandboxed *s;
	int64_t cpu_ns;
	int r = dc_sandbox_start(limits, work, arg, max_bytes, &s);

	if (r == 0)
		return dc_sandbox_end(s, ret_bytes, ret_size, ret_signal, &cpu_ns);
	*ret_bytes = NULL;
	*ret_size = 0;
	if (ret_signal)
		*ret_signal = 0;
	return r;
}
