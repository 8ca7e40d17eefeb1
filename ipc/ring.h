/* SPDX-License-Identifier: MIT */
/*
 * The ring file: what a recording process and everybody who reads it agree on.
 *
 * One file per process image, sparse, on tmpfs. The guest (libdashcam inside the app) maps it and writes; a
 * watcher reads it with pread() only. No byte of it is a pointer, every number is little-endian, every field has a
 * fixed width, every reserved byte is zero.
 *
 *   offset 0      header          one page: magic (written last), sizes, identity, clock, anchors, counters
 *   control_off   control         the only part a watcher writes: enable words, thresholds, window, hold
 *   sites_off     site table      append-only, never overwritten: names outlive the events that use them
 *   strings_off   string table    append-only bytes, NUL-terminated; offset 0 is the empty string
 *   modules_off   module table    append-only: path, build-id, base
 *   lanes_off     lane table      one 64-byte line per lane: what is looked at four times a second
 *   triggers_off  trigger slots   the app's own triggers, newest DC_TRIGGER_SLOTS of them
 *   crash_off     crash           where a fatal signal hit: registers and stack of that thread; 0: the writer keeps none
 *   states_off    chunk states    one 16-byte entry per chunk: the state word, when sealed, whose
 *   chunks_off    chunk pool      chunk_cap chunks of chunk_bytes
 *   samples_off   samples         stacks that the guest takes of its own threads (ipc/samples.h); 0: the writer takes none
 *
 * Pages that were never used are holes and cost nothing. The guest populates a page (MADV_POPULATE_WRITE) before it
 * first touches it, so a full tmpfs is an errno and never a SIGBUS.
 *
 * THE CHUNK PROTOCOL. Each chunk has one state word:
 *
 *    63      62 ........ 32   31 ........ 16   15 ......... 0
 *   owned    generation (31)   events (16)      bytes (16)        bytes counts from the chunk's first byte
 *
 *   claim    CAS  {sealed, g, n, b} -> {owned, g+1, 0, 0}         [chunk-claim]
 *            fence(release)                                        [chunk-reuse] pairs with the reader's second fence
 *            chunk header, open-span copies, then commit: bytes = sizeof(header) + copies
 *   event    payload bytes past `bytes`, then one release store of the word with events+1, bytes+len   [chunk-commit]
 *   seal     entry.sealed = coarse time, then a release store of the word without `owned`              [chunk-seal]
 *
 *   reader   s1 = states; fence(acquire); pread payload up to bytes(s1); fence(acquire); s2 = states
 *            generation(s1) == generation(s2) and bytes(s1) <= bytes(s2): the first bytes(s1) bytes are exactly what
 *            the owner committed. Otherwise the chunk was recycled meanwhile: discarded and counted.
 *
 *   [chunk-commit] release in the writer pairs with the reader's first fence: who sees `bytes` sees the bytes.
 *   [chunk-reuse]  release fence after the claim pairs with the reader's second fence: who saw a byte of the new
 *                  generation in the payload sees the new generation in the state word.
 *   [chunk-claim]  acquire in the claimer's CAS pairs with [chunk-seal]: the old owner's last stores happen before
 *                  the new owner's first. Without it a late store of the old owner could land in the new payload.
 *
 * A thread stopped at any instruction delays nobody: claimers skip owned chunks. A lane owns one, and two for a while: the
 * full one is sealed only when there is an event in the next.
 * A lane's chunks are ordered by first_event in their headers; a gap between one chunk's first_event + events and the
 * next one's first_event is exactly the number of events overwritten.
 *
 * TIME is counted in units of 2^tick_shift ticks of the clock named in the header (about 2 to 8 ns; `_units`).
 * Coarse time is units >> DC_COARSE_SHIFT (about 10 ms), 32 bits, compared by signed difference.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define DC_RING_MAGIC UINT64_C(0x474e49524d414344) /* "DCAMRING" */
#define DC_RING_VERSION 1u

