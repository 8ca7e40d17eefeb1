/* SPDX-License-Identifier: MIT */
/*
 * Names for the stacks of a capture from files that were not at hand when it settled: on another machine, after debug info
 * was installed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "persist/stacks/resolve.h"

struct dc_symbolize_result { /* of all processes */
	uint64_t frames;
	uint64_t named_before; /* frames that had a name */
	uint64_t named; /* frames that have one now */
	char why[160]; /* the first thing that did not work; empty: all did */
};

/*
 * dc_symbolize() - a settled capture → the same with more names, renamed over it
 * Frames without a name are asked for; @again: those with one, too, for better answers (lines where there were none): one
 * that nothing is known of now keeps its name. @options: where to look; NULL: the paths and /usr/lib/debug. Everything else
 * stays byte for byte as it was stored. Addresses of the kernel are left alone unless the capture is of this very boot.
 * @dir_fd: an open directory, not AT_FDCWD. @ret_result is set whenever the capture could be read.
 *
 * Return: 0; 1: nothing new is known, the file is as it was; -EINVAL: a raw capture, settle it; -ENODATA: not a capture, or
 * its first block is lost; -EEXIST: somebody is rewriting it; -ENOENT, -ESTALE: removed or replaced meanwhile; -errno.
 */
int dc_symbolize(int dir_fd, const char *name, const struct dc_resolve_options *options, bool again,
		 struct dc_symbolize_result *ret_result);
