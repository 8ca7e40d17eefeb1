/* SPDX-License-Identifier: MIT */
/*
 * All samples of one process: unwound, named. The parent's side of the sandboxed child.
 *
 *     maps, samples ──► child: open modules, unwind, intern stacks and frames, name frames ──► pipe ──► checked, payloads
 *
 * What comes through the pipe is as untrusted as a file. When the child crashes or runs out of time while it names, the
 * stacks it had sent are kept and their frames have no names; when it does so while it unwinds, samples stay as they are.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/format.h"

struct dc_resolve_options {
	/*
	 * Called in the child: opens the file of a module. By default the path is opened and its build-id compared. A watcher
	 * gives one that knows files it holds open (trigger/maps.h). Return: fd, -errno.
	 */
	int (*open)(void *arg, const struct dc_map_entry *map, const char *path);
	void *open_arg;
	const char *const *debug_dirs; /* NULL: /usr/lib/debug */
	int cache_fd; /* directory with answers by build-id (cache.h), -1: none */
	bool lines;
	int64_t time_ns; /* 0: 60 s */
	uint64_t memory_bytes; /* 0: 1 GiB of address space beyond what we have */
};

struct dc_resolve_input {
	const struct dc_map_entry *maps;
	const char *const *paths; /* one a map */
	uint32_t map_count;
	const struct dc_sample *const *samples; /* those to unwind: with registers and stack, or with ips */
	uint32_t sample_count;
	const uint64_t *addresses; /* further ones to name (DC_STACK() events): return addresses */
	uint32_t address_count;
	const struct dc_frame *frames; /* to be named again (symbolize): kept as they are but for .name */
	uint32_t frame_count;
};

/* Payloads of blocks, ready to be written, each at most DC_BLOCK_PLAIN_MAX; and the stack number of every sample. */
struct dc_resolved {
	uint32_t *stack_of; /* sample_count of them; 0: stays as it is */
	uint8_t *truncated; /* sample_count: 1: did not reach the outermost frame */
	struct dc_resolved_block {
		uint16_t type; /* DC_BLOCK_STACKS, _FRAMES, _NAMES */
		uint8_t *bytes;
		size_t size;
	} *blocks;
	uint32_t block_count;
	uint32_t stack_used; /* the most bytes of a stack copy that 99 % of the samples needed; 0: none was unwound */
	uint32_t unwound;
	uint32_t named_frames;
	uint32_t frame_count;
	char why[160]; /* what did not work, for people; empty: all did */
};
void dc_resolved_fini(struct dc_resolved *r);

/* Return: 0, also when the child failed (@ret_resolved->why says so); -ENOMEM, -errno of fork and pipe. */
int dc_resolve(const struct dc_resolve_input *input, const struct dc_resolve_options *options, struct dc_resolved *ret_resolved);
