/* SPDX-License-Identifier: MIT */
/*
 * The parent of the child that unwinds. It reads samples, which are what is asked for, and hands them on piece by piece
 * (feed.h); frames and stacks of each piece come back when the child has had it. A child that dies of a fault, or ends itself
 * because it gets no further, says at which sample, or opening which module: the next one gets the piece once more, and the others
 * that wait, without that. How often is bounded (DC_UNWIND_TRIES), and all of them have one time together.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/grow.h"
#include "persist/stacks/feed.h"
#include "persist/stacks/message.h"
#include "persist/stacks/resolve_inside.h"
#include "persist/stacks/sandbox.h"
#include "persist/stacks/stacks.h"

/* --- what the child sent --- */

struct merging {
	struct dc_resolver *r;
	uint32_t *frames; /* of this child's number - 1: ours */
	uint32_t frame_count;
	uint32_t frame_room;
	uint32_t *stacks;
	uint32_t stack_count;
	uint32_t stack_room;
	const struct dc_sample_source *source; /* NULL: of addresses */
	uint32_t first; /* sample that the child got first */
	uint32_t sample_count; /* that it got */
	uint32_t answered; /* of these */
	bool faulted; /* it says so: */
	struct dc_message_fault fault;
};

static void merging_cleanup(struct merging *m)
{
	free(m->stacks);
	free(m->frames);
}

static int append(uint32_t **numbers, uint32_t *count, uint32_t *room, uint32_t number)
{
	if (GROW(*numbers, *count, *room, 1024) < 0)
		return -ENOMEM;
	(*numbers)[(*count)++] = number;
	return 0;
}

static bool sane_frame(const struct dc_resolver *r, const struct dc_frame *f)
{
	return (f->map == UINT32_MAX || f->map < r->map_count) && f->name == 0 && f->reserved == 0 &&
	       !(f->flags & ~DC_FRAME_FLAGS_KNOWN);
}

static int full(const struct dc_resolver *r)
{
	return dc_intern_bytes(&r->frames) + dc_intern_bytes(&r->stacks) > DC_RESOLVE_TABLE_BYTES ? -E2BIG : 0;
}

static int merge_frames(struct merging *m, const uint8_t *payload, size_t bytes)
{
	for (size_t at = 0; bytes - at >= sizeof(struct dc_frame); at += sizeof(struct dc_frame)) {
		struct dc_frame f;
		uint32_t number;
		int r;

		memcpy(&f, payload + at, sizeof f);
		r = sane_frame(m->r, &f) ? full(m->r) : -EBADMSG;
		if (r == 0)
			r = dc_intern_put(&m->r->frames, &f, sizeof f, &number);
		if (r >= 0)
			r = append(&m->frames, &m->frame_count, &m->frame_room, number);
		if (r < 0)
			return r;
	}
	return 0;
}

static int merge_stack(struct merging *m, const uint8_t *at, uint32_t depth)
{
	uint32_t numbers[DC_STACKS_DEPTH_MAX], number;
	int r = full(m->r);

	memcpy(numbers, at, 4 * (size_t)depth);
	for (uint32_t i = 0; i < depth; i++) {
		if (numbers[i] == 0 || numbers[i] > m->frame_count)
			return -EBADMSG;
		numbers[i] = m->frames[numbers[i] - 1];
	}
	if (r == 0)
		r = dc_intern_put(&m->r->stacks, numbers, 4 * depth, &number);
	return r < 0 ? r : append(&m->stacks, &m->stack_count, &m->stack_room, number);
}

static int merge_stacks(struct merging *m, const uint8_t *payload, size_t bytes)
{
	uint32_t depth;

	for (size_t at = 0; bytes - at >= 4; at += 4 + 4 * (size_t)depth) {
		int r;

		memcpy(&depth, payload + at, 4);
		if (depth == 0 || depth > DC_STACKS_DEPTH_MAX || depth > (bytes - at - 4) / 4)
			return -EBADMSG;
		r = merge_stack(m, payload + at + 4, depth);
		if (r < 0)
			return r;
	}
	return 0;
}

static void count_used(struct dc_resolver *r, uint32_t used)
{
	const size_t step = ((size_t)used + DC_USED_STEP - 1) / DC_USED_STEP;

	if (used != UINT32_MAX)
		r->used[step < DC_USED_STEPS ? step : DC_USED_STEPS - 1]++;
}

