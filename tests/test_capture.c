/* SPDX-License-Identifier: MIT */
/* Claims about the reader of captures (persist/capture*.c): what was written comes back, whole and damaged. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "persist/block.h"
#include "persist/capture.h"
#include "persist/format.h"
#include "persist/writer.h"
#include "tests/capturedir.h"
#include "tests/ringmaker.h"

static char path[512];
static char why[160];

static int setup(void **state)
{
	if (dir_make(state) != 0)
		return -1;
	snprintf(path, sizeof path, "%s/x.dcap", dir);
	return 0;
}

/* Rings as the tests want them. */

#define LANES 3

/* Lanes with spans, texts and counters, interleaved in time; @chunks small ones; events start at @at, one per unit. */
static struct ring_maker *make_ring(uint32_t chunks, unsigned events, uint64_t at)
{
	struct ring_maker *m = ring_maker_new(4096, chunks, LANES);
	uint16_t span = ring_maker_site(m, &(struct maker_site){.name = "http.request",
								.arg_count = 2,
								.types = {DC_TYPE_I64, DC_TYPE_STR},
								.keys = {"conn", "path"}});
	uint16_t gauge = ring_maker_site(m, &(struct maker_site){.name = "queue.depth",
								 .kind = DC_KIND_COUNTER,
								 .arg_count = 1,
								 .types = {DC_TYPE_U64}});
	unsigned depth[LANES] = {0};

	ring_maker_module(m, "/usr/lib/libx.so", 0x1000, 0x1000, 0x2000);
	for (unsigned i = 0; i < LANES; i++)
		ring_maker_lane(m, 100 + i, "worker");
	for (unsigned i = 0; i < events; i++) {
		uint32_t lane = i % LANES;
		unsigned what = i / LANES % 5;
		if (what < 2) {
			struct maker_arg args[] = {MAKE_I64(i), MAKE_STR("/index.html")};
			ring_maker_event(m, lane, DC_KIND_BEGIN, at + i, span, args, 2);
			depth[lane]++;
		} else if (what == 2) {
			struct maker_arg args[] = {MAKE_U64(i)};
			ring_maker_event(m, lane, DC_KIND_COUNTER, at + i, gauge, args, 1);
		} else if (depth[lane]) {
			ring_maker_end(m, lane, at + i);
			depth[lane]--;
		}
	}
	return m;
}

static void write_capture(struct ring_maker **rings, unsigned count, const struct dc_incident *incident)
{
	unlink(path);
	struct capture_maker m = {.dir = dir,
				  .name = "x.dcap",
				  .rings = rings,
				  .ring_count = count,
				  .incident = incident,
				  .flags = DC_WRITER_SETTLED};
	assert_int_equal(capture_maker_write(&m), 0);
}

static struct dc_capture *open_capture(void)
{
	struct dc_capture *c = NULL;
	int r = dc_capture_open(path, &c, why);
	if (r)
		fail_msg("open: %d %s", r, why);
	return c;
}

static unsigned faults(const struct dc_capture *c)
{
	const struct dc_fault *f;
	return dc_capture_faults(c, &f);
}

/* Does some fault say this? */
static bool fault_says(const struct dc_capture *c, const char *text)
{
	const struct dc_fault *f;
	unsigned count = dc_capture_faults(c, &f);
	for (unsigned i = 0; i < count; i++)
		if (strstr(f[i].text, text))
			return true;
	return false;
}

/* An event as one number, so that sets of them can be compared. */
static uint64_t fingerprint(unsigned process, uint32_t lane, const struct dc_event *e)
{
	uint64_t h = 14695981039346656037u;
	uint64_t parts[] = {process,  lane,   e->units,       e->kind,   e->site,
			    e->depth, e->tid, e->start_units, e->implied};
	for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++)
		h = (h ^ parts[i]) * 1099511628211u + (h >> 29);
	for (unsigned i = 0; i < e->arg_count; i++) {
		bool text = e->info->types[i] == DC_TYPE_STR;
		h = (h ^ (text ? e->args[i].text.length : e->args[i].u)) * 1099511628211u + (h >> 29);
		for (unsigned k = 0; text && k < e->args[i].text.length; k++)
			h = (h ^ (uint8_t)e->args[i].text.bytes[k]) * 1099511628211u + (h >> 29);
	}
	return h;
}

/* All events but OPEN: where a chunk is lost those of the next one, which said nothing new, come to light. */
struct prints {
	uint64_t *print;
	size_t count;
	size_t room;
	size_t events; /* without OPEN and THREAD */
	int64_t last_ns;
	bool ordered;
};

static void prints_add(struct prints *p, uint64_t print)
{
	if (p->count == p->room) {
		p->room = p->room ? p->room * 2 : 1024;
		p->print = realloc(p->print, p->room * sizeof *p->print);
		assert_non_null(p->print);
	}
	p->print[p->count++] = print;
}

