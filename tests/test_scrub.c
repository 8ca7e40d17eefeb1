/* SPDX-License-Identifier: MIT */
/* Claims about ipc/scrub.c, against chunks written by tests/ringmaker.c and read by the decoder. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipc/scrub.h"
#include "tests/ringmaker.h"

#define MIXED 1
#define NONE 2
#define SITES 3
#define SECRET_TEXT "hunter2-is-my-password"
#define SECRET_NUMBER UINT64_C(0x1122334455667788)

static struct dc_site_info site_info[SITES] = {
	[0] = {.name = "?"},
	[MIXED] = {.name = "mixed",
		   .arg_count = 5,
		   .types = {DC_TYPE_U64, DC_TYPE_STR, DC_TYPE_U64, DC_TYPE_SECRET, DC_TYPE_I64},
		   .keys = {"id", "password", "pin", "key", "left"}},
	[NONE] = {.name = "none"},
};
static struct dc_schema schema = {.sites = site_info, .count = SITES};

static int setup(void **state)
{
	(void)state;
	for (unsigned i = 1; i < SITES; i++)
		dc_site_shape(&site_info[i]);
	return 0;
}

/* As `dashcam scrub --arg password --arg pin` chooses: unknown keys go as well. */
static bool choose(void *arg, const struct dc_site_info *site, unsigned index)
{
	(void)arg;
	return !site || strcmp(site->keys[index], "password") == 0 || strcmp(site->keys[index], "pin") == 0;
}

static bool choose_none(void *arg, const struct dc_site_info *site, unsigned index)
{
	(void)arg;
	(void)site;
	(void)index;
	return false;
}

static const struct maker_arg mixed_args[] = {MAKE_U64(7), MAKE_STR(SECRET_TEXT), MAKE_U64(SECRET_NUMBER),
					      MAKE_SECRET, MAKE_I64(-5)};

/* One of every record. */
static void make(struct chunk_maker *c)
{
	chunk_maker_init(c, &(struct chunk_maker_opts){.lane = 3, .tid = 100, .depth = 1});
	chunk_maker_open(c, 500, 1, MIXED, mixed_args, 5);
	chunk_maker_event(c, DC_KIND_BEGIN, 1000, MIXED, mixed_args, 5);
	chunk_maker_event(c, DC_KIND_INSTANT, 1001, NONE, NULL, 0);
	chunk_maker_inline(c, DC_KIND_INSTANT, 1002, "carries its name", mixed_args, 3);
	chunk_maker_flow(c, DC_KIND_FLOW_OUT, 1003, 42);
	chunk_maker_context(c, 1004, &(struct dc_trace_context){.flags = 1, .trace_id = {1}, .span_id = {2}});
	chunk_maker_stack(c, 1005, NONE, (uint64_t[]){0x1000, 0x2000}, 2);
	chunk_maker_time(c, 1u << 30);
	chunk_maker_event(c, DC_KIND_TRIGGER, (1u << 30) + 1, MIXED, mixed_args, 5);
	chunk_maker_end_to(c, (1u << 30) + 2, 1);
	chunk_maker_thread(c, 101, 2, "second");
	chunk_maker_event(c, DC_KIND_LOG, (1u << 30) + 3, MIXED, mixed_args, 5);
}

static bool contains(const uint8_t *bytes, size_t n, const void *what, size_t length)
{
	return memmem(bytes, n, what, length) != NULL;
}

struct line {
	uint64_t units;
	uint32_t depth;
	uint32_t tid;
	uint8_t kind;
	uint16_t dropped;
	uint64_t first, last;
};

struct lines {
	struct line at[64];
	unsigned count;
};

static int collect(void *arg, const struct dc_event *e)
{
	struct lines *l = arg;

	assert_true(l->count < 64);
	l->at[l->count++] = (struct line){e->units,
					  e->depth,
					  e->tid,
					  e->kind,
					  e->args_dropped,
					  e->arg_count == 5 ? e->args[0].u : 0,
					  e->arg_count == 5 ? e->args[4].u : 0};
	return 0;
}

static int decode(const uint8_t *chunk, size_t bytes, struct lines *ret_lines)
{
	static struct dc_lane_decoder d;

	ret_lines->count = 0;
	dc_lane_init(&d, &schema);
	return dc_lane_decode(&d, chunk, bytes, collect, ret_lines);
}

