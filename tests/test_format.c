/* SPDX-License-Identifier: MIT */
/*
 * The worked example of persist/FORMAT.md is what the code writes. A dump in the document is a fenced block whose
 * lines are an offset, bytes, and words after '|'; the first one is a capture, the second the columns of its chunk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "persist/columns.h"
#include "persist/writer.h"
#include "tests/capturemaker.h"

#define EXAMPLE_MAX 4096u

struct bytes {
	uint8_t at[EXAMPLE_MAX];
	size_t count;
};

/* One chunk: a span with the arguments 300 and 7 begins and ends. */
static size_t make_payload(uint8_t *payload)
{
	static struct chunk_maker c;
	struct dc_chunks_block block = {.count = 1, .chunk_bytes = 8192, .data_offset = sizeof block};
	struct dc_chunk_copy entry = {.index = 5};
	const struct maker_arg args[] = {MAKE_U64(300), MAKE_U64(7)};

	chunk_maker_init(&c, &(struct chunk_maker_opts){.start_units = 1000, .tid = 77});
	chunk_maker_event(&c, DC_KIND_BEGIN, 1005, 1, args, 2);
	chunk_maker_end(&c, 1405);
	entry.state = chunk_maker_state(&c);
	block.data_offset += sizeof entry;
	memcpy(payload, &block, sizeof block);
	memcpy(payload + sizeof block, &entry, sizeof entry);
	memset(payload + block.data_offset, 0, dc_columns_packed(c.used));
	memcpy(payload + block.data_offset, c.bytes, c.used);
	return block.data_offset + dc_columns_packed(c.used);
}

static void make_capture(struct bytes *file)
{
	const struct dc_file_block head = {.version = 1,
					   .settled = 1,
					   .capture_id = "0123456789abcde",
					   .created_ns = 1795230038123000000,
					   .writer = "example"};
	const struct dc_incident incident = {.reason = DC_REASON_COMMAND, .text = "why", .to_units = 2000};
	uint8_t payload[EXAMPLE_MAX];
	struct dc_writer *w;
	char *dir = capture_maker_mkdir();
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY), fd;

	assert_int_equal(dc_writer_open_as(dir_fd, "x.dcap", DC_WRITER_SETTLED, 2, &head, &w), 0);
	assert_int_equal(dc_writer_incident(w, &incident), 0);
	assert_int_equal(dc_writer_block(w, DC_BLOCK_CHUNKS, 0, payload, make_payload(payload)), 0);
	dc_writer_count(w, 1, 2, 75);
	assert_int_equal(dc_writer_close(w, true), 0);
	fd = openat(dir_fd, "x.dcap", O_RDONLY);
	file->count = (size_t)read(fd, file->at, sizeof file->at);
	close(fd);
	close(dir_fd);
	capture_maker_rmdir(dir);
}

static void make_columns(struct bytes *columns)
{
	const struct dc_ring_site sites[2] = {[1] = {.arg_count = 2, .types = {DC_TYPE_U64, DC_TYPE_U64}}};
	uint8_t payload[EXAMPLE_MAX];
	void *split;

	assert_int_equal(dc_columns_split(payload, make_payload(payload), sites, 2, &split, &columns->count),
			 0);
	memcpy(columns->at, split, columns->count);
	free(split);
}

/* Takes one line of a dump. Return: false where it is none. */
static bool take_line(const char *line, struct bytes *dump)
{
	unsigned offset, value;
	int n;

	if (sscanf(line, "%6x %n", &offset, &n) != 1 || n < 7 || offset != dump->count)
		return false;
	for (line += n; dump->count < EXAMPLE_MAX && sscanf(line, "%2x%n", &value, &n) == 1 && n == 2;
	     line += n) {
		dump->at[dump->count++] = (uint8_t)value;
		while (line[n] == ' ')
			n++;
	}
	return true;
}

/* The @number-th dump of the document. */
static void read_dump(unsigned number, struct bytes *dump)
{
	const char *source = getenv("DASHCAM_SOURCE");
	char path[512], line[256];
	unsigned dumps = 0;
	bool inside = false;

	snprintf(path, sizeof path, "%s/persist/FORMAT.md", source ? source : ".");
	CLEANUP(fclose) FILE *f = fopen(path, "r");
	assert_non_null(f);
	dump->count = 0;
	while (fgets(line, sizeof line, f)) {
		if (!strncmp(line, "```", 3))
			inside = !inside && !strcmp(line, "```dump\n") && dumps++ == number;
		else if (inside && !take_line(line, dump))
			fail_msg("FORMAT.md: not a line of a dump: %s", line);
	}
}

static void assert_same(const struct bytes *made, const struct bytes *documented)
{
	if (made->count == documented->count && !memcmp(made->at, documented->at, made->count))
		return;
	for (size_t i = 0; i < made->count; i++) {
		if (i % 16 == 0)
			fprintf(stderr, "%s%06zx ", i ? "\n" : "", i);
		fprintf(stderr, " %02x", made->at[i]);
	}
	fprintf(stderr, "\n");
	fail_msg("FORMAT.md shows other bytes than the code writes, which are above");
}

static void test_example_capture_is_true(void **state)
{
	/* The first dump is what the writer writes. */
	static struct bytes made, documented;

	(void)state;
	make_capture(&made);
	read_dump(0, &documented);
	assert_same(&made, &documented);
}

static void test_example_columns_are_true(void **state)
{
	/* The second dump is what the chunk of the first becomes. */
	static struct bytes made, documented;

	(void)state;
	make_columns(&made);
	read_dump(1, &documented);
	assert_same(&made, &documented);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_example_capture_is_true),
		cmocka_unit_test(test_example_columns_are_true),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
