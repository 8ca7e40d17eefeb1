/* SPDX-License-Identifier: MIT */
/*
 * Decoding a lane: chunk bytes in, events out. This exists once; the watcher's tail, show, export and the
 * viewer all sit on it. (What an event means is in lane.h, which also the reader of settled columns sits on.)
 *
 * The decoder trusts nothing: a chunk that does not parse yields the events before the fault, then -EBADMSG. It
 * allocates nothing and never blocks. Text and stack pointers of an event point into the chunk that was fed.
 *
 *     struct dc_schema schema = ...;              // from the tables of the ring or the capture
 *     struct dc_lane_decoder d;
 *     dc_lane_init(&d, &schema);
 *     dc_lane_decode(&d, chunk, bytes, callback, arg);       // oldest chunk first
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/event.h"
#include "ipc/ring.h"

/* What the decoder needs of one site; built once per process from the validated tables. Strings are borrowed. */
struct dc_site_info {
	const char *name; /* never NULL */
	const char *file;
	const char *format; /* DC_KIND_LOG, else "" */
	const char *keys[DC_ARG_MAX];
	uint32_t line;
	uint8_t kind;
	uint8_t level;
	uint8_t arg_count;
	uint8_t shape; /* DC_SHAPE_*: the decoder's own */
	uint8_t types[DC_ARG_MAX];
	uint64_t zigzag; /* bit i: argument i is I64; the decoder's own */
};

#define DC_SHAPE_UNUSABLE 0u /* not published or malformed: an event that names it ends its chunk */
#define DC_SHAPE_WORDS 1u    /* integers, booleans and pointers only: the fast loop */
#define DC_SHAPE_MIXED 2u

struct dc_schema {
	struct dc_site_info *sites; /* @count entries, id is the index; id 0 is a placeholder named "?" */
	uint32_t count;
	char *strings; /* own copy of the string table; what @sites borrow */
};

/*
 * dc_schema_new() - build a schema from copies of a ring's site and string tables
 * @sites: copy of the table, @site_count entries
 * @strings: copy of the string table, @strings_bytes; the schema keeps its own copy
 *
 * Offsets out of range become "?"; unknown types or more than DC_ARG_MAX arguments make the site unusable, as
 * does `published` being 0 (its events end the chunk with -EBADMSG). Return: 0, -ENOMEM.
 */
int dc_schema_new(const struct dc_ring_site *sites, uint32_t site_count, const char *strings,
		  size_t strings_bytes, struct dc_schema **ret_schema);
void dc_schema_free(struct dc_schema *schema);

/* Sets @site->shape and @site->zigzag from its argument types. For the decoder and for tests that build sites
 * by hand. */
void dc_site_shape(struct dc_site_info *site);

struct dc_text {
	const char *bytes; /* NULL: the app passed NULL. Not NUL-terminated, any byte may occur */
	uint32_t length;
	bool cut;
};

/* U64 BOOL PTR in u, I64 in i, F64 in f, STR in text; SECRET and dropped arguments have none. */
union dc_value {
	uint64_t u;
	int64_t i;
	double f;
	struct dc_text text;
};

struct dc_trace_context {
	uint8_t flags;
	uint8_t trace_id[16];
	uint8_t span_id[8];
};

/*
 * One event. Everything up to @info is set in every event; what follows only where its kind is named (@args: the first
 * @arg_count), the rest is left as it was.
 */
struct dc_event {
	uint64_t units; /* time; OPEN: when the chunk began, that is when it was known to be open */
	uint8_t kind; /* DC_KIND_* of an event, never TIME; OPEN and THREAD are reported, see dc_lane_decode() */
	uint8_t arg_count;
	bool implied;          /* END: closed by the end of an outer span or by END_TO */
	bool from_open;        /* END: its begin was known only from an open-span copy */
	uint16_t site;         /* id; of the span for END */
	uint16_t args_dropped; /* bit i: argument i had no room */
	uint32_t depth; /* BEGIN, END, OPEN: of the span, 1 is the outermost; others: spans open around it */
	uint32_t tid;
	uint32_t serial; /* thread of the lane */
	uint32_t lane;
	uint64_t start_units; /* END: when the span began; OPEN: likewise; ~0 when not known, and for other
				 kinds */
	/* NULL for FLOW, CONTEXT, THREAD and an END whose begin is not known. Of a DC_SITE_INLINE event it lasts
	 * until the next one; an END of such a span has its name, cut to 63 bytes, and nothing else. */
	const struct dc_site_info *info;
	union dc_value args[DC_ARG_MAX];
	uint64_t flow_id;                /* FLOW_OUT, FLOW_IN */
	struct dc_trace_context context; /* CONTEXT */
	const uint8_t *stack;            /* STACK: stack_count little-endian 8-byte addresses, unaligned */
	uint32_t stack_count;
	const char *comm; /* THREAD: 16 bytes, NUL-terminated */
};

