/* SPDX-License-Identifier: MIT */
/*
 * The work of the child that names: module by module, small files first, so that a huge one that uses up the time costs
 * only its own names. Of each module the answers of the cache first; debug info is looked at for the rest.
 *
 * The parent is told which module comes next. One that takes half of the time that is left, while others wait, is left
 * when it gives us a chance; else its alarm ends the child, as a crash does, and another child goes on without it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "persist/stacks/cache.h"
#include "persist/stacks/message.h"
#include "persist/stacks/resolve_inside.h"
#include "persist/stacks/symbols.h"

#define NAMES_BYTES (1u << 20) /* of a block of names, about */
#define LOOK_AT_CLOCK 16u /* addresses */

struct module_work { /* frames of one file */
	uint32_t map; /* canonical */
	uint32_t first; /* in the job's frames */
	uint32_t count;
	uint64_t size;
};

/* What a dc_name is made of, before it gets its place in a block. */
struct name_key {
	uint32_t function; /* numbers in texts */
	uint32_t file;
	uint32_t line;
	uint32_t outer;
	uint64_t start;
};

struct naming {
	const struct dc_name_job *job;
	const struct dc_resolver *r;
	int out_fd;
	struct module_work *works;
	uint32_t work_count;
	struct dc_intern names; /* struct name_key */
	struct dc_intern texts;
	uint32_t sent; /* names */
	size_t unsent_bytes; /* of their texts and themselves, at most */
	/* of the module at hand */
	int64_t module_deadline_ns;
	struct dc_module *module;
	struct dc_symbols *symbols;
	bool no_symbols_yet; /* the kernel's are many: they are read when the cache does not know an address */
	struct dc_cache *cache;
	struct dc_message_name *answers;
	uint32_t answer_count;
};

static void naming_cleanup(struct naming *n)
{
	dc_cache_free(n->cache);
	dc_symbols_close(n->symbols);
	dc_module_close(n->module);
	dc_intern_fini(&n->texts);
	dc_intern_fini(&n->names);
	free(n->answers);
	free(n->works);
}

static const struct dc_frame *frame_of(const struct dc_resolver *r, uint32_t number)
{
	return dc_intern_get(&r->frames, number, NULL);
}

/* A module has a part of the time that is left: its file is somebody else's, and we may never come back. */
static int begin(struct naming *n, uint32_t map, unsigned part)
{
	const struct dc_message_module m = {.map = map};
	const int64_t now = dc_resolve_now_ns(), left = n->job->deadline_ns - now;
	const int64_t us = left > 0 ? left / part / 1000 + 1 : 1;
	const struct itimerval end = {.it_value = {us / 1000000, us % 1000000}};

	n->module_deadline_ns = now + left / part / 10 * 9;
	if (setitimer(ITIMER_REAL, &end, NULL) < 0)
		return -errno;
	return dc_message_send(n->out_fd, DC_MESSAGE_BEGIN, &m, sizeof m);
}

/* --- who comes when --- */

