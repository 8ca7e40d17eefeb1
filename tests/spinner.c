/* SPDX-License-Identifier: MIT */
/*
 * A program that never heard of dashcam, for e2e_sample: two threads, one that computes in function_that_computes() and one
 * that waits in function_that_waits(). spinner [SIGNAL [SECONDS]]: after SIGUSR2, or 20 s, it dies of SIGNAL, or ends.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t enough;

static void on_signal(int signal_number)
{
	(void)signal_number;
	enough = 1;
}

__attribute__((noinline)) static void function_that_computes(void)
{
	for (volatile int i = 0; i < 1000000; i++)
		;
}

__attribute__((noinline)) static void function_that_waits(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static void *wait_on(void *arg)
{
	while (!enough)
		function_that_waits();
	return arg;
}

int main(int argc, char **argv)
{
	const time_t until = time(NULL) + (argc > 2 ? atoi(argv[2]) : 20);
	pthread_t t;

	signal(SIGSEGV, SIG_DFL); /* a sanitizer's own handler would make an exit of it */
	signal(SIGUSR2, on_signal);
	pthread_create(&t, NULL, wait_on, NULL);
	while (!enough && time(NULL) < until)
		function_that_computes();
	enough = 1;
	pthread_join(t, NULL);
	if (argc > 1)
		raise(atoi(argv[1]));
	return 0;
}
