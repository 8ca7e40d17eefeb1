/* SPDX-License-Identifier: MIT */
/*
 * Sites and their strings: from the static descriptor in the app to an entry of the ring's tables, at the site's first
 * event, without a lock, in any context.
 *
 * Everything is written twice: into the ring, for readers, and into a mirror in plain memory, which a fork inherits. A
 * child that records fills the tables of its fresh ring from the mirror, so ids stay what they were. Both are
 * append-only; equal strings and equal sites are found again by hash.
 *
 * Two threads that meet at the same new site: the second waits for the first, for as long as it takes to register a site.
 * A handler on top of a registration does not, nor does who waited in vain: their event carries its own name
 * (DC_SITE_INLINE). So does every event once the table is full.
 */
#include <errno.h>
#include <string.h>

#include "recorder/recorder.h"

/*
 * Two levels: a small program finds all it has in the first, which is one page; what does not fit within a few probes
 * goes to the second. A string or site that finds no slot in either is added again each time, which costs table space
 * and nothing else.
 */
#define SLOTS_FIRST 1024u
#define SLOTS_SECOND 8192u
#define PROBES 32u

struct hash {
	uint32_t first[SLOTS_FIRST]; /* 0: free */
	uint32_t second[SLOTS_SECOND];
};

static struct {
	uint32_t sites_used; /* next id */
	uint32_t strings_used;
	struct dc_ring_site sites[DC_SITE_MAX];
	char strings[DC_STRINGS_BYTES];
	struct hash site_ids;
	struct hash string_offsets;
} mirror = { .sites_used = 1, .strings_used = 1 };

const uint32_t dc_control_fresh = DC_ODD_;
uint32_t dc_control_off = DC_ODD_; /* 3 while the recorder is off: sites then point here */

static uint32_t hash_bytes(uint32_t h, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 16777619u; /* FNV-1a */
	return h;
}

/* Slot of probe @k, 0 .. 2 * PROBES - 1. */
static uint32_t *hash_slot(struct hash *h, uint32_t key, uint32_t k)
{
	if (k < PROBES)
		return &h->first[(key + k) % SLOTS_FIRST];
	return &h->second[(key + k) % SLOTS_SECOND];
}

