/* SPDX-License-Identifier: MIT */
/*
 * What the watcher costs while nothing happens, with the default rules: a hundred recorded processes that record an event now
 * and then.
 *
 *     bench_watcher [--json] [--seconds N] [--no-rules]        20
 *
 * Bars: ≤ 0.2 % of a core, ≤ 32 MiB. Beside it: one trigger at the end, all hundred processes in one capture.
 */
#include <signal.h>
#include <string.h>

#include "recorder/dashcam.h"
#include "tests/bench.h"
#include "tests/bench_watching.h"

#define PROCESSES 100

/* About once a second, none in step with another. */
static void record(int i)
{
	for (unsigned n = 0;; n++) {
		DC_INSTANT("bench.now_and_then", "n", n);
		bench_sleep_ms(950 + i);
	}
}

static double cpu_ns(pid_t pid)
{
	struct timespec cpu;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &cpu))
		bench_die("the watcher is gone");
	return (double)cpu.tv_sec * 1e9 + (double)cpu.tv_nsec;
}

/* A line of /proc/PID/status, in MiB. */
static double status_mib(pid_t pid, const char *key)
{
	char path[64], line[256];
	double kib = 0;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, key, strlen(key)) == 0)
			kib = atof(line + strlen(key));
	if (f)
		fclose(f);
	return kib / 1024;
}

/* Return: the watcher. */
static pid_t start_all(bool no_rules)
{
	struct dc_watcher_config config;
	struct dc_rules rules = {0};
	pid_t watcher;

	bench_watching_begin("bench_watcher");
	if (dc_rules_default(&rules) < 0)
		bench_die("no memory");
	dc_watcher_defaults(&config);
	config.rules = no_rules ? NULL : &rules;
	watcher = bench_watching_start(&config);
	dc_rules_cleanup(&rules);
	for (int i = 0; i < PROCESSES; i++)
		bench_watching_record(0, record, i);
	bench_watching_wait(&bench_watching->found, PROCESSES, "the watcher does not find all rings; is there room on /dev/shm?");
	return watcher;
}

int main(int argc, char **argv)
{
	struct bench_report r;
	bool no_rules = false;
	int seconds = 20;

	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], "--seconds") == 0 && atoi(argv[i + 1]) > 0)
			seconds = atoi(argv[i + 1]);
	for (int i = 1; i < argc; i++)
		no_rules = no_rules || strcmp(argv[i], "--no-rules") == 0;
	const pid_t watcher = start_all(no_rules);
	bench_sleep_ms(2000); /* what it does once per ring is over */
	double cpu = cpu_ns(watcher), wall = bench_now_ns();
	bench_sleep_ms(seconds * 1000L);
	cpu = cpu_ns(watcher) - cpu;
	wall = bench_now_ns() - wall;
	double rss = status_mib(watcher, "VmRSS:");
	double began = bench_now_ns();
	kill(watcher, SIGUSR1);
	bench_watching_wait(&bench_watching->saved, 1, "the watcher does not save");
	double saved = bench_now_ns() - began;

	bench_begin(&r, "bench_watcher", argc, argv);
	bench_figure(&r, "processes", PROCESSES, "", "recorded, an event a second each");
	bench_figure(&r, "seconds", wall / 1e9, "s", "");
	bench_figure(&r, "cpu_percent", cpu / wall * 100, "%", "of a core; bar 0.2");
	bench_figure(&r, "rss_mib", rss, "MiB", "of the watcher; bar 32");
	bench_figure(&r, "rss_peak_mib", status_mib(watcher, "VmHWM:"), "MiB",
		     "with the capture of all of them");
	bench_figure(&r, "saved_ms", saved / 1e6, "ms", "trigger to durable, all processes in one capture");
	bench_end(&r);
	bench_watching_end();
	return 0;
}
