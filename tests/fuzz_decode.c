/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as the chunks of a lane. Input: the first two bytes cut the rest into two chunks, so that the
 * second meets a decoder with a past. Held to: no byte outside the chunk is read (the sanitizer), what an
 * event points to lies inside it, depths and counts stay in bounds, dc_lane_decode() and dc_lane_next() say
 * the same, every event can be formatted.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/decode.h"

static struct dc_site_info sites[16];
static struct dc_schema schema = {.sites = sites, .count = 16};

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* Sites with every number of arguments and every type. */
static void make_schema(void)
{
	for (unsigned i = 0; i < 16; i++) {
		sites[i] = (struct dc_site_info){.name = "site",
						 .file = "file",
						 .format = "%d %s %5.3f %lx %p %*.*u %c %%",
						 .arg_count = (uint8_t)(i % 9)};
		for (unsigned k = 0; k < DC_ARG_MAX; k++) {
			sites[i].keys[k] = "key";
			sites[i].types[k] = (uint8_t)(i < 8 ? 1 + (i + k) % DC_TYPE_LAST : 1 + k % 2);
		}
		dc_site_shape(&sites[i]);
	}
	sites[0].shape = DC_SHAPE_UNUSABLE;
}

struct bounds {
	const uint8_t *begin;
	const uint8_t *end;
	uint64_t hash;
	uint64_t events;
};

static void must_lie_inside(const struct bounds *b, const void *from, size_t bytes)
{
	const uint8_t *p = from;
	must(p >= b->begin && p <= b->end && (size_t)(b->end - p) >= bytes);
}

static void look_at_args(const struct bounds *b, const struct dc_event *e)
{
	char text[64];
	must(e->arg_count <= DC_ARG_MAX && (e->arg_count == 0 || e->arg_count == e->info->arg_count));
	for (unsigned i = 0; i < e->arg_count; i++) {
		if (e->info->types[i] == DC_TYPE_STR && e->args[i].text.bytes)
			must_lie_inside(b, e->args[i].text.bytes, e->args[i].text.length);
		dc_value_format(e, i, text, sizeof text);
	}
	dc_event_format(e, text, sizeof text);
}

static int look(void *arg, const struct dc_event *e)
{
	struct bounds *b = arg;

	must(e->kind > 0 && e->kind <= DC_KIND_LAST && e->kind != DC_KIND_TIME && e->kind != DC_KIND_END_TO);
	must(e->depth <= 0xffff);
	must(e->kind == DC_KIND_END || !e->implied);
	must(e->kind != DC_KIND_BEGIN || e->depth >= 1);
	look_at_args(b, e);
	if (e->kind == DC_KIND_STACK)
		must_lie_inside(b, e->stack, 8 * (size_t)e->stack_count);
	if (e->kind == DC_KIND_THREAD) {
		must_lie_inside(b, e->comm, 16);
		must(memchr(e->comm, 0, 16) != NULL);
	}
	b->events += e->kind != DC_KIND_OPEN && e->kind != DC_KIND_THREAD && !e->implied;
	uint64_t parts[] = {e->units, e->kind,        e->site,      e->depth,
			    e->tid,   e->start_units, e->arg_count, e->args_dropped};
	for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++)
		b->hash = (b->hash ^ parts[i]) * 1099511628211u + (b->hash >> 31);
	return 0;
}

static struct dc_lane_decoder by_next, by_decode;

/* @bytes in memory of exactly their size, both ways. */
static void both_ways(const uint8_t *data, size_t bytes)
{
	uint8_t *chunk = malloc(bytes ? bytes : 1);
	if (!chunk)
		return;
	if (bytes)
		memcpy(chunk, data, bytes);
	struct bounds a = {chunk, chunk + bytes, 0, 0}, b = a;
	struct dc_event e;
	uint64_t before = by_decode.events;

	int r = dc_lane_decode(&by_decode, chunk, bytes, look, &a);
	must(by_decode.events - before == a.events);
	int n = dc_lane_feed(&by_next, chunk, bytes);
	while (n == 0 && (n = dc_lane_next(&by_next, &e)) > 0)
		n = look(&b, &e);
	must(r == n && a.hash == b.hash && a.events == b.events);
	must(by_next.depth == by_decode.depth && by_next.next_event == by_decode.next_event);
	must(by_next.overwritten == by_decode.overwritten && by_next.faulty == by_decode.faulty);
	free(chunk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > DC_CHUNK_BYTES_MAX)
		return 0;
	make_schema();
	dc_lane_init(&by_next, &schema);
	dc_lane_init(&by_decode, &schema);
	size_t first = (size_t)(data[0] | data[1] << 8) % (size - 1);
	both_ways(data + 2, first < size - 2 ? first : size - 2);
	if (first < size - 2)
		both_ways(data + 2 + first, size - 2 - first);
	return 0;
}
