/* SPDX-License-Identifier: MIT */
#include "persist/stacks/sample.h"

#include <errno.h>
#include <string.h>

#include "ipc/registers.h"
#include "ipc/round.h"

int dc_sample_at(const void *at, size_t bytes, struct dc_sample_parts *ret_parts)
{
	struct dc_sample_parts p;
	uint64_t ips, regs, stack, extra;

	if (bytes < sizeof p.head)
		return -EBADMSG;
	memcpy(&p.head, at, sizeof p.head);
	ips = 8 * (uint64_t)p.head.ip_count;
	regs = 8 * (uint64_t)p.head.reg_count;
	stack = dc_round8(p.head.stack_bytes);
	extra = dc_round8(p.head.extra_bytes);
	if (p.head.bytes > bytes || p.head.bytes % 8 || p.head.reg_count > DC_REGS_MAX ||
	    sizeof p.head + ips + regs + stack + extra > p.head.bytes)
		return -EBADMSG;
	p.ips = (const void *)((const uint8_t *)at + sizeof p.head);
	p.regs = p.ips + p.head.ip_count;
	p.stack = (const uint8_t *)(p.regs + p.head.reg_count);
	p.extra = p.stack + stack;
	*ret_parts = p;
	return 0;
}
