/* SPDX-License-Identifier: MIT */
/* Whether a copied ring header can be believed: what every reader asks before it uses one number of it. */
#pragma once

#include <stdint.h>

#include "ipc/ring.h"

/*
 * dc_ring_check() - validate a copy of a ring's header completely
 * @copy: the reader's own copy, which cannot change any more
 * @file_bytes: how large the file really is (fstat), or @copy->file_bytes where the file is not at hand (captures)
 * @ret_why: NULL, or set on failure to one line for people
 *
 * After 0 every table lies inside the file, none overlaps another, every capacity is at most its DC_*_MAX,
 * the chunk size is a power of two in range and tick_shift is at most 16. The running counters below
 * reserved0 are not judged: they change while the ring lives, and readers clamp them.
 *
 * Return: 0; -EBADMSG: not a ring, or one that lies; -EPROTONOSUPPORT: one that needs a newer reader.
 */
int dc_ring_check(const struct dc_ring_header *copy, uint64_t file_bytes, const char **ret_why);
