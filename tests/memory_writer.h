/* SPDX-License-Identifier: MIT */
/*
 * The capture writer's interface (persist/writer.h) on memory, for tests and fuzzers of what feeds it.
 * Include it in one file of a program: its functions take the place of the library's.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "persist/writer.h"

struct memory_block {
	uint16_t type;
	uint32_t process;
	size_t bytes;
	uint8_t *payload;
};

struct dc_writer {
	int error; /* set it to see errors travel */
	unsigned count;
	struct memory_block blocks[4096];
	uint64_t chunks, events, raw_bytes;
	unsigned hurried; /* how often a block was asked for in a hurry */
	bool hurry;
	uint64_t expected;
	void (*between)(void *arg); /* called after each reserve: a test's chance to change the ring under the
				       reader */
	void *between_arg;
	uint8_t buffer[DC_WRITER_PAYLOAD_MAX] __attribute__((aligned(64)));
};

int dc_writer_error(const struct dc_writer *w)
{
	return w->error;
}

int dc_writer_block(struct dc_writer *w, uint16_t type, uint32_t process, const void *payload, size_t bytes)
{
	struct memory_block *b = &w->blocks[w->count];

	if (w->error)
		return w->error;
	if (w->count == sizeof(w->blocks) / sizeof(w->blocks[0]))
		return w->error = -28; /* ENOSPC */
	*b = (struct memory_block){
		.type = type, .process = process, .bytes = bytes, .payload = malloc(bytes + 1)};
	memcpy(b->payload, payload, bytes);
	w->count++;
	return 0;
}

void *dc_writer_reserve(struct dc_writer *w)
{
	if (w->between)
		w->between(w->between_arg);
	w->hurried += w->hurry;
	return w->error ? NULL : w->buffer;
}

void dc_writer_expect(struct dc_writer *w, uint64_t bytes)
{
	w->expected = bytes;
}

void dc_writer_hurry(struct dc_writer *w, bool hurry)
{
	w->hurry = hurry;
}

int dc_writer_commit(struct dc_writer *w, uint16_t type, uint32_t process, size_t bytes)
{
	return dc_writer_block(w, type, process, w->buffer, bytes);
}

void dc_writer_count(struct dc_writer *w, uint64_t chunks, uint64_t events, uint64_t raw_bytes)
{
	w->chunks += chunks;
	w->events += events;
	w->raw_bytes += raw_bytes;
}

static inline void memory_writer_reset(struct dc_writer *w)
{
	for (unsigned i = 0; i < w->count; i++)
		free(w->blocks[i].payload);
	w->count = 0;
	w->chunks = w->events = w->raw_bytes = 0;
	w->error = 0;
	w->hurried = 0;
}
