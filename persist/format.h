/* SPDX-License-Identifier: MIT */
/*
 * The capture file (.dcap) on disk. FORMAT.md is the normative text; this is its C form.
 *
 * A file is a run of blocks. A block begins at a multiple of 64, its header says how far away the next one is, and both
 * header and payload carry an XXH3 checksum: a file cut anywhere is readable up to its last whole block, and after a
 * damaged block a reader finds the next one by scanning for the magic.
 *
 *   raw (written at the trigger, in 4 KiB-aligned blocks, by O_DIRECT):
 *     FILE INCIDENT { PROCESS TABLES CHUNKS... TABLES LOSS } per process, ...  END
 *   settled (written once, renamed over the raw one):
 *     FILE INCIDENT { PROCESS TABLES COLUMNS... LOSS } per process, ...  INDEX END
 *
 * In a raw file INCIDENT and PROCESS come again before END, with what was learned meanwhile (further triggers, how a
 * process died, how long copying took): the last whole one counts. Tables come twice: before the chunks, so that a
 * cut file has names, and after them, so that every id resolves; the last whole one counts. A second pass (`--after`)
 * adds CHUNKS, TABLES and LOSS blocks of the same processes; of two copies of one chunk (same process, lane and
 * first_event) the one with more bytes counts.
 *
 * COLUMNS holds the same chunks as CHUNKS, byte for byte, split into columns and compressed: dc_columns_join() gives
 * back exactly the bytes that were in the ring. So everything above this file knows only chunks.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/ring.h"

#define DC_BLOCK_MAGIC UINT32_C(0x4b424344) /* "DCBK" */
#define DC_FORMAT_VERSION 1u
#define DC_FORMAT_INCOMPAT_KNOWN UINT64_C(0)
#define DC_BLOCK_ALIGN 64u
#define DC_RAW_ALIGN 4096u
#define DC_BLOCK_PLAIN_MAX (4u << 20) /* a reader refuses larger ones: bounds its memory */

#define DC_BLOCK_FILE 1u
#define DC_BLOCK_INCIDENT 2u /* fields: persist/fields.h */
#define DC_BLOCK_PROCESS 3u /* fields */
#define DC_BLOCK_TABLES 4u
#define DC_BLOCK_CHUNKS 5u
#define DC_BLOCK_COLUMNS 6u
#define DC_BLOCK_LOSS 7u
#define DC_BLOCK_INDEX 8u
#define DC_BLOCK_END 9u
#define DC_BLOCK_MAPS 10u /* what code lay where; repeatable, entries are numbered on over all of a process */
#define DC_BLOCK_SAMPLES 11u /* struct dc_sample, one behind the other; repeatable */
#define DC_BLOCK_STACKS 12u /* unwound: runs of frame numbers; repeatable, as FRAMES and NAMES are */
#define DC_BLOCK_FRAMES 13u
#define DC_BLOCK_NAMES 14u

#define DC_BLOCK_ZSTD 1u /* flags: the payload is one zstd frame of plain_bytes */

struct dc_block_header {
	uint32_t magic;
	uint16_t type;
	uint16_t flags;
	uint32_t process; /* which process of the incident, 0.. ; ~0: none */
	uint32_t sequence; /* number of this block in the file, 0.. */
	uint64_t stored_bytes; /* payload bytes that follow this header */
	uint64_t plain_bytes; /* after decompression */
	uint64_t next; /* distance from this header to the next one, a multiple of 64 */
	uint64_t payload_xxh3; /* XXH3_64bits of the stored payload */
	uint64_t reserved;
	uint64_t header_xxh3; /* of the 56 bytes before */
};

/* DC_BLOCK_FILE */
struct dc_file_block {
	uint32_t version;
	uint32_t settled; /* 0 raw, 1 settled */
	uint64_t compat;
	uint64_t incompat;
	uint8_t capture_id[16]; /* random; survives settling */
	int64_t created_ns; /* CLOCK_REALTIME */
	char writer[24]; /* "dashcam 0.1.0" */
};

/*
 * DC_BLOCK_TABLES: this header, then the parts in this order, each as it was in the ring and each rounded up to 8 bytes:
 * ring header (one page), sites, strings, modules, lanes, triggers.
 */
struct dc_tables_block {
	uint32_t site_count;
	uint32_t strings_bytes;
	uint32_t module_count;
	uint32_t lane_count;
	uint32_t trigger_count;
	uint32_t reserved[3];
};

/* DC_BLOCK_CHUNKS and DC_BLOCK_COLUMNS: this header, @count entries, then the chunk bytes (or their columns). */
struct dc_chunks_block {
	uint32_t count;
	uint32_t chunk_bytes;
	uint32_t data_offset; /* from the start of the payload to the first chunk byte */
	uint32_t reserved;
};

