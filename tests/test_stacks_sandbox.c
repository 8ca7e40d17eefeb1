/* SPDX-License-Identifier: MIT */
/* Claims about persist/stacks/sandbox.c and its filter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "persist/stacks/filter.h"
#include "ipc/now.h"
#include "persist/stacks/sandbox.h"

#define SECOND INT64_C(1000000000)
#define ROOM (64u << 20)

static const struct dc_sandbox usual = {.time_ns = 20 * SECOND, .memory_bytes = 64u << 20, .nice = 5};

struct result {
	int r;
	int signal;
	uint8_t *bytes;
	size_t size;
};

static struct result run_in(const struct dc_sandbox *limits, int (*work)(void *arg, int out), void *arg, size_t room)
{
	struct result got = {0};

	got.r = dc_sandbox_run(limits, work, arg, room, &got.bytes, &got.size, &got.signal);
	return got;
}

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(d))
		count++;
	closedir(d);
	return count;
}

/* --- what it is for --- */

static int write_pattern(void *arg, int out)
{
	const size_t size = *(size_t *)arg;
	uint8_t *bytes = malloc(size);

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(i * 7);
	for (size_t at = 0; at < size;) {
		ssize_t n = write(out, bytes + at, size - at);

		if (n < 0)
			return -errno;
		at += (size_t)n;
	}
	free(bytes);
	return size == 17 ? -EDOM : 0;
}

static void test_output(void **state)
{
	/* What the work writes arrives, from nothing to many times what a pipe holds, and its error is ours. */
	size_t sizes[] = {0, 1, 17, 65536, 1000000, 30000000};

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct result got = run_in(&usual, write_pattern, &sizes[i], ROOM);

		assert_int_equal(got.r, sizes[i] == 17 ? -EDOM : 0);
		assert_int_equal(got.size, sizes[i]);
		for (size_t k = 0; k < got.size; k++)
			if (got.bytes[k] != (uint8_t)(k * 7))
				fail_msg("byte %zu of %zu", k, got.size);
		free(got.bytes);
	}
}

static int read_a_file(void *arg, int out)
{
	char text[5] = "";
	int fd = openat(AT_FDCWD, arg, O_RDONLY | O_CLOEXEC);
	FILE *f = fopen("/proc/self/maps", "r");
	void *map;

	if (fd < 0 || !f || !fgets(text, sizeof text, f))
		return -errno;
	fclose(f);
	map = mmap(NULL, 4, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED || pread(fd, text, 4, 0) != 4)
		return -errno;
	return write(out, map, 4) == 4 && !memcmp(map, text, 4) ? 0 : -EIO;
}

static void test_reading(void **state)
{
	/* Files can be read and mapped. */
	struct result got = run_in(&usual, read_a_file, "/proc/self/exe", ROOM);

	(void)state;
	assert_int_equal(got.r, 0);
	assert_memory_equal(got.bytes, "\177ELF", 4);
	free(got.bytes);
}

#define CUT_BYTES (8u << 20)

static int read_what_is_gone(void *arg, int out)
{
	const uint8_t *bytes = arg;
	uint64_t sum = 0;

	for (size_t i = 0; i < CUT_BYTES; i++)
		sum += bytes[i];
	return sum == 0x7f + 'E' + 'L' + 'F' && write(out, bytes + CUT_BYTES - 4, 4) == 4 ? 0 : -EIO;
}

static void test_a_file_that_was_cut(void **state)
{
	/* It was mapped as large as it was; what is left of it can be read, and the rest is zeros. */
	char path[] = "/tmp/dashcam-test-sandbox-XXXXXX";
	int fd = mkstemp(path);
	struct result got;
	void *map;

	(void)state;
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ftruncate(fd, CUT_BYTES), 0);
	assert_int_equal(pwrite(fd, "\177ELF", 4, 0), 4);
	map = mmap(NULL, CUT_BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(ftruncate(fd, 5000), 0);
	got = run_in(&usual, read_what_is_gone, map, ROOM);
	assert_int_equal(got.r, 0);
	assert_memory_equal(got.bytes, "\0\0\0\0", 4);
	free(got.bytes);
	munmap(map, CUT_BYTES);
	close(fd);
}

/* --- what it must not do --- */

static char victim[] = "/tmp/dashcam-test-sandbox-XXXXXX";

