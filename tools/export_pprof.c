/* SPDX-License-Identifier: MIT */
/*
 * The profile.proto of pprof (github.com/google/pprof, proto/profile.proto), not compressed, which pprof reads as well.
 *
 *   field of Profile       1 sample_type  2 sample  3 mapping  4 location  5 function  6 string_table  9 time_nanos
 *                          10 duration_nanos  14 default_sample_type
 *   sample values          samples (count), cpu (nanoseconds), off (nanoseconds), events with a stack (count); labels thread
 *                          and tid, of events also event: its name
 *   location               one a frame, with a line for each function inlined there, innermost first
 *
 * Numbers of locations and mappings: those of the capture, moved up by what the processes before took. A message is made
 * in memory before its length is known; none is large.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/grow.h"
#include "tools/calls.h"
#include "tools/export.h"
#include "tools/samples.h"

#define WIRE_VARINT 0u
#define WIRE_BYTES 2u

struct message {
	uint8_t *bytes;
	size_t size;
	size_t room;
	bool failed;
};

struct strings {
	char **items; /* by number */
	uint32_t count, room;
	uint32_t *slots;
	uint32_t slot_count;
};

struct pprof {
	FILE *out;
	const struct export_stacks *all;
	const struct dc_stacks *stacks; /* of the process at hand */
	struct strings strings;
	struct message inner, middle;
	uint64_t first_location, first_mapping, functions;
	uint64_t *first_locations; /* by process */
	uint64_t last_location; /* of the event at hand */
	/* functions are told apart by name and file */
	struct function_key {
		uint32_t name, file;
	} *function_keys;
	uint32_t function_room;
	bool failed;
};

/* --- protocol buffers --- */

static void put_byte(struct message *m, uint8_t byte)
{
	if (GROW(m->bytes, m->size, m->room, 256) < 0) {
		m->failed = true;
		return;
	}
	m->bytes[m->size++] = byte;
}

static void put_varint(struct message *m, uint64_t v)
{
	for (; v >= 128; v >>= 7)
		put_byte(m, (uint8_t)(v | 128));
	put_byte(m, (uint8_t)v);
}

static void put_u64(struct message *m, unsigned field, uint64_t v)
{
	if (!v)
		return; /* the default */
	put_varint(m, field << 3 | WIRE_VARINT);
	put_varint(m, v);
}

static void put_bytes(struct message *m, unsigned field, const void *bytes, size_t size)
{
	put_varint(m, field << 3 | WIRE_BYTES);
	put_varint(m, size);
	for (size_t i = 0; i < size; i++)
		put_byte(m, ((const uint8_t *)bytes)[i]);
}

/* @inner becomes a field of @m, and is empty again. */
static void put_message(struct message *m, unsigned field, struct message *inner)
{
	put_bytes(m, field, inner->bytes, inner->size);
	m->failed = m->failed || inner->failed;
	inner->size = 0;
}

static void write_message(struct pprof *p, unsigned field, struct message *m)
{
	struct message head = {0};

	put_varint(&head, field << 3 | WIRE_BYTES);
	put_varint(&head, m->size);
	p->failed = p->failed || m->failed || head.failed;
	if (!head.failed)
		fwrite(head.bytes, 1, head.size, p->out);
	fwrite(m->bytes, 1, m->size, p->out);
	free(head.bytes);
	m->size = 0;
}

/* --- strings and functions, each once --- */

static uint64_t hash_text(const char *text)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
	return h ^ h >> 32;
}

static int strings_grow(struct strings *s)
{
	const uint32_t size = s->slot_count ? s->slot_count * 2 : 1024;
	uint32_t *slots = calloc(size, sizeof(*slots));
	char **items = reallocarray(s->items, size, sizeof(*items));

	if (items)
		s->items = items;
	if (!slots || !items) {
		free(slots);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < s->count; i++) {
		uint64_t at = hash_text(s->items[i]) & (size - 1);

		while (slots[at])
			at = (at + 1) & (size - 1);
		slots[at] = i + 1;
	}
	free(s->slots);
	s->slots = slots;
	s->slot_count = size;
	return 0;
}

