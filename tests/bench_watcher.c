/* SPDX-License-Identifier: MIT */
/*
 * What the watcher costs while nothing happens, with the default rules: a hundred recorded processes that record an event now
 * and then.
 *
 *     bench_watcher [--json] [--seconds N] [--no-rules]        20
 *
 * Bars: ≤ 0.2 % of a core, ≤ 32 MiB. Beside it: one trigger at the end, all hundred processes in one capture.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "recorder/dashcam.h"
#include "tests/bench.h"
#include "tests/scratch.h"
#include "trigger/watcher.h"

#define PROCESSES 100

static struct shared {
	_Atomic int recording;
	_Atomic int found;
	_Atomic int saved;
	char capture[DC_SAVE_PATH_BYTES];
	char log[256]; /* its last line */
} * shared;

static pid_t pids[PROCESSES + 1]; /* the last one is the watcher */
static char rings[SCRATCH_BYTES], captures[64];

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void remove_all(void)
{
	char command[2 * SCRATCH_BYTES];

	snprintf(command, sizeof command, "rm -rf -- '%s' '%s'", rings, captures);
	if (system(command))
		fprintf(stderr, "bench_watcher: '%s' and '%s' are left behind\n", rings, captures);
}

static void end_all(void)
{
	for (int i = PROCESSES; i >= 0; i--) {
		if (pids[i] > 0)
			kill(pids[i], i == PROCESSES ? SIGTERM : SIGKILL);
		if (pids[i] > 0)
			waitpid(pids[i], NULL, 0);
	}
	remove_all();
}

static void die(const char *what)
{
	fprintf(stderr, "bench_watcher: %s; the watcher's last words: %s\n", what,
		shared && shared->log[0] ? shared->log : "none");
	end_all();
	exit(1);
}

/* About once a second, none in step with another. */
static void recorded_main(int i)
{
	struct dc_opts opts = DC_OPTS_INIT;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	opts.dir = rings;
	if (dc_start(&opts))
		_exit(1);
	atomic_fetch_add(&shared->recording, 1);
	for (unsigned n = 0;; n++) {
		DC_INSTANT("bench.now_and_then", "n", n);
		sleep_ms(950 + i);
	}
}

static void on_found(void *arg, const struct dc_ring *ring)
{
	(void)arg, (void)ring;
	atomic_fetch_add(&shared->found, 1);
}

static void on_saved(void *arg, const char *path)
{
	(void)arg;
	snprintf(shared->capture, sizeof shared->capture, "%s", path);
	atomic_fetch_add(&shared->saved, 1);
}

static void on_log(void *arg, const char *line)
{
	(void)arg;
	snprintf(shared->log, sizeof shared->log, "%s", line);
}

static bool no_rules;

static void watcher_main(void)
{
	struct dc_watcher_config config;
	struct dc_rules rules = {0};
	struct dc_watcher *w;
	char why[DC_WHY_BYTES];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dc_watcher_defaults(&config);
	config.dir = rings;
	config.output.dir = captures;
	if (dc_rules_default(&rules) < 0)
		_exit(1);
	config.rules = no_rules ? NULL : &rules;
	config.log = on_log;
	config.on_found = on_found;
	config.on_saved = on_saved;
	if (dc_watcher_open(&config, &w, why) < 0) {
		on_log(NULL, why);
		_exit(1);
	}
	dc_watcher_loop(w);
	dc_watcher_close(w, false);
	_exit(0);
}

static void wait_for(_Atomic int *count, int wanted, const char *what)
{
	for (int i = 0; atomic_load(count) < wanted; i++) {
		if (i == 1000)
			die(what);
		sleep_ms(10);
	}
}

static double cpu_ns(pid_t pid)
{
	struct timespec cpu;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &cpu))
		die("the watcher is gone");
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

static void start_all(void)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	scratch_memory("bench_watcher", rings);
	snprintf(captures, sizeof captures, "/var/tmp/bench_watcher.XXXXXX");
	if (shared == MAP_FAILED || !mkdtemp(captures)) {
		fprintf(stderr, "bench_watcher: cannot make a directory in /var/tmp\n");
		exit(1);
	}
	for (int i = 0; i <= PROCESSES; i++) {
		pids[i] = fork();
		if (pids[i] == 0 && i < PROCESSES)
			recorded_main(i);
		if (pids[i] == 0)
			watcher_main();
	}
	wait_for(&shared->recording, PROCESSES, "some processes do not record; is there room on /dev/shm?");
	wait_for(&shared->found, PROCESSES, "the watcher does not find all rings");
}

int main(int argc, char **argv)
{
	struct bench_report r;
	int seconds = 20;

	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], "--seconds") == 0 && atoi(argv[i + 1]) > 0)
			seconds = atoi(argv[i + 1]);
	for (int i = 1; i < argc; i++)
		no_rules = no_rules || strcmp(argv[i], "--no-rules") == 0;
	start_all();
	sleep_ms(2000); /* what it does once per ring is over */
	const pid_t watcher = pids[PROCESSES];
	double cpu = cpu_ns(watcher), wall = bench_now_ns();
	sleep_ms(seconds * 1000L);
	cpu = cpu_ns(watcher) - cpu;
	wall = bench_now_ns() - wall;
	double rss = status_mib(watcher, "VmRSS:");
	double began = bench_now_ns();
	kill(watcher, SIGUSR1);
	wait_for(&shared->saved, 1, "the watcher does not save");
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
	end_all();
	return 0;
}
