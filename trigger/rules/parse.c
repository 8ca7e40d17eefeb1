/* SPDX-License-Identifier: MIT */
/*
 * The tree of conditions, by recursive descent: one function per rule of the grammar in rule.h. Then a look at what can
 * never, or nearly always, be true: conditions are of two kinds, those true at a moment (a span ends) and those that last
 * (a counter is high), and people forget that two moments are never the same one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trigger/rules/parse_inside.h"

#define DEPTH_MAX 32u

static int parse_or(struct parser *p);

int dc_rule_node_new(struct parser *p, enum dc_rule_op op)
{
	struct dc_rule_expression *e = p->expression;

	if (e->count == DC_RULE_NODES_MAX)
		return dc_rule_wrong(p, &p->token, "one condition too many, at most %u are taken", DC_RULE_NODES_MAX);
	e->nodes[e->count] = (struct dc_rule_node){.op = op, .column = p->token.column};
	return e->count++;
}

/* Where node @n is in the text: from its own beginning to the last token taken. */
static int extent(struct parser *p, int n)
{
	if (n >= 0)
		p->expression->nodes[n].length = (uint16_t)(p->last_end - p->expression->nodes[n].column);
	return n;
}

/* A node over @left and, for two, @right: it begins where @column says. */
static int over_nodes(struct parser *p, enum dc_rule_op op, int left, int right, uint16_t column)
{
	int n = dc_rule_node_new(p, op);

	if (n < 0)
		return n;
	p->expression->nodes[n].left = (uint8_t)left;
	p->expression->nodes[n].right = (uint8_t)right;
	p->expression->nodes[n].column = column;
	return extent(p, n);
}

static int parse_primary(struct parser *p)
{
	int n, r;

	if (p->token.kind != TOKEN_OPEN)
		return extent(p, dc_rule_leaf(p));
	if (p->depth == DEPTH_MAX)
		return dc_rule_wrong(p, &p->token, "too many parentheses inside each other, at most %u are taken", DEPTH_MAX);
	r = dc_rule_advance(p);
	if (r < 0)
		return r;
	p->depth++;
	n = parse_or(p);
	p->depth--;
	if (n < 0)
		return n;
	if (p->token.kind != TOKEN_CLOSE)
		return dc_rule_expected_word(p, "'and', 'or', 'for', 'within' or ')'",
					     (const char *const[]){"and", "or", "for", "within", NULL});
	r = dc_rule_advance(p);
	return r < 0 ? r : n;
}

static int parse_timed(struct parser *p)
{
	const uint16_t column = p->token.column;
	int64_t over_ns = 0;
	enum dc_rule_op op;
	int n = parse_primary(p), r;

	if (n < 0)
		return n;
	op = dc_rule_is_word(p, "for") ? DC_RULE_FOR : DC_RULE_WITHIN;
	if (!dc_rule_is_word(p, "for") && !dc_rule_is_word(p, "within"))
		return n;
	r = dc_rule_advance(p);
	if (r == 0)
		r = dc_rule_length(p, &over_ns);
	if (r < 0)
		return r;
	n = over_nodes(p, op, n, 0, column);
	if (n >= 0)
		p->expression->nodes[n].over_ns = over_ns;
	return n;
}

static int parse_not(struct parser *p)
{
	const uint16_t column = p->token.column;
	int r = dc_rule_take(p, "not"), n;

	if (r < 0)
		return r;
	n = parse_timed(p);
	return r == 0 || n < 0 ? n : over_nodes(p, DC_RULE_NOT, n, 0, column);
}

static int parse_row(struct parser *p, const char *word, enum dc_rule_op op, int (*part)(struct parser *p))
{
	const uint16_t column = p->token.column;
	int left = part(p), right, r;

	while (left >= 0 && (r = dc_rule_take(p, word)) != 0) {
		right = r < 0 ? r : part(p);
		left = right < 0 ? right : over_nodes(p, op, left, right, column);
	}
	return left;
}

static int parse_and(struct parser *p)
{
	return parse_row(p, "and", DC_RULE_AND, parse_not);
}

static int parse_or(struct parser *p)
{
	return parse_row(p, "or", DC_RULE_OR, parse_and);
}

/* "10-th", "10th", "2nd". */
static int parse_ordinal(struct parser *p)
{
	const char *s = p->token.text;
	unsigned long v = 0;
	char *end = NULL;

	if (p->token.kind == TOKEN_WORD && *s >= '1' && *s <= '9')
		v = strtoul(s, &end, 10);
	if (v == 0 || v > 1000000000)
		return dc_rule_expected(p, "a number such as 10-th");
	end += *end == '-';
	if (strcmp(end, "th") != 0 && strcmp(end, "st") != 0 && strcmp(end, "nd") != 0 && strcmp(end, "rd") != 0)
		return dc_rule_expected(p, "a number such as 10-th");
	p->expression->every = (uint32_t)v;
	return dc_rule_advance(p);
}

/* [ "every" ... ] [ "probability" ... ] behind the conditions. */
static int parse_chance(struct parser *p)
{
	double percent = 100;
	int r = dc_rule_take(p, "every");

	if (r > 0)
		r = parse_ordinal(p);
	if (r == 0)
		r = dc_rule_take(p, "probability");
	if (r > 0)
		r = dc_rule_percent(p, 100, &percent);
	p->expression->probability = percent / 100;
	return r;
}

