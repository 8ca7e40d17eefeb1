/* SPDX-License-Identifier: MIT */
/*
 * What `dashcam top` shows: rows of live statistics as watchers tell them (trigger/control.h), in an order, on a page.
 *
 *     top_rows.c     asks every watcher there is, sorts
 *     top_page.c     lines of text, for a terminal of any size or for none
 *     top_screen.c   a terminal that is refreshed, with keys
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/ringlist.h"
#include "trigger/control.h"

#define TOP_SORTS "rate|p50|p99|p99.9|max|open|errors|name" /* their first letters are not keys: see top_sort_key() */

struct top_rows {
	unsigned processes; /* these first, then sites */
	unsigned count;
	unsigned watchers; /* that answered */
	struct dc_control_live *rows;
	char why[DC_WHY_BYTES]; /* of the last one that did not */
};

/* Return: 0; -ENOENT: no watcher answered, @ret_rows->why; -ENOMEM. */
int top_load(const struct ring_filter *filter, const char *sort, struct top_rows *ret_rows);
void top_rows_cleanup(struct top_rows *t);

/* The sort that a key of the keyboard chooses, NULL: none. */
const char *top_sort_key(int key);

/* @columns, @lines: of the terminal; 0: as many as it takes, and nothing about keys. */
void top_page(FILE *out, const struct top_rows *t, const char *sort, unsigned columns, unsigned lines);
void top_json(FILE *out, const struct top_rows *t);

/* Until q or a signal. Return: EXIT_*. */
int top_screen(const struct ring_filter *filter, const char *sort, int64_t interval_ns);
