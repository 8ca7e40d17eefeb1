/* SPDX-License-Identifier: MIT */
/* Claims about ipc/decode.c and ipc/schema.c, against chunks written by tests/ringmaker.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipc/decode.h"
#include "tests/ringmaker.h"

#define INTS 1  /* two I64 */
#define MIXED 2 /* U64 STR F64 BOOL PTR SECRET I64 */
#define NONE 3
#define BROKEN 4 /* unknown type */
#define EIGHT 5  /* eight U64 */
#define SITES 6

static struct dc_site_info site_info[SITES] = {
	[0] = {.name = "?"},
	[INTS] = {.name = "ints", .arg_count = 2, .types = {DC_TYPE_I64, DC_TYPE_I64}},
	[MIXED] = {.name = "mixed",
		   .arg_count = 7,
		   .types = {DC_TYPE_U64, DC_TYPE_STR, DC_TYPE_F64, DC_TYPE_BOOL, DC_TYPE_PTR, DC_TYPE_SECRET,
			     DC_TYPE_I64}},
	[NONE] = {.name = "none"},
	[BROKEN] = {.name = "broken", .arg_count = 1, .types = {99}},
	[EIGHT] = {.name = "eight",
		   .arg_count = 8,
		   .types = {DC_TYPE_U64, DC_TYPE_U64, DC_TYPE_U64, DC_TYPE_U64, DC_TYPE_U64, DC_TYPE_U64,
			     DC_TYPE_U64, DC_TYPE_U64}},
};
static struct dc_schema schema = {.sites = site_info, .count = SITES};

static int setup(void **state)
{
	(void)state;
	for (unsigned i = 1; i < SITES; i++)
		dc_site_shape(&site_info[i]);
	return 0;
}

/* Everything decoded from one chunk. */
struct seen {
	struct dc_event event[4096];
	unsigned count;
	int stop_at; /* the callback returns 7 at this event; -1: never */
};

static int collect(void *arg, const struct dc_event *event)
{
	struct seen *seen = arg;
	assert_true(seen->count < 4096);
	seen->event[seen->count++] = *event;
	return (int)seen->count - 1 == seen->stop_at ? 7 : 0;
}

static struct seen seen;
static struct dc_lane_decoder decoder;

/* An exact copy on the heap, so that a sanitizer sees every byte read beyond it. */
static int decode_exactly(const uint8_t *chunk, size_t bytes)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);
	assert_non_null(copy);
	memcpy(copy, chunk, bytes);
	seen.count = 0;
	int r = dc_lane_decode(&decoder, copy, bytes, collect, &seen);
	free(copy);
	return r;
}

static int decode(const struct chunk_maker *c)
{
	seen.count = 0;
	return dc_lane_decode(&decoder, c->bytes, c->used, collect, &seen);
}

static void start(struct chunk_maker *c, uint64_t first_event, uint32_t depth)
{
	chunk_maker_init(c, &(struct chunk_maker_opts){.first_event = first_event,
						       .start_units = 1000,
						       .lane = 3,
						       .tid = 77,
						       .serial = 5,
						       .depth = depth});
	seen.stop_at = -1;
}

/* A begin with its arguments and its end come back with time, thread, depth, site and start. */
static void test_begin_end(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_event(&c, DC_KIND_BEGIN, 1010, INTS,
			  (struct maker_arg[]){MAKE_I64(-5), MAKE_I64(1 << 20)}, 2);
	chunk_maker_end(&c, 1300);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.count, 2);
	const struct dc_event *b = &seen.event[0], *e = &seen.event[1];
	assert_int_equal(b->kind, DC_KIND_BEGIN);
	assert_int_equal(b->units, 1010);
	assert_int_equal(b->depth, 1);
	assert_int_equal(b->tid, 77);
	assert_int_equal(b->serial, 5);
	assert_int_equal(b->lane, 3);
	assert_int_equal(b->args[0].i, -5);
	assert_int_equal(b->args[1].i, 1 << 20);
	assert_string_equal(b->info->name, "ints");
	assert_int_equal(e->kind, DC_KIND_END);
	assert_int_equal(e->units, 1300);
	assert_int_equal(e->start_units, 1010);
	assert_int_equal(e->depth, 1);
	assert_int_equal(e->site, INTS);
	assert_ptr_equal(e->info, b->info);
	assert_int_equal(e->arg_count, 0);
	assert_false(e->implied);
	assert_false(e->from_open);
	assert_int_equal(decoder.events, 2);
	assert_int_equal(decoder.overwritten, 0);
}

