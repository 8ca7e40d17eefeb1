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
#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_symbols;

struct dc_symbols_options {
	/* Where else debug info may be: laid out like /usr/lib/debug, or plain files by name. NULL: /usr/lib/debug. */
	const char *const *debug_dirs; /* NULL-terminated */
	bool lines; /* false: functions only, no DWARF is read */
	size_t memory_bytes; /* what tables made from DWARF may keep, about; 0: 128 MiB */
};

/*
 * dc_symbols_open() - cheap: files are found and opened, tables are built when the first address is asked for
 * @fd: the ELF file, stays the caller's, who may close it; @path: what it was called, for .gnu_debuglink, may be NULL;
 * @options: NULL: the defaults, with lines.
 * Return: 0; -ENOEXEC: not a regular file, or not ELF of 64 bits in our byte order; -ENOMEM; -errno.
 */
int dc_symbols_open(int fd, const char *path, const struct dc_symbols_options *options, struct dc_symbols **ret_symbols);
void dc_symbols_close(struct dc_symbols *s);
DC_DEFINE_CLEANUP(dc_symbols, struct dc_symbols *, dc_symbols_close)

/* What answers are made from: answers from less (of a cache, cache.h) are worth asking again. */
#define DC_SYMBOLS_NONE 0u
#define DC_SYMBOLS_DYNAMIC 1u /* .dynsym, perhaps with .gnu_debugdata */
#define DC_SYMBOLS_TABLE 2u /* .symtab, of the file or of a separate one */
#define DC_SYMBOLS_DWARF 3u
unsigned dc_symbols_source(struct dc_symbols *s);

struct dc_symbol {
	const char *function; /* valid until close; empty: not known */
	const char *file; /* whole, where the compiler says where it ran; empty: not known */
	uint32_t line; /* of the innermost function: of the address; of the others: of the call of the one before */
	uint64_t start; /* virtual address where the function's code, of the last one: its symbol, begins; 0: not known */
};

#define DC_SYMBOLS_CHAIN_MAX 64u /* deeper chains lose their outermost functions */

/*
 * dc_symbols_at() - what is at virtual address @vaddr: the innermost inlined function first, the one that has a symbol last
 * For a return address ask for the byte before it: the call, not what comes after.
 * Return: how many, at most @room; 0: nothing is known. A negative answer is kept too.
 */
unsigned dc_symbols_at(struct dc_symbols *s, uint64_t vaddr, struct dc_symbol *ret_chain, unsigned room);

/*
 * "kallsyms": the kernel's own, where they may be read; functions of modules are called "name [module]".
 * Return: 0, -EACCES (addresses are hidden), -ENOMEM, -errno.
 */
int dc_symbols_open_kernel(struct dc_symbols **ret_symbols);
/* The same from another file in that form. */
int dc_symbols_open_kallsyms(int fd, struct dc_symbols **ret_symbols);
