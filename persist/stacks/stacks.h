/* SPDX-License-Identifier: MIT */
/*
 * The samples and stacks of one process in a capture, for everybody who reads one: info, show, report, export, symbolize.
 *
 *     struct dc_stacks *s;
 *     r = dc_stacks_open(capture, process, &s);
 *     r = dc_stacks_each(s, &cut, each, arg);          // samples, block by block, in the order of the file
 *     n = dc_stacks_frames(s, sample->stack, &numbers);
 *     f = dc_stacks_frame(s, numbers[0]); name = dc_stacks_name(s, f->name) ... dc_stacks_name(s, name.outer)
 *
 * Nothing of a file is believed: numbers that lead nowhere give empty answers, chains of inlined functions end after
 * DC_STACKS_INLINE_MAX. Tables (maps, stacks, frames, names) are read once and kept, bounded; samples never all at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/capture.h"
#include "persist/format.h"

#define DC_STACKS_INLINE_MAX 64u
#define DC_STACKS_DEPTH_MAX 1024u

struct dc_stacks;

/* A sample as it is in the file; pointers are valid inside the callback. */
struct dc_sample_view {
	struct dc_sample head;
	int64_t t_ns; /* CLOCK_REALTIME, by the capture's anchors */
	const uint64_t *ips;
	const uint64_t *regs;
	const uint8_t *stack;
	const struct dc_thread_state *thread; /* DC_SAMPLE_THREAD, else NULL */
	const struct dc_crash_state *crash; /* DC_SAMPLE_CRASH, else NULL */
	const struct dc_event_state *event; /* DC_SAMPLE_EVENT, else NULL */
};

/* One function at an address; texts are never NULL. */
struct dc_name_view {
	const char *function; /* empty: not known */
	const char *file;
	uint32_t line;
	uint32_t outer; /* 0: not inlined */
	uint64_t start;
};

struct dc_map_view {
	const struct dc_map_entry *entry; /* NULL: there is no such map */
	const char *path; /* never NULL */
};

/* Return: 0 (also of a process without samples: all counts are 0), -ENOMEM, -errno of reading. Damage is a fault of the capture. */
int dc_stacks_open(struct dc_capture *c, unsigned process, struct dc_stacks **ret_stacks);
void dc_stacks_close(struct dc_stacks *s);
DC_DEFINE_CLEANUP(dc_stacks, struct dc_stacks *, dc_stacks_close)

/*
 * dc_stacks_each() - samples that the cut lets through (from_ns, to_ns, tid, everything; name is ignored)
 * In the order of the file, which in a settled capture is that of time. THREAD and CRASH samples are of the trigger and
 * always pass the times. A non-zero return of @each stops and is returned. Return: 0, -errno of reading.
 */
int dc_stacks_each(struct dc_stacks *s, const struct dc_cut *cut,
		   int (*each)(void *arg, const struct dc_sample_view *sample), void *arg);

/* Frames of stack number @stack, innermost first. Return: how many; 0: no such stack. */
uint32_t dc_stacks_frames(const struct dc_stacks *s, uint32_t stack, const uint32_t **ret_numbers);
/* NULL: no such frame. */
const struct dc_frame *dc_stacks_frame(const struct dc_stacks *s, uint32_t number);
/* The number of the frame made for a plain address (of a DC_STACK() event); 0: there is none. */
uint32_t dc_stacks_frame_at(const struct dc_stacks *s, uint64_t address);
struct dc_name_view dc_stacks_name(const struct dc_stacks *s, uint32_t number);
struct dc_map_view dc_stacks_map(const struct dc_stacks *s, uint32_t number);
uint32_t dc_stacks_map_count(const struct dc_stacks *s);
uint32_t dc_stacks_stack_count(const struct dc_stacks *s); /* numbers 1..count */
uint32_t dc_stacks_frame_count(const struct dc_stacks *s);
uint32_t dc_stacks_name_count(const struct dc_stacks *s);

/* Whether a sample's stack goes to the outermost function (main's caller or a thread's start; outermost.c). */
bool dc_stacks_to_root(const struct dc_stacks *s, const struct dc_sample *sample);

/* What there is, by kind; counted by reading all samples once, then kept. */
struct dc_stacks_totals {
	uint64_t samples[DC_SAMPLE_LAST + 1];
	uint64_t unwound; /* samples with a stack number */
	uint64_t to_root; /* of these, unwound to the outermost function */
	int64_t first_ns; /* CLOCK_REALTIME of the first and last CPU or OFF sample; first > last: none */
	int64_t last_ns;
	int64_t first_switch_ns;
	int64_t last_switch_ns;
};
int dc_stacks_totals(struct dc_stacks *s, struct dc_stacks_totals *ret_totals);
