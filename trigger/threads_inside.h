/* SPDX-License-Identifier: MIT */
/*
 * What taking the threads of a process consists of. Shared by its files, of no interest to others:
 *
 *   threads.c         all threads of a process, one after the other, within their time; in a thread of its own
 *   threads_look.c    what /proc says of one that nobody has touched yet
 *   threads_stop.c    stops it, copies its registers and its stack, lets it go
 *   threads_sample.c  what was taken becomes samples: in a capture, or in memory until there is one
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/registers.h"
#include "trigger/threads.h"

#define LATE_MAX 64u
#define SPANS_MAX (2 * DC_THREADS_MAX)
#define KEPT_MAX (DC_THREADS_KEPT_BYTES / DC_WRITER_PAYLOAD_MAX)

/* A thread on its way into a sample. */
struct thread {
	uint32_t tid;
	uint32_t own_tid; /* what it calls itself */
	uint32_t cpu;
	struct dc_thread_state state;
};

/* What was copied while it stood. */
struct copy {
	int64_t at_ns;
	uint64_t regs[DC_REGS];
	uint16_t reg_count;
	uint32_t stack_bytes;
	uint8_t *stack; /* DC_THREADS_STACK_BYTES, touched before: a page fault here is time somebody stands */
};

/* A mapping that can hold a stack. */
struct span {
	uint64_t start;
	uint64_t end;
};

/* Payloads of SAMPLES blocks. */
struct dc_threads {
	uint32_t count;
	uint8_t *blocks[KEPT_MAX];
	size_t bytes[KEPT_MAX];
};

struct taking {
	uint32_t pid;
	uint64_t start_time;
	uint32_t process;
	int64_t began_ns;
	int64_t budget_ns;
	struct dc_writer *writer;   /* NULL: */
	struct dc_threads *threads; /* kept in memory */
	int task_fd; /* /proc/PID/task: stays that of the process, whoever has its pid by then */
	bool other_namespace;
	uint32_t span_count;
	struct span *spans; /* SPANS_MAX, by address */
	struct copy copy;
	uint8_t *block; /* being filled, NULL: none */
	size_t block_bytes;
	uint32_t late_count;
	struct thread late[LATE_MAX]; /* seized, asked to stop, and did not yet */
	uint64_t *held_ns; /* of each taken */
	struct dc_threads_totals totals;
	int result;
};

/* The first thing that did not work is what people are told. */
__attribute__((format(printf, 2, 3))) void dc_taking_why(struct taking *t, const char *format, ...);
bool dc_taking_time_left(const struct taking *t);

/* --- threads_look.c --- */

/* All that is read before it is touched. Return: 0, -errno: it ended. */
int dc_thread_look(const struct taking *t, struct thread *th);
/* Name, state and CPU alone. Return: as above, -EBADMSG. */
int dc_thread_stat(const struct taking *t, struct thread *th);
/* The number behind "@key:" in its status; of several (NSpid) the last, which is its own. */
uint32_t dc_thread_status(const struct taking *t, uint32_t tid, const char *key);
bool dc_thread_can_stop(const struct thread *th);

/* --- threads_stop.c --- */

/* Return: whether its sample is written or will be. */
bool dc_taking_stop(struct taking *t, struct thread *th);
/* Until no more than @most of those that were asked to stop are on their way. */
void dc_taking_wait(struct taking *t, uint32_t most);
/* Those that did not stop in time are noted. */
void dc_taking_end(struct taking *t);

/* --- threads_sample.c --- */

/* @c: NULL when nothing could be copied. */
void dc_taking_sample(struct taking *t, const struct thread *th, const struct copy *c);
bool dc_taking_room_left(const struct taking *t);
void dc_taking_flush(struct taking *t);
