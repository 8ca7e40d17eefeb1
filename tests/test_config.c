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

#include "tools/rules.h"

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
static struct dc_rules rules;
static bool with_defaults;
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
	struct rule_source *source = rule_source_new(NULL, NULL);
	struct config_kind kinds[] = {{.command = &sample, .values = &values}, rule_source_kind(source), {0}};
	r = config_load(&config, path, kinds);
	dc_rules_cleanup(&rules);
	if (r == 0)
		r = rule_source_take(source, with_defaults, 49, &rules);
	rule_source_free(source);
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
	expect_refusal(LOAD("[wacth]\nwindow = 30s\n"), "line 2: unknown section [wacth], expected [watch] or [rule NAME]");
	expect_refusal(LOAD("window = 30s\n"), "line 1: a key before any section, expected [watch] or [rule NAME]");
	expect_refusal(LOAD("[watch]\n[wacth]\n"), "line 2: unknown section [wacth], expected");
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

/* A rule is a section of its own, whatever stands between; its text may go on in lines that begin with a blank. */
static void test_rules(void **state)
{
	const struct dc_rule *r;

	(void)state;
	assert_int_equal(LOAD("[rule slow-pay]\nwhen = span \"http.request\"\n    where route == \"/pay\"\n\t> 250ms\n"
			      "processes = checkout*\nlast = 1m\nafter = 0s\ncooldown = 5s\nper-hour = 0\nscope = group\n"
			      "severity = high\nrun = mail -s slow me@example.org\nrun-limit = 3s\nsample = 999\nsample-for = 1m\n"
			      "[watch]\nwindow = 1m\n[rule other]\nwhen=exec\ncapture = no\n"),
			 0);
	assert_string_equal(said, "");
	assert_int_equal(values.window, 60000000000);
	assert_int_equal(rules.count, 2);
	r = &rules.rules[0];
	assert_string_equal(r->name, "slow-pay");
	assert_string_equal(r->when.text, "span \"http.request\" where route == \"/pay\" > 250ms");
	assert_int_equal(r->when.where_count, 1);
	assert_string_equal(r->processes, "checkout*");
	assert_true(r->last_ns == 60000000000 && r->after_ns == 0 && r->cooldown_ns == 5000000000 && r->per_hour == 0);
	assert_true(r->scope == DC_RULE_SCOPE_GROUP && r->severity == 3 && r->capture && !r->quiet);
	assert_string_equal(r->run, "mail -s slow me@example.org");
	assert_true(r->run_limit_ns == 3000000000 && r->sample_hz == 999 && r->sample_for_ns == 60000000000);
	r = &rules.rules[1];
	assert_string_equal(r->name, "other");
	assert_true(r->last_ns < 0 && r->after_ns < 0 && r->cooldown_ns < 0 && r->per_hour < 0 && !r->capture && r->severity == 2);
}

/* A rule that ships is changed by a section of its name: what is not said stays. Another rule comes behind those that ship. */
static void test_default_rules(void **state)
{
	const struct dc_rule *r;

	(void)state;
	with_defaults = true;
	assert_int_equal(LOAD("[rule mine]\nwhen = exec\n[rule default.unusual]\nper-hour = 1\n"), 0);
	assert_true(rules.count >= 5);
	r = &rules.rules[rules.count - 2];
	assert_string_equal(r[0].name, "mine");
	assert_string_equal(r[1].name, "default.unusual");
	assert_non_null(strstr(r[1].when.text, "unusual"));
	assert_true(r[1].per_hour == 1 && r[1].cooldown_ns > 0);
	assert_int_equal(LOAD("[rule default.unusual]\nwhen = exec\n"), 0);
	assert_string_equal(rules.rules[rules.count - 1].when.text, "exec");
	with_defaults = false;
}

/* Of a rule that is wrong its line is named, and of its text the column. */
static void test_wrong_rules(void **state)
{
	(void)state;
	expect_refusal(LOAD("\n[rule a]\nwhen = exec\n[rule b]\nseverity = low\nwhen = span \"x\" > 250\n[watch]\nwindow = 1m\n"),
		       "line 4: rule 'b', column 12: expected a time such as 250ms or 30s, found '250'");
	expect_refusal(LOAD("[rule a]\nwhen = exec\n[rule b]\nwhen = cpu > 5"), "line 3: rule 'b', column 7: expected a percentage");
	expect_refusal(LOAD("[rule a]\nseverity = low\n"), "line 1: rule 'a' has no key 'when'");
	expect_refusal(LOAD("[rule a]\nwhen = exec\n[rule b]\n[watch]\n"), "line 3: section [rule b] has no key");
	expect_refusal(LOAD("[rule a]\nwhen = exec\n\n[rule a]\nwhen = exec\n"),
		       "line 4: section [rule a] is there already, in line 1");
	expect_refusal(LOAD("[rule a]\nwhen = exec\nscop = all\n"), "line 3: unknown key 'scop' (did you mean 'scope'?)");
	expect_refusal(LOAD("[rule a]\nwhen = exec\nseverity = huge\n"), "line 3: severity: 'huge' is not known");
	expect_refusal(LOAD("[rule default.unsual]\nwhen = exec\n"), "(did you mean 'default.unusual'?)");
	expect_refusal(LOAD("[rule a b]\nwhen = exec\n"), "expected a name of one word");
	expect_refusal(LOAD("[rule]\nwhen = exec\n"), "unknown section [rule], expected [watch] or [rule NAME]");
	expect_refusal(LOAD("[rule a2345678901234567890123456789012345678901234567890]\nwhen = exec\n"), "at most 49 bytes");
	expect_refusal(LOAD("[rule a]\nwhen = exec\nper-hour = -1\n"), "is negative");
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
	dc_rules_cleanup(&rules);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loads),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_default_rules),
		cmocka_unit_test(test_wrong_rules),
		cmocka_unit_test(test_unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
