/* SPDX-License-Identifier: MIT */
/* What the child of `dashcam selftest` records, and what its parent expects to read. */
#pragma once

#define SELFTEST_SPANS 1000u                     /* each with one instant inside; one more is left open */
#define SELFTEST_EVENTS (3 * SELFTEST_SPANS + 3) /* the open one, a log line, the trigger */
#define SELFTEST_REASON "selftest"

/*
 * selftest_record() - record all that into a ring in @dir, then a byte to @ready_fd, then wait for the end of @done_fd
 * Return: 0, or dc_start()'s -errno: nothing was recorded, and nothing is waited for.
 */
int selftest_record(const char *dir, int ready_fd, int done_fd);