/* Every integer width, in both signs, comes back from the fast loop and from the checked tail alike. */
static void test_integer_widths(void **state)
{
	(void)state;
	for (unsigned padding = 0; padding < 2; padding++) {
		struct chunk_maker c;
		dc_lane_init(&decoder, &schema);
		start(&c, 0, 0);
		for (unsigned bit = 0; bit < 64; bit++) {
			int64_t v = (int64_t)(UINT64_C(1) << bit);
			struct maker_arg args[] = {MAKE_I64(v), MAKE_I64(~v)};
			chunk_maker_event(&c, DC_KIND_INSTANT, 1000 + bit, INTS, args, 2);
		}
		for (unsigned i = 0; padding && i < 128; i++)
			chunk_maker_event(&c, DC_KIND_INSTANT, 2000, NONE, NULL, 0);
		assert_int_equal(decode(&c), 0);
		for (unsigned bit = 0; bit < 64; bit++) {
			assert_int_equal(seen.event[bit].args[0].i, (int64_t)(UINT64_C(1) << bit));
			assert_int_equal(seen.event[bit].args[1].i, ~(int64_t)(UINT64_C(1) << bit));
		}
	}
}

/* Text, doubles, booleans, pointers, secrets and dropped arguments come back as they were. */
static void test_mixed_types(void **state)
{
	(void)state;
	static char big[600];
	memset(big, 'x', sizeof big);
	struct maker_arg args[] = {MAKE_U64(UINT64_MAX), MAKE_STR("hello"), MAKE_F64(-1.5),     MAKE_BOOL(1),
				   MAKE_PTR(0x7fff0000), MAKE_SECRET,       MAKE_I64(INT64_MIN)};
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_event(&c, DC_KIND_INSTANT, 1001, MIXED, args, 7);
	args[1] = (struct maker_arg)MAKE_NULL_STR;
	args[2].dropped = true;
	args[6].dropped = true;
	chunk_maker_event(&c, DC_KIND_LOG, 1002, MIXED, args, 7);
	args[1] = (struct maker_arg){.type = DC_TYPE_STR, .value.text = {big, 600, false}};
	chunk_maker_event(&c, DC_KIND_TRIGGER, 1003, MIXED, args, 7);
	args[1].value.text.cut = true;
	chunk_maker_event(&c, DC_KIND_COUNTER, 1004, MIXED, args, 7);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.count, 4);

	const struct dc_event *e = seen.event;
	assert_int_equal(e->args[0].u, UINT64_MAX);
	assert_int_equal(e->args[1].text.length, 5);
	assert_memory_equal(e->args[1].text.bytes, "hello", 5);
	assert_true(e->args[2].f == -1.5);
	assert_int_equal(e->args[3].u, 1);
	assert_int_equal(e->args[4].u, 0x7fff0000);
	assert_int_equal(e->args[6].i, INT64_MIN);
	assert_int_equal(e->args_dropped, 0);
	assert_null(e[1].args[1].text.bytes);
	assert_int_equal(e[1].args_dropped, 1 << 2 | 1 << 6);
	assert_int_equal(e[2].args[1].text.length, 600);
	assert_false(e[2].args[1].text.cut);
	assert_int_equal(e[3].args[1].text.length, 600);
	assert_true(e[3].args[1].text.cut);
	assert_int_equal(e[3].kind, DC_KIND_COUNTER);
}

