/* SPDX-License-Identifier: MIT */
/*
 * An ELF file as the symboliser sees it: sections by name, and its symbols. Only elf_file.c knows libelf. Files may be
 * hostile; they are mapped, and one that is cut while it is read kills the process (the sandboxed child).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/stacks/symbol_table.h"

struct Elf; /* libelf's */
struct dc_elf;

/* @fd stays the caller's. Return: 0; -ENOEXEC: not a regular file, not ELF of 64 bits in our byte order; -ENOMEM; -errno. */
int dc_elf_open(int fd, struct dc_elf **ret_elf);
/* As above; never waits (a FIFO is refused), -ELOOP when it is the same file as @other (may be NULL). */
int dc_elf_open_path(const char *path, const struct dc_elf *other, struct dc_elf **ret_elf);
/* An image in memory, copied. */
int dc_elf_open_memory(const void *image, size_t bytes, struct dc_elf **ret_elf);
void dc_elf_close(struct dc_elf *e);
DC_DEFINE_CLEANUP(dc_elf, struct dc_elf *, dc_elf_close)

struct Elf *dc_elf_handle(struct dc_elf *e);
int dc_elf_fd(const struct dc_elf *e); /* -1: an image in memory */
const char *dc_elf_path(const struct dc_elf *e); /* NULL unless it was opened by its path */
bool dc_elf_has_dwarf(struct dc_elf *e);
/* Gives back the memory of what was read of the file; it is read again when it is needed. */
void dc_elf_forget(struct dc_elf *e);
/* As it lies in the file; compressed sections are not unpacked. Return: NULL: none of that name with bytes in the file. */
const void *dc_elf_section(struct dc_elf *e, const char *name, size_t *ret_bytes);
/* Return: its length, 0: none. */
size_t dc_elf_build_id(struct dc_elf *e, const void **ret_build_id);

/* May code be at @address? True of everything where the file has no program headers. */
bool dc_elf_executable(const struct dc_elf *e, uint64_t address);

/*
 * dc_elf_add_symbols() - the symbols of section ".symtab" or ".dynsym"
 * @layout: whose sections they lie in (a separate debug file has the headers of sections without the bytes).
 * Their .name is the offset of their text; @source comes back with them. Return: how many, -ENOENT: no such table;
 * -ENOMEM, -E2BIG.
 */
int dc_elf_add_symbols(struct dc_elf *e, const char *section, const struct dc_elf *layout, uint8_t source,
		       struct dc_symbol_table *t);
/* Never NULL. @section: as above. */
const char *dc_elf_symbol_name(struct dc_elf *e, const char *section, uint32_t name);
