/* SPDX-License-Identifier: MIT */
/*
 * Async spans of one process, from their begin in one thread to their end in another: by name and id, oldest first.
 *
 *     begin ──► open ──► end        lasted; gone from here
 *     end   ──► early ──► begin     a tail brings lane by lane: what a thread ended may come before what another began. An end
 *                                   waits for its begin for two looks, then it was of one that nobody saw begin
 *
 * Fixed memory: of more than DC_ASYNC_MAX the oldest is given up, and counted. So are all that are open when events were lost,
 * since their ends may have been among those: dc_async_forget().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ipc/cleanup.h"
#include "ipc/decode.h"

#define DC_ASYNC_MAX 2048u

struct dc_async;

struct dc_async_span {
	const void *of; /* whose it is: the caller's, by address */
	uint64_t id;
	uint64_t start_units;
	uint64_t end_units;
	uint64_t where; /* the caller's */
	uint32_t told; /* the caller's */
	uint32_t kind; /* the caller's */
	uint32_t end_tid;
};

/* Return: NULL when there is no memory. */
struct dc_async *dc_async_new(void);
void dc_async_free(struct dc_async *a);
DC_DEFINE_CLEANUP(dc_async, struct dc_async *, dc_async_free)

/* The id of an ASYNC_BEGIN or ASYNC_END, whatever its type. Return: false: it has none. */
bool dc_async_id(const struct dc_event *event, uint64_t *ret_id);
/*
 * @begun: of, id, start_units, and what is the caller's.
 * Return: each: true when begin and end of @of and @id are both known now, and *@ret_span.
 */
bool dc_async_begin(struct dc_async *a, const struct dc_async_span *begun, struct dc_async_span *ret_span);
bool dc_async_end(struct dc_async *a, const void *of, uint64_t id, uint64_t units, uint32_t tid, struct dc_async_span *ret_span);
/* Ends a look. */
void dc_async_look(struct dc_async *a);
/* Events were lost: nothing is known to be open any more. */
void dc_async_forget(struct dc_async *a);

/* Those open, oldest first. @before: NULL, or the one before. Return: NULL: no more. */
struct dc_async_span *dc_async_each(struct dc_async *a, const struct dc_async_span *before);
uint32_t dc_async_open(struct dc_async *a, const void *of);
/* Open ones that were given up. */
uint64_t dc_async_lost(const struct dc_async *a);
