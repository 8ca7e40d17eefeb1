/* SPDX-License-Identifier: MIT */
#include "persist/stacks/demangle.h"

#include <setjmp.h>
#include <stdbool.h>
#include <string.h>

#include <libiberty/demangle.h>

/* Beyond what libiberty reads by itself; its depth is then bounded by the length. */
#define LIBRARY_LENGTH_MAX (DEMANGLE_RECURSION_LIMIT / 2)

struct sink {
	char *buffer;
	size_t used;
	jmp_buf full; /* the way out: a callback cannot say "enough". Nothing is on the heap then but a Rust identifier. */
};

static void take(const char *bytes, size_t count, void *arg)
{
	struct sink *s = arg;

	if (count >= DC_DEMANGLED_BYTES - s->used)
		longjmp(s->full, 1);
	memcpy(s->buffer + s->used, bytes, count);
	s->used += count;
}

static bool unfold(const char *name, int (*demangler)(const char *, int, demangle_callbackref, void *), int options,
		   struct sink *s)
{
	s->used = 0;
	if (setjmp(s->full)) {
		strcpy(s->buffer + s->used, "...");
		return true;
	}
	if (!demangler(name, options, take, s) || !s->used)
		return false;
	s->buffer[s->used] = 0;
	return true;
}

const char *dc_demangle(const char *name, char buffer[static DC_DEMANGLED_BYTES])
{
	size_t length = strnlen(name, DC_MANGLED_BYTES_MAX + 1);
	int options = DMGL_PARAMS | DMGL_TYPES;
	struct sink s = {.buffer = buffer};

	if (length < 3 || length > DC_MANGLED_BYTES_MAX || name[0] != '_')
		return name;
	if (length > LIBRARY_LENGTH_MAX)
		options |= DMGL_NO_RECURSE_LIMIT;
	/* Rust first: its legacy names are C++ names too, with a hash at the end that nobody wants to see. */
	if (name[1] == 'R' || name[1] == 'Z') {
		if (unfold(name, rust_demangle_callback, 0, &s))
			return buffer;
		if (name[1] == 'Z' && unfold(name, cplus_demangle_v3_callback, options, &s))
			return buffer;
	}
	return name;
}
