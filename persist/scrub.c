/* SPDX-License-Identifier: MIT */
/*
 * Scrubbing goes through the reader: blocks that say who and when are copied, chunks are joined where they are
 * columns, scrubbed one by one (ipc/scrub.c) and written as a raw capture, which is settled again if it was.
 *
 *     FILE (settled = 0)  INCIDENT  { PROCESS TABLES MAPS SAMPLES STACKS FRAMES NAMES CHUNKS... LOSS } ...  END
 *
 * Samples lose their registers and copied stacks, in which anything may be: those that were unwound keep their stack's
 * functions and lines, others only say that they were. So a raw capture with samples is settled before, if there is something
 * to remove from it.
 *
 * What cannot be looked into is left out: damaged blocks, and types this version does not know.
 */
#include "persist/scrub.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "ipc/cleanup.h"
#include "ipc/scrub.h"
#include "persist/columns.h"
#include "persist/rewrite.h"
#include "persist/stacks/sample.h"

#define CHUNKS_PER_BLOCK 24u /* of 32 KiB at most, so that any fit one payload */

struct scrub {
	struct dc_capture *c;
	struct dc_writer *w;
	const char *const *keys;
	unsigned key_count;
	uint32_t *order; /* chunks as they lie in the file: each block is decompressed once */
	struct dc_scrub_totals totals;
};

static void scrub_cleanup(struct scrub *s)
{
	if (s->w)
		dc_writer_close(s->w, false);
	free(s->order);
}

static bool choose(void *arg, const struct dc_site_info *site, unsigned index)
{
	const struct scrub *s = arg;

	if (!site)
		return true;
	for (unsigned i = 0; site->keys[index] && i < s->key_count; i++)
		if (strcmp(site->keys[index], s->keys[i]) == 0)
			return true;
	return false;
}

static int by_place(const void *left, const void *right, void *arg)
{
	const struct dc_capture *c = arg;
	const struct dc_chunk_ref *a = &c->chunks[*(const uint32_t *)left],
				  *b = &c->chunks[*(const uint32_t *)right];

	if (a->process != b->process)
		return a->process < b->process ? -1 : 1;
	if (a->block != b->block)
		return a->block < b->block ? -1 : 1;
	return a->entry < b->entry ? -1 : a->entry > b->entry;
}

static int order_chunks(struct scrub *s)
{
	s->order = calloc(s->c->chunk_count + 1, sizeof(*s->order));
	if (!s->order)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->c->chunk_count; i++)
		s->order[i] = i;
	qsort_r(s->order, s->c->chunk_count, sizeof(*s->order), by_place, s->c);
	return 0;
}

/* A block of chunks being filled: entries first, then the chunks. */
struct filling {
	uint8_t *payload; /* of the writer */
	struct dc_chunks_block head;
	struct dc_chunk_copy entries[CHUNKS_PER_BLOCK];
	size_t data; /* bytes of chunks so far */
	uint64_t events;
	uint64_t bytes;
};

#define DATA_OFFSET (sizeof(struct dc_chunks_block) + CHUNKS_PER_BLOCK * sizeof(struct dc_chunk_copy))

/* The state word for what is left of a chunk: sealed, whatever it was. */
static uint64_t state_of(uint64_t state, const struct dc_scrubbed *left)
{
	return (uint64_t)dc_state_generation(state) << 32 | (uint64_t)left->events << 16 | left->bytes;
}

static int add_chunk(struct scrub *s, struct filling *f, const struct dc_chunk_ref *ref)
{
	const struct dc_capture_process *p = &s->c->processes[ref->process];
	uint8_t *to = f->payload + DATA_OFFSET + f->data;
	struct dc_chunk_copy entry;
	struct dc_scrubbed left;
	const uint8_t *chunk;
	int r = dc_capture_chunk(s->c, ref, &chunk);

	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* its block became unreadable: a fault, noted */
	/* The index has seen that the entry lies in front of the chunk. */
	memcpy(&entry, chunk - ref->offset + sizeof(f->head) + ref->entry * sizeof(entry), sizeof(entry));
	memcpy(to, chunk, ref->bytes);
	if (dc_chunk_scrub(to, ref->bytes, p->schema, choose, s, &left) < 0)
		return 0;
	s->totals.arguments += left.removed;
	s->totals.chunks_cut += left.cut;
	entry.state = state_of(entry.state, &left);
	entry.offset = (uint32_t)f->data;
	f->entries[f->head.count++] = entry;
	f->events += left.events;
	f->bytes += left.bytes;
	memset(to + left.bytes, 0, dc_columns_packed(left.bytes) - left.bytes);
	f->data += dc_columns_packed(left.bytes);
	return 0;
}

