/* SPDX-License-Identifier: MIT */
/*
 * A table (maps, stacks, frames, names) is what all its blocks hold, one behind the other, and runs that say which
 * numbers lie where: blocks say themselves at which number they begin, so that a lost one leaves a hole and everything
 * else its number. Runs are in order of their first number; of two that claim the same number the first one counts.
 */
#include "persist/stacks/stacks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "persist/capture_inside.h"
#include "persist/stacks/sample.h"

#define TABLES_BYTES_MAX (64u << 20) /* of one process */
#define NUMBER_MAX (1u << 24) /* so that nobody counts to 2^32 because a file says so */

struct run {
	uint32_t first; /* number */
	uint32_t count;
	uint32_t at; /* of its first item */
	uint32_t block; /* in the capture's blocks */
};

struct table {
	struct run *runs;
	uint32_t run_count;
	uint32_t run_room;
	uint8_t *items;
	size_t item_bytes;
	uint32_t count;
	uint32_t room;
};

struct dc_stacks {
	struct dc_capture *c;
	unsigned process;
	size_t bytes; /* of all tables */
	struct table maps; /* struct dc_map_entry, path: in texts */
	struct table stacks; /* uint32_t: where in words */
	struct table frames; /* struct dc_frame */
	struct table names; /* struct dc_name, texts: in texts */
	struct table words; /* of stacks: n and n frame numbers */
	struct table texts; /* bytes; the first is an empty text */
	struct by_address {
		uint32_t place; /* of a frame in its table */
		uint32_t number;
	} *by_address;
	uint32_t by_address_count;
	bool has_totals;
	struct dc_stacks_totals totals;
};

/* --- tables --- */

static void *grow(void *items, size_t item_bytes, uint32_t need, uint32_t *room)
{
	uint32_t more = *room ? *room : 64;

	while (more < need)
		more *= 2;
	if (more == *room)
		return items;
	items = realloc(items, more * item_bytes);
	if (items)
		*room = more;
	return items;
}

/* Room for @count more. NULL: no memory. Their number is bounded by charge(). */
static void *table_extend(struct table *t, uint32_t count)
{
	uint8_t *items = grow(t->items, t->item_bytes, t->count + count, &t->room);

	if (!items)
		return NULL;
	t->items = items;
	t->count += count;
	return items + (t->count - count) * t->item_bytes;
}

static int table_append(struct table *t, const void *items, uint32_t count)
{
	void *to = table_extend(t, count);

	if (!to)
		return -ENOMEM;
	if (count)
		memcpy(to, items, count * t->item_bytes);
	return 0;
}

/* The last @count items are the numbers from @first on. */
static int table_run(struct table *t, uint32_t first, uint32_t count, uint32_t block)
{
	struct run *runs = count ? grow(t->runs, sizeof *runs, t->run_count + 1, &t->run_room) : NULL;

	if (!count)
		return 0;
	if (!runs)
		return -ENOMEM;
	t->runs = runs;
	t->runs[t->run_count++] = (struct run){first, count, t->count - count, block};
	return 0;
}

static int by_first(const void *left, const void *right)
{
	const struct run *a = left, *b = right;

	if (a->first != b->first)
		return a->first < b->first ? -1 : 1;
	return a->at < b->at ? -1 : a->at > b->at;
}

/* Puts the runs in order and drops those that claim numbers which are taken. */
static void table_seal(struct dc_stacks *s, struct table *t)
{
	char name[DC_BLOCK_NAME_BYTES];
	uint32_t kept = 0, end = 0;

	if (t->run_count)
		qsort(t->runs, t->run_count, sizeof *t->runs, by_first);
	for (uint32_t i = 0; i < t->run_count; i++) {
		const struct dc_block_ref *b = &s->c->blocks[t->runs[i].block];

		if (t->runs[i].first < end) {
			dc_capture_fault(s->c, b->offset, "%s: its numbers from %" PRIu32 " on are taken, not used",
					 dc_block_name(b, name), t->runs[i].first);
			continue;
		}
		end = t->runs[i].first + t->runs[i].count;
		t->runs[kept++] = t->runs[i];
	}
	t->run_count = kept;
}