/* As many as it got to; the others stay as they are. */
static int merge_samples(struct merging *m, const uint8_t *payload, size_t bytes)
{
	const size_t count = bytes / sizeof(struct dc_message_sample);

	if (count > m->sample_count - m->answered)
		return -EBADMSG;
	for (uint32_t i = 0; i < count; i++, m->answered++) {
		struct dc_message_sample s;

		memcpy(&s, payload + i * sizeof s, sizeof s);
		if (s.stack > m->stack_count || s.end > DC_MESSAGE_END_LAST)
			return -EBADMSG;
		if (!s.stack)
			continue;
		m->source->put(m->source->arg, m->first + m->answered, m->stacks[s.stack - 1], s.end == DC_MESSAGE_END_BEFORE);
		m->r->unwound++;
		m->r->to_root += s.end == DC_MESSAGE_END_ROOT;
		count_used(m->r, s.stack_used);
	}
	return 0;
}

/* Either a sample that is still to be answered, or a module. */
static int take_fault(struct merging *m, const uint8_t *payload, size_t bytes)
{
	if (bytes != sizeof m->fault)
		return -EBADMSG;
	memcpy(&m->fault, payload, sizeof m->fault);
	m->faulted = m->fault.map < m->r->map_count || (m->fault.sample >= m->answered && m->fault.sample < m->sample_count);
	return 0;
}

static int merge(struct merging *m, struct dc_resolve_child *o)
{
	struct dc_message head;
	const uint8_t *payload;
	int r = 0;

	while (r == 0 && dc_message_next(o->bytes, o->size, &o->at, &head, &payload)) {
		if (head.type == DC_MESSAGE_FRAMES)
			r = merge_frames(m, payload, head.bytes);
		else if (head.type == DC_MESSAGE_STACKS)
			r = merge_stacks(m, payload, head.bytes);
		else if (head.type == DC_MESSAGE_SAMPLES)
			r = merge_samples(m, payload, head.bytes);
		else if (head.type == DC_MESSAGE_FAULT)
			r = take_fault(m, payload, head.bytes);
		else if (head.type == DC_MESSAGE_WHY)
			dc_resolve_take_why(m->r, payload, head.bytes);
	}
	return r;
}

/* Return: 0; 1: it failed, what it sent before is taken; -ENOMEM, -errno of fork and pipe. */
static int finish(struct merging *m, struct dc_resolve_child *child)
{
	struct dc_resolver *r = m->r;
	int failed = dc_resolve_child_end(child), e;

	r->unwind_cpu_ns += child->cpu_ns;
	if (failed < 0)
		return failed;
	e = merge(m, child);
	if (failed && m->faulted && m->fault.map < r->map_count)
		dc_resolve_complain(r, "unwinding: %s at %s", dc_resolve_child_text(child), r->paths[m->fault.map]);
	else if (failed)
		dc_resolve_complain(r, "unwinding: %s%s", dc_resolve_child_text(child), m->faulted ? " at a sample" : "");
	if (e == -EBADMSG || e == -E2BIG)
		dc_resolve_complain(r, e == -E2BIG ? "unwinding: more stacks than a capture takes" : "unwinding: the answer makes no sense");
	return e == -ENOMEM ? e : failed && e == 0;
}

/* --- what it gets --- */

static void start(struct dc_resolver *r, struct dc_unwind_job *job, struct dc_resolve_child *child)
{
	const int64_t now = dc_resolve_now_ns(), end = r->start_ns + r->options.time_ns / 10 * 6;

	job->resolver = r;
	job->deadline_ns = now + (end - now) / 10 * 9; /* so that what it has gets through before it is killed */
	dc_resolve_child_start(r, "unwinding", end, job->feed ? dc_feed_fd(job->feed) : 0, dc_resolve_unwind_work, job, child);
}

/* A piece that was given, as long as its slot has it. */
struct piece {
	const uint8_t *slot;
	size_t bytes;
	uint32_t first; /* sample */
};

/* The samples of a source, through one child or, where some die, several. */
struct run {
	struct merging m;
	struct dc_sample_source *source;
	struct dc_unwind_job job;
	struct dc_resolve_child child;
	struct piece pieces[DC_FEED_SLOTS]; /* the last ones, round and round */
	uint32_t given; /* pieces */
	uint32_t again; /* the first of them that the child at work gets */
	bool over; /* all were given */
	bool at_work; /* there is a child */
	unsigned tries;
};

static void run_cleanup(struct run *u)
{
	dc_resolve_child_fini(&u->child);
	merging_cleanup(&u->m);
}

static int end_child(struct run *u)
{
	u->m.sample_count = u->source->count - u->m.first;
	u->at_work = false;
	return finish(&u->m, &u->child);
}

static void spoil(struct dc_resolver *r, uint32_t map)
{
	r->spoilt[r->canon[map]] = 1;
	r->spoilt_count++;
}

