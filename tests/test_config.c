/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/config.h"

struct sample {
	int64_t window;
	uint64_t disk;
	const char *out;
	const char *settle;
	bool pwrite;
	const char *config;
};

static const struct option table[] = {
	{.name = "window",
	 .type = OPTION_TIME,
	 .at = offsetof(struct sample, window),
	 .value = "T",
	 .fallback = "30s"},
	{.name = "disk", .type = OPTION_SIZE, .at = offsetof(struct sample, disk), .value = "S"},
	{.name = "out", .type = OPTION_DIR, .at = offsetof(struct sample, out), .value = "DIR"},
	{.name = "settle",
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct sample, settle),
	 .value = "yes|no",
	 .choices = "yes|no"},
	{.name = "pwrite", .type = OPTION_FLAG, .at = offsetof(struct sample, pwrite)},
	{.name = "config",
	 .type = OPTION_FILE,
	 .at = offsetof(struct sample, config),
	 .value = "F",
	 .not_in_file = true},
	{0},
};

static const struct command sample = {
	.name = "watch", .options = table, .options_size = sizeof(struct sample)};

static struct sample values;
static struct config config;
static char said[1024];

static int load_file(const char *path)
{
	FILE *f = tmpfile();
	int old = dup(2), r;

	assert_non_null(f);
	fflush(stderr);
	dup2(fileno(f), 2);
	config_cleanup(&config);
	command_defaults(&sample, &values);
	r = config_load(&config, path, &sample, &values);
	fflush(stderr);
	dup2(old, 2);
	close(old);
	rewind(f);
	said[fread(said, 1, sizeof(said) - 1, f)] = '\0';
	fclose(f);
	return r;
}

static int load(const char *text, size_t length)
{
	char path[] = "/tmp/test_config.XXXXXX";
	int fd = mkstemp(path), r;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, length), (ssize_t)length);
	close(fd);
	r = load_file(path);
	unlink(path);
	return r;
}

#define LOAD(text) load(text, sizeof(text) - 1)

/* Every type of option can be set; what is not mentioned keeps its default; the texts outlive the file. */
static void test_loads(void **state)
{
	(void)state;
	assert_int_equal(
		LOAD("# comment\n; comment\n\n[watch]\ndisk = 20GiB\nout=/x y\nsettle : no\npwrite = Yes\n"),
		0);
	assert_string_equal(said, "");
	assert_int_equal(values.window, 30000000000);
	assert_int_equal(values.disk, UINT64_C(20) << 30);
	assert_string_equal(values.out, "/x y");
	assert_string_equal(values.settle, "no");
	assert_true(values.pwrite);
	assert_int_equal(LOAD(""), 0);
	assert_int_equal(LOAD("[watch]\nwindow = 1m30s"), 0);
	assert_int_equal(values.window, 90000000000);
}

static void expect_refusal(int r, const char *words)
{
	assert_int_equal(r, -EINVAL);
	if (!strstr(said, words))
		fail_msg("expected '%s', got '%s'", words, said);
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

/* The first wrong line is named, with its number, what was found and what was expected. */
static void test_refuses(void **state)
{
	char long_line[400] = "[watch]\nout = ";

	(void)state;
	expect_refusal(LOAD("[watch]\nwindow = 30\nnonsense = 1\n"),
		       "line 2: window: '30' was not understood, expected a time");
	expect_refusal(LOAD("[watch]\n\n\nwinodw = 30s\n"),
		       "line 4: unknown key 'winodw' (did you mean 'window'?)");
	expect_refusal(LOAD("[watch]\nconfig = x\n"), "line 2: unknown key 'config'");
	expect_refusal(LOAD("[wacth]\nwindow = 30s\n"), "line 2: unknown section [wacth], expected [watch]");
	expect_refusal(LOAD("window = 30s\n"), "line 1: unknown section []");
	expect_refusal(LOAD("[watch\n"), "line 1: was not understood");
	expect_refusal(LOAD("[watch]\njust words\n"), "line 2: was not understood");
	expect_refusal(LOAD("[watch]\nsettle = maybe\n"),
		       "line 2: settle: 'maybe' is not known, expected one of yes|no");
	expect_refusal(LOAD("[watch]\npwrite = maybe\n"),
		       "line 2: pwrite: 'maybe' was not understood, expected yes or no");
	expect_refusal(LOAD("[watch]\ndisk = -1GiB\n"), "is negative");
	expect_refusal(LOAD("[watch]\nout = a\0b\n"), "line 2: holds a NUL byte");
	memset(long_line + strlen(long_line), 'x', 300);
	expect_refusal(load(long_line, strlen(long_line)), "line 2: is too long");
}

/* A file that cannot be read is said to be so. */
static void test_unreadable(void **state)
{
	(void)state;
	assert_int_equal(load_file("/nonexistent/dashcam.conf"), -ENOENT);
	assert_non_null(strstr(said, "No such file"));
	assert_int_equal(load_file("/tmp"), -EISDIR);
	assert_non_null(strstr(said, "Is a directory"));
}

static int teardown(void **state)
{
	(void)state;
	config_cleanup(&config);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loads),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
