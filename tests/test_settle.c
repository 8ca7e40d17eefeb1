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

#include "ipc/cleanup.h"
#include "persist/capture_inside.h"
#include "persist/writer.h"
#include "tests/capturedir.h"
#include "tests/httpmix.h"

#define RAW "raw.dcap"
#define NAME "settled.dcap"

static uint8_t *read_file(const char *name, size_t *ret_bytes)
{
	CLEANUP(close_fd) int fd = openat(dir_fd, name, O_RDONLY);
	struct stat st;
	uint8_t *bytes;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size + 1);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	*ret_bytes = (size_t)st.st_size;
	return bytes;
}

static void write_file(const char *name, const void *bytes, size_t count)
{
	CLEANUP(close_fd) int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, bytes, count), count);
}

static void more_events(void *ring)
{
	uint16_t site = ring_maker_site(ring, &(struct maker_site){.name = "late"});

	for (unsigned i = 0; i < 3000; i++)
		ring_maker_event(ring, 0, DC_KIND_INSTANT, UINT64_C(400000000000) + i, site, NULL, 0);
}

/* Two processes, and a second pass in which chunks have grown and new ones have come. */
static void make_raw(const char *name)
{
	struct ring_maker *rings[] = {mix_ring(MIX_HTTP, 20000), mix_ring(MIX_PAIR_1US, 5000)};
	struct capture_maker m = {.dir = dir,
				  .name = name,
				  .rings = rings,
				  .ring_count = 2,
				  .chunks_per_block = 7,
				  .lost_overwritten = 5,
				  .between = more_events,
				  .arg = rings[0]};

	unlinkat(dir_fd, name, 0);
	assert_int_equal(capture_maker_write(&m), 0);
	ring_maker_free(rings[0]);
	ring_maker_free(rings[1]);
}

static struct dc_capture *open_capture(const char *name)
{
	char path[300], why[160];
	struct dc_capture *c;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	assert_int_equal(dc_capture_open(path, &c, why), 0);
	assert_int_equal(dc_capture_index(c), 0);
	return c;
}

/* Every chunk that @raw gives is in @settled, byte for byte, and no other. */
static void same_chunks(struct dc_capture *raw, struct dc_capture *settled)
{
	assert_int_equal(raw->chunk_count, settled->chunk_count);
	for (uint32_t i = 0; i < raw->chunk_count; i++) {
		const uint8_t *a, *b;
		uint8_t copy[DC_CHUNK_BYTES_MAX];

		assert_int_equal(raw->chunks[i].bytes, settled->chunks[i].bytes);
		assert_int_equal(raw->chunks[i].events, settled->chunks[i].events);
		assert_int_equal(dc_capture_chunk(raw, &raw->chunks[i], &a), 0);
		memcpy(copy, a, raw->chunks[i].bytes);
		assert_int_equal(dc_capture_chunk(settled, &settled->chunks[i], &b), 0);
		assert_memory_equal(copy, b, raw->chunks[i].bytes);
	}
}

static void test_settled_holds_the_same(void **state)
{
	/* Chunks, tables, what is said about the incident and the losses: all as in the raw capture, and smaller. */
	struct dc_capture *raw, *settled;
	struct dc_capture_totals a, b;
	const struct dc_fault *faults;

	(void)state;
	make_raw(RAW);
	make_raw(NAME);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), 0);
	raw = open_capture(RAW);
	settled = open_capture(NAME);
	assert_true(dc_capture_settled(settled) && dc_capture_complete(settled));
	assert_int_equal(dc_capture_faults(settled, &faults), 0);
	assert_true(dc_capture_bytes(settled) * 2 < dc_capture_bytes(raw));
	assert_true(raw->chunk_count > 20);
	same_chunks(raw, settled);
	assert_memory_equal(dc_capture_incident(raw), dc_capture_incident(settled),
			    sizeof(struct dc_incident));
	for (unsigned p = 0; p < 2; p++) {
		assert_memory_equal(dc_capture_process(raw, p), dc_capture_process(settled, p),
				    sizeof(struct dc_process));
		assert_memory_equal(dc_capture_ring(raw, p), dc_capture_ring(settled, p),
				    sizeof(struct dc_ring_header));
		assert_int_equal(dc_capture_totals(raw, p, &a), 0);
		assert_int_equal(dc_capture_totals(settled, p, &b), 0);
		assert_memory_equal(&a, &b, sizeof a);
		assert_true(a.events >= (p ? 5000 : 23000));
	}
	dc_capture_close(raw);
	dc_capture_close(settled);
}

