/* SPDX-License-Identifier: MIT */
#include "persist/stacks/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "persist/stacks/cache.h"
#include "persist/stacks/message.h"
#include "persist/stacks/resolve_inside.h"
#include "persist/stacks/sandbox.h"
#include "persist/stacks/stacks.h"
#include "persist/stacks/symbols.h"

#define SECOND_NS INT64_C(1000000000)
#define TIME_NS (60 * SECOND_NS)
#define MEMORY_BYTES (UINT64_C(1) << 30)
#define CACHE_BYTES (UINT64_C(256) << 20)
#define PIPE_BYTES (128u << 20) /* of one child */
#define PAYLOAD_BYTES (1u << 20)
#define NAME_TRIES 64u /* children that name; each that fails leaves out the module it was at */
#define NAMELESS_MAX 3u /* files that are listed */
#define NAMED 1u
#define UNNAMED 2u

int64_t dc_resolve_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

void dc_resolve_complain(struct dc_resolver *r, const char *format, ...)
{
	va_list args;

	if (r->why[0])
		return;
	va_start(args, format);
	vsnprintf(r->why, sizeof r->why, format, args);
	va_end(args);
}

void dc_resolve_add_why(struct dc_resolver *r, const char *format, ...)
{
	const size_t said = strlen(r->why);
	va_list args;

	va_start(args, format);
	vsnprintf(r->why + said, sizeof r->why - said, format, args);
	va_end(args);
}

void dc_resolve_take_why(struct dc_resolver *r, const uint8_t *payload, size_t bytes)
{
	char text[160] = "";

	for (size_t i = 0; i < bytes && i < sizeof text - 1; i++)
		text[i] = payload[i] >= ' ' && payload[i] < 127 ? (char)payload[i] : '?';
	dc_resolve_complain(r, "%s", text);
}

/* The vdso as a file, for those who read files: children may not make one. */
static int vdso_file(void)
{
	CLEANUP(dc_module) struct dc_module *m = NULL;
	CLEANUP(close_fd) int fd = -1;
	char path[64];
	int read_only;

	if (dc_module_open_vdso(&m) < 0)
		return -1;
	fd = memfd_create("vdso", MFD_CLOEXEC);
	if (fd < 0 || write(fd, m->image, m->bytes) != (ssize_t)m->bytes)
		return -1;
	/* A descriptor that can be written does not get into the sandbox. */
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	return read_only;
}

/* "9b5d1c38-...": 16 bytes in hexadecimal. */
static unsigned read_boot_id(uint8_t id[static 16])
{
	CLEANUP(fclose) FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	unsigned byte, n = 0;

	while (f && n < 16 && fscanf(f, "%2x", &byte) == 1) {
		id[n++] = (uint8_t)byte;
		if (fscanf(f, "-") < 0)
			break;
	}
	return n == 16 ? 16 : 0;
}

static bool has_vdso(const struct dc_resolver *r)
{
	for (uint32_t i = 0; i < r->map_count; i++)
		if (r->maps[i].flags & DC_MAP_VDSO)
			return true;
	return false;
}

int dc_resolver_new(const struct dc_map_entry *maps, const char *const *paths, uint32_t map_count,
		    const struct dc_resolve_options *options, struct dc_resolver **ret_resolver)
{
	CLEANUP(dc_resolver) struct dc_resolver *r = calloc(1, sizeof *r);

	if (!r)
		return -ENOMEM;
	r->maps = maps;
	r->paths = paths;
	r->map_count = map_count;
	r->options = *options;
	r->options.time_ns = options->time_ns ? options->time_ns : TIME_NS;
	r->options.memory_bytes = options->memory_bytes ? options->memory_bytes : MEMORY_BYTES;
	r->options.cache_bytes = options->cache_bytes ? options->cache_bytes : CACHE_BYTES;
	r->start_ns = dc_resolve_now_ns();
	r->boot_id_bytes = read_boot_id(r->boot_id);
	r->vdso_fd = has_vdso(r) ? vdso_file() : -1;
	r->canon = calloc((size_t)map_count + 1, sizeof *r->canon);
	r->tried = calloc((size_t)map_count + 1, sizeof *r->tried);
	r->spoilt = calloc((size_t)map_count + 1, sizeof *r->spoilt);
	if (!r->canon || !r->tried || !r->spoilt || dc_resolve_canon(maps, paths, map_count, r->canon) < 0)
		return -ENOMEM;
	*ret_resolver = TAKE(r);
	return 0;
}

