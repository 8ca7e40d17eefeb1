/* SPDX-License-Identifier: MIT */
/* The stacks of a capture as `dashcam show` prints them between events: sampled ones by time, and those of the trigger. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "persist/capture.h"

struct stack_lines;

struct stack_line {
	int64_t t_ns; /* CLOCK_REALTIME */
	uint32_t tid;
	uint32_t stack;
	uint16_t process;
	uint16_t kind; /* DC_SAMPLE_CPU or _OFF */
};

/* @sampled: false: only what belongs to the trigger. Return: 0, -ENOMEM, -errno of reading. */
int stack_lines_new(struct dc_capture *c, const struct dc_cut *cut, bool sampled, struct stack_lines **ret_lines);
void stack_lines_free(struct stack_lines *l);

/* The next one up to @until_ns, by time over all processes; NULL: no more until then. */
const struct stack_line *stack_lines_next(struct stack_lines *l, int64_t until_ns);
/* "worker/4242  cpu  inner <- outer", padded as events are. */
void stack_line_print(const struct stack_lines *l, const struct stack_line *line, bool process, FILE *out);
/* Stack of a crash; with @threads those of all threads stopped at the trigger. */
void stack_lines_trigger(const struct stack_lines *l, bool threads, FILE *out);
/* The calls of a STACK event, innermost first: of the stack that was copied with it, else its addresses, by name where there is one. */
void stack_lines_event(const struct stack_lines *l, const struct dc_cursor_event *e, FILE *out);
