/* SPDX-License-Identifier: MIT */
/*
 * Functions, those inlined in them, and lines, from DWARF 2 to 5 by libdw, which only dwarf.c knows.
 *
 *     address ──► unit (all ranges, laid out once) ──► function, innermost (per unit, on first use) ──► parents
 *                                                 └──► line (per unit, on first use)
 *
 * libdw walks a unit again for every question; here each is walked once, and answers are binary searches. Tables of units
 * beyond a budget are dropped, those not used for longest first, and so is what libdw itself keeps.
 */
#pragma once

#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/stacks/answers.h"
#include "persist/stacks/elf_file.h"
#include "persist/stacks/texts.h"

struct dc_dwarf;

/*
 * dc_dwarf_open() - find the units
 * @debug: where the DWARF is; @alt: what dwz took out of it, or NULL; @program: whose code it is. All are borrowed
 * until close, @texts too. @memory_bytes: what tables and libdw may keep between two questions. Return: 0, -ENOENT: no
 * DWARF that could be read, -ENOMEM.
 */
int dc_dwarf_open(struct dc_elf *debug, struct dc_elf *alt, const struct dc_elf *program, struct dc_texts *texts,
		  size_t memory_bytes, struct dc_dwarf **ret_dwarf);
void dc_dwarf_close(struct dc_dwarf *d);
DC_DEFINE_CLEANUP(dc_dwarf, struct dc_dwarf *, dc_dwarf_close)

/*
 * dc_dwarf_at() - the functions at @address, innermost first, with the file and line that each had come to
 * Return: how many, at most @room; 0: none is known; ret_levels[0] then has the file and line all the same, or zeros.
 */
unsigned dc_dwarf_at(struct dc_dwarf *d, uint64_t address, struct dc_level *ret_levels, unsigned room);
