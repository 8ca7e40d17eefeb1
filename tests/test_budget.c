/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>

#include "trigger/budget.h"

#define SECOND INT64_C(1000000000)
#define HOUR (3600 * SECOND)

static struct dc_budget *make(int64_t cooldown_ns, uint32_t per_hour)
{
	struct dc_budget *b = NULL;

	assert_int_equal(
		dc_budget_new(&(struct dc_budget_limits){.cooldown_ns = cooldown_ns, .per_hour = per_hour},
			      &b),
		0);
	return b;
}

static void test_cooldown(void **state)
{
	/* Between two captures of a rule lies the cool-down; the first comes at once, whatever the clock says. */
	struct dc_budget *b = make(10 * SECOND, 0);
	uint32_t s = 77;

	(void)state;
	assert_int_equal(dc_budget_take(b, "api", 0, 1, &s), DC_BUDGET_YES);
	assert_int_equal(s, 0);
	assert_int_equal(dc_budget_take(b, "api", 0, 10 * SECOND, &s), DC_BUDGET_COOLDOWN);
	assert_int_equal(dc_budget_next_ns(b, "api", 0, 10 * SECOND), 10 * SECOND + 1);
	assert_int_equal(dc_budget_take(b, "api", 0, 10 * SECOND + 1, &s), DC_BUDGET_YES);
	dc_budget_free(b);
}

static void test_suppressed_is_told_once(void **state)
{
	/* The capture after refusals says how many there were; the one after that says none. */
	struct dc_budget *b = make(SECOND, 0);
	uint32_t s = 0;

	(void)state;
	assert_int_equal(dc_budget_take(b, "api", 0, SECOND, &s), DC_BUDGET_YES);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(dc_budget_take(b, "api", 0, SECOND + 1, &s), DC_BUDGET_COOLDOWN);
		assert_int_equal(s, i + 1);
	}
	assert_int_equal(dc_budget_take(b, "api", 0, 3 * SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(s, 5);
	assert_int_equal(dc_budget_take(b, "api", 0, 5 * SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(s, 0);
	assert_int_equal(dc_budget_suppressed(b), 5);
	dc_budget_free(b);
}

static void test_any_hour(void **state)
{
	/* In no span of an hour are there more captures than allowed, wherever the span begins. */
	struct dc_budget *b = make(0, 4);
	int64_t taken[1000];
	unsigned n = 0;
	uint32_t s;

	(void)state;
	for (int64_t t = SECOND; t < 5 * HOUR; t += 100 * SECOND + t % 7)
		if (dc_budget_take(b, "r", 0, t, &s) == DC_BUDGET_YES)
			taken[n++] = t;
	assert_true(n >= 16);
	for (unsigned i = 4; i < n; i++)
		assert_true(taken[i] - taken[i - 4] >= HOUR);
	dc_budget_free(b);
}

static void test_rules_and_users_are_apart(void **state)
{
	/* Neither another rule nor another user's same rule is touched by what one uses up. */
	struct dc_budget *b = make(HOUR, 1);
	uint32_t s;

	(void)state;
	assert_int_equal(dc_budget_take(b, "a", 1, SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(dc_budget_take(b, "b", 1, SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(dc_budget_take(b, "a", 2, SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(dc_budget_take(b, "a", 1, SECOND, &s), DC_BUDGET_COOLDOWN);
	dc_budget_free(b);
}

static void test_rules_are_bounded(void **state)
{
	/* With more rules than the table holds the one used longest ago is forgotten, the others keep their state. */
	struct dc_budget *b = make(HOUR, 0);
	uint32_t s;

	(void)state;
	for (unsigned i = 0; i < DC_BUDGET_RULES_MAX; i++)
		assert_int_equal(dc_budget_take(b, "r", i, SECOND + i, &s), DC_BUDGET_YES);
	assert_int_equal(dc_budget_take(b, "one more", 0, 2 * SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(dc_budget_take(b, "r", 5, 2 * SECOND, &s), DC_BUDGET_COOLDOWN);
	assert_int_equal(dc_budget_take(b, "one more", 0, 2 * SECOND, &s), DC_BUDGET_COOLDOWN);
	assert_int_equal(dc_budget_take(b, "r", 0, 2 * SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(dc_budget_suppressed(b), 2);
	dc_budget_free(b);
}

static void test_limits_of_its_own(void **state)
{
	/* A rule with limits of its own has those, also when they change: what it has had this hour is not forgotten. */
	const struct dc_budget_limits three = {.cooldown_ns = SECOND, .per_hour = 3}, two = {.per_hour = 2},
				      five = {.per_hour = 5};
	struct dc_budget *b = make(10 * SECOND, 1);
	uint64_t taken, suppressed;
	uint32_t s;

	(void)state;
	for (int i = 1; i <= 3; i++)
		assert_int_equal(dc_budget_take_within(b, &three, "slow", 0, i * SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(dc_budget_take_within(b, &three, "slow", 0, 4 * SECOND, &s), DC_BUDGET_HOUR);
	assert_int_equal(dc_budget_take_within(b, &two, "slow", 0, 5 * SECOND, &s), DC_BUDGET_HOUR);
	assert_int_equal(dc_budget_next_ns(b, "slow", 0, 5 * SECOND), HOUR + 2 * SECOND);
	assert_int_equal(dc_budget_take_within(b, &two, "slow", 0, HOUR + 2 * SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(s, 2);
	for (int i = 0; i < 3; i++)
		assert_int_equal(dc_budget_take_within(b, &five, "slow", 0, HOUR + 2 * SECOND, &s), DC_BUDGET_YES);
	assert_int_equal(dc_budget_take_within(b, &five, "slow", 0, HOUR + 2 * SECOND, &s), DC_BUDGET_HOUR);
	assert_int_equal(dc_budget_take(b, "api", 0, HOUR, &s), DC_BUDGET_YES);
	dc_budget_count(b, "slow", &taken, &suppressed);
	assert_int_equal(taken, 7);
	assert_int_equal(suppressed, 3);
	dc_budget_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cooldown),          cmocka_unit_test(test_suppressed_is_told_once),
		cmocka_unit_test(test_any_hour),          cmocka_unit_test(test_rules_and_users_are_apart),
		cmocka_unit_test(test_rules_are_bounded),
		cmocka_unit_test(test_limits_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
