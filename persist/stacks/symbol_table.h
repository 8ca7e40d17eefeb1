/* SPDX-License-Identifier: MIT */
/*
 * Sorted: which symbol is at an address. Symbols are added in the order of the file and laid out once as segments that do
 * not overlap, so that a look-up is a binary search.
 *
 * Where several symbols are at an address, the choice is that of elfutils (libdwfl, dwfl_module_addrsym.c), so that
 * our answers and those of eu-addr2line are the same: global ones before local ones; a symbol that begins closer before
 * one that begins further off; global before weak before local; the shorter; the first. Symbols without a size (written
 * in assembly) count only where nothing with a size reaches, and not beyond their section.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_symbol_table;

struct dc_table_symbol {
	uint64_t start;
	uint64_t size; /* 0: not known */
	uint64_t limit; /* end of its section, for one without a size */
	uint32_t name; /* whatever the caller wants back */
	uint8_t binding; /* 3 global, 2 weak, 1 local, 0 other */
	uint8_t local; /* of the first part of a symbol table: looked at when no other fits */
	uint8_t source; /* the caller's */
};

int dc_symbol_table_new(struct dc_symbol_table **ret_table);
void dc_symbol_table_free(struct dc_symbol_table *t);
DC_DEFINE_CLEANUP(dc_symbol_table, struct dc_symbol_table *, dc_symbol_table_free)

/* Return: 0, -ENOMEM, -E2BIG: more than DC_TABLE_SYMBOLS_MAX. */
int dc_symbol_table_add(struct dc_symbol_table *t, const struct dc_table_symbol *symbol);
#define DC_TABLE_SYMBOLS_MAX (4u << 20)
/* Once, after the last one. Return: 0, -ENOMEM. */
int dc_symbol_table_build(struct dc_symbol_table *t);

/* Return: NULL: no symbol is there. */
const struct dc_table_symbol *dc_symbol_table_at(const struct dc_symbol_table *t, uint64_t address);
