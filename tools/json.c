/* SPDX-License-Identifier: MIT */
#include "tools/json.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/utf8.h"

void json_init(struct json *j, FILE *out, bool pretty)
{
	*j = (struct json){.out = out, .pretty = pretty};
}

static void line(struct json *j)
{
	putc_unlocked('\n', j->out);
	for (unsigned i = 0; i < j->depth; i++)
		putc_unlocked('\t', j->out);
}

static void plain(struct json *j, const char *s, size_t n)
{
	fwrite_unlocked(s, 1, n, j->out);
}

static void escape(struct json *j, uint8_t c)
{
	static const char short_form[] = "btn?fr";

	if (c == '"' || c == '\\') {
		putc_unlocked('\\', j->out);
		putc_unlocked(c, j->out);
	} else if (c >= '\b' && c <= '\r' && c != '\v') {
		putc_unlocked('\\', j->out);
		putc_unlocked(short_form[c - '\b'], j->out);
	} else {
		fprintf(j->out, "\\u%04x", c);
	}
}

static bool needs_no_escape(uint8_t c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* Runs of harmless bytes go out in one piece: nearly all text is one run. */
static void quoted(struct json *j, const char *bytes, size_t n)
{
	const uint8_t *s = (const uint8_t *)bytes;
	size_t run = 0;

	putc_unlocked('"', j->out);
	for (size_t i = 0; i < n; i++) {
		unsigned length = needs_no_escape(s[i]) ? 1 : s[i] < 0x80 ? 0 : utf8_length(s + i, n - i);

		if (length > 0) {
			i += length - 1;
			continue;
		}
		plain(j, bytes + run, i - run);
		run = i + 1;
		if (s[i] < 0x80)
			escape(j, s[i]);
		else
			plain(j, "\\ufffd", 6);
	}
	plain(j, bytes + run, n - run);
	putc_unlocked('"', j->out);
}

/* All that comes before a value: comma, line, key. */
static void member(struct json *j, const char *key)
{
	if (j->depth > 0) {
		if (j->used[j->depth - 1])
			putc_unlocked(',', j->out);
		j->used[j->depth - 1] = true;
		if (j->pretty)
			line(j);
	}
	if (!key)
		return;
	quoted(j, key, strlen(key));
	putc_unlocked(':', j->out);
	if (j->pretty)
		putc_unlocked(' ', j->out);
}

static void open_level(struct json *j, const char *key, char open, char close)
{
	assert(j->depth < JSON_DEPTH_MAX);
	member(j, key);
	putc_unlocked(open, j->out);
	j->used[j->depth] = false;
	j->close[j->depth++] = close;
}

void json_object(struct json *j, const char *key)
{
	open_level(j, key, '{', '}');
}

void json_array(struct json *j, const char *key)
{
	open_level(j, key, '[', ']');
}

void json_end(struct json *j)
{
	assert(j->depth > 0);
	j->depth--;
	if (j->pretty && j->used[j->depth])
		line(j);
	putc_unlocked(j->close[j->depth], j->out);
	if (j->depth == 0)
		putc_unlocked('\n', j->out);
}

void json_text(struct json *j, const char *key, const char *text)
{
	json_bytes(j, key, text, strlen(text));
}

void json_bytes(struct json *j, const char *key, const char *bytes, size_t length)
{
	member(j, key);
	quoted(j, bytes, length);
}

/* By hand: printf costs five times as much, and an export is mostly numbers. */
static void number(struct json *j, bool negative, uint64_t v)
{
	char text[21];
	char *s = text + sizeof(text);

	do
		*--s = (char)('0' + v % 10);
	while ((v /= 10) > 0);
	if (negative)
		*--s = '-';
	plain(j, s, (size_t)(text + sizeof(text) - s));
}

void json_u64(struct json *j, const char *key, uint64_t v)
{
	member(j, key);
	number(j, false, v);
}

void json_i64(struct json *j, const char *key, int64_t v)
{
	member(j, key);
	number(j, v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void json_f64(struct json *j, const char *key, double v)
{
	char text[32];

	if (isnan(v)) {
		json_text(j, key, "NaN");
	} else if (isinf(v)) {
		json_text(j, key, v > 0 ? "Infinity" : "-Infinity");
	} else {
		member(j, key);
		for (int digits = 15; digits <= 17;
		     digits += 2) { /* the shorter one where it says the same */
			snprintf(text, sizeof(text), "%.*g", digits, v);
			if (strtod(text, NULL) == v)
				break;
		}
		fputs(text, j->out);
	}
}

void json_fixed(struct json *j, const char *key, double v, int decimals)
{
	if (!isfinite(v)) {
		json_f64(j, key, v);
		return;
	}
	member(j, key);
	fprintf(j->out, "%.*f", decimals, v);
}

void json_micros(struct json *j, const char *key, int64_t ns)
{
	uint64_t size = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;

	member(j, key);
	fprintf(j->out, "%s%" PRIu64 ".%03u", ns < 0 ? "-" : "", size / 1000, (unsigned)(size % 1000));
}

void json_bool(struct json *j, const char *key, bool v)
{
	member(j, key);
	fputs(v ? "true" : "false", j->out);
}

void json_null(struct json *j, const char *key)
{
	member(j, key);
	fputs("null", j->out);
}

int json_finish(struct json *j)
{
	assert(j->depth == 0);
	if (fflush(j->out) != 0)
		return -errno;
	return ferror(j->out) ? -EIO : 0;
}
