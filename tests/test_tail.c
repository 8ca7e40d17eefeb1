/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <dashcam.h>

#include "ringmaker.h"
#include "storm.h"
#include "trigger/tail.h"

#define PLENTY INT64_C(10000000000)
#define THREADS 3u

static struct storm storm;

/* ---- a living recorder: this process ---- */

/* What came of one thread's "tail.event"s, which carry their running number. */
struct heard {
	uint64_t events[THREADS]; /* how many */
	uint64_t next[THREADS]; /* one past the last */
	uint64_t twice, gaps, spans, unknown_spans;
	double weight[THREADS];
	double spans_weight;
	uint64_t foreign;
	uint32_t tids[8];
	unsigned tid_count;
};

static void note_tid(struct heard *h, uint32_t tid)
{
	for (unsigned i = 0; i < h->tid_count; i++)
		if (h->tids[i] == tid)
			return;
	if (h->tid_count < 8)
		h->tids[h->tid_count++] = tid;
}

static void hear(void *arg, const struct dc_event *e, double weight)
{
	struct heard *h = arg;

	if (e->kind == DC_KIND_END) {
		h->spans++;
		h->spans_weight += weight;
		h->unknown_spans += !e->info || strcmp(e->info->name, "tail.span") != 0 || e->start_units > e->units;
	}
	if (e->kind != DC_KIND_INSTANT)
		return;
	if (!e->info || strcmp(e->info->name, "tail.event") != 0 || e->args[0].u >= THREADS) {
		h->foreign++;
		return;
	}
	const uint64_t thread = e->args[0].u, n = e->args[1].u;
	h->events[thread]++;
	h->weight[thread] += weight;
	h->twice += n < h->next[thread];
	h->gaps += n > h->next[thread];
	h->next[thread] = n + 1;
	note_tid(h, e->tid);
}

static const struct dc_tail_handler hearing = {.event = hear};

static void record(unsigned thread, uint64_t n)
{
	DC_SPAN("tail.span", "n", n);
	DC_INSTANT("tail.event", "thread", thread, "n", n);
}

static struct dc_ring *own_ring(void)
{
	struct dc_stats stats = {.size = sizeof stats};
	struct dc_ring *ring = NULL;
	char why[DC_WHY_BYTES];

	assert_int_equal(dc_stats(&stats), 0);
	assert_int_equal(dc_ring_open(AT_FDCWD, stats.ring, &ring, why), 0);
	return ring;
}

static struct dc_tail *follow(struct dc_ring *ring)
{
	struct dc_tail *t = NULL;

	assert_int_equal(dc_tail_new(ring, &t), 0);
	return t;
}

struct work {
	pthread_t thread;
	unsigned number;
	uint64_t count, pause_every;
};

static void *work_main(void *arg)
{
	const struct work *w = arg;

	for (uint64_t n = 0; n < w->count; n++) {
		record(w->number, n);
		if (w->pause_every && n % w->pause_every == 0)
			storm_sleep_ns(1000000);
	}
	return NULL;
}

static void test_each_once(void **state)
{
	/* Three threads wrap a ring of 1 MiB while it is looked at: every event comes once, in its lane's order, nothing else. */
	CLEANUP(dc_ring) struct dc_ring *ring = own_ring();
	CLEANUP(dc_tail) struct dc_tail *t = follow(ring);
	const uint64_t count = storm_rounds(60000, 600000);
	struct work work[THREADS];
	struct heard h = {0};
	uint64_t heard = 0, looks = 0;

	(void)state;
	for (unsigned i = 0; i < THREADS; i++) {
		work[i] = (struct work){.number = i, .count = count, .pause_every = 100};
		assert_int_equal(pthread_create(&work[i].thread, NULL, work_main, &work[i]), 0);
	}
	for (; heard < THREADS * count && looks < 100000; looks++) {
		assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
		storm_sleep_ns(1000000);
		heard = h.events[0] + h.events[1] + h.events[2];
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(work[i].thread, NULL);
		assert_int_equal(h.events[i], count);
		assert_true(h.weight[i] == (double)count);
	}
	assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
	assert_int_equal(h.twice + h.gaps + h.foreign + h.unknown_spans, 0);
	assert_int_equal(h.spans, THREADS * count);
	assert_int_equal(dc_tail_totals(t)->events, THREADS * count * 3);
	assert_int_equal(dc_tail_totals(t)->skipped_chunks, 0);
	assert_false(dc_tail_totals(t)->sampled);
}

