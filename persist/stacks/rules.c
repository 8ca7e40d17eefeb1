/* SPDX-License-Identifier: MIT */
/*
 * Call frame instructions (DWARF 5, 6.4.2): they build a table, line by line, of where the CFA and the registers of the
 * caller are; the line of the program counter counts. What a line says is worked out in terms (expression.h) that are the
 * same for a frame that is known and for any frame.
 *
 * Why not libunwind: 1.6.2 takes the operand of a DW_CFA_register for an index without looking at it, so a hostile file kills
 * who asks it; it knows frames only with their values, so that a row takes two steps over made-up ones; and a place costs
 * seven times as much (bench_unwind). It is the witness instead: tests/test_unwind_peer.c holds the two equal, line by line,
 * over the libraries and programs of the system.
 */
#include "persist/stacks/rules.h"

#include <errno.h>
#include <string.h>

#include "persist/stacks/bytes.h"
#include "persist/stacks/expression.h"

#define PROGRAM_BYTES_MAX 65536u /* of one description; the largest known have some thousand */
#define SAVED_MAX 16u /* DW_CFA_remember_state; compilers need one or two */

enum { /* DW_CFA_* (DWARF 5, 7.24); the first three have an operand in their lower six bits */
       CFA_ADVANCE_LOC = 0x40,
       CFA_OFFSET = 0x80,
       CFA_RESTORE = 0xc0,
       CFA_NOP = 0x00,
       CFA_ADVANCE_LOC1 = 0x02,
       CFA_ADVANCE_LOC2 = 0x03,
       CFA_ADVANCE_LOC4 = 0x04,
       CFA_OFFSET_EXTENDED = 0x05,
       CFA_RESTORE_EXTENDED = 0x06,
       CFA_UNDEFINED = 0x07,
       CFA_SAME_VALUE = 0x08,
       CFA_REGISTER = 0x09,
       CFA_REMEMBER_STATE = 0x0a,
       CFA_RESTORE_STATE = 0x0b,
       CFA_DEF_CFA = 0x0c,
       CFA_DEF_CFA_REGISTER = 0x0d,
       CFA_DEF_CFA_OFFSET = 0x0e,
       CFA_DEF_CFA_EXPRESSION = 0x0f,
       CFA_EXPRESSION = 0x10,
       CFA_OFFSET_EXTENDED_SF = 0x11,
       CFA_DEF_CFA_SF = 0x12,
       CFA_DEF_CFA_OFFSET_SF = 0x13,
       CFA_VAL_OFFSET = 0x14,
       CFA_VAL_OFFSET_SF = 0x15,
       CFA_VAL_EXPRESSION = 0x16,
       CFA_AARCH64_NEGATE_RA_STATE = 0x2d, /* who reads addresses takes signatures off */
       CFA_GNU_ARGS_SIZE = 0x2e,
       CFA_GNU_NEGATIVE_OFFSET_EXTENDED = 0x2f,
};

enum how {
	KEPT, /* as it is */
	LOST,
	AT_CFA, /* in memory, at the CFA + offset */
	BY_CFA, /* the CFA + offset */
	BY_REGISTER, /* another register + offset */
	AT_EXPRESSION, /* in memory, where an expression says */
	BY_EXPRESSION,
};

struct rule {
	enum how how;
	uint64_t reg;
	uint64_t offset;
	const uint8_t *code;
	uint64_t bytes;
};

struct line {
	struct rule cfa;
	struct rule regs[DC_REGS];
};

struct program {
	const struct dc_fde_rules *text;
	struct dc_bytes next;
	uint64_t address;
	struct line now;
	struct line common; /* behind the common instructions: what is restored */
	struct line saved[SAVED_MAX];
	unsigned depth;
	struct rule ignored; /* of vector registers, and of numbers that are none */
};

static struct rule *rule_of(struct program *p, uint64_t reg)
{
	return reg < DC_REGS ? &p->now.regs[reg] : &p->ignored;
}

