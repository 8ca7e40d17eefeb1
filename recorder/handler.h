/* SPDX-License-Identifier: MIT */
/* What our signal handlers have in common: the kernel's own sigaction, registers, memory that may not be there. */
#pragma once

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

struct dc_recorder;

struct dc_action { /* the kernel's */
	void (*handler)(int signal, siginfo_t *info, void *context);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

/* All signals are blocked in it: a fault in there kills at once, and nobody forks on top of it. */
struct dc_action dc_action_of(void (*handler)(int signal, siginfo_t *info, void *context), unsigned long flags);

/* The signal is not ours: its action is the default again, and unless an instruction raised it, it comes once more. */
void dc_signal_default(int signal, siginfo_t *info);

/* As ipc/registers.h numbers them. Return: how many. */
unsigned dc_context_registers(const ucontext_t *u, uint64_t *ret_regs);

/* Asked of the kernel, which says where there is nothing. Return: bytes, 0 or less: nothing there. */
long dc_self_read(const struct dc_recorder *r, void *to, uint64_t from, size_t bytes);
