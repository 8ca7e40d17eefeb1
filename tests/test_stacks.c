/* SPDX-License-Identifier: MIT */
/* Claims about the reader of samples and stacks (persist/stacks/stacks.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/registers.h"
#include "persist/block.h"
#include "persist/stacks/stacks.h"
#include "tests/capturedir.h"
#include "tests/stackmaker.h"

static char path[512];
static char why[160];

static int set_up(void **state)
{
	if (dir_make(state) != 0)
		return -1;
	snprintf(path, sizeof path, "%s/x.dcap", dir);
	return 0;
}

/* --- what the captures hold --- */

static const uint8_t build_id[20] = {0xab, 0xcd};
static const struct maker_map maps[] = {
	{.start = 0x1000, .end = 0x2000, .offset = 0x100, .path = "/usr/bin/a", .build_id = build_id, .build_id_bytes = 20},
	{.start = 0x5000, .end = 0x6000, .path = "/usr/lib/b.so", .flags = DC_MAP_GONE, .from_ns = 7, .until_ns = 9},
};
static const struct maker_map late_map = {.start = 0x8000, .end = 0x9000, .path = "[vdso]", .flags = DC_MAP_VDSO};

static const uint32_t stacks[] = {1, 2, 0, 2, 3, 1, 0, 3, 0}; /* numbers 1, 2 and 3 */
static const struct dc_frame frames[] = {
	{.address = 0x1234, .offset = 0x234, .map = 0, .name = 1},
	{.address = 0x5678, .offset = 0x678, .map = 1, .name = 3, .flags = DC_FRAME_CALL},
	{.address = 0x1234, .offset = 0x234, .map = 0, .name = 3, .flags = DC_FRAME_CALL},
};
static const struct maker_name names[] = {
	{.function = "inner", .file = "a.c", .line = 10, .outer = 2},
	{.function = "outer", .file = "b.c", .line = 20, .start = 0x200},
	{.function = "main", .start = 0x600},
};

static const uint64_t ips[] = {DC_IP_KERNEL, 0xffffffff81000000, DC_IP_USER, 0x1234, 0x5678};
static const uint64_t regs[DC_REGS_X86] = {[DC_REG_X86_RSP] = 0x7ffe0000, [DC_REG_X86_RIP] = 0x1234};

static void put_samples(struct blob *b)
{
	const struct dc_thread_state thread = {.syscall = 202, .state = 'S', .taken = 1, .comm = "fifteen letters", .wchan = "futex"};
	const struct dc_crash_state crash = {.signal = 11, .address = 8};
	const struct maker_sample all[] = {
		{.kind = DC_SAMPLE_CPU, .tid = 7, .at_ns = 1000, .weight_ns = 20, .ips = ips, .ip_count = 5},
		{.kind = DC_SAMPLE_OFF, .tid = 8, .at_ns = 2000, .stack = 2, .regs = regs, .reg_count = DC_REGS_X86, .bytes = "stack", .byte_count = 5},
		{.kind = DC_SAMPLE_SWITCH_OUT, .tid = 7, .at_ns = 2500},
		{.kind = DC_SAMPLE_SWITCH_IN, .tid = 7, .at_ns = 2600},
		{.kind = DC_SAMPLE_CPU, .tid = 7, .at_ns = 3000, .stack = 1, .flags = DC_SAMPLE_TRUNCATED},
		{.kind = DC_SAMPLE_THREAD, .tid = 7, .at_ns = 9000, .stack = 3, .extra = &thread, .extra_bytes = sizeof thread},
		{.kind = DC_SAMPLE_CRASH, .tid = 8, .at_ns = 9100, .extra = &crash, .extra_bytes = sizeof crash},
		{.kind = DC_SAMPLE_LAST + 1, .tid = 8, .at_ns = 1000},
	};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		maker_sample(b, &all[i]);
}