void dc_resolver_free(struct dc_resolver *r)
{
	if (!r)
		return;
	for (uint32_t i = 0; i < r->names_count; i++)
		free(r->names[i].payload);
	free(r->names);
	free(r->placed);
	free(r->offset_of);
	free(r->name_of);
	dc_intern_fini(&r->stacks);
	dc_intern_fini(&r->frames);
	free(r->spoilt);
	free(r->tried);
	free(r->canon);
	if (r->vdso_fd >= 0)
		close(r->vdso_fd);
	free(r);
}

/* --- a child --- */

int dc_resolve_child_start(struct dc_resolver *r, const char *what, int64_t deadline_ns, int in_fd,
			   int (*work)(void *arg, int out_fd), void *arg, struct dc_resolve_child *child)
{
	const struct dc_sandbox limits = {.time_ns = deadline_ns - dc_resolve_now_ns(),
					  .memory_bytes = r->options.memory_bytes,
					  .nice = r->options.nice,
					  .in_fd = in_fd};

	*child = (struct dc_resolve_child){.what = what};
	if (limits.time_ns <= 0) {
		dc_resolve_complain(r, "%s: no time was left", what);
		child->error = -ETIMEDOUT;
		return 1;
	}
	child->error = dc_sandbox_start(&limits, work, arg, PIPE_BYTES, &child->sandboxed);
	return child->error;
}

int dc_resolve_child_end(struct dc_resolve_child *child)
{
	int e = child->error;

	if (child->sandboxed)
		e = dc_sandbox_end(TAKE(child->sandboxed), &child->bytes, &child->size, &child->signal, &child->cpu_ns);
	child->error = e;
	return e == -EAGAIN || e == -EMFILE || e == -ENFILE ? e : e < 0;
}

void dc_resolve_child_fini(struct dc_resolve_child *child)
{
	free(child->bytes);
}

const char *dc_resolve_child_text(const struct dc_resolve_child *child)
{
	if (child->error == -ETIMEDOUT || (child->error == -EFAULT && child->signal == SIGALRM))
		return "it took too long";
	return child->error == -EFAULT ? strsignal(child->signal) : strerror(-child->error);
}

int dc_resolver_frame(struct dc_resolver *r, const struct dc_frame *frame, uint32_t *ret_number)
{
	struct dc_frame f = *frame;
	int e;

	f.name = 0;
	f.flags &= DC_FRAME_FLAGS_KNOWN;
	f.map = f.map < r->map_count ? f.map : UINT32_MAX;
	f.reserved = 0;
	e = dc_intern_put(&r->frames, &f, sizeof f, ret_number);
	return e < 0 ? e : 0;
}

/* --- what the naming child sent --- */

struct naming_run {
	struct dc_resolver *r;
	uint32_t base; /* names there were before this child */
	uint32_t count; /* of this child */
	uint32_t map; /* it is or was at; ~0: none */
};

/* What the caller does meanwhile, as long as it has not been done. */
struct meanwhile {
	int (*work)(void *arg);
	void *arg;
};

static const struct dc_frame *frame_of(const struct dc_resolver *r, uint32_t number)
{
	return dc_intern_get(&r->frames, number, NULL);
}

/* Texts end, offsets and numbers lead somewhere, and outer names come before: so there are no circles. */
static int judge_names(const struct naming_run *run, const uint8_t *payload, size_t bytes)
{
	struct dc_names_block head;

	if (bytes < sizeof head || bytes > DC_BLOCK_PLAIN_MAX)
		return -EBADMSG;
	memcpy(&head, payload, sizeof head);
	const size_t entries = (size_t)head.count * sizeof(struct dc_name);
	const uint8_t *texts = payload + sizeof head + entries;
	if (head.first != run->count + 1 || head.strings_bytes == 0 || bytes != sizeof head + entries + head.strings_bytes ||
	    texts[0] || texts[head.strings_bytes - 1])
		return -EBADMSG;
	for (uint32_t i = 0; i < head.count; i++) {
		struct dc_name n;

		memcpy(&n, payload + sizeof head + i * sizeof n, sizeof n);
		if (n.function >= head.strings_bytes || n.file >= head.strings_bytes || n.outer >= head.first + i)
			return -EBADMSG;
	}
	return 0;
}