static void restore(struct program *p, uint64_t reg)
{
	if (reg < DC_REGS)
		p->now.regs[reg] = p->common.regs[reg];
}

static uint64_t scaled(const struct program *p, uint64_t factor)
{
	return factor * (uint64_t)p->text->data_align;
}

/* An expression, its length before it. */
static struct rule expression(struct program *p, enum how how)
{
	uint64_t bytes = dc_bytes_uleb(&p->next);

	return (struct rule){.how = how, .code = dc_bytes_take(&p->next, bytes), .bytes = bytes};
}

static bool save(struct program *p)
{
	if (p->depth == SAVED_MAX)
		return false;
	p->saved[p->depth++] = p->now;
	return true;
}

static bool unsave(struct program *p)
{
	if (!p->depth)
		return false;
	p->now = p->saved[--p->depth];
	return true;
}

/* What begins a line. 0: something else. */
static unsigned advance_width(unsigned op)
{
	return op == CFA_ADVANCE_LOC1 ? 1 : op == CFA_ADVANCE_LOC2 ? 2 : op == CFA_ADVANCE_LOC4 ? 4 : 0;
}

/* Those of the CFA. Return: false: senseless. */
static bool cfa_instruction(struct program *p, unsigned op)
{
	struct rule *cfa = &p->now.cfa;
	struct dc_bytes *b = &p->next;

	switch (op) {
	case CFA_DEF_CFA:
	case CFA_DEF_CFA_SF:
		*cfa = (struct rule){.how = BY_REGISTER, .reg = dc_bytes_uleb(b)};
		cfa->offset = op == CFA_DEF_CFA ? dc_bytes_uleb(b) : scaled(p, (uint64_t)dc_bytes_sleb(b));
		break;
	case CFA_DEF_CFA_REGISTER:
		cfa->reg = dc_bytes_uleb(b);
		break;
	case CFA_DEF_CFA_OFFSET:
		cfa->offset = dc_bytes_uleb(b);
		break;
	case CFA_DEF_CFA_OFFSET_SF:
		cfa->offset = scaled(p, (uint64_t)dc_bytes_sleb(b));
		break;
	default:
		*cfa = expression(p, BY_EXPRESSION);
		return true;
	}
	return cfa->how == BY_REGISTER && cfa->reg < DC_REGS;
}

/* Those that say where a register is. */
static bool register_instruction(struct program *p, unsigned op, uint64_t reg)
{
	struct rule *rule = rule_of(p, reg);
	struct dc_bytes *b = &p->next;

	switch (op) {
	case CFA_OFFSET:
	case CFA_OFFSET_EXTENDED:
		*rule = (struct rule){.how = AT_CFA, .offset = scaled(p, dc_bytes_uleb(b))};
		return true;
	case CFA_OFFSET_EXTENDED_SF:
		*rule = (struct rule){.how = AT_CFA, .offset = scaled(p, (uint64_t)dc_bytes_sleb(b))};
		return true;
	case CFA_GNU_NEGATIVE_OFFSET_EXTENDED:
		*rule = (struct rule){.how = AT_CFA, .offset = 0 - scaled(p, dc_bytes_uleb(b))};
		return true;
	case CFA_VAL_OFFSET:
		*rule = (struct rule){.how = BY_CFA, .offset = scaled(p, dc_bytes_uleb(b))};
		return true;
	case CFA_VAL_OFFSET_SF:
		*rule = (struct rule){.how = BY_CFA, .offset = scaled(p, (uint64_t)dc_bytes_sleb(b))};
		return true;
	case CFA_RESTORE:
	case CFA_RESTORE_EXTENDED:
		restore(p, reg);
		return true;
	case CFA_UNDEFINED:
	case CFA_SAME_VALUE:
		*rule = (struct rule){.how = op == CFA_UNDEFINED ? LOST : KEPT};
		return true;
	case CFA_REGISTER:
		*rule = (struct rule){.how = BY_REGISTER, .reg = dc_bytes_uleb(b)};
		return true;
	case CFA_EXPRESSION:
	case CFA_VAL_EXPRESSION:
		*rule = expression(p, op == CFA_EXPRESSION ? AT_EXPRESSION : BY_EXPRESSION);
		return true;
	default: /* DW_CFA_set_loc among them, which no assembler writes */
		return false;
	}
}

