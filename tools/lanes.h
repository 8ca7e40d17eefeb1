/* SPDX-License-Identifier: MIT */
/*
 * Which thread an event belongs to, by name. A lane table knows the last thread of each lane; threads before
 * it announce themselves by DC_KIND_THREAD events. Feed every event to lanes_see(), then ask.
 */
#pragma once

#include "ipc/cleanup.h"
#include "persist/capture.h"

struct lanes;

int lanes_new(const struct dc_capture *c, struct lanes **ret_lanes); /* 0, -ENOMEM */
void lanes_free(struct lanes *l);

/* Return: true when the event is the first of this thread in its lane, so that its name was not known before. */
bool lanes_see(struct lanes *l, const struct dc_cursor_event *e);
const char *lanes_name(const struct lanes *l, const struct dc_cursor_event *e); /* "" when not known */
/* Open spans around the event: 0 outside of all; a begin or an end counts as outside of its own span. */
uint32_t lanes_depth(const struct lanes *l, const struct dc_cursor_event *e);
/* A signal handler that interrupted an event of its thread records in a lane of its own: same tid, other
 * stack of spans. */
bool lanes_nested(const struct lanes *l, const struct dc_cursor_event *e);

/* pid as people know it: the watcher's, else (recovered) what the ring says. */
uint32_t process_pid(const struct dc_process *p);

DC_DEFINE_CLEANUP(lanes, struct lanes *, lanes_free)
