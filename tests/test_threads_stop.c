/* SPDX-License-Identifier: MIT */
/*
 * trigger/threads.c: every thread of a process is found, stopped, copied and let go, whatever it is doing. That it notices
 * nothing of it: test_threads_unnoticed.c.
 */
#include "tests/stopping.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "ipc/registers.h"
#include "trigger/proc.h"

static pthread_mutex_t locks[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};

static void *deadlock(void *arg)
{
	const uintptr_t i = (uintptr_t)arg;
	STAND(i);
	pthread_mutex_lock(&locks[i % 2]);
	return NULL;
}

static void work_deadlocked(void)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 128 << 10);
	pthread_mutex_lock(&locks[0]);
	pthread_mutex_lock(&locks[1]);
	for (uintptr_t i = 1; i < 50; i++)
		pthread_create(&thread, &small, deadlock, (void *)i);
	deadlock((void *)0);
}

static void check_deadlocked(struct dc_threads_totals (*taken)(pid_t pid))
{
	pid_t pid = child_start(work_deadlocked);
	struct dc_threads_totals t;

	wait_ready(50);
	nap(50);
	t = taken(pid);
	assert_string_equal(t.why, "");
	assert_int_equal(t.taken, 50);
	assert_int_equal(t.refused, 0);
	for (unsigned i = 0; i < 50; i++) {
		const struct found *f = found_thread(shared->tids[i]);

		assert_taken(f, shared->at[i]);
		assert_int_equal(f->state.state, 'S');
		assert_int_equal(f->state.syscall, SYS_futex);
		assert_true(f->state.args[0] % 4 == 0 && f->state.args[0]);
		assert_non_null(strstr(f->state.wchan, "futex"));
		assert_string_equal(f->state.comm, "test_threads_st");
		assert_true(f->s.monotonic_ns <= dc_now_ns() && f->s.monotonic_ns > dc_now_ns() - BUDGET_NS);
	}
	assert_true(t.stopped_median_ns <= t.stopped_max_ns);
	assert_true(t.took_ns >= t.stopped_max_ns);
	child_kill(pid);
}

/* 50 threads that wait for each other for ever: all are there, once, with what they wait in. */
static void test_deadlocked(void **state)
{
	(void)state;
	check_deadlocked(take);
}

static void work_stopped(void)
{
	STAND(0);
	for (;;) {
		raise(SIGSTOP);
		atomic_fetch_add(&shared->woken, 1);
	}
}

/* A process that is stopped is copied and stays stopped; it goes on when it is told to, once. */
static void test_stopped(void **state)
{
	pid_t pid = child_start(work_stopped);
	struct dc_threads_totals t;

	(void)state;
	wait_ready(1);
	until_state(pid, 'T');
	for (unsigned i = 0; i < 20; i++) {
		t = take(pid);
		assert_int_equal(t.taken, 1);
		assert_taken(found_thread((uint32_t)pid), shared->at[0]);
		assert_int_equal(found[0].state.state, 'T');
		until_state(pid, 'T'); /* it stops anew, in the kernel */
		assert_int_equal(atomic_load(&shared->woken), 0);
	}
	kill(pid, SIGCONT);
	for (int64_t until = dc_now_ns() + INT64_C(10000000000); !atomic_load(&shared->woken) && dc_now_ns() < until;)
		nap(1);
	until_state(pid, 'T'); /* the next SIGSTOP of its own */
	assert_int_equal(atomic_load(&shared->woken), 1);
	child_kill(pid);
}

static void *spin(void *arg)
{
	STAND((uintptr_t)arg);
	for (volatile uint64_t n = 0; !atomic_load(&shared->go); n++)
		atomic_fetch_add_explicit(&shared->sum, 1, memory_order_relaxed);
	return NULL;
}

