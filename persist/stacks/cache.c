/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "persist/stacks/cache.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "persist/block.h"
#include "persist/stacks/answers.h"
#include "persist/stacks/texts.h"

#define NAME_BYTES 80u
#define SUFFIX ".names"
#define PART ".names.part"
#define DIR_FILES_MAX 65536u
#define STALE_S 3600

static_assert(sizeof(struct dc_cache_header) == 72, "layout of the file");
static_assert(sizeof(struct dc_cache_address) == 16 && sizeof(struct dc_cache_symbol) == 24, "layout of the file");

struct dc_cache {
	uint8_t build_id[24];
	unsigned build_id_bytes;
	unsigned source;
	struct dc_texts *texts;
	struct dc_answers *answers;
	size_t text_bytes;
	bool changed;
};

static void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

static void name_file(const struct dc_cache *c, char ret_name[static NAME_BYTES])
{
	for (unsigned i = 0; i < c->build_id_bytes; i++)
		snprintf(ret_name + 2 * i, 3, "%02x", c->build_id[i]);
	memcpy(ret_name + 2 * c->build_id_bytes, SUFFIX, sizeof SUFFIX);
}

static int clear(struct dc_cache *c)
{
	struct dc_texts *texts = NULL;
	int r = dc_texts_new(DC_CACHE_FILE_MAX, &texts);

	if (r < 0)
		return r;
	dc_texts_free(c->texts);
	c->texts = texts;
	c->text_bytes = 1;
	dc_answers_forget(c->answers);
	return 0;
}

/* --- read --- */

/* Of a file; nothing in it is believed before parse() has looked at it. */
struct parts {
	struct dc_cache_header header;
	const struct dc_cache_address *addresses;
	const struct dc_cache_symbol *symbols;
	const char *strings;
};

static bool fits(const struct dc_cache *c, const struct dc_cache_header *h, size_t bytes)
{
	return memcmp(h->magic, DC_CACHE_MAGIC, sizeof h->magic) == 0 && h->version == DC_CACHE_VERSION &&
	       h->source <= DC_SYMBOLS_DWARF && !h->reserved && h->build_id_bytes == c->build_id_bytes &&
	       memcmp(h->build_id, c->build_id, c->build_id_bytes) == 0 &&
	       sizeof *h + h->address_count * UINT64_C(16) + h->symbol_count * UINT64_C(24) + h->strings_bytes == bytes;
}

/* @buffer is aligned as malloc does it, and so are its parts. */
static int parse(const struct dc_cache *c, uint8_t *buffer, size_t bytes, struct parts *ret_parts)
{
	struct dc_cache_header *h = (struct dc_cache_header *)buffer;
	uint64_t checksum;

	if (bytes < sizeof *h || !fits(c, h, bytes))
		return -EBADMSG;
	checksum = h->checksum;
	h->checksum = 0;
	if (dc_checksum(buffer, bytes) != checksum)
		return -EBADMSG;
	ret_parts->header = *h;
	ret_parts->addresses = (const struct dc_cache_address *)(buffer + sizeof *h);
	ret_parts->symbols = (const struct dc_cache_symbol *)(ret_parts->addresses + h->address_count);
	ret_parts->strings = (const char *)(ret_parts->symbols + h->symbol_count);
	if (!h->strings_bytes || ret_parts->strings[0] || ret_parts->strings[h->strings_bytes - 1])
		return -EBADMSG;
	return 0;
}

/* Texts are numbered as they come: in a good file, where all differ, as in the file. */
static int take_strings(struct dc_cache *c, const struct parts *p)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < p->header.string_count; i++) {
		if (at >= p->header.strings_bytes || dc_texts_add(c->texts, p->strings + at) != i)
			return -EBADMSG;
		at += (uint32_t)strlen(p->strings + at) + 1;
	}
	c->text_bytes = p->header.strings_bytes;
	return at == p->header.strings_bytes ? 0 : -EBADMSG;
}