static int keep_names(struct naming_run *run, const uint8_t *payload, size_t bytes)
{
	struct dc_resolver *r = run->r;
	const uint32_t shift = r->name_first - 1 + run->base;
	struct dc_names_block head;
	uint8_t *copy = malloc(bytes);
	struct dc_resolved_names *more = realloc(r->names, (r->names_count + 1) * sizeof *more);

	r->names = more ? more : r->names;
	if (!copy || !more) {
		free(copy);
		return -ENOMEM;
	}
	memcpy(copy, payload, bytes);
	memcpy(&head, copy, sizeof head);
	head.first += shift;
	memcpy(copy, &head, sizeof head);
	struct dc_name *names = (void *)(copy + sizeof head);
	for (uint32_t i = 0; i < head.count; i++)
		names[i].outer += names[i].outer ? shift : 0;
	r->names[r->names_count++] = (struct dc_resolved_names){copy, bytes};
	r->name_bytes += bytes;
	run->count += head.count;
	r->name_count += head.count;
	return 0;
}

static int take_names(struct naming_run *run, const uint8_t *payload, size_t bytes)
{
	int e = judge_names(run, payload, bytes);

	if (e == 0 && run->r->name_bytes + bytes > DC_RESOLVE_TABLE_BYTES)
		e = -E2BIG;
	return e < 0 ? e : keep_names(run, payload, bytes);
}

static int take_begin(struct naming_run *run, const uint8_t *payload, size_t bytes)
{
	struct dc_message_module m;

	if (bytes != sizeof m)
		return -EBADMSG;
	memcpy(&m, payload, sizeof m);
	if (m.map >= run->r->map_count)
		return -EBADMSG;
	run->map = m.map;
	return 0;
}

/* Return: names[number], counted as they are written. */
static const struct dc_name *name_at(const struct dc_resolver *r, uint32_t number, const char **ret_texts)
{
	for (uint32_t i = r->names_count; i--;) {
		const struct dc_names_block *head = (const void *)r->names[i].payload;
		const struct dc_name *names = (const void *)(head + 1);

		if (number >= head->first) {
			*ret_texts = (const char *)(names + head->count);
			return names + (number - head->first);
		}
	}
	return NULL;
}

static unsigned chain_of(const struct dc_resolver *r, uint32_t number, struct dc_symbol *ret_chain)
{
	unsigned count = 0;
	const char *texts;

	while (number && count < DC_SYMBOLS_CHAIN_MAX) {
		const struct dc_name *n = name_at(r, number, &texts);

		ret_chain[count++] = (struct dc_symbol){texts + n->function, texts + n->file, n->line, n->start};
		number = n->outer;
	}
	return count;
}

/* The kernel's own code stays where it is as long as it runs; that of its modules, "name [module]", may be other code soon. */
static bool lasts(const struct dc_symbol *chain, unsigned count)
{
	return count && !strchr(chain[0].function, '[');
}

