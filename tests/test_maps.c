/* SPDX-License-Identifier: MIT */
/* What code lies where in a process, as seen from outside, and the files it came from, whatever became of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/memory_writer.h"
#include "trigger/maps.h"
#include "trigger/proc.h"

static char dir[] = "/tmp/test_maps.XXXXXX";
static struct dc_writer writer;

static uint64_t start_time_of(pid_t pid)
{
	struct dc_proc_stat st;

	assert_int_equal(dc_proc_stat((uint32_t)pid, &st), 0);
	return st.start_time;
}

static int look(struct dc_maps *m, pid_t pid)
{
	return dc_maps_look(m, (uint32_t)pid, start_time_of(pid));
}

/* All of @m as blocks; entry @i and its path are read back from there. */
static uint32_t write_all(struct dc_maps *m)
{
	struct dc_maps_mark mark = {0};

	memory_writer_reset(&writer);
	assert_int_equal(dc_maps_write(m, &writer, 3, &mark), 0);
	for (unsigned i = 0; i < writer.count; i++) {
		assert_int_equal(writer.blocks[i].type, DC_BLOCK_MAPS);
		assert_int_equal(writer.blocks[i].process, 3);
	}
	assert_int_equal(mark.count, dc_maps_count(m));
	return mark.count;
}

static const struct dc_map_entry *entry_at(uint32_t i, const char **ret_path)
{
	for (unsigned b = 0; b < writer.count; b++) {
		const uint8_t *p = writer.blocks[b].payload;
		const struct dc_maps_block *head = (const void *)p;
		const struct dc_map_entry *e = (const void *)(head + 1);

		assert_int_equal(sizeof(*head) + head->count * sizeof(*e) + head->strings_bytes,
				 writer.blocks[b].bytes);
		if (i < head->first || i >= head->first + head->count)
			continue;
		e += i - head->first;
		assert_true(e->path < head->strings_bytes);
		*ret_path = (const char *)(p + sizeof(*head) + head->count * sizeof(*e) + e->path);
		return e;
	}
	return NULL;
}

/* The last entry that holds @address, or NULL. */
static const struct dc_map_entry *entry_of(struct dc_maps *m, const void *address, const char **ret_path)
{
	uint32_t count = write_all(m);

	while (count--) {
		const struct dc_map_entry *e = entry_at(count, ret_path);

		if ((uintptr_t)address >= e->start && (uintptr_t)address < e->end)
			return e;
	}
	return NULL;
}

/* What readelf says is the build-id of a file, as hex. */
static void id_by_readelf(const char *path, char ret_hex[static 64])
{
	char command[512], line[512];
	FILE *f;

	snprintf(command, sizeof(command), "readelf -n %s 2>/dev/null", path);
	f = popen(command, "r");
	ret_hex[0] = '\0';
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, " Build ID: %63s", ret_hex);
	if (f)
		pclose(f);
	assert_string_not_equal(ret_hex, "");
}

static void assert_id(const struct dc_map_entry *e, const char *path)
{
	char expected[64], got[64] = "";

	id_by_readelf(path, expected);
	for (unsigned i = 0; i < e->build_id_bytes; i++)
		snprintf(got + 2 * i, 3, "%02x", e->build_id[i]);
	assert_string_equal(got, expected);
}

/* A library with a build-id: the one that holds strlen(). */
static const char *library(void)
{
	static Dl_info info;

	assert_int_not_equal(dladdr((void *)(uintptr_t)strlen, &info), 0);
	return info.dli_fname;
}

static void copy_file(const char *from, const char *to)
{
	char command[512];

	snprintf(command, sizeof(command), "cp %s %s", from, to);
	assert_int_equal(system(command), 0);
}

static void path_of(const char *name, char ret_path[static 64])
{
	snprintf(ret_path, 64, "%s/%s", dir, name);
}

