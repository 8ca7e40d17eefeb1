/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "persist/stacks/fde.h"
#include "persist/stacks/module.h"

static struct dc_module *opened(const char *path)
{
	struct dc_module *m = NULL;
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(dc_module_open(fd, &m), 0);
	return m;
}

static struct dc_module *self(void)
{
	return opened("/proc/self/exe");
}

static uint64_t load_bias;

static int take_bias(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size, (void)arg;
	load_bias = info->dlpi_addr;
	return 1; /* the program comes first */
}

static void test_code_in_the_file_is_what_runs(void **state)
{
	/* At the virtual address of a function the file has its bytes, and a mapping's offset leads to that address. */
	CLEANUP(dc_module) struct dc_module *m = self();
	uint64_t address = (uint64_t)(uintptr_t)take_bias, vaddr;

	(void)state;
	dl_iterate_phdr(take_bias, NULL);
	const uint8_t *code = dc_module_at(m, address - load_bias, 16);
	assert_non_null(code);
	assert_memory_equal(code, (const void *)(uintptr_t)address, 16);
	uint64_t offset = (uint64_t)(code - m->image);
	assert_true(dc_module_vaddr(m, offset, &vaddr));
	assert_int_equal(vaddr, address - load_bias);
	assert_true(dc_module_vaddr(m, offset & ~UINT64_C(4095), &vaddr));
	assert_int_equal(vaddr, (address - load_bias) & ~UINT64_C(4095));
	assert_false(dc_module_vaddr(m, m->bytes + (1 << 20), &vaddr));
}

static void test_parts_are_found(void **state)
{
	/* Of this program and of the vdso: the machine, the search table, frames, the build-id. */
	CLEANUP(dc_module) struct dc_module *m = self();
	CLEANUP(dc_module) struct dc_module *vdso = NULL;

	(void)state;
	assert_true(m->machine == EM_X86_64 || m->machine == EM_AARCH64);
	assert_non_null(dc_module_at(m, m->eh_frame_hdr, m->eh_frame_hdr_bytes));
	assert_non_null(dc_module_at(m, m->eh_frame, m->eh_frame_bytes));
	if (m->build_id_bytes) /* some linkers write none */
		assert_true(m->build_id_bytes == 16 || m->build_id_bytes == 20);
	if (dc_module_open_vdso(&vdso) == -ENOENT) /* emulated processes have none */
		skip();
	assert_int_equal(vdso->machine, m->machine);
	assert_true(vdso->build_id_bytes > 0);
	assert_non_null(dc_module_at(vdso, vdso->eh_frame, vdso->eh_frame_bytes));
}

static void test_every_function_is_described(void **state)
{
	/* The table of .eh_frame_hdr, and all of .eh_frame read where there is no table, name the same description. */
	Dl_info libc;
	assert_true(dladdr((void *)(uintptr_t)qsort, &libc));
	CLEANUP(dc_module) struct dc_module *m = opened(libc.dli_fname);
	uint64_t hdr = m->eh_frame_hdr;
	uint32_t count, compared = 0;
	struct dc_fde_index by_table, by_reading;
	struct dc_fde a, b;

	(void)state;
	const uint8_t *table = dc_module_at(m, hdr, m->eh_frame_hdr_bytes);
	memcpy(&count, table + 8, sizeof count);
	dc_fde_index_init(&by_table, m);
	dc_fde_index_init(&by_reading, m);
	for (uint32_t i = 0; i < count; i++) {
		int32_t start;
		memcpy(&start, table + 12 + 8 * i, sizeof start);
		uint64_t vaddr = hdr + (uint64_t)(int64_t)start;
		assert_int_equal(dc_fde_find(&by_table, vaddr, &a), 0);
		m->eh_frame_hdr = 0;
		assert_int_equal(dc_fde_find(&by_reading, vaddr, &b), 0);
		m->eh_frame_hdr = hdr;
		assert_int_equal(a.at, b.at);
		assert_false(a.debug || b.debug);
		compared++;
	}
	assert_true(compared > 1000);
	assert_int_equal(dc_fde_find(&by_table, 1, &a), -ENOENT);
	assert_int_equal(dc_fde_find(&by_table, UINT64_MAX, &a), -ENOENT);
	dc_fde_index_fini(&by_table);
	dc_fde_index_fini(&by_reading);
}

