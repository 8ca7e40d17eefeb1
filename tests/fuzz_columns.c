/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as columns: joined or refused, never out of bounds, and read without joining as far as they fit. And as a
 * chunk: split and joined, the same again, and the same events either way.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "persist/columns.h"
#include "persist/columns_inside.h"
#include "tests/eventhash.h"

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

struct reading {
	uint64_t hash;
	uint64_t events;
};

static int read_event(void *arg, const struct dc_event *e)
{
	struct reading *r = arg;

	r->hash = r->hash * 31 + event_hash(e);
	r->events++;
	return 0;
}

/* Return: whether the columns were understood; *@ret_reading then is what their chunks say, up to the first fault. */
static bool each(const void *columns, size_t bytes, const struct dc_ring_site *sites,
		 struct reading *ret_reading)
{
	static struct dc_lane_decoder d;
	struct dc_schema *schema;
	struct dc_columns c;
	bool can = false;

	if (dc_schema_new(sites, 4, "", 0, &schema) < 0)
		abort();
	dc_lane_init(&d, schema);
	if (dc_columns_open(&c, columns, bytes) == 0 && dc_columns_understand(&c, schema)) {
		can = true;
		while (c.chunk < c.block.count && dc_columns_each(&c, &d, read_event, ret_reading) == 0)
			;
	}
	dc_columns_close(&c);
	dc_schema_free(schema);
	return can;
}

static struct reading decode(const uint8_t *chunk, size_t bytes, const struct dc_ring_site *sites)
{
	static struct dc_lane_decoder d;
	struct reading reading = {0};
	struct dc_schema *schema;

	if (dc_schema_new(sites, 4, "", 0, &schema) < 0)
		abort();
	dc_lane_init(&d, schema);
	dc_lane_decode(&d, chunk, bytes, read_event, &reading);
	dc_schema_free(schema);
	return reading;
}

/* The first bytes are the site table, the rest is one chunk. */
static void round_trip(const uint8_t *data, size_t bytes)
{
	static uint8_t payload[70000], joined[70000 + DC_COLUMNS_SLACK];
	struct dc_ring_site sites[4];
	struct dc_chunks_block block = {.count = 1,
					.data_offset = sizeof block + sizeof(struct dc_chunk_copy)};
	struct dc_chunk_copy entry = {0};
	struct reading is = {0}, shall;
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
	if (each(columns, columns_bytes, sites, &is)) {
		shall = decode(joined + block.data_offset, entry.state, sites);
		if (is.hash != shall.hash || is.events != shall.events)
			abort();
	}
	free(columns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct dc_ring_site sites[4] = {
		{0},
		{.published = 1},
		{.published = 1, .arg_count = 1, .types = {DC_TYPE_I64}},
		{.published = 1, .arg_count = 3, .types = {DC_TYPE_U64, DC_TYPE_STR, DC_TYPE_F64}},
	};

	join(data, bytes);
	each(data, bytes, sites, &(struct reading){0});
	round_trip(data, bytes);
	return 0;
}
