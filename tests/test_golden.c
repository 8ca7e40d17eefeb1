/* SPDX-License-Identifier: MIT */
/* Rings and captures of every format ever released are read, event by event: tests/golden/, never made anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "persist/capture.h"
#include "trigger/recover.h"

/* What tests/golden/format-1.make.c recorded, one line an event: kind, depth, name, arguments. */
static const char *const expected[] = {
	"1 1 golden.outer u=7 i=-7 d=1.5 b=true p=0x1234 s=text null=(null) secret=<secret>",
	"4 1 golden.instant",
	"5 1 golden.counter value=-42",
	"6 1 conn 5 closed after timeout",
	"7 1 golden.async id=99 why=because",
	"8 1 golden.async id=99",
	"9 1 1122334455667788",
	"10 1 1122334455667788",
	"11 1 0a b7 01",
	"12 1 golden.stack",
	"1 2 golden.below",
	"1 3 golden.above",
	"2 3 golden.above implied",
	"2 2 golden.below",
	"16 0 worker",
	"1 1 worker.step i=0",
	"2 1 worker.step",
	"1 1 worker.step i=1",
	"2 1 worker.step",
	"1 1 worker.step i=2",
	"2 1 worker.step",
	"13 1 golden order=42",
	"2 1 golden.outer",
};

static void line_args(const struct dc_event *e, char *text, size_t size)
{
	char value[64];

	for (unsigned i = 0; i < e->arg_count; i++) {
		size_t n = strlen(text);
		dc_value_format(e, i, value, sizeof(value));
		snprintf(text + n, size - n, " %s=%s", e->info->keys[i], value);
	}
}

static void line_of(const struct dc_event *e, char *text, size_t size)
{
	char body[160] = "";

	switch (e->kind) {
	case DC_KIND_LOG:
		dc_event_format(e, body, sizeof(body));
		break;
	case DC_KIND_FLOW_OUT:
	case DC_KIND_FLOW_IN:
		snprintf(body, sizeof(body), "%llx", (unsigned long long)e->flow_id);
		break;
	case DC_KIND_CONTEXT:
		snprintf(body, sizeof(body), "%02x %02x %02x", e->context.trace_id[0], e->context.span_id[0],
			 e->context.flags);
		break;
	case DC_KIND_THREAD:
		snprintf(body, sizeof(body), "%s", e->comm);
		break;
	default:
		snprintf(body, sizeof(body), "%s", e->info->name);
		line_args(e, body, sizeof(body));
	}
	snprintf(text, size, "%u %u %s%s", e->kind, e->depth, body, e->implied ? " implied" : "");
}

static void reads_what_was_recorded(const char *path)
{
	const unsigned count = sizeof(expected) / sizeof(*expected);
	const struct dc_cut everything = {.everything = true};
	struct dc_capture *c = NULL;
	struct dc_cursor *cursor = NULL;
	struct dc_cursor_event e;
	const struct dc_fault *faults;
	char why[160] = "", line[256];

	if (dc_capture_open(path, &c, why) != 0)
		fail_msg("%s: %s", path, why);
	assert_string_equal(dc_capture_process(c, 0)->name, "golden");
	assert_int_equal(dc_cursor_open(c, &everything, &cursor), 0);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(dc_cursor_next(cursor, &e), 1);
		line_of(&e.event, line, sizeof(line));
		assert_string_equal(line, expected[i]);
	}
	assert_int_equal(dc_cursor_next(cursor, &e), 0);
	assert_int_equal(dc_capture_faults(c, &faults), 0);
	dc_cursor_close(cursor);
	dc_capture_close(c);
}

static const char *golden(const char *name)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/tests/golden/%s", getenv("DASHCAM_SOURCE"), name);
	return path;
}

static void test_raw_captures(void **state)
{
	(void)state;
	reads_what_was_recorded(golden("format-1.raw.dcap"));
}

static void test_settled_captures(void **state)
{
	(void)state;
	reads_what_was_recorded(golden("format-1.settled.dcap"));
}

/* A ring from another boot, another host, by a recorder of any release: recovered. */
static void test_rings(void **state)
{
	(void)state;
	char dir[] = "/tmp/golden-XXXXXX", path[64], why[DC_WHY_BYTES] = "";
	struct dc_save *save = NULL;

	assert_non_null(mkdtemp(dir));
	struct dc_save_output output = {.dir = dir, .name = "ring.dcap"};
	if (dc_recover(golden("version-1.ring"), &output, &save, why) != 0)
		fail_msg("%s", why);
	dc_save_free(save);
	snprintf(path, sizeof(path), "%s/ring.dcap", dir);
	reads_what_was_recorded(path);
	unlink(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw_captures),
		cmocka_unit_test(test_settled_captures),
		cmocka_unit_test(test_rings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
