/* SPDX-License-Identifier: MIT */
/*
 * Names as people wrote them: C++ (Itanium ABI) and Rust (legacy and v0), by libiberty's demanglers, which gdb and
 * binutils use too. A mangled name may be hostile: its length is bounded, and what it unfolds to is cut off while it is
 * made (a few bytes can unfold to gigabytes).
 */
#pragma once

#include <stddef.h>

#define DC_DEMANGLED_BYTES 16384u /* with its NUL */
#define DC_MANGLED_BYTES_MAX 4096u

/*
 * dc_demangle() - demangle @name
 * Return: @buffer with the readable name (cut with "..." when it does not fit), or @name itself where it is not mangled,
 * too long or not valid. Not for several threads with one buffer.
 */
const char *dc_demangle(const char *name, char buffer[static DC_DEMANGLED_BYTES]);
