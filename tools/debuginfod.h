/* SPDX-License-Identifier: MIT */
/*
 * Debug info from debuginfod servers, for `dashcam symbolize --debuginfod` only: fetched by the program debuginfod-find
 * ($DEBUGINFOD_URLS says from where, it keeps what it fetched), bounded in time, before anything is read. What came stands in
 * a temporary directory laid out like /usr/lib/debug.
 */
#pragma once

#include <stdint.h>

#include "persist/capture.h"

struct fetched {
	char dir[64]; /* empty: none */
	unsigned asked, got;
};

/* For all modules of @c. Return: EXIT_OK, or EXIT_FAILED after a line on stderr: no such program, no servers. */
int debuginfod_fetch(struct dc_capture *c, int64_t time_ns, struct fetched *ret_fetched);
void fetched_cleanup(struct fetched *f);
