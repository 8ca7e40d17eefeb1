/* SPDX-License-Identifier: MIT */
/*
 * Faults to order: what goes wrong in services, each where it would. With --faults the server takes POST /fault/NAME; from then
 * on, for three seconds or for ever, the code that asks fault_is() behaves as badly as its like does in life.
 *
 * tests/e2e_faults.sh orders all of them and looks whether the recorder noticed, and why it says it did.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum fault {
	FAULT_LOCK_CONVOY, /* who reads a value sleeps with the lock of its shard */
	FAULT_SLOW_DISK, /* the journal takes 500 ms for each record */
	FAULT_DNS_WAIT, /* the resolver does not answer */
	FAULT_THREAD_LEAK, /* each request leaves a thread */
	FAULT_MEMORY_GROWTH, /* each request leaves 64 KiB */
	FAULT_FD_LEAK, /* each request leaves a descriptor */
	FAULT_BUSY_LOOP, /* one request spins for ever */
	FAULT_LOST_WAKEUP, /* the indexer is not told of its jobs */
	FAULT_QUEUE_GROWTH, /* the indexer takes 200 ms for each job */
	FAULT_RETRY_STORM, /* names are refused, and asked for again, and again */
	FAULT_DEADLOCK, /* two threads, two shards, two orders */
	FAULT_SLOW_ROUTE, /* GET /stats walks everything, many times */
	FAULT_GC_PAUSE, /* all shards are locked for 500 ms */
	FAULT_CRASH, /* one request follows a null pointer */
	FAULT_FORK_BOMB, /* a hundred children that spin for 3 s */
	FAULT_CLOCK_STEP, /* the clock the indexer waits by is an hour ahead */
	FAULT_LOG_STORM, /* each request logs two hundred errors */
	FAULT_COUNT,
};

void fault_allow(void); /* without it fault_order() refuses */
/* fault_order() - by name: "lock-convoy". Return: 0, -ENOENT, -EPERM. */
int fault_order(const char *name, size_t length);
bool fault_is(enum fault f);
/* The first to ask gets it: of faults that happen once. */
bool fault_take(enum fault f);
void fault_sleep_ms(unsigned ms);

/* What a request leaves behind, or falls over, before it is answered. */
void fault_of_request(void);
