/* SPDX-License-Identifier: MIT */
/* Claims about persist/symbolize.c: names that were not to be had come later, and nothing else changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persist/capture_inside.h"
#include "persist/stacks/stacks.h"
#include "persist/symbolize.h"
#include "persist/writer.h"
#include "tests/capturedir.h"
#include "tests/scenemaker.h"

#define NAME "x.dcap"

static char path[512];
static struct self_maps self;

static int set_up(void **state)
{
	if (dir_make(state) != 0)
		return -1;
	snprintf(path, sizeof path, "%s/" NAME, dir);
	self_maps(&self);
	return 0;
}

static int put(struct dc_writer *w, uint32_t process, void *arg)
{
	struct blob b = {0};
	int r;

	(void)arg;
	maker_maps(&b, 0, self.maps, self.count);
	r = blob_write(&b, w, DC_BLOCK_MAPS, process);
	self_sample(&b, 4, DC_SAMPLE_CPU, 7, 2000);
	return r | blob_write(&b, w, DC_BLOCK_SAMPLES, process);
}

static void write_raw(void)
{
	struct ring_maker *rings[2] = {ring_maker_new(4096, 64, 2), NULL};
	struct capture_maker m = {.dir = dir, .name = NAME, .rings = rings, .ring_count = 2, .stacks = put};
	uint16_t site = ring_maker_site(rings[0], &(struct maker_site){.name = "tick", .kind = DC_KIND_INSTANT});
	uint32_t lane = ring_maker_lane(rings[0], 7, "worker");

	for (unsigned i = 0; i < 5000; i++)
		ring_maker_event(rings[0], lane, DC_KIND_INSTANT, 1000 + i, site, NULL, 0);
	unlink(path);
	assert_int_equal(capture_maker_write(&m), 0);
	ring_maker_free(rings[0]);
}

static bool is_own(const struct dc_map_entry *map)
{
	return map->start == self.entries[self.own].start;
}

/* Everything but the program itself. */
static int refuse_own(void *arg, const struct dc_map_entry *map, const char *file)
{
	(void)arg;
	return is_own(map) ? -ENOENT : open(file, O_RDONLY | O_CLOEXEC);
}

static int refuse_all(void *arg, const struct dc_map_entry *map, const char *file)
{
	(void)arg, (void)map, (void)file;
	return -ENOENT;
}

/* Settled, with frame pointers or none: the frames of the program keep their offset in the file. */
static void write_settled(void)
{
	struct dc_settle_options options = {.resolve = {.open = refuse_own}};

	write_raw();
	assert_int_equal(dc_settle(dir_fd, NAME, &options, NULL), 0);
}

struct reading {
	unsigned unnamed; /* frames in the program itself */
	unsigned in_file; /* of these, by their offset in the file */
	unsigned named;
	bool test_itself; /* this file's put() is among them */
	uint64_t events;
};

static void add_frame(struct reading *r, const struct dc_stacks *s, const struct dc_frame *f)
{
	const char *function = dc_stacks_name(s, f->name).function;

	if (f->map != self.own)
		return;
	r->named += function[0] != 0;
	r->unnamed += function[0] == 0;
	r->in_file += (f->flags & DC_FRAME_FILE) != 0;
	r->test_itself |= strcmp(function, "self_deep") == 0 || strcmp(function, "self_take") == 0;
}

static struct reading read_capture(void)
{
	struct reading r = {0};
	struct dc_capture *c;
	struct dc_capture_totals t;
	const struct dc_fault *faults;
	char why[160];

	assert_int_equal(dc_capture_open(path, &c, why), 0);
	for (unsigned p = 0; p < 2; p++) {
		struct dc_stacks *s;

		assert_int_equal(dc_capture_totals(c, p, &t), 0);
		r.events += t.events;
		assert_int_equal(dc_stacks_open(c, p, &s), 0);
		assert_true(dc_stacks_frame_count(s) > 0);
		for (uint32_t i = 1; i <= dc_stacks_frame_count(s); i++)
			add_frame(&r, s, dc_stacks_frame(s, i));
		dc_stacks_close(s);
	}
	if (dc_capture_faults(c, &faults))
		fail_msg("%s", faults[0].text);
	dc_capture_close(c);
	return r;
}

