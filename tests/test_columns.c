/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>

#include "persist/columns.h"
#include "persist/columns_inside.h"
#include "tests/eventhash.h"
#include "tests/httpmix.h"

/* Chunks, in order, as the payload of a CHUNKS block wants them. */
struct list {
	struct dc_chunk_copy *entries;
	uint8_t *data;
	uint32_t count;
	size_t data_bytes;
	uint64_t events;
};

static struct dc_ring_site sites[DC_SITE_MAX];
static uint32_t site_count;
static uint64_t seed = 88172645463325252u;

static uint64_t random_number(void)
{
	seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
	return seed >> 8;
}

/* A copy of exactly its size, so that a sanitizer sees every byte read past it. */
static uint8_t *exact(const void *from, size_t bytes)
{
	uint8_t *copy = malloc(bytes + !bytes);

	memcpy(copy, from, bytes);
	return copy;
}

/* --- the events straight from the columns, and those of the joined chunks --- */

struct reading {
	uint64_t hash;
	uint64_t events;
	uint64_t stop_at; /* 0: never */
};

static int read_event(void *arg, const struct dc_event *e)
{
	struct reading *r = arg;

	r->hash = r->hash * 31 + event_hash(e);
	return ++r->events == r->stop_at ? 7 : 0;
}

static uint64_t understood; /* blocks that were read both ways */

/* Both are told to stop after as many events. False: nothing more can be read from the columns. */
static bool same_chunk(struct dc_columns *c, struct dc_lane_decoder d[2], const uint8_t *chunk, size_t bytes,
		       uint64_t stop_at)
{
	struct reading is = {.stop_at = stop_at}, shall = is;
	int r = dc_columns_each(c, &d[0], read_event, &is);

	assert_int_equal(r, dc_lane_decode(&d[1], chunk, bytes, read_event, &shall));
	assert_int_equal(is.events, shall.events);
	assert_int_equal(is.hash, shall.hash);
	assert_int_equal(d[0].faulty, d[1].faulty);
	if (r)
		return false;
	assert_int_equal(d[0].events, d[1].events);
	assert_int_equal(d[0].next_event, d[1].next_event);
	assert_int_equal(d[0].overwritten, d[1].overwritten);
	assert_int_equal(d[0].units, d[1].units);
	assert_int_equal(d[0].depth, d[1].depth);
	return true;
}

static void same_events(const void *columns, size_t bytes, const uint8_t *joined, uint64_t stop_at)
{
	struct dc_lane_decoder *d = calloc(2, sizeof *d);
	struct dc_schema *schema;
	struct dc_columns c;
	struct dc_chunk_copy e;

	assert_int_equal(dc_schema_new(sites, site_count, "", 0, &schema), 0);
	assert_int_equal(dc_columns_open(&c, columns, bytes), 0);
	dc_lane_init(&d[0], schema);
	dc_lane_init(&d[1], schema);
	if (dc_columns_understand(&c, schema)) {
		understood++;
		while (c.chunk < c.block.count) {
			memcpy(&e, joined + sizeof c.block + c.chunk * sizeof e, sizeof e);
			if (!same_chunk(&c, d, joined + c.block.data_offset + e.offset,
					dc_state_bytes(e.state), stop_at))
				break;
		}
	}
	dc_columns_close(&c);
	dc_schema_free(schema);
	free(d);
}

/* Splits and joins, and demands the same bytes. Return: bytes of the columns; *@ret_head what was made of
 * them. */
static size_t round_trip(const uint8_t *payload, size_t bytes, struct dc_columns_head *ret_head)
{
	uint8_t *joined = malloc(bytes + DC_COLUMNS_SLACK);
	size_t columns_bytes, joined_bytes;
	struct dc_chunks_block block;
	void *columns;

	assert_int_equal(dc_columns_split(payload, bytes, sites, site_count, &columns, &columns_bytes), 0);
	assert_int_equal(dc_columns_joined_bytes(columns, columns_bytes, &joined_bytes), 0);
	assert_int_equal(joined_bytes, bytes);
	memset(joined, 0xee, bytes + DC_COLUMNS_SLACK);
	assert_int_equal(dc_columns_join(columns, columns_bytes, joined, bytes + DC_COLUMNS_SLACK), 0);
	assert_memory_equal(joined, payload, bytes);
	same_events(columns, columns_bytes, joined, 0);
	same_events(columns, columns_bytes, joined, 1 + random_number() % 300);
	memcpy(&block, columns, sizeof block);
	memcpy(ret_head, (uint8_t *)columns + block.data_offset, sizeof *ret_head);
	free(columns);
	free(joined);
	return columns_bytes;
}

