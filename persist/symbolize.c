/* SPDX-License-Identifier: MIT */
/*
 * First everything is asked for, process by process; only when there is something new the file is written anew: all blocks
 * in their order, as they were stored, but FRAMES, which get the numbers of the new names, and INDEX, since blocks lie
 * elsewhere now. The new names stand behind the old ones.
 */
#include "persist/symbolize.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "persist/rewrite.h"
#include "persist/settle_samples.h"
#include "persist/stacks/stacks.h"

/* A process whose frames were asked for. */
struct asked {
	struct dc_resolve_maps maps;
	struct dc_resolver *resolver; /* NULL: it has nothing to name */
	uint32_t *number_of; /* by frame: its number in the resolver, 0: not asked */
	uint32_t frame_count;
	uint64_t news;
};

struct symbolizing {
	struct dc_capture *c;
	struct dc_writer *w;
	struct asked *processes;
	uint64_t *moved; /* by block: where it lies in the new file */
	bool again;
	struct dc_symbolize_result *result;
};

static void symbolizing_cleanup(struct symbolizing *s)
{
	for (uint32_t i = 0; s->processes && i < s->c->process_count; i++) {
		dc_resolver_free(s->processes[i].resolver);
		free(s->processes[i].number_of);
		dc_resolve_maps_fini(&s->processes[i].maps);
	}
	free(s->processes);
	free(s->moved);
	dc_writer_close(s->w, false);
}

/* --- asking --- */

/* Return: the number of frames to be named. */
static int64_t choose(struct symbolizing *s, struct asked *a)
{
	const struct dc_stacks *stacks = a->maps.stacks;
	int64_t count = 0;

	a->frame_count = dc_stacks_frame_count(stacks);
	a->number_of = calloc((size_t)a->frame_count + 1, sizeof *a->number_of);
	if (!a->number_of)
		return -ENOMEM;
	for (uint32_t i = 1; i <= a->frame_count; i++) {
		const struct dc_frame *f = dc_stacks_frame(stacks, i);

		if (!f)
			continue;
		s->result->frames++;
		s->result->named_before += f->name != 0;
		if ((f->name && !s->again) || !dc_stacks_map(stacks, f->map).entry)
			continue;
		int r = dc_resolver_frame(a->resolver, f, &a->number_of[i]);
		if (r < 0)
			return r;
		count++;
	}
	return count;
}

/* Is there an answer for frame @i, and another than there was? */
static bool answered(const struct asked *a, uint32_t i, struct dc_frame *ret_frame)
{
	if (!a->number_of[i])
		return false;
	*ret_frame = dc_resolver_frame_at(a->resolver, a->number_of[i]);
	return ret_frame->name != 0;
}

static void count_news(struct symbolizing *s, struct asked *a)
{
	struct dc_frame now;

	for (uint32_t i = 1; i <= a->frame_count; i++) {
		const struct dc_frame *was = dc_stacks_frame(a->maps.stacks, i);
		const bool found = was && answered(a, i, &now);

		a->news += found;
		s->result->named += was && (found || was->name);
	}
	if (!s->result->why[0])
		snprintf(s->result->why, sizeof s->result->why, "%s", dc_resolver_why(a->resolver));
}

static int ask(struct symbolizing *s, uint32_t process, const struct dc_resolve_options *options)
{
	struct asked *a = &s->processes[process];
	int64_t count;
	int r = dc_resolve_maps_init(&a->maps, s->c, process);

	if (r == 0)
		r = dc_resolver_new(a->maps.entries, a->maps.paths, a->maps.count, options, &a->resolver);
	if (r < 0)
		return r;
	count = choose(s, a);
	if (count > 0)
		r = dc_resolver_name(a->resolver, dc_stacks_name_count(a->maps.stacks) + 1, NULL, NULL);
	if (count >= 0 && r == 0)
		count_news(s, a);
	return count < 0 ? (int)count : r;
}

/* --- writing --- */

static int copy_block(struct symbolizing *s, const struct dc_block_ref *b)
{
	const uint8_t *stored;
	int r = dc_capture_stored(s->c, b, &stored);

	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* noted */
	return dc_writer_block_stored(s->w, b->type, b->flags, b->process, stored, b->stored_bytes, b->plain_bytes);
}