/*
 * One lane's state between chunks. Caller's memory; fields are the decoder's own, @schema and the counters excepted.
 * Spans deeper than DC_DECODE_DEPTH_MAX are counted in depth but not remembered: their ENDs come as not known.
 */
#define DC_DECODE_DEPTH_MAX 256u
#define DC_DECODE_INLINE_MAX 16u

struct dc_lane_decoder {
	const struct dc_schema *schema;
	uint64_t events; /* events delivered so far; OPEN, THREAD and implied ENDs are no events of the ring:
			    not counted */
	uint64_t overwritten; /* events missing between the chunks fed, from their running numbers */
	uint64_t next_event;  /* running number expected next; ~0 before the first chunk */
	/* current chunk */
	const uint8_t *at;
	const uint8_t *end;
	uint64_t units;
	uint32_t tid;
	uint32_t serial;
	uint32_t lane;
	uint32_t depth;
	uint32_t implied_to; /* END records still to be made up: close down to this depth; 0: none */
	bool faulty;         /* the chunk ended by a fault */
	bool follows;        /* the chunk continues the one before: its OPEN records say nothing new */
	struct dc_site_info inline_site; /* for DC_SITE_INLINE events */
	char inline_name[256];
	struct { /* of the open spans, the outermost first */
		uint64_t start_units[DC_DECODE_DEPTH_MAX];
		uint32_t span[DC_DECODE_DEPTH_MAX]; /* site, and how it is known: see lane.h; 0: begin never seen */
		uint32_t inline_number[DC_DECODE_DEPTH_MAX]; /* DC_SITE_INLINE: which begin that brought a name */
	} open;
	/* Names of the last DC_SITE_INLINE begins, for their ends. A span whose name has gone is "?". */
	uint32_t inline_count;
	char inline_spans[DC_DECODE_INLINE_MAX][64];
};

void dc_lane_init(struct dc_lane_decoder *d, const struct dc_schema *schema);

/*
 * dc_lane_feed() - start on the next chunk of a lane, oldest first
 * @chunk: the chunk's first byte (its header); must stay until the last dc_lane_next() on it
 * @bytes: committed bytes (of the state word); no byte beyond is read
 *
 * When the chunk does not follow the one before (events were overwritten in between, or it is the first), the open
 * spans are taken from its OPEN records, which dc_lane_next() then delivers as events of kind DC_KIND_OPEN. When it
 * does follow, OPEN records are skipped: the state is known already. Running numbers that go backwards (a chunk fed
 * twice, a hostile ring) are taken as a new start and not counted. Return: 0, -EBADMSG when the header is not one.
 */
int dc_lane_feed(struct dc_lane_decoder *d, const uint8_t *chunk, size_t bytes);

/*
 * dc_lane_next() - the next event of the chunk
 *
 * An END_TO gives the END of every span it closes, innermost first, all but the last implied. A THREAD record
 * closes nothing: the spans of the thread that left stay without an end. Return: 1 and *@ret_event, 0 at the
 * end of the chunk, -EBADMSG when the bytes do not parse (the chunk is then over).
 */
int dc_lane_next(struct dc_lane_decoder *d, struct dc_event *ret_event);

/* dc_lane_decode() - dc_lane_feed() and every event to @each. A non-zero return of @each stops and is returned. */
int dc_lane_decode(struct dc_lane_decoder *d, const uint8_t *chunk, size_t bytes,
		   int (*each)(void *arg, const struct dc_event *event), void *arg);

/*
 * dc_lane_more() - records of the chunk that was fed, from somewhere else than its bytes: what was committed since (tail.c),
 * what stands in columns (columns_each.c)
 * @at, @bytes: whole records, which come next in the chunk; must stay until this returns
 *
 * Return: as dc_lane_decode().
 */
int dc_lane_more(struct dc_lane_decoder *d, const uint8_t *at, size_t bytes,
		 int (*each)(void *arg, const struct dc_event *event), void *arg);

/*
 * dc_event_format() - text of a DC_KIND_LOG event: its format with its arguments, as printf would have written it at
 * most @size bytes with the NUL. The format is a peer's: it is interpreted here, never handed to printf as it is.
 * Conversions without a fitting argument are written as they stand. Return: the length the whole text would have.
 */
size_t dc_event_format(const struct dc_event *event, char *text, size_t size);

/* dc_value_format() - one argument as text: 42, -1, 1.5, true, 0x7f.., the string, or <secret>. Return: as above. */
size_t dc_value_format(const struct dc_event *event, unsigned index, char *text, size_t size);