/* @at: place in the order; moved past the chunks of one block, which all belong to one process. */
static int write_chunks(struct scrub *s, uint32_t *at)
{
	uint32_t process = s->c->chunks[s->order[*at]].process;
	struct filling f = {.payload = dc_writer_reserve(s->w)};
	int r = f.payload ? 0 : dc_writer_error(s->w);

	f.head.chunk_bytes = s->c->processes[process].ring.chunk_bytes;
	f.head.data_offset = DATA_OFFSET;
	for (; r == 0 && *at < s->c->chunk_count && f.head.count < CHUNKS_PER_BLOCK; ++*at) {
		const struct dc_chunk_ref *ref = &s->c->chunks[s->order[*at]];

		if (ref->process != process)
			break;
		r = add_chunk(s, &f, ref);
	}
	if (r < 0)
		return r;
	memset(f.payload, 0, DATA_OFFSET);
	memcpy(f.payload, &f.head, sizeof(f.head));
	memcpy(f.payload + sizeof(f.head), f.entries, f.head.count * sizeof(f.entries[0]));
	dc_writer_count(s->w, f.head.count, f.events, f.bytes);
	return dc_writer_commit(s->w, DC_BLOCK_CHUNKS, process, DATA_OFFSET + f.data);
}

static int copy_block(struct scrub *s, const struct dc_block_ref *b)
{
	const uint8_t *payload;
	int r = dc_capture_payload(s->c, b, &payload);

	if (r == -EBADMSG) {
		s->totals.blocks_left_out++;
		return 0;
	}
	return r < 0 ? r : dc_writer_block(s->w, b->type, b->process, payload, b->plain_bytes);
}

static int copy_blocks(struct scrub *s, uint16_t type, uint32_t process)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < s->c->block_count; i++)
		if (s->c->blocks[i].type == type && s->c->blocks[i].process == process)
			r = copy_block(s, &s->c->blocks[i]);
	return r;
}

/* A sample without registers and copied stack, in which anything may be. */
static size_t strip_sample(const struct dc_sample_parts *p, uint8_t *to)
{
	const size_t ips = 8 * (size_t)p->head.ip_count, extra = ((size_t)p->head.extra_bytes + 7) & ~(size_t)7;
	struct dc_sample head = p->head;

	head.reg_count = 0;
	head.stack_bytes = 0;
	head.bytes = (uint32_t)(sizeof(head) + ips + extra);
	memcpy(to, &head, sizeof(head));
	memcpy(to + sizeof(head), p->ips, ips);
	memcpy(to + sizeof(head) + ips, p->extra, extra);
	return head.bytes;
}

static int write_samples(struct scrub *s, const struct dc_block_ref *b)
{
	struct dc_sample_parts p;
	const uint8_t *payload;
	size_t used = 0;
	int r = dc_capture_payload(s->c, b, &payload);

	if (r == -EBADMSG) {
		s->totals.blocks_left_out++;
		return 0;
	}
	CLEANUP(free) uint8_t *stripped = r == 0 ? malloc((size_t)b->plain_bytes + 1) : NULL;
	if (!stripped)
		return r < 0 ? r : -ENOMEM;
	for (size_t at = 0; dc_sample_at(payload + at, b->plain_bytes - at, &p) == 0; at += p.head.bytes)
		used += strip_sample(&p, stripped + used);
	return dc_writer_block_zstd(s->w, b->type, b->process, stripped, used);
}

