/* SPDX-License-Identifier: MIT */
/*
 * The text of a DC_LOG event, made when it is read. The format comes from a peer: it is taken apart here,
 * every conversion is matched with the type of the argument that was recorded, and only a specification built
 * by ourselves ever reaches snprintf.
 */
#include "ipc/decode.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 4096 /* width and precision: nobody pads a log line beyond this */

/* Where the text goes. @length runs on when @size is used up, as with snprintf. */
struct sink {
	char *text;
	size_t size;
	size_t length;
};

static void put(struct sink *s, const char *bytes, size_t count)
{
	if (s->length < s->size) {
		size_t room = s->size - s->length;
		memcpy(s->text + s->length, bytes, count < room ? count : room);
	}
	s->length += count;
}

static void pad(struct sink *s, size_t count)
{
	while (count--)
		put(s, " ", 1);
}

static size_t finish(struct sink *s)
{
	if (s->size)
		s->text[s->length < s->size ? s->length : s->size - 1] = 0;
	return s->length;
}

static void put_string(struct sink *s, const char *string)
{
	put(s, string, strlen(string));
}

/* One %... of a format. */
struct conversion {
	char flags[6];
	int width;     /* -1: none */
	int precision; /* -1: none */
	unsigned bits; /* of an integer, by its length modifier */
	char letter;
};

/* The arguments of the event, taken one after the other. */
struct arguments {
	const struct dc_event *event;
	unsigned next;
};

static int take_star(struct arguments *a)
{
	const struct dc_event *e = a->event;
	unsigned i = a->next++;
	if (i >= e->arg_count || e->args_dropped >> i & 1 || e->info->types[i] == DC_TYPE_STR)
		return -1;
	int64_t v = e->args[i].i;
	return v < -NUMBER_MAX ? -NUMBER_MAX : v > NUMBER_MAX ? NUMBER_MAX : (int)v;
}

static int parse_number(const char **pp, struct arguments *a)
{
	int v = 0;
	if (**pp == '*') {
		++*pp;
		return take_star(a);
	}
	for (; **pp >= '0' && **pp <= '9'; ++*pp)
		v = v > NUMBER_MAX ? NUMBER_MAX : v * 10 + (**pp - '0');
	return v > NUMBER_MAX ? NUMBER_MAX : v;
}

static void parse_flags(const char **pp, struct conversion *c)
{
	unsigned n = 0;
	for (; **pp && strchr("-+ #0'", **pp); ++*pp)
		if (**pp != '\'' && n < sizeof c->flags - 1 && !strchr(c->flags, **pp))
			c->flags[n++] = **pp;
}

static void parse_modifier(const char **pp, struct conversion *c)
{
	c->bits = 32;
	for (; **pp && strchr("hlqjztL", **pp); ++*pp)
		c->bits = **pp != 'h' ? 64 : c->bits == 16 ? 8 : 16;
}

/* *@pp is behind the '%'; afterwards behind the letter, or at the NUL if there is none. */
static struct conversion parse(const char **pp, struct arguments *a)
{
	struct conversion c = {.width = -1, .precision = -1};

	parse_flags(pp, &c);
	if ((**pp >= '0' && **pp <= '9') || **pp == '*')
		c.width = parse_number(pp, a);
	if (c.width < -1) { /* a negative '*' means '-' */
		c.width = -c.width;
		c.flags[0] = '-';
		c.flags[1] = 0;
	}
	if (**pp == '.') {
		++*pp;
		c.precision = parse_number(pp, a);
	}
	parse_modifier(pp, &c);
	c.letter = **pp;
	if (c.letter)
		++*pp;
	return c;
}

static int pad_width(const struct conversion *c)
{
	return c->width < 0 ? 0 : c->width;
}

