/* SPDX-License-Identifier: MIT */
/* Claims about persist/settle_samples.c: samples are put in order, unwound and named while a capture settles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/registers.h"
#include "persist/scrub.h"
#include "persist/stacks/stacks.h"
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

/* --- captures --- */

static int put_maps(struct dc_writer *w, uint32_t process)
{
	struct blob b = {0};

	maker_maps(&b, 0, self.maps, self.count);
	return blob_write(&b, w, DC_BLOCK_MAPS, process);
}

/* Two blocks, as of two CPUs: each in order, together not. */
static int put_samples(struct dc_writer *w, uint32_t process, void *arg)
{
	const struct dc_thread_state thread = {.syscall = 202, .state = 'S', .taken = 1, .comm = "worker"};
	struct maker_sample raw = {.kind = DC_SAMPLE_THREAD, .tid = 9, .at_ns = 9000, .extra = &thread, .extra_bytes = sizeof thread};
	struct blob b = {0};
	int r = *(bool *)arg ? put_maps(w, process) : 0;

	for (volatile int64_t t = 2000; t < 8000; t += 2000)
		self_sample(&b, 4, DC_SAMPLE_CPU, 7, t);
	maker_sample(&b, &raw); /* could not be taken: no registers */
	r |= blob_write(&b, w, DC_BLOCK_SAMPLES, process);
	for (volatile int64_t t = 1000; t < 8000; t += 2000)
		self_sample(&b, 2, DC_SAMPLE_OFF, 8, t);
	maker_sample(&b, &(struct maker_sample){.kind = DC_SAMPLE_SWITCH_OUT, .tid = 8, .at_ns = 1500});
	self_sample(&b, 3, DC_SAMPLE_CRASH, 7, 8500);
	return r | blob_write(&b, w, DC_BLOCK_SAMPLES, process);
}

#define SAMPLES 10u
#define WITH_STACKS 8u

static struct ring_maker *ring_with_stack(const uint64_t *addresses, unsigned count)
{
	struct ring_maker *ring = ring_maker_new(4096, 8, 2);
	uint16_t site = ring_maker_site(ring, &(struct maker_site){.name = "slow path", .kind = DC_KIND_STACK});
	uint32_t lane = ring_maker_lane(ring, 7, "worker");

	chunk_maker_stack(ring_maker_open_chunk(ring, lane, 1000), 1000, site, addresses, count);
	ring_maker_put(ring, lane);
	site = ring_maker_site(ring, &(struct maker_site){.name = "login", .kind = DC_KIND_INSTANT, .arg_count = 1,
							  .types = {DC_TYPE_U64}, .keys = {"token"}});
	ring_maker_event(ring, lane, DC_KIND_INSTANT, 1001, site, (struct maker_arg[]){MAKE_U64(7)}, 1);
	return ring;
}

/* A process with a ring, and one without. */
static void write_raw(int (*put)(struct dc_writer *w, uint32_t process, void *arg), void *arg)
{
	const uint64_t addresses[] = {(uintptr_t)self_deep + 8, (uintptr_t)put_samples + 8};
	struct ring_maker *rings[2] = {ring_with_stack(addresses, 2), NULL};
	struct capture_maker m = {.dir = dir, .name = NAME, .rings = rings, .ring_count = 2, .stacks = put, .arg = arg};

	unlink(path);
	assert_int_equal(capture_maker_write(&m), 0);
	ring_maker_free(rings[0]);
}

static struct dc_capture *open_capture(void)
{
	struct dc_capture *c = NULL;
	char why[160];

	if (dc_capture_open(path, &c, why) < 0)
		fail_msg("%s", why);
	return c;
}

static unsigned faults(const struct dc_capture *c)
{
	const struct dc_fault *f;

	return dc_capture_faults(c, &f);
}

/* --- what is in a settled one --- */

struct seen {
	const struct dc_stacks *s;
	unsigned count;
	unsigned unwound;
	unsigned deep; /* frames of self_deep() */
	unsigned mains;
	int64_t last_ns;
	bool ordered;
};

static unsigned count_name(const struct dc_stacks *s, uint32_t stack, const char *function)
{
	const uint32_t *numbers;
	const uint32_t depth = dc_stacks_frames(s, stack, &numbers);
	unsigned count = 0;

	for (uint32_t i = 0; i < depth; i++)
		count += strcmp(dc_stacks_name(s, dc_stacks_frame(s, numbers[i])->name).function, function) == 0;
	return count;
}

static int see(void *arg, const struct dc_sample_view *v)
{
	struct seen *seen = arg;

	seen->count++;
	seen->ordered &= v->head.monotonic_ns >= seen->last_ns;
	seen->last_ns = v->head.monotonic_ns;
	assert_true((v->thread != NULL) == (v->head.kind == DC_SAMPLE_THREAD));
	if (v->thread)
		assert_string_equal(v->thread->comm, "worker");
	if (!v->head.stack)
		return 0;
	seen->unwound++;
	seen->deep += count_name(seen->s, v->head.stack, "self_deep");
	seen->mains += count_name(seen->s, v->head.stack, "main");
	assert_int_equal(v->head.stack_bytes, 0);
	assert_int_equal(v->head.reg_count, v->head.kind == DC_SAMPLE_CRASH ? DC_REGS : 0);
	return 0;
}

