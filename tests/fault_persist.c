/* SPDX-License-Identifier: MIT */
/*
 * Every system call that persist makes fails once, in every way that matters, and so does every completion of
 * io_uring.
 *
 * The calls are wrapped at link time (--wrap, see meson.build). A scenario is run again and again: the first
 * time its first call fails, then its second, until it comes to its end untouched. After each run one claim
 * is checked: either the call said that it worked, and then the file is whole, or it said that it did not,
 * and then nothing was left behind and nothing that was there before has changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "persist/block.h"
#include "persist/store.h"
#include "persist/writer.h"
#include "tests/capturedir.h"

#define NAME "a.dcap"
#define PART "a.dcap.part"

/* --- the wrapped calls --- */

enum way {
	BY_ERROR, /* returns -1 and errno, or the completion says so */
	BY_HALF,  /* writes half of what it was told to */
};

struct fault {
	bool armed;
	enum way way;
	int error;
	unsigned countdown; /* the call that finds 0 fails */
	const char *struck; /* its name; NULL: none was */
};

static struct fault fault;

static bool strikes(const char *name)
{
	if (!fault.armed || fault.struck || fault.countdown--)
		return false;
	fault.struck = name;
	errno = fault.error;
	return true;
}

#define WRAP(type, name, params, args)                                                                       \
	type __real_##name params;                                                                           \
	type __wrap_##name params;                                                                           \
	type __wrap_##name params                                                                            \
	{                                                                                                    \
		if (fault.way == BY_ERROR && strikes(#name))                                                 \
			return (type)-1;                                                                     \
		return __real_##name args;                                                                   \
	}

WRAP(int, open64, (const char *path, int flags, mode_t mode), (path, flags, mode))
WRAP(int, openat64, (int dir, const char *path, int flags, mode_t mode), (dir, path, flags, mode))
WRAP(int, fcntl64, (int fd, int command, long arg), (fd, command, arg))
WRAP(int, flock, (int fd, int how), (fd, how))
WRAP(int, fstat64, (int fd, struct stat *st), (fd, st))
WRAP(int, fstatat64, (int dir, const char *path, struct stat *st, int flags), (dir, path, st, flags))
WRAP(ssize_t, pread64, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
WRAP(int, fallocate64, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
WRAP(int, ftruncate64, (int fd, off_t n), (fd, n))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
WRAP(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags))
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(int, renameat2, (int a, const char *from, int b, const char *to, unsigned flags),
     (a, from, b, to, flags))
WRAP(void *, mmap64, (void *at, size_t n, int prot, int flags, int fd, off_t offset),
     (at, n, prot, flags, fd, offset))

/* Of a write by O_DIRECT whole sectors remain, otherwise anything may. */
static size_t half(size_t bytes)
{
	return bytes < 1024 ? bytes / 2 : bytes / 2 / 512 * 512;
}

ssize_t __real_pwrite64(int fd, const void *from, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *from, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *from, size_t n, off_t at)
{
	if (!strikes("pwrite64"))
		return __real_pwrite64(fd, from, n, at);
	return fault.way == BY_HALF ? __real_pwrite64(fd, from, half(n), at) : -1;
}

#define WRAP_URING(name, params, args)                                                                       \
	int __real_##name params;                                                                            \
	int __wrap_##name params;                                                                            \
	int __wrap_##name params                                                                             \
	{                                                                                                    \
		if (fault.way == BY_ERROR && strikes(#name))                                                 \
			return -fault.error;                                                                 \
		return __real_##name args;                                                                   \
	}

WRAP_URING(io_uring_queue_init, (unsigned n, struct io_uring *ring, unsigned flags), (n, ring, flags))
WRAP_URING(io_uring_register_buffers, (struct io_uring * ring, const struct iovec *v, unsigned n),
	   (ring, v, n))
WRAP_URING(io_uring_submit, (struct io_uring * ring), (ring))

/* A completion: the write itself went well, but this is what it says. */
int __real___io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit,
			      unsigned wait, sigset_t *mask);
int __wrap___io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit,
			      unsigned wait, sigset_t *mask);
int __wrap___io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit,
			      unsigned wait, sigset_t *mask)
{
	int r;

	if (fault.way == BY_ERROR && fault.error == EINTR && strikes("io_uring_wait_cqe"))
		return -EINTR;
	r = __real___io_uring_get_cqe(ring, cqe, submit, wait, mask);
	if (r == 0 && strikes("completion"))
		(*cqe)->res = fault.way == BY_HALF ? (int)half((size_t)(*cqe)->res) : -fault.error;
	return r;
}

/* --- what is there --- */

static bool exists(const char *name)
{
	return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

struct content {
	uint8_t *bytes;
	size_t count;
};

static struct content content_of(const char *name)
{
	struct content c = {0};
	struct stat st;
	int fd = openat(dir_fd, name, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	c.count = (size_t)st.st_size;
	c.bytes = malloc(c.count + 1);
	assert_int_equal(read(fd, c.bytes, c.count), c.count);
	close(fd);
	return c;
}

static size_t size_of(const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(dir_fd, name, &st, 0), 0);
	return (size_t)st.st_size;
}

static void assert_content(const char *name, const struct content *expected)
{
	struct content c = content_of(name);

	if (c.count != expected->count || memcmp(c.bytes, expected->bytes, c.count))
		fail_msg("'%s' is not what it should be after a fault in %s", name, fault.struck);
	free(c.bytes);
}

/* Only these say, by failing, that the file is there but may not survive a loss of power. */
static bool only_durability_is_lost(void)
{
	return !strcmp(fault.struck, "fsync");
}

/* --- scenarios --- */

static uint32_t writer_flags;

static int write_capture(void)
{
	static const struct dc_file_block same = {.version = 1};
	const struct dc_incident incident = {.reason = DC_REASON_COMMAND};
	struct dc_writer *w;
	int r = dc_writer_open_as(dir_fd, NAME, writer_flags, 2, &same, &w);

	if (r < 0)
		return r;
	dc_writer_owner(w, geteuid(), getegid());
	dc_writer_incident(w, &incident);
	for (unsigned i = 0; i < 5; i++) {
		uint8_t *to = dc_writer_reserve(w);

		if (!to)
			break;
		memset(to, (int)i + 1, 300000);
		dc_writer_commit(w, DC_BLOCK_CHUNKS, 0, 300000);
	}
	return dc_writer_close(w, true);
}

static int settle(void)
{
	return dc_settle(dir_fd, NAME, &(struct dc_settle_options){.zstd_level = 1}, NULL);
}

static int run(int (*scenario)(void), enum way way, int error, unsigned which)
{
	int r;

	fault = (struct fault){.armed = true, .way = way, .error = error, .countdown = which};
	r = scenario();
	fault.armed = false;
	return r;
}

static unsigned survived; /* runs that ended well although something failed */

/* Return: false when nothing was left to fail. */
static bool write_once(enum way way, int error, unsigned which, const struct content *good)
{
	int r;

	unlinkat(dir_fd, NAME, 0);
	r = run(write_capture, way, error, which);
	if (exists(PART))
		fail_msg("%s: the .part file stays after %s", fault.struck, strerror(error));
	if (r == 0 || (exists(NAME) && only_durability_is_lost()))
		assert_content(NAME, good);
	else if (exists(NAME))
		fail_msg("%s: failed with %s, but there is a capture", fault.struck, strerror(-r));
	if ((error == EINTR || way == BY_HALF) && fault.struck &&
	    (!strcmp(fault.struck, "pwrite64") || !strcmp(fault.struck, "fsync") ||
	     !strncmp(fault.struck, "io_uring", 8) || !strcmp(fault.struck, "completion")))
		assert_int_equal(r, 0);
	if (error != EINTR && way == BY_ERROR && fault.struck &&
	    (!strcmp(fault.struck, "pwrite64") || !strcmp(fault.struck, "completion") ||
	     !strcmp(fault.struck, "ftruncate64") || !strcmp(fault.struck, "fsync")))
		assert_int_equal(r, -error);
	survived += fault.struck && r == 0;
	return fault.struck;
}

static void write_all_ways(uint32_t flags)
{
	const int errors[] = {EIO, ENOSPC, EINTR, EPERM, ENOSYS, EMFILE};
	struct content good;

	writer_flags = flags;
	unlinkat(dir_fd, NAME, 0);
	assert_int_equal(write_capture(), 0);
	good = content_of(NAME);
	survived = 0;
	for (unsigned e = 0; e < sizeof errors / sizeof *errors; e++) {
		unsigned which = 0;

		while (write_once(BY_ERROR, errors[e], which, &good))
			which++;
		assert_true(which > 15);
	}
	for (unsigned which = 0; write_once(BY_HALF, 0, which, &good);)
		which++;
	assert_true(survived > 10);
	free(good.bytes);
}

static void test_writing_by_io_uring(void **state)
{
	/* O_DIRECT and io_uring, where the file system has them. */
	(void)state;
	write_all_ways(0);
}

static void test_writing_by_pwrite(void **state)
{
	/* O_DIRECT and pwrite. */
	(void)state;
	write_all_ways(DC_WRITER_PWRITE);
}

static void test_writing_through_the_page_cache(void **state)
{
	/* As settled files are written. */
	(void)state;
	write_all_ways(DC_WRITER_SETTLED);
}

static void make_raw(void)
{
	struct ring_maker *ring = ring_maker_new(8192, 16, 2);
	uint16_t site = ring_maker_site(ring, &(struct maker_site){.name = "s"});
	struct capture_maker m = {.dir = dir, .name = NAME, .rings = &ring, .ring_count = 1};

	ring_maker_lane(ring, 1, "t");
	for (unsigned i = 0; i < 5000; i++)
		ring_maker_event(ring, 0, DC_KIND_INSTANT, i, site, NULL, 0);
	unlinkat(dir_fd, NAME, 0);
	assert_int_equal(capture_maker_write(&m), 0);
	ring_maker_free(ring);
}

static void write_file(const char *name, const struct content *c)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, c->bytes, c->count), c->count);
	close(fd);
}

