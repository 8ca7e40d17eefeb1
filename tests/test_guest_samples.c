/* SPDX-License-Identifier: MIT */
/* Samples that a guest took of itself, as a watcher finds them (trigger/guest_samples.c): of a ring laid out by hand. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ringfile.h"
#include "ipc/registers.h"
#include "tests/memory_writer.h"
#include "trigger/guest_samples.h"

static struct dc_writer out;

struct scene {
	char dir[128];
	struct ringfile file;
	struct dc_ring *ring;
	struct dc_ring_samples *part;
};

static int begin(void **state)
{
	static struct scene s;
	char why[DC_WHY_BYTES];

	scratch_memory("dctest", s.dir);
	ringfile_make(&s.file, s.dir, 8, 4096);
	s.part = (void *)(s.file.map + s.file.header->samples_off);
	assert_int_equal(dc_ring_open(AT_FDCWD, s.file.path, &s.ring, why), 0);
	*state = &s;
	return 0;
}

static int end(void **state)
{
	struct scene *s = *state;

	memory_writer_reset(&out);
	dc_ring_unref(s->ring);
	ringfile_remove(&s->file);
	scratch_remove(s->dir);
	return 0;
}

static uint64_t started(const struct scene *s)
{
	return s->file.header->started_tick;
}

/* The @n-th sample that was written. */
static const struct dc_sample *sample(unsigned n)
{
	for (unsigned i = 0; i < out.count; i++)
		for (size_t at = 0; at < out.blocks[i].bytes; n--) {
			const struct dc_sample *s = (const void *)(out.blocks[i].payload + at);

			if (n == 0)
				return s;
			at += s->bytes;
		}
	fail_msg("there is no such sample");
	return NULL;
}

static int write_all(const struct scene *s, uint64_t from, uint64_t to)
{
	struct dc_sampler_totals totals = {0};
	int n;

	memory_writer_reset(&out);
	n = dc_guest_write(s->ring, 3, from, to, &out, &totals);
	assert_int_equal(totals.samples, n);
	for (unsigned i = 0; i < out.count; i++)
		assert_true(out.blocks[i].type == DC_BLOCK_SAMPLES && out.blocks[i].process == 3);
	return n;
}

/* Claim: a record becomes a sample with its registers, stack, thread, time and weight; outside of the window it does not. */
static void test_sample(void **state)
{
	const struct scene *s = *state;
	const uint64_t tick = started(s) + 4000;
	const struct dc_sample *v;

	ringfile_sample(&((struct scene *)*state)->file, 42, started(s), 64);
	ringfile_sample(&((struct scene *)*state)->file, 43, tick, 1000);
	assert_int_equal(write_all(s, 0, UINT64_MAX), 2);
	v = sample(1);
	assert_int_equal(v->kind, DC_SAMPLE_CPU);
	assert_int_equal(v->tid, 43);
	assert_int_equal(v->weight_ns, 20000000);
	assert_int_equal(v->reg_count, DC_REGS_X86);
	assert_int_equal(v->stack_bytes, 1000);
	assert_int_equal(v->bytes, sizeof(*v) + 8 * DC_REGS_X86 + 1000);
	assert_in_range(v->monotonic_ns, (uint64_t)tick - 1000, (uint64_t)tick + 1000); /* the clock is CLOCK_MONOTONIC */
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(((const uint8_t *)(v + 1))[8 * DC_REGS_X86 + i], (uint8_t)i);
	assert_int_equal(write_all(s, tick >> 2, UINT64_MAX), 1);
	assert_int_equal(sample(0)->tid, 43);
	assert_int_equal(write_all(s, 0, (tick >> 2) - 1), 1);
	assert_int_equal(sample(0)->tid, 42);
}

/* Claim: a stack of an event says exactly when that was, and is no sample of CPU time. */
static void test_of_event(void **state)
{
	const struct scene *s = *state;
	struct dc_event_state event;
	const struct dc_sample *v;
	struct dc_ring_sample *r;

	ringfile_sample(&((struct scene *)*state)->file, 42, started(s), 64);
	r = ringfile_sample(&((struct scene *)*state)->file, 43, started(s) + 4004, 1000);
	r->kind = DC_RING_SAMPLE_STACK;
	r->hz = r->periods = 0;
	r->check = dc_ring_sample_check(r, r->bytes);
	assert_int_equal(write_all(s, 0, UINT64_MAX), 1);
	v = sample(1);
	assert_int_equal(v->kind, DC_SAMPLE_EVENT);
	assert_int_equal(v->tid, 43);
	assert_int_equal(v->weight_ns, 0);
	assert_int_equal(v->extra_bytes, sizeof(event));
	assert_int_equal(v->bytes, sizeof(*v) + 8 * DC_REGS_X86 + 1000 + sizeof(event));
	memcpy(&event, (const uint8_t *)v + v->bytes - sizeof(event), sizeof(event));
	assert_int_equal(event.units, (started(s) + 4004) >> s->file.header->tick_shift);
}

/* Claim: after any number of laps what is whole is found, oldest first, each once. */
static void test_laps(void **state)
{
	struct scene *s = *state;

	for (uint32_t i = 0; i < 300; i++) {
		int n;

		ringfile_sample(&s->file, i, started(s) + i, 8 * (i % 200) + 200);
		if (i % 7)
			continue;
		n = write_all(s, 0, UINT64_MAX);
		assert_true(n == (int)i + 1 || n >= 12);
		for (int k = 0; k < n; k++)
			assert_int_equal(sample((unsigned)k)->tid, i + 1 - (uint32_t)n + (uint32_t)k);
	}
}