/* Another child in place of one that died. Return: it is at work, and gets the pieces from u->again on. */
static bool replace(struct run *u)
{
	struct merging *m = &u->m;

	if (!m->faulted || u->tries++ == DC_UNWIND_TRIES)
		return false;
	if (m->fault.map < m->r->map_count)
		spoil(m->r, m->fault.map);
	else
		u->job.skips[u->job.skip_count++] = m->first + m->fault.sample;
	u->job.first = m->first += m->answered;
	m->answered = m->frame_count = m->stack_count = 0;
	m->faulted = false;
	for (u->again = u->given > DC_FEED_SLOTS ? u->given - DC_FEED_SLOTS : 0; u->again < u->given; u->again++)
		if (u->pieces[u->again % DC_FEED_SLOTS].first == m->first)
			break;
	if (u->again == u->given || dc_feed_again(u->job.feed, u->pieces[u->again % DC_FEED_SLOTS].slot) < 0)
		return false;
	dc_resolve_child_fini(&u->child);
	start(m->r, &u->job, &u->child);
	return u->at_work = u->child.sandboxed != NULL;
}

static int give_pieces(struct run *u)
{
	int r = 0;

	for (uint32_t i = u->again; i < u->given && r == 0; i++)
		r = dc_feed_give(u->job.feed, u->child.sandboxed, u->pieces[i % DC_FEED_SLOTS].bytes);
	return r == 0 && u->over ? dc_feed_give(u->job.feed, u->child.sandboxed, 0) : r;
}

/* The child has ended: it is replaced, as often as it takes to give what was given. Return: 0, -ENOMEM, -errno. */
static int mend(struct run *u)
{
	int r;

	do
		r = end_child(u);
	while (r == 1 && replace(u) && give_pieces(u) < 0);
	return r < 0 ? r : 0;
}

static int give(struct run *u, const uint8_t *slot, size_t bytes, uint32_t first)
{
	u->pieces[u->given++ % DC_FEED_SLOTS] = (struct piece){slot, bytes, first};
	return dc_feed_give(u->job.feed, u->child.sandboxed, bytes) < 0 ? mend(u) : 0;
}

/*
 * All pieces, from the first one on that has something to unwind. The source is asked for all of them whatever becomes of the child:
 * it is its only way through the samples.
 */
static int feed(struct run *u)
{
	struct dc_sample_source *source = u->source;
	bool started = false;
	int r;

	do {
		const uint32_t before = source->count;
		uint8_t *slot = dc_feed_slot(u->job.feed);
		size_t bytes = 0;

		r = source->next(source->arg, slot, &bytes);
		if (r == 1 && !started && source->able) {
			started = true;
			u->job.first = u->m.first = before;
			start(u->m.r, &u->job, &u->child);
			u->at_work = true;
		}
		if (r == 1 && bytes && u->child.sandboxed) {
			const int e = give(u, slot, bytes, before);

			r = e < 0 ? e : r;
		}
	} while (r == 1);
	return r;
}

/* All were given, or @error says why not. */
static int settle(struct run *u, int error)
{
	int r = 0;

	u->over = true;
	if (u->child.sandboxed && error < 0)
		dc_sandbox_cancel(u->child.sandboxed);
	else if (u->child.sandboxed)
		dc_feed_give(u->job.feed, u->child.sandboxed, 0); /* if it has ended, its end tells */
	while (u->at_work && r == 0)
		r = mend(u);
	if (u->tries > 1)
		dc_resolve_add_why(u->m.r, "; left out: %u samples, %u files%s", u->job.skip_count, u->m.r->spoilt_count,
				   u->tries > DC_UNWIND_TRIES ? ", all that came after" : "");
	return error < 0 ? error : r;
}

int dc_resolver_unwind(struct dc_resolver *r, struct dc_sample_source *source)
{
	CLEANUP(run) struct run u = {.m = {.r = r, .source = source}, .source = source};
	CLEANUP(dc_feed) struct dc_feed *f = NULL;
	int e = dc_feed_new(DC_SAMPLES_ROOM, &f);

	if (e < 0)
		return e;
	u.job.feed = f;
	e = feed(&u);
	e = settle(&u, e);
	r->samples += source->able;
	return e;
}

int dc_resolver_addresses(struct dc_resolver *r, const uint64_t *addresses, uint32_t count)
{
	CLEANUP(merging) struct merging m = {.r = r};
	CLEANUP(dc_resolve_child) struct dc_resolve_child child = {0};
	struct dc_unwind_job job = {.addresses = addresses, .address_count = count};
	int e = count ? 1 : 0;

	for (unsigned i = 0; i <= DC_UNWIND_TRIES && e == 1; i++) {
		m.faulted = false;
		m.frame_count = 0;
		dc_resolve_child_fini(&child);
		start(r, &job, &child);
		e = finish(&m, &child);
		if (!m.faulted) /* it was opening a module: the others do without */
			break;
		spoil(r, m.fault.map);
	}
	return e < 0 ? e : 0;
}
