/* SPDX-License-Identifier: MIT */
/*
 * Triggers beyond those that a ring has slots for (trigger/passed.h): every order in which a few looks can come between those of
 * a program, with numbers that are not of one moment, and any of them spans that were too long, or read too late.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <cmocka.h>

#include "trigger/passed.h"

#define TRIGGERS 5u
#define SLOTS 2u
#define LOOKS 4u

struct tried {
	uint32_t kinds; /* bit: that trigger is one of DC_TRIGGER() */
	bool same_moment; /* of both numbers, in all looks */
	uint64_t cases;
};

static uint32_t asked(uint32_t kinds, uint32_t upto)
{
	return (uint32_t)__builtin_popcount(kinds & ((1u << upto) - 1));
}

static void ends(struct tried *t, const struct dc_passed *p, uint32_t heard)
{
	const uint32_t all = asked(t->kinds, TRIGGERS);

	t->cases++;
	assert_true(heard >= all);
	if (t->same_moment || t->kinds == (1u << TRIGGERS) - 1)
		assert_int_equal(heard, all);
	assert_int_equal(p->told, heard);
}

/* @counted, @seq: as the look before saw them. @heard: what the watcher was told so far. */
static void looks(struct tried *t, uint32_t left, uint32_t counted, uint32_t seq, struct dc_passed p, uint32_t heard)
{
	if (left == 0) {
		ends(t, &p, heard);
		return;
	}
	for (uint32_t s = left > 1 ? seq : TRIGGERS; s <= TRIGGERS; s++)
		for (uint32_t c = left > 1 ? counted : TRIGGERS; c <= TRIGGERS; c++)
			for (uint32_t read = 0; read <= s - seq && read <= SLOTS; read++) { /* the last ones are still there */
				struct tried next = *t;
				struct dc_passed q = p;
				uint32_t h = heard;

				next.same_moment = t->same_moment && s == c;
				for (uint32_t i = s - read; i < s; i++)
					if (t->kinds >> i & 1) {
						dc_passed_one(&q);
						h++;
					}
				h += (uint32_t)dc_passed_look(&q, asked(t->kinds, c), s - seq - read);
				looks(&next, left - 1, c, s, q, h);
				t->cases = next.cases;
			}
}

static void test_all_orders(void **state)
{
	uint64_t cases = 0;

	(void)state;
	for (uint32_t kinds = 0; kinds < 1u << TRIGGERS; kinds++) {
		struct tried t = {.kinds = kinds, .same_moment = true};

		looks(&t, LOOKS, 0, 0, (struct dc_passed){0}, 0);
		cases += t.cases;
	}
	print_message("%llu orders\n", (unsigned long long)cases);
	assert_true(cases > 100000);
}

static void test_lies(void **state)
{
	/* Numbers that no program would have: bounded, and nothing wraps around. */
	struct dc_passed p = {0};

	(void)state;
	assert_int_equal(dc_passed_look(&p, UINT64_MAX, 0), 0);
	assert_int_equal(dc_passed_look(&p, UINT64_MAX, UINT64_MAX), DC_PASSED_MAX);
	assert_int_equal(dc_passed_look(&p, 0, UINT64_MAX), 0);
	assert_int_equal(dc_passed_look(&p, UINT64_MAX, UINT64_MAX), DC_PASSED_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_orders),
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
