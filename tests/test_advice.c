/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/ring.h"
#include "tools/advice.h"

#define SECOND INT64_C(1000000000)
#define MIB (UINT64_C(1) << 20)

static char *advice(uint64_t needed, uint64_t most, int64_t wanted_ns)
{
	char *text = NULL;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);

	cap_advice(f, needed, most, wanted_ns);
	fclose(f);
	return text;
}

static void test_cap_in_proportion(void **state)
{
	/* What is needed grows with what is wanted, rounded up; a ring that held next to nothing gives no absurd figure. */
	(void)state;
	assert_int_equal(cap_needed(64 * MIB, 10 * SECOND, 30 * SECOND), 192 * MIB);
	assert_int_equal(cap_needed(64 * MIB, 10 * SECOND, 31 * SECOND), 208 * MIB);
	assert_int_equal(cap_needed(MIB, 5 * SECOND, 12 * SECOND), 3 * MIB);
	assert_true(cap_needed(64 * MIB, 0, 30 * SECOND) == UINT64_MAX);
	assert_true(cap_needed(64 * MIB, -5, 30 * SECOND) == UINT64_MAX);
	assert_true(cap_needed(UINT64_MAX, 1, INT64_MAX) == UINT64_MAX);
}

static void test_bounds(void **state)
{
	/* No ring is larger than the guest allows itself, nor than its directory's file system does. */
	(void)state;
	assert_true(cap_most(NULL) == DC_RING_BYTES_MAX);
	assert_true(cap_most("/does/not/exist") == DC_RING_BYTES_MAX);
	assert_true(cap_most("/dev/shm") > 0 && cap_most("/dev/shm") <= DC_RING_BYTES_MAX);
}

static void test_words(void **state)
{
	/* A cap that a ring can have is named as one types it; beyond that no cap is proposed, but what helps. */
	char *text = advice(192 * MIB, DC_RING_BYTES_MAX, 30 * SECOND);

	(void)state;
	assert_string_equal(text, "DASHCAM_MEMORY=192MiB would hold 30.0 s");
	free(text);
	text = advice(160 * 1024 * MIB, DC_RING_BYTES_MAX, 30 * SECOND);
	assert_non_null(strstr(text, "30.0 s at this rate would take 160.0 GiB, and a ring has 4.0 GiB at most: "));
	assert_non_null(strstr(text, "'dashcam sites'"));
	assert_null(strstr(text, "DASHCAM_MEMORY"));
	free(text);
	text = advice(UINT64_MAX, 490 * MIB, 30 * SECOND);
	assert_non_null(strstr(text, "more than can be counted, and a ring has 490.0 MiB at most on this host"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cap_in_proportion),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
