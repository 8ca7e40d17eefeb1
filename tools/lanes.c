/* SPDX-License-Identifier: MIT */
#include "tools/lanes.h"

#include <errno.h>
#include <string.h>

#include "ipc/event.h"

struct lane {
	uint32_t tid; /* of the thread last seen in events */
	char name[16];
	uint32_t depth; /* around the event last seen */
	uint32_t depth_after;
	bool nested;
};

struct process_lanes {
	uint32_t count;
	const struct dc_ring_lane *table;
	struct lane *seen;
};

struct lanes {
	unsigned count;
	struct process_lanes processes[];
};

int lanes_new(const struct dc_capture *c, struct lanes **ret_lanes)
{
	unsigned count = dc_capture_process_count(c);
	CLEANUP(lanes) struct lanes *l = calloc(1, sizeof(*l) + count * sizeof(l->processes[0]));

	if (!l)
		return -ENOMEM;
	for (; l->count < count; l->count++) {
		struct process_lanes *p = &l->processes[l->count];

		p->table = dc_capture_lanes(c, l->count, &p->count);
		p->seen = calloc(p->count + 1, sizeof(*p->seen));
		if (!p->seen)
			return -ENOMEM;
		for (uint32_t i = 0; i < p->count; i++)
			p->seen[i].nested = p->table[i].flags & DC_LANE_NESTED;
	}
	*ret_lanes = TAKE(l);
	return 0;
}

void lanes_free(struct lanes *l)
{
	for (unsigned i = 0; l && i < l->count; i++)
		free(l->processes[i].seen);
	free(l);
}

static struct lane *lane_of(const struct lanes *l, const struct dc_cursor_event *e)
{
	if (e->process >= l->count || e->lane >= l->processes[e->process].count)
		return NULL;
	return &l->processes[e->process].seen[e->lane];
}

static void name_set(struct lane *lane, const char *comm)
{
	memcpy(lane->name, comm, sizeof(lane->name) - 1);
	lane->name[sizeof(lane->name) - 1] = '\0';
}

static void depth_see(struct lane *lane, const struct dc_event *e)
{
	lane->depth = lane->depth_after;
	if (e->kind != DC_KIND_BEGIN && e->kind != DC_KIND_END && e->kind != DC_KIND_OPEN)
		return;
	lane->depth = e->depth > 0 ? e->depth - 1 : 0;
	lane->depth_after = e->kind == DC_KIND_END ? lane->depth : e->depth;
}

bool lanes_see(struct lanes *l, const struct dc_cursor_event *e)
{
	struct lane *lane = lane_of(l, e);
	const struct dc_ring_lane *last;

	if (!lane)
		return false;
	depth_see(lane, &e->event);
	if (e->event.kind == DC_KIND_THREAD) {
		lane->tid = e->event.tid;
		lane->depth = lane->depth_after = 0;
		name_set(lane, e->event.comm);
		return true;
	}
	if (lane->tid == e->event.tid)
		return false;
	last = &l->processes[e->process].table[e->lane];
	lane->tid = e->event.tid;
	name_set(lane, last->tid == lane->tid ? last->comm : (char[16]){0});
	return true;
}

const char *lanes_name(const struct lanes *l, const struct dc_cursor_event *e)
{
	const struct lane *lane = lane_of(l, e);

	return lane ? lane->name : "";
}

uint32_t lanes_depth(const struct lanes *l, const struct dc_cursor_event *e)
{
	const struct lane *lane = lane_of(l, e);

	return lane ? lane->depth : 0;
}

bool lanes_nested(const struct lanes *l, const struct dc_cursor_event *e)
{
	const struct lane *lane = lane_of(l, e);

	return lane && lane->nested;
}

uint32_t process_pid(const struct dc_process *p)
{
	return p->pid ? p->pid : p->ns_pid;
}