static bool instruction(struct program *p, unsigned op)
{
	switch (op) {
	case CFA_NOP:
	case CFA_AARCH64_NEGATE_RA_STATE:
		return true;
	case CFA_GNU_ARGS_SIZE:
		dc_bytes_uleb(&p->next);
		return true;
	case CFA_REMEMBER_STATE:
		return save(p);
	case CFA_RESTORE_STATE:
		return unsave(p);
	case CFA_DEF_CFA:
	case CFA_DEF_CFA_SF:
	case CFA_DEF_CFA_REGISTER:
	case CFA_DEF_CFA_OFFSET:
	case CFA_DEF_CFA_OFFSET_SF:
	case CFA_DEF_CFA_EXPRESSION:
		return cfa_instruction(p, op);
	default:
		return register_instruction(p, op, dc_bytes_uleb(&p->next));
	}
}

/* To the line of @pc, or the end. Return: false: something in it makes no sense. */
static bool run(struct program *p, const uint8_t *at, const uint8_t *end, uint64_t pc)
{
	p->next = (struct dc_bytes){.at = at, .end = end};
	if (end - at > PROGRAM_BYTES_MAX)
		return false;
	while (p->next.at < p->next.end) {
		unsigned op = *p->next.at++, low = op & 0x3f, high = op & 0xc0;
		if (high == CFA_ADVANCE_LOC || (!high && advance_width(op))) {
			uint64_t steps = high ? low : dc_bytes_unsigned(&p->next, advance_width(op));
			p->address += steps * p->text->code_align;
			if (p->address > pc)
				break;
		} else if (high ? !register_instruction(p, high, low) : !instruction(p, op))
			return false;
	}
	return !p->next.failed;
}

/* Return: false: nothing describes @pc, or senselessly. */
static bool line_find(const struct dc_place *place, uint64_t pc, struct line *ret_line, uint64_t *ret_return_column)
{
	struct dc_fde_rules text;
	struct program p = {.text = &text};
	struct dc_fde fde;

	if (!place->index || dc_fde_find(place->index, pc - place->bias, &fde) < 0 ||
	    dc_fde_rules(place->index, &fde, &text) < 0 || text.return_column >= DC_REGS)
		return false;
	p.address = fde.begin;
	if (!run(&p, text.common, text.common_end, pc - place->bias))
		return false;
	p.common = p.now;
	if (!run(&p, text.own, text.own_end, pc - place->bias) || p.now.cfa.how == KEPT)
		return false;
	*ret_line = p.now;
	*ret_return_column = text.return_column;
	return true;
}

static int term_of(const struct dc_terms *t, const struct rule *rule, const struct dc_term *cfa,
		   struct dc_term *ret_term)
{
	struct dc_term term = {0};
	int r = 0;

	switch (rule->how) {
	case BY_REGISTER:
		r = dc_term_register(t, rule->reg, &term);
		term.offset += rule->offset;
		break;
	case AT_CFA:
	case BY_CFA:
		term = (struct dc_term){cfa->offset + rule->offset, cfa->base};
		break;
	case AT_EXPRESSION:
	case BY_EXPRESSION:
		r = dc_expression(t, rule->code, rule->bytes, cfa, &term);
		break;
	default:
		r = -ENODATA;
	}
	if (r == 0 && (rule->how == AT_CFA || rule->how == AT_EXPRESSION))
		r = dc_term_load(t, term, &term);
	if (r == 0)
		*ret_term = term;
	return r;
}

