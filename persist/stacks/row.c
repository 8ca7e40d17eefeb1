/* SPDX-License-Identifier: MIT */
#include "persist/stacks/row.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_FIRST 1024u
#define SLOTS_MAX (1u << 20) /* 16 MiB, and rows of about 50 bytes each for half of them */

struct dc_row_slot {
	uint64_t key;
	uint64_t at; /* in the store, plus 1; 0: free */
};

bool dc_row_read(struct dc_row_stack *stack, uint64_t address, uint64_t *ret_value)
{
	uint64_t at = address - stack->from;

	if (at >= stack->size || stack->size - at < sizeof *ret_value)
		return false;
	memcpy(ret_value, stack->bytes + at, sizeof *ret_value);
	if (stack->used < at + sizeof *ret_value)
		stack->used = at + sizeof *ret_value;
	return true;
}

static uint64_t value_of(const struct dc_row_state *s, const struct dc_rule *r)
{
	return s->values[r->base] + (uint64_t)(int64_t)r->offset;
}

/*
 * Loads from below the stack pointer, where no copy reaches: an epilogue has popped that word already, but the tables go on
 * naming where it lay, as the word is still there. The register that it belongs to has it.
 */
static bool was_popped(const struct dc_row *row, const struct dc_row_state *s, const struct dc_rule *set)
{
	const struct dc_rule *load = &row->rules[set->base - DC_REGS];

	return s->known[load->base] && s->known[DC_REG_SP] && value_of(s, load) < s->values[DC_REG_SP];
}

void dc_row_apply(const struct dc_row *row, struct dc_row_state *s, struct dc_row_stack *stack)
{
	const struct dc_rule *sets = row->rules + row->loads;
	uint64_t values[DC_REGS];
	bool known[DC_REGS];

	for (unsigned i = 0; i < row->loads; i++) {
		const struct dc_rule *r = &row->rules[i];
		s->known[DC_REGS + i] = s->known[r->base] &&
					dc_row_read(stack, value_of(s, r), &s->values[DC_REGS + i]);
	}
	/* All from the old values, so all before the first is set. */
	for (unsigned i = 0; i < row->sets; i++) {
		const struct dc_rule *r = &sets[i];
		known[i] = r->base != DC_ROW_UNKNOWN && s->known[r->base];
		values[i] = known[i] ? value_of(s, r) : 0;
		if (!known[i] && r->base != DC_ROW_UNKNOWN && r->base >= DC_REGS && r->target != DC_REG_PC &&
		    was_popped(row, s, r)) {
			known[i] = s->known[r->target];
			values[i] = s->values[r->target];
		}
	}
	for (unsigned i = 0; i < row->sets; i++) {
		s->values[sets[i].target] = values[i];
		s->known[sets[i].target] = known[i];
	}
}

void dc_row_table_fini(struct dc_row_table *t)
{
	free(t->slots);
	free(t->store);
	*t = (struct dc_row_table){0};
}

static struct dc_row_slot *slot_of(const struct dc_row_table *t, uint64_t key)
{
	uint32_t i = (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32);

	for (;; i++) {
		struct dc_row_slot *s = &t->slots[i & (t->room - 1)];
		if (!s->at || s->key == key)
			return s;
	}
}

const struct dc_row *dc_row_find(const struct dc_row_table *t, uint64_t key)
{
	const struct dc_row_slot *s = t->room ? slot_of(t, key) : NULL;

	return s && s->at ? (const void *)(t->store + s->at - 1) : NULL;
}

static int slots_grow(struct dc_row_table *t)
{
	struct dc_row_table old = *t;

	if (t->room == SLOTS_MAX) {
		memset(t->slots, 0, t->room * sizeof *t->slots);
		t->count = 0;
		t->store_bytes = 0;
		return 0;
	}
	t->room = old.room ? old.room * 4 : SLOTS_FIRST;
	t->slots = calloc(t->room, sizeof *t->slots);
	if (!t->slots) {
		*t = old;
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < old.room; i++)
		if (old.slots[i].at)
			*slot_of(t, old.slots[i].key) = old.slots[i];
	free(old.slots);
	return 0;
}

static int store_grow(struct dc_row_table *t, uint64_t bytes)
{
	uint64_t room = t->store_room ? t->store_room * 2 : 1u << 16;

	if (t->store_room - t->store_bytes >= bytes)
		return 0;
	uint8_t *store = realloc(t->store, room);
	if (!store)
		return -ENOMEM;
	t->store = store;
	t->store_room = room;
	return 0;
}

int dc_row_add(struct dc_row_table *t, uint64_t key, const struct dc_row *row)
{
	/* A multiple of 4, which is what its members are aligned to. */
	uint64_t bytes = offsetof(struct dc_row, rules) + (row->loads + row->sets) * sizeof row->rules[0];
	int r = t->count >= t->room / 2 ? slots_grow(t) : 0;

	if (r < 0 || (r = store_grow(t, bytes)) < 0)
		return r;
	struct dc_row_slot *s = slot_of(t, key);
	memcpy(t->store + t->store_bytes, row, bytes);
	*s = (struct dc_row_slot){key, t->store_bytes + 1};
	t->store_bytes += bytes;
	t->count++;
	return 0;
}
