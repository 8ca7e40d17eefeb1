/* SPDX-License-Identifier: MIT */
/*
 * The part of <cmocka.h> that tests of the recorder use, for targets that have no cmocka package: musl and
 * the aarch64 cross build. Tests include <cmocka.h> and do not know which one they got.
 */
#pragma once

#include <inttypes.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
	const char *name;
	void (*test)(void **state);
	int (*setup)(void **state);
	int (*teardown)(void **state);
};

#define cmocka_unit_test(f)                                                                                  \
	{                                                                                                    \
#f, f, NULL, NULL                                                                            \
	}
#define cmocka_unit_test_setup_teardown(f, setup, teardown)                                                  \
	{                                                                                                    \
#f, f, setup, teardown                                                                       \
	}
#define cmocka_unit_test_setup(f, setup)                                                                     \
	{                                                                                                    \
#f, f, setup, NULL                                                                           \
	}
#define cmocka_unit_test_teardown(f, teardown)                                                               \
	{                                                                                                    \
#f, f, NULL, teardown                                                                        \
	}

static jmp_buf small_leave; /* 1: failed, 2: skipped */

static inline __attribute__((noreturn)) void small_fail(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: error: %s\n", file, line, what);
	longjmp(small_leave, 1);
}

static inline __attribute__((noreturn)) void small_fail_int(const char *what, uintmax_t a, uintmax_t b, const char *file,
					    int line)
{
	fprintf(stderr, "%s:%d: error: %s: %#" PRIxMAX " against %#" PRIxMAX "\n", file, line, what, a, b);
	longjmp(small_leave, 1);
}

#define small_compare(a, op, b, how)                                                                         \
	do {                                                                                                 \
		uintmax_t a_ = (uintmax_t)(a), b_ = (uintmax_t)(b);                                          \
		if (!(a_ op b_))                                                                             \
			small_fail_int(#a " " how " " #b, a_, b_, __FILE__, __LINE__);                       \
	} while (0)
#define small_check(cond, what)                                                                              \
	do {                                                                                                 \
		if (!(cond))                                                                                 \
			small_fail(what, __FILE__, __LINE__);                                                \
	} while (0)

#define assert_true(c) small_check(c, #c " is not true")
#define assert_false(c) small_check(!(c), #c " is not false")
#define assert_null(p) small_check((p) == NULL, #p " is not NULL")
#define assert_non_null(p) small_check((p) != NULL, #p " is NULL")
#define assert_return_code(rc, error) small_check((rc) >= 0, #rc " failed")
#define assert_int_equal(a, b) small_compare(a, ==, b, "is not equal to")
#define assert_int_not_equal(a, b) small_compare(a, !=, b, "is equal to")
#define assert_ptr_equal(a, b) small_check((const void *)(a) == (const void *)(b), #a " is not " #b)
#define assert_ptr_not_equal(a, b) small_check((const void *)(a) != (const void *)(b), #a " is " #b)
#define assert_string_equal(a, b) small_check(!strcmp(a, b), #a " does not read " #b)
#define assert_string_not_equal(a, b) small_check(strcmp(a, b), #a " reads " #b)
#define assert_memory_equal(a, b, size) small_check(!memcmp(a, b, size), #a " and " #b " differ")
#define assert_memory_not_equal(a, b, size) small_check(memcmp(a, b, size), #a " and " #b " do not differ")
#define assert_in_range(v, low, high)                                                                        \
	small_check((uintmax_t)(v) >= (uintmax_t)(low) && (uintmax_t)(v) <= (uintmax_t)(high),               \
		    #v " is outside of [" #low ", " #high "]")
#define fail() small_fail("fail()", __FILE__, __LINE__)
#define fail_msg(...)                                                                                        \
	do {                                                                                                 \
		fprintf(stderr, __VA_ARGS__);                                                                \
		small_fail("", __FILE__, __LINE__);                                                          \
	} while (0)
#define skip() longjmp(small_leave, 2)
#define print_message(...) printf(__VA_ARGS__)
#define print_error(...) fprintf(stderr, __VA_ARGS__)

static inline int small_run_one(const struct CMUnitTest *t, void **state)
{
	int left = setjmp(small_leave);
	if (!left) {
		if (t->setup && t->setup(state))
			small_fail("its setup failed", t->name, 0);
		t->test(state);
	}
	if (t->teardown && t->teardown(state))
		left = 1;
	printf("%s %s\n", left == 0 ? "ok     " : left == 2 ? "skipped" : "FAILED ", t->name);
	fflush(stdout); /* a test that forks must not print this twice */
	return left == 1;
}

static inline int small_run(const struct CMUnitTest *tests, size_t count, int (*setup)(void **),
			    int (*teardown)(void **))
{
	void *group = NULL;
	int failed = 0;

	if (setup && setup(&group))
		return 1;
	for (size_t i = 0; i < count; i++) {
		void *state = group;
		failed += small_run_one(&tests[i], &state);
	}
	if (teardown && teardown(&group))
		failed++;
	return failed;
}

#define cmocka_run_group_tests(tests, setup, teardown)                                                       \
	small_run(tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)
#define cmocka_run_group_tests_name(name, tests, setup, teardown)                                            \
	cmocka_run_group_tests(tests, setup, teardown)