static uint32_t string_of(struct pprof *p, const char *text)
{
	struct strings *s = &p->strings;
	uint64_t at;

	if (s->count * 2 >= s->slot_count && strings_grow(s) < 0) {
		p->failed = true;
		return 0;
	}
	at = hash_text(text) & (s->slot_count - 1);
	while (s->slots[at]) {
		if (strcmp(s->items[s->slots[at] - 1], text) == 0)
			return s->slots[at] - 1;
		at = (at + 1) & (s->slot_count - 1);
	}
	s->items[s->count] = strdup(text);
	if (!s->items[s->count]) {
		p->failed = true;
		return 0;
	}
	s->slots[at] = ++s->count;
	return s->count - 1;
}

/* Number of a function; written when it is new. A profile has some thousand at most. */
static uint64_t function_of(struct pprof *p, const struct call *c)
{
	const struct function_key key = {string_of(p, c->function), string_of(p, c->file)};

	for (uint64_t i = p->functions; i > 0; i--)
		if (p->function_keys[i - 1].name == key.name && p->function_keys[i - 1].file == key.file)
			return i;
	if (GROW(p->function_keys, p->functions, p->function_room, 256) < 0) {
		p->failed = true;
		return 0;
	}
	p->function_keys[p->functions++] = key;
	put_u64(&p->inner, 1, p->functions);
	put_u64(&p->inner, 2, key.name);
	put_u64(&p->inner, 3, key.name);
	put_u64(&p->inner, 4, key.file);
	write_message(p, 5, &p->inner);
	return p->functions;
}

/* --- the parts of a profile --- */

static void sample_type(struct pprof *p, const char *type, const char *unit)
{
	put_u64(&p->inner, 1, string_of(p, type));
	put_u64(&p->inner, 2, string_of(p, unit));
	write_message(p, 1, &p->inner);
}

static void mapping(struct pprof *p, uint32_t number)
{
	const struct dc_map_view m = dc_stacks_map(p->stacks, number);
	char id[49] = "";

	if (!m.entry)
		return;
	for (unsigned i = 0; i < m.entry->build_id_bytes && i < sizeof(m.entry->build_id); i++)
		snprintf(id + 2 * i, sizeof(id) - 2 * i, "%02x", m.entry->build_id[i]);
	put_u64(&p->inner, 1, p->first_mapping + number + 1);
	put_u64(&p->inner, 2, m.entry->start);
	put_u64(&p->inner, 3, m.entry->end);
	put_u64(&p->inner, 4, m.entry->offset);
	put_u64(&p->inner, 5, string_of(p, m.path));
	put_u64(&p->inner, 6, string_of(p, id));
	put_u64(&p->inner, 7, 1);
	write_message(p, 3, &p->inner);
}

static int line_of_call(void *arg, const struct call *c)
{
	struct pprof *p = arg;
	const uint64_t function = function_of(p, c);

	put_u64(&p->inner, 1, function);
	put_u64(&p->inner, 2, c->line);
	put_message(&p->middle, 4, &p->inner);
	return 0;
}

static void location(struct pprof *p, uint32_t number)
{
	const struct dc_frame *f = dc_stacks_frame(p->stacks, number);

	if (!f)
		return;
	put_u64(&p->middle, 1, p->first_location + number);
	if (f->map != UINT32_MAX)
		put_u64(&p->middle, 2, p->first_mapping + f->map + 1);
	put_u64(&p->middle, 3, f->address);
	calls_of_frame(p->stacks, f, number, line_of_call, p);
	write_message(p, 4, &p->middle);
}

static void label(struct pprof *p, const char *key, const char *text, uint64_t number)
{
	put_u64(&p->inner, 1, string_of(p, key));
	put_u64(&p->inner, 2, text ? string_of(p, text) : 0);
	put_u64(&p->inner, 3, number);
	put_message(&p->middle, 3, &p->inner);
}

static void sample(struct pprof *p, const struct samples *s, const struct tally *t)
{
	const struct thread_tally *thread = samples_thread(s, t->tid);
	const uint32_t *numbers;
	const uint32_t n = dc_stacks_frames(p->stacks, t->stack, &numbers);

	for (uint32_t i = 0; i < n; i++)
		put_varint(&p->inner, p->first_location + numbers[i]);
	put_message(&p->middle, 1, &p->inner);
	put_varint(&p->inner, t->cpu_samples);
	put_varint(&p->inner, t->cpu_ns);
	put_varint(&p->inner, t->off_ns);
	put_varint(&p->inner, 0);
	put_message(&p->middle, 2, &p->inner);
	if (thread && thread->name[0])
		label(p, "thread", thread->name, 0);
	label(p, "tid", NULL, t->tid);
	write_message(p, 2, &p->middle);
}

