/* SPDX-License-Identifier: MIT */
#include "tests/stackmaker.h"

#include <stdlib.h>
#include <string.h>

void blob_add(struct blob *b, const void *bytes, size_t size)
{
	b->bytes = realloc(b->bytes, b->size + size + 1);
	if (!b->bytes)
		abort();
	if (size)
		memcpy(b->bytes + b->size, bytes, size);
	b->size += size;
}

void blob_free(struct blob *b)
{
	free(b->bytes);
	*b = (struct blob){0};
}

int blob_write(struct blob *b, struct dc_writer *w, uint16_t type, uint32_t process)
{
	int r = dc_writer_block(w, type, process, b->bytes, b->size);

	blob_free(b);
	return r;
}

static void add_padded(struct blob *b, const void *bytes, size_t size)
{
	static const uint8_t zeros[8];

	blob_add(b, bytes, size);
	blob_add(b, zeros, -size & 7);
}

/* Adds a text to @texts. Return: where. */
static uint32_t add_text(struct blob *texts, const char *text)
{
	uint32_t at = (uint32_t)texts->size;

	if (!text || !text[0])
		return 0;
	blob_add(texts, text, strlen(text) + 1);
	return at;
}

void maker_maps(struct blob *b, uint32_t first, const struct maker_map *maps, uint32_t count)
{
	struct blob entries = {0}, texts = {0};
	struct dc_maps_block head = {.first = first, .count = count};

	blob_add(&texts, "", 1);
	for (uint32_t i = 0; i < count; i++) {
		struct dc_map_entry e = {.start = maps[i].start,
					 .end = maps[i].end,
					 .offset = maps[i].offset,
					 .from_ns = maps[i].from_ns,
					 .until_ns = maps[i].until_ns,
					 .flags = maps[i].flags,
					 .build_id_bytes = maps[i].build_id_bytes};
		e.path = add_text(&texts, maps[i].path);
		if (maps[i].build_id)
			memcpy(e.build_id, maps[i].build_id, maps[i].build_id_bytes);
		blob_add(&entries, &e, sizeof e);
	}
	head.strings_bytes = (uint32_t)texts.size;
	blob_add(b, &head, sizeof head);
	blob_add(b, entries.bytes, entries.size);
	blob_add(b, texts.bytes, texts.size);
	blob_free(&entries);
	blob_free(&texts);
}

void maker_sample(struct blob *b, const struct maker_sample *s)
{
	struct dc_sample head = {.kind = s->kind,
				 .flags = s->flags,
				 .tid = s->tid,
				 .cpu = ~0u,
				 .monotonic_ns = s->at_ns,
				 .weight_ns = s->weight_ns,
				 .stack = s->stack,
				 .ip_count = s->ip_count,
				 .stack_bytes = s->byte_count,
				 .reg_count = s->reg_count,
				 .extra_bytes = s->extra_bytes};
	const size_t at = b->size;

	blob_add(b, &head, sizeof head);
	blob_add(b, s->ips, 8 * (size_t)s->ip_count);
	blob_add(b, s->regs, 8 * (size_t)s->reg_count);
	add_padded(b, s->bytes, s->byte_count);
	add_padded(b, s->extra, s->extra_bytes);
	head.bytes = (uint32_t)(b->size - at);
	memcpy(b->bytes + at, &head, sizeof head);
}

void maker_stacks(struct blob *b, uint32_t first, const uint32_t *numbers, uint32_t count)
{
	const struct dc_stacks_block head = {.first = first, .count = count};

	blob_add(b, &head, sizeof head);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t n = 0;

		while (numbers[n])
			n++;
		blob_add(b, &n, sizeof n);
		blob_add(b, numbers, n * sizeof n);
		numbers += n + 1;
	}
}

void maker_frames(struct blob *b, uint32_t first, const struct dc_frame *frames, uint32_t count)
{
	const struct dc_frames_block head = {.first = first, .count = count};

	blob_add(b, &head, sizeof head);
	blob_add(b, frames, count * sizeof *frames);
}

void maker_names(struct blob *b, uint32_t first, const struct maker_name *names, uint32_t count)
{
	struct blob entries = {0}, texts = {0};
	struct dc_names_block head = {.first = first, .count = count};

	blob_add(&texts, "", 1);
	for (uint32_t i = 0; i < count; i++) {
		struct dc_name n = {.line = names[i].line, .outer = names[i].outer, .start = names[i].start};

		n.function = add_text(&texts, names[i].function);
		n.file = add_text(&texts, names[i].file);
		blob_add(&entries, &n, sizeof n);
	}
	head.strings_bytes = (uint32_t)texts.size;
	blob_add(b, &head, sizeof head);
	blob_add(b, entries.bytes, entries.size);
	blob_add(b, texts.bytes, texts.size);
	blob_free(&entries);
	blob_free(&texts);
}
