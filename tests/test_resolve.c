/* SPDX-License-Identifier: MIT */
/* Claims about persist/stacks/resolve*.c: what is sampled of this very process gets its stacks and names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/registers.h"
#include "persist/stacks/cache.h"
#include "persist/stacks/resolve_inside.h"
#include "persist/stacks/sample.h"
#include "persist/stacks/stacks.h"
#include "persist/stacks/unwind.h"
#include "tests/capturemaker.h"
#include "tests/scenemaker.h"

#define SECOND INT64_C(1000000000)

static struct self_maps self;
static const struct dc_resolve_options quick = {.time_ns = 30 * SECOND};

static int set_up(void **state)
{
	(void)state;
	self_maps(&self);
	return 0;
}

/* --- what a resolver gives, as a reader will see it --- */

struct seen {
	struct dc_stacks_block heads[3];
	uint32_t *stacks; /* words */
	struct dc_frame *frames;
	struct dc_name *names;
	const char *texts;
	uint8_t *payloads[3];
};

static int see(void *arg, uint16_t type, const void *payload, size_t bytes)
{
	struct seen *s = arg;
	const unsigned i = type - DC_BLOCK_STACKS;
	uint32_t before = s->heads[i].count;

	if (before) { /* names come module by module: only their number matters then */
		assert_int_equal(type, DC_BLOCK_NAMES);
		return 0;
	}
	s->payloads[i] = malloc(bytes);
	memcpy(s->payloads[i], payload, bytes);
	memcpy(&s->heads[i], payload, sizeof s->heads[i]);
	s->stacks = type == DC_BLOCK_STACKS ? (void *)(s->payloads[i] + 16) : s->stacks;
	s->frames = type == DC_BLOCK_FRAMES ? (void *)(s->payloads[i] + 16) : s->frames;
	return 0;
}

static void seen_fini(struct seen *s)
{
	for (unsigned i = 0; i < 3; i++)
		free(s->payloads[i]);
}

/* Names of frames, looked up in the payloads of a resolver. */
struct finding {
	uint32_t number;
	char function[256];
};

static int find_name(void *arg, uint16_t type, const void *payload, size_t bytes)
{
	struct finding *f = arg;
	const struct dc_names_block *head = payload;
	const struct dc_name *names = (const void *)(head + 1);

	(void)bytes;
	if (type == DC_BLOCK_NAMES && f->number >= head->first && f->number - head->first < head->count)
		snprintf(f->function, sizeof f->function, "%s",
			 (const char *)(names + head->count) + names[f->number - head->first].function);
	return 0;
}

static struct finding name_of(const struct dc_resolver *r, uint32_t frame)
{
	struct finding f = {.number = dc_resolver_frame_at(r, frame).name};

	if (f.number)
		assert_int_equal(dc_resolver_blocks(r, 1u << DC_BLOCK_NAMES, find_name, &f), 0);
	return f;
}

static bool is_called(const struct dc_resolver *r, uint32_t frame, const char *function)
{
	return strcmp(name_of(r, frame).function, function) == 0;
}

/* How many frames of stack 1 are called so. */
static unsigned count_in_stack(const struct dc_resolver *r, uint32_t stack, const char *function)
{
	struct seen s = {0};
	unsigned count = 0;
	const uint32_t *at;

	assert_int_equal(dc_resolver_blocks(r, 1u << DC_BLOCK_STACKS, see, &s), 0);
	assert_true(stack && stack <= s.heads[0].count);
	for (at = s.stacks; --stack; at += 1 + at[0])
		;
	for (uint32_t i = 1; i <= at[0]; i++)
		count += is_called(r, at[i], function);
	seen_fini(&s);
	return count;
}

__attribute__((noinline)) /* test_own_stack() begins with code of its own */
static struct dc_resolver *resolver(const struct dc_resolve_options *options)
{
	struct dc_resolver *r = NULL;

	assert_int_equal(dc_resolver_new(self.entries, self.paths, self.count, options, &r), 0);
	return r;
}

#define MANY 64u

/* A blob as a source, a few samples a piece. */
struct pouring {
	const struct blob *b;
	size_t at;
	uint32_t *stack_of;
	uint8_t *truncated;
};