/* New answers into the cache. What does not work costs the next capture time, nothing else. */
static void keep_answers(struct dc_resolver *r, const struct dc_message_module *m, const struct dc_message_name *answers,
			 size_t count)
{
	const bool kernel = r->maps[m->map].flags & DC_MAP_KERNEL;
	const uint8_t *id;
	const unsigned id_bytes = dc_resolve_cache_id(r, m->map, &id);
	CLEANUP(dc_cache) struct dc_cache *cache = NULL;
	struct dc_symbol chain[DC_SYMBOLS_CHAIN_MAX];
	bool news = false;

	for (size_t i = 0; i < count; i++)
		news |= !answers[i].cached;
	if (!news || !id_bytes || dc_cache_load(r->options.cache_fd, id, id_bytes, &cache) < 0)
		return;
	dc_cache_require(cache, m->source);
	for (size_t i = 0; i < count; i++) {
		const struct dc_frame *f = frame_of(r, answers[i].frame);
		const uint64_t vaddr = answers[i].offset - (f->flags & DC_FRAME_CALL ? 1 : 0);

		const unsigned chained = chain_of(r, r->name_of[answers[i].frame], chain);

		if (answers[i].cached || (kernel && !lasts(chain, chained)))
			continue;
		if (dc_cache_add(cache, vaddr, chain, chained) < 0)
			break;
	}
	dc_cache_store(cache, r->options.cache_fd, r->options.cache_bytes);
}

static int take_answers(struct naming_run *run, const uint8_t *payload, size_t bytes)
{
	struct dc_resolver *r = run->r;
	const struct dc_message_name *a = (const void *)(payload + sizeof(struct dc_message_module));
	const size_t count = bytes < sizeof(struct dc_message_module) ? 0 : (bytes - sizeof(struct dc_message_module)) / sizeof *a;
	struct dc_message_module m;

	if (bytes != sizeof m + count * sizeof *a)
		return -EBADMSG;
	memcpy(&m, payload, sizeof m);
	if (m.map >= r->map_count || m.source > DC_SYMBOLS_DWARF)
		return -EBADMSG;
	for (size_t i = 0; i < count; i++) {
		const struct dc_frame *f;

		if (a[i].frame == 0 || a[i].frame > r->frames.count || a[i].name > run->count)
			return -EBADMSG;
		f = frame_of(r, a[i].frame);
		if (f->map >= r->map_count || r->canon[f->map] != m.map)
			return -EBADMSG;
		r->name_of[a[i].frame] = a[i].name ? r->name_first - 1 + run->base + a[i].name : 0;
		if (f->flags & DC_FRAME_FILE)
			r->offset_of[a[i].frame] = a[i].offset, r->placed[a[i].frame] = 1;
	}
	r->tried[m.map] = 1;
	keep_answers(r, &m, a, count);
	return 0;
}

static int take_naming(struct naming_run *run, struct dc_resolve_child *o)
{
	struct dc_message head;
	const uint8_t *payload;
	int r = 0;

	while (r == 0 && dc_message_next(o->bytes, o->size, &o->at, &head, &payload)) {
		if (head.type == DC_MESSAGE_BEGIN)
			r = take_begin(run, payload, head.bytes);
		else if (head.type == DC_MESSAGE_NAMES)
			r = take_names(run, payload, head.bytes);
		else if (head.type == DC_MESSAGE_NAMED)
			r = take_answers(run, payload, head.bytes);
		else if (head.type == DC_MESSAGE_WHY)
			dc_resolve_take_why(run->r, payload, head.bytes);
	}
	return r;
}

/* Frames of modules that no child has looked into, or failed at. */
static uint32_t list_unnamed(const struct dc_resolver *r, uint32_t *numbers)
{
	uint32_t count = 0;

	for (uint32_t n = 1; n <= r->frames.count; n++) {
		const struct dc_frame *f = frame_of(r, n);

		if (f->map < r->map_count && !r->tried[r->canon[f->map]] &&
		    !(r->options.no_kernel && (r->maps[f->map].flags & DC_MAP_KERNEL)))
			numbers[count++] = n;
	}
	return count;
}

static int do_meanwhile(struct meanwhile *m)
{
	int (*work)(void *arg) = TAKE(m->work);

	return work ? work(m->arg) : 0;
}

