/* SPDX-License-Identifier: MIT */
/*
 * A program for e2e_hostile: holder LIBRARY... has a thread wait in function wait_in_N() of the Nth library, from 0, and
 * says "ready".
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "recorder/dashcam.h"

static void *call(void *function)
{
	((void (*)(void))(uintptr_t)function)();
	return NULL;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		void *library = dlopen(argv[i], RTLD_NOW), *function = NULL;
		char name[32];
		pthread_t t;

		snprintf(name, sizeof name, "wait_in_%d", i - 1);
		if (library)
			function = dlsym(library, name);
		if (!function || pthread_create(&t, NULL, call, function) != 0) {
			printf("%s: %s\n", argv[i], dlerror());
			return 1;
		}
	}
	DC_INSTANT("ready");
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