static int pour(struct pouring *p, struct dc_sample_source *source, uint8_t *to, size_t *ret_bytes)
{
	const size_t begin = p->at;
	struct dc_sample_parts parts;

	for (unsigned n = 0; n < 5 && p->at < p->b->size; n++, source->count++, p->at += parts.head.bytes) {
		assert_true(source->count < MANY);
		assert_int_equal(dc_sample_at(p->b->bytes + p->at, p->b->size - p->at, &parts), 0);
		source->able += parts.head.reg_count || parts.head.ip_count;
		p->stack_of[source->count] = p->truncated[source->count] = 0;
	}
	assert_true(p->at - begin <= DC_SAMPLES_ROOM);
	memcpy(to, p->b->bytes + begin, p->at - begin);
	*ret_bytes = p->at - begin;
	return p->at > begin;
}

static struct pouring pouring;
static struct dc_sample_source poured;

static int next_piece(void *arg, uint8_t *to, size_t *ret_bytes)
{
	return pour(arg, &poured, to, ret_bytes);
}

static void put_stack(void *arg, uint32_t sample, uint32_t stack, bool truncated)
{
	struct pouring *p = arg;

	assert_true(sample < poured.count && stack);
	p->stack_of[sample] = stack;
	p->truncated[sample] = truncated;
}

static void unwind(struct dc_resolver *r, const struct blob *b, uint32_t *stack_of, uint8_t *truncated)
{
	pouring = (struct pouring){.b = b, .stack_of = stack_of, .truncated = truncated};
	poured = (struct dc_sample_source){.next = next_piece, .put = put_stack, .arg = &pouring};
	assert_int_equal(dc_resolver_unwind(r, &poured), 0);
}

static void no_complaint(const struct dc_resolver *r)
{
	if (dc_resolver_why(r)[0])
		fail_msg("%s", dc_resolver_why(r));
}

/* --- unwinding and naming --- */

static void test_own_stack(void **state)
{
	/* Copied registers and stacks give their functions, from where it was to main; equal stacks are one, in all batches. */
	struct dc_resolver *r = resolver(&quick);
	struct dc_resolve_totals t;
	struct blob b = {0};
	uint32_t stack_of[MANY];
	uint8_t truncated[MANY];

	(void)state;
	for (volatile unsigned i = 0; i < 6; i++) /* volatile: one place that calls, so that stacks can be equal */
		self_sample(&b, 5 + i / 4 * 4, DC_SAMPLE_CPU, 7, 1000);
	for (unsigned batch = 0; batch < 2; batch++) {
		unwind(r, &b, stack_of, truncated);
		for (unsigned i = 0; i < 6; i++) {
			assert_int_equal(stack_of[i], i < 4 ? 1 : 2);
			assert_int_equal(truncated[i], 0);
		}
	}
	assert_int_equal(dc_resolver_name(r, 1, NULL, NULL), 0);
	no_complaint(r);
	assert_int_equal(count_in_stack(r, 1, "self_deep"), 6);
	assert_int_equal(count_in_stack(r, 2, "self_deep"), 10);
	assert_int_equal(count_in_stack(r, 1, "main"), 1);
	assert_int_equal(count_in_stack(r, 1, "test_own_stack"), 1);
	dc_resolver_totals(r, &t);
	assert_int_equal(t.samples, 12);
	assert_int_equal(t.unwound, 12);
	assert_int_equal(t.to_root, 12);
	assert_int_equal(t.stack_count, 2);
	assert_true(t.named >= t.frame_count - 2);
	assert_true(t.stack_used > 512 && t.stack_used < SELF_SAMPLE_STACK);
	blob_free(&b);
	dc_resolver_free(r);
}

