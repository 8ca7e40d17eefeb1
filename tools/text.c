/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "tools/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ipc/utf8.h"

#define SECOND_NS INT64_C(1000000000)

struct text text_format(const char *format, ...)
{
	struct text t;
	va_list args;

	va_start(args, format);
	vsnprintf(t.s, sizeof(t.s), format, args);
	va_end(args);
	return t;
}

struct text text_bytes(uint64_t bytes)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes / 1024;
	unsigned unit = 0;

	if (bytes < 1024)
		return text_format("%" PRIu64 " B", bytes);
	while (v >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		v /= 1024;
		unit++;
	}
	return text_format("%.1f %s", v, units[unit]);
}

struct text text_count(uint64_t n)
{
	struct text t;
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, n), at = 0;

	for (int i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			t.s[at++] = ',';
		t.s[at++] = digits[i];
	}
	t.s[at] = '\0';
	return t;
}

/* @v is below 1000: three digits say enough. */
static struct text three_digits(double v, const char *unit)
{
	return text_format("%.*f %s", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, unit);
}

static struct text long_span(const char *sign, uint64_t seconds)
{
	if (seconds < 3600)
		return text_format("%s%" PRIu64 " m %" PRIu64 " s", sign, seconds / 60, seconds % 60);
	if (seconds < 86400)
		return text_format("%s%" PRIu64 " h %" PRIu64 " m", sign, seconds / 3600, seconds / 60 % 60);
	return text_format("%s%" PRIu64 " d %" PRIu64 " h", sign, seconds / 86400, seconds / 3600 % 24);
}

struct text text_span(int64_t ns)
{
	static const char *const units[] = {"us", "ms", "s"};
	uint64_t size = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
	double v = (double)size / 1000;
	unsigned unit = 0;

	if (size < 1000)
		return text_format("%" PRIi64 " ns", ns);
	if (size >= 120 * (uint64_t)SECOND_NS)
		return long_span(ns < 0 ? "-" : "", size / (uint64_t)SECOND_NS);
	while (v >= 999.5 && unit < 2) {
		v /= 1000;
		unit++;
	}
	return three_digits(ns < 0 ? -v : v, units[unit]);
}

struct text text_size_option(uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	unsigned unit = 0;

	while (unit < 4 && bytes >= 1024 && bytes % 1024 == 0) {
		bytes /= 1024;
		unit++;
	}
	return text_format("%" PRIu64 "%s", bytes, units[unit]);
}

struct text text_time_option(int64_t ns)
{
	static const struct {
		const char *name;
		int64_t ns;
	} units[] = {{"d", 86400 * SECOND_NS}, {"h", 3600 * SECOND_NS}, {"m", 60 * SECOND_NS},
		     {"s", SECOND_NS},         {"ms", 1000000},         {"us", 1000}};

	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (ns >= units[i].ns && ns % units[i].ns == 0)
			return text_format("%" PRIi64 "%s", ns / units[i].ns, units[i].name);
	return text_format("%" PRIi64 "ns", ns);
}

/* Floor: times before 1970 come from damaged files and must not print as "-1 ns". */
static time_t seconds_of(int64_t realtime_ns, uint32_t *ret_ns)
{
	int64_t s = realtime_ns / SECOND_NS, ns = realtime_ns % SECOND_NS;

	if (ns < 0) {
		ns += SECOND_NS;
		s--;
	}
	*ret_ns = (uint32_t)ns;
	return (time_t)s;
}

struct text text_when(int64_t realtime_ns)
{
	char day[32], zone[8];
	struct tm tm;
	uint32_t ns;
	time_t s = seconds_of(realtime_ns, &ns);

	localtime_r(&s, &tm);
	strftime(day, sizeof(day), "%F %T", &tm);
	strftime(zone, sizeof(zone), "%z", &tm);
	return text_format("%s.%06u %s", day, ns / 1000, zone);
}

/* Once for each event that is shown, and localtime_r() is slow: the second before is most often the same one. */
struct text text_clock(int64_t realtime_ns)
{
	static _Thread_local time_t known_s;
	static _Thread_local struct tm known;
	uint32_t ns;
	time_t s = seconds_of(realtime_ns, &ns);

	if (s != known_s || known.tm_mday == 0) {
		localtime_r(&s, &known);
		known_s = s;
	}
	return text_format("%02d:%02d:%02d.%06u", known.tm_hour, known.tm_min, known.tm_sec, ns / 1000);
}

struct text text_day(int64_t realtime_ns)
{
	struct text t;
	struct tm tm;
	uint32_t ns;
	time_t s = seconds_of(realtime_ns, &ns);

	localtime_r(&s, &tm);
	strftime(t.s, sizeof(t.s), "%F %T", &tm);
	return t;
}

struct text text_rfc3339(int64_t realtime_ns)
{
	char day[32];
	struct tm tm;
	uint32_t ns;
	time_t s = seconds_of(realtime_ns, &ns);

	gmtime_r(&s, &tm);
	strftime(day, sizeof(day), "%FT%T", &tm);
	return text_format("%s.%09uZ", day, ns);
}

