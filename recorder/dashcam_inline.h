/* SPDX-License-Identifier: MIT */
/*
 * The fast path: one event from the clock to the commit. Included by the library, which makes the functions of
 * dashcam.h from it, and by <dashcam.h> under -DDC_INLINE. What stands here is compiled into applications: it is ABI,
 * frozen for each soname.
 *
 *   enter    armed == 0?  an event is in flight below us (signal handler), the thread has no lane yet, or the page was
 *            wiped by fork: slow path. Else armed = 0 and nobody else touches this thread's state: a handler that
 *            interrupts us from here on sees armed == 0 and goes to a lane of its own.
 *   room     at <= limit: DC_SLACK_ bytes are free, enough for any event without strings. Else the next chunk.
 *   encode   see ipc/event.h. Word stores that overlap what comes next: write 8, advance by what counts.
 *   commit   one release store of the chunk's state word: events + 1, bytes + length.  [chunk-commit]
 *   leave    armed = 1.
 *
 * Between `enter` and `leave` only this thread and handlers on top of it run, so compiler barriers are enough to order
 * `armed`; the only fence the CPU sees is the release of the commit.
 */
#ifndef DASHCAM_INLINE_H
#define DASHCAM_INLINE_H

#ifdef __cplusplus
extern "C" {
#endif

#define DC_DEPTH_MAX_ 128u
#define DC_ALWAYS_INLINE_ static inline __attribute__((always_inline))
#define DC_BARRIER_() __asm__ volatile("" ::: "memory")

/* A span that is open: enough to measure it when it ends and to find its arguments for the next chunk's head. */
struct dc_open_ {
	uint64_t units; /* when it began */
	uint16_t site;
	uint16_t at; /* where its arguments stand in the current chunk */
	uint16_t bytes; /* of the arguments; 0xffff: gone with an earlier chunk, or too long to carry */
	uint16_t reserved;
};

/* The part of the lane table entry that every event stores (ipc/ring.h: struct dc_ring_lane). Never read back. */
struct dc_lane_line_ {
	uint64_t last_units;
	uint64_t open_units;
	uint32_t depth;
	uint16_t open_site;
	uint16_t flags;
};

/* One thread's writer: a private page, wiped by fork. */
struct dc_thread_ {
	uint32_t armed; /* 1: idle, may record */
	uint32_t depth; /* open spans */
	uint8_t *at; /* next free byte of the chunk */
	uint8_t *limit; /* last place where an event may start */
	uint64_t last; /* units of the last event */
	uint64_t state; /* the state word as stored last */
	uint64_t *state_word; /* in the ring */
	struct dc_lane_line_ *line; /* in the ring */
	const uint64_t *threshold; /* control part of the ring, indexed by site */
	/* second cache line */
	uint8_t *chunk; /* first byte of the chunk */
	uint32_t stamp; /* upper half of this thread's span tokens */
	uint32_t slow_clock; /* 1: no trustworthy tick counter, ask the kernel */
	uint64_t reserved[6];
	struct dc_open_ open[DC_DEPTH_MAX_];
};

extern DC_API __thread struct dc_thread_ *dc_thread_self __attribute__((tls_model("initial-exec")));

/* Slow paths. dc_enter_slow(): the state to record with (disarmed, with room), or NULL: not now, counted. */
DC_API struct dc_thread_ *dc_enter_slow(struct dc_thread_ *t, unsigned taken);
DC_API dc_span_t dc_begin_general(struct dc_site *site, const uint64_t *args, unsigned count);
DC_API void dc_end_odd(struct dc_thread_ *t, dc_span_t span);
DC_API void dc_span_over(struct dc_thread_ *t, unsigned site, uint64_t units);
DC_API uint64_t dc_clock_slow(void);

#if defined(__x86_64__)
#define DC_TICK_SHIFT_ 3 /* 2-5 GHz: units of 1.6 to 4 ns */
DC_ALWAYS_INLINE_ uint64_t dc_ticks_(void)
{
	return __builtin_ia32_rdtsc();
}
#elif defined(__aarch64__)
#define DC_TICK_SHIFT_ 0 /* 24 MHz to 1 GHz: units of 1 to 41 ns */
DC_ALWAYS_INLINE_ uint64_t dc_ticks_(void)
{
	uint64_t t;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
	return t;
}
#else
#error "dashcam records on x86-64 and aarch64"
#endif

DC_ALWAYS_INLINE_ uint64_t dc_units_(const struct dc_thread_ *t)
{
	return (DC_UNLIKELY_(t->slow_clock) ? dc_clock_slow() : dc_ticks_()) >> DC_TICK_SHIFT_;
}

DC_ALWAYS_INLINE_ void dc_put8_(uint8_t *p, uint64_t v)
{
	__builtin_memcpy(p, &v, 8); /* both architectures are little-endian and store unaligned words */
}

DC_ALWAYS_INLINE_ unsigned dc_bytes_(uint64_t v)
{
	return (unsigned)(71 - __builtin_clzll(v | 1)) >> 3;
}

DC_ALWAYS_INLINE_ struct dc_thread_ *dc_enter_(void)
{
	struct dc_thread_ *t = dc_thread_self;
	if (DC_UNLIKELY_(!t->armed))
		return dc_enter_slow(t, 0);
	t->armed = 0;
	DC_BARRIER_();
	if (DC_UNLIKELY_(t->at >= t->limit)) /* also of a page wiped since the line before the last */
		return dc_enter_slow(t, 1);
	return t;
}

/* Tag and delta; returns where the body goes. */
DC_ALWAYS_INLINE_ uint8_t *dc_head_(struct dc_thread_ *t, unsigned kind, uint64_t now)
{
	uint8_t *p = t->at;
	uint64_t delta = now - t->last;
	unsigned n = dc_bytes_(delta);
	if (DC_UNLIKELY_(n > 4)) {
		p[0] = 14; /* TIME */
		dc_put8_(p + 1, now);
		p += 9;
		delta = 0;
		n = 1;
	}
	t->last = now;
	dc_put8_(p, kind | (n - 1) << 5 | delta << 8);
	return p + 1 + n;
}

DC_ALWAYS_INLINE_ void dc_commit_(struct dc_thread_ *t, uint8_t *p)
{
	t->state += UINT64_C(0x10000) + (uint64_t)(p - t->at);
	t->at = p;
	/* [chunk-commit] release; pairs with the acquire fence of whoever reads the state words, then the payload */
	__atomic_store_n(t->state_word, t->state, __ATOMIC_RELEASE);
	DC_BARRIER_();
	t->armed = 1;
}

/* What `status` and `open >` look at from outside: stored, never read back; each field by itself is whole. */
DC_ALWAYS_INLINE_ void dc_line_(struct dc_thread_ *t, uint64_t now, uint32_t depth)
{
	struct dc_lane_line_ *line = t->line;
	__atomic_store_n(&line->last_units, now, __ATOMIC_RELAXED); /* a hint: no order needed */
	__atomic_store_n(&line->depth, depth, __ATOMIC_RELAXED);
}

DC_ALWAYS_INLINE_ void dc_line_open_(struct dc_thread_ *t, uint16_t site, uint64_t units)
{
	__atomic_store_n(&t->line->open_site, site, __ATOMIC_RELAXED);
	__atomic_store_n(&t->line->open_units, units, __ATOMIC_RELAXED);
}

/* Signed integers go as zigzag: small negative numbers stay short. @sign is 0 or 1. */
DC_ALWAYS_INLINE_ uint64_t dc_fold_(uint64_t v, unsigned sign)
{
	return v << sign ^ (0 - (v >> 63 & sign));
}

/* site, code byte, two integers */
DC_ALWAYS_INLINE_ uint8_t *dc_body2_(uint8_t *p, uint16_t site, unsigned signs, uint64_t a, uint64_t b)
{
	a = dc_fold_(a, signs & 1);
	b = dc_fold_(b, signs >> 1 & 1);
	unsigned la = dc_bytes_(a), lb = dc_bytes_(b);
	dc_put8_(p, site | (uint64_t)(la | lb << 4) << 16 | a << 24);
	if (DC_UNLIKELY_(la > 5))
		dc_put8_(p + 3, a);
	dc_put8_(p + 3 + la, b);
	return p + 3 + la + lb;
}

DC_ALWAYS_INLINE_ uint8_t *dc_body1_(uint8_t *p, uint16_t site, unsigned signs, uint64_t a)
{
	a = dc_fold_(a, signs & 1);
	unsigned la = dc_bytes_(a);
	dc_put8_(p, site | (uint64_t)la << 16 | a << 24);
	if (DC_UNLIKELY_(la > 5))
		dc_put8_(p + 3, a);
	return p + 3 + la;
}

DC_ALWAYS_INLINE_ uint8_t *dc_body0_(uint8_t *p, uint16_t site)
{
	p[0] = (uint8_t)site;
	p[1] = (uint8_t)(site >> 8);
	return p + 2;
}

/* A span is open: its arguments stand at [body + 2, p). */
DC_ALWAYS_INLINE_ dc_span_t dc_opened_(struct dc_thread_ *t, uint16_t site, uint64_t now, uint8_t *body, uint8_t *p)
{
	uint32_t depth = t->depth;
	if (DC_LIKELY_(depth < DC_DEPTH_MAX_)) {
		struct dc_open_ *o = &t->open[depth];
		o->units = now;
		uint64_t place = site | (uint64_t)(body + 2 - t->chunk) << 16 | (uint64_t)(p - body - 2) << 32;
		__builtin_memcpy(&o->site, &place, 8);
	}
	t->depth = ++depth;
	dc_line_(t, now, depth);
	dc_line_open_(t, site, now);
	dc_span_t span = { (uint64_t)t->stamp << 32 | depth };
	dc_commit_(t, p);
	return span;
}

DC_ALWAYS_INLINE_ int dc_plain_(const struct dc_site *site)
{
	/* [site-shape] acquire; pairs with the release in dc_site_register(): who sees the shape sees id and signs */
	return DC_LIKELY_(__atomic_load_n(&site->shape, __ATOMIC_ACQUIRE) == 1) && DC_LIKELY_(dc_control_of_(site) == 0);
}

DC_ALWAYS_INLINE_ dc_span_t dc_begin0_inline(struct dc_site *site)
{
	struct dc_thread_ *t;
	if (!dc_plain_(site))
		return dc_begin_general(site, 0, 0);
	if (!(t = dc_enter_()))
		return dc_no_span_();
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, 1, now);
	return dc_opened_(t, site->id, now, body, dc_body0_(body, site->id));
}

