/* SPDX-License-Identifier: MIT */
#include "tools/demo.d/fault.h"

#include <dashcam.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TRANSIENT_NS INT64_C(3000000000)
#define GROWTH_BYTES (64u << 10)
#define CHILDREN 100u

static const struct {
	const char *name;
	bool lasting;
} faults[FAULT_COUNT] = {
	[FAULT_LOCK_CONVOY] = {"lock-convoy", false},
	[FAULT_SLOW_DISK] = {"slow-disk", false},
	[FAULT_DNS_WAIT] = {"dns-wait", false},
	[FAULT_THREAD_LEAK] = {"thread-leak", true},
	[FAULT_MEMORY_GROWTH] = {"memory-growth", true},
	[FAULT_FD_LEAK] = {"fd-leak", true},
	[FAULT_BUSY_LOOP] = {"busy-loop", true},
	[FAULT_LOST_WAKEUP] = {"lost-wakeup", true},
	[FAULT_QUEUE_GROWTH] = {"queue-growth", true},
	[FAULT_RETRY_STORM] = {"retry-storm", false},
	[FAULT_DEADLOCK] = {"deadlock", true},
	[FAULT_SLOW_ROUTE] = {"slow-route", false},
	[FAULT_GC_PAUSE] = {"gc-pause", true},
	[FAULT_CRASH] = {"crash", true},
	[FAULT_FORK_BOMB] = {"fork-bomb", true},
	[FAULT_CLOCK_STEP] = {"clock-step", true},
	[FAULT_LOG_STORM] = {"log-storm", false},
};

static bool allowed;
static _Atomic int64_t until_ns[FAULT_COUNT]; /* 0: not ordered */
static atomic_bool taken[FAULT_COUNT];

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

void fault_allow(void)
{
	allowed = true;
}

int fault_order(const char *name, size_t length)
{
	if (!allowed)
		return -EPERM;
	for (unsigned i = 0; i < FAULT_COUNT; i++) {
		if (strlen(faults[i].name) == length && !memcmp(faults[i].name, name, length)) {
			until_ns[i] = faults[i].lasting ? INT64_MAX : now_ns() + TRANSIENT_NS;
			return 0;
		}
	}
	return -ENOENT;
}

bool fault_is(enum fault f)
{
	int64_t until = atomic_load_explicit(&until_ns[f], memory_order_relaxed);
	return until && now_ns() < until;
}

bool fault_take(enum fault f)
{
	return fault_is(f) && !atomic_exchange(&taken[f], true);
}

void fault_sleep_ms(unsigned ms)
{
	struct timespec left = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		continue;
}

static void *sleep_for_ever(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void leave_thread(void)
{
	pthread_t thread;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	if (pthread_create(&thread, &attr, sleep_for_ever, NULL) == 0)
		pthread_detach(thread);
	else
		DC_LOG(DC_ERROR, "no further thread can be made");
	pthread_attr_destroy(&attr);
}

static void leave_memory(void)
{
	char *bytes = malloc(GROWTH_BYTES);
	if (bytes)
		memset(bytes, 1, GROWTH_BYTES);
	else
		DC_LOG(DC_ERROR, "no memory is left");
	__asm__ volatile("" ::"r"(bytes) : "memory");
}

static void leave_children(void)
{
	for (unsigned i = 0; i < CHILDREN; i++) {
		if (fork() == 0) {
			for (int64_t until = now_ns() + TRANSIENT_NS; now_ns() < until;)
				continue;
			_exit(0);
		}
	}
}

static void follow_null(void)
{
	volatile int *volatile nothing = NULL;
	*nothing = 1;
}

void fault_of_request(void)
{
	if (fault_take(FAULT_CRASH))
		follow_null();
	if (fault_take(FAULT_BUSY_LOOP))
		for (;;)
			__asm__ volatile("");
	if (fault_is(FAULT_THREAD_LEAK))
		leave_thread();
	if (fault_is(FAULT_MEMORY_GROWTH))
		leave_memory();
	if (fault_is(FAULT_FD_LEAK) && dup(0) < 0)
		DC_LOG(DC_ERROR, "no descriptor is left");
	if (fault_take(FAULT_FORK_BOMB))
		leave_children();
	for (unsigned i = 0; i < 200 && fault_is(FAULT_LOG_STORM); i++)
		DC_LOG(DC_ERROR, "upstream %u said no", i);
}
