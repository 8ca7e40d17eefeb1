/* SPDX-License-Identifier: MIT */
/*
 * Raw capture → settled one. It reads through the capture reader, so what a damaged file still has is found
 * in one way only, and of several copies of a chunk the same one is kept that every reader would have taken.
 *
 *   what                      becomes
 *   FILE                      the same capture_id and created_ns, settled = 1
 *   INCIDENT PROCESS LOSS     the same bytes, also of block types this version does not know
 *   TABLES                    those that count, compressed
 *   MAPS                      the same, compressed
 *   SAMPLES                   in the order of time, unwound; and STACKS FRAMES NAMES (settle_samples.h)
 *   CHUNKS                    COLUMNS: the chunks of a process in the order of their start, about 1 MiB a block
 *   INDEX END                 made anew; END says how many faults the raw file had
 *
 * Chunks stand in the order of time because that is how captures are read: a reader that merges all lanes goes
 * through the file once, front to back, and one that wants a minute of it asks the index which blocks to read.
 *
 * Every COLUMNS block is joined again and compared before it is written: the raw file, which is the evidence,
 * is about to be replaced. Should they ever differ, the chunks are kept as they are.
 */
#include "persist/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ipc/cleanup.h"
#include "persist/columns.h"
#include "persist/columns_parse.h"
#include "persist/rewrite.h"
#include "persist/settle_samples.h"

#define ADDRESSES_MAX (1u << 18) /* of DC_STACK() events, to be named */
#define GROUP_BYTES (1u << 20) /* chunk bytes of one COLUMNS block */

/* A chunk's place in the new order. */
struct place {
	uint64_t key;   /* when it starts, but never before the chunk before it in its lane */
	uint32_t chunk; /* number in c->chunks: ordered by process, lane, first_event */
};

struct settler {
	struct dc_capture *c;
	struct dc_writer *w;
	const struct dc_settle_options *options;
	struct dc_settle_result *result;
	struct place *places;
	struct dc_index_entry *index;
	uint32_t index_count;
	uint8_t *payload; /* CHUNKS payload being filled */
	uint8_t *joined;  /* what the columns give back, to compare */
	/* of the process at hand */
	uint8_t *tables;
	const struct dc_ring_site *sites;
	uint32_t site_count;
	struct dc_intern addresses; /* of its DC_STACK() events */
};

#define PAYLOAD_ROOM (GROUP_BYTES + (1u << 19)) /* chunks, and 24 bytes for each of them */

static void settler_cleanup(struct settler *s)
{
	dc_writer_close(s->w, false);
	free(s->places);
	free(s->index);
	free(s->payload);
	free(s->joined);
	free(s->tables);
	dc_intern_fini(&s->addresses);
}

/* --- order --- */

static int by_time(const void *left, const void *right)
{
	const struct place *a = left, *b = right;

	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	return a->chunk < b->chunk ? -1 : a->chunk > b->chunk;
}

static int order_chunks(struct settler *s)
{
	const struct dc_capture *c = s->c;
	uint32_t first = 0;

	s->places = calloc(c->chunk_count + 1, sizeof *s->places);
	s->index = calloc(c->chunk_count + 1, sizeof *s->index);
	if (!s->places || !s->index)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->chunk_count; i++) {
		const struct dc_chunk_ref *ref = &c->chunks[i];
		bool follows = i && ref[-1].process == ref->process && ref[-1].lane == ref->lane;

		s->places[i] = (struct place){ref->start_units, i};
		if (follows && s->places[i - 1].key > ref->start_units)
			s->places[i].key = s->places[i - 1].key;
	}
	for (uint32_t i = 1; i <= c->chunk_count; i++) {
		if (i < c->chunk_count && c->chunks[i].process == c->chunks[first].process)
			continue;
		qsort(s->places + first, i - first, sizeof *s->places, by_time);
		first = i;
	}
	return 0;
}

/* --- one group of chunks → one block --- */

struct group {
	uint32_t first; /* in places */
	uint32_t count;
	uint32_t process;
	uint64_t events;
	uint64_t bytes; /* committed */
};

static const struct dc_chunk_ref *chunk_at(const struct settler *s, uint32_t place)
{
	return &s->c->chunks[s->places[place].chunk];
}

