/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the parser share; nobody else includes it.
 *
 *   lexer.c   text into tokens, the first error        leaf.c   one condition
 *   parse.c   and, or, not, for, within: the tree of them, and whether it can ever come true
 *
 * One token is looked at ahead. The first error is kept and ends everything: functions return it at once, as -EINVAL.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "trigger/rules/rule.h"

#define TOKEN_TEXT_BYTES 128u

enum token_kind {
	TOKEN_END = 1,
	TOKEN_WORD, /* everything else up to a blank: keywords, numbers with their units */
	TOKEN_TEXT, /* in double quotes; \" and \\ inside */
	TOKEN_COMPARE,
	TOKEN_OPEN,
	TOKEN_CLOSE,
	TOKEN_COMMA,
};

struct token {
	enum token_kind kind;
	uint16_t column;
	uint16_t length;
	enum dc_rule_compare compare;
	char text[TOKEN_TEXT_BYTES]; /* of a TEXT what is inside its quotes */
};

struct parser {
	const char *text;
	struct token token; /* the next one */
	uint16_t last_end; /* column behind the token before it */
	unsigned depth; /* of parentheses */
	struct dc_rule_expression *expression;
	struct dc_rule_error *error;
};

/* Takes the next token into p->token. */
int dc_rule_advance(struct parser *p);
__attribute__((format(printf, 3, 4))) int dc_rule_wrong(struct parser *p, const struct token *at, const char *format, ...);
/* "expected a time such as 250ms, found '250'", of the next token. */
int dc_rule_expected(struct parser *p, const char *what);
/* The same where one of @words (NULL-terminated) would do; says which one was meant, where it can be guessed. */
int dc_rule_expected_word(struct parser *p, const char *what, const char *const *words);

bool dc_rule_is_word(const struct parser *p, const char *word);
/* Takes @word. Return: 1: it was there; 0: not, nothing taken; -EINVAL. */
int dc_rule_take(struct parser *p, const char *word);
int dc_rule_demand(struct parser *p, const char *word);

int dc_rule_number(struct parser *p, double *ret_number);
int dc_rule_time(struct parser *p, int64_t *ret_ns);
/* A time to look back over: 1ms to a week. */
int dc_rule_length(struct parser *p, int64_t *ret_ns);
int dc_rule_bytes(struct parser *p, double *ret_bytes);
int dc_rule_percent(struct parser *p, double most, double *ret_percent);
/* 1000/s: as a number per second, and the unit it was said with. */
int dc_rule_rate(struct parser *p, double *ret_per_s, int64_t *ret_unit_ns);
/* 100MiB/min likewise. */
int dc_rule_bytes_rate(struct parser *p, double *ret_per_s, int64_t *ret_unit_ns);
int dc_rule_whole(struct parser *p, uint64_t least, uint64_t most, uint64_t *ret_number);
int dc_rule_quoted(struct parser *p, const char *what, char *ret_text, size_t size);
int dc_rule_comparison(struct parser *p, enum dc_rule_compare *ret_compare);

/* Return: index of the new node, -EINVAL. Its column is where the next token begins. */
int dc_rule_node_new(struct parser *p, enum dc_rule_op op);
int dc_rule_leaf(struct parser *p);