static int take_answer(struct dc_cache *c, const struct parts *p, const struct dc_cache_address *address)
{
	struct dc_level levels[DC_SYMBOLS_CHAIN_MAX];

	if (address->count > DC_SYMBOLS_CHAIN_MAX || address->first > p->header.symbol_count ||
	    address->count > p->header.symbol_count - address->first)
		return -EBADMSG;
	for (uint32_t i = 0; i < address->count; i++) {
		const struct dc_cache_symbol *s = &p->symbols[address->first + i];

		if (s->function >= p->header.string_count || s->file >= p->header.string_count)
			return -EBADMSG;
		levels[i] = (struct dc_level){s->start, s->function, s->file, s->line};
	}
	return dc_answers_add(c->answers, address->vaddr, levels, address->count);
}

static int take(struct dc_cache *c, const struct parts *p)
{
	int r = p->header.string_count ? take_strings(c, p) : -EBADMSG;

	for (uint32_t i = 0; r == 0 && i < p->header.address_count; i++) {
		if (i && p->addresses[i].vaddr <= p->addresses[i - 1].vaddr)
			return -EBADMSG;
		r = take_answer(c, p, &p->addresses[i]);
	}
	if (r == 0)
		c->source = p->header.source;
	return r;
}

static int read_all(int fd, size_t bytes, uint8_t **ret_buffer)
{
	CLEANUP(free) uint8_t *buffer = malloc(bytes);
	size_t done = 0;

	if (!buffer)
		return -ENOMEM;
	while (done < bytes) {
		ssize_t n = pread(fd, buffer + done, bytes - done, (off_t)done);

		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		done += (size_t)n;
	}
	*ret_buffer = TAKE(buffer);
	return 0;
}

static int read_file(struct dc_cache *c, int dir_fd)
{
	char name[NAME_BYTES];
	CLEANUP(free) uint8_t *buffer = NULL;
	CLEANUP(close_fd) int fd = -1;
	struct parts p = {0};
	struct stat st;
	int r;

	name_file(c, name);
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return errno == ENOENT || errno == ELOOP ? -EBADMSG : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof p.header || st.st_size > (off_t)DC_CACHE_FILE_MAX)
		return -EBADMSG;
	r = read_all(fd, (size_t)st.st_size, &buffer);
	if (r == 0)
		r = parse(c, buffer, (size_t)st.st_size, &p);
	return r < 0 ? r : take(c, &p);
}

int dc_cache_load(int dir_fd, const uint8_t *build_id, unsigned build_id_bytes, struct dc_cache **ret_cache)
{
	CLEANUP(dc_cache) struct dc_cache *c = NULL;
	int r;

	if (!build_id_bytes || build_id_bytes > sizeof c->build_id)
		return -EINVAL;
	c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	memcpy(c->build_id, build_id, build_id_bytes);
	c->build_id_bytes = build_id_bytes;
	r = dc_answers_new(&c->answers);
	if (r == 0)
		r = clear(c);
	if (r == 0)
		r = read_file(c, dir_fd);
	if (r == -EBADMSG) /* half of it may have been taken */
		r = clear(c);
	if (r < 0)
		return r;
	*ret_cache = TAKE(c);
	return 0;
}

void dc_cache_free(struct dc_cache *c)
{
	if (!c)
		return;
	dc_answers_free(c->answers);
	dc_texts_free(c->texts);
	free(c);
}

/* --- use --- */

void dc_cache_require(struct dc_cache *c, unsigned source)
{
	if (source <= c->source)
		return;
	c->source = source;
	if (dc_answers_count(c->answers) && clear(c) < 0)
		dc_answers_forget(c->answers);
}

int dc_cache_find(const struct dc_cache *c, uint64_t vaddr, struct dc_symbol *ret_chain, unsigned room)
{
	uint32_t count;
	const struct dc_level *levels = dc_answers_find(c->answers, vaddr, &count);

	if (!levels)
		return -ENOENT;
	for (uint32_t i = 0; i < count && i < room; i++)
		ret_chain[i] = (struct dc_symbol){.function = dc_texts_at(c->texts, levels[i].function),
						  .file = dc_texts_at(c->texts, levels[i].file),
						  .line = levels[i].line,
						  .start = levels[i].start};
	return (int)(count < room ? count : room);
}

