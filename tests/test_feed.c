/* SPDX-License-Identifier: MIT */
/* Claims about persist/stacks/feed.c: what a parent gives arrives, in order and unspoiled, and the child cannot change it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "persist/block.h"
#include "persist/stacks/feed.h"
#include "persist/stacks/sandbox.h"

#define SECOND INT64_C(1000000000)
#define SLOT 65536u
#define PIECES 500u
#define ROOM (8u << 20)

struct scene {
	struct dc_feed *feed;
	unsigned child_us; /* it takes for a piece */
	unsigned parent_us;
	unsigned stop_after; /* pieces, 0: never */
	unsigned talks; /* bytes it writes a piece */
};

/* The sandbox has no sleeping. */
static void spend(unsigned us)
{
	struct timespec begin, now;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - begin.tv_sec) * SECOND + now.tv_nsec - begin.tv_nsec < us * INT64_C(1000));
}

static size_t bytes_of(unsigned piece)
{
	return 1 + piece * 977 % SLOT;
}

/* Writes a sum of each piece. It looks twice, so that a slot filled too early shows. */
static int sum(void *arg, int out)
{
	const struct scene *s = arg;
	const uint8_t *bytes;
	size_t size;
	int r;

	for (unsigned n = 0; (r = dc_feed_take(s->feed, &bytes, &size)) > 0; n++) {
		const uint64_t before = dc_checksum(bytes, size);

		spend(s->child_us);
		if (dc_checksum(bytes, size) != before)
			return -EBADMSG;
		if (write(out, &before, sizeof before) != sizeof before)
			return -EIO;
		for (unsigned i = 0; i < s->talks; i += 8)
			if (write(out, &before, sizeof before) != sizeof before)
				return -EIO;
		if (n + 1 == s->stop_after)
			return 0;
	}
	return r;
}

struct outcome {
	int r;
	int signal;
	int given; /* what giving returned in the end */
	unsigned pieces;
	size_t answered;
};

/* All pieces to a child at @work. Their sums have to come back, as far as it got. */
static struct outcome play(struct scene *s, int (*work)(void *arg, int out))
{
	struct dc_sandbox limits = {.time_ns = 20 * SECOND};
	struct outcome o = {0};
	struct dc_sandboxed *child;
	uint64_t sums[PIECES];
	uint8_t *answer;
	int64_t cpu_ns;

	assert_int_equal(dc_feed_new(SLOT, &s->feed), 0);
	limits.in_fd = dc_feed_fd(s->feed);
	assert_int_equal(dc_sandbox_start(&limits, work, s, ROOM, &child), 0);
	for (; o.pieces < PIECES && o.given == 0; o.pieces++) {
		memset(dc_feed_slot(s->feed), (int)o.pieces, bytes_of(o.pieces));
		sums[o.pieces] = dc_checksum(dc_feed_slot(s->feed), bytes_of(o.pieces));
		spend(s->parent_us);
		o.given = dc_feed_give(s->feed, child, bytes_of(o.pieces));
	}
	if (o.given == 0)
		o.given = dc_feed_give(s->feed, child, 0);
	o.r = dc_sandbox_end(child, &answer, &o.answered, &o.signal, &cpu_ns);
	assert_true(cpu_ns >= 0 && cpu_ns < 20 * SECOND);
	for (size_t i = 0; !s->talks && i < o.answered / 8; i++)
		assert_memory_equal(answer + 8 * i, &sums[i], 8);
	free(answer);
	dc_feed_free(s->feed);
	return o;
}

static void test_all_arrive(void **state)
{
	/* Whoever is the slower one: each piece once, in order, unchanged as long as the child looks at it. */
	struct scene scenes[] = {{0}, {.child_us = 300}, {.parent_us = 300}};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		const struct outcome o = play(&scenes[i], sum);

		assert_int_equal(o.r, 0);
		assert_int_equal(o.given, 0);
		assert_int_equal(o.answered, 8 * PIECES);
	}
}

static void test_child_that_ends(void **state)
{
	/* A child that has had enough is no reason to wait, and no signal; what it had said is there. */
	struct scene s = {.stop_after = 7};
	const struct outcome o = play(&s, sum);

	(void)state;
	assert_int_equal(o.r, 0);
	assert_int_equal(o.given, -EPIPE);
	assert_int_equal(o.answered, 8 * 7);
	assert_true(o.pieces < PIECES);
}

static void test_child_that_talks(void **state)
{
	/* Much more than a pipe holds, before it takes the next piece: the parent listens while it gives. */
	struct scene s = {.stop_after = 20, .talks = 100000};
	const struct outcome o = play(&s, sum);

	(void)state;
	assert_int_equal(o.r, 0);
	assert_int_equal(o.answered, 20 * (8 + 100000));
}

static int spoil(void *arg, int out)
{
	const uint8_t *bytes;
	size_t size;
	int r = dc_feed_take(((struct scene *)arg)->feed, &bytes, &size);
	const uintptr_t page = (uintptr_t)bytes & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);

	(void)out;
	if (r != 1)
		return -EIO;
	if (mprotect((void *)page, SLOT, PROT_READ | PROT_WRITE) == 0)
		return -EEXIST;
	*(volatile uint8_t *)(uintptr_t)bytes = 1; /* not reached: what asks for it may die of it, too */
	return -EEXIST;
}

static void test_child_cannot_write(void **state)
{
	/* Neither as it finds its mapping nor as it could make it. */
	struct scene s = {0};
	const struct outcome o = play(&s, spoil);

	(void)state;
	assert_int_equal(o.r, -EFAULT);
	assert_int_equal(o.signal, SIGSEGV);
	assert_int_equal(o.given, -EPIPE);
}

static int write_slot(void *arg, int out)
{
	(void)out;
	*(volatile uint8_t *)dc_feed_slot(((struct scene *)arg)->feed) = 1; /* the parent's mapping */
	return -EEXIST;
}

static void test_parents_mapping_is_gone(void **state)
{
	/* The one that can be written is not the child's. */
	struct scene s = {0};
	const struct outcome o = play(&s, write_slot);

	(void)state;
	assert_int_equal(o.r, -EFAULT);
	assert_int_equal(o.signal, SIGSEGV);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_arrive),	   cmocka_unit_test(test_child_that_ends),
		cmocka_unit_test(test_child_that_talks),   cmocka_unit_test(test_child_cannot_write),
		cmocka_unit_test(test_parents_mapping_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
