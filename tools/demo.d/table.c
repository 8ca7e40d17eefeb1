/* SPDX-License-Identifier: MIT */
#include "tools/demo.d/table.h"

#include <dashcam.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/demo.d/fault.h"

#define BUCKETS 1024u /* per shard */
#define SHARE_BYTES (1u << 20)

struct entry {
	struct entry *next;
	uint32_t hash;
	uint32_t key_length; /* from here on it goes into a snapshot as it is */
	uint32_t value_length;
	char bytes[]; /* key, value */
};

struct shard {
	pthread_mutex_t lock;
	_Atomic pid_t holder; /* for the eyes of those who wait; relaxed, because nothing is decided by it */
	unsigned number;
	dc_span_t hold; /* of the holder */
	struct table_stats stats;
	struct entry *buckets[BUCKETS];
};

struct table {
	int64_t slow_ns;
	struct shard shards[TABLE_SHARDS];
};

/* How much a snapshot may still write in this second. */
struct share {
	int64_t until_ns;
	size_t left;
};

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static uint32_t hash_of(const char *key, size_t length)
{
	uint32_t h = 2166136261u; /* FNV-1a */
	for (size_t i = 0; i < length; i++)
		h = (h ^ (uint8_t)key[i]) * 16777619u;
	return h ^ h >> 15;
}

/* --- locks --- */

static void wait_for(const struct table *t, struct shard *s)
{
	pid_t holder = atomic_load_explicit(&s->holder, memory_order_relaxed);
	int64_t since = now_ns();
	{
		DC_SPAN("lock.wait", "shard", s->number, "holder", holder);
		pthread_mutex_lock(&s->lock);
	}

	int64_t waited = now_ns() - since;
	if (waited > t->slow_ns)
		DC_TRIGGER("lock wait too long", "shard", s->number, "holder", holder, "ms",
			   waited / 1000000);
}

static void lock(const struct table *t, struct shard *s)
{
	static _Thread_local pid_t self;
	if (!self)
		self = gettid();

	if (pthread_mutex_trylock(&s->lock))
		wait_for(t, s);
	atomic_store_explicit(&s->holder, self, memory_order_relaxed);
	s->hold = DC_BEGIN("lock.hold", "shard", s->number);
}

static void unlock(struct shard *s)
{
	DC_END(s->hold);
	pthread_mutex_unlock(&s->lock);
}

/* --- entries --- */

static struct shard *shard_of(struct table *t, uint32_t hash)
{
	return &t->shards[hash % TABLE_SHARDS];
}

/* The link that points at the key's entry, or the empty one at the end of its bucket. */
static struct entry **find(struct shard *s, uint32_t hash, const char *key, size_t length)
{
	struct entry **link = &s->buckets[hash / TABLE_SHARDS % BUCKETS];
	for (; *link; link = &(*link)->next) {
		const struct entry *e = *link;
		if (e->hash == hash && e->key_length == length && !memcmp(e->bytes, key, length))
			break;
	}
	return link;
}

static size_t bytes_of(const struct entry *e)
{
	return sizeof(*e) + e->key_length + e->value_length;
}

static struct entry *entry_new(uint32_t hash, const char *key, size_t key_length, const char *value,
			       size_t length)
{
	struct entry *e = malloc(sizeof(*e) + key_length + length);
	if (!e)
		return NULL;
	e->next = NULL;
	e->hash = hash;
	e->key_length = (uint32_t)key_length;
	e->value_length = (uint32_t)length;
	memcpy(e->bytes, key, key_length);
	memcpy(e->bytes + key_length, value, length);
	return e;
}

static void entry_unlink(struct shard *s, struct entry **link)
{
	struct entry *e = *link;
	*link = e->next;
	s->stats.entries--;
	s->stats.bytes -= bytes_of(e);
	free(e);
}

static void entry_link(struct shard *s, struct entry **link, struct entry *e)
{
	e->next = *link;
	*link = e;
	s->stats.entries++;
	s->stats.bytes += bytes_of(e);
}

int table_get(struct table *t, const char *key, size_t key_length, char *value)
{
	uint32_t hash = hash_of(key, key_length);
	struct shard *s = shard_of(t, hash);
	int r = -ENOENT;

	lock(t, s);
	const struct entry *e = *find(s, hash, key, key_length);
	if (fault_is(FAULT_LOCK_CONVOY))
		fault_sleep_ms(120);
	if (e) {
		memcpy(value, e->bytes + e->key_length, e->value_length);
		r = (int)e->value_length;
	}
	unlock(s);
	return r;
}

int table_put(struct table *t, const char *key, size_t key_length, const char *value, size_t value_length)
{
	if (!key_length || key_length > TABLE_KEY_MAX || value_length > TABLE_VALUE_MAX)
		return -EINVAL;

	uint32_t hash = hash_of(key, key_length);
	struct shard *s = shard_of(t, hash);
	struct entry *e = entry_new(hash, key, key_length, value, value_length);
	if (!e)
		return -ENOMEM;

	lock(t, s);
	struct entry **link = find(s, hash, key, key_length);
	bool replaces = *link != NULL;
	bool fits = s->stats.bytes + bytes_of(e) <= TABLE_BYTES_MAX / TABLE_SHARDS;
	if (fits && replaces)
		entry_unlink(s, link);
	if (fits)
		entry_link(s, link, e);
	unlock(s);

	if (!fits)
		free(e);
	return fits ? !replaces : -ENOSPC;
}