/* A child that maps @path executable; its address is the same in both. */
struct mapped {
	pid_t pid;
	void *at;
};

static struct mapped child_start(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ready[2];
	struct mapped m;
	char byte;

	assert_true(fd >= 0);
	m.at = mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 4096);
	assert_ptr_not_equal(m.at, MAP_FAILED);
	close(fd);
	assert_int_equal(pipe(ready), 0);
	m.pid = fork();
	if (m.pid == 0) {
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	munmap(m.at, 8192);
	return m;
}

static void child_end(struct mapped m)
{
	kill(m.pid, SIGKILL);
	assert_int_equal(waitpid(m.pid, NULL, 0), m.pid);
}

/* Its program, its libraries and the vdso are there, with the build-ids that the linker gave them. */
static void test_own_process(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const struct dc_map_entry *e;
	const char *path;

	(void)state;
	assert_int_equal(look(m, getpid()), 0);
	e = entry_of(m, (const void *)(uintptr_t)strlen, &path);
	assert_non_null(e);
	assert_id(e, library());
	assert_int_equal(e->flags, 0);
	assert_int_equal(e->from_ns, 0);
	e = entry_of(m, (const void *)(uintptr_t)test_own_process, &path);
	assert_non_null(e);
	assert_non_null(strstr(path, "test_maps"));
	e = entry_of(m, (const char *)getauxval(AT_SYSINFO_EHDR) + 100, &path); // NOLINT
	assert_non_null(e);
	assert_int_equal(e->flags, DC_MAP_VDSO);
	assert_int_equal(e->build_id_bytes, 20);
	assert_null(entry_of(m, &path, &path)); /* the stack is no code */
}

/* The file offset is right: the bytes there are those in memory. */
static void test_offsets(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const struct dc_map_entry *e;
	const char *path;
	uint8_t bytes[64];

	(void)state;
	assert_int_equal(look(m, getpid()), 0);
	e = entry_of(m, (const void *)(uintptr_t)test_offsets, &path);
	assert_non_null(e);
	int fd = dc_files_open(NULL, e, path);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, bytes, sizeof(bytes), (off_t)((uintptr_t)test_offsets - e->start + e->offset)), 64);
	assert_memory_equal(bytes, (const void *)(uintptr_t)test_offsets, 64);
	close(fd);
}

/* A library that comes and goes has the times in between which it was there. */
static void test_dlopen(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const struct dc_map_entry *e;
	struct link_map *l;
	const char *at;
	const char *path;
	Dl_info cmocka;
	char copy[64];

	(void)state;
	path_of("plugin.so", copy);
	assert_int_not_equal(dladdr((void *)(uintptr_t)_cmocka_run_group_tests, &cmocka), 0);
	copy_file(cmocka.dli_fname, copy);
	assert_int_equal(look(m, getpid()), 0);
	assert_int_equal(look(m, getpid()), 0);
	void *handle = dlopen(copy, RTLD_NOW | RTLD_LOCAL);
	assert_non_null(handle);
	at = dlsym(handle, "_cmocka_run_group_tests");
	assert_int_equal(dlinfo(handle, RTLD_DI_LINKMAP, &l), 0);
	assert_string_equal(l->l_name, copy);
	assert_int_equal(look(m, getpid()), 0);
	e = entry_of(m, at, &path);
	assert_non_null(e);
	assert_string_equal(path, copy);
	assert_id(e, copy);
	assert_true(e->from_ns > 0);
	assert_int_equal(e->until_ns, 0);
	dlclose(handle);
	assert_int_equal(look(m, getpid()), 0);
	e = entry_of(m, at, &path);
	assert_non_null(e);
	assert_true(e->until_ns > e->from_ns);
	unlink(copy);
}

