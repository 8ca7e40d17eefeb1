/* SPDX-License-Identifier: MIT */
/* Claims about persist/stacks/symbols.c: this program, built with -g, asks for its own functions. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/cleanup.h"
#include "persist/stacks/demangle.h"
#include "persist/stacks/sandbox.h"
#include "persist/stacks/symbols.h"

#define SELF "/proc/self/exe"

static volatile unsigned sink;

/* Enough code that the compiler leaves some of it at its own line. */
static inline __attribute__((always_inline)) void innermost(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sink = sink * 3 + i;
}

static inline __attribute__((always_inline)) void between(unsigned n)
{
	innermost(n ^ sink);
}

enum { OUTER_LINE = __LINE__ + 1 };
__attribute__((noinline)) static void outer(unsigned n)
{
	between(n);
	sink++;
}

enum { PLAIN_LINE = __LINE__ + 1 };
__attribute__((noinline)) static void plain(unsigned n)
{
	sink = n;
}

static int set_base(struct dl_phdr_info *info, size_t size, void *base)
{
	(void)size;
	*(uint64_t *)base = info->dlpi_addr; /* the program comes first */
	return 1;
}

static uint64_t vaddr_of(void (*function)(unsigned))
{
	uint64_t base = 0;

	dl_iterate_phdr(set_base, &base);
	return (uint64_t)(uintptr_t)function - base;
}

static struct dc_symbols *open_file(const char *path, const struct dc_symbols_options *options)
{
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct dc_symbols *s = NULL;

	assert_true(fd >= 0);
	assert_int_equal(dc_symbols_open(fd, path, options, &s), 0);
	return s;
}

/* The beginning of a function has its name, the file and the line it is written in. */
static void test_function(void **state)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = open_file(SELF, NULL);
	uint64_t at = vaddr_of(plain);
	struct dc_symbol chain[8];

	(void)state;
	plain(1);
	assert_int_equal(dc_symbols_source(s), DC_SYMBOLS_DWARF);
	assert_int_equal(dc_symbols_at(s, at, chain, 8), 1);
	assert_string_equal(chain[0].function, "plain");
	assert_non_null(strstr(chain[0].file, "test_symbols.c"));
	assert_in_range(chain[0].line, PLAIN_LINE, PLAIN_LINE + 2);
	assert_true(chain[0].start == at);
}

/* What was inlined comes first, with the line in it; then where each was called; the function that has the code last. */
static void test_inlined(void **state)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = open_file(SELF, NULL);
	struct dc_symbol chain[8];
	unsigned found = 0;

	(void)state;
	outer(3);
	for (uint64_t at = vaddr_of(outer); at < vaddr_of(outer) + 256; at++) {
		unsigned count = dc_symbols_at(s, at, chain, 8);

		if (count != 3 || strcmp(chain[2].function, "outer") != 0)
			continue;
		found++;
		assert_string_equal(chain[0].function, "innermost");
		assert_string_equal(chain[1].function, "between");
		assert_int_equal(chain[1].line, OUTER_LINE - 4); /* the call in between() */
		assert_int_equal(chain[2].line, OUTER_LINE + 2); /* the call in outer() */
		assert_true(chain[2].start == vaddr_of(outer));
	}
	assert_true(found > 0);
}

/* An answer is the same the second time, also the answer that nothing is there, and is cut to the room. */
static void test_again(void **state)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = open_file(SELF, NULL);
	struct dc_symbol first[8], second[8];

	(void)state;
	for (uint64_t at = vaddr_of(outer); at < vaddr_of(outer) + 64; at++) {
		unsigned count = dc_symbols_at(s, at, first, 8);

		assert_int_equal(dc_symbols_at(s, at, second, 8), count);
		for (unsigned i = 0; i < count; i++) {
			assert_ptr_equal(first[i].function, second[i].function);
			assert_int_equal(first[i].line, second[i].line);
		}
		if (count)
			assert_int_equal(dc_symbols_at(s, at, second, 1), 1);
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(dc_symbols_at(s, 0, first, 8), 0);
		assert_int_equal(dc_symbols_at(s, UINT64_MAX, first, 8), 0);
	}
}

/* Without lines no DWARF is read: the symbol, and no file. */
static void test_symbols_only(void **state)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = open_file(SELF, &(struct dc_symbols_options){.lines = false});
	struct dc_symbol chain[8];

	(void)state;
	assert_int_equal(dc_symbols_source(s), DC_SYMBOLS_TABLE);
	for (uint64_t at = vaddr_of(outer); at < vaddr_of(outer) + 8; at++) {
		assert_int_equal(dc_symbols_at(s, at, chain, 8), 1);
		assert_string_equal(chain[0].function, "outer");
		assert_string_equal(chain[0].file, "");
		assert_true(chain[0].start == vaddr_of(outer));
	}
}

