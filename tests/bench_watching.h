/* SPDX-License-Identifier: MIT */
/*
 * A watcher in a child process, and processes that record beside it: for benchmarks of trigger/ as a whole (tests have
 * watching.h, whose guests are programs of their own). All live in two private directories, and all of it goes with the end,
 * a bad one included.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/scratch.h"
#include "trigger/watcher.h"

/* What the watcher tells; in memory shared with it. */
struct bench_watching {
	_Atomic int found; /* rings */
	_Atomic int saved; /* captures */
	char log[256]; /* its last line */
};
extern struct bench_watching *bench_watching;
extern char bench_rings[SCRATCH_BYTES], bench_captures[64];

/* Zeroed memory that children share. */
void *bench_shared(size_t bytes);
void bench_sleep_ms(long ms);

/* @name: of the benchmark. Makes the directories. */
void bench_watching_begin(const char *name);
/*
 * bench_watching_start() - the watcher. Return: its pid
 * @config: the directories, what is found, saved and, unless it is set, the log are filled in; what has to be kept of a log
 * that is set is told to bench_watching_log().
 */
pid_t bench_watching_start(struct dc_watcher_config *config);
void bench_watching_log(void *arg, const char *line);
/* A process that records into a ring of @memory_bytes (0: as large as it is by default) and does @body, then ends. */
pid_t bench_watching_record(size_t memory_bytes, void (*body)(int), int arg);
void bench_watching_wait(const _Atomic int *count, int wanted, const char *what); /* at most 10 s */
/* Ends one of these by @signal, 0: it ends by itself. */
void bench_watching_stop(pid_t pid, int signal);
/* Ends all that still run, and removes the directories. */
void bench_watching_end(void);
_Noreturn void bench_die(const char *what);