#define DC_PAGE_BYTES 4096u
#define DC_SITE_MAX 4096u /* ids 1..4095; 0 is "not registered" */
#define DC_SITE_INLINE 0xffffu /* site id of an event that carries its own name: the table was full */
#define DC_LANE_MAX 4096u
#define DC_MODULE_MAX 1024u
#define DC_STRINGS_BYTES (1u << 20)
#define DC_TRIGGER_SLOTS 32u
#define DC_ANCHOR_MAX 32u
#define DC_ARG_MAX 8u
#define DC_CRASH_STACK_BYTES (64u << 10) /* what the guest copies; less in small rings */
#define DC_CRASH_BYTES_MAX (1u << 20)
#define DC_SAMPLES_BYTES_MAX (8u << 20)

#define DC_RING_BYTES_MIN (UINT64_C(512) << 10) /* no ring is made with a smaller cap */
#define DC_RING_BYTES_MAX (UINT64_C(4) << 30) /* no cap is larger, whatever is asked for */
#define DC_RING_FREE_PARTS 4u /* nor larger than this part of what its file system has free */
#define DC_CHUNK_BYTES_MIN 4096u
#define DC_CHUNK_BYTES_MAX 32768u
#define DC_CHUNK_SLACK 128u /* no event starts in the last 128 bytes, so word stores never leave the chunk */
#define DC_COARSE_SHIFT 22

/* header.incompat: a reader that does not know a set bit refuses the ring; compat: it may go on. None so far. */
#define DC_RING_INCOMPAT_KNOWN UINT64_C(0)

/* header.clock */
#define DC_CLOCK_MONOTONIC 1u /* clock_gettime(CLOCK_MONOTONIC), ns */
#define DC_CLOCK_TSC 2u /* x86 rdtsc */
#define DC_CLOCK_CNTVCT 3u /* aarch64 cntvct_el0 */

/* header.flags */
#define DC_RING_GOODBYE 1u /* orderly exit: nobody needs to wonder how this one died */
#define DC_RING_STOPPED 2u /* dc_stop(): recording is off until the next dc_start() */
#define DC_RING_CRASHED 4u /* the crash part holds something */

/* One moment on all clocks. @tick is raw (not shifted); the others are ns of their clocks. */
struct dc_anchor {
	uint64_t tick;
	int64_t realtime_ns;
	int64_t monotonic_ns;
	int64_t boottime_ns;
};

/*
 * Page 0. Written by the guest: the upper part once before the magic, the lower part while it lives.
 * Readers copy the page once and validate it with dc_ring_check().
 */
struct dc_ring_header {
	uint64_t magic; /* [ring-magic] release store by the guest, last of all */
	uint32_t version;
	uint32_t header_bytes; /* sizeof(struct dc_ring_header) of the writer */
	uint64_t compat;
	uint64_t incompat;
	uint64_t file_bytes; /* the cap: fixed at start */
	uint64_t control_off;
	uint64_t sites_off;
	uint64_t strings_off;
	uint64_t modules_off;
	uint64_t lanes_off;
	uint64_t triggers_off;
	uint64_t states_off;
	uint64_t chunks_off;
	uint32_t site_cap;
	uint32_t strings_bytes;
	uint32_t module_cap;
	uint32_t lane_cap;
	uint32_t trigger_cap;
	uint32_t chunk_bytes;
	uint32_t chunk_cap; /* chunks that fit under the cap */
	uint32_t clock; /* DC_CLOCK_* */
	uint32_t tick_shift;
	uint32_t pid; /* as the guest sees itself (its own pid namespace) */
	uint32_t uid;
	uint32_t gid;
	uint64_t start_time; /* /proc/self/stat field 22: clock ticks since boot */
	uint64_t pid_namespace; /* inode number of /proc/self/ns/pid */
	uint64_t window_units; /* what the guest was asked to keep (DASHCAM_WINDOW); 0 in its first millisecond */
	uint64_t started_tick; /* raw clock when recording began */
	uint8_t boot_id[16];
	char name[64]; /* DASHCAM_NAME, else the kernel's comm; NUL-terminated */
	uint64_t window_ns; /* the same in ns */
	uint64_t crash_off;
	uint64_t crash_bytes; /* struct dc_ring_crash and room for a stack */
	uint64_t samples_off;
	uint64_t samples_bytes; /* struct dc_ring_samples and room for records */
	uint64_t reserved0[4];

