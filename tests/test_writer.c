/* SPDX-License-Identifier: MIT */
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

#include "persist/block.h"
#include "persist/writer.h"
#include "tests/scratch.h"

#define NAME "a.dcap"
#define PART "a.dcap.part"

static const struct dc_file_block same = {.version = 1, .capture_id = "0123456789abcde", .created_ns = 1};
static char disk[] = "/var/tmp/test_writer.XXXXXX";   /* most likely a disk: O_DIRECT works */
static char memory[SCRATCH_BYTES];                    /* tmpfs: O_DIRECT may be refused */
static int disk_fd, memory_fd;

static int set_up(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(disk));
	scratch_memory("test_writer", memory);
	disk_fd = open(disk, O_RDONLY | O_DIRECTORY);
	memory_fd = open(memory, O_RDONLY | O_DIRECTORY);
	return disk_fd < 0 || memory_fd < 0;
}

static int tear_down(void **state)
{
	(void)state;
	return rmdir(disk) || rmdir(memory);
}

static bool exists(int dir, const char *name)
{
	return faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/*
 * Every kind of block: small, reserved full and nearly empty, larger than a buffer, empty. @hurry: most of them faster
 * than the disk, in more memory than the four buffers.
 */
static struct dc_writer *write_so(int dir, uint32_t flags, bool hurry)
{
	static uint8_t tables[3 << 20];
	struct dc_incident incident = {.reason = DC_REASON_COMMAND, .text = "why"};
	struct dc_process process = {.pid = 7, .name = "x"};
	struct dc_writer *w;

	for (size_t i = 0; i < sizeof tables; i++)
		tables[i] = (uint8_t)(i >> 8 ^ i);
	assert_int_equal(dc_writer_open_as(dir, NAME, flags, 4, &same, &w), 0);
	assert_int_equal(dc_writer_incident(w, &incident), 0);
	assert_int_equal(dc_writer_process(w, 0, &process), 0);
	assert_int_equal(dc_writer_block(w, DC_BLOCK_TABLES, 0, tables, sizeof tables - 17), 0);
	for (unsigned i = 0; i < 11; i++) {
		size_t bytes = i % 3 ? DC_WRITER_PAYLOAD_MAX : i;
		uint8_t *to;

		dc_writer_hurry(w, hurry && i != 7);
		to = dc_writer_reserve(w);
		assert_non_null(to);
		memset(to, (int)i, DC_WRITER_PAYLOAD_MAX);
		assert_int_equal(dc_writer_commit(w, DC_BLOCK_CHUNKS, 0, bytes), 0);
	}
	assert_int_equal(dc_writer_block(w, DC_BLOCK_LOSS, 0, NULL, 0), 0);
	dc_writer_count(w, 1, 2, 3);
	dc_writer_count(w, 1, 2, 3);
	return w;
}

static struct dc_writer *write_much(int dir, uint32_t flags)
{
	return write_so(dir, flags, false);
}

static uint8_t *read_file(int dir, const char *name, size_t *ret_bytes)
{
	struct stat st;
	uint8_t *bytes;
	int fd = openat(dir, name, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	*ret_bytes = (size_t)st.st_size;
	return bytes;
}

/* Walks the blocks as a reader would. Return: how many. */
static unsigned walk(const uint8_t *file, size_t bytes, uint64_t align)
{
	unsigned blocks = 0;

	for (size_t at = 0; at < bytes; blocks++) {
		struct dc_block_header h;

		memcpy(&h, file + at, sizeof h);
		assert_int_equal(dc_block_check(&h, bytes - at), 0);
		assert_true(dc_block_intact(&h, file + at + sizeof h));
		assert_int_equal(h.sequence, blocks);
		assert_int_equal(h.next % align, 0);
		for (size_t i = at + sizeof h + h.stored_bytes; i < at + h.next; i++)
			assert_int_equal(file[i], 0);
		at += h.next;
	}
	return blocks;
}

static void test_all_methods_write_the_same(void **state)
{
	/* io_uring, pwrite and a file system without O_DIRECT, in a hurry or not, give the same bytes: whole
	 * blocks, aligned, padded. */
	const uint32_t flags[] = {0, DC_WRITER_PWRITE, 0, 0, DC_WRITER_PWRITE, 0};
	const int dirs[] = {disk_fd, disk_fd, memory_fd, disk_fd, disk_fd, memory_fd};
	uint8_t *first = NULL;
	size_t first_bytes = 0;

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct dc_writer *w = write_so(dirs[i], flags[i], i >= 3);
		uint64_t written = dc_writer_written(w);
		uint8_t *file;
		size_t bytes;

		if (flags[i] & DC_WRITER_PWRITE)
			assert_string_equal(dc_writer_method(w), "pwrite");
		assert_int_equal(dc_writer_close(w, true), 0);
		file = read_file(dirs[i], NAME, &bytes);
		assert_int_equal(bytes, written + 4096);
		assert_int_equal(walk(file, bytes, 4096), 17);
		if (first) {
			assert_int_equal(bytes, first_bytes);
			assert_memory_equal(file, first, bytes);
			free(file);
		} else {
			first = file;
			first_bytes = bytes;
		}
		unlinkat(dirs[i], NAME, 0);
	}
	free(first);
}

static void test_end_block_has_the_totals(void **state)
{
	/* The last block is END and says how many blocks, chunks, events and bytes there are. */
	struct dc_writer *w = write_much(disk_fd, 0);
	struct dc_block_header h;
	struct dc_end_block end;
	uint8_t *file;
	size_t bytes;

	(void)state;
	assert_int_equal(dc_writer_close(w, true), 0);
	file = read_file(disk_fd, NAME, &bytes);
	memcpy(&h, file + bytes - 4096, sizeof h);
	memcpy(&end, file + bytes - 4096 + sizeof h, sizeof end);
	assert_int_equal(h.type, DC_BLOCK_END);
	assert_int_equal(end.blocks, 16);
	assert_int_equal(end.chunks, 2);
	assert_int_equal(end.events, 4);
	assert_int_equal(end.raw_bytes, 6);
	free(file);
	unlinkat(disk_fd, NAME, 0);
}

static void test_settled_blocks_are_packed(void **state)
{
	/* Settled files align blocks to 64 bytes; what zstd shrinks is stored shrunk, what it does not as it is. */
	static uint8_t zeros[100000], noise[1000];
	struct dc_writer *w;
	uint8_t *file;
	size_t bytes;

	(void)state;
	for (size_t i = 0; i < sizeof noise; i++)
		noise[i] = (uint8_t)rand();
	assert_int_equal(dc_writer_open_as(disk_fd, NAME, DC_WRITER_SETTLED, 2, &same, &w), 0);
	assert_int_equal(dc_writer_block_zstd(w, DC_BLOCK_COLUMNS, 0, zeros, sizeof zeros), 0);
	assert_int_equal(dc_writer_block_zstd(w, DC_BLOCK_COLUMNS, 0, noise, sizeof noise), 0);
	assert_int_equal(dc_writer_close(w, true), 0);
	file = read_file(disk_fd, NAME, &bytes);
	assert_int_equal(walk(file, bytes, 64), 4);
	assert_true(bytes > sizeof noise && bytes < 2000);
	free(file);
	unlinkat(disk_fd, NAME, 0);
}

static void test_capture_appears_whole_or_not_at_all(void **state)
{
	/* Until close the name does not exist; a writer that gives up leaves nothing. */
	struct dc_writer *w = write_much(disk_fd, 0);
	struct stat st;

	(void)state;
	assert_false(exists(disk_fd, NAME));
	assert_int_equal(fstatat(disk_fd, PART, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(dc_writer_close(w, false), 0);
	assert_false(exists(disk_fd, NAME));
	assert_false(exists(disk_fd, PART));
}

static void test_no_capture_is_overwritten(void **state)
{
	/* A name that is taken is refused at open, and at close when it was taken meanwhile. */
	struct dc_writer *w;
	int fd;

	(void)state;
	close(openat(disk_fd, NAME, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(dc_writer_open_as(disk_fd, NAME, 0, 4, &same, &w), -EEXIST);
	unlinkat(disk_fd, NAME, 0);
	w = write_much(disk_fd, 0);
	fd = openat(disk_fd, NAME, O_CREAT | O_EXCL | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(dc_writer_close(w, true), -EEXIST);
	assert_false(exists(disk_fd, PART));
	assert_int_equal(unlinkat(disk_fd, NAME, 0), 0);
}

static void test_part_of_a_dead_writer_is_replaced(void **state)
{
	/* A leftover .part is no obstacle, that of a living writer is; reclaim tells them apart. */
	struct dc_writer *w, *other;

	(void)state;
	close(openat(disk_fd, PART, O_CREAT | O_WRONLY, 0600));
	w = write_much(disk_fd, 0);
	assert_int_equal(dc_writer_open_as(disk_fd, NAME, 0, 4, &same, &other), -EEXIST);
	assert_int_equal(dc_writer_reclaim(disk_fd, PART), -EBUSY);
	assert_int_equal(dc_writer_close(w, true), 0);
	unlinkat(disk_fd, NAME, 0);
	close(openat(disk_fd, PART, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(dc_writer_reclaim(disk_fd, PART), 0);
	assert_false(exists(disk_fd, PART));
}

static void test_bad_names_are_refused(void **state)
{
	/* No path leads out of the directory, and a capture is called .dcap. */
	struct dc_writer *w;
	char longest[300];

	(void)state;
	memset(longest, 'x', sizeof longest);
	strcpy(longest + 290, ".dcap");
	assert_int_equal(dc_writer_open_as(disk_fd, "../a.dcap", 0, 4, &same, &w), -EINVAL);
	assert_int_equal(dc_writer_open_as(disk_fd, "a.txt", 0, 4, &same, &w), -EINVAL);
	assert_int_equal(dc_writer_open_as(disk_fd, ".dcap", 0, 4, &same, &w), -EINVAL);
	assert_int_equal(dc_writer_open_as(disk_fd, longest, 0, 4, &same, &w), -ENAMETOOLONG);
	assert_int_equal(dc_writer_open_as(-1, NAME, 0, 4, &same, &w), -EBADF);
}

static void test_block_too_large_sticks(void **state)
{
	/* A block that no reader would take is refused; the error sticks and the file does not appear. */
	static uint8_t huge[DC_BLOCK_PLAIN_MAX + 1];
	struct dc_writer *w;

	(void)state;
	assert_int_equal(dc_writer_open_as(disk_fd, NAME, 0, 4, &same, &w), 0);
	assert_int_equal(dc_writer_block(w, DC_BLOCK_TABLES, 0, huge, sizeof huge), -E2BIG);
	assert_int_equal(dc_writer_block(w, DC_BLOCK_LOSS, 0, huge, 1), -E2BIG);
	assert_null(dc_writer_reserve(w));
	assert_int_equal(dc_writer_error(w), -E2BIG);
	assert_int_equal(dc_writer_close(w, true), -E2BIG);
	assert_false(exists(disk_fd, NAME) || exists(disk_fd, PART));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_methods_write_the_same),
		cmocka_unit_test(test_end_block_has_the_totals),
		cmocka_unit_test(test_settled_blocks_are_packed),
		cmocka_unit_test(test_capture_appears_whole_or_not_at_all),
		cmocka_unit_test(test_no_capture_is_overwritten),
		cmocka_unit_test(test_part_of_a_dead_writer_is_replaced),
		cmocka_unit_test(test_bad_names_are_refused),
		cmocka_unit_test(test_block_too_large_sticks),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
