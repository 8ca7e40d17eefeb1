/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ringfile.h"
#include "trigger/ring.h"

static char dir[128];
static int dir_fd = -1;

static int setup(void **state)
{
	(void)state;
	scratch_memory("dctest", dir);
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	return dir_fd < 0;
}

static int teardown(void **state)
{
	(void)state;
	close(dir_fd);
	scratch_remove(dir);
	return 0;
}

static int open_why(const char *name, char why[static DC_WHY_BYTES])
{
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;

	why[0] = '\0';
	return dc_ring_open(dir_fd, name, &ring, why);
}

static void test_own_ring_opens(void **state)
{
	/* A ring of this process opens, is verified, is ours, and knows its pid. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	assert_int_equal(ring->pid, getpid());
	assert_int_equal(ring->uid, getuid());
	assert_true(ring->verified);
	assert_true(ring->writable);
	assert_string_equal(ring->name, f.name);
	ringfile_remove(&f);
}

static void test_lock_tells_life(void **state)
{
	/* A ring is alive exactly as long as its owner's lock is held, also after the file was unlinked. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	assert_int_equal(dc_ring_alive(ring), 1);
	unlink(f.path);
	assert_int_equal(dc_ring_alive(ring), 1);
	ringfile_unlock(&f);
	assert_int_equal(dc_ring_alive(ring), 0);
	ringfile_remove(&f);
}

static void test_look_clamps(void **state)
{
	/* Counters that claim more than the header's caps come back clamped. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	struct dc_ring_look look;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	f.header->lanes_used = f.header->sites_used = f.header->chunks_grown = f.header->strings_used = ~0u;
	f.header->modules_used = ~0u;
	f.header->trigger_seq = 7;
	assert_int_equal(dc_ring_look(ring, &look), 0);
	assert_int_equal(look.lanes_used, f.header->lane_cap);
	assert_int_equal(look.sites_used, f.header->site_cap);
	assert_int_equal(look.strings_used, f.header->strings_bytes);
	assert_int_equal(look.modules_used, f.header->module_cap);
	assert_int_equal(look.chunks_grown, 16);
	assert_int_equal(look.trigger_seq, 7);
	ringfile_remove(&f);
}

static void test_layout_is_the_one_of_open(void **state)
{
	/* A guest that moves its tables after they were validated changes nothing for us, not even in TABLES. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_ring_tables) struct dc_ring_tables t = {0};
	const struct dc_ring_header good = {.magic = DC_RING_MAGIC};
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	f.header->lanes_off = UINT64_MAX - 100;
	f.header->lane_cap = ~0u;
	f.header->lanes_used = 3;
	assert_int_equal(dc_ring_tables(ring, &t), 0);
	assert_int_equal(t.counts.lane_count, 3);
	assert_int_equal(dc_ring_tables_header(&t)->lane_cap, 256);
	assert_int_equal(dc_ring_tables_header(&t)->lanes_used, 3);
	assert_true(dc_ring_tables_header(&t)->magic == good.magic);
	assert_string_equal(dc_ring_tables_strings(&t) + dc_ring_tables_sites(&t)[1].name, "tick");
	ringfile_remove(&f);
}

static void test_not_a_ring(void **state)
{
	/* A FIFO, a link, a directory, a short file, a file of other bytes: each refused at once, with its reason. */
	char why[DC_WHY_BYTES], path[256];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(open_why("fifo", why), -EINVAL);
	assert_non_null(strstr(why, "not a regular file"));
	assert_int_equal(symlinkat("/etc/passwd", dir_fd, "link"), 0);
	assert_int_equal(open_why("link", why), -ELOOP);
	assert_non_null(strstr(why, "symbolic link"));
	assert_int_equal(open_why("gone", why), -ENOENT);
	fd = openat(dir_fd, "short", O_CREAT | O_RDWR, 0600);
	assert_int_equal(open_why("short", why), -EAGAIN);
	assert_int_equal(ftruncate(fd, 8192), 0);
	assert_int_equal(open_why("short", why), -EAGAIN);
	assert_int_equal(pwrite(fd, "something else", 14, 0), 14);
	assert_int_equal(open_why("short", why), -EBADMSG);
	assert_non_null(strstr(why, "short"));
	close(fd);
}

