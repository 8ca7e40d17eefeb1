/* SPDX-License-Identifier: MIT */
#include "tools/trace.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/event.h"

#define ID_DIGITS 32u
#define TRACEPARENT_ID 3u /* "00-" stands before it */

struct lane_trace {
	bool *in; /* by lane: works on it now */
	uint32_t count;
};

struct trace {
	char prefix[ID_DIGITS + 1]; /* lower case */
	bool found; /* somebody worked on it */
	unsigned processes;
	struct lane_trace lanes[];
};

bool trace_text(const uint8_t id[16], char ret_text[static 33])
{
	bool known = false;

	for (unsigned i = 0; i < 16; i++) {
		snprintf(ret_text + 2 * i, 3, "%02x", id[i]);
		known = known || id[i];
	}
	return known;
}

static int parse(const char *id, char prefix[static ID_DIGITS + 1])
{
	size_t length = 0;

	if (strlen(id) > ID_DIGITS && id[2] == '-')
		id += TRACEPARENT_ID;
	while (length < ID_DIGITS && isxdigit((unsigned char)id[length])) {
		prefix[length] = (char)tolower((unsigned char)id[length]);
		length++;
	}
	prefix[length] = '\0';
	return length && (!id[length] || (length == ID_DIGITS && id[length] == '-')) ? 0 : -EINVAL;
}

int trace_new(const struct dc_capture *c, const char *id, struct trace **ret_trace)
{
	const unsigned processes = dc_capture_process_count(c);
	CLEANUP(trace) struct trace *t = calloc(1, sizeof(*t) + processes * sizeof(t->lanes[0]));

	if (!t)
		return -ENOMEM;
	if (parse(id, t->prefix) < 0)
		return -EINVAL;
	for (; t->processes < processes; t->processes++) {
		struct lane_trace *l = &t->lanes[t->processes];

		dc_capture_lanes(c, t->processes, &l->count);
		l->in = calloc(l->count + 1, sizeof(*l->in));
		if (!l->in)
			return -ENOMEM;
	}
	*ret_trace = TAKE(t);
	return 0;
}

void trace_free(struct trace *t)
{
	for (unsigned i = 0; t && i < t->processes; i++)
		free(t->lanes[i].in);
	free(t);
}

bool trace_see(struct trace *t, const struct dc_cursor_event *e)
{
	struct lane_trace *l = e->process < t->processes ? &t->lanes[e->process] : NULL;
	char id[ID_DIGITS + 1];

	if (!l || e->lane >= l->count)
		return false;
	if (e->event.kind == DC_KIND_THREAD)
		l->in[e->lane] = false;
	if (e->event.kind == DC_KIND_CONTEXT) {
		trace_text(e->event.context.trace_id, id);
		l->in[e->lane] = strncmp(id, t->prefix, strlen(t->prefix)) == 0;
		t->found |= l->in[e->lane];
	}
	return l->in[e->lane];
}

bool trace_found(const struct trace *t)
{
	return t->found;
}
