/* SPDX-License-Identifier: MIT */
#include "trigger/rules/parse_inside.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/near.h"
#include "trigger/quantity.h"

#define SECOND_NS INT64_C(1000000000)
#define WEEK_NS (7 * 86400 * SECOND_NS)

int dc_rule_wrong(struct parser *p, const struct token *at, const char *format, ...)
{
	va_list args;

	p->error->column = at->column;
	p->error->length = at->length ? at->length : 1;
	va_start(args, format);
	vsnprintf(p->error->why, sizeof(p->error->why), format, args);
	va_end(args);
	return -EINVAL;
}

static const char *found(const struct parser *p, char text[static 48])
{
	const struct token *t = &p->token;

	if (t->kind == TOKEN_END)
		return "the end";
	snprintf(text, 48, "'%.*s'", t->length < 40 ? t->length : 40, p->text + t->column - 1);
	return text;
}

int dc_rule_expected(struct parser *p, const char *what)
{
	char text[48];

	return dc_rule_wrong(p, &p->token, "expected %s, found %s", what, found(p, text));
}

int dc_rule_expected_word(struct parser *p, const char *what, const char *const *words)
{
	const char *near = NULL;
	unsigned best = 99;
	char text[48];

	for (; p->token.kind == TOKEN_WORD && *words; words++)
		if (dc_near(p->token.text, *words, &best))
			near = *words;
	return dc_rule_wrong(p, &p->token, "expected %s, found %s%s%s%s", what, found(p, text), near ? " (did you mean '" : "",
			     near ? near : "", near ? "'?)" : "");
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool ends_word(char c)
{
	return c == '\0' || is_blank(c) || strchr("\"(),<>=!", c);
}

static int lex_text(struct parser *p, struct token *t, const char *s)
{
	size_t n = 0;
	const char *from = s++;

	for (; *s && *s != '"'; s++) {
		if (*s == '\\' && (s[1] == '"' || s[1] == '\\'))
			s++;
		if (n + 1 < sizeof(t->text))
			t->text[n++] = *s;
	}
	t->length = (uint16_t)(s - from + (*s == '"'));
	t->text[n] = '\0';
	if (!*s)
		return dc_rule_wrong(p, t, "this text has no closing quote");
	if ((size_t)(s - from - 1) >= sizeof(t->text))
		return dc_rule_wrong(p, t, "this text is too long, at most %zu bytes are taken", sizeof(t->text) - 1);
	return 0;
}

static int lex_compare(struct parser *p, struct token *t, const char *s)
{
	static const struct {
		const char *text;
		enum dc_rule_compare compare;
	} all[] = {{">=", DC_RULE_GE}, {"<=", DC_RULE_LE}, {"==", DC_RULE_EQ},
		   {"!=", DC_RULE_NE}, {">", DC_RULE_GT},  {"<", DC_RULE_LT}};

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (strncmp(s, all[i].text, strlen(all[i].text)) != 0)
			continue;
		t->compare = all[i].compare;
		t->length = (uint16_t)strlen(all[i].text);
		return 0;
	}
	t->length = 1;
	return dc_rule_wrong(p, t, *s == '=' ? "'=' compares nothing, expected '=='" : "expected '!=' or the word 'not', found '!'");
}

static int lex_word(struct parser *p, struct token *t, const char *s)
{
	size_t n = 0;

	while (!ends_word(s[n]))
		n++;
	t->length = (uint16_t)n;
	if (n >= sizeof(t->text))
		return dc_rule_wrong(p, t, "this word is too long, at most %zu bytes are taken", sizeof(t->text) - 1);
	memcpy(t->text, s, n);
	t->text[n] = '\0';
	return 0;
}

int dc_rule_advance(struct parser *p)
{
	struct token *t = &p->token;
	const char *s = p->text + t->column - 1 + t->length;

	p->last_end = (uint16_t)(t->column + t->length);
	while (is_blank(*s))
		s++;
	*t = (struct token){.column = (uint16_t)(s - p->text + 1), .length = 1};
	switch (*s) {
	case '\0':
		t->kind = TOKEN_END;
		t->length = 0;
		return 0;
	case '(':
		t->kind = TOKEN_OPEN;
		return 0;
	case ')':
		t->kind = TOKEN_CLOSE;
		return 0;
	case ',':
		t->kind = TOKEN_COMMA;
		return 0;
	case '"':
		t->kind = TOKEN_TEXT;
		return lex_text(p, t, s);
	case '<':
	case '>':
	case '=':
	case '!':
		t->kind = TOKEN_COMPARE;
		return lex_compare(p, t, s);
	default:
		t->kind = TOKEN_WORD;
		return lex_word(p, t, s);
	}
}

bool dc_rule_is_word(const struct parser *p, const char *word)
{
	return p->token.kind == TOKEN_WORD && strcmp(p->token.text, word) == 0;
}

int dc_rule_take(struct parser *p, const char *word)
{
	int r;

	if (!dc_rule_is_word(p, word))
		return 0;
	r = dc_rule_advance(p);
	return r < 0 ? r : 1;
}

int dc_rule_demand(struct parser *p, const char *word)
{
	char what[32];
	int r = dc_rule_take(p, word);

	snprintf(what, sizeof(what), "'%s'", word);
	return r != 0 ? r : dc_rule_expected_word(p, what, (const char *const[]){word, NULL});
}

/* A decimal number at *@at; strtod() alone would take hexadecimal ones and "nan", too. */
static int number_at(const char **at, double *ret_number)
{
	const char *s = *at + (**at == '-');
	char *end;

	if (*s < '0' || *s > '9' || s[strspn(s, "0123456789.eE+-")] == 'x')
		return -EINVAL;
	*ret_number = strtod(*at, &end);
	*at = end;
	return *ret_number > -1e18 && *ret_number < 1e18 ? 0 : -ERANGE;
}

