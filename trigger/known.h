/* SPDX-License-Identifier: MIT */
/*
 * What the kernel says of a process while it lives, kept for when it does not: its executable, its command line (with
 * values that look like secrets masked) and the names of its threads. A capture at death has them only because somebody
 * looked before; the guest itself may not ask (no system calls after start).
 *
 * Written by the watcher's loop, now and then; read by the capture worker: one lock, held for no I/O.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ipc/ring.h"

struct dc_known;

#define DC_KNOWN_THREADS_MAX 4096u /* names kept; those of further threads are not */

/* dc_known_new() - nothing known yet. Return: NULL when there is no memory; every function here accepts NULL. */
struct dc_known *dc_known_new(void);
void dc_known_free(struct dc_known *k);

/*
 * dc_known_look() - ask /proc about process @pid, started at @start_time (field 22 of its stat)
 * @ns_pid: what it calls itself; thread names are kept only where that is @pid too, else ids do not match
 * Costs a few µs a thread whose name is not known yet. Nothing is forgotten when the process is gone or somebody else.
 */
void dc_known_look(struct dc_known *k, uint32_t pid, uint32_t ns_pid, uint64_t start_time);

/* What is known, or empty strings. */
void dc_known_facts(struct dc_known *k, char *ret_exe, size_t exe_size, char *ret_cmdline, size_t cmdline_size);

/* dc_known_name_lanes() - fill in the names of lanes whose guest gave them none */
void dc_known_name_lanes(struct dc_known *k, struct dc_ring_lane *lanes, uint32_t count);