static void test_addresses(void **state)
{
	/* Addresses that the kernel walked: its own come first and are marked, what follows the first one are returns. */
	const uint64_t pc = (uintptr_t)test_own_stack + 4;
	const uint64_t ips[] = {DC_IP_KERNEL, 0xffffffff81000010, 0xffffffff81000020, DC_IP_USER, pc, pc + 4, 0x10};
	struct dc_resolver *r = resolver(&quick);
	struct blob b = {0};
	struct seen s = {0};
	uint32_t stack_of[2];
	uint8_t truncated[2];

	(void)state;
	maker_sample(&b, &(struct maker_sample){.kind = DC_SAMPLE_CPU, .ips = ips, .ip_count = 7});
	maker_sample(&b, &(struct maker_sample){.kind = DC_SAMPLE_SWITCH_OUT});
	unwind(r, &b, stack_of, truncated);
	assert_int_equal(stack_of[0], 1);
	assert_int_equal(stack_of[1], 0);
	assert_int_equal(dc_resolver_addresses(r, (uint64_t[]){pc + 8, pc + 4}, 2), 0);
	assert_int_equal(dc_resolver_name(r, 1, NULL, NULL), 0);
	assert_int_equal(dc_resolver_blocks(r, 1u << DC_BLOCK_STACKS | 1u << DC_BLOCK_FRAMES, see, &s), 0);
	assert_int_equal(s.stacks[0], 5);
	assert_int_equal(s.heads[1].count, 6); /* pc + 4 is one frame, wherever it came from */
	assert_int_equal(s.frames[0].flags, DC_FRAME_KERNEL);
	assert_int_equal(s.frames[1].flags, DC_FRAME_KERNEL | DC_FRAME_CALL);
	assert_int_equal(s.frames[1].address, 0xffffffff81000020);
	assert_int_equal(s.frames[2].flags, 0);
	assert_int_equal(s.frames[2].map, self.own);
	assert_int_equal(s.frames[3].flags, DC_FRAME_CALL);
	assert_int_equal(s.frames[4].map, UINT32_MAX);
	assert_int_equal(s.frames[4].name, 0);
	assert_true(is_called(r, 3, "test_own_stack"));
	assert_true(is_called(r, 6, "test_own_stack"));
	no_complaint(r);
	seen_fini(&s);
	blob_free(&b);
	dc_resolver_free(r);
}

static void test_what_lay_there_then(void **state)
{
	/* Of mappings that lay at one address one after the other, the one counts that was there at the time. */
	const struct dc_map_entry entries[] = {
		{.start = 0x10000, .end = 0x20000, .from_ns = 0, .until_ns = 100},
		{.start = 0x18000, .end = 0x30000, .from_ns = 150, .until_ns = 200},
		{.start = 0x10000, .end = 0x20000, .from_ns = 210},
		{.start = 0x50000, .end = 0x60000, .from_ns = 500},
	};
	const char *const paths[] = {"/gone/a", "/gone/b", "/gone/c", "/gone/d"};
	const int64_t times[] = {50, 120, 160, 199, 204, 206, 300, 400};
	const uint32_t expected[] = {0, 1, 1, 1, 2, 2, 2, 2};
	const uint64_t ip = 0x19000, other = 0x51000;
	struct dc_resolver *r;
	struct blob b = {0};
	struct seen s = {0};
	uint32_t stack_of[16];
	uint8_t truncated[16];

	(void)state;
	assert_int_equal(dc_resolver_new(entries, paths, 4, &quick, &r), 0);
	for (unsigned i = 0; i < 8; i++)
		maker_sample(&b, &(struct maker_sample){.kind = DC_SAMPLE_CPU, .at_ns = times[i], .ips = &ip, .ip_count = 1});
	maker_sample(&b, &(struct maker_sample){.kind = DC_SAMPLE_CPU, .at_ns = 450, .ips = &other, .ip_count = 1});
	unwind(r, &b, stack_of, truncated);
	assert_int_equal(dc_resolver_blocks(r, 1u << DC_BLOCK_STACKS | 1u << DC_BLOCK_FRAMES, see, &s), 0);
	for (unsigned i = 0; i < 8; i++) {
		const struct dc_frame *f = &s.frames[s.stacks[2 * (stack_of[i] - 1) + 1] - 1];

		assert_int_equal(f->map, expected[i]);
		assert_int_equal(f->flags, DC_FRAME_FILE);
		assert_int_equal(f->offset, 0x19000 - entries[expected[i]].start);
	}
	/* Seen late, but nothing else was there. */
	assert_int_equal(s.frames[s.stacks[2 * (stack_of[8] - 1) + 1] - 1].map, 3);
	seen_fini(&s);
	blob_free(&b);
	dc_resolver_free(r);
}