static bool is_event(const struct dc_event *e)
{
	return e->kind != DC_KIND_OPEN && e->kind != DC_KIND_THREAD && !e->implied;
}

static void read_all(struct dc_capture *c, const struct dc_cut *cut, struct prints *p)
{
	struct dc_cursor *cur;
	struct dc_cursor_event e;
	int r;

	free(p->print);
	*p = (struct prints){.last_ns = INT64_MIN, .ordered = true};
	assert_int_equal(dc_cursor_open(c, cut, &cur), 0);
	while ((r = dc_cursor_next(cur, &e)) > 0) {
		if (e.event.kind == DC_KIND_OPEN)
			continue;
		p->ordered &= e.t_ns >= p->last_ns;
		p->last_ns = e.t_ns;
		p->events += is_event(&e.event);
		prints_add(p, fingerprint(e.process, e.lane, &e.event));
	}
	assert_int_equal(r, 0);
	dc_cursor_close(cur);
}

static int by_value(const void *left, const void *right)
{
	const uint64_t *a = left, *b = right;
	return *a < *b ? -1 : *a > *b;
}

static void sort(struct prints *p)
{
	if (p->count)
		qsort(p->print, p->count, sizeof *p->print, by_value);
}

static bool contains(const struct prints *sorted, uint64_t print)
{
	return bsearch(&print, sorted->print, sorted->count, sizeof print, by_value) != NULL;
}

/* Everything written comes back once, in the order of time over all lanes and processes, with all that is known. */
static void test_whole(void **state)
{
	(void)state;
	struct ring_maker *rings[2] = {make_ring(64, 5000, 1000), make_ring(64, 3000, 1500)};
	struct prints p = {0};
	write_capture(rings, 2, NULL);
	struct dc_capture *c = open_capture();
	read_all(c, &(struct dc_cut){0}, &p);
	assert_int_equal(p.events, ring_maker_events(rings[0]) + ring_maker_events(rings[1]));
	assert_int_equal(p.count, p.events);
	assert_true(p.ordered);
	assert_int_equal(faults(c), 0);
	assert_true(dc_capture_complete(c));
	assert_int_equal(dc_capture_process_count(c), 2);
	assert_int_equal(dc_capture_process(c, 1)->pid, 1001);
	assert_string_equal(dc_capture_process(c, 1)->name, "process-1");
	assert_int_equal(dc_capture_ring(c, 0)->chunk_bytes, 4096);
	assert_string_equal(dc_capture_schema(c, 0)->sites[1].name, "http.request");
	assert_string_equal(dc_capture_schema(c, 0)->sites[1].keys[1], "path");
	uint32_t count;
	assert_string_equal(dc_capture_lanes(c, 0, &count)[2].comm, "worker");
	assert_int_equal(count, LANES);
	const struct dc_ring_module *module = dc_capture_modules(c, 0, &count);
	assert_int_equal(count, 1);
	assert_string_equal(dc_capture_string(c, 0, module->path), "/usr/lib/libx.so");
	assert_string_equal(dc_capture_string(c, 0, UINT32_MAX), "?");
	assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_COMMAND);
	dc_capture_close(c);
	free(p.print);
	ring_maker_free(rings[0]);
	ring_maker_free(rings[1]);
}

static int add_print(void *arg, const struct dc_event *e)
{
	if (e->kind != DC_KIND_OPEN)
		prints_add(arg, fingerprint(0, e->lane, e));
	return 0;
}

static int stop_at_third(void *arg, const struct dc_event *e)
{
	(void)e;
	return ++*(int *)arg == 3 ? -EBADMSG : 0;
}

/* dc_capture_each() gives the same events as the cursor, and what its callback returns. */
static void test_each(void **state)
{
	(void)state;
	struct ring_maker *ring = make_ring(64, 5000, 1000);
	struct prints all = {0}, each = {0};
	int count = 0;
	write_capture(&ring, 1, NULL);
	struct dc_capture *c = open_capture();
	read_all(c, &(struct dc_cut){.everything = true}, &all);
	assert_int_equal(dc_capture_each(c, 0, add_print, &each), 0);
	sort(&all);
	sort(&each);
	assert_int_equal(each.count, all.count);
	assert_memory_equal(each.print, all.print, all.count * sizeof *all.print);
	assert_int_equal(dc_capture_each(c, 0, stop_at_third, &count), -EBADMSG);
	assert_int_equal(count, 3);
	assert_int_equal(faults(c), 0);
	dc_capture_close(c);
	free(all.print);
	free(each.print);
	ring_maker_free(ring);
}

