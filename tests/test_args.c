/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/command.h"

struct sample {
	bool json;
	const char *name;
	const char *format;
	struct texts args;
	uint64_t memory;
	int64_t window;
	uint64_t pid;
	uint64_t hz;
	struct moment from;
};

static const struct option sample_table[] = {
	{.name = "json", .type = OPTION_FLAG, .at = offsetof(struct sample, json), .help = "print JSON"},
	{.name = "name",
	 .type = OPTION_TEXT,
	 .at = offsetof(struct sample, name),
	 .value = "NAME",
	 .help = "n",
	 .letter = 'n'},
	{.name = "format",
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct sample, format),
	 .value = "F",
	 .help = "f",
	 .choices = "jsonl|chrome"},
	{.name = "arg", .type = OPTION_TEXTS, .at = offsetof(struct sample, args), .value = "A", .help = "a"},
	{.name = "memory",
	 .type = OPTION_SIZE,
	 .at = offsetof(struct sample, memory),
	 .value = "SIZE",
	 .help = "m",
	 .fallback = "64MiB",
	 .min = 65536,
	 .max = UINT64_C(1) << 40},
	{.name = "window",
	 .type = OPTION_TIME,
	 .at = offsetof(struct sample, window),
	 .value = "TIME",
	 .help = "w",
	 .fallback = "30s"},
	{.name = "pid",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct sample, pid),
	 .value = "PID",
	 .help = "p",
	 .min = 1},
	{.name = "hz",
	 .type = OPTION_COUNT,
	 .at = offsetof(struct sample, hz),
	 .value = "HZ|off",
	 .help = "h",
	 .fallback = "49",
	 .or_off = true},
	{.name = "from",
	 .type = OPTION_MOMENT,
	 .at = offsetof(struct sample, from),
	 .value = "M",
	 .help = "f"},
	{0},
};

static struct command sample = {
	.name = "sample",
	.summary = "test",
	.usage = "FILE",
	.about = "Tests.",
	.options = sample_table,
	.options_size = sizeof(struct sample),
	.operand = OPERAND_CAPTURE,
	.operands_max = 2,
};

static struct sample values;
static struct operands operands;
static char said[512];

/* Parses with stderr caught in @said. */
static int parse(char **argv)
{
	FILE *f = tmpfile();
	int old = dup(2), r;
	size_t n;

	assert_non_null(f);
	fflush(stderr);
	dup2(fileno(f), 2);
	say_as("sample");
	command_defaults(&sample, &values);
	free(operands.items);
	operands = (struct operands){0};
	r = command_parse(&sample, argv, &values, &operands);
	fflush(stderr);
	dup2(old, 2);
	close(old);
	rewind(f);
	n = fread(said, 1, sizeof(said) - 1, f);
	said[n] = '\0';
	fclose(f);
	return r;
}

#define PARSE(...) parse((char *[]){__VA_ARGS__, NULL})

/* Every type is stored, in both spellings, between operands. */
static void test_stores(void **state)
{
	(void)state;
	assert_int_equal(PARSE("one", "--json", "--name=x", "--format", "chrome", "--arg", "a", "--arg=b",
			       "--memory", "1GiB", "two", "--window=500ms", "--pid", "7", "--from", "-5s"),
			 0);
	assert_true(values.json);
	assert_string_equal(values.name, "x");
	assert_string_equal(values.format, "chrome");
	assert_int_equal(values.args.count, 2);
	assert_string_equal(values.args.items[1], "b");
	assert_int_equal(values.memory, 1u << 30);
	assert_int_equal(values.window, 500000000);
	assert_int_equal(values.pid, 7);
	assert_int_equal(values.from.ns, -5000000000);
	assert_int_equal(operands.count, 2);
	assert_string_equal(operands.items[1], "two");
	assert_int_equal(PARSE("-nshort"), 0);
	assert_string_equal(values.name, "short");
}

/* Defaults hold where nothing is said; "--" ends the options; "-" is an operand. */
static void test_defaults_and_ends(void **state)
{
	(void)state;
	assert_int_equal(PARSE("-", "--", "--json"), 0);
	assert_false(values.json);
	assert_int_equal(values.memory, 64u << 20);
	assert_int_equal(values.window, 30000000000);
	assert_string_equal(operands.items[0], "-");
	assert_string_equal(operands.items[1], "--json");
}

/* Options of the program to run are not ours, even without "--". */
static void test_command_operands(void **state)
{
	(void)state;
	sample.operand = OPERAND_COMMAND;
	sample.operands_max = 9;
	assert_int_equal(PARSE("--json", "ls", "--name", "-l"), 0);
	assert_int_equal(operands.count, 3);
	assert_null(values.name);
	sample.operand = OPERAND_CAPTURE;
	sample.operands_max = 2;
}