/* As many chunks of one process as make up a block. */
static struct group next_group(const struct settler *s, uint32_t first)
{
	struct group g = {.first = first, .process = chunk_at(s, first)->process};
	size_t packed = 0;

	for (uint32_t i = first; i < s->c->chunk_count; i++) {
		const struct dc_chunk_ref *ref = chunk_at(s, i);

		packed += dc_columns_packed(ref->bytes);
		if (ref->process != g.process || packed > GROUP_BYTES)
			break;
		g.count++;
		g.events += ref->events;
		g.bytes += ref->bytes;
	}
	return g;
}

/*
 * A chunk and its entry, straight from the file: the blocks were checked when the index was made, and chunks
 * of one time are all over them, so that a cache of blocks would only be thrashed.
 */
static int read_chunk(const struct settler *s, const struct dc_chunk_ref *ref,
		      struct dc_chunk_copy *ret_entry, uint8_t *to)
{
	uint64_t payload = s->c->blocks[ref->block].offset + sizeof(struct dc_block_header);
	uint64_t entry = payload + sizeof(struct dc_chunks_block) + ref->entry * sizeof *ret_entry;
	int r = dc_capture_pread(s->c, ret_entry, sizeof *ret_entry, entry);

	if (r == 0 && dc_state_bytes(ret_entry->state) != ref->bytes)
		r = -EBADMSG; /* changed meanwhile */
	return r < 0 ? r : dc_capture_pread(s->c, to, ref->bytes, payload + ref->offset);
}

/* The CHUNKS payload of @g. */
static int fill_payload(struct settler *s, const struct group *g, size_t *ret_bytes)
{
	struct dc_chunks_block block = {.count = g->count,
					.chunk_bytes = s->c->processes[g->process].ring.chunk_bytes};
	size_t data = 0;

	block.data_offset = (uint32_t)(sizeof block + g->count * sizeof(struct dc_chunk_copy));
	memcpy(s->payload, &block, sizeof block);
	for (uint32_t i = 0; i < g->count; i++) {
		const struct dc_chunk_ref *ref = chunk_at(s, g->first + i);
		uint8_t *to = s->payload + block.data_offset + data;
		struct dc_chunk_copy e;
		int r = read_chunk(s, ref, &e, to);

		if (r < 0)
			return r;
		e.offset = (uint32_t)data;
		memcpy(s->payload + sizeof block + i * sizeof e, &e, sizeof e);
		memset(to + ref->bytes, 0, dc_columns_packed(ref->bytes) - ref->bytes);
		data += dc_columns_packed(ref->bytes);
	}
	*ret_bytes = block.data_offset + data;
	return 0;
}

/* Addresses of a STACK record, which are its last @count * 8 bytes. Beyond the bound they stay addresses. */
static void note_stack(struct settler *s, const uint8_t *end, unsigned count)
{
	uint32_t number;

	for (const uint8_t *at = end - 8 * (size_t)count; at < end && s->addresses.count < ADDRESSES_MAX; at += 8)
		if (dc_intern_put(&s->addresses, at, 8, &number) < 0)
			return;
}

/* First and last time in a chunk, and the stacks in it, as far as it parses. */
static void widen(struct settler *s, const uint8_t *chunk, size_t bytes, struct dc_index_entry *e)
{
	struct dc_record_parser p = {.sites = s->sites, .site_count = s->site_count};
	struct dc_chunk_header h;
	struct dc_record r;
	uint64_t units;
	size_t n;

	memcpy(&h, chunk, sizeof h);
	units = h.start_units;
	for (size_t at = sizeof h;; at += n) {
		e->from_units = units < e->from_units ? units : e->from_units;
		e->to_units = units > e->to_units ? units : e->to_units;
		n = dc_record_parse(&p, chunk + at, bytes - at, &r);
		if (!n)
			return;
		if (r.kind == DC_KIND_STACK)
			note_stack(s, chunk + at + n, r.stack_count);
		if (r.kind == DC_KIND_TIME)
			memcpy(&units, chunk + at + 1, sizeof units);
		else if (r.kind < DC_KIND_TIME)
			units += r.numbers[0];
	}
}

