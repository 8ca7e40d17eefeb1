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

#include "persist/store.h"
#include "persist/writer.h"
#include "tests/capturedir.h"

#define SECOND INT64_C(1000000000)

static void add(const char *name, int64_t at_ns, uint32_t severity, const char *rule)
{
	struct dc_incident incident = {
		.reason = DC_REASON_API, .severity = severity, .at_realtime_ns = at_ns};
	const uint8_t id[16] = {0};
	struct dc_writer *w;

	snprintf(incident.rule, sizeof incident.rule, "%s", rule);
	assert_int_equal(dc_writer_open(dir_fd, name, DC_WRITER_SETTLED, 2, id, &w), 0);
	assert_int_equal(dc_writer_incident(w, &incident), 0);
	assert_int_equal(dc_writer_close(w, true), 0);
}

static void touch(const char *name)
{
	close(openat(dir_fd, name, O_CREAT | O_WRONLY, 0600));
}

static bool exists(const char *name)
{
	return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void test_names_are_plain_and_sort_by_time(void **state)
{
	/* Any process name and reason gives a file name of letters, digits, '-', '_' and '.', which sorts by time. */
	char first[DC_STORE_NAME_BYTES], second[DC_STORE_NAME_BYTES];

	(void)state;
	assert_int_equal(
		dc_store_name(dir_fd, 1795230038 * SECOND + 123999999, "shop", "checkout failed", first), 0);
	assert_string_equal(first, "2026-11-21T03-00-38.123Z-shop-checkout-failed.dcap");
	assert_int_equal(dc_store_name(dir_fd, 1795230038 * SECOND + 124000000, "../../etc",
				       "a/b\n\xff\xfe \"c\"$", second),
			 0);
	assert_string_equal(second, "2026-11-21T03-00-38.124Z-etc-a-b-c.dcap");
	assert_true(strcmp(first, second) < 0);
	assert_int_equal(dc_store_name(dir_fd, 0, "", "", second), 0);
	assert_string_equal(second, "1970-01-01T00-00-00.000Z.dcap");
	assert_int_equal(dc_store_name(dir_fd, INT64_MAX,
				       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
				       "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", second),
			 0);
	assert_true(strlen(second) < 110);
	assert_int_equal(dc_store_name(dir_fd, INT64_MIN, ".", "-", second), 0);
}

static void test_names_are_unique(void **state)
{
	/* A name that is taken, by a capture or by one being written, is not given twice. */
	char name[DC_STORE_NAME_BYTES];

	(void)state;
	touch("1970-01-01T00-00-01.000Z-a-b.dcap");
	touch("1970-01-01T00-00-01.000Z-a-b-2.dcap.part");
	assert_int_equal(dc_store_name(dir_fd, SECOND, "a", "b", name), 0);
	assert_string_equal(name, "1970-01-01T00-00-01.000Z-a-b-3.dcap");
}

static int open_store(const char *path, char *why)
{
	int fd = -1, r = dc_store_open(geteuid(), path, &fd, why);

	if (r == 0)
		close(fd);
	return r;
}

static void test_directory_is_made(void **state)
{
	/* A directory that is missing is made with its parents, for its owner alone. */
	char path[300], why[DC_STORE_WHY_BYTES];
	struct stat st;

	(void)state;
	snprintf(path, sizeof path, "%s/a/b/", dir);
	assert_int_equal(open_store(path, why), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(open_store(path, why), 0);
	rmdir(path);
	snprintf(path, sizeof path, "%s/a", dir);
	rmdir(path);
}

static void test_untrustworthy_directories_are_refused(void **state)
{
	/* Writable by others and not sticky, a symbolic link, a file, a foreign one: refused, and the line says why. */
	char path[300], link[300], why[DC_STORE_WHY_BYTES];

	(void)state;
	snprintf(path, sizeof path, "%s/open", dir);
	snprintf(link, sizeof link, "%s/link/", dir);
	mkdir(path, 0700);
	chmod(path, 0777);
	assert_int_equal(open_store(path, why), -EPERM);
	assert_non_null(strstr(why, "writable by others"));
	chmod(path, 0700);
	assert_int_equal(symlinkat(path, dir_fd, "link"), 0);
	assert_int_not_equal(open_store(link, why), 0);
	assert_non_null(strstr(why, "symbolic link"));
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 4321, 4321), 0);
		assert_int_equal(open_store(path, why), -EPERM);
		assert_non_null(strstr(why, "another user"));
	}
	rmdir(path);
	unlinkat(dir_fd, "link", 0);
	touch("file");
	snprintf(path, sizeof path, "%s/file", dir);
	assert_int_equal(open_store(path, why), -ENOTDIR);
	snprintf(path, sizeof path, "%s/file/below", dir);
	assert_int_equal(open_store(path, why), -ENOTDIR);
}

