/* SPDX-License-Identifier: MIT */
/*
 * From an address in a module to function, file:line and the chain of functions inlined there, with elfutils. Runs in the
 * sandboxed child. Tables are built once per module, sorted; each address is asked for once.
 *
 * What is believed, best first: DWARF (of the file itself, its .gnu_debuglink, or a separate file by build-id), then
 * .symtab, then .dynsym (and .gnu_debugdata where it can be unpacked). Names are demangled (C++, Rust).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_symbols;

/* Where else debug info may be: directories laid out like /usr/lib/debug (NULL-terminated; also plain files by name). */
struct dc_symbols_options {
	const char *const *debug_dirs;
	bool lines; /* false: functions only, no DWARF is read */
};

/* @fd: the ELF file, stays the caller's; @path: what it was called, for .gnu_debuglink. Return: 0, -ENOEXEC, -ENOMEM, -errno. */
int dc_symbols_open(int fd, const char *path, const struct dc_symbols_options *options, struct dc_symbols **ret_symbols);
void dc_symbols_close(struct dc_symbols *s);
DC_DEFINE_CLEANUP(dc_symbols, struct dc_symbols *, dc_symbols_close)

struct dc_symbol {
	const char *function; /* valid until close; empty: not known */
	const char *file;
	uint32_t line;
	uint64_t start; /* virtual address where the function's symbol begins; 0: not known */
};

/*
 * dc_symbols_at() - what is at virtual address @vaddr: the innermost inlined function first, the one that has a symbol last
 * Return: how many, at most @room; 0: nothing is known. A negative answer is kept too.
 */
unsigned dc_symbols_at(struct dc_symbols *s, uint64_t vaddr, struct dc_symbol *ret_chain, unsigned room);

/* "kallsyms": the kernel's own, where they may be read. Return: 0, -EACCES (addresses are hidden), -errno. */
int dc_symbols_open_kernel(struct dc_symbols **ret_symbols);
