/* SPDX-License-Identifier: MIT */
/*
 * What a lane that has its fair share gives up for a new chunk: its own oldest. Threads record in turns, so that
 * their chunks lie between each other's in the table; the events they number say what is left of them.
 *
 * And when it lets the full one go: with the event that finds it full.
 */
#include "tests/guests.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "recorder/dashcam.h"

#define THREADS 8u
#define PAD 600 /* bytes of an event: few events a chunk */
#define CHUNK_EVENTS ((DC_CHUNK_BYTES_MIN - 64) / (PAD + 16))

/* Acts one after the other: in turns, @rounds for each of those threads, as many events as @burst at most. */
struct act {
	unsigned first, threads;
	int rounds;
	int burst;
};

struct play {
	uint64_t memory_bytes;
	int pause_us; /* between turns */
	struct act act[4]; /* until one has no threads */
};

static const struct play *play;
static _Atomic unsigned turn;
static int numbers[THREADS];

static void record(unsigned who, int count)
{
	static char pad[PAD + 1];
	if (!pad[0])
		memset(pad, 'x', PAD);
	for (int i = 0; i < count; i++)
		DC_INSTANT("own", "n", numbers[who]++, "pad", pad);
}

static void *takes_turns(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, began = 0;
	for (const struct act *a = play->act; a->threads; began += a->threads * (unsigned)a->rounds, a++) {
		for (int round = 0; round < a->rounds && who - a->first < a->threads; round++) {
			while (atomic_load(&turn) != began + (unsigned)round * a->threads + who - a->first)
				sched_yield();
			if (play->pause_us)
				usleep((useconds_t)play->pause_us);
			record(who, 1 + (round * 7 + (int)who * 5) % a->burst);
			atomic_fetch_add(&turn, 1);
		}
	}
	return NULL;
}