/* A cut is exact to the event on both sides, whether by the incident's window or by the clock. */
static void test_cut_by_time(void **state)
{
	(void)state;
	struct ring_maker *ring = make_ring(64, 5000, 1000);
	struct dc_incident incident = {
		.reason = DC_REASON_API, .clock = DC_CLOCK_MONOTONIC, .from_units = 2000, .to_units = 3499};
	struct prints p = {0};
	write_capture(&ring, 1, &incident);
	struct dc_capture *c = open_capture();
	struct dc_capture_totals t;
	read_all(c, &(struct dc_cut){0}, &p);
	assert_int_equal(p.events, 1500);
	assert_int_equal(dc_capture_totals(c, 0, &t), 0);
	assert_int_equal(t.events, 1500);
	assert_int_equal(t.first_units, 2000);
	assert_int_equal(t.last_units, 3499);
	assert_int_equal(t.lanes, LANES);
	assert_int_equal(t.overwritten, 0);
	assert_true(t.raw_bytes >= 1500 * 3);
	read_all(c, &(struct dc_cut){.from_ns = 2100, .to_ns = 2199}, &p); /* no anchors: units are ns */
	assert_int_equal(p.events, 100);
	read_all(c, &(struct dc_cut){.everything = true, .from_ns = 5000}, &p);
	assert_int_equal(p.events, 1000);
	read_all(c, &(struct dc_cut){.from_ns = 3600}, &p);
	assert_int_equal(p.count, 0);
	dc_capture_close(c);
	free(p.print);
	ring_maker_free(ring);
}

/* Filters by process, thread and name of the site. */
static void test_filters(void **state)
{
	(void)state;
	struct ring_maker *rings[2] = {make_ring(64, 3000, 1000), make_ring(64, 1500, 1000)};
	struct prints p = {0};
	write_capture(rings, 2, NULL);
	struct dc_capture *c = open_capture();
	read_all(c, &(struct dc_cut){.pid = 1001}, &p);
	assert_int_equal(p.events, 1500);
	read_all(c, &(struct dc_cut){.pid = 7}, &p);
	assert_int_equal(p.events, 0);
	read_all(c, &(struct dc_cut){.tid = 101}, &p);
	assert_int_equal(p.events, 1500);
	read_all(c, &(struct dc_cut){.pid = 1000, .name = "queue.*"}, &p);
	assert_int_equal(p.events, 600);
	read_all(c, &(struct dc_cut){.pid = 1000, .name = "http.request"},
		 &p); /* ends belong to their span */
	assert_int_equal(p.events, 2400);
	read_all(c, &(struct dc_cut){.name = "nothing"}, &p);
	assert_int_equal(p.count, 0);
	dc_capture_close(c);
	free(p.print);
	ring_maker_free(rings[0]);
	ring_maker_free(rings[1]);
}

/* Spans open at the left edge come first, with start and arguments, however old and however many chunks ago. */
static void test_left_edge(void **state)
{
	(void)state;
	struct ring_maker *m = ring_maker_new(4096, 64, 2);
	uint16_t span = ring_maker_site(
		m, &(struct maker_site){.name = "span", .arg_count = 2, .types = {DC_TYPE_I64, DC_TYPE_STR}});
	uint16_t tick = ring_maker_site(m, &(struct maker_site){.name = "tick", .kind = DC_KIND_INSTANT});
	uint32_t lane = ring_maker_lane(m, 5, "a"), quiet = ring_maker_lane(m, 6, "quiet");
	ring_maker_event(m, quiet, DC_KIND_BEGIN, 90, span,
			 (struct maker_arg[]){MAKE_I64(90), MAKE_STR("hung")}, 2);
	ring_maker_event(m, lane, DC_KIND_BEGIN, 100, span,
			 (struct maker_arg[]){MAKE_I64(1), MAKE_STR("old")}, 2);
	for (unsigned i = 0; i < 3000; i++)
		ring_maker_event(m, lane, DC_KIND_INSTANT, 1000 + i, tick, NULL, 0);
	ring_maker_event(m, lane, DC_KIND_BEGIN, 4990, span,
			 (struct maker_arg[]){MAKE_I64(2), MAKE_STR("new")}, 2);
	ring_maker_event(m, lane, DC_KIND_BEGIN, 4991, span,
			 (struct maker_arg[]){MAKE_I64(3), MAKE_STR("gone")}, 2);
	ring_maker_end(m, lane, 4992);
	ring_maker_event(m, lane, DC_KIND_BEGIN, 5000, span,
			 (struct maker_arg[]){MAKE_I64(4), MAKE_STR("in")}, 2);
	ring_maker_end(m, lane, 5100);
	ring_maker_end(m, lane, 5101);
	ring_maker_end(m, lane, 5102);
	struct dc_incident incident = {
		.reason = DC_REASON_API, .clock = DC_CLOCK_MONOTONIC, .from_units = 5000, .to_units = 6000};
	write_capture(&m, 1, &incident);

	struct dc_capture *c = open_capture();
	struct dc_cursor *cur;
	struct dc_cursor_event e;
	unsigned opens = 0, seen_hung = 0, seen_old = 0, seen_new = 0;
	assert_int_equal(dc_cursor_open(c, &(struct dc_cut){0}, &cur), 0);
	for (;;) {
		assert_int_equal(dc_cursor_next(cur, &e), 1);
		if (e.event.kind != DC_KIND_OPEN)
			break;
		const struct dc_text *text = &e.event.args[1].text;
		opens++;
		assert_int_equal(e.event.units, 5000);
		assert_string_equal(e.event.info->name, "span");
		if (text->length == 4 && memcmp(text->bytes, "hung", 4) == 0)
			seen_hung += e.event.start_units == 90 && e.event.args[0].i == 90 && e.event.tid == 6;
		if (text->length == 3 && memcmp(text->bytes, "old", 3) == 0)
			seen_old += e.event.start_units == 100 && e.event.args[0].i == 1 &&
				    e.event.depth == 1;
		if (text->length == 3 && memcmp(text->bytes, "new", 3) == 0)
			seen_new += e.event.start_units == 4990 && e.event.args[0].i == 2 &&
				    e.event.depth == 2;
	}
	assert_int_equal(opens, 3);
	assert_int_equal(seen_hung, 1);
	assert_int_equal(seen_old, 1);
	assert_int_equal(seen_new, 1);
	assert_int_equal(e.event.kind, DC_KIND_BEGIN);
	assert_int_equal(e.event.units, 5000);
	const uint64_t start[3] = {5000, 4990, 100};
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(dc_cursor_next(cur, &e), 1);
		assert_int_equal(e.event.kind, DC_KIND_END);
		assert_int_equal(e.event.start_units, start[i]);
	}
	assert_int_equal(dc_cursor_next(cur, &e), 0);
	assert_int_equal(dc_cursor_next(cur, &e), 0);
	dc_cursor_close(cur);
	dc_capture_close(c);
	ring_maker_free(m);
}

