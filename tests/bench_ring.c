/* SPDX-License-Identifier: MIT */
#include "tests/bench_ring.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "benchmark: %s\n", what);
	exit(1);
}

static const void *at(const struct bench_ring *r, uint64_t offset)
{
	return (const uint8_t *)r->header + offset;
}

void bench_ring_open(struct bench_ring *ret_ring)
{
	struct bench_ring r = {.stats = {.size = sizeof r.stats}};

	if (dc_stats(&r.stats))
		die("not recording, expected a ring; is there room on the tmpfs?");
	r.bytes = r.stats.cap_bytes;
	int fd = open(r.stats.ring, O_RDONLY | O_CLOEXEC);
	r.header = mmap(NULL, r.bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (r.header == MAP_FAILED)
		die("own ring cannot be mapped");
	close(fd);
	r.entries = at(&r, r.header->states_off);
	*ret_ring = r;
}

void bench_ring_close(struct bench_ring *ring)
{
	munmap(ring->header, ring->bytes);
}

struct place {
	uint32_t lane;
	uint32_t index;
	uint64_t first_event;
};

static int by_lane(const void *left, const void *right)
{
	const struct place *a = left, *b = right;

	if (a->lane != b->lane)
		return a->lane < b->lane ? -1 : 1;
	return a->first_event < b->first_event ? -1 : a->first_event > b->first_event;
}

static const struct dc_chunk_header *chunk(const struct bench_ring *r, uint32_t index)
{
	return at(r, r->header->chunks_off + (uint64_t)index * r->header->chunk_bytes);
}

static uint32_t order_chunks(const struct bench_ring *r, struct place *places)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < r->header->chunks_grown; i++)
		if (dc_state_bytes(r->entries[i].state))
			places[n++] = (struct place){chunk(r, i)->lane, i, chunk(r, i)->first_event};
	qsort(places, n, sizeof *places, by_lane);
	return n;
}

void bench_ring_each(const struct bench_ring *r, int (*each)(void *arg, const struct dc_event *event),
		     void *arg)
{
	struct place *places = calloc(r->header->chunks_grown + 1, sizeof *places);
	static struct dc_lane_decoder decoder;
	struct dc_schema *schema;

	if (!places || dc_schema_new(at(r, r->header->sites_off), r->header->sites_used,
				     at(r, r->header->strings_off), r->header->strings_used, &schema))
		die("no memory to read the ring");
	uint32_t count = order_chunks(r, places);
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t index = places[i].index;

		if (i == 0 || places[i].lane != places[i - 1].lane)
			dc_lane_init(&decoder, schema);
		if (dc_lane_decode(&decoder, (const uint8_t *)chunk(r, index),
				   dc_state_bytes(r->entries[index].state), each, arg))
			die("a chunk of the ring does not parse");
	}
	dc_schema_free(schema);
	free(places);
}

uint64_t bench_ring_dropped(const struct bench_ring *r)
{
	const struct dc_ring_lane *lanes = at(r, r->header->lanes_off);
	uint64_t n = r->header->lost_early + r->header->lost_lanes;

	for (uint32_t i = 0; i < r->header->lanes_used; i++)
		n += lanes[i].dropped;
	return n;
}
