/* SPDX-License-Identifier: MIT */
/*
 * Does the code of a process keep frame pointers? Then a stack is a list of addresses which the kernel can follow (300
 * bytes), else registers and a copy of the stack have to do (some KiB).
 *
 * Told from .eh_frame: where a function keeps one, the frame is found through that register (x86-64: the CFA becomes
 * rbp-based; aarch64: x29 is saved). Functions that set up nothing at all are not counted: they cannot break a chain.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct dc_frame_share {
	uint64_t with_bytes; /* of code in functions with a frame pointer */
	uint64_t code_bytes; /* of code in functions that set up a frame of any kind */
};

/*
 * dc_frame_share() - look at an ELF file
 * The first 4 MiB of its .eh_frame stand for the rest. Return: 0; -ENOEXEC: not a 64-bit ELF file with .eh_frame; -EBADMSG;
 * -errno.
 */
int dc_frame_share(int fd, struct dc_frame_share *ret_share);

/* Files that were looked at already. */
#define DC_FRAME_CACHE 128u
struct dc_frame_cache {
	uint32_t count; /* running; slot = count % DC_FRAME_CACHE */
	struct {
		uint64_t dev;
		uint64_t ino;
		int64_t changed_ns;
		struct dc_frame_share share;
	} files[DC_FRAME_CACHE];
};

/* dc_frame_pointers() - whether at least nine tenths of the code that process @pid maps keeps them; false: no, or unknown */
bool dc_frame_pointers(uint32_t pid, struct dc_frame_cache *cache);
