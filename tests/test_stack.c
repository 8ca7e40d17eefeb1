/* SPDX-License-Identifier: MIT */
/* Stacks the guest takes by itself: DC_STACK(), and sites that were told to from outside. */
#include "tests/guests.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "ipc/samples.h"
#include "recorder/dashcam.h"

#ifdef __clang__
#define NOINLINE __attribute__((noinline)) /* it does not clone */
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif

static volatile int sink;

NOINLINE static void inner(void)
{
	DC_STACK("here");
	sink++;
}

NOINLINE static void outer(void)
{
	inner();
	sink++;
}

static void *in_thread(void *arg)
{
	(void)arg;
	DC_INSTANT("a lane first");
	outer();
	return NULL;
}

static void on_signal(int sig)
{
	(void)sig;
	outer();
}

static void takes_stacks(void *arg)
{
	static char room[65536];
	const stack_t alternate = {.ss_sp = room, .ss_size = sizeof room};
	const struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
	pthread_t t;
	outer();
	pthread_create(&t, NULL, in_thread, arg);
	pthread_join(t, NULL);
	NEED(sigaltstack(&alternate, NULL) == 0);
	NEED(sigaction(SIGUSR1, &act, NULL) == 0);
	raise(SIGUSR1);
}

/* Claim: stacks of main and of threads go beyond the function that asks; on a foreign stack at least that one is there. */
static void test_everywhere(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(takes_stacks, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	assert_int_equal(guest_count(r, DC_KIND_STACK, "here"), 3);
	for (size_t i = 0; i < 3; i++) {
		const struct guest_event *e = guest_find(r, DC_KIND_STACK, "here", i);
		assert_true(e->stack_count >= 1 && e->stack_count <= DC_STACK_FRAMES_MAX);
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
		if (i == 0 || e->tid != r->header.pid)
			assert_true(e->stack_count >= 3); /* inner, outer, main or in_thread */
#endif
	}
	guest_rings_free(&rings);
}

static uint64_t copies(const struct guest_ring *r)
{
	struct dc_ring_samples s;
	int fd = open(r->path, O_RDONLY);
	assert_int_equal(pread(fd, &s, sizeof s, (off_t)r->header.samples_off), sizeof s);
	close(fd);
	return s.taken;
}

static void *takes_two(void *arg)
{
	static char room[65536];
	const stack_t alternate = {.ss_sp = room, .ss_size = sizeof room};
	const struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
	stack_t before;
	DC_INSTANT("a lane first");
	outer();
	NEED(sigaltstack(&alternate, &before) == 0);
	NEED(sigaction(SIGUSR1, &act, NULL) == 0);
	raise(SIGUSR1);
	NEED(sigaltstack(&before, NULL) == 0); /* a sanitizer unmaps what it finds when the thread ends */
	return arg;
}

static void takes_two_in_a_thread(void *arg)
{
	pthread_t t;
	pthread_create(&t, NULL, takes_two, arg);
	pthread_join(t, NULL);
}

static void runs_itself(void *arg)
{
	(void)arg;
	execl("/proc/self/exe", "test_stack", "main", NULL);
}

/*
 * Claim: no stack is copied where frame pointers lead to main() or to a thread's start, nor an alternate one; told to, all but
 * the latter are; told not to, none.
 */
static void test_copies(void **state)
{
	static const struct {
		const char *wish;
		uint64_t copies;
	} cases[] = {{"auto", 0}, {"fp", 0}, {"copy", 1}};
	(void)state;
	for (size_t i = 0; i < (guest_emulated() ? 0 : 6); i++) {
		static struct guest_rings rings;
		setenv("DASHCAM_STACKS", cases[i % 3].wish, 1);
		assert_int_equal(guest_run(i < 3 ? takes_two_in_a_thread : runs_itself, NULL), 0);
		unsetenv("DASHCAM_STACKS");
		struct guest_ring *r = guest_only(&rings);
		assert_int_equal(guest_count(r, DC_KIND_STACK, "here"), i < 3 ? 2 : 1);
#if defined(__GLIBC__) && !GUEST_SANITIZED
		assert_int_equal(copies(r), cases[i % 3].copies);
#else
		assert_true(copies(r) <= 2);
#endif
		guest_rings_free(&rings);
		guest_clean();
	}
}

/* As `dashcam sites --stack` does it. */
static void switch_sites(uint32_t word)
{
	struct dc_stats s = {.size = sizeof s};
	struct dc_ring_header h;
	NEED(dc_stats(&s) == 0);
	int fd = open(s.ring, O_RDWR);
	NEED(pread(fd, &h, sizeof h, 0) == sizeof h);
	for (uint32_t i = 1; i < h.sites_used; i++)
		NEED(pwrite(fd, &word, sizeof word,
			    (off_t)(h.control_off + offsetof(struct dc_ring_control, enable) + 4 * i)) == sizeof word);
	close(fd);
}

NOINLINE static void record(int i)
{
	DC_SPAN("span", "i", i, "text", "t");
	DC_INSTANT("instant", "i", i);
	DC_LOG(DC_INFO, "log %d", i);
	DC_STACK("asked for");
	sink++;
}

static void switched(void *arg)
{
	(void)arg;
	record(0);
	switch_sites(DC_ENABLE_STACK);
	record(1);
	switch_sites(DC_ENABLE_STACK | DC_ENABLE_THROTTLE(1));
	for (int i = 2; i < 10; i++)
		record(i);
	switch_sites(DC_ENABLE_STACK | DC_ENABLE_OFF);
	record(10);
	switch_sites(0);
	record(11);
}

/* Claim: a site switched to stacks has one before each event it records, no more; DC_STACK sites have only their own. */
static void test_sites(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(switched, NULL), 0);
	struct guest_ring *r = guest_only(&rings);
	const size_t spans = guest_count(r, DC_KIND_BEGIN, "span"), instants = guest_count(r, DC_KIND_INSTANT, "instant");
	assert_true(spans + instants < 2 * 11 && spans + instants > 6);
#if defined(__GLIBC__)
	assert_int_equal(guest_count(r, DC_KIND_STACK, "span"), spans - 2);
	assert_int_equal(guest_count(r, DC_KIND_STACK, "instant"), instants - 2);
	for (size_t i = 0; i + 1 < r->count; i++)
		if (r->event[i].kind == DC_KIND_STACK && strcmp(r->event[i].name, "span") == 0) {
			assert_int_equal(r->event[i + 1].kind, DC_KIND_BEGIN);
			assert_true(r->event[i].stack_count >= 2);
		}
#endif
	guest_rings_free(&rings);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "main") == 0) {
		outer();
		return 0;
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_everywhere, guest_teardown),
		cmocka_unit_test_teardown(test_copies, guest_teardown),
		cmocka_unit_test_teardown(test_sites, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
