/* SPDX-License-Identifier: MIT */
/*
 * From registers and a copy of the stack to return addresses, with libunwind's remote accessors: memory is the copied
 * stack, then the modules' files (by their maps), and nothing else. Runs in the sandboxed child. One address space per
 * process, kept over all its samples; identical stacks are unwound once.
 */
#pragma once

#include <stdint.h>

#include "persist/format.h"
#include "persist/stacks/module.h"
#include "persist/stacks/stacks.h"

struct dc_unwinder;

/* A mapping and the file behind it; @module NULL: the file is not to be had, and a frame in it ends the walk. */
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
	bool to_root; /* the outermost frame was reached: no more return addresses, as the ABI marks it, or main's caller */
	uint32_t stack_used; /* bytes of the copy that were looked at: what a copy would have needed */
	uint64_t addresses[DC_STACKS_DEPTH_MAX]; /* innermost first; as they are in registers and on the stack */
	uint8_t flags[DC_STACKS_DEPTH_MAX]; /* DC_FRAME_CALL, DC_FRAME_SIGNAL */
};

/*
 * dc_unwind() - one sample
 * @regs, @reg_count: ipc/registers.h. @stack: @stack_bytes copied from the stack pointer up.
 * At least one frame comes back, the program counter itself. A first frame outside of any map is tried as a call through
 * a bad pointer (return address at the stack pointer). Cyclic or senseless unwind tables end the walk. Return: 0,
 * -EINVAL: registers of another machine.
 */
int dc_unwind(struct dc_unwinder *u, const uint64_t *regs, unsigned reg_count, const uint8_t *stack, uint32_t stack_bytes,
	      struct dc_unwound *ret_unwound);
