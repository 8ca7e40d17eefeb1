/* SPDX-License-Identifier: MIT */
/*
 * Writing a raw capture: durable first. The snapshot fills 1 MiB buffers that go to disk by io_uring and O_DIRECT while
 * the next ones fill; where io_uring or O_DIRECT is refused the same bytes go by pwrite.
 *
 *     dc_writer_open(dir, name, flags, &w)                 NAME.part in @dir, not yet visible as a capture
 *     dc_writer_block(w, type, process, payload, bytes)    small blocks, copied
 *     b = dc_writer_reserve(w, bytes) ... dc_writer_commit(w, type, process, bytes)     large ones, filled in place
 *     dc_writer_close(w, keep = true)                      END block, fsync, rename to NAME, fsync of the directory
 *
 * The first error sticks: later calls return it and do nothing. On an error the .part file is removed on close.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/format.h"
#include "persist/incident.h"
#include "persist/stacks/resolve.h"

struct dc_writer;

#define DC_PROCESS_NONE UINT32_MAX /* process of a block that belongs to none */

#define DC_WRITER_PWRITE 1u /* do not try io_uring */
#define DC_WRITER_SETTLED 2u /* 64-byte block alignment, no O_DIRECT (settle, scrub) */

/*
 * @dir_fd, @name: where; the file is created 0600, O_EXCL|O_NOFOLLOW. @name must end in ".dcap".
 * @queue: how many 1 MiB buffers may be in flight (8 is plenty; more only costs memory).
 * Return: 0, or -errno of open (ENOSPC, EROFS, EACCES, EEXIST ...).
 */
int dc_writer_open(int dir_fd, const char *name, uint32_t flags, unsigned queue, const uint8_t capture_id[16],
		   struct dc_writer **ret_writer);

/* As above with the FILE block given: settling keeps the capture's identity, tests want the same bytes each time. */
int dc_writer_open_as(int dir_fd, const char *name, uint32_t flags, unsigned queue, const struct dc_file_block *file,
		      struct dc_writer **ret_writer);

/* Give the file to the recorded process's user (a watcher that is root). Return: 0, or the writer's error. */
int dc_writer_owner(struct dc_writer *w, uint32_t uid, uint32_t gid);

/*
 * dc_writer_reclaim() - remove a .part file whose writer is gone
 * A writer holds a lock on its file; one that can be locked belongs to nobody. Return: 0 removed, -EBUSY, -errno.
 */
int dc_writer_reclaim(int dir_fd, const char *part);

/* How it writes: "io_uring", "io_uring, registered buffers", "pwrite"; for --json and doctor. */
const char *dc_writer_method(const struct dc_writer *w);

int dc_writer_block(struct dc_writer *w, uint16_t type, uint32_t process, const void *payload, size_t bytes);
/* One that is stored already, with its flags (DC_BLOCK_ZSTD): out of another capture. */
int dc_writer_block_stored(struct dc_writer *w, uint16_t type, uint16_t flags, uint32_t process, const void *stored,
			   size_t bytes, size_t plain_bytes);
/* Compressed by zstd when that is smaller (settle); the level is 3 unless set before the first such block. */
void dc_writer_level(struct dc_writer *w, int zstd_level);
int dc_writer_block_zstd(struct dc_writer *w, uint16_t type, uint32_t process, const void *payload, size_t bytes);

/*
 * dc_writer_reserve() - room for the payload of the next block, at most DC_WRITER_PAYLOAD_MAX bytes
 * The memory is 64-byte aligned and the caller's until dc_writer_commit(). Waits for the disk when all buffers are in
 * flight. NULL: see dc_writer_error().
 */
#define DC_WRITER_PAYLOAD_MAX ((1u << 20) - 64u)
void *dc_writer_reserve(struct dc_writer *w);
int dc_writer_commit(struct dc_writer *w, uint16_t type, uint32_t process, size_t bytes);

/* dc_writer_expect() - about so many bytes will follow; a hint, so that the file is not made longer step by step */
void dc_writer_expect(struct dc_writer *w, uint64_t bytes);

/*
 * dc_writer_hurry() - true: what comes is about to be lost, so do not wait for the disk while there is memory to keep it
 * in; false (at first): memory stays what dc_writer_open() took. What is kept goes to the disk meanwhile, in order.
 */
void dc_writer_hurry(struct dc_writer *w, bool hurry);

int dc_writer_incident(struct dc_writer *w, const struct dc_incident *incident);
int dc_writer_process(struct dc_writer *w, uint32_t process, const struct dc_process *p);

/* Totals for the END block. */
void dc_writer_count(struct dc_writer *w, uint64_t chunks, uint64_t events, uint64_t raw_bytes);

void dc_writer_faults(struct dc_writer *w, uint64_t faults);

int dc_writer_error(const struct dc_writer *w);
uint64_t dc_writer_written(const struct dc_writer *w);

/*
 * dc_writer_close() - finish
 * @keep: true: END block, wait for all writes, fsync, rename, fsync the directory; durable when it returns 0.
 *        false: remove the .part file.
 * @w is gone afterwards, whatever the result. When only the last step fails (fsync of the directory) the capture is
 * there under its name, but may not survive a power failure.
 */
int dc_writer_close(struct dc_writer *w, bool keep);

/* How to settle; NULL for the defaults: level 3, stacks resolved with files by their paths. */
struct dc_settle_options {
	int zstd_level; /* 0: 3 */
	bool keep_stacks; /* samples stay as they were taken: nothing is unwound, nothing named */
	struct dc_resolve_options resolve; /* persist/stacks/resolve.h */
};

/* Of all processes of the capture. */
struct dc_settle_result {
	uint64_t samples; /* that could have been unwound */
	uint64_t unwound;
	uint64_t to_root; /* of these, unwound to the outermost frame; chains of frame pointers do not say */
	uint64_t frames;
	uint64_t named;
	uint32_t stack_used; /* the most bytes of a stack copy that 99 % of the samples of a process needed; 0: none was unwound */
	int64_t unwind_cpu_ns; /* CPU time of the children that unwound */
	int64_t name_cpu_ns; /* ... and that named */
	char why[320]; /* the first thing that did not work with the stacks; empty: all did */
};

/*
 * dc_settle() - raw capture → settled one, renamed over it
 * Lossless but for stacks: the chunks of the settled file are byte for byte those of the raw one; of a damaged raw file,
 * those that are whole, and the END block says that there were faults. Samples that could be unwound carry their stack's
 * number instead of addresses, registers and copied bytes; those that could not stay as they were. Takes about 40 MiB, with
 * many samples up to 150. On any error the raw file stays.
 * @dir_fd: an open directory, not AT_FDCWD. @ret_result: may be NULL.
 *
 * Return: 0, 1 if it was settled already, -ENODATA: not a capture, or its first block is lost; -EBADMSG: chunks without
 * tables; -EFBIG: more chunks or samples than a reader takes; -EEXIST: somebody is settling it; -ENOENT, -ESTALE: removed
 * or replaced meanwhile; or another -errno.
 */
int dc_settle(int dir_fd, const char *name, const struct dc_settle_options *options, struct dc_settle_result *ret_result);
