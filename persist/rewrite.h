/* SPDX-License-Identifier: MIT */
/*
 * Putting another version of a capture in its place: what settling, scrubbing and symbolizing have in common. A new file is
 * written beside it (writer.h, DC_WRITER_SETTLED) and renamed over it; whatever fails before leaves the old one.
 */
#pragma once

#include "persist/capture_inside.h"
#include "persist/writer.h"

DC_DEFINE_CLEANUP(dc_capture, struct dc_capture *, dc_capture_close)

/* @dir_fd: an open directory, not AT_FDCWD. Return: as dc_capture_open(). */
int dc_rewrite_open(int dir_fd, const char *name, struct dc_capture **ret_capture);

/* The first whole FILE block, which says who the capture is. Return: 0, -ENODATA. */
int dc_rewrite_file_block(struct dc_capture *c, struct dc_file_block *ret_file);

/* The new file belongs to whom the old one belongs to. Return: 0, -errno. */
int dc_rewrite_owner(const struct dc_capture *c, struct dc_writer *w);

/* Evicted, removed or replaced meanwhile: then there is nothing to replace. Return: 0, -ENOENT, -ESTALE. */
int dc_rewrite_still_there(const struct dc_capture *c, int dir_fd, const char *name);
