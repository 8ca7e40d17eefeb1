/* SPDX-License-Identifier: MIT */
#include "trigger/threads_inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/now.h"
#include "ipc/round.h"

void dc_taking_flush(struct taking *t)
{
	if (t->block && t->writer && t->result == 0)
		t->result = dc_writer_commit(t->writer, DC_BLOCK_SAMPLES, t->process, t->block_bytes);
	else if (t->block && t->threads)
		t->threads->bytes[t->threads->count++] = t->block_bytes;
	t->block = NULL;
	t->block_bytes = 0;
}

static uint8_t *new_block(struct taking *t)
{
	uint8_t *block;

	if (!t->writer)
		return t->threads->count < KEPT_MAX ? t->threads->blocks[t->threads->count] = malloc(DC_WRITER_PAYLOAD_MAX) : NULL;
	block = dc_writer_reserve(t->writer);
	if (!block)
		t->result = dc_writer_error(t->writer) < 0 ? dc_writer_error(t->writer) : -ENOMEM;
	return block;
}

/* The last block is for those of which nothing is copied any more. */
bool dc_taking_room_left(const struct taking *t)
{
	return t->writer || t->threads->count + 1 < KEPT_MAX;
}

/* Room for @bytes in the block being filled. */
static uint8_t *room_for(struct taking *t, size_t bytes)
{
	uint8_t *at;

	if (t->block_bytes + bytes > DC_WRITER_PAYLOAD_MAX)
		dc_taking_flush(t);
	if (!t->block && t->result == 0)
		t->block = new_block(t);
	if (!t->block)
		return NULL;
	at = t->block + t->block_bytes;
	t->block_bytes += bytes;
	return at;
}

static uint8_t *append(uint8_t *at, const void *bytes, size_t n)
{
	memcpy(at, bytes, n);
	memset(at + n, 0, dc_round8(n) - n);
	return at + dc_round8(n);
}

void dc_taking_sample(struct taking *t, const struct thread *th, const struct copy *c)
{
	struct dc_sample s = {
		.kind = DC_SAMPLE_THREAD,
		.tid = th->own_tid,
		.cpu = th->cpu,
		.monotonic_ns = c ? c->at_ns : dc_now_ns(),
		.reg_count = c ? c->reg_count : 0,
		.stack_bytes = c ? c->stack_bytes : 0,
		.extra_bytes = sizeof(th->state),
	};
	size_t bytes = sizeof(s) + s.reg_count * sizeof(uint64_t) + dc_round8(s.stack_bytes) + dc_round8(s.extra_bytes);
	uint8_t *at = room_for(t, bytes);

	if (!at)
		return;
	s.bytes = (uint32_t)bytes;
	if (s.stack_bytes == DC_THREADS_STACK_BYTES)
		s.flags |= DC_SAMPLE_STACK_CUT;
	at = append(at, &s, sizeof(s));
	if (c) {
		at = append(at, c->regs, s.reg_count * sizeof(uint64_t));
		at = append(at, c->stack, s.stack_bytes);
	}
	append(at, &th->state, sizeof(th->state));
}

int dc_threads_put(const struct dc_threads *threads, uint32_t process, struct dc_writer *w)
{
	int r = 0;

	for (uint32_t i = 0; i < threads->count && r == 0; i++)
		r = dc_writer_block(w, DC_BLOCK_SAMPLES, process, threads->blocks[i], threads->bytes[i]);
	return r;
}

void dc_threads_free(struct dc_threads *threads)
{
	if (!threads)
		return;
	for (uint32_t i = 0; i < KEPT_MAX; i++)
		free(threads->blocks[i]);
	free(threads);
}
