/* SPDX-License-Identifier: MIT */
/*
 * Processes whose threads are stopped (trigger/threads.h), for the tests of that: children of ours that report through memory
 * shared with us, and the samples that came of it.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "ipc/now.h"
#include "trigger/threads.h"

#define BUDGET_NS INT64_C(5000000000) /* these machines are busy */
#define STANDING_MAX 600
#define MARK UINT64_C(0x6b72616d7473656d) /* lies on the stack of each thread */

/* What children tell us. */
struct shared {
	_Atomic uint32_t ready;
	_Atomic bool go; /* end */
	_Atomic uint32_t interrupted; /* system calls that saw EINTR */
	_Atomic uint32_t wrong; /* that ended otherwise than they should */
	_Atomic uint32_t woken; /* that ended as they should */
	_Atomic uint32_t handled; /* signals */
	_Atomic uint64_t sum; /* of what they carried */
	_Atomic uint32_t tids[STANDING_MAX];
	_Atomic uint64_t at[STANDING_MAX]; /* addresses of marks */
};
extern struct shared *shared;

int stopping_set_up(void **state); /* of the group */

void nap(long ms);
void wait_ready(uint32_t count);
uint64_t start_time_of(pid_t pid);
char state_of(pid_t pid);
void until_state(pid_t pid, char state);

/* --- children --- */

pid_t child_start(void (*work)(void));
void child_kill(pid_t pid);
void *sleep_on(void *index); /* a thread: stands, and sleeps for ever */

/* Leaves a mark on the stack, then says that it is there. */
#define STAND(index)                                                                                                   \
	volatile uint64_t mark_ = MARK;                                                                                \
	atomic_store(&shared->at[index], (uint64_t)(uintptr_t)&mark_);                                                 \
	atomic_store(&shared->tids[index], (uint32_t)syscall(SYS_gettid));                                             \
	atomic_fetch_add(&shared->ready, 1)

/* --- the samples that were written --- */

struct found {
	struct dc_sample s;
	const uint64_t *regs;
	const uint8_t *stack;
	struct dc_thread_state state;
};
extern uint32_t found_count;
extern struct found found[DC_THREADS_MAX];

/* Of all threads of a process, which has to work: in found[]. In two steps: taken, then put. */
struct dc_threads_totals take(pid_t pid);
struct dc_threads_totals take_in_two_steps(pid_t pid);
/* dc_threads_write() into a writer that fails with @error, if that is not 0; what was written before is in found[]. */
int take_into(int error, pid_t pid, uint64_t start_time, int64_t budget_ns, struct dc_threads_totals *ret_totals);

const struct found *found_thread(uint32_t tid); /* at most one; NULL: none */
/* Its registers are those of code that stands where its stack is, and the stack holds what it put there. */
void assert_taken(const struct found *f, uint64_t mark_at);