static void test_another_build(void **state)
{
	/* A file of another build is as good as none: its frames keep the offset in the file, and are named when it is found. */
	struct self_maps other = self;
	struct dc_resolver *r;
	struct blob b = {0};
	uint32_t stack_of[1], number;
	uint8_t truncated[1];
	struct dc_frame f;
	uint64_t ip = (uintptr_t)test_own_stack + 4;

	(void)state;
	other.entries[self.own].build_id[3] ^= 1;
	assert_int_equal(dc_resolver_new(other.entries, other.paths, other.count, &quick, &r), 0);
	maker_sample(&b, &(struct maker_sample){.kind = DC_SAMPLE_CPU, .ips = &ip, .ip_count = 1});
	unwind(r, &b, stack_of, truncated);
	assert_int_equal(dc_resolver_name(r, 1, NULL, NULL), 0);
	f = dc_resolver_frame_at(r, 1);
	assert_int_equal(f.map, self.own);
	assert_int_equal(f.flags, DC_FRAME_FILE);
	assert_int_equal(f.offset, ip - self.entries[self.own].start + self.entries[self.own].offset);
	assert_int_equal(f.name, 0);
	dc_resolver_free(r);

	r = resolver(&quick);
	assert_int_equal(dc_resolver_frame(r, &f, &number), 0);
	assert_int_equal(dc_resolver_name(r, 50, NULL, NULL), 0);
	no_complaint(r);
	f = dc_resolver_frame_at(r, number);
	assert_int_equal(f.flags, 0);
	assert_true(f.name >= 50);
	assert_true(is_called(r, number, "test_own_stack"));
	blob_free(&b);
	dc_resolver_free(r);
}

static void test_vdso(void **state)
{
	/* Functions of the vdso have names, though it is no file. */
	struct dc_resolver *r = resolver(&quick);
	uint64_t addresses[64];
	unsigned named = 0;
	uint32_t map = 0;

	(void)state;
	while (map < self.count && !(self.entries[map].flags & DC_MAP_VDSO))
		map++;
	if (map == self.count)
		skip();
	for (unsigned i = 0; i < 64; i++)
		addresses[i] = self.entries[map].start + (self.entries[map].end - self.entries[map].start) / 64 * i + 8;
	assert_int_equal(dc_resolver_addresses(r, addresses, 64), 0);
	assert_int_equal(dc_resolver_name(r, 1, NULL, NULL), 0);
	for (uint32_t n = 1; n <= 64; n++)
		named += strstr(name_of(r, n).function, "vdso") != NULL;
	assert_true(named > 0);
	no_complaint(r);
	dc_resolver_free(r);
}

/* --- what goes wrong --- */

static enum { FINE, CRASH, HANG, HANG_ALWAYS, REFUSE, CRASH_BUT_OURS } trouble;

/* For ever. TSan lets handlers of signals run when something is called that it knows. */
static void hang(void)
{
	char byte;

	while (read(-1, &byte, 1) != 1)
		;
}