	/* From here on the guest keeps writing (relaxed atomics; a reader takes them as hints, never as bounds). */
	uint32_t flags; /* DC_RING_* */
	uint32_t sites_used; /* [table-publish] entries below are complete */
	uint32_t strings_used;
	uint32_t modules_used;
	uint32_t lanes_used;
	uint32_t chunks_grown; /* chunks that may be in use: those beyond are not worth a look */
	uint32_t anchors_used; /* running count; slot = count % DC_ANCHOR_MAX */
	uint32_t hand; /* running count; next chunk looked at = hand % chunks_grown */
	uint64_t trigger_seq; /* triggers ever fired */
	uint64_t lost_early; /* events during start, by threads that had no writer yet */
	uint64_t lost_lanes; /* events of threads for which no lane was left */
	uint64_t grow_failed; /* times growth was refused (tmpfs full) */
	uint64_t triggers_asked; /* of trigger_seq those of DC_TRIGGER(), counted first; 0: a guest that does not count them */
	uint64_t reserved2[7];
	struct dc_anchor anchors[DC_ANCHOR_MAX];
	uint8_t reserved3[4096 - 1488];
};

/*
 * The control part: written by watchers of the owner's uid or root, read by the guest on every event (enable) and
 * every span end (threshold). All zero means: everything on, no thresholds, nobody there.
 */
struct dc_ring_control {
	uint32_t watcher_pid; /* hint for messages; 0: none */
	uint32_t doorbell_ack; /* low half of trigger_seq last seen by a watcher: the guest rings again beyond it */
	uint64_t window_units; /* wanted window, 0: the guest's own */
	uint64_t hold_from_units; /* a snapshot of [hold_from, hold_until] is under way: grow rather than recycle it */
	uint64_t hold_until_units; /* ... and for how long at most (≤ 1 s ahead; the guest bounds it) */
	uint32_t crash_ack; /* low half of crash.seq: the watcher has what it wants of the dying process */
	uint32_t sample_hz; /* the guest is to sample its threads so often a second of their CPU time; 0: not */
	uint64_t sample_until_units; /* ... and until when: a watcher that lives goes on asking */
	uint32_t sample_copy_bytes; /* of the stack, at most */
	uint32_t reserved0;
	uint64_t reserved[505];
	uint32_t enable[DC_SITE_MAX]; /* DC_ENABLE_*, 0: on */
	uint64_t threshold[DC_SITE_MAX]; /* one's complement of the span duration in units that fires; 0: never */
};

#define DC_ENABLE_OFF 1u /* switched off from outside */
#define DC_ENABLE_STOPPED 2u /* by dc_stop() */
#define DC_ENABLE_STACK 4u /* each event of the site is preceded by a STACK event of it */
#define DC_ENABLE_NOTICE (1u << 16) /* the slow path, please: there may be something new in this part. A byte of its own */
#define DC_ENABLE_THROTTLE(every_log2) ((uint32_t)(every_log2) << 8) /* keep one of 2^n, n in bits 8..12 */
#define DC_ENABLE_THROTTLE_OF(word) ((word) >> 8 & 31u)

/* What an event of one site looks like. id is the index in the table. String offsets point into the string table. */
struct dc_ring_site {
	uint32_t name;
	uint32_t file;
	uint32_t line;
	uint8_t kind; /* DC_KIND_* the site records with (BEGIN for spans) */
	uint8_t level; /* DC_KIND_LOG: enum dc_level */
	uint8_t arg_count;
	uint8_t published; /* [table-publish] 1, release store, last */
	uint8_t types[DC_ARG_MAX]; /* DC_TYPE_* (event.h) */
	uint32_t keys[DC_ARG_MAX]; /* DC_KIND_LOG: keys are empty and format is in `format` */
	uint32_t format;
	uint32_t reserved;
};