static void list_add(struct list *list, uint64_t state, uint32_t lane, const void *chunk)
{
	size_t bytes = dc_state_bytes(state), packed = dc_columns_packed(bytes);

	list->entries = realloc(list->entries, (list->count + 1) * sizeof *list->entries);
	list->data = realloc(list->data, list->data_bytes + packed + 1);
	list->entries[list->count++] = (struct dc_chunk_copy){
		.state = state, .offset = (uint32_t)list->data_bytes, .index = list->count, .lane = lane};
	memcpy(list->data + list->data_bytes, chunk, bytes);
	memset(list->data + list->data_bytes + bytes, 0, packed - bytes);
	list->data_bytes += packed;
	list->events += dc_state_events(state);
}

static void list_free(struct list *list)
{
	free(list->entries);
	free(list->data);
}

/* All chunks of a ring, and its site table. The ring is freed. */
static void list_take(struct list *list, struct ring_maker *ring)
{
	const struct dc_ring_header *h = ring_maker_header(ring);
	const struct dc_chunk_entry *entry = ring_maker_entries(ring);
	size_t bytes;

	site_count = h->sites_used;
	memcpy(sites, ring_maker_bytes(ring, &bytes) + h->sites_off, site_count * sizeof *sites);
	for (uint32_t i = 0; i < h->chunks_grown; i++)
		list_add(list, entry[i].state, entry[i].lane, ring_maker_chunk(ring, i));
	ring_maker_free(ring);
}

static uint8_t *payload_of(const struct list *list, size_t *ret_bytes)
{
	struct dc_chunks_block block = {.count = list->count, .chunk_bytes = 8192};
	size_t entries = list->count * sizeof *list->entries;
	uint8_t *payload;

	block.data_offset = (uint32_t)(sizeof block + entries);
	*ret_bytes = block.data_offset + list->data_bytes;
	payload = malloc(*ret_bytes); /* exactly, so that a sanitizer sees every byte read past it */
	memcpy(payload, &block, sizeof block);
	if (list->count) {
		memcpy(payload + sizeof block, list->entries, entries);
		memcpy(payload + block.data_offset, list->data, list->data_bytes);
	}
	return payload;
}

static void round_trip_list(const struct list *list, struct dc_columns_head *ret_head)
{
	size_t bytes;
	uint8_t *payload = payload_of(list, &bytes);

	round_trip(payload, bytes, ret_head);
	free(payload);
}

/* A value of any width, a text of any length. */
static struct maker_arg any_arg(uint8_t type)
{
	static char text[2 * 300];
	struct maker_arg arg = {.type = type};

	memset(text, 'x', sizeof text);
	arg.dropped = random_number() % 200 == 0;
	if (type != DC_TYPE_STR)
		arg.value.u = random_number() >> random_number() % 56;
	else if (random_number() % 9)
		arg.value.text = (struct dc_text){text,
						  (uint32_t)(random_number() % 300 >> random_number() % 8),
						  random_number() % 50 == 0};
	return arg;
}

static unsigned add_sites(struct ring_maker *ring, struct maker_site *made)
{
	static const char *const shapes[] = {"", "1", "12", "134", "12345123", "6", "61676", "7"};
	unsigned n = sizeof shapes / sizeof *shapes;

	for (unsigned i = 0; i < n; i++) {
		made[i] = (struct maker_site){.name = "site", .arg_count = (uint8_t)strlen(shapes[i])};
		for (unsigned k = 0; k < DC_ARG_MAX && shapes[i][k]; k++) {
			made[i].types[k] = (uint8_t)(shapes[i][k] - '0');
			made[i].keys[k] = "key";
		}
		ring_maker_site(ring, &made[i]);
	}
	return n;
}

