/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as columns: joined or refused, never out of bounds. And as a chunk: split and joined, the same again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "persist/columns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void join(const uint8_t *data, size_t bytes)
{
	size_t joined_bytes;
	uint8_t *joined;

	if (dc_columns_joined_bytes(data, bytes, &joined_bytes) < 0)
		return;
	joined = malloc(joined_bytes + DC_COLUMNS_SLACK);
	if (joined)
		dc_columns_join(data, bytes, joined, joined_bytes + DC_COLUMNS_SLACK);
	free(joined);
}

/* The first bytes are the site table, the rest is one chunk. */
static void round_trip(const uint8_t *data, size_t bytes)
{
	static uint8_t payload[70000], joined[70000 + DC_COLUMNS_SLACK];
	struct dc_ring_site sites[4];
	struct dc_chunks_block block = {.count = 1,
					.data_offset = sizeof block + sizeof(struct dc_chunk_copy)};
	struct dc_chunk_copy entry = {0};
	size_t total, columns_bytes;
	void *columns;

	if (bytes < sizeof sites || bytes - sizeof sites > UINT16_MAX)
		return;
	memcpy(sites, data, sizeof sites);
	entry.state = bytes - sizeof sites;
	total = block.data_offset + dc_columns_packed(entry.state);
	memset(payload, 0, total);
	memcpy(payload, &block, sizeof block);
	memcpy(payload + sizeof block, &entry, sizeof entry);
	memcpy(payload + block.data_offset, data + sizeof sites, entry.state);
	if (dc_columns_split(payload, total, sites, 4, &columns, &columns_bytes) < 0)
		abort();
	if (dc_columns_join(columns, columns_bytes, joined, sizeof joined) < 0 ||
	    memcmp(joined, payload, total))
		abort();
	free(columns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	join(data, bytes);
	round_trip(data, bytes);
	return 0;
}