struct dc_chunk_copy {
	uint64_t state; /* the state word the copy is good for; 0: recycled while it was read, bytes are meaningless */
	uint32_t offset; /* of the chunk's first byte from data_offset; in COLUMNS: in the joined bytes */
	uint32_t index; /* in the pool, for messages */
	uint32_t lane;
	uint32_t sealed; /* coarse time of its last event (as in the ring's entry) */
};

/* DC_BLOCK_LOSS: one per lane that lost anything, then one with lane ~0 for the process. */
struct dc_loss_entry {
	uint32_t lane;
	uint32_t reserved;
	uint64_t overwritten; /* events of the window recycled before the snapshot */
	uint64_t dropped; /* events the guest could not record (since start) */
	uint64_t discarded_chunks; /* recycled while being copied */
};

/* DC_BLOCK_INDEX: one entry per CHUNKS or COLUMNS block, so that a reader cuts by time without reading them. */
struct dc_index_entry {
	uint64_t offset; /* of the block in the file */
	uint64_t from_units;
	uint64_t to_units;
	uint64_t events;
	uint32_t process;
	uint32_t chunks;
};

/* DC_BLOCK_END: the file is complete. */
struct dc_end_block {
	uint64_t blocks; /* before this one */
	uint64_t events;
	uint64_t chunks;
	uint64_t raw_bytes; /* committed chunk bytes, as they were in the rings */
	uint64_t faults; /* settled: what was wrong with the raw file; its damaged parts are not in this one */
};

/*
 * STACKS AND SAMPLES of one process; it may have no ring and no TABLES (a program that never heard of dashcam).
 *
 *   raw       MAPS SAMPLES...             samples carry addresses, or registers and a copy of the stack
 *   settled   MAPS SAMPLES... STACKS... FRAMES... NAMES...
 *             samples that could be unwound carry a stack's number instead; what could not stays as it was
 *
 *   sample.stack ──► STACKS: n frames ──► FRAMES: address, MAPS entry, offset ──► NAMES: function, file, line ──► outer
 *
 * Numbers of stacks, frames and names begin at 1 and go on over the blocks of a process (their heads say where each
 * begins), 0 is none. Entries of MAPS are numbered from 0.
 */
struct dc_maps_block { /* then @count entries, then strings */
	uint32_t first;
	uint32_t count;
	uint32_t strings_bytes;
	uint32_t reserved;
};

#define DC_MAP_GONE 1u /* the file was deleted or replaced while it was mapped */
#define DC_MAP_VDSO 2u
#define DC_MAP_KERNEL 4u /* one entry for all of the kernel and its modules */

/* An executable mapping. Of those that held an address at a time the last one counts: later blocks say what came since. */
struct dc_map_entry {
	uint64_t start;
	uint64_t end;
	uint64_t offset; /* in the file, of @start */
	int64_t from_ns; /* CLOCK_MONOTONIC when it was not yet there, 0: there from the beginning */
	int64_t until_ns; /* when it was seen to be gone, 0: still there when this was written */
	uint32_t path; /* in the strings of its block */
	uint8_t flags; /* DC_MAP_* */
	uint8_t build_id_bytes; /* 0: none found */
	uint8_t reserved[2];
	uint8_t build_id[24];
};

#define DC_SAMPLE_CPU 1u /* was running; @weight_ns of CPU time */
#define DC_SAMPLE_OFF 2u /* went off the CPU here; one of @weight_ns switches (a count, not ns) was sampled */
#define DC_SAMPLE_SWITCH_OUT 3u /* a context switch, no stack */
#define DC_SAMPLE_SWITCH_PREEMPT 4u /* the same, but it would have gone on */
#define DC_SAMPLE_SWITCH_IN 5u
#define DC_SAMPLE_THREAD 6u /* stopped at the trigger; extra: struct dc_thread_state */
#define DC_SAMPLE_CRASH 7u /* where a fatal signal hit; extra: struct dc_crash_state */
#define DC_SAMPLE_EVENT 8u /* of a STACK event whose addresses are not all there are; extra: struct dc_event_state */
#define DC_SAMPLE_LAST 8u

#define DC_SAMPLE_KERNEL 1u /* @ips begin with kernel addresses, the user's follow behind a marker (DC_IP_USER) */
#define DC_SAMPLE_STACK_CUT 2u /* the stack was deeper than the copy */
#define DC_SAMPLE_TRUNCATED 4u /* settled: unwinding ended before the outermost frame */
#define DC_SAMPLE_WALKED 8u /* settled: by frame pointers, and where these ended nobody said */