/* Overwritten chunks are counted to the event: gaps between chunks, and what the LOSS block adds. */
static void test_losses(void **state)
{
	(void)state;
	struct ring_maker *m = make_ring(8, 20000, 1000);
	unlink(path);
	struct capture_maker maker = {.dir = dir,
				      .name = "x.dcap",
				      .rings = &m,
				      .ring_count = 1,
				      .flags = DC_WRITER_SETTLED,
				      .lost_overwritten = 77};
	/* A hole in the middle of lane 0: the chunk in it was recycled while it was copied. */
	struct dc_chunk_entry *entry = ring_maker_entries(m);
	uint64_t lowest = UINT64_MAX, highest = 0, gap = 0;
	uint32_t middle = UINT32_MAX;
	for (uint32_t i = 0; i < 8; i++) {
		struct dc_chunk_header h;
		memcpy(&h, ring_maker_chunk(m, i), sizeof h);
		if (h.lane != 0)
			continue;
		lowest = h.first_event < lowest ? h.first_event : lowest;
		highest = h.first_event > highest ? h.first_event : highest;
	}
	for (uint32_t i = 0; i < 8; i++) {
		struct dc_chunk_header h;
		memcpy(&h, ring_maker_chunk(m, i), sizeof h);
		if (h.lane == 0 && h.first_event > lowest && h.first_event < highest)
			middle = i;
	}
	if (middle != UINT32_MAX) {
		gap = dc_state_events(entry[middle].state);
		entry[middle].state = 0;
	}
	assert_int_equal(capture_maker_write(&maker), 0);
	struct dc_capture *c = open_capture();
	struct dc_capture_totals t;
	assert_int_equal(dc_capture_totals(c, 0, &t), 0);
	assert_int_equal(t.overwritten, gap + 77);
	assert_int_equal(faults(c), 0);
	dc_capture_close(c);
	ring_maker_free(m);
}

static void more_events(void *arg)
{
	struct ring_maker *m = arg;
	for (unsigned i = 0; i < 600; i++) {
		struct maker_arg args[] = {MAKE_U64(i)};
		ring_maker_event(m, i % LANES, DC_KIND_COUNTER, 9000 + i, 2, args, 1);
	}
}

/* After a second pass each chunk counts once, in its fuller copy. */
static void test_second_pass(void **state)
{
	(void)state;
	struct ring_maker *m = make_ring(64, 3000, 1000);
	struct capture_maker maker = {.dir = dir,
				      .name = "x.dcap",
				      .rings = &m,
				      .ring_count = 1,
				      .flags = DC_WRITER_SETTLED,
				      .between = more_events,
				      .arg = m};
	struct prints p = {0};
	unlink(path);
	assert_int_equal(capture_maker_write(&maker), 0);
	struct dc_capture *c = open_capture();
	read_all(c, &(struct dc_cut){0}, &p);
	assert_int_equal(p.events, 3600);
	assert_int_equal(p.count, 3600);
	struct dc_capture_totals t;
	assert_int_equal(dc_capture_totals(c, 0, &t), 0);
	assert_int_equal(t.events, 3600);
	assert_int_equal(faults(c), 0);
	dc_capture_close(c);
	free(p.print);
	ring_maker_free(m);
}