/* Claim: a record that anything is wrong with is none, and costs no other. */
static void test_lies(void **state)
{
	struct scene *s = *state;
	struct dc_ring_sample *r, whole;

	ringfile_sample(&s->file, 1, started(s), 800);
	r = ringfile_sample(&s->file, 2, started(s), 800);
	ringfile_sample(&s->file, 3, started(s), 800);
	whole = *r;
	for (size_t byte = 0; byte < r->bytes; byte++) {
		((uint8_t *)r)[byte] ^= 0x10;
		assert_int_equal(write_all(s, 0, UINT64_MAX), 2);
		assert_int_equal(sample(1)->tid, 3);
		((uint8_t *)r)[byte] ^= 0x10;
	}
#define LIE(field, value)                                                                                              \
	r->field = (value);                                                                                            \
	r->check = r->bytes <= 4096 ? dc_ring_sample_check(r, r->bytes) : 0;                                           \
	assert_int_equal(write_all(s, 0, UINT64_MAX), 2);                                                              \
	*r = whole
	LIE(stack_bytes, 801);
	LIE(stack_bytes, 1200);
	LIE(stack_bytes, UINT32_MAX & ~7u);
	LIE(bytes, UINT32_MAX & ~63u);
	LIE(bytes, 0);
	LIE(reg_count, 16);
	LIE(hz, 0);
	LIE(kind, 0);
	LIE(kind, 99);
	assert_int_equal(write_all(s, 0, UINT64_MAX), 3);
	s->part->written = UINT64_MAX - 5;
	assert_true(write_all(s, 0, UINT64_MAX) >= 0);
	s->part->written = 5;
	assert_int_equal(write_all(s, 0, UINT64_MAX), 0);
}

/* Claim: what a watcher asks for stands in the control part, a notice in every site and nowhere else in its word. */
static void test_asking(void **state)
{
	struct scene *s = *state;
	struct dc_guest_state g;

	assert_int_equal(dc_guest_state(s->ring, &g), 0);
	assert_true(g.hz == 0 && g.threads == 0);
	s->file.control->enable[1] = DC_ENABLE_STACK | DC_ENABLE_THROTTLE(3);
	assert_int_equal(dc_guest_ask(s->ring, 49, 8192), 0);
	assert_int_equal(dc_guest_notice(s->ring, true), 0);
	assert_int_equal(s->file.control->sample_hz, 49);
	assert_int_equal(s->file.control->sample_copy_bytes, 8192);
	assert_in_range(s->file.control->sample_until_units - ringfile_now(&s->file), 4000000000u >> 2, 6000000000u >> 2);
	assert_int_equal(s->file.control->enable[1], DC_ENABLE_STACK | DC_ENABLE_THROTTLE(3) | DC_ENABLE_NOTICE);
	assert_int_equal(s->file.control->enable[2], 0);
	assert_int_equal(dc_guest_notice(s->ring, false), 0);
	assert_int_equal(s->file.control->enable[1], DC_ENABLE_STACK | DC_ENABLE_THROTTLE(3));
	assert_int_equal(dc_guest_state(s->ring, &g), 0);
	assert_int_equal(g.hz, 49);
	assert_int_equal(dc_guest_ask(s->ring, 0, 0), 0);
	assert_true(s->file.control->sample_hz == 0 && s->file.control->sample_until_units == 0);
}

/* Claim: the mode is the guest's only where the kernel has none, and says how many threads, and why. */
static void test_mode(void **state)
{
	struct scene *s = *state;
	struct dc_sample_mode mode = {.scope = DC_SAMPLE_SCOPE_NONE, .hz = 49, .why = "refused"};
	struct ringfile_writer w[2];

	dc_guest_mode(s->ring, &mode);
	assert_int_equal(mode.scope, DC_SAMPLE_SCOPE_NONE);
	assert_string_equal(mode.why, "refused");
	ringfile_writer_init(&w[0], &s->file, 0);
	ringfile_writer_init(&w[1], &s->file, 1);
	dc_guest_ask(s->ring, 99, 4096);
	s->part->threads = 1;
	dc_guest_mode(s->ring, &mode);
	assert_int_equal(mode.scope, DC_SAMPLE_SCOPE_GUEST);
	assert_true(mode.hz == 99 && mode.copy_bytes == 4096);
	assert_string_equal(mode.why, "1 of 2 threads that record; refused");
	mode = (struct dc_sample_mode){.scope = DC_SAMPLE_SCOPE_HOST, .hz = 49};
	dc_guest_mode(s->ring, &mode);
	assert_true(mode.scope == DC_SAMPLE_SCOPE_HOST && mode.hz == 49);
	s->part->threads = 0;
	s->part->refused = 77; /* a hint at best */
	s->part->error = -EBUSY;
	mode = (struct dc_sample_mode){.scope = DC_SAMPLE_SCOPE_NONE};
	dc_guest_mode(s->ring, &mode);
	assert_int_equal(mode.scope, DC_SAMPLE_SCOPE_NONE);
	assert_string_equal(mode.why, "0 of 2 threads that record, every signal has a handler already");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sample, begin, end),
		cmocka_unit_test_setup_teardown(test_of_event, begin, end),
		cmocka_unit_test_setup_teardown(test_laps, begin, end),
		cmocka_unit_test_setup_teardown(test_lies, begin, end),
		cmocka_unit_test_setup_teardown(test_asking, begin, end),
		cmocka_unit_test_setup_teardown(test_mode, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