static uint32_t add_text(struct dc_cache *c, const char *text)
{
	uint32_t before = dc_texts_count(c->texts), number = dc_texts_add(c->texts, text);

	if (dc_texts_count(c->texts) > before)
		c->text_bytes += strlen(dc_texts_at(c->texts, number)) + 1;
	return number;
}

static size_t file_bytes(const struct dc_cache *c)
{
	return sizeof(struct dc_cache_header) + dc_answers_count(c->answers) * sizeof(struct dc_cache_address) +
	       dc_answers_level_count(c->answers) * sizeof(struct dc_cache_symbol) + c->text_bytes;
}

int dc_cache_add(struct dc_cache *c, uint64_t vaddr, const struct dc_symbol *chain, unsigned count)
{
	struct dc_level levels[DC_SYMBOLS_CHAIN_MAX];
	size_t more = sizeof(struct dc_cache_address) + count * sizeof(struct dc_cache_symbol);
	uint32_t there;

	if (count > DC_SYMBOLS_CHAIN_MAX)
		return -EINVAL;
	if (dc_answers_find(c->answers, vaddr, &there))
		return 0;
	for (unsigned i = 0; i < count; i++)
		more += strnlen(chain[i].function, DC_TEXT_BYTES_MAX) + strnlen(chain[i].file, DC_TEXT_BYTES_MAX) + 2;
	if (file_bytes(c) + more > DC_CACHE_FILE_MAX)
		return -ENOSPC;
	for (unsigned i = 0; i < count; i++)
		levels[i] = (struct dc_level){chain[i].start, add_text(c, chain[i].function),
					      add_text(c, chain[i].file), chain[i].line};
	c->changed = true;
	return dc_answers_add(c->answers, vaddr, levels, count);
}

/* --- write --- */

/* All of the file, in memory. */
static int compose(const struct dc_cache *c, uint8_t **ret_buffer, size_t *ret_bytes)
{
	CLEANUP(free) struct dc_answer *list = NULL;
	size_t bytes = file_bytes(c);
	uint8_t *buffer = calloc(1, bytes);
	struct dc_cache_header *h = (struct dc_cache_header *)buffer;
	struct dc_cache_address *address = (struct dc_cache_address *)(h + 1);
	struct dc_cache_symbol *symbols, *symbol;
	uint32_t count = dc_answers_count(c->answers), level_count;
	char *text;

	if (!buffer || dc_answers_sorted(c->answers, &list) < 0) {
		free(buffer);
		return -ENOMEM;
	}
	symbol = symbols = (struct dc_cache_symbol *)(address + count);
	for (uint32_t i = 0; i < count; i++) {
		const struct dc_level *l = dc_answers_find(c->answers, list[i].vaddr, &level_count);

		*address++ = (struct dc_cache_address){list[i].vaddr, (uint32_t)(symbol - symbols), level_count};
		for (; level_count--; l++)
			*symbol++ = (struct dc_cache_symbol){l->start, l->function, l->file, l->line, 0};
	}
	text = (char *)symbol;
	for (uint32_t i = 0; i < dc_texts_count(c->texts); i++)
		text = stpcpy(text, dc_texts_at(c->texts, i)) + 1;
	*h = (struct dc_cache_header){.magic = DC_CACHE_MAGIC,
				      .version = DC_CACHE_VERSION,
				      .source = c->source,
				      .build_id_bytes = c->build_id_bytes,
				      .address_count = count,
				      .symbol_count = (uint32_t)(symbol - symbols),
				      .string_count = dc_texts_count(c->texts),
				      .strings_bytes = (uint32_t)c->text_bytes};
	memcpy(h->build_id, c->build_id, c->build_id_bytes);
	h->checksum = dc_checksum(buffer, bytes);
	*ret_buffer = buffer;
	*ret_bytes = bytes;
	return 0;
}

