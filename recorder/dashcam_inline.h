/* SPDX-License-Identifier: MIT */
/*
 * The fast path: one event from the clock to the commit. Included by the library, which makes the functions of
 * dashcam.h from it, and by <dashcam.h> under -DDC_INLINE. What stands here is compiled into applications: it is ABI,
 * frozen for each soname.
 *
 *   ask      anything unusual, and nothing has happened yet: the slow way, by a tail call, so that the fast way needs no
 *            frame and saves no register. Unusual is: the site is new, throttled or has strings (`odd`); an event is in
 *            flight below us (signal handler), the thread has no lane yet, or there is no tick counter (`busy`); the
 *            chunk is full, or the page was wiped by fork; the last event is seconds ago; the span is deeper than is
 *            tracked, not the innermost, or over its threshold.
 *   take     busy = 1 and nobody else touches this thread's state: a handler that interrupts us from here on sees it and
 *            goes to a lane of its own. A handler that then leaves by siglongjmp() leaves it so, and what the thread
 *            records from then on goes to that other lane.
 *   room     at < limit: DC_CHUNK_SLACK bytes are free, enough for any event without strings. Asked once we are busy, so
 *            that a page wiped just before is noticed: there both are 0.
 *   encode   see ipc/event.h. Word stores that overlap what comes next: write 8, advance by what counts.
 *   commit   one release store of the chunk's state word: events + 1, bytes + length.  [chunk-commit]
 *   open     a span is open once its begin is published, and no longer open before its end is: wherever the event is
 *            left in between, no span is known here that readers have not, or that has ended for them.
 *   leave    busy = 0.
 *
 * Between `take` and `leave` only this thread and handlers on top of it run, so compiler barriers are enough to order
 * `busy`; the only fence the CPU sees is the release of the commit.
 *
 * What counts here is the number of instructions: reading the clock keeps some CPUs from running ahead (Intel's take 26
 * cycles and overlap with a dozen instructions), so each one costs a quarter of a cycle. Therefore: values come as they
 * are recorded (dashcam.h: DC_VALUE_), what is derived is kept derived (`base`, `token`), and each field of the writer
 * is loaded once.
 */
#ifndef DASHCAM_INLINE_H
#define DASHCAM_INLINE_H

