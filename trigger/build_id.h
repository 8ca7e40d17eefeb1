/* SPDX-License-Identifier: MIT */
/*
 * The build-id of an ELF file, which says which build of a program it is wherever it lies: from the PT_NOTE segments, as
 * the linker wrote it. The file may be anything; little of it is read and all of it checked.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define DC_BUILD_ID_BYTES 24u /* longer ones are none, as for the guest (ipc/ring.h) */

struct dc_build_id {
	uint8_t count; /* 0: there is none */
	uint8_t bytes[DC_BUILD_ID_BYTES];
};

/* Of a file. Return: 0, also when it has none; -ENOEXEC: not a 64-bit ELF file of our byte order; -EBADMSG: it lies; -errno. */
int dc_build_id_read(int fd, struct dc_build_id *ret_id);

/* The same of an image in our own memory: the vdso. */
int dc_build_id_of_image(const void *image, size_t bytes, struct dc_build_id *ret_id);

/* Of a run of notes, such as /sys/kernel/notes. Return: 0, -ENOENT. */
int dc_build_id_of_notes(const void *notes, size_t bytes, size_t align, struct dc_build_id *ret_id);
