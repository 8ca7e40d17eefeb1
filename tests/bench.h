/* SPDX-License-Identifier: MIT */
/*
 * What the benchmarks share: time, medians, the floor, and figures as text or --json. A benchmark measures everything
 * it compares in one run, in turns, and takes medians over the rounds: these machines are noisy, ratios hold.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
static inline uint64_t bench_ticks(void)
{
	return __builtin_ia32_rdtsc();
}
#else
static inline uint64_t bench_ticks(void)
{
	uint64_t t;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
	return t;
}
#endif

static inline double bench_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline void bench_pin(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

static inline int bench_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

/* Sorts @values. @q: 0.5 is the median. */
static inline double bench_quantile(double *values, size_t n, double q)
{
	qsort(values, n, sizeof *values, bench_compare);
	size_t i = (size_t)(q * (double)(n - 1) + 0.5);
	return values[i];
}

/* The floor: read the clock, store 8 bytes, walk on through memory as large as a ring. ns per turn. */
static __attribute__((noinline, unused)) double bench_floor_ns(uint8_t *memory, size_t bytes, long n)
{
	double start = bench_now_ns();
	size_t mask = bytes - 1, at = 0;
	for (long i = 0; i < n; i++) {
		uint64_t t = bench_ticks();
		memcpy(memory + (at & mask), &t, 8);
		at += 8;
		__asm__ volatile("" ::"r"(memory) : "memory");
	}
	return (bench_now_ns() - start) / (double)n;
}

/* One figure: text on a line of its own, or a member of the JSON object. */
struct bench_report {
	bool json;
	bool any;
};

static inline void bench_begin(struct bench_report *r, const char *name, int argc, char **argv)
{
	struct utsname u;
	char cpu[128] = "unknown";
	char line[256];
	*r = (struct bench_report){ 0 };
	for (int i = 1; i < argc; i++)
		r->json |= strcmp(argv[i], "--json") == 0;
	uname(&u);
	FILE *f = fopen("/proc/cpuinfo", "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "model name : %127[^\n]", cpu) == 1)
			break;
	if (f)
		fclose(f);
	if (r->json)
		printf("{\"benchmark\":\"%s\",\"cpu\":\"%s\",\"cpus\":%ld,\"kernel\":\"%s\"", name, cpu,
		       sysconf(_SC_NPROCESSORS_ONLN), u.release);
	else
		printf("%s: %s, %ld CPUs, Linux %s, %s\n", name, cpu, sysconf(_SC_NPROCESSORS_ONLN), u.release,
		       __VERSION__);
}

static inline void bench_figure(struct bench_report *r, const char *key, double value, const char *unit,
				const char *what)
{
	if (r->json)
		printf(",\"%s\":%.6g", key, value);
	else
		printf("  %-22s %10.3f %-6s %s\n", key, value, unit, what);
}

static inline void bench_text(struct bench_report *r, const char *key, const char *text)
{
	if (r->json)
		printf(",\"%s\":\"%s\"", key, text);
	else
		printf("  %-22s %s\n", key, text);
}

static inline void bench_end(struct bench_report *r)
{
	if (r->json)
		printf("}\n");
}
