/* SPDX-License-Identifier: MIT */
/*
 * The parser of options. Own code rather than getopt_long(): that one takes "-5s" for a bundle of options,
 * completes prefixes (so that a new option breaks old scripts) and cannot say what it expected.
 */
#include "tools/command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/text.h"
#include "trigger/near.h"

static const char *speaker;

void say_as(const char *command)
{
	speaker = command;
}

/* Names in it come from rings, files and argv: what a terminal would obey is escaped. */
static void speak(const char *format, va_list args, const char *tail)
{
	char line[4096];

	vsnprintf(line, sizeof(line), format, args);
	fprintf(stderr, speaker ? "dashcam %s: " : "dashcam: ", speaker);
	text_print(stderr, line, strlen(line));
	fprintf(stderr, "%s\n", tail);
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	speak(format, args, "");
	va_end(args);
}

int failure(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	speak(format, args, "");
	va_end(args);
	return EXIT_FAILED;
}

int usage_error(const char *format, ...)
{
	char tail[64];
	va_list args;

	snprintf(tail, sizeof(tail), speaker ? "; see 'dashcam %s --help'" : "; see 'dashcam help'", speaker);
	va_start(args, format);
	speak(format, args, tail);
	va_end(args);
	return EXIT_USAGE;
}

const char *closest_option(const struct command *c, const char *word)
{
	const char *name = NULL;
	unsigned best = 99;

	for (const struct option *o = c->options; o->name; o++)
		if (dc_near(word, o->name, &best))
			name = o->name;
	return name;
}

const char *closest_command(const char *word)
{
	const char *name = NULL;
	unsigned best = 99;

	for (unsigned i = 0; commands[i]; i++)
		if (dc_near(word, commands[i]->name, &best))
			name = commands[i]->name;
	return name;
}

static bool is_choice(const char *choices, const char *text)
{
	size_t length = strlen(text);

	for (const char *s = choices; s; s = strchr(s, '|') ? strchr(s, '|') + 1 : NULL)
		if (strncmp(s, text, length) == 0 && (s[length] == '|' || s[length] == '\0'))
			return length > 0;
	return false;
}

static const char *what_is_expected(enum option_type type)
{
	switch (type) {
	case OPTION_SIZE:
		return "a size with a unit, such as 64MiB";
	case OPTION_TIME:
		return "a time with a unit, such as 30s or 500ms";
	case OPTION_COUNT:
		return "a whole number";
	case OPTION_MOMENT:
		return "a moment: -5s (before the trigger), 14:03:07.25 or 2026-11-21T14:03:07Z";
	default:
		return "a value";
	}
}

static int bounds(const struct option *o, uint64_t v, char why[static 256])
{
	struct text min, max;

	if (v >= o->min && (o->max == 0 || v <= o->max))
		return 0;
	if (o->type == OPTION_SIZE) {
		min = text_size_option(o->min);
		max = text_size_option(o->max);
	} else if (o->type == OPTION_TIME) {
		min = text_time_option((int64_t)o->min);
		max = text_time_option((int64_t)o->max);
	} else {
		min = text_format("%llu", (unsigned long long)o->min);
		max = text_format("%llu", (unsigned long long)o->max);
	}
	if (v < o->min)
		snprintf(why, 256, "is too small, expected at least %s", min.s);
	else
		snprintf(why, 256, "is too large, expected at most %s", max.s);
	return -EINVAL;
}

static int store_number(const struct option *o, const char *text, void *at, char why[static 256])
{
	uint64_t v = 0;
	int64_t ns = 0;
	int r;

	if (o->type == OPTION_TIME) {
		r = parse_time(text, &ns);
		v = (uint64_t)ns;
	} else if (o->or_off && strcmp(text, "off") == 0) {
		r = 0;
	} else {
		r = o->type == OPTION_SIZE ? parse_size(text, &v) : parse_count(text, &v);
	}
	if (r == -ERANGE && *text == '-')
		snprintf(why, 256, "is negative, expected %s", what_is_expected(o->type));
	else if (r == -ERANGE)
		snprintf(why, 256, "is absurdly large, expected %s", what_is_expected(o->type));
	else if (r < 0)
		snprintf(why, 256, "was not understood, expected %s", what_is_expected(o->type));
	if (r < 0)
		return -EINVAL;
	r = bounds(o, v, why);
	if (r == 0)
		memcpy(at, o->type == OPTION_TIME ? (void *)&ns : (void *)&v, sizeof(v));
	return r;
}

static int store_text(const struct option *o, const char *text, void *at, char why[static 256])
{
	struct texts *texts = at;

	if (!*text) {
		snprintf(why, 256, "is empty, expected %s", o->value);
		return -EINVAL;
	}
	if (o->type == OPTION_CHOICE && !is_choice(o->choices, text)) {
		snprintf(why, 256, "is not known, expected one of %s", o->choices);
		return -EINVAL;
	}
	if (o->type != OPTION_TEXTS) {
		*(const char **)at = text;
		return 0;
	}
	if (texts->count == TEXTS_MAX) {
		snprintf(why, 256, "is one too many, at most %u are taken", TEXTS_MAX);
		return -EINVAL;
	}
	texts->items[texts->count++] = text;
	return 0;
}

