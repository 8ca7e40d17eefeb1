/* SPDX-License-Identifier: MIT */
/*
 * Registers of a thread that somebody stopped, sampled or saw die: those that unwinding needs, in one order for all who
 * copy them (the crash handler in the guest, perf, ptrace) and all who read them. 64-bit user code only.
 */
#pragma once

#include <stdint.h>

#define DC_REGS_MAX 34u

/* x86-64: the order of the DWARF numbers (System V ABI, figure 3.36), RIP last. */
#define DC_REG_X86_RAX 0u
#define DC_REG_X86_RDX 1u
#define DC_REG_X86_RCX 2u
#define DC_REG_X86_RBX 3u
#define DC_REG_X86_RSI 4u
#define DC_REG_X86_RDI 5u
#define DC_REG_X86_RBP 6u
#define DC_REG_X86_RSP 7u
#define DC_REG_X86_R8 8u /* .. R15 15 */
#define DC_REG_X86_RIP 16u
#define DC_REGS_X86 17u

/* aarch64: X0 to X30 (DWARF 0..30), SP 31, PC 32. */
#define DC_REG_ARM_X29 29u /* frame pointer */
#define DC_REG_ARM_LR 30u
#define DC_REG_ARM_SP 31u
#define DC_REG_ARM_PC 32u
#define DC_REGS_ARM 33u

#if defined(__x86_64__)
#define DC_REGS DC_REGS_X86
#define DC_REG_SP DC_REG_X86_RSP
#define DC_REG_PC DC_REG_X86_RIP
#elif defined(__aarch64__)
#define DC_REGS DC_REGS_ARM
#define DC_REG_SP DC_REG_ARM_SP
#define DC_REG_PC DC_REG_ARM_PC
#endif
