/* SPDX-License-Identifier: MIT */
/* Claims about ipc/ring_check.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipc/ring_check.h"
#include "tests/ringmaker.h"

static struct dc_ring_header good;

static int setup(void **state)
{
	(void)state;
	struct ring_maker *m = ring_maker_new(4096, 16, 8);
	good = *ring_maker_header(m);
	ring_maker_free(m);
	return 0;
}

/* A ring as it should be passes, also in a file that is larger than it says. */
static void test_good(void **state)
{
	(void)state;
	assert_int_equal(dc_ring_check(&good, good.file_bytes, NULL), 0);
	assert_int_equal(dc_ring_check(&good, good.file_bytes + 4096, NULL), 0);
}

struct lie {
	size_t offset; /* of the field */
	size_t bytes;
	uint64_t value;
	int error;
	const char *says;
};

#define LIE(field, value, error, says)                                                                       \
	{                                                                                                    \
		offsetof(struct dc_ring_header, field), sizeof good.field, value, error, says                \
	}

/* Each lie is refused, with the line that names it. */
static void test_lies(void **state)
{
	(void)state;
	const struct lie lies[] = {
		LIE(magic, 0, -EBADMSG, "magic"),
		LIE(version, 0, -EBADMSG, "version 0"),
		LIE(incompat, 1, -EPROTONOSUPPORT, "newer dashcam"),
		LIE(header_bytes, 64, -EBADMSG, "shorter"),
		LIE(header_bytes, UINT32_MAX, -EBADMSG, "beyond the file"),
		LIE(header_bytes, 8192, -EBADMSG, "overlap"),
		LIE(chunk_bytes, 2048, -EBADMSG, "chunk size"),
		LIE(chunk_bytes, 65536, -EBADMSG, "chunk size"),
		LIE(chunk_bytes, 5000, -EBADMSG, "chunk size"),
		LIE(chunk_bytes, 32768, -EBADMSG, "beyond the file"),
		LIE(chunk_cap, 0, -EBADMSG, "no chunks"),
		LIE(chunk_cap, UINT32_MAX, -EBADMSG, "beyond the file"),
		LIE(site_cap, 0, -EBADMSG, "site table"),
		LIE(site_cap, DC_SITE_MAX + 1, -EBADMSG, "site table"),
		LIE(strings_bytes, 0, -EBADMSG, "string table"),
		LIE(strings_bytes, DC_STRINGS_BYTES + 1, -EBADMSG, "string table"),
		LIE(module_cap, DC_MODULE_MAX + 1, -EBADMSG, "module table"),
		LIE(lane_cap, 0, -EBADMSG, "lane table"),
		LIE(lane_cap, DC_LANE_MAX + 1, -EBADMSG, "lane table"),
		LIE(trigger_cap, DC_TRIGGER_SLOTS + 1, -EBADMSG, "trigger slots"),
		LIE(clock, 0, -EBADMSG, "clock"),
		LIE(clock, 4, -EBADMSG, "clock"),
		LIE(tick_shift, 17, -EBADMSG, "tick_shift"),
		LIE(file_bytes, UINT64_MAX, -EBADMSG, "truncated"),
		LIE(file_bytes, 4096, -EBADMSG, "beyond the file"),
		LIE(control_off, 1, -EBADMSG, "aligned"),
		LIE(control_off, 0, -EBADMSG, "overlap"),
		LIE(sites_off, 32, -EBADMSG, "aligned"),
		LIE(sites_off, 4096, -EBADMSG, "overlap"),
		LIE(strings_off, UINT64_MAX, -EBADMSG, "beyond the file"),
		LIE(modules_off, UINT64_MAX - 63, -EBADMSG, "beyond the file"),
		LIE(lanes_off, 0, -EBADMSG, "overlap"),
		LIE(triggers_off, 64, -EBADMSG, "overlap"),
		LIE(states_off, 8, -EBADMSG, "aligned"),
		LIE(chunks_off, 4096, -EBADMSG, "overlap"),
		LIE(chunks_off, UINT64_MAX - 4095, -EBADMSG, "beyond the file"),
		LIE(chunks_off, 64, -EBADMSG, "aligned"),
	};

	for (unsigned i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		struct dc_ring_header h = good;
		const char *why = NULL;
		memcpy((char *)&h + lies[i].offset, &lies[i].value, lies[i].bytes);
		int r = dc_ring_check(&h, good.file_bytes, &why);
		if (r != lies[i].error || !why || !strstr(why, lies[i].says))
			fail_msg("lie %u: %d '%s', expected %d '%s'", i, r, why, lies[i].error, lies[i].says);
	}
}

/* A file cut below what the header says is refused at every length. */
static void test_truncated(void **state)
{
	(void)state;
	for (uint64_t bytes = 0; bytes < good.file_bytes; bytes += 4095)
		assert_int_equal(dc_ring_check(&good, bytes, NULL), -EBADMSG);
}

/* A name without an end is refused; a newer version without incompatible features is not. */
static void test_name_and_version(void **state)
{
	(void)state;
	struct dc_ring_header h = good;
	const char *why = NULL;
	memset(h.name, 'x', sizeof h.name);
	assert_int_equal(dc_ring_check(&h, h.file_bytes, &why), -EBADMSG);
	assert_non_null(strstr(why, "name"));
	h = good;
	h.version = 99;
	h.compat = UINT64_MAX;
	assert_int_equal(dc_ring_check(&h, h.file_bytes, &why), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_name_and_version),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
