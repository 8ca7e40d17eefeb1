/* SPDX-License-Identifier: MIT */
/*
 * The thread that saves: incidents go in, captures come out, and the watcher's loop never waits for a disk.
 *
 *     loop    dc_worker_submit(save)   ──►   queued ──first pass──► waiting (`after`) ──last pass──► durable
 *             dc_worker_fold()         ──►      │ disk full                                            │
 *             dc_worker_died()                  └──► queued again, in 10 s                             │
 *             dc_worker_report()       ◄───────────────────────────────────────────────────────────────┘
 *
 * First passes go before last ones: what is not copied yet is being overwritten. The queue is bounded; an
 * incident that finds it full is refused, so that a full disk costs a bounded amount of memory. A save
 * belongs to the worker from submit until its report; what the loop wants to add meanwhile (further triggers,
 * deaths) is kept beside it and applied before the last pass.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "trigger/save.h"

#define DC_WORKER_JOBS_MAX 16u
#define DC_WORKER_RETRY_NS INT64_C(10000000000)

struct dc_worker;

/* What became of a job. */
enum dc_worker_outcome {
	DC_WORKER_SAVED = 1,  /* durable; the job is over */
	DC_WORKER_RETRY = 2,  /* @error; kept, the next try comes by itself. Reported once per job */
	DC_WORKER_FAILED = 3, /* @error; nothing could be saved; the job is over */
};

struct dc_worker_report {
	uint64_t job;
	enum dc_worker_outcome outcome;
	int error;
	enum dc_reason reason;
	uint32_t processes;
	struct dc_snapshot_totals totals;
	uint64_t written_bytes;
	uint64_t durable_ns;
	char why[DC_SAVE_WHY_BYTES]; /* more than @error says; empty: nothing more is known */
	char dir[DC_SAVE_PATH_BYTES];
	char name[DC_SAVE_NAME_BYTES];
};

/* Blocks all signals in its thread. @retry_ns: after an error of the disk. */
int dc_worker_new(int64_t retry_ns, struct dc_worker **ret_worker);

/*
 * dc_worker_finish() - end what is queued, without waiting for `after` and with one last try each, then end the thread
 * Its reports can still be taken.
 */
void dc_worker_finish(struct dc_worker *w);
void dc_worker_free(struct dc_worker *w);

/* Becomes readable when there is a report. */
int dc_worker_fd(const struct dc_worker *w);

/*
 * dc_worker_submit() - take over @save; its second pass comes @after_ns from now, 0: one pass only
 * Return: 0, -EBUSY when DC_WORKER_JOBS_MAX are under way (the save stays the caller's).
 */
int dc_worker_submit(struct dc_worker *w, struct dc_save *save, int64_t after_ns, uint64_t *ret_job);

/*
 * dc_worker_fold() - does a capture under way cover these processes? Then this trigger becomes part of it
 * @rings: all of one uid. The capture's window is extended to @after_ns from now. @times: so many triggers.
 * Return: 1 and the job, 0 when there is none.
 */
int dc_worker_fold(struct dc_worker *w, struct dc_ring *const *rings, uint32_t count, int64_t after_ns,
		   uint32_t severity, uint64_t times, uint64_t *ret_job);

/* A process died: how goes into its captures under way, and none of them waits for `after` once all of it are dead. */
void dc_worker_died(struct dc_worker *w, uint32_t ns_pid, uint64_t start_time, bool known, int status);

/* Return: 1 and a report, 0: none. */
int dc_worker_report(struct dc_worker *w, struct dc_worker_report *ret_report);

/* Jobs under way, and those of them that wait for room on a disk. */
uint32_t dc_worker_jobs(struct dc_worker *w, uint32_t *ret_pending);