static int write_frames(struct symbolizing *s, const struct dc_block_ref *b)
{
	const struct asked *a = &s->processes[b->process];
	struct dc_frames_block head;
	const uint8_t *payload;
	int r = dc_capture_payload(s->c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	CLEANUP(free) uint8_t *copy = malloc((size_t)b->plain_bytes + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, payload, b->plain_bytes);
	if (b->plain_bytes < sizeof head)
		return dc_writer_block_zstd(s->w, b->type, b->process, copy, b->plain_bytes);
	memcpy(&head, copy, sizeof head);
	for (size_t i = 0, at = sizeof head; i < head.count && b->plain_bytes - at >= sizeof(struct dc_frame);
	     i++, at += sizeof(struct dc_frame)) {
		const uint64_t number = head.first + (uint64_t)i;
		struct dc_frame now, was;

		memcpy(&was, copy + at, sizeof was);
		/* Of doubled numbers the reader took one block only: the other is not touched. */
		if (number && number <= a->frame_count && answered(a, (uint32_t)number, &now) && now.address == was.address)
			memcpy(copy + at, &now, sizeof now);
	}
	return dc_writer_block_zstd(s->w, b->type, b->process, copy, b->plain_bytes);
}

struct writing_names {
	struct symbolizing *s;
	uint32_t process;
};

static int write_names_block(void *arg, uint16_t type, const void *payload, size_t bytes)
{
	struct writing_names *n = arg;

	return dc_writer_block_zstd(n->s->w, type, n->process, payload, bytes);
}

/* New names, behind the last block of the process that is not LOSS: before its LOSS, or with the last of its FRAMES. */
static int write_names(struct symbolizing *s, uint32_t process)
{
	struct writing_names n = {s, process};
	const struct asked *a = &s->processes[process];

	return a->news ? dc_resolver_blocks(a->resolver, 1u << DC_BLOCK_NAMES, write_names_block, &n) : 0;
}

static bool last_of_frames(const struct dc_capture *c, uint32_t block)
{
	for (uint32_t i = block + 1; i < c->block_count; i++)
		if (c->blocks[i].type == DC_BLOCK_FRAMES && c->blocks[i].process == c->blocks[block].process)
			return false;
	return true;
}

/* Entries of blocks that are still there, at their new places. */
static int write_index(struct symbolizing *s, const struct dc_block_ref *b)
{
	const uint8_t *payload;
	size_t kept = 0;
	uint32_t block = 0;
	int r = dc_capture_payload(s->c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	CLEANUP(free) struct dc_index_entry *entries = malloc(b->plain_bytes + sizeof *entries);
	if (!entries)
		return -ENOMEM;
	for (size_t at = 0; b->plain_bytes - at >= sizeof *entries; at += sizeof *entries) {
		struct dc_index_entry e;

		memcpy(&e, payload + at, sizeof e);
		while (block < s->c->block_count && s->c->blocks[block].offset < e.offset)
			block++;
		if (block == s->c->block_count)
			break;
		if (s->c->blocks[block].offset != e.offset)
			continue;
		e.offset = s->moved[block];
		entries[kept++] = e;
	}
	return dc_writer_block_zstd(s->w, b->type, b->process, entries, kept * sizeof *entries);
}

/* What END counts besides blocks is as it was. */
static int take_totals(struct symbolizing *s, const struct dc_block_ref *b)
{
	struct dc_end_block end = {0};
	const uint8_t *payload;
	int r = dc_capture_payload(s->c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	memcpy(&end, payload, b->plain_bytes < sizeof end ? b->plain_bytes : sizeof end);
	dc_writer_count(s->w, end.chunks, end.events, end.raw_bytes);
	return 0;
}

static int write_block(struct symbolizing *s, uint32_t i)
{
	const struct dc_block_ref *b = &s->c->blocks[i];
	int r;

	s->moved[i] = dc_writer_written(s->w);
	if (b->type == DC_BLOCK_FILE)
		return 0;
	if (b->type == DC_BLOCK_END)
		return take_totals(s, b);
	if (b->type == DC_BLOCK_INDEX)
		return write_index(s, b);
	if (b->type != DC_BLOCK_FRAMES || b->process >= s->c->process_count)
		return copy_block(s, b);
	r = write_frames(s, b);
	return r == 0 && last_of_frames(s->c, i) ? write_names(s, b->process) : r;
}

static int rewrite(struct symbolizing *s, int dir_fd, const char *name)
{
	struct dc_file_block file;
	int r = dc_rewrite_file_block(s->c, &file);

	s->moved = calloc((size_t)s->c->block_count + 1, sizeof *s->moved);
	if (r == 0 && !s->moved)
		r = -ENOMEM;
	if (r == 0)
		r = dc_writer_open_as(dir_fd, name, DC_WRITER_SETTLED, 2, &file, &s->w);
	if (r == 0)
		r = dc_rewrite_owner(s->c, s->w);
	for (uint32_t i = 0; r == 0 && i < s->c->block_count; i++)
		r = write_block(s, i);
	if (r < 0)
		return r;
	dc_writer_faults(s->w, s->c->fault_count + s->c->faults_more);
	r = dc_rewrite_still_there(s->c, dir_fd, name);
	return r < 0 ? r : dc_writer_close(TAKE(s->w), true);
}

int dc_symbolize(int dir_fd, const char *name, const struct dc_resolve_options *options, bool again,
		 struct dc_symbolize_result *ret_result)
{
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	CLEANUP(symbolizing) struct symbolizing s = {.again = again, .result = ret_result};
	struct dc_resolve_options own = options ? *options : (struct dc_resolve_options){0};
	uint64_t news = 0;
	int r = dc_rewrite_open(dir_fd, name, &c);

	if (r < 0)
		return r;
	if (!c->settled)
		return -EINVAL;
	*ret_result = (struct dc_symbolize_result){0};
	s.c = c;
	s.processes = calloc((size_t)c->process_count + 1, sizeof *s.processes);
	if (!s.processes)
		return -ENOMEM;
	own.no_kernel |= !dc_same_boot(c);
	for (uint32_t i = 0; i < c->process_count && r == 0; i++) {
		if (dc_capture_has(c, i, DC_BLOCK_FRAMES))
			r = ask(&s, i, &own);
		news += s.processes[i].news;
	}
	if (r < 0 || !news)
		return r < 0 ? r : 1;
	return rewrite(&s, dir_fd, name);
}