static void test_default_is_the_state_directory(void **state)
{
	/* Without root, XDG_STATE_HOME says where, then HOME; a relative one is not believed. */
	char path[300], why[DC_STORE_WHY_BYTES];
	bool root = geteuid() == 0;

	(void)state;
	if (root) {
		assert_int_equal(fchown(dir_fd, 1234, 1234), 0);
		assert_int_equal(seteuid(1234), 0);
	}
	setenv("XDG_STATE_HOME", dir, 1);
	assert_int_equal(open_store(NULL, why), 0);
	snprintf(path, sizeof path, "%s/dashcam", dir);
	assert_int_equal(rmdir(path), 0);
	setenv("XDG_STATE_HOME", "relative", 1);
	setenv("HOME", dir, 1);
	assert_int_equal(open_store(NULL, why), 0);
	snprintf(path, sizeof path, "%s/.local/state/dashcam", dir);
	assert_int_equal(rmdir(path), 0);
	unsetenv("XDG_STATE_HOME");
	unsetenv("HOME");
	assert_int_equal(open_store(NULL, why), -ENOENT);
	if (root) {
		assert_int_equal(seteuid(0), 0);
		assert_int_equal(fchown(dir_fd, 0, 0), 0);
	}
	snprintf(path, sizeof path, "%s/.local/state", dir);
	rmdir(path);
	snprintf(path, sizeof path, "%s/.local", dir);
	rmdir(path);
}

static void test_list_tells_what_is_there(void **state)
{
	/* Captures oldest first with what their incidents say; damaged ones are listed as such; nothing else is. */
	struct dc_store_entry *e;
	unsigned count;

	(void)state;
	add("b.dcap", 2 * SECOND, 3, "slow");
	add("c.dcap", 1 * SECOND, 1, "");
	touch("broken.dcap");
	touch("note.txt");
	touch("x.dcap.part");
	assert_int_equal(symlinkat("b.dcap", dir_fd, "link.dcap"), 0);
	assert_int_equal(mkdirat(dir_fd, "dir.dcap", 0700), 0);
	assert_int_equal(dc_store_keep(dir_fd, "b.dcap", true), 0);
	assert_int_equal(dc_store_list(dir_fd, &e, &count), 0);
	assert_int_equal(count, 3);
	assert_string_equal(e[0].name, "c.dcap");
	assert_int_equal(e[0].reason, DC_REASON_API);
	assert_false(e[0].kept || e[0].damaged);
	assert_string_equal(e[1].name, "b.dcap");
	assert_string_equal(e[1].rule, "slow");
	assert_int_equal(e[1].severity, 3);
	assert_int_equal(e[1].at_ns, 2 * SECOND);
	assert_true(e[1].kept && e[1].settled && e[1].bytes >= 512);
	assert_string_equal(e[2].name, "broken.dcap");
	assert_true(e[2].damaged);
	free(e);
	unlinkat(dir_fd, "dir.dcap", AT_REMOVEDIR);
}

static void test_keep_and_remove(void **state)
{
	/* A mark is set and taken away, goes with its capture, and is refused for what is none. */
	(void)state;
	add("k.dcap", SECOND, 0, "");
	assert_int_equal(dc_store_keep(dir_fd, "k.dcap", true), 0);
	assert_int_equal(dc_store_keep(dir_fd, "k.dcap", true), 0);
	assert_true(exists("k.dcap.keep"));
	assert_int_equal(dc_store_keep(dir_fd, "k.dcap", false), 0);
	assert_int_equal(dc_store_keep(dir_fd, "k.dcap", false), 0);
	assert_false(exists("k.dcap.keep"));
	assert_int_equal(dc_store_keep(dir_fd, "absent.dcap", true), -ENOENT);
	assert_int_equal(dc_store_keep(dir_fd, "../k.dcap", true), -ENOENT);
	assert_int_equal(dc_store_remove(dir_fd, "note.txt"), -ENOENT);
	assert_int_equal(dc_store_keep(dir_fd, "k.dcap", true), 0);
	assert_int_equal(dc_store_remove(dir_fd, "k.dcap"), 0);
	assert_false(exists("k.dcap") || exists("k.dcap.keep"));
}