static void test_from_now_on(void **state)
{
	/* What was recorded before is not delivered, but known: a span open by then ends with its name and its begin. */
	CLEANUP(dc_ring) struct dc_ring *ring = own_ring();
	CLEANUP(dc_tail) struct dc_tail *t = NULL;
	struct heard h = {0};

	(void)state;
	record(0, 7);
	{
		DC_SPAN("tail.span", "n", 1);
		t = follow(ring);
		assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
		assert_int_equal(h.events[0] + h.spans, 0);
	}
	assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
	assert_int_equal(h.spans, 1);
	assert_int_equal(h.unknown_spans + h.events[0], 0);
	record(0, 8);
	DC_INSTANT("tail.seen_for_the_first_time"); /* its name is registered after the tail began */
	assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
	assert_int_equal(h.events[0], 1);
	assert_int_equal(h.next[0], 9);
	assert_int_equal(h.foreign, 1);
	assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0); /* nothing new: nothing comes again */
	assert_int_equal(h.events[0] + h.foreign, 2);
}

static void see_lane(void *arg, uint32_t index, const struct dc_ring_lane *entry)
{
	(void)index;
	if (entry->tid == (uint32_t)gettid())
		*(uint64_t *)arg = entry->last_units;
}

static void test_lanes_alone(void **state)
{
	/* A look at the lanes sees who recorded and takes nothing from the look after it; a chunk that is left is told. */
	static const struct dc_tail_handler seeing = {.lane = see_lane};
	CLEANUP(dc_ring) struct dc_ring *ring = own_ring();
	CLEANUP(dc_tail) struct dc_tail *t = follow(ring);
	uint64_t first = 0, second = 0;
	struct heard h = {0};

	(void)state;
	dc_ring_watch(ring); /* from here on by glances */
	record(0, 0);
	assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
	assert_int_equal(h.events[0], 1);
	record(0, 1);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(dc_tail_lanes(t, &seeing, &first), 0);
	assert_false(dc_tail_claimed(t));
	for (uint64_t n = 2; n < 4000; n++)
		record(0, n);
	assert_true(dc_tail_claimed(t));
	assert_int_equal(dc_tail_lanes(t, &seeing, &second), 0);
	assert_true(first > 0 && second > first);
	assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
	assert_false(dc_tail_claimed(t));
	assert_int_equal(h.events[0], 4000);
	assert_int_equal(h.twice + h.gaps + h.foreign, 0);
}

