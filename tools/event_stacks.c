/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "tools/event_stacks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "tools/frames.h"

#define COUNT_MAX (1u << 20) /* that a hostile file can ask for */

static int add(void *arg, const struct dc_sample_view *v)
{
	struct event_stacks *e = arg;

	if (!v->event || !v->head.stack || e->count == COUNT_MAX)
		return 0;
	if (GROW(e->list, e->count, e->room, 64) < 0)
		return -ENOMEM;
	e->list[e->count++] =
		(struct event_stack){.units = v->event->units, .tid = v->head.tid, .stack = v->head.stack};
	return 0;
}

static int by_event(const void *left, const void *right)
{
	const struct event_stack *a = left, *b = right;

	if (a->units != b->units)
		return a->units < b->units ? -1 : 1;
	return a->tid < b->tid ? -1 : a->tid > b->tid;
}

int event_stacks_load(struct dc_capture *c, struct dc_stacks *s, unsigned process, struct event_stacks *ret)
{
	struct event_stacks e = {.c = c, .process = process, .stacks = s};
	int r = dc_stacks_each(s, &(struct dc_cut){.everything = true}, add, &e);

	if (r < 0) {
		event_stacks_fini(&e);
		return r;
	}
	if (e.count)
		qsort(e.list, e.count, sizeof(*e.list), by_event);
	*ret = e;
	return 0;
}

void event_stacks_fini(struct event_stacks *e)
{
	free(TAKE(e->list));
	e->count = 0;
}

/* Return: the stack that was copied with it; 0: there is none. */
static uint32_t copied_with(const struct event_stacks *e, const struct dc_event *event)
{
	const struct event_stack key = {.units = event->units, .tid = event->tid};
	const struct event_stack *found =
		e->count ? bsearch(&key, e->list, e->count, sizeof(key), by_event) : NULL;

	return found ? found->stack : 0;
}

static uint64_t address_of(const struct dc_event *event, uint32_t i)
{
	uint64_t address;

	memcpy(&address, event->stack + 8 * (size_t)i, sizeof(address));
	return address;
}

/* One that the event says itself. */
static int calls_at(const struct event_stacks *e, uint64_t address, int (*each)(void *arg, const struct call *c), void *arg)
{
	const uint32_t number = dc_stacks_frame_at(e->stacks, address);
	struct frame_text text;

	if (number)
		return calls_of_frame(e->stacks, dc_stacks_frame(e->stacks, number), number, each, arg);
	text = frame_text(e->c, e->process, address);
	return each(arg, &(struct call){.function = text.s, .file = "", .module = ""});
}

int event_stacks_calls(const struct event_stacks *e, const struct dc_event *event,
		       int (*each)(void *arg, const struct call *c), void *arg)
{
	const uint32_t stack = event->stack_count ? copied_with(e, event) : 0;
	int r = stack ? calls_each_from(e->stacks, stack, address_of(event, 0), each, arg) : -ENOENT;

	if (r != -ENOENT)
		return r;
	r = 0;
	for (uint32_t i = 0; i < event->stack_count && r == 0; i++)
		r = calls_at(e, address_of(event, i), each, arg);
	return r;
}
