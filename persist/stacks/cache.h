/* SPDX-License-Identifier: MIT */
/*
 * Answers of dc_symbols_at(), kept on disk by build-id, so that the next capture of the same program asks for no debug
 * info. The child reads them; new answers go through the pipe, and the parent writes a new file and renames it.
 *
 *     <hex build-id>.names   header  addresses  symbols  strings      little-endian, one after the other, no gaps
 *
 *     struct dc_cache_header   magic, version, counts, and a checksum of the whole file
 *     struct dc_cache_address  by address, ascending; which symbols are there: @count from @first on, innermost first
 *     struct dc_cache_symbol   function and file are numbers of strings
 *     strings                  each ends in a NUL; number 0 is the empty one and comes first
 *
 * A file is checked like any other: one that is damaged, of another version or of another build-id is as if it were not
 * there, and is replaced. Files are only ever renamed into place.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/stacks/symbols.h"

#define DC_CACHE_MAGIC "DCNAMES" /* with its NUL */
#define DC_CACHE_VERSION 1u
#define DC_CACHE_FILE_MAX (64u << 20)

struct dc_cache_header {
	char magic[8];
	uint32_t version;
	uint32_t source; /* DC_SYMBOLS_*: what the answers were made from */
	uint64_t checksum; /* dc_checksum() of the file, with zero here */
	uint8_t build_id[24];
	uint32_t build_id_bytes;
	uint32_t address_count;
	uint32_t symbol_count;
	uint32_t string_count;
	uint32_t strings_bytes;
	uint32_t reserved; /* 0 */
};

struct dc_cache_address {
	uint64_t vaddr;
	uint32_t first;
	uint32_t count; /* 0: known to have no name */
};

struct dc_cache_symbol {
	uint64_t start;
	uint32_t function;
	uint32_t file;
	uint32_t line;
	uint32_t reserved; /* 0 */
};

struct dc_cache; /* answers about one module */

/*
 * dc_cache_load() - what the directory has about a module
 * Return: 0 (also when there is no file, or none to be believed: empty), -EINVAL: a build-id has 1 to 24 bytes; -ENOMEM;
 * -errno of reading.
 */
int dc_cache_load(int dir_fd, const uint8_t *build_id, unsigned build_id_bytes, struct dc_cache **ret_cache);
void dc_cache_free(struct dc_cache *c);
DC_DEFINE_CLEANUP(dc_cache, struct dc_cache *, dc_cache_free)

/*
 * dc_cache_require() - answers can now be had from @source (dc_symbols_source()); those made from less are dropped
 * So debug info that is installed later is used. Better answers than @source would give stay.
 */
void dc_cache_require(struct dc_cache *c, unsigned source);

/* Texts are valid until the next add. Return: length of the chain, 0: known to have no name, -ENOENT: not asked yet. */
int dc_cache_find(const struct dc_cache *c, uint64_t vaddr, struct dc_symbol *ret_chain, unsigned room);
/*
 * Texts are copied; an address that is there already stays as it is. Return: 0, -ENOMEM, -ENOSPC: the file would become
 * larger than DC_CACHE_FILE_MAX; -EINVAL: more than DC_SYMBOLS_CHAIN_MAX symbols.
 */
int dc_cache_add(struct dc_cache *c, uint64_t vaddr, const struct dc_symbol *chain, unsigned count);

/*
 * dc_cache_store() - write it if something was added: temporary file, rename
 * The directory is then brought down to @dir_bytes_max: its oldest files go, this one last.
 * Return: 0, -errno: the old file is as it was.
 */
int dc_cache_store(struct dc_cache *c, int dir_fd, uint64_t dir_bytes_max);
