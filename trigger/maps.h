/* SPDX-License-Identifier: MIT */
/*
 * The address space of a process as its stacks will need it: which file's code lay where, and the files themselves, held
 * open (files.h), so that a binary replaced or deleted while it runs, or a process that is gone, can still be unwound and
 * named.
 *
 * Read from /proc/PID/maps when the process is found, again when its ring's module table grows, when a perf event says
 * that something was mapped, and at a trigger; what went away keeps its entry with the time it was seen to be gone.
 *
 *     dc_maps_want(m)              something changed; from anywhere
 *     dc_maps_due(m, now)          four times a second: worth a look now? A process that maps and unmaps all day long, or
 *                                  has a hundred thousand mappings, is looked at so seldom that it costs 1 % of a core
 *     dc_maps_look(m, pid, ...)    in the watcher's loop only: it waits for no disk but that of the process's own binaries
 *     dc_maps_write(m, w, ...)     by the capture worker
 *
 * One lock, held for no I/O.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/writer.h"
#include "trigger/files.h"

struct dc_maps;

#define DC_MAPS_MAX 4096u /* entries kept of one process; the oldest that are gone make room */

/* Return: NULL when there is no memory; every function here accepts NULL. Counted, as rings are. */
struct dc_maps *dc_maps_new(void);
struct dc_maps *dc_maps_ref(struct dc_maps *m);
void dc_maps_unref(struct dc_maps *m);
DC_DEFINE_CLEANUP(dc_maps, struct dc_maps *, dc_maps_unref)

/*
 * dc_maps_look() - read /proc/PID/maps of process @pid, started at @start_time
 * Opens files that are new: through /proc/PID/map_files where we may, else by path in the process's root, where the inode
 * must be the same. Return: 0; -ESRCH: gone, or somebody else; -EACCES: not ours to look at; -errno. On error what was
 * known stays.
 */
int dc_maps_look(struct dc_maps *m, uint32_t pid, uint64_t start_time);

/*
 * dc_maps_of_modules() - what the table of a guest says instead
 * It knows where a module begins, not its segments: the file offset of an address is taken to be its distance from there,
 * as ld lays out what it links. The entries come from a ring and are checked. Return: NULL when there is no memory.
 */
struct dc_maps *dc_maps_of_modules(const struct dc_ring_module *modules, uint32_t count, const char *strings,
				   uint32_t strings_bytes);

void dc_maps_want(struct dc_maps *m);
bool dc_maps_due(struct dc_maps *m, int64_t now_ns);

/* dc_maps_kernel() - also an entry for the kernel: samples have frames of it. */
void dc_maps_kernel(struct dc_maps *m);

/* How many entries there are. */
uint32_t dc_maps_count(struct dc_maps *m);

/* Whether any of them is the process's own, and not the kernel's. */
bool dc_maps_of_process(struct dc_maps *m);

/* What of it a capture has already. Zero at first. */
struct dc_maps_mark {
	uint64_t serial;
	uint32_t count; /* entries, which are numbered on over all blocks of a process */
};

/*
 * dc_maps_write() - MAPS blocks of process number @process: entries that @mark does not have yet
 * Return: 0, the writer's error, -ENOMEM.
 */
int dc_maps_write(struct dc_maps *m, struct dc_writer *w, uint32_t process, struct dc_maps_mark *mark);
