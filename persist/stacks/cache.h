/* SPDX-License-Identifier: MIT */
/*
 * Answers of dc_symbols_at(), kept on disk by build-id, so that the next capture of the same program asks for no debug
 * info. One file a module, <hex build-id>.names: sorted offsets, chains, strings; checked like any file when read.
 * The child reads them; new answers go through the pipe, and the parent writes a new file and renames it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/stacks/symbols.h"

struct dc_cache; /* answers about one module */

/* Return: 0 (also when there is no file yet: empty), -EBADMSG: damaged, treated as empty by callers; -errno. */
int dc_cache_load(int dir_fd, const uint8_t *build_id, unsigned build_id_bytes, struct dc_cache **ret_cache);
void dc_cache_free(struct dc_cache *c);
DC_DEFINE_CLEANUP(dc_cache, struct dc_cache *, dc_cache_free)

/* Return: length of the chain, 0: known to have no name, -ENOENT: not asked yet. */
int dc_cache_find(const struct dc_cache *c, uint64_t vaddr, struct dc_symbol *ret_chain, unsigned room);
/* Texts are copied. Return: 0, -ENOMEM, -ENOSPC: the file would become larger than DC_CACHE_FILE_MAX. */
int dc_cache_add(struct dc_cache *c, uint64_t vaddr, const struct dc_symbol *chain, unsigned count);
#define DC_CACHE_FILE_MAX (64u << 20)
/* Writes it if something was added: temporary file, rename. Bounded: the directory's oldest files go beyond @dir_bytes_max. */
int dc_cache_store(struct dc_cache *c, int dir_fd, uint64_t dir_bytes_max);
