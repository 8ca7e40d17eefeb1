/* SPDX-License-Identifier: MIT */
/*
 * Events that prove themselves, for the race_* tests: each carries the thread that recorded it, that thread's running
 * number and a sum of both, so whoever reads it back sees a torn, foreign, doubled or missing one at once.
 *
 *     storm_begin(&s, "1MiB")             private directories for rings and captures, DASHCAM_DIR and _MEMORY
 *     storm_event(thread, n)              in the process that records: n = 0, 1, 2 ... of this thread
 *     storm_save(&s, ring, path)          a capture of a living or dead ring
 *     storm_read(&s, path, &seen)         checks every event of it and counts; aborts the test on a bad one
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/scratch.h"

#define STORM_THREADS 64u
#define STORM_UNORDERED 32u /* threads from here on: their events may be in several lanes, no order is asked of them */

struct storm {
	char rings[SCRATCH_BYTES];
	char out[SCRATCH_BYTES];
};

/* What a capture holds of one thread's events. */
struct storm_thread {
	uint64_t events;
	uint64_t first; /* meaningless while events is 0 */
	uint64_t next; /* one past the last */
	uint64_t missing; /* between first and next; not of unordered ones */
	uint64_t sum; /* of all numbers: with @events it shows whether each is there once */
};

struct storm_seen {
	struct storm_thread threads[STORM_THREADS];
	uint64_t events; /* of all kinds, as the ring counts them */
	uint64_t overwritten;
	uint64_t dropped;
	uint64_t discarded; /* chunks recycled while they were copied */
};

void storm_begin(struct storm *s, const char *memory);
void storm_end(struct storm *s); /* removes both directories */
void storm_clear(struct storm *s); /* removes rings and captures */

void storm_event(unsigned thread, uint64_t n);

/* Path of the one ring of process @pid, 0: of any; false: there is none, or more than one. */
bool storm_ring(const struct storm *s, int pid, char *ret_path, size_t size);
unsigned storm_rings(const struct storm *s, uint64_t *ret_bytes); /* how many files, and their memory */

/* Of a living ring what is there now, of a dead one by dc_recover(). Return: 0, -errno. */
int storm_save(const struct storm *s, const char *ring, char *ret_path, size_t size);
void storm_read(const char *capture, struct storm_seen *ret_seen);

/* Ends the test, says what was wrong. */
#if defined(__clang__) /* a condition without a message is GNU C */
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif
#define STORM_NEED(condition, ...)                                                                             \
	do {                                                                                                   \
		if (!(condition))                                                                              \
			storm_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__);                            \
	} while (0)
void storm_fail(const char *file, int line, const char *condition, const char *format, ...)
	__attribute__((noreturn, format(printf, 4, 5)));

uint64_t storm_random(void); /* seeded by DASHCAM_SEED, else by time; says so once */
uint64_t storm_now_ns(void);
void storm_sleep_ns(uint64_t ns);
bool storm_long(void); /* tests/run --long */
unsigned storm_rounds(unsigned usual, unsigned many); /* @many with --long; a quarter of the usual in builds other than gcc's */
