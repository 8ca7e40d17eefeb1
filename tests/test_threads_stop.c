/* SPDX-License-Identifier: MIT */
/*
 * trigger/threads.c: every thread of a process is found, stopped, copied and let go, whatever it is doing, and notices
 * nothing of it. The processes are children of ours that report through memory shared with us.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/registers.h"
#include "ipc/now.h"
#include "tests/memory_writer.h"
#include "trigger/proc.h"
#include "trigger/threads.h"

#define BUDGET_NS INT64_C(5000000000) /* these machines are busy */
#define THREADS_MAX 600
#define MARK UINT64_C(0x6b72616d7473656d) /* lies on the stack of each thread */

static struct dc_writer writer;

/* What children tell us. */
static struct shared {
	_Atomic uint32_t ready;
	_Atomic bool go; /* end */
	_Atomic uint32_t interrupted; /* system calls that saw EINTR */
	_Atomic uint32_t wrong; /* that ended otherwise than they should */
	_Atomic uint32_t woken; /* that ended as they should */
	_Atomic uint32_t handled; /* signals */
	_Atomic uint64_t sum; /* of what they carried */
	_Atomic uint32_t tids[THREADS_MAX];
	_Atomic uint64_t at[THREADS_MAX]; /* addresses of marks */
} *shared;

static void nap(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

static void wait_ready(uint32_t count)
{
	for (int64_t until = dc_now_ns() + INT64_C(30000000000); atomic_load(&shared->ready) < count;) {
		assert_true(dc_now_ns() < until);
		nap(1);
	}
}

static uint64_t start_time_of(pid_t pid)
{
	struct dc_proc_stat st;

	assert_int_equal(dc_proc_stat((uint32_t)pid, &st), 0);
	return st.start_time;
}

/* --- the samples that were written --- */

struct found {
	struct dc_sample s;
	const uint64_t *regs;
	const uint8_t *stack;
	struct dc_thread_state state;
};

static uint32_t found_count;
static struct found found[DC_THREADS_MAX];

static void read_samples(void)
{
	found_count = 0;
	for (unsigned b = 0; b < writer.count; b++) {
		const struct memory_block *block = &writer.blocks[b];

		assert_int_equal(block->type, DC_BLOCK_SAMPLES);
		assert_int_equal(block->process, 5);
		for (size_t at = 0; at < block->bytes;) {
			struct found *f = &found[found_count++];
			const uint8_t *p = block->payload + at;

			memcpy(&f->s, p, sizeof(f->s));
			assert_int_equal(f->s.kind, DC_SAMPLE_THREAD);
			assert_int_equal(f->s.bytes % 8, 0);
			assert_int_equal(f->s.extra_bytes, sizeof(f->state));
			assert_int_equal(f->s.bytes, sizeof(f->s) + f->s.reg_count * 8 +
							     ((f->s.stack_bytes + 7) & ~7u) + sizeof(f->state));
			f->regs = (const void *)(p + sizeof(f->s));
			f->stack = (const uint8_t *)(f->regs + f->s.reg_count);
			memcpy(&f->state, p + f->s.bytes - sizeof(f->state), sizeof(f->state));
			at += f->s.bytes;
			assert_true(at <= block->bytes);
		}
	}
}

static bool in_two_steps; /* how take() does it */

static struct dc_threads_totals take(pid_t pid)
{
	CLEANUP(dc_threads) struct dc_threads *threads = NULL;
	struct dc_threads_totals totals = {.threads = 77};
	const uint64_t start = start_time_of(pid);

	memory_writer_reset(&writer);
	if (in_two_steps) {
		assert_int_equal(dc_threads_take((uint32_t)pid, start, BUDGET_NS, &threads, &totals), 0);
		assert_int_equal(dc_threads_put(threads, 5, &writer), 0);
	} else {
		assert_int_equal(dc_threads_write((uint32_t)pid, start, 5, BUDGET_NS, &writer, &totals), 0);
	}
	read_samples();
	assert_int_equal(found_count, totals.threads);
	return totals;
}

static const struct found *found_thread(uint32_t tid)
{
	const struct found *f = NULL;

	for (uint32_t i = 0; i < found_count; i++) {
		if (found[i].s.tid != tid)
			continue;
		assert_null(f); /* each once */
		f = &found[i];
	}
	return f;
}

/* Its registers are those of code that stands where its stack is, and the stack holds what it put there. */
static void assert_taken(const struct found *f, uint64_t mark_at)
{
	uint64_t sp, mark;

	assert_non_null(f);
	assert_int_equal(f->state.taken, 1);
	assert_int_equal(f->s.reg_count, DC_REGS);
	sp = f->regs[DC_REG_SP];
	assert_true(mark_at >= sp && mark_at + 8 <= sp + f->s.stack_bytes);
	memcpy(&mark, f->stack + (mark_at - sp), sizeof(mark));
	assert_int_equal(mark, MARK);
	assert_true(f->state.stopped_ns > 0);
}

/* --- children --- */

static uint32_t gettid_now(void)
{
	return (uint32_t)syscall(SYS_gettid);
}

/* Leaves a mark on the stack, then says that it is there. */
#define STAND(index)                                                                                                   \
	volatile uint64_t mark_ = MARK;                                                                                \
	atomic_store(&shared->at[index], (uint64_t)(uintptr_t)&mark_);                                                 \
	atomic_store(&shared->tids[index], gettid_now());                                                              \
	atomic_fetch_add(&shared->ready, 1)

static pid_t child_start(void (*work)(void))
{
	pid_t pid;

	memset((void *)shared, 0, sizeof(*shared));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work();
		_exit(0);
	}
	return pid;
}