/* The chosen arguments' bytes are gone, also from open-span copies and nameless sites; all else decodes as before. */
static void test_removes(void **state)
{
	struct chunk_maker c;
	struct lines before, after;
	struct dc_scrubbed s;
	const uint64_t number = SECRET_NUMBER;

	(void)state;
	make(&c);
	assert_int_equal(decode(c.bytes, c.used, &before), 0);
	assert_true(contains(c.bytes, c.used, SECRET_TEXT, strlen(SECRET_TEXT)));
	assert_int_equal(dc_chunk_scrub(c.bytes, c.used, &schema, choose, NULL, &s), 0);
	assert_false(contains(c.bytes, sizeof(c.bytes), "hunter2", 7));
	assert_false(contains(c.bytes, sizeof(c.bytes), &number, 6));
	assert_false(s.cut);
	assert_int_equal(s.events, c.events);
	assert_int_equal(s.removed, 4 * 2 + 3);
	assert_int_equal(decode(c.bytes, s.bytes, &after), 0);
	assert_int_equal(after.count, before.count);
	for (unsigned i = 0; i < after.count; i++) {
		assert_int_equal(after.at[i].units, before.at[i].units);
		assert_int_equal(after.at[i].depth, before.at[i].depth);
		assert_int_equal(after.at[i].tid, before.at[i].tid);
		assert_int_equal(after.at[i].kind, before.at[i].kind);
		assert_int_equal(after.at[i].first, before.at[i].first);
		assert_int_equal(after.at[i].last, before.at[i].last);
		if (before.at[i].first == 7)
			assert_int_equal(after.at[i].dropped, 1 << 1 | 1 << 2);
	}
}

/* With nothing chosen, not a byte changes. */
static void test_identity(void **state)
{
	struct chunk_maker c, original;
	struct dc_scrubbed s;

	(void)state;
	make(&c);
	original = c;
	assert_int_equal(dc_chunk_scrub(c.bytes, c.used, &schema, choose_none, NULL, &s), 0);
	assert_int_equal(s.bytes, c.used);
	assert_int_equal(s.removed, 0);
	assert_memory_equal(c.bytes, original.bytes, c.used);
}

/* Done twice is done once. */
static void test_idempotent(void **state)
{
	struct chunk_maker c;
	struct dc_scrubbed once, twice;

	(void)state;
	make(&c);
	assert_int_equal(dc_chunk_scrub(c.bytes, c.used, &schema, choose, NULL, &once), 0);
	assert_int_equal(dc_chunk_scrub(c.bytes, once.bytes, &schema, choose, NULL, &twice), 0);
	assert_int_equal(twice.bytes, once.bytes);
	assert_int_equal(twice.removed, 0);
}

/* Cut anywhere: no byte beyond is touched, nothing chosen survives, and what is left decodes. */
static void test_cut_anywhere(void **state)
{
	struct chunk_maker c;
	struct lines lines;
	struct dc_scrubbed s;

	(void)state;
	make(&c);
	for (size_t n = 0; n <= c.used; n++) {
		uint8_t *exact = malloc(n ? n : 1);

		assert_non_null(exact);
		memcpy(exact, c.bytes, n);
		if (n < sizeof(struct dc_chunk_header)) {
			assert_int_equal(dc_chunk_scrub(exact, n, &schema, choose, NULL, &s), -EBADMSG);
		} else {
			assert_int_equal(dc_chunk_scrub(exact, n, &schema, choose, NULL, &s), 0);
			assert_true(s.bytes <= n);
			assert_false(contains(exact, n, "hunter2", 7));
			assert_int_equal(decode(exact, s.bytes, &lines), 0);
		}
		free(exact);
	}
}

/* Any byte flipped to any value: what comes out is no larger and holds nothing chosen that was walked over. */
static void test_flip_anywhere(void **state)
{
	struct chunk_maker c, copy;
	struct dc_scrubbed s;

	(void)state;
	make(&c);
	for (size_t at = sizeof(struct dc_chunk_header); at < c.used; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			copy = c;
			copy.bytes[at] ^= (uint8_t)(1u << bit);
			assert_int_equal(dc_chunk_scrub(copy.bytes, c.used, &schema, choose, NULL, &s), 0);
			assert_true(s.bytes <= c.used);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_removes),       cmocka_unit_test(test_identity),
		cmocka_unit_test(test_idempotent),    cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_flip_anywhere),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