static const void *table_find(const struct table *t, uint32_t number)
{
	uint32_t low = 0, high = t->run_count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (t->runs[middle].first <= number)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || number - t->runs[low - 1].first >= t->runs[low - 1].count)
		return NULL;
	return t->items + (t->runs[low - 1].at + (number - t->runs[low - 1].first)) * t->item_bytes;
}

/* One beyond the highest number. */
static uint32_t table_end(const struct table *t)
{
	const struct run *last = t->run_count ? &t->runs[t->run_count - 1] : NULL;

	return last ? last->first + last->count : 0;
}

static void table_fini(struct table *t)
{
	free(t->runs);
	free(t->items);
}

/* --- blocks into tables --- */

/* A block at hand. The heads of all four kinds begin alike. */
struct block {
	uint16_t type;
	uint32_t number; /* in the capture's blocks */
	struct dc_names_block head;
	const uint8_t *entries;
	size_t bytes; /* of the entries and what follows them */
};

/* Appends texts of a block. *@ret_base: what to add to their offsets. */
static int take_texts(struct dc_stacks *s, const uint8_t *texts, uint32_t bytes, uint32_t *ret_base)
{
	*ret_base = s->texts.count;
	if (table_append(&s->texts, texts, bytes) < 0)
		return -ENOMEM;
	return table_append(&s->texts, "", 1);
}

/* Offset 0 of NAMES is the empty text, and so is what leads nowhere. */
static uint32_t text_at(uint32_t base, uint32_t offset, uint32_t bytes)
{
	return offset < bytes ? base + offset : 0;
}

static int take_maps(struct dc_stacks *s, const struct block *b, uint32_t base)
{
	struct dc_map_entry *e = table_extend(&s->maps, b->head.count);

	if (!e)
		return -ENOMEM;
	memcpy(e, b->entries, b->head.count * sizeof *e);
	for (uint32_t i = 0; i < b->head.count; i++) {
		e[i].path = text_at(base, e[i].path, b->head.strings_bytes);
		if (e[i].build_id_bytes > sizeof e[i].build_id)
			e[i].build_id_bytes = 0;
	}
	return table_run(&s->maps, b->head.first, b->head.count, b->number);
}

static int take_names(struct dc_stacks *s, const struct block *b, uint32_t base)
{
	struct dc_name *n = table_extend(&s->names, b->head.count);

	if (!n)
		return -ENOMEM;
	memcpy(n, b->entries, b->head.count * sizeof *n);
	for (uint32_t i = 0; i < b->head.count; i++) {
		n[i].function = text_at(base, n[i].function, b->head.strings_bytes);
		n[i].file = text_at(base, n[i].file, b->head.strings_bytes);
	}
	return table_run(&s->names, b->head.first, b->head.count, b->number);
}

static int take_frames(struct dc_stacks *s, const struct block *b)
{
	if (table_append(&s->frames, b->entries, b->head.count) < 0)
		return -ENOMEM;
	return table_run(&s->frames, b->head.first, b->head.count, b->number);
}

/* As many stacks as are whole. Return: 0, -EBADMSG when some are not, -ENOMEM. */
static int take_stacks(struct dc_stacks *s, const struct block *b)
{
	const uint32_t base = s->words.count;
	uint32_t taken = 0, words = (uint32_t)(b->bytes / 4), at = 0, n;
	int r;

	if (table_append(&s->words, b->entries, words) < 0)
		return -ENOMEM;
	for (; taken < b->head.count && at < words; taken++, at += 1 + n) {
		const uint32_t place = base + at;

		memcpy(&n, b->entries + 4 * (size_t)at, sizeof n);
		if (n > DC_STACKS_DEPTH_MAX || n > words - at - 1)
			break;
		if (table_append(&s->stacks, &place, 1) < 0)
			return -ENOMEM;
	}
	r = table_run(&s->stacks, b->head.first, taken, b->number);
	return r == 0 && taken < b->head.count ? -EBADMSG : r;
}