/* Events of every type of argument, of all widths, short and long texts, NULL, dropped; flows, stacks and all. */
static void make_all(struct list *list, unsigned events)
{
	struct ring_maker *ring = ring_maker_new(8192, events / 20 + 64, 2);
	uint32_t lane = ring_maker_lane(ring, 100, "all"), depth = 0;
	struct maker_site made[16];
	unsigned site_kinds = add_sites(ring, made);
	uint64_t units = 1000000;

	for (unsigned e = 0; e < events; e++) {
		unsigned site = (unsigned)(random_number() % site_kinds);
		struct maker_arg args[DC_ARG_MAX];

		units += random_number() >> (16 + random_number() % 40);
		for (unsigned i = 0; i < made[site].arg_count; i++)
			args[i] = any_arg(made[site].types[i]);
		if (random_number() % 3 == 0 && depth) {
			ring_maker_end(ring, lane, units);
			depth--;
		} else if (random_number() % 20 == 0) {
			struct chunk_maker *c = ring_maker_open_chunk(ring, lane, units);

			if (random_number() % 2)
				chunk_maker_flow(c, DC_KIND_FLOW_OUT, units, random_number());
			else
				chunk_maker_stack(c, units, 1, (uint64_t[]){1, 2, 3}, 3);
			ring_maker_put(ring, lane);
		} else {
			unsigned kind = depth < 20 && random_number() % 2 ? DC_KIND_BEGIN : DC_KIND_INSTANT;

			depth += kind == DC_KIND_BEGIN;
			ring_maker_event(ring, lane, kind, units, (uint16_t)(site + 1), args,
					 made[site].arg_count);
		}
	}
	ring_maker_seal(ring, lane);
	list_take(list, ring);
}

static void test_events_round_trip(void **state)
{
	/* Whatever the recorder writes comes back the same, bytes and events, and only what is meant to is an
	 * escape. */
	struct list list = {0};
	struct dc_columns_head head;

	(void)state;
	make_all(&list, 20000);
	assert_true(list.count > 10);
	understood = 0;
	round_trip_list(&list, &head);
	assert_int_equal(understood, 2);
	assert_int_equal(head.op_bytes, 1);
	assert_true(head.shape_count > 10);
	assert_true(head.wide_count > 100);
	assert_true(head.op_count - head.escape_count >
		    list.events * 9 / 10); /* long texts and TIME records are */
	list_free(&list);
}

static void test_mixes_leave_nothing_irregular(void **state)
{
	/* The traffic that sizes are quoted for is all columns: no escapes but the open spans' copies. */
	(void)state;
	for (enum mix mix = MIX_TIGHT; mix <= MIX_HTTP; mix++) {
		struct list list = {0};
		struct dc_columns_head head;

		list_take(&list, mix_ring(mix, 100000));
		understood = 0;
		round_trip_list(&list, &head);
		assert_int_equal(understood, 2);
		assert_true(head.escape_count <= list.count);
		assert_true(head.op_count - head.escape_count == list.events);
		list_free(&list);
	}
}

static void test_many_shapes_round_trip(void **state)
{
	/* With more than 255 shapes ops take two bytes; those beyond 4095 become escapes. */
	static struct chunk_maker c;
	struct list list = {0};
	struct dc_columns_head head;

	(void)state;
	understood = 0;
	site_count = DC_SITE_MAX;
	for (unsigned i = 0; i < DC_SITE_MAX; i++)
		sites[i] = (struct dc_ring_site){.published = 1, .arg_count = 1, .types = {DC_TYPE_U64}};
	for (unsigned i = 0; i < 6000; i++) {
		struct maker_arg arg = MAKE_U64(i);

		if (i % 500 == 0)
			chunk_maker_init(&c, &(struct chunk_maker_opts){.first_event = i});
		chunk_maker_event(&c, i < 4000 ? DC_KIND_INSTANT : DC_KIND_COUNTER, i, (uint16_t)(1 + i % 4000),
				  &arg, 1);
		if (i % 500 == 499)
			list_add(&list, chunk_maker_state(&c), 0, c.bytes);
		if (i == 999) {
			round_trip_list(&list, &head);
			assert_int_equal(head.op_bytes, 2);
			assert_int_equal(head.shape_count, 1000);
			assert_int_equal(head.escape_count, 0);
		}
	}
	round_trip_list(&list, &head);
	assert_int_equal(head.shape_count, DC_SHAPE_MAX);
	assert_true(head.escape_count > 0);
	assert_int_equal(understood, 4);
	list_free(&list);
}

