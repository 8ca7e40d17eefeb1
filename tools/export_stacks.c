/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "tools/export.h"
#include "tools/open.h"

int export_stacks_open(struct dc_capture *c, struct export_stacks *ret_stacks)
{
	const unsigned count = dc_capture_process_count(c);
	CLEANUP(export_stacks) struct export_stacks s = {.stacks = calloc(count + 1, sizeof(*s.stacks)),
							 .of_events = calloc(count + 1, sizeof(*s.of_events))};
	int r = s.stacks && s.of_events ? 0 : -ENOMEM;

	for (; s.count < count && r == 0; s.count += r == 0) {
		r = dc_stacks_open(c, s.count, &s.stacks[s.count]);
		if (r == 0)
			r = event_stacks_load(c, s.stacks[s.count], s.count, &s.of_events[s.count]);
	}
	if (r == 0) {
		*ret_stacks = s;
		s = (struct export_stacks){0};
	}
	return r;
}

/* One that could not be loaded has the place behind those that count. */
void export_stacks_close(struct export_stacks *s)
{
	for (unsigned i = 0; s->of_events && i < s->count; i++)
		event_stacks_fini(&s->of_events[i]);
	for (unsigned i = 0; s->stacks && s->stacks[i]; i++)
		dc_stacks_close(s->stacks[i]);
	free(TAKE(s->of_events));
	free(TAKE(s->stacks));
	s->count = 0;
}

int export_stacks_each(struct dc_capture *c, const struct dc_cut *cut,
		       int (*each)(void *arg, const struct dc_cursor_event *e, const char *thread), void *arg)
{
	CLEANUP(dc_cursor) struct dc_cursor *cursor = NULL;
	CLEANUP(lanes) struct lanes *lanes = NULL;
	struct dc_cursor_event e;
	int r = lanes_new(c, &lanes);

	if (r == 0)
		r = dc_cursor_open(c, cut, &cursor);
	while (r >= 0 && (r = dc_cursor_next(cursor, &e)) > 0) {
		lanes_see(lanes, &e);
		r = e.event.kind == DC_KIND_STACK && e.event.stack_count ? each(arg, &e, lanes_name(lanes, &e)) : 0;
		if (r)
			break;
	}
	return r;
}
