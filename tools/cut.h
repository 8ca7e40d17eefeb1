/* SPDX-License-Identifier: MIT */
/* The options that choose events, the same for show and export. */
#pragma once

#include "persist/capture.h"
#include "tools/command.h"

struct cut_options {
	struct moment from;
	struct moment to;
	uint64_t pid;
	uint64_t tid;
	const char *name;
	bool everything;
};

/* clang-format off: one row of a table should stay one row */
/* Rows for a table of options; the command's options, struct @of, have a member struct cut_options cut. */
#define CUT_MEMBER(of, member) offsetof(struct of, cut.member)
#define CUT_OPTION_ROWS(of)                                                                                  \
	{.name = "from",                                                                                     \
	 .type = OPTION_MOMENT,                                                                              \
	 .at = CUT_MEMBER(of, from),                                                                         \
	 .value = "MOMENT",                                                                                  \
	 .help = "leave out what is older: -5s (before the trigger), 14:03:07.25 or an RFC 3339 time"},      \
		{.name = "to",                                                                               \
		 .type = OPTION_MOMENT,                                                                      \
		 .at = CUT_MEMBER(of, to),                                                                   \
		 .value = "MOMENT",                                                                          \
		 .help = "leave out what is newer"},                                                         \
		{.name = "pid",                                                                              \
		 .type = OPTION_COUNT,                                                                       \
		 .at = CUT_MEMBER(of, pid),                                                                  \
		 .value = "PID",                                                                             \
		 .help = "this process only",                                                                \
		 .min = 1,                                                                                   \
		 .max = UINT32_MAX},                                                                         \
		{.name = "tid",                                                                              \
		 .type = OPTION_COUNT,                                                                       \
		 .at = CUT_MEMBER(of, tid),                                                                  \
		 .value = "TID",                                                                             \
		 .help = "this thread only",                                                                 \
		 .min = 1,                                                                                   \
		 .max = UINT32_MAX},                                                                         \
		{.name = "name",                                                                             \
		 .type = OPTION_TEXT,                                                                        \
		 .at = CUT_MEMBER(of, name),                                                                 \
		 .value = "GLOB",                                                                            \
		 .help = "only events whose name matches, as in 'db.*'"},                                    \
	{                                                                                                    \
		.name = "everything", .type = OPTION_FLAG, .at = CUT_MEMBER(of, everything),                 \
		.help = "also events outside the window that the file still holds"                           \
	}
/* clang-format on */

/*
 * cut_resolve() - against the capture's trigger
 * Return: EXIT_OK, or EXIT_USAGE after a line that says which bound makes no sense.
 */
int cut_resolve(const struct cut_options *o, const struct dc_capture *c, struct dc_cut *ret_cut);
