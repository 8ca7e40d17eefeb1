/* SPDX-License-Identifier: MIT */
/*
 * From the events of a capture to what people ask after an accident: which spans were slow, what happened each
 * second, and who held the lock that others waited for. One pass in time order; memory does not grow with the events.
 *
 *     cursor ──event──► lane's stack of open spans ──span ended──► statistics by name, by second,
 *                                                                         holds and waits
 */
#pragma once

#include <stdint.h>

#include "persist/capture.h"

#define SPANS_NAMES_MAX 64u
#define SPANS_NAME_MAX 64u
#define SPANS_TEXT_MAX 80u
#define SPANS_BINS 512u /* eight to a doubling of the duration */
#define SPANS_SECONDS 4u
#define SPANS_WAITS_MAX 16u
#define SPANS_CHAIN_MAX 6u

/* A span that has ended, with what is needed to speak about it. */
struct span_note {
	uint64_t duration_ns;
	uint32_t lane;
	uint32_t tid;
	char args[SPANS_TEXT_MAX]; /* key=value key=value */
};

struct span_name {
	char name[SPANS_NAME_MAX];
	uint64_t count;
	uint64_t bins[SPANS_BINS];
	struct span_note slowest;
};

struct span_second {
	uint64_t count; /* of http.request ended in it */
	uint64_t slowest_ns;
};

/* The longest time a lock was held: by whom, inside of what, and doing what most of the time. */
struct span_hold {
	struct span_note note;
	char chain[SPANS_CHAIN_MAX][SPANS_TEXT_MAX]; /* spans around it, outermost first */
	unsigned chain_count;
	char inner[SPANS_NAME_MAX]; /* its longest inner span; empty: none */
	uint64_t inner_ns;
};

struct spans {
	unsigned name_count;
	struct span_name names[SPANS_NAMES_MAX];
	struct span_second seconds[SPANS_SECONDS]; /* [0] is the last second before the trigger */
	struct span_second after;                  /* what had to wait until it was over */
	struct span_hold hold;
	unsigned wait_count;
	struct span_note waits[SPANS_WAITS_MAX]; /* the long ones, as they ended */
};

/* spans_gather() - one process of the capture, @pid. Return: 0, -errno of the reader, -ENOMEM. */
int spans_gather(struct dc_capture *c, uint32_t pid, struct spans **ret_spans);
void spans_free(struct spans *s);

/* The duration that @percent of the spans of this name did not pass, within an eighth. */
uint64_t span_percentile_ns(const struct span_name *n, double percent);
