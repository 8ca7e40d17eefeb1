/* SPDX-License-Identifier: MIT */
#include "trigger/maps_inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES (512u << 10)

static void fill_entry(struct dc_map_entry *e, const struct mapping *p, uint32_t path)
{
	const struct dc_build_id *id = p->file ? &p->file->id : &p->id;

	*e = (struct dc_map_entry){
		.start = p->start,
		.end = p->end,
		.offset = p->offset,
		.from_ns = p->from_ns,
		.until_ns = p->until_ns,
		.path = path,
		.flags = p->flags,
		.build_id_bytes = id->count,
	};
	memcpy(e->build_id, id->bytes, id->count);
}

/* The next entries that fit into a block, with the lock. Return: its bytes, 0: there are no more; -ENOMEM. */
static ssize_t fill_block(const struct dc_maps *m, struct dc_maps_mark *mark, uint8_t **ret_payload)
{
	struct dc_maps_block head = {.first = mark->count};
	size_t bytes = sizeof(head), text;
	uint32_t first = 0, i;
	uint8_t *payload;

	while (first < m->count && m->mappings[first].serial <= mark->serial)
		first++;
	for (i = first; i < m->count && bytes < BLOCK_BYTES; i++, head.count++) {
		bytes += sizeof(struct dc_map_entry) + strlen(m->mappings[i].path) + 1;
		head.strings_bytes += (uint32_t)strlen(m->mappings[i].path) + 1;
	}
	if (head.count == 0)
		return 0;
	payload = malloc(bytes);
	if (!payload)
		return -ENOMEM;
	text = bytes - head.strings_bytes;
	memcpy(payload, &head, sizeof(head));
	for (uint32_t k = 0, at = 0; k < head.count; k++) {
		const struct mapping *p = &m->mappings[first + k];
		struct dc_map_entry e;

		fill_entry(&e, p, at);
		memcpy(payload + sizeof(head) + k * sizeof(e), &e, sizeof(e));
		memcpy(payload + text + at, p->path, strlen(p->path) + 1);
		at += (uint32_t)strlen(p->path) + 1;
		mark->serial = p->serial;
	}
	mark->count += head.count;
	*ret_payload = payload;
	return (ssize_t)bytes;
}

int dc_maps_write(struct dc_maps *m, struct dc_writer *w, uint32_t process, struct dc_maps_mark *mark)
{
	ssize_t bytes = m != NULL;
	int r = 0;

	while (r == 0 && bytes > 0) {
		CLEANUP(free) uint8_t *payload = NULL;

		pthread_mutex_lock(&m->lock);
		bytes = fill_block(m, mark, &payload);
		pthread_mutex_unlock(&m->lock);
		if (bytes > 0)
			r = dc_writer_block(w, DC_BLOCK_MAPS, process, payload, (size_t)bytes);
	}
	return bytes < 0 ? (int)bytes : r;
}
