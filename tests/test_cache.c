/* SPDX-License-Identifier: MIT */
/* Claims about persist/stacks/cache.c: answers come back as they were added; a damaged file is none. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "persist/block.h"
#include "persist/stacks/cache.h"

static const uint8_t id[20] = {0xab, 0xcd, 1, 2, 3};
#define NAME "abcd010203000000000000000000000000000000.names"
#define PLENTY (UINT64_C(1) << 30)

struct place {
	char path[64];
	int fd;
};

static int setup(void **state)
{
	static struct place p;

	strcpy(p.path, "/tmp/test_cache.XXXXXX");
	assert_non_null(mkdtemp(p.path));
	p.fd = open(p.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = &p;
	return p.fd < 0;
}

static int teardown(void **state)
{
	struct place *p = *state;
	DIR *dir = fdopendir(p->fd);

	for (const struct dirent *e; (e = readdir(dir));)
		if (unlinkat(dirfd(dir), e->d_name, 0) < 0)
			unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
	closedir(dir);
	return rmdir(p->path);
}

static struct dc_cache *load(const struct place *p)
{
	struct dc_cache *c = NULL;

	assert_int_equal(dc_cache_load(p->fd, id, sizeof id, &c), 0);
	return c;
}

static const struct dc_symbol inlined[] = {
	{.function = "inner", .file = "a.h", .line = 3, .start = 0x1010},
	{.function = "outer", .file = "a.c", .line = 30, .start = 0x1000},
};

/* One chain of two, one answer that there is nothing, and some hundred more. */
static void fill(struct dc_cache *c)
{
	assert_int_equal(dc_cache_add(c, 0x1011, inlined, 2), 0);
	assert_int_equal(dc_cache_add(c, 0x10, NULL, 0), 0);
	for (unsigned i = 0; i < 300; i++) {
		char name[32];

		snprintf(name, sizeof name, "function%u", i / 3);
		assert_int_equal(dc_cache_add(c, 0x9000 - i * 8,
					      &(struct dc_symbol){.function = name, .file = "b.c", .line = i}, 1),
				 0);
	}
}

static void check(const struct dc_cache *c)
{
	struct dc_symbol chain[4];

	assert_int_equal(dc_cache_find(c, 0x1011, chain, 4), 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_string_equal(chain[i].function, inlined[i].function);
		assert_string_equal(chain[i].file, inlined[i].file);
		assert_int_equal(chain[i].line, inlined[i].line);
		assert_true(chain[i].start == inlined[i].start);
	}
	assert_int_equal(dc_cache_find(c, 0x1011, chain, 1), 1);
	assert_int_equal(dc_cache_find(c, 0x10, chain, 4), 0);
	assert_int_equal(dc_cache_find(c, 0x11, chain, 4), -ENOENT);
	for (unsigned i = 0; i < 300; i++) {
		char name[32];

		snprintf(name, sizeof name, "function%u", i / 3);
		assert_int_equal(dc_cache_find(c, 0x9000 - i * 8, chain, 4), 1);
		assert_string_equal(chain[0].function, name);
		assert_int_equal(chain[0].line, i);
	}
}

static void fill_file(const struct place *p)
{
	CLEANUP(dc_cache) struct dc_cache *c = load(p);

	fill(c);
	assert_int_equal(dc_cache_store(c, p->fd, PLENTY), 0);
}

/* What was added is found, before and after it went through the file; more can be added to what came from one. */
static void test_round_trip(void **state)
{
	CLEANUP(dc_cache) struct dc_cache *first = load(*state);
	struct dc_symbol chain[1];

	fill(first);
	check(first);
	assert_int_equal(dc_cache_store(first, ((struct place *)*state)->fd, PLENTY), 0);
	CLEANUP(dc_cache) struct dc_cache *second = load(*state);
	check(second);
	assert_int_equal(dc_cache_add(second, 0x77, inlined, 1), 0);
	assert_int_equal(dc_cache_store(second, ((struct place *)*state)->fd, PLENTY), 0);
	CLEANUP(dc_cache) struct dc_cache *third = load(*state);
	check(third);
	assert_int_equal(dc_cache_find(third, 0x77, chain, 1), 1);
}