/* Blocks of samples and tables in turns, numbers out of order: all is right that the heads say. */
static int put_stacks(struct dc_writer *w, uint32_t process, void *arg)
{
	struct blob b = {0};
	int r;

	(void)arg;
	maker_stacks(&b, 3, stacks + 7, 1);
	r = blob_write(&b, w, DC_BLOCK_STACKS, process);
	maker_maps(&b, 0, maps, 2);
	r |= blob_write(&b, w, DC_BLOCK_MAPS, process);
	put_samples(&b);
	r |= blob_write(&b, w, DC_BLOCK_SAMPLES, process);
	maker_maps(&b, 2, &late_map, 1);
	r |= blob_write(&b, w, DC_BLOCK_MAPS, process);
	maker_stacks(&b, 1, stacks, 2);
	r |= blob_write(&b, w, DC_BLOCK_STACKS, process);
	maker_frames(&b, 1, frames, 3);
	r |= blob_write(&b, w, DC_BLOCK_FRAMES, process);
	maker_names(&b, 1, names, 3);
	return r | blob_write(&b, w, DC_BLOCK_NAMES, process);
}

static const struct dc_incident window = {
	.reason = DC_REASON_API, .clock = DC_CLOCK_MONOTONIC, .from_units = 1500, .to_units = 2999};

/* One process without a ring. */
static void write_capture(int (*put)(struct dc_writer *w, uint32_t process, void *arg), void *arg,
			  const struct dc_incident *incident)
{
	struct ring_maker *none = NULL;
	struct capture_maker m = {.dir = dir,
				  .name = "x.dcap",
				  .rings = &none,
				  .ring_count = 1,
				  .incident = incident,
				  .flags = DC_WRITER_SETTLED,
				  .stacks = put,
				  .arg = arg};

	unlink(path);
	assert_int_equal(capture_maker_write(&m), 0);
}

static struct dc_capture *open_capture(const char *name)
{
	struct dc_capture *c = NULL;
	int r = dc_capture_open(name, &c, why);

	if (r)
		fail_msg("open: %d %s", r, why);
	return c;
}

static struct dc_stacks *open_stacks(struct dc_capture *c)
{
	struct dc_stacks *s = NULL;

	assert_int_equal(dc_stacks_open(c, 0, &s), 0);
	return s;
}

static unsigned faults(const struct dc_capture *c)
{
	const struct dc_fault *f;

	return dc_capture_faults(c, &f);
}

static const char *first_fault(const struct dc_capture *c)
{
	const struct dc_fault *f;

	return dc_capture_faults(c, &f) ? f[0].text : "";
}

/* The capture that put_stacks() makes; close_both() in the end. */
static struct dc_stacks *written(const struct dc_incident *incident, struct dc_capture **ret_c)
{
	write_capture(put_stacks, NULL, incident);
	*ret_c = open_capture(path);
	return open_stacks(*ret_c);
}

static void close_both(struct dc_stacks *s, struct dc_capture *c)
{
	dc_stacks_close(s);
	dc_capture_close(c);
}

/* --- tables --- */