#ifdef __cplusplus
extern "C" {
#endif

#define DC_DEPTH_MAX_ 128u
#define DC_ALWAYS_INLINE_ static inline __attribute__((always_inline))
#define DC_BARRIER_() __asm__ volatile("" ::: "memory")

/* A span that is open, for when it ends and for the next chunk's head. */
struct dc_open_ {
	uint16_t site;
	uint16_t args; /* lower half of the address of its arguments in the current chunk ... */
	uint16_t end; /* ... and of their end; the same: none, or gone with an earlier chunk, or too long to carry */
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

#define DC_BUSY_ 1u /* an event is in flight, or the thread has no lane */
#define DC_IDLE_SLOW_ 2u /* no trustworthy tick counter: each event asks the kernel, on the slow way */

/* One thread's writer: a private page, wiped by fork. */
struct dc_thread_ {
	uint32_t busy; /* 0: idle; DC_BUSY_, DC_IDLE_SLOW_ */
	uint32_t idle; /* what `busy` is between events */
	uint8_t *at; /* next free byte of the chunk */
	uint8_t *limit; /* last place where an event may start */
	uint64_t last; /* units of the last event */
	uint64_t base; /* the state word as stored last, less `at` */
	uint64_t token; /* of the innermost open span: this thread's stamp, never 0, in the upper half, depth in the lower */
	uint64_t *state_word; /* in the ring */
	struct dc_lane_line_ *line; /* in the ring */
	/* second cache line */
	const uint64_t *threshold; /* control part of the ring, indexed by site */
	uint8_t *chunk; /* first byte of the chunk */
	uint64_t reserved[6];
	uint64_t since[DC_DEPTH_MAX_]; /* when the open spans began */
	struct dc_open_ open[DC_DEPTH_MAX_];
};

extern DC_API __thread struct dc_thread_ *dc_thread_self __attribute__((tls_model("initial-exec")));

/* The slow way: of inlined events, the function in the library; of that one, what stands behind it there. */
#ifdef DC_INSIDE_
#define DC_SLOW_(name) name##_slow
#else
#define DC_SLOW_(name) name
#endif

/* dc_top_bit_(): number of the highest bit set, 0..63; 0 of 0. */
#if defined(__x86_64__)
#define DC_TICK_SHIFT_ 3 /* 2-5 GHz: units of 1.6 to 4 ns */
DC_ALWAYS_INLINE_ uint64_t dc_ticks_(void)
{
	return __builtin_ia32_rdtsc();
}
/* Of 0 it leaves the register as it was: AMD's manual says so, of Intel's CPUs Linux knows and relies on it (fls64()). */
DC_ALWAYS_INLINE_ uint64_t dc_top_bit_(uint64_t v)
{
	uint64_t bit;
	__asm__("xorl %k0, %k0\n\tbsrq %1, %0" : "=&r"(bit) : "rm"(v) : "cc");
	return bit;
}
#elif defined(__aarch64__)
#define DC_TICK_SHIFT_ 0 /* 24 MHz to 1 GHz: units of 1 to 41 ns */
DC_ALWAYS_INLINE_ uint64_t dc_ticks_(void)
{
	uint64_t t;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
	return t;
}
DC_ALWAYS_INLINE_ uint64_t dc_top_bit_(uint64_t v)
{
	return 63 - (uint64_t)__builtin_clzll(v | 1);
}
#else
#error "dashcam records on x86-64 and aarch64"
#endif

DC_ALWAYS_INLINE_ void dc_put8_(uint8_t *p, uint64_t v)
{
	__builtin_memcpy(p, &v, 8); /* both architectures are little-endian and store unaligned words */
}

/* When an event happens, as its head says it. */
struct dc_when_ {
	uint64_t units;
	uint64_t delta; /* since the last event */
	uint64_t bits; /* 8 * (bytes of the delta - 1) */
};

DC_ALWAYS_INLINE_ void dc_when_since_(struct dc_when_ *w, uint64_t units, uint64_t last)
{
	w->units = units;
	w->delta = units - last;
	w->bits = dc_top_bit_(w->delta) & 56;
}

DC_ALWAYS_INLINE_ int dc_give_back_(struct dc_thread_ *t)
{
	t->busy = 0;
	return 0;
}

/* Takes the writer for one event. 0: not in the usual way, and nothing has happened. */
DC_ALWAYS_INLINE_ int dc_take_(struct dc_thread_ *t, uint32_t odd, struct dc_when_ *w)
{
	if (DC_UNLIKELY_(t->busy | odd))
		return 0;
	t->busy = DC_BUSY_;
	DC_BARRIER_();
	if (DC_UNLIKELY_(t->at >= t->limit)) /* also of a page wiped since the line before the last */
		return dc_give_back_(t);
	uint64_t now = dc_ticks_() >> DC_TICK_SHIFT_;
	dc_when_since_(w, now, t->last);
	return DC_LIKELY_(w->bits <= 24) || dc_give_back_(t); /* four bytes */
}

/* Tag and delta; returns where the body goes. */
DC_ALWAYS_INLINE_ uint8_t *dc_head_(struct dc_thread_ *t, uint8_t *at, unsigned kind, const struct dc_when_ *w)
{
	t->last = w->units;
	dc_put8_(at, kind + (w->bits << 2) + (w->delta << 8));
	return at + 2 + (w->bits >> 3);
}

DC_ALWAYS_INLINE_ void dc_publish_(struct dc_thread_ *t, uint8_t *p)
{
	uint64_t base = t->base + UINT64_C(0x10000);
	t->base = base;
	t->at = p;
	/* [chunk-commit] release; pairs with the acquire fence of whoever reads the state words, then the payload */
	__atomic_store_n(t->state_word, base + (uint64_t)p, __ATOMIC_RELEASE);
	DC_BARRIER_();
}

DC_ALWAYS_INLINE_ void dc_commit_(struct dc_thread_ *t, uint8_t *p)
{
	dc_publish_(t, p);
	t->busy = 0;
}

/* What `status` and `open >` look at from outside: stored, never read back; each field by itself is whole. */
DC_ALWAYS_INLINE_ void dc_line_(struct dc_lane_line_ *line, uint64_t now, uint32_t depth)
{
	__atomic_store_n(&line->last_units, now, __ATOMIC_RELAXED); /* a hint: no order needed */
	__atomic_store_n(&line->depth, depth, __ATOMIC_RELAXED);
}

DC_ALWAYS_INLINE_ void dc_line_open_(struct dc_lane_line_ *line, uint16_t site, uint64_t units)
{
	__atomic_store_n(&line->open_site, site, __ATOMIC_RELAXED);
	__atomic_store_n(&line->open_units, units, __ATOMIC_RELAXED);
}

/* site, code byte, integers: each store overlaps what comes next */
DC_ALWAYS_INLINE_ uint8_t *dc_body2_(uint8_t *p, uint16_t site, uint64_t a, uint64_t b)
{
	uint64_t more_a = dc_top_bit_(a) >> 3, bits_b = dc_top_bit_(b) & 56; /* bytes - 1; 8 * that */
	__builtin_memcpy(p, &site, 2);
	dc_put8_(p + 3, a);
	dc_put8_(p + 4 + more_a, b);
	p[2] = (uint8_t)(more_a + 2 * bits_b + 0x11);
	return p + 5 + more_a + (bits_b >> 3);
}

DC_ALWAYS_INLINE_ uint8_t *dc_body1_(uint8_t *p, uint16_t site, uint64_t a)
{
	uint64_t more = dc_top_bit_(a) >> 3;
	__builtin_memcpy(p, &site, 2);
	p[2] = (uint8_t)(more + 1);
	dc_put8_(p + 3, a);
	return p + 4 + more;
}

DC_ALWAYS_INLINE_ uint8_t *dc_body0_(uint8_t *p, uint16_t site)
{
	__builtin_memcpy(p, &site, 2);
	return p + 2;
}

/*
 * The begin of a span is committed, with its arguments in [body + 2, p); @token: of the one around it; @busy: from then on.
 * The caller knows that its depth is tracked.
 */
DC_ALWAYS_INLINE_ uint64_t dc_commit_begin_(struct dc_thread_ *t, uint64_t token, uint16_t site, uint64_t now,
					    const uint8_t *body, uint8_t *p, uint32_t busy)
{
	uint8_t depth = (uint8_t)token;
	t->since[depth] = now;
	t->open[depth].site = site;
	DC_BARRIER_(); /* gcc would join two stores to one, by more instructions than it saves */
	t->open[depth].args = (uint16_t)((uintptr_t)body + 2);
	DC_BARRIER_();
	t->open[depth].end = (uint16_t)(uintptr_t)p;
	struct dc_lane_line_ *line = t->line;
	dc_line_(line, now, (uint32_t)++token);
	dc_line_open_(line, site, now);
	dc_publish_(t, p);
	t->token = token;
	DC_BARRIER_();
	t->busy = busy;
	return token;
}

/* Takes the writer for a span to begin inside of @ret_token. */
DC_ALWAYS_INLINE_ int dc_take_begin_(struct dc_thread_ *t, uint32_t odd, struct dc_when_ *w,
				     uint64_t *ret_token)
{
	if (!dc_take_(t, odd, w))
		return 0;
	*ret_token = t->token;
	return DC_LIKELY_((uint32_t)*ret_token < DC_DEPTH_MAX_) || dc_give_back_(t);
}

DC_ALWAYS_INLINE_ uint64_t dc_begin0_inline(struct dc_site *site, uint32_t odd)
{
	struct dc_thread_ *t = dc_thread_self;
	struct dc_when_ w;
	uint64_t token;
	if (!dc_take_begin_(t, odd, &w, &token))
		return DC_SLOW_(dc_begin0)(site, DC_ODD_);
	uint8_t *body = dc_head_(t, t->at, 1, &w);
	uint16_t id = site->id; /* here, not earlier: there is just one register too few for that */
	uint8_t *p = dc_body0_(body, id);
	return dc_commit_begin_(t, token, id, w.units, body, p, 0);
}

DC_ALWAYS_INLINE_ uint64_t dc_begin1_inline(struct dc_site *site, uint32_t odd, uint64_t a)
{
	struct dc_thread_ *t = dc_thread_self;
	struct dc_when_ w;
	uint64_t token;
	if (!dc_take_begin_(t, odd, &w, &token))
		return DC_SLOW_(dc_begin1)(site, DC_ODD_, a);
	uint8_t *body = dc_head_(t, t->at, 1, &w);
	uint16_t id = site->id; /* here, not earlier: there is just one register too few for that */
	uint8_t *p = dc_body1_(body, id, a);
	return dc_commit_begin_(t, token, id, w.units, body, p, 0);
}

DC_ALWAYS_INLINE_ uint64_t dc_begin2_inline(struct dc_site *site, uint32_t odd, uint64_t a, uint64_t b)
{
	struct dc_thread_ *t = dc_thread_self;
	struct dc_when_ w;
	uint64_t token;
	if (!dc_take_begin_(t, odd, &w, &token))
		return DC_SLOW_(dc_begin2)(site, DC_ODD_, a, b);
	uint8_t *body = dc_head_(t, t->at, 1, &w);
	uint16_t id = site->id; /* here, not earlier: there is just one register too few for that */
	uint8_t *p = dc_body2_(body, id, a, b);
	return dc_commit_begin_(t, token, id, w.units, body, p, 0);
}

/* Takes the writer for the end of its innermost span, if that is @token and did not last too long. */
DC_ALWAYS_INLINE_ int dc_take_end_(struct dc_thread_ *t, struct dc_when_ *w, uint64_t token)
{
	if (!dc_take_(t, 0, w))
		return 0;
	if (DC_UNLIKELY_(token != t->token)) /* so it is when nothing was begun: 0, which no thread's token is */
		return dc_give_back_(t);
	/* Thresholds are stored as their complement, so 0 means never and one add decides. Set from outside: whichever
	 * value is read was valid just now, and one aligned word is read whole. */
	uint32_t inner = (uint32_t)(token - 1);
	uint64_t sum;
	return DC_LIKELY_(!__builtin_add_overflow(w->units - t->since[inner], t->threshold[t->open[inner].site], &sum)) ||
	       dc_give_back_(t);
}

DC_ALWAYS_INLINE_ void dc_end_inline(dc_span_t span)
{
	struct dc_thread_ *t = dc_thread_self;
	struct dc_when_ w;
	__asm__("" : "+r"(span.token)); /* a compiler that knows it to be 0 would warn of what is never reached then */
	if (!dc_take_end_(t, &w, span.token)) {
		DC_SLOW_(dc_end)(span);
		return;
	}
	uint8_t *p = dc_head_(t, t->at, 2, &w);
	struct dc_lane_line_ *line = t->line;
	uint64_t token = span.token - 1;
	uint32_t depth = (uint32_t)token;
	t->token = token;
	dc_line_(line, w.units, depth);
	if (depth)
		dc_line_open_(line, t->open[depth - 1].site, t->since[depth - 1]);
	dc_commit_(t, p);
}

#ifdef __cplusplus
}
#endif
#endif