/* Opens files, and does what @trouble says at the one that is our own. */
static int troubled_open(void *arg, const struct dc_map_entry *map, const char *path)
{
	(void)arg;
	if (map->start != self.entries[self.own].start && trouble == CRASH_BUT_OURS)
		raise(SIGSEGV);
	if (map->start == self.entries[self.own].start && trouble == CRASH)
		raise(SIGSEGV);
	if (trouble == HANG_ALWAYS || (map->start == self.entries[self.own].start && trouble == HANG))
		hang();
	if (map->start == self.entries[self.own].start && trouble == REFUSE)
		return -EACCES;
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void try_trouble(int64_t time_ns, struct dc_resolver **ret_r, uint32_t *ret_stack, int while_unwinding, int while_naming)
{
	const struct dc_resolve_options options = {.open = troubled_open, .time_ns = time_ns};
	struct blob b = {0};
	uint8_t truncated[1];

	*ret_r = resolver(&options);
	self_sample(&b, 3, DC_SAMPLE_CPU, 7, 1000);
	trouble = while_unwinding;
	unwind(*ret_r, &b, ret_stack, truncated);
	trouble = while_naming;
	assert_int_equal(dc_resolver_name(*ret_r, 1, NULL, NULL), 0);
	trouble = FINE;
	blob_free(&b);
}

static void test_crash(void **state)
{
	/* A crash while unwinding costs what that module knows, one while naming its names; both are told. */
	struct dc_resolve_totals t;
	struct dc_resolver *r;
	uint32_t stack;

	(void)state;
	try_trouble(30 * SECOND, &r, &stack, CRASH, FINE);
	assert_int_equal(stack, 1);
	assert_int_equal(count_in_stack(r, 1, "main"), 0); /* nothing leads there without its tables */
	assert_non_null(strstr(dc_resolver_why(r), "unwinding: Segmentation fault at /"));
	dc_resolver_free(r);

	try_trouble(30 * SECOND, &r, &stack, FINE, CRASH);
	assert_int_equal(stack, 1);
	assert_non_null(strstr(dc_resolver_why(r), "naming: "));
	assert_int_equal(count_in_stack(r, 1, "self_deep"), 0);
	assert_int_equal(count_in_stack(r, 1, "main"), 0);
	dc_resolver_totals(r, &t);
	assert_true(t.frame_count > 6);
	assert_true(t.named > 0); /* libc's */
	dc_resolver_free(r);

	try_trouble(30 * SECOND, &r, &stack, FINE, CRASH_BUT_OURS);
	assert_int_equal(count_in_stack(r, 1, "self_deep"), 4);
	assert_int_equal(count_in_stack(r, 1, "main"), 1);
	dc_resolver_free(r);
}

/* Registers of which it dies, in one way or another. */
#define POISON UINT64_C(0xdeadbeefdeadbeef)
#define POISON_HANG UINT64_C(0xdeadbeefdeadbee0)
#define POISON_CUT UINT64_C(0xdeadbeefdeadbee1)

/* A mapped file that is not there any more, of more pages than are made up for. */
#define GONE_BYTES (UINT64_C(80) << 20)
static const volatile uint8_t *gone;

static void read_what_is_gone(void)
{
	for (size_t at = 0; at < GONE_BYTES; at += 4096)
		(void)gone[at];
}

int __real_dc_unwind(struct dc_unwinder *u, const uint64_t *regs, unsigned reg_count, const uint8_t *stack, uint32_t stack_bytes,
		     struct dc_unwound *ret_unwound);
int __wrap_dc_unwind(struct dc_unwinder *u, const uint64_t *regs, unsigned reg_count, const uint8_t *stack, uint32_t stack_bytes,
		     struct dc_unwound *ret_unwound);
int __wrap_dc_unwind(struct dc_unwinder *u, const uint64_t *regs, unsigned reg_count, const uint8_t *stack, uint32_t stack_bytes,
		     struct dc_unwound *ret_unwound)
{
	if (regs[0] == POISON)
		raise(SIGSEGV);
	if (regs[0] == POISON_HANG)
		hang();
	if (regs[0] == POISON_CUT)
		read_what_is_gone();
	return __real_dc_unwind(u, regs, reg_count, stack, stack_bytes, ret_unwound);
}

/* @poisoned: bit n: sample n. */
static void unwind_poisoned(uint64_t poison, uint64_t poisoned, unsigned count, uint32_t *stack_of, const char *why)
{
	const struct dc_resolve_options options = {.time_ns = poison == POISON_HANG ? 6 * SECOND : 30 * SECOND};
	struct dc_resolver *r = resolver(&options);
	struct dc_resolve_totals t;
	struct dc_sample_parts p;
	struct blob b = {0};
	uint8_t truncated[MANY];
	size_t at = 0;

	for (volatile unsigned i = 0; i < count; i++)
		self_sample(&b, 5, DC_SAMPLE_CPU, 7, 1000);
	for (unsigned i = 0; i < count; i++, at += p.head.bytes) {
		assert_int_equal(dc_sample_at(b.bytes + at, b.size - at, &p), 0);
		if (poisoned >> i & 1)
			memcpy(b.bytes + ((const uint8_t *)p.regs - b.bytes), &poison, 8);
	}
	unwind(r, &b, stack_of, truncated);
	assert_string_equal(dc_resolver_why(r), why);
	dc_resolver_totals(r, &t);
	for (unsigned i = 0; i < count; i++)
		t.unwound -= stack_of[i] != 0;
	assert_int_equal(t.unwound, 0); /* each counted once */
	blob_free(&b);
	dc_resolver_free(r);
}

static void test_poison(void **state)
{
	/* Samples that the child dies of cost themselves, wherever they are; when there are too many, those from there on, too. */
	static const struct {
		uint64_t poisoned;
		const char *more;
	} cases[] = {{1, ""},
		     {1u << 7, ""},
		     {3u << 8, "; left out: 2 samples, 0 files"},
		     {1u << 22, ""},
		     {1u << 2 | 1u << 5 | 1u << 6 | 1u << 15 | 1u << 20, "; left out: 5 samples, 0 files"}};
	uint32_t stack_of[MANY];
	char why[160];

	(void)state;
	for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
		snprintf(why, sizeof why, "unwinding: Segmentation fault at a sample%s", cases[k].more);
		unwind_poisoned(POISON, cases[k].poisoned, 23, stack_of, why);
		for (unsigned i = 0; i < 23; i++)
			assert_int_equal(stack_of[i], cases[k].poisoned >> i & 1 ? 0 : 1);
	}
	unwind_poisoned(POISON, UINT64_C(0x3ff) << 10, 30, stack_of,
			"unwinding: Segmentation fault at a sample; left out: 8 samples, 0 files, all that came after");
	for (unsigned i = 0; i < 30; i++)
		assert_int_equal(stack_of[i], i < 10 ? 1 : 0);
}