static void index_group(struct settler *s, const struct group *g)
{
	struct dc_index_entry *e = &s->index[s->index_count++];
	struct dc_chunks_block block;
	struct dc_chunk_copy copy;

	*e = (struct dc_index_entry){.offset = dc_writer_written(s->w),
				     .from_units = UINT64_MAX,
				     .events = g->events,
				     .process = g->process,
				     .chunks = g->count};
	memcpy(&block, s->payload, sizeof block);
	for (uint32_t i = 0; i < g->count; i++) {
		memcpy(&copy, s->payload + sizeof block + i * sizeof copy, sizeof copy);
		widen(s, s->payload + block.data_offset + copy.offset, dc_state_bytes(copy.state), e);
	}
}

static bool joins_back(struct settler *s, const void *columns, size_t columns_bytes, size_t bytes)
{
	size_t joined_bytes;

	return dc_columns_joined_bytes(columns, columns_bytes, &joined_bytes) == 0 && joined_bytes == bytes &&
	       dc_columns_join(columns, columns_bytes, s->joined, PAYLOAD_ROOM + DC_COLUMNS_SLACK) == 0 &&
	       memcmp(s->joined, s->payload, bytes) == 0;
}

static int write_group(struct settler *s, const struct group *g)
{
	CLEANUP(free) void *columns = NULL;
	size_t bytes, columns_bytes;
	int r = fill_payload(s, g, &bytes);

	if (r < 0)
		return r;
	index_group(s, g);
	dc_writer_count(s->w, g->count, g->events, g->bytes);
	r = dc_columns_split(s->payload, bytes, s->sites, s->site_count, &columns, &columns_bytes);
	if (r < 0)
		return r;
	if (!joins_back(s, columns, columns_bytes, bytes))
		return dc_writer_block_zstd(s->w, DC_BLOCK_CHUNKS, g->process, s->payload, bytes);
	return dc_writer_block_zstd(s->w, DC_BLOCK_COLUMNS, g->process, columns, columns_bytes);
}

/* --- blocks that stay as they are --- */