/* A file mapped executable into the process. A module unmapped later keeps its entry, with unloaded_tick set. */
struct dc_ring_module {
	uint64_t base; /* load bias: address = base + ELF virtual address */
	uint64_t start; /* lowest mapped address */
	uint64_t end;
	uint64_t loaded_tick; /* raw clock when first seen */
	uint32_t path; /* string table */
	uint8_t build_id_bytes; /* 0: none found */
	uint8_t published; /* [table-publish] */
	uint8_t reserved[2];
	uint8_t build_id[24];
};

/*
 * A lane: the place of one thread. When a thread exits, its lane (with the chunk it has open) goes to the next new
 * thread, which begins with a DC_KIND_THREAD record; so a lane has one thread at a time and several over time.
 * A signal handler that interrupts an event records into a lane of its own (DC_LANE_NESTED), same tid.
 * The first 32 bytes are stored with every event: relaxed, each field by itself; a look may tear between fields.
 */
struct dc_ring_lane {
	uint64_t last_units; /* time of the last event */
	uint64_t open_units; /* when the innermost open span began; meaningless at depth 0 */
	uint32_t depth; /* open spans */
	uint16_t open_site; /* site id of the innermost open span */
	uint16_t flags; /* DC_LANE_* */
	uint32_t chunk; /* index of the open chunk, ~0: none */
	uint32_t tid; /* 0: lane is free. As the guest sees it (its pid namespace) */
	uint32_t serial; /* which thread of this lane: 1, 2, ... */
	uint32_t held; /* chunks whose entry names this lane; claimers of any lane count it up and down */
	uint64_t dropped; /* events that found no chunk, or nested too deep */
	char comm[16]; /* thread name, NUL-terminated */
};

#define DC_LANE_NOBODY UINT32_MAX

#define DC_LANE_NESTED 1u
#define DC_LANE_FREE 2u /* its thread exited; waits for the next */

/* Text and arguments of DC_TRIGGER are also an event of the lane; the slot is what a watcher looks at. */
struct dc_ring_trigger {
	uint64_t seq; /* [trigger-slot] release, last; 0 while being written. Slot = (seq - 1) % trigger_cap */
	uint64_t tick; /* raw clock */
	uint64_t value; /* DC_TRIGGER_SPAN: the span's duration in units */
	uint32_t tid;
	uint16_t site;
	uint16_t reason; /* DC_TRIGGER_* */
	char text[96]; /* NUL-terminated, may be cut */
};

#define DC_TRIGGER_API 1u /* DC_TRIGGER() */
#define DC_TRIGGER_SPAN 2u /* a span outlasted its threshold */
#define DC_TRIGGER_CRASH 3u /* a fatal signal; value: its number. Details are in the crash part */

/*
 * The first thread that a fatal signal hit, by the handler in it. The stack follows, from @sp up; what could not be read
 * below its first readable page is zero. Pages are populated when it happens.
 */
struct dc_ring_crash {
	uint64_t seq; /* [crash-slot] release, last: complete; 0 while being written */
	uint32_t claimed; /* tid of who writes it, 0: nobody yet */
	uint32_t tid;
	int32_t signal;
	int32_t code; /* si_code */
	uint64_t address; /* si_addr of a fault */
	uint32_t sender_pid; /* of a signal that was sent */
	uint32_t sender_uid;
	uint64_t tick; /* raw clock */
	int64_t monotonic_ns;
	uint64_t sp;
	uint32_t reg_count; /* ipc/registers.h */
	uint32_t stack_bytes;
	uint64_t regs[34];
	uint64_t reserved[20];
};

/* Dense table beside the pool: claimers and readers look here, not into the chunks. */
struct dc_chunk_entry {
	uint64_t state; /* see the protocol above */
	uint32_t sealed; /* coarse time of the last event; stored by the owner before it seals */
	uint32_t lane; /* of the owner or last owner; DC_LANE_NOBODY: populated, never used (then state is 0) */
};