/* Kinds without a site: flows, trace context; and stacks. */
static void test_flow_context_stack(void **state)
{
	(void)state;
	struct dc_trace_context context = {1, {1, 2, 3, [15] = 16}, {9, [7] = 8}};
	uint64_t address[3] = {0x401000, 0x7f0000000001, 3}, back[3];
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_flow(&c, DC_KIND_FLOW_OUT, 1000, 0x1122334455667788);
	chunk_maker_flow(&c, DC_KIND_FLOW_IN, 1000, 7);
	chunk_maker_context(&c, 1001, &context);
	chunk_maker_stack(&c, 1002, NONE, address, 3);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.count, 4);
	assert_int_equal(seen.event[0].flow_id, 0x1122334455667788);
	assert_null(seen.event[0].info);
	assert_int_equal(seen.event[1].kind, DC_KIND_FLOW_IN);
	assert_memory_equal(&seen.event[2].context, &context, sizeof context);
	assert_int_equal(seen.event[3].stack_count, 3);
	memcpy(back, seen.event[3].stack, sizeof back);
	assert_memory_equal(back, address, sizeof back);
	assert_string_equal(seen.event[3].info->name, "none");
}

/* A backward or over-wide step of time goes through a TIME record, which is no event. */
static void test_time_records(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_event(&c, DC_KIND_INSTANT, 900, NONE, NULL, 0);
	chunk_maker_event(&c, DC_KIND_INSTANT, 900 + (UINT64_C(1) << 40), NONE, NULL, 0);
	chunk_maker_event(&c, DC_KIND_INSTANT, 901 + (UINT64_C(1) << 40), NONE, NULL, 0);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.count, 3);
	assert_int_equal(seen.event[0].units, 900);
	assert_int_equal(seen.event[1].units, 900 + (UINT64_C(1) << 40));
	assert_int_equal(seen.event[2].units, 901 + (UINT64_C(1) << 40));
	assert_int_equal(decoder.next_event, 3);
}

/* END_TO closes the spans above as implied, innermost first, then its own. */
static void test_end_to(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	for (unsigned i = 1; i <= 4; i++)
		chunk_maker_event(&c, DC_KIND_BEGIN, 1000 + i, NONE, NULL, 0);
	chunk_maker_end_to(&c, 1100, 2);
	chunk_maker_event(&c, DC_KIND_INSTANT, 1101, NONE, NULL, 0);
	chunk_maker_end_to(&c, 1102, 1);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.count, 4 + 3 + 1 + 1);
	for (unsigned i = 0; i < 3; i++) {
		const struct dc_event *e = &seen.event[4 + i];
		assert_int_equal(e->kind, DC_KIND_END);
		assert_int_equal(e->depth, 4 - i);
		assert_int_equal(e->implied, i < 2);
		assert_int_equal(e->start_units, 1004 - i);
		assert_int_equal(e->units, 1100);
	}
	assert_int_equal(seen.event[7].depth, 1);
	assert_int_equal(seen.event[8].depth, 1);
	assert_false(seen.event[8].implied);
	assert_int_equal(decoder.events, 7); /* the implied ones are not the ring's */
	assert_int_equal(decoder.next_event, 7);
	assert_int_equal(decoder.depth, 0);
}

/* END_TO to a depth that is not open is a fault: -EBADMSG, and what came before it stays. */
static void test_end_to_beyond(void **state)
{
	(void)state;
	for (uint16_t to = 0; to <= 2; to += 2) {
		struct chunk_maker c;
		dc_lane_init(&decoder, &schema);
		start(&c, 0, 0);
		chunk_maker_event(&c, DC_KIND_BEGIN, 1001, NONE, NULL, 0);
		chunk_maker_end_to(&c, 1100, to);
		assert_int_equal(decode(&c), -EBADMSG);
		assert_int_equal(seen.count, 1);
		assert_int_equal(decoder.next_event, 1);
	}
}

/* An end without a begin is delivered as not known, at depth 0, and the depth does not wrap. */
static void test_end_without_begin(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_end(&c, 1001);
	chunk_maker_event(&c, DC_KIND_BEGIN, 1002, NONE, NULL, 0);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.event[0].depth, 0);
	assert_null(seen.event[0].info);
	assert_int_equal(seen.event[0].start_units, UINT64_MAX);
	assert_int_equal(seen.event[1].depth, 1);
}

/* After a gap the open spans come from OPEN records: as events, with arguments; their ends say so; others are
 * unknown. */