static size_t entry_bytes(uint16_t type)
{
	switch (type) {
	case DC_BLOCK_MAPS:
		return sizeof(struct dc_map_entry);
	case DC_BLOCK_FRAMES:
		return sizeof(struct dc_frame);
	case DC_BLOCK_NAMES:
		return sizeof(struct dc_name);
	default:
		return 4; /* a stack is its count, at least */
	}
}

static bool has_texts(uint16_t type)
{
	return type == DC_BLOCK_MAPS || type == DC_BLOCK_NAMES;
}

/* What a reader pays for a block: the entries, and a place for each stack. */
static size_t cost_of(const struct block *b)
{
	return b->bytes + sizeof(struct run) + (b->type == DC_BLOCK_STACKS ? 4 * (size_t)b->head.count : 0);
}

/* Why a block cannot be used; NULL: it can. */
static const char *judge(const struct dc_stacks *s, const struct block *b)
{
	const size_t entries = (size_t)b->head.count * entry_bytes(b->type);

	if (entries > b->bytes || (has_texts(b->type) && b->head.strings_bytes > b->bytes - entries))
		return "its counts do not fit its size";
	if (b->head.first > NUMBER_MAX || b->head.count > NUMBER_MAX - b->head.first)
		return "its numbers are larger than this reader takes";
	if (b->head.first == 0 && b->type != DC_BLOCK_MAPS)
		return "its numbers begin at 0";
	if (cost_of(b) > TABLES_BYTES_MAX - s->bytes)
		return "the stacks of the process are larger than this reader takes";
	return NULL;
}

static int take_entries(struct dc_stacks *s, const struct block *b)
{
	uint32_t base = 0;
	int r = 0;

	if (has_texts(b->type))
		r = take_texts(s, b->entries + b->head.count * entry_bytes(b->type), b->head.strings_bytes, &base);
	if (r < 0)
		return r;
	switch (b->type) {
	case DC_BLOCK_MAPS:
		return take_maps(s, b, base);
	case DC_BLOCK_NAMES:
		return take_names(s, b, base);
	case DC_BLOCK_FRAMES:
		return take_frames(s, b);
	default:
		return take_stacks(s, b);
	}
}