static int by_module(const void *left, const void *right, void *arg)
{
	const struct dc_resolver *r = arg;
	const struct dc_frame *a = frame_of(r, *(const uint32_t *)left), *b = frame_of(r, *(const uint32_t *)right);
	const uint32_t x = r->canon[a->map], y = r->canon[b->map];

	if (x != y)
		return x < y ? -1 : 1;
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int by_size(const void *left, const void *right)
{
	const struct module_work *a = left, *b = right;

	if (a->size != b->size)
		return a->size < b->size ? -1 : 1;
	return a->map < b->map ? -1 : a->map > b->map;
}

static int work_add(struct naming *n, uint32_t map, uint32_t first)
{
	const int r = begin(n, map, 4);
	CLEANUP(close_fd) int fd = dc_resolve_open(n->r, map, NULL);
	struct stat st;

	n->works[n->work_count++] = (struct module_work){
		.map = map, .first = first, .size = fd >= 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0};
	return r;
}

static int plan(struct naming *n)
{
	const struct dc_name_job *job = n->job;
	int r = 0;

	qsort_r(job->frames, job->count, sizeof *job->frames, by_module, (void *)n->r);
	n->works = calloc((size_t)n->r->map_count + 1, sizeof *n->works);
	n->answers = calloc((size_t)job->count + 1, sizeof *n->answers);
	if (!n->works || !n->answers)
		return -ENOMEM;
	for (uint32_t i = 0; i < job->count && r == 0; i++) {
		const uint32_t map = n->r->canon[frame_of(n->r, job->frames[i])->map];

		if (!n->work_count || n->works[n->work_count - 1].map != map)
			r = work_add(n, map, i);
		n->works[n->work_count - 1].count++;
	}
	qsort(n->works, n->work_count, sizeof *n->works, by_size);
	return r;
}

/* --- names --- */

static int put_text(struct naming *n, const char *text, uint32_t *ret_number)
{
	const size_t size = strnlen(text, 8192) + 1; /* of a demangled template, more would be of no use */
	int r = dc_intern_put(&n->texts, text, (uint32_t)size, ret_number);

	if (r == 1)
		n->unsent_bytes += size;
	return r < 0 ? r : 0;
}

/* The chain's innermost function, its outer ones first. */
static int put_chain(struct naming *n, const struct dc_symbol *chain, unsigned count, uint32_t *ret_name)
{
	uint32_t outer = 0;

	for (unsigned i = count; i--;) {
		struct name_key key = {.line = chain[i].line, .outer = outer, .start = chain[i].start};
		int r = put_text(n, chain[i].function, &key.function);

		if (r == 0)
			r = put_text(n, chain[i].file, &key.file);
		if (r == 0)
			r = dc_intern_put(&n->names, &key, sizeof key, &outer);
		if (r < 0)
			return r;
		n->unsent_bytes += r == 1 ? sizeof(struct dc_name) : 0;
	}
	*ret_name = outer;
	return 0;
}

/* Where a text is in the block at hand, which is given it when it has it not yet. */
static uint32_t place_text(const struct naming *n, uint32_t *places, uint32_t number, uint8_t *texts, uint32_t *used)
{
	uint32_t size;
	const char *text = dc_intern_get(&n->texts, number, &size);

	if (size <= 1)
		return 0;
	if (!places[number]) {
		places[number] = *used;
		memcpy(texts + *used, text, size - 1);
		texts[*used + size - 1] = 0;
		*used += size;
	}
	return places[number];
}

/* Names that have come since the last time, as the payload of a NAMES block. */
static int send_names(struct naming *n)
{
	struct dc_names_block head = {.first = n->sent + 1, .count = n->names.count - n->sent, .strings_bytes = 1};
	const size_t entries = head.count * sizeof(struct dc_name);
	CLEANUP(free) uint32_t *places = calloc((size_t)n->texts.count + 1, sizeof *places);
	CLEANUP(free) uint8_t *payload = NULL;
	size_t room = sizeof head + entries + 1;
	int r;

	if (!head.count)
		return 0;
	for (uint32_t i = n->sent + 1; i <= n->names.count; i++) { /* texts of earlier blocks may come again */
		const struct name_key *key = dc_intern_get(&n->names, i, NULL);
		uint32_t a, b;

		dc_intern_get(&n->texts, key->function, &a);
		dc_intern_get(&n->texts, key->file, &b);
		room += a + b;
	}
	payload = calloc(1, room);
	if (!places || !payload)
		return -ENOMEM;
	uint8_t *texts = payload + sizeof head + entries;
	for (uint32_t i = 0; i < head.count; i++) {
		const struct name_key *key = dc_intern_get(&n->names, n->sent + 1 + i, NULL);
		struct dc_name name = {.line = key->line, .outer = key->outer, .start = key->start};

		name.function = place_text(n, places, key->function, texts, &head.strings_bytes);
		name.file = place_text(n, places, key->file, texts, &head.strings_bytes);
		memcpy(payload + sizeof head + i * sizeof name, &name, sizeof name);
	}
	memcpy(payload, &head, sizeof head);
	r = dc_message_send(n->out_fd, DC_MESSAGE_NAMES, payload, sizeof head + entries + head.strings_bytes);
	n->sent = n->names.count;
	n->unsent_bytes = 0;
	return r;
}

/* --- a module --- */

static void module_close(struct naming *n)
{
	dc_cache_free(TAKE(n->cache));
	dc_symbols_close(TAKE(n->symbols));
	dc_module_close(TAKE(n->module));
	n->answer_count = 0;
}

/* What can be had of a module: its file, its symbols, the answers of the cache. None of it is needed. */
static void module_open(struct naming *n, uint32_t map)
{
	const struct dc_map_entry *m = &n->r->maps[map];
	const struct dc_symbols_options options = {.debug_dirs = n->r->options.debug_dirs, .lines = !n->r->options.no_lines};
	CLEANUP(close_fd) int fd = -1;
	const uint8_t *id;
	unsigned id_bytes;

	n->no_symbols_yet = m->flags & DC_MAP_KERNEL;
	if (!n->no_symbols_yet)
		fd = dc_resolve_open(n->r, map, NULL);
	if (fd >= 0)
		dc_symbols_open(fd, n->r->paths[map], &options, &n->symbols);
	if (fd >= 0)
		dc_module_open(fd, &n->module);
	id_bytes = dc_resolve_cache_id(n->r, map, &id);
	if (id_bytes)
		dc_cache_load(n->r->options.cache_fd, id, id_bytes, &n->cache);
	if (n->cache && n->symbols)
		dc_cache_require(n->cache, dc_symbols_source(n->symbols));
}

static struct dc_symbols *symbols_of(struct naming *n)
{
	if (n->no_symbols_yet)
		dc_symbols_open_kernel(&n->symbols);
	n->no_symbols_yet = false;
	return n->symbols;
}

/* Virtual addresses, also of a frame whose file was not to be had when it was made. False: not known. */
static bool vaddr_of(const struct naming *n, const struct dc_frame *f, uint64_t *ret_vaddr)
{
	*ret_vaddr = f->offset;
	if (!(f->flags & DC_FRAME_FILE))
		return true;
	return n->module && dc_module_vaddr(n->module, f->offset, ret_vaddr);
}

static int answer(struct naming *n, uint32_t number)
{
	const struct dc_frame *f = frame_of(n->r, number);
	struct dc_message_name *a = &n->answers[n->answer_count];
	struct dc_symbol chain[DC_SYMBOLS_CHAIN_MAX];
	uint64_t vaddr;
	int count = -ENOENT;

	*a = (struct dc_message_name){.frame = number};
	if (!vaddr_of(n, f, &a->offset))
		return 0;
	vaddr = f->flags & DC_FRAME_CALL ? a->offset - 1 : a->offset;
	if (n->cache)
		count = dc_cache_find(n->cache, vaddr, chain, DC_SYMBOLS_CHAIN_MAX);
	a->cached = count >= 0;
	if (count < 0 && symbols_of(n))
		count = (int)dc_symbols_at(n->symbols, vaddr, chain, DC_SYMBOLS_CHAIN_MAX);
	if (count < 0)
		return 0;
	n->answer_count++;
	return put_chain(n, chain, (unsigned)count, &a->name);
}

static int send_answers(struct naming *n, uint32_t map)
{
	const struct dc_message_module head = {map, n->symbols ? dc_symbols_source(n->symbols) : DC_SYMBOLS_NONE};
	const size_t bytes = n->answer_count * sizeof *n->answers;
	CLEANUP(free) uint8_t *payload = malloc(sizeof head + bytes);
	int r = payload ? send_names(n) : -ENOMEM;

	if (r < 0)
		return r;
	memcpy(payload, &head, sizeof head);
	memcpy(payload + sizeof head, n->answers, bytes);
	n->answer_count = 0;
	return dc_message_send(n->out_fd, DC_MESSAGE_NAMED, payload, sizeof head + bytes);
}

static int give_up(const struct naming *n, uint32_t map)
{
	char why[160];
	const int bytes = snprintf(why, sizeof why, "naming: it took too long at %s", n->r->paths[map]);

	return dc_message_send(n->out_fd, DC_MESSAGE_WHY, why, bytes < (int)sizeof why ? (size_t)bytes : sizeof why - 1);
}

static int name_module(struct naming *n, const struct module_work *w, bool last)
{
	int r = begin(n, w->map, last ? 1 : 2);
	uint32_t i = 0;


	module_open(n, w->map);
	for (; i < w->count && r == 0 && !(i % LOOK_AT_CLOCK == 0 && dc_resolve_now_ns() >= n->module_deadline_ns); i++) {
		r = answer(n, n->job->frames[w->first + i]);
		if (r == 0 && n->unsent_bytes > NAMES_BYTES)
			r = send_answers(n, w->map);
	}
	if (r == 0)
		r = send_answers(n, w->map);
	if (r == 0 && i < w->count)
		r = give_up(n, w->map);
	module_close(n);
	return r;
}

int dc_resolve_name_work(void *arg, int out_fd)
{
	const struct dc_name_job *job = arg;
	CLEANUP(naming) struct naming n = {.job = job, .r = job->resolver, .out_fd = out_fd};
	int r = plan(&n);

	for (uint32_t i = 0; i < n.work_count && r == 0; i++)
		r = dc_resolve_now_ns() < job->deadline_ns ? name_module(&n, &n.works[i], i + 1 == n.work_count) : -ETIMEDOUT;
	return r < 0 ? r : dc_resolve_tell_cut("naming", out_fd);
}
