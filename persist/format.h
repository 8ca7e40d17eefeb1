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
 * cut file has names, and after them, so that every id resolves; the last whole one counts. A second pass (`--after`) adds CHUNKS, TABLES and LOSS blocks of the same
 * processes; of two copies of one chunk (same process, lane and first_event) the one with more bytes counts.
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

static_assert(sizeof(struct dc_block_header) == 64, "block header is one line");
static_assert(sizeof(struct dc_file_block) == 72, "file block");
static_assert(sizeof(struct dc_tables_block) == 32, "tables block");
static_assert(sizeof(struct dc_chunks_block) == 16, "chunks block");
static_assert(sizeof(struct dc_chunk_copy) == 24, "chunk copy");
static_assert(sizeof(struct dc_loss_entry) == 32, "loss entry");
static_assert(sizeof(struct dc_index_entry) == 40, "index entry");
static_assert(sizeof(struct dc_end_block) == 40, "end block");