static void test_gap_and_open(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_event(&c, DC_KIND_INSTANT, 1001, NONE, NULL, 0);
	assert_int_equal(decode(&c), 0);

	start(&c, 101, 2); /* 100 events are missing */
	chunk_maker_open(&c, 500, 1, INTS, (struct maker_arg[]){MAKE_I64(11), MAKE_I64(12)}, 2);
	chunk_maker_end(&c, 1002);
	chunk_maker_end(&c, 1003);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(decoder.overwritten, 100);
	assert_int_equal(seen.count, 3);
	assert_int_equal(seen.event[0].kind, DC_KIND_OPEN);
	assert_int_equal(seen.event[0].start_units, 500);
	assert_int_equal(seen.event[0].units, 1000);
	assert_int_equal(seen.event[0].depth, 1);
	assert_int_equal(seen.event[0].args[1].i, 12);
	assert_int_equal(seen.event[1].depth, 2); /* its begin was in the gap and had no copy */
	assert_null(seen.event[1].info);
	assert_int_equal(seen.event[2].start_units, 500);
	assert_true(seen.event[2].from_open);
	assert_int_equal(decoder.events, 3);
}

/* In a chunk that follows the one before, OPEN records say nothing new: they are skipped and the begin stays known. */
static void test_following_chunk(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 50, 0);
	chunk_maker_event(&c, DC_KIND_BEGIN, 1001, NONE, NULL, 0);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(decoder.overwritten, 0); /* what was before the first chunk is not between chunks */
	start(&c, 51, 1);
	chunk_maker_open(&c, 1001, 1, NONE, NULL, 0);
	chunk_maker_end(&c, 1300);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.count, 1);
	assert_false(seen.event[0].from_open);
	assert_int_equal(seen.event[0].start_units, 1001);
	assert_int_equal(decoder.overwritten, 0);
}

/* When a following chunk names another depth (begins were dropped), its OPEN records are believed. */
static void test_following_chunk_of_other_depth(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_event(&c, DC_KIND_INSTANT, 1001, NONE, NULL, 0);
	assert_int_equal(decode(&c), 0);
	start(&c, 1, 1);
	chunk_maker_open(&c, 990, 1, NONE, NULL, 0);
	chunk_maker_end(&c, 1300);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.count, 2);
	assert_int_equal(seen.event[1].start_units, 990);
	assert_int_equal(decoder.overwritten, 0);
}

/* A chunk fed twice is a new start and makes no loss. */
static void test_running_number_backwards(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 10, 0);
	chunk_maker_event(&c, DC_KIND_INSTANT, 1001, NONE, NULL, 0);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(decoder.overwritten, 0);
	assert_int_equal(decoder.next_event, 11);
}

/* THREAD changes tid and serial for what follows and forgets the spans of the thread before. */
static void test_thread(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_event(&c, DC_KIND_BEGIN, 1001, NONE, NULL, 0);
	chunk_maker_thread(&c, 88, 6, "next");
	chunk_maker_event(&c, DC_KIND_BEGIN, 1002, NONE, NULL, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(decode(&c), 0);
		assert_int_equal(seen.count, 3);
		assert_int_equal(seen.event[1].kind, DC_KIND_THREAD);
		assert_string_equal(seen.event[1].comm, "next");
		assert_int_equal(seen.event[1].tid, 88);
		assert_int_equal(seen.event[0].tid, 77);
		assert_int_equal(seen.event[2].tid, 88);
		assert_int_equal(seen.event[2].serial, 6);
		assert_int_equal(seen.event[2].depth, 1);
	}
	assert_int_equal(decoder.next_event, 2);
}

/* An event whose site had no room in the table carries its name and its types. */
static void test_inline_site(void **state)
{
	(void)state;
	struct maker_arg args[] = {MAKE_U64(5), MAKE_STR("abc"), MAKE_I64(-1)};
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	chunk_maker_inline(&c, DC_KIND_BEGIN, 1001, "late.site", args, 3);
	for (unsigned i = 0; i < 100; i++)
		chunk_maker_event(&c, DC_KIND_INSTANT, 1002, NONE, NULL, 0);
	chunk_maker_end(&c, 1003);
	struct dc_event e;
	assert_int_equal(dc_lane_feed(&decoder, c.bytes, c.used), 0);
	assert_int_equal(dc_lane_next(&decoder, &e), 1);
	assert_int_equal(e.site, DC_SITE_INLINE);
	assert_string_equal(e.info->name, "late.site");
	assert_int_equal(e.arg_count, 3);
	assert_int_equal(e.args[0].u, 5);
	assert_memory_equal(e.args[1].text.bytes, "abc", 3);
	assert_int_equal(e.args[2].i, -1);
	for (unsigned i = 0; i < 101; i++)
		assert_int_equal(dc_lane_next(&decoder, &e), 1);
	assert_string_equal(e.info->name, "late.site");
	assert_int_equal(e.arg_count, 0);
	assert_int_equal(e.start_units, 1001);
	assert_int_equal(dc_lane_next(&decoder, &e), 0);
}

