/* SPDX-License-Identifier: MIT */
/*
 * What a command is. Everything people learn about commands comes from these tables: parsing, --help, the manual
 * pages, the completion. A new command is a file with a `const struct command` and one line in commands.c.
 *
 *     struct ls_options { const char *store; bool json; };
 *
 *     static const struct option ls_option_table[] = {
 *             { "store", OPTION_DIR, offsetof(struct ls_options, store), "DIR", "list the captures in DIR" },
 *             { "json", OPTION_FLAG, offsetof(struct ls_options, json), NULL, "print JSON" },
 *             { 0 },
 *     };
 *
 * The parser zeroes the options, stores the defaults, then what was typed. Every command has --help besides.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/parse.h"

/* What main() returns. */
#define EXIT_OK 0
#define EXIT_FAILED 1
#define EXIT_DAMAGED 2 /* the capture is damaged; what is whole was read */
#define EXIT_USAGE 64  /* EX_USAGE of sysexits.h */

/* What a value may be, and what is stored at option.at. */
enum option_type {
	OPTION_FLAG = 1, /* bool */
	OPTION_TEXT,     /* const char * */
	OPTION_FILE,     /* const char *, completes to files */
	OPTION_DIR,      /* const char *, completes to directories */
	OPTION_CHOICE,   /* const char *, one of option.choices */
	OPTION_TEXTS,    /* struct texts: may be given several times */
	OPTION_SIZE,     /* uint64_t, bytes */
	OPTION_TIME,     /* int64_t, ns */
	OPTION_COUNT,    /* uint64_t */
	OPTION_MOMENT,   /* struct moment */
};

#define TEXTS_MAX 64u

struct texts {
	unsigned count;
	const char *items[TEXTS_MAX];
};

struct option {
	const char *name; /* without the dashes */
	enum option_type type;
	size_t at;            /* where in the command's options */
	const char *value;    /* what stands for the value in help: "TIME" */
	const char *help;     /* starts in lower case, no full stop */
	char letter;          /* short form, 0: none */
	const char *fallback; /* default, as one would type it; NULL: zero */
	const char *choices;  /* OPTION_CHOICE: "jsonl|chrome" */
	uint64_t min;         /* SIZE, TIME, COUNT: bounds; max 0: no bound */
	uint64_t max;
	bool minus_one;   /* TIME: -1 when not given, because 0 says something */
	bool or_off;      /* COUNT: "off" is 0 */
	bool not_in_file; /* of `dashcam watch`: makes no sense in dashcam.conf */
};

/* What follows the options. */
struct operands {
	unsigned count;
	char **items;      /* NULL-terminated */
	char *const *argv; /* all that was typed after the command's name */
};

/* For completion, and for the message when there are too few. */
enum operand_kind {
	OPERAND_NONE,
	OPERAND_CAPTURE, /* a .dcap file */
	OPERAND_CAPTURES,
	OPERAND_RING,
	OPERAND_COMMAND, /* a program with arguments: options end at the first operand */
	OPERAND_GLOB,
	OPERAND_FILE,
	OPERAND_TOPIC,
};

struct command {
	const char *name;
	const char *summary;     /* one line for the list of commands; starts in lower case, no full stop */
	const char *usage;       /* what follows the options: "FILE", "-- COMMAND [ARG...]"; "" for nothing */
	const char *about;       /* paragraphs, separated by an empty line */
	const char *examples;    /* "command\tcomment\n" lines */
	const char *exit_status; /* for the manual page; NULL: 0, 1 and 64 as everywhere */
	const char *see_also;    /* names of related commands, separated by blanks */
	const struct option *options; /* ended by one without a name */
	size_t options_size;
	enum operand_kind operand;
	unsigned operands_min;
	unsigned operands_max;
	int (*run)(const void *options, const struct operands *operands); /* Return: EXIT_* */
};

extern const struct command *const commands[]; /* in the order of the list in help; ended by NULL */
const struct command *command_find(const char *name);

/*
 * command_parse() - the arguments after the command's name
 * @options: command->options_size bytes, which hold the defaults (command_defaults()), or those and a configuration
 * @ret_operands: its items are freed by the caller
 * Return: 0; 1 when --help was asked for; -EINVAL after a line on stderr says what is wrong; -ENOMEM.
 */
int command_parse(const struct command *c, char *const *argv, void *options, struct operands *ret_operands);
void command_defaults(const struct command *c, void *options);
/* One option by its text; also for the keys of dashcam.conf, which have the same types. -EINVAL and a line in @why. */
int option_store(const struct option *o, const char *text, void *options, char why[static 256]);

/* The name closest to @word, or NULL when none is close: "did you mean". */
const char *closest_option(const struct command *c, const char *word);
const char *closest_command(const char *word);

/*
 * say() - one line on stderr, led by "dashcam COMMAND: "; failure() is the same and returns EXIT_FAILED.
 * usage_error() adds where to read on and returns EXIT_USAGE.
 */
void say_as(const char *command);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
int failure(const char *format, ...) __attribute__((format(printf, 1, 2)));
int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Help texts (help.c). */
void help_overview(FILE *out);
void help_command(FILE *out, const struct command *c);
