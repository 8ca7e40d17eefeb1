/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "persist/stacks/symbol_table.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define NONE UINT32_MAX
#define ACTIVE_MAX 64u /* symbols over one address; more than a handful is nonsense, and would cost n squared */

struct segment { /* from here to the next one */
	uint64_t start;
	uint32_t symbol;
};

struct dc_symbol_table {
	struct dc_table_symbol *symbols;
	uint32_t count;
	uint32_t room;
	struct segment *segments;
	uint32_t segment_count;
	uint32_t segment_room;
};

/* What lies over the address that the layout has come to. */
struct sweep {
	const struct dc_symbol_table *t;
	uint32_t active[ACTIVE_MAX];
	unsigned active_count;
	uint64_t reach; /* the furthest end of all that began */
	uint32_t label; /* the one without a size that may count, or NONE */
};

int dc_symbol_table_new(struct dc_symbol_table **ret_table)
{
	struct dc_symbol_table *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	*ret_table = t;
	return 0;
}

void dc_symbol_table_free(struct dc_symbol_table *t)
{
	if (!t)
		return;
	free(t->segments);
	free(t->symbols);
	free(t);
}

int dc_symbol_table_add(struct dc_symbol_table *t, const struct dc_table_symbol *symbol)
{
	if (t->count == DC_TABLE_SYMBOLS_MAX)
		return -E2BIG;
	if (GROW(t->symbols, t->count, t->room, 1024) < 0)
		return -ENOMEM;
	t->symbols[t->count++] = *symbol;
	return 0;
}

static uint64_t end_of(const struct dc_table_symbol *s)
{
	return s->size > UINT64_MAX - s->start ? UINT64_MAX : s->start + s->size;
}

/* The rules of libdwfl's try_sym_value(), for two that both have a size and cover the address; @best was found first. */
static bool better(const struct dc_table_symbol *s, const struct dc_table_symbol *best)
{
	if (best->start < s->start || best->binding < s->binding)
		return true;
	if (best->start != s->start)
		return false;
	return best->size > s->size && best->binding <= s->binding;
}

/* @active is in no order, "first" is that of the file: so the best is looked for in ascending numbers. */
static uint32_t best_of(const struct sweep *w, bool local)
{
	uint32_t best = NONE;

	for (unsigned i = 0; i < w->active_count; i++) {
		uint32_t n = w->active[i];

		if (w->t->symbols[n].local == local &&
		    (best == NONE || better(&w->t->symbols[n], &w->t->symbols[best])))
			best = n;
	}
	return best;
}

static void leave(struct sweep *w, uint64_t at)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < w->active_count; i++)
		if (end_of(&w->t->symbols[w->active[i]]) > at)
			w->active[kept++] = w->active[i];
	w->active_count = kept;
}

/* Kept sorted by number. */
static void enter_sized(struct sweep *w, uint32_t n)
{
	unsigned i = w->active_count;

	if (i == ACTIVE_MAX)
		return;
	for (; i > 0 && w->active[i - 1] > n; i--)
		w->active[i] = w->active[i - 1];
	w->active[i] = n;
	w->active_count++;
}

static bool label_before(const struct sweep *w, uint32_t n)
{
	const struct dc_table_symbol *s = &w->t->symbols[n], *old;

	if (w->label == NONE)
		return true;
	old = &w->t->symbols[w->label];
	return old->start < s->start || s->local > old->local || (s->local == old->local && n > w->label);
}

static void enter(struct sweep *w, uint32_t n)
{
	const struct dc_table_symbol *s = &w->t->symbols[n];

	if (end_of(s) > w->reach)
		w->reach = end_of(s);
	if (s->size)
		enter_sized(w, n);
	else if (w->reach == s->start && label_before(w, n))
		w->label = n;
	if (w->label != NONE && w->t->symbols[w->label].start < w->reach)
		w->label = NONE;
}

static uint32_t winner(const struct sweep *w)
{
	uint32_t n = best_of(w, false);

	if (n == NONE)
		n = best_of(w, true);
	return n == NONE ? w->label : n;
}

static uint64_t next_end(const struct sweep *w)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < w->active_count; i++)
		if (end_of(&w->t->symbols[w->active[i]]) < next)
			next = end_of(&w->t->symbols[w->active[i]]);
	return next;
}

static int emit(struct dc_symbol_table *t, uint64_t start, uint32_t symbol)
{
	uint32_t last = t->segment_count ? t->segments[t->segment_count - 1].symbol : NONE;

	if (symbol == last)
		return 0;
	if (GROW(t->segments, t->segment_count, t->segment_room, 1024) < 0)
		return -ENOMEM;
	t->segments[t->segment_count++] = (struct segment){.start = start, .symbol = symbol};
	return 0;
}

/* One that has no size ends with its section. */
static int emit_winner(struct dc_symbol_table *t, uint64_t start, uint64_t next, uint32_t n)
{
	int r;

	if (n == NONE || t->symbols[n].size || t->symbols[n].limit >= next)
		return emit(t, start, n);
	if (t->symbols[n].limit <= start)
		return emit(t, start, NONE);
	r = emit(t, start, n);
	return r < 0 ? r : emit(t, t->symbols[n].limit, NONE);
}

static int by_start(const void *left, const void *right, void *arg)
{
	const struct dc_table_symbol *symbols = arg;
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	if (symbols[a].start != symbols[b].start)
		return symbols[a].start < symbols[b].start ? -1 : 1;
	return a < b ? -1 : a > b;
}

static int lay_out(struct dc_symbol_table *t, const uint32_t *order)
{
	struct sweep w = {.t = t, .label = NONE};
	uint32_t i = 0;
	int r = 0;

	while (r == 0 && (i < t->count || w.active_count)) {
		uint64_t at = next_end(&w), next;

		if (i < t->count && t->symbols[order[i]].start < at)
			at = t->symbols[order[i]].start;
		if (at == UINT64_MAX)
			break;
		leave(&w, at);
		for (; i < t->count && t->symbols[order[i]].start == at; i++)
			enter(&w, order[i]);
		next = next_end(&w);
		if (i < t->count && t->symbols[order[i]].start < next)
			next = t->symbols[order[i]].start;
		r = emit_winner(t, at, next, winner(&w));
	}
	return r;
}

int dc_symbol_table_build(struct dc_symbol_table *t)
{
	CLEANUP(free) uint32_t *order = malloc(((size_t)t->count + 1) * sizeof *order);

	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->count; i++)
		order[i] = i;
	qsort_r(order, t->count, sizeof *order, by_start, t->symbols);
	return lay_out(t, order);
}

const struct dc_table_symbol *dc_symbol_table_at(const struct dc_symbol_table *t, uint64_t address)
{
	uint32_t low = 0,
		 high = t->segment_count; /* the answer is before @high; everything before @low is at or below */

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (t->segments[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || t->segments[low - 1].symbol == NONE)
		return NULL;
	return &t->symbols[t->segments[low - 1].symbol];
}
