/* SPDX-License-Identifier: MIT */
/*
 * Files that code is executed from, held open for as long as a process's address space (maps.h) refers to them and some
 * minutes longer: a capture settles after its process is gone, and what ran may have been replaced or deleted since.
 *
 *     one table for the whole process ──► by device and inode, while we look      every file is opened once
 *                                     └─► by build-id, in the settler's child     (descriptors come along with fork)
 *
 * A device and inode name a file only while it exists, which holding it open ensures. Bounded: of those nobody refers to
 * the oldest go first; a file for which there is no room is not held. Any thread; one lock, held for no I/O and across
 * fork(), so that a child finds the table whole.
 */
#pragma once

#include <stdint.h>
#include <sys/stat.h>

#include "persist/format.h"
#include "trigger/build_id.h"

#define DC_FILES_MAX 512u
#define DC_FILES_KEEP_NS INT64_C(600000000000) /* after the last address space that referred to it */

struct dc_file {
	dev_t dev; /* constant, as all of it that is not ours */
	ino_t ino;
	int fd; /* -1: there was no room to hold it */
	struct dc_build_id id;
	char *path; /* in the process, as the kernel told it */
	uint32_t refs;
	int64_t unused_ns; /* CLOCK_MONOTONIC since when refs is 0 */
};

/* dc_files_get() - the file, if it is held. Return: a reference, or NULL. */
struct dc_file *dc_files_get(dev_t dev, ino_t ino);

/*
 * dc_files_add() - hold @fd, a regular file, and read its build-id
 * Takes @fd in any case. Return: a reference (to an earlier one of the same device and inode, where there is one), or NULL
 * when there is no memory.
 */
struct dc_file *dc_files_add(int fd, const struct stat *st, const char *path);

struct dc_file *dc_files_ref(struct dc_file *f);
void dc_files_put(struct dc_file *f); /* accepts NULL */

/* dc_files_sweep() - close those unused for DC_FILES_KEEP_NS. */
void dc_files_sweep(int64_t now_ns);

/*
 * dc_files_open() - a descriptor of the file that was mapped
 * Made for struct dc_resolve_options.open. A file held is found by its build-id; of a mapping without one, by its path.
 * Otherwise @path is opened, and taken if it has the build-id of @map (if both have none: unless the mapped one is gone).
 * Return: fd (a new one), -ENOENT, -ESTALE: another build lies there; -errno.
 */
int dc_files_open(void *unused, const struct dc_map_entry *map, const char *path);
