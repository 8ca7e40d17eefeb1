/* SPDX-License-Identifier: MIT */
/*
 * The words that sites ask before they record: the control part of the ring, mapped a second time, read-only, at an
 * address that children inherit. A child's own ring is mapped over it, so the sites' pointers stay good, and what was
 * switched in the parent stays so.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "recorder/recorder.h"

static void *mapped; /* the view, of this process or still its parent's; NULL: none yet */
static uint32_t parent_enable[DC_SITE_MAX]; /* what the view said before it was mapped over */
static bool saved; /* there was one */

/* A second descriptor, so that the mapping holds no reference to the locked one. */
int dc_switches_map(struct dc_recorder *r, const struct dc_ring_header *layout)
{
	size_t bytes = layout->sites_off - layout->control_off;
	long fd = dc_sys(SYS_openat, AT_FDCWD, r->ring, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return (int)fd;
	int fixed = mapped ? MAP_FIXED : 0;
	void *at = dc_sys_mmap(mapped, bytes, PROT_READ, MAP_SHARED | fixed, (int)fd, layout->control_off);
	dc_sys(SYS_close, fd);
	if (DC_MAP_FAILED(at))
		return (int)(long)at;
	mapped = at;
	r->switches = at;
	return 0;
}

void dc_switches_save(void)
{
	const struct dc_ring_control *c = mapped;
	saved = c;
	for (uint32_t i = 0; c && i < DC_SITE_MAX; i++)
		parent_enable[i] = __atomic_load_n(&c->enable[i], __ATOMIC_RELAXED) & /* settings */
				   ~(DC_ENABLE_STOPPED | DC_ENABLE_NOTICE);
}

void dc_switches_restore(struct dc_recorder *r)
{
	for (uint32_t i = 1; saved && i < r->header->site_cap; i++)
		if (parent_enable[i] && dc_populate(r, &r->control->enable[i], 4) == 0)
			r->control->enable[i] = parent_enable[i];
}

/* A child's parent may be recording, and a view of a file that is gone would keep its memory. */
void dc_switches_off(void)
{
	struct dc_ring_control *c = mapped;
	if (!c || DC_MAP_FAILED(dc_sys_mmap(c, sizeof *c, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)))
		return;
	for (uint32_t i = 0; i < DC_SITE_MAX; i++)
		c->enable[i] = parent_enable[i] | DC_ENABLE_STOPPED;
}

void dc_switches_stop(struct dc_recorder *r, bool stopped)
{
	uint32_t used = __atomic_load_n(&r->header->sites_used, __ATOMIC_RELAXED); /* later ones ask the phase */
	for (uint32_t i = 1; i < used && i < r->header->site_cap; i++) {
		if (stopped)
			__atomic_fetch_or(&r->control->enable[i], DC_ENABLE_STOPPED, __ATOMIC_RELAXED);
		else
			__atomic_fetch_and(&r->control->enable[i], ~DC_ENABLE_STOPPED, __ATOMIC_RELAXED);
	}
}