static void test_settling(void **state)
{
	/* Either settled, with all that was in it, or the raw file as it was. */
	const int errors[] = {EIO, ENOSPC, EINTR};
	struct content raw, settled;

	(void)state;
	make_raw();
	raw = content_of(NAME);
	assert_int_equal(settle(), 0);
	settled = content_of(NAME);
	for (unsigned e = 0; e < 3; e++) {
		unsigned which = 0;

		do {
			int r;

			write_file(NAME, &raw);
			r = run(settle, BY_ERROR, errors[e], which++);
			assert_false(exists(PART));
			if (r == 0 || (size_of(NAME) == settled.count && only_durability_is_lost()))
				assert_content(NAME, &settled);
			else
				assert_content(NAME, &raw);
		} while (fault.struck);
		assert_true(which > 20);
	}
	free(raw.bytes);
	free(settled.bytes);
}

static int evict(void)
{
	unsigned removed;
	uint64_t bytes;

	return dc_store_evict(dir_fd, 0, &removed, &bytes);
}

static void add(const char *name, int64_t at_ns)
{
	struct dc_incident incident = {.reason = DC_REASON_API, .at_realtime_ns = at_ns};
	const uint8_t id[16] = {0};
	struct dc_writer *w;

	unlinkat(dir_fd, name, 0);
	assert_int_equal(dc_writer_open(dir_fd, name, DC_WRITER_SETTLED, 2, id, &w), 0);
	assert_int_equal(dc_writer_incident(w, &incident), 0);
	assert_int_equal(dc_writer_close(w, true), 0);
}

static void test_evicting(void **state)
{
	/* Whatever fails, what is kept and what is the newest is not removed. */
	unsigned which = 0;

	(void)state;
	unlinkat(dir_fd, NAME, 0);
	do {
		add("old.dcap", 1);
		add("kept.dcap", 2);
		add("newest.dcap", 3);
		assert_int_equal(dc_store_keep(dir_fd, "kept.dcap", true), 0);
		run(evict, BY_ERROR, EIO, which++);
		assert_true(exists("kept.dcap") && exists("kept.dcap.keep"));
		assert_true(exists("newest.dcap"));
		assert_true(fault.struck || !exists("old.dcap"));
	} while (fault.struck);
	assert_true(which > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writing_by_io_uring),
		cmocka_unit_test(test_writing_by_pwrite),
		cmocka_unit_test(test_writing_through_the_page_cache),
		cmocka_unit_test(test_settling),
		cmocka_unit_test(test_evicting),
	};

	return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