static int parse_rule(struct parser *p)
{
	static const char *const next[] = {"and", "or", "for", "within", "every", "probability", "over", NULL};
	int n = parse_or(p), r;

	if (n < 0)
		return n;
	p->expression->root = (uint8_t)n;
	r = parse_chance(p);
	if (r == 0 && p->token.kind != TOKEN_END)
		return dc_rule_expected_word(p, "'and', 'or', 'for', 'within' or the end", next);
	return r;
}

/* ---- what can come true ---- */

#define MOMENT_SPAN 1u
#define MOMENT_EVENT 2u
#define MOMENT_LOG 4u
#define MOMENT_EXIT 8u
#define MOMENT_EXEC 16u
#define MOMENT_START 32u
#define MOMENT_OOM 64u

struct nature {
	unsigned moments; /* true only when one of these happens; 0: it lasts */
	bool always; /* true but at some moments */
};

static unsigned moment_of(enum dc_rule_op op)
{
	switch (op) {
	case DC_RULE_SPAN_LASTS:
	case DC_RULE_SPAN_UNUSUAL:
	case DC_RULE_SPAN_SLOWER:
		return MOMENT_SPAN;
	case DC_RULE_EVENT:
		return MOMENT_EVENT;
	case DC_RULE_LOG:
		return MOMENT_LOG;
	case DC_RULE_EXIT_SIGNAL:
	case DC_RULE_EXIT_CODE:
		return MOMENT_EXIT;
	case DC_RULE_EXEC:
		return MOMENT_EXEC;
	case DC_RULE_RESTART:
		return MOMENT_START;
	case DC_RULE_OOM:
		return MOMENT_OOM;
	default:
		return 0;
	}
}

static int wrong_node(struct parser *p, const struct dc_rule_node *n, const char *why)
{
	return dc_rule_wrong(p, &(struct token){.column = n->column, .length = n->length}, "%s", why);
}

static int always_wrong(struct parser *p, const struct dc_rule_node *n)
{
	return wrong_node(p, n, "this is true nearly always: say 'not (... within 10s)', or 'and' with what happens at the same moment");
}

static int nature_and(struct parser *p, const struct dc_rule_node *n, const struct nature *all, struct nature *ret_nature)
{
	struct nature a = all[n->left], b = all[n->right];

	if (!a.always && !b.always && a.moments && b.moments && !(a.moments & b.moments))
		return wrong_node(p, &p->expression->nodes[n->right],
				  "this never happens at the same moment as what stands before: give one of them 'within TIME'");
	if (a.always || b.always)
		*ret_nature = (struct nature){.moments = a.always ? b.always ? a.moments : b.moments : a.moments,
					      .always = (a.always || !a.moments) && (b.always || !b.moments)};
	else
		*ret_nature = (struct nature){.moments = a.moments && b.moments ? a.moments & b.moments : a.moments | b.moments};
	return 0;
}

static int nature_of(struct parser *p, const struct dc_rule_node *n, const struct nature *all, struct nature *ret_nature)
{
	*ret_nature = (struct nature){0};
	switch (n->op) {
	case DC_RULE_AND:
		return nature_and(p, n, all, ret_nature);
	case DC_RULE_OR:
		if (all[n->left].always || all[n->right].always)
			return always_wrong(p, all[n->left].always ? &p->expression->nodes[n->left] : &p->expression->nodes[n->right]);
		ret_nature->moments = all[n->left].moments | all[n->right].moments;
		return 0;
	case DC_RULE_NOT:
		*ret_nature = all[n->left];
		ret_nature->always = ret_nature->moments && !ret_nature->always;
		return 0;
	case DC_RULE_FOR:
		if (all[n->left].moments && !all[n->left].always)
			return wrong_node(p, &p->expression->nodes[n->left],
					  "'for' needs something that lasts, and this happens at a moment: say 'within', or a rate");
		return all[n->left].always ? always_wrong(p, n) : 0;
	case DC_RULE_WITHIN:
		return all[n->left].always ? always_wrong(p, n) : 0;
	default:
		ret_nature->moments = moment_of(n->op);
		return 0;
	}
}

/* Those that a node is made of stand before it, so one pass does. */
static int check_nature(struct parser *p)
{
	struct dc_rule_expression *e = p->expression;
	struct nature all[DC_RULE_NODES_MAX];
	int r = 0;

	for (unsigned i = 0; i < e->count && r == 0; i++)
		r = nature_of(p, &e->nodes[i], all, &all[i]);
	return r == 0 && all[e->root].always ? always_wrong(p, &e->nodes[e->root]) : r;
}

int dc_rule_parse(const char *text, struct dc_rule_expression *ret_expression, struct dc_rule_error *ret_error)
{
	CLEANUP(free) struct dc_rule_expression *e = calloc(1, sizeof(*e));
	struct dc_rule_error error = {.column = 1, .length = 1, .why = "out of memory"};
	struct parser p = {.text = text, .token = {.column = 1}, .expression = e, .error = &error};
	int r = e ? 0 : -EINVAL;

	if (r == 0 && strlen(text) >= sizeof(e->text))
		r = dc_rule_wrong(&p, &(struct token){.column = sizeof(e->text)}, "the expression is too long, at most %zu bytes are taken",
				  sizeof(e->text) - 1);
	if (r == 0)
		r = dc_rule_advance(&p);
	if (r == 0)
		r = parse_rule(&p);
	if (r == 0)
		r = check_nature(&p);
	if (r < 0) {
		*ret_error = error;
		return r;
	}
	strcpy(e->text, text);
	*ret_expression = *e;
	return 0;
}