/* A raw capture as the snapshot writes it, in aligned blocks, reads the same. */
static void test_raw_alignment(void **state)
{
	(void)state;
	struct ring_maker *m = make_ring(64, 3000, 1000);
	struct capture_maker maker = {.dir = dir, .name = "x.dcap", .rings = &m, .ring_count = 1};
	struct prints p = {0};
	unlink(path);
	assert_int_equal(capture_maker_write(&maker), 0);
	struct dc_capture *c = open_capture();
	read_all(c, &(struct dc_cut){0}, &p);
	assert_int_equal(p.events, 3000);
	assert_int_equal(faults(c), 0);
	assert_false(dc_capture_settled(c));
	dc_capture_close(c);
	free(p.print);
	ring_maker_free(m);
}

static void put_file(const void *bytes, size_t size)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, size, f), size);
	fclose(f);
}

/* What is no capture is refused in one line. */
static void test_no_capture(void **state)
{
	(void)state;
	struct dc_capture *c;
	static uint8_t noise[100000];
	for (size_t i = 0; i < sizeof noise; i++)
		noise[i] = (uint8_t)(i * 2654435761u >> 13);
	unlink(path);
	assert_int_equal(dc_capture_open(path, &c, why), -ENOENT);
	put_file("", 0);
	assert_int_equal(dc_capture_open(path, &c, why), -ENODATA);
	put_file("x", 1);
	assert_int_equal(dc_capture_open(path, &c, why), -ENODATA);
	put_file(noise, sizeof noise);
	assert_int_equal(dc_capture_open(path, &c, why), -ENODATA);
	assert_string_equal(why, "not a capture: no whole block in it");
	assert_int_equal(dc_capture_open(dir, &c, why), -ENODATA);
	assert_string_equal(why, "not a regular file");
}

/* The whole file in memory, and in a memfd that the reader opens: quick to spoil. */
struct victim {
	uint8_t *bytes;
	size_t size;
	int fd;
	char path[64];
};

static void victim_init(struct victim *v)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	v->size = (size_t)st.st_size;
	v->bytes = malloc(v->size);
	assert_non_null(v->bytes);
	assert_int_equal(read(fd, v->bytes, v->size), v->size);
	close(fd);
	v->fd = memfd_create("victim", 0);
	assert_true(v->fd >= 0);
	assert_int_equal(pwrite(v->fd, v->bytes, v->size, 0), v->size);
	snprintf(v->path, sizeof v->path, "/proc/self/fd/%d", v->fd);
}

static void victim_fini(struct victim *v)
{
	free(v->bytes);
	close(v->fd);
}

/* Where the blocks are and how many events each holds, by a walk of our own. */
struct block_at {
	size_t begin;
	size_t payload_end;
	size_t end;
	uint16_t type;
	uint64_t events;
};

static unsigned walk(const struct victim *v, struct block_at *blocks, unsigned room)
{
	unsigned count = 0;
	for (size_t at = 0; at < v->size;) {
		struct dc_block_header h;
		memcpy(&h, v->bytes + at, sizeof h);
		assert_true(count < room);
		blocks[count] = (struct block_at){.begin = at,
						  .payload_end = at + sizeof h + h.stored_bytes,
						  .end = at + h.next,
						  .type = h.type};
		struct dc_chunks_block head;
		memcpy(&head, v->bytes + at + sizeof h, sizeof head);
		for (uint32_t i = 0; h.type == DC_BLOCK_CHUNKS && i < head.count; i++) {
			struct dc_chunk_copy copy;
			memcpy(&copy, v->bytes + at + sizeof h + sizeof head + i * sizeof copy, sizeof copy);
			blocks[count].events += dc_state_events(copy.state);
		}
		count++;
		at += h.next;
	}
	return count;
}

/* Small, as it is read once for each of its bytes; all kinds of blocks are in it, four of chunks. */
#define VICTIM_EVENTS 300

/* A capture of two processes, and all that is in it. */
static void make_victim(struct victim *v, struct prints *all, struct block_at *blocks, unsigned *ret_count)
{
	struct ring_maker *rings[2] = {make_ring(3, VICTIM_EVENTS, 1000), make_ring(3, VICTIM_EVENTS / 2, 1100)};
	write_capture(rings, 2, NULL);
	struct dc_capture *c = open_capture();
	read_all(c, &(struct dc_cut){.everything = true}, all);
	sort(all);
	dc_capture_close(c);
	victim_init(v);
	*ret_count = walk(v, blocks, 64);
	ring_maker_free(rings[0]);
	ring_maker_free(rings[1]);
}

