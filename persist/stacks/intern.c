/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "persist/stacks/intern.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "persist/block.h"

static int rehash(struct dc_intern *t)
{
	const uint32_t count = t->slot_count ? 2 * t->slot_count : 1024;
	uint32_t *slots = calloc(count, sizeof *slots);

	if (!slots)
		return -ENOMEM;
	for (uint32_t n = 1; n <= t->count; n++) {
		uint32_t i = (uint32_t)t->items[n - 1].hash & (count - 1);

		while (slots[i])
			i = (i + 1) & (count - 1);
		slots[i] = n;
	}
	free(t->slots);
	t->slots = slots;
	t->slot_count = count;
	return 0;
}

/* Return: the slot where the bytes are, or a free one where they belong. */
static uint32_t find(const struct dc_intern *t, const void *bytes, uint32_t size, uint64_t hash)
{
	uint32_t i = (uint32_t)hash & (t->slot_count - 1);

	for (; t->slots[i]; i = (i + 1) & (t->slot_count - 1)) {
		const struct dc_intern_item *item = &t->items[t->slots[i] - 1];

		if (item->hash == hash && item->size == size && memcmp(t->bytes + item->at, bytes, size) == 0)
			break;
	}
	return i;
}

static int reserve(struct dc_intern *t, size_t size)
{
	if (t->room - t->used < size + 8) {
		size_t room = 2 * t->room + size + 4096;
		uint8_t *more = realloc(t->bytes, room);

		if (!more)
			return -ENOMEM;
		t->bytes = more;
		t->room = room;
	}
	if (GROW(t->items, t->count, t->item_room, 256) < 0)
		return -ENOMEM;
	return 0;
}

int dc_intern_put(struct dc_intern *t, const void *bytes, uint32_t size, uint32_t *ret_number)
{
	const uint64_t hash = dc_checksum(bytes, size);
	uint32_t slot;

	if (t->count >= t->slot_count / 4 * 3 && rehash(t) < 0)
		return -ENOMEM;
	slot = find(t, bytes, size, hash);
	if (t->slots[slot]) {
		*ret_number = t->slots[slot];
		return 0;
	}
	if (reserve(t, size) < 0)
		return -ENOMEM;
	memcpy(t->bytes + t->used, bytes, size);
	t->items[t->count++] = (struct dc_intern_item){.hash = hash, .at = t->used, .size = size};
	t->used += (size + 7u) & ~(size_t)7;
	*ret_number = t->slots[slot] = t->count;
	return 1;
}

void *dc_intern_get(const struct dc_intern *t, uint32_t number, uint32_t *ret_size)
{
	const struct dc_intern_item *item = &t->items[number - 1];

	if (ret_size)
		*ret_size = item->size;
	return t->bytes + item->at;
}

size_t dc_intern_bytes(const struct dc_intern *t)
{
	return t->used + t->count * sizeof *t->items;
}

void dc_intern_fini(struct dc_intern *t)
{
	free(t->slots);
	free(t->items);
	free(t->bytes);
	*t = (struct dc_intern){0};
}
