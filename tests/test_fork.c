/* SPDX-License-Identifier: MIT */
/*
 * New processes: whatever way they come about, a child that records has a ring of its own with its parent's switches
 * and site ids, a child that does not has none, and the parent's ring never holds an event of a child.
 */
#include "tests/guests.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "recorder/dashcam.h"

extern char **environ;
static char self[4096]; /* this program */

static void shared_site(int n)
{
	DC_INSTANT("shared", "n", n);
}

static void silenced(void)
{
	DC_INSTANT("silenced");
}

static void reap(pid_t pid, int expected)
{
	int status = guest_wait(pid);
	if (status != expected)
		fprintf(stderr, "child: %d, expected %d\n", status, expected);
	NEED(status == expected);
}

static const char *own_ring(void)
{
	static struct dc_stats stats;
	stats.size = sizeof stats;
	NEED(dc_stats(&stats) == 0);
	return stats.ring;
}

static void fork_plain(void *arg)
{
	(void)arg;
	DC_INSTANT("first");
	shared_site(1);
	silenced();
	dc_span_t open = DC_BEGIN("open in parent");
	guest_switch(own_ring(), "silenced", DC_ENABLE_OFF);
	pid_t pid = fork();
	if (pid == 0) {
		struct dc_stats stats = {.size = sizeof stats};
		NEED(dc_stats(&stats) == -ESRCH);
		shared_site(2);
		silenced();
		DC_END(open); /* not a span of this process */
		DC_INSTANT("new in child");
		NEED(dc_stats(&stats) == 0 && stats.misplaced_ends == 1 && stats.dropped == 0);
		exit(0);
	}
	reap(pid, 0);
	pid = fork();
	if (pid == 0)
		_exit(0);
	reap(pid, 0);
	shared_site(3);
	silenced();
	DC_END(open);
}

/* Claim: a forked child has its own ring, its parent's site ids and switches; one that records nothing has none. */
static void test_fork(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(fork_plain, NULL), 0);
	guest_rings(&rings);
	assert_int_equal(rings.count, 2);
	struct guest_ring *parent = &rings.ring[0], *child = &rings.ring[1];
	assert_true(parent->header.pid != child->header.pid);
	assert_int_equal(guest_count(parent, 0, "shared"), 2);
	assert_int_equal(guest_count(child, 0, "shared"), 1);
	assert_string_equal(guest_find(child, 0, "shared", 0)->text, "n=2");
	assert_int_equal(guest_find(child, 0, "shared", 0)->site, guest_find(parent, 0, "shared", 0)->site);
	assert_int_equal(guest_count(parent, 0, "silenced"), 1);
	assert_int_equal(guest_count(child, 0, "silenced"), 0);
	assert_int_equal(guest_count(child, DC_KIND_END, NULL), 0);
	assert_int_equal(guest_count(parent, DC_KIND_END, "open in parent"), 1);
	assert_int_equal(guest_count(child, 0, "new in child"), 1);
	assert_int_equal(parent->dropped + child->dropped, 0);
	guest_rings_free(&rings);
}

static _Atomic bool stop;
static volatile int forks; /* 60 at most: more dead rings than 64 would be swept after ten seconds */

static void *busy(void *arg)
{
	(void)arg;
	for (int i = 0; !stop; i++) {
		DC_SPAN("busy", "i", i, "text", "and a string");
		DC_INSTANT("inside", "i", i);
	}
	return NULL;
}

static void fork_busy(void *arg)
{
	pthread_t t[3];
	(void)arg;
	DC_INSTANT("start");
	for (int i = 0; i < 3; i++)
		NEED(pthread_create(&t[i], NULL, busy, NULL) == 0);
	for (int i = 0; i < 60; i++) {
		pid_t pid = fork();
		NEED(pid >= 0);
		if (pid == 0) {
			for (int k = 0; k < 1000; k++)
				shared_site(k);
			DC_INSTANT("one more site");
			_exit(0);
		}
		reap(pid, 0);
	}
	stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

/* Claim: forks beside recording threads neither hang nor harm either ring. */
static void test_fork_busy(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(fork_busy, NULL), 0);
	guest_rings(&rings);
	assert_int_equal(rings.count, 61);
	for (size_t i = 0; i < rings.count; i++) {
		assert_int_equal(rings.ring[i].broken, 0);
		if (i)
			assert_int_equal(guest_count(&rings.ring[i], 0, "shared"), 1000);
		assert_int_equal(guest_count(&rings.ring[i], 0, "one more site"), i > 0);
	}
	guest_rings_free(&rings);
}

