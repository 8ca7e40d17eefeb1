/* SPDX-License-Identifier: MIT */
/*
 * The address space of a process as its stacks will need it: which file's code lay where, and the files themselves, held
 * open, so that a binary replaced or deleted while it runs, or a process that is gone, can still be unwound and named.
 *
 * Read from /proc/PID/maps when the process is found, again when its ring's module table grows, when a perf event says
 * that something was mapped, and at a trigger; what went away keeps its entry with the time it was seen to be gone.
 * Written by the watcher's loop, read by the capture worker and the settler: one lock, held for no I/O.
 */
#pragma once

#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/writer.h"

struct dc_maps;

#define DC_MAPS_MAX 4096u /* entries kept of one process; the oldest that are gone make room */

/* Return: NULL when there is no memory; every function here accepts NULL. Counted, as rings are. */
struct dc_maps *dc_maps_new(void);
struct dc_maps *dc_maps_ref(struct dc_maps *m);
void dc_maps_unref(struct dc_maps *m);
DC_DEFINE_CLEANUP(dc_maps, struct dc_maps *, dc_maps_unref)

/*
 * dc_maps_look() - read /proc/PID/maps of process @pid, started at @start_time
 * Opens files that are new (through /proc/PID/map_files where we may, else by path in the process's root, compared by device
 * and inode), reads their build-ids. Return: 0; -ESRCH: gone, or somebody else; -EACCES: not ours to look at; -errno.
 */
int dc_maps_look(struct dc_maps *m, uint32_t pid, uint64_t start_time);

/* dc_maps_write() - MAPS blocks of process number @process. Return: 0, the writer's error, -ENOMEM. */
int dc_maps_write(struct dc_maps *m, struct dc_writer *w, uint32_t process);

/*
 * dc_files_open() - a descriptor of the file with this build-id that some watcher's maps hold open in this process
 * Made for struct dc_resolve_options.open: falls back to the path when the build-id found there is the same.
 * Return: fd (a new one), -ENOENT, -errno.
 */
int dc_files_open(void *unused, const struct dc_map_entry *map, const char *path);