/* Tables of units are dropped and built again when there are many: answers stay the same. Every address of this program. */
static void test_all_addresses(void **state)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = open_file(SELF, NULL);
	struct dc_symbol chain[DC_SYMBOLS_CHAIN_MAX];
	unsigned named = 0;

	(void)state;
	for (uint64_t at = 0; at < 1u << 20; at += 13) {
		unsigned count = dc_symbols_at(s, at, chain, DC_SYMBOLS_CHAIN_MAX);

		for (unsigned i = 0; i < count; i++)
			assert_true(chain[i].function && chain[i].file);
		named += count > 0;
	}
	assert_true(named > 50);
}

/* The answers do not need the caller's descriptor any more; texts are kept until close. */
static int refused(const char *path)
{
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct dc_symbols *s = NULL;
	int r;

	assert_true(fd >= 0);
	r = dc_symbols_open(fd, path, NULL, &s);
	assert_null(s);
	return r;
}

/* What is no ELF file is refused at once: directory, FIFO, device, empty, text, a hole of a terabyte. */
static void test_refused(void **state)
{
	char dir[] = "/tmp/test_symbols.XXXXXX", path[64];
	CLEANUP(close_fd) int fd = -1;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(refused(dir), -ENOEXEC);
	assert_int_equal(refused("/dev/zero"), -ENOEXEC);
	snprintf(path, sizeof path, "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(refused(path), -ENOEXEC);
	unlink(path);
	snprintf(path, sizeof path, "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(refused(path), -ENOEXEC);
	assert_int_equal(pwrite(fd, "#!/bin/sh\n", 10, 0), 10);
	assert_int_equal(refused(path), -ENOEXEC);
	if (ftruncate(fd, (off_t)1 << 40) == 0)
		assert_int_equal(refused(path), -ENOEXEC);
	unlink(path);
	rmdir(dir);
}

static void copy_of_self(const char *path, double part)
{
	CLEANUP(close_fd) int in = open(SELF, O_RDONLY | O_CLOEXEC);
	CLEANUP(close_fd) int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CLEANUP(free) char *bytes = NULL;
	struct stat st;

	assert_int_equal(fstat(in, &st), 0);
	size_t size = (size_t)((double)st.st_size * part);
	bytes = malloc(size + 1);
	assert_non_null(bytes);
	assert_int_equal(pread(in, bytes, size, 0), size);
	assert_int_equal(write(out, bytes, size), size);
}

/* A file that was cut off gives what it still has, or is refused; nothing worse. */
static void test_cut(void **state)
{
	char path[] = "/tmp/test_symbols.XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	close(fd);
	for (double part = 0.02; part < 1; part += 0.07) {
		struct dc_symbols *s = NULL;
		struct dc_symbol chain[8];

		copy_of_self(path, part);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (dc_symbols_open(fd, path, NULL, &s) == 0)
			for (uint64_t at = vaddr_of(outer); at < vaddr_of(outer) + 64; at++)
				dc_symbols_at(s, at, chain, 8);
		dc_symbols_close(s);
		close(fd);
	}
	unlink(path);
}

static int kallsyms(const char *text, struct dc_symbols **ret_symbols)
{
	char path[] = "/tmp/test_symbols.XXXXXX";
	CLEANUP(close_fd) int fd = mkstemp(path);

	unlink(path);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	lseek(fd, 0, SEEK_SET);
	return dc_symbols_open_kallsyms(fd, ret_symbols);
}

/* Kernel symbols reach to the next one, data is left out, modules are named; hidden addresses are said to be hidden. */
static void test_kernel(void **state)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = NULL;
	struct dc_symbols *hidden = NULL;
	struct dc_symbol chain[2];

	(void)state;
	assert_int_equal(kallsyms("ffffffff81000000 T _stext\n"
				  "ffffffff81000100 t do_work\n"
				  "ffffffff81000180 D some_data\n"
				  "ffffffff81000200 W weak_one\n"
				  "not a line\n"
				  "ffffffffc0001000 t ext4_map_blocks\t[ext4]\n",
				  &s),
			 0);
	assert_int_equal(dc_symbols_at(s, UINT64_C(0xffffffff81000190), chain, 2), 1);
	assert_string_equal(chain[0].function, "do_work");
	assert_true(chain[0].start == UINT64_C(0xffffffff81000100));
	assert_int_equal(dc_symbols_at(s, UINT64_C(0xffffffffc0001234), chain, 2), 1);
	assert_string_equal(chain[0].function, "ext4_map_blocks [ext4]");
	assert_int_equal(dc_symbols_at(s, 0x1000, chain, 2), 0);
	assert_int_equal(kallsyms("0000000000000000 T _stext\n0000000000000000 t do_work\n", &hidden), -EACCES);
	assert_int_equal(kallsyms("", &hidden), -EACCES);
	assert_null(hidden);
}

/* Where the machine shows its kernel's symbols, they can be read. */
static void test_this_kernel(void **state)
{
	CLEANUP(dc_symbols) struct dc_symbols *s = NULL;
	int r = dc_symbols_open_kernel(&s);

	(void)state;
	assert_true(r == 0 || r == -EACCES || r == -ENOENT || r == -EPERM);
	assert_true((r == 0) == (s != NULL));
}

/* In the child: the name of outer(), with its line; @arg: its address. */
static int name_it(void *arg, int out_fd)
{
	CLEANUP(close_fd) int fd = open(SELF, O_RDONLY | O_CLOEXEC);
	CLEANUP(dc_symbols) struct dc_symbols *s = NULL, *kernel = NULL;
	struct dc_symbol chain[8];
	char text[256];
	unsigned count;
	int r;

	if (fd < 0)
		return -errno;
	dc_symbols_open_kernel(&kernel);
	dc_symbols_close(TAKE(kernel));
	r = dc_symbols_open(fd, SELF, NULL, &s);
	if (r < 0)
		return r;
	count = dc_symbols_at(s, *(const uint64_t *)arg, chain, 8);
	r = snprintf(text, sizeof text, "%s:%s", count ? chain[count - 1].function : "", count ? chain[0].file : "");
	return write(out_fd, text, (size_t)r) == r ? 0 : -EIO;
}

/* All that naming does is allowed in the sandbox. */
static void test_in_sandbox(void **state)
{
	const struct dc_sandbox limits = {.time_ns = INT64_C(60000000000), .memory_bytes = 1u << 30};
	uint64_t at = vaddr_of(outer);
	CLEANUP(free) uint8_t *bytes = NULL;
	size_t size = 0;

	(void)state;
	assert_int_equal(dc_sandbox_run(&limits, name_it, &at, 4096, &bytes, &size, NULL), 0);
	assert_true(size > 6 && memcmp(bytes, "outer:", 6) == 0);
	assert_non_null(memmem(bytes, size, "test_symbols.c", 14));
}

static void names(const char *mangled, const char *expected)
{
	char buffer[DC_DEMANGLED_BYTES];

	assert_string_equal(dc_demangle(mangled, buffer), expected);
}

/* C++, Rust of both kinds; what is not mangled, or not validly, stays. */
static void test_demangle(void **state)
{
	(void)state;
	names("_ZN4shop4sellERKSs", "shop::sell(std::string const&)");
	names("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back(int const&)");
	names("_Z3foov.cold", "foo() [clone .cold]");
	names("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt");
	names("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar");
	names("main", "main");
	names("_", "_");
	names("", "");
	names("_Z", "_Z");
	names("_ZN3foo", "_ZN3foo");
}

/* Names that unfold without end, or nest without end, are cut or left; the time is bounded. */
static void test_demangle_bombs(void **state)
{
	char buffer[DC_DEMANGLED_BYTES], name[8192];
	size_t n = 0;

	(void)state;
	/* each type is a pair of the one before: two to the power of forty */
	n += (size_t)sprintf(name, "_Z1fSt4pairIiiE");
	for (unsigned i = 0; i < 40; i++)
		n += (size_t)sprintf(name + n, "St4pairIS%s_S%s_E", i ? (char[]){(char)('A' + i % 26), 0} : "",
				     i ? (char[]){(char)('A' + i % 26), 0} : "");
	assert_true(strlen(dc_demangle(name, buffer)) < DC_DEMANGLED_BYTES);
	for (unsigned i = 0; i < 3; i++) { /* pointers to pointers, near each bound of length */
		size_t length = (size_t[]){1000, 4000, 8000}[i];

		memset(name, 'P', sizeof name);
		memcpy(name, "_Z1f", 4);
		strcpy(name + length, "i");
		assert_true(strlen(dc_demangle(name, buffer)) < DC_DEMANGLED_BYTES);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_function),
		cmocka_unit_test(test_inlined),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_symbols_only),
		cmocka_unit_test(test_all_addresses),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_this_kernel),
		cmocka_unit_test(test_demangle),
		cmocka_unit_test(test_demangle_bombs),
		cmocka_unit_test(test_in_sandbox),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
