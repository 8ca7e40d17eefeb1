/* SPDX-License-Identifier: MIT */
#include "trigger/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static int save(struct dc_ring *ring, const struct dc_save_output *output, struct dc_save **ret_save)
{
	CLEANUP(dc_save) struct dc_save *s = NULL;
	struct dc_incident incident;
	const struct dc_window window = {.at_tick = (dc_ring_last(ring) + 1) << ring->header.tick_shift}; /* the last event was before */
	int r;

	dc_incident_init(&incident, DC_REASON_RECOVER, "its process was gone");
	r = dc_incident_window(&incident, ring, &window);
	if (r == 0)
		r = dc_save_new(&incident, output, &s);
	if (r == 0)
		r = dc_save_add(s, ring);
	if (r == 0)
		r = dc_save_first(s);
	if (r == 0)
		r = dc_save_last(s, false);
	if (r == 0)
		*ret_save = TAKE(s);
	return r;
}

int dc_recover(const char *path, const struct dc_save_output *output, struct dc_save **ret_save,
	       char ret_why[static DC_WHY_BYTES])
{
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	int r = dc_ring_open(AT_FDCWD, path, &ring, ret_why);

	if (r == -EAGAIN) {
		snprintf(ret_why, DC_WHY_BYTES,
			 "ring '%.80s': its process died before it was set up, there is nothing in it", path);
		return -ENODATA;
	}
	if (r < 0)
		return r;
	if (dc_ring_alive(ring) == 1) {
		snprintf(ret_why, DC_WHY_BYTES,
			 "ring '%.60s': process %u lives, use 'dashcam trigger --pid %u'", ring->name,
			 ring->pid, ring->pid);
		return -EBUSY;
	}
	r = save(ring, output, ret_save);
	if (r < 0)
		snprintf(ret_why, DC_WHY_BYTES, "ring '%.60s': cannot save it to '%.60s': %s", ring->name,
			 output->dir, strerror(-r));
	return r;
}
