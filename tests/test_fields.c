/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>

#include "persist/fields.h"

static uint64_t seed = 88172645463325252u;

static uint8_t random_byte(void)
{
	seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
	return (uint8_t)(seed >> 32);
}

static void fill(void *object, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		((uint8_t *)object)[i] = random_byte();
}

static void fill_text(char *text, size_t size)
{
	memset(text, 0, size);
	for (size_t i = 0; i + 1 < size; i++)
		text[i] = (char)('a' + random_byte() % 26);
}

static void full_cause(struct dc_cause *cause)
{
	memset(cause, 0, sizeof *cause);
	fill_text(cause->expression, sizeof cause->expression);
	fill_text(cause->sentence, sizeof cause->sentence);
	fill_text(cause->name, sizeof cause->name);
	fill_text(cause->thread, sizeof cause->thread);
	fill(&cause->value, sizeof cause->value);
	fill(&cause->threshold, sizeof cause->threshold);
	fill(cause->trace_id, sizeof cause->trace_id);
	fill(&cause->amount, sizeof cause->amount);
	fill(&cause->allowed, sizeof cause->allowed);
	fill(&cause->sample_hz, sizeof cause->sample_hz);
	fill(&cause->sample_for_ns, sizeof cause->sample_for_ns);
	cause->unit = DC_UNIT_PERCENT;
	cause->amount_unit = DC_UNIT_DESCRIPTORS;
	cause->neighbour_count = DC_NEIGHBOURS_MAX;
	for (unsigned i = 0; i < DC_NEIGHBOURS_MAX; i++) {
		fill(&cause->neighbours[i], sizeof cause->neighbours[i]);
		fill_text(cause->neighbours[i].name, sizeof cause->neighbours[i].name);
		fill_text(cause->neighbours[i].thread, sizeof cause->neighbours[i].thread);
	}
	cause->waiting_count = DC_WAITING_MAX;
	for (unsigned i = 0; i < DC_WAITING_MAX; i++) {
		fill(&cause->waiting[i], sizeof cause->waiting[i]);
		fill_text(cause->waiting[i].name, sizeof cause->waiting[i].name);
	}
}

/* Every member set, texts as long as they can be; padding zero so that memcmp tells the truth. */
static void full_incident(struct dc_incident *incident)
{
	struct dc_incident all;

	memset(incident, 0, sizeof *incident);
	fill(&all, sizeof all);
#define KEEP(m) memcpy(&incident->m, &all.m, sizeof all.m)
	KEEP(severity), KEEP(coalesced), KEEP(suppressed), KEEP(trigger_pid), KEEP(trigger_tid), KEEP(signal);
	KEEP(at_realtime_ns), KEEP(at_units), KEEP(from_units), KEEP(to_units), KEEP(asked_last_ns);
	KEEP(asked_after_ns), KEEP(clock), KEEP(tick_shift), KEEP(anchors), KEEP(boot_id);
#undef KEEP
	incident->reason = DC_REASON_SPAN;
	incident->anchor_count = 64;
	fill_text(incident->text, sizeof incident->text);
	fill_text(incident->rule, sizeof incident->rule);
	fill_text(incident->host, sizeof incident->host);
	fill_text(incident->kernel, sizeof incident->kernel);
	full_cause(&incident->cause);
}

static void full_process(struct dc_process *p)
{
	struct dc_process all;

	memset(p, 0, sizeof *p);
	fill(&all, sizeof all);
#define KEEP(m) memcpy(&p->m, &all.m, sizeof all.m)
	KEEP(pid), KEEP(ns_pid), KEEP(uid), KEEP(verified), KEEP(start_time), KEEP(exit_known),
		KEEP(exit_code);
	KEEP(exit_signal), KEEP(alive), KEEP(took_ns), KEEP(memory_bytes), KEEP(cap_bytes);
	KEEP(sample_scope), KEEP(sample_hz), KEEP(sample_copy_bytes), KEEP(sample_kernel), KEEP(samples_lost);
	KEEP(samples_from_ns), KEEP(switches_from_ns), KEEP(threads_taken), KEEP(threads_refused);
	KEEP(stopped_median_ns), KEEP(raised_hz), KEEP(raised_from_ns), KEEP(raised_to_ns);
#undef KEEP
	fill_text(p->name, sizeof p->name);
	fill_text(p->exe, sizeof p->exe);
	fill_text(p->cmdline, sizeof p->cmdline);
	fill_text(p->ring, sizeof p->ring);
	fill_text(p->sample_why, sizeof p->sample_why);
	fill_text(p->threads_why, sizeof p->threads_why);
}

static void test_round_trip(void **state)
{
	/* Every member comes back as it was, whatever its value, and the buffer's promised room is enough. */
	static uint8_t buffer[DC_FIELDS_MAX];
	struct dc_incident a, b;
	struct dc_process p, q;

	(void)state;
	for (int i = 0; i < 100; i++) {
		full_incident(&a);
		assert_int_equal(dc_incident_unpack(buffer, dc_incident_pack(&a, buffer), &b), 0);
		assert_memory_equal(&a, &b, sizeof a);
		full_process(&p);
		assert_int_equal(dc_process_unpack(buffer, dc_process_pack(&p, buffer), &q), 0);
		assert_memory_equal(&p, &q, sizeof p);
	}
}

