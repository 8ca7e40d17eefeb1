/* SPDX-License-Identifier: MIT */
/*
 * What went on at the moment of the trigger, out of the events before it: which spans each thread had open, which trace it
 * worked on, and what had been begun and waited for somebody (async spans, queues).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "persist/capture.h"

#define INSTANT_SPANS_MAX 16u
#define INSTANT_WAITING_MAX 8u

struct instant_span {
	char name[64];
	int64_t open_ns; /* for how long by then, -1: not known */
};

struct instant_thread {
	unsigned process;
	uint32_t lane;
	uint32_t tid;
	char name[16];
	uint32_t depth;
	struct instant_span spans[INSTANT_SPANS_MAX]; /* outermost first */
	uint8_t trace_id[16]; /* zeros: none known */
};

/* So many of this kind were begun and had no end; of a counter whose name ends with queue.depth, its value. */
struct instant_waiting {
	char name[64];
	int64_t count;
};

struct instant {
	struct instant_thread *threads;
	uint32_t count;
	struct instant_waiting waiting[INSTANT_WAITING_MAX];
	uint32_t waiting_count;
};

/* Return: 0, -ENOMEM, -errno of reading. */
int instant_find(struct dc_capture *c, struct instant *ret_instant);
void instant_fini(struct instant *m);
/* The one with most spans open of those @tid has (signal handlers have lanes of their own); NULL: it recorded nothing. */
const struct instant_thread *instant_thread(const struct instant *m, unsigned process, uint32_t tid);
/* By how long their outermost span was open, longest first; those with none last. */
void instant_sort(struct instant *m);
