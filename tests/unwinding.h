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

/* Virtual addresses where descriptions begin, by the search table of @m; caller frees. Return: how many, 0: no such table. */
uint32_t functions_of(const struct dc_module *m, uint64_t **ret_begins);

/*
 * An ELF file of our own making, MADE_BYTES of memory: code of 256 bytes at MADE_CODE, and a frame description of it with
 * @rules. The return address lies below the CFA, which is the stack pointer plus 8, if @rules do not say other things.
 */
#define MADE_BYTES 4096u
#define MADE_CODE 0xc00u
#define MADE_CODE_BYTES 256u
#define MADE_FRAMES 0x400u
void module_make(const uint8_t *rules, unsigned bytes, uint8_t *ret_image);
