/* SPDX-License-Identifier: MIT */
#include "trigger/perf_record.h"

#include <asm/perf_regs.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <string.h>

#include "ipc/registers.h"

/* In the order of the kernel's mask (dc_perf_regs_mask()), lowest bit first, as numbers of ipc/registers.h. */
#if defined(__x86_64__)
static const uint8_t registers[] = {
	DC_REG_X86_RAX,	   DC_REG_X86_RBX,    DC_REG_X86_RCX,	 DC_REG_X86_RDX,    DC_REG_X86_RSI,    DC_REG_X86_RDI,
	DC_REG_X86_RBP,	   DC_REG_X86_RSP,    DC_REG_X86_RIP,	 DC_REG_X86_R8,	    DC_REG_X86_R8 + 1, DC_REG_X86_R8 + 2,
	DC_REG_X86_R8 + 3, DC_REG_X86_R8 + 4, DC_REG_X86_R8 + 5, DC_REG_X86_R8 + 6, DC_REG_X86_R8 + 7,
};
static_assert(sizeof(registers) == DC_REGS, "all of them");
static_assert(PERF_REG_X86_AX == 0 && PERF_REG_X86_BX == 1 && PERF_REG_X86_IP == 8 && PERF_REG_X86_R8 == 16 &&
		      PERF_REG_X86_R15 == 23,
	      "the order of the mask");

static unsigned number_of(unsigned i)
{
	return registers[i];
}
#else /* aarch64: X0 .. X29, LR, SP, PC in both */
static_assert(PERF_REG_ARM64_PC == DC_REG_ARM_PC, "the same order");

static unsigned number_of(unsigned i)
{
	return i;
}
#endif

/* A record's bytes, taken one field after the other. */
struct cursor {
	const uint8_t *at;
	size_t left;
};

static bool take(struct cursor *c, void *to, size_t bytes)
{
	if (c->left < bytes)
		return false;
	memcpy(to, c->at, bytes);
	c->at += bytes;
	c->left -= bytes;
	return true;
}

static bool skip(struct cursor *c, uint64_t bytes)
{
	if (c->left < bytes)
		return false;
	c->at += bytes;
	c->left -= bytes;
	return true;
}

static struct cursor body(const struct perf_event_header *record, size_t bytes)
{
	return (struct cursor){(const uint8_t *)record + sizeof(*record), bytes - sizeof(*record)};
}

static bool is_switch(const struct perf_event_header *record)
{
	return record->type == PERF_RECORD_SWITCH || record->type == PERF_RECORD_SWITCH_CPU_WIDE;
}

/* TID, TIME, CPU: in this order in a sample, and at the end of other records (sample_id). */
static bool take_who(struct cursor *c, struct dc_perf_who *who)
{
	uint32_t ignored;

	return take(c, &who->pid, 4) && take(c, &who->tid, 4) && take(c, &who->time_ns, 8) && take(c, &who->cpu, 4) &&
	       take(c, &ignored, 4);
}

int dc_perf_record_who(const struct perf_event_header *record, size_t bytes, struct dc_perf_who *ret_who)
{
	struct cursor c = body(record, bytes);
	struct dc_perf_who who = {0};
	bool ok;

	if (record->type == PERF_RECORD_SAMPLE)
		ok = take(&c, &who.id, 8) && take_who(&c, &who);
	else if (is_switch(record))
		ok = c.left >= 24 && skip(&c, c.left - 24) && take_who(&c, &who);
	else
		return -ENODATA;
	if (!ok || who.time_ns < 0)
		return -EBADMSG;
	*ret_who = who;
	return 0;
}

uint64_t dc_perf_record_lost(const struct perf_event_header *record, size_t bytes)
{
	struct cursor c = body(record, bytes);
	uint64_t id, lost;

	if (record->type == PERF_RECORD_LOST)
		return take(&c, &id, 8) && take(&c, &lost, 8) ? lost : 0;
	if (record->type == PERF_RECORD_LOST_SAMPLES)
		return take(&c, &lost, 8) ? lost : 0;
	return 0;
}

