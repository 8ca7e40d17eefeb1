/* SPDX-License-Identifier: MIT */
/* Build-ids are what the linker wrote; files that are no ELF, are cut or lie give none, and nothing is read beyond them. */
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
#include <unistd.h>

#include "trigger/build_id.h"

/* An ELF file with one PT_NOTE of two notes, the second a build-id of 20 bytes 'i'. */
struct small_elf {
	Elf64_Ehdr head;
	Elf64_Phdr segment;
	Elf64_Nhdr abi;
	char abi_name[4];
	uint32_t abi_text[4];
	Elf64_Nhdr id;
	char id_name[4];
	uint8_t id_text[20];
};

static struct small_elf small(void)
{
	struct small_elf e = {
		.head = {.e_phoff = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1},
		.segment = {.p_type = PT_NOTE, .p_offset = offsetof(struct small_elf, abi), .p_align = 4},
		.abi = {.n_namesz = 4, .n_descsz = 16, .n_type = NT_GNU_ABI_TAG},
		.abi_name = "GNU",
		.id = {.n_namesz = 4, .n_descsz = 20, .n_type = NT_GNU_BUILD_ID},
		.id_name = "GNU",
	};

	memcpy(e.head.e_ident, ELFMAG, SELFMAG);
	e.head.e_ident[EI_CLASS] = ELFCLASS64;
	e.head.e_ident[EI_DATA] = ELFDATA2LSB;
	e.segment.p_filesz = sizeof(e) - e.segment.p_offset;
	memset(e.id_text, 'i', sizeof(e.id_text));
	return e;
}

/* Of exactly these bytes, at the end of an allocation, so that a sanitizer sees what is read beyond. */
static int read_image(const void *image, size_t bytes, struct dc_build_id *ret_id)
{
	void *copy = malloc(bytes ? bytes : 1);
	int r;

	memcpy(copy, image, bytes);
	*ret_id = (struct dc_build_id){0};
	r = dc_build_id_of_image(copy, bytes, ret_id);
	free(copy);
	return r;
}

/* The second of two notes is found. */
static void test_found(void **state)
{
	struct small_elf e = small();
	struct dc_build_id id;

	(void)state;
	assert_int_equal(read_image(&e, sizeof(e), &id), 0);
	assert_int_equal(id.count, 20);
	assert_memory_equal(id.bytes, e.id_text, 20);
}

/* The same bytes as a file. */
static void test_of_a_file(void **state)
{
	char path[] = "/tmp/test_build_id.XXXXXX";
	struct small_elf e = small();
	struct dc_build_id id = {0};
	int fd = mkstemp(path);

	(void)state;
	unlink(path);
	assert_int_equal(write(fd, &e, sizeof(e)), sizeof(e));
	assert_int_equal(dc_build_id_read(fd, &id), 0);
	assert_int_equal(id.count, 20);
	close(fd);
}

/* Cut anywhere it is an error or a file without one, never a wrong one. */
static void test_cut(void **state)
{
	struct small_elf e = small();
	struct dc_build_id id;

	(void)state;
	for (size_t n = 0; n < offsetof(struct small_elf, id_text) + 20; n++) {
		read_image(&e, n, &id);
		assert_int_equal(id.count, 0);
	}
}

/* Sizes that lie end the reading. */
static void test_lies(void **state)
{
	struct small_elf e = small();
	struct dc_build_id id;

	(void)state;
	e.abi.n_descsz = UINT32_MAX;
	assert_int_equal(read_image(&e, sizeof(e), &id), 0);
	assert_int_equal(id.count, 0);
	e = small();
	e.abi.n_namesz = UINT32_MAX - 2;
	assert_int_equal(read_image(&e, sizeof(e), &id), 0);
	assert_int_equal(id.count, 0);
	e = small();
	e.id.n_descsz = 25; /* longer than an id is */
	assert_int_equal(read_image(&e, sizeof(e), &id), 0);
	assert_int_equal(id.count, 0);
	e = small();
	e.segment.p_offset = UINT64_MAX - 8;
	read_image(&e, sizeof(e), &id);
	assert_int_equal(id.count, 0);
	e = small();
	e.head.e_phoff = UINT64_MAX - 8;
	assert_int_equal(read_image(&e, sizeof(e), &id), -EBADMSG);
	e = small();
	e.head.e_phnum = PN_XNUM;
	assert_int_equal(read_image(&e, sizeof(e), &id), -EBADMSG);
}

/* Any one byte changed to anything: nothing but an answer. */
static void test_any_byte(void **state)
{
	struct dc_build_id id;

	(void)state;
	for (size_t at = 0; at < sizeof(struct small_elf); at++) {
		for (unsigned v = 0; v < 256; v += 5) {
			struct small_elf e = small();

			((uint8_t *)&e)[at] = (uint8_t)v;
			read_image(&e, sizeof(e), &id);
			assert_true(id.count <= DC_BUILD_ID_BYTES);
		}
	}
}

/* 32-bit, of the other byte order, text. */
static void test_not_ours(void **state)
{
	struct small_elf e = small();
	struct dc_build_id id;

	(void)state;
	e.head.e_ident[EI_CLASS] = ELFCLASS32;
	assert_int_equal(read_image(&e, sizeof(e), &id), -ENOEXEC);
	e = small();
	e.head.e_ident[EI_DATA] = ELFDATA2MSB;
	assert_int_equal(read_image(&e, sizeof(e), &id), -ENOEXEC);
	assert_int_equal(read_image("#!/bin/sh\n", 10, &id), -ENOEXEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),	 cmocka_unit_test(test_of_a_file), cmocka_unit_test(test_cut),
		cmocka_unit_test(test_lies),	 cmocka_unit_test(test_any_byte),  cmocka_unit_test(test_not_ours),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
