/* SPDX-License-Identifier: MIT */
/*
 * What a capture being read consists of. Shared by the files of the reader, of no interest to others:
 *
 *   capture.c         open: walk the blocks, take the small ones, faults, accessors
 *   capture_tables.c  what is known of a process: its fields, its ring's tables, its losses
 *   capture_chunks.c  blocks of chunks: a small cache, and the index of all chunks
 *   capture_each.c    every event of a process; totals
 *   cursor.c          events of all lanes merged by time
 *
 * The file belongs to others, who may cut or change it at any moment: it is read by pread, never mapped, and what was
 * read is checked before it is used. Every table that grows with the file has a bound (the *_MAX below), so that a
 * small hostile file cannot ask for much memory; beyond one, the rest of the file is a fault.
 */
#pragma once

#include "persist/block.h"
#include "persist/capture.h"
#include "persist/compress.h"
#include "persist/format.h"

#define DC_CAPTURE_BLOCK_MAX (1u << 20)
#define DC_CAPTURE_CHUNK_MAX (1u << 21)
#define DC_CAPTURE_PROCESS_MAX 4096u
#define DC_CAPTURE_TABLES_BYTES_MAX (64u << 20) /* of all processes together */
#define DC_CAPTURE_FAULT_MAX 256u
#define DC_CAPTURE_CACHE_SLOTS 6u

/* A whole block, as its header said. */
struct dc_block_ref {
	uint64_t offset; /* of the header in the file */
	uint64_t payload_xxh3;
	uint32_t stored_bytes;
	uint32_t plain_bytes;
	uint32_t pad_bytes; /* zeros between the payload and the next header */
	uint32_t process;
	uint32_t sequence;
	uint16_t type;
	uint16_t flags;
};

/* One chunk of one lane: the best copy in the file. Ordered by process, lane, first_event. */
struct dc_chunk_ref {
	uint64_t first_event;
	uint64_t start_units;
	uint32_t process;
	uint32_t lane;
	uint32_t block;  /* in blocks[] */
	uint32_t offset; /* in the block's CHUNKS payload */
	uint32_t events;
	uint32_t bytes;
	uint32_t entry; /* which dc_chunk_copy of the block */
};

/* A lane's run of chunk_refs. */
struct dc_lane_ref {
	uint32_t process;
	uint32_t lane;
	uint32_t first;
	uint32_t count;
};

struct dc_capture_process {
	bool has_ring; /* false: nothing of a ring is in the file, and none is missed */
	bool has_tables;
	uint32_t tables_block; /* in blocks[]: the one that counts */
	struct dc_process fields;
	struct dc_ring_header ring;
	struct dc_schema *schema; /* never NULL after open */
	struct dc_ring_lane *lanes;
	uint32_t lane_count;
	struct dc_ring_module *modules;
	uint32_t module_count;
	char *strings; /* NUL behind the last byte */
	uint32_t strings_bytes;
	uint64_t lost_overwritten;
	uint64_t lost_dropped;
	uint64_t lost_discarded;
	bool has_totals;
	struct dc_capture_totals totals;
};

/* A block's CHUNKS payload in memory. */
struct dc_cache_slot {
	uint32_t block; /* ~0: empty */
	uint64_t used;  /* clock of the cache: the smallest is given up */
	size_t bytes;
	size_t room;
	uint8_t *payload;
};

struct dc_capture {
	int fd;
	uint64_t bytes;
	bool has_file_block;
	bool settled;
	bool complete;
	struct dc_incident incident;
	bool has_incident;
	struct dc_clock clock;

	struct dc_block_ref *blocks;
	uint32_t block_count;
	uint32_t block_room;

	struct dc_capture_process *processes;
	unsigned process_count;
	size_t tables_bytes;

	bool indexed;
	struct dc_chunk_ref *chunks;
	uint32_t chunk_count;
	uint32_t chunk_room;
	struct dc_lane_ref *lanes;
	uint32_t lane_count;

	struct dc_cache_slot cache[DC_CAPTURE_CACHE_SLOTS];
	uint64_t cache_clock;
	uint8_t *stored; /* a block as it is in the file */
	size_t stored_room;
	uint8_t *plain; /* decompressed, before the columns are joined */
	size_t plain_room;
	struct dc_decompressor *decompressor;

	struct dc_fault *faults;
	unsigned fault_count;
	unsigned faults_more; /* beyond DC_CAPTURE_FAULT_MAX */
};

/* Notes what is wrong at @offset; the same offset and text only once. */
void dc_capture_fault(struct dc_capture *c, uint64_t offset, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* How a block is called in a fault: "block 12 (chunks) at 1052672". */
#define DC_BLOCK_NAME_BYTES 80
const char *dc_block_name(const struct dc_block_ref *b, char text[static DC_BLOCK_NAME_BYTES]);

/* Exactly @bytes at @offset. Return: 0, -ENODATA when the file ends before, -errno. */
int dc_capture_pread(const struct dc_capture *c, void *to, size_t bytes, uint64_t offset);

/*
 * A block's payload, checked and decompressed; valid until the next call. What is wrong has been noted as a
 * fault. Return: 0, -EBADMSG when the block cannot be used, -ENOMEM, -errno of pread.
 */
int dc_capture_payload(struct dc_capture *c, const struct dc_block_ref *b, const uint8_t **ret_payload);

/* The same into memory of the caller, of DC_CAPTURE_PAYLOAD_ROOM bytes. */
#define DC_CAPTURE_PAYLOAD_ROOM (DC_BLOCK_PLAIN_MAX + DC_RAW_ALIGN)
int dc_capture_payload_into(struct dc_capture *c, const struct dc_block_ref *b, uint8_t *to);

/* The same as it is stored, stored_bytes of it: to be copied. */
int dc_capture_stored(struct dc_capture *c, const struct dc_block_ref *b, const uint8_t **ret_stored);

/* The same of at most the first @room bytes, for a look at the head of a block. */
int dc_capture_prefix(struct dc_capture *c, const struct dc_block_ref *b, size_t room,
		      const uint8_t **ret_payload, size_t *ret_bytes);

/* Damage is damage, whether or not the block is used: notes it, returns only errors that are not the file's. */
int dc_capture_check(struct dc_capture *c, const struct dc_block_ref *b);

/* capture_tables.c: the fields, tables and losses of all processes, from the last whole block of each. */
int dc_capture_read_tables(struct dc_capture *c);
void dc_capture_process_fini(struct dc_capture_process *p);

/* capture_chunks.c */
int dc_capture_index(struct dc_capture *c);
/* The chunk's bytes, in the cache: valid until the next call. -EBADMSG: its block has become unreadable. */
int dc_capture_chunk(struct dc_capture *c, const struct dc_chunk_ref *ref, const uint8_t **ret_bytes);
/* The payload of a COLUMNS block as it is, in the caller's own slot, which is to be zeroed first. Return: as
 * dc_capture_payload(). */
int dc_capture_columns(struct dc_capture *c, uint32_t block, struct dc_cache_slot *slot);
void dc_capture_chunk_fault(struct dc_capture *c, const struct dc_chunk_ref *ref, uint64_t decoded);

/*
 * Units of the incident's clock to those of a process and back; the same unless two versions of the recorder
 * were at work. ~0 stays ~0.
 */
uint64_t dc_capture_to_process(const struct dc_capture *c, unsigned process, uint64_t units);
uint64_t dc_capture_from_process(const struct dc_capture *c, unsigned process, uint64_t units);

/* The window of the incident, in units of @process. */
void dc_capture_window(const struct dc_capture *c, unsigned process, uint64_t *ret_from, uint64_t *ret_to);
