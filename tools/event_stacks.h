/* SPDX-License-Identifier: MIT */
/* Stacks that were copied with a STACK event, because its addresses are not all there are; found by the event's thread and time. */
#pragma once

#include <stdint.h>

#include "persist/stacks/stacks.h"

struct event_stacks {
	struct event_stack {
		uint64_t units;
		uint32_t tid;
		uint32_t stack; /* number in STACKS */
	} *list; /* by these */
	uint32_t count;
	uint32_t room;
};

/* Of a process. Return: 0, -ENOMEM, -errno of reading. */
int event_stacks_load(struct dc_stacks *s, struct event_stacks *ret);
void event_stacks_fini(struct event_stacks *e);
/* Return: its stack; 0: there is none. */
uint32_t event_stacks_find(const struct event_stacks *e, uint32_t tid, uint64_t units);
