/* SPDX-License-Identifier: MIT */
/* dc_ring_check(): see the header. One function per question; each names what is wrong, or gives NULL. */
#include "ipc/ring_check.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "ipc/samples.h"

#define TICK_SHIFT_MAX 16u
#define PARTS 11

static const char *identity_fault(const struct dc_ring_header *h)
{
	if (h->magic != DC_RING_MAGIC)
		return "not a ring: the magic is missing (or its process died while it started)";
	if (h->version == 0)
		return "ring header says version 0, expected 1 or newer";
	return NULL;
}

static const char *incompatible_fault(const struct dc_ring_header *h)
{
	if (h->incompat & ~DC_RING_INCOMPAT_KNOWN)
		return "ring uses features this version does not know: read it with a newer dashcam";
	return NULL;
}

static bool power_of_two(uint32_t v)
{
	return v && !(v & (v - 1));
}

static const char *size_fault(const struct dc_ring_header *h)
{
	if (h->header_bytes < sizeof *h)
		return "ring header is shorter than a ring header can be";
	if (h->chunk_bytes < DC_CHUNK_BYTES_MIN || h->chunk_bytes > DC_CHUNK_BYTES_MAX ||
	    !power_of_two(h->chunk_bytes))
		return "ring chunk size is not a power of two from 4 to 32 KiB";
	if (h->chunk_cap == 0)
		return "ring has no chunks";
	if (h->site_cap == 0 || h->site_cap > DC_SITE_MAX)
		return "ring site table is empty or larger than a site id can reach";
	if (h->strings_bytes == 0 || h->strings_bytes > DC_STRINGS_BYTES)
		return "ring string table is empty or larger than 1 MiB";
	if (h->module_cap > DC_MODULE_MAX)
		return "ring module table is larger than 1024 entries";
	if (h->lane_cap == 0 || h->lane_cap > DC_LANE_MAX)
		return "ring lane table is empty or larger than 4096 entries";
	if (h->trigger_cap > DC_TRIGGER_SLOTS)
		return "ring has more than 32 trigger slots";
	if (h->crash_off && (h->crash_bytes < sizeof(struct dc_ring_crash) || h->crash_bytes > DC_CRASH_BYTES_MAX))
		return "ring crash part is smaller than a crash or larger than 1 MiB";
	if (h->samples_off && (h->samples_bytes < sizeof(struct dc_ring_samples) + DC_SAMPLE_BYTES_MAX ||
			       h->samples_bytes > DC_SAMPLES_BYTES_MAX || h->samples_bytes % DC_SAMPLE_ALIGN))
		return "ring samples part is smaller than a sample, larger than 8 MiB, or no multiple of 64 bytes";
	return NULL;
}

static const char *clock_fault(const struct dc_ring_header *h)
{
	if (h->clock < DC_CLOCK_MONOTONIC || h->clock > DC_CLOCK_CNTVCT)
		return "ring names a clock that does not exist";
	if (h->tick_shift > TICK_SHIFT_MAX)
		return "ring time unit is absurd: tick_shift is above 16";
	return NULL;
}

static const char *name_fault(const struct dc_ring_header *h)
{
	return memchr(h->name, 0, sizeof h->name) ? NULL : "ring name has no end";
}

struct part {
	uint64_t offset;
	uint64_t bytes;
};

/* The parts, in the order of the page comment of ring.h; a writer may lay them out in any. */
static void parts_of(const struct dc_ring_header *h, struct part part[static PARTS])
{
	part[0] = (struct part){0, h->header_bytes};
	part[1] = (struct part){h->control_off, sizeof(struct dc_ring_control)};
	part[2] = (struct part){h->sites_off, (uint64_t)h->site_cap * sizeof(struct dc_ring_site)};
	part[3] = (struct part){h->strings_off, h->strings_bytes};
	part[4] = (struct part){h->modules_off, (uint64_t)h->module_cap * sizeof(struct dc_ring_module)};
	part[5] = (struct part){h->lanes_off, (uint64_t)h->lane_cap * sizeof(struct dc_ring_lane)};
	part[6] = (struct part){h->triggers_off, (uint64_t)h->trigger_cap * sizeof(struct dc_ring_trigger)};
	part[7] = (struct part){h->states_off, (uint64_t)h->chunk_cap * sizeof(struct dc_chunk_entry)};
	part[8] = (struct part){h->chunks_off, (uint64_t)h->chunk_cap * h->chunk_bytes};
	part[9] = (struct part){h->crash_off ? h->crash_off : h->file_bytes, h->crash_off ? h->crash_bytes : 0};
	part[10] = (struct part){h->samples_off ? h->samples_off : h->file_bytes, h->samples_off ? h->samples_bytes : 0};
}

static bool inside(const struct part *p, uint64_t file_bytes)
{
	return p->offset <= file_bytes && p->bytes <= file_bytes - p->offset;
}

static bool overlap(const struct part *a, const struct part *b)
{
	return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static const char *layout_fault(const struct dc_ring_header *h, uint64_t file_bytes)
{
	struct part part[PARTS];

	if (h->file_bytes > file_bytes)
		return "ring file is shorter than its header says: it was truncated";
	if (h->control_off % DC_PAGE_BYTES || h->states_off % 64 || h->chunks_off % DC_PAGE_BYTES)
		return "ring control, states or chunks are not aligned";
	if (h->crash_off % 64)
		return "ring crash part is not aligned to 64 bytes";
	if (h->samples_off % DC_PAGE_BYTES)
		return "ring samples part is not aligned to a page";
	if (h->sites_off % 64 || h->modules_off % 64 || h->lanes_off % 64 || h->triggers_off % 64)
		return "ring tables are not aligned to 64 bytes";
	parts_of(h, part);
	for (unsigned i = 0; i < PARTS; i++) {
		if (!inside(&part[i], h->file_bytes))
			return "ring table or chunk pool reaches beyond the file";
		for (unsigned k = 0; k < i; k++)
			if (overlap(&part[i], &part[k]))
				return "ring tables overlap";
	}
	return NULL;
}

static int refuse(int error, const char *why, const char **ret_why)
{
	if (ret_why)
		*ret_why = why;
	return error;
}

int dc_ring_check(const struct dc_ring_header *copy, uint64_t file_bytes, const char **ret_why)
{
	const char *why;

	if ((why = identity_fault(copy)))
		return refuse(-EBADMSG, why, ret_why);
	if ((why = incompatible_fault(copy)))
		return refuse(-EPROTONOSUPPORT, why, ret_why);
	if ((why = size_fault(copy)) || (why = clock_fault(copy)) || (why = name_fault(copy)) ||
	    (why = layout_fault(copy, file_bytes)))
		return refuse(-EBADMSG, why, ret_why);
	return 0;
}
