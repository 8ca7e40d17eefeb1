/* SPDX-License-Identifier: MIT */
/* What `dashcam run`, `dashcam watch` and `dashcam attach` have in common: the same options, and the watcher they configure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tools/places.h"
#include "tools/rules.h"
#include "trigger/watcher.h"

#define HOUR_NS UINT64_C(3600000000000)
#define DAY_NS (24 * HOUR_NS)

struct watching_options {
	const char *dir;
	const char *out;
	int64_t window;
	int64_t after;
	int64_t cooldown;
	uint64_t disk;
	uint64_t sample;
	uint64_t sample_memory;
	const char *stacks;
	const char *threads;
	const char *settle;
	bool pwrite;
	struct texts when;
	const char *default_rules;
	const char *metrics;
};

/* Where rings and captures are; the watcher's configuration points into it. */
struct watching_places {
	char dir[DC_RINGS_PATH_BYTES];
	char out[PLACE_BYTES];
};

/*
 * watching_configure() - the watcher's defaults, the places, and these options
 * Return: EXIT_OK, or EXIT_FAILED after a line on stderr.
 */
int watching_configure(const struct watching_options *o, struct watching_places *ret_places,
		       struct dc_watcher_config *ret_config);

/*
 * watching_rules() - those that these options ask for, and those of @source (NULL: there is no file)
 * Return: EXIT_OK, and the caller cleans up what it got; else EXIT_USAGE or EXIT_FAILED after a line on stderr.
 */
int watching_rules(const struct watching_options *o, struct rule_source *source, struct dc_rules *ret_rules);

/* As `dashcam watch` reads it; @ret_defaults: whether the rules that ship are wanted, @ret_sample_hz: how often stacks are (cmd_watch.c). */
int watch_check(struct config *config, const char *path, struct rule_source *source, bool *ret_defaults, uint64_t *ret_sample_hz);

/*
 * Rows for a table of options; the command's options, struct @of, have a member struct watching_options watching. Those
 * whose help says something else in each command have a row of their own there: --dir, --out and --window.
 */
/* clang-format off: one row of a table should stay one row */
#define WATCHING_MEMBER(of, member) offsetof(struct of, watching.member)
#define WATCHING_OPTION_ROWS(of)                                                                                     \
	{.name = "after", .type = OPTION_TIME, .at = WATCHING_MEMBER(of, after), .value = "TIME",                    \
	 .help = "how long a capture goes on after a trigger of a program",                                          \
	 .fallback = "0s", .max = HOUR_NS},                                                                          \
	{.name = "cooldown", .type = OPTION_TIME, .at = WATCHING_MEMBER(of, cooldown), .value = "TIME",              \
	 .help = "time between two captures for the same reason",                                                    \
	 .fallback = "10s", .max = DAY_NS},                                                                          \
	{.name = "disk", .type = OPTION_SIZE, .at = WATCHING_MEMBER(of, disk), .value = "SIZE",                      \
	 .help = "captures may take this much together; beyond it the least important and oldest go, 0 for no bound", \
	 .fallback = "4GiB"},                                                                                        \
	{.name = "sample", .type = OPTION_COUNT, .at = WATCHING_MEMBER(of, sample), .value = "HZ|off",               \
	 .help = "how many stacks to sample per second of CPU time, and of waiting",                                 \
	 .fallback = "49", .max = 10000, .or_off = true},                                                            \
	{.name = "stacks", .type = OPTION_CHOICE, .at = WATCHING_MEMBER(of, stacks), .value = "auto|fp|copy|guest",  \
	 .help = "follow frame pointers, or copy registers and stack to unwind them later; auto looks at the program; "  \
		 "guest: not by the kernel, programs that record sample themselves",                               \
	 .choices = "auto|fp|copy|guest", .fallback = "auto"},                                                             \
	{.name = "sample-memory", .type = OPTION_SIZE, .at = WATCHING_MEMBER(of, sample_memory), .value = "SIZE",    \
	 .help = "how much memory sampled stacks may take, per CPU; 0: 8 MiB, less where that is too much",          \
	 .fallback = "0", .max = UINT64_C(1) << 30},                                                                 \
	{.name = "threads", .type = OPTION_CHOICE, .at = WATCHING_MEMBER(of, threads), .value = "on|off",            \
	 .help = "at a trigger, stop each thread for the fraction of a millisecond its stack takes to copy",         \
	 .choices = "on|off", .fallback = "on"},                                                                     \
	{.name = "settle", .type = OPTION_CHOICE, .at = WATCHING_MEMBER(of, settle), .value = "yes|no",              \
	 .help = "settle captures: make them small, unwind and name their stacks",                                   \
	 .choices = "yes|no", .fallback = "yes"},                                                                    \
	{.name = "when", .type = OPTION_TEXTS, .at = WATCHING_MEMBER(of, when), .value = "EXPRESSION",               \
	 .help = "save the past when this comes true, see dashcam-rules(7); may be given several times",             \
	 .not_in_file = true},                                                                                       \
	{.name = "default-rules", .type = OPTION_CHOICE, .at = WATCHING_MEMBER(of, default_rules), .value = "yes|no", \
	 .help = "look also for what 'dashcam rules' lists: deaths, unusual and hanging spans, silent threads",      \
	 .choices = "yes|no", .fallback = "yes"},                                                                    \
	{.name = "pwrite", .type = OPTION_FLAG, .at = WATCHING_MEMBER(of, pwrite),                                   \
	 .help = "write with pwrite, do not try io_uring"},                                                          \
	{.name = "metrics", .type = OPTION_TEXT, .at = WATCHING_MEMBER(of, metrics), .value = "ADDRESS|off",         \
	 .help = "serve live figures to Prometheus at unix:PATH or 127.0.0.1:PORT", .fallback = "off"}
/* clang-format on */