static void test_lying_headers(void **state)
{
	/* Sizes that lie and versions from the future are refused before anything they say is used. */
	struct ringfile f;
	struct dc_ring_header good;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	good = *f.header;
	f.header->chunk_cap = 17;
	assert_int_equal(open_why(f.name, why), -EBADMSG);
	*f.header = good;
	f.header->states_off = UINT64_MAX - 64;
	assert_int_equal(open_why(f.name, why), -EBADMSG);
	*f.header = good;
	f.header->incompat = 1;
	assert_int_equal(open_why(f.name, why), -EPROTONOSUPPORT);
	assert_true(strlen(why) > strlen(f.name));
	*f.header = good;
	assert_int_equal(open_why(f.name, why), 0);
	assert_int_equal(ftruncate(f.fd, (off_t)good.file_bytes - 1), 0);
	assert_int_equal(open_why(f.name, why), -EBADMSG);
	ringfile_remove(&f);
}

static void test_truncated_while_open(void **state)
{
	/* A ring that loses its bytes after it was opened is an error to look at, never a signal. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	CLEANUP(dc_ring_tables) struct dc_ring_tables t = {0};
	struct dc_ring_usage usage;
	struct dc_ring_look look;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	assert_int_equal(ftruncate(f.fd, 100), 0);
	assert_int_equal(dc_ring_look(ring, &look), -EBADMSG);
	assert_int_equal(dc_ring_tables(ring, &t), -EBADMSG);
	assert_int_equal(dc_ring_usage(ring, &usage), -EBADMSG);
	ringfile_remove(&f);
}

static void test_glances(void **state)
{
	/* A ring that is watched tells by glances what it tells by reads, and one that is cut meanwhile is no signal there either. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	struct dc_ring_look look;
	struct dc_ring_lane lanes[2];
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	dc_ring_watch(ring);
	assert_non_null(ring->counters);
	assert_non_null(ring->first_lanes);
	for (uint32_t i = 1; i < 3; i++) {
		f.header->trigger_seq = i;
		f.header->lanes_used = ~0u;
		f.lanes[1].tid = 41 + i;
		assert_int_equal(dc_ring_glance(ring, &look), 0);
		assert_int_equal(look.trigger_seq, i);
		assert_int_equal(look.lanes_used, f.header->lane_cap);
		assert_true(dc_ring_glance_lanes(ring, lanes, 2));
		assert_int_equal(lanes[1].tid, 41 + i);
	}
	assert_int_equal(ftruncate(f.fd, 0), 0);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(dc_ring_glance(ring, &look), -EBADMSG);
		assert_false(dc_ring_glance_lanes(ring, lanes, 2));
		assert_int_equal(lanes[1].tid, 0);
	}
	ringfile_remove(&f);
}

static void test_foreign_ring_is_unverified(void **state)
{
	/* A ring in our name that belongs to another user, and that we do not map, is readable but not believed. */
	struct ringfile f;
	struct dc_ring *ring = NULL;
	char why[DC_WHY_BYTES];

	(void)state;
	if (geteuid() != 0)
		skip();
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(fchown(f.fd, 12345, 12345), 0);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	assert_true(ring->verified); /* still mapped: /proc/self/map_files shows it */
	assert_int_equal(ring->uid, 12345);
	dc_ring_unref(ring);
	f.header->start_time++; /* the pid is another process by now */
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	assert_false(ring->verified);
	dc_ring_unref(ring);
	f.header->start_time--;
	ringfile_unlock(&f);
	unlinkat(dir_fd, "copy.ring", 0);
	ringfile_remove(&f);
}