static void work_spinning(void)
{
	pthread_t threads[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, spin, (void *)i);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

/* Threads that never sleep are stopped and go on. */
static void test_spinning(void **state)
{
	pid_t pid = child_start(work_spinning);
	struct dc_threads_totals t;
	uint64_t before;
	int status;

	(void)state;
	wait_ready(4);
	for (unsigned k = 0; k < 5; k++) {
		t = take(pid);
		assert_int_equal(t.threads, 5);
		assert_int_equal(t.taken, 5);
		for (unsigned i = 0; i < 4; i++) {
			assert_taken(found_thread(shared->tids[i]), shared->at[i]);
			assert_int_equal(found_thread(shared->tids[i])->state.syscall, DC_SYSCALL_NONE);
		}
		before = atomic_load(&shared->sum);
		nap(30);
		assert_true(atomic_load(&shared->sum) > before);
	}
	atomic_store(&shared->go, true);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void *wait_in_vfork(void *arg)
{
	STAND((uintptr_t)arg);
	/* As vfork() does. The child only waits to be killed; its parent stands in the kernel until then. */
	if (syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
	}
	return NULL;
}

static void work_vfork(void)
{
	pthread_t threads[2];

	pthread_create(&threads[0], NULL, wait_in_vfork, (void *)1);
	pthread_create(&threads[1], NULL, sleep_on, (void *)2);
	sleep_on((void *)0);
}

/* One that cannot stop is noted with what it waits in and costs the others nothing; nobody is left traced. */
static void test_does_not_stop(void **state)
{
	pid_t pid = child_start(work_vfork);
	struct dc_threads_totals t;
	const struct found *f;
	char text[4096], file[64];

	(void)state;
	wait_ready(3);
	nap(50);
	t = take(pid);
	assert_int_equal(t.threads, 3);
	assert_int_equal(t.taken, 2);
	assert_int_equal(t.refused, 0);
	assert_non_null(strstr(t.why, "did not stop, its state is D"));
	f = found_thread(shared->tids[1]);
	assert_non_null(f);
	assert_int_equal(f->state.taken, 0);
	assert_int_equal(f->s.reg_count, 0);
	assert_int_equal(f->s.stack_bytes, 0);
	assert_int_equal(f->state.state, 'D');
	assert_int_equal(f->state.syscall, SYS_clone);
	assert_taken(found_thread(shared->tids[0]), shared->at[0]);
	assert_taken(found_thread(shared->tids[2]), shared->at[2]);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(file, sizeof(file), "task/%u/status", shared->tids[i]);
		assert_true(dc_proc_read((uint32_t)pid, file, text, sizeof(text)) > 0);
		assert_non_null(strstr(text, "TracerPid:\t0\n"));
	}
	child_kill(pid);
}

/* What another tracer holds is left alone and said. */
static void test_held_by_another(void **state)
{
	pid_t pid = child_start(work_deadlocked), tracer;
	struct dc_threads_totals t;
	uint32_t held;
	int ready[2];
	char byte;

	(void)state;
	wait_ready(50);
	held = shared->tids[7];
	assert_int_equal(pipe(ready), 0);
	tracer = fork();
	if (tracer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		byte = ptrace(PTRACE_SEIZE, held, NULL, NULL) == 0 ? 'y' : 'n';
		if (write(ready[1], &byte, 1) == 1)
			pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(byte, 'y');
	t = take(pid);
	assert_int_equal(t.threads, 50);
	assert_int_equal(t.taken, 49);
	assert_int_equal(t.refused, 1);
	assert_non_null(strstr(t.why, "held by another tracer"));
	assert_int_equal(found_thread(held)->state.taken, 0);
	assert_int_equal(found_thread(held)->state.syscall, SYS_futex);
	child_kill(tracer);
	t = take(pid);
	assert_int_equal(t.taken, 50);
	child_kill(pid);
	close(ready[0]);
	close(ready[1]);
}

/* Not ourselves, not one that is gone, not another of the same pid. */
static void test_refused(void **state)
{
	struct dc_threads_totals t = {0};
	pid_t pid;
	uint64_t start;

	(void)state;
	t = take(getpid());
	assert_int_equal(t.threads, 0);
	assert_non_null(strstr(t.why, "the watcher itself"));
	pid = child_start(work_deadlocked);
	start = start_time_of(pid);
	assert_int_equal(take_into(0, pid, start + 1, BUDGET_NS, &t), -ESRCH);
	assert_int_equal(found_count, 0);
	child_kill(pid);
	assert_int_equal(take_into(0, pid, start, BUDGET_NS, &t), -ESRCH);
	assert_int_equal(found_count, 0);
}

/* Out of time, the rest is listed with what it does and not stopped. */
static void test_budget(void **state)
{
	pid_t pid = child_start(work_deadlocked);
	struct dc_threads_totals t;

	(void)state;
	wait_ready(50);
	assert_int_equal(take_into(0, pid, start_time_of(pid), 1, &t), 0);
	assert_int_equal(t.threads, 50);
	assert_int_equal(found_count, 50);
	assert_int_equal(t.taken, 0);
	assert_string_equal(t.why, "out of time after 0 threads");
	child_kill(pid);
}

/* The writer's error ends it and travels. */
static void test_disk_full(void **state)
{
	pid_t pid = child_start(work_deadlocked);
	struct dc_threads_totals t;

	(void)state;
	wait_ready(50);
	assert_int_equal(take_into(-ENOSPC, pid, start_time_of(pid), BUDGET_NS, &t), -ENOSPC);
	child_kill(pid);
}

static void *come_and_go(void *arg)
{
	return arg;
}

static void *make_threads(void *arg)
{
	pthread_t thread;

	atomic_fetch_add(&shared->ready, 1);
	for (;;)
		if (pthread_create(&thread, NULL, come_and_go, arg) == 0)
			pthread_join(thread, NULL);
	return NULL;
}

static void work_churning(void)
{
	pthread_t threads[3];

	for (unsigned i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, make_threads, NULL);
	for (;;)
		pause();
}

/* Threads that begin and end all the time, and a process that is killed in the middle: no error, no waiting. */
static void test_ends_midway(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 30; k++) {
		pid_t pid = child_start(work_churning), killer;
		struct dc_threads_totals t = {0};
		uint64_t start = start_time_of(pid);
		const int64_t began = dc_now_ns();
		int r = 0;

		wait_ready(3);
		killer = fork();
		if (killer == 0) {
			const struct timespec some = {.tv_nsec = (long)k * 300000};

			nanosleep(&some, NULL);
			kill(pid, SIGKILL);
			_exit(0);
		}
		while (r == 0 && dc_now_ns() - began < BUDGET_NS) {
			r = take_into(0, pid, start, BUDGET_NS, &t);
			if (state_of(pid) == 'Z')
				break;
		}
		assert_true(r == 0 || r == -ESRCH);
		assert_true(dc_now_ns() - began < BUDGET_NS); /* nobody waits for what has ended to stop */
		assert_int_equal(waitpid(killer, NULL, 0), killer);
		child_kill(pid);
	}
}

/* --- what they wait in goes on --- */

static void work_deep(void)
{
	volatile uint8_t deep[256 << 10];

	for (size_t i = 0; i < sizeof(deep); i += 512)
		deep[i] = 1;
	STAND(0);
	for (;;)
		deep[0] = (uint8_t)pause();
}

/* A stack deeper than a copy is cut, and says so; one that is not ends where its mapping does. */
static void test_cut(void **state)
{
	pid_t pid = child_start(work_deep);

	(void)state;
	wait_ready(1);
	take(pid);
	assert_int_equal(found[0].s.stack_bytes, DC_THREADS_STACK_BYTES);
	assert_int_equal(found[0].s.flags, DC_SAMPLE_STACK_CUT);
	child_kill(pid);
	pid = child_start(work_deadlocked);
	wait_ready(50);
	take(pid);
	for (uint32_t i = 0; i < found_count; i++)
		if (found[i].s.tid != (uint32_t)pid) {
			assert_int_equal(found[i].s.flags, 0);
			assert_in_range(found[i].s.stack_bytes, 1024, 32 << 10);
		}
	child_kill(pid);
}

static void work_beside(void)
{
	const size_t bytes = 192 << 10;
	pthread_attr_t placed;
	pthread_t thread;
	uint8_t *at = mmap(NULL, bytes + (64 << 10), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(at, 1, bytes + (64 << 10));
	mprotect(at + bytes, 64 << 10, PROT_READ);
	atomic_store(&shared->sum, (uint64_t)(uintptr_t)at + bytes);
	pthread_attr_init(&placed);
	pthread_attr_setstack(&placed, at, bytes);
	pthread_create(&thread, &placed, sleep_on, (void *)1);
	sleep_on((void *)0);
}

/* What can be read behind the end of a stack is not copied with it. */
static void test_ends_with_the_stack(void **state)
{
	pid_t pid = child_start(work_beside);
	const struct found *f;

	(void)state;
	wait_ready(2);
	take(pid);
	f = found_thread(shared->tids[1]);
	assert_taken(f, shared->at[1]);
	assert_int_equal(f->regs[DC_REG_SP] + f->s.stack_bytes, atomic_load(&shared->sum));
	child_kill(pid);
}

static void work_without_first(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, sleep_on, (void *)1);
	atomic_fetch_add(&shared->ready, 1);
	pthread_exit(NULL);
}

/* A process whose first thread has ended goes on in the others. */
static void test_first_has_ended(void **state)
{
	pid_t pid = child_start(work_without_first);
	struct dc_threads_totals t;

	(void)state;
	wait_ready(2);
	until_state(pid, 'Z');
	t = take(pid);
	assert_int_equal(t.threads, 2);
	assert_int_equal(t.taken, 1);
	assert_int_equal(found_thread((uint32_t)pid)->state.state, 'Z');
	assert_taken(found_thread(shared->tids[1]), shared->at[1]);
	child_kill(pid);
}

static void work_many(void)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	for (uintptr_t i = 1; i < 500; i++)
		pthread_create(&thread, &small, sleep_on, (void *)i);
	sleep_on((void *)0);
}