int option_store(const struct option *o, const char *text, void *options, char why[static 256])
{
	void *at = (char *)options + o->at;

	switch (o->type) {
	case OPTION_FLAG:
		*(bool *)at = true;
		return 0;
	case OPTION_SIZE:
	case OPTION_TIME:
	case OPTION_COUNT:
		return store_number(o, text, at, why);
	case OPTION_MOMENT:
		if (parse_moment(text, at) == 0)
			return 0;
		snprintf(why, 256, "was not understood, expected %s", what_is_expected(o->type));
		return -EINVAL;
	default:
		return store_text(o, text, at, why);
	}
}

static const struct option *option_find(const struct command *c, const char *name, size_t length)
{
	for (const struct option *o = c->options; o->name; o++)
		if (strncmp(o->name, name, length) == 0 && o->name[length] == '\0')
			return o;
	return NULL;
}

static const struct option *option_by_letter(const struct command *c, char letter)
{
	for (const struct option *o = c->options; o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

static int unknown_option(const struct command *c, const char *arg)
{
	const char *near = closest_option(c, arg + strspn(arg, "-"));

	if (near)
		usage_error("unknown option '%s' (did you mean '--%s'?)", arg, near);
	else
		usage_error("unknown option '%s'", arg);
	return -EINVAL;
}

/*
 * One option at *@at, its value in the same word (--window=30s, -oFILE) or the next one, whatever that looks
 * like: "-5s" is a value. *@at is left on the last word used.
 */
static int parse_option(const struct command *c, char *const **at, void *options)
{
	const char *arg = **at, *value = NULL;
	const struct option *o;
	char why[256];

	if (arg[1] == '-') {
		size_t length = strcspn(arg + 2, "=");

		o = option_find(c, arg + 2, length);
		value = arg[2 + length] ? arg + 3 + length : NULL;
	} else {
		o = option_by_letter(c, arg[1]);
		value = arg[2] ? arg + 2 : NULL;
	}
	if (!o)
		return unknown_option(c, arg);
	if (o->type == OPTION_FLAG && value) {
		usage_error("option '--%s' takes no value, but '%s' was given", o->name, value);
		return -EINVAL;
	}
	if (o->type != OPTION_FLAG && !value) {
		value = (*at)[1];
		if (!value) {
			usage_error("option '--%s' needs a value: --%s %s", o->name, o->name, o->value);
			return -EINVAL;
		}
		(*at)++;
	}
	if (option_store(o, value, options, why) < 0) {
		usage_error("--%s: '%s' %s", o->name, value, why);
		return -EINVAL;
	}
	return 0;
}

static const char *operand_word(enum operand_kind kind)
{
	switch (kind) {
	case OPERAND_CAPTURE:
	case OPERAND_CAPTURES:
		return "a capture; 'dashcam ls' lists what there is";
	case OPERAND_RING:
		return "a ring file; 'dashcam status' and the ring directory show what there is";
	case OPERAND_COMMAND:
		return "a command to run, after '--'";
	case OPERAND_FILE:
		return "a file";
	case OPERAND_GLOB:
	case OPERAND_TOPIC:
	case OPERAND_NONE:
		break;
	}
	return "an argument";
}

static int check_operands(const struct command *c, const struct operands *o)
{
	if (o->count < c->operands_min) {
		usage_error("expected %s", operand_word(c->operand));
		return -EINVAL;
	}
	if (o->count > c->operands_max) {
		usage_error("unexpected argument '%s'", o->items[c->operands_max]);
		return -EINVAL;
	}
	return 0;
}

void command_defaults(const struct command *c, void *options)
{
	char why[256];

	memset(options, 0, c->options_size);
	for (const struct option *o = c->options; o->name; o++) {
		if (o->fallback)
			option_store(o, o->fallback, options, why);
		else if (o->minus_one)
			*(int64_t *)((char *)options + o->at) = -1;
	}
}

int command_parse(const struct command *c, char *const *argv, void *options, struct operands *ret_operands)
{
	struct operands operands = {.argv = argv};
	bool only_operands = false;
	unsigned count = 0;
	int r = 0;

	while (argv[count])
		count++;
	operands.items = calloc(count + 1, sizeof(*operands.items));
	if (!operands.items)
		return -ENOMEM;
	for (char *const *at = argv; *at && r == 0; at++) {
		if (only_operands || (*at)[0] != '-' || !(*at)[1]) {
			operands.items[operands.count++] = *at;
			only_operands |= c->operand == OPERAND_COMMAND;
		} else if (strcmp(*at, "--") == 0) {
			only_operands = true;
		} else if (strcmp(*at, "--help") == 0 || strcmp(*at, "-h") == 0) {
			r = 1;
		} else {
			r = parse_option(c, &at, options);
		}
	}
	if (r == 0)
		r = check_operands(c, &operands);
	if (r != 0)
		free(operands.items);
	else
		*ret_operands = operands;
	return r;
}