static void test_tables(void **state)
{
	/* Maps, stacks, frames and names come back under their numbers, texts and inline chains included. */
	struct dc_capture *c;
	struct dc_stacks *s = written(NULL, &c);
	const uint32_t *numbers;
	struct dc_name_view n;

	(void)state;
	assert_int_equal(faults(c), 0);
	assert_int_equal(dc_stacks_map_count(s), 3);
	assert_int_equal(dc_stacks_stack_count(s), 3);
	assert_int_equal(dc_stacks_frame_count(s), 3);
	assert_int_equal(dc_stacks_name_count(s), 3);
	assert_string_equal(dc_stacks_map(s, 0).path, "/usr/bin/a");
	assert_memory_equal(dc_stacks_map(s, 0).entry->build_id, build_id, 20);
	assert_int_equal(dc_stacks_map(s, 1).entry->until_ns, 9);
	assert_string_equal(dc_stacks_map(s, 2).path, "[vdso]");
	assert_int_equal(dc_stacks_frames(s, 2, &numbers), 3);
	assert_int_equal(numbers[0], 2);
	assert_int_equal(numbers[2], 1);
	assert_int_equal(dc_stacks_frames(s, 3, &numbers), 1);
	assert_int_equal(numbers[0], 3);
	assert_memory_equal(dc_stacks_frame(s, 2), &frames[1], sizeof frames[1]);
	n = dc_stacks_name(s, dc_stacks_frame(s, 1)->name);
	assert_string_equal(n.function, "inner");
	assert_string_equal(n.file, "a.c");
	assert_int_equal(n.line, 10);
	n = dc_stacks_name(s, n.outer);
	assert_string_equal(n.function, "outer");
	assert_int_equal(n.start, 0x200);
	assert_int_equal(n.outer, 0);
	/* Of two frames at one address the return address is what an address in an event is. */
	assert_int_equal(dc_stacks_frame_at(s, 0x1234), 3);
	assert_int_equal(dc_stacks_frame_at(s, 0x5678), 2);
	assert_int_equal(dc_stacks_frame_at(s, 0x5679), 0);
	close_both(s, c);
}

static void test_what_leads_nowhere(void **state)
{
	/* Numbers of nothing give empty answers. */
	const uint32_t nowhere[] = {0, 4, 1u << 24, UINT32_MAX};
	struct dc_capture *c;
	struct dc_stacks *s = written(NULL, &c);

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		const uint32_t *numbers;

		assert_int_equal(dc_stacks_frames(s, nowhere[i], &numbers), 0);
		assert_null(dc_stacks_frame(s, nowhere[i]));
		assert_string_equal(dc_stacks_name(s, nowhere[i]).function, "");
		assert_string_equal(dc_stacks_name(s, nowhere[i]).file, "");
		if (i) {
			assert_null(dc_stacks_map(s, nowhere[i]).entry);
			assert_string_equal(dc_stacks_map(s, nowhere[i]).path, "");
		}
	}
	close_both(s, c);
}

static void test_to_root(void **state)
{
	/* What was unwound goes to the outermost function unless it was cut; a chain of frame pointers, if its last one calls main or is it. */
	static const struct {
		uint32_t stack;
		uint16_t flags;
		bool to_root;
	} cases[] = {
		{1, 0, true}, {2, 0, true}, {1, DC_SAMPLE_TRUNCATED, false}, {0, 0, false}, {9, DC_SAMPLE_WALKED, false},
		{1, DC_SAMPLE_WALKED, true}, /* main */
		{2, DC_SAMPLE_WALKED, false}, /* inner, inlined in outer */
	};
	struct dc_capture *c;
	struct dc_stacks *s = written(NULL, &c);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(dc_stacks_to_root(s, &(struct dc_sample){.stack = cases[i].stack, .flags = cases[i].flags}),
				 cases[i].to_root);
	close_both(s, c);
}

/* --- samples --- */

struct seen {
	unsigned count;
	unsigned kinds[DC_SAMPLE_LAST + 1];
	int64_t last_ns;
};

static int see(void *arg, const struct dc_sample_view *v)
{
	struct seen *s = arg;

	s->count++;
	s->kinds[v->head.kind]++;
	s->last_ns = v->t_ns;
	if (v->head.kind == DC_SAMPLE_CPU && v->head.ip_count) {
		assert_int_equal(v->head.weight_ns, 20);
		assert_memory_equal(v->ips, ips, sizeof ips);
	}
	if (v->head.kind == DC_SAMPLE_OFF) {
		assert_int_equal(v->head.reg_count, DC_REGS_X86);
		assert_memory_equal(v->regs, regs, sizeof regs);
		assert_memory_equal(v->stack, "stack", 5);
	}
	assert_true((v->head.kind == DC_SAMPLE_THREAD) == (v->thread != NULL));
	assert_true((v->head.kind == DC_SAMPLE_CRASH) == (v->crash != NULL));
	if (v->thread) {
		assert_int_equal(v->thread->syscall, 202);
		assert_string_equal(v->thread->comm, "fifteen letters");
	}
	if (v->crash)
		assert_int_equal(v->crash->signal, 11);
	return 0;
}