/* The ends of nameless sites get the names of their begins, the last DC_DECODE_INLINE_MAX of them. */
static void test_inline_ends(void **state)
{
	(void)state;
	const unsigned deep = DC_DECODE_INLINE_MAX + 4;
	struct chunk_maker c;
	struct dc_event e;
	char name[16];
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	for (unsigned i = 0; i < deep; i++) {
		snprintf(name, sizeof name, "late.%u", i);
		chunk_maker_inline(&c, DC_KIND_BEGIN, 1001 + i, name, NULL, 0);
	}
	for (unsigned i = 0; i < deep; i++)
		chunk_maker_end(&c, 2000 + i);
	assert_int_equal(dc_lane_feed(&decoder, c.bytes, c.used), 0);
	for (unsigned i = 0; i < deep; i++)
		assert_int_equal(dc_lane_next(&decoder, &e), 1);
	for (unsigned i = deep; i-- > 0;) {
		snprintf(name, sizeof name, "late.%u", i);
		assert_int_equal(dc_lane_next(&decoder, &e), 1);
		assert_int_equal(e.kind, DC_KIND_END);
		assert_string_equal(e.info->name, i < 4 ? "?" : name);
	}
}

/* Sites beyond the table, of id 0, not published or with unknown types end the chunk. */
static void test_bad_sites(void **state)
{
	(void)state;
	const uint16_t bad[] = {0, BROKEN, SITES, 0xfffe};
	for (unsigned i = 0; i < 4; i++) {
		struct chunk_maker c;
		dc_lane_init(&decoder, &schema);
		start(&c, 0, 0);
		chunk_maker_event(&c, DC_KIND_INSTANT, 1001, NONE, NULL, 0);
		chunk_maker_event(&c, DC_KIND_INSTANT, 1002, bad[i], NULL, 0);
		chunk_maker_event(&c, DC_KIND_INSTANT, 1003, NONE, NULL, 0);
		assert_int_equal(decode(&c), -EBADMSG);
		assert_int_equal(seen.count, 1);
		assert_int_equal(decoder.next_event, 1);
		struct dc_event e;
		assert_int_equal(dc_lane_next(&decoder, &e), 0); /* the chunk is over */
	}
}

/* Spans deeper than the decoder remembers are counted; their ends come as not known, the outer ones as known. */
static void test_deep(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	for (unsigned i = 1; i <= 300; i++)
		chunk_maker_event(&c, DC_KIND_BEGIN, 1000 + i, NONE, NULL, 0);
	for (unsigned i = 300; i >= 1; i--)
		chunk_maker_end(&c, 2000);
	assert_int_equal(decode(&c), 0);
	assert_int_equal(seen.count, 600);
	assert_int_equal(seen.event[299].depth, 300);
	for (unsigned i = 0; i < 300; i++) {
		const struct dc_event *e = &seen.event[300 + i];
		unsigned depth = 300 - i;
		assert_int_equal(e->depth, depth);
		assert_int_equal(e->info != NULL, depth <= DC_DECODE_DEPTH_MAX);
		assert_int_equal(e->start_units, depth <= DC_DECODE_DEPTH_MAX ? 1000 + depth : UINT64_MAX);
	}
}