static void test_settling_twice_is_no_error(void **state)
{
	/* A settled capture is left alone. */
	size_t before_bytes, after_bytes;
	uint8_t *before, *after;

	(void)state;
	make_raw(NAME);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), 0);
	before = read_file(NAME, &before_bytes);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), 1);
	after = read_file(NAME, &after_bytes);
	assert_int_equal(before_bytes, after_bytes);
	assert_memory_equal(before, after, before_bytes);
	free(before);
	free(after);
}

static struct dc_file_block file_block(const char *name)
{
	struct dc_file_block file;
	size_t bytes;
	uint8_t *all = read_file(name, &bytes);

	memcpy(&file, all + sizeof(struct dc_block_header), sizeof file);
	free(all);
	return file;
}

static void test_identity_and_owner_survive(void **state)
{
	/* capture_id, creation time, owner and mode are the raw file's; only `settled` differs. */
	struct dc_file_block raw, settled;
	struct stat st;

	(void)state;
	make_raw(NAME);
	if (geteuid() == 0)
		assert_int_equal(fchownat(dir_fd, NAME, 1234, 1235, 0), 0);
	raw = file_block(NAME);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), 0);
	settled = file_block(NAME);
	assert_int_equal(raw.settled, 0);
	assert_int_equal(settled.settled, 1);
	raw.settled = 1;
	assert_memory_equal(&raw, &settled, sizeof raw);
	assert_int_equal(fstatat(dir_fd, NAME, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_uid, geteuid() ? geteuid() : 1234);
	assert_int_equal(st.st_gid, geteuid() ? getegid() : 1235);
}

static int widest(void *arg, const struct dc_event *e)
{
	struct dc_index_entry *seen = arg;

	seen->from_units = e->units < seen->from_units ? e->units : seen->from_units;
	seen->to_units = e->units > seen->to_units ? e->units : seen->to_units;
	return 0;
}

/* What the decoder says about the chunks of one block. */
static struct dc_index_entry decoded(struct dc_capture *c, uint32_t block)
{
	struct dc_index_entry seen = {.from_units = UINT64_MAX, .offset = c->blocks[block].offset};
	struct dc_lane_decoder *d = malloc(sizeof *d);

	for (uint32_t i = 0; i < c->chunk_count; i++) {
		const struct dc_chunk_ref *ref = &c->chunks[i];
		const uint8_t *bytes;

		if (ref->block != block)
			continue;
		dc_lane_init(d, dc_capture_schema(c, ref->process));
		assert_int_equal(dc_capture_chunk(c, ref, &bytes), 0);
		assert_int_equal(dc_lane_decode(d, bytes, ref->bytes, widest, &seen), 0);
		seen.process = ref->process;
		seen.events += ref->events;
		seen.chunks++;
	}
	free(d);
	return seen;
}

static void test_index_is_true(void **state)
{
	/* Each block of chunks has an entry that says where it is and holds all its events between its times. */
	const struct dc_index_entry *entry = NULL;
	const uint8_t *payload;
	struct dc_capture *c;
	size_t count = 0, seen = 0;
	uint8_t *index = NULL;

	(void)state;
	make_raw(NAME);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), 0);
	c = open_capture(NAME);
	for (uint32_t i = 0; i < c->block_count; i++) {
		if (c->blocks[i].type != DC_BLOCK_INDEX)
			continue;
		assert_int_equal(dc_capture_payload(c, &c->blocks[i], &payload), 0);
		count = c->blocks[i].plain_bytes / sizeof *entry;
		index = malloc(c->blocks[i].plain_bytes);
		memcpy(index, payload, c->blocks[i].plain_bytes);
	}
	entry = (void *)index;
	for (uint32_t i = 0; i < c->block_count; i++) {
		struct dc_index_entry true_entry;

		if (c->blocks[i].type != DC_BLOCK_COLUMNS)
			continue;
		true_entry = decoded(c, i);
		assert_true(seen < count);
		assert_int_equal(entry[seen].offset, true_entry.offset);
		assert_int_equal(entry[seen].process, true_entry.process);
		assert_int_equal(entry[seen].events, true_entry.events);
		assert_int_equal(entry[seen].chunks, true_entry.chunks);
		assert_true(entry[seen].from_units <= true_entry.from_units);
		assert_int_equal(entry[seen].to_units, true_entry.to_units);
		seen++;
	}
	assert_int_equal(seen, count);
	assert_true(count >= 2);
	free(index);
	dc_capture_close(c);
}