static int take_block(struct dc_stacks *s, uint32_t number)
{
	const struct dc_block_ref *ref = &s->c->blocks[number];
	struct block b = {.type = ref->type, .number = number};
	char name[DC_BLOCK_NAME_BYTES];
	const char *why = "it is too short";
	const uint8_t *payload;
	int r = dc_capture_payload(s->c, ref, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* noted */
	if (ref->plain_bytes >= sizeof b.head) {
		memcpy(&b.head, payload, sizeof b.head);
		b.entries = payload + sizeof b.head;
		b.bytes = ref->plain_bytes - sizeof b.head;
		why = judge(s, &b);
	}
	if (why) {
		dc_capture_fault(s->c, ref->offset, "%s: %s, not used", dc_block_name(ref, name), why);
		return 0;
	}
	s->bytes += cost_of(&b);
	r = take_entries(s, &b);
	if (r != -EBADMSG)
		return r;
	dc_capture_fault(s->c, ref->offset, "%s: a stack runs past its end, the rest is lost", dc_block_name(ref, name));
	return 0;
}

static bool is_table(const struct dc_block_ref *b)
{
	return b->type == DC_BLOCK_MAPS || (b->type >= DC_BLOCK_STACKS && b->type <= DC_BLOCK_NAMES);
}

static int read_tables(struct dc_stacks *s)
{
	int r = table_append(&s->texts, "", 1);

	for (uint32_t i = 0; i < s->c->block_count && r == 0; i++)
		if (s->c->blocks[i].process == s->process && is_table(&s->c->blocks[i]))
			r = take_block(s, i);
	table_seal(s, &s->maps);
	table_seal(s, &s->stacks);
	table_seal(s, &s->frames);
	table_seal(s, &s->names);
	return r;
}

static const struct dc_frame *frame_in(const struct dc_stacks *s, uint32_t place)
{
	return (const struct dc_frame *)(const void *)s->frames.items + place;
}

/* By address; return addresses first. */
static int by_address(const void *left, const void *right, void *arg)
{
	const struct by_address *l = left, *r = right;
	const struct dc_frame *a = frame_in(arg, l->place), *b = frame_in(arg, r->place);

	if (a->address != b->address)
		return a->address < b->address ? -1 : 1;
	if ((a->flags ^ b->flags) & DC_FRAME_CALL)
		return a->flags & DC_FRAME_CALL ? -1 : 1;
	return l->number < r->number ? -1 : l->number > r->number;
}

static int order_frames(struct dc_stacks *s)
{
	s->by_address = calloc((size_t)s->frames.count + 1, sizeof *s->by_address);
	if (!s->by_address)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->frames.run_count; i++) {
		const struct run *run = &s->frames.runs[i];

		for (uint32_t k = 0; k < run->count; k++)
			s->by_address[s->by_address_count++] = (struct by_address){run->at + k, run->first + k};
	}
	qsort_r(s->by_address, s->by_address_count, sizeof *s->by_address, by_address, s);
	return 0;
}

int dc_stacks_open(struct dc_capture *c, unsigned process, struct dc_stacks **ret_stacks)
{
	CLEANUP(dc_stacks) struct dc_stacks *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	s->c = c;
	s->process = process;
	s->maps.item_bytes = sizeof(struct dc_map_entry);
	s->stacks.item_bytes = s->words.item_bytes = sizeof(uint32_t);
	s->frames.item_bytes = sizeof(struct dc_frame);
	s->names.item_bytes = sizeof(struct dc_name);
	s->texts.item_bytes = 1;
	r = read_tables(s);
	if (r == 0)
		r = order_frames(s);
	if (r == 0)
		*ret_stacks = TAKE(s);
	return r;
}

void dc_stacks_close(struct dc_stacks *s)
{
	if (!s)
		return;
	free(s->by_address);
	table_fini(&s->texts);
	table_fini(&s->words);
	table_fini(&s->names);
	table_fini(&s->frames);
	table_fini(&s->stacks);
	table_fini(&s->maps);
	free(s);
}

/* --- looking things up --- */

static const char *text_of(const struct dc_stacks *s, uint32_t offset)
{
	return (const char *)s->texts.items + offset;
}

uint32_t dc_stacks_frames(const struct dc_stacks *s, uint32_t stack, const uint32_t **ret_numbers)
{
	const uint32_t *place = table_find(&s->stacks, stack);
	const uint32_t *words = (const uint32_t *)(const void *)s->words.items;

	*ret_numbers = place ? words + *place + 1 : NULL;
	return place ? words[*place] : 0;
}

const struct dc_frame *dc_stacks_frame(const struct dc_stacks *s, uint32_t number)
{
	return table_find(&s->frames, number);
}

uint32_t dc_stacks_frame_at(const struct dc_stacks *s, uint64_t address)
{
	uint32_t low = 0, high = s->by_address_count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (frame_in(s, s->by_address[middle].place)->address < address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == s->by_address_count || frame_in(s, s->by_address[low].place)->address != address)
		return 0;
	return s->by_address[low].number;
}

struct dc_name_view dc_stacks_name(const struct dc_stacks *s, uint32_t number)
{
	const struct dc_name *n = table_find(&s->names, number);