int table_delete(struct table *t, const char *key, size_t key_length)
{
	uint32_t hash = hash_of(key, key_length);
	struct shard *s = shard_of(t, hash);

	lock(t, s);
	struct entry **link = find(s, hash, key, key_length);
	bool found = *link != NULL;
	if (found)
		entry_unlink(s, link);
	unlock(s);
	return found ? 0 : -ENOENT;
}

void table_count(struct table *t, struct table_stats *ret_stats)
{
	*ret_stats = (struct table_stats){0};
	for (unsigned i = 0; i < TABLE_SHARDS; i++) {
		struct shard *s = &t->shards[i];
		lock(t, s);
		ret_stats->entries += s->stats.entries;
		ret_stats->bytes += s->stats.bytes;
		unlock(s);
	}
}

/* --- faults --- */

static uint32_t walk_shard(const struct shard *s)
{
	uint32_t sum = 0;

	for (unsigned b = 0; b < BUCKETS; b++)
		for (const struct entry *e = s->buckets[b]; e; e = e->next)
			sum += hash_of(e->bytes, e->key_length + e->value_length);
	return sum;
}

void table_walk(struct table *t)
{
	uint32_t sum = 0;

	for (unsigned turn = 0; turn < 48; turn++) {
		for (unsigned i = 0; i < TABLE_SHARDS; i++) {
			lock(t, &t->shards[i]);
			sum += walk_shard(&t->shards[i]);
			unlock(&t->shards[i]);
		}
	}
	__asm__ volatile("" ::"r"(sum));
}

static void lock_two(struct table *t, unsigned first, unsigned second)
{
	lock(t, &t->shards[first]);
	fault_sleep_ms(50);
	lock(t, &t->shards[second]);
	unlock(&t->shards[second]);
	unlock(&t->shards[first]);
}

static void *other_order(void *arg)
{
	lock_two(arg, 1, 0);
	return NULL;
}

static void *collect(void *arg)
{
	struct table *t = arg;

	dc_thread_name("collector");
	DC_SPAN("collect");
	for (unsigned i = 0; i < TABLE_SHARDS; i++)
		lock(t, &t->shards[i]);
	fault_sleep_ms(500);
	for (unsigned i = 0; i < TABLE_SHARDS; i++)
		unlock(&t->shards[i]);
	return NULL;
}

void table_fault(struct table *t)
{
	pthread_t thread;

	if (fault_take(FAULT_GC_PAUSE) && pthread_create(&thread, NULL, collect, t) == 0)
		pthread_detach(thread);
	if (fault_take(FAULT_DEADLOCK) && pthread_create(&thread, NULL, other_order, t) == 0) {
		pthread_detach(thread);
		lock_two(t, 0, 1);
	}
}

/* --- snapshot --- */

static void share_take(struct share *share, size_t bytes)
{
	if (bytes > share->left) {
		DC_SPAN("snapshot.throttle", "bytes", bytes);
		struct timespec until = {share->until_ns / 1000000000, share->until_ns % 1000000000};
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
			continue;
		*share = (struct share){now_ns() + 1000000000, SHARE_BYTES};
	}
	share->left -= bytes;
}

static int write_all(int fd, const char *bytes, size_t size)
{
	while (size) {
		ssize_t n = write(fd, bytes, size);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

/* key_length, value_length, key, value: as they lie in the entry. */
static int write_entry(int fd, const struct entry *e)
{
	return write_all(fd, (const char *)&e->key_length,
			 2 * sizeof(uint32_t) + e->key_length + e->value_length);
}

static int64_t write_shard(const struct shard *s, int fd, struct share *share)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (const struct entry *e = s->buckets[i]; e; e = e->next) {
			share_take(share, bytes_of(e));
			int r = write_entry(fd, e);
			if (r < 0)
				return r;
		}
	}
	return (int64_t)s->stats.entries;
}

int64_t table_snapshot(struct table *t, int fd)
{
	struct share share = {now_ns() + 1000000000, SHARE_BYTES};
	int64_t total = 0;

	for (unsigned i = 0; i < TABLE_SHARDS && total >= 0; i++) {
		struct shard *s = &t->shards[i];
		lock(t, s);
		int64_t n = write_shard(s, fd, &share);
		unlock(s);
		total = n < 0 ? n : total + n;
	}
	return total;
}

int table_new(unsigned slow_ms, struct table **ret_table)
{
	struct table *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->slow_ns = slow_ms * INT64_C(1000000);
	for (unsigned i = 0; i < TABLE_SHARDS; i++) {
		pthread_mutex_init(&t->shards[i].lock, NULL);
		t->shards[i].number = i;
	}
	*ret_table = t;
	return 0;
}

void table_free(struct table *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < TABLE_SHARDS; i++) {
		for (unsigned b = 0; b < BUCKETS; b++) {
			for (struct entry *e = t->shards[i].buckets[b], *next; e; e = next) {
				next = e->next;
				free(e);
			}
		}
		pthread_mutex_destroy(&t->shards[i].lock);
	}
	free(t);
}
