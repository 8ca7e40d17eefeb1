/* SPDX-License-Identifier: MIT */
/* The rest of the public functions: names, window, statistics, sites made at run time. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "recorder/recorder.h"

void dc_thread_name(const char *name)
{
	if (!name || !dc_recorder_on())
		return;
	struct dc_thread_ *f = dc_enter();
	if (!f)
		return;
	struct dc_thread *t = (struct dc_thread *)f;
	char comm[16] = { 0 };
	memcpy(comm, name, strnlen(name, sizeof comm - 1));
	dc_slow_enter();
	struct dc_recorder *r = dc_recorder;
	const bool ours = dc_page_is_of(r, f);
	if (ours) {
		memcpy(r->lanes[t->lane].comm, comm, sizeof comm);
		dc_thread_record(r, t);
	}
	if (!dc_slow_leave() && ours)
		f->busy = f->idle;
}

void dc_window(uint64_t window_ns)
{
	dc_slow_enter();
	if (dc_recorder_on()) {
		struct dc_recorder *r = dc_recorder;
		__atomic_store_n(&r->window_ns, window_ns, __ATOMIC_RELAXED); /* a setting */
		__atomic_store_n(&r->header->window_ns, window_ns, __ATOMIC_RELAXED);
		dc_window_calibrate(r);
	}
	dc_slow_leave();
}

/* Everything is there that is younger than what was recycled last; before that, what began with the recording. */
static uint64_t true_window_units(const struct dc_recorder *r, uint64_t now)
{
	uint64_t since = r->header->started_tick >> DC_TICK_SHIFT_;
	uint32_t gone = __atomic_load_n(&r->recycled, __ATOMIC_RELAXED); /* a statistic */
	if (gone) {
		uint32_t ago = (uint32_t)(now >> DC_COARSE_SHIFT) - gone;
		return (int32_t)ago < 0 ? 0 : (uint64_t)ago << DC_COARSE_SHIFT;
	}
	return now > since ? now - since : 0;
}

static void count_lanes(const struct dc_recorder *r, struct dc_stats *s)
{
	uint32_t used = __atomic_load_n(&r->header->lanes_used, __ATOMIC_ACQUIRE); /* [table-publish] acquire */
	s->misplaced_ends = __atomic_load_n(&r->misplaced, __ATOMIC_RELAXED);
	s->dropped = __atomic_load_n(&r->header->lost_lanes, __ATOMIC_RELAXED) +
		     __atomic_load_n(&r->header->lost_early, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < used && i < r->lane_cap; i++) {
		const struct dc_thread *t = (const void *)((const uint8_t *)r->threads + (size_t)i * DC_PAGE_BYTES);
		s->dropped += __atomic_load_n(&r->lanes[i].dropped, __ATOMIC_RELAXED);
		s->misplaced_ends += __atomic_load_n(&t->misplaced, __ATOMIC_RELAXED);
	}
	s->lanes = __atomic_load_n(&r->lanes_live, __ATOMIC_RELAXED);
}

static int stats(const struct dc_recorder *r, struct dc_stats *ret_stats)
{
	if (!r || __atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) < DC_PHASE_ON) /* [phase] acquire */
		return -ESRCH;
	if (__atomic_load_n(&r->phase, __ATOMIC_RELAXED) == DC_PHASE_OFF)
		return -ESRCH;
	struct dc_stats s = { .size = sizeof s };
	uint64_t now = dc_ticks(r) >> DC_TICK_SHIFT_;
	s.cap_bytes = r->header->file_bytes;
	s.memory_bytes = (uint64_t)__atomic_load_n(&r->header->chunks_grown, __ATOMIC_RELAXED) * r->chunk_bytes;
	for (size_t i = 0; i < sizeof r->pages / sizeof *r->pages; i++)
		s.memory_bytes += (uint64_t)__builtin_popcount(r->pages[i]) * DC_PAGE_BYTES;
	if (r->allocated)
		s.memory_bytes = s.cap_bytes;
	s.wanted_window_ns = __atomic_load_n(&r->window_ns, __ATOMIC_RELAXED);
	s.true_window_ns = dc_ns_of_units(r, true_window_units(r, now));
	uint32_t used = __atomic_load_n(&r->header->sites_used, __ATOMIC_RELAXED);
	s.sites = used ? used - 1 : 0; /* entry 0 is nobody's */
	count_lanes(r, &s);
	memcpy(s.ring, r->ring, sizeof s.ring);
	*ret_stats = s;
	return 0;
}

int dc_stats(struct dc_stats *ret_stats)
{
	if (ret_stats->size != sizeof *ret_stats)
		return -EINVAL;
	dc_slow_enter();
	const int r = stats(dc_recorder, ret_stats);
	dc_slow_leave();
	return r;
}

static struct dc_site *site_make(enum dc_site_kind kind, const char *name)
{
	size_t n = strnlen(name, 200);
	struct dc_site *s = dc_sys_mmap(NULL, sizeof *s + n + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
					-1, 0);
	if (DC_MAP_FAILED(s))
		return NULL;
	memcpy(s + 1, name, n);
	*s = (struct dc_site){ .control = &dc_control_fresh,
			       .kind = (uint8_t)kind,
			       .arg_count = kind == DC_SITE_COUNTER,
			       .types = { kind == DC_SITE_COUNTER ? DC_TYPE_I64 : DC_TYPE_NONE },
			       .name = (const char *)(s + 1),
			       .file = "",
			       .keys = { "value" } };
	return s;
}

/* Never recorded, never NULL: for a process out of memory. */
static struct dc_site site_nothing = { .control = &dc_control_off, .name = "?", .file = "" };

/* One name too many: names come from somewhere that does not end, and a page for each would not end either. */
#define OTHER(site_kind, args)                                                                                         \
	{ .control = &dc_control_fresh, .kind = site_kind, .arg_count = args, .types = { args ? DC_TYPE_I64 : 0 },     \
	  .name = "(other)", .file = "", .keys = { "value" } }
#define NAMES_MAX 4096u

struct dc_site *dc_site_new(enum dc_site_kind kind, const char *name)
{
	/* a page a name is a lot; but these are few, kept for good, and made once */
	static struct dc_site *known[NAMES_MAX];
	static struct dc_site others[] = { OTHER(DC_SITE_SPAN, 0), OTHER(DC_SITE_INSTANT, 0), OTHER(DC_SITE_COUNTER, 1) };
	if (!name)
		name = "";
	uint32_t h = (uint32_t)kind;
	for (const char *p = name; *p; p++)
		h = (h ^ (uint8_t)*p) * 16777619u;
	for (uint32_t k = 0; k < NAMES_MAX; k++) {
		struct dc_site **slot = &known[(h + k) % NAMES_MAX];
		/* [site-known] acquire; pairs with the release below */
		struct dc_site *s = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
		if (!s) {
			struct dc_site *fresh = site_make(kind, name);
			if (!fresh)
				return &site_nothing;
			/* [site-known] release; pairs with the acquire above. A loser's page is the price of no lock */
			if (__atomic_compare_exchange_n(slot, &s, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
				return fresh;
		}
		if (s->kind == (uint8_t)kind && strncmp(s->name, name, 200) == 0)
			return s;
	}
	return &others[kind == DC_SITE_SPAN ? 0 : kind == DC_SITE_INSTANT ? 1 : 2];
}