/* What the callback returns stops the decoding and is returned; the rest can still be had with dc_lane_next(). */
static void test_callback_stops(void **state)
{
	(void)state;
	struct chunk_maker c;
	dc_lane_init(&decoder, &schema);
	start(&c, 0, 0);
	for (unsigned i = 0; i < 100; i++)
		chunk_maker_event(&c, DC_KIND_INSTANT, 1000 + i, NONE, NULL, 0);
	for (int stop = 0; stop < 100; stop++) {
		seen.stop_at = stop;
		assert_int_equal(decode(&c), 7);
		assert_int_equal(seen.count, stop + 1);
		struct dc_event e;
		for (int i = stop + 1; i < 100; i++) {
			assert_int_equal(dc_lane_next(&decoder, &e), 1);
			assert_int_equal(e.units, 1000 + i);
		}
		assert_int_equal(dc_lane_next(&decoder, &e), 0);
	}
}

/* Header bytes that are not a header are refused, and leave nothing to decode. */
static void test_bad_header(void **state)
{
	(void)state;
	struct chunk_maker c;
	struct dc_event e;
	start(&c, 0, 0);
	chunk_maker_event(&c, DC_KIND_INSTANT, 1001, NONE, NULL, 0);
	for (unsigned size = 0; size < sizeof(struct dc_chunk_header); size++) {
		dc_lane_init(&decoder, &schema);
		assert_int_equal(decode_exactly(c.bytes, size), -EBADMSG);
		assert_int_equal(dc_lane_next(&decoder, &e), 0);
	}
	struct dc_chunk_header *h = (struct dc_chunk_header *)c.bytes;
	h->opens = 1;
	assert_int_equal(decode(&c), -EBADMSG);
	h->opens = 33;
	h->depth = 40;
	assert_int_equal(decode(&c), -EBADMSG);
	h->opens = 0;
	h->depth = 0x10000;
	assert_int_equal(decode(&c), -EBADMSG);
	h->depth = 0;
	h->first_event = UINT64_MAX;
	assert_int_equal(decode(&c), -EBADMSG);
	h->first_event = 0;
	assert_int_equal(decode(&c), 0);
}

static void every_kind(struct chunk_maker *c)
{
	struct maker_arg args[] = {MAKE_U64(1000), MAKE_STR("hello"), MAKE_F64(1.1),   MAKE_BOOL(0),
				   MAKE_PTR(1),    MAKE_SECRET,       MAKE_I64(-70000)};
	struct maker_arg eight[8] = {MAKE_U64(UINT64_MAX), MAKE_U64(1 << 30),   MAKE_U64(3),
				     MAKE_U64(UINT64_MAX), MAKE_U64(5),         MAKE_U64(1),
				     MAKE_U64(0),          MAKE_U64(UINT64_MAX)};
	uint64_t address[] = {1, 2, 3};
	start(c, 0, 1);
	chunk_maker_open(c, 10, 1, MIXED, args, 7);
	chunk_maker_event(c, DC_KIND_BEGIN, 1001, EIGHT, eight, 8);
	chunk_maker_event(c, DC_KIND_BEGIN, 1001, MIXED, args, 7);
	chunk_maker_inline(c, DC_KIND_LOG, 70000, "inline", args, 7);
	chunk_maker_stack(c, 70001, NONE, address, 3);
	chunk_maker_context(c, 70002, &(struct dc_trace_context){.flags = 1});
	chunk_maker_flow(c, DC_KIND_FLOW_IN, 70003, 9);
	chunk_maker_end_to(c, 70004, 1);
	chunk_maker_thread(c, 5, 9, "t");
	chunk_maker_event(c, DC_KIND_COUNTER, 1, EIGHT, eight, 8);
	chunk_maker_end(c, 70005);
}

/* A chunk cut at any byte gives the events before the cut, all alike, and reads no byte beyond it. */
static void test_cut_anywhere(void **state)
{
	(void)state;
	struct chunk_maker c;
	every_kind(&c);
	dc_lane_init(&decoder, &schema);
	assert_int_equal(decode(&c), 0);
	unsigned all = seen.count;
	static struct seen whole;
	whole = seen;
	unsigned most = 0;
	for (size_t size = sizeof(struct dc_chunk_header); size < c.used; size++) {
		dc_lane_init(&decoder, &schema);
		int r = decode_exactly(c.bytes, size);
		assert_true(r == 0 || r == -EBADMSG);
		assert_true(seen.count >= most && seen.count < all);
		most = seen.count;
		for (unsigned i = 0; i < seen.count; i++) {
			assert_int_equal(seen.event[i].units, whole.event[i].units);
			assert_int_equal(seen.event[i].kind, whole.event[i].kind);
			assert_int_equal(seen.event[i].depth, whole.event[i].depth);
		}
	}
	assert_int_equal(most, all - 1);
}

