/* SPDX-License-Identifier: MIT */
/*
 * One W3C trace through all processes of a capture: what a thread records while it works on it, that is, from a trace context
 * (DC_TRACE_CONTEXT) with that id to the next one with another. Feed every event in the order of time to trace_see().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/capture.h"

struct trace;

/* @id: 32 hex digits, the first few of them, or a whole traceparent. Return: 0; -EINVAL: none of these; -ENOMEM. */
int trace_new(const struct dc_capture *c, const char *id, struct trace **ret_trace);
void trace_free(struct trace *t);
DC_DEFINE_CLEANUP(trace, struct trace *, trace_free)

bool trace_see(struct trace *t, const struct dc_cursor_event *e); /* whether it belongs to the trace */
bool trace_found(const struct trace *t);                          /* whether anything did */

/* 32 hex digits. Return: false: it is all zeros, which says that none is known. */
bool trace_text(const uint8_t id[16], char ret_text[static 33]);