/* Among @ips, as the kernel writes them (PERF_CONTEXT_*): what follows is of the kernel, of the user. */
#define DC_IP_KERNEL ((uint64_t)-128)
#define DC_IP_USER ((uint64_t)-512)
#define DC_IP_MARKER_MIN ((uint64_t)-4095)

/* Behind it: ips, registers (ipc/registers.h), stack bytes from the stack pointer up, extra; each padded to 8. */
struct dc_sample {
	uint32_t bytes; /* of all of it, a multiple of 8 */
	uint16_t kind; /* DC_SAMPLE_* */
	uint16_t flags;
	uint32_t tid;
	uint32_t cpu; /* ~0: not known */
	int64_t monotonic_ns; /* CLOCK_MONOTONIC */
	uint64_t weight_ns;
	uint32_t stack; /* number in STACKS, 0: not unwound */
	uint32_t ip_count; /* innermost first, as the kernel or the guest walked them */
	uint32_t stack_bytes;
	uint16_t reg_count; /* 0, DC_REGS_X86 or DC_REGS_ARM */
	uint16_t extra_bytes;
};

#define DC_SYSCALL_NONE INT32_C(-1) /* in user code, or on a fault */
#define DC_SYSCALL_UNKNOWN INT32_C(-2)

struct dc_thread_state {
	int32_t syscall; /* number, or DC_SYSCALL_* */
	uint8_t state; /* R S D T t Z X, of /proc/PID/stat */
	uint8_t taken; /* 1: registers and stack are there; 0: the thread could not be stopped in time */
	uint8_t reserved[2];
	uint64_t args[6]; /* of the system call */
	uint64_t stopped_ns; /* how long we held it */
	char comm[16];
	char wchan[40]; /* where in the kernel it waits; empty: nowhere, or not to be seen */
};

struct dc_crash_state {
	int32_t signal;
	int32_t code; /* si_code */
	uint64_t address; /* si_addr of a fault */
	uint32_t sender_pid; /* of a signal that was sent */
	uint32_t sender_uid;
};

struct dc_event_state {
	uint64_t units; /* time of the event, of the same thread: exactly */
};

/* Heads of STACKS, FRAMES and NAMES. */
struct dc_stacks_block { /* then, @count times: n:4 and n frame numbers of 4 bytes, innermost first */
	uint32_t first;
	uint32_t count;
	uint32_t reserved[2];
};

struct dc_frames_block { /* then @count struct dc_frame */
	uint32_t first;
	uint32_t count;
	uint32_t reserved[2];
};

#define DC_FRAME_KERNEL 1u
#define DC_FRAME_CALL 2u /* a return address: what was called from stands before it, and names are of address - 1 */
#define DC_FRAME_SIGNAL 4u /* a signal handler was called here */
#define DC_FRAME_FILE 8u /* @offset counts in the file: it was not to be had, so its virtual addresses are not known */

struct dc_frame {
	uint64_t address; /* in the process */
	uint64_t offset; /* in the module's own numbering: the ELF virtual address */
	uint32_t map; /* entry of MAPS, ~0: in no module */
	uint32_t name; /* in NAMES: the innermost function at this address, 0: not known */
	uint32_t flags; /* DC_FRAME_* */
	uint32_t reserved;
};

struct dc_names_block { /* then @count struct dc_name, then strings; offset 0 is the empty string */
	uint32_t first;
	uint32_t count;
	uint32_t strings_bytes;
	uint32_t reserved;
};

struct dc_name {
	uint32_t function; /* demangled; in the strings of this block */
	uint32_t file; /* 0: not known */
	uint32_t line; /* 0: not known */
	uint32_t outer; /* name of the function this one was inlined into, with the line of the call; 0: none */
	uint64_t start; /* offset in the module where the function (not inlined: its symbol) begins; 0: not known */
};

static_assert(sizeof(struct dc_block_header) == 64, "block header is one line");
static_assert(sizeof(struct dc_map_entry) == 72, "map entry");
static_assert(sizeof(struct dc_sample) == 48, "sample");
static_assert(sizeof(struct dc_thread_state) == 120, "thread state");
static_assert(sizeof(struct dc_crash_state) == 24, "crash state");
static_assert(sizeof(struct dc_frame) == 32, "frame");
static_assert(sizeof(struct dc_name) == 24, "name");
static_assert(sizeof(struct dc_file_block) == 72, "file block");
static_assert(sizeof(struct dc_tables_block) == 32, "tables block");
static_assert(sizeof(struct dc_chunks_block) == 16, "chunks block");
static_assert(sizeof(struct dc_chunk_copy) == 24, "chunk copy");
static_assert(sizeof(struct dc_loss_entry) == 32, "loss entry");
static_assert(sizeof(struct dc_index_entry) == 40, "index entry");
static_assert(sizeof(struct dc_end_block) == 40, "end block");
