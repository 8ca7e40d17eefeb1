/* SPDX-License-Identifier: MIT */
#include "persist/stacks/expression.h"

#include <errno.h>

#include "persist/stacks/bytes.h"

#define STACK_MAX 32u
#define STEPS_MAX 1000u /* expressions can hold loops */

enum { /* DW_OP_* (DWARF 5, 7.7.1): those that make sense in a frame's description */
       OP_DEREF = 0x06,
       OP_CONST1U = 0x08, /* 1u 1s 2u 2s 4u 4s 8u 8s */
       OP_CONST8S = 0x0f,
       OP_CONSTU = 0x10,
       OP_CONSTS = 0x11,
       OP_DUP = 0x12,
       OP_DROP = 0x13,
       OP_OVER = 0x14,
       OP_PICK = 0x15,
       OP_SWAP = 0x16,
       OP_ROT = 0x17,
       OP_ABS = 0x19,
       OP_AND = 0x1a,
       OP_DIV = 0x1b,
       OP_MINUS = 0x1c,
       OP_MOD = 0x1d,
       OP_MUL = 0x1e,
       OP_NEG = 0x1f,
       OP_NOT = 0x20,
       OP_OR = 0x21,
       OP_PLUS = 0x22,
       OP_PLUS_UCONST = 0x23,
       OP_SHL = 0x24,
       OP_SHR = 0x25,
       OP_SHRA = 0x26,
       OP_XOR = 0x27,
       OP_BRA = 0x28,
       OP_EQ = 0x29,
       OP_GE = 0x2a,
       OP_GT = 0x2b,
       OP_LE = 0x2c,
       OP_LT = 0x2d,
       OP_NE = 0x2e,
       OP_SKIP = 0x2f,
       OP_LIT0 = 0x30,
       OP_LIT31 = 0x4f,
       OP_BREG0 = 0x70,
       OP_BREG31 = 0x8f,
       OP_BREGX = 0x92,
       OP_DEREF_SIZE = 0x94,
       OP_NOP = 0x96,
};

struct machine {
	const struct dc_terms *terms;
	const uint8_t *code;
	struct dc_bytes next;
	struct dc_term stack[STACK_MAX];
	unsigned depth;
};

static struct dc_term number(uint64_t value)
{
	return (struct dc_term){value, DC_TERM_NUMBER};
}

/* Offsets in rows have 32 bits. */
static bool fits(struct dc_term t)
{
	return t.base != DC_TERM_NUMBER && (int64_t)t.offset == (int32_t)t.offset;
}

int dc_term_register(const struct dc_terms *t, uint64_t reg, struct dc_term *ret_term)
{
	if (reg >= DC_REGS) /* a vector's, or none */
		return -ENODATA;
	if (reg == DC_REG_PC)
		*ret_term = number(t->pc);
	else if (t->row)
		*ret_term = (struct dc_term){0, (uint8_t)reg};
	else if (t->state->known[reg])
		*ret_term = number(t->state->values[reg]);
	else
		return -ENODATA;
	return 0;
}

/* The same place holds the same value, however often it is read. */
int dc_term_load(const struct dc_terms *t, struct dc_term address, struct dc_term *ret_term)
{
	struct dc_row *row = t->row;
	unsigned i = 0;

	if (!row) {
		*ret_term = number(0);
		return dc_row_read(t->stack, address.offset, &ret_term->offset) ? 0 : -ENODATA;
	}
	if (!fits(address))
		return -EOPNOTSUPP;
	struct dc_rule rule = {.offset = (int32_t)address.offset, .base = address.base};
	while (i < row->loads && (row->rules[i].base != rule.base || row->rules[i].offset != rule.offset))
		i++;
	if (i == DC_ROW_LOADS_MAX)
		return -EOPNOTSUPP;
	if (i == row->loads)
		row->rules[row->loads++] = rule;
	*ret_term = (struct dc_term){0, (uint8_t)(DC_REGS + i)};
	return 0;
}

static int push(struct machine *m, struct dc_term t)
{
	if (m->depth == STACK_MAX)
		return -EINVAL;
	m->stack[m->depth++] = t;
	return 0;
}

