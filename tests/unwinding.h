/* SPDX-License-Identifier: MIT */
/* What unwinding needs of a process: its executable mappings and the modules behind them, by /proc/PID/maps. */
#pragma once

#include <stdint.h>
#include <sys/types.h>
#include <ucontext.h>

#include "ipc/registers.h"
#include "persist/stacks/unwind.h"

#define SCENE_MAPS_MAX 256u

struct scene {
	uint32_t count;
	struct dc_unwind_map maps[SCENE_MAPS_MAX];
	char names[SCENE_MAPS_MAX][64]; /* last part of the path */
	struct dc_module *modules[SCENE_MAPS_MAX]; /* at the first mapping of each file */
	struct dc_unwinder *unwinder;
};

/* @pid: 0: ours. Fails the program on any error: it is a test's. */
void scene_open(struct scene *s, pid_t pid);
void scene_close(struct scene *s);
/* "" where nothing is mapped. */
const char *scene_name(const struct scene *s, uint64_t address);

/* Registers in the order of ipc/registers.h. */
void regs_of(const ucontext_t *uc, uint64_t *ret_regs);
