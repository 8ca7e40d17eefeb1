/* SPDX-License-Identifier: MIT */
/*
 * Texts kept once each, by number: names of functions and files, which repeat thousands of times. Number 0 is the empty
 * text. What is over the limit becomes the empty text too: a name is lost, nothing else. Pointers stay valid until free.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ipc/cleanup.h"

struct dc_texts;

#define DC_TEXT_BYTES_MAX 16384u /* one text, without its NUL; longer ones are cut */

/* @bytes_max: of all texts together. Return: 0, -ENOMEM. */
int dc_texts_new(size_t bytes_max, struct dc_texts **ret_texts);
void dc_texts_free(struct dc_texts *t);
DC_DEFINE_CLEANUP(dc_texts, struct dc_texts *, dc_texts_free)

/* @text: NULL is the empty text. Return: its number. */
uint32_t dc_texts_add(struct dc_texts *t, const char *text);
/* Never NULL; a number that was never given out is the empty text. */
const char *dc_texts_at(const struct dc_texts *t, uint32_t number);
uint32_t dc_texts_count(const struct dc_texts *t); /* numbers 0..count-1 */