static void test_lanes_are_reused(void **state)
{
	/* Threads one after the other share a lane and a chunk; each one's events come once, under its own tid. */
	CLEANUP(dc_ring) struct dc_ring *ring = own_ring();
	CLEANUP(dc_tail) struct dc_tail *t = follow(ring);
	struct heard h = {0};

	(void)state;
	for (unsigned i = 0; i < THREADS; i++) {
		struct work w = {.number = i, .count = 10};

		assert_int_equal(pthread_create(&w.thread, NULL, work_main, &w), 0);
		pthread_join(w.thread, NULL);
		if (i != 1) /* two of them within one look */
			assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(h.events[i], 10);
	assert_int_equal(h.tid_count, THREADS);
	assert_int_equal(h.twice + h.gaps + h.unknown_spans, 0);
}

static void slow_hear(void *arg, const struct dc_event *e, double weight)
{
	hear(arg, e, weight);
	for (volatile int i = 0; i < 20; i++)
		;
}

static uint64_t recorded(struct dc_ring *ring)
{
	struct dc_ring_usage usage;

	assert_int_equal(dc_ring_usage(ring, &usage), 0);
	return usage.events;
}

static void test_sampling(void **state)
{
	/* Beyond the budget a part is decoded; counted by their weights events come to what was recorded, within 5 %: of fewer
	 * rounds, and so fewer chunks, as many as chance makes of a hundred, one in five. */
	static const struct dc_tail_handler slow = {.event = slow_hear};
	CLEANUP(dc_ring) struct dc_ring *ring = own_ring();
	CLEANUP(dc_tail) struct dc_tail *t = follow(ring);
	struct heard h = {0};
	const uint64_t before = recorded(ring);
	const unsigned rounds = storm_rounds(60, 300);
	const double apart = rounds < 60 ? 0.4 : 0.05;
	bool sampled = false;
	int64_t whole_ns = PLENTY;
	uint64_t n = 0;

	(void)state;
	for (unsigned i = 0; i < rounds; i++) {
		for (unsigned k = 0; k < 10000; k++)
			record(0, n++);
		const uint64_t began = storm_now_ns();
		assert_int_equal(dc_tail_look(t, i < 3 ? PLENTY : whole_ns / 4, &slow, &h), 0);
		const int64_t took_ns = (int64_t)(storm_now_ns() - began);
		if (i < 3 && took_ns < whole_ns) /* what it takes here and now, sanitizers included */
			whole_ns = took_ns;
		sampled |= dc_tail_totals(t)->sampled;
	}
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(dc_tail_look(t, PLENTY, &slow, &h), 0);
	assert_true(sampled);
	assert_true(dc_tail_totals(t)->skipped_chunks > 0);
	if (dc_tail_totals(t)->lost_chunks == 0) /* what was not heard is counted */
		assert_int_equal(dc_tail_totals(t)->events + dc_tail_totals(t)->skipped_events, recorded(ring) - before);
	assert_true(h.events[0] < n * 4 / 5);
	assert_int_equal(h.twice + h.foreign, 0);
	if (fabs(h.weight[0] / (double)n - 1) > apart || fabs(h.spans_weight / (double)n - 1) > apart)
		fail_msg("of %llu events %llu were decoded and stand for %g, of spans %g", (unsigned long long)n,
			 (unsigned long long)h.events[0], h.weight[0], h.spans_weight);
}

static void test_no_budget(void **state)
{
	/* Without a budget all is skipped; with one again, what begins then comes again, with its weight 1. */
	CLEANUP(dc_ring) struct dc_ring *ring = own_ring();
	CLEANUP(dc_tail) struct dc_tail *t = follow(ring);
	struct heard h = {0};
	const uint64_t before = recorded(ring);

	(void)state;
	for (uint64_t n = 0; n < 5000; n++)
		record(0, n);
	assert_int_equal(dc_tail_look(t, 0, &hearing, &h), 0);
	assert_int_equal(h.events[0], 0);
	assert_true(dc_tail_totals(t)->skipped_chunks > 5 && dc_tail_totals(t)->sampled);
	assert_true(dc_tail_totals(t)->skipped_bytes > dc_tail_totals(t)->skipped_events);
	if (dc_tail_totals(t)->lost_chunks == 0)
		assert_int_equal(dc_tail_totals(t)->skipped_events, recorded(ring) - before);
	for (uint64_t n = 5000; n < 10000; n++)
		record(0, n);
	assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
	assert_in_range(h.events[0], 4000, 5000); /* the chunk it was in stays skipped */
	assert_int_equal(h.gaps, 1);
	assert_int_equal(h.next[0], 10000);
}

static void count_lane(void *arg, uint32_t index, const struct dc_ring_lane *entry)
{
	unsigned *lanes = arg;

	assert_true(entry->tid && memchr(entry->comm, 0, sizeof(entry->comm)));
	(void)index;
	(*lanes)++;
}

static void test_losses(void **state)
{
	/* What went round between two looks is gone; the tail says so, and goes on. */
	CLEANUP(dc_ring) struct dc_ring *ring = own_ring();
	CLEANUP(dc_tail) struct dc_tail *t = follow(ring);
	struct heard h = {0};
	unsigned lanes = 0;

	(void)state;
	for (uint64_t n = 0; n < 400000; n++) /* 6 MiB in 1 MiB */
		record(0, n);
	assert_int_equal(dc_tail_look(t, PLENTY, &hearing, &h), 0);
	assert_true(dc_tail_totals(t)->lost_chunks > 500);
	assert_in_range(h.events[0], 10000, 390000);
	assert_int_equal(h.next[0], 400000);
	assert_int_equal(h.twice, 0);
	assert_int_equal(dc_tail_look(t, PLENTY, &(struct dc_tail_handler){.lane = count_lane, .event = hear}, &lanes),
			 0);
	assert_in_range(lanes, 1, 8);
}

/* ---- rings made by hand, and spoilt ---- */

struct made {
	struct ring_maker *m;
	struct dc_ring *ring;
	struct dc_tail *tail;
	char path[256];
	int fd;
	uint16_t site;
	uint32_t lane[2];
	uint64_t units;
};

static void publish(struct made *x)
{
	size_t bytes;
	const uint8_t *p = ring_maker_bytes(x->m, &bytes);

	assert_int_equal(pwrite(x->fd, p, bytes, 0), (ssize_t)bytes);
}

static void make(struct made *x)
{
	char why[DC_WHY_BYTES];

	*x = (struct made){.m = ring_maker_new(4096, 16, 8), .units = 1000};
	x->site = ring_maker_site(x->m, &(struct maker_site){.name = "made",
							     .kind = DC_KIND_INSTANT,
							     .arg_count = 1,
							     .types = {DC_TYPE_U64},
							     .keys = {"n"}});
	for (unsigned i = 0; i < 2; i++)
		x->lane[i] = ring_maker_lane(x->m, 100 + i, "made");
	snprintf(x->path, sizeof(x->path), "%s/4242.1.00000000.ring", storm.out);
	assert_int_equal(ring_maker_write(x->m, x->path), 0);
	x->fd = open(x->path, O_RDWR | O_CLOEXEC);
	assert_true(x->fd >= 0);
	assert_int_equal(dc_ring_open(AT_FDCWD, x->path, &x->ring, why), 0);
	x->tail = follow(x->ring);
}

static void unmake(struct made *x)
{
	dc_tail_free(x->tail);
	dc_ring_unref(x->ring);
	ring_maker_free(x->m);
	close(x->fd);
	unlink(x->path);
}

static void add(struct made *x, unsigned lane, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		ring_maker_event(x->m, x->lane[lane], DC_KIND_INSTANT, ++x->units, x->site,
				 (struct maker_arg[]){MAKE_U64(x->units)}, 1);
}

struct sum {
	uint64_t events, wrong, last[8];
};

static void add_up(void *arg, const struct dc_event *e, double weight)
{
	struct sum *s = arg;

	s->events++;
	s->wrong += weight < 1 || e->lane >= 8 || (e->info && e->info->name[0] != 'm') ||
		    e->args[0].u <= s->last[e->lane & 7];
	s->last[e->lane & 7] = e->args[0].u;
}

static const struct dc_tail_handler adding = {.event = add_up};

static void test_switches(void **state)
{
	/* A few events each look, in two lanes, through many chunks and rounds of the pool: each comes, once, in order. */
	struct made x;
	struct sum s = {0};
	uint64_t added = 0;

	(void)state;
	make(&x);
	for (unsigned i = 0; i < 600; i++) {
		add(&x, i % 3 == 0, i % 97);
		add(&x, i % 3 != 0, i % 5);
		added += i % 97 + i % 5;
		publish(&x);
		assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), 0);
		assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), 0);
		assert_int_equal(s.events, added);
	}
	assert_int_equal(s.wrong, 0);
	assert_true(added > 25000); /* rounds: a pool holds 16 chunks of some 700 events */
	unmake(&x);
}

