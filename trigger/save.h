/* SPDX-License-Identifier: MIT */
/*
 * One incident on its way to disk: the rings it covers, the capture it becomes. All rings belong to one uid,
 * since a capture has one owner; an incident over several users is as many of these.
 *
 *     dc_save_new(incident, output, &s)
 *     dc_save_add(s, ring)  ...     facts of the process are taken now: it may be gone later
 *     dc_save_first(s)              takes what dies, names the file, opens it, INCIDENT, copies every ring
 *     dc_save_last(s)               second pass (`after`), LOSS, INCIDENT and PROCESS as known by now, durable
 *
 * dc_save_abort() drops the file and keeps the rest: dc_save_first() may be called again (the disk was full).
 * Rings go on being overwritten meanwhile, and the capture will say so.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "persist/store.h"
#include "persist/writer.h"
#include "trigger/incident.h"
#include "trigger/sampler.h"
#include "trigger/snapshot.h"
#include "trigger/threads.h"

#define DC_SAVE_PATH_BYTES 512u
#define DC_SAVE_NAME_BYTES 128u
#define DC_SAVE_WHY_BYTES DC_STORE_WHY_BYTES

/* Where captures go. Strings are borrowed. */
struct dc_save_output {
	const char *dir;       /* made when missing */
	const char *name;      /* of the file; NULL: made from time, process and pid */
	bool per_uid;          /* a system-wide watcher: captures in <dir>/<uid>/, owned by that uid */
	uint32_t writer_flags; /* DC_WRITER_PWRITE */
};

struct dc_member {
	struct dc_ring *ring;
	struct dc_process process;
	struct dc_snapshot *snapshot;
	struct dc_maps_mark maps_mark; /* what of its address space is in the file */
	bool threads_asked; /* their stacks: taken, or not to be had */
	struct dc_threads *threads; /* taken while it stood, before there was a file; NULL: none */
	bool unreadable; /* its ring gave nothing at all: cut to nothing by its owner */
};

struct dc_save {
	struct dc_incident incident;
	struct dc_save_output output;
	uint32_t uid;
	uint32_t gid;
	int64_t threads_ns; /* stop the threads of living processes and copy their stacks, for so long in all; 0: do not */
	uint32_t count;
	struct dc_member *members;
	struct dc_writer *writer;
	int dir_fd;
	char dir[DC_SAVE_PATH_BYTES];
	char name[DC_SAVE_NAME_BYTES]; /* file name; set by the first dc_save_first(), kept when tried again */
	char why[DC_SAVE_WHY_BYTES];   /* of an error of the directory, for people */
	uint8_t capture_id[16];
	struct dc_sampler *sampler; /* borrowed; NULL: none */
	uint64_t began_ns;   /* CLOCK_MONOTONIC of dc_save_first() */
	uint64_t durable_ns; /* from then until the file was durable */
	uint64_t written_bytes;
	struct dc_snapshot_totals totals; /* of all members; set by dc_save_last() */
};

int dc_save_new(const struct dc_incident *incident, const struct dc_save_output *output,
		struct dc_save **ret_save);
void dc_save_free(struct dc_save *s); /* removes an unfinished file */
DC_DEFINE_CLEANUP(dc_save, struct dc_save *, dc_save_free)

/* dc_save_add() - one more ring; the first decides whose capture it is. Return: 0, -EPERM: of another uid, -ENOMEM. */
int dc_save_add(struct dc_save *s, struct dc_ring *ring);
/* Whether a ring of this process is in it. */
bool dc_save_has(const struct dc_save *s, uint32_t ns_pid, uint64_t start_time);

/* Return: 0; -ENODATA: none of the rings could be read; -errno of the disk. */
int dc_save_first(struct dc_save *s);
/* @again: whether a second pass is to be made. */
int dc_save_last(struct dc_save *s, bool again);
void dc_save_abort(struct dc_save *s);

/* "/var/lib/dashcam/1000/2026...dcap" */
void dc_save_path(const struct dc_save *s, char *ret_path, size_t size);
