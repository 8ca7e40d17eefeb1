/* SPDX-License-Identifier: MIT */
/* Files are held once each, for those who need them later: bounded, found by build-id, also by children made by fork(). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "trigger/files.h"

static char dir[] = "/tmp/test_files.XXXXXX";

/* An ELF file whose build-id is made of @number. */
struct elf {
	Elf64_Ehdr head;
	Elf64_Phdr segment;
	Elf64_Nhdr id;
	char id_name[4];
	uint32_t id_text[4];
};

static void path_of(const char *name, char ret_path[static 64])
{
	snprintf(ret_path, 64, "%s/%s", dir, name);
}

/* @number 0: no build-id. */
static void make_file(const char *name, uint32_t number)
{
	struct elf e = {
		.head = {.e_phoff = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = number != 0},
		.segment = {.p_type = PT_NOTE, .p_offset = offsetof(struct elf, id), .p_align = 4},
		.id = {.n_namesz = 4, .n_descsz = 16, .n_type = NT_GNU_BUILD_ID},
		.id_name = "GNU",
		.id_text = {number, 1, 2, 3},
	};
	char path[64];

	memcpy(e.head.e_ident, ELFMAG, SELFMAG);
	e.head.e_ident[EI_CLASS] = ELFCLASS64;
	e.head.e_ident[EI_DATA] = ELFDATA2LSB;
	e.segment.p_filesz = sizeof(e) - e.segment.p_offset;
	path_of(name, path);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(&e, sizeof(e), 1, f), 1);
	fclose(f);
}

static struct dc_map_entry entry_of(uint32_t number)
{
	struct dc_map_entry e = {.build_id_bytes = number ? 16 : 0};
	const uint32_t id[4] = {number, 1, 2, 3};

	if (number)
		memcpy(e.build_id, id, sizeof(id));
	return e;
}

static struct dc_file *hold(const char *name)
{
	struct stat st;
	char path[64];
	int fd;

	path_of(name, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	return dc_files_add(fd, &st, path);
}

static void drop(const char *name)
{
	char path[64];

	path_of(name, path);
	unlink(path);
}

/* Whether dc_files_open() finds it; @name is the path it is asked with. */
static int found(uint32_t number, const char *name)
{
	struct dc_map_entry e = entry_of(number);
	char path[64];
	int fd;

	path_of(name, path);
	fd = dc_files_open(NULL, &e, path);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 1;
}

/* One that is held is found by its build-id whatever its path means by now, and when nobody refers to it any more. */
static void test_outlives_its_path(void **state)
{
	struct dc_file *f;

	(void)state;
	make_file("a", 1);
	f = hold("a");
	assert_int_equal(f->id.count, 16);
	drop("a");
	assert_int_equal(found(1, "a"), 1);
	dc_files_put(f);
	assert_int_equal(found(1, "a"), 1);
	make_file("a", 2);
	assert_int_equal(found(1, "a"), 1);
	drop("a");
}

/* After a while of no use it is let go. */
static void test_let_go(void **state)
{
	struct dc_file *f;

	(void)state;
	make_file("b", 3);
	f = hold("b");
	drop("b");
	dc_files_sweep(INT64_MAX);
	assert_int_equal(found(3, "b"), 1);
	dc_files_put(f);
	dc_files_sweep(f->unused_ns + DC_FILES_KEEP_NS - 1);
	assert_int_equal(found(3, "b"), 1);
	dc_files_sweep(INT64_MAX);
	assert_int_equal(found(3, "b"), -ENOENT);
}

/* The path serves if the same build lies there; a file without one only for a mapping without one that is not gone. */
static void test_by_path(void **state)
{
	struct dc_map_entry gone = entry_of(0);
	char path[64];

	(void)state;
	make_file("c", 4);
	assert_int_equal(found(4, "c"), 1);
	assert_int_equal(found(5, "c"), -ESTALE);
	assert_int_equal(found(0, "c"), -ESTALE);
	make_file("plain", 0);
	assert_int_equal(found(0, "plain"), 1);
	assert_int_equal(found(5, "plain"), -ESTALE);
	path_of("plain", path);
	gone.flags = DC_MAP_GONE;
	assert_int_equal(dc_files_open(NULL, &gone, path), -ENOENT);
	drop("c");
	drop("plain");
}

/* A directory, a FIFO, a relative path, a lying length: refused, and nothing waits. */
static void test_refused(void **state)
{
	struct dc_map_entry e = entry_of(6);
	char path[64];

	(void)state;
	path_of("d", path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(found(6, "d"), -ENOENT);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(found(6, "d"), -ENOENT);
	drop("d");
	assert_int_equal(dc_files_open(NULL, &e, "d"), -ENOENT);
	e.build_id_bytes = 25;
	assert_int_equal(dc_files_open(NULL, &e, path), -EBADMSG);
}

/* Twice the same file is one descriptor. */
static void test_once(void **state)
{
	struct dc_file *f, *again;

	(void)state;
	make_file("e", 7);
	f = hold("e");
	again = hold("e");
	assert_ptr_equal(f, again);
	dc_files_put(again);
	again = dc_files_get(f->dev, f->ino);
	assert_ptr_equal(f, again);
	dc_files_put(again);
	dc_files_put(f);
	drop("e");
}

/* So many and no more: unused ones make room, oldest first; when there are none a file is known but not held. */
static void test_bounded(void **state)
{
	struct dc_file *files[DC_FILES_MAX], *more;
	char name[16];

	(void)state;
	dc_files_sweep(INT64_MAX);
	for (unsigned i = 0; i < DC_FILES_MAX; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		make_file(name, 1000 + i);
		files[i] = hold(name);
		drop(name);
		assert_true(files[i]->fd >= 0);
	}
	make_file("more", 9);
	more = hold("more");
	assert_int_equal(more->fd, -1);
	assert_int_equal(more->id.count, 16);
	assert_null(dc_files_get(more->dev, more->ino));
	dc_files_put(more);
	dc_files_put(files[7]);
	dc_files_put(files[8]);
	more = hold("more");
	drop("more");
	assert_true(more->fd >= 0);
	assert_int_equal(found(1007, "f7"), -ENOENT);
	assert_int_equal(found(1008, "f8"), 1);
	dc_files_put(more);
	for (unsigned i = 0; i < DC_FILES_MAX; i++)
		if (i != 7 && i != 8)
			dc_files_put(files[i]);
	dc_files_sweep(INT64_MAX);
}

static _Atomic bool stop;

static void *get_and_put(void *f)
{
	struct dc_file *file = f;

	while (!atomic_load(&stop))
		dc_files_put(dc_files_get(file->dev, file->ino));
	return NULL;
}

/* A child made while other threads are at it finds the table whole and the lock free. */
static void test_in_a_child(void **state)
{
	pthread_t threads[2];
	struct dc_file *f;

	(void)state;
	make_file("g", 10);
	f = hold("g");
	drop("g");
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, get_and_put, f);
	for (unsigned i = 0; i < 100; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			alarm(20);
			_exit(found(10, "g") == 1 ? 0 : 1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	dc_files_put(f);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outlives_its_path), cmocka_unit_test(test_let_go),
		cmocka_unit_test(test_by_path),		  cmocka_unit_test(test_refused),
		cmocka_unit_test(test_once),		  cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_in_a_child),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
