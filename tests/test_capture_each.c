/* SPDX-License-Identifier: MIT */
/* Claims about dc_capture_each(): whichever way a block is read, the events are those of its chunks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/capture_inside.h"
#include "persist/columns_layout.h"
#include "persist/writer.h"
#include "tests/capturedir.h"
#include "tests/eventhash.h"
#include "tests/httpmix.h"

#define SETTLED "settled.dcap"
#define EDITED "edited.dcap"
#define LANES 8


static struct dc_capture *open_capture(const char *name)
{
	char path[300], why[160];
	struct dc_capture *c;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	assert_int_equal(dc_capture_open(path, &c, why), 0);
	return c;
}

/* Three blocks of columns. */
static int set_up(void **state)
{
	struct ring_maker *ring = mix_ring(MIX_HTTP, 500000);

	if (dir_make(state) != 0)
		return -1;
	struct capture_maker m = {
		.dir = dir, .name = SETTLED, .rings = &ring, .ring_count = 1, .chunks_per_block = 100};
	int r = capture_maker_write(&m);
	ring_maker_free(ring);
	return r == 0 ? dc_settle(dir_fd, SETTLED, &(struct dc_settle_options){.zstd_level = 1}, NULL) : r;
}

/* --- readings --- */

struct reading {
	uint64_t hash[LANES];
	uint64_t events;
	uint64_t stop_at; /* 0: never */
};

static int read_event(void *arg, const struct dc_event *e)
{
	struct reading *r = arg;

	assert_true(e->lane < LANES);
	r->hash[e->lane] = r->hash[e->lane] * 31 + event_hash(e);
	return ++r->events == r->stop_at ? 7 : 0;
}

static struct reading read_all(struct dc_capture *c)
{
	struct reading r = {0};

	assert_int_equal(dc_capture_each(c, 0, read_event, &r), 0);
	return r;
}

/* Chunk by chunk, from their bytes. */
static struct reading read_chunks(struct dc_capture *c)
{
	struct dc_lane_decoder *d = malloc(sizeof *d);
	struct reading reading = {0};

	assert_int_equal(dc_capture_index(c), 0);
	for (uint32_t i = 0; i < c->chunk_count; i++) {
		const struct dc_chunk_ref *ref = &c->chunks[i];
		const uint8_t *bytes;

		if (i == 0 || ref->lane != ref[-1].lane)
			dc_lane_init(d, dc_capture_schema(c, 0));
		assert_int_equal(dc_capture_chunk(c, ref, &bytes), 0);
		dc_lane_decode(d, bytes, ref->bytes, read_event, &reading);
	}
	free(d);
	return reading;
}

static unsigned faults(const struct dc_capture *c)
{
	const struct dc_fault *f;

	return dc_capture_faults(c, &f);
}

/* --- a copy of the capture with something else in it --- */

/* @n: blocks of this type before. Return: how often the block is written. */
typedef unsigned (*edit_fn)(uint16_t type, unsigned n, uint8_t *payload, size_t bytes);

static void copy_block(struct dc_capture *c, struct dc_writer *w, uint32_t i, unsigned n, edit_fn edit)
{
	const struct dc_block_ref *b = &c->blocks[i];
	CLEANUP(free) uint8_t *copy = malloc(b->plain_bytes + 1);
	const uint8_t *payload;

	assert_int_equal(dc_capture_payload(c, b, &payload), 0);
	memcpy(copy, payload, b->plain_bytes);
	for (unsigned times = edit(b->type, n, copy, b->plain_bytes); times; times--)
		assert_int_equal(dc_writer_block_zstd(w, b->type, b->process, copy, b->plain_bytes), 0);
}

static struct dc_capture *edited(edit_fn edit)
{
	struct dc_capture *c = open_capture(SETTLED);
	struct dc_file_block file = {.version = 1, .settled = 1};
	unsigned seen[16] = {0};
	struct dc_writer *w;

	unlinkat(dir_fd, EDITED, 0);
	assert_int_equal(dc_writer_open_as(dir_fd, EDITED, DC_WRITER_SETTLED, 2, &file, &w), 0);
	for (uint32_t i = 0; i < c->block_count; i++) {
		uint16_t type = c->blocks[i].type;

		if (type != DC_BLOCK_FILE && type != DC_BLOCK_INDEX && type != DC_BLOCK_END)
			copy_block(c, w, i, seen[type]++, edit);
	}
	assert_true(seen[DC_BLOCK_COLUMNS] >= 3);
	assert_int_equal(dc_writer_close(w, true), 0);
	dc_capture_close(c);
	return open_capture(EDITED);
}

static void same(struct reading a, struct reading b)
{
	assert_int_equal(a.events, b.events);
	assert_memory_equal(a.hash, b.hash, sizeof a.hash);
}

/* --- claims --- */

