/* SPDX-License-Identifier: MIT */
#include "trigger/threads_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/cleanup.h"

static ssize_t read_file(const struct taking *t, uint32_t tid, const char *file, char *text, size_t size)
{
	CLEANUP(close_fd) int fd = -1;
	char path[40];
	ssize_t n;

	snprintf(path, sizeof(path), "%u/%s", tid, file);
	fd = openat(t->task_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	return n;
}

/* "12 (a name) S ...": the name may hold anything, what follows the last parenthesis is plain. */
int dc_thread_stat(const struct taking *t, struct thread *th)
{
	char text[1024], *name, *end;
	ssize_t n = read_file(t, th->tid, "stat", text, sizeof(text));

	if (n < 0)
		return (int)n;
	name = strchr(text, '(');
	end = strrchr(text, ')');
	if (!name || !end || end < name || end[1] == '\0')
		return -EBADMSG;
	*end = '\0';
	snprintf(th->state.comm, sizeof(th->state.comm), "%s", name + 1);
	th->state.state = (uint8_t)end[2];
	th->cpu = UINT32_MAX;
	end += 2;
	for (unsigned field = 3; end && field < 39; field++)
		end = strchr(end + 1, ' ');
	if (end)
		th->cpu = (uint32_t)strtoul(end + 1, NULL, 10);
	return 0;
}

/* "running", "-1 SP PC" (waits, but not in a system call), or the number and six arguments. */
static void read_syscall(const struct taking *t, struct dc_thread_state *s, uint32_t tid)
{
	char text[256];
	int number;

	s->syscall = DC_SYSCALL_UNKNOWN;
	if (read_file(t, tid, "syscall", text, sizeof(text)) <= 0)
		return;
	if (strncmp(text, "running", 7) == 0)
		s->syscall = DC_SYSCALL_NONE;
	else if (sscanf(text, "%d 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64 " 0x%" SCNx64, &number,
			&s->args[0], &s->args[1], &s->args[2], &s->args[3], &s->args[4], &s->args[5]) == 7)
		s->syscall = number;
	else if (strncmp(text, "-1 ", 3) == 0)
		s->syscall = DC_SYSCALL_NONE;
	if (s->syscall < 0)
		memset(s->args, 0, sizeof(s->args));
}

uint32_t dc_thread_status(const struct taking *t, uint32_t tid, const char *key)
{
	char text[4096], *line, *end;

	if (read_file(t, tid, "status", text, sizeof(text)) <= 0)
		return 0;
	line = strstr(text, key);
	if (!line)
		return 0;
	line += strlen(key);
	end = strchr(line, '\n');
	if (end)
		*end = '\0';
	end = strrchr(line, '\t');
	return (uint32_t)strtoul(end ? end + 1 : line, NULL, 10);
}

bool dc_thread_can_stop(const struct thread *th)
{
	return th->state.state != 'Z' && th->state.state != 'X';
}

int dc_thread_look(const struct taking *t, struct thread *th)
{
	struct dc_thread_state *s = &th->state;
	int r = dc_thread_stat(t, th);

	if (r < 0)
		return r;
	read_syscall(t, s, th->tid);
	if (read_file(t, th->tid, "wchan", s->wchan, sizeof(s->wchan)) <= 0 || strcmp(s->wchan, "0") == 0)
		s->wchan[0] = '\0';
	th->own_tid = t->other_namespace ? dc_thread_status(t, th->tid, "\nNSpid:") : th->tid;
	return 0;
}