static void test_poison_of_other_kinds(void **state)
{
	/* A sample that never ends, and one that takes more of a file that was cut than can be made up for: the others are unwound. */
	char path[] = "/tmp/dashcam-test-resolve-XXXXXX";
	const int fd = mkstemp(path);
	uint32_t stack_of[MANY];

	(void)state;
	unwind_poisoned(POISON_HANG, 1u << 9, 23, stack_of, "unwinding: it took too long at a sample");
	for (unsigned i = 0; i < 23; i++)
		assert_int_equal(stack_of[i], i == 9 ? 0 : 1);

	assert_int_equal(unlink(path), 0);
	assert_int_equal(ftruncate(fd, GONE_BYTES), 0);
	gone = mmap(NULL, GONE_BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_true(gone != MAP_FAILED);
	assert_int_equal(ftruncate(fd, 0), 0);
	unwind_poisoned(POISON_CUT, 1u << 9, 23, stack_of, "unwinding: Bus error at a sample");
	for (unsigned i = 0; i < 23; i++)
		assert_int_equal(stack_of[i], i == 9 ? 0 : 1);
	munmap((void *)(uintptr_t)gone, GONE_BYTES);
	close(fd);
}

/* --- a file that is cut while it is mapped --- */

static struct {
	char path[40]; /* a copy of our own file */
	int shared_fd; /* its offset tells the parent how far the child is: that of a description that both have */
} cut;

#define KEPT_BYTES 4096

/* Opens the copy as our own file; at the next one, the copy is mapped, and waits until it has been cut. */
static int open_to_be_cut(void *arg, const struct dc_map_entry *map, const char *path)
{
	static bool opened;
	struct stat st = {0};

	(void)arg;
	if (map->start == self.entries[self.own].start) {
		opened = true;
		return open(cut.path, O_RDONLY | O_CLOEXEC);
	}
	if (opened)
		lseek(cut.shared_fd, 1, SEEK_SET);
	while (opened && stat(cut.path, &st) == 0 && st.st_size != KEPT_BYTES)
		;
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void *cut_it(void *arg)
{
	while (lseek(cut.shared_fd, 0, SEEK_CUR) == 0)
		usleep(1000);
	return truncate(cut.path, KEPT_BYTES) < 0 ? arg : NULL;
}

static void copy_of_ours(void)
{
	CLEANUP(close_fd) int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CLEANUP(close_fd) int to = -1;
	struct stat st;

	strcpy(cut.path, "/tmp/dashcam-test-resolve-XXXXXX");
	to = mkstemp(cut.path);
	assert_int_equal(fstat(from, &st), 0);
	for (off_t left = st.st_size; left > 0;) {
		const ssize_t n = sendfile(to, from, NULL, (size_t)left);

		assert_true(n > 0);
		left -= n;
	}
	cut.shared_fd = open(cut.path, O_RDONLY | O_CLOEXEC);
}

static void test_a_file_that_is_cut(void **state)
{
	/* What it knew is gone, and said; the child goes on with the others. */
	const struct dc_resolve_options options = {.open = open_to_be_cut, .time_ns = 30 * SECOND};
	struct dc_resolver *r = resolver(&options);
	uint8_t truncated[1];
	struct blob b = {0};
	pthread_t cutter;
	uint32_t stack;
	void *failed;

	(void)state;
	copy_of_ours();
	self_sample(&b, 3, DC_SAMPLE_CPU, 7, 1000);
	assert_int_equal(pthread_create(&cutter, NULL, cut_it, &cut), 0);
	unwind(r, &b, &stack, truncated);
	lseek(cut.shared_fd, 1, SEEK_SET); /* where nobody came that far */
	pthread_join(cutter, &failed);
	assert_null(failed);
	assert_int_equal(stack, 1);
	assert_string_equal(dc_resolver_why(r), "unwinding: a file was cut while it was read");
	assert_true(truncated[0]); /* nothing leads to main without its tables */
	unlink(cut.path);
	close(cut.shared_fd);
	blob_free(&b);
	dc_resolver_free(r);
}

static void test_hang(void **state)
{
	/* Nothing waits for a child beyond its time, and one module's hang costs what it knows. */
	struct dc_resolve_totals t;
	struct timespec before, after;
	struct dc_resolver *r;
	uint32_t stack;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &before);
	try_trouble(6 * SECOND, &r, &stack, HANG, FINE);
	assert_int_equal(stack, 1);
	assert_int_equal(count_in_stack(r, 1, "main"), 0);
	assert_non_null(strstr(dc_resolver_why(r), "unwinding: it took too long at /"));
	dc_resolver_free(r);
	try_trouble(SECOND / 2, &r, &stack, HANG_ALWAYS, FINE);
	assert_int_equal(stack, 0);
	assert_non_null(strstr(dc_resolver_why(r), "unwinding: it took too long at "));
	assert_non_null(strstr(dc_resolver_why(r), "; left out: 0 samples, "));
	dc_resolver_free(r);
	try_trouble(2 * SECOND, &r, &stack, FINE, HANG);
	assert_int_equal(stack, 1);
	assert_non_null(strstr(dc_resolver_why(r), "naming: it took too long at "));
	assert_int_equal(count_in_stack(r, 1, "self_deep"), 0);
	dc_resolver_totals(r, &t);
	assert_true(t.named > 0);
	dc_resolver_free(r);
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_true(after.tv_sec - before.tv_sec <= 6);
}

static void test_refused(void **state)
{
	/* A module that is not to be had costs its own frames only. */
	struct dc_resolver *r;
	uint32_t stack;

	(void)state;
	try_trouble(30 * SECOND, &r, &stack, FINE, REFUSE);
	assert_int_equal(stack, 1);
	assert_int_equal(count_in_stack(r, 1, "self_deep"), 0);
	no_complaint(r);
	dc_resolver_free(r);
}

/* --- the cache --- */

static void test_cache(void **state)
{
	/* What was named once is named from the cache, also when the file is not to be had any more. */
	char *dir = capture_maker_mkdir();
	const int fd = open(dir, O_RDONLY | O_DIRECTORY);
	const struct dc_resolve_options options = {.open = troubled_open, .cache_fd = fd, .time_ns = 30 * SECOND};
	uint8_t truncated[1];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct dc_resolver *r = resolver(&options);
		struct blob b = {0};
		uint32_t stack;

		self_sample(&b, 3, DC_SAMPLE_CPU, 7, 1000);
		unwind(r, &b, &stack, truncated);
		trouble = i ? REFUSE : FINE;
		assert_int_equal(dc_resolver_name(r, 1, NULL, NULL), 0);
		trouble = FINE;
		assert_int_equal(count_in_stack(r, stack, "self_deep"), 4);
		assert_int_equal(count_in_stack(r, stack, "main"), 1);
		no_complaint(r);
		blob_free(&b);
		dc_resolver_free(r);
	}
	close(fd);
	capture_maker_rmdir(dir);
}