static volatile pid_t returned; /* in a child whose handler came back: nonzero */

static void fork_in_handler(int signo)
{
	int kept = errno;
	(void)signo;
	if (forks >= 60 || returned)
		return;
	forks = forks + 1;
	pid_t pid = fork();
	if (pid == 0) {
		struct itimerval none = {0};
		setitimer(ITIMER_REAL, &none, NULL);
		if (forks % 2) { /* even ones go back to what was interrupted */
			DC_INSTANT("in the child's handler", "n", forks);
			_exit(0);
		}
		returned = 1;
	} else { /* the next one somewhere else */
		struct itimerval next = {.it_value = {0, 50 + forks * 37 % 400}};
		NEED(pid > 0);
		reap(pid, 0);
		setitimer(ITIMER_REAL, &next, NULL);
	}
	errno = kept;
}

static void fork_from_handler(void *arg)
{
	struct itimerval once = {.it_value = {0, 500}}, none = {0};
	(void)arg;
	signal(SIGALRM, fork_in_handler);
	DC_INSTANT("before");
	setitimer(ITIMER_REAL, &once, NULL);
	for (int i = 0; forks < 60 && !returned; i++) {
		DC_SPAN("loop", "i", i, "text",
			"a string that takes a moment to copy, and a moment more, and then some");
		DC_INSTANT("inside", "i", i);
	}
	setitimer(ITIMER_REAL, &none, NULL);
	if (returned) {
		for (int i = 0; i < 5000; i++)
			DC_INSTANT("after the return", "i", i);
		_exit(0);
	}
}

/* Claim: a handler may fork in the middle of an event; the child may record at once and may go back to the event. */
static void test_fork_from_handler(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (guest_emulated())
		skip();
	assert_int_equal(guest_run(fork_from_handler, NULL), 0);
	guest_rings(&rings);
	size_t in_handler = 0, after = 0;
	for (size_t i = 0; i < rings.count; i++) {
		assert_int_equal(rings.ring[i].broken, 0);
		in_handler += guest_count(&rings.ring[i], 0, "in the child's handler") == 1;
		after += guest_count(&rings.ring[i], 0, "after the return") == 5000;
	}
	assert_true(in_handler > 0); /* not where the slow path was interrupted: then it begins after that */
	assert_int_equal(after, 30);
	guest_rings_free(&rings);
}

static void raw_clone(void *arg)
{
	(void)arg;
	shared_site(1);
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		shared_site(2);
		_exit(0);
	}
	NEED(pid > 0);
	reap(pid, 0);
	shared_site(3);
}

/* Claim: a child made behind libc's back has its own ring as well. */
static void test_raw_clone(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (guest_emulated())
		skip();
	assert_int_equal(guest_run(raw_clone, NULL), 0);
	guest_rings(&rings);
	assert_int_equal(rings.count, 2);
	assert_string_equal(guest_find(&rings.ring[1], 0, "shared", 0)->text, "n=2");
	assert_int_equal(guest_count(&rings.ring[0], 0, "shared"), 2);
	assert_int_equal(guest_count(&rings.ring[1], 0, "shared"), 1);
	guest_rings_free(&rings);
}

static void exec_self(void *arg)
{
	(void)arg;
	DC_INSTANT("before exec");
	execl(self, self, "--exec", NULL);
	NEED(false);
}

/* Claim: exec keeps the pid and starts a new ring; the old one stays, dead, with what it had. */
static void test_exec(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (guest_emulated())
		skip();
	assert_int_equal(guest_run(exec_self, NULL), 7);
	guest_rings(&rings);
	assert_int_equal(rings.count, 2);
	assert_int_equal(rings.ring[0].header.pid, rings.ring[1].header.pid);
	assert_int_equal(guest_count(&rings.ring[0], 0, "before exec"), 1);
	assert_int_equal(guest_count(&rings.ring[1], 0, "after exec"), 1);
	assert_true(rings.ring[0].header.start_time == rings.ring[1].header.start_time);
	guest_rings_free(&rings);
}