DC_ALWAYS_INLINE_ dc_span_t dc_begin1_inline(struct dc_site *site, uint64_t a)
{
	struct dc_thread_ *t;
	if (!dc_plain_(site))
		return dc_begin_general(site, &a, 1);
	if (!(t = dc_enter_()))
		return dc_no_span_();
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, 1, now);
	return dc_opened_(t, site->id, now, body, dc_body1_(body, site->id, site->signs, a));
}

DC_ALWAYS_INLINE_ dc_span_t dc_begin2_inline(struct dc_site *site, uint64_t a, uint64_t b)
{
	struct dc_thread_ *t;
	if (!dc_plain_(site)) {
		const uint64_t args[2] = { a, b };
		return dc_begin_general(site, args, 2);
	}
	if (!(t = dc_enter_()))
		return dc_no_span_();
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, 1, now);
	return dc_opened_(t, site->id, now, body, dc_body2_(body, site->id, site->signs, a, b));
}

DC_ALWAYS_INLINE_ void dc_end_inline(dc_span_t span)
{
	if (DC_UNLIKELY_(!span.token))
		return;
	struct dc_thread_ *t = dc_enter_();
	if (DC_UNLIKELY_(!t))
		return;
	uint32_t depth = t->depth;
	if (DC_UNLIKELY_(span.token != ((uint64_t)t->stamp << 32 | depth) || depth > DC_DEPTH_MAX_)) {
		dc_end_odd(t, span);
		return;
	}
	uint64_t now = dc_units_(t);
	uint8_t *p = dc_head_(t, 2, now);
	t->depth = --depth;
	const struct dc_open_ *o = &t->open[depth];
	uint64_t units = now - o->units;
	unsigned site = o->site;
	dc_line_(t, now, depth);
	if (depth)
		dc_line_open_(t, o[-1].site, o[-1].units);
	/* thresholds are stored as their complement, so 0 means never and one add decides. Read before the commit: once
	 * armed, the page may be wiped by a fork in a signal handler */
	uint64_t sum, threshold = __atomic_load_n(&t->threshold[site], __ATOMIC_RELAXED);
	dc_commit_(t, p);
	if (DC_UNLIKELY_(__builtin_add_overflow(units, threshold, &sum)))
		dc_span_over(t, site, units);
}

#ifdef __cplusplus
}
#endif
#endif
