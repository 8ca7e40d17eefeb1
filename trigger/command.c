/* SPDX-License-Identifier: MIT */
#include "trigger/command.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/cleanup.h"

#define FILES_MAX 4096u /* closed one by one where the kernel has no close_range() */

struct running {
	pid_t pid; /* 0: free; also its process group */
	int64_t until_ns;
	bool killed;
	char rule[64];
};

struct dc_commands {
	void (*log)(void *arg, const char *line);
	void *arg;
	struct running running[DC_COMMANDS_MAX];
};

int dc_commands_new(void (*log)(void *arg, const char *line), void *arg, struct dc_commands **ret_commands)
{
	struct dc_commands *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->log = log;
	c->arg = arg;
	*ret_commands = c;
	return 0;
}

/* A file in memory, not a pipe: somebody would have to stand by to fill that. */
static int make_input(const struct dc_command *command)
{
	CLEANUP(close_fd) int fd = memfd_create("incident", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < command->input_bytes;) {
		const ssize_t n = write(fd, command->input + at, command->input_bytes - at);

		if (n < 0)
			return -errno;
		at += (size_t)n;
	}
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : TAKE_FD(fd);
}

static int drop_privileges(const struct dc_command *command)
{
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(command->gid, command->gid, command->gid) < 0 ||
			       setresuid(command->uid, command->uid, command->uid) < 0))
		return -1;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static void close_all_above(int last)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, (unsigned)last + 1, ~0u, 0u) == 0)
		return;
#endif
	for (int fd = last + 1; fd < (int)FILES_MAX; fd++)
		close(fd);
}

/* After fork in a process with threads: only calls that signal handlers may make. */
__attribute__((noreturn)) static void become(const struct dc_command *command, int input, char *const *environment)
{
	char *const argv[] = {(char *)"sh", (char *)"-c", (char *)command->text, NULL};
	const struct rlimit files = {1024, 1024};
	const int null = open("/dev/null", O_RDWR);
	sigset_t none;

	setpgid(0, 0);
	for (int s = 1; s < 65; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(input, 0) < 0 || dup2(null, 1) < 0 || chdir("/") < 0)
		_exit(126);
	close_all_above(2);
	setrlimit(RLIMIT_NOFILE, &files);
	if (drop_privileges(command) < 0)
		_exit(126);
	execve("/bin/sh", argv, environment);
	_exit(127);
}

static struct running *free_slot(struct dc_commands *c)
{
	for (unsigned i = 0; i < DC_COMMANDS_MAX; i++)
		if (!c->running[i].pid)
			return &c->running[i];
	return NULL;
}

int dc_commands_run(struct dc_commands *c, const struct dc_command *command, int64_t now_ns)
{
	struct running *r = free_slot(c);
	char rule[96], pid[32];
	/* What is run because of a recorded process is not to be recorded itself. */
	char *const environment[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
				     (char *)"LC_ALL=C",
				     (char *)"DASHCAM=0",
				     rule,
				     pid,
				     NULL};

	if (!r)
		return -EBUSY;
	CLEANUP(close_fd) int input = make_input(command);
	if (input < 0)
		return input;
	snprintf(rule, sizeof(rule), "DASHCAM_RULE=%.63s", command->rule);
	snprintf(pid, sizeof(pid), "DASHCAM_PID=%u", command->pid);
	r->pid = fork();
	if (r->pid == 0)
		become(command, input, environment);
	if (r->pid < 0) {
		r->pid = 0;
		return -errno;
	}
	setpgid(r->pid, r->pid); /* whoever is first: it has a group of its own before anybody kills it */
	r->until_ns = now_ns + command->limit_ns;
	r->killed = false;
	snprintf(r->rule, sizeof(r->rule), "%.63s", command->rule);
	return 0;
}

static void tell(struct dc_commands *c, const struct running *r, int status)
{
	char line[160];

	if (r->killed)
		snprintf(line, sizeof(line), "rule '%s': its command did not end in time and was killed", r->rule);
	else if (WIFSIGNALED(status))
		snprintf(line, sizeof(line), "rule '%s': its command died by signal %d", r->rule, WTERMSIG(status));
	else
		snprintf(line, sizeof(line), "rule '%s': its command ended with status %d", r->rule, WEXITSTATUS(status));
	c->log(c->arg, line);
}

uint32_t dc_commands_tick(struct dc_commands *c, int64_t now_ns)
{
	uint32_t running = 0;
	int status;

	for (unsigned i = 0; i < DC_COMMANDS_MAX; i++) {
		struct running *r = &c->running[i];

		if (!r->pid)
			continue;
		if (now_ns >= r->until_ns && !r->killed) {
			r->killed = true;
			kill(-r->pid, SIGKILL);
		}
		if (waitpid(r->pid, &status, WNOHANG) == 0) {
			running++;
			continue;
		}
		kill(-r->pid, SIGKILL); /* what it left behind in its group */
		tell(c, r, status);
		*r = (struct running){0};
	}
	return running;
}

void dc_commands_free(struct dc_commands *c)
{
	for (unsigned i = 0; c && i < DC_COMMANDS_MAX; i++) {
		if (!c->running[i].pid)
			continue;
		kill(-c->running[i].pid, SIGKILL);
		waitpid(c->running[i].pid, NULL, 0);
	}
	free(c);
}
