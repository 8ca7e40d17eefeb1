/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "memory_writer.h"
#include "ringfile.h"
#include "trigger/snapshot.h"

static char dir[128];
static struct dc_writer out;

static int setup(void **state)
{
	(void)state;
	scratch_memory("dctest", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	memory_writer_reset(&out);
	scratch_remove(dir);
	return 0;
}

static struct dc_ring *open_ring(const struct ringfile *f)
{
	struct dc_ring *ring = NULL;
	char why[DC_WHY_BYTES];

	assert_int_equal(dc_ring_open(AT_FDCWD, f->path, &ring, why), 0);
	return ring;
}

/* What the CHUNKS blocks of the capture hold. Of two copies of a chunk the longer counts, as for a reader. */
struct found {
	uint64_t chunks, events, blocks;
	uint64_t events_of[256];
	uint64_t first_of[256]; /* lowest running number, ~0: none */
	uint64_t end_of[256];   /* one past the highest */
};

static bool superseded(const struct dc_chunk_copy *copy, const uint8_t *chunk, unsigned after)
{
	struct dc_chunk_header h, other;

	memcpy(&h, chunk, sizeof(h));
	for (unsigned i = after; i < out.count; i++) {
		const struct memory_block *b = &out.blocks[i];
		const struct dc_chunks_block *head = (const void *)b->payload;
		const struct dc_chunk_copy *c = (const void *)(head + 1);

		for (uint32_t k = 0; b->type == DC_BLOCK_CHUNKS && k < head->count; k++) {
			memcpy(&other, b->payload + head->data_offset + c[k].offset, sizeof(other));
			if (c[k].lane == copy->lane && other.first_event == h.first_event)
				return true;
		}
	}
	return false;
}

static void take_chunk(struct found *f, const struct dc_chunk_copy *c, const uint8_t *chunk)
{
	struct dc_chunk_header h;

	memcpy(&h, chunk, sizeof(h));
	assert_int_equal(h.lane, c->lane);
	assert_int_equal(h.generation, dc_state_generation(c->state));
	assert_true(ringfile_chunk_good(chunk, dc_state_bytes(c->state), dc_state_events(c->state)));
	f->chunks++;
	f->events += dc_state_events(c->state);
	f->events_of[c->lane] += dc_state_events(c->state);
	if (h.first_event < f->first_of[c->lane])
		f->first_of[c->lane] = h.first_event;
	if (h.first_event + dc_state_events(c->state) > f->end_of[c->lane])
		f->end_of[c->lane] = h.first_event + dc_state_events(c->state);
}

/* Checks every copied chunk to the byte. */
static struct found look_at_capture(void)
{
	struct found f = {0};

	memset(f.first_of, 0xff, sizeof(f.first_of));
	for (unsigned i = 0; i < out.count; i++) {
		const struct memory_block *b = &out.blocks[i];
		const struct dc_chunks_block *head = (const void *)b->payload;
		const struct dc_chunk_copy *c = (const void *)(head + 1);

		if (b->type != DC_BLOCK_CHUNKS)
			continue;
		f.blocks++;
		assert_true(b->bytes >= head->data_offset);
		for (uint32_t k = 0; k < head->count; k++) {
			const uint8_t *chunk = b->payload + head->data_offset + c[k].offset;

			assert_true(c[k].lane < 256);
			assert_true(head->data_offset + c[k].offset + dc_state_bytes(c[k].state) <= b->bytes);
			if (!superseded(&c[k], chunk, i + 1))
				take_chunk(&f, &c[k], chunk);
		}
	}
	return f;
}

static struct dc_loss_entry process_loss(void)
{
	struct dc_loss_entry all = {.lane = 0};

	for (unsigned i = 0; i < out.count; i++)
		if (out.blocks[i].type == DC_BLOCK_LOSS)
			memcpy(&all, out.blocks[i].payload + out.blocks[i].bytes - sizeof(all), sizeof(all));
	return all;
}

static void test_everything_of_a_quiet_ring(void **state)
{
	/* Every committed event of every lane is in the copy, byte for byte, and the totals say how many. */
	struct ringfile f;
	struct ringfile_writer w[20];
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;
	struct found found;

	(void)state;
	ringfile_make(&f, dir, 1024, 8192);
	for (unsigned i = 0; i < 20; i++)
		ringfile_writer_init(&w[i], &f, i);
	for (unsigned n = 0; n < 200000; n++)
		assert_true(ringfile_event(&w[n % 20]));
	ring = open_ring(&f);
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	assert_int_equal(dc_snapshot_loss(s, &out), 0);
	found = look_at_capture();
	assert_int_equal(found.events, 200000);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(found.events_of[i], 10000);
	assert_int_equal(dc_snapshot_totals(s)->events, 200000);
	assert_int_equal(out.events, 200000);
	assert_int_equal(out.chunks, found.chunks);
	assert_int_equal(dc_snapshot_totals(s)->discarded_chunks, 0);
	assert_int_equal(out.blocks[0].type, DC_BLOCK_TABLES);
	assert_int_equal(out.blocks[out.count - 2].type, DC_BLOCK_TABLES);
	assert_int_equal(out.blocks[out.count - 1].type, DC_BLOCK_LOSS);
	assert_true(found.blocks >= 2 &&
		    found.blocks <= 4); /* 1.6 MB in blocks of 1 MiB: neighbours went together */
	ringfile_remove(&f);
}

static void test_window_keeps_open_chunks(void **state)
{
	/* Chunks sealed before `from` are dropped; one still open is kept however old, begun after `to` is dropped. */
	struct ringfile f;
	struct ringfile_writer old, hung, fresh, late;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;
	struct found found;
	uint64_t from, to;

	(void)state;
	ringfile_make(&f, dir, 64, 4096);
	ringfile_writer_init(&old, &f, 0);
	ringfile_writer_init(&hung, &f, 1);
	ringfile_writer_init(&fresh, &f, 2);
	ringfile_writer_init(&late, &f, 3);
	for (unsigned i = 0; i < 100; i++)
		ringfile_event(&old);
	ringfile_seal(&old);
	ringfile_event(&hung);
	usleep(60000); /* coarse time is 16.8 ms here */
	from = ringfile_now(&f);
	usleep(60000);
	ringfile_event(&fresh);
	ringfile_seal(&fresh);
	to = ringfile_now(&f);
	usleep(1000);
	ringfile_event(&late);
	ring = open_ring(&f);
	assert_int_equal(dc_snapshot_new(ring, 0, from, to, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	found = look_at_capture();
	assert_int_equal(found.events_of[0], 0);
	assert_int_equal(found.events_of[1], 1);
	assert_int_equal(found.events_of[2], 1);
	assert_int_equal(found.events_of[3], 0);
	ringfile_remove(&f);
}

struct racer {
	struct ringfile_writer w;
	uint64_t pace_ns; /* between bursts of 100 events; 0: flat out */
	_Atomic int stop;
	pthread_t thread;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	while (!atomic_load_explicit(&r->stop, memory_order_relaxed)) {
		for (unsigned i = 0; i < 100; i++)
			ringfile_event(&r->w);
		if (r->pace_ns)
			nanosleep(&(struct timespec){.tv_nsec = (long)r->pace_ns}, NULL);
	}
	return NULL;
}

static void racers_start(struct racer *r, unsigned count, struct ringfile *f, uint64_t pace_ns)
{
	for (unsigned i = 0; i < count; i++) {
		ringfile_writer_init(&r[i].w, f, i);
		r[i].pace_ns = pace_ns;
		r[i].stop = 0;
		assert_int_equal(pthread_create(&r[i].thread, NULL, race, &r[i]), 0);
	}
}

static void racers_stop(struct racer *r, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		atomic_store_explicit(&r[i].stop, 1, memory_order_relaxed);
	for (unsigned i = 0; i < count; i++)
		pthread_join(r[i].thread, NULL);
}

static void test_recycling_under_the_reader(void **state)
{
	/*
	 * While two threads recycle a small ring flat out, no copy ever holds a byte that was not committed
	 * at its state word (look_at_capture() compares every byte), chunks lost to the race are counted, and
	 * both outcomes do occur.
	 */
	struct ringfile f;
	static struct racer racers[2];
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	uint64_t kept = 0, discarded = 0;

	(void)state;
	ringfile_make(&f, dir, 64, 4096);
	racers_start(racers, 2, &f, 0);
	ring = open_ring(&f);
	for (unsigned round = 0; round < 2000 && !(round > 200 && kept && discarded); round++) {
		CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;

		assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
		assert_int_equal(dc_snapshot_pass(s, &out), 0);
		kept += look_at_capture().chunks;
		discarded += dc_snapshot_totals(s)->discarded_chunks;
		memory_writer_reset(&out);
	}
	racers_stop(racers, 2);
	assert_true(kept > 0);
	assert_true(discarded > 0);
	ringfile_remove(&f);
}

static struct ringfile_writer *between_writer;

/* One round of the whole ring: every chunk of the plan is recycled before it is read. */
static void recycle_all(void *arg)
{
	struct ringfile *f = arg;

	for (unsigned i = 0; i < f->header->chunk_cap * 600; i++)
		ringfile_event(between_writer);
}

static void test_recycled_chunks_are_counted(void **state)
{
	/* Chunks recycled between the look at the state words and the copy are discarded, each counted, none kept. */
	struct ringfile f;
	struct ringfile_writer w;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	ringfile_writer_init(&w, &f, 0);
	for (unsigned i = 0; i < 16 * 600; i++)
		ringfile_event(&w);
	ring = open_ring(&f);
	between_writer = &w;
	out.between = recycle_all;
	out.between_arg = &f;
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	out.between = NULL;
	assert_int_equal(look_at_capture().chunks, 0);
	assert_int_equal(dc_snapshot_totals(s)->discarded_chunks, 16);
	assert_int_equal(dc_snapshot_loss(s, &out), 0);
	assert_int_equal(process_loss().discarded_chunks, 16);
	ringfile_remove(&f);
}

static void test_nothing_lost_while_paced(void **state)
{
	/* At well under 5 M events/s nothing is discarded, and each lane's copy has no hole. */
	struct ringfile f;
	static struct racer racers[2];
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;
	struct found found;

	(void)state;
	ringfile_make(&f, dir, 4096, 8192);
	racers_start(racers, 2, &f, 50000);
	ring = open_ring(&f);
	usleep(300000);
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	racers_stop(racers, 2);
	found = look_at_capture();
	assert_int_equal(dc_snapshot_totals(s)->discarded_chunks, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(found.first_of[i], 0);
		assert_int_equal(found.end_of[i], found.events_of[i]);
		assert_true(found.events_of[i] > 1000);
	}
	ringfile_remove(&f);
}

static void test_second_pass_adds_what_is_new(void **state)
{
	/* A later pass adds chunks that are new or grew, and nothing twice; with no change it adds no chunk at all. */
	struct ringfile f;
	struct ringfile_writer w;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;
	struct found found;

	(void)state;
	ringfile_make(&f, dir, 256, 4096);
	ringfile_writer_init(&w, &f, 0);
	for (unsigned i = 0; i < 5100; i++)
		ringfile_event(&w);
	ring = open_ring(&f);
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	assert_int_equal(look_at_capture().events, 5100);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	found = look_at_capture();
	assert_int_equal(found.blocks, 1);
	for (unsigned i = 0; i < 1000; i++)
		ringfile_event(&w);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	found = look_at_capture();
	assert_int_equal(found.events, 6100);
	assert_int_equal(found.end_of[0], 6100);
	assert_int_equal(out.events, 6100);
	assert_int_equal(out.chunks, found.chunks);
	ringfile_remove(&f);
}

static void test_left_edge_is_exact_since_start(void **state)
{
	/* When recording began inside the window, LOSS and copy together are exactly the events ever recorded. */
	struct ringfile f;
	struct ringfile_writer w;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;
	struct dc_loss_entry lane;
	uint64_t before;

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	before = (f.header->started_tick >> 2) - 1000000;
	ringfile_writer_init(&w, &f, 0);
	for (unsigned i = 0; i < 50000; i++)
		ringfile_event(&w);
	f.lanes[0].dropped = 12;
	f.header->lost_early = 3;
	ring = open_ring(&f);
	assert_int_equal(dc_snapshot_new(ring, 0, before, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	assert_int_equal(dc_snapshot_loss(s, &out), 0);
	memcpy(&lane, out.blocks[out.count - 1].payload, sizeof(lane));
	assert_int_equal(lane.lane, 0);
	assert_int_equal(lane.overwritten + look_at_capture().events, 50000);
	assert_true(lane.overwritten > 0);
	assert_int_equal(lane.dropped, 12);
	assert_int_equal(process_loss().dropped, 3);
	ringfile_remove(&f);
}

static void cut(void *arg)
{
	const struct ringfile *f = arg;

	assert_int_equal(ftruncate(f->fd, (off_t)(f->header->chunks_off + 64 * 1024)), 0);
}

static void test_truncated_on_the_way(void **state)
{
	/* A ring cut while it is copied is no error: what could be read is kept, and it is said that it was cut. */
	struct ringfile f;
	struct ringfile_writer w;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;

	(void)state;
	ringfile_make(&f, dir, 256, 4096);
	ringfile_writer_init(&w, &f, 0);
	for (unsigned i = 0; i < 100 * 490; i++)
		ringfile_event(&w);
	ring = open_ring(&f);
	out.between = cut;
	out.between_arg = &f;
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	out.between = NULL;
	assert_true(dc_snapshot_totals(s)->truncated);
	/* and one cut so far that nothing is left says so */
	assert_int_equal(ftruncate(f.fd, 10), 0);
	dc_snapshot_free(TAKE(s));
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), -EBADMSG);
	ringfile_remove(&f);
}

static void test_lying_entries_cost_no_more_than_the_ring(void **state)
{
	/* State words that claim full chunks where the file has holes do not make the capture larger than its
	 * memory. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;
	size_t bytes = 0;

	(void)state;
	ringfile_make(&f, dir, 16384, 8192); /* 128 MiB, all holes */
	for (unsigned i = 0; i < 16384; i++)
		f.entries[i] = (struct dc_chunk_entry){.state = (UINT64_C(1) << 32) + 8000, .lane = ~0u};
	ring = open_ring(&f);
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	for (unsigned i = 0; i < out.count; i++)
		bytes += out.blocks[i].bytes;
	assert_true(bytes < 4u << 20);
	ringfile_remove(&f);
}

static void turn_hand(void *arg)
{
	const struct ringfile *f = arg;

	f->header->hand += 1000;
}

static void test_in_a_hurry_only_when_chased(void **state)
{
	/* A copy that recycling is about to overtake does not wait for the disk; one of a quiet ring does. */
	struct ringfile f;
	struct ringfile_writer w;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;

	(void)state;
	ringfile_make(&f, dir, 1024, 4096);
	ringfile_writer_init(&w, &f, 0);
	for (unsigned i = 0; i < 1000 * 490; i++)
		ringfile_event(&w);
	ring = open_ring(&f);
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	assert_true(out.count > 4);
	assert_in_range(out.expected, 1000 * 490 * 8, 6 << 20); /* and says how much there will be */
	assert_int_equal(out.hurried, 0);
	dc_snapshot_free(TAKE(s));

	out.between = turn_hand;
	out.between_arg = &f;
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), 0);
	out.between = NULL;
	assert_true(out.hurried > 0);
	assert_false(out.hurry); /* and not beyond it */
	ringfile_remove(&f);
}

static void test_writer_error_travels(void **state)
{
	/* A full disk ends the pass with that error. */
	struct ringfile f;
	struct ringfile_writer w;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	ringfile_writer_init(&w, &f, 0);
	ringfile_event(&w);
	ring = open_ring(&f);
	out.error = -ENOSPC;
	assert_int_equal(dc_snapshot_new(ring, 0, 0, UINT64_MAX, &s), 0);
	assert_int_equal(dc_snapshot_pass(s, &out), -ENOSPC);
	assert_int_equal(f.control->hold_until_units, 0); /* and the guest is let go */
	ringfile_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_everything_of_a_quiet_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_window_keeps_open_chunks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_recycling_under_the_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_recycled_chunks_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_lost_while_paced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_second_pass_adds_what_is_new, setup, teardown),
		cmocka_unit_test_setup_teardown(test_left_edge_is_exact_since_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_truncated_on_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lying_entries_cost_no_more_than_the_ring, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_in_a_hurry_only_when_chased, setup, teardown),
		cmocka_unit_test_setup_teardown(test_writer_error_travels, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
