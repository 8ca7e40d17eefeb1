/* SPDX-License-Identifier: MIT */
/* Claims about persist/stacks/symbol_table.c and segments.c: which of several is chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "persist/stacks/segments.h"
#include "persist/stacks/symbol_table.h"

#define GLOBAL 3
#define WEAK 2
#define LOCAL 1

static struct dc_symbol_table *table(const struct dc_table_symbol *symbols, unsigned count)
{
	struct dc_symbol_table *t;

	assert_int_equal(dc_symbol_table_new(&t), 0);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(dc_symbol_table_add(t, &symbols[i]), 0);
	assert_int_equal(dc_symbol_table_build(t), 0);
	return t;
}

static unsigned name_at(const struct dc_symbol_table *t, uint64_t address)
{
	const struct dc_table_symbol *s = dc_symbol_table_at(t, address);

	return s ? s->name : 0;
}

/* Sizes are respected: between two symbols there is nothing. */
static void test_sizes(void **state)
{
	struct dc_table_symbol symbols[] = {{.start = 200, .size = 10, .name = 2, .binding = GLOBAL},
					    {.start = 100, .size = 50, .name = 1, .binding = GLOBAL}};
	CLEANUP(dc_symbol_table) struct dc_symbol_table *t = table(symbols, 2);

	(void)state;
	assert_int_equal(name_at(t, 99), 0);
	assert_int_equal(name_at(t, 100), 1);
	assert_int_equal(name_at(t, 149), 1);
	assert_int_equal(name_at(t, 150), 0);
	assert_int_equal(name_at(t, 209), 2);
	assert_int_equal(name_at(t, 210), 0);
	assert_int_equal(name_at(t, UINT64_MAX), 0);
}

/* Of aliases: global, then weak, then local; the first of equal ones; a shorter one where it reaches. */
static void test_aliases(void **state)
{
	struct dc_table_symbol symbols[] = {
		{.start = 100, .size = 50, .name = 1, .binding = LOCAL, .local = 1},
		{.start = 100, .size = 50, .name = 2, .binding = WEAK},
		{.start = 100, .size = 50, .name = 3, .binding = GLOBAL},
		{.start = 100, .size = 50, .name = 4, .binding = GLOBAL},
		{.start = 300, .size = 50, .name = 5, .binding = WEAK},
		{.start = 300, .size = 20, .name = 6, .binding = WEAK},
		{.start = 500, .size = 50, .name = 7, .binding = LOCAL, .local = 1},
		{.start = 490, .size = 90, .name = 8, .binding = GLOBAL},
	};
	CLEANUP(dc_symbol_table) struct dc_symbol_table *t = table(symbols, 8);

	(void)state;
	assert_int_equal(name_at(t, 120), 3);
	assert_int_equal(name_at(t, 310), 6);
	assert_int_equal(name_at(t, 330), 5);
	assert_int_equal(name_at(t, 510), 8); /* local ones only where no global one is */
}

/* Labels without a size: up to the next symbol, not beyond the section, not where one with a size reaches. */
static void test_labels(void **state)
{
	struct dc_table_symbol symbols[] = {
		{.start = 100, .size = 20, .name = 1, .binding = GLOBAL},
		{.start = 110, .size = 0, .name = 2, .binding = LOCAL, .local = 1, .limit = 1000},
		{.start = 120, .size = 0, .name = 3, .binding = LOCAL, .local = 1, .limit = 1000},
		{.start = 150, .size = 10, .name = 4, .binding = GLOBAL},
		{.start = 900, .size = 0, .name = 5, .binding = GLOBAL, .limit = 1000},
	};
	CLEANUP(dc_symbol_table) struct dc_symbol_table *t = table(symbols, 5);

	(void)state;
	assert_int_equal(name_at(t, 115), 1);
	assert_int_equal(name_at(t, 120), 3);
	assert_int_equal(name_at(t, 149), 3);
	assert_int_equal(name_at(t, 155), 4);
	assert_int_equal(name_at(t, 160), 0);
	assert_int_equal(name_at(t, 999), 5);
	assert_int_equal(name_at(t, 1000), 0);
}