static struct seen look(struct dc_stacks *s, struct dc_cut cut)
{
	struct seen seen = {0};

	assert_int_equal(dc_stacks_each(s, &cut, see, &seen), 0);
	return seen;
}

static void test_samples(void **state)
{
	/* Samples come with all their parts, cut by window, clock and thread; those of the trigger pass any time. */
	struct dc_stacks_totals t;
	struct dc_capture *c;
	struct dc_stacks *s = written(&window, &c);
	struct seen seen;

	(void)state;
	assert_int_equal(look(s, (struct dc_cut){.everything = true}).count, 7); /* and one of a later version */
	seen = look(s, (struct dc_cut){0});
	assert_int_equal(seen.count, 5);
	assert_int_equal(seen.kinds[DC_SAMPLE_CPU], 0);
	assert_int_equal(seen.kinds[DC_SAMPLE_THREAD], 1);
	assert_int_equal(look(s, (struct dc_cut){.from_ns = 2000, .to_ns = 2500}).count, 4);
	assert_int_equal(look(s, (struct dc_cut){.everything = true, .tid = 8}).count, 2);
	assert_int_equal(look(s, (struct dc_cut){.everything = true, .pid = 1000}).count, 7);
	assert_int_equal(look(s, (struct dc_cut){.everything = true, .pid = 1001}).count, 0);
	for (unsigned i = 0; i < 2; i++) { /* the second time from memory */
		assert_int_equal(dc_stacks_totals(s, &t), 0);
		assert_int_equal(t.samples[DC_SAMPLE_CPU], 2);
		assert_int_equal(t.samples[DC_SAMPLE_SWITCH_IN], 1);
		assert_int_equal(t.unwound, 3);
		assert_int_equal(t.to_root, 2);
		assert_int_equal(t.first_ns, 1000); /* no anchors: realtime is taken for the same */
		assert_int_equal(t.last_ns, 3000);
		assert_int_equal(t.first_switch_ns, 2500);
		assert_int_equal(t.last_switch_ns, 2600);
	}
	assert_int_equal(faults(c), 0);
	close_both(s, c);
}

static int stop(void *arg, const struct dc_sample_view *v)
{
	(void)v;
	return ++*(int *)arg == 2 ? -EDOM : 0;
}

static void test_stopping(void **state)
{
	/* What the callback returns ends it and is returned. */
	struct dc_capture *c;
	struct dc_stacks *s = written(NULL, &c);
	int count = 0;

	(void)state;
	assert_int_equal(dc_stacks_each(s, &(struct dc_cut){.everything = true}, stop, &count), -EDOM);
	assert_int_equal(count, 2);
	close_both(s, c);
}

static void test_clock(void **state)
{
	/* Times of the kernel become those of people by the anchors, as those of events do. */
	struct dc_incident incident = {.reason = DC_REASON_API,
				       .clock = DC_CLOCK_MONOTONIC,
				       .to_units = UINT64_MAX,
				       .anchor_count = 2,
				       .anchors = {{1, 5000001, 1, 1}, {100000000, 105000000, 100000000, 1}}};
	struct dc_capture *c;
	struct dc_stacks *s = written(&incident, &c);

	(void)state;
	assert_int_equal(look(s, (struct dc_cut){.everything = true}).last_ns, 5009100);
	close_both(s, c);
}

