/* SPDX-License-Identifier: MIT */
#include "tools/syscalls.h"

#include <inttypes.h>
#include <string.h>
#include <sys/syscall.h>

static const char *const names[] = {
#include "tools/syscall_names.h" /* made from <sys/syscall.h> of the machine we are built for */
};

/* How many arguments say what it waits for; others: none. */
static const struct {
	const char *name;
	unsigned count;
} known[] = {
	{"accept", 1}, {"accept4", 1}, {"clock_nanosleep", 1}, {"connect", 1}, {"epoll_pwait", 4}, {"epoll_wait", 4},
	{"fdatasync", 1}, {"flock", 2}, {"fsync", 1}, {"futex", 3}, {"io_uring_enter", 3}, {"poll", 3}, {"ppoll", 2},
	{"pread64", 4}, {"pselect6", 1}, {"pwrite64", 4}, {"read", 3}, {"readv", 3}, {"recvfrom", 3}, {"recvmsg", 1},
	{"select", 1}, {"sendmsg", 1}, {"sendto", 3}, {"wait4", 1}, {"waitid", 2}, {"write", 3}, {"writev", 3},
};

struct text syscall_name(int32_t number)
{
	if (number >= 0 && (size_t)number < sizeof(names) / sizeof(*names) && names[number])
		return text_format("%s", names[number]);
	return text_format("system call %" PRId32, number);
}

struct text syscall_text(const struct dc_thread_state *s)
{
	struct text t = syscall_name(s->syscall);
	unsigned count = 0;
	size_t at;

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strcmp(known[i].name, t.s) == 0)
			count = known[i].count;
	for (unsigned i = 0; i < count; i++) {
		at = strlen(t.s);
		snprintf(t.s + at, sizeof(t.s) - at, s->args[i] < 65536 ? "%s%" PRIu64 : "%s0x%" PRIx64, i ? ", " : "(", s->args[i]);
	}
	at = strlen(t.s);
	if (count)
		snprintf(t.s + at, sizeof(t.s) - at, ")");
	return t;
}