/* Every event read is one of the original's. */
static void only_originals(const struct prints *p, const struct prints *all, size_t where)
{
	for (size_t i = 0; i < p->count; i++)
		if (!contains(all, p->print[i]))
			fail_msg("byte %zu: an event that never was", where);
}

/* Cut at any byte: every whole block is still read, nothing is made up, and the damage is told. */
static void test_cut_anywhere(void **state)
{
	(void)state;
	struct victim v;
	struct prints all = {0}, p = {0};
	struct block_at blocks[64];
	unsigned count;
	make_victim(&v, &all, blocks, &count);
	for (size_t size = v.size; size-- > 0;) {
		struct dc_capture *c = NULL;
		uint64_t expect = 0;
		unsigned whole = 0;
		assert_int_equal(ftruncate(v.fd, (off_t)size), 0);
		for (unsigned i = 0; i < count && blocks[i].payload_end <= size; i++, whole++)
			expect += blocks[i].events;
		int r = dc_capture_open(v.path, &c, why);
		if (!whole) {
			assert_int_equal(r, -ENODATA);
			continue;
		}
		assert_int_equal(r, 0);
		read_all(c, &(struct dc_cut){.everything = true}, &p);
		if (p.events != expect)
			fail_msg("cut at %zu: %zu events instead of %zu", size, p.events, (size_t)expect);
		if (whole < count) {
			assert_false(dc_capture_complete(c));
			assert_true(faults(c) > 0);
		}
		if (size % 16 == 0)
			only_originals(&p, &all, size);
		dc_capture_close(c);
	}
	victim_fini(&v);
	free(all.print);
	free(p.print);
}

/* Any byte flipped: one block is lost at most, every other one is read, nothing is made up, and the damage is told. */
static void test_flip_anywhere(void **state)
{
	(void)state;
	struct victim v;
	struct prints all = {0}, p = {0};
	struct block_at blocks[64];
	unsigned count, block = 0;
	uint64_t total = 0;
	make_victim(&v, &all, blocks, &count);
	for (unsigned i = 0; i < count; i++)
		total += blocks[i].events;
	for (size_t at = 0; at < v.size; at++) {
		struct dc_capture *c = NULL;
		uint8_t flipped = (uint8_t)(v.bytes[at] ^ (1u << at % 8));
		while (at >= blocks[block].end)
			block++;
		assert_int_equal(pwrite(v.fd, &flipped, 1, (off_t)at), 1);
		int r = dc_capture_open(v.path, &c, why);
		if (r)
			fail_msg("byte %zu: %s", at, why);
		read_all(c, &(struct dc_cut){.everything = true}, &p);
		bool lost = at < blocks[block].payload_end;
		if (p.events != total - (lost ? blocks[block].events : 0))
			fail_msg("byte %zu: %zu events of %zu", at, p.events, (size_t)total);
		if (faults(c) == 0)
			fail_msg("byte %zu: nobody noticed", at);
		only_originals(&p, &all, at);
		dc_capture_close(c);
		assert_int_equal(pwrite(v.fd, v.bytes + at, 1, (off_t)at), 1);
	}
	victim_fini(&v);
	free(all.print);
	free(p.print);
}

/* The same of a settled capture, where a block of columns holds more and tables come once. */
static void test_flip_settled(void **state)
{
	(void)state;
	struct ring_maker *rings[2] = {make_ring(6, 1200, 1000), make_ring(6, 600, 1500)};
	struct prints all = {0}, p = {0};
	struct block_at blocks[64];
	struct victim v;
	unsigned block = 0;
	struct capture_maker maker = {.dir = dir, .name = "x.dcap", .rings = rings, .ring_count = 2};
	unlink(path);
	assert_int_equal(capture_maker_write(&maker), 0);
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(dc_settle(fd, "x.dcap", NULL, NULL), 0);
	close(fd);
	struct dc_capture *c = open_capture();
	read_all(c, &(struct dc_cut){.everything = true}, &all);
	assert_int_equal(all.events, 1800);
	assert_int_equal(faults(c), 0);
	dc_capture_close(c);
	sort(&all);
	victim_init(&v);
	walk(&v, blocks, 64);
	for (size_t at = 0; at < v.size; at++) {
		uint8_t flipped = (uint8_t)(v.bytes[at] ^ (1u << at % 8));
		while (at >= blocks[block].end)
			block++;
		const struct block_at *b = &blocks[block];
		bool lost = at < b->payload_end &&
			    (b->type == DC_BLOCK_COLUMNS || b->type == DC_BLOCK_TABLES);
		assert_int_equal(pwrite(v.fd, &flipped, 1, (off_t)at), 1);
		assert_int_equal(dc_capture_open(v.path, &c, why), 0);
		read_all(c, &(struct dc_cut){.everything = true}, &p);
		if (lost ? p.events != 1200 && p.events != 600 : p.events != 1800)
			fail_msg("byte %zu: %zu events", at, p.events);
		if (faults(c) == 0)
			fail_msg("byte %zu: nobody noticed", at);
		only_originals(&p, &all, at);
		dc_capture_close(c);
		assert_int_equal(pwrite(v.fd, v.bytes + at, 1, (off_t)at), 1);
	}
	victim_fini(&v);
	free(all.print);
	free(p.print);
	ring_maker_free(rings[0]);
	ring_maker_free(rings[1]);
}