/* Oldest first; returns the victims as a string of their numbers. */
static const char *victims(const struct dc_store_entry *e, unsigned count, uint64_t budget)
{
	static char text[32];
	bool victim[16];
	unsigned n = 0;

	dc_store_victims(e, count, budget, victim);
	for (unsigned i = 0; i < count; i++)
		if (victim[i])
			text[n++] = (char)('0' + i);
	text[n] = 0;
	return text;
}

static void test_eviction_order(void **state)
{
	/* Lowest severity first, then age; kept ones and the newest of each rule and reason stay, whatever it takes. */
	const struct dc_store_entry e[] = {
		{.bytes = 10, .severity = 2, .rule = "a"},
		{.bytes = 10, .severity = 1, .rule = "a"},
		{.bytes = 10, .severity = 1, .rule = "a"},
		{.bytes = 10, .severity = 1, .rule = "b"},
		{.bytes = 10, .reason = DC_REASON_API},
		{.bytes = 10, .reason = DC_REASON_DEATH},
		{.bytes = 10, .kept = true, .reason = DC_REASON_API},
		{.bytes = 10, .severity = 9, .rule = "a"},
	};

	(void)state;
	assert_string_equal(victims(e, 8, 80), "");
	assert_string_equal(victims(e, 8, 79), "4");
	assert_string_equal(victims(e, 8, 70), "4");
	assert_string_equal(victims(e, 8, 61), "14");
	assert_string_equal(victims(e, 8, 50), "124");
	assert_string_equal(victims(e, 8, 40), "0124");
	assert_string_equal(victims(e, 8, 0), "0124");
}

static void test_damaged_ones_do_not_protect(void **state)
{
	/* An unreadable capture is nobody's newest: it may go, and it does not let an older readable one go. */
	const struct dc_store_entry e[] = {
		{.bytes = 10, .rule = "a", .severity = 5},
		{.bytes = 10, .damaged = true},
		{.bytes = 10, .rule = "a", .damaged = true},
	};

	(void)state;
	assert_string_equal(victims(e, 3, 0), "12");
}

static void test_evict_removes_files(void **state)
{
	/* Files go, with their number and bytes told, until the budget holds; what must stay stays. */
	struct dc_store_entry *e;
	uint64_t bytes;
	unsigned removed, count;

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		add((char[]){(char)('a' + i), '.', 'd', 'c', 'a', 'p', 0}, (i + 1) * SECOND, 0, "r");
	assert_int_equal(dc_store_keep(dir_fd, "b.dcap", true), 0);
	assert_int_equal(dc_store_evict(dir_fd, UINT64_MAX, &removed, &bytes), 0);
	assert_int_equal(removed, 0);
	assert_int_equal(dc_store_evict(dir_fd, 0, &removed, &bytes), 0);
	assert_int_equal(removed, 3);
	assert_true(bytes >= 3 * 512);
	assert_int_equal(dc_store_list(dir_fd, &e, &count), 0);
	assert_int_equal(count, 2);
	assert_string_equal(e[0].name, "b.dcap");
	assert_string_equal(e[1].name, "e.dcap");
	free(e);
}

static void test_sweep_leaves_the_living(void **state)
{
	/* Parts of dead writers and marks without captures go; those of living writers and captures stay. */
	const uint8_t id[16] = {0};
	struct dc_writer *w;

	(void)state;
	assert_int_equal(dc_writer_open(dir_fd, "w.dcap", DC_WRITER_PWRITE, 2, id, &w), 0);
	add("s.dcap", SECOND, 0, "");
	assert_int_equal(dc_store_keep(dir_fd, "s.dcap", true), 0);
	touch("dead.dcap.part");
	touch("gone.dcap.keep");
	touch("stranger.part");
	assert_int_equal(dc_store_sweep(dir_fd), 2);
	assert_true(exists("w.dcap.part") && exists("s.dcap.keep") && exists("stranger.part"));
	assert_false(exists("dead.dcap.part") || exists("gone.dcap.keep"));
	assert_int_equal(dc_writer_close(w, false), 0);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, dir_make, dir_remove)
	const struct CMUnitTest tests[] = {
		TEST(test_names_are_plain_and_sort_by_time),
		TEST(test_names_are_unique),
		TEST(test_directory_is_made),
		TEST(test_untrustworthy_directories_are_refused),
		TEST(test_default_is_the_state_directory),
		TEST(test_list_tells_what_is_there),
		TEST(test_keep_and_remove),
		TEST(test_eviction_order),
		TEST(test_damaged_ones_do_not_protect),
		TEST(test_evict_removes_files),
		TEST(test_sweep_leaves_the_living),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