static struct seen look(struct dc_stacks *s)
{
	struct seen seen = {.s = s, .ordered = true};

	assert_int_equal(dc_stacks_each(s, &(struct dc_cut){.everything = true}, see, &seen), 0);
	return seen;
}

static void test_settled(void **state)
{
	/* In the order of time, unwound and named, raw stacks gone, everything else as it was; addresses of events, too. */
	struct dc_settle_result result;
	struct dc_capture *c;
	struct dc_stacks *s;
	struct seen seen;
	bool maps = true;

	(void)state;
	write_raw(put_samples, &maps);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, &result), 0);
	assert_string_equal(result.why, "");
	assert_int_equal(result.samples, 2 * WITH_STACKS);
	assert_int_equal(result.unwound, 2 * WITH_STACKS);
	assert_int_equal(result.to_root, 2 * WITH_STACKS);
	assert_true(result.stack_used > 0 && result.stack_used <= SELF_SAMPLE_STACK);
	c = open_capture();
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(dc_stacks_open(c, i, &s), 0);
		seen = look(s);
		assert_int_equal(seen.count, SAMPLES);
		assert_int_equal(seen.unwound, WITH_STACKS);
		assert_int_equal(seen.deep, 3 * 5 + 4 * 3 + 4);
		assert_int_equal(seen.mains, WITH_STACKS);
		assert_true(seen.ordered);
		assert_int_equal(dc_stacks_stack_count(s), 3);
		assert_int_equal(dc_stacks_map_count(s), self.count);
		dc_stacks_close(s);
	}
	assert_int_equal(dc_stacks_open(c, 0, &s), 0);
	const struct dc_frame *f = dc_stacks_frame(s, dc_stacks_frame_at(s, (uintptr_t)put_samples + 8));
	assert_non_null(f);
	assert_int_equal(f->flags, DC_FRAME_CALL);
	assert_string_equal(dc_stacks_name(s, f->name).function, "put_samples");
	dc_stacks_close(s);
	assert_int_equal(faults(c), 0);
	assert_true(dc_capture_bytes(c) < 60000);
	dc_capture_close(c);
}

static int has_no_bytes(void *arg, const struct dc_sample_view *v)
{
	struct seen *seen = arg;

	assert_int_equal(v->head.reg_count, 0);
	assert_int_equal(v->head.stack_bytes, 0);
	seen->count++;
	seen->unwound += v->head.stack != 0;
	return 0;
}

static void test_scrubbed(void **state)
{
	/* Scrubbing keeps stacks and their names, and nothing that was in registers or on the stack, settled before or not. */
	struct dc_scrub_totals totals;
	bool maps = true;

	(void)state;
	for (unsigned settled = 0; settled < 2; settled++) {
		struct dc_capture *c;
		struct dc_stacks *s;
		struct seen seen = {0};

		write_raw(put_samples, &maps);
		if (settled)
			assert_int_equal(dc_settle(dir_fd, NAME, NULL, NULL), 0);
		assert_int_equal(dc_scrub(dir_fd, NAME, (const char *const[]){"token"}, 1, &totals), 0);
		assert_int_equal(totals.arguments, 1);
		assert_int_equal(totals.blocks_left_out, 0);
		c = open_capture();
		assert_true(dc_capture_settled(c));
		assert_int_equal(dc_stacks_open(c, 1, &s), 0);
		assert_int_equal(dc_stacks_each(s, &(struct dc_cut){.everything = true}, has_no_bytes, &seen), 0);
		assert_int_equal(seen.count, SAMPLES);
		assert_int_equal(seen.unwound, WITH_STACKS);
		assert_int_equal(dc_stacks_map_count(s), self.count);
		assert_int_equal(count_name(s, 1, "main"), 1);
		assert_int_equal(faults(c), 0);
		dc_stacks_close(s);
		dc_capture_close(c);
	}
}

/* Samples byte for byte. */
static int add_bytes(void *arg, const struct dc_sample_view *v)
{
	struct blob *b = arg;

	blob_add(b, &v->head, sizeof v->head);
	blob_add(b, v->regs, 8 * (size_t)v->head.reg_count);
	blob_add(b, v->stack, v->head.stack_bytes);
	return 0;
}

static int by_time(const void *left, const void *right)
{
	const struct dc_sample *const *a = left, *const *b = right;

	return (*a)->monotonic_ns < (*b)->monotonic_ns ? -1 : 1;
}

static struct blob samples_of(unsigned process, bool sorted)
{
	struct dc_capture *c = open_capture();
	const struct dc_sample *order[SAMPLES];
	struct blob all = {0}, in_order = {0};
	struct dc_stacks *s;
	unsigned n = 0;

