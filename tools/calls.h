/* SPDX-License-Identifier: MIT */
/*
 * Stacks as people read them: one function after the other, innermost first, functions that were inlined as if they had
 * been called. What has no name is module+0xoffset; what has no module is its address.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "persist/stacks/stacks.h"
#include "tools/json.h"

struct call {
	const char *function; /* never empty; valid until the next call of the walk */
	const char *file;     /* empty: not known */
	uint32_t line;        /* 0: not known */
	const char *module;   /* file name without its directory; "[kernel]"; empty: none */
	uint32_t frame;       /* number in STACKS' FRAMES */
	bool inlined;         /* into the next one */
	bool named;           /* function is a name, not module+offset */
	bool kernel;
	bool signal; /* a signal handler was called here */
};

/* @stack: a number. A non-zero return of @each ends it and is returned. */
int calls_each(const struct dc_stacks *s, uint32_t stack, int (*each)(void *arg, const struct call *c), void *arg);
/* From the call that returns to @address on, what is inside of it left out; -ENOENT: no call of that stack does. */
int calls_each_from(const struct dc_stacks *s, uint32_t stack, uint64_t address,
		    int (*each)(void *arg, const struct call *c), void *arg);
int calls_of_frame(const struct dc_stacks *s, const struct dc_frame *f, uint32_t number,
		   int (*each)(void *arg, const struct call *c), void *arg);

/*
 * calls_print() - "function (file.c:12) module", one a line, each led by @lead; at most @max, 0: all
 * What a recorded program's files said is escaped. calls_line() has them all on one line, innermost first, " <- " between.
 */
void calls_print(FILE *out, const struct dc_stacks *s, uint32_t stack, const char *lead, unsigned max);
void calls_line(FILE *out, const struct dc_stacks *s, uint32_t stack, unsigned max);
/* The same of calls that come from elsewhere: one after the other is given to calls_line_add(). */
struct calls_line {
	FILE *out;
	unsigned max;
	unsigned count; /* 0 at first */
};
int calls_line_add(void *arg, const struct call *c); /* @arg: struct calls_line */
void calls_json(struct json *j, const char *key, const struct dc_stacks *s, uint32_t stack); /* an array */
/* The innermost function that says something to people: not of the kernel, not of libc where there is another. */
void calls_where(const struct dc_stacks *s, uint32_t stack, char *ret_text, size_t size);