/* Spoils the @number-th block of a type; -1: the last. */
static void spoil(struct victim *v, const struct block_at *blocks, unsigned count, uint16_t type, int number)
{
	int found = -1;
	for (unsigned i = 0; i < count; i++) {
		if (blocks[i].type != type || (number >= 0 && number-- > 0))
			continue;
		found = (int)i;
		if (number >= -1 && number < 0)
			break;
	}
	assert_true(found >= 0);
	size_t at = blocks[found].begin + sizeof(struct dc_block_header) + 2;
	uint8_t flipped = (uint8_t)~v->bytes[at];
	assert_int_equal(pwrite(v->fd, &flipped, 1, (off_t)at), 1);
}

/* What each kind of damage is called. */
static void test_fault_texts(void **state)
{
	(void)state;
	static const struct {
		uint16_t type;
		const char *text;
	} cases[] = {{DC_BLOCK_CHUNKS, "(chunks) at "},          {DC_BLOCK_TABLES, "(tables) at "},
		     {DC_BLOCK_INCIDENT, "no whole incident"},   {DC_BLOCK_PROCESS, "(process) at "},
		     {DC_BLOCK_LOSS, "checksum does not match"}, {DC_BLOCK_END, "no end block"}};
	struct prints all = {0}, p = {0};
	struct block_at blocks[64];
	unsigned count;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct victim v;
		struct dc_capture *c;
		make_victim(&v, &all, blocks, &count);
		spoil(&v, blocks, count, cases[i].type, 0);
		assert_int_equal(dc_capture_open(v.path, &c, why), 0);
		read_all(c, &(struct dc_cut){0}, &p);
		if (!fault_says(c, cases[i].text))
			fail_msg("case %u: not said: %s", i, cases[i].text);
		dc_capture_close(c);
		victim_fini(&v);
	}
	free(all.print);
	free(p.print);
}

/* Without any tables a process's events cannot be read: that is said, and the other process is whole. */
static void test_no_tables(void **state)
{
	(void)state;
	struct victim v;
	struct prints all = {0}, p = {0};
	struct block_at blocks[64];
	unsigned count;
	struct dc_capture *c;
	make_victim(&v, &all, blocks, &count);
	spoil(&v, blocks, count, DC_BLOCK_TABLES, 0);
	spoil(&v, blocks, count, DC_BLOCK_TABLES, 1);
	assert_int_equal(dc_capture_open(v.path, &c, why), 0);
	read_all(c, &(struct dc_cut){0}, &p);
	assert_int_equal(p.events, VICTIM_EVENTS / 2);
	assert_true(fault_says(c, "process 0: no whole tables"));
	struct dc_capture_totals t;
	assert_int_equal(dc_capture_totals(c, 0, &t), 0);
	assert_int_equal(t.events, 0);
	dc_capture_close(c);
	victim_fini(&v);
	free(all.print);
	free(p.print);
}

/* Rewrites the FILE block of the victim with other versions and flags. */
static void put_file_block(struct victim *v, uint32_t version, uint64_t compat, uint64_t incompat)
{
	struct dc_block_header h;
	struct dc_file_block file;
	memcpy(&h, v->bytes, sizeof h);
	memcpy(&file, v->bytes + sizeof h, sizeof file);
	file.version = version;
	file.compat = compat;
	file.incompat = incompat;
	uint64_t next = h.next;
	dc_block_seal(&h, &file, DC_BLOCK_ALIGN);
	assert_int_equal(h.next, next);
	assert_int_equal(pwrite(v->fd, &h, sizeof h, 0), sizeof h);
	assert_int_equal(pwrite(v->fd, &file, sizeof file, sizeof h), sizeof file);
}