/* What the table says is what looking through all symbols for each address says. */
static void test_against_search(void **state)
{
	struct dc_table_symbol symbols[60];

	(void)state;
	srand(1);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < 60; i++)
			symbols[i] = (struct dc_table_symbol){.start = (uint64_t)rand() % 256,
							      .size = 1 + (uint64_t)rand() % 40,
							      .name = i + 1,
							      .binding = GLOBAL};
		CLEANUP(dc_symbol_table) struct dc_symbol_table *t = table(symbols, 60);
		for (uint64_t at = 0; at < 320; at++) {
			const struct dc_table_symbol *best = NULL;

			for (unsigned i = 0; i < 60; i++) {
				const struct dc_table_symbol *s = &symbols[i];

				if (at < s->start || at >= s->start + s->size)
					continue;
				if (!best || s->start > best->start ||
				    (s->start == best->start && s->size < best->size))
					best = s;
			}
			assert_int_equal(name_at(t, at), best ? best->name : 0);
		}
	}
}

/* A symbol that would reach beyond the end of all addresses does not come around. */
static void test_overflow(void **state)
{
	struct dc_table_symbol symbols[] = {{.start = UINT64_MAX - 5, .size = 100, .name = 1, .binding = GLOBAL},
					    {.start = 5, .size = UINT64_MAX, .name = 2, .binding = GLOBAL}};
	CLEANUP(dc_symbol_table) struct dc_symbol_table *t = table(symbols, 2);

	(void)state;
	assert_int_equal(name_at(t, 2), 0);
	assert_int_equal(name_at(t, 1000), 2);
	assert_int_equal(name_at(t, UINT64_MAX - 2), 1);
}

/* A hundred thousand symbols are laid out in less than a second, and each is found. */
static void test_many(void **state)
{
	const unsigned count = 100000;
	struct dc_table_symbol *symbols = calloc(count, sizeof *symbols);
	struct timespec from, to;

	(void)state;
	assert_non_null(symbols);
	for (unsigned i = 0; i < count; i++) {
		unsigned place = (unsigned)((uint64_t)i * 48271 %
					    count); /* all of them, in no order: 48271 is a prime */

		symbols[i] = (struct dc_table_symbol){
			.start = place * UINT64_C(64), .size = 48, .name = place + 1, .binding = GLOBAL};
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	CLEANUP(dc_symbol_table) struct dc_symbol_table *t = table(symbols, count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(name_at(t, i * UINT64_C(64) + 40), i + 1);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	free(symbols);
	assert_true(to.tv_sec - from.tv_sec < 1 || (to.tv_sec - from.tv_sec == 1 && to.tv_nsec < from.tv_nsec));
}

/* Of ranges that overlap in any way, the smallest rank counts at every address. */
static void test_segments(void **state)
{
	(void)state;
	srand(2);
	for (unsigned round = 0; round < 300; round++) {
		struct dc_range ranges[40], sorted[40];
		struct dc_segment *segments;
		size_t count;

		for (uint32_t i = 0; i < 40; i++) {
			ranges[i].start = (uint64_t)rand() % 200;
			ranges[i].end = ranges[i].start + (uint64_t)rand() % (round % 3 ? 20 : 150);
			ranges[i].rank = (uint32_t)rand() % 1000 * 64 + i;
			ranges[i].owner = i;
		}
		memcpy(sorted, ranges, sizeof sorted);
		assert_int_equal(dc_segments_build(sorted, 40, &segments, &count), 0);
		for (uint64_t at = 0; at < 360; at++) {
			const struct dc_range *best = NULL;

			for (unsigned i = 0; i < 40; i++)
				if (at >= ranges[i].start && at < ranges[i].end &&
				    (!best || ranges[i].rank < best->rank))
					best = &ranges[i];
			assert_int_equal(dc_segments_at(segments, count, at), best ? best->owner : DC_SEGMENT_NONE);
		}
		free(segments);
	}
}

/* Nothing laid out is nothing found. */
static void test_empty(void **state)
{
	CLEANUP(dc_symbol_table) struct dc_symbol_table *t = table(NULL, 0);
	struct dc_segment *segments;
	size_t count;

	(void)state;
	assert_int_equal(name_at(t, 0), 0);
	assert_int_equal(dc_segments_build(NULL, 0, &segments, &count), 0);
	assert_int_equal(dc_segments_at(segments, count, 0), DC_SEGMENT_NONE);
	free(segments);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),          cmocka_unit_test(test_aliases),  cmocka_unit_test(test_labels),
		cmocka_unit_test(test_against_search), cmocka_unit_test(test_overflow), cmocka_unit_test(test_segments),
		cmocka_unit_test(test_empty),          cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
