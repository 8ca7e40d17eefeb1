/* SPDX-License-Identifier: MIT */
/*
 * The store: a hash table in shards, each with a lock of its own, so that workers seldom wait for one another.
 *
 *     key ──hash──► shard 0..15 (lock) ──► bucket ──► entry → entry → ...
 *
 * Every time a worker has to wait for a shard it records a span `lock.wait` that names the shard and the thread that
 * holds it, and while it holds one a span `lock.hold`. When a wait took longer than is reasonable, it asks for the
 * past to be saved: the holder's spans and everything before them are in the ring already.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TABLE_KEY_MAX 250u
#define TABLE_VALUE_MAX 16384u
#define TABLE_BYTES_MAX (64u << 20)
#define TABLE_SHARDS 16u

struct table;

struct table_stats {
	uint64_t entries;
	uint64_t bytes;
};

/* @slow_ms: a wait for a lock beyond it is a reason to save the past. Return: 0, -ENOMEM. */
int table_new(unsigned slow_ms, struct table **ret_table);
void table_free(struct table *t);

/* Copies the value to @value, TABLE_VALUE_MAX bytes. Return: its length, -ENOENT. */
int table_get(struct table *t, const char *key, size_t key_length, char *value);
/* Return: 0 replaced, 1 new, -EINVAL key or value too long, -ENOSPC full, -ENOMEM. */
int table_put(struct table *t, const char *key, size_t key_length, const char *value, size_t value_length);
/* Return: 0, -ENOENT. */
int table_delete(struct table *t, const char *key, size_t key_length);
void table_count(struct table *t, struct table_stats *ret_stats);

/* Each entry, byte by byte, again for each of its shard: what a careless statistic does. */
void table_walk(struct table *t);
/* What faults do to locks; nothing unless one is ordered (fault.h). */
void table_fault(struct table *t);

/*
 * table_snapshot() - write all entries to @fd, shard by shard, at most a megabyte a second, to be kind to the disk It
 * sleeps where it stands when the second's share is written: with the lock of a shard in its hand. This is the
 * mistake the demo is about; everything else here means to be right. Return: entries written, -errno of write.
 */
int64_t table_snapshot(struct table *t, int fd);
