/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "persist/capture.h"
#include "persist/stacks/stacks.h"
#include "ringfile.h"
#include "trigger/proc.h"
#include "trigger/worker.h"

#define SECOND INT64_C(1000000000)

static char rings[SCRATCH_BYTES], place[SCRATCH_BYTES], out[160];
static struct ringfile file;
static struct ringfile_writer writer;
static struct dc_ring *ring;
static struct dc_worker *worker;

static int setup(void **state)
{
	char why[DC_WHY_BYTES];

	(void)state;
	scratch_memory("dctest", rings);
	ringfile_make(&file, rings, 64, 4096);
	ringfile_writer_init(&writer, &file, 0);
	for (unsigned i = 0; i < 1000; i++)
		ringfile_event(&writer);
	scratch_disk("dcworker", place);
	snprintf(out, sizeof(out), "%s/out", place);
	return dc_ring_open(AT_FDCWD, file.path, &ring, why) || dc_worker_new(SECOND / 20, &worker);
}

static int teardown(void **state)
{
	(void)state;
	dc_worker_free(worker);
	dc_ring_unref(ring);
	ringfile_remove(&file);
	scratch_remove(rings);
	scratch_remove(place);
	return 0;
}

static struct dc_save *make_save(int64_t after_ns)
{
	const struct dc_save_output output = {.dir = out};
	const struct dc_window window = {.after_ns = after_ns};
	struct dc_incident incident;
	struct dc_save *save = NULL;

	dc_incident_init(&incident, DC_REASON_COMMAND, "test");
	assert_int_equal(dc_incident_window(&incident, ring, &window), 0);
	assert_int_equal(dc_save_new(&incident, &output, &save), 0);
	assert_int_equal(dc_save_add(save, ring), 0);
	return save;
}

static struct dc_worker_report next_report(void)
{
	struct pollfd p = {.fd = dc_worker_fd(worker), .events = POLLIN};
	struct dc_worker_report r = {0};

	while (!dc_worker_report(worker, &r))
		assert_int_equal(poll(&p, 1, 5000), 1);
	return r;
}

static void test_saves(void **state)
{
	/* A save becomes a whole capture that holds what the ring held, and the report says so. */
	struct dc_capture_totals totals;
	struct dc_capture *c = NULL;
	struct dc_worker_report r;
	char path[1024], why[160];
	uint64_t job;

	(void)state;
	assert_int_equal(dc_worker_submit(worker, make_save(0), 0, &job), 0);
	r = next_report();
	assert_int_equal(r.job, job);
	assert_int_equal(r.outcome, DC_WORKER_SAVED);
	assert_int_equal(r.totals.events, 1000);
	snprintf(path, sizeof(path), "%s/%s", r.dir, r.name);
	assert_int_equal(dc_capture_open(path, &c, why), 0);
	assert_true(dc_capture_complete(c));
	assert_int_equal(dc_capture_totals(c, 0, &totals), 0);
	assert_int_equal(totals.events, 1000);
	assert_int_equal(totals.overwritten, 0);
	dc_capture_close(c);
}

static void test_place_that_is_gone_is_waited_for(void **state)
{
	/* Where captures cannot be written the job stays, says so once, and is saved as soon as they can. */
	struct dc_worker_report r;
	uint32_t pending;
	uint64_t job;
	int fd = open(out, O_CREAT | O_WRONLY, 0600); /* a file where the directory should be */

	(void)state;
	close(fd);
	assert_int_equal(dc_worker_submit(worker, make_save(0), 0, &job), 0);
	r = next_report();
	assert_int_equal(r.outcome, DC_WORKER_RETRY);
	assert_true(r.error < 0);
	usleep(200000); /* a few tries */
	assert_int_equal(dc_worker_report(worker, &r), 0);
	for (int i = 0; i < 1000 && (dc_worker_jobs(worker, &pending) != 1 || pending != 1); i++)
		usleep(5000); /* during a try it is not pending */
	assert_int_equal(pending, 1);
	unlink(out);
	r = next_report();
	assert_int_equal(r.outcome, DC_WORKER_SAVED);
	assert_int_equal(r.job, job);
	assert_int_equal(r.totals.events, 1000);
	assert_int_equal(dc_worker_jobs(worker, &pending), 0);
}

/* Of the incident's first process. */
static int count_threads(void *arg, const struct dc_sample_view *v)
{
	*(unsigned *)arg += v->thread && v->thread->taken;
	return 0;
}

static void test_who_dies_does_not_wait_for_a_file(void **state)
{
	/* Threads of a process that dies are taken before there is a file to put them into, and are in it though it is gone by then. */
	struct dc_capture *c = NULL;
	struct dc_stacks *stacks = NULL;
	const int fd = open(out, O_CREAT | O_WRONLY, 0600); /* a file where the directory should be */
	struct dc_save *save = make_save(0);
	struct dc_process *p = &save->members[0].process;
	struct dc_worker_report r;
	struct dc_proc_stat st;
	char path[1024], why[160];
	unsigned threads = 0;
	pid_t child = fork();
	uint64_t job;

	(void)state;
	close(fd);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	assert_int_equal(dc_proc_stat((uint32_t)child, &st), 0);
	save->incident.reason = DC_REASON_DEATH;
	save->threads_ns = SECOND;
	p->pid = (uint32_t)child;
	p->start_time = st.start_time;
	p->alive = p->verified = true;
	assert_int_equal(dc_worker_submit(worker, save, 0, &job), 0);
	r = next_report();
	assert_int_equal(r.outcome, DC_WORKER_RETRY);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	unlink(out);
	r = next_report();
	assert_int_equal(r.outcome, DC_WORKER_SAVED);
	snprintf(path, sizeof(path), "%s/%s", r.dir, r.name);
	assert_int_equal(dc_capture_open(path, &c, why), 0);
	assert_int_equal(dc_capture_process(c, 0)->threads_taken, 1);
	assert_int_equal(dc_stacks_open(c, 0, &stacks), 0);
	assert_int_equal(dc_stacks_each(stacks, &(struct dc_cut){.everything = true}, count_threads, &threads), 0);
	assert_int_equal(threads, 1);
	dc_stacks_close(stacks);
	dc_capture_close(c);
}

