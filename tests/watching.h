/* SPDX-License-Identifier: MIT */
/*
 * A watcher in a child process, guests beside it, and what came of it: for tests of trigger/ as a whole. Everything
 * lives in two private directories that watching_end() removes; every process started is ended there too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "persist/capture.h"
#include "tests/scratch.h"
#include "trigger/control.h"
#include "trigger/watcher.h"

struct watching {
	char rings[SCRATCH_BYTES];
	char out[SCRATCH_BYTES];
	struct dc_watcher_config config; /* set up by watching_begin(); change it before watching_start() */
	pid_t watcher;
	pid_t guests[128];
	unsigned guest_count;
};

void watching_begin(struct watching *t);
void watching_end(struct watching *t);

void watching_start(struct watching *t);                  /* returns when the watcher serves requests */
int watching_stop(struct watching *t, int signal_number); /* wait status */

/* A guest with these words (tests/guest.c), NULL-terminated. Returns when it has said "ready", if @ready. */
pid_t watching_guest(struct watching *t, bool ready, const char *const *words);
#define GUEST(t, ready, ...) watching_guest(t, ready, (const char *const[]){__VA_ARGS__, NULL})
void watching_kill(struct watching *t, pid_t pid, int signal_number); /* and reaps */

/* Waits until there are @count captures (settled or not), at most 5 s; then looks that no further one comes. */
unsigned watching_captures(struct watching *t, unsigned count);
/* Opens the @index-th capture by name, which is by time. */
struct dc_capture *watching_capture(struct watching *t, unsigned index);

struct watching_reply {
	int count; /* of dc_control_ask() */
	struct dc_control_reply last;
};
struct watching_reply watching_ask(struct watching *t, const struct dc_control_request *request);
struct watching_reply watching_trigger_all(struct watching *t, const char *reason, int64_t last_ns,
					   int64_t after_ns);

/*
 * watching_run_group() - cmocka_run_group_tests() for tests that mostly wait: each in a process of its own, some at a time
 * What they say comes out in order, whole. Return: how many failed.
 */
#define watching_run_group(tests) watching_run_tests(#tests, tests, sizeof(tests) / sizeof((tests)[0]))
struct CMUnitTest;
int watching_run_tests(const char *name, const struct CMUnitTest *tests, size_t count);

/* Whether the kernel's connector tells us of exits. Opening it is not enough: outside of the first pid namespace it is mute. */
bool watching_connector_tells(void);
