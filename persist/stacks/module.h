/* SPDX-License-Identifier: MIT */
/*
 * One ELF file that code was executed from: what unwinding and naming need of it. Used in the sandboxed child only
 * (sandbox.h): the file is mapped, may be hostile, and may be cut while we read it, which kills the child and costs names.
 * All offsets from the file are checked before they are followed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_module_segment { /* PT_LOAD */
	uint64_t vaddr;
	uint64_t offset;
	uint64_t file_bytes;
	uint64_t memory_bytes;
	bool executable;
};

struct dc_module {
	const uint8_t *image; /* the file */
	size_t bytes;
	bool mapped; /* by us; else it is the caller's memory */
	uint16_t machine; /* EM_X86_64, EM_AARCH64 */
	uint32_t segment_count;
	struct dc_module_segment *segments;
	uint64_t eh_frame_hdr; /* virtual address, 0: none */
	uint64_t eh_frame_hdr_bytes;
	uint64_t eh_frame; /* from the header or the section table; 0: none */
	uint64_t eh_frame_bytes;
	uint64_t debug_frame_offset; /* in the file; 0: none, or compressed */
	uint64_t debug_frame_bytes;
	uint8_t build_id[24];
	uint8_t build_id_bytes;
};

/* @fd stays the caller's. Return: 0; -ENOEXEC: not an ELF file of 64 bits in our byte order; -EBADMSG: it lies; -errno. */
int dc_module_open(int fd, struct dc_module **ret_module);
/* One that lies in our own memory, which outlives it. */
int dc_module_open_memory(const void *image, size_t bytes, struct dc_module **ret_module);
/* The vdso of this process, which is that of all others of its kind. Return: also -ENOENT: there is none. */
int dc_module_open_vdso(struct dc_module **ret_module);
void dc_module_close(struct dc_module *m);
DC_DEFINE_CLEANUP(dc_module, struct dc_module *, dc_module_close)

/*
 * dc_module_vaddr() - the virtual address of what is at @offset in the file
 * Also for the start of a mapping, which lies up to a page before the segment that it is of. Where segments share bytes of
 * the file, it is the executable one. Return: false: in no segment.
 */
bool dc_module_vaddr(const struct dc_module *m, uint64_t offset, uint64_t *ret_vaddr);
/* dc_module_at() - the @bytes bytes at virtual address @vaddr; NULL: they are not all in the file, in one segment. */
const void *dc_module_at(const struct dc_module *m, uint64_t vaddr, size_t bytes);
