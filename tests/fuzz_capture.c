/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a capture file. Checksums always match here (DC_BLOCK_UNCHECKED), so that what is changed gets past
 * them and reaches what they protect. Held to: no crash and no byte out of bounds (the sanitizer), memory in bounds
 * (libFuzzer's limit), texts of events and tables that can be read to their end, two readings that say the same.
 */
#define DC_BLOCK_UNCHECKED
#include "persist/block.c"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "persist/capture.h"
#include "persist/stacks/stacks.h"

#define EVENTS_MAX 50000u /* a few hundred bytes can hold millions of them; these are enough */

static void must(bool ok)
{
	if (!ok)
		abort();
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
	return (hash ^ dc_checksum(bytes, count)) * 1099511628211u + (hash >> 29);
}

static uint64_t read_event(const struct dc_event *e)
{
	uint64_t hash = e->units ^ e->start_units ^ (uint64_t)e->kind << 56 ^ (uint64_t)e->depth << 32 ^
			e->tid;
	for (unsigned i = 0; i < e->arg_count; i++)
		if (e->info->types[i] == DC_TYPE_STR && e->args[i].text.bytes)
			hash = mix(hash, e->args[i].text.bytes, e->args[i].text.length);
	if (e->kind == DC_KIND_STACK)
		hash = mix(hash, e->stack, 8 * (size_t)e->stack_count);
	if (e->info)
		hash = mix(hash, e->info->name, strlen(e->info->name));
	return hash;
}

struct reading {
	uint64_t hash;
	unsigned events;
};

static int each(void *arg, const struct dc_event *e)
{
	struct reading *r = arg;
	r->hash ^= read_event(e);
	return ++r->events >= EVENTS_MAX;
}

static void read_tables(struct dc_capture *c, unsigned i)
{
	struct dc_capture_totals totals;
	uint32_t count;
	const struct dc_ring_lane *lanes = dc_capture_lanes(c, i, &count);
	for (uint32_t k = 0; k < count; k++)
		must(strlen(lanes[k].comm) < sizeof lanes[k].comm);
	const struct dc_ring_module *modules = dc_capture_modules(c, i, &count);
	for (uint32_t k = 0; k < count; k++)
		must(strlen(dc_capture_string(c, i, modules[k].path)) <= DC_STRINGS_BYTES);
	must(memchr(dc_capture_process(c, i)->cmdline, 0, sizeof dc_capture_process(c, i)->cmdline) != NULL);
	must(dc_capture_schema(c, i)->count >= 1);
	must(dc_capture_totals(c, i, &totals) <= 0);
}

/* A chain of inlined functions may be a circle: whoever follows one stops, as readers do. */
static uint64_t read_frame(const struct dc_stacks *s, uint32_t number)
{
	const struct dc_frame *f = dc_stacks_frame(s, number);
	uint64_t hash = 0;

	if (!f)
		return 0;
	must(dc_stacks_frame(s, dc_stacks_frame_at(s, f->address))->address == f->address);
	hash = mix(f->address, dc_stacks_map(s, f->map).path, strlen(dc_stacks_map(s, f->map).path));
	for (uint32_t i = 0, n = f->name; n && i < DC_STACKS_INLINE_MAX; i++) {
		const struct dc_name_view v = dc_stacks_name(s, n);

		hash = mix(mix(hash, v.function, strlen(v.function)), v.file, strlen(v.file));
		n = v.outer;
	}
	return hash;
}

static int read_sample(void *arg, const struct dc_sample_view *v)
{
	struct reading *r = arg;

	r->hash ^= mix((uint64_t)v->t_ns, v->ips, 8 * (size_t)v->head.ip_count);
	r->hash ^= mix(v->head.tid, v->regs, 8 * (size_t)v->head.reg_count);
	r->hash ^= mix(v->head.kind, v->stack, v->head.stack_bytes);
	if (v->thread)
		must(strlen(v->thread->comm) < 16 && strlen(v->thread->wchan) < 40);
	if (v->crash)
		r->hash ^= (uint64_t)v->crash->signal;
	return ++r->events >= EVENTS_MAX;
}

static void read_stacks(struct dc_capture *c, unsigned process)
{
	struct dc_stacks_totals totals;
	struct reading all = {0};
	struct dc_stacks *s;
	const uint32_t *numbers;

	must(dc_stacks_open(c, process, &s) == 0);
	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t depth = dc_stacks_frames(s, i, &numbers);

		must(depth <= DC_STACKS_DEPTH_MAX && (depth == 0 || i <= dc_stacks_stack_count(s)));
		for (uint32_t k = 0; k < depth; k++)
			all.hash ^= read_frame(s, numbers[k]);
		all.hash ^= read_frame(s, i);
	}
	must(dc_stacks_each(s, &(struct dc_cut){.everything = true}, read_sample, &all) <= 1);
	if (all.events < EVENTS_MAX)
		must(dc_stacks_totals(s, &totals) == 0);
	dc_stacks_close(s);
}

static struct reading read_cursor(struct dc_capture *c, const struct dc_cut *cut)
{
	struct reading r = {0};
	struct dc_cursor *cur;
	struct dc_cursor_event e;
	if (dc_cursor_open(c, cut, &cur) < 0)
		return r;
	while (r.events < EVENTS_MAX && dc_cursor_next(cur, &e) > 0) {
		must(e.process < dc_capture_process_count(c));
		r.hash = r.hash * 31 + read_event(&e.event);
		r.events++;
	}
	dc_cursor_close(cur);
	return r;
}

static void read_capture(struct dc_capture *c)
{
	const struct dc_fault *faults;
	struct reading all = {0};
	unsigned processes = dc_capture_process_count(c) < 8 ? dc_capture_process_count(c) : 8;

	for (unsigned i = 0; i < processes && all.events < EVENTS_MAX; i++)
		dc_capture_each(c, i, each, &all);
	if (all.events < EVENTS_MAX)
		for (unsigned i = 0; i < processes; i++)
			read_tables(c, i);
	for (unsigned i = 0; i < processes; i++)
		read_stacks(c, i);
	struct reading first = read_cursor(c, &(struct dc_cut){.everything = true});
	struct reading second = read_cursor(c, &(struct dc_cut){.everything = true});
	must(first.hash == second.hash && first.events == second.events);
	read_cursor(c, &(struct dc_cut){.name = "*", .from_ns = 1000});
	unsigned count = dc_capture_faults(c, &faults);
	for (unsigned i = 0; i < count; i++)
		must(strlen(faults[i].text) < sizeof faults[i].text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	char path[64], why[160];
	struct dc_capture *c;

	if (fd < 0)
		fd = memfd_create("capture", MFD_CLOEXEC);
	must(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (dc_capture_open(path, &c, why) < 0) {
		must(strlen(why) < sizeof why);
		return 0;
	}
	read_capture(c);
	dc_capture_close(c);
	return 0;
}
