/* SPDX-License-Identifier: MIT */
#include "recorder/handler.h"

#include <sys/uio.h>

#include "ipc/registers.h"
#include "recorder/recorder.h"

#define SA_RESTORER_ 0x04000000u

#if defined(__x86_64__)
/* byte for byte what unwinders take for the way back from a handler */
__asm__(".pushsection .text\n"
	".type dc_handler_return, @function\n"
	"	nop\n" /* unwinders look at the byte before a return address too */
	"dc_handler_return:\n"
	"	movq $15, %rax\n"
	"	syscall\n"
	".size dc_handler_return, .-dc_handler_return\n"
	".popsection\n");
void dc_handler_return(void) __attribute__((visibility("hidden")));
#define RETURN dc_handler_return
#define RETURN_FLAG SA_RESTORER_
#else
#define RETURN NULL /* the vDSO's */
#define RETURN_FLAG 0u
#endif

struct dc_action dc_action_of(void (*handler)(int signal, siginfo_t *info, void *context), unsigned long flags)
{
	return (struct dc_action){
		.handler = handler, .flags = flags | RETURN_FLAG, .restorer = RETURN, .mask = ~UINT64_C(0)
	};
}

void dc_signal_default(int signal, siginfo_t *info)
{
	const struct dc_action by_default = { 0 };
	dc_sys(SYS_rt_sigaction, signal, &by_default, NULL, sizeof by_default.mask);
	if (info->si_code <= 0)
		dc_sys(SYS_rt_tgsigqueueinfo, dc_sys(SYS_getpid), dc_sys(SYS_gettid), signal, info);
}

unsigned dc_context_registers(const ucontext_t *u, uint64_t *ret_regs)
{
#if defined(__x86_64__)
	static const uint8_t from[DC_REGS_X86] = { REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8,
						   REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP };
	for (unsigned i = 0; i < DC_REGS_X86; i++)
		ret_regs[i] = (uint64_t)u->uc_mcontext.gregs[from[i]];
#else
	for (unsigned i = 0; i <= DC_REG_ARM_LR; i++)
		ret_regs[i] = u->uc_mcontext.regs[i];
	ret_regs[DC_REG_ARM_SP] = u->uc_mcontext.sp;
	ret_regs[DC_REG_ARM_PC] = u->uc_mcontext.pc;
#endif
	return DC_REGS;
}

long dc_self_read(const struct dc_recorder *r, void *to, uint64_t from, size_t bytes)
{
	struct iovec into = { to, bytes }, of = { (void *)(uintptr_t)from, bytes };
	return dc_sys(SYS_process_vm_readv, r->pid, &into, 1, &of, 1, 0);
}
