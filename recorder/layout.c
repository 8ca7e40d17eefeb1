/* SPDX-License-Identifier: MIT */
/*
 * How large each part of a ring is under a given cap. Tables are sized for the worst case and sparse; a small cap gets
 * small tables, because the file's size counts against RLIMIT_FSIZE and mlockall() even where its pages do not exist.
 */
#include <sys/auxv.h>

#include "ipc/samples.h"
#include "recorder/recorder.h"

static uint64_t page_round(uint64_t bytes)
{
	uint64_t page = getauxval(AT_PAGESZ);
	if (page < DC_PAGE_BYTES)
		page = DC_PAGE_BYTES;
	return (bytes + page - 1) & ~(page - 1);
}

static uint32_t chunk_bytes_for(uint64_t cap_bytes)
{
	uint32_t bytes = DC_CHUNK_BYTES_MIN;
	while (bytes < DC_CHUNK_BYTES_MAX && (uint64_t)bytes * 2 <= cap_bytes / 8192)
		bytes *= 2;
	return bytes;
}

/* Full tables from 32 MiB up, halved with the cap below that, never under a sixteenth. */
static uint32_t scaled(uint32_t full, uint64_t cap_bytes)
{
	uint32_t n = full;
	for (uint64_t at = 32u << 20; at > cap_bytes && n > full / 16; at /= 2)
		n /= 2;
	return n;
}

/* As scaled, but what a parent had must fit: a child's ids are its parent's, however small the child's ring. */
static uint32_t scaled_at_least(uint32_t full, uint64_t cap_bytes, uint32_t least)
{
	uint32_t n = scaled(full, cap_bytes);
	while (n < least && n < full)
		n *= 2;
	return n;
}

/* A sixteenth of the cap for samples; nothing where that would hold a few only. */
#define SAMPLES_BYTES_MIN (128u << 10)

static uint64_t samples_bytes_for(uint64_t cap_bytes)
{
	uint64_t bytes = page_round(cap_bytes / 16 + 1) - page_round(1);
	return bytes < SAMPLES_BYTES_MIN ? 0 : bytes < DC_SAMPLES_BYTES_MAX ? bytes : DC_SAMPLES_BYTES_MAX;
}

void dc_layout_fill(struct dc_ring_header *h, uint64_t cap_bytes, uint32_t sites, uint32_t strings_bytes)
{
	h->chunk_bytes = chunk_bytes_for(cap_bytes);
	h->site_cap = scaled_at_least(DC_SITE_MAX, cap_bytes, sites);
	h->strings_bytes = scaled_at_least(DC_STRINGS_BYTES, cap_bytes, strings_bytes);
	h->module_cap = scaled(DC_MODULE_MAX, cap_bytes);
	h->lane_cap = scaled(DC_LANE_MAX, cap_bytes);
	h->trigger_cap = DC_TRIGGER_SLOTS;

	h->control_off = page_round(sizeof *h);
	h->sites_off = h->control_off + page_round(sizeof(struct dc_ring_control));
	h->strings_off = h->sites_off + page_round((uint64_t)h->site_cap * sizeof(struct dc_ring_site));
	h->modules_off = h->strings_off + page_round(h->strings_bytes);
	h->lanes_off = h->modules_off + page_round((uint64_t)h->module_cap * sizeof(struct dc_ring_module));
	h->triggers_off = h->lanes_off + page_round((uint64_t)h->lane_cap * sizeof(struct dc_ring_lane));
	h->crash_off = h->triggers_off + page_round((uint64_t)h->trigger_cap * sizeof(struct dc_ring_trigger));
	h->crash_bytes = page_round(sizeof(struct dc_ring_crash) + scaled(DC_CRASH_STACK_BYTES, cap_bytes));
	h->states_off = h->crash_off + h->crash_bytes;
	h->samples_bytes = samples_bytes_for(cap_bytes);

	/* as many chunks as fit behind their own dense table */
	uint64_t used = h->states_off + h->samples_bytes;
	uint64_t left = cap_bytes > used ? cap_bytes - used : 0;
	uint64_t chunks = left / (h->chunk_bytes + sizeof(struct dc_chunk_entry));
	while (chunks &&
	       page_round(chunks * sizeof(struct dc_chunk_entry)) + page_round(chunks * h->chunk_bytes) > left)
		chunks--;
	h->chunk_cap = (uint32_t)chunks;
	h->chunks_off = h->states_off + page_round(chunks * sizeof(struct dc_chunk_entry));
	h->file_bytes = h->chunks_off + page_round(chunks * h->chunk_bytes);
	h->samples_off = h->samples_bytes ? h->file_bytes : 0;
	h->file_bytes += h->samples_bytes;
}
