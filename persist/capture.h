/* SPDX-License-Identifier: MIT */
/*
 * Reading captures, raw or settled, whole or damaged. One reader for everything: info, show, export, settle, scrub.
 *
 *     struct dc_capture *c;
 *     r = dc_capture_open(path, &c);
 *     ... dc_capture_incident(c), dc_capture_process(c, i) ...
 *     struct dc_cursor *cur;
 *     r = dc_cursor_open(c, &(struct dc_cut){ .from_ns = ..., .pid = ... }, &cur);
 *     while ((r = dc_cursor_next(cur, &e)) > 0) ...           // time-ordered over all lanes and processes
 *
 * Memory is bounded however large the file: blocks are read and decompressed when needed and kept in a small cache.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/clock.h"
#include "ipc/decode.h"
#include "persist/incident.h"

struct dc_capture;
struct dc_cursor;

/* What is wrong with a file, for people. A capture with faults still gives everything that is whole. */
struct dc_fault {
	uint64_t offset;
	char text[160]; /* "block 12 (chunks) at 1052672: checksum does not match, 128 chunks lost" */
};

/*
 * dc_capture_open() - open a capture and read its tables
 * A damaged or cut file opens as long as one whole block of it says it is a capture; see dc_capture_faults().
 * Return: 0; -ENODATA: not a capture or nothing whole in it; -EPROTONOSUPPORT: a format with incompatible features
 * this reader does not know; or another -errno of open and read. @ret_why, when not NULL, gets one line for people.
 */
int dc_capture_open(const char *path, struct dc_capture **ret_capture, char ret_why[static 160]);
void dc_capture_close(struct dc_capture *c);

bool dc_capture_settled(const struct dc_capture *c);
bool dc_capture_complete(const struct dc_capture *c);  /* its END block is there */
uint64_t dc_capture_bytes(const struct dc_capture *c); /* file size */
const struct dc_incident *dc_capture_incident(const struct dc_capture *c);
unsigned dc_capture_faults(const struct dc_capture *c, const struct dc_fault **ret_faults);
/* Anchors of the watcher and of all rings together. */
const struct dc_clock *dc_capture_clock(const struct dc_capture *c);

struct dc_capture_totals {
	uint64_t lanes;       /* lanes with at least one event in the window */
	uint64_t events;      /* in the window [from, to] */
	uint64_t raw_bytes;   /* committed chunk bytes they took in the ring */
	uint64_t overwritten; /* events missing inside the window, by running numbers and the LOSS blocks */
	uint64_t dropped;
	uint64_t discarded;   /* chunks recycled while they were copied */
	uint64_t first_units; /* of the first and last event in the window; first > last: none */
	uint64_t last_units;
};

unsigned dc_capture_process_count(const struct dc_capture *c);
const struct dc_process *dc_capture_process(const struct dc_capture *c, unsigned i);
const struct dc_schema *dc_capture_schema(const struct dc_capture *c, unsigned i);
const struct dc_ring_header *dc_capture_ring(const struct dc_capture *c, unsigned i);
/* Tables as they were in the ring; valid until close. */
const struct dc_ring_lane *dc_capture_lanes(const struct dc_capture *c, unsigned i, uint32_t *ret_count);
const struct dc_ring_module *dc_capture_modules(const struct dc_capture *c, unsigned i, uint32_t *ret_count);
const char *dc_capture_string(const struct dc_capture *c, unsigned i, uint32_t offset); /* never NULL */
/* Decodes everything once; the result is kept. */
int dc_capture_totals(struct dc_capture *c, unsigned i, struct dc_capture_totals *ret_totals);

/* What to deliver. A zeroed cut delivers the capture's own window; `everything` also what whole chunks hold
 * beyond it. */
struct dc_cut {
	int64_t from_ns; /* CLOCK_REALTIME, 0: no bound */
	int64_t to_ns;
	uint32_t pid; /* 0: all */
	uint32_t tid;
	const char *name; /* glob on the site name, NULL: all */
	bool everything;
};

struct dc_cursor_event {
	struct dc_event event; /* pointers in it are valid until the next call */
	unsigned process;
	uint32_t lane;
	int64_t t_ns; /* CLOCK_REALTIME */
};

/* Spans open at the left edge are delivered first, as DC_KIND_OPEN, with start and arguments. */
int dc_cursor_open(struct dc_capture *c, const struct dc_cut *cut, struct dc_cursor **ret_cursor);
/* Return: 1 and an event, 0 at the end, -errno. A chunk that does not parse is a fault of the capture, not an error. */
int dc_cursor_next(struct dc_cursor *cur, struct dc_cursor_event *ret_event);
void dc_cursor_close(struct dc_cursor *cur);

/*
 * dc_capture_each() - every event of one process: the fastest way through a capture (bench_decode, totals,
 * statistics)
 *
 * Events of one lane (event->lane) come in order; lanes are not merged and may take turns. Whole chunks are
 * delivered, also what lies beyond the window. What an event points to lasts until @each returns. A non-zero return of
 * @each stops and is returned.
 */
int dc_capture_each(struct dc_capture *c, unsigned process,
		    int (*each)(void *arg, const struct dc_event *event), void *arg);