int dc_rule_number(struct parser *p, double *ret_number)
{
	const char *s = p->token.text;
	double v = 0;
	int r = p->token.kind == TOKEN_WORD ? number_at(&s, &v) : -EINVAL;

	if (r < 0 || *s)
		return dc_rule_expected(p, r == -ERANGE ? "a smaller number" : "a number such as 1000");
	*ret_number = v;
	return dc_rule_advance(p);
}

int dc_rule_whole(struct parser *p, uint64_t least, uint64_t most, uint64_t *ret_number)
{
	char what[80];
	uint64_t v;

	snprintf(what, sizeof(what), "a whole number from %llu to %llu", (unsigned long long)least, (unsigned long long)most);
	if (p->token.kind != TOKEN_WORD || dc_quantity_count(p->token.text, &v) < 0 || v < least || v > most)
		return dc_rule_expected(p, what);
	*ret_number = v;
	return dc_rule_advance(p);
}

int dc_rule_time(struct parser *p, int64_t *ret_ns)
{
	int64_t ns;
	int r = p->token.kind == TOKEN_WORD ? dc_quantity_time(p->token.text, &ns) : -EINVAL;

	if (r < 0)
		return dc_rule_expected(p, r == -ERANGE ? "a sensible time such as 250ms" : "a time such as 250ms or 30s");
	*ret_ns = ns;
	return dc_rule_advance(p);
}

int dc_rule_length(struct parser *p, int64_t *ret_ns)
{
	const struct token at = p->token;
	int64_t ns = 0;
	int r = dc_rule_time(p, &ns);

	if (r < 0)
		return r;
	if (ns < SECOND_NS / 1000 || ns > WEEK_NS)
		return dc_rule_wrong(p, &at, "expected a time from 1ms to 7d, found '%.40s'", at.text);
	*ret_ns = ns;
	return 0;
}

int dc_rule_bytes(struct parser *p, double *ret_bytes)
{
	uint64_t v;
	int r = p->token.kind == TOKEN_WORD ? dc_quantity_bytes(p->token.text, &v) : -EINVAL;

	if (r < 0)
		return dc_rule_expected(p, r == -ERANGE ? "a sensible size such as 2GiB" : "a size such as 2GiB");
	*ret_bytes = (double)v;
	return dc_rule_advance(p);
}

int dc_rule_percent(struct parser *p, double most, double *ret_percent)
{
	const char *s = p->token.text;
	double v = 0;

	if (p->token.kind != TOKEN_WORD || number_at(&s, &v) < 0 || strcmp(s, "%") != 0)
		return dc_rule_expected(p, "a percentage such as 95%");
	if (v < 0 || v > most)
		return dc_rule_wrong(p, &p->token, "expected a percentage from 0%% to %g%%, found '%.40s'", most, p->token.text);
	*ret_percent = v;
	return dc_rule_advance(p);
}

/* The unit after the slash at @s. */
static int per_at(const char *s, int64_t *ret_unit_ns)
{
	static const struct {
		const char *text;
		int64_t ns;
	} all[] = {{"/s", SECOND_NS}, {"/m", 60 * SECOND_NS}, {"/min", 60 * SECOND_NS}, {"/h", 3600 * SECOND_NS}};

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (strcmp(s, all[i].text) == 0) {
			*ret_unit_ns = all[i].ns;
			return 0;
		}
	}
	return -EINVAL;
}

int dc_rule_rate(struct parser *p, double *ret_per_s, int64_t *ret_unit_ns)
{
	const char *s = p->token.text;
	int64_t unit_ns;
	double v = 0;

	if (p->token.kind != TOKEN_WORD || number_at(&s, &v) < 0 || v < 0 || per_at(s, &unit_ns) < 0)
		return dc_rule_expected(p, "a rate such as 1000/s or 3/min");
	*ret_per_s = v * (double)SECOND_NS / (double)unit_ns;
	*ret_unit_ns = unit_ns;
	return dc_rule_advance(p);
}

int dc_rule_bytes_rate(struct parser *p, double *ret_per_s, int64_t *ret_unit_ns)
{
	char *slash = p->token.kind == TOKEN_WORD ? strchr(p->token.text, '/') : NULL;
	char size[TOKEN_TEXT_BYTES];
	int64_t unit_ns;
	uint64_t v;

	snprintf(size, sizeof(size), "%.*s", slash ? (int)(slash - p->token.text) : 0, p->token.text);
	if (!slash || dc_quantity_bytes(size, &v) < 0 || per_at(slash, &unit_ns) < 0)
		return dc_rule_expected(p, "a growth such as 100MiB/min");
	*ret_per_s = (double)v * (double)SECOND_NS / (double)unit_ns;
	*ret_unit_ns = unit_ns;
	return dc_rule_advance(p);
}

int dc_rule_quoted(struct parser *p, const char *what, char *ret_text, size_t size)
{
	const struct token at = p->token;

	if (at.kind != TOKEN_TEXT)
		return dc_rule_expected(p, what);
	if (!*at.text)
		return dc_rule_wrong(p, &at, "expected %s, found nothing between the quotes", what);
	if (strlen(at.text) >= size)
		return dc_rule_wrong(p, &at, "this text is too long, at most %zu bytes are taken", size - 1);
	strcpy(ret_text, at.text);
	return dc_rule_advance(p);
}

int dc_rule_comparison(struct parser *p, enum dc_rule_compare *ret_compare)
{
	if (p->token.kind != TOKEN_COMPARE)
		return dc_rule_expected(p, "a comparison: > >= < <= == !=");
	*ret_compare = p->token.compare;
	return dc_rule_advance(p);
}