static void expect_refusal(int r, const char *words)
{
	assert_int_equal(r, -EINVAL);
	assert_non_null(strstr(said, words));
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1); /* one line */
	assert_int_equal(strncmp(said, "dashcam sample: ", 16), 0);
}

/* What is wrong gets one line that says what was found and what was expected. */
static void test_refusals(void **state)
{
	(void)state;
	expect_refusal(PARSE("--jsno"), "unknown option '--jsno' (did you mean '--json'?)");
	expect_refusal(PARSE("--zzzzzz"), "unknown option '--zzzzzz'; see");
	expect_refusal(PARSE("-x"), "unknown option '-x'");
	expect_refusal(PARSE("--name"), "'--name' needs a value");
	expect_refusal(PARSE("--name="), "is empty");
	expect_refusal(PARSE("--json=1"), "takes no value");
	expect_refusal(PARSE("--memory", "-1"), "negative");
	expect_refusal(PARSE("--memory", "99999999999TiB"), "absurdly large");
	expect_refusal(PARSE("--memory", "64QiB"), "expected a size with a unit, such as 64MiB");
	expect_refusal(PARSE("--memory", "1"), "too small, expected at least 64KiB");
	expect_refusal(PARSE("--memory", "2TiB"), "too large, expected at most 1TiB");
	expect_refusal(PARSE("--window", "30"), "expected a time with a unit");
	expect_refusal(PARSE("--pid", "0"), "at least 1");
	assert_int_equal(values.hz, 49);
	assert_int_equal(PARSE("--hz", "off"), 0);
	assert_int_equal(values.hz, 0);
	expect_refusal(PARSE("--pid", "off"), "a whole number");
	expect_refusal(PARSE("--format", "json"), "expected one of jsonl|chrome");
	expect_refusal(PARSE("--from", "yesterday"), "expected a moment");
	expect_refusal(PARSE("a", "b", "c"), "unexpected argument 'c'");
	sample.operands_min = 1;
	expect_refusal(PARSE("--json"), "expected a capture");
	sample.operands_min = 0;
}

/* --help wins over a missing operand, and over nothing that came before it and was wrong. */
static void test_help(void **state)
{
	(void)state;
	sample.operands_min = 1;
	assert_int_equal(PARSE("--help"), 1);
	assert_int_equal(PARSE("-h", "--nonsense"), 1);
	assert_int_equal(PARSE("--nonsense", "-h"), -EINVAL);
	sample.operands_min = 0;
}

/* More texts than the table holds are refused, not written past its end. */
static void test_too_many(void **state)
{
	char *argv[2 * TEXTS_MAX + 3];
	unsigned n = 0;

	(void)state;
	for (unsigned i = 0; i <= TEXTS_MAX; i++) {
		argv[n++] = "--arg";
		argv[n++] = "x";
	}
	argv[n] = NULL;
	expect_refusal(parse(argv), "at most 64");
}

static void check_option(const struct command *c, const struct option *o)
{
	assert_non_null(o->help);
	if (!islower(o->help[0]) && !isupper(o->help[1]) && strncmp(o->help, "JSON", 4) != 0)
		fail_msg("%s --%s: help starts with a capital", c->name, o->name);
	assert_int_not_equal(o->help[strlen(o->help) - 1], '.');
	assert_true((o->type == OPTION_FLAG) == (o->value == NULL));
	assert_true((o->type == OPTION_CHOICE) == (o->choices != NULL));
	for (const struct option *other = o + 1; other->name; other++) {
		assert_string_not_equal(o->name, other->name);
		assert_false(o->letter && o->letter == other->letter);
		assert_int_not_equal(o->at, other->at);
	}
}

/* The tables themselves: names once, defaults that parse, texts in the agreed shape, help within 100 columns. */
static void test_tables(void **state)
{
	char *text, why[256];
	size_t size;

	(void)state;
	for (unsigned i = 0; commands[i]; i++) {
		const struct command *c = commands[i];
		char *bytes = malloc(c->options_size + 1);
		FILE *f = open_memstream(&text, &size);

		assert_ptr_equal(command_find(c->name), c);
		assert_true(islower(c->summary[0]));
		assert_int_not_equal(c->summary[strlen(c->summary) - 1], '.');
		assert_int_equal(c->about[strlen(c->about) - 1], '.');
		command_defaults(c, bytes);
		for (const struct option *o = c->options; o->name; o++) {
			check_option(c, o);
			if (o->fallback && option_store(o, o->fallback, bytes, why) < 0)
				fail_msg("%s --%s: %s %s", c->name, o->name, o->fallback, why);
		}
		help_command(f, c);
		fclose(f);
		for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
			if (strlen(line) > 100)
				fail_msg("dashcam %s --help: '%s'", c->name, line);
		free(text);
		free(bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stores),
		cmocka_unit_test(test_defaults_and_ends),
		cmocka_unit_test(test_command_operands),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_help),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
