/* SPDX-License-Identifier: MIT */
/*
 * Debug info that is not in the program itself, in the places where gdb and elfutils look. A file counts only when
 * its build-id is the wanted one, or, where there is none, its checksum.
 *
 *     .gnu_debuglink     name and checksum        DIR/.build-id/xx/yyyy.debug, beside the program, in .debug/ beside it,
 *                                                 DIR/directory of the program/name, DIR/name
 *     .gnu_debugaltlink  path and build-id        what dwz took out of several programs' debug info, put into one file
 *     .gnu_debugdata     packed ELF file          symbols of functions that .dynsym does not have
 */
#pragma once

#include "persist/stacks/elf_file.h"

/*
 * @path: of the program, may be NULL. @dirs: NULL-terminated. One with DWARF; of a program without symbols of its own, else
 * one that has them. Return: 0, -ENOENT, -ENOMEM.
 */
int dc_debug_file_find(struct dc_elf *program, const char *path, const char *const *dirs, struct dc_elf **ret_debug);
/* @debug: a file with debug info; @path: its path or the program's. -ENOENT also where there is no such section. */
int dc_debug_file_find_alt(struct dc_elf *debug, const char *path, const char *const *dirs, struct dc_elf **ret_alt);
/* Return: 0, -ENOENT: no such section, -EBADMSG: damaged or would unpack to more than is allowed, -ENOMEM. */
int dc_debug_file_unpack(struct dc_elf *program, struct dc_elf **ret_packed);
#define DC_DEBUG_UNPACKED_MAX (64u << 20)