static void app(void *arg)
{
	struct dc_opts opts = DC_OPTS_INIT;
	pthread_t t[THREADS];
	play = arg;
	opts.memory_bytes = play->memory_bytes;
	opts.window_ns = UINT64_C(3600) * 1000000000; /* nothing is ever too old to keep */
	NEED(dc_start(&opts) == 0);
	for (unsigned i = 0; i < THREADS; i++)
		NEED(pthread_create(&t[i], NULL, takes_turns, (void *)(uintptr_t)i) == 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	struct dc_stats stats = {.size = sizeof stats};
	NEED(dc_stats(&stats) == 0 && stats.dropped == 0);
}

/* What is left of one lane's events, by their numbers. */
struct left {
	int oldest, youngest, count;
	int unbroken; /* how many of the youngest, without a gap */
};

static void leave(struct left *l, int n)
{
	assert_true(!l->count || n > l->youngest); /* the ring is read in the lane's order */
	l->unbroken = l->count && n == l->youngest + 1 ? l->unbroken + 1 : 1;
	l->oldest = l->count ? l->oldest : n;
	l->youngest = n;
	l->count++;
}

/* Return: chunks, of all lanes. */
static int play_out(struct play p, struct left left[THREADS])
{
	static struct guest_rings rings;
	assert_int_equal(guest_run(app, &p), 0);
	struct guest_ring *r = guest_only(&rings);
	memset(left, 0, THREADS * sizeof *left);
	for (size_t i = 0; i < r->count; i++) {
		const struct guest_event *e = &r->event[i];
		const char *number = strstr(e->text, "n=");
		if (e->kind != DC_KIND_INSTANT)
			continue;
		assert_in_range(e->lane, 0, THREADS - 1);
		leave(&left[e->lane], atoi(number + strlen("n=")));
	}
	int chunks = (int)r->header.chunks_grown;
	guest_rings_free(&rings);
	guest_clean(); /* the next play has a ring of its own */
	return chunks;
}

/* What the division leaves over may all be one lane's. */
static void assert_fair(int count, int share)
{
	assert_in_range(count, (share - 2) * (int)CHUNK_EVENTS, (share + (int)THREADS) * (int)CHUNK_EVENTS);
}

/* Claim: lanes of equal weight keep exactly their last events, a fair share of the ring each, without a gap. */
static void test_own_oldest(void **state)
{
	struct left left[THREADS];
	(void)state;
	int share = play_out((struct play){1 << 20, 0, {{0, THREADS, 100, 40}}}, left) / (int)THREADS;
	for (unsigned i = 0; i < THREADS; i++) {
		assert_in_range(left[i].youngest, 2 * share * (int)CHUNK_EVENTS, INT32_MAX); /* went round often */
		assert_int_equal(left[i].count, left[i].unbroken);
		assert_fair(left[i].count, share);
	}
}

/*
 * Claim: a lane that had the whole ring, more than it keeps account of, leaves nothing behind in it when others take
 * their share: what was not taken from it it takes itself.
 */
static void test_own_forgotten(void **state)
{
	struct left left[THREADS];
	(void)state;
	const struct play p = {8 << 20, 0, {{0, 1, 200, 200}, {0, THREADS, 600, 60}}};
	int share = play_out(p, left) / (int)THREADS;
	assert_in_range(share * (int)THREADS, 1500, INT32_MAX); /* several times what a lane keeps account of */
	for (unsigned i = 0; i < THREADS; i++) {
		assert_in_range(left[i].youngest, 8 * share * (int)CHUNK_EVENTS, INT32_MAX);
		assert_in_range(left[i].oldest, left[i].youngest - 2 * share * (int)CHUNK_EVENTS, INT32_MAX);
		assert_fair(left[i].count, share);
	}
}

/* No gap in the youngest three quarters of a fair share. */
static void assert_unbroken(const struct left *left, unsigned lanes, int share)
{
	for (unsigned i = 0; i < lanes; i++) {
		assert_in_range(left[i].unbroken, share * (int)CHUNK_EVENTS / 4 * 3, INT32_MAX);
		assert_in_range(left[i].youngest, left[i].unbroken + (int)CHUNK_EVENTS, INT32_MAX); /* some are gone */
	}
}

/*
 * Claim: where chunks of one lane lie together, thousands of them, because the other had no CPU meanwhile, the other gives
 * up its oldest all the same when it comes there.
 */
static void test_own_across_others(void **state)
{
	struct left left[THREADS];
	(void)state;
	for (int rounds = 900; rounds < 1200; rounds += 130) { /* the ring is full, and then it goes on */
		const struct play p = {32 << 20, 0, {{0, 1, 200, 200}, {1, 1, 200, 200}, {0, 2, rounds, 60}}};
		int share = play_out(p, left) / 2;
		assert_in_range(share, 3000, INT32_MAX);
		assert_unbroken(left, 2, share);
	}
}

/* With pauses: how old a chunk is is known to some milliseconds. @all: in the last act. */
static void assert_kept(struct act fill, struct act come, struct act all)
{
	struct left left[THREADS];
	const struct play p = {32 << 20, 100, {fill, come, all}};
	int share = play_out(p, left) / (int)all.threads;
	assert_unbroken(left, all.threads, share);
}

/* Claim: who comes late to a full ring takes old chunks of those that have many, and they go on to give up old ones. */
static void test_newcomers(void **state)
{
	(void)state;
	for (int rounds = 300; rounds < 900; rounds += 240)
		assert_kept((struct act){0, 2, 600, 120}, (struct act){0, 3, rounds, 120}, (struct act){0, 3, 30, 120});
}

/* Claim: so does a lane that was idle while they took from it, a part of what it had or most. */
static void test_own_after_theft(void **state)
{
	(void)state;
	for (int rounds = 50; rounds < 400; rounds += 120) {
		assert_kept((struct act){0, 2, 600, 120}, (struct act){2, 1, rounds, 120}, (struct act){0, 3, 300, 120});
		assert_kept((struct act){0, 1, 1200, 120}, (struct act){1, 4, rounds, 120}, (struct act){0, 5, 150, 120});
	}
}

/* The ring of this process, as others see it. */
static const struct dc_ring_header *own_ring(void)
{
	struct dc_opts opts = DC_OPTS_INIT;
	struct dc_stats stats = {.size = sizeof stats};
	opts.memory_bytes = 1 << 20;
	NEED(dc_start(&opts) == 0 && dc_stats(&stats) == 0);
	int fd = open(stats.ring, O_RDONLY);
	NEED(fd >= 0);
	struct dc_ring_header h;
	NEED(pread(fd, &h, sizeof h, 0) == sizeof h);
	void *map = mmap(NULL, h.file_bytes, PROT_READ, MAP_SHARED, fd, 0);
	NEED(map != MAP_FAILED);
	return map;
}

static unsigned owned(const struct dc_ring_header *h)
{
	const struct dc_chunk_entry *e = (const void *)((const uint8_t *)h + h->states_off);
	unsigned n = 0;
	for (uint32_t i = 0; i < h->chunks_grown; i++)
		n += (__atomic_load_n(&e[i].state, __ATOMIC_RELAXED) & DC_CHUNK_OWNED) != 0; /* our own thread's stores */
	return n;
}

/* One event of each way into a chunk. */
static void record_one(int i)
{
	static dc_span_t open;
	static const char text[] = "a text that takes the general way";
	switch (i % 6) {
	case 0:
		open = DC_BEGIN("one", "n", i);
		break;
	case 1:
		DC_END(open);
		break;
	case 2:
		open = DC_BEGIN("text", "t", text);
		break;
	case 3:
		DC_END(open);
		break;
	case 4:
		DC_COUNTER("count", i);
		break;
	case 5:
		DC_LOG(DC_INFO, "%d %s", i, text);
		break;
	}
}

#define WAYS_EVENTS 200000

static void app_lets_go(void *arg)
{
	const struct dc_ring_header *h = own_ring();
	(void)arg;
	for (int i = 0; i < WAYS_EVENTS; i++) {
		record_one(i);
		NEED(owned(h) == 1);
	}
	NEED(h->chunks_grown > 100);
}

/* An end of nothing may find the chunk full, too, but is not recorded. */
static void app_gives_up(void *arg)
{
	const struct dc_ring_header *h = own_ring();
	unsigned both = 0, most = 0, times = 0;
	(void)arg;
	for (int i = 0; i < WAYS_EVENTS; i++) {
		record_one(i);
		unsigned n = owned(h);
		NEED(n == 1 || n == 2);
		both = n == 2 ? both + 1 : 0;
		most = both > most ? both : most;
		DC_END((dc_span_t){0x12345});
		times += owned(h) > n;
	}
	NEED(times > 10); /* it happened */
	NEED(most && most < 6); /* at the latest with the next text */
}

/* Claim: after no event has a thread more than the chunk it writes. */
static void test_full_one_let_go(void **state)
{
	(void)state;
	assert_int_equal(guest_run(app_lets_go, NULL), 0);
}

/* Claim: where the event that found the chunk full is given up, the full one stays until the new one has an event. */
static void test_full_one_kept(void **state)
{
	(void)state;
	assert_int_equal(guest_run(app_gives_up, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_own_oldest, guest_teardown),
		cmocka_unit_test_teardown(test_own_forgotten, guest_teardown),
		cmocka_unit_test_teardown(test_own_across_others, guest_teardown),
		cmocka_unit_test_teardown(test_newcomers, guest_teardown),
		cmocka_unit_test_teardown(test_own_after_theft, guest_teardown),
		cmocka_unit_test_teardown(test_full_one_let_go, guest_teardown),
		cmocka_unit_test_teardown(test_full_one_kept, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