/* Every entry of the index is of a block of columns. */
static void check_index(void)
{
	struct dc_capture *c;
	const uint8_t *payload;
	unsigned entries = 0, columns = 0;
	char why[160];

	assert_int_equal(dc_capture_open(path, &c, why), 0);
	for (uint32_t i = 0; i < c->block_count; i++) {
		columns += c->blocks[i].type == DC_BLOCK_COLUMNS;
		if (c->blocks[i].type != DC_BLOCK_INDEX)
			continue;
		assert_int_equal(dc_capture_payload(c, &c->blocks[i], &payload), 0);
		for (size_t at = 0; at < c->blocks[i].plain_bytes; at += sizeof(struct dc_index_entry), entries++) {
			struct dc_index_entry e;
			unsigned found = 0;

			memcpy(&e, payload + at, sizeof e);
			for (uint32_t k = 0; k < c->block_count; k++)
				found += c->blocks[k].offset == e.offset && c->blocks[k].type == DC_BLOCK_COLUMNS;
			assert_int_equal(found, 1);
		}
	}
	assert_true(columns > 0);
	assert_int_equal(entries, columns);
	dc_capture_close(c);
}

static uint8_t *read_file(size_t *ret_bytes)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	uint8_t *bytes;

	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	*ret_bytes = (size_t)st.st_size;
	return bytes;
}

static void test_names_come_later(void **state)
{
	/* Frames that only had an offset in a file get names and virtual addresses; events and index are as they were. */
	struct dc_symbolize_result result;
	struct reading before, after;

	(void)state;
	write_settled();
	before = read_capture();
	assert_true(before.unnamed > 0);
	assert_int_equal(before.in_file, before.unnamed);
	assert_int_equal(dc_symbolize(dir_fd, NAME, NULL, false, &result), 0);
	assert_string_equal(result.why, "");
	assert_int_equal(result.named - result.named_before, before.unnamed);
	after = read_capture();
	assert_int_equal(after.unnamed, 0);
	assert_int_equal(after.in_file, 0);
	assert_int_equal(after.named, before.unnamed);
	assert_true(after.test_itself);
	assert_int_equal(after.events, before.events);
	assert_int_equal(after.events, 5000);
	check_index();
	assert_int_equal(dc_symbolize(dir_fd, NAME, NULL, false, &result), 1);
	assert_int_equal(dc_symbolize(dir_fd, NAME, NULL, true, &result), 0);
	assert_int_equal(read_capture().named, before.unnamed);
	check_index();
}

static void test_nothing_new(void **state)
{
	/* Where nothing is found the file stays as it is, to the byte. */
	const struct dc_resolve_options nowhere = {.open = refuse_all, .debug_dirs = (const char *const[]){"/nonexistent", NULL}};
	struct dc_symbolize_result result;
	size_t before_bytes, after_bytes;
	uint8_t *before, *after;

	(void)state;
	write_settled();
	before = read_file(&before_bytes);
	assert_int_equal(dc_symbolize(dir_fd, NAME, &nowhere, false, &result), 1);
	assert_int_equal(result.named, result.named_before);
	after = read_file(&after_bytes);
	assert_int_equal(before_bytes, after_bytes);
	assert_memory_equal(before, after, before_bytes);
	free(before);
	free(after);
}

static void test_from_a_directory(void **state)
{
	/* The program is found by its build-id in a directory, whatever it is called there. */
	const uint8_t *id = self.entries[self.own].build_id;
	char debug[600], file[800], command[2048];
	const char *const dirs[] = {debug, NULL};
	const struct dc_resolve_options options = {.open = refuse_all, .debug_dirs = dirs};
	struct dc_symbolize_result result;

	(void)state;
	if (!self.entries[self.own].build_id_bytes)
		skip();
	write_settled();
	snprintf(debug, sizeof debug, "%s/debug", dir);
	snprintf(file, sizeof file, "%s/.build-id/%02x/", debug, id[0]);
	for (unsigned i = 1; i < self.entries[self.own].build_id_bytes; i++)
		snprintf(file + strlen(file), sizeof file - strlen(file), "%02x", id[i]);
	snprintf(command, sizeof command, "mkdir -p %s/.build-id/%02x && cp %s %s", debug, id[0], self.paths[self.own], file);
	assert_int_equal(system(command), 0);
	assert_int_equal(dc_symbolize(dir_fd, NAME, &options, false, &result), 0);
	assert_int_equal(read_capture().unnamed, 0);
	snprintf(command, sizeof command, "rm -r %s", debug);
	assert_int_equal(system(command), 0);
}

static void test_refused(void **state)
{
	/* A raw capture, no capture, nothing. */
	struct dc_symbolize_result result;

	(void)state;
	write_raw();
	assert_int_equal(dc_symbolize(dir_fd, NAME, NULL, false, &result), -EINVAL);
	assert_int_equal(dc_symbolize(dir_fd, "absent.dcap", NULL, false, &result), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_come_later),
		cmocka_unit_test(test_nothing_new),
		cmocka_unit_test(test_from_a_directory),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, set_up, dir_remove);
}
