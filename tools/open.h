/* SPDX-License-Identifier: MIT */
/* Opening a capture the way every reading command does: one clear line when it cannot be, the faults at the end. */
#pragma once

#include "ipc/cleanup.h"
#include "persist/capture.h"

DC_DEFINE_CLEANUP(dc_capture, struct dc_capture *, dc_capture_close)
DC_DEFINE_CLEANUP(dc_cursor, struct dc_cursor *, dc_cursor_close)

/* @name: a path, or a name that `dashcam ls` shows. Return: EXIT_OK, or EXIT_FAILED after a line on stderr. */
int capture_open(const char *name, struct dc_capture **ret_capture);

/*
 * capture_status() - what the command returns once it has read what it wanted
 * @r: 0 or the -errno reading ended with
 * Return: EXIT_OK; EXIT_DAMAGED after a line on stderr for each fault; EXIT_FAILED after a line for @r.
 */
int capture_status(struct dc_capture *c, const char *path, int r);

/*
 * capture_check() - says of a capture that a command wrote anew what is wrong with it, as whoever reads it would
 * What is whole of a damaged one is all that is left then.
 */
int capture_check(const char *path);