/* "%<flags>*.*<tail>": width and precision travel as arguments; a precision of -1 counts as none. */
static const char *specification(const struct conversion *c, const char *tail, char text[static 24])
{
	snprintf(text, 24, "%%%s*.*%s", c->flags, tail);
	return text;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"

static void put_number(struct sink *s, const struct conversion *c, const char *tail, uint64_t v)
{
	char spec[24], text[2 * NUMBER_MAX + 64];
	int n = snprintf(text, sizeof text, specification(c, tail, spec), pad_width(c), c->precision, v);
	if (n > 0)
		put(s, text, (size_t)n);
}

static void put_double(struct sink *s, const struct conversion *c, double v)
{
	char spec[24], tail[2] = {c->letter, 0}, text[2 * NUMBER_MAX + 512];
	int n = snprintf(text, sizeof text, specification(c, tail, spec), pad_width(c), c->precision, v);
	if (n > 0)
		put(s, text, (size_t)n);
}

#pragma GCC diagnostic pop

/* What the C type named by the length modifier would have kept of @v; more bits than it has are kept and shown. */
static uint64_t narrow(uint64_t v, const struct conversion *c)
{
	bool is_signed = c->letter == 'd' || c->letter == 'i';
	switch (c->bits) {
	case 8:
		return is_signed ? (uint64_t)(int64_t)(int8_t)v : (uint8_t)v;
	case 16:
		return is_signed ? (uint64_t)(int64_t)(int16_t)v : (uint16_t)v;
	case 32:
		if (is_signed)
			return v >> 32 ? v : (uint64_t)(int64_t)(int32_t)v;
		return (int64_t)v < 0 && (int64_t)v >= INT32_MIN ? (uint32_t)v : v;
	default:
		return v;
	}
}

static void put_text(struct sink *s, const struct conversion *c, const char *bytes, size_t length)
{
	if (c->precision >= 0 && length > (size_t)c->precision)
		length = (size_t)c->precision;
	size_t padding = c->width > 0 && (size_t)c->width > length ? (size_t)c->width - length : 0;
	bool left = strchr(c->flags, '-') != NULL;
	if (!left)
		pad(s, padding);
	put(s, bytes, length);
	if (left)
		pad(s, padding);
}

static void put_string_argument(struct sink *s, const struct conversion *c, const struct dc_text *t)
{
	if (!t->bytes) {
		put_text(s, c, "(null)", 6);
		return;
	}
	put_text(s, c, t->bytes, t->length);
	if (t->cut)
		put_string(s, "...");
}

static void put_pointer(struct sink *s, const struct conversion *c, uint64_t v)
{
	char text[24];
	int n = v ? snprintf(text, sizeof text, "0x%" PRIx64, v) : snprintf(text, sizeof text, "(nil)");
	put_text(s, c, text, (size_t)n);
}

static bool is_integer(uint8_t type)
{
	return type == DC_TYPE_U64 || type == DC_TYPE_I64 || type == DC_TYPE_BOOL || type == DC_TYPE_PTR;
}

static bool put_integer(struct sink *s, const struct conversion *c, uint64_t v)
{
	char character = (char)v;
	switch (c->letter) {
	case 'd':
	case 'i':
		put_number(s, c, PRId64, narrow(v, c));
		return true;
	case 'u':
		put_number(s, c, PRIu64, narrow(v, c));
		return true;
	case 'o':
		put_number(s, c, PRIo64, narrow(v, c));
		return true;
	case 'x':
		put_number(s, c, PRIx64, narrow(v, c));
		return true;
	case 'X':
		put_number(s, c, PRIX64, narrow(v, c));
		return true;
	case 'c':
		put_text(s, c, &character, 1);
		return true;
	case 'p':
		put_pointer(s, c, v);
		return true;
	default:
		return false;
	}
}

/* False: the next argument does not fit this conversion. */
static bool put_conversion(struct sink *s, const struct conversion *c, struct arguments *a)
{
	const struct dc_event *e = a->event;
	unsigned i = a->next++;

	if (i >= e->arg_count || !c->letter)
		return false;
	uint8_t type = e->info->types[i];
	if (e->args_dropped >> i & 1) {
		put_string(s, "<dropped>");
		return true;
	}
	if (type == DC_TYPE_SECRET) {
		put_string(s, "<secret>");
		return true;
	}
	if (type == DC_TYPE_STR && c->letter == 's') {
		put_string_argument(s, c, &e->args[i].text);
		return true;
	}
	if (type == DC_TYPE_F64 && strchr("fFeEgGaA", c->letter)) {
		put_double(s, c, e->args[i].f);
		return true;
	}
	return is_integer(type) && put_integer(s, c, e->args[i].u);
}

size_t dc_event_format(const struct dc_event *event, char *text, size_t size)
{
	struct sink s = {text, size, 0};
	struct arguments a = {event, 0};
	const char *p = event->info ? event->info->format : "";

	while (*p) {
		size_t plain = strcspn(p, "%");
		put(&s, p, plain);
		p += plain;
		if (!*p)
			break;
		const char *start = p++;
		struct conversion c = parse(&p, &a);
		if (c.letter == '%')
			put(&s, "%", 1);
		else if (!put_conversion(&s, &c, &a))
			put(&s, start, (size_t)(p - start));
	}
	return finish(&s);
}

/* The shortest decimal that reads back as @v. */
static void put_shortest(struct sink *s, double v)
{
	char text[40];
	for (int digits = 6; digits <= 17; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, v);
		if (strtod(text, NULL) == v || v != v)
			break;
	}
	put_string(s, text);
}

static void put_value(struct sink *s, uint8_t type, const union dc_value *v)
{
	char text[32];
	switch (type) {
	case DC_TYPE_I64:
		snprintf(text, sizeof text, "%" PRId64, v->i);
		break;
	case DC_TYPE_U64:
		snprintf(text, sizeof text, "%" PRIu64, v->u);
		break;
	case DC_TYPE_BOOL:
		snprintf(text, sizeof text, "%s", v->u ? "true" : "false");
		break;
	case DC_TYPE_PTR:
		snprintf(text, sizeof text, "0x%" PRIx64, v->u);
		break;
	case DC_TYPE_F64:
		put_shortest(s, v->f);
		return;
	case DC_TYPE_STR:
		if (v->text.bytes)
			put(s, v->text.bytes, v->text.length);
		else
			put_string(s, "(null)");
		return;
	default:
		snprintf(text, sizeof text, "<secret>");
		break;
	}
	put_string(s, text);
}

size_t dc_value_format(const struct dc_event *event, unsigned index, char *text, size_t size)
{
	struct sink s = {text, size, 0};

	if (index >= event->arg_count || event->args_dropped >> index & 1)
		put_string(&s, "<dropped>");
	else
		put_value(&s, event->info->types[index], &event->args[index]);
	return finish(&s);
}