/* Bytes at @s that may go to a terminal as they are: printable ASCII, or UTF-8 beyond the C1 controls. */
static unsigned printable(const uint8_t *s, size_t n)
{
	unsigned length = utf8_length(s, n);

	if (length == 1)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if (length == 2 && s[0] == 0xc2 && s[1] < 0xa0)
		return 0;
	return length;
}

static void print_escape(FILE *out, uint8_t c)
{
	if (c == '\n')
		fputs("\\n", out);
	else if (c == '\t')
		fputs("\\t", out);
	else if (c == '\r')
		fputs("\\r", out);
	else
		fprintf(out, "\\x%02x", c);
}

/* Runs of harmless bytes go out in one piece. */
void text_print(FILE *out, const char *bytes, size_t length)
{
	const uint8_t *s = (const uint8_t *)bytes;
	size_t run = 0, i = 0;

	while (i < length) {
		unsigned n = printable(s + i, length - i);

		if (n > 0) {
			i += n;
			continue;
		}
		fwrite_unlocked(bytes + run, 1, i - run, out);
		print_escape(out, s[i++]);
		run = i;
	}
	fwrite_unlocked(bytes + run, 1, length - run, out);
}

static bool is_one_word(const char *bytes, size_t length)
{
	for (size_t i = 0; i < length;) {
		unsigned n = printable((const uint8_t *)bytes + i, length - i);

		if (n == 0 || bytes[i] == ' ' || bytes[i] == '"' || bytes[i] == '=')
			return false;
		i += n;
	}
	return length > 0;
}

/* Bytes before the next quote or backslash. */
static size_t until_quote(const char *bytes, size_t length)
{
	size_t n = 0;

	while (n < length && bytes[n] != '"' && bytes[n] != '\\')
		n++;
	return n;
}

void text_quote(FILE *out, const char *bytes, size_t length)
{
	if (is_one_word(bytes, length)) {
		fwrite(bytes, 1, length, out);
		return;
	}
	putc('"', out);
	for (size_t i = 0, n; i < length; i += n) {
		n = until_quote(bytes + i, length - i);
		text_print(out, bytes + i, n);
		if (i + n < length)
			fprintf(out, "\\%c", bytes[i + n++]);
	}
	putc('"', out);
}

bool colour_wanted(FILE *out)
{
	const char *none = getenv("NO_COLOR"), *terminal = getenv("TERM");

	return !(none && *none) && terminal && strcmp(terminal, "dumb") != 0 && isatty(fileno(out));
}

static void add_cell(struct table *t, char *text)
{
	if (GROW(t->cells, t->count, t->room, 64) < 0) {
		t->failed = true;
		free(text);
		return;
	}
	t->cells[t->count++] = text;
	t->failed |= !text;
}

void table_init(struct table *t, const char *headings)
{
	*t = (struct table){0};
	for (const char *end; (end = strchr(headings, '|')); headings = end + 1) {
		size_t length = (size_t)(end - headings);
		bool right = length > 0 && end[-1] == '>';

		t->right[t->columns++] = right;
		add_cell(t, strndup(headings, length - right));
	}
}

void table_cell(struct table *t, const char *format, ...)
{
	char *text;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	add_cell(t, text);
}

/* Columns on a terminal: continuation bytes of UTF-8 take none. Wide characters are not looked up. */
static int width_of(const char *s)
{
	int width = 0;

	for (; *s; s++)
		width += ((uint8_t)*s & 0xc0) != 0x80;
	return width;
}

static void print_cell(const struct table *t, unsigned i, int width, FILE *out)
{
	const char *cell = t->cells[i];
	bool last = i % t->columns == t->columns - 1;
	int pad = width - width_of(cell);

	if (t->right[i % t->columns])
		fprintf(out, "%*s", pad, "");
	text_print(out, cell, strlen(cell));
	if (last)
		putc('\n', out);
	else
		fprintf(out, "%*s", t->right[i % t->columns] ? 2 : pad + 2, "");
}

int table_print(struct table *t, FILE *out)
{
	int widths[TABLE_COLUMNS_MAX] = {0}, r = t->failed ? -ENOMEM : 0;

	for (unsigned i = 0; r == 0 && i < t->count; i++) {
		int width = width_of(t->cells[i]);

		if (width > widths[i % t->columns])
			widths[i % t->columns] = width;
	}
	for (unsigned i = 0; i < t->count; i++) {
		if (r == 0 && out)
			print_cell(t, i, widths[i % t->columns], out);
		free(t->cells[i]);
	}
	free(t->cells);
	*t = (struct table){0};
	return r;
}

void text_word(const char *word, char *to, size_t size)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=@%+,-";
	size_t at = 0;

	snprintf(to, size, "%s", word);
	if (*word && word[strspn(word, plain)] == '\0')
		return;
	for (const char *c = word; *c; c++) /* a quote is put beside the quotes: '\'' */
		at += *c == '\'' ? 4 : 1;
	if (at + 3 > size)
		return;
	at = 0;
	to[at++] = '\'';
	for (const char *c = word; *c; c++) {
		if (*c == '\'') {
			memcpy(to + at, "'\\''", 4);
			at += 4;
		} else {
			to[at++] = *c;
		}
	}
	to[at++] = '\'';
	to[at] = '\0';
}