static void test_triggers_by_number(void **state)
{
	/* Slots are found by their number; an overwritten one is stale, one not yet there is to be tried again. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	struct dc_ring_trigger t;
	char why[DC_WHY_BYTES];
	uint32_t acked;

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	for (unsigned i = 1; i <= DC_TRIGGER_SLOTS + 2; i++) {
		char text[32];

		snprintf(text, sizeof(text), "number %u", i);
		ringfile_trigger(&f, text);
	}
	assert_int_equal(dc_ring_trigger(ring, DC_TRIGGER_SLOTS + 2, &t), 0);
	assert_string_equal(t.text, "number 34");
	assert_int_equal(dc_ring_trigger(ring, 2, &t), -ESTALE);
	assert_int_equal(dc_ring_trigger(ring, 3, &t), 0);
	assert_int_equal(dc_ring_trigger(ring, DC_TRIGGER_SLOTS + 3, &t), -EAGAIN);
	memset(f.triggers[2].text, 'x', sizeof(t.text)); /* no NUL: ends where the slot ends */
	assert_int_equal(dc_ring_trigger(ring, 3, &t), 0);
	assert_int_equal(strlen(t.text), sizeof(t.text) - 1);
	assert_int_equal(dc_ring_ack(ring, UINT64_C(0x500000022)), 0);
	assert_int_equal(dc_ring_acked(ring, &acked), 0);
	assert_int_equal(acked, 0x22);
	ringfile_remove(&f);
}

static void test_control_reaches_the_guest(void **state)
{
	/* What we set is what a guest finds in its mapping: window, hold, enable words, thresholds. */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	assert_int_equal(dc_ring_set_window(ring, 77, 1000), 0);
	assert_int_equal(dc_ring_set_hold(ring, 5, 9), 0);
	assert_int_equal(dc_ring_set_enable(ring, 3, DC_ENABLE_OFF), 0);
	assert_int_equal(dc_ring_set_threshold(ring, 4, 123), 0);
	assert_int_equal(dc_ring_set_enable(ring, DC_SITE_MAX, 1), -EINVAL);
	assert_int_equal(dc_ring_set_threshold(ring, DC_SITE_MAX, 1), -EINVAL);
	assert_int_equal(f.control->watcher_pid, 77);
	assert_int_equal(f.control->window_units, 1000);
	assert_int_equal(f.control->hold_from_units, 5);
	assert_int_equal(f.control->hold_until_units, 9);
	assert_int_equal(f.control->enable[3], DC_ENABLE_OFF);
	assert_true(f.control->threshold[4] == ~UINT64_C(123));
	assert_int_equal(dc_ring_set_threshold(ring, 4, 0), 0);
	assert_true(f.control->threshold[4] == 0);
	ringfile_remove(&f);
}

static void test_usage_counts(void **state)
{
	/* Events, lanes, memory and the true window are what was recorded, before and after the ring wrapped. */
	struct ringfile f;
	struct ringfile_writer w;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	struct dc_ring_usage u;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	ringfile_writer_init(&w, &f, 0);
	for (unsigned i = 0; i < 1000; i++)
		assert_true(ringfile_event(&w));
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	assert_int_equal(dc_ring_usage(ring, &u), 0);
	assert_int_equal(u.events, 1000);
	assert_int_equal(u.lanes, 1);
	assert_true(u.whole);
	assert_true(u.memory_bytes > 0 && u.memory_bytes <= u.cap_bytes);
	assert_int_equal(u.wanted_window_ns, INT64_C(30000000000));
	for (unsigned i = 0; i < 16 * 500; i++)
		assert_true(ringfile_event(&w));
	usleep(50000);
	assert_int_equal(dc_ring_usage(ring, &u), 0);
	assert_int_equal(u.events, 9000);
	assert_false(u.whole);
	assert_true(u.window_ns >= 30000000 && u.window_ns < INT64_C(5000000000));
	ringfile_remove(&f);
}