static void add_random_chunk(struct list *list, const struct list *like)
{
	static uint8_t chunk[65536];
	size_t bytes = random_number() % 4 ? random_number() % 9000 : random_number() % 70;

	if (like->count && random_number() % 3) {
		const struct dc_chunk_copy *e = &like->entries[random_number() % like->count];

		bytes = dc_state_bytes(e->state);
		memcpy(chunk, like->data + e->offset, bytes);
		for (unsigned flips = (unsigned)(random_number() % 10); flips; flips--)
			chunk[random_number() % bytes] = (uint8_t)random_number();
		if (random_number() % 4 == 0)
			bytes = random_number() % bytes;
	} else {
		for (size_t i = 0; i < bytes; i++)
			chunk[i] = (uint8_t)(random_number() % (random_number() % 3 ? 20 : 256));
	}
	list_add(list, random_number() << 16 | bytes, (uint32_t)random_number(), chunk);
}

static void test_any_bytes_round_trip(void **state)
{
	/* Lossless for any input: damaged chunks, cut ones, noise, empty ones, shorter than a chunk header. */
	struct list like = {0};

	(void)state;
	understood = 0;
	make_all(&like, 3000);
	for (unsigned i = 0; i < 400; i++) {
		struct list list = {0};
		struct dc_columns_head head;

		for (unsigned n = (unsigned)(random_number() % 8); n; n--)
			add_random_chunk(&list, &like);
		round_trip_list(&list, &head);
		list_free(&list);
	}
	assert_true(understood > 100);
	list_free(&like);
}

static void test_largest_chunk_round_trips(void **state)
{
	/* A chunk as long as a state word can say, of the shortest events, and of bytes that are none. */
	static uint8_t chunk[65536];
	struct dc_columns_head head;

	(void)state;
	for (unsigned fill = 0; fill < 3; fill++) {
		struct list list = {0};

		memset(chunk, fill == 0 ? DC_KIND_END : fill == 1 ? 0 : 0xff, sizeof chunk);
		list_add(&list, 65535, 0, chunk);
		list_add(&list, 65535, 0, chunk);
		round_trip_list(&list, &head);
		list_free(&list);
	}
}

/* What joins need not be understood; what is understood is read as far as it fits. */
static void try_each(const uint8_t *columns, size_t bytes, bool joins)
{
	struct dc_lane_decoder *d = malloc(sizeof *d);
	struct dc_schema *schema;
	struct dc_columns c;
	int r = dc_columns_open(&c, columns, bytes);

	assert_true(r == 0 || !joins);
	assert_int_equal(dc_schema_new(sites, site_count, "", 0, &schema), 0);
	dc_lane_init(d, schema);
	if (r == 0 && dc_columns_understand(&c, schema))
		while (r == 0 && c.chunk < c.block.count)
			r = dc_columns_each(&c, d, read_event, &(struct reading){0});
	assert_true(r == 0 || r == -EBADMSG);
	dc_columns_close(&c);
	dc_schema_free(schema);
	free(d);
}

static void try_join(const uint8_t *columns, size_t bytes)
{
	uint8_t *copy = exact(columns, bytes), *joined;
	size_t joined_bytes;
	int r = dc_columns_joined_bytes(copy, bytes, &joined_bytes);

	if (r == 0) {
		assert_true(joined_bytes <= 2 * DC_BLOCK_PLAIN_MAX);
		joined = malloc(joined_bytes + DC_COLUMNS_SLACK);
		r = dc_columns_join(copy, bytes, joined, joined_bytes + DC_COLUMNS_SLACK);
		free(joined);
	}
	assert_true(r == 0 || r == -EBADMSG);
	try_each(copy, bytes, r == 0);
	free(copy);
}