/* Those of the caller. */
struct caller {
	struct dc_term terms[DC_REGS];
	bool known[DC_REGS];
};

/* The CFA is by definition what the stack pointer was. A register whose value cannot be had is lost; anything else is an error. */
static int caller_register(const struct dc_terms *t, const struct line *line, const struct dc_term *cfa, unsigned reg,
			   struct caller *c)
{
	const struct rule *rule = &line->regs[reg];
	int r = 0;

	if (rule->how != KEPT)
		r = term_of(t, rule, cfa, &c->terms[reg]);
	else if (reg == DC_REG_SP)
		c->terms[reg] = *cfa;
	else
		r = dc_term_register(t, reg, &c->terms[reg]);
	c->known[reg] = r == 0;
	return r == -ENODATA ? 0 : r;
}

/* Return: DC_ROW_STEP; DC_ROW_END; DC_ROW_NONE; DC_ROW_DIRECT: these terms cannot say it. */
static uint8_t caller_find(const struct dc_terms *t, const struct dc_place *place, uint64_t pc, struct caller *c)
{
	uint64_t column;
	struct dc_term cfa;
	struct line line;
	int r = line_find(place, pc, &line, &column) ? 0 : -EINVAL;

	if (r == 0 && line.regs[column].how == LOST)
		return DC_ROW_END;
	if (r == 0 && column == DC_REG_PC && line.regs[column].how == KEPT)
		r = -EINVAL; /* it would return to where it is */
	if (r == 0)
		r = term_of(t, &line.cfa, NULL, &cfa);
	for (unsigned i = 0; i < DC_REGS && r == 0; i++)
		r = caller_register(t, &line, &cfa, i, c);
	if (r < 0)
		return r == -EOPNOTSUPP ? DC_ROW_DIRECT : DC_ROW_NONE;
	c->terms[DC_REG_PC] = c->terms[column];
	c->known[DC_REG_PC] = c->known[column];
	return DC_ROW_STEP;
}

static bool row_set(struct dc_rule *rule, unsigned reg, const struct dc_term *term, bool known)
{
	*rule = (struct dc_rule){.base = DC_ROW_UNKNOWN, .target = (uint8_t)reg};
	if (!known)
		return true;
	rule->base = term->base;
	rule->offset = (int32_t)term->offset;
	return term->base != DC_TERM_NUMBER && rule->offset == (int64_t)term->offset;
}

void dc_rules_row(const struct dc_place *p, uint64_t pc, struct dc_row *ret_row)
{
	struct dc_row row = {0};
	struct dc_terms t = {.pc = pc, .row = &row};
	struct dc_rule sets[DC_REGS];
	struct caller c;
	uint8_t kind = caller_find(&t, p, pc, &c);

	for (unsigned i = 0; i < DC_REGS && kind == DC_ROW_STEP; i++) {
		struct dc_rule *rule = &sets[row.sets];
		if (!row_set(rule, i, &c.terms[i], c.known[i]))
			kind = DC_ROW_DIRECT;
		if (rule->base != i || rule->offset != 0)
			row.sets++;
	}
	if (kind == DC_ROW_STEP)
		memcpy(row.rules + row.loads, sets, row.sets * sizeof sets[0]);
	else
		row = (struct dc_row){0};
	row.kind = kind;
	*ret_row = row;
}

uint8_t dc_rules_step(const struct dc_place *p, uint64_t pc, struct dc_row_state *state, struct dc_row_stack *stack)
{
	struct dc_terms t = {.pc = pc, .state = state, .stack = stack};
	struct caller c;
	uint8_t kind = caller_find(&t, p, pc, &c);

	for (unsigned i = 0; i < DC_REGS && kind == DC_ROW_STEP; i++) {
		state->known[i] = c.known[i];
		state->values[i] = c.known[i] ? c.terms[i].offset : 0;
	}
	return kind;
}
