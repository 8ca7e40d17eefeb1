/* SPDX-License-Identifier: MIT */
/*
 * For tests of the guest: programs that record, run in processes of their own, and what their rings say afterwards.
 *
 *     static void app(void *arg) { DC_INSTANT("hello", "n", 1); }
 *
 *     guest_run(app, NULL)      forks; the child records into a private directory (scratch.h) and exits
 *     guest_rings(&rings)       the rings that stand there now, decoded: rings.ring[0].event[0].text is "n=1"
 *     guest_clean()             both gone
 *
 * The test process itself never records, so every child starts as a program does: without a ring. libdashcam,
 * libc and ipc/'s decoder only, so that musl and the cross build run the same tests.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include <cmocka.h>

#include "ipc/event.h"
#include "ipc/ring.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GUEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GUEST_SANITIZED 1
#endif
#endif
#ifndef GUEST_SANITIZED
#define GUEST_SANITIZED 0
#endif

/* In an app: what must hold there. Says what did not and ends the process with status 99. */
#define NEED(x)                                                                                              \
	do {                                                                                                 \
		if (!(x))                                                                                    \
			guest_fail(__FILE__, __LINE__, #x);                                                  \
	} while (0)
__attribute__((noreturn)) void guest_fail(const char *file, int line, const char *what);

/* Everything an event is, its strings copied. */
struct guest_event {
	uint64_t units;
	uint64_t start_units; /* END */
	uint8_t kind;         /* DC_KIND_* */
	bool implied;
	bool from_open;
	uint32_t depth;
	uint32_t tid;
	uint32_t serial;
	uint32_t lane;
	uint16_t site;
	uint64_t flow_id;
	uint32_t stack_count;
	uint32_t line; /* of the source */
	uint8_t level;
	char *name; /* of the site; "" for events without one */
	char *text; /* LOG: the line; THREAD: its name; CONTEXT: hex; others "key=value key=value" */
};

struct guest_ring {
	char path[256];
	struct dc_ring_header header;
	struct guest_event *event; /* by lane, then in the lane's order; OPEN and THREAD records too */
	size_t count;
	uint64_t events; /* those the ring counts */
	uint64_t overwritten;
	uint64_t dropped;          /* by lanes, lost_early and lost_lanes */
	uint32_t broken;           /* chunks that did not decode: none, ever */
	struct dc_ring_lane *lane; /* copy of the table */
	struct dc_ring_crash crash; /* zeros: none */
	uint8_t *crash_stack;      /* crash.stack_bytes of it */
	uint8_t *bytes;            /* all grown chunks as they stand */
	size_t bytes_count;
};

struct guest_rings {
	struct guest_ring ring[512];
	size_t count; /* ordered by started_tick */
};

/* The private directory, made (and put into DASHCAM_DIR) at the first call. */
const char *guest_dir(void);
void guest_clean(void);

/*
 * guest_run() - @app in a forked child, which then exits with status 0
 * Return: as waitpid() tells: exit status, or 1000 + the signal that killed it. guest_start() does not wait.
 */
int guest_run(void (*app)(void *arg), void *arg);
pid_t guest_start(void (*app)(void *arg), void *arg);
int guest_wait(pid_t pid);

void guest_rings(struct guest_rings *ret_rings);
void guest_rings_free(struct guest_rings *rings);
/* The only ring there is; fails the test when there are none or several, or one with broken chunks. */
struct guest_ring *guest_only(struct guest_rings *rings);
/* The ring of a pid, NULL: none. */
struct guest_ring *guest_ring_of(struct guest_rings *rings, pid_t pid);

/* The @n-th (from 0) event of that kind (0: any) and site name (NULL: any); NULL: there is none. */
const struct guest_event *guest_find(const struct guest_ring *r, unsigned kind, const char *name, size_t n);
size_t guest_count(const struct guest_ring *r, unsigned kind, const char *name);

/* Writes an enable word from outside, as a watcher would. */
void guest_switch(const char *ring_path, const char *site_name, uint32_t word);

/* Whether this is qemu-user: it forgets most of madvise() and runs no foreign program by exec. Says so. */
bool guest_emulated(void);

/* Every test of the guest ends so. */
int guest_teardown(void **state);