static void test_hostile_columns_stay_inside(void **state)
{
	/* Every byte of the tables changed, thousands elsewhere, every cut: refused or joined, never out of bounds. */
	struct list list = {0};
	struct dc_columns_head head;
	struct dc_chunks_block block;
	size_t bytes, columns_bytes, tables_end;
	uint8_t *payload;
	void *columns;

	(void)state;
	make_all(&list, 400);
	payload = payload_of(&list, &bytes);
	assert_int_equal(dc_columns_split(payload, bytes, sites, site_count, &columns, &columns_bytes), 0);
	memcpy(&block, columns, sizeof block);
	memcpy(&head, (uint8_t *)columns + block.data_offset, sizeof head);
	tables_end = block.data_offset + sizeof head + head.shape_count * sizeof(struct dc_columns_shape) +
		     head.arg_count * sizeof(struct dc_columns_arg);
	for (size_t i = 0; i < columns_bytes; i += i < tables_end ? 1 : 3) {
		uint8_t *at = (uint8_t *)columns + i, was = *at;

		for (unsigned k = 0; k < 4; k++) {
			*at = (uint8_t)(k == 0 ? was ^ 1 : k == 1 ? 0xff : k == 2 ? 0 : random_number());
			try_join(columns, columns_bytes);
		}
		*at = was;
	}
	for (size_t cut = 0; cut < columns_bytes; cut += 1 + cut / 100)
		try_join(columns, cut);
	free(columns);
	free(payload);
	list_free(&list);
}

static void test_unpacked_payloads_are_refused(void **state)
{
	/* Gaps, wrong order, cut data and bytes in the padding would be lost, so they are refused. */
	struct list list = {0};
	size_t bytes, columns_bytes;
	struct dc_chunk_copy e;
	uint8_t *payload;
	void *columns;

	(void)state;
	list_add(&list, 70, 0, (uint8_t[70]){0});
	list_add(&list, 70, 0, (uint8_t[70]){0});
	payload = payload_of(&list, &bytes);
#define REFUSED(n)                                                                                           \
	assert_int_equal(dc_columns_split(payload, n, sites, site_count, &columns, &columns_bytes), -EINVAL)
	REFUSED(bytes - 1);
	REFUSED(bytes - 72);
	REFUSED(30);
	REFUSED(3);
	payload[bytes - 1] = 1;
	REFUSED(bytes);
	payload[bytes - 1] = 0;
	memcpy(&e, payload + sizeof(struct dc_chunks_block), sizeof e);
	e.offset = 8;
	memcpy(payload + sizeof(struct dc_chunks_block), &e, sizeof e);
	REFUSED(bytes);
	free(payload);
	list_free(&list);
}

static void test_room_is_checked(void **state)
{
	/* A join into too small a buffer is refused before a byte is written. */
	struct list list = {0};
	size_t bytes, columns_bytes;
	uint8_t *payload;
	void *columns;

	(void)state;
	make_all(&list, 10);
	payload = payload_of(&list, &bytes);
	assert_int_equal(dc_columns_split(payload, bytes, sites, site_count, &columns, &columns_bytes), 0);
	assert_int_equal(dc_columns_join(columns, columns_bytes, NULL, bytes + DC_COLUMNS_SLACK - 1),
			 -ENOBUFS);
	free(columns);
	free(payload);
	list_free(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events_round_trip),
		cmocka_unit_test(test_mixes_leave_nothing_irregular),
		cmocka_unit_test(test_many_shapes_round_trip),
		cmocka_unit_test(test_any_bytes_round_trip),
		cmocka_unit_test(test_largest_chunk_round_trips),
		cmocka_unit_test(test_hostile_columns_stay_inside),
		cmocka_unit_test(test_unpacked_payloads_are_refused),
		cmocka_unit_test(test_room_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