/* Functions that were inlined have the location of the one they are in; what is no frame of the capture has none. */
static int location_of_call(void *arg, const struct call *c)
{
	struct pprof *p = arg;

	if (c->frame && c->frame != p->last_location)
		put_varint(&p->inner, p->first_location + c->frame);
	p->last_location = c->frame;
	return 0;
}

static int event(void *arg, const struct dc_cursor_event *e, const char *thread)
{
	struct pprof *p = arg;

	p->first_location = p->first_locations[e->process];
	p->last_location = 0;
	event_stacks_calls(&p->all->of_events[e->process], &e->event, location_of_call, p);
	put_message(&p->middle, 1, &p->inner);
	for (unsigned i = 0; i < 3; i++)
		put_varint(&p->inner, 0);
	put_varint(&p->inner, 1);
	put_message(&p->middle, 2, &p->inner);
	if (*thread)
		label(p, "thread", thread, 0);
	label(p, "tid", NULL, e->event.tid);
	if (e->event.info)
		label(p, "event", e->event.info->name, 0);
	write_message(p, 2, &p->middle);
	return 0;
}

static int process(struct pprof *p, struct dc_capture *c, unsigned number, const struct dc_cut *cut)
{
	struct dc_stacks *stacks = p->all->stacks[number];
	struct samples s;
	int r = samples_count(c, stacks, number, cut, &s);

	if (r < 0)
		return r;
	p->stacks = stacks;
	p->first_locations[number] = p->first_location;
	for (uint32_t i = 0; i < dc_stacks_map_count(stacks); i++)
		mapping(p, i);
	for (uint32_t i = 1; i <= dc_stacks_frame_count(stacks); i++)
		location(p, i);
	for (uint32_t i = 0; i < s.count; i++)
		sample(p, &s, &s.tallies[i]);
	p->first_mapping += dc_stacks_map_count(stacks);
	p->first_location += dc_stacks_frame_count(stacks);
	samples_fini(&s);
	return 0;
}

static void tail(struct pprof *p, const struct dc_capture *c)
{
	const struct dc_incident *i = dc_capture_incident(c);
	const struct dc_clock *clock = dc_capture_clock(c);
	const int64_t from_ns = dc_clock_realtime_ns(clock, i->from_units), to_ns = dc_clock_realtime_ns(clock, i->to_units);
	const uint32_t cpu = string_of(p, "cpu");

	put_u64(&p->inner, 9, (uint64_t)from_ns);
	put_u64(&p->inner, 10, to_ns > from_ns ? (uint64_t)(to_ns - from_ns) : 0);
	put_u64(&p->inner, 14, cpu);
	fwrite(p->inner.bytes, 1, p->inner.size, p->out);
	p->inner.size = 0;
	for (uint32_t k = 0; k < p->strings.count; k++) {
		put_bytes(&p->inner, 6, p->strings.items[k], strlen(p->strings.items[k]));
		fwrite(p->inner.bytes, 1, p->inner.size, p->out);
		p->inner.size = 0;
	}
}

int export_pprof(struct dc_capture *c, const struct dc_cut *cut, FILE *out)
{
	CLEANUP(export_stacks) struct export_stacks all = {0};
	struct pprof p = {.out = out, .all = &all, .first_locations = calloc(dc_capture_process_count(c) + 1, sizeof(uint64_t))};
	int r = p.first_locations ? export_stacks_open(c, &all) : -ENOMEM;

	string_of(&p, ""); /* number 0 */
	sample_type(&p, "samples", "count");
	sample_type(&p, "cpu", "nanoseconds");
	sample_type(&p, "off", "nanoseconds");
	sample_type(&p, "events", "count");
	for (unsigned i = 0; i < dc_capture_process_count(c) && r == 0; i++)
		if (!cut->pid || process_pid(dc_capture_process(c, i)) == cut->pid)
			r = process(&p, c, i, cut);
	if (r == 0)
		r = export_stacks_each(c, cut, event, &p);
	if (r == 0)
		tail(&p, c);
	if (p.failed && r == 0)
		r = -ENOMEM;
	for (uint32_t k = 0; k < p.strings.count; k++)
		free(p.strings.items[k]);
	free(p.strings.items);
	free(p.strings.slots);
	free(p.function_keys);
	free(p.first_locations);
	free(p.inner.bytes);
	free(p.middle.bytes);
	return r;
}
