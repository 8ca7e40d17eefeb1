/* SPDX-License-Identifier: MIT */
/*
 * Where and how the recorder starts, and above all where it does not: bad directories, small limits, full
 * file systems, switched off by the user. Then it is off, the app runs as if it were not there, and an event
 * costs next to nothing.
 */
#include "tests/guests.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "recorder/dashcam.h"
#include "tests/scratch.h"

static char place[128];

static void everything(void)
{
	char name[32] = "runtime";
	for (int i = 0; i < 1000; i++) {
		DC_SPAN("span", "i", i, "s", "text");
		DC_INSTANT("instant");
		DC_LOG(DC_INFO, "%d", i);
		DC_COUNTER("counter", i);
		DC_FLOW_OUT(i);
		DC_TRACE_CONTEXT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
		DC_STACK("stack");
		dc_instant(dc_site_new(DC_SITE_INSTANT, name));
		dc_thread_name("name");
	}
	DC_TRIGGER("trigger", "n", 1);
}

/* Off: dc_start() said @error, everything does nothing, errno stays, and an instant is a matter of nanoseconds. */
static void expect_off(int error)
{
	struct dc_stats stats = {.size = sizeof stats};
	struct timespec from, to;
	errno = 4711;
	everything();
	NEED(errno == 4711);
	NEED(dc_stats(&stats) == -ESRCH);
	NEED(dc_stop() == -ESRCH);
	NEED(dc_start(NULL) == error);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
	for (int i = 0; i < 1000000; i++)
		DC_INSTANT("off", "i", i);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
	long ns = (to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec;
	NEED(GUEST_SANITIZED ||
	     ns < 30 * 1000000); /* two loads and a branch; 30 ns leave room for emulators */
}

static void off_eperm(void *arg)
{
	(void)arg;
	expect_off(-EPERM);
}

static void off_enoent(void *arg)
{
	(void)arg;
	expect_off(-ENOENT);
}

static void off_enotdir(void *arg)
{
	(void)arg;
	expect_off(-ENOTDIR);
}

static void off_enospc(void *arg)
{
	(void)arg;
	expect_off(-ENOSPC);
}

static void off_toolong(void *arg)
{
	(void)arg;
	expect_off(-ENAMETOOLONG);
}

static void use_place(const char *name)
{
	snprintf(place, sizeof place, "%s/%s", guest_dir(), name);
	setenv("DASHCAM_DIR", place, 1);
}

static void no_rings(void)
{
	static struct guest_rings rings;
	guest_rings(&rings);
	assert_int_equal(rings.count, 0);
}

/* Claim: a ring directory that is missing, a file, a link, or open to others without being sticky is not used. */
static void test_bad_directories(void **state)
{
	char target[160];
	(void)state;
	use_place("a/b");
	assert_int_equal(guest_run(off_enoent, NULL), 0);
	use_place("file");
	close(open(place, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(guest_run(off_enotdir, NULL), 0);
	unlink(place);
	use_place("link");
	snprintf(target, sizeof target, "%s/target", guest_dir());
	mkdir(target, 0700);
	assert_int_equal(symlink(target, place), 0);
	assert_int_equal(guest_run(off_enotdir, NULL), 0);
	unlink(place);
	setenv("DASHCAM_DIR", target, 1);
	chmod(target, 0777);
	assert_int_equal(guest_run(off_eperm, NULL), 0);
	chmod(target, 0770);
	assert_int_equal(guest_run(off_eperm, NULL), 0);
	if (geteuid() == 0) {
		chmod(target, 0700);
		assert_int_equal(chown(target, 12345, 12345), 0);
		assert_int_equal(guest_run(off_eperm, NULL), 0);
	}
	rmdir(target);
	setenv("DASHCAM_DIR",
	       "/dev/shm/a/name/that/is/longer/than/any/ring/directory/needs/to/be/and/then/some/more/of/it",
	       1);
	assert_int_equal(guest_run(off_toolong, NULL), 0);
	setenv("DASHCAM_DIR", guest_dir(), 1);
	no_rings();
}

static void sticky(void *arg)
{
	(void)arg;
	DC_INSTANT("here");
}

/* Claim: a world-writable directory is good when it is sticky, and a missing one is made when its parent is there. */
static void test_good_directories(void **state)
{
	static struct guest_rings rings;
	struct stat st;
	(void)state;
	guest_dir();
	chmod(guest_dir(), 01777);
	assert_int_equal(guest_run(sticky, NULL), 0);
	guest_only(&rings);
	assert_int_equal(stat(rings.ring[0].path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	guest_rings_free(&rings);
	use_place("made");
	assert_int_equal(guest_run(sticky, NULL), 0);
	assert_int_equal(stat(place, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	char command[200];
	snprintf(command, sizeof command, "rm -r %s", place);
	assert_int_equal(system(command), 0);
	setenv("DASHCAM_DIR", guest_dir(), 1);
}

static void print_settings(void *arg)
{
	const uint64_t *expected = arg;
	struct dc_stats stats = {.size = sizeof stats};
	DC_INSTANT("here");
	NEED(dc_stats(&stats) == 0);
	if (stats.cap_bytes > expected[0] || stats.cap_bytes < expected[0] / 10 * 9 ||
	    stats.wanted_window_ns != expected[1])
		fprintf(stderr, "cap %llu, window %llu\n", (unsigned long long)stats.cap_bytes,
			(unsigned long long)stats.wanted_window_ns);
	NEED(stats.cap_bytes <= expected[0] && stats.cap_bytes >= expected[0] / 10 * 9);
	NEED(stats.wanted_window_ns == expected[1]);
}

/* Claim: DASHCAM_MEMORY and DASHCAM_WINDOW take sizes and times; what is not understood leaves the default. */
static void test_environment(void **state)
{
	static const struct {
		const char *memory, *window;
		uint64_t expected[2];
	} cases[] = {
		{"8MiB", "5s", {8 << 20, 5000000000}},
		{"8388608", "1.5", {8 << 20, 1500000000}},
		{"0.5GiB", "250ms", {512 << 20, 250000000}},
		{"16M", "2m", {16 << 20, 120000000000}},
		{"", "", {64 << 20, 30000000000}},
		{"-1", "-5s", {64 << 20, 30000000000}},
		{"64 MiB", "30 s", {64 << 20, 30000000000}},
		{"99999999999999999999999", "99999999999999999999h", {64 << 20, 30000000000}},
		{"18446744073709551615", "5000000h", {64 << 20, 30000000000}},
		{"eight", "soon", {64 << 20, 30000000000}},
		{".", ".s", {64 << 20, 30000000000}},
		{"%n%s", "\xff\xfe", {64 << 20, 30000000000}},
		{"0", "0", {64 << 20, 30000000000}},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		setenv("DASHCAM_MEMORY", cases[i].memory, 1);
		setenv("DASHCAM_WINDOW", cases[i].window, 1);
		if (guest_run(print_settings, (void *)cases[i].expected) != 0)
			fail_msg("DASHCAM_MEMORY='%s' DASHCAM_WINDOW='%s'", cases[i].memory, cases[i].window);
	}
	unsetenv("DASHCAM_MEMORY");
	unsetenv("DASHCAM_WINDOW");
}

/* Claim: DASHCAM=0 is off, and so is a cap that holds nothing; any other value of DASHCAM is on. */
static void test_off(void **state)
{
	(void)state;
	guest_dir();
	setenv("DASHCAM", "0", 1);
	assert_int_equal(guest_run(off_eperm, NULL), 0);
	setenv("DASHCAM", "1", 1);
	setenv("DASHCAM_MEMORY", "1KiB", 1);
	assert_int_equal(guest_run(off_enospc, NULL), 0);
	unsetenv("DASHCAM_MEMORY");
	no_rings();
	assert_int_equal(guest_run(sticky, NULL), 0);
	unsetenv("DASHCAM");
}

static void small_files(void *arg)
{
	struct rlimit limit = {3 << 20, RLIM_INFINITY};
	struct dc_stats stats = {.size = sizeof stats};
	(void)arg;
	NEED(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	everything();
	NEED(dc_stats(&stats) == 0 && stats.cap_bytes <= 3 << 20);
	for (int i = 0; i < 1000000; i++)
		DC_INSTANT("on", "i", i);
}

static void tiny_files(void *arg)
{
	struct rlimit limit = {64 << 10, RLIM_INFINITY};
	(void)arg;
	NEED(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	expect_off(-ENOSPC);
}

/* Claim: RLIMIT_FSIZE bounds the ring, or switches it off; it never kills. */
static void test_file_limit(void **state)
{
	(void)state;
	assert_int_equal(guest_run(small_files, NULL), 0);
	guest_clean();
	assert_int_equal(guest_run(tiny_files, NULL), 0);
}

static void locked(void *arg)
{
	size_t limit_bytes = (size_t)(uintptr_t)arg;
	struct rlimit limit;
	NEED(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	if (limit_bytes > limit.rlim_max)
		limit_bytes = limit.rlim_max;
	limit.rlim_cur = limit.rlim_max = limit_bytes;
	NEED(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	if (geteuid() == 0)
		NEED(setresuid(54321, 54321, 54321) == 0); /* root may lock all it wants */
	NEED(mlockall(MCL_FUTURE) == 0);
	everything();
	/* what is left is the app's: most of it */
	void *at = mmap(NULL, limit_bytes / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(at != MAP_FAILED);
}

/* Claim: under mlockall(MCL_FUTURE) the recorder takes little of what may be locked, or nothing. */
static void test_locked(void **state)
{
	(void)state;
	if (GUEST_SANITIZED || guest_emulated())
		skip();
	guest_dir();
	chmod(guest_dir(), 01777);
	assert_int_equal(guest_run(locked, (void *)(64 << 20)), 0);
	assert_int_equal(guest_run(locked, (void *)(8 << 20)), 0);
	assert_int_equal(guest_run(locked, (void *)(1 << 20)), 0);
	assert_int_equal(guest_run(locked, (void *)(128 << 10)), 0);
}

/* In place of the guest's directory, for the calling process only. */
static bool mount_tmpfs(const char *options)
{
	return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("none", guest_dir(), "tmpfs", 0, options) == 0;
}

static void on_small_tmpfs(void *arg)
{
	struct dc_stats stats = {.size = sizeof stats};
	const char *options = arg;
	if (!mount_tmpfs(options))
		_exit(77);
	everything();
	NEED(dc_stats(&stats) == 0 && stats.cap_bytes <= 16 << 20);
	/* somebody else fills it while we record */
	char path[SCRATCH_BYTES + 8];
	snprintf(path, sizeof path, "%s/hog", guest_dir());
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	static char page[1 << 20];
	while (write(fd, page, sizeof page) > 0)
		continue;
	while (write(fd, page, 4096) > 0)
		continue;
	for (int i = 0; i < 3000000; i++)
		DC_INSTANT("on", "i", i, "text", "text");
	char name[32];
	for (int i = 0; i < 3000; i++) { /* tables want pages too */
		snprintf(name, sizeof name, "site %d", i);
		DC_END(dc_begin(dc_site_new(DC_SITE_SPAN, name)));
	}
	everything();
	NEED(dc_stats(&stats) == 0 && stats.dropped == 0);
}

static void on_full_tmpfs(void *arg)
{
	static char page[4096];
	char path[SCRATCH_BYTES + 8];
	(void)arg;
	if (!mount_tmpfs("size=4m"))
		_exit(77);
	snprintf(path, sizeof path, "%s/hog", guest_dir());
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	while (write(fd, page, sizeof page) > 0)
		continue;
	expect_off(-ENOSPC);
	NEED(ftruncate(fd, 0) == 0);
	NEED(dc_start(NULL) == 0); /* now there is room */
	everything();
}

/* Claim: on a tmpfs of 64 MiB that fills up the recorder goes on in what it has; on a full one it is off. No SIGBUS. */
static void test_tmpfs(void **state)
{
	(void)state;
	if (guest_emulated())
		skip();
	int status = guest_run(on_small_tmpfs, (void *)"size=64m");
	if (status == 77) {
		print_message("no right to mount a tmpfs\n");
		skip();
	}
	assert_int_equal(status, 0);
	assert_int_equal(guest_run(on_full_tmpfs, NULL), 0);
}

static void outlived(void *arg)
{
	struct dc_stats stats = {.size = sizeof stats};
	(void)arg;
	for (int i = 0; i < 3000000; i++)
		DC_INSTANT("many", "i", i);
	NEED(dc_stats(&stats) == 0);
	NEED(stats.true_window_ns <
	     60000000000); /* in steps of some 10 ms: 0 where the ring turns over faster */
	uint64_t was = stats.true_window_ns;
	usleep(300000);
	NEED(dc_stats(&stats) == 0 && stats.true_window_ns > was + 250000000);
}

/* Claim: the true window is the time of which everything is there, and it grows with time until more is overwritten. */
static void test_true_window(void **state)
{
	(void)state;
	setenv("DASHCAM_MEMORY", "4MiB", 1);
	assert_int_equal(guest_run(outlived, NULL), 0);
	unsetenv("DASHCAM_MEMORY");
}

int main(void)
{
	umask(022);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_bad_directories, guest_teardown),
		cmocka_unit_test_teardown(test_good_directories, guest_teardown),
		cmocka_unit_test_teardown(test_environment, guest_teardown),
		cmocka_unit_test_teardown(test_off, guest_teardown),
		cmocka_unit_test_teardown(test_file_limit, guest_teardown),
		cmocka_unit_test_teardown(test_locked, guest_teardown),
		cmocka_unit_test_teardown(test_tmpfs, guest_teardown),
		cmocka_unit_test_teardown(test_true_window, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