/* Where the payload of the n-th block of @type begins. */
static size_t payload_of(const uint8_t *file, size_t bytes, uint16_t type, unsigned n)
{
	struct dc_block_header h;

	for (size_t at = 0; at + sizeof h <= bytes; at += h.next) {
		memcpy(&h, file + at, sizeof h);
		if (h.type == type && n-- == 0)
			return at + sizeof h;
	}
	fail_msg("no such block");
	return 0;
}

static void test_damaged_capture_settles_what_is_whole(void **state)
{
	/* A spoiled block of chunks is left out, everything else is kept, and the settled file says so. */
	const struct dc_fault *faults;
	struct dc_capture *raw, *settled;
	uint8_t *file;
	size_t bytes;

	(void)state;
	make_raw(RAW);
	file = read_file(RAW, &bytes);
	file[payload_of(file, bytes, DC_BLOCK_CHUNKS, 1) + 1000] ^= 1;
	write_file(RAW, file, bytes);
	write_file(NAME, file, bytes);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), 0);
	raw = open_capture(RAW);
	settled = open_capture(NAME);
	same_chunks(raw, settled);
	assert_int_equal(dc_capture_faults(settled, &faults), 1);
	assert_non_null(strstr(faults[0].text, "settled from a damaged capture"));
	dc_capture_close(raw);
	dc_capture_close(settled);
	free(file);
}

static void test_cut_capture_settles_or_stays(void **state)
{
	/* Cut anywhere, a raw capture is either settled with all that is whole, or left exactly as it is. */
	uint8_t *file, *after;
	size_t bytes, after_bytes;
	unsigned settled_count = 0, stayed = 0;

	(void)state;
	make_raw(RAW);
	file = read_file(RAW, &bytes);
	for (size_t cut = 1; cut < bytes; cut += bytes / 40) {
		struct dc_capture *raw, *settled;
		const struct dc_fault *faults;
		int r;

		write_file(RAW, file, cut);
		write_file(NAME, file, cut);
		r = dc_settle(dir_fd, NAME, &(struct dc_settle_options){.zstd_level = 1}, NULL);
		if (r < 0) {
			after = read_file(NAME, &after_bytes);
			assert_int_equal(after_bytes, cut);
			assert_memory_equal(after, file, cut);
			free(after);
			stayed++;
			continue;
		}
		raw = open_capture(RAW);
		settled = open_capture(NAME);
		same_chunks(raw, settled);
		assert_true(dc_capture_faults(settled, &faults) > 0);
		dc_capture_close(raw);
		dc_capture_close(settled);
		settled_count++;
	}
	assert_true(settled_count > 10 && stayed > 0);
	free(file);
}

static void test_chunks_without_tables_stay_raw(void **state)
{
	/* Where nothing says what chunks mean they would be left behind: then the raw file stays. */
	uint8_t *file, *after;
	size_t bytes, after_bytes;

	(void)state;
	make_raw(NAME);
	file = read_file(NAME, &bytes);
	for (unsigned i = 0; i < 4; i++)
		file[payload_of(file, bytes, DC_BLOCK_TABLES, i) + 100] ^= 1;
	write_file(NAME, file, bytes);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), -EBADMSG);
	after = read_file(NAME, &after_bytes);
	assert_int_equal(after_bytes, bytes);
	assert_memory_equal(after, file, bytes);
	assert_int_equal(faccessat(dir_fd, NAME ".part", F_OK, 0), -1);
	free(after);
	free(file);
}

static void test_what_is_no_capture_is_refused(void **state)
{
	/* Nothing there, an empty file, a text, a link to a capture: an error, and it stays. */
	(void)state;
	assert_int_equal(dc_settle(dir_fd, "absent.dcap", NULL, NULL), -ENOENT);
	write_file(NAME, "", 0);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), -ENODATA);
	write_file(NAME, "hello, this is no capture", 25);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), -ENODATA);
	assert_int_equal(faccessat(dir_fd, NAME, F_OK, 0), 0);
	make_raw(RAW);
	assert_int_equal(symlinkat(RAW, dir_fd, "link.dcap"), 0);
	assert_int_equal(dc_settle(dir_fd, "link.dcap", NULL, NULL), -ESTALE);
	assert_int_equal(faccessat(dir_fd, "link.dcap.part", F_OK, 0), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settled_holds_the_same),
		cmocka_unit_test(test_settling_twice_is_no_error),
		cmocka_unit_test(test_identity_and_owner_survive),
		cmocka_unit_test(test_index_is_true),
		cmocka_unit_test(test_damaged_capture_settles_what_is_whole),
		cmocka_unit_test(test_cut_capture_settles_or_stays),
		cmocka_unit_test(test_chunks_without_tables_stay_raw),
		cmocka_unit_test(test_what_is_no_capture_is_refused),
	};

	return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