/* First 64 bytes of a chunk; payload follows. Every chunk decodes alone, given the tables. */
struct dc_chunk_header {
	uint64_t first_event; /* the lane's running number of the first event here */
	uint64_t start_units; /* time the deltas start from */
	uint32_t generation; /* as in the state word */
	uint32_t lane;
	uint32_t tid; /* thread that wrote the first event (a DC_KIND_THREAD record may follow) */
	uint32_t serial;
	uint32_t depth; /* open spans when the chunk was claimed */
	uint32_t opens; /* DC_KIND_OPEN records at the head: outermost 8 and innermost 24 of them */
	uint64_t reserved[3];
};

#define DC_CHUNK_OWNED (UINT64_C(1) << 63)
#define DC_CHUNK_EVENT_ONE (UINT64_C(1) << 16)

static inline uint32_t dc_state_bytes(uint64_t s)
{
	return (uint32_t)(s & 0xffff);
}

static inline uint32_t dc_state_events(uint64_t s)
{
	return (uint32_t)(s >> 16 & 0xffff);
}

static inline uint32_t dc_state_generation(uint64_t s)
{
	return (uint32_t)(s >> 32 & 0x7fffffff);
}

/* The word a claimer stores: owned, next generation, nothing committed. */
static inline uint64_t dc_state_claimed(uint64_t s)
{
	return DC_CHUNK_OWNED | (uint64_t)((dc_state_generation(s) + 1) & 0x7fffffff) << 32;
}

#define DC_ASSERT_AT(type, field, at) static_assert(offsetof(struct type, field) == (at), #type "." #field)

DC_ASSERT_AT(dc_ring_header, file_bytes, 32);
DC_ASSERT_AT(dc_ring_header, chunks_off, 96);
DC_ASSERT_AT(dc_ring_header, site_cap, 104);
DC_ASSERT_AT(dc_ring_header, clock, 132);
DC_ASSERT_AT(dc_ring_header, start_time, 152);
DC_ASSERT_AT(dc_ring_header, boot_id, 184);
DC_ASSERT_AT(dc_ring_header, name, 200);
DC_ASSERT_AT(dc_ring_header, samples_off, 288);
DC_ASSERT_AT(dc_ring_header, flags, 336);
DC_ASSERT_AT(dc_ring_header, trigger_seq, 368);
DC_ASSERT_AT(dc_ring_header, triggers_asked, 400);
DC_ASSERT_AT(dc_ring_header, anchors, 464);
static_assert(sizeof(struct dc_ring_header) == DC_PAGE_BYTES, "header is one page");
DC_ASSERT_AT(dc_ring_control, sample_hz, 36);
DC_ASSERT_AT(dc_ring_control, enable, 4096);
DC_ASSERT_AT(dc_ring_control, threshold, 4096 + 4 * DC_SITE_MAX);
static_assert(sizeof(struct dc_ring_control) % DC_PAGE_BYTES == 0, "control is whole pages");
DC_ASSERT_AT(dc_ring_site, types, 16);
DC_ASSERT_AT(dc_ring_site, keys, 24);
static_assert(sizeof(struct dc_ring_site) == 64, "site is one line");
DC_ASSERT_AT(dc_ring_module, path, 32);
static_assert(sizeof(struct dc_ring_module) == 64, "module is one line");
DC_ASSERT_AT(dc_ring_lane, tid, 28);
DC_ASSERT_AT(dc_ring_lane, dropped, 40);
static_assert(sizeof(struct dc_ring_lane) == 64, "lane is one line");
DC_ASSERT_AT(dc_ring_trigger, text, 32);
static_assert(sizeof(struct dc_ring_trigger) == 128, "trigger slot is two lines");
DC_ASSERT_AT(dc_ring_crash, regs, 72);
static_assert(sizeof(struct dc_ring_crash) == 504, "crash");
static_assert(sizeof(struct dc_chunk_entry) == 16, "dense table");
static_assert(sizeof(struct dc_chunk_header) == 64, "chunk header is one line");
static_assert(sizeof(struct dc_anchor) == 32, "anchor");
