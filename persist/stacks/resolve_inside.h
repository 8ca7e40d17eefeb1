/* SPDX-License-Identifier: MIT */
/*
 * What a resolver consists of. Shared by its files, of no interest to others:
 *
 *   resolve.c         the parent: runs children, checks what they send, keeps it
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
	struct dc_resolved_names *names;
	uint32_t names_count;
	uint32_t name_count; /* names in all of them */
	uint32_t name_first;
	size_t name_bytes;
	uint32_t samples;
	uint32_t unwound;
	uint32_t to_root;
	uint32_t used[DC_USED_STEPS];
	int64_t unwind_ns;
	int64_t name_ns;
	char why[160];
};

int64_t dc_resolve_now_ns(void);

/* --- modules.c --- */

/*
 * dc_resolve_open() - the file of a map, if it has the map's build-id (where the map has none: unless it is gone)
 * @ret_module: NULL: for names only, for which what was stripped off the file does, too. Return: fd; -ENOENT, -ESTALE: another build; -errno.
 */
int dc_resolve_open(const struct dc_resolver *r, uint32_t map, struct dc_module **ret_module);

/* Maps of the same file: @canon[i] is the first one like i. Return: 0, -ENOMEM. */
int dc_resolve_canon(const struct dc_map_entry *maps, const char *const *paths, uint32_t count, uint32_t *canon);

/* What the cache knows the file of a map by; the kernel, whose addresses every boot has anew, by the boot. Return: its length, 0: it is not to be cached. */
unsigned dc_resolve_cache_id(const struct dc_resolver *r, uint32_t map, const uint8_t **ret_id);

/* --- resolve_unwind.c --- */

struct dc_unwind_job {
	const struct dc_resolver *resolver;
	const struct dc_sample_source *source; /* NULL: only addresses */
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
