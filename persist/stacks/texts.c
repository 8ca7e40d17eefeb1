/* SPDX-License-Identifier: MIT */
#include "persist/stacks/texts.h"

#include <errno.h>
#include <string.h>

#define PIECE_BYTES 65536u

struct piece { /* texts lie here, one after the other, and never move */
	struct piece *next;
	size_t used;
	size_t room;
	char bytes[];
};

struct dc_texts {
	size_t bytes_max;
	size_t bytes;
	struct piece *pieces;
	const char **at; /* by number */
	uint32_t count;
	uint32_t room;
	uint32_t *slots; /* open addressing, numbers, 0: free */
	uint32_t slot_count; /* a power of two, at least twice @count */
};

static uint32_t hash(const char *text, size_t length)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a, eight bytes a step */

	for (; length >= 8; text += 8, length -= 8) {
		uint64_t word;

		memcpy(&word, text, 8);
		h = (h ^ word) * UINT64_C(0x100000001b3);
		h ^= h >> 29;
	}
	for (; length; text++, length--)
		h = (h ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
	return (uint32_t)(h ^ h >> 32);
}

int dc_texts_new(size_t bytes_max, struct dc_texts **ret_texts)
{
	CLEANUP(dc_texts) struct dc_texts *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	t->bytes_max = bytes_max;
	t->room = 512;
	t->slot_count = 1024;
	t->at = calloc(t->room, sizeof *t->at);
	t->slots = calloc(t->slot_count, sizeof *t->slots);
	if (!t->at || !t->slots)
		return -ENOMEM;
	t->at[0] = "";
	t->count = 1;
	*ret_texts = TAKE(t);
	return 0;
}

void dc_texts_free(struct dc_texts *t)
{
	if (!t)
		return;
	for (struct piece *p = t->pieces, *next; p; p = next) {
		next = p->next;
		free(p);
	}
	free(t->slots);
	free(t->at);
	free(t);
}

static int grow(struct dc_texts *t)
{
	uint32_t room = t->room * 2, slot_count = t->slot_count * 2;
	const char **at = realloc(t->at, room * sizeof *at);
	uint32_t *slots;

	if (!at)
		return -ENOMEM;
	t->at = at;
	slots = calloc(slot_count, sizeof *slots);
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 1; i < t->count; i++) {
		uint32_t slot = hash(at[i], strlen(at[i])) & (slot_count - 1);

		while (slots[slot])
			slot = (slot + 1) & (slot_count - 1);
		slots[slot] = i;
	}
	free(t->slots);
	t->slots = slots;
	t->slot_count = slot_count;
	t->room = room;
	return 0;
}

static char *reserve(struct dc_texts *t, size_t bytes)
{
	struct piece *p = t->pieces;

	if (bytes > t->bytes_max - t->bytes)
		return NULL;
	if (!p || p->room - p->used < bytes) {
		size_t room = bytes > PIECE_BYTES ? bytes : PIECE_BYTES;

		p = malloc(sizeof *p + room);
		if (!p)
			return NULL;
		*p = (struct piece){.next = t->pieces, .room = room};
		t->pieces = p;
	}
	p->used += bytes;
	t->bytes += bytes;
	return p->bytes + p->used - bytes;
}

uint32_t dc_texts_add(struct dc_texts *t, const char *text)
{
	size_t length = text ? strnlen(text, DC_TEXT_BYTES_MAX) : 0;
	uint32_t slot = hash(text, length) & (t->slot_count - 1), number;
	char *copy;

	if (!length)
		return 0;
	for (; (number = t->slots[slot]); slot = (slot + 1) & (t->slot_count - 1))
		if (strncmp(t->at[number], text, length) == 0 && !t->at[number][length])
			return number;
	if (t->count == t->room)
		return grow(t) < 0 ? 0 : dc_texts_add(t, text);
	copy = reserve(t, length + 1);
	if (!copy)
		return 0;
	memcpy(copy, text, length);
	copy[length] = 0;
	t->at[t->count] = copy;
	t->slots[slot] = t->count;
	return t->count++;
}

const char *dc_texts_at(const struct dc_texts *t, uint32_t number)
{
	return number < t->count ? t->at[number] : "";
}

uint32_t dc_texts_count(const struct dc_texts *t)
{
	return t->count;
}