	if (!n)
		return (struct dc_name_view){.function = "", .file = ""};
	return (struct dc_name_view){text_of(s, n->function), text_of(s, n->file), n->line, n->outer, n->start};
}

struct dc_map_view dc_stacks_map(const struct dc_stacks *s, uint32_t number)
{
	const struct dc_map_entry *e = table_find(&s->maps, number);

	return (struct dc_map_view){e, e ? text_of(s, e->path) : ""};
}

uint32_t dc_stacks_map_count(const struct dc_stacks *s)
{
	return table_end(&s->maps);
}

static uint32_t highest(const struct table *t)
{
	uint32_t end = table_end(t);

	return end ? end - 1 : 0;
}

uint32_t dc_stacks_stack_count(const struct dc_stacks *s)
{
	return highest(&s->stacks);
}

uint32_t dc_stacks_frame_count(const struct dc_stacks *s)
{
	return highest(&s->frames);
}

uint32_t dc_stacks_name_count(const struct dc_stacks *s)
{
	return highest(&s->names);
}

/* --- samples --- */

struct delivery {
	struct dc_stacks *s;
	const struct dc_cut *cut;
	int64_t from_ns; /* the window, CLOCK_MONOTONIC */
	int64_t to_ns;
	int (*each)(void *arg, const struct dc_sample_view *sample);
	void *arg;
	uint8_t *block; /* own copy: @each may read the capture */
	size_t room;
};

static void delivery_cleanup(struct delivery *d)
{
	free(d->block);
}

static void set_window(struct delivery *d)
{
	const struct dc_capture *c = d->s->c;
	const bool all = d->cut->everything;

	d->from_ns = all || !c->incident.from_units ? INT64_MIN : dc_clock_monotonic_ns(&c->clock, c->incident.from_units);
	d->to_ns = all || c->incident.to_units == UINT64_MAX ? INT64_MAX
							     : dc_clock_monotonic_ns(&c->clock, c->incident.to_units);
}

/* Taken at the trigger, as against the times before it. */
static bool of_the_trigger(const struct dc_sample *head)
{
	return head->kind == DC_SAMPLE_THREAD || head->kind == DC_SAMPLE_CRASH;
}

static bool passes(const struct delivery *d, const struct dc_sample_view *v)
{
	const struct dc_cut *cut = d->cut;

	if (cut->tid && v->head.tid != cut->tid)
		return false;
	if (of_the_trigger(&v->head))
		return true;
	return v->head.monotonic_ns >= d->from_ns && v->head.monotonic_ns <= d->to_ns &&
	       (!cut->from_ns || v->t_ns >= cut->from_ns) && (!cut->to_ns || v->t_ns <= cut->to_ns);
}

/* @extra is in our own copy of the block: its texts are made to end. */
static void view_extra(struct dc_sample_view *v, uint8_t *extra)
{
	struct dc_thread_state *thread = (void *)extra;

	if (v->head.kind == DC_SAMPLE_THREAD && v->head.extra_bytes >= sizeof *thread) {
		thread->comm[sizeof thread->comm - 1] = 0;
		thread->wchan[sizeof thread->wchan - 1] = 0;
		v->thread = thread;
	} else if (v->head.kind == DC_SAMPLE_CRASH && v->head.extra_bytes >= sizeof *v->crash) {
		v->crash = (const void *)extra;
	} else if (v->head.kind == DC_SAMPLE_EVENT && v->head.extra_bytes >= sizeof *v->event) {
		v->event = (const void *)extra;
	}
}

static int deliver(struct delivery *d, const struct dc_sample_parts *p)
{
	struct dc_sample_view v = {.head = p->head, .ips = p->ips, .regs = p->regs, .stack = p->stack};

	if (p->head.kind == 0 || p->head.kind > DC_SAMPLE_LAST) /* of a later version */
		return 0;
	v.t_ns = dc_clock_realtime_of(&d->s->c->clock, p->head.monotonic_ns);
	if (!passes(d, &v))
		return 0;
	view_extra(&v, d->block + (p->extra - d->block));
	return d->each(d->arg, &v);
}

