/* SPDX-License-Identifier: MIT */
#include "tests/capturemaker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/round.h"
#include "persist/writer.h"
#include "tests/scratch.h"

static void put_part(uint8_t **at, const void *from, size_t bytes)
{
	memcpy(*at, from, bytes);
	*at += dc_round8(bytes);
}

static int write_tables(struct dc_writer *w, uint32_t process, struct ring_maker *ring)
{
	const struct dc_ring_header *h = ring_maker_header(ring);
	size_t size;
	const uint8_t *bytes = ring_maker_bytes(ring, &size);
	struct dc_tables_block head = {.site_count = h->sites_used,
				       .strings_bytes = h->strings_used,
				       .module_count = h->modules_used,
				       .lane_count = h->lanes_used,
				       .trigger_count = h->trigger_seq ? DC_TRIGGER_SLOTS : 0};
	uint8_t *payload = calloc(1, size), *at = payload;
	if (!payload)
		return -ENOMEM;
	put_part(&at, &head, sizeof head);
	put_part(&at, h, sizeof *h);
	put_part(&at, bytes + h->sites_off, head.site_count * sizeof(struct dc_ring_site));
	put_part(&at, bytes + h->strings_off, head.strings_bytes);
	put_part(&at, bytes + h->modules_off, head.module_count * sizeof(struct dc_ring_module));
	put_part(&at, bytes + h->lanes_off, head.lane_count * sizeof(struct dc_ring_lane));
	put_part(&at, bytes + h->triggers_off, head.trigger_count * sizeof(struct dc_ring_trigger));
	int r = dc_writer_block(w, DC_BLOCK_TABLES, process, payload, (size_t)(at - payload));
	free(payload);
	return r;
}

/* @count chunks of the pool, from @first on, as one block. */
static int write_chunks(struct dc_writer *w, uint32_t process, struct ring_maker *ring, uint32_t first,
			uint32_t count)
{
	const struct dc_ring_header *h = ring_maker_header(ring);
	const struct dc_chunk_entry *entry = ring_maker_entries(ring) + first;
	struct dc_chunks_block head = {.count = count, .chunk_bytes = h->chunk_bytes};
	uint8_t *payload = dc_writer_reserve(w);
	uint64_t events = 0, bytes = 0;
	uint32_t at = 0;

	if (!payload)
		return dc_writer_error(w);
	head.data_offset = (uint32_t)(sizeof head + count * sizeof(struct dc_chunk_copy));
	memcpy(payload, &head, sizeof head);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t committed = dc_state_bytes(entry[i].state);
		struct dc_chunk_copy copy = {.state = entry[i].state,
					     .offset = at,
					     .index = first + i,
					     .lane = entry[i].lane,
					     .sealed = entry[i].sealed};
		memcpy(payload + sizeof head + i * sizeof copy, &copy, sizeof copy);
		memset(payload + head.data_offset + at, 0, dc_round8(committed));
		memcpy(payload + head.data_offset + at, ring_maker_chunk(ring, first + i), committed);
		at += (uint32_t)dc_round8(committed);
		events += dc_state_events(entry[i].state);
		bytes += committed;
	}
	dc_writer_count(w, count, events, bytes);
	return dc_writer_commit(w, DC_BLOCK_CHUNKS, process, head.data_offset + at);
}

static int write_pass(struct dc_writer *w, const struct capture_maker *m, uint32_t process)
{
	struct ring_maker *ring = m->rings[process];
	uint32_t per_block = m->chunks_per_block ? m->chunks_per_block : CAPTURE_MAKER_CHUNKS;
	uint32_t grown = ring_maker_header(ring)->chunks_grown;
	int r = write_tables(w, process, ring);

	for (uint32_t i = 0; i < grown && r == 0; i += per_block)
		r = write_chunks(w, process, ring, i, grown - i < per_block ? grown - i : per_block);
	return r ? r : write_tables(w, process, ring);
}

static int write_process(struct dc_writer *w, const struct capture_maker *m, uint32_t i)
{
	struct dc_process p = {.pid = 1000 + i, .verified = 1};
	struct dc_loss_entry loss[2] = {{.lane = 0, .overwritten = i ? 0 : m->lost_overwritten},
					{.lane = ~0u}};
	snprintf(p.name, sizeof p.name, "process-%u", i);
	if (m->rings[i])
		p.ns_pid = ring_maker_header(m->rings[i])->pid;
	int r = dc_writer_process(w, i, &p);
	if (r == 0 && m->stacks)
		r = m->stacks(w, i, m->arg);
	if (r < 0 || !m->rings[i])
		return r;
	if (r == 0)
		r = write_pass(w, m, i);
	if (r == 0 && m->between) {
		m->between(m->arg);
		r = write_pass(w, m, i);
	}
	return r ? r : dc_writer_block(w, DC_BLOCK_LOSS, i, loss, sizeof loss);
}

int capture_maker_write(const struct capture_maker *m)
{
	static const struct dc_incident everything = {
		.reason = DC_REASON_COMMAND, .to_units = UINT64_MAX, .clock = DC_CLOCK_MONOTONIC};
	static const uint8_t id[16] = {1, 2, 3};
	struct dc_writer *w;
	int dir = open(m->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	int r = dc_writer_open(dir, m->name, m->flags, 4, id, &w);
	close(dir);
	if (r < 0)
		return r;
	r = dc_writer_incident(w, m->incident ? m->incident : &everything);
	for (uint32_t i = 0; i < m->ring_count && r == 0; i++)
		r = write_process(w, m, i);
	int closed = dc_writer_close(w, r == 0);
	return r ? r : closed;
}

char *capture_maker_mkdir(void)
{
	char dir[SCRATCH_BYTES];
	scratch_disk("dashcam-test", dir);
	return strdup(dir);
}

void capture_maker_rmdir(char *dir)
{
	scratch_remove(dir);
	free(dir);
}
