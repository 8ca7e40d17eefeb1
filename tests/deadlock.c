/* SPDX-License-Identifier: MIT */
/*
 * A program of 50 threads that wait for each other for ever, each at another depth and in another way, for e2e_stacks: what
 * its stacks are, debuggers agree on. Says "stuck" when they all are. Its main thread waits in a signal handler.
 */
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <dashcam.h>

#define THREADS 50

static pthread_mutex_t locks[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static sem_t none;
static int quiet[2];

/* Waits, and does something afterwards: a call that comes last might be a jump. */
static __attribute__((noinline)) int wait_in(unsigned way)
{
	struct pollfd p = {.fd = quiet[0], .events = POLLIN};
	char byte = 0;

	switch (way) {
	case 0:
		pthread_mutex_lock(&locks[0]);
		break;
	case 1:
		sem_wait(&none);
		break;
	case 2:
		poll(&p, 1, -1);
		break;
	case 3:
		byte = (char)read(quiet[0], &byte, 1);
		break;
	case 4:
		pthread_mutex_lock(&locks[1]);
		pthread_cond_wait(&never, &locks[1]);
		break;
	default:
		nanosleep(&(struct timespec){.tv_sec = 100000}, NULL);
	}
	return byte + (int)way;
}

static __attribute__((noinline)) int descend(unsigned depth, unsigned way)
{
	volatile char some[64] = {(char)depth};

	return depth ? descend(depth - 1, way) + some[0] : wait_in(way);
}

static int compare(const void *a, const void *b)
{
	static __thread int calls;

	if (++calls == 3)
		return descend(2, (unsigned)*(const int *)a % 6);
	return *(const int *)a - *(const int *)b;
}

/* Every other one through a function of the C library. */
static void *work(void *arg)
{
	const unsigned i = (unsigned)(uintptr_t)arg;
	int numbers[8] = {(int)i, (int)i, (int)i, (int)i, (int)i, (int)i, (int)i, (int)i};

	DC_SPAN("stuck", "thread", i);
	if (i % 2)
		qsort(numbers, 8, sizeof(numbers[0]), compare);
	else
		numbers[0] = descend(i, i % 6);
	return (void *)(uintptr_t)numbers[0];
}

static void on_signal(int sig)
{
	descend(3, sig == SIGUSR2 ? 5 : 3);
}

int main(void)
{
	pthread_t thread;

	if (pipe(quiet) < 0 || sem_init(&none, 0, 0) < 0)
		return 1;
	signal(SIGUSR2, on_signal);
	pthread_mutex_lock(&locks[0]);
	for (uintptr_t i = 1; i < THREADS; i++)
		if (pthread_create(&thread, NULL, work, (void *)i) != 0)
			return 1;
	sleep(1);
	puts("stuck");
	fflush(stdout);
	raise(SIGUSR2);
	return 0;
}