static void test_full_disk(void **state)
{
	/* On a full file system no half capture is left, the job is retried, and saved once there is room. */
	struct dc_worker_report r;
	char fill[200];
	uint64_t job;
	int fd;

	(void)state;
	if (mkdir(out, 0700) < 0 || mount("tmpfs", out, "tmpfs", 0, "size=2m,mode=0700") < 0)
		skip();
	snprintf(fill, sizeof(fill), "%s/fill", out);
	fd = open(fill, O_CREAT | O_WRONLY, 0600);
	while (write(fd, rings, sizeof(rings)) > 0)
		continue;
	close(fd);
	assert_int_equal(dc_worker_submit(worker, make_save(0), 0, &job), 0);
	r = next_report();
	assert_int_equal(r.outcome, DC_WORKER_RETRY);
	assert_int_equal(r.error, -ENOSPC);
	unlink(fill);
	r = next_report();
	assert_int_equal(r.outcome, DC_WORKER_SAVED);
	assert_int_equal(umount2(out, MNT_DETACH), 0);
}

static void test_queue_is_bounded(void **state)
{
	/* As many as the queue holds and no more; the refused save stays its owner's. */
	struct dc_save *save;
	uint64_t job;

	(void)state;
	for (unsigned i = 0; i < DC_WORKER_JOBS_MAX; i++)
		assert_int_equal(dc_worker_submit(worker, make_save(0), 60 * SECOND, &job), 0);
	save = make_save(0);
	assert_int_equal(dc_worker_submit(worker, save, 0, &job), -EBUSY);
	dc_save_free(save);
}

static void test_finish_waits_for_no_window(void **state)
{
	/* At the end nothing waits for `after`: what is there is saved, and the window ends then. */
	struct timespec began, ended;
	struct dc_worker_report r;
	uint64_t job;

	(void)state;
	assert_int_equal(dc_worker_submit(worker, make_save(60 * SECOND), 60 * SECOND, &job), 0);
	usleep(50000);
	clock_gettime(CLOCK_MONOTONIC, &began);
	dc_worker_finish(worker);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	assert_true(ended.tv_sec - began.tv_sec < 5);
	r = next_report();
	assert_int_equal(r.outcome, DC_WORKER_SAVED);
}

static void saved_by_death(bool early)
{
	struct dc_worker_report r;
	struct dc_capture *c = NULL;
	char path[1024], why[160];
	uint64_t job;

	assert_int_equal(dc_worker_submit(worker, make_save(60 * SECOND), 60 * SECOND, &job), 0);
	if (!early)
		usleep(50000); /* most likely the first pass is over */
	ringfile_unlock(&file);
	dc_worker_died(worker, ring->header.pid, ring->header.start_time, true, SIGSEGV);
	r = next_report();
	assert_int_equal(r.outcome, DC_WORKER_SAVED);
	snprintf(path, sizeof(path), "%s/%s", r.dir, r.name);
	assert_int_equal(dc_capture_open(path, &c, why), 0);
	assert_int_equal(dc_capture_process(c, 0)->exit_known, 1);
	assert_int_equal(dc_capture_process(c, 0)->exit_signal, SIGSEGV);
	dc_capture_close(c);
}

static void test_death_ends_the_wait(void **state)
{
	/*
	 * When all of its processes are dead a capture does not wait for `after`, and says how they died: whether
	 * they die before, during or after the first pass.
	 */
	(void)state;
	saved_by_death(false);
	saved_by_death(true);
}

static void test_fold_needs_the_same_processes(void **state)
{
	/* A trigger joins a capture under way only when that has all of its processes. */
	struct ringfile other;
	struct dc_ring *both[2] = {ring, NULL};
	char why[DC_WHY_BYTES];
	uint64_t job, joined;

	(void)state;
	ringfile_make(&other, rings, 16, 4096);
	assert_int_equal(dc_ring_open(AT_FDCWD, other.path, &both[1], why), 0);
	assert_int_equal(dc_worker_submit(worker, make_save(60 * SECOND), 60 * SECOND, &job), 0);
	usleep(50000);
	assert_int_equal(dc_worker_fold(worker, both, 1, SECOND, 1, 1, &joined), 1);
	assert_int_equal(joined, job);
	assert_int_equal(dc_worker_fold(worker, both, 2, SECOND, 1, 1, &joined), 0);
	dc_ring_unref(both[1]);
	ringfile_remove(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_saves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_place_that_is_gone_is_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(test_who_dies_does_not_wait_for_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_queue_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_finish_waits_for_no_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death_ends_the_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fold_needs_the_same_processes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