/* An answer that is there already stays; nothing new, nothing written; nobody else may read the file. */
static void test_unchanged(void **state)
{
	const struct place *p = *state;
	struct stat before, after;
	struct dc_symbol chain[4];

	fill_file(p);
	CLEANUP(dc_cache) struct dc_cache *c = load(p);
	assert_int_equal(dc_cache_add(c, 0x1011, NULL, 0), 0);
	assert_int_equal(dc_cache_find(c, 0x1011, chain, 4), 2);
	assert_int_equal(fstatat(p->fd, NAME, &before, 0), 0);
	assert_int_equal(dc_cache_store(c, p->fd, PLENTY), 0);
	assert_int_equal(fstatat(p->fd, NAME, &after, 0), 0);
	assert_true(before.st_ino == after.st_ino);
	assert_int_equal(after.st_mode & 0777, 0600);
}

/* Answers made from less than what can be had now are dropped; those from more stay. */
static void test_source(void **state)
{
	const struct place *p = *state;
	struct dc_symbol chain[4];

	CLEANUP(dc_cache) struct dc_cache *c = load(p);
	dc_cache_require(c, DC_SYMBOLS_TABLE);
	fill(c);
	assert_int_equal(dc_cache_store(c, p->fd, PLENTY), 0);
	CLEANUP(dc_cache) struct dc_cache *again = load(p);
	dc_cache_require(again, DC_SYMBOLS_DYNAMIC);
	dc_cache_require(again, DC_SYMBOLS_TABLE);
	check(again);
	dc_cache_require(again, DC_SYMBOLS_DWARF);
	assert_int_equal(dc_cache_find(again, 0x1011, chain, 4), -ENOENT);
	assert_int_equal(dc_cache_add(again, 0x1011, inlined, 2), 0);
	assert_int_equal(dc_cache_store(again, p->fd, PLENTY), 0);
	CLEANUP(dc_cache) struct dc_cache *third = load(p);
	dc_cache_require(third, DC_SYMBOLS_DWARF);
	assert_int_equal(dc_cache_find(third, 0x1011, chain, 4), 2);
	assert_int_equal(dc_cache_find(third, 0x10, chain, 4), -ENOENT);
}

static size_t read_file(const struct place *p, uint8_t *bytes, size_t room)
{
	CLEANUP(close_fd) int fd = openat(p->fd, NAME, O_RDONLY | O_CLOEXEC);
	ssize_t n = pread(fd, bytes, room, 0);

	assert_true(n > 0);
	return (size_t)n;
}

static void write_file(const struct place *p, const uint8_t *bytes, size_t size)
{
	CLEANUP(close_fd) int fd = openat(p->fd, NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, bytes, size), size);
}

static bool is_empty(const struct place *p)
{
	CLEANUP(dc_cache) struct dc_cache *c = load(p);
	struct dc_symbol chain[4];

	return dc_cache_find(c, 0x1011, chain, 4) == -ENOENT && dc_cache_find(c, 0x10, chain, 4) == -ENOENT;
}

/* Any byte changed, any byte missing: as if there were no file. */
static void test_damaged(void **state)
{
	static uint8_t bytes[65536], damaged[65536];
	const struct place *p = *state;
	size_t size;

	fill_file(p);
	size = read_file(p, bytes, sizeof bytes);
	for (size_t i = 0; i < size; i += i < 200 ? 1 : 97) {
		memcpy(damaged, bytes, size);
		damaged[i] ^= 1;
		write_file(p, damaged, size);
		assert_true(is_empty(p));
		write_file(p, bytes, i);
		assert_true(is_empty(p));
	}
	write_file(p, bytes, size);
	assert_false(is_empty(p));
	fill_file(p); /* and a good one can be written over it */
}

/* Lies with a right checksum are seen, too. */
static void test_lies(void **state)
{
	static uint8_t bytes[65536], lie[65536];
	const struct place *p = *state;
	struct dc_cache_header *h = (void *)lie;
	struct dc_cache_address *addresses = (void *)(h + 1);
	size_t size;

	fill_file(p);
	size = read_file(p, bytes, sizeof bytes);
	for (unsigned i = 0; i < 9; i++) {
		memcpy(lie, bytes, size);
		struct dc_cache_symbol *symbols = (void *)(addresses + h->address_count);
		char *strings = (char *)(symbols + h->symbol_count);
		switch (i) {
		case 0:
			addresses[1].vaddr = addresses[0].vaddr;
			break;
		case 1:
			addresses[0].first = h->symbol_count + 1;
			break;
		case 2:
			addresses[2].count = h->symbol_count;
			break;
		case 3:
			symbols[0].function = h->string_count;
			break;
		case 4:
			symbols[0].file = UINT32_MAX;
			break;
		case 5:
			h->string_count++;
			break;
		case 6:
			h->string_count--;
			break;
		case 7:
			strings[h->strings_bytes - 1] = 'x';
			break;
		case 8:
			strings[0] = 'x';
			break;
		}
		h->checksum = 0;
		h->checksum = dc_checksum(lie, size);
		write_file(p, lie, size);
		assert_true(is_empty(p));
	}
}

