/* SPDX-License-Identifier: MIT */
/*
 * What a resolver consists of. Shared by its files, of no interest to others:
 *
 *   resolve.c         the parent: runs children; names: checks what is sent, keeps it; gives what came of all
 *   resolve_stacks.c  stacks: gives samples to the child that unwinds, checks what it sends, keeps it
 *   resolve_unwind.c  the work of the child that unwinds
 *   resolve_name.c    the work of the child that names
 *   modules.c         files of mappings, for both
 */
#pragma once

#include "persist/stacks/intern.h"
#include "persist/stacks/module.h"
#include "persist/stacks/resolve.h"

#define DC_USED_STEP 512u /* of the histogram of what unwinding needed */
#define DC_USED_STEPS 257u /* up to 128 KiB */

struct dc_resolved_names {
	uint8_t *payload;
	size_t bytes;
};

struct dc_resolver {
	const struct dc_map_entry *maps;
	const char *const *paths;
	uint32_t map_count;
	uint32_t *canon; /* of each map: the first one of the same file */
	struct dc_resolve_options options;
	uint8_t boot_id[16]; /* of this boot: what the cache knows the kernel's answers by */
	unsigned boot_id_bytes; /* 0: not known */
	int vdso_fd; /* a copy of ours, -1: there is none */
	int64_t start_ns;
	struct dc_intern frames; /* struct dc_frame; the key is the frame without a name */
	struct dc_intern stacks; /* frame numbers */
	/* By frame number; made by dc_resolver_name(). */
	uint32_t *name_of;
	uint64_t *offset_of;
	uint8_t *placed; /* 1: the offset is another now, in the module's own numbering */
	uint8_t *tried; /* by map: a child has looked into it */
	uint8_t *spoilt; /* by map: opening it killed a child that unwinds */
	uint32_t spoilt_count;
	struct dc_resolved_names *names;
	uint32_t names_count;
	uint32_t name_count; /* names in all of them */
	uint32_t name_first;
	size_t name_bytes;
	uint32_t samples;
	uint32_t unwound;
	uint32_t to_root;
	uint32_t used[DC_USED_STEPS];
	int64_t unwind_cpu_ns; /* of children */
	int64_t name_cpu_ns;
	char why[160];
};

#define DC_RESOLVE_TABLE_BYTES (56u << 20) /* frames, stacks, names: what readers take (stacks.c) is a little more */
#define DC_FRAME_FLAGS_KNOWN (DC_FRAME_KERNEL | DC_FRAME_CALL | DC_FRAME_SIGNAL | DC_FRAME_FILE)

/* --- resolve.c --- */

int64_t dc_resolve_now_ns(void);

/* The first thing that went wrong is what people are told. */
void dc_resolve_complain(struct dc_resolver *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

void dc_resolve_add_why(struct dc_resolver *r, const char *format, ...) __attribute__((format(printf, 2, 3))); /* to that */

void dc_resolve_take_why(struct dc_resolver *r, const uint8_t *text, size_t bytes); /* a child's */

struct dc_sandboxed;

/* A child and, when it has ended, what it sent. */
struct dc_resolve_child {
	const char *what;
	struct dc_sandboxed *sandboxed; /* NULL: not at work */
	int error; /* why it failed */
	int signal;
	int64_t cpu_ns;
	uint8_t *bytes;
	size_t size;
	size_t at; /* to be looked at next */
};
/* @in_fd: that it may read, 0: none. Return: 0; else it is not at work, and the end will tell. */
int dc_resolve_child_start(struct dc_resolver *r, const char *what, int64_t deadline_ns, int in_fd,
			   int (*work)(void *arg, int out_fd), void *arg, struct dc_resolve_child *child);
/* Return: 0; 1: it failed, and what it sent before is there; -errno of fork and pipe. */
int dc_resolve_child_end(struct dc_resolve_child *child);
void dc_resolve_child_fini(struct dc_resolve_child *child); /* after the end */
const char *dc_resolve_child_text(const struct dc_resolve_child *child); /* of its error */

static inline void dc_resolve_child_cleanup(struct dc_resolve_child *child)
{
	dc_resolve_child_fini(child);
}

/* --- modules.c --- */

/*
 * dc_resolve_open() - the file of a map, if it has the map's build-id (where the map has none: unless it is gone)
 * @ret_module: NULL: for names only, for which what was stripped off the file does, too. Return: fd; -ENOENT, -ESTALE:
 * another build; -errno.
 */
int dc_resolve_open(const struct dc_resolver *r, uint32_t map, struct dc_module **ret_module);

/* In a child, at its end: says so when a file was cut while it was read. Return: 0, -errno of write. */
int dc_resolve_tell_cut(const char *what, int out_fd);

/* Maps of the same file: @canon[i] is the first one like i. Return: 0, -ENOMEM. */
int dc_resolve_canon(const struct dc_map_entry *maps, const char *const *paths, uint32_t count, uint32_t *canon);

/*
 * What the cache knows the file of a map by; the kernel, whose addresses every boot has anew, by the boot. Return: its
 * length, 0: it is not to be cached.
 */
unsigned dc_resolve_cache_id(const struct dc_resolver *r, uint32_t map, const uint8_t **ret_id);

/* --- resolve_unwind.c --- */

struct dc_feed;

#define DC_UNWIND_TRIES 8u /* children in place of those that died of a fault, or hung */

struct dc_unwind_job {
	const struct dc_resolver *resolver;
	struct dc_feed *feed; /* whole samples; NULL: only addresses */
	uint32_t first; /* number of the first one of this child */
	uint32_t skips[DC_UNWIND_TRIES]; /* numbers of those that killed others */
	uint32_t skip_count;
	const uint64_t *addresses;
	uint32_t address_count;
	int64_t deadline_ns; /* CLOCK_MONOTONIC */
};
int dc_resolve_unwind_work(void *arg, int out_fd);

/* --- resolve_name.c --- */

struct dc_name_job {
	const struct dc_resolver *resolver;
	uint32_t *frames; /* numbers, to be named */
	uint32_t count;
	int64_t deadline_ns;
};
int dc_resolve_name_work(void *arg, int out_fd);
