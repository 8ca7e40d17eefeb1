/* SPDX-License-Identifier: MIT */
/* What it costs a process to have libdashcam.so loaded, before anything is recorded: programs that do nothing, in turns. */
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "tests/bench.h"
#include "tests/bench_hotpath.h"

#define TIMES 201

static double run_us(const char *name)
{
	char path[PATH_MAX], *argv[] = {path, NULL}, *none[] = {NULL};
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
	pid_t pid;
	int status;

	if (n < 0)
		exit(1);
	path[n] = 0;
	strcpy(strrchr(path, '/') + 1, name);
	double start = bench_now_ns();
	if (posix_spawn(&pid, path, NULL, NULL, argv, none) || waitpid(pid, &status, 0) < 0 || status) {
		fprintf(stderr, "bench_hotpath: '%s' does not run\n", path);
		exit(1);
	}
	return (bench_now_ns() - start) / 1000;
}

double hot_load_us(void)
{
	static double with[TIMES], without[TIMES];

	for (int i = 0; i < TIMES; i++) {
		without[i] = run_us("load_without");
		with[i] = run_us("load_with");
	}
	return bench_quantile(with, TIMES, 0.5) - bench_quantile(without, TIMES, 0.5);
}