/* dc_lane_next() and dc_lane_decode() give the same events, from the fast loop and from the tail. */
static void test_next_is_decode(void **state)
{
	(void)state;
	struct chunk_maker c;
	every_kind(&c);
	dc_lane_init(&decoder, &schema);
	assert_int_equal(decode(&c), 0);
	static struct dc_lane_decoder other;
	struct dc_event e;
	dc_lane_init(&other, &schema);
	assert_int_equal(dc_lane_feed(&other, c.bytes, c.used), 0);
	for (unsigned i = 0; i < seen.count; i++) {
		assert_int_equal(dc_lane_next(&other, &e), 1);
		const struct dc_event *s = &seen.event[i];
		assert_int_equal(e.units, s->units);
		assert_int_equal(e.kind, s->kind);
		assert_int_equal(e.site, s->site);
		assert_int_equal(e.depth, s->depth);
		assert_int_equal(e.implied, s->implied);
		assert_int_equal(e.start_units, s->start_units);
		assert_int_equal(e.arg_count, s->arg_count);
		assert_int_equal(e.tid, s->tid);
		assert_int_equal(e.lane, s->lane);
	}
	assert_int_equal(dc_lane_next(&other, &e), 0);
	assert_int_equal(other.events, decoder.events);
	assert_int_equal(other.next_event, decoder.next_event);
}

/* Every wrong argument code is a fault, whether it meets the fast loop or the tail. */
static void test_bad_codes(void **state)
{
	(void)state;
	for (unsigned padding = 0; padding < 2; padding++) {
		for (unsigned code = 0; code < 256; code++) {
			struct chunk_maker c;
			dc_lane_init(&decoder, &schema);
			start(&c, 0, 0);
			chunk_maker_event(&c, DC_KIND_INSTANT, 1001, INTS,
					  (struct maker_arg[]){MAKE_I64(1), MAKE_I64(1)}, 2);
			c.bytes[sizeof(struct dc_chunk_header) + 4] = (uint8_t)code;
			for (unsigned i = 0; padding && i < 100; i++)
				chunk_maker_event(&c, DC_KIND_INSTANT, 1002, NONE, NULL, 0);
			unsigned a = code & 15, b = code >> 4;
			bool fine = (a - 1 < 8 || a == 15) && (b - 1 < 8 || b == 15);
			int r = decode(&c);
			if (!fine) {
				assert_int_equal(r, -EBADMSG);
				assert_int_equal(seen.count, 0);
			} else if (code == 0x11) {
				assert_int_equal(r, 0);
			} else if (padding) { /* it eats the next event or leaves some of itself: something
						 came */
				assert_true(seen.count >= 1);
			}
		}
	}
}

/* The schema takes hostile tables: offsets out of range, no NUL at the end, absurd counts and types. */
static void test_schema(void **state)
{
	(void)state;
	struct dc_ring_site sites[5] = {0};
	char *strings = malloc(8); /* on the heap: a sanitizer sees a read beyond it */
	struct dc_schema *s;

	assert_non_null(strings);
	memcpy(strings, "\0abc\0end", 8);
	sites[1] = (struct dc_ring_site){
		.name = 1, .file = 5, .published = 1, .arg_count = 1, .types = {DC_TYPE_STR}};
	sites[2] = (struct dc_ring_site){.name = UINT32_MAX, .published = 1, .arg_count = 9};
	sites[3] = (struct dc_ring_site){.name = 8, .published = 1, .keys = {2}};
	sites[4] = (struct dc_ring_site){.name = 1, .published = 0};
	assert_int_equal(dc_schema_new(sites, 5, strings, 8, &s), 0);
	free(strings);
	assert_int_equal(s->count, 5);
	assert_string_equal(s->sites[0].name, "?");
	assert_int_equal(s->sites[0].shape, DC_SHAPE_UNUSABLE);
	assert_string_equal(s->sites[1].name, "abc");
	assert_string_equal(s->sites[1].file, "end");
	assert_int_equal(s->sites[1].shape, DC_SHAPE_MIXED);
	assert_string_equal(s->sites[2].name, "?");
	assert_int_equal(s->sites[2].shape, DC_SHAPE_UNUSABLE);
	assert_string_equal(s->sites[3].name, "?");
	assert_string_equal(s->sites[3].keys[0], "bc");
	assert_int_equal(s->sites[3].shape, DC_SHAPE_WORDS);
	assert_int_equal(s->sites[4].shape, DC_SHAPE_UNUSABLE);
	assert_string_equal(s->sites[4].name, "?");
	dc_schema_free(s);
	assert_int_equal(dc_schema_new(NULL, 0, NULL, 0, &s), 0);
	assert_int_equal(s->count, 1);
	dc_schema_free(s);
	dc_schema_free(NULL);
}