/* A directory, a link, a FIFO in the file's place is not followed and not waited for. */
static void test_not_a_file(void **state)
{
	const struct place *p = *state;

	assert_int_equal(mkdirat(p->fd, NAME, 0700), 0);
	assert_true(is_empty(p));
	unlinkat(p->fd, NAME, AT_REMOVEDIR);
	assert_int_equal(symlinkat("/etc/passwd", p->fd, NAME), 0);
	assert_true(is_empty(p));
	unlinkat(p->fd, NAME, 0);
	assert_int_equal(mkfifoat(p->fd, NAME, 0600), 0);
	assert_true(is_empty(p));
}

/* Beyond the limit the oldest files go; the one just written only when it alone is too large. */
static void test_bounded(void **state)
{
	const struct place *p = *state;
	struct stat st;

	for (uint8_t i = 0; i < 6; i++) {
		uint8_t other[20] = {i};
		struct dc_cache *c;
		char name[64] = "";

		assert_int_equal(dc_cache_load(p->fd, other, sizeof other, &c), 0);
		fill(c);
		assert_int_equal(dc_cache_store(c, p->fd, PLENTY), 0);
		dc_cache_free(c);
		snprintf(name, sizeof name, "%02x00000000000000000000000000000000000000.names", i);
		assert_int_equal(
			utimensat(p->fd, name, (struct timespec[2]){{.tv_sec = 1000 + i}, {.tv_sec = 1000 + i}}, 0), 0);
		assert_int_equal(fstatat(p->fd, name, &st, 0), 0);
	}
	CLEANUP(dc_cache) struct dc_cache *c = load(p);
	fill(c);
	assert_int_equal(dc_cache_store(c, p->fd, (uint64_t)st.st_size * 3), 0);
	assert_int_equal(fstatat(p->fd, NAME, &st, 0), 0);
	assert_int_equal(faccessat(p->fd, "0300000000000000000000000000000000000000.names", F_OK, 0), -1);
	assert_int_equal(faccessat(p->fd, "0400000000000000000000000000000000000000.names", F_OK, 0), 0);
	assert_int_equal(faccessat(p->fd, "0500000000000000000000000000000000000000.names", F_OK, 0), 0);
	assert_int_equal(dc_cache_add(c, 0x555, NULL, 0), 0);
	assert_int_equal(dc_cache_store(c, p->fd, 100), 0);
	assert_int_equal(faccessat(p->fd, NAME, F_OK, 0), -1);
}

/* It never becomes larger than it may, and then is still good. */
static void test_full(void **state)
{
	const struct place *p = *state;
	static char name[16000];
	unsigned added = 0;
	struct stat st;
	int r = 0;

	CLEANUP(dc_cache) struct dc_cache *c = load(p);
	memset(name, 'n', sizeof name - 1);
	for (; r == 0; added += r == 0) {
		snprintf(name, 16, "%u", added);
		name[strlen(name)] = '-';
		r = dc_cache_add(c, added, &(struct dc_symbol){.function = name, .file = "f"}, 1);
	}
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(dc_cache_store(c, p->fd, PLENTY), 0);
	assert_int_equal(fstatat(p->fd, NAME, &st, 0), 0);
	assert_true(st.st_size <= (off_t)DC_CACHE_FILE_MAX && st.st_size > (off_t)(DC_CACHE_FILE_MAX / 2));
	CLEANUP(dc_cache) struct dc_cache *again = load(p);
	struct dc_symbol chain[1];
	assert_int_equal(dc_cache_find(again, added - 1, chain, 1), 1);
}

/* What cannot be a build-id is refused; a directory that cannot be written leaves everything as it was. */
static void test_refused(void **state)
{
	const struct place *p = *state;
	static const uint8_t none[32];
	struct dc_cache *c = NULL;

	assert_int_equal(dc_cache_load(p->fd, none, 0, &c), -EINVAL);
	assert_int_equal(dc_cache_load(p->fd, none, 25, &c), -EINVAL);
	CLEANUP(dc_cache) struct dc_cache *good = load(p);
	fill(good);
	assert_int_equal(dc_cache_store(good, -1, PLENTY), -EBADF);
	check(good);
	assert_int_equal(dc_cache_store(good, p->fd, PLENTY), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unchanged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_source, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
