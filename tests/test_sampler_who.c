/* SPDX-License-Identifier: MIT */
/* trigger/sampler*.c: who is sampled: what is started later, what dies, what is somebody else's; and what is said of it. */
#include "tests/sampling.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void *late_thread(void *arg)
{
	tell_tid(1);
	spin_ns(200 * MS);
	return arg;
}

static void makes_threads_and_children(void)
{
	pthread_t t;
	pid_t child;

	tell_tid(0);
	wait_go();
	pthread_create(&t, NULL, late_thread, NULL);
	pthread_join(t, NULL);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		tell_tid(2);
		while (shared->go < 2)
			sleep_ns(MS);
		spin_ns(200 * MS);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	atomic_store(&shared->go, 3);
	pause();
}

static uint32_t forked_pid, mapped_pid;

static void on_forked(void *arg, uint32_t parent, uint32_t pid)
{
	(void)arg;
	(void)parent;
	forked_pid = pid;
}

static void on_mapped(void *arg, uint32_t pid)
{
	(void)arg;
	mapped_pid = pid;
}

static void test_new_threads_and_children(void **state)
{
	/* Threads and processes made later are sampled, each once, without a word; the watcher is told of the process. */
	const struct dc_sampler_config config = {.hz = 499, .forked = on_forked, .mapped = on_mapped};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples own = {0}, child = {0};
	pid_t pid = sampled_start(makes_threads_and_children);
	const int64_t from = dc_now_ns();

	(void)state;
	forked_pid = 0;
	while (!shared->tids[0])
		sleep_ns(MS);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	atomic_store(&shared->go, 1);
	for (int i = 0; i < 200 && !(forked_pid && shared->tids[2]); i++) /* we may hear of it before it says who it is */
		run_for(s, 20 * MS);
	assert_int_equal(forked_pid, shared->tids[2]);
	assert_int_equal(dc_sampler_add(s, forked_pid), 0); /* is sampled already: no second set of events */
	atomic_store(&shared->go, 2);
	while (shared->go != 3)
		run_for(s, 20 * MS);
	own = write_samples(s, (uint32_t)pid, from, INT64_MAX);
	child = write_samples(s, forked_pid, from, INT64_MAX);
	samples_check(&own, from, dc_now_ns());
	samples_check(&child, from, dc_now_ns());
	assert_in_range(count_of(&own, DC_SAMPLE_CPU, (uint32_t)shared->tids[1]), 70, 115); /* 200 ms at 499 Hz */
	assert_in_range(count_of(&child, DC_SAMPLE_CPU, (uint32_t)shared->tids[2]), 70, 115);
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void maps_code(void)
{
	int fd;

	wait_go();
	fd = open("/proc/self/exe", O_RDONLY);
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		_exit(1);
	pause();
}

static void test_mappings_are_told(void **state)
{
	/* A library that is loaded is heard of at once, not at the next trigger. */
	const struct dc_sampler_config config = {.hz = 49, .mapped = on_mapped};
	struct dc_sampler *s = sampler(&config);
	struct pollfd p = {.fd = dc_sampler_fd(s), .events = POLLIN};
	pid_t pid = sampled_start(maps_code);

	(void)state;
	mapped_pid = 0;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	atomic_store(&shared->go, 1);
	for (int i = 0; i < 100 && mapped_pid == 0; i++) {
		assert_true(poll(&p, 1, 5000) == 1);
		dc_sampler_dispatch(s);
	}
	assert_int_equal(mapped_pid, pid);
	assert_int_equal(poll(&p, 1, 50), 0); /* and it is quiet again */
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void test_killed_process(void **state)
{
	/* What was sampled of a process survives SIGKILL, for as long as the watcher said. */
	struct dc_sampler *s = sampler(NULL);
	CLEANUP(samples) struct samples all = {0}, gone = {0};
	pid_t pid = sampled_start(spinner);
	struct dc_sample_mode mode;
	clockid_t used;
	int64_t died;

	(void)state;
	assert_int_equal(clock_getcpuclockid(pid, &used), 0);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	for (int i = 0; i < 500 && cpu_ns(used) < 200 * MS; i++) /* samples are of CPU time, and the host may have little */
		run_for(s, 20 * MS);
	sampled_end(pid, SIGKILL);
	died = dc_now_ns();
	dc_sampler_remove(s, (uint32_t)pid, 2000 * MS);
	run_for(s, 200 * MS);
	all = write_samples(s, (uint32_t)pid, 0, INT64_MAX);
	samples_check(&all, 0, died);
	assert_true(count_of(&all, DC_SAMPLE_CPU, (uint32_t)pid) > 30);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_true(mode.scope != 0 && mode.hz == 499);
	run_for(s, 3100 * MS);
	gone = write_samples(s, (uint32_t)pid, 0, INT64_MAX);
	assert_int_equal(gone.totals.samples, 0);
	dc_sampler_free(s);
}

/* Exit status: 0, or the line that failed. */
static int as_nobody(void)
{
	const struct dc_sampler_config config = {.hz = 499, .host = true};
	struct dc_sample_mode mode;
	struct dc_sampler *s;
	pid_t pid;

	if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
		return __LINE__;
	if (dc_sampler_new(&config, &s) < 0 || dc_sampler_fd(s) < 0)
		return __LINE__;
	if (dc_sampler_add(s, 1) != -EACCES) /* init is not ours */
		return __LINE__;
	dc_sampler_mode(s, 1, &mode);
	if (mode.scope != 0 || !mode.why[0])
		return __LINE__;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60); /* its parent may have failed before this */
		prctl(PR_SET_DUMPABLE, 1); /* changing the uid took it away */
		spinner();
	}
	sleep_ns(50 * MS);
	if (dc_sampler_add(s, (uint32_t)pid) < 0)
		return __LINE__;
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	if (mode.scope != 2 || (!mode.kernel && !mode.why[0]))
		return __LINE__;
	run_for(s, 400 * MS);
	{
		CLEANUP(samples) struct samples all = write_samples(s, (uint32_t)pid, 0, INT64_MAX);

		kill(pid, SIGKILL);
		if (count_of(&all, DC_SAMPLE_CPU, (uint32_t)pid) < 30)
			return __LINE__;
	}
	dc_sampler_free(s);
	return 0;
}

