/* SPDX-License-Identifier: MIT */
/*
 * Where frame pointers do not lead to the outermost function, what a DC_STACK() saw is kept as it was: registers and a piece of
 * the stack, into the samples part of the ring (ipc/samples.h), to be unwound outside by what the modules say of their code. The
 * record has the thread and the exact time of its STACK event, which is how readers find it.
 *
 * It goes round with what threads that sample themselves take, and about a hundred a second stay: a burst of 64, then one each
 * 10 ms or so; a STACK event beyond has its addresses only. Nothing is read that is not there: of the main thread all up to the
 * stack's top is, of others the kernel is asked (madvise; before 5.14 it cannot be, and there is no copy). No copies are
 * made on stacks that we do not know: coroutines of the main thread, alternate signal stacks.
 */
#include "ipc/registers.h"
#include "recorder/recorder.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define COPY_BYTES (8u << 10)
#define BURST 64u /* copies */
#define TRIES 4u
static_assert(COPY_BYTES <= DC_SAMPLE_COPY_MAX, "a record has room for it");

/* A bucket in coarse time, of which each copy takes one. Relaxed: the exchange decides, and nothing follows from it. */
static bool admitted(struct dc_recorder *r, uint64_t units)
{
	const uint32_t now = (uint32_t)(units >> DC_COARSE_SHIFT);
	uint32_t due = __atomic_load_n(&r->copies_due, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < TRIES; i++) {
		const uint32_t ahead = due - now <= BURST ? due - now : 0; /* it lies in the past */
		if (ahead == BURST)
			return false;
		if (__atomic_compare_exchange_n(&r->copies_due, &due, now + ahead + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return true;
	}
	return false;
}

/* Those that a caller may have left something in, and where we are: inlined, so that all are of one place in the code. */
#if defined(__x86_64__)
DC_ALWAYS_INLINE_ void registers_here(uint64_t *to)
{
	__asm__ volatile("movq %%rbx, 3*8(%0)\n\t"
			 "movq %%rbp, 6*8(%0)\n\t"
			 "movq %%rsp, 7*8(%0)\n\t"
			 "movq %%r12, 12*8(%0)\n\t"
			 "movq %%r13, 13*8(%0)\n\t"
			 "movq %%r14, 14*8(%0)\n\t"
			 "movq %%r15, 15*8(%0)\n\t"
			 "leaq 0(%%rip), %%rax\n\t"
			 "movq %%rax, 16*8(%0)"
			 :
			 : "c"(to)
			 : "rax", "memory");
}
#elif defined(__aarch64__)
DC_ALWAYS_INLINE_ void registers_here(uint64_t *to)
{
	__asm__ volatile("stp x19, x20, [%0, #19*8]\n\t"
			 "stp x21, x22, [%0, #21*8]\n\t"
			 "stp x23, x24, [%0, #23*8]\n\t"
			 "stp x25, x26, [%0, #25*8]\n\t"
			 "stp x27, x28, [%0, #27*8]\n\t"
			 "stp x29, x30, [%0, #29*8]\n\t"
			 "mov x10, sp\n\t"
			 "adr x11, .\n\t"
			 "stp x10, x11, [%0, #31*8]"
			 :
			 : "r"(to)
			 : "x10", "x11", "memory");
}
#endif

/* Whole words, whatever they belong to: redzones of a sanitizer are as good as anything. */
typedef uint64_t __attribute__((may_alias)) word;
__attribute__((no_sanitize("address", "thread"))) static void words_copy(uint64_t *to, uintptr_t from, uint32_t bytes)
{
	const volatile word *at = (const volatile word *)from; /* volatile: never a call of memcpy(), which a sanitizer checks */
	for (uint32_t i = 0; i < bytes / 8; i++)
		to[i] = at[i];
}

static bool is_there(const struct dc_recorder *r, const struct dc_thread *t, uintptr_t from, uint32_t bytes)
{
	const uintptr_t first = from & ~(uintptr_t)(DC_PAGE_BYTES - 1);
	return r->lanes[t->lane].tid == r->pid ||
	       dc_sys(SYS_madvise, first, (from + bytes - first + DC_PAGE_BYTES - 1) & ~(uintptr_t)(DC_PAGE_BYTES - 1), MADV_POPULATE_READ) == 0;
}

/* All of it in one function: the registers are those of a place in the code whose frame stays until the copy is made. */
static DC_NOINLINE void copy(struct dc_recorder *r, const struct dc_thread *t, uint64_t units)
{
	uint64_t regs[DC_REGS] = { 0 }, at;
	registers_here(regs);
	const uintptr_t sp = regs[DC_REG_SP], top = dc_stack_own_top(sp);
	const uint32_t room = COPY_BYTES, bytes = top > sp && top - sp < room ? (uint32_t)(top - sp) & ~7u : room;
	if (!top || sp % 8 || !is_there(r, t, sp, bytes))
		return;
	const uint32_t size = dc_ring_sample_bytes(DC_REGS, bytes);
	struct dc_ring_sample *to = dc_sample_reserve(r, size, &at);
	if (!to)
		return;
	uint64_t *words = (uint64_t *)(void *)(to + 1);
	for (unsigned i = 0; i < DC_REGS; i++)
		words[i] = regs[i];
	words_copy(words + DC_REGS, sp, bytes);
	for (uint32_t i = (uint32_t)sizeof *to / 8 + DC_REGS + bytes / 8; i < size / 8; i++)
		((uint64_t *)(void *)to)[i] = 0; /* of another record */
	const struct dc_ring_sample head = {
		.at = at,
		.tick = units << DC_TICK_SHIFT_,
		.bytes = size,
		.tid = r->lanes[t->lane].tid,
		.kind = DC_RING_SAMPLE_STACK,
		.reg_count = DC_REGS,
		.stack_bytes = bytes,
		.cut = bytes == room,
	};
	dc_sample_commit(r, to, &head);
}

void dc_stack_copy(uint64_t units)
{
	dc_slow_enter();
	struct dc_recorder *r = dc_recorder;
	const struct dc_thread *t = (const struct dc_thread *)dc_thread_self;
	/* [phase] acquire: sees the maps */
	if (r && __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) == DC_PHASE_ON && t->fast.line && admitted(r, units))
		copy(r, t, units);
	dc_slow_leave();
}
