/* SPDX-License-Identifier: MIT */
/* Commands of rules: they get the incident and little else, end in time, and never hold anybody up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "trigger/command.h"
#include "ipc/now.h"
#include "trigger/proc.h"

#define SECOND INT64_C(1000000000)

static char dir[64], said[512];
static struct dc_commands *commands;

static void on_log(void *arg, const char *line)
{
	(void)arg;
	strncat(said, line, sizeof(said) - strlen(said) - 2);
	strcat(said, "\n");
}

static int setup(void **state)
{
	(void)state;
	said[0] = '\0';
	strcpy(dir, "/tmp/dccommand.XXXXXX");
	return mkdtemp(dir) && chmod(dir, 0777) == 0 ? dc_commands_new(on_log, NULL, &commands) : -1;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	dc_commands_free(commands);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* @text with the directory for each % in it. */
static int run(const char *text, int64_t limit_ns, const char *input)
{
	struct dc_command c = {
		.rule = "slow-pay", .pid = 4711, .uid = 12345, .gid = 12346, .limit_ns = limit_ns, .input = input, .input_bytes = strlen(input)};
	char whole[512] = "";

	for (const char *p = text; *p; p++) {
		if (*p == '%')
			strcat(whole, dir);
		else
			strncat(whole, p, 1);
	}
	c.text = whole;
	return dc_commands_run(commands, &c, dc_now_ns());
}

static void until_ended(void)
{
	for (int i = 0; i < 1000 && dc_commands_tick(commands, dc_now_ns()); i++)
		usleep(5000);
	assert_int_equal(dc_commands_tick(commands, dc_now_ns()), 0);
}

static void wrote(const char *file, char text[static 4096])
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "re");
	assert_non_null(f);
	text[fread(text, 1, 4095, f)] = '\0';
	fclose(f);
}

static void test_what_it_gets(void **state)
{
	/* The incident on standard input; an environment that says which rule and whom; no descriptor of ours. */
	char text[4096], expected[32];
	int ours = dup(2);

	(void)state;
	setenv("SECRET_OF_THE_WATCHER", "hunter2", 1);
	assert_int_equal(run("cat >%/in; env >%/env; ls /proc/self/fd >%/fds; exit 7",
			     10 * SECOND, "{\"rule\":\"slow-pay\"}"), 0);
	until_ended();
	assert_string_equal(said, "rule 'slow-pay': its command ended with status 7\n");
	wrote("in", text);
	assert_string_equal(text, "{\"rule\":\"slow-pay\"}");
	wrote("env", text);
	assert_non_null(strstr(text, "DASHCAM_RULE=slow-pay\n"));
	assert_non_null(strstr(text, "DASHCAM_PID=4711\n"));
	assert_non_null(strstr(text, "DASHCAM=0\n"));
	assert_null(strstr(text, "hunter2"));
	wrote("fds", text);
	snprintf(expected, sizeof(expected), "%d\n", ours);
	assert_null(ours > 3 ? strstr(text, expected) : NULL);
	assert_true(strlen(text) <= strlen("0\n1\n2\n3\n"));
	close(ours);
}

static void test_whose_it_is(void **state)
{
	/* Started by root it is the process's user, and nobody's group but that user's; and it can gain nothing. */
	char text[4096];

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(run("id -u >%/id; id -G >>%/id; grep NoNewPrivs /proc/self/status >>%/id", 10 * SECOND, ""), 0);
	until_ended();
	wrote("id", text);
	assert_string_equal(text, "12345\n12346\nNoNewPrivs:\t1\n");
}

static void test_hangs(void **state)
{
	/* One that hangs is killed when its time is over, with all that it started; nobody waited for it. */
	const int64_t began = dc_now_ns();
	struct dc_proc_stat st;
	char text[4096];

	(void)state;
	assert_int_equal(run("sleep 1000 & echo $! >%/pid; trap '' TERM HUP INT; wait", SECOND / 5, ""), 0);
	assert_true(dc_now_ns() - began < SECOND);
	until_ended();
	assert_string_equal(said, "rule 'slow-pay': its command did not end in time and was killed\n");
	wrote("pid", text);
	assert_true(dc_proc_stat((uint32_t)atoi(text), &st) < 0 || st.state == 'Z' || st.state == 'X');
}

static void test_few_at_once(void **state)
{
	/* So many run at once; further ones are refused until one has ended. A command that is none says so by its status. */
	(void)state;
	for (unsigned i = 0; i < DC_COMMANDS_MAX; i++)
		assert_int_equal(run("sleep 0.1", 10 * SECOND, ""), 0);
	assert_int_equal(run("true", 10 * SECOND, ""), -EBUSY);
	until_ended();
	said[0] = '\0';
	assert_int_equal(run("%/none", 10 * SECOND, ""), 0);
	until_ended();
	assert_string_equal(said, "rule 'slow-pay': its command ended with status 127\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_it_gets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_whose_it_is, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hangs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_few_at_once, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
