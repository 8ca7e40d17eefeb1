/* SPDX-License-Identifier: MIT */
#include "tests/bench_watching.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "recorder/dashcam.h"

#define PIDS_MAX 128

struct bench_watching *bench_watching;
char bench_rings[SCRATCH_BYTES], bench_captures[64];

static const char *bench = "bench";
static pid_t pids[PIDS_MAX]; /* 0: ended */
static int pid_count;

void bench_sleep_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

void *bench_shared(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		bench_die("no memory");
	return at;
}

void bench_watching_begin(const char *name)
{
	bench = name;
	bench_watching = bench_shared(sizeof *bench_watching);
	scratch_memory(name, bench_rings);
	snprintf(bench_captures, sizeof bench_captures, "/var/tmp/%s.XXXXXX", name);
	if (!mkdtemp(bench_captures))
		bench_die("cannot make a directory in /var/tmp");
}

void bench_watching_end(void)
{
	for (int i = 0; i < pid_count; i++)
		bench_watching_stop(pids[i], i ? SIGKILL : SIGTERM);
	scratch_remove(bench_rings);
	scratch_remove(bench_captures);
}

void bench_die(const char *what)
{
	fprintf(stderr, "%s: %s; the watcher's last words: %s\n", bench, what,
		bench_watching && bench_watching->log[0] ? bench_watching->log : "none");
	bench_watching_end();
	exit(1);
}

/* Return: 0 in the child. */
static pid_t start(void)
{
	const pid_t pid = pid_count < PIDS_MAX ? fork() : -1;

	if (pid < 0)
		bench_die("cannot start a process");
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	else
		pids[pid_count++] = pid;
	return pid;
}

void bench_watching_stop(pid_t pid, int signal)
{
	for (int i = 0; i < pid_count; i++) {
		if (!pid || pids[i] != pid)
			continue;
		if (signal)
			kill(pid, signal);
		waitpid(pid, NULL, 0);
		pids[i] = 0;
	}
}

/* --- the watcher --- */

static void on_found(void *arg, const struct dc_ring *ring)
{
	(void)arg, (void)ring;
	atomic_fetch_add(&bench_watching->found, 1);
}

static void on_saved(void *arg, const char *path)
{
	(void)arg, (void)path;
	atomic_fetch_add(&bench_watching->saved, 1);
}

void bench_watching_log(void *arg, const char *line)
{
	(void)arg;
	snprintf(bench_watching->log, sizeof bench_watching->log, "%s", line);
}

pid_t bench_watching_start(struct dc_watcher_config *config)
{
	struct dc_watcher *w;
	char why[DC_WHY_BYTES];
	const pid_t pid = start();

	if (pid)
		return pid;
	config->dir = bench_rings;
	config->output.dir = bench_captures;
	config->log = config->log ? config->log : bench_watching_log;
	config->on_found = on_found;
	config->on_saved = on_saved;
	if (dc_watcher_open(config, &w, why) < 0) {
		bench_watching_log(NULL, why);
		_exit(1);
	}
	dc_watcher_loop(w);
	dc_watcher_close(w, false);
	_exit(0);
}

/* --- processes --- */

pid_t bench_watching_record(size_t memory_bytes, void (*body)(int), int arg)
{
	struct dc_opts opts = DC_OPTS_INIT;
	const pid_t pid = start();

	if (pid)
		return pid;
	opts.dir = bench_rings;
	opts.memory_bytes = memory_bytes;
	if (dc_start(&opts))
		_exit(1);
	body(arg);
	_exit(0);
}

void bench_watching_wait(const _Atomic int *count, int wanted, const char *what)
{
	for (int i = 0; atomic_load(count) < wanted; i++) {
		if (i == 1000)
			bench_die(what);
		bench_sleep_ms(10);
	}
}
