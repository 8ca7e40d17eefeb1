/* SPDX-License-Identifier: MIT */
/* What the bytes of code tell about unwinding, without any description: x86-64 and aarch64, of this build. */
#pragma once

#include "persist/stacks/place.h"
#include "persist/stacks/row.h"

#if defined(__x86_64__)
#define DC_REG_FRAME DC_REG_X86_RBP
#else
#define DC_REG_FRAME DC_REG_ARM_X29
#endif

/* To what a frame pointer points: that of the caller, and the return address. */
struct dc_row dc_code_row_chain(void);
/* Nothing was pushed, or saved, since the call. */
struct dc_row dc_code_row_bare(void);
/* A signal's trampoline: all registers, from what the kernel put on the stack. */
struct dc_row dc_code_row_signal(void);

bool dc_code_is_trampoline(const struct dc_place *p, uint64_t pc);
/* An entry of the PLT, where nothing was pushed yet. */
bool dc_code_is_plt(const struct dc_place *p, uint64_t pc);

bool dc_code_is_behind_call(const struct dc_place *p, uint64_t address);
/* Where the call that ends at @address leads. Return: false: it is none, or leads through a register or memory. */
bool dc_code_call_target(const struct dc_place *p, uint64_t address, uint64_t *ret_target);
/* Whether near the start of @function there is a jump to between @begin and @end. */
bool dc_code_jumps_into(const struct dc_place *p, uint64_t function, uint64_t begin, uint64_t end);

/* A return address as it is on the stack, without what marks it. */
uint64_t dc_code_address(uint64_t pc);