	assert_int_equal(dc_stacks_open(c, process, &s), 0);
	assert_int_equal(dc_stacks_each(s, &(struct dc_cut){.everything = true}, add_bytes, &all), 0);
	dc_stacks_close(s);
	dc_capture_close(c);
	if (!sorted)
		return all;
	for (size_t at = 0; at < all.size; n++) {
		order[n] = (const void *)(all.bytes + at);
		at += sizeof *order[n] + 8 * (size_t)order[n]->reg_count + order[n]->stack_bytes;
	}
	qsort(order, n, sizeof(*order), by_time);
	for (unsigned i = 0; i < n; i++)
		blob_add(&in_order, order[i], sizeof *order[i] + 8 * (size_t)order[i]->reg_count + order[i]->stack_bytes);
	blob_free(&all);
	return in_order;
}

static int crash(void *arg, const struct dc_map_entry *map, const char *file)
{
	(void)arg, (void)map, (void)file;
	raise(SIGSEGV);
	return -ENOENT;
}

static void stays_raw(bool maps, const struct dc_settle_options *options, bool sorted, const char *why)
{
	struct dc_settle_result result;
	struct blob before, after;

	write_raw(put_samples, &maps);
	before = samples_of(1, sorted);
	assert_int_equal(dc_settle(dir_fd, NAME, options, &result), 0);
	if (strncmp(result.why, why, strlen(why)) || !result.why[0] != !why[0])
		fail_msg("%s", result.why);
	after = samples_of(1, false);
	assert_int_equal(before.size, after.size);
	assert_memory_equal(before.bytes, after.bytes, before.size);
	blob_free(&before);
	blob_free(&after);
}

static void test_what_cannot_be_unwound_stays(void **state)
{
	/* Without maps, when the child crashes, when nobody asked: every sample is there with all its bytes. */
	(void)state;
	stays_raw(false, NULL, false, "");
	stays_raw(true, &(struct dc_settle_options){.resolve = {.open = crash}}, true, "unwinding: ");
	stays_raw(true, &(struct dc_settle_options){.keep_stacks = true}, false, "");
}

static int put_many(struct dc_writer *w, uint32_t process, void *arg)
{
	const unsigned blocks = *(unsigned *)arg;
	struct blob b = {0};
	int r = put_maps(w, process);

	if (process == 0)
		return r;
	for (volatile unsigned i = 0; i < blocks && r == 0; i++) {
		for (volatile unsigned k = 0; k < 100; k++) /* blocks interleave in time, as those of many CPUs do */
			self_sample(&b, 40, DC_SAMPLE_CPU, 7, 1000 + 10 * k + i % 10);
		r = blob_write(&b, w, DC_BLOCK_SAMPLES, process);
	}
	return r;
}

static void test_memory(void **state)
{
	/* More samples than a batch takes: still in order, all unwound, and memory does not grow with them. */
	unsigned blocks = getenv("DASHCAM_LONG") ? 400 : 60;
	struct dc_settle_result result;
	struct rusage before, after;
	struct dc_capture *c;
	struct dc_stacks *s;
	struct seen seen;

	(void)state;
	write_raw(put_many, &blocks);
	c = open_capture();
	assert_true(dc_capture_bytes(c) > 700000ull * blocks);
	dc_capture_close(c);
	getrusage(RUSAGE_SELF, &before);
	assert_int_equal(dc_settle(dir_fd, NAME, NULL, &result), 0);
	getrusage(RUSAGE_SELF, &after);
	assert_string_equal(result.why, "");
	assert_int_equal(result.unwound, 100 * blocks);
	assert_true(after.ru_maxrss - before.ru_maxrss < 150 << 10);
	c = open_capture();
	assert_int_equal(dc_stacks_open(c, 1, &s), 0);
	seen = look(s);
	assert_int_equal(seen.unwound, 100 * blocks);
	assert_int_equal(dc_stacks_stack_count(s), 1);
	assert_true(seen.ordered);
	dc_stacks_close(s);
	dc_capture_close(c);
}

static void test_damaged(void **state)
{
	/* Spoiled anywhere in its samples and maps, a capture settles with what is whole. */
	bool maps = true;
	struct stat st;
	uint8_t *bytes;
	int fd;

	(void)state;
	write_raw(put_samples, &maps);
	fd = open(path, O_RDONLY);
	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	for (off_t at = 8300; at < st.st_size; at += st.st_size / 23) {
		struct dc_capture *c;
		struct dc_stacks *s;
		int r;

		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		assert_int_equal(write(fd, bytes, (size_t)st.st_size), st.st_size);
		assert_int_equal(pwrite(fd, &(uint8_t){(uint8_t)~bytes[at]}, 1, at), 1);
		close(fd);
		r = dc_settle(dir_fd, NAME, NULL, NULL);
		assert_true(r == 0 || r == -EBADMSG);
		c = open_capture();
		assert_true(faults(c) > 0);
		for (unsigned i = 0; i < dc_capture_process_count(c); i++) {
			assert_int_equal(dc_stacks_open(c, i, &s), 0);
			if (r == 0)
				assert_true(look(s).count <= SAMPLES);
			dc_stacks_close(s);
		}
		dc_capture_close(c);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settled),
		cmocka_unit_test(test_scrubbed),
		cmocka_unit_test(test_what_cannot_be_unwound_stays),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests(tests, set_up, dir_remove);
}