static void test_empty_is_small(void **state)
{
	/* What is zero is not stored, and reads as zero. */
	static uint8_t buffer[DC_FIELDS_MAX];
	struct dc_process p = {.pid = 7}, q;

	(void)state;
	assert_int_equal(dc_process_pack(&p, buffer), 16);
	assert_int_equal(dc_process_unpack(buffer, 16, &q), 0);
	assert_memory_equal(&p, &q, sizeof p);
}

static void test_unknown_fields_are_skipped(void **state)
{
	/* Keys of a later version, and known keys of another type or size, change nothing else. */
	uint64_t buffer[16] = {0};
	struct dc_field f[] = {{999, DC_FIELD_TEXT, 3}, {1, DC_FIELD_TEXT, 8}, {2, DC_FIELD_U64, 4}};
	struct dc_field last = {3, DC_FIELD_U64, 8};
	struct dc_process q, expected = {.uid = 1000};

	(void)state;
	for (size_t i = 0; i < 3; i++)
		memcpy(&buffer[2 * i], &f[i], 8), buffer[2 * i + 1] = 0x6161616161616161;
	memcpy(&buffer[6], &last, 8), buffer[7] = 1000;
	assert_int_equal(dc_process_unpack(buffer, 64, &q), 0);
	assert_memory_equal(&q, &expected, sizeof q);
}

static void test_long_text_is_cut(void **state)
{
	/* A text longer than its place is cut and still ends in a NUL. */
	static uint8_t buffer[8 + 1024];
	struct dc_field f = {13, DC_FIELD_TEXT, 1024};
	struct dc_process q;

	(void)state;
	memset(buffer, 'x', sizeof buffer);
	memcpy(buffer, &f, sizeof f);
	assert_int_equal(dc_process_unpack(buffer, sizeof buffer, &q), 0);
	assert_int_equal(strlen(q.name), sizeof q.name - 1);
}

static void test_too_many_anchors_are_cut(void **state)
{
	/* More anchors than there is room for: the first 64 are taken. */
	static uint8_t buffer[8 + 100 * sizeof(struct dc_anchor)];
	struct dc_field f = {19, DC_FIELD_BYTES, 100 * sizeof(struct dc_anchor)};
	struct dc_incident q;

	(void)state;
	memset(buffer, 1, sizeof buffer);
	memcpy(buffer, &f, sizeof f);
	assert_int_equal(dc_incident_unpack(buffer, sizeof buffer, &q), 0);
	assert_int_equal(q.anchor_count, 64);
}

static void test_hostile_neighbours(void **state)
{
	/* More than there is room for, a rest that is no whole one, names without an end: the first 16 are taken, and end. */
	static uint8_t buffer[8 + 20 * sizeof(struct dc_neighbour) + 8];
	struct dc_field f = {30, DC_FIELD_BYTES, 20 * sizeof(struct dc_neighbour) + 5};
	struct dc_incident q;

	(void)state;
	memset(buffer, 'x', sizeof buffer);
	memcpy(buffer, &f, sizeof f);
	assert_int_equal(dc_incident_unpack(buffer, sizeof buffer, &q), 0);
	assert_int_equal(q.cause.neighbour_count, DC_NEIGHBOURS_MAX);
	assert_int_equal(strlen(q.cause.neighbours[15].name), sizeof q.cause.neighbours[15].name - 1);
	assert_int_equal(strlen(q.cause.neighbours[0].thread), sizeof q.cause.neighbours[0].thread - 1);
	f.key = 34;
	memcpy(buffer, &f, sizeof f);
	assert_int_equal(dc_incident_unpack(buffer, sizeof buffer, &q), 0);
	assert_int_equal(q.cause.waiting_count, DC_WAITING_MAX);
	assert_int_equal(strlen(q.cause.waiting[7].name), sizeof q.cause.waiting[7].name - 1);
}

static void test_every_cut_and_flip_is_survived(void **state)
{
	/* Cut anywhere, any byte changed: no read past the end (sanitizers), and texts still end. */
	static uint8_t buffer[DC_FIELDS_MAX];
	struct dc_process p, q;
	size_t bytes;

	(void)state;
	full_process(&p);
	bytes = dc_process_pack(&p, buffer);
	for (size_t cut = 0; cut < bytes; cut++) {
		uint8_t *exact = malloc(cut + 1);

		memcpy(exact, buffer, cut);
		assert_true(dc_process_unpack(exact, cut, &q) <= 0);
		assert_int_equal(q.cmdline[sizeof q.cmdline - 1], 0);
		free(exact);
	}
	for (size_t at = 0; at < bytes; at++)
		for (int value = 0; value < 256; value += 17) {
			uint8_t was = buffer[at];

			buffer[at] = (uint8_t)value;
			dc_process_unpack(buffer, bytes, &q);
			assert_int_equal(q.exe[sizeof q.exe - 1], 0);
			buffer[at] = was;
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_empty_is_small),
		cmocka_unit_test(test_unknown_fields_are_skipped),
		cmocka_unit_test(test_long_text_is_cut),
		cmocka_unit_test(test_too_many_anchors_are_cut),
		cmocka_unit_test(test_hostile_neighbours),
		cmocka_unit_test(test_every_cut_and_flip_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
