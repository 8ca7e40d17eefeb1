/* SPDX-License-Identifier: MIT */
/* Every command of the program; commands.c puts them in order. */
#pragma once

#include "tools/command.h"

extern const struct command cmd_doctor;
extern const struct command cmd_export;
extern const struct command cmd_help;
extern const struct command cmd_info;
extern const struct command cmd_keep;
extern const struct command cmd_ls;
extern const struct command cmd_recover;
extern const struct command cmd_report;
extern const struct command cmd_rm;
extern const struct command cmd_rules;
extern const struct command cmd_run;
extern const struct command cmd_scrub;
extern const struct command cmd_selftest;
extern const struct command cmd_settle;
extern const struct command cmd_show;
extern const struct command cmd_sites;
extern const struct command cmd_status;
extern const struct command cmd_symbolize;
extern const struct command cmd_top;
extern const struct command cmd_trigger;
extern const struct command cmd_version;
extern const struct command cmd_watch;
extern const struct command cmd_why;
extern const struct command cmd_attach;