/* Return: 1: there may be more to name. */
static int name_once(struct dc_resolver *r, uint32_t *numbers, uint32_t count, struct meanwhile *meanwhile)
{
	CLEANUP(dc_resolve_child) struct dc_resolve_child child = {0};
	const int64_t before = dc_resolve_now_ns(), end = r->start_ns + r->options.time_ns;
	struct dc_name_job job = {.resolver = r, .frames = numbers, .count = count, .deadline_ns = before + (end - before) / 10 * 9};
	struct naming_run run = {.r = r, .base = r->name_count, .map = UINT32_MAX};
	int failed, e;

	dc_resolve_child_start(r, "naming", end, 0, dc_resolve_name_work, &job, &child);
	e = do_meanwhile(meanwhile);
	if (e < 0 && child.sandboxed)
		dc_sandbox_cancel(child.sandboxed);
	failed = dc_resolve_child_end(&child);
	r->name_cpu_ns += child.cpu_ns;
	if (e < 0 || failed < 0)
		return e < 0 ? e : failed;
	e = take_naming(&run, &child);
	if (failed)
		dc_resolve_complain(r, "naming: %s%s%s", dc_resolve_child_text(&child), run.map == UINT32_MAX ? "" : " at ",
			 run.map == UINT32_MAX ? "" : r->paths[run.map]);
	if (failed && run.map != UINT32_MAX)
		r->tried[run.map] = 1;
	if (e == -EBADMSG || e == -E2BIG)
		dc_resolve_complain(r, e == -E2BIG ? "naming: more names than a capture takes" : "naming: the answer makes no sense");
	if (e == -ENOMEM)
		return e;
	return failed && e == 0 && child.error != -ETIMEDOUT && run.map != UINT32_MAX;
}

int dc_resolver_name(struct dc_resolver *r, uint32_t first, int (*work)(void *arg), void *arg)
{
	const size_t room = (size_t)r->frames.count + 1;
	CLEANUP(free) uint32_t *numbers = calloc(room, sizeof *numbers);
	struct meanwhile meanwhile = {work, arg};
	int e = 1;

	r->name_first = first;
	r->name_of = calloc(room, sizeof *r->name_of);
	r->offset_of = calloc(room, sizeof *r->offset_of);
	r->placed = calloc(room, 1);
	if (!numbers || !r->name_of || !r->offset_of || !r->placed)
		return -ENOMEM;
	for (unsigned i = 0; i < NAME_TRIES && e == 1; i++) {
		uint32_t count = list_unnamed(r, numbers);

		e = count ? name_once(r, numbers, count, &meanwhile) : 0;
	}
	if (e >= 0)
		e = do_meanwhile(&meanwhile);
	return e < 0 ? e : 0;
}

/* --- what came of it --- */

struct dc_frame dc_resolver_frame_at(const struct dc_resolver *r, uint32_t number)
{
	struct dc_frame f = *frame_of(r, number);

	if (r->name_of)
		f.name = r->name_of[number];
	if (r->placed && r->placed[number]) {
		f.offset = r->offset_of[number];
		f.flags &= ~DC_FRAME_FILE;
	}
	return f;
}

struct emitting {
	int (*each)(void *arg, uint16_t type, const void *payload, size_t bytes);
	void *arg;
	uint16_t type;
	uint8_t *payload;
	size_t used;
	struct dc_stacks_block head; /* that of frames is the same */
};

static int emit(struct emitting *e)
{
	int r = 0;

	if (e->head.count) {
		memcpy(e->payload, &e->head, sizeof e->head);
		r = e->each(e->arg, e->type, e->payload, e->used);
	}
	e->head.first += e->head.count;
	e->head.count = 0;
	e->used = sizeof e->head;
	return r;
}

static int put(struct emitting *e, const void *item, size_t bytes, const void *more, size_t more_bytes)
{
	memcpy(e->payload + e->used, item, bytes);
	memcpy(e->payload + e->used + bytes, more, more_bytes);
	e->used += bytes + more_bytes;
	e->head.count++;
	return e->used >= PAYLOAD_BYTES ? emit(e) : 0;
}

static int emit_stacks(const struct dc_resolver *r, struct emitting *e)
{
	int result = 0;

	for (uint32_t n = 1; n <= r->stacks.count && result == 0; n++) {
		uint32_t size;
		const void *numbers = dc_intern_get(&r->stacks, n, &size);

		result = put(e, &(uint32_t){size / 4}, 4, numbers, size);
	}
	return result < 0 ? result : emit(e);
}

