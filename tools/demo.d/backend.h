/* SPDX-License-Identifier: MIT */
/*
 * What stands behind the table in a server of some size: a journal on disk, an indexer that follows it, and peers with names
 * to resolve. Only with --journal.
 *
 *     PUT  ── journal.append ──► file
 *          └─ job ──► queue ──► indexer thread, in batches of what came in 50 ms ── job.index
 *     GET /peer/NAME ── peer.resolve ──► UDP on loopback ──► resolver thread
 */
#pragma once

#include <stddef.h>

struct backend;

/* @journal: file, made or overwritten; it starts over at 8 MiB. Return: 0, -errno. */
int backend_new(const char *journal, struct backend **ret_backend);
void backend_free(struct backend *b);

/* Durable as far as the file is, and queued for the index. Return: 0, -errno; a full queue only loses the job. */
int backend_append(struct backend *b, const char *key, size_t key_length, const char *value, size_t length);

/* By any thread, which keeps a socket of its own for it. Return: 0 and its number; -ETIMEDOUT, -EHOSTUNREACH, -errno. */
int backend_resolve(struct backend *b, const char *name, size_t length, unsigned *ret_number);