static void test_damaged_chunk(void **state)
{
	/* Bytes that are no events end their chunk; what the next one holds comes. */
	struct made x;
	struct sum s = {0};
	uint32_t chunk;

	(void)state;
	make(&x);
	add(&x, 0, 10);
	chunk = ring_maker_lanes(x.m)[x.lane[0]].chunk;
	add(&x, 0, 100);
	memset(ring_maker_chunk(x.m, chunk) + 500, 0, 16);
	publish(&x);
	assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), 0);
	assert_in_range(s.events, 10, 100);
	assert_int_equal(dc_tail_totals(x.tail)->lost_chunks, 1);
	ring_maker_seal(x.m, x.lane[0]);
	s.events = 0;
	add(&x, 0, 50);
	publish(&x);
	assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), 0);
	assert_int_equal(s.events, 50);
	assert_int_equal(dc_tail_totals(x.tail)->lost_chunks, 1);
	unmake(&x);
}

static void test_hostile(void **state)
{
	/* Whatever stands in lanes, states and chunks: looks end, events stay within what a ring holds, none has a bad pointer. */
	struct made x;
	uint64_t random = 99;

	(void)state;
	make(&x);
	for (unsigned round = 0; round < 400; round++) {
		struct sum s = {0};
		size_t bytes;
		uint8_t *p = ring_maker_bytes(x.m, &bytes);
		const uint64_t lanes = ring_maker_header(x.m)->lanes_off;

		add(&x, 0, 20);
		for (unsigned i = 0; i < 1 + round % 40; i++) {
			random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
			const uint64_t at = lanes + (random >> 20) % (bytes - lanes);
			const uint8_t was = p[at];

			p[at] = (uint8_t)(random >> 56);
			publish(&x);
			p[at] = was; /* of ours only; the file keeps it until the next one */
			assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), 0);
		}
		assert_true(s.events <= (1 + round % 40) * 16 * 4096);
	}
	assert_true(dc_tail_totals(x.tail)->events > 0);
	unmake(&x);
}