/* A newer format is read unless it says that it cannot be. */
static void test_newer_format(void **state)
{
	(void)state;
	struct victim v;
	struct prints all = {0}, p = {0};
	struct block_at blocks[64];
	unsigned count;
	struct dc_capture *c;
	make_victim(&v, &all, blocks, &count);
	put_file_block(&v, 9, ~UINT64_C(0), 0);
	assert_int_equal(dc_capture_open(v.path, &c, why), 0);
	read_all(c, &(struct dc_cut){0}, &p);
	assert_int_equal(p.events, VICTIM_EVENTS + VICTIM_EVENTS / 2);
	assert_int_equal(faults(c), 0);
	dc_capture_close(c);
	put_file_block(&v, 9, 0, 1);
	assert_int_equal(dc_capture_open(v.path, &c, why), -EPROTONOSUPPORT);
	assert_non_null(strstr(why, "newer dashcam"));
	victim_fini(&v);
	free(all.print);
	free(p.print);
}

/* Anchors of incident and rings give real times; the same units in two processes are the same moment. */
static void test_clock(void **state)
{
	(void)state;
	struct ring_maker *rings[2] = {make_ring(16, 900, 1000000000), make_ring(16, 900, 1000000000)};
	struct dc_incident incident = {.reason = DC_REASON_API,
				       .clock = DC_CLOCK_MONOTONIC,
				       .to_units = UINT64_MAX,
				       .anchor_count = 1,
				       .anchors = {{2000000000, 5002000000000, 2000000000, 2000000000}}};
	ring_maker_anchor(rings[0], &(struct dc_anchor){1000, 5000000001000, 1000, 1000});
	write_capture(rings, 2, &incident);
	struct dc_capture *c = open_capture();
	assert_int_equal(dc_capture_clock(c)->count, 2);
	struct dc_cursor *cur;
	struct dc_cursor_event a, b;
	assert_int_equal(dc_cursor_open(c, &(struct dc_cut){0}, &cur), 0);
	for (unsigned i = 0; i < 900; i++) {
		assert_int_equal(dc_cursor_next(cur, &a), 1);
		assert_int_equal(dc_cursor_next(cur, &b), 1);
		assert_int_equal(a.t_ns, INT64_C(5001000000000) + i);
		assert_int_equal(b.t_ns, a.t_ns);
		assert_int_not_equal(a.process, b.process);
	}
	dc_cursor_close(cur);
	dc_capture_close(c);
	ring_maker_free(rings[0]);
	ring_maker_free(rings[1]);
}

/* Memory does not follow the size of the file: a capture much larger than the bound is read inside it. */
static void test_memory(void **state)
{
	(void)state;
	const bool full = getenv("DASHCAM_LONG") !=
			  NULL; /* 1 GiB in 256 MiB; else 128 MiB, so that it is quick */
	const unsigned copies = full ? 104 : 13;
	struct ring_maker *rings[104], *m = make_ring(4096, 3500000, 1000);
	struct rusage before, after;
	struct prints p = {0};
	for (unsigned i = 0; i < copies; i++)
		rings[i] = m;
	unlink(path);
	struct capture_maker maker = {
		.dir = dir, .name = "x.dcap", .rings = rings, .ring_count = copies, .chunks_per_block = 200};
	assert_int_equal(capture_maker_write(&maker), 0);
	getrusage(RUSAGE_SELF, &before);
	struct dc_capture *c = open_capture();
	assert_true(dc_capture_bytes(c) > (full ? 900u << 20 : 110u << 20));
	struct dc_capture_totals t;
	uint64_t events = 0, held = 0;
	for (unsigned i = 0; i < ring_maker_header(m)->chunks_grown; i++)
		held += dc_state_events(ring_maker_entries(m)[i].state);
	for (unsigned i = 0; i < copies; i++) {
		assert_int_equal(dc_capture_totals(c, i, &t), 0);
		events += t.events;
	}
	assert_int_equal(events, copies * held);
	struct dc_cursor *cur;
	struct dc_cursor_event e;
	assert_int_equal(dc_cursor_open(c, &(struct dc_cut){0}, &cur), 0);
	for (unsigned i = 0; i < 3000000; i++)
		assert_int_equal(dc_cursor_next(cur, &e), 1);
	dc_cursor_close(cur);
	getrusage(RUSAGE_SELF, &after);
	assert_true(after.ru_maxrss - before.ru_maxrss < (full ? 256 << 10 : 64 << 10));
	dc_capture_close(c);
	free(p.print);
	ring_maker_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),         cmocka_unit_test(test_each),
		cmocka_unit_test(test_cut_by_time),   cmocka_unit_test(test_filters),
		cmocka_unit_test(test_left_edge),     cmocka_unit_test(test_losses),
		cmocka_unit_test(test_second_pass),   cmocka_unit_test(test_raw_alignment),
		cmocka_unit_test(test_no_capture),    cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_flip_anywhere), cmocka_unit_test(test_flip_settled),
		cmocka_unit_test(test_fault_texts),   cmocka_unit_test(test_no_tables),
		cmocka_unit_test(test_newer_format),  cmocka_unit_test(test_clock),
		cmocka_unit_test(test_memory),
	};
	return cmocka_run_group_tests(tests, setup, dir_remove);
}
