/* SPDX-License-Identifier: MIT */
/* What /proc says of a process outlives it: executable, command line without its secrets, names of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "trigger/known.h"
#include "trigger/proc.h"

static void *named(void *arg)
{
	prctl(PR_SET_NAME, "worker-seven");
	if (write(*(int *)arg, "x", 1) != 1)
		_exit(3);
	pause();
	return NULL;
}

/* A child with one thread that has a name; says so through the pipe, then waits for its death. */
static pid_t child_start(void)
{
	int ready[2];
	char byte;
	pthread_t thread;

	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (pid == 0) {
		pthread_create(&thread, NULL, named, &ready[1]);
		pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static uint64_t start_time_of(pid_t pid)
{
	struct dc_proc_stat st;

	assert_int_equal(dc_proc_stat((uint32_t)pid, &st), 0);
	return st.start_time;
}

static void child_end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* The tid of the thread that took a name; sanitizers have threads of their own. */
static uint32_t thread_of(pid_t pid)
{
	char comm[32], file[64];

	for (uint32_t tid = (uint32_t)pid + 1; tid < (uint32_t)pid + 1000; tid++) {
		snprintf(file, sizeof(file), "task/%u/comm", tid);
		if (dc_proc_read((uint32_t)pid, file, comm, sizeof(comm)) > 0 && strcmp(comm, "worker-seven\n") == 0)
			return tid;
	}
	return 0;
}

/* Names and facts are there after the process is gone; a lane that has a name of its own keeps it. */
static void test_outlives_the_process(void **state)
{
	(void)state;
	struct dc_known *k = dc_known_new();
	char exe[256], cmdline[512];
	pid_t pid = child_start();
	uint32_t id = (uint32_t)pid;

	uint32_t tid = thread_of(pid);
	assert_int_not_equal(tid, 0);
	dc_known_look(k, id, id, start_time_of(pid));
	child_end(pid);

	struct dc_ring_lane lanes[4] = {{.tid = tid}, {.tid = tid, .comm = "own"}, {.tid = 1}, {.tid = 0}};
	dc_known_name_lanes(k, lanes, 4);
	assert_string_equal(lanes[0].comm, "worker-seven");
	assert_string_equal(lanes[1].comm, "own");
	assert_string_equal(lanes[2].comm, "");
	assert_string_equal(lanes[3].comm, "");
	dc_known_facts(k, exe, sizeof(exe), cmdline, sizeof(cmdline));
	assert_non_null(strstr(exe, "test_known"));
	assert_non_null(strstr(cmdline, "test_known"));
	dc_known_free(k);
}

/* A pid that began at another time is somebody else, of whom nothing is taken. */
static void test_another_process_is_not_asked(void **state)
{
	(void)state;
	struct dc_known *k = dc_known_new();
	char exe[256], cmdline[512];
	pid_t pid = child_start();
	uint32_t id = (uint32_t)pid;

	dc_known_look(k, id, id, start_time_of(pid) + 1);
	dc_known_facts(k, exe, sizeof(exe), cmdline, sizeof(cmdline));
	assert_string_equal(exe, "");
	assert_string_equal(cmdline, "");
	child_end(pid);
	dc_known_free(k);
}

/* In another pid namespace the same number is another thread: no names are taken. */
static void test_other_namespace_gives_no_names(void **state)
{
	(void)state;
	struct dc_known *k = dc_known_new();
	pid_t pid = child_start();
	uint32_t id = (uint32_t)pid;
	struct dc_ring_lane lane = {.tid = thread_of(pid)};

	dc_known_look(k, id, id + 1, start_time_of(pid));
	dc_known_name_lanes(k, &lane, 1);
	assert_string_equal(lane.comm, "");
	child_end(pid);
	dc_known_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outlives_the_process),
		cmocka_unit_test(test_another_process_is_not_asked),
		cmocka_unit_test(test_other_namespace_gives_no_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