/* An address of the kernel's own code, 0: it does not tell. */
static uint64_t kernel_address(char ret_name[static 256])
{
	CLEANUP(fclose) FILE *f = fopen("/proc/kallsyms", "re");
	char line[512], type;
	uint64_t address;

	while (f && fgets(line, sizeof line, f))
		if (!strchr(line, '[') && sscanf(line, "%" SCNx64 " %c %255s", &address, &type, ret_name) == 3 && type == 'T' &&
		    address >> 63 && strcmp(ret_name, "schedule") == 0)
			return address;
	return 0;
}

static void keep_instead(int fd, const uint8_t *id, uint64_t address, const char *name)
{
	CLEANUP(dc_cache) struct dc_cache *cache = NULL;
	char file[64] = "";

	for (unsigned i = 0; i < 16; i++)
		snprintf(file + 2 * i, sizeof file - 2 * i, "%02x", id[i]);
	strcat(file, ".names");
	assert_int_equal(unlinkat(fd, file, 0), 0);
	assert_int_equal(dc_cache_load(fd, id, 16, &cache), 0);
	dc_cache_require(cache, DC_SYMBOLS_TABLE);
	assert_int_equal(dc_cache_add(cache, address, &(struct dc_symbol){.function = name, .file = ""}, 1), 0);
	assert_int_equal(dc_cache_store(cache, fd, UINT64_MAX), 0);
}

