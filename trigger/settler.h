/* SPDX-License-Identifier: MIT */
/*
 * Pretty later: the thread that makes captures small (persist's dc_settle()) and keeps the directory within
 * its budget. It runs at SCHED_IDLE, one capture at a time; evidence is durable before it begins, and stays
 * as it is when it fails.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dc_settler;

struct dc_settler_config {
	bool settle; /* else only the budget is kept */
	int zstd_level;
	uint64_t disk_bytes; /* of one directory; 0: no bound */
};

int dc_settler_new(const struct dc_settler_config *config, struct dc_settler **ret_settler);

/* A capture that has just become durable. Bounded: what finds the queue full stays raw until the next start. */
void dc_settler_add(struct dc_settler *s, const char *dir, const char *name);

/*
 * dc_settler_adopt() - what a watcher before us left in @dir: raw captures, parts of unfinished ones
 * @per_uid: the directories of users inside @dir.
 */
void dc_settler_adopt(struct dc_settler *s, const char *dir, bool per_uid);

/* Becomes readable when there is a line to report; then until 0. */
int dc_settler_fd(const struct dc_settler *s);
int dc_settler_report(struct dc_settler *s, char *ret_line, size_t size);

/* The most bytes of a stack copy that most samples of the last capture needed (dc_sampler_tune()); 0: not known. */
uint32_t dc_settler_stack_used(struct dc_settler *s);

/* Ends the thread; @drain: after all that is queued, no longer idly. Reports can still be taken. */
void dc_settler_finish(struct dc_settler *s, bool drain);
void dc_settler_free(struct dc_settler *s);
