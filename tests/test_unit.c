/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "persist/unit.h"

static void test_figures(void **state)
{
	/* Three digits and the unit that keeps them short; counts stay counts. */
	(void)state;
	assert_string_equal(dc_unit_text(612e6, DC_UNIT_NS).s, "612 ms");
	assert_string_equal(dc_unit_text(2.5e9, DC_UNIT_NS).s, "2.50 s");
	assert_string_equal(dc_unit_text(90e9, DC_UNIT_NS).s, "1.50 min");
	assert_string_equal(dc_unit_text(0x2p30, DC_UNIT_BYTES).s, "2.00 GiB");
	assert_string_equal(dc_unit_text(12, DC_UNIT_BYTES).s, "12.0 B");
	assert_string_equal(dc_unit_text(100 * 0x1p20, DC_UNIT_BYTES_PER_SECOND).s, "100 MiB/s");
	assert_string_equal(dc_unit_text(97.5, DC_UNIT_PERCENT).s, "97.5 %");
	assert_string_equal(dc_unit_text(12345, DC_UNIT_PER_SECOND).s, "12345/s");
	assert_string_equal(dc_unit_text(901, DC_UNIT_NUMBER).s, "901");
	assert_string_equal(dc_unit_text(11, DC_UNIT_SIGNAL).s, "SIGSEGV");
	assert_string_equal(dc_unit_text(0.05, DC_UNIT_PER_SECOND).s, "3/min");
	assert_string_equal(dc_unit_text(0.005, DC_UNIT_PER_SECOND).s, "18/h");
	assert_string_equal(dc_unit_text(0, DC_UNIT_PER_SECOND).s, "0/s");
	assert_string_equal(dc_unit_text(1, DC_UNIT_DESCRIPTORS).s, "1 descriptor");
	assert_string_equal(dc_unit_text(1024, DC_UNIT_THREADS).s, "1024 threads");
	assert_string_equal(dc_unit_text(255, DC_UNIT_EXIT_CODE).s, "exit code 255");
}

static void test_anything(void **state)
{
	/* What a damaged file may hold: no number at all, units and signals that do not exist. */
	(void)state;
	assert_string_equal(dc_unit_text(NAN, DC_UNIT_NS).s, "unknown");
	assert_string_equal(dc_unit_text(-INFINITY, DC_UNIT_BYTES).s, "unknown");
	assert_string_equal(dc_unit_text(5, (enum dc_unit)77).s, "5");
	assert_string_equal(dc_unit_text(1e300, DC_UNIT_SIGNAL).s, "1e+300");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_figures),
		cmocka_unit_test(test_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
