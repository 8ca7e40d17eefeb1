/* SPDX-License-Identifier: MIT */
/*
 * The watcher's end of a handover (ipc/handover.h): takes descriptors from processes that it may not open events for.
 *
 * Whoever sends is not believed. Its user must be ours, or root: closing a descriptor may wait for who is behind its file
 * system, so nothing is taken from those who could not stop us anyway; that is the kernel's word (SO_PEERCRED), and so is the
 * pid. What comes must be perf events, as many as the message says and no more than it may; anything else is closed, and its
 * sender's connection with it. How an event is shaped cannot be asked for: what it writes is read as any bytes are
 * (perf_ring.h), and concerns that process only (sampler_handed.c).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/handover.h"

struct dc_handover_socket;

struct dc_handed {
	uint32_t pid;
	bool first;
	uint32_t cpu;
	uint32_t count;
	struct {
		int fd; /* -1: taken */
		uint8_t kind;
		uint8_t shift;
	} event[DC_HANDOVER_EVENTS];
};

/* What it does not take (sets to -1) is closed afterwards. Return: < 0: no more from this one. */
typedef int dc_handover_handler(void *arg, struct dc_handed *handed);

/* Listens in @dir. Return: 0, -errno. */
int dc_handover_open(const char *dir, dc_handover_handler *handler, void *arg, struct dc_handover_socket **ret_socket);
/* The name in the directory stays. */
void dc_handover_close(struct dc_handover_socket *h);
/* Readable when something came; then dc_handover_dispatch(). */
int dc_handover_fd(const struct dc_handover_socket *h);
void dc_handover_dispatch(struct dc_handover_socket *h);

/*
 * dc_handover_wanted() - whether there are processes of ours that the kernel would not let us sample: without CAP_PERFMON,
 * CAP_SYS_PTRACE or CAP_SYS_ADMIN
 */
bool dc_handover_wanted(void);