static int copy_block(struct settler *s, const struct dc_block_ref *b)
{
	const uint8_t *payload;
	int r = dc_capture_payload(s->c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* a fault of the raw file, noted when it was opened */
	if (b->type >= DC_BLOCK_MAPS && b->type <= DC_BLOCK_NAMES)
		return dc_writer_block_zstd(s->w, b->type, b->process, payload, b->plain_bytes);
	return dc_writer_block(s->w, b->type, b->process, payload, b->plain_bytes);
}

/*
 * Samples are resolved but where somebody did so before (a settled capture that was scrubbed is raw again), or where
 * nothing says what code lay where.
 */
static bool resolves(const struct settler *s, uint32_t process)
{
	return !s->options->keep_stacks && process != DC_PROCESS_NONE && dc_capture_has(s->c, process, DC_BLOCK_MAPS) &&
	       !dc_capture_has(s->c, process, DC_BLOCK_STACKS) && !dc_capture_has(s->c, process, DC_BLOCK_FRAMES);
}

/* Blocks of @process that are neither made anew nor chunks; before the chunks, or LOSS behind them. */
static int copy_blocks(struct settler *s, uint32_t process, bool losses)
{
	const bool samples_made = resolves(s, process);
	int r = 0;

	for (uint32_t i = 0; i < s->c->block_count && r == 0; i++) {
		const struct dc_block_ref *b = &s->c->blocks[i];
		bool made = b->type == DC_BLOCK_FILE || b->type == DC_BLOCK_TABLES ||
			    b->type == DC_BLOCK_CHUNKS || b->type == DC_BLOCK_COLUMNS ||
			    b->type == DC_BLOCK_INDEX || b->type == DC_BLOCK_END ||
			    (b->type == DC_BLOCK_SAMPLES && samples_made);

		if (!made && b->process == process && (b->type == DC_BLOCK_LOSS) == losses)
			r = copy_block(s, b);
	}
	return r;
}

/* Keeps the site table, by which the chunks are taken apart. */
static int copy_tables(struct settler *s, uint32_t process)
{
	const struct dc_capture_process *p = &s->c->processes[process];
	struct dc_tables_block head;
	const struct dc_block_ref *b;
	const uint8_t *payload;
	int r;

	free(TAKE(s->tables));
	s->site_count = 0;
	if (!p->has_tables)
		return 0;
	b = &s->c->blocks[p->tables_block];
	r = dc_capture_payload(s->c, b, &payload);
	if (r < 0)
		return r;
	memcpy(&head, payload, sizeof head);
	s->tables = malloc(b->plain_bytes);
	if (!s->tables)
		return -ENOMEM;
	memcpy(s->tables, payload, b->plain_bytes);
	s->sites = (const void *)(s->tables + sizeof head + sizeof(struct dc_ring_header));
	s->site_count = head.site_count;
	return dc_writer_block_zstd(s->w, DC_BLOCK_TABLES, process, s->tables, b->plain_bytes);
}

static int settle_process(struct settler *s, uint32_t process, uint32_t *place)
{
	int r = copy_blocks(s, process, false);

	if (r == 0)
		r = copy_tables(s, process);
	dc_intern_fini(&s->addresses);
	while (r == 0 && *place < s->c->chunk_count && chunk_at(s, *place)->process == process) {
		struct group g = next_group(s, *place);

		r = write_group(s, &g);
		*place += g.count;
	}
	if (r == 0 && resolves(s, process))
		r = dc_settle_samples(s->c, process, s->w, &s->options->resolve, &s->addresses, s->result);
	return r < 0 ? r : copy_blocks(s, process, true);
}

/* --- the whole --- */

/*
 * Nothing that is whole may be left behind: chunks of a process whose tables are lost, chunks stored in a way that
 * only settled files use, or more than the reader takes. Then the raw file is worth more than a settled one.
 */
static int check_chunks(const struct dc_capture *c)
{
	for (uint32_t i = 0; i < c->block_count; i++) {
		const struct dc_block_ref *b = &c->blocks[i];

		if (b->type != DC_BLOCK_CHUNKS)
			continue;
		if (b->flags & DC_BLOCK_ZSTD)
			return -EPROTONOSUPPORT;
		if (b->process >= c->process_count || !c->processes[b->process].has_tables)
			return -EBADMSG;
	}
	return c->chunk_count >= DC_CAPTURE_CHUNK_MAX || c->block_count >= DC_CAPTURE_BLOCK_MAX ? -EFBIG : 0;
}

static int prepare(struct settler *s)
{
	int r = dc_capture_index(s->c);

	if (r == 0)
		r = check_chunks(s->c);
	if (r == 0)
		r = order_chunks(s);
	s->payload = malloc(PAYLOAD_ROOM);
	s->joined = malloc(PAYLOAD_ROOM + DC_COLUMNS_SLACK);
	return r == 0 && (!s->payload || !s->joined) ? -ENOMEM : r;
}

static int write_all(struct settler *s)
{
	uint32_t place = 0;
	int r = copy_blocks(s, DC_PROCESS_NONE, false);

	for (uint32_t p = 0; r == 0 && p < s->c->process_count; p++)
		r = settle_process(s, p, &place);
	if (r == 0 && s->index_count)
		r = dc_writer_block_zstd(s->w, DC_BLOCK_INDEX, DC_PROCESS_NONE, s->index,
					 s->index_count * sizeof *s->index);
	return r;
}

int dc_settle(int dir_fd, const char *name, const struct dc_settle_options *options, struct dc_settle_result *ret_result)
{
	static const struct dc_settle_options defaults;
	struct dc_settle_result result = {0};
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	CLEANUP(settler) struct settler s = {0};
	struct dc_file_block file;
	int r = dc_rewrite_open(dir_fd, name, &c);

	if (r < 0)
		return r;
	if (c->settled)
		return 1;
	s.c = c;
	s.options = options ? options : &defaults;
	s.result = &result;
	r = dc_rewrite_file_block(c, &file);
	file.settled = 1;
	if (r == 0)
		r = prepare(&s);
	if (r == 0)
		r = dc_writer_open_as(dir_fd, name, DC_WRITER_SETTLED, 2, &file, &s.w);
	if (r < 0)
		return r;
	dc_writer_level(s.w, s.options->zstd_level ? s.options->zstd_level : 3);
	r = dc_rewrite_owner(c, s.w);
	if (r == 0)
		r = write_all(&s);
	dc_writer_faults(s.w, c->fault_count + c->faults_more);
	if (r == 0)
		r = dc_rewrite_still_there(c, dir_fd, name);
	if (r == 0)
		r = dc_writer_close(TAKE(s.w), true);
	if (r == 0 && ret_result)
		*ret_result = result;
	return r;
}