static void test_same_chunk_twice(void **state)
{
	/* Two lanes that say they are in one chunk do not make its events come twice. */
	struct made x;
	struct sum s = {0};

	(void)state;
	make(&x);
	add(&x, 0, 5);
	publish(&x);
	assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), 0);
	for (unsigned i = 0; i < 5; i++) {
		struct dc_ring_lane *lanes = ring_maker_lanes(x.m);

		add(&x, 0, 5);
		lanes[x.lane[1]].chunk = lanes[x.lane[0]].chunk;
		lanes[x.lane[1]].last_units++;
		publish(&x);
		assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), 0);
	}
	assert_int_equal(s.events, 30);
	assert_int_equal(s.wrong, 0);
	unmake(&x);
}

static void test_truncated(void **state)
{
	/* A file cut under it: no signal, an error once its tables are gone, and it says so. */
	struct made x;
	struct sum s = {0};

	(void)state;
	make(&x);
	add(&x, 0, 100);
	publish(&x);
	assert_int_equal(ftruncate(x.fd, (off_t)ring_maker_header(x.m)->chunks_off), 0);
	assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), 0);
	assert_int_equal(s.events, 0);
	assert_true(dc_tail_totals(x.tail)->truncated);
	assert_int_equal(ftruncate(x.fd, 4096), 0);
	assert_int_equal(dc_tail_look(x.tail, PLENTY, &adding, &s), -EBADMSG);
	unmake(&x);
}

static void test_bare(void **state)
{
	/* A process that records nothing has no tail. */
	struct dc_ring *ring = NULL;
	struct dc_tail *t = NULL;

	(void)state;
	assert_int_equal(dc_ring_bare((uint32_t)getpid(), &ring), 0);
	assert_int_equal(dc_tail_new(ring, &t), -EINVAL);
	assert_null(t);
	dc_ring_unref(ring);
}

static int setup(void **state)
{
	(void)state;
	storm_begin(&storm, "1MiB");
	return dc_start(NULL);
}

static int teardown(void **state)
{
	(void)state;
	storm_end(&storm);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_once),        cmocka_unit_test(test_from_now_on),
		cmocka_unit_test(test_lanes_are_reused), cmocka_unit_test(test_sampling),
		cmocka_unit_test(test_no_budget),        cmocka_unit_test(test_losses),
		cmocka_unit_test(test_switches),         cmocka_unit_test(test_damaged_chunk),
		cmocka_unit_test(test_hostile),          cmocka_unit_test(test_same_chunk_twice),
		cmocka_unit_test(test_truncated),        cmocka_unit_test(test_bare),
		cmocka_unit_test(test_lanes_alone),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
