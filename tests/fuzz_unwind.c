/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a module, and as a stack that points into it. Held to: no crash and no byte out of bounds (the sanitizer),
 * no hang (libFuzzer's limit), at least one frame and not too many, return addresses inside of known code, a second time
 * the same, and the same again with a copy of as many bytes as were used.
 *
 * The input: one byte says how many words of stack, one how far into the module the program counter is (in 16ths of it, and
 * 16ths of those), six of no meaning, the words, the module. Words are addresses where they can be: the module is at AT.
 */
#include <stdlib.h>
#include <string.h>

#include "ipc/registers.h"
#include "persist/stacks/unwind.h"

#define AT UINT64_C(0x10000000)
#define STACK_AT UINT64_C(0x7fff0000)

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void check(const struct dc_unwound *w, uint64_t pc, uint64_t module_bytes, uint64_t stack_bytes)
{
	must(w->count >= 1 && w->count <= DC_STACKS_DEPTH_MAX && w->addresses[0] == pc && w->stack_used <= stack_bytes);
	for (uint32_t i = 1; i < w->count; i++)
		if (w->flags[i] & DC_FRAME_CALL)
			must(w->addresses[i] - 1 - AT < module_bytes);
}

static void same(const struct dc_unwound *a, const struct dc_unwound *b)
{
	must(a->count == b->count && a->to_root == b->to_root && a->stack_used == b->stack_used);
	must(memcmp(a->addresses, b->addresses, a->count * sizeof a->addresses[0]) == 0);
	must(memcmp(a->flags, b->flags, a->count) == 0);
}

static void unwind(const struct dc_module *m, uint64_t pc, const uint8_t *stack, uint32_t bytes)
{
	static struct dc_unwound first, again;
	CLEANUP(dc_unwinder) struct dc_unwinder *u = NULL;
	struct dc_unwind_map map = {AT, AT + m->bytes, 0, m};
	uint64_t regs[DC_REGS];

	for (unsigned i = 0; i < DC_REGS; i++)
		regs[i] = STACK_AT + 64 + 8 * i;
	regs[DC_REG_SP] = STACK_AT;
	regs[DC_REG_PC] = pc;
	must(dc_unwinder_new(&map, 1, &u) == 0);
	must(dc_unwind(u, regs, DC_REGS, stack, bytes, &first) == 0);
	check(&first, pc, m->bytes, bytes);
	must(dc_unwind(u, regs, DC_REGS, stack, bytes, &again) == 0);
	same(&first, &again);
	must(dc_unwind(u, regs, DC_REGS, stack, first.stack_used, &again) == 0);
	same(&first, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(dc_module) struct dc_module *m = NULL;

	if (size < 8 || size - 8 < data[0] * 8u)
		return 0;
	uint32_t stack_bytes = data[0] * 8u;
	const uint8_t *image = data + 8 + stack_bytes;
	size_t bytes = size - 8 - stack_bytes;
	/* Where they end, the sanitizer's fence begins; stack words may lie at any address. */
	CLEANUP(free) uint8_t *copy = malloc(bytes ? bytes : 1);
	CLEANUP(free) uint8_t *stack = malloc(stack_bytes ? stack_bytes : 1);
	must(copy && stack);
	memcpy(copy, image, bytes);
	memcpy(stack, data + 8, stack_bytes);
	if (dc_module_open_memory(copy, bytes, &m) == 0)
		unwind(m, AT + bytes * data[1] / 256, stack, stack_bytes);
	return 0;
}
