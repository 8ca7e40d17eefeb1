/* SPDX-License-Identifier: MIT */
/*
 * What is known about addresses: for each the chain of functions there, which may be empty. Texts are numbers (texts.h).
 * What dc_symbols_at() has answered, and what a cache file holds.
 */
#pragma once

#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_level { /* one function of a chain */
	uint64_t start; /* where its code begins, 0: not known */
	uint32_t function; /* text, 0: not known */
	uint32_t file; /* text */
	uint32_t line;
};

struct dc_answer {
	uint64_t vaddr;
	uint32_t first; /* of @count in the levels */
	uint32_t count;
};

struct dc_answers;

int dc_answers_new(struct dc_answers **ret_answers);
void dc_answers_free(struct dc_answers *a);
DC_DEFINE_CLEANUP(dc_answers, struct dc_answers *, dc_answers_free)

/* Return: NULL: not asked yet; else, until the next add, its levels. */
const struct dc_level *dc_answers_find(const struct dc_answers *a, uint64_t vaddr, uint32_t *ret_count);
/* @vaddr must not be in it. Return: 0, -ENOMEM. */
int dc_answers_add(struct dc_answers *a, uint64_t vaddr, const struct dc_level *levels, uint32_t count);
void dc_answers_forget(struct dc_answers *a); /* all of them */
uint32_t dc_answers_count(const struct dc_answers *a);
uint32_t dc_answers_level_count(const struct dc_answers *a);
/* All, by address; caller frees. Return: 0, -ENOMEM. */
int dc_answers_sorted(const struct dc_answers *a, struct dc_answer **ret_list);