static int emit_frames(const struct dc_resolver *r, struct emitting *e)
{
	int result = 0;

	for (uint32_t n = 1; n <= r->frames.count && result == 0; n++) {
		const struct dc_frame f = dc_resolver_frame_at(r, n);

		result = put(e, &f, sizeof f, "", 0);
	}
	return result < 0 ? result : emit(e);
}

int dc_resolver_blocks(const struct dc_resolver *r, uint32_t types,
		       int (*each)(void *arg, uint16_t type, const void *payload, size_t bytes), void *arg)
{
	CLEANUP(free) uint8_t *payload = malloc(PAYLOAD_BYTES + 4 + 4 * DC_STACKS_DEPTH_MAX + sizeof(struct dc_frame));
	struct emitting e = {.each = each, .arg = arg, .payload = payload, .used = sizeof e.head};
	int result = payload ? 0 : -ENOMEM;

	if (result == 0 && (types & 1u << DC_BLOCK_STACKS)) {
		e.type = DC_BLOCK_STACKS;
		e.head.first = 1;
		result = emit_stacks(r, &e);
	}
	if (result == 0 && (types & 1u << DC_BLOCK_FRAMES)) {
		e.type = DC_BLOCK_FRAMES;
		e.head.first = 1;
		result = emit_frames(r, &e);
	}
	for (uint32_t i = 0; result == 0 && (types & 1u << DC_BLOCK_NAMES) && i < r->names_count; i++)
		result = each(arg, DC_BLOCK_NAMES, r->names[i].payload, r->names[i].bytes);
	return result;
}

static uint32_t used_by_most(const struct dc_resolver *r)
{
	uint64_t all = 0, sum = 0;
	uint32_t step = 0;

	for (uint32_t i = 0; i < DC_USED_STEPS; i++)
		all += r->used[i];
	if (!all)
		return 0;
	for (; step < DC_USED_STEPS - 1; step++) {
		sum += r->used[step];
		if (100 * sum >= 99 * all)
			break;
	}
	return step ? step * DC_USED_STEP : DC_USED_STEP;
}

void dc_resolver_totals(const struct dc_resolver *r, struct dc_resolve_totals *ret_totals)
{
	*ret_totals = (struct dc_resolve_totals){.samples = r->samples,
						 .unwound = r->unwound,
						 .to_root = r->to_root,
						 .stack_count = r->stacks.count,
						 .frame_count = r->frames.count,
						 .stack_used = used_by_most(r),
						 .unwind_cpu_ns = r->unwind_cpu_ns,
						 .name_cpu_ns = r->name_cpu_ns};
	for (uint32_t n = 1; r->name_of && n <= r->frames.count; n++)
		ret_totals->named += r->name_of[n] != 0;
}

const char *dc_resolver_why(const struct dc_resolver *r)
{
	return r->why;
}

/* Of each file (by its first map): whether frames have names, or have none. */
static void mark_nameless(const struct dc_resolver *r, uint8_t *marks)
{
	for (uint32_t n = 1; n <= r->frames.count; n++) {
		const struct dc_frame *f = frame_of(r, n);

		if (f->map < r->map_count)
			marks[r->canon[f->map]] |= r->name_of[n] ? NAMED : UNNAMED;
	}
}

void dc_resolver_nameless(const struct dc_resolver *r, char *ret_text, size_t size)
{
	CLEANUP(free) uint8_t *marks = calloc((size_t)r->map_count + 1, 1);
	unsigned count = 0;
	int used = 0;

	ret_text[0] = 0;
	if (!marks || !r->name_of)
		return;
	mark_nameless(r, marks);
	for (uint32_t i = 0; i < r->map_count; i++) {
		if (marks[i] != UNNAMED || r->paths[i][0] != '/')
			continue;
		if (count++ < NAMELESS_MAX && used < (int)size)
			used += snprintf(ret_text + used, size - (size_t)used, "%s%s", count > 1 ? ", " : "",
					 strrchr(r->paths[i], '/') + 1);
	}
	if (count > NAMELESS_MAX && used < (int)size)
		snprintf(ret_text + used, size - (size_t)used, " and %u more", count - NAMELESS_MAX);
}