/* ringmaker's own rings: events survive switches of chunk, and what was overwritten is counted exactly. */
static void test_ring_overwrites(void **state)
{
	(void)state;
	struct ring_maker *m = ring_maker_new(4096, 4, 2);
	uint32_t lane = ring_maker_lane(m, 9, "w");
	struct dc_chunk_entry *entry = ring_maker_entries(m);
	uint16_t site = ring_maker_site(m, &(struct maker_site){.name = "s"});
	size_t size;
	ring_maker_event(m, lane, DC_KIND_BEGIN, 1000, site, NULL, 0);
	for (unsigned i = 1; i < 20000; i++)
		ring_maker_event(m, lane, DC_KIND_INSTANT, 1000 + i, site, NULL, 0);

	struct dc_schema *own;
	assert_int_equal(dc_schema_new((void *)(ring_maker_bytes(m, &size) + ring_maker_header(m)->sites_off),
				       2,
				       (char *)ring_maker_bytes(m, &size) + ring_maker_header(m)->strings_off,
				       64, &own),
			 0);
	dc_lane_init(&decoder, own);
	uint64_t first = UINT64_MAX, last = 0;
	for (;;) { /* the pool's chunks by running number */
		uint32_t best = UINT32_MAX;
		uint64_t number = UINT64_MAX;
		for (uint32_t i = 0; i < 4; i++) {
			uint64_t here;
			memcpy(&here, ring_maker_chunk(m, i), sizeof here);
			if (here < number && (first == UINT64_MAX || here > last)) {
				number = here;
				best = i;
			}
		}
		if (best == UINT32_MAX)
			break;
		if (first == UINT64_MAX)
			first = number;
		last = number;
		seen.count = 0;
		seen.stop_at = -1;
		assert_int_equal(dc_lane_decode(&decoder, ring_maker_chunk(m, best),
						dc_state_bytes(entry[best].state), collect, &seen),
				 0);
		if (number == first) {
			assert_int_equal(seen.event[0].kind, DC_KIND_OPEN);
			assert_int_equal(seen.event[0].start_units, 1000);
		}
	}
	assert_int_equal(decoder.overwritten, 0);
	assert_int_equal(first + decoder.events, 20000);
	assert_int_equal(ring_maker_events(m), 20000);
	dc_schema_free(own);
	ring_maker_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_begin_end),
		cmocka_unit_test(test_integer_widths),
		cmocka_unit_test(test_mixed_types),
		cmocka_unit_test(test_flow_context_stack),
		cmocka_unit_test(test_time_records),
		cmocka_unit_test(test_end_to),
		cmocka_unit_test(test_end_to_beyond),
		cmocka_unit_test(test_end_without_begin),
		cmocka_unit_test(test_gap_and_open),
		cmocka_unit_test(test_following_chunk),
		cmocka_unit_test(test_following_chunk_of_other_depth),
		cmocka_unit_test(test_running_number_backwards),
		cmocka_unit_test(test_thread),
		cmocka_unit_test(test_inline_site),
		cmocka_unit_test(test_inline_ends),
		cmocka_unit_test(test_bad_sites),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_callback_stops),
		cmocka_unit_test(test_bad_header),
		cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_next_is_decode),
		cmocka_unit_test(test_bad_codes),
		cmocka_unit_test(test_schema),
		cmocka_unit_test(test_ring_overwrites),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
