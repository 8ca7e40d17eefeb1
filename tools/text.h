/* SPDX-License-Identifier: MIT */
/*
 * Text for people: figures with units, tables, and what a recorded program said, made safe for a terminal.
 *
 * struct text is a short string on the stack: text_bytes(64 << 20).s is "64.0 MiB" until the end of the statement.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct text {
	char s[64];
};

struct text text_bytes(uint64_t bytes);        /* "64.0 MiB" */
struct text text_count(uint64_t n);            /* "1,234,567" */
struct text text_span(int64_t ns);             /* three digits and the best unit: "3.41 ms", "1 m 30 s" */
struct text text_size_option(uint64_t bytes);  /* as one types it: "64MiB" */
struct text text_time_option(int64_t ns);      /* as one types it: "30s" */
struct text text_when(int64_t realtime_ns);    /* "2026-11-21 03:07:16.123456 +0000", local time */
struct text text_clock(int64_t realtime_ns);   /* "03:07:16.123456" */
struct text text_day(int64_t realtime_ns);     /* "2026-11-21 03:07:16" */
struct text text_rfc3339(int64_t realtime_ns); /* "2026-11-21T03:07:16.123456789Z" */
struct text text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * text_print() - bytes of a recorded program for a terminal or a log
 * Control characters (also the C1 ones, which terminals obey in UTF-8) and what is no UTF-8 come out as \n, \x1b ...:
 * a recorded string cannot move the cursor or end the line. text_quote() puts quotes around it where it has blanks,
 * is empty or has something escaped; inside them a backslash goes before quotes and backslashes.
 */
void text_print(FILE *out, const char *bytes, size_t length);
void text_quote(FILE *out, const char *bytes, size_t length);
/* A word of a command to type: as it is, or in the shell's quotes. Left as it is where @to has no room for them. */
void text_word(const char *word, char *to, size_t size);

/* Colours: only where the stream is a terminal that has them and NO_COLOR is not set (no-color.org). */
bool colour_wanted(FILE *out);

/*
 * A table: cells are added row by row, columns get as wide as they must, the last one is not padded.
 *
 *     struct table t;
 *     table_init(&t, "NAME|EVENTS>|");               // | ends a column, > aligns it to the right
 *     table_cell(&t, "%s", name); table_cell(&t, "%s", text_count(n).s);
 *     table_print(&t, stdout);                       // and forgets them
 */
#define TABLE_COLUMNS_MAX 12u

struct table {
	unsigned columns;
	bool right[TABLE_COLUMNS_MAX];
	unsigned count; /* cells, the headings included */
	unsigned room;
	char **cells; /* NULL: no memory, table_print() says so */
	bool failed;
};

void table_init(struct table *t, const char *headings);
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
int table_print(struct table *t, FILE *out); /* 0, -ENOMEM. NULL: only forgets */
