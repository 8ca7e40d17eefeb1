/* SPDX-License-Identifier: MIT */
/*
 * Threads at full rate in a ring so small that it turns over many times a second, and a reader that saves it meanwhile.
 * No snapshot holds a torn or foreign event, each holds all that was recorded before it began and not recycled since,
 * and in the end events, overwritten and dropped ones add up to what was produced, exactly.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <dashcam.h>

#include "storm.h"

#define THREADS 4u

static struct {
	_Atomic uint64_t done; /* events whose call has returned */
	char apart[56];
} progress[THREADS];
static _Atomic bool stop;

static void *record(void *arg)
{
	unsigned thread = (unsigned)(uintptr_t)arg;
	uint64_t n = 0;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		storm_event(thread, n++);
		/* release: the snapshotter that reads it sees the event in the ring */
		atomic_store_explicit(&progress[thread].done, n, memory_order_release);
	}
	return NULL;
}

static void save_and_check(const struct storm *s, const char *ring, struct storm_seen *ret_seen)
{
	char path[512];
	uint64_t before[THREADS];
	for (unsigned i = 0; i < THREADS; i++)
		before[i] = atomic_load_explicit(&progress[i].done, memory_order_acquire);
	STORM_NEED(storm_save(s, ring, path, sizeof path) == 0);
	storm_read(path, ret_seen);
	remove(path);
	/* what was recycled under the reader's hands may be the newest chunk of a lane */
	for (unsigned i = 0; i < THREADS && !ret_seen->discarded && !ret_seen->dropped; i++)
		STORM_NEED(ret_seen->threads[i].next >= before[i], "thread %u: %llu, was at %llu", i,
			   (unsigned long long)ret_seen->threads[i].next, (unsigned long long)before[i]);
}

static uint64_t produced(void)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < THREADS; i++)
		sum += atomic_load_explicit(&progress[i].done, memory_order_acquire);
	return sum;
}

int main(void)
{
	struct storm s;
	struct storm_seen seen;
	struct dc_stats stats = { .size = sizeof stats };
	pthread_t threads[THREADS];
	unsigned saves = 0;
	uint64_t discarded = 0;
	storm_begin(&s, "1MiB");
	STORM_NEED(dc_start(NULL) == 0);
	STORM_NEED(dc_stats(&stats) == 0);
	for (unsigned i = 0; i < THREADS; i++)
		STORM_NEED(pthread_create(&threads[i], NULL, record, (void *)(uintptr_t)i) == 0);
	for (uint64_t end = storm_now_ns() + (storm_long() ? 60 : 4) * 1000000000ull; storm_now_ns() < end; saves++) {
		save_and_check(&s, stats.ring, &seen);
		discarded += seen.discarded;
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	save_and_check(&s, stats.ring, &seen);
	STORM_NEED(seen.discarded == 0);
	STORM_NEED(seen.events + seen.overwritten + seen.dropped == produced(), "%llu there, %llu overwritten, %llu dropped, %llu produced",
		   (unsigned long long)seen.events, (unsigned long long)seen.overwritten,
		   (unsigned long long)seen.dropped, (unsigned long long)produced());
	printf("%llu events (%llu dropped), %u snapshots, %llu chunks recycled under them\n",
	       (unsigned long long)produced(), (unsigned long long)seen.dropped, saves, (unsigned long long)discarded);
	storm_end(&s);
	return 0;
}