static void child_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	do
		assert_int_equal(waitpid(pid, &status, 0), pid);
	while (WIFSTOPPED(status));
}

static char state_of(pid_t pid)
{
	struct dc_proc_stat st;

	return dc_proc_stat((uint32_t)pid, &st) == 0 ? st.state : '?';
}

static void until_state(pid_t pid, char state)
{
	for (int64_t until = dc_now_ns() + INT64_C(10000000000); state_of(pid) != state;) {
		assert_true(dc_now_ns() < until);
		nap(1);
	}
}

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

/* 50 threads that wait for each other for ever: all are there, once, with what they wait in. */
static void test_deadlocked(void **state)
{
	pid_t pid = child_start(work_deadlocked);
	struct dc_threads_totals t;

	(void)state;
	wait_ready(50);
	nap(50);
	t = take(pid);
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

static void *sleep_on(void *arg)
{
	STAND((uintptr_t)arg);
	for (;;)
		pause();
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
	memory_writer_reset(&writer);
	assert_int_equal(dc_threads_write((uint32_t)pid, start + 1, 5, BUDGET_NS, &writer, &t), -ESRCH);
	child_kill(pid);
	assert_int_equal(dc_threads_write((uint32_t)pid, start, 5, BUDGET_NS, &writer, &t), -ESRCH);
	assert_int_equal(writer.count, 0);
}

/* Out of time, the rest is listed with what it does and not stopped. */
static void test_budget(void **state)
{
	pid_t pid = child_start(work_deadlocked);
	struct dc_threads_totals t;

	(void)state;
	wait_ready(50);
	memory_writer_reset(&writer);
	assert_int_equal(dc_threads_write((uint32_t)pid, start_time_of(pid), 5, 1, &writer, &t), 0);
	read_samples();
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
	memory_writer_reset(&writer);
	writer.error = -ENOSPC;
	assert_int_equal(dc_threads_write((uint32_t)pid, start_time_of(pid), 5, BUDGET_NS, &writer, &t), -ENOSPC);
	memory_writer_reset(&writer);
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
			memory_writer_reset(&writer);
			r = dc_threads_write((uint32_t)pid, start, 5, BUDGET_NS, &writer, &t);
			read_samples();
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

static void judge(bool interrupted, bool woken)
{
	if (interrupted)
		atomic_fetch_add(&shared->interrupted, 1);
	else if (woken)
		atomic_fetch_add(&shared->woken, 1);
	else
		atomic_fetch_add(&shared->wrong, 1);
}

static int wake_pipe[2]; /* made before the child; a byte for each thread that reads */
static int wake_event; /* readable for ever, then */
static int quiet_socket[2];
static const int64_t sleep_ns = INT64_C(1500000000);

static bool took_its_time(int64_t began)
{
	return dc_now_ns() - began >= sleep_ns;
}

static void *in_nanosleep(void *arg)
{
	const struct timespec t = {.tv_sec = sleep_ns / 1000000000, .tv_nsec = sleep_ns % 1000000000};
	int64_t began = dc_now_ns();
	STAND((uintptr_t)arg);
	int r = nanosleep(&t, NULL);
	judge(r < 0 && errno == EINTR, r == 0 && took_its_time(began) && dc_now_ns() - began < 3 * sleep_ns);
	return NULL;
}

static void *in_poll(void *arg)
{
	struct pollfd p = {.fd = wake_event, .events = POLLIN};
	STAND((uintptr_t)arg);
	int r = poll(&p, 1, -1);
	judge(r < 0 && errno == EINTR, r == 1);
	return NULL;
}

static void *in_poll_timed(void *arg)
{
	struct pollfd p = {.fd = quiet_socket[0], .events = POLLIN};
	int64_t began = dc_now_ns();
	STAND((uintptr_t)arg);
	int r = poll(&p, 1, (int)(sleep_ns / 1000000));
	judge(r < 0 && errno == EINTR, r == 0 && took_its_time(began) && dc_now_ns() - began < 3 * sleep_ns);
	return NULL;
}

static void *in_select(void *arg)
{
	struct timeval t = {.tv_sec = sleep_ns / 1000000000, .tv_usec = sleep_ns % 1000000000 / 1000};
	int64_t began = dc_now_ns();
	STAND((uintptr_t)arg);
	int r = select(0, NULL, NULL, NULL, &t);
	judge(r < 0 && errno == EINTR, r == 0 && took_its_time(began) && dc_now_ns() - began < 3 * sleep_ns);
	return NULL;
}

static void *in_epoll(void *arg)
{
	struct epoll_event e = {.events = EPOLLIN};
	int fd = epoll_create1(0);
	epoll_ctl(fd, EPOLL_CTL_ADD, wake_event, &e);
	STAND((uintptr_t)arg);
	int r = epoll_wait(fd, &e, 1, -1);
	judge(r < 0 && errno == EINTR, r == 1);
	return NULL;
}

static void *in_epoll_timed(void *arg)
{
	struct epoll_event e;
	int64_t began = dc_now_ns();
	int fd = epoll_create1(0);
	STAND((uintptr_t)arg);
	int r = epoll_wait(fd, &e, 1, (int)(sleep_ns / 1000000));
	judge(r < 0 && errno == EINTR, r == 0 && took_its_time(began));
	return NULL;
}

static void *in_futex(void *arg)
{
	static uint32_t word;
	const struct timespec t = {.tv_sec = sleep_ns / 1000000000, .tv_nsec = sleep_ns % 1000000000};
	int64_t began = dc_now_ns();
	STAND((uintptr_t)arg);
	long r = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0);
	judge(r < 0 && errno == EINTR, r < 0 && errno == ETIMEDOUT && took_its_time(began) && dc_now_ns() - began < 3 * sleep_ns);
	return NULL;
}

static void *in_read(void *arg)
{
	char byte;
	STAND((uintptr_t)arg);
	ssize_t r = read(wake_pipe[0], &byte, 1);
	judge(r < 0 && errno == EINTR, r == 1);
	return NULL;
}

static void *in_recv_timed(void *arg)
{
	const struct timeval t = {.tv_sec = sleep_ns / 1000000000, .tv_usec = sleep_ns % 1000000000 / 1000};
	int64_t began = dc_now_ns();
	char byte;
	setsockopt(quiet_socket[1], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	STAND((uintptr_t)arg);
	ssize_t r = recv(quiet_socket[1], &byte, 1, 0);
	judge(r < 0 && errno == EINTR, r < 0 && errno == EAGAIN && took_its_time(began));
	return NULL;
}

static void *in_sigtimedwait(void *arg)
{
	const struct timespec t = {.tv_sec = sleep_ns / 1000000000, .tv_nsec = sleep_ns % 1000000000};
	int64_t began = dc_now_ns();
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	STAND((uintptr_t)arg);
	int r = sigtimedwait(&set, NULL, &t);
	judge(r < 0 && errno == EINTR, r < 0 && errno == EAGAIN && took_its_time(began));
	return NULL;
}

static void *in_semop(void *arg)
{
	const struct timespec t = {.tv_sec = sleep_ns / 1000000000, .tv_nsec = sleep_ns % 1000000000};
	struct sembuf down = {.sem_op = -1};
	int64_t began = dc_now_ns();
	int id = semget(IPC_PRIVATE, 1, 0600);
	STAND((uintptr_t)arg);
	int r = semtimedop(id, &down, 1, &t);
	judge(r < 0 && errno == EINTR, r < 0 && errno == EAGAIN && took_its_time(began));
	semctl(id, 0, IPC_RMID);
	return NULL;
}

static void *(*const waits[])(void *) = {
	in_nanosleep, in_poll, in_poll_timed, in_select,     in_epoll,	      in_epoll_timed,
	in_futex,     in_read, in_read,	      in_recv_timed, in_sigtimedwait, in_semop,
};
#define WAITS (sizeof(waits) / sizeof(waits[0]))

static void work_waiting(void)
{
	pthread_t threads[WAITS];

	for (uintptr_t i = 0; i < WAITS; i++)
		pthread_create(&threads[i], NULL, waits[i], (void *)i);
	for (unsigned i = 0; i < WAITS; i++)
		pthread_join(threads[i], NULL);
}

/* However often they are stopped, waits end when they should and how they should, and none sees EINTR. */
static void test_waits_go_on(void **state)
{
	int64_t began;
	pid_t pid;
	int status;

	(void)state;
#if !defined(__x86_64__)
	skip(); /* epoll_wait and its like see EINTR there, as the header says */
#endif
	assert_int_equal(pipe(wake_pipe), 0);
	wake_event = eventfd(0, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, quiet_socket), 0);
	pid = child_start(work_waiting);
	wait_ready(WAITS);
	began = dc_now_ns();
	for (unsigned k = 0; dc_now_ns() - began < sleep_ns * 2 / 3; k++) {
		struct dc_threads_totals t = take(pid);

		if (k == 0)
			assert_int_equal(t.taken, WAITS + 1);
	}
	assert_int_equal(atomic_load(&shared->interrupted), 0);
	assert_int_equal(eventfd_write(wake_event, 1), 0);
	assert_int_equal(write(wake_pipe[1], "xx", 2), 2);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(atomic_load(&shared->interrupted), 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(atomic_load(&shared->woken), WAITS);
	close(wake_pipe[0]);
	close(wake_pipe[1]);
	close(wake_event);
	close(quiet_socket[0]);
	close(quiet_socket[1]);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	atomic_fetch_add(&shared->sum, (uint64_t)info->si_value.sival_int);
	atomic_fetch_add(&shared->handled, 1);
}

/* Handles signals, in the thread that is in epoll_wait() too: there a handler's EINTR is its due, exactly as often. */
static void work_signalled(void)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
	struct epoll_event e;
	int fd = epoll_create1(0);

	sigaction(SIGRTMIN + 1, &action, NULL);
	STAND(0);
	while (!atomic_load(&shared->go)) {
		int r = epoll_wait(fd, &e, 1, -1);

		judge(r < 0 && errno == EINTR, false);
	}
}

/* A thousand queued signals while it is stopped a thousand times: none is lost, none comes twice, all carry what they did. */
static void test_signals_pass(void **state)
{
	pid_t pid = child_start(work_signalled), sender;
	uint32_t taken = 0;
	int status;

	(void)state;
	wait_ready(1);
	sender = fork();
	if (sender == 0) {
		for (int i = 1; i <= 1000; i++) {
			const union sigval v = {.sival_int = i};

			while (sigqueue(pid, SIGRTMIN + 1, v) < 0)
				nap(1);
			if (i % 3 == 0)
				nap(1);
		}
		_exit(0);
	}
	for (unsigned i = 0; i < 1000; i++)
		taken += take(pid).taken;
	assert_int_equal(taken, 1000);
	assert_int_equal(waitpid(sender, &status, 0), sender);
	for (int64_t until = dc_now_ns() + INT64_C(10000000000); atomic_load(&shared->handled) < 1000 && dc_now_ns() < until;)
		nap(1);
	assert_int_equal(atomic_load(&shared->handled), 1000);
	assert_int_equal(atomic_load(&shared->sum), 500500);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_true(atomic_load(&shared->interrupted) <= 1000);
	child_kill(pid);
}

/* A handler that runs still ends epoll_wait() with EINTR: a program that counts on it does not sleep on. */
static void test_handlers_interrupt(void **state)
{
	pid_t pid = child_start(work_signalled);

	(void)state;
	wait_ready(1);
	for (uint32_t i = 1; i <= 200; i++) {
		const union sigval v = {.sival_int = 1};
		pid_t sender = fork();

		if (sender == 0) {
			sigqueue(pid, SIGRTMIN + 1, v);
			_exit(0);
		}
		take(pid);
		assert_int_equal(waitpid(sender, NULL, 0), sender);
		for (int64_t until = dc_now_ns() + INT64_C(10000000000);
		     atomic_load(&shared->interrupted) < i && dc_now_ns() < until;)
			sched_yield();
		assert_int_equal(atomic_load(&shared->handled), i);
		assert_int_equal(atomic_load(&shared->interrupted), i);
	}
	assert_int_equal(atomic_load(&shared->wrong), 0);
	child_kill(pid);
}

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

/* Several hundred: all of them. */
static void test_many(void **state)
{
	pid_t pid = child_start(work_many);
	struct dc_threads_totals t;

	(void)state;
	wait_ready(500);
	t = take(pid);
	assert_string_equal(t.why, "");
	assert_int_equal(t.taken, 500);
	for (unsigned i = 0; i < 500; i++)
		assert_taken(found_thread(shared->tids[i]), shared->at[i]);
	child_kill(pid);
}

/* Taken first and written later, all is as if it had been written at once. */
static void test_in_two_steps(void **state)
{
	in_two_steps = true;
	test_deadlocked(state);
	test_many(state);
	test_cut(state);
	in_two_steps = false;
}

#define DEEP 600u

static void *stand_deep(void *arg)
{
	volatile uint8_t deep[DC_THREADS_STACK_BYTES];

	for (size_t i = 0; i < sizeof(deep); i += 4096)
		deep[i] = 1;
	return sleep_on(arg);
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
	in_two_steps = true;
	t = take(pid);
	in_two_steps = false;
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
		cmocka_unit_test(test_deadlocked),    cmocka_unit_test(test_stopped),	 cmocka_unit_test(test_spinning),
		cmocka_unit_test(test_does_not_stop), cmocka_unit_test(test_held_by_another), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_budget),	      cmocka_unit_test(test_disk_full),	 cmocka_unit_test(test_ends_midway),
		cmocka_unit_test(test_waits_go_on),   cmocka_unit_test(test_signals_pass),
		cmocka_unit_test(test_handlers_interrupt), cmocka_unit_test(test_cut),
		cmocka_unit_test(test_ends_with_the_stack), cmocka_unit_test(test_first_has_ended),
		cmocka_unit_test(test_many), cmocka_unit_test(test_in_two_steps), cmocka_unit_test(test_out_of_room),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