static void max_store(uint32_t *at, uint32_t value)
{
	uint32_t seen = __atomic_load_n(at, __ATOMIC_RELAXED);
	/* [table-publish] release; pairs with the reader's acquire fence after its pread of the header */
	while (seen < value &&
	       !__atomic_compare_exchange_n(at, &seen, value, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

static bool string_to_ring(struct dc_recorder *r, uint32_t offset, size_t n)
{
	if (offset + n > r->header->strings_bytes || dc_populate(r, r->strings + offset, n))
		return false;
	memcpy(r->strings + offset, mirror.strings + offset, n);
	max_store(&r->header->strings_used, offset + (uint32_t)n);
	return true;
}

/* Offset of @text (its first @max bytes) in the table; 0, the empty string, when there is no room. @r NULL: mirror only. */
uint32_t dc_string_add(struct dc_recorder *r, const char *text, size_t max)
{
	size_t n = text ? strnlen(text, max) : 0;
	if (!n)
		return 0;
	uint32_t h = hash_bytes(2166136261u, text, n);
	uint32_t *slot = NULL;
	for (uint32_t k = 0; k < 2 * PROBES; k++) {
		slot = hash_slot(&mirror.string_offsets, h, k);
		/* [string-hash] acquire; pairs with the release below: who sees the offset sees the text */
		uint32_t at = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
		if (!at)
			break;
		if (memcmp(mirror.strings + at, text, n) == 0 && mirror.strings[at + n] == 0)
			return at;
	}
	uint32_t room = r ? r->header->strings_bytes : DC_STRINGS_BYTES;
	uint32_t at = __atomic_load_n(&mirror.strings_used, __ATOMIC_RELAXED); /* the exchange below decides */
	do {
		if (at > room || n + 1 > room - at)
			return 0;
	} while (!__atomic_compare_exchange_n(&mirror.strings_used, &at, at + (uint32_t)n + 1, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	memcpy(mirror.strings + at, text, n);
	if (r)
		string_to_ring(r, at, n + 1);
	uint32_t none = 0;
	/* [string-hash] release; pairs with the acquire above. A lost race leaves the text twice, which is harmless */
	__atomic_compare_exchange_n(slot, &none, at, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	return at;
}

static void entry_fill(struct dc_recorder *r, const struct dc_site *site, struct dc_ring_site *e)
{
	*e = (struct dc_ring_site){
		.name = dc_string_add(r, site->name, 255),
		.file = dc_string_add(r, site->file, 255),
		.format = dc_string_add(r, site->format, 1023),
		.line = site->line,
		.kind = site->kind,
		.level = site->level,
		.arg_count = site->arg_count > DC_ARG_MAX ? DC_ARG_MAX : site->arg_count,
	};
	for (unsigned i = 0; i < e->arg_count; i++) {
		e->types[i] = site->types[i];
		e->keys[i] = dc_string_add(r, site->keys[i], 63);
	}
}

/* Strings are interned, so equal sites have equal entries (but for a string added twice by a race). */
static uint32_t site_find(const struct dc_ring_site *e, uint32_t **ret_slot)
{
	uint32_t h = hash_bytes(2166136261u, e, sizeof *e);
	for (uint32_t k = 0; k < 2 * PROBES; k++) {
		uint32_t *slot = hash_slot(&mirror.site_ids, h, k);
		/* [site-hash] acquire; pairs with the release in site_add() */
		uint32_t id = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
		*ret_slot = slot;
		if (!id)
			return 0;
		struct dc_ring_site known = mirror.sites[id];
		known.published = 0;
		if (memcmp(&known, e, sizeof known) == 0)
			return id;
	}
	return 0;
}

static bool site_to_ring(struct dc_recorder *r, uint32_t id)
{
	struct dc_ring_site *e = &r->sites[id];
	if (dc_populate(r, e, sizeof *e) || dc_populate(r, &r->control->enable[id], 4) ||
	    dc_populate(r, &r->control->threshold[id], 8))
		return false;
	*e = mirror.sites[id];
	e->published = 0;
	/* [table-publish] release; pairs with the reader's acquire fence */
	__atomic_store_n(&e->published, 1, __ATOMIC_RELEASE);
	max_store(&r->header->sites_used, id + 1);
	return true;
}

static uint32_t site_add(struct dc_recorder *r, const struct dc_ring_site *e, uint32_t *slot)
{
	uint32_t cap = r->header->site_cap;
	uint32_t id = __atomic_load_n(&mirror.sites_used, __ATOMIC_RELAXED); /* the exchange below decides */
	do {
		if (id >= cap)
			return DC_SITE_INLINE;
	} while (!__atomic_compare_exchange_n(&mirror.sites_used, &id, id + 1, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	mirror.sites[id] = *e;
	/* [site-mirror] release; pairs with the acquire in dc_sites_restore() */
	__atomic_store_n(&mirror.sites[id].published, 1, __ATOMIC_RELEASE);
	if (!site_to_ring(r, id))
		return DC_SITE_INLINE;
	uint32_t none = 0;
	/* [site-hash] release; pairs with the acquire in site_find() */
	__atomic_compare_exchange_n(slot, &none, id, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	return id;
}

#define REGISTER_TURNS 1000u /* of ten-odd ns; a registration takes 1 to 10 µs */

static __thread uint32_t registering_here __attribute__((tls_model("initial-exec")));

/* Another thread is at it. 0: it is done; -EBUSY: not in time (it may have lost the CPU), or it is below us. */
static int register_wait(const struct dc_site *site)
{
	for (uint32_t i = 0; i < REGISTER_TURNS && !registering_here; i++) {
		/* [site-known] acquire; pairs with the release in register_elected() */
		if (__atomic_load_n(&site->known, __ATOMIC_ACQUIRE))
			return 0;
		dc_pause();
	}
	return -EBUSY;
}

static void register_elected(struct dc_recorder *r, struct dc_site *site)
{
	struct dc_ring_site e;
	uint32_t *slot;
	entry_fill(r, site, &e);
	uint32_t id = e.name ? site_find(&e, &slot) : DC_SITE_INLINE; /* no room for its name: as if none for it */
	if (!id)
		id = site_add(r, &e, slot);
	site->id = (uint16_t)id;
	/* [site-control] release; pairs with the acquire in dc_control_of_(): who sees this word sees the id */
	if (id != DC_SITE_INLINE)
		__atomic_store_n(&site->control, &r->switches->enable[id], __ATOMIC_RELEASE);
	/* [site-known] release; pairs with the acquires in known() and register_wait(), likewise */
	__atomic_store_n(&site->known, 1, __ATOMIC_RELEASE);
}

/*
 * Return: 0 and site->known set; -EBUSY: another context is at it (record this event with its name).
 * An id that came out of a table already full is DC_SITE_INLINE, for good.
 */
int dc_site_register(struct dc_recorder *r, struct dc_site *site)
{
	uint8_t busy = __atomic_load_n(&site->busy, __ATOMIC_RELAXED); /* the exchange decides */
	uint32_t outer = registering_here;
	registering_here = 1; /* first, so that no handler on top of us waits for us */
	DC_BARRIER_();
	/* [site-busy] acquire; elects one. A mark of a parent image is a thread we do not have */
	bool elected = busy != dc_image && __atomic_compare_exchange_n(&site->busy, &busy, dc_image, false,
								       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
	if (elected) {
		/* relaxed: [site-busy] ordered it. Set: somebody was done just before our exchange, and events rely on it */
		if (!__atomic_load_n(&site->known, __ATOMIC_RELAXED))
			register_elected(r, site);
		/* [site-busy] release; pairs with the acquire above */
		__atomic_store_n(&site->busy, 0, __ATOMIC_RELEASE);
	}
	DC_BARRIER_();
	registering_here = outer;
	if (elected && DC_UNLIKELY_(__atomic_load_n(&r->control->sample_hz, __ATOMIC_RELAXED))) /* a wish from outside */
		dc_sample_notice(site);
	return elected ? 0 : register_wait(site);
}

uint32_t dc_sites_count(void)
{
	return __atomic_load_n(&mirror.sites_used, __ATOMIC_RELAXED); /* asked at start, when nobody adds */
}

uint32_t dc_strings_bytes(void)
{
	return __atomic_load_n(&mirror.strings_used, __ATOMIC_RELAXED); /* as above */
}

int dc_sites_restore(struct dc_recorder *r)
{
	uint32_t sites = __atomic_load_n(&mirror.sites_used, __ATOMIC_RELAXED); /* only this thread, so early */
	uint32_t strings = __atomic_load_n(&mirror.strings_used, __ATOMIC_RELAXED);
	if (strings > 1 && !string_to_ring(r, 0, strings > r->header->strings_bytes ? r->header->strings_bytes : strings))
		return -ENOSPC;
	for (uint32_t id = 1; id < sites && id < r->header->site_cap; id++)
		/* [site-mirror] acquire; pairs with the release in site_add() */
		if (__atomic_load_n(&mirror.sites[id].published, __ATOMIC_ACQUIRE) && !site_to_ring(r, id))
			return -ENOSPC;
	return 0;
}
