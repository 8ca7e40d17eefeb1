/* SPDX-License-Identifier: MIT */
/*
 * The calls of events with a stack (DC_STACK(), sites that are made to take one), by name where there is one. Where its
 * addresses are not all there are, a stack was copied with the event and unwound: found by the event's thread and time.
 */
#pragma once

#include <stdint.h>

#include "persist/stacks/stacks.h"
#include "tools/calls.h"

struct event_stacks {
	struct dc_capture *c;
	unsigned process;
	const struct dc_stacks *stacks;
	struct event_stack {
		uint64_t units;
		uint32_t tid;
		uint32_t stack; /* number in STACKS */
	} *list; /* by these */
	uint32_t count;
	uint32_t room;
};

/* Of a process, whose @s it borrows. Return: 0, -ENOMEM, -errno of reading. */
int event_stacks_load(struct dc_capture *c, struct dc_stacks *s, unsigned process, struct event_stacks *ret);
void event_stacks_fini(struct event_stacks *e);
/*
 * event_stacks_calls() - what called the event, innermost first; what has no name is module+0xoffset
 * A non-zero return of @each ends it and is returned.
 */
int event_stacks_calls(const struct event_stacks *e, const struct dc_event *event,
		       int (*each)(void *arg, const struct call *c), void *arg);