/* Deleted while it is mapped: said, and the file can still be had, also when the process is gone. */
static void test_deleted(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const struct dc_map_entry *e;
	struct mapped child;
	const char *path;
	struct stat st;
	char copy[64];
	off_t bytes;
	int fd;

	(void)state;
	path_of("deleted.so", copy);
	copy_file(library(), copy);
	assert_int_equal(stat(copy, &st), 0);
	bytes = st.st_size;
	child = child_start(copy);
	unlink(copy);
	assert_int_equal(look(m, child.pid), 0);
	child_end(child);
	e = entry_of(m, child.at, &path);
	assert_non_null(e);
	assert_int_equal(e->flags, DC_MAP_GONE);
	assert_string_equal(path, copy);
	assert_int_equal(e->offset, 4096);
	assert_id(e, library());
	fd = dc_files_open(NULL, e, path);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, bytes);
	close(fd);
}

/* Replaced after it was seen: the next look says so, the build that ran is the one that is had. */
static void test_replaced(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const struct dc_map_entry *e;
	char copy[64], other[64];
	struct stat before, got;
	struct mapped child;
	const char *path;
	int fd;

	(void)state;
	path_of("replaced.so", copy);
	path_of("other.so", other);
	copy_file(library(), copy);
	assert_int_equal(stat(copy, &before), 0);
	child = child_start(copy);
	assert_int_equal(look(m, child.pid), 0);
	assert_int_equal(entry_of(m, child.at, &path)->flags, 0);
	copy_file("/bin/true", other);
	assert_int_equal(rename(other, copy), 0);
	assert_int_equal(look(m, child.pid), 0);
	e = entry_of(m, child.at, &path);
	assert_int_equal(e->flags, DC_MAP_GONE);
	assert_int_equal(e->until_ns, 0);
	assert_id(e, library());
	fd = dc_files_open(NULL, e, path);
	assert_int_equal(fstat(fd, &got), 0);
	assert_int_equal(got.st_size, before.st_size);
	close(fd);
	child_end(child);
	unlink(copy);
}

