/* SPDX-License-Identifier: MIT */
/*
 * All samples of one process: unwound, named. The parent's side of the sandboxed children (sandbox.h).
 *
 *     dc_resolver_new(maps, paths, count, options, &r)
 *     dc_resolver_unwind(r, source)                           batch by batch
 *     dc_resolver_addresses(r, addresses, n)                  further frames: return addresses of DC_STACK() events
 *     dc_resolver_name(r)                                     once, at the end
 *     dc_resolver_blocks(r, each, arg)                        STACKS, FRAMES and NAMES, ready to be written
 *
 *     samples ──► a child: open modules, unwind ──► pipe ──► checked; equal frames and stacks of all batches are one
 *     frames  ──► a child: open debug info, name ──► pipe ──► checked; what was asked for the first time into the cache
 *
 * What comes through a pipe is as untrusted as a file. When a child crashes or runs out of time while it names, the names
 * it had sent are kept, and the other modules are tried again without the one that it was at. When it crashes or hangs while it
 * unwinds, another one goes on without the sample that it was at, or the module that it was opening; when that happens too often,
 * or the time of all of them is over, the samples from there on stay as they are.
 *
 * A frame's offset is the ELF virtual address; where the file of its mapping is not to be had, the offset in the file, as
 * the mapping alone gives it (DC_FRAME_FILE), to be turned into the other when somebody has the file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/format.h"

struct dc_sample_parts;

struct dc_resolve_options {
	/*
	 * Called in the child: opens the file of a module. NULL: the path, then debug_dirs (by build-id, by name). A watcher gives
	 * one that knows files it holds open (trigger/files.h). Whatever comes back counts only if it has the build-id of the
	 * map; locks that it takes need pthread_atfork(). Return: fd, -errno.
	 */
	int (*open)(void *arg, const struct dc_map_entry *map, const char *path);
	void *open_arg;
	const char *const *debug_dirs; /* NULL-terminated; NULL: /usr/lib/debug */
	int cache_fd; /* directory with answers by build-id (cache.h), 0 or less: none */
	uint64_t cache_bytes; /* of that directory, 0: 256 MiB */
	bool no_lines; /* functions only: no DWARF is read */
	bool no_kernel; /* leave the kernel's frames alone: it is not the one that runs here */
	int64_t time_ns; /* for the process, of which unwinding gets at most 6/10; 0: 60 s */
	uint64_t memory_bytes; /* a child's own, 0: 1 GiB */
	int nice;
};

struct dc_resolver;

/* @maps, @paths (one a map) and what @options point to are borrowed. Return: 0, -ENOMEM. */
int dc_resolver_new(const struct dc_map_entry *maps, const char *const *paths, uint32_t map_count,
		    const struct dc_resolve_options *options, struct dc_resolver **ret_resolver);
void dc_resolver_free(struct dc_resolver *r);
DC_DEFINE_CLEANUP(dc_resolver, struct dc_resolver *, dc_resolver_free)

#define DC_SAMPLES_ROOM (DC_BLOCK_PLAIN_MAX + DC_RAW_ALIGN) /* a block's payload and what is read with it */

/* Samples, piece by piece: a piece is unwound while the next one is made. */
struct dc_sample_source {
	/* Whole samples (sample.h) into @to, DC_SAMPLES_ROOM bytes, counted below. Return: 1, even if there is none; 0: no more; -errno. */
	int (*next)(void *arg, uint8_t *to, size_t *ret_bytes);
	/*
	 * The stack of the sample number @sample, counted from 0; what stays as it is does not come. @truncated: it did not get
	 * to the outermost frame.
	 */
	void (*put)(void *arg, uint32_t sample, uint32_t stack, bool truncated);
	void *arg;
	uint32_t count; /* of all pieces */
	uint32_t able; /* how many of them have registers or addresses; the others have no stack */
};
/*
 * dc_resolver_unwind() - stacks of the samples of @source, which starts with counts of 0
 * Return: 0, also when the child failed (see dc_resolver_why()); -ENOMEM; the source's error; -errno of fork and pipe.
 */
int dc_resolver_unwind(struct dc_resolver *r, struct dc_sample_source *source);
/* Frames for return addresses, which readers find by address. Return: as above. */
int dc_resolver_addresses(struct dc_resolver *r, const uint64_t *addresses, uint32_t count);
/* A frame of an earlier capture, to be named. *@ret_number: its number here. Return: 0, -ENOMEM. */
int dc_resolver_frame(struct dc_resolver *r, const struct dc_frame *frame, uint32_t *ret_number);

/*
 * dc_resolver_name() - names of all frames
 * @first: the number of the first name, 1 in a new capture. @meanwhile: what there is to do while a child names, or NULL:
 * called once, here. Return: as above; @meanwhile's error.
 */
int dc_resolver_name(struct dc_resolver *r, uint32_t first, int (*meanwhile)(void *arg), void *arg);
/* Frame @number, 1 to frame_count, as it is now. */
struct dc_frame dc_resolver_frame_at(const struct dc_resolver *r, uint32_t number);

/* Payloads of at most DC_BLOCK_PLAIN_MAX bytes; @types: bit n: blocks of type n are wanted. Return: 0, @each's error, -ENOMEM. */
int dc_resolver_blocks(const struct dc_resolver *r, uint32_t types,
		       int (*each)(void *arg, uint16_t type, const void *payload, size_t bytes), void *arg);

struct dc_resolve_totals {
	uint32_t samples; /* that could have been unwound */
	uint32_t unwound;
	uint32_t to_root; /* of these, unwound to the outermost frame; chains of frame pointers do not say (dc_stacks_to_root()) */
	uint32_t stack_count;
	uint32_t frame_count;
	uint32_t named; /* frames */
	uint32_t stack_used; /* the most bytes of a stack copy that 99 % of the samples needed; 0: there was none */
	int64_t unwind_cpu_ns; /* CPU time of the children that unwound */
	int64_t name_cpu_ns; /* ... that named */
};
void dc_resolver_totals(const struct dc_resolver *r, struct dc_resolve_totals *ret_totals);
/* What did not work, for people; empty: all did. */
const char *dc_resolver_why(const struct dc_resolver *r);
/* Files that have frames and not one name, "a.so, b.so and 3 more"; empty: there are none. */
void dc_resolver_nameless(const struct dc_resolver *r, char *ret_text, size_t size);
