/* SPDX-License-Identifier: MIT */
#include "persist/stacks/code.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <ucontext.h>

#define CODE_BYTES 12u /* that are enough to know a trampoline or a PLT entry */
#define JUMPS_BYTES 256u /* of a function that chooses another by what the processor can do */

static void row_load(struct dc_row *row, unsigned base, int32_t offset)
{
	row->rules[row->loads++] = (struct dc_rule){.offset = offset, .base = (uint8_t)base};
}

static void row_set(struct dc_row *row, unsigned target, unsigned base, int32_t offset)
{
	row->rules[row->loads + row->sets++] = (struct dc_rule){
		.offset = offset, .base = (uint8_t)base, .target = (uint8_t)target};
}

/* To what a frame pointer points: that of the caller, and the return address. */
struct dc_row dc_code_row_chain(void)
{
	struct dc_row row = {.kind = DC_ROW_STEP};

	row_load(&row, DC_REG_FRAME, 0);
	row_load(&row, DC_REG_FRAME, 8);
	row_set(&row, DC_REG_SP, DC_REG_FRAME, 16);
	row_set(&row, DC_REG_FRAME, DC_REGS, 0);
	row_set(&row, DC_REG_PC, DC_REGS + 1, 0);
	return row;
}

#if defined(__x86_64__)
/* Nothing was pushed since the call. */
struct dc_row dc_code_row_bare(void)
{
	struct dc_row row = {.kind = DC_ROW_STEP};

	row_load(&row, DC_REG_SP, 0);
	row_set(&row, DC_REG_SP, DC_REG_SP, 8);
	row_set(&row, DC_REG_PC, DC_REGS, 0);
	return row;
}

static bool trampoline_bytes(const uint8_t *code)
{
	static const uint8_t wide[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05}; /* mov $15,%rax; syscall */
	static const uint8_t narrow[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05}; /* mov $15,%eax; syscall */

	return memcmp(code, wide, sizeof wide) == 0 || memcmp(code, narrow, sizeof narrow) == 0;
}

/* The kernel's struct ucontext lies at the stack pointer. */
struct dc_row dc_code_row_signal(void)
{
	static const uint8_t order[] = {8,
					9,
					10,
					11,
					12,
					13,
					14,
					15,
					DC_REG_X86_RDI,
					DC_REG_X86_RSI,
					DC_REG_X86_RBP,
					DC_REG_X86_RBX,
					DC_REG_X86_RDX,
					DC_REG_X86_RAX,
					DC_REG_X86_RCX,
					DC_REG_X86_RSP,
					DC_REG_X86_RIP};
	struct dc_row row = {.kind = DC_ROW_STEP, .signal = true};

	for (unsigned i = 0; i < sizeof order; i++)
		row_load(&row, DC_REG_SP, (int32_t)(offsetof(ucontext_t, uc_mcontext.gregs) + 8 * i));
	for (unsigned i = 0; i < sizeof order; i++)
		row_set(&row, order[i], DC_REGS + i, 0);
	return row;
}

/* A jump through the GOT: [endbr64] [bnd] jmp *x(%rip); in the entry for lazy binding a push x(%rip) stands before it. */
static bool plt_bytes(const struct dc_place *p, uint64_t pc, const uint8_t *code)
{
	static const uint8_t endbr[] = {0xf3, 0x0f, 0x1e, 0xfa};
	const uint8_t *before = dc_place_code(p, pc - 6, 2);

	if (before && before[0] == 0xff && before[1] == 0x35)
		return false;
	if (memcmp(code, endbr, sizeof endbr) == 0)
		code += sizeof endbr;
	code += code[0] == 0xf2;
	return code[0] == 0xff && code[1] == 0x25;
}

/* Where the call that ends at @address leads; false: it is none, or leads through a register or memory. */
bool dc_code_call_target(const struct dc_place *p, uint64_t address, uint64_t *ret_target)
{
	const uint8_t *code = dc_place_code(p, address - 5, 5);
	int32_t distance;

	if (!code || code[0] != 0xe8)
		return false;
	memcpy(&distance, code + 1, sizeof distance);
	*ret_target = address + (uint64_t)(int64_t)distance;
	return true;
}

/* Whether near the start of a function there is a jump to between @begin and @end. */
bool dc_code_jumps_into(const struct dc_place *p, uint64_t function, uint64_t begin, uint64_t end)
{
	for (uint64_t at = function; at < function + JUMPS_BYTES; at++) {
		const uint8_t *code = dc_place_code(p, at, 6);
		bool near = code && code[0] == 0xe9;
		bool conditional = code && code[0] == 0x0f && (code[1] & 0xf0) == 0x80;
		int32_t distance;
		if (!near && !conditional)
			continue;
		memcpy(&distance, code + 1 + conditional, sizeof distance);
		uint64_t target = at + 5 + conditional + (uint64_t)(int64_t)distance;
		if (target >= begin && target < end)
			return true;
	}
	return false;
}

