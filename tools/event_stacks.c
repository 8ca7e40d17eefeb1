/* SPDX-License-Identifier: MIT */
#include "tools/event_stacks.h"

#include <errno.h>
#include <stdlib.h>

#include "ipc/cleanup.h"

#define COUNT_MAX (1u << 20) /* that a hostile file can ask for */

static int add(void *arg, const struct dc_sample_view *v)
{
	struct event_stacks *e = arg;

	if (!v->event || !v->head.stack || e->count == COUNT_MAX)
		return 0;
	if (e->count == e->room) {
		const uint32_t room = e->room ? 2 * e->room : 64;
		struct event_stack *more = reallocarray(e->list, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		e->list = more;
		e->room = room;
	}
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

int event_stacks_load(struct dc_stacks *s, struct event_stacks *ret)
{
	struct event_stacks e = {0};
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

uint32_t event_stacks_find(const struct event_stacks *e, uint32_t tid, uint64_t units)
{
	const struct event_stack key = {.units = units, .tid = tid};
	const struct event_stack *found =
		e->count ? bsearch(&key, e->list, e->count, sizeof(key), by_event) : NULL;

	return found ? found->stack : 0;
}