static void network(void)
{
	socket(AF_INET, SOCK_STREAM, 0);
}
static void network_pair(void)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0)
		return;
}
static void open_to_write(void)
{
	open(victim, O_WRONLY);
}
static void open_to_change(void)
{
	open(victim, O_RDWR);
}
static void create(void)
{
	open("/tmp/dashcam-test-sandbox-new", O_RDONLY | O_CREAT, 0600);
}
static void cut_short(void)
{
	open(victim, O_RDONLY | O_TRUNC);
}
static void create_without_name(void)
{
	open("/tmp", O_TMPFILE | O_RDONLY, 0600);
}
static void truncate_by_name(void)
{
	if (truncate(victim, 0) == 0)
		return;
}
static void remove_it(void)
{
	unlink(victim);
}
static void rename_it(void)
{
	rename(victim, "/tmp/dashcam-test-sandbox-new");
}
static void make_directory(void)
{
	mkdir("/tmp/dashcam-test-sandbox-new", 0700);
}
static void give_rights(void)
{
	chmod(victim, 0777);
}
static void have_a_child(void)
{
	if (fork() == 0)
		_exit(0);
}
static void *nothing(void *arg)
{
	return arg;
}
static void have_a_thread(void)
{
	pthread_t t;

	pthread_create(&t, NULL, nothing, NULL);
}
static void become_another(void)
{
	execl("/bin/true", "true", NULL);
}
static void signal_the_parent(void)
{
	kill(getppid(), SIGTERM);
}
static void look_into_the_parent(void)
{
	ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}
static void make_code(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void turn_into_code(void)
{
	static _Alignas(4096) char page[4096];

	mprotect(page, sizeof page, PROT_READ | PROT_EXEC);
}
static void share_memory(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}
static void write_elsewhere(void)
{
	if (write(STDOUT_FILENO, "x", 1) == 1)
		return;
}
static void take_limits_off(void)
{
	if (setgid(0) == 0 || nice(-5) == 0)
		return;
}
static void wait_for_ever(void)
{
	sigsuspend(&(sigset_t){0});
}
static void take_a_pipe_number(void)
{
	dup2(STDIN_FILENO, 3);
}

static int do_it(void *arg, int out)
{
	(*(void (**)(void))arg)();
	return write(out, "alive", 5) == 5 ? 0 : -errno;
}

static void test_forbidden(void **state)
{
	/* Each of these ends in death by the filter, with nothing done. */
	static void (*const acts[])(void) = {
		network, network_pair, open_to_write, open_to_change, create, cut_short, create_without_name, truncate_by_name,
		remove_it, rename_it, make_directory, give_rights, have_a_child, have_a_thread, become_another, signal_the_parent,
		look_into_the_parent, make_code, turn_into_code, share_memory, write_elsewhere, take_limits_off, wait_for_ever,
		take_a_pipe_number};
	struct stat st;
	int fd = mkstemp(victim);

	(void)state;
	assert_int_equal(write(fd, "content", 7), 7);
	for (unsigned i = 0; i < sizeof acts / sizeof acts[0]; i++) {
		void (*act)(void) = acts[i];
		struct result got = run_in(&usual, do_it, (void *)&act, ROOM);

		if (got.r != -EFAULT || got.signal != SIGSYS || got.size)
			fail_msg("act %u: %d, signal %d, %zu bytes", i, got.r, got.signal, got.size);
		free(got.bytes);
	}
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 7);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(access("/tmp/dashcam-test-sandbox-new", F_OK), -1);
	unlink(victim);
	close(fd);
}

static int lose_the_pipe(void *arg, int out)
{
	int fd;

	(void)arg;
	if (close(out) == 0 || errno != EBADF)
		return -EPROTO;
	fd = fcntl(out, F_DUPFD_CLOEXEC, 0);
	return fd == out ? -EPROTO : write(out, "still", 5) == 5 ? 0 : -errno;
}

static void test_the_pipe_stays(void **state)
{
	/* The pipe cannot be closed, so that no other descriptor ever has the number that may be written to. */
	struct result got = run_in(&usual, lose_the_pipe, NULL, ROOM);

	(void)state;
	assert_int_equal(got.r, 0);
	assert_int_equal(got.size, 5);
	free(got.bytes);
}

/* Descriptors of ours, and which of them a child may have. */
static struct {
	int fd;
	bool stays;
} ours[5];

static int look_at_descriptors(void *arg, int out)
{
	(void)arg;
	(void)out;
	for (unsigned i = 0; i < 5; i++)
		if ((fcntl(ours[i].fd, F_GETFD) >= 0) != ours[i].stays)
			return -(int)(100 + i);
	return 0;
}

