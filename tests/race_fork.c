/* SPDX-License-Identifier: MIT */
/*
 * A process that records in several threads forks thousands of times, and no watcher cleans up. No child hangs or crashes;
 * each that records has a ring of its own, with its own events and nobody else's; the parent's ring stays whole; and once
 * they are not young any more, dead rings are swept down to the bound.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dashcam.h>

#include "storm.h"

#define THREADS 2u
#define EVENTS 50u
#define KEEP_FILES 64u /* recorder/sweep.c */
#define YOUNG_S 10u

/* What a child and its child have recorded. */
struct shared {
	struct told {
		char ring[112]; /* empty: nothing recorded */
		unsigned threads; /* 0 .. threads - 1, EVENTS each */
	} told[2];
};

static struct shared *shared;
static struct storm storm;
static _Atomic bool stop;
static _Atomic uint64_t done[THREADS];

static void *record(void *arg)
{
	unsigned thread = (unsigned)(uintptr_t)arg;
	for (uint64_t n = 0; !atomic_load_explicit(&stop, memory_order_relaxed);) {
		storm_event(thread, n++);
		atomic_store_explicit(&done[thread], n, memory_order_release); /* read when the thread has been joined */
	}
	return NULL;
}

static void *record_some(void *arg)
{
	for (uint64_t n = 0; n < EVENTS; n++)
		storm_event((unsigned)(uintptr_t)arg, n);
	return NULL;
}

static void tell(struct told *t, unsigned threads)
{
	struct dc_stats stats = { .size = sizeof stats };
	STORM_NEED(dc_stats(&stats) == 0);
	memcpy(t->ring, stats.ring, sizeof t->ring);
	t->threads = threads;
}

/* The leader records in the lane it had in its parent, unless somebody sees to it: another thread has that by now. */
static void with_a_thread(bool leader_first)
{
	pthread_t thread;
	if (leader_first)
		storm_event(0, 0);
	STORM_NEED(pthread_create(&thread, NULL, record_some, (void *)1) == 0);
	for (uint64_t n = leader_first; n < EVENTS; n++) {
		if (n % 8 == 0)
			sched_yield();
		storm_event(0, n);
	}
	pthread_join(thread, NULL);
	tell(&shared->told[0], 2);
}

static void with_a_child(void)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		record_some((void *)0);
		tell(&shared->told[1], 1);
		_exit(0);
	}
	STORM_NEED(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "status %x", status);
	record_some((void *)0);
	tell(&shared->told[0], 1);
}

static void child(unsigned number)
{
	alarm(60); /* hangs do not go unnoticed */
	switch (number % 6) {
	case 0:
		_exit(0);
	case 1:
	case 2: /* by raw clone */
		record_some((void *)0);
		tell(&shared->told[0], 1);
		break;
	case 3:
	case 4:
		with_a_thread(number % 6 == 3);
		break;
	case 5:
		with_a_child();
		break;
	}
	_exit(0);
}

static void check(unsigned number, struct told *t)
{
	struct storm_seen seen;
	char path[512];
	if (!t->ring[0])
		return;
	STORM_NEED(storm_save(&storm, t->ring, path, sizeof path) == 0);
	storm_read(path, &seen);
	remove(path);
	/* first events that do not wait for another thread's start any longer are counted */
	for (unsigned i = 0; i < t->threads; i++)
		STORM_NEED(seen.threads[i].events + seen.dropped >= EVENTS && seen.threads[i].next == EVENTS, "child %u, thread %u: %llu events, next %llu, %llu dropped",
			   number, i, (unsigned long long)seen.threads[i].events, (unsigned long long)seen.threads[i].next, (unsigned long long)seen.dropped);
	STORM_NEED(seen.events + seen.dropped == t->threads * EVENTS && !seen.overwritten, "child %u: %llu events, %llu dropped", number,
		   (unsigned long long)seen.events, (unsigned long long)seen.dropped);
}

static void fork_once(unsigned number, bool look)
{
	int status;
	memset(shared, 0, sizeof *shared);
	pid_t pid = number % 6 == 2 ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
	STORM_NEED(pid >= 0, "%s", strerror(errno));
	if (pid == 0)
		child(number);
	STORM_NEED(waitpid(pid, &status, 0) == pid && status == 0, "child %u ended with %x", number, status);
	for (unsigned i = 0; look && i < 2; i++)
		check(number, &shared->told[i]);
}

static void check_own(const char *ring, const pthread_t *threads)
{
	struct storm_seen seen;
	char path[512];
	uint64_t produced = 0;
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		produced += atomic_load(&done[i]);
	}
	STORM_NEED(storm_save(&storm, ring, path, sizeof path) == 0);
	storm_read(path, &seen);
	STORM_NEED(seen.events + seen.overwritten + seen.dropped == produced, "%llu + %llu + %llu, %llu produced",
		   (unsigned long long)seen.events, (unsigned long long)seen.overwritten,
		   (unsigned long long)seen.dropped, (unsigned long long)produced);
}

/* Every start removes four at most, so there must be enough of them. */
static void check_sweep(void)
{
	uint64_t bytes, began;
	unsigned before = storm_rings(&storm, &bytes), starts = 0, left = before;
	storm_sleep_ns((YOUNG_S + 1) * 1000000000ull);
	began = storm_now_ns();
	for (; left > KEEP_FILES + starts && starts < before; starts++) {
		fork_once(1, false);
		left = storm_rings(&storm, &bytes);
	}
	printf("%u dead rings before, %u after %u starts in %llu ms, %llu KiB\n", before, left, starts,
	       (unsigned long long)(storm_now_ns() - began) / 1000000, (unsigned long long)bytes / 1024);
	STORM_NEED(starts <= before / 3 + 2 && bytes <= (256u << 20), "%u starts", starts);
}

int main(void)
{
	struct dc_stats stats = { .size = sizeof stats };
	pthread_t threads[THREADS];
	unsigned forks = storm_rounds(2000, 10000);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	STORM_NEED(shared != MAP_FAILED);
	storm_begin(&storm, "1MiB");
	STORM_NEED(dc_start(NULL) == 0 && dc_stats(&stats) == 0);
	for (unsigned i = 0; i < THREADS; i++)
		STORM_NEED(pthread_create(&threads[i], NULL, record, (void *)(uintptr_t)i) == 0);
	for (unsigned i = 0; i < forks; i++)
		fork_once(i, true);
	check_own(stats.ring, threads);
	check_sweep();
	storm_end(&storm);
	return 0;
}