/* Whether a call ends at @address: e8 and four bytes, or ff /2 of up to seven. */
bool dc_code_is_behind_call(const struct dc_place *p, uint64_t address)
{
	const uint8_t *code;
	uint64_t target;

	if (dc_code_call_target(p, address, &target))
		return true;
	for (unsigned bytes = 2; bytes <= 7; bytes++) {
		code = dc_place_code(p, address - bytes, bytes);
		if (code && code[0] == 0xff && (code[1] & 0x38) == 0x10)
			return true;
	}
	return false;
}

uint64_t dc_code_address(uint64_t pc)
{
	return pc;
}
#else
static uint32_t instruction(const uint8_t *code)
{
	uint32_t i;

	memcpy(&i, code, sizeof i);
	return i;
}

/* Nothing was saved since the call. */
struct dc_row dc_code_row_bare(void)
{
	struct dc_row row = {.kind = DC_ROW_STEP};

	row_set(&row, DC_REG_PC, DC_REG_ARM_LR, 0);
	return row;
}

static bool trampoline_bytes(const uint8_t *code)
{
	return instruction(code) == 0xd2801168 && instruction(code + 4) == 0xd4000001; /* mov x8,#139; svc #0 */
}

/* The kernel's siginfo lies at the stack pointer, and struct ucontext behind it. */
struct dc_row dc_code_row_signal(void)
{
	struct dc_row row = {.kind = DC_ROW_STEP, .signal = true};

	for (unsigned i = 0; i < DC_REGS; i++)
		row_load(&row, DC_REG_SP,
			 (int32_t)(sizeof(siginfo_t) + offsetof(ucontext_t, uc_mcontext.regs) + 8 * i));
	for (unsigned i = 0; i < DC_REGS; i++)
		row_set(&row, i, DC_REGS + i, 0);
	return row;
}

/* adrp x16; ldr x17 */
static bool plt_bytes(const struct dc_place *p, uint64_t pc, const uint8_t *code)
{
	(void)p, (void)pc;
	return (instruction(code) & 0x9f00001f) == 0x90000010 && (instruction(code + 4) & 0xffc003ff) == 0xf9400211;
}

bool dc_code_call_target(const struct dc_place *p, uint64_t address, uint64_t *ret_target)
{
	const uint8_t *code = dc_place_code(p, address - 4, 4);
	uint32_t i = code ? instruction(code) : 0;

	*ret_target = address - 4 + (uint64_t)((int64_t)((uint64_t)i << 38) >> 36);
	return i >> 26 == 0x25;
}

/* Whether near the start of a function there is a b or b.cond to between @begin and @end. */
bool dc_code_jumps_into(const struct dc_place *p, uint64_t function, uint64_t begin, uint64_t end)
{
	for (uint64_t at = function; at < function + JUMPS_BYTES; at += 4) {
		const uint8_t *code = dc_place_code(p, at, 4);
		uint32_t i = code ? instruction(code) : 0;
		uint64_t target = 0;
		if (i >> 26 == 0x05)
			target = at + (uint64_t)((int64_t)((uint64_t)i << 38) >> 36);
		else if (i >> 24 == 0x54)
			target = at + (uint64_t)((int64_t)((uint64_t)(i & 0xffffe0) << 40) >> 43);
		if (target >= begin && target < end)
			return true;
	}
	return false;
}

bool dc_code_is_behind_call(const struct dc_place *p, uint64_t address)
{
	const uint8_t *code = dc_place_code(p, address - 4, 4);
	uint32_t i = code ? instruction(code) : 0;

	return i >> 26 == 0x25 || (i & 0xfefff000) == 0xd63f0000; /* bl; blr, blraa and its like */
}

/* Return addresses are signed in the bits that no address uses. */
uint64_t dc_code_address(uint64_t pc)
{
	return pc & ((UINT64_C(1) << 48) - 1);
}
#endif

bool dc_code_is_trampoline(const struct dc_place *p, uint64_t pc)
{
	const uint8_t *code = dc_place_code(p, pc, CODE_BYTES);

	return code && trampoline_bytes(code);
}

bool dc_code_is_plt(const struct dc_place *p, uint64_t pc)
{
	const uint8_t *code = dc_place_code(p, pc, CODE_BYTES);

	return code && plt_bytes(p, pc, code);
}
