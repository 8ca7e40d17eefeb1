/* SPDX-License-Identifier: MIT */
/* trigger/threads.c: a process that is stopped notices nothing of it: waits go on as they were, signals come as they came. */
#include "tests/stopping.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits_go_on),
		cmocka_unit_test(test_signals_pass),
		cmocka_unit_test(test_handlers_interrupt),
	};

	return cmocka_run_group_tests(tests, stopping_set_up, NULL);
}
