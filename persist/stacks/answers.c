/* SPDX-License-Identifier: MIT */
#include "persist/stacks/answers.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FREE UINT32_MAX

struct dc_answers {
	struct dc_answer *list; /* as they came */
	uint32_t count;
	uint32_t room;
	uint32_t *slots; /* open addressing: numbers in the list, FREE */
	uint32_t slot_count; /* a power of two, at least twice @room */
	struct dc_level *levels; /* never NULL */
	uint32_t level_count;
	uint32_t level_room;
};

static uint32_t slot_of(const struct dc_answers *a, uint64_t vaddr)
{
	uint32_t slot = (uint32_t)((vaddr * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (a->slot_count - 1);

	while (a->slots[slot] != FREE && a->list[a->slots[slot]].vaddr != vaddr)
		slot = (slot + 1) & (a->slot_count - 1);
	return slot;
}

static int resize(struct dc_answers *a, uint32_t room)
{
	struct dc_answer *list = realloc(a->list, room * sizeof *list);
	uint32_t *slots;

	if (!list)
		return -ENOMEM;
	a->list = list;
	slots = malloc(2 * (size_t)room * sizeof *slots);
	if (!slots)
		return -ENOMEM;
	memset(slots, 0xff, 2 * (size_t)room * sizeof *slots);
	free(a->slots);
	a->slots = slots;
	a->slot_count = 2 * room;
	a->room = room;
	for (uint32_t i = 0; i < a->count; i++)
		slots[slot_of(a, list[i].vaddr)] = i;
	return 0;
}

static int reserve_levels(struct dc_answers *a, uint32_t count)
{
	uint32_t room = a->level_room;
	struct dc_level *levels;

	while (room - a->level_count < count) {
		if (room > UINT32_MAX / 2)
			return -ENOMEM;
		room *= 2;
	}
	if (room == a->level_room)
		return 0;
	levels = realloc(a->levels, room * sizeof *levels);
	if (!levels)
		return -ENOMEM;
	a->levels = levels;
	a->level_room = room;
	return 0;
}

int dc_answers_new(struct dc_answers **ret_answers)
{
	CLEANUP(dc_answers) struct dc_answers *a = calloc(1, sizeof *a);

	if (!a)
		return -ENOMEM;
	a->level_room = 256;
	a->levels = calloc(a->level_room, sizeof *a->levels);
	if (!a->levels || resize(a, 256) < 0)
		return -ENOMEM;
	*ret_answers = TAKE(a);
	return 0;
}

void dc_answers_free(struct dc_answers *a)
{
	if (!a)
		return;
	free(a->levels);
	free(a->slots);
	free(a->list);
	free(a);
}

const struct dc_level *dc_answers_find(const struct dc_answers *a, uint64_t vaddr, uint32_t *ret_count)
{
	uint32_t number = a->slots[slot_of(a, vaddr)];

	if (number == FREE)
		return NULL;
	*ret_count = a->list[number].count;
	return a->levels + a->list[number].first;
}

int dc_answers_add(struct dc_answers *a, uint64_t vaddr, const struct dc_level *levels, uint32_t count)
{
	if (a->count == a->room && (a->room > UINT32_MAX / 4 || resize(a, a->room * 2) < 0))
		return -ENOMEM;
	if (reserve_levels(a, count) < 0)
		return -ENOMEM;
	if (count)
		memcpy(a->levels + a->level_count, levels, count * sizeof *levels);
	a->list[a->count] = (struct dc_answer){.vaddr = vaddr, .first = a->level_count, .count = count};
	a->slots[slot_of(a, vaddr)] = a->count++;
	a->level_count += count;
	return 0;
}

void dc_answers_forget(struct dc_answers *a)
{
	memset(a->slots, 0xff, a->slot_count * sizeof *a->slots);
	a->count = 0;
	a->level_count = 0;
}

uint32_t dc_answers_count(const struct dc_answers *a)
{
	return a->count;
}

uint32_t dc_answers_level_count(const struct dc_answers *a)
{
	return a->level_count;
}

static int by_address(const void *left, const void *right)
{
	const struct dc_answer *a = left, *b = right;

	return a->vaddr < b->vaddr ? -1 : a->vaddr > b->vaddr;
}

int dc_answers_sorted(const struct dc_answers *a, struct dc_answer **ret_list)
{
	struct dc_answer *list = malloc((a->count + 1) * sizeof *list);

	if (!list)
		return -ENOMEM;
	memcpy(list, a->list, a->count * sizeof *list);
	qsort(list, a->count, sizeof *list, by_address);
	*ret_list = list;
	return 0;
}