static void test_columns_give_the_events_of_their_chunks(void **state)
{
	/* Lane by lane the same events, once, and again when it is read again. */
	struct dc_capture *c = open_capture(SETTLED);
	struct reading chunks = read_chunks(c);

	(void)state;
	assert_true(chunks.events >= 500000);
	same(read_all(c), chunks);
	same(read_all(c), chunks);
	assert_int_equal(faults(c), 0);
	dc_capture_close(c);
}

static void test_a_callback_can_stop(void **state)
{
	/* After the event for which it returned something, nothing more comes, and that is returned. */
	struct dc_capture *c = open_capture(SETTLED);

	(void)state;
	for (uint64_t at = 1; at < 500000; at += 49999) {
		struct reading r = {.stop_at = at};

		assert_int_equal(dc_capture_each(c, 0, read_event, &r), 7);
		assert_int_equal(r.events, at);
	}
	assert_int_equal(faults(c), 0);
	dc_capture_close(c);
}

static unsigned twice(uint16_t type, unsigned n, uint8_t *payload, size_t bytes)
{
	(void)n, (void)payload, (void)bytes;
	return type == DC_BLOCK_COLUMNS ? 2 : 1;
}

static void test_chunks_that_are_there_twice_come_once(void **state)
{
	/* Of two copies of a chunk one counts; a block of which only some chunks do is read by its chunks. */
	struct dc_capture *c = edited(twice), *once = open_capture(SETTLED);

	(void)state;
	same(read_all(c), read_all(once));
	assert_int_equal(faults(c), 0);
	dc_capture_close(c);
	dc_capture_close(once);
}

/* The site of the reply, which the columns have arguments for, is not published any more. */
static unsigned unpublish(uint16_t type, unsigned n, uint8_t *payload, size_t bytes)
{
	size_t at = sizeof(struct dc_tables_block) + sizeof(struct dc_ring_header) + 7 * sizeof(struct dc_ring_site) +
		    offsetof(struct dc_ring_site, published);

	(void)n;
	if (type == DC_BLOCK_TABLES) {
		assert_true(at < bytes);
		assert_int_equal(payload[at], 1);
		payload[at] = 0;
	}
	return 1;
}

static void test_what_columns_and_tables_disagree_about_ends_a_chunk(void **state)
{
	/* Columns hold arguments of a site that the tables do not know: each chunk gives what is before. */
	struct dc_capture *c = edited(unpublish);
	struct reading chunks = read_chunks(c);

	(void)state;
	assert_true(chunks.events > 100 && chunks.events < 400000);
	same(read_all(c), chunks);
	assert_true(faults(c) > 0);
	dc_capture_close(c);
}

/* An op in the middle of the second block names a shape that is not there. */
static unsigned lie(uint16_t type, unsigned n, uint8_t *payload, size_t bytes)
{
	struct dc_chunks_block block;
	struct dc_columns_head h;
	size_t at;

	if (type != DC_BLOCK_COLUMNS || n != 1)
		return 1;
	memcpy(&block, payload, sizeof block);
	memcpy(&h, payload + block.data_offset, sizeof h);
	assert_int_equal(h.op_bytes, 1);
	at = block.data_offset + sizeof h + h.shape_count * sizeof(struct dc_columns_shape) +
	     h.arg_count * sizeof(struct dc_columns_arg) + block.count * sizeof(struct dc_chunk_header) +
	     h.op_count / 2;
	assert_true(at < bytes);
	payload[at] = 255;
	return 1;
}

static void test_columns_that_lie_cost_their_block_only(void **state)
{
	/* What comes before the lie is delivered, and so are all other blocks; the capture says what is lost.
	 */
	struct dc_capture *c = edited(lie), *whole = open_capture(SETTLED);
	struct reading r = read_all(c), all = read_all(whole);
	const struct dc_fault *f;
	uint32_t second = 0;

	(void)state;
	for (uint32_t i = 0, n = 0; i < whole->block_count; i++)
		if (whole->blocks[i].type == DC_BLOCK_COLUMNS && n++ == 1)
			second = i;
	uint64_t in_second = 0;
	for (uint32_t i = 0; i < whole->chunk_count; i++)
		in_second += whole->chunks[i].block == second ? whole->chunks[i].events : 0;
	assert_true(r.events > all.events - in_second && r.events < all.events);
	assert_int_equal(dc_capture_faults(c, &f), 2);
	assert_non_null(strstr(f[0].text, "does not parse"));
	assert_non_null(strstr(f[1].text, "its columns do not fit together"));
	dc_capture_close(c);
	dc_capture_close(whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_columns_give_the_events_of_their_chunks),
		cmocka_unit_test(test_a_callback_can_stop),
		cmocka_unit_test(test_chunks_that_are_there_twice_come_once),
		cmocka_unit_test(test_what_columns_and_tables_disagree_about_ends_a_chunk),
		cmocka_unit_test(test_columns_that_lie_cost_their_block_only),
	};

	return cmocka_run_group_tests(tests, set_up, dir_remove);
}
