/* SPDX-License-Identifier: MIT */
/*
 * A program for e2e_hostile and e2e_elsewhere: holder [-u] [-t THREADS] [LIBRARY...] says "ready" when one thread each waits
 * in function wait_in_N() of the Nth library, from 0, and THREADS more in wait_here(). -u: it may not be dumped or traced.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "recorder/dashcam.h"

static void *call(void *function)
{
	((void (*)(void))(uintptr_t)function)();
	return NULL;
}

__attribute__((noinline)) static void wait_here(void)
{
	for (;;)
		pause();
}

static void start(const char *what, void *function)
{
	pthread_t t;

	if (function && pthread_create(&t, NULL, call, function) == 0)
		return;
	printf("%s: %s\n", what, function ? "no thread" : dlerror());
	exit(1);
}

static void start_in(const char *path, int number)
{
	void *library = dlopen(path, RTLD_NOW);
	char name[32];

	snprintf(name, sizeof name, "wait_in_%d", number);
	start(path, library ? dlsym(library, name) : NULL);
}

int main(int argc, char **argv)
{
	int threads = 0;

	for (int option; (option = getopt(argc, argv, "ut:")) != -1;) {
		if (option == 'u')
			prctl(PR_SET_DUMPABLE, 0);
		else if (option == 't')
			threads = atoi(optarg);
	}
	for (int i = optind; i < argc; i++)
		start_in(argv[i], i - optind);
	for (int i = 0; i < threads; i++)
		start("thread", (void *)(uintptr_t)wait_here);
	DC_INSTANT("ready");
	puts("ready");
	fflush(stdout);
	wait_here();
}