static int pick(struct machine *m, uint64_t below)
{
	return below < m->depth ? push(m, m->stack[m->depth - 1 - below]) : -EINVAL;
}

static int push_register(struct machine *m, uint64_t reg)
{
	struct dc_term t = {0};
	int r = dc_term_register(m->terms, reg, &t);

	t.offset += (uint64_t)dc_bytes_sleb(&m->next);
	return r < 0 ? r : push(m, t);
}

static int jump(struct machine *m, bool taken)
{
	int64_t distance = dc_bytes_signed(&m->next, 2);

	if (!taken)
		return 0;
	if (distance > m->next.end - m->next.at || distance < m->code - m->next.at)
		return -EINVAL;
	m->next.at += distance;
	return 0;
}

static int load(struct machine *m, uint64_t width)
{
	struct dc_term *top = &m->stack[m->depth - 1];
	int r = width == 0 || width > 8 ? -EINVAL : dc_term_load(m->terms, *top, top);

	if (r == 0 && width < 8) {
		if (top->base != DC_TERM_NUMBER)
			return -EOPNOTSUPP;
		top->offset &= (UINT64_C(1) << 8 * width) - 1;
	}
	return r;
}

static bool compare(unsigned op, int64_t a, int64_t b)
{
	switch (op) {
	case OP_EQ:
		return a == b;
	case OP_GE:
		return a >= b;
	case OP_GT:
		return a > b;
	case OP_LE:
		return a <= b;
	case OP_LT:
		return a < b;
	default:
		return a != b;
	}
}

/* -1 is set apart: the least number has no opposite. */
static uint64_t divide(uint64_t a, uint64_t b)
{
	return b == UINT64_MAX ? 0 - a : (uint64_t)((int64_t)a / (int64_t)b);
}

static int of_two_numbers(unsigned op, uint64_t a, uint64_t b, uint64_t *ret_value)
{
	const bool wide = b >= 64;

	if ((op == OP_DIV || op == OP_MOD) && b == 0)
		return -EINVAL;
	switch (op) {
	case OP_AND:
		*ret_value = a & b;
		break;
	case OP_DIV:
		*ret_value = divide(a, b);
		break;
	case OP_MOD:
		*ret_value = a % b;
		break;
	case OP_MUL:
		*ret_value = a * b;
		break;
	case OP_OR:
		*ret_value = a | b;
		break;
	case OP_SHL:
		*ret_value = wide ? 0 : a << b;
		break;
	case OP_SHR:
		*ret_value = wide ? 0 : a >> b;
		break;
	case OP_SHRA:
		*ret_value = (uint64_t)((int64_t)a >> (wide ? 63 : b));
		break;
	case OP_XOR:
		*ret_value = a ^ b;
		break;
	default:
		*ret_value = compare(op, (int64_t)a, (int64_t)b);
	}
	return 0;
}

static int of_two(struct machine *m, unsigned op)
{
	struct dc_term b = m->stack[--m->depth], *a = &m->stack[m->depth - 1];

	if (op == OP_PLUS && a->base == DC_TERM_NUMBER)
		*a = (struct dc_term){a->offset + b.offset, b.base};
	else if (op == OP_PLUS && b.base == DC_TERM_NUMBER)
		a->offset += b.offset;
	else if (op == OP_MINUS && b.base == DC_TERM_NUMBER)
		a->offset -= b.offset;
	else if (a->base != DC_TERM_NUMBER || b.base != DC_TERM_NUMBER)
		return -EOPNOTSUPP;
	else
		return of_two_numbers(op, a->offset, b.offset, &a->offset);
	return 0;
}

static int of_one(struct machine *m, unsigned op)
{
	struct dc_term *top = &m->stack[m->depth - 1];

	if (top->base != DC_TERM_NUMBER)
		return -EOPNOTSUPP;
	if (op == OP_NOT)
		top->offset = ~top->offset;
	else if (op == OP_NEG || (int64_t)top->offset < 0)
		top->offset = 0 - top->offset;
	return 0;
}