static void test_ordinary_user(void **state)
{
	/* Somebody without any privilege samples own processes (perf_event_paranoid 2); others' end in one line. */
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	dc_sampler_free(sampler(NULL));
	*shared = (struct shared){0};
	pid = fork();
	if (pid == 0)
		_exit(as_nobody() & 0xff);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_off(void **state)
{
	/* hz 0 opens nothing, refuses nothing, and says why there are no samples. */
	const struct dc_sampler_config config = {0};
	struct dc_sample_mode mode;
	struct dc_sampler *s;
	CLEANUP(samples) struct samples all = {0};

	(void)state;
	assert_int_equal(dc_sampler_new(&config, &s), 0);
	assert_int_equal(dc_sampler_fd(s), -1);
	assert_int_equal(dc_sampler_add(s, (uint32_t)getpid()), 0);
	dc_sampler_dispatch(s);
	dc_sampler_tick(s);
	dc_sampler_mode(s, (uint32_t)getpid(), &mode);
	assert_int_equal(mode.scope, 0);
	assert_string_equal(mode.why, "switched off");
	all = write_samples(s, (uint32_t)getpid(), 0, INT64_MAX);
	assert_int_equal(all.used, 0);
	dc_sampler_remove(s, (uint32_t)getpid(), 0);
	dc_sampler_free(s);
}

static void test_descriptors_run_out(void **state)
{
	/* With too few descriptors a process is sampled without switches, then not at all; either way it is said. */
	struct dc_sampler *s = sampler(NULL);
	struct dc_sample_mode mode;
	pid_t pid = sampled_start(sleeper);
	struct rlimit old, few;
	int next;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &old);
	next = dup(0);
	close(next);
	few = (struct rlimit){(rlim_t)next + 2, old.rlim_max};
	setrlimit(RLIMIT_NOFILE, &few);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), -EMFILE);
	setrlimit(RLIMIT_NOFILE, &old);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_int_equal(mode.scope, 0);
	assert_non_null(strstr(mode.why, "open files"));
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0); /* and again when there are more */
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_int_equal(mode.scope, 2);
	sampled_end(pid, SIGKILL);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0); /* it is still known */
	dc_sampler_remove(s, (uint32_t)pid, 0);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), -ESRCH);
	dc_sampler_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_threads_and_children),
		cmocka_unit_test(test_mappings_are_told),
		cmocka_unit_test(test_killed_process),
		cmocka_unit_test(test_ordinary_user),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_descriptors_run_out),
	};

	return cmocka_run_group_tests(tests, sampling_set_up, NULL);
}