static void test_process_without_samples(void **state)
{
	/* A process with a ring and nothing else, and one with nothing at all: no samples, no faults. */
	struct ring_maker *rings[2] = {ring_maker_new(4096, 8, 2), NULL};
	struct capture_maker m = {.dir = dir, .name = "x.dcap", .rings = rings, .ring_count = 2};
	struct dc_stacks_totals t;
	struct dc_capture_totals events;
	struct dc_capture *c;
	struct dc_stacks *s;

	(void)state;
	unlink(path);
	assert_int_equal(capture_maker_write(&m), 0);
	c = open_capture(path);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(dc_stacks_open(c, i, &s), 0);
		assert_int_equal(dc_stacks_map_count(s) + dc_stacks_stack_count(s), 0);
		assert_int_equal(dc_stacks_totals(s, &t), 0);
		assert_int_equal(t.unwound, 0);
		assert_true(t.first_ns > t.last_ns);
		assert_int_equal(dc_capture_totals(c, i, &events), 0);
		dc_stacks_close(s);
	}
	if (faults(c))
		fail_msg("%s", first_fault(c));
	dc_capture_close(c);
	ring_maker_free(rings[0]);
}

static void test_programs_take_it(void **state)
{
	/* info, show and export say nothing against a capture of a process that has no ring. */
	static const char *const commands[] = {"info", "info --json", "show", "export --format jsonl", "export --format chrome"};
	const char *program = getenv("DASHCAM_BIN");

	(void)state;
	if (!program)
		skip();
	write_capture(put_stacks, NULL, &window);
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		char line[2048], said[512] = "";
		FILE *p;

		snprintf(line, sizeof line, "'%s' %s '%s' 2>&1 >/dev/null", program, commands[i], path);
		p = popen(line, "r");
		assert_non_null(p);
		said[fread(said, 1, sizeof said - 1, p)] = 0;
		if (pclose(p) != 0 || said[0])
			fail_msg("%s: %s", commands[i], said);
	}
}

/* --- hostile files --- */

struct bad {
	uint16_t type;
	const char *text; /* of the fault */
	struct dc_names_block head;
	size_t bytes; /* behind the head */
	uint8_t fill;
};

static int put_bad(struct dc_writer *w, uint32_t process, void *arg)
{
	const struct bad *bad = arg;
	struct blob b = {0};
	uint8_t *fill = malloc(bad->bytes + 1);
	int r = put_stacks(w, process, NULL);

	memset(fill, bad->fill, bad->bytes);
	blob_add(&b, &bad->head, sizeof bad->head);
	blob_add(&b, fill, bad->bytes);
	free(fill);
	return r | blob_write(&b, w, bad->type, process);
}