/* Neither a zombie nor a process that is gone takes away what was known. */
static void test_process_gone(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	struct mapped child = child_start(library());
	const uint64_t start = start_time_of(child.pid);
	const char *path;
	siginfo_t info;

	(void)state;
	assert_int_equal(look(m, child.pid), 0);
	kill(child.pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(dc_maps_look(m, (uint32_t)child.pid, start), -ESRCH);
	child_end(child);
	assert_int_equal(dc_maps_look(m, (uint32_t)child.pid, start), -ESRCH);
	assert_non_null(entry_of(m, child.at, &path));
	assert_int_equal(entry_of(m, child.at, &path)->until_ns, 0);
}

static void *wait_on(void *arg)
{
	if (write(*(int *)arg, "x", 1) == 1)
		pause();
	return NULL;
}

/* The first thread may end before the others; they show what is there. */
static void test_first_thread_ended(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const struct dc_map_entry *e;
	struct dc_proc_stat st;
	const char *path;
	pthread_t thread;
	int ready[2];
	char byte;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (pid == 0) {
		pthread_create(&thread, NULL, wait_on, &ready[1]);
		syscall(SYS_exit, 0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	do
		assert_int_equal(dc_proc_stat((uint32_t)pid, &st), 0);
	while (st.state != 'Z');
	assert_int_equal(look(m, pid), 0);
	e = entry_of(m, (const void *)(uintptr_t)strlen, &path);
	assert_non_null(e);
	assert_id(e, library());
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(ready[0]);
	close(ready[1]);
}

/* The same pid at another time is another process, of which nothing is taken. */
static void test_pid_of_another(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	struct mapped child = child_start(library());

	(void)state;
	assert_int_equal(dc_maps_look(m, (uint32_t)child.pid, start_time_of(child.pid) + 1), -ESRCH);
	assert_int_equal(dc_maps_look(m, 0, 0), -ESRCH);
	assert_int_equal(dc_maps_count(m), 0);
	child_end(child);
}

/* What an ordinary user sees of a process of its own. Returns a number instead of asserting: it runs in a child. */
static int as_user(const char *kept, const char *gone)
{
	struct dc_maps *m = dc_maps_new();
	struct dc_maps_mark mark = {0};
	unsigned good = 0;

	if (dc_maps_look(m, (uint32_t)getpid(), start_time_of(getpid())) < 0)
		return 2;
	memory_writer_reset(&writer);
	if (dc_maps_write(m, &writer, 3, &mark) < 0)
		return 3;
	for (uint32_t i = 0; i < mark.count; i++) {
		const char *path;
		const struct dc_map_entry *e = entry_at(i, &path);

		good += strcmp(path, kept) == 0 && e->build_id_bytes && !(e->flags & DC_MAP_GONE);
		good += strcmp(path, gone) == 0 && !e->build_id_bytes && e->flags & DC_MAP_GONE;
	}
	dc_maps_unref(m);
	return good == 2 ? 0 : 4;
}

/* Without the right to map_files the path serves, compared by inode: another file that lies there now is not taken. */
static void test_without_rights(void **state)
{
	char kept[64], gone[64], other[64];
	int status;

	(void)state;
	if (geteuid() != 0)
		skip();
	path_of("kept.so", kept);
	path_of("gone.so", gone);
	path_of("new.so", other);
	copy_file(library(), kept);
	copy_file(library(), gone);
	assert_int_equal(chmod(dir, 0755), 0);
	pid_t pid = fork();
	if (pid == 0) {
		int a = open(kept, O_RDONLY), b = open(gone, O_RDONLY);
		void *x = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, a, 0);
		void *y = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, b, 0);

		dc_files_sweep(INT64_MAX);
		copy_file(library(), other);
		if (x == MAP_FAILED || y == MAP_FAILED || rename(other, gone) < 0 || setgroups(0, NULL) < 0 ||
		    setgid(65534) < 0 || setuid(65534) < 0)
			_exit(5);
		_exit(as_user(kept, gone));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	unlink(kept);
	unlink(gone);
}

/* A second writing has only what came since, numbered on. */
static void test_mark(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const struct dc_maps_block *head;
	struct dc_maps_mark mark = {0};
	uint32_t count;
	void *code;

	(void)state;
	memory_writer_reset(&writer);
	assert_int_equal(look(m, getpid()), 0);
	assert_int_equal(dc_maps_write(m, &writer, 3, &mark), 0);
	count = mark.count;
	assert_true(count > 2);
	assert_int_equal(dc_maps_write(m, &writer, 3, &mark), 0);
	assert_int_equal(writer.count, 1);
	code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(look(m, getpid()), 0);
	assert_int_equal(dc_maps_write(m, &writer, 3, &mark), 0);
	assert_int_equal(writer.count, 2);
	head = (const void *)writer.blocks[1].payload;
	assert_int_equal(head->first, count);
	assert_int_equal(head->count, 1);
	assert_int_equal(mark.count, count + 1);
	munmap(code, 4096);
	writer.error = -ENOSPC;
	mark = (struct dc_maps_mark){0};
	assert_int_equal(dc_maps_write(m, &writer, 3, &mark), -ENOSPC);
}

/* So many and no more; those that are gone make room, those that are there do not. */
static void test_bounded(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const size_t pages = 2 * 6000;
	const char *path;
	uint8_t *at;

	(void)state;
	at = mmap(NULL, pages * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(at, MAP_FAILED);
	for (size_t i = 0; i < pages; i += 2)
		assert_int_equal(mprotect(at + i * 4096, 4096, PROT_READ | PROT_EXEC), 0);
	assert_int_equal(look(m, getpid()), 0);
	assert_int_equal(dc_maps_count(m), DC_MAPS_MAX);
	assert_int_equal(write_all(m), DC_MAPS_MAX);
	munmap(at, pages * 4096);
	at = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(look(m, getpid()), 0);
	assert_int_equal(dc_maps_count(m), DC_MAPS_MAX);
	assert_non_null(entry_of(m, at, &path));
	assert_string_equal(path, "[anon]");
	assert_non_null(entry_of(m, (const void *)(uintptr_t)strlen, &path));
	munmap(at, 4096);
}

/* After a look the next one is due when something is said to have changed, and not at once. */
static void test_due(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();

	(void)state;
	assert_true(dc_maps_due(m, INT64_MAX));
	assert_int_equal(look(m, getpid()), 0);
	assert_false(dc_maps_due(m, INT64_MAX));
	dc_maps_want(m);
	assert_false(dc_maps_due(m, 1));
	assert_true(dc_maps_due(m, INT64_MAX));
	assert_false(dc_maps_due(NULL, INT64_MAX));
}

/* The kernel is there when it is asked for, once, and no look takes it away. */
static void test_kernel(void **state)
{
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_new();
	const struct dc_map_entry *e;
	const char *path;

	(void)state;
	dc_maps_kernel(m);
	dc_maps_kernel(m);
	assert_int_equal(dc_maps_count(m), 1);
	assert_false(dc_maps_of_process(m)); /* nothing that would unwind it */
	assert_int_equal(look(m, getpid()), 0);
	assert_true(dc_maps_of_process(m));
	e = entry_of(m, (const void *)(uintptr_t)UINT64_C(0xffffffff81000000), &path);
	assert_non_null(e);
	assert_int_equal(e->flags, DC_MAP_KERNEL);
	assert_int_equal(e->until_ns, 0);
	assert_int_equal(write_all(m), dc_maps_count(m));
	e = entry_at(1, &path);
	assert_int_not_equal(e->flags, DC_MAP_KERNEL);
}

/* Where there is nothing but a guest's table, what is whole in it is taken and the rest is not. */
static void test_modules(void **state)
{
	const char strings[] = "?/usr/lib/good.so\0/gone (deleted)\0cut";
	const struct dc_ring_module modules[] = {
		{.start = 0x1000, .end = 0x3000, .base = 0x1000, .path = 1, .published = 1, .build_id_bytes = 2,
		 .build_id = {0xab, 0xcd}},
		{.start = 0x5000, .end = 0x5000, .path = 1, .published = 1},
		{.start = 0x5000, .end = 0x6000, .path = 1},
		{.start = 0x5000, .end = 0x6000, .path = 1, .published = 1, .build_id_bytes = 25},
		{.start = 0x5000, .end = 0x6000, .path = 34, .published = 1}, /* has no end */
		{.start = 0x5000, .end = 0x6000, .path = 4000, .published = 1},
		{.start = 0x7000, .end = 0x8000, .path = 18, .published = 1},
	};
	CLEANUP(dc_maps) struct dc_maps *m = dc_maps_of_modules(modules, 7, strings, 37);
	const struct dc_map_entry *e;
	const char *path;

	(void)state;
	assert_int_equal(write_all(m), 2);
	e = entry_at(0, &path);
	assert_string_equal(path, "/usr/lib/good.so");
	assert_int_equal(e->build_id_bytes, 2);
	assert_int_equal(e->build_id[1], 0xcd);
	e = entry_at(1, &path);
	assert_string_equal(path, "/gone");
	assert_int_equal(e->flags, DC_MAP_GONE);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	memory_writer_reset(&writer);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_process),   cmocka_unit_test(test_offsets),	     cmocka_unit_test(test_dlopen),
		cmocka_unit_test(test_deleted),	      cmocka_unit_test(test_replaced),	     cmocka_unit_test(test_process_gone),
		cmocka_unit_test(test_pid_of_another), cmocka_unit_test(test_without_rights), cmocka_unit_test(test_mark),
		cmocka_unit_test(test_bounded),	      cmocka_unit_test(test_due),	     cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_modules),	      cmocka_unit_test(test_first_thread_ended),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
