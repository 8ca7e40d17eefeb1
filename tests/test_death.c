/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/death.h"
#include "trigger/proc.h"

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	assert_true(pid > 0);
	return pid;
}

static uint64_t start_of(pid_t pid)
{
	struct dc_proc_stat st;

	assert_int_equal(dc_proc_stat((uint32_t)pid, &st), 0);
	return st.start_time;
}

static void test_killed_before_and_after_the_reap(void **state)
{
	/* The signal is known of a zombie, and where the kernel tells, also after its parent has reaped it. */
	CLEANUP(close_fd) int fd = -1;
	pid_t pid = sleeper();
	uint64_t start = start_of(pid);
	struct pollfd p = {.events = POLLIN};
	int status = 0;

	(void)state;
	assert_int_equal(dc_death_watch((uint32_t)pid, start, &fd), 0);
	p.fd = fd;
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(dc_death_ask(fd, (uint32_t)pid, start, &status), -EAGAIN); /* alive */
	kill(pid, SIGKILL);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(dc_death_ask(fd, (uint32_t)pid, start, &status), 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	status = 0;
	if (!dc_death_supported())
		assert_int_equal(dc_death_ask(fd, (uint32_t)pid, start, &status), -ENODATA);
	else
		assert_int_equal(dc_death_ask(fd, (uint32_t)pid, start, &status), 0);
	assert_true(status == 0 || WTERMSIG(status) == SIGKILL);
}

static void test_reused_pid_is_not_watched(void **state)
{
	/* A pid whose process started at another time is somebody else. */
	pid_t pid = sleeper();
	int fd = -1;

	(void)state;
	assert_int_equal(dc_death_watch((uint32_t)pid, start_of(pid) + 1, &fd), -ESRCH);
	assert_int_equal(dc_death_watch(0, 1, &fd), -ESRCH);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(fd, -1);
}

static pid_t wanted_pid;
static int wanted_status;

static void saw(void *arg, uint32_t pid, int status)
{
	if (pid == (uint32_t)wanted_pid) {
		wanted_status = status;
		*(int *)arg = 1;
	}
}

static void test_connector_tells_exits(void **state)
{
	/* Where the proc connector is allowed it reports how a process died, with its wait status. */
	CLEANUP(close_fd) int fd = -1;
	struct pollfd p = {.events = POLLIN};
	int seen = 0;

	(void)state;
	if (dc_death_connector(&fd) < 0)
		skip();
	p.fd = fd;
	wanted_pid = sleeper();
	kill(wanted_pid, SIGTERM);
	waitpid(wanted_pid, NULL, 0);
	for (int i = 0; i < 200 && !seen && poll(&p, 1, 50) >= 0; i++)
		dc_death_connector_read(fd, saw, &seen);
	if (!seen)
		skip(); /* a pid namespace of its own: the kernel speaks to the first one only */
	assert_int_equal(WTERMSIG(wanted_status), SIGTERM);
}

static void test_proc_facts(void **state)
{
	/* Start time, uids and namespace of ourselves are what the kernel says elsewhere, odd names notwithstanding. */
	struct dc_proc_stat st;
	uint32_t uids[4];
	char text[64];

	(void)state;
	assert_int_equal(dc_proc_stat((uint32_t)getpid(), &st), 0);
	assert_true(st.start_time > 0 && st.state == 'R');
	assert_int_equal(dc_proc_uids((uint32_t)getpid(), uids), 0);
	assert_int_equal(uids[1], geteuid());
	assert_int_equal(dc_proc_find((uint32_t)getpid(), st.start_time, dc_proc_pid_namespace()), getpid());
	assert_int_equal(dc_proc_read((uint32_t)getpid(), "comm", text, 4), 3);
	assert_int_equal(dc_proc_stat(0x7fffffff, &st), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_before_and_after_the_reap),
		cmocka_unit_test(test_reused_pid_is_not_watched),
		cmocka_unit_test(test_connector_tells_exits),
		cmocka_unit_test(test_proc_facts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