/* Stacks as functions and lines tell nothing of what the program worked on. */
static int write_stacks(struct scrub *s, uint32_t process)
{
	int r = copy_blocks(s, DC_BLOCK_MAPS, process);

	for (uint32_t i = 0; r == 0 && i < s->c->block_count; i++)
		if (s->c->blocks[i].type == DC_BLOCK_SAMPLES && s->c->blocks[i].process == process)
			r = write_samples(s, &s->c->blocks[i]);
	for (uint16_t type = DC_BLOCK_STACKS; r == 0 && type <= DC_BLOCK_NAMES; type++)
		r = copy_blocks(s, type, process);
	return r;
}

static int write_process(struct scrub *s, uint32_t process, uint32_t *at)
{
	int r = copy_blocks(s, DC_BLOCK_PROCESS, process);

	if (r == 0)
		r = copy_blocks(s, DC_BLOCK_TABLES, process);
	if (r == 0)
		r = write_stacks(s, process);
	while (r == 0 && *at < s->c->chunk_count && s->c->chunks[s->order[*at]].process == process)
		r = write_chunks(s, at);
	return r == 0 ? copy_blocks(s, DC_BLOCK_LOSS, process) : r;
}

static int write_all(struct scrub *s)
{
	uint32_t at = 0;
	int r = dc_rewrite_owner(s->c, s->w);

	if (r == 0)
		r = copy_blocks(s, DC_BLOCK_INCIDENT, UINT32_MAX);
	for (uint32_t p = 0; r == 0 && p < s->c->process_count; p++)
		r = write_process(s, p, &at);
	for (uint32_t i = 0; i < s->c->block_count; i++)
		s->totals.blocks_left_out += s->c->blocks[i].type > DC_BLOCK_NAMES;
	dc_writer_faults(s->w, s->c->fault_count + s->c->faults_more);
	return r;
}

/* Return: 0; 1: there was nothing to remove; -errno. @trial: the file stays as it was. */
static int scrub_to_raw(struct scrub *s, int dir_fd, const char *name, bool trial)
{
	struct dc_file_block file;
	int r = dc_capture_index(s->c);

	if (r == 0)
		r = order_chunks(s);
	if (r == 0)
		r = dc_rewrite_file_block(s->c, &file);
	file.settled = 0;
	if (r == 0)
		r = dc_writer_open_as(dir_fd, name, DC_WRITER_SETTLED, 2, &file, &s->w);
	if (r == 0)
		r = write_all(s);
	if (r < 0 || s->totals.arguments == 0)
		return r < 0 ? r : 1;
	return trial ? 0 : dc_writer_close(TAKE(s->w), true);
}

struct request {
	int dir_fd;
	const char *name;
	const char *const *keys;
	unsigned count;
	struct dc_scrub_totals *totals;
};

static int scrub_capture(const struct request *q, struct dc_capture *c, bool trial)
{
	CLEANUP(scrub) struct scrub s = {.c = c, .keys = q->keys, .key_count = q->count};
	int r = scrub_to_raw(&s, q->dir_fd, q->name, trial);

	if (r >= 0)
		*q->totals = s.totals;
	return r;
}

/* Has stacks that are copies still, and nobody but settling makes functions of them. */
static bool to_be_unwound(const struct dc_capture *c)
{
	for (uint32_t i = 0; i < c->block_count && !dc_capture_settled(c); i++)
		if (c->blocks[i].type == DC_BLOCK_SAMPLES)
			return true;
	return false;
}

int dc_scrub(int dir_fd, const char *name, const char *const *keys, unsigned count,
	     struct dc_scrub_totals *ret_totals)
{
	const struct request q = {dir_fd, name, keys, count, ret_totals};
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	int r = dc_rewrite_open(dir_fd, name, &c);

	if (r == 0 && to_be_unwound(c)) {
		r = scrub_capture(&q, c, true);
		if (r != 0)
			return r;
		dc_settle(dir_fd, name, NULL, NULL); /* should it fail, the stacks go */
		dc_capture_close(TAKE(c));
		r = dc_rewrite_open(dir_fd, name, &c);
	}
	if (r == 0)
		r = scrub_capture(&q, c, false);
	if (r == 0 && dc_capture_settled(c)) /* scrubbed it is; should settling fail, it stays raw */
		dc_settle(dir_fd, name, NULL, NULL);
	return r;
}