static void check_many(struct dc_threads_totals (*taken)(pid_t pid))
{
	pid_t pid = child_start(work_many);
	struct dc_threads_totals t;

	wait_ready(500);
	t = taken(pid);
	assert_string_equal(t.why, "");
	assert_int_equal(t.taken, 500);
	for (unsigned i = 0; i < 500; i++)
		assert_taken(found_thread(shared->tids[i]), shared->at[i]);
	child_kill(pid);
}

/* Several hundred: all of them. */
static void test_many(void **state)
{
	(void)state;
	check_many(take);
}

/* Taken first and written later, all is as if it had been written at once. */
static void test_in_two_steps(void **state)
{
	(void)state;
	check_deadlocked(take_in_two_steps);
	check_many(take_in_two_steps);
}

#define DEEP 600u

static void *stand_deep(void *arg)
{
	volatile uint8_t deep[DC_THREADS_STACK_BYTES];

	for (size_t i = 0; i < sizeof(deep); i += 4096)
		deep[i] = 1;
	__asm__ volatile("" : : "r"(deep) : "memory");
	arg = sleep_on(arg);
	deep[0] = 2; /* no tail call: it is deep as long as it sleeps */
	return arg;
}

static void work_many_deep(void)
{
	pthread_attr_t size;
	pthread_t thread;

	pthread_attr_init(&size);
	pthread_attr_setstacksize(&size, 2 * DC_THREADS_STACK_BYTES);
	for (uintptr_t i = 1; i < DEEP; i++)
		pthread_create(&thread, &size, stand_deep, (void *)i);
	sleep_on((void *)0);
}

/* More than is kept in memory: the rest is there, with what it does, and not stopped. */
static void test_out_of_room(void **state)
{
	pid_t pid = child_start(work_many_deep);
	struct dc_threads_totals t;
	uint32_t stopped = 0;
	char why[96];

	(void)state;
	wait_ready(DEEP);
	t = take_in_two_steps(pid);
	assert_int_equal(t.threads, DEEP);
	for (uint32_t i = 0; i < found_count; i++) {
		stopped += found[i].state.taken;
		assert_int_equal(found[i].state.syscall, SYS_pause);
	}
	assert_int_equal(stopped, t.taken);
	assert_in_range(t.taken, 400, DEEP - 1);
	snprintf(why, sizeof(why), "out of room after %u threads", t.taken);
	assert_string_equal(t.why, why);
	child_kill(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deadlocked),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_spinning),
		cmocka_unit_test(test_does_not_stop),
		cmocka_unit_test(test_held_by_another),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_disk_full),
		cmocka_unit_test(test_ends_midway),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_ends_with_the_stack),
		cmocka_unit_test(test_first_has_ended),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_in_two_steps),
		cmocka_unit_test(test_out_of_room),
	};

	return cmocka_run_group_tests(tests, stopping_set_up, NULL);
}