static void test_wanted_window(void **state)
{
	/*
	 * The wanted window is exact while the guest knows no tick rate yet, follows dc_window(), and a
	 * watcher's wish goes first.
	 */
	struct ringfile f;
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	struct dc_ring_usage u;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, dir, 16, 4096);
	f.header->window_units = 0;
	f.header->window_ns = 12345678901;
	assert_int_equal(dc_ring_open(dir_fd, f.name, &ring, why), 0);
	assert_int_equal(dc_ring_usage(ring, &u), 0);
	assert_int_equal(u.wanted_window_ns, 12345678901);
	f.header->window_ns = 7000000001;
	assert_int_equal(dc_ring_usage(ring, &u), 0);
	assert_int_equal(u.wanted_window_ns, 7000000001);
	assert_int_equal(dc_ring_set_window(ring, 1, UINT64_C(60000000000) >> 2), 0);
	assert_int_equal(dc_ring_usage(ring, &u), 0);
	assert_int_equal(u.wanted_window_ns, 60000000000);
	assert_int_equal(dc_ring_set_window(ring, 0, 0), 0);
	f.header->window_ns = UINT64_MAX; /* a lie: as long as can be, never negative */
	assert_int_equal(dc_ring_usage(ring, &u), 0);
	assert_true(u.wanted_window_ns == INT64_MAX);
	ringfile_remove(&f);
}

static void test_names(void **state)
{
	/* Ring names are taken only exactly as guests write them. */
	static const char *const bad[] = {
		"",
		"1.2.ring",
		"0.2.00000000.ring",
		"1.2.0000000g.ring",
		"1.2.00000000.ringx",
		"01.2.00000000.ring",
		"1..00000000.ring",
		"-1.2.00000000.ring",
		"1.2.00000000",
		"4294967296.2.00000000.ring",
		"1.18446744073709551616.00000000.ring",
		"1.2.0000000A.ring",
	};
	struct dc_ring_name n;
	char text[DC_RING_NAME_BYTES];

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(dc_ring_name_parse(bad[i], &n), -EINVAL);
	assert_int_equal(dc_ring_name_parse("4242.18446744073709551615.00c0ffee.ring", &n), 0);
	assert_int_equal(n.pid, 4242);
	assert_true(n.start_time == UINT64_MAX);
	assert_int_equal(n.random, 0xc0ffee);
	dc_ring_name_format(&n, text);
	assert_string_equal(text, "4242.18446744073709551615.00c0ffee.ring");
	assert_int_equal(dc_rings_run_parse("run.77"), 77);
	assert_int_equal(dc_rings_run_parse("run.77x"), 0);
	assert_int_equal(dc_rings_run_parse("run."), 0);
}

static void test_directories(void **state)
{
	/* A missing, a world-writable and a foreign directory are refused, each with a line that says what to do. */
	char why[DC_WHY_BYTES], path[256];
	int fd = -1;

	(void)state;
	snprintf(path, sizeof(path), "%s/none", dir);
	assert_int_equal(dc_rings_open(path, false, &fd, why), -ENOENT);
	assert_non_null(strstr(why, "does not exist"));
	assert_int_equal(dc_rings_open(path, true, &fd, why), 0);
	close(fd);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(dc_rings_open(path, false, &fd, why), -EACCES);
	assert_non_null(strstr(why, "chmod"));
	assert_int_equal(chmod(path, 01777), 0);
	assert_int_equal(dc_rings_open(path, false, &fd, why), 0);
	close(fd);
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 12345, 12345), 0);
		assert_int_equal(chmod(dir, 0711), 0);
		assert_int_equal(seteuid(23456), 0);
		assert_int_equal(dc_rings_open(path, false, &fd, why), -EPERM);
		assert_int_equal(seteuid(0), 0);
		assert_non_null(strstr(why, "belongs to uid 12345"));
	}
	rmdir(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_ring_opens),
		cmocka_unit_test(test_lock_tells_life),
		cmocka_unit_test(test_look_clamps),
		cmocka_unit_test(test_layout_is_the_one_of_open),
		cmocka_unit_test(test_not_a_ring),
		cmocka_unit_test(test_lying_headers),
		cmocka_unit_test(test_truncated_while_open),
		cmocka_unit_test(test_glances),
		cmocka_unit_test(test_foreign_ring_is_unverified),
		cmocka_unit_test(test_triggers_by_number),
		cmocka_unit_test(test_control_reaches_the_guest),
		cmocka_unit_test(test_usage_counts),
		cmocka_unit_test(test_wanted_window),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_directories),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