static int branch(struct machine *m)
{
	struct dc_term condition = m->stack[--m->depth];

	return condition.base == DC_TERM_NUMBER ? jump(m, condition.offset != 0) : -EOPNOTSUPP;
}

/* The upmost @count, the top one to the bottom. */
static int rotate(struct machine *m, unsigned count)
{
	struct dc_term *low = &m->stack[m->depth - count], top = m->stack[m->depth - 1];

	memmove(low + 1, low, (count - 1) * sizeof *low);
	*low = top;
	return 0;
}

static unsigned operands_of(unsigned op)
{
	switch (op) {
	case OP_DEREF:
	case OP_DEREF_SIZE:
	case OP_DUP:
	case OP_DROP:
	case OP_ABS:
	case OP_NEG:
	case OP_NOT:
	case OP_PLUS_UCONST:
	case OP_BRA:
		return 1;
	case OP_OVER:
	case OP_SWAP:
		return 2;
	case OP_ROT:
		return 3;
	default:
		return op >= OP_AND && op <= OP_NE ? 2 : 0;
	}
}

static int constant(struct machine *m, unsigned op)
{
	unsigned width = 1u << (op - OP_CONST1U) / 2;
	bool is_signed = (op - OP_CONST1U) % 2;

	return push(
		m, number(is_signed ? (uint64_t)dc_bytes_signed(&m->next, width) : dc_bytes_unsigned(&m->next, width)));
}

static int step(struct machine *m)
{
	unsigned op = (unsigned)dc_bytes_unsigned(&m->next, 1);

	if (m->depth < operands_of(op))
		return -EINVAL;
	if (op >= OP_CONST1U && op <= OP_CONST8S)
		return constant(m, op);
	if (op >= OP_LIT0 && op <= OP_LIT31)
		return push(m, number(op - OP_LIT0));
	if (op >= OP_BREG0 && op <= OP_BREG31)
		return push_register(m, op - OP_BREG0);
	switch (op) {
	case OP_DEREF:
		return load(m, 8);
	case OP_DEREF_SIZE:
		return load(m, dc_bytes_unsigned(&m->next, 1));
	case OP_CONSTU:
		return push(m, number(dc_bytes_uleb(&m->next)));
	case OP_CONSTS:
		return push(m, number((uint64_t)dc_bytes_sleb(&m->next)));
	case OP_DUP:
		return pick(m, 0);
	case OP_DROP:
		m->depth--;
		return 0;
	case OP_OVER:
		return pick(m, 1);
	case OP_PICK:
		return pick(m, dc_bytes_unsigned(&m->next, 1));
	case OP_SWAP:
		return rotate(m, 2);
	case OP_ROT:
		return rotate(m, 3);
	case OP_ABS:
	case OP_NEG:
	case OP_NOT:
		return of_one(m, op);
	case OP_PLUS_UCONST:
		m->stack[m->depth - 1].offset += dc_bytes_uleb(&m->next);
		return 0;
	case OP_BRA:
		return branch(m);
	case OP_SKIP:
		return jump(m, true);
	case OP_BREGX:
		return push_register(m, dc_bytes_uleb(&m->next));
	case OP_NOP:
		return 0;
	default: /* DW_OP_addr is the file's, not the process's: no compiler writes it here */
		return op >= OP_AND && op <= OP_NE ? of_two(m, op) : -EINVAL;
	}
}

int dc_expression(const struct dc_terms *t, const uint8_t *code, uint64_t bytes, const struct dc_term *first,
		  struct dc_term *ret_term)
{
	struct machine m = {.terms = t, .code = code, .next = {.at = code, .end = code + bytes}};
	int r = 0;

	if (first)
		m.stack[m.depth++] = *first;
	for (unsigned i = 0; m.next.at < m.next.end && r == 0; i++)
		r = i < STEPS_MAX ? step(&m) : -EINVAL;
	if (r == 0 && (m.next.failed || !m.depth))
		r = -EINVAL;
	if (r == 0)
		*ret_term = m.stack[m.depth - 1];
	return r;
}