static void spawn_others(void *arg)
{
	char *const argv[] = {self, (char *)"--exec", NULL};
	pid_t pid;
	(void)arg;
	shared_site(1);
	for (int i = 0; i < 3; i++) {
		NEED(posix_spawn(&pid, self, NULL, NULL, argv, environ) == 0);
		reap(pid, 7);
		shared_site(2);
		pid = vfork();
		if (pid == 0) {
			DC_INSTANT("between vfork and exec"); /* in the parent's memory: the parent's event */
			execv(self, argv);
			_exit(1);
		}
		reap(pid, 7);
		shared_site(3);
	}
}

/* Claim: posix_spawn and vfork leave the parent's ring whole; events of a vfork child before exec are in it. */
static void test_spawn(void **state)
{
	static struct guest_rings rings;
	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* it makes a fork of vfork */
#endif
	if (guest_emulated())
		skip();
	assert_int_equal(guest_run(spawn_others, NULL), 0);
	guest_rings(&rings);
	assert_int_equal(rings.count, 7);
	assert_int_equal(rings.ring[0].broken, 0);
	assert_int_equal(rings.ring[0].dropped, 0);
	assert_int_equal(guest_count(&rings.ring[0], 0, "shared"), 7);
	assert_int_equal(guest_count(&rings.ring[0], 0, "between vfork and exec"), 3);
	for (int i = 1; i < 7; i++)
		assert_int_equal(guest_count(&rings.ring[i], 0, "after exec"), 1);
	guest_rings_free(&rings);
}

static void no_room_for_children(void *arg)
{
	(void)arg;
	shared_site(1);
	char gone[128];
	snprintf(gone, sizeof gone, "%s/not/there", guest_dir());
	setenv("DASHCAM_DIR", gone, 1);
	pid_t pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 100000; i++)
			shared_site(i);
		DC_SPAN("new");
		struct dc_stats stats = {.size = sizeof stats};
		NEED(dc_stats(&stats) == -ESRCH);
		setenv("DASHCAM_DIR", guest_dir(), 1);
		NEED(dc_start(NULL) == 0); /* and can try again */
		shared_site(4711);
		exit(0);
	}
	reap(pid, 0);
	shared_site(2);
}

/* Claim: a child that finds no room for a ring is none the worse, and may try again later. */
static void test_child_without_room(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(no_room_for_children, NULL), 0);
	guest_rings(&rings);
	assert_int_equal(rings.count, 2);
	assert_int_equal(guest_count(&rings.ring[0], 0, "shared"), 2);
	assert_int_equal(guest_count(&rings.ring[1], 0, "shared"), 1);
	assert_string_equal(guest_find(&rings.ring[1], 0, "shared", 0)->text, "n=4711");
	guest_rings_free(&rings);
}

static void small_child(void *arg)
{
	char name[32];
	(void)arg;
	struct dc_opts opts = DC_OPTS_INIT;
	for (int i = 0; i < 1500; i++) { /* more than a small ring has room for by itself */
		snprintf(name, sizeof name, "site %d", i);
		dc_instant(dc_site_new(DC_SITE_INSTANT, name));
	}
	pid_t pid = fork();
	if (pid == 0) {
		opts.memory_bytes = 1 << 20;
		NEED(dc_start(&opts) == 0);
		for (int i = 0; i < 1500; i += 100) {
			snprintf(name, sizeof name, "site %d", i);
			dc_instant(dc_site_new(DC_SITE_INSTANT, name));
		}
		exit(0);
	}
	reap(pid, 0);
}

/* Claim: a child with a smaller ring than its parent still knows its parent's sites. */
static void test_small_child(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(small_child, NULL), 0);
	guest_rings(&rings);
	assert_int_equal(rings.count, 2);
	assert_int_equal(rings.ring[1].broken, 0);
	assert_int_equal(guest_count(&rings.ring[1], 0, "site 1400"), 1);
	assert_int_equal(rings.ring[1].events, 15);
	guest_rings_free(&rings);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--exec") == 0) {
		DC_INSTANT("after exec");
		return 7;
	}
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n < 0)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_fork, guest_teardown),
		cmocka_unit_test_teardown(test_fork_busy, guest_teardown),
		cmocka_unit_test_teardown(test_raw_clone, guest_teardown),
		cmocka_unit_test_teardown(test_exec, guest_teardown),
		cmocka_unit_test_teardown(test_spawn, guest_teardown),
		cmocka_unit_test_teardown(test_child_without_room, guest_teardown),
		cmocka_unit_test_teardown(test_small_child, guest_teardown),
		cmocka_unit_test_teardown(test_fork_from_handler, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
