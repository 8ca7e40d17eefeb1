/* SPDX-License-Identifier: MIT */
/* The formats of `dashcam export`: each is a struct of three calls around the one loop over the events. */
#pragma once

#include "persist/capture.h"
#include "tools/json.h"
#include "tools/event_stacks.h"
#include "tools/lanes.h"

/* What the stacks of events are named by, one a process (export_stacks.c). */
struct export_stacks {
	struct dc_stacks **stacks;
	struct event_stacks *of_events;
	unsigned count;
};
/* Return: 0, -ENOMEM, -errno of reading. */
int export_stacks_open(struct dc_capture *c, struct export_stacks *ret_stacks);
void export_stacks_close(struct export_stacks *s);
/* Every event that has a stack, by time, with the name of its thread. A non-zero return of @each ends it and is returned. */
int export_stacks_each(struct dc_capture *c, const struct dc_cut *cut,
		       int (*each)(void *arg, const struct dc_cursor_event *e, const char *thread), void *arg);
static inline void export_stacks_cleanup(struct export_stacks *s)
{
	export_stacks_close(s);
}

struct export
{
	struct dc_capture *capture;
	struct lanes *lanes;
	const struct export_stacks *stacks;
	struct json json;
	int64_t from_ns; /* CLOCK_REALTIME of the window's left edge, or of --from if that is later */
	bool thread_new; /* the event at hand is the first of its thread in its lane */
};

struct export_format {
	const char *name;
	void (*head)(struct export *x);
	void (*event)(struct export *x, const struct dc_cursor_event *e);
	void (*tail)(struct export *x);
};

extern const struct export_format export_jsonl;
extern const struct export_format export_chrome;

/*
 * Profiles (export_folded.c, export_pprof.c): stacks of samples with what they weigh, and those of events.
 * Return: 0, -errno of reading.
 */
int export_folded(struct dc_capture *c, const struct dc_cut *cut, bool off_cpu, FILE *out);
int export_folded_events(struct dc_capture *c, const struct dc_cut *cut, FILE *out);
int export_pprof(struct dc_capture *c, const struct dc_cut *cut, FILE *out);

/* Members that both formats share (export_args.c). */
void export_args(struct export *x, const struct dc_cursor_event *e); /* "args": {...} */
void export_args_members(struct export *x,
			 const struct dc_cursor_event *e); /* what stands between its braces */
const char *export_name(const struct export *x,
			const struct dc_cursor_event *e); /* NULL: the event has none */
int64_t export_begin_ns(const struct export *x,
			const struct dc_event *e); /* when its span began; 0: not known */