static void test_bad_blocks(void **state)
{
	/* A block that lies is told and left out; the others are as good as without it. */
	static const struct bad cases[] = {
		{DC_BLOCK_FRAMES, "(frames) at ", {.first = 4, .count = 3}, 64, 0},
		{DC_BLOCK_FRAMES, "counts do not fit", {.first = 4, .count = UINT32_MAX}, 64, 0},
		{DC_BLOCK_MAPS, "counts do not fit", {.first = 3, .count = 1, .strings_bytes = 9}, 80, 0},
		{DC_BLOCK_NAMES, "counts do not fit", {.first = 4, .strings_bytes = UINT32_MAX}, 8, 0},
		{DC_BLOCK_STACKS, "counts do not fit", {.first = 4, .count = 3}, 8, 0},
		{DC_BLOCK_STACKS, "runs past its end", {.first = 4, .count = 2}, 8, 7},
		{DC_BLOCK_STACKS, "numbers begin at 0", {.first = 0, .count = 1}, 8, 0},
		{DC_BLOCK_NAMES, "larger than this reader takes", {.first = UINT32_MAX, .count = 1}, 32, 0},
		{DC_BLOCK_FRAMES, "are taken", {.first = 2, .count = 1}, 32, 0},
		{DC_BLOCK_NAMES, "are taken", {.first = 3, .count = 1}, 24, 0},
		{DC_BLOCK_SAMPLES, "does not parse", {.first = 8}, 64, 0},
		{DC_BLOCK_SAMPLES, "does not parse", {.first = 4096}, 64, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct dc_capture *c;
		struct dc_stacks *s;

		write_capture(put_bad, (void *)&cases[i], NULL);
		c = open_capture(path);
		s = open_stacks(c);
		assert_int_equal(look(s, (struct dc_cut){.everything = true}).count, 7);
		if (!strstr(first_fault(c), cases[i].text))
			fail_msg("case %zu: '%s'", i, first_fault(c));
		assert_int_equal(faults(c), 1);
		assert_int_equal(dc_stacks_stack_count(s), 3);
		assert_int_equal(dc_stacks_frame_count(s), 3);
		assert_string_equal(dc_stacks_name(s, 3).function, "main");
		assert_int_equal(dc_stacks_frame(s, 2)->address, 0x5678);
		close_both(s, c);
	}
}

static int put_much(struct dc_writer *w, uint32_t process, void *arg)
{
	const uint32_t per_block = 100000;
	struct dc_frames_block head = {.first = 1, .count = per_block};
	uint8_t *payload = calloc(1, sizeof head + per_block * sizeof(struct dc_frame));
	int r = 0;

	(void)arg;
	for (unsigned i = 0; i < 100 && r == 0; i++, head.first += per_block) {
		memcpy(payload, &head, sizeof head);
		r = dc_writer_block_zstd(w, DC_BLOCK_FRAMES, process, payload,
					 sizeof head + per_block * sizeof(struct dc_frame));
	}
	free(payload);
	return r;
}

static void test_memory(void **state)
{
	/* A small file whose frames would take 320 MB gets what the bound allows, and the rest is told. */
	struct rusage before, after;
	struct dc_capture *c;
	struct dc_stacks *s;

	(void)state;
	write_capture(put_much, NULL, NULL);
	getrusage(RUSAGE_SELF, &before);
	c = open_capture(path);
	assert_true(dc_capture_bytes(c) < 1 << 20);
	s = open_stacks(c);
	getrusage(RUSAGE_SELF, &after);
	assert_true(dc_stacks_frame_count(s) >= 1900000 && dc_stacks_frame_count(s) < 2200000);
	assert_non_null(strstr(first_fault(c), "larger than this reader takes"));
	assert_true(after.ru_maxrss - before.ru_maxrss < 180 << 10);
	close_both(s, c);
}

/* --- cut and flipped --- */

/* The file in memory, and in a memfd that is spoiled and read. */
struct victim {
	uint8_t *bytes;
	size_t size;
	int fd;
	char path[64];
};

static void victim_init(struct victim *v)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	v->size = (size_t)st.st_size;
	v->bytes = malloc(v->size);
	assert_int_equal(read(fd, v->bytes, v->size), v->size);
	close(fd);
	v->fd = memfd_create("victim", 0);
	assert_int_equal(pwrite(v->fd, v->bytes, v->size, 0), v->size);
	snprintf(v->path, sizeof v->path, "/proc/self/fd/%d", v->fd);
}

static void victim_fini(struct victim *v)
{
	free(v->bytes);
	close(v->fd);
}

/* Which block the byte is in, and whether it is one of samples or stacks. */
struct part {
	bool of_stacks;
	bool pad; /* between the payload and the next block */
	uint16_t type;
};

static struct part part_at(const struct victim *v, size_t byte)
{
	struct dc_block_header h;
	size_t at = 0;

	for (;; at += h.next) {
		memcpy(&h, v->bytes + at, sizeof h);
		if (byte < at + h.next)
			break;
	}
	return (struct part){h.type >= DC_BLOCK_MAPS && h.type <= DC_BLOCK_NAMES, byte >= at + sizeof h + h.stored_bytes,
			     h.type};
}

