/* SPDX-License-Identifier: MIT */
/*
 * From registers and a copy of the stack to return addresses: by what the module of each frame's code (by its map) says
 * of it; memory is the copied stack, and nothing else. Runs in the sandboxed child. One unwinder per process, kept over all
 * its samples: what is said of a program counter is read once. (Whole stacks are not compared: to hash a copy takes longer
 * than to unwind it again.) System calls, for a filter: mmap, munmap, rt_sigprocmask.
 */
#pragma once

#include <stdint.h>

#include "persist/format.h"
#include "persist/stacks/module.h"
#include "persist/stacks/stacks.h"

struct dc_unwinder;

/* An executable mapping and the file behind it; @module NULL: none is to be had: only frame pointers lead out of it. */
struct dc_unwind_map {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	const struct dc_module *module;
};

/* @maps: sorted by start, not overlapping; borrowed, as the modules are. Return: 0, -ENOMEM. */
int dc_unwinder_new(const struct dc_unwind_map *maps, uint32_t count, struct dc_unwinder **ret_unwinder);
void dc_unwinder_free(struct dc_unwinder *u);
DC_DEFINE_CLEANUP(dc_unwinder, struct dc_unwinder *, dc_unwinder_free)

struct dc_unwound {
	uint32_t count;
	/*
	 * The outermost frame was reached: its description says that it has no caller (_start, clone), its return address is
	 * 0, or nothing describes it and its frame pointer is 0, as the ABI has it at the start of processes and threads.
	 */
	bool to_root;
	uint32_t stack_used; /* from the start of the copy to the last byte looked at: a shorter copy would not do */
	uint64_t addresses[DC_STACKS_DEPTH_MAX]; /* innermost first; as they are in registers and on the stack */
	uint8_t flags[DC_STACKS_DEPTH_MAX]; /* DC_FRAME_CALL, DC_FRAME_SIGNAL (the trampoline that a handler returns to), or 0: exact */
};

/*
 * dc_unwind() - one sample
 * @regs, @reg_count: ipc/registers.h. @stack: @stack_bytes copied from the stack pointer up.
 * At least one frame comes back, the program counter itself. One outside of any map is tried as a call through a bad
 * pointer (return address at the stack pointer). Code without unwind tables (of JITs): by the frame pointer, where it leads
 * up the stack to behind a call. Cyclic or senseless unwind tables end the walk. Return: 0, -EINVAL: registers of another
 * machine.
 */
int dc_unwind(struct dc_unwinder *u, const uint64_t *regs, unsigned reg_count, const uint8_t *stack, uint32_t stack_bytes,
	      struct dc_unwound *ret_unwound);