static int copy_block(struct delivery *d, const struct dc_block_ref *b)
{
	const uint8_t *payload;
	int r = dc_capture_payload(d->s->c, b, &payload);

	if (r < 0)
		return r;
	if (b->plain_bytes > d->room) {
		free(d->block);
		d->block = malloc(b->plain_bytes);
		d->room = d->block ? b->plain_bytes : 0;
	}
	if (!d->block && b->plain_bytes)
		return -ENOMEM;
	if (b->plain_bytes)
		memcpy(d->block, payload, b->plain_bytes);
	return 0;
}

static int deliver_block(struct delivery *d, const struct dc_block_ref *b)
{
	struct dc_sample_parts p;
	char name[DC_BLOCK_NAME_BYTES];
	int r = copy_block(d, b);

	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* noted */
	for (size_t at = 0; at < b->plain_bytes && r == 0; at += p.head.bytes) {
		if (dc_sample_at(d->block + at, b->plain_bytes - at, &p) < 0) {
			dc_capture_fault(d->s->c, b->offset, "%s: a sample does not parse, the rest is lost",
					 dc_block_name(b, name));
			return 0;
		}
		r = deliver(d, &p);
	}
	return r;
}

int dc_stacks_each(struct dc_stacks *s, const struct dc_cut *cut,
		   int (*each)(void *arg, const struct dc_sample_view *sample), void *arg)
{
	CLEANUP(delivery) struct delivery d = {.s = s, .cut = cut, .each = each, .arg = arg};
	const struct dc_capture_process *p = &s->c->processes[s->process];
	int r = 0;

	if (cut->pid && p->fields.pid != cut->pid && p->ring.pid != cut->pid)
		return 0;
	set_window(&d);
	for (uint32_t i = 0; i < s->c->block_count && r == 0; i++) {
		const struct dc_block_ref *b = &s->c->blocks[i];

		if (b->type == DC_BLOCK_SAMPLES && b->process == s->process)
			r = deliver_block(&d, b);
	}
	return r;
}

static void widen(int64_t t_ns, int64_t *first_ns, int64_t *last_ns)
{
	*first_ns = t_ns < *first_ns ? t_ns : *first_ns;
	*last_ns = t_ns > *last_ns ? t_ns : *last_ns;
}

struct adding {
	const struct dc_stacks *stacks;
	struct dc_stacks_totals *totals;
};

static int add_up(void *arg, const struct dc_sample_view *v)
{
	const struct adding *a = arg;
	struct dc_stacks_totals *t = a->totals;

	t->samples[v->head.kind]++;
	t->unwound += v->head.stack != 0;
	t->to_root += dc_stacks_to_root(a->stacks, &v->head);
	if (v->head.kind == DC_SAMPLE_CPU || v->head.kind == DC_SAMPLE_OFF)
		widen(v->t_ns, &t->first_ns, &t->last_ns);
	else if (!of_the_trigger(&v->head) && v->head.kind != DC_SAMPLE_EVENT)
		widen(v->t_ns, &t->first_switch_ns, &t->last_switch_ns);
	return 0;
}

int dc_stacks_totals(struct dc_stacks *s, struct dc_stacks_totals *ret_totals)
{
	struct dc_stacks_totals t = {.first_ns = INT64_MAX, .last_ns = INT64_MIN,
				     .first_switch_ns = INT64_MAX, .last_switch_ns = INT64_MIN};
	struct adding adding = {s, &t};
	int r = s->has_totals ? 0 : dc_stacks_each(s, &(struct dc_cut){.everything = true}, add_up, &adding);

	if (r < 0)
		return r;
	if (!s->has_totals)
		s->totals = t;
	s->has_totals = true;
	*ret_totals = s->totals;
	return 0;
}