static void test_kernel_cache(void **state)
{
	/* The kernel's names are kept, too, for as long as this boot lasts. */
	const struct dc_map_entry map = {.start = UINT64_C(1) << 63, .end = UINT64_MAX, .flags = DC_MAP_KERNEL};
	const char *const path = "[kernel]";
	char *dir = capture_maker_mkdir();
	const int fd = open(dir, O_RDONLY | O_DIRECTORY);
	const struct dc_resolve_options options = {.cache_fd = fd, .time_ns = 30 * SECOND};
	char name[256];
	const uint64_t address = kernel_address(name);
	const uint64_t ips[] = {DC_IP_KERNEL, address};
	struct dc_cache *cache = NULL;
	struct dc_symbol chain[1];
	uint8_t id[16], truncated[1];

	(void)state;
	if (!address) {
		close(fd);
		capture_maker_rmdir(dir);
		skip();
	}
	for (unsigned i = 0; i < 2; i++) {
		struct dc_resolver *r = NULL;
		struct blob b = {0};
		uint32_t stack;

		assert_int_equal(dc_resolver_new(&map, &path, 1, &options, &r), 0);
		maker_sample(&b, &(struct maker_sample){.kind = DC_SAMPLE_CPU, .ips = ips, .ip_count = 2});
		unwind(r, &b, &stack, truncated);
		assert_int_equal(dc_resolver_name(r, 1, NULL, NULL), 0);
		assert_true(is_called(r, 1, name));
		no_complaint(r);
		blob_free(&b);
		assert_int_equal(r->boot_id_bytes, sizeof id);
		memcpy(id, r->boot_id, sizeof id);
		dc_resolver_free(r);
		assert_int_equal(dc_cache_load(fd, id, sizeof id, &cache), 0);
		assert_int_equal(dc_cache_find(cache, address, chain, 1), 1);
		assert_string_equal(chain[0].function, name);
		dc_cache_free(TAKE(cache));
		snprintf(name, sizeof name, "kept"); /* what only the cache says */
		keep_instead(fd, id, address, name);
	}
	close(fd);
	capture_maker_rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_stack),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_what_lay_there_then),
		cmocka_unit_test(test_another_build),
		cmocka_unit_test(test_vdso),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_poison_of_other_kinds),
		cmocka_unit_test(test_a_file_that_is_cut),
		cmocka_unit_test(test_hang),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_kernel_cache),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
