/* SPDX-License-Identifier: MIT */
#include "tools/instant.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/event.h"
#include "tools/lanes.h"
#include "tools/open.h"

struct finding {
	struct dc_capture *c;
	struct lanes *lanes;
	int64_t at_ns;
	uint32_t *first; /* by process: its first place in threads[] */
	struct instant *m;
};

/* A place for every lane there is, process by process. */
static int make_room(struct finding *f)
{
	struct instant *m = f->m;
	uint32_t lanes;

	for (unsigned p = 0; p < dc_capture_process_count(f->c); p++) {
		dc_capture_lanes(f->c, p, &lanes);
		m->count += lanes;
	}
	m->threads = calloc(m->count + 1, sizeof(*m->threads));
	f->first = calloc(dc_capture_process_count(f->c) + 1, sizeof(*f->first));
	if (!m->threads || !f->first)
		return -ENOMEM;
	for (unsigned p = 0; p < dc_capture_process_count(f->c); p++) {
		dc_capture_lanes(f->c, p, &lanes);
		f->first[p + 1] = f->first[p] + lanes;
	}
	return 0;
}

static struct instant_thread *thread_of(struct finding *f, const struct dc_cursor_event *e)
{
	const uint32_t at = f->first[e->process] + e->lane;

	if (at >= f->first[e->process + 1])
		return NULL;
	f->m->threads[at].process = e->process;
	f->m->threads[at].lane = e->lane;
	return &f->m->threads[at];
}

/* Lanes that recorded nothing until then are left out. */
static void compact(struct instant *m)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < m->count; i++)
		if (m->threads[i].tid)
			m->threads[kept++] = m->threads[i];
	m->count = kept;
}

static void open_span(struct finding *f, struct instant_thread *t, const struct dc_event *e)
{
	const uint64_t start = e->kind == DC_KIND_OPEN ? e->start_units : e->units;
	struct instant_span *s;

	t->depth = e->depth;
	if (e->depth == 0 || e->depth > INSTANT_SPANS_MAX)
		return;
	s = &t->spans[e->depth - 1];
	snprintf(s->name, sizeof(s->name), "%s", e->info ? e->info->name : "?");
	s->open_ns = start == ~UINT64_C(0) ? -1 : f->at_ns - dc_clock_realtime_ns(dc_capture_clock(f->c), start);
}

static void wait_for(struct instant *m, const char *name, int64_t change, bool absolute)
{
	struct instant_waiting *w = NULL;

	for (uint32_t i = 0; i < m->waiting_count && !w; i++)
		if (strncmp(m->waiting[i].name, name, sizeof(w->name) - 1) == 0)
			w = &m->waiting[i];
	if (!w && m->waiting_count == INSTANT_WAITING_MAX)
		return;
	if (!w) {
		w = &m->waiting[m->waiting_count++];
		*w = (struct instant_waiting){0};
		snprintf(w->name, sizeof(w->name), "%s", name);
	}
	w->count = absolute ? change : w->count + change;
	if (w->count < 0) /* it had begun before the window */
		w->count = 0;
}

static bool is_queue(const char *name)
{
	const size_t length = strlen(name), suffix = strlen("queue.depth");

	return length >= suffix && strcmp(name + length - suffix, "queue.depth") == 0;
}

static int64_t counted(const struct dc_event *e)
{
	if (e->arg_count == 0)
		return 0;
	switch (e->info->types[0]) {
	case DC_TYPE_F64:
		return e->args[0].f > 0 && e->args[0].f < 1e15 ? (int64_t)e->args[0].f : 0;
	case DC_TYPE_I64:
		return e->args[0].i;
	default:
		return e->args[0].u < INT64_MAX ? (int64_t)e->args[0].u : 0;
	}
}

static void see(struct finding *f, struct instant_thread *t, const struct dc_cursor_event *ce)
{
	const struct dc_event *e = &ce->event;

	if (lanes_see(f->lanes, ce) || !t->name[0])
		snprintf(t->name, sizeof(t->name), "%s", lanes_name(f->lanes, ce));
	t->tid = e->tid;
	switch (e->kind) {
	case DC_KIND_BEGIN:
	case DC_KIND_OPEN:
		open_span(f, t, e);
		break;
	case DC_KIND_END:
		t->depth = e->depth ? e->depth - 1 : 0;
		break;
	case DC_KIND_THREAD:
		t->depth = 0;
		memset(t->trace_id, 0, sizeof(t->trace_id));
		break;
	case DC_KIND_CONTEXT:
		memcpy(t->trace_id, e->context.trace_id, sizeof(t->trace_id));
		break;
	case DC_KIND_ASYNC_BEGIN:
	case DC_KIND_ASYNC_END:
		if (e->info)
			wait_for(f->m, e->info->name, e->kind == DC_KIND_ASYNC_BEGIN ? 1 : -1, false);
		break;
	case DC_KIND_COUNTER:
		if (e->info && is_queue(e->info->name))
			wait_for(f->m, e->info->name, counted(e), true);
		break;
	}
}

static int walk(struct finding *f)
{
	const struct dc_cut cut = {.to_ns = f->at_ns};
	CLEANUP(dc_cursor) struct dc_cursor *cursor = NULL;
	struct dc_cursor_event e;
	int r = dc_cursor_open(f->c, &cut, &cursor);

	while (r >= 0 && (r = dc_cursor_next(cursor, &e)) > 0) {
		struct instant_thread *t;

		if (e.t_ns >= f->at_ns) /* a span that fired as it ended was still what its thread was doing */
			return 0;
		t = thread_of(f, &e);
		if (t)
			see(f, t, &e);
	}
	return r;
}

int instant_find(struct dc_capture *c, struct instant *ret_instant)
{
	CLEANUP(lanes) struct lanes *lanes = NULL;
	struct finding f = {
		.c = c,
		.at_ns = dc_clock_realtime_ns(dc_capture_clock(c), dc_capture_incident(c)->at_units),
		.m = ret_instant,
	};
	int r = lanes_new(c, &lanes);

	*ret_instant = (struct instant){0};
	f.lanes = lanes;
	if (r == 0)
		r = make_room(&f);
	if (r == 0)
		r = walk(&f);
	compact(ret_instant);
	free(f.first);
	return r;
}

void instant_fini(struct instant *m)
{
	free(m->threads);
	*m = (struct instant){0};
}

const struct instant_thread *instant_thread(const struct instant *m, unsigned process, uint32_t tid)
{
	const struct instant_thread *best = NULL;

	for (uint32_t i = 0; i < m->count; i++) {
		const struct instant_thread *t = &m->threads[i];

		if (t->process == process && t->tid == tid && (!best || t->depth > best->depth))
			best = t;
	}
	return best;
}

static int64_t open_for(const struct instant_thread *t)
{
	return t->depth ? t->spans[0].open_ns : -2;
}

static int longest_first(const void *a, const void *b)
{
	const int64_t x = open_for(a), y = open_for(b);

	return x > y ? -1 : x < y;
}

void instant_sort(struct instant *m)
{
	if (m->count)
		qsort(m->threads, m->count, sizeof(*m->threads), longest_first);
}
