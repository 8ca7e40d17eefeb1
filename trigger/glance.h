/* SPDX-License-Identifier: MIT */
/*
 * A page of a file, mapped, for what is looked at many times a second: no system call, where a pread() of one line costs as
 * much as all that is done with it.
 *
 * Whoever may write to the file may cut it short at any moment, and a load from a page that is gone is a SIGBUS. So loads are
 * made here only, between two marks that our handler knows: it ends the copy, which then fails as pread() would have. Any
 * other SIGBUS goes where it would have gone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DC_GLANCE_BYTES 4096u

/*
 * dc_glance_map() - the page at @offset, which is a multiple of it
 * A page that is a hole is made when it is looked at, at our expense: only for pages that the owner has written.
 * Not inherited by children. Return: NULL where there are no such pages, or no memory; then read() does as well.
 */
const void *dc_glance_map(int fd, uint64_t offset);
void dc_glance_unmap(const void *page);

/*
 * dc_glance_read() - copy out of a mapped page, by whole words: one word is never half of two
 * @from, @bytes: multiples of 8. Context: a thread that does not block SIGBUS.
 * Return: false: the file was cut, and @to holds nothing of use.
 */
bool dc_glance_read(const void *from, void *to, size_t bytes);