static void test_descriptors(void **state)
{
	/* Only plain files and directories opened for reading come along. */
	char name[] = "/tmp/dashcam-test-sandbox-XXXXXX";
	int fds[2], sockets[2];
	struct result got;

	(void)state;
	ours[0].fd = mkstemp(name); /* can be written */
	ours[1].fd = open(name, O_RDONLY), ours[1].stays = true;
	ours[2].fd = open("/tmp", O_RDONLY | O_DIRECTORY), ours[2].stays = true;
	assert_int_equal(pipe(fds) | socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	ours[3].fd = fds[0];
	ours[4].fd = sockets[1];
	got = run_in(&usual, look_at_descriptors, NULL, ROOM);
	assert_int_equal(got.r, 0);
	free(got.bytes);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(close(ours[i].fd), 0); /* and here all are as they were */
	close(fds[1]);
	close(sockets[0]);
	unlink(name);
}

static int write_shared(void *arg, int out)
{
	(void)out;
	**(volatile int **)arg = 7;
	return 0;
}

static void test_shared_memory(void **state)
{
	/* Memory shared with others is not there. */
	int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct result got = run_in(&usual, write_shared, &shared, ROOM);

	(void)state;
	assert_int_equal(got.r, -EFAULT);
	assert_int_equal(got.signal, SIGSEGV);
	assert_int_equal(*shared, 0);
	munmap(shared, 4096);
	free(got.bytes);
}

/* --- what goes wrong --- */

static char *volatile eaten; /* so that nobody finds out that it is not needed */

static int eat_memory(void *arg, int out)
{
	(void)arg;
	(void)out;
	for (;;) {
		char *p = malloc(1 << 20);

		if (!p)
			return -ENOMEM;
		memset(p, 1, 1 << 20);
		eaten = p;
	}
}

static void test_memory_bomb(void **state)
{
	/* Beyond the limit there is no memory; long before that of the host. */
	struct result got;

	(void)state;
#ifdef DC_FILTER_SANITIZED
	skip();
#endif
	got = run_in(&usual, eat_memory, NULL, ROOM);
	assert_int_equal(got.r, -ENOMEM);
	free(got.bytes);
}

static int spin(void *arg, int out)
{
	(void)arg;
	if (write(out, "before", 6) != 6)
		return -errno;
	for (;;)
		__asm__ volatile("");
}

static void test_endless(void **state)
{
	/* An endless loop ends when the time is over, and what was written before is there. */
	const struct dc_sandbox brief = {.time_ns = SECOND / 5};
	int64_t before = dc_now_ns();
	struct result got = run_in(&brief, spin, NULL, ROOM);

	(void)state;
	assert_int_equal(got.r, -ETIMEDOUT);
	assert_int_equal(got.size, 6);
	assert_memory_equal(got.bytes, "before", 6);
	assert_true(dc_now_ns() - before >= SECOND / 5);
	assert_true(dc_now_ns() - before < 5 * SECOND);
	free(got.bytes);
}

static uint64_t low = 8;

static int touch_nothing(void *arg, int out)
{
	(void)arg;
	if (write(out, "before", 6) != 6)
		return -errno;
	*(volatile int *)(uintptr_t)*(volatile uint64_t *)&low = 1;
	return 0;
}

static int give_up(void *arg, int out)
{
	(void)arg;
	(void)out;
	abort();
}

static int deeper(void *arg, int out);
static int (*volatile again)(void *arg, int out) = deeper;

static int deeper(void *arg, int out)
{
	volatile char page[4096];

	page[0] = *(char *)arg;
	return again((void *)(uintptr_t)page, out) + page[1];
}

static void test_crashes(void **state)
{
	/* A crash is -EFAULT and its signal, and what was written before is there. */
	struct result got = run_in(&usual, touch_nothing, NULL, ROOM);

	(void)state;
	assert_int_equal(got.r, -EFAULT);
	assert_int_equal(got.signal, SIGSEGV);
	assert_int_equal(got.size, 6);
	free(got.bytes);
	got = run_in(&usual, give_up, NULL, ROOM);
	assert_int_equal(got.r, -EFAULT);
	assert_int_equal(got.signal, SIGABRT);
	free(got.bytes);
	got = run_in(&usual, deeper, "x", ROOM);
	assert_int_equal(got.r, -EFAULT);
	assert_int_equal(got.signal, SIGSEGV);
	free(got.bytes);
}

static void test_too_much(void **state)
{
	/* More than allowed is cut off. */
	size_t size = 30000000;
	struct result got = run_in(&usual, write_pattern, &size, 1000000);

	(void)state;
	assert_int_equal(got.r, -E2BIG);
	assert_int_equal(got.size, 1000000);
	assert_int_equal(got.bytes[999999], (uint8_t)(999999 * 7));
	free(got.bytes);
	size = 1000000;
	got = run_in(&usual, write_pattern, &size, 1000000);
	assert_int_equal(got.r, 0);
	free(got.bytes);
}

static int leave_things(void *arg, int out)
{
	for (unsigned i = 0; i < 100; i++)
		if (open(arg, O_RDONLY) < 0 || !malloc(100))
			return -errno;
	return write(out, "x", 1) == 1 ? 0 : -errno;
}

static void test_nothing_stays(void **state)
{
	/* However it ends: no child, no descriptor more than before. */
	int (*const works[])(void *, int) = {leave_things, give_up, touch_nothing, lose_the_pipe};
	unsigned before = open_descriptors();

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct result got = run_in(&usual, works[i], "/etc/passwd", ROOM);

		assert_int_equal(got.r, i == 1 || i == 2 ? -EFAULT : 0);
		free(got.bytes);
	}
	free(run_in(&(struct dc_sandbox){.time_ns = SECOND / 20}, spin, NULL, ROOM).bytes);
	free(run_in(&usual, write_pattern, &(size_t){100000}, 10).bytes);
	assert_int_equal(open_descriptors(), before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* --- among threads --- */

static _Atomic bool stopping;
static _Atomic uint64_t turns;

static void *churn(void *arg)
{
	(void)arg;
	while (!atomic_load_explicit(&stopping, memory_order_relaxed)) { /* relaxed: joined later */
		void *p = malloc(1000 + (size_t)(turns % 5000));

		free(p);
		atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed); /* relaxed: only counted */
	}
	return NULL;
}

static void *run_many(void *arg)
{
	uintptr_t wrong = 0;

	for (unsigned i = 0; i < 20; i++) {
		size_t size = 1 + 10000 * i;
		struct result got = run_in(&usual, i % 4 == 3 ? touch_nothing : write_pattern, &size, ROOM);

		wrong += i % 4 == 3 ? got.r != -EFAULT || got.signal != SIGSEGV : got.r != 0 || got.size != size;
		free(got.bytes);
	}
	(void)arg;
	return (void *)wrong;
}

static void test_threads(void **state)
{
	/* From several threads at once, while others use the heap: all as alone, and the others go on. */
	pthread_t churning[4], running[3];
	uint64_t before;
	void *wrong;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&churning[i], NULL, churn, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&running[i], NULL, run_many, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(running[i], &wrong);
		assert_null(wrong);
	}
	before = turns;
	while (turns < before + 1000)
		usleep(1000);
	stopping = true;
	for (unsigned i = 0; i < 4; i++)
		pthread_join(churning[i], NULL);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void *spin_a_while(void *arg)
{
	free(run_in(&(struct dc_sandbox){.time_ns = SECOND}, spin, NULL, ROOM).bytes);
	return arg;
}

static void test_one_does_not_wait_for_another(void **state)
{
	/* A child that was forked while our pipe was open holds its end, too; we end when our own child does. */
	pthread_t other;
	int64_t before;
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pthread_create(&other, NULL, spin_a_while, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		before = dc_now_ns();
		free(run_in(&usual, write_pattern, &(size_t){100}, ROOM).bytes);
		assert_true(dc_now_ns() - before < SECOND * 9 / 10);
	}
	pthread_join(other, NULL);
	close(fds[0]);
	close(fds[1]);
}

/* --- as another user --- */

static int as_user(void)
{
	size_t size = 100000;
	struct result got;

	if (setgid(65534) < 0 || setuid(65534) < 0)
		return 1;
	prctl(PR_SET_DUMPABLE, 1);
	got = run_in(&usual, write_pattern, &size, ROOM);
	if (got.r || got.size != size)
		return 2;
	got = run_in(&usual, read_a_file, "/proc/self/exe", ROOM);
	if (got.r && got.r != -EACCES)
		return 3;
	got = run_in(&usual, do_it, (void *)&(void (*)(void)){network}, ROOM);
	return got.r != -EFAULT || got.signal != SIGSYS ? 4 : 0;
}

static void test_as_user(void **state)
{
	/* It needs no rights. */
	int status;
	pid_t child;

	(void)state;
	if (geteuid() != 0)
		skip();
	child = fork();
	if (child == 0)
		_exit(as_user());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output),
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_a_file_that_was_cut),
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_the_pipe_stays),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_shared_memory),
		cmocka_unit_test(test_memory_bomb),
		cmocka_unit_test(test_endless),
		cmocka_unit_test(test_crashes),
		cmocka_unit_test(test_too_much),
		cmocka_unit_test(test_nothing_stays),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_one_does_not_wait_for_another),
		cmocka_unit_test(test_as_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