/* Everything there is, each thing either as it was written or not there. Return: how much there is. */
static unsigned count_originals(struct dc_stacks *s, size_t where)
{
	static const char *const paths[] = {"/usr/bin/a", "/usr/lib/b.so", "[vdso]"};
	unsigned n = 0;

	for (uint32_t i = 0; i < 3; i++) {
		const uint32_t *numbers;
		const struct dc_frame *f = dc_stacks_frame(s, i + 1);
		const char *function = dc_stacks_name(s, i + 1).function;
		const uint32_t depth = dc_stacks_frames(s, i + 1, &numbers);

		if ((f && memcmp(f, &frames[i], sizeof *f)) || (function[0] && strcmp(function, names[i].function)) ||
		    (depth && depth != (i == 0 ? 2 : i == 1 ? 3 : 1)))
			fail_msg("byte %zu: something that never was", where);
		if (dc_stacks_map(s, i).entry && strcmp(dc_stacks_map(s, i).path, paths[i]))
			fail_msg("byte %zu: a map that never was", where);
		n += (f != NULL) + (function[0] != 0) + (depth > 0) + (dc_stacks_map(s, i).entry != NULL);
	}
	return n + look(s, (struct dc_cut){.everything = true}).count;
}

#define ALL (4 * 3 + 7)

/* Of what is in a block of @type. */
static unsigned lost_with(uint16_t type)
{
	return type == DC_BLOCK_SAMPLES ? 7 : 3;
}

static void test_flip_anywhere(void **state)
{
	/* Any bit flipped: what the block held is gone, nothing is made up, the rest is there, and it is told. */
	struct victim v;

	(void)state;
	write_capture(put_stacks, NULL, NULL);
	victim_init(&v);
	for (size_t at = 0; at < v.size; at++) {
		const uint8_t flipped = (uint8_t)(v.bytes[at] ^ (1u << at % 8));
		const struct part part = part_at(&v, at);
		struct dc_capture *c;
		struct dc_stacks *s;
		unsigned n;

		assert_int_equal(pwrite(v.fd, &flipped, 1, (off_t)at), 1);
		c = open_capture(v.path);
		s = open_stacks(c);
		n = count_originals(s, at);
		if (faults(c) == 0)
			fail_msg("byte %zu: nobody noticed", at);
		if (part.of_stacks && !part.pad ? n >= ALL || n < ALL - lost_with(part.type) : n != ALL)
			fail_msg("byte %zu: %u of %u things", at, n, ALL);
		close_both(s, c);
		assert_int_equal(pwrite(v.fd, v.bytes + at, 1, (off_t)at), 1);
	}
	victim_fini(&v);
}

static void test_cut_anywhere(void **state)
{
	/* Cut at any byte: less and less is there, nothing is made up, and it is told. */
	unsigned before = 0;
	struct victim v;

	(void)state;
	write_capture(put_stacks, NULL, NULL);
	victim_init(&v);
	for (size_t size = 0; size < v.size; size++) {
		struct dc_capture *c;
		struct dc_stacks *s;
		unsigned n;

		assert_int_equal(pwrite(v.fd, v.bytes, size, 0), size);
		assert_int_equal(ftruncate(v.fd, (off_t)size), 0);
		if (dc_capture_open(v.path, &c, why) < 0)
			continue;
		assert_true(dc_capture_complete(c) || faults(c) > 0);
		if (dc_capture_process_count(c)) {
			s = open_stacks(c);
			n = count_originals(s, size);
			assert_true(n >= before);
			before = n;
			dc_stacks_close(s);
		}
		dc_capture_close(c);
	}
	assert_int_equal(before, ALL);
	victim_fini(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_what_leads_nowhere),
		cmocka_unit_test(test_to_root),
		cmocka_unit_test(test_samples),
		cmocka_unit_test(test_stopping),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_process_without_samples),
		cmocka_unit_test(test_programs_take_it),
		cmocka_unit_test(test_bad_blocks),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_flip_anywhere),
		cmocka_unit_test(test_cut_anywhere),
	};

	return cmocka_run_group_tests(tests, set_up, dir_remove);
}
