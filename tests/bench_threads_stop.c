/* SPDX-License-Identifier: MIT */
/*
 * How long a thread is held while its stack is copied, for 1, 50 and 500 threads that wait and for two that compute: what
 * the recorded process pays for the stacks in a capture. Held is counted from the request to stop until it was let go, so
 * the time it takes to stop is in it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/bench.h"
#include "tests/memory_writer.h"
#include "trigger/proc.h"
#include "trigger/threads.h"

#define ROUNDS 40
#define BAR_US 100.0

static struct dc_writer writer;
static _Atomic uint32_t *ready;

/* About as deep as a server's stack when it waits. */
static __attribute__((noinline)) void stand(void)
{
	volatile uint8_t frames[6 << 10];

	memset((void *)frames, 1, sizeof(frames));
	atomic_fetch_add(ready, 1);
	for (;;)
		frames[0] = (uint8_t)pause();
}

static void *wait_on(void *arg)
{
	stand();
	return arg;
}

static void *compute(void *arg)
{
	atomic_fetch_add(ready, 1);
	for (volatile uint64_t n = 1; n; n++)
		continue;
	return arg;
}

static pid_t start(unsigned count, void *(*work)(void *))
{
	pthread_attr_t small;
	pthread_t thread;
	pid_t pid;

	atomic_store(ready, 0);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pthread_attr_init(&small);
		pthread_attr_setstacksize(&small, 128 << 10);
		for (unsigned i = 1; i < count; i++)
			if (pthread_create(&thread, &small, work, NULL) != 0)
				_exit(1);
		work(NULL);
	}
	while (atomic_load(ready) < count)
		usleep(1000);
	usleep(20000);
	return pid;
}

static int take(pid_t pid, struct dc_threads_totals *ret_totals)
{
	struct dc_proc_stat st;
	int r = dc_proc_stat((uint32_t)pid, &st);

	memory_writer_reset(&writer);
	if (r == 0)
		r = dc_threads_write((uint32_t)pid, st.start_time, 0, INT64_C(10000000000), &writer, ret_totals);
	return r;
}

/* Median of the medians, and of the maxima: one round in which the machine was elsewhere does not count. */
static double measure(struct bench_report *r, const char *name, unsigned count, void *(*work)(void *))
{
	double median[ROUNDS], longest[ROUNDS], each[ROUNDS], worst = 0, held;
	pid_t pid = start(count, work);
	unsigned missed = 0;
	char key[32];

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct dc_threads_totals t = {0};

		if (take(pid, &t) < 0)
			exit(1);
		missed += count - t.taken;
		median[i] = (double)t.stopped_median_ns / 1e3;
		longest[i] = (double)t.stopped_max_ns / 1e3;
		each[i] = (double)t.took_ns / 1e3 / count;
		worst = longest[i] > worst ? longest[i] : worst;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	held = bench_quantile(median, ROUNDS, 0.5);
	snprintf(key, sizeof(key), "%s_held_us", name);
	bench_figure(r, key, held, "us", "a thread was held, median");
	snprintf(key, sizeof(key), "%s_longest_us", name);
	bench_figure(r, key, bench_quantile(longest, ROUNDS, 0.5), "us", "... the longest of all, median over the rounds");
	snprintf(key, sizeof(key), "%s_worst_us", name);
	bench_figure(r, key, worst, "us", "... the longest of all rounds");
	snprintf(key, sizeof(key), "%s_each_us", name);
	bench_figure(r, key, bench_quantile(each, ROUNDS, 0.5), "us", "all of it, per thread");
	if (missed)
		bench_figure(r, "missed", missed, "", "threads that were not taken");
	return held;
}

int main(int argc, char **argv)
{
	struct bench_report r;
	double held = 0, h;

	ready = mmap(NULL, sizeof(*ready), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ready == MAP_FAILED)
		return 1;
	bench_begin(&r, "bench_threads_stop", argc, argv);
	h = measure(&r, "one", 1, wait_on);
	held = h > held ? h : held;
	h = measure(&r, "fifty", 50, wait_on);
	held = h > held ? h : held;
	h = measure(&r, "many", 500, wait_on);
	held = h > held ? h : held;
	h = measure(&r, "busy", 2, compute);
	bench_figure(&r, "held_us", held, "us", "the largest of the medians of threads that wait; bar 100");
	bench_end(&r);
	return held <= BAR_US ? 0 : 1;
}
