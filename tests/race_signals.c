/* SPDX-License-Identifier: MIT */
/*
 * Timers that interrupt events in every phase: the first one of a thread, changes of chunks, the thread's exit. The
 * handlers record too, and are interrupted by handlers that record. All that was recorded decodes, in a small ring and in
 * one that holds everything, and events there, overwritten and dropped add up to the calls made, exactly.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <dashcam.h>

#include "storm.h"

#define THREADS 3u
#define LEVELS 3u /* a thread, a handler on it, a handler on that one */

/* Calls made by each thread at each level; a number is taken before the call. */
static struct {
	_Atomic uint64_t calls[LEVELS];
	char apart[40];
} made[THREADS];
static __thread unsigned self __attribute__((tls_model("initial-exec"))); /* 1.. */
static pthread_key_t at_exit;

static void record(unsigned thread, unsigned level)
{
	/* relaxed: a counter of this thread and handlers on it */
	uint64_t n = atomic_fetch_add_explicit(&made[thread].calls[level], 1, memory_order_relaxed);
	storm_event(STORM_UNORDERED + thread * LEVELS + level, n);
}

static void handler(int number)
{
	if (self)
		record(self - 1, number == SIGRTMIN ? 1 : 2);
}

static timer_t start_timer(int number, long every_ns)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = number };
	struct itimerspec times = { .it_value.tv_nsec = 1, .it_interval.tv_nsec = every_ns };
	timer_t timer;
	event._sigev_un._tid = (int)syscall(SYS_gettid);
	STORM_NEED(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
	STORM_NEED(timer_settime(timer, 0, &times, NULL) == 0);
	return timer;
}

struct thread {
	pthread_t id;
	unsigned number;
	timer_t timers[2];
};

static void be_quiet(timer_t timer)
{
	struct itimerspec never = { .it_value.tv_nsec = 0 };
	timer_settime(timer, 0, &never, NULL);
}

/*
 * The recorder takes back the lane in the second round of destructors; what is recorded later, here and by handlers, takes
 * one again, until the round after that. A handler after the last round would take one that nobody gives back.
 */
static void last_words(void *arg)
{
	static __thread unsigned rounds;
	struct thread *t = arg;
	for (unsigned i = 0; i < 100; i++)
		record(t->number, 0);
	if (++rounds < 2) {
		pthread_setspecific(at_exit, t);
		return;
	}
	be_quiet(t->timers[0]);
	be_quiet(t->timers[1]);
}

static void *body(void *arg)
{
	struct thread *t = arg;
	self = t->number + 1;
	t->timers[0] = start_timer(SIGRTMIN, 23000 + 1000 * t->number);
	t->timers[1] = start_timer(SIGRTMIN + 1, 31000 + 1000 * t->number);
	pthread_setspecific(at_exit, t);
	for (unsigned i = 0; i < 20000; i++)
		record(t->number, 0);
	return NULL;
}

/* Threads come and go: a lane and its open chunk pass from one to the next, under fire. */
static void round_of_threads(void)
{
	struct thread threads[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i].number = i;
		STORM_NEED(pthread_create(&threads[i].id, NULL, body, &threads[i]) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i].id, NULL);
		timer_delete(threads[i].timers[0]);
		timer_delete(threads[i].timers[1]);
	}
}

static void check(const struct storm *s, const char *ring)
{
	struct storm_seen seen;
	char path[512];
	uint64_t calls = 0, handled = 0;
	STORM_NEED(storm_save(s, ring, path, sizeof path) == 0);
	storm_read(path, &seen);
	for (unsigned i = 0; i < THREADS * LEVELS; i++) {
		uint64_t n = atomic_load(&made[i / LEVELS].calls[i % LEVELS]);
		const struct storm_thread *t = &seen.threads[STORM_UNORDERED + i];
		calls += n;
		handled += i % LEVELS ? n : 0;
		STORM_NEED(seen.overwritten || seen.dropped || (t->events == n && t->sum == n * (n - 1) / 2),
			   "%llu of %llu of thread %u, level %u", (unsigned long long)t->events, (unsigned long long)n,
			   i / LEVELS, i % LEVELS);
	}
	STORM_NEED(seen.events + seen.overwritten + seen.dropped == calls, "%llu there, %llu overwritten, %llu dropped, %llu calls",
		   (unsigned long long)seen.events, (unsigned long long)seen.overwritten,
		   (unsigned long long)seen.dropped, (unsigned long long)calls);
	printf("%llu calls, %llu in handlers: %llu there, %llu overwritten, %llu dropped\n", (unsigned long long)calls,
	       (unsigned long long)handled, (unsigned long long)seen.events, (unsigned long long)seen.overwritten,
	       (unsigned long long)seen.dropped);
}

static void storm_of_signals(const char *memory, unsigned rounds)
{
	struct storm s;
	struct dc_stats stats = { .size = sizeof stats };
	storm_begin(&s, memory);
	for (unsigned i = 0; i < rounds; i++)
		round_of_threads();
	STORM_NEED(dc_stats(&stats) == 0);
	STORM_NEED(stats.lanes == 0, "%u lanes were not given back", stats.lanes);
	check(&s, stats.ring);
	storm_end(&s);
}

/* A recorder starts once in a process: a process for each size. */
static void in_child(const char *memory, unsigned rounds)
{
	int status;
	pid_t pid = fork();
	STORM_NEED(pid >= 0);
	if (pid == 0) {
		storm_of_signals(memory, rounds);
		fflush(NULL);
		_exit(0);
	}
	STORM_NEED(waitpid(pid, &status, 0) == pid && status == 0, "status %x", status);
}

int main(void)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
	unsigned rounds = storm_long() ? 2000 : 100;
	STORM_NEED(pthread_key_create(&at_exit, last_words) == 0);
	sigaction(SIGRTMIN, &action, NULL);
	sigaction(SIGRTMIN + 1, &action, NULL);
	in_child("1MiB", rounds);
	in_child("256MiB", rounds / 2);
	return 0;
}