static int write_all(int fd, const uint8_t *buffer, size_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, buffer, bytes);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			buffer += n;
			bytes -= (size_t)n;
		}
	}
	return 0;
}

/* Not synced: losing it costs time only, and half a file has the wrong checksum. */
static int replace(int dir_fd, const char *name, const uint8_t *buffer, size_t bytes)
{
	char part[NAME_BYTES + 32];
	CLEANUP(close_fd) int fd = -1;
	int r;

	snprintf(part, sizeof part, "%s.part%d", name, (int)getpid());
	fd = openat(dir_fd, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 && errno == EEXIST && unlinkat(dir_fd, part, 0) == 0) /* of an earlier process with our number */
		fd = openat(dir_fd, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, buffer, bytes);
	if (r == 0 && renameat(dir_fd, part, dir_fd, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dir_fd, part, 0);
	return r;
}

struct found {
	char name[NAME_BYTES + 32];
	uint64_t bytes;
	struct timespec changed;
};

static int by_age(const void *left, const void *right)
{
	const struct found *a = left, *b = right;

	if (a->changed.tv_sec != b->changed.tv_sec)
		return a->changed.tv_sec < b->changed.tv_sec ? -1 : 1;
	return a->changed.tv_nsec < b->changed.tv_nsec ? -1 : a->changed.tv_nsec > b->changed.tv_nsec;
}

/* Ours by name; what somebody died over while writing is removed on the way. */
static bool look_at(int dir_fd, const char *name, struct found *ret_found)
{
	size_t length = strlen(name);
	struct stat st;

	if (!strstr(name, SUFFIX) || length >= sizeof ret_found->name ||
	    fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return false;
	if (strstr(name, PART)) {
		if (st.st_mtim.tv_sec + STALE_S < time(NULL))
			unlinkat(dir_fd, name, 0);
		return false;
	}
	memcpy(ret_found->name, name, length + 1);
	ret_found->bytes = (uint64_t)st.st_size;
	ret_found->changed = st.st_mtim;
	return strcmp(name + length - strlen(SUFFIX), SUFFIX) == 0;
}

static uint32_t list_files(int dir_fd, struct found **ret_list)
{
	CLEANUP(close_fd) int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(closedir) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint32_t count = 0, room = 0;
	struct found found;

	*ret_list = NULL;
	if (!dir)
		return 0;
	fd = -1;
	for (const struct dirent *e; count < DIR_FILES_MAX && (e = readdir(dir));) {
		if (!look_at(dir_fd, e->d_name, &found))
			continue;
		if (GROW(*ret_list, count, room, 64) < 0)
			break;
		(*ret_list)[count++] = found;
	}
	return count;
}

static void evict(int dir_fd, const char *own, uint64_t dir_bytes_max)
{
	CLEANUP(free) struct found *list = NULL;
	uint32_t count = list_files(dir_fd, &list);
	uint64_t total = 0;

	for (uint32_t i = 0; i < count; i++)
		total += list[i].bytes;
	if (total <= dir_bytes_max)
		return;
	qsort(list, count, sizeof *list, by_age);
	for (uint32_t i = 0; i < count && total > dir_bytes_max; i++)
		if (strcmp(list[i].name, own) != 0 && unlinkat(dir_fd, list[i].name, 0) == 0)
			total -= list[i].bytes;
	if (total > dir_bytes_max)
		unlinkat(dir_fd, own, 0);
}

int dc_cache_store(struct dc_cache *c, int dir_fd, uint64_t dir_bytes_max)
{
	CLEANUP(free) uint8_t *buffer = NULL;
	char name[NAME_BYTES];
	size_t bytes;
	int r;

	if (!c->changed)
		return 0;
	r = compose(c, &buffer, &bytes);
	if (r < 0)
		return r;
	name_file(c, name);
	r = replace(dir_fd, name, buffer, bytes);
	if (r < 0)
		return r;
	c->changed = false;
	evict(dir_fd, name, dir_bytes_max);
	return 0;
}
