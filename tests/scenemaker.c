/* SPDX-License-Identifier: MIT */
#include "tests/scenemaker.h"

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/registers.h"
#include "persist/stacks/module.h"
#include "tests/unwinding.h"

static uint64_t stack_end;

static void read_build_id(struct self_maps *m, uint32_t i)
{
	CLEANUP(dc_module) struct dc_module *module = NULL;
	struct dc_map_entry *e = &m->entries[i];
	int fd, r;

	if (e->flags & DC_MAP_VDSO) {
		r = dc_module_open_vdso(&module);
	} else {
		fd = open(m->paths[i], O_RDONLY | O_CLOEXEC);
		r = fd < 0 ? -1 : dc_module_open(fd, &module);
		if (fd >= 0)
			close(fd);
	}
	if (r < 0)
		return;
	memcpy(e->build_id, module->build_id, sizeof e->build_id);
	e->build_id_bytes = module->build_id_bytes;
}

static void take(struct self_maps *m, const char *line)
{
	struct dc_map_entry *e = &m->entries[m->count];
	char path[512] = "", rights[8];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %*s %511s", &e->start, &e->end, rights, &e->offset, path) < 4)
		return;
	if (strcmp(path, "[stack]") == 0)
		stack_end = e->end;
	if (rights[2] != 'x' || !path[0])
		return;
	e->flags = strcmp(path, "[vdso]") == 0 ? DC_MAP_VDSO : 0;
	m->paths[m->count] = strdup(path);
	read_build_id(m, m->count);
	if (e->start <= (uintptr_t)self_maps && (uintptr_t)self_maps < e->end)
		m->own = m->count;
	m->maps[m->count] = (struct maker_map){.start = e->start,
					       .end = e->end,
					       .offset = e->offset,
					       .path = m->paths[m->count],
					       .build_id = e->build_id,
					       .build_id_bytes = e->build_id_bytes,
					       .flags = e->flags};
	m->count++;
}

void self_maps(struct self_maps *m)
{
	CLEANUP(fclose) FILE *f = fopen("/proc/self/maps", "re");
	char line[1024];

	memset(m, 0, sizeof *m);
	while (f && m->count < SELF_MAPS_MAX && fgets(line, sizeof line, f))
		take(m, line);
	if (!m->count || !stack_end)
		errx(1, "no maps of this process");
}

static int (*volatile deeper)(unsigned depth, int (*then)(void *arg), void *arg) = self_deep;

__attribute__((noinline)) int self_deep(unsigned depth, int (*then)(void *arg), void *arg)
{
	int r = depth ? deeper(depth - 1, then, arg) : then(arg);

	__asm__ volatile(""); /* no tail call */
	return r + 1;
}

struct taking {
	struct blob *b;
	struct maker_sample sample;
};

static __attribute__((noinline)) int self_take(void *arg)
{
	static uint8_t copy[SELF_SAMPLE_STACK];
	struct taking *t = arg;
	uint64_t regs[DC_REGS];
	ucontext_t uc;

	getcontext(&uc);
	regs_of(&uc, regs);
	t->sample.regs = regs;
	t->sample.reg_count = DC_REGS;
	t->sample.bytes = copy;
	t->sample.byte_count = SELF_SAMPLE_STACK;
	if (stack_end - regs[DC_REG_SP] < SELF_SAMPLE_STACK)
		t->sample.byte_count = (uint32_t)(stack_end - regs[DC_REG_SP]);
	/* As if from outside: sanitizers do not like it otherwise. */
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	if (pread(fd, copy, t->sample.byte_count, (off_t)regs[DC_REG_SP]) != (ssize_t)t->sample.byte_count)
		errx(1, "cannot read the stack");
	close(fd);
	maker_sample(t->b, &t->sample);
	return 0;
}

void self_sample(struct blob *b, unsigned depth, uint16_t kind, uint32_t tid, int64_t at_ns)
{
	struct taking t = {.b = b, .sample = {.kind = kind, .tid = tid, .at_ns = at_ns, .weight_ns = 1}};

	self_deep(depth, self_take, &t);
}