static void look_everywhere(const struct dc_module *m)
{
	struct dc_fde_index index;
	struct dc_fde fde;
	uint64_t vaddr, sum = 0;

	for (uint64_t offset = 0; offset < m->bytes; offset += 512)
		if (dc_module_vaddr(m, offset, &vaddr)) {
			const uint8_t *p = dc_module_at(m, vaddr, 8);
			sum += p ? p[0] + p[7] : 0u;
		}
	dc_fde_index_init(&index, m);
	for (vaddr = 0; vaddr < 4096; vaddr += 64)
		sum += dc_fde_find(&index, vaddr, &fde) == 0 && !fde.debug;
	dc_fde_index_fini(&index);
	__asm__ volatile("" : : "r"(sum));
}

/* A copy that ends where the sanitizer sees who reads on. */
static int open_copy(const uint8_t *image, size_t bytes, size_t changed, uint8_t to)
{
	CLEANUP(free) uint8_t *copy = malloc(bytes ? bytes : 1);
	CLEANUP(dc_module) struct dc_module *m = NULL;

	memcpy(copy, image, bytes);
	if (changed < bytes)
		copy[changed] = to;
	int r = dc_module_open_memory(copy, bytes, &m);
	if (r == 0)
		look_everywhere(m);
	return r;
}

static void test_cut_files(void **state)
{
	/* Cut anywhere, a file is refused, or what is left of it is used. */
	CLEANUP(dc_module) struct dc_module *vdso = NULL;

	(void)state;
	if (dc_module_open_vdso(&vdso) == -ENOENT) /* emulated processes have none */
		skip();
	for (size_t bytes = 0; bytes < vdso->bytes; bytes++) {
		int r = open_copy(vdso->image, bytes, SIZE_MAX, 0);
		assert_true(r == 0 || r == -ENOEXEC || r == -EBADMSG);
		if (bytes < sizeof(Elf64_Ehdr))
			assert_int_equal(r, -ENOEXEC);
	}
}

static void test_changed_files(void **state)
{
	/* Any byte of the headers, of frames and of the section table may lie. */
	static const uint8_t to[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	CLEANUP(dc_module) struct dc_module *vdso = NULL;
	unsigned refused = 0;

	(void)state;
	if (dc_module_open_vdso(&vdso) == -ENOENT) /* emulated processes have none */
		skip();
	for (size_t at = 0; at < vdso->bytes; at++)
		for (unsigned i = 0; i < sizeof to; i++)
			refused += open_copy(vdso->image, vdso->bytes, at, to[i]) < 0;
	assert_true(refused > 20 && refused < vdso->bytes);
}

static void test_what_is_no_module(void **state)
{
	/* Text, a directory, an object file, another byte order. */
	CLEANUP(dc_module) struct dc_module *vdso = NULL, *m = NULL;
	CLEANUP(close_fd) int directory = open("/", O_RDONLY | O_CLOEXEC);
	CLEANUP(close_fd) int text = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(dc_module_open(directory, &m), -ENOEXEC);
	assert_int_equal(dc_module_open(text, &m), -ENOEXEC);
	if (dc_module_open_vdso(&vdso) == -ENOENT) /* emulated processes have none */
		skip();
	assert_int_equal(open_copy(vdso->image, vdso->bytes, EI_DATA, ELFDATA2MSB), -ENOEXEC);
	assert_int_equal(open_copy(vdso->image, vdso->bytes, offsetof(Elf64_Ehdr, e_type), ET_REL), -ENOEXEC);
	assert_int_equal(open_copy(vdso->image, vdso->bytes, offsetof(Elf64_Ehdr, e_phentsize), 8), -EBADMSG);
	assert_null(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_code_in_the_file_is_what_runs),
		cmocka_unit_test(test_parts_are_found),
		cmocka_unit_test(test_every_function_is_described),
		cmocka_unit_test(test_cut_files),
		cmocka_unit_test(test_changed_files),
		cmocka_unit_test(test_what_is_no_module),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