static void begin(const struct dc_perf_who *who, uint16_t kind, uint64_t weight, struct dc_sample *ret_sample)
{
	*ret_sample = (struct dc_sample){
		.bytes = sizeof(*ret_sample),
		.kind = kind,
		.tid = who->tid,
		.cpu = who->cpu,
		.monotonic_ns = who->time_ns,
		.weight_ns = weight,
	};
}

static void append(struct dc_sample *s, const void *bytes, size_t count)
{
	memcpy((uint8_t *)s + s->bytes, bytes, count);
	memset((uint8_t *)s + s->bytes + count, 0, -count & 7);
	s->bytes += (uint32_t)((count + 7) & ~(size_t)7);
}

static bool take_chain(struct cursor *c, struct dc_sample *s)
{
	uint64_t count, first = 0;

	if (!take(c, &count, 8) || count > c->left / 8)
		return false;
	if (count)
		memcpy(&first, c->at, 8);
	if (first == DC_IP_KERNEL)
		s->flags |= DC_SAMPLE_KERNEL;
	s->ip_count = (uint32_t)count;
	append(s, c->at, count * 8);
	return skip(c, count * 8);
}

/* Of 32-bit code nothing is kept: nobody unwinds it here. */
static bool take_registers(struct cursor *c, struct dc_sample *s)
{
	uint64_t abi, ours[DC_REGS] = {0};

	if (!take(c, &abi, 8))
		return false;
	if (abi == PERF_SAMPLE_REGS_ABI_NONE) /* a kernel thread */
		return true;
	for (unsigned i = 0; i < DC_REGS; i++)
		if (!take(c, &ours[number_of(i)], 8))
			return false;
	if (abi != PERF_SAMPLE_REGS_ABI_64)
		return true;
	s->reg_count = DC_REGS;
	append(s, ours, sizeof(ours));
	return true;
}

/* size, so many bytes, and how many of them were copied before a page that was not there. */
static bool take_stack(struct cursor *c, struct dc_sample *s)
{
	uint64_t size, copied;
	const uint8_t *stack;

	if (!take(c, &size, 8))
		return false;
	if (size == 0)
		return true;
	stack = c->at;
	if (!skip(c, size) || !take(c, &copied, 8) || copied > size)
		return false;
	if (s->reg_count == 0)
		return true;
	if (copied == size)
		s->flags |= DC_SAMPLE_STACK_CUT;
	s->stack_bytes = (uint32_t)copied;
	append(s, stack, copied);
	return true;
}

int dc_perf_record_sample(const struct perf_event_header *record, size_t bytes, bool copied, uint16_t kind,
			  uint64_t weight, struct dc_sample *ret_sample)
{
	struct cursor c = body(record, bytes);
	struct dc_perf_who who;

	if (record->type != PERF_RECORD_SAMPLE || dc_perf_record_who(record, bytes, &who) < 0)
		return -EBADMSG;
	begin(&who, kind, weight, ret_sample);
	if (!skip(&c, 32) || !take_chain(&c, ret_sample))
		return -EBADMSG;
	if (copied && (!take_registers(&c, ret_sample) || !take_stack(&c, ret_sample)))
		return -EBADMSG;
	return 0;
}

int dc_perf_record_switch(const struct perf_event_header *record, size_t bytes, struct dc_sample *ret_sample)
{
	struct dc_perf_who who;

	if (!is_switch(record) || dc_perf_record_who(record, bytes, &who) < 0)
		return -EBADMSG;
	begin(&who,
	      !(record->misc & PERF_RECORD_MISC_SWITCH_OUT)          ? DC_SAMPLE_SWITCH_IN
	      : (record->misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT) ? DC_SAMPLE_SWITCH_PREEMPT
								     : DC_SAMPLE_SWITCH_OUT,
	      0, ret_sample);
	return 0;
}
