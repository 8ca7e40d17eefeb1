/* SPDX-License-Identifier: MIT */
/*
 * The functions behind the macros. Numbers only: the fast path of dashcam_inline.h, out of line once per shape. Everything
 * else takes the general way: strings, more than two arguments, throttled or nameless sites, and whatever the fast path
 * does not know how to handle. It encodes by the site's types, as long as there is room, and if there is not, again in
 * the next chunk.
 */
#include <string.h>

#include "recorder/recorder.h"

/* ---- the fast path ---- */

uint64_t dc_begin0(struct dc_site *site, uint32_t odd)
{
	return dc_begin0_inline(site, odd);
}

uint64_t dc_begin1(struct dc_site *site, uint32_t odd, uint64_t a)
{
	return dc_begin1_inline(site, odd, a);
}

uint64_t dc_begin2(struct dc_site *site, uint32_t odd, uint64_t a, uint64_t b)
{
	return dc_begin2_inline(site, odd, a, b);
}

void dc_end(dc_span_t span)
{
	dc_end_inline(span);
}

/* ---- whether a site records ---- */

#define SITE_NAME_MAX 200u
#define TOKEN_ODD (UINT64_C(1) << 31) /* in a span's token: it has no threshold; ended by end_odd() */

static bool admit(const struct dc_site *site)
{
	static __thread uint32_t throttled __attribute__((tls_model("initial-exec")));
	uint32_t word = dc_control_of_(site);
	if (word & (DC_ENABLE_OFF | DC_ENABLE_STOPPED))
		return false;
	if (word & DC_ENABLE_NOTICE)
		dc_sample_notice(site);
	uint32_t every_log2 = DC_ENABLE_THROTTLE_OF(word);
	return (throttled++ & ((1u << every_log2) - 1)) == 0;
}

/* Off for good: the site learns it, so that its next event costs two loads. Just starting elsewhere: a lost event. */
static void not_recording(struct dc_site *site)
{
	struct dc_recorder *r = dc_recorder;
	uint32_t phase = r ? __atomic_load_n(&r->phase, __ATOMIC_RELAXED) : DC_PHASE_OFF; /* a snapshot is enough */
	if (phase == DC_PHASE_OFF)
		__atomic_store_n(&site->control, &dc_control_off, __ATOMIC_RELAXED); /* either word is valid */
	else
		dc_missed();
}

/* The recorder must be on before a site can be registered. */
static bool known(struct dc_site *site, uint16_t *ret_id)
{
	/* [site-known] acquire; pairs with the release in dc_site_register() */
	if (DC_LIKELY_(__atomic_load_n(&site->known, __ATOMIC_ACQUIRE))) {
		*ret_id = site->id;
		return true;
	}
	dc_slow_enter();
	bool on = dc_recorder_on();
	if (!on)
		not_recording(site);
	else
		*ret_id = dc_site_register(dc_recorder, site) ? DC_SITE_INLINE : site->id;
	return !dc_slow_leave() && on;
}

#define NOT_ADMITTED UINT32_MAX

static DC_NOINLINE uint32_t admitted_odd(struct dc_site *site)
{
	uint16_t id;
	if (!known(site, &id) || !admit(site))
		return NOT_ADMITTED;
	if (dc_control_of_(site) & DC_ENABLE_STACK && site->kind != DC_KIND_STACK)
		dc_stack_of_site(site, id); /* switched on from outside: where each event of this site comes from */
	return id;
}

/* As whose this event of @site is recorded: the site's id, DC_SITE_INLINE; NOT_ADMITTED: it is not. */
DC_ALWAYS_INLINE_ uint32_t admitted(struct dc_site *site)
{
	return DC_LIKELY_(!dc_control_of_(site)) ? site->id : admitted_odd(site);
}

/* ---- encoding ---- */

/*
 * An event that is being written. It is there once it is committed, so one that finds no room starts anew in the next chunk.
 */
struct draft {
	struct dc_site *site;
	const uint64_t *args;
	unsigned count;
	uint16_t id; /* the site's, or DC_SITE_INLINE */
	unsigned left; /* bytes that its strings may still take */
	bool cuts; /* what is beyond is cut; else the chunk has no room for it */
	uint8_t *body; /* behind its head */
};

#define FIXED 40u /* tag, delta, TIME before it, site id, slack of the last word store */
#define FIXED_INLINE (2 + DC_ARG_MAX + SITE_NAME_MAX) /* of a site that carries its name */
#define FIXED_ARG 10u /* code byte; a value, or the length of a string */

/* Most strings are short: a call and its set-up would cost more than looking. */
DC_ALWAYS_INLINE_ unsigned text_length(const char *text, unsigned max)
{
	if (DC_UNLIKELY_(max <= 16))
		return (unsigned)strnlen(text, max);
	for (unsigned n = 0; n < 16; n++)
		if (!text[n])
			return n;
	return 16 + (unsigned)strnlen(text + 16, max - 16);
}

/* Exactly @n bytes of @text are read; up to 16 are copied as overlapping words. */
DC_ALWAYS_INLINE_ void text_copy(uint8_t *p, const char *text, unsigned n)
{
	uint64_t head, tail;
	uint32_t head4, tail4;
	if (DC_UNLIKELY_(n > 16)) {
		memcpy(p, text, n);
	} else if (n >= 8) {
		memcpy(&head, text, 8);
		memcpy(&tail, text + n - 8, 8);
		memcpy(p, &head, 8);
		memcpy(p + n - 8, &tail, 8);
	} else if (n >= 4) {
		memcpy(&head4, text, 4);
		memcpy(&tail4, text + n - 4, 4);
		memcpy(p, &head4, 4);
		memcpy(p + n - 4, &tail4, 4);
	} else {
		for (unsigned i = 0; i < n; i++)
			p[i] = (uint8_t)text[i];
	}
}

/* NULL: no room. */
DC_ALWAYS_INLINE_ uint8_t *put_text(uint8_t *p, struct draft *d, const char *text, unsigned *ret_code)
{
	*ret_code = DC_CODE_STR_NULL;
	if (!text)
		return p;
	unsigned n = text_length(text, d->left + 1);
	*ret_code = DC_CODE_STR_8;
	if (DC_UNLIKELY_(n > d->left)) {
		if (!d->cuts)
			return NULL;
		n = d->left;
		*ret_code = DC_CODE_STR_CUT;
	}
	d->left -= n;
	*p++ = (uint8_t)n;
	if (DC_UNLIKELY_(n > 255 || *ret_code == DC_CODE_STR_CUT)) {
		*p++ = (uint8_t)(n >> 8);
		if (*ret_code == DC_CODE_STR_8)
			*ret_code = DC_CODE_STR_16;
	}
	/* the text may have been changed since it was measured: at most its old length is taken */
	text_copy(p, text, n);
	return p + n;
}

DC_ALWAYS_INLINE_ uint8_t *put_arg(uint8_t *p, struct draft *d, unsigned i, unsigned *ret_code)
{
	const unsigned type = d->site->types[i];
	const uint64_t v = d->args[i];
	if (type == DC_TYPE_STR)
		return put_text(p, d, (const char *)(uintptr_t)v, ret_code);
	*ret_code = 0;
	if (DC_UNLIKELY_(type == DC_TYPE_SECRET))
		return p;
	dc_put8_(p, v);
	*ret_code = (unsigned)(dc_top_bit_(v) >> 3) + 1;
	return p + *ret_code;
}

/* NULL: no room. */
DC_ALWAYS_INLINE_ uint8_t *put_args(uint8_t *p, struct draft *d)
{
	for (unsigned i = 0; i < d->count; i += 2) {
		unsigned low, high = 0;
		uint8_t *code = p++;
		if (!(p = put_arg(p, d, i, &low)))
			return NULL;
		if (i + 1 < d->count && !(p = put_arg(p, d, i + 1, &high)))
			return NULL;
		*code = (uint8_t)(low | high << 4);
	}
	return p;
}

/* The site's own description, for readers that will not find it in the table. */
static uint8_t *put_inline_site(uint8_t *p, const struct dc_site *site, unsigned count)
{
	size_t n = strnlen(site->name, SITE_NAME_MAX);
	*p++ = (uint8_t)count;
	memcpy(p, site->types, count);
	p += count;
	*p++ = (uint8_t)n;
	memcpy(p, site->name, n);
	return p + n;
}

DC_ALWAYS_INLINE_ uint8_t *put_body(uint8_t *p, struct draft *d)
{
	memcpy(p, &d->id, 2);
	p += 2;
	if (DC_UNLIKELY_(d->id == DC_SITE_INLINE))
		p = put_inline_site(p, d->site, d->count);
	return put_args(p, d);
}

/* Tag and delta, behind a full time where the delta is negative or needs more than four bytes. */
DC_ALWAYS_INLINE_ uint8_t *put_head(struct dc_thread_ *t, unsigned kind, uint64_t now)
{
	struct dc_when_ w;
	uint8_t *p = t->at;
	dc_when_since_(&w, now, t->last);
	if (DC_UNLIKELY_(w.bits > 24)) {
		p[0] = DC_KIND_TIME;
		dc_put8_(p + 1, now);
		p += 9;
		dc_when_since_(&w, now, now);
	}
	return dc_head_(t, p, kind, &w);
}

/* After the commit, still busy. The first event in a chunk lets the last chunk go, so that no second one is slow for it. */
DC_ALWAYS_INLINE_ void leave(struct dc_thread_ *t)
{
	if (DC_UNLIKELY_(((struct dc_thread *)t)->before != DC_CHUNK_NONE) && !dc_chunk_begun(t))
		return;
	t->busy = t->idle;
}

static void commit(struct dc_thread_ *t, uint8_t *p)
{
	dc_publish_(t, p);
	leave(t);
}

/* ---- the general way ---- */

/* The next chunk for an event that found too little room. false: there is none, counted, and the event is over. */
static DC_NOINLINE bool next_chunk(struct dc_thread_ *t)
{
	dc_slow_enter();
	struct dc_recorder *r = dc_recorder;
	const bool ours = dc_page_is_of(r, t);
	const bool made = ours && dc_chunk_switch(r, (struct dc_thread *)t) == 0;
	if (dc_slow_leave() || !ours)
		return false;
	if (!made)
		t->busy = t->idle;
	return made;
}

/* What an event needs besides its strings is in the slack behind `limit`. false: its site's name has no room. */
DC_ALWAYS_INLINE_ bool has_room(const struct dc_thread_ *t, struct draft *d)
{
	unsigned room = (unsigned)(t->limit - t->at);
	if (DC_UNLIKELY_(d->id == DC_SITE_INLINE)) {
		if (room < FIXED_INLINE)
			return false;
		room -= FIXED_INLINE;
	}
	d->cuts = room >= DC_STRINGS_PER_EVENT_BYTES;
	d->left = d->cuts ? DC_STRINGS_PER_EVENT_BYTES : room;
	return true;
}
static_assert(FIXED + DC_ARG_MAX * FIXED_ARG <= DC_CHUNK_SLACK, "room for any event without strings");
static_assert(DC_CHUNK_BYTES_MIN / 4 * 3 - sizeof(struct dc_chunk_header) >
		      FIXED_INLINE + DC_STRINGS_PER_EVENT_BYTES + DC_CHUNK_SLACK,
	      "a fresh chunk has room for any event");

/* All of the event but its commit. Return: its end; NULL: not now, counted. */
DC_ALWAYS_INLINE_ uint8_t *put_event_here(struct dc_thread_ *t, struct draft *d, unsigned kind)
{
	for (;;) {
		const uint64_t last = t->last;
		if (has_room(t, d)) {
			d->body = put_head(t, kind, dc_units(t));
			uint8_t *p = put_body(d->body, d);
			if (DC_LIKELY_(p != NULL))
				return p;
			t->last = last;
		}
		if (!next_chunk(t))
			return NULL;
	}
}

static DC_NOINLINE uint8_t *put_event(struct dc_thread_ *t, struct draft *d, unsigned kind)
{
	return put_event_here(t, d, kind);
}

static uint64_t commit_begin(struct dc_thread_ *t, const struct draft *d, uint8_t *p)
{
	uint64_t token = t->token;
	if (DC_LIKELY_((uint32_t)token < DC_DEPTH_MAX_)) {
		token = dc_commit_begin_(t, token, d->id, t->last, d->body, p, DC_BUSY_);
		leave(t);
		return d->id == DC_SITE_INLINE ? token | TOKEN_ODD : token;
	}
	dc_line_(t->line, t->last, (uint32_t)++token);
	dc_line_open_(t->line, d->id, t->last);
	dc_publish_(t, p);
	t->token = token;
	DC_BARRIER_();
	leave(t);
	return token | TOKEN_ODD;
}

static inline uint64_t begin_general(struct dc_site *site, const uint64_t *args, unsigned count)
{
	const uint32_t id = admitted(site);
	struct draft d = { .site = site, .args = args, .count = count, .id = (uint16_t)id };
	struct dc_thread_ *t;
	uint8_t *p;
	if (id == NOT_ADMITTED || !(t = dc_enter()) || !(p = put_event(t, &d, DC_KIND_BEGIN)))
		return 0;
	return commit_begin(t, &d, p);
}

uint64_t dc_begin0_slow(struct dc_site *site, uint32_t odd)
{
	(void)odd;
	return begin_general(site, NULL, 0);
}

uint64_t dc_begin1_slow(struct dc_site *site, uint32_t odd, uint64_t a)
{
	(void)odd;
	return begin_general(site, &a, 1);
}

uint64_t dc_begin2_slow(struct dc_site *site, uint32_t odd, uint64_t a, uint64_t b)
{
	const uint64_t args[2] = { a, b };
	(void)odd;
	return begin_general(site, args, 2);
}

uint64_t dc_beginv(struct dc_site *site, const uint64_t *args)
{
	return begin_general(site, args, site->arg_count);
}

/* For one or two arguments in the caller, so that most logs know how many there are: a third less instructions. */
DC_ALWAYS_INLINE_ void event_general(struct dc_site *site, const uint64_t *args, unsigned count, bool here)
{
	const uint32_t id = admitted(site);
	struct draft d = { .site = site, .args = args, .count = count, .id = (uint16_t)id };
	struct dc_thread_ *t;
	uint8_t *p;
	if (id == NOT_ADMITTED || !(t = dc_enter()))
		return;
	if (!(p = here ? put_event_here(t, &d, site->kind) : put_event(t, &d, site->kind)))
		return;
	__atomic_store_n(&t->line->last_units, t->last, __ATOMIC_RELAXED); /* a hint */
	commit(t, p);
}

void dc_eventv(struct dc_site *site, const uint64_t *args)
{
	event_general(site, args, site->arg_count, false);
}

DC_NOINLINE static void event0_slow(struct dc_site *site)
{
	event_general(site, NULL, 0, false);
}

DC_NOINLINE static void event1_slow(struct dc_site *site, uint64_t a)
{
	event_general(site, &a, 1, true);
}

DC_NOINLINE static void event2_slow(struct dc_site *site, uint64_t a, uint64_t b)
{
	const uint64_t args[2] = { a, b };
	event_general(site, args, 2, true);
}

/* ---- events of numbers ---- */

DC_ALWAYS_INLINE_ void event_commit(struct dc_thread_ *t, uint64_t now, uint8_t *p)
{
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	dc_commit_(t, p);
}

void dc_event0(struct dc_site *site, uint32_t odd)
{
	struct dc_thread_ *t = dc_thread_self;
	struct dc_when_ w;
	if (!dc_take_(t, odd, &w)) {
		event0_slow(site);
		return;
	}
	uint8_t *body = dc_head_(t, t->at, site->kind, &w);
	event_commit(t, w.units, dc_body0_(body, site->id));
}

void dc_event1(struct dc_site *site, uint32_t odd, uint64_t a)
{
	struct dc_thread_ *t = dc_thread_self;
	struct dc_when_ w;
	if (!dc_take_(t, odd, &w)) {
		event1_slow(site, a);
		return;
	}
	uint8_t *body = dc_head_(t, t->at, site->kind, &w);
	event_commit(t, w.units, dc_body1_(body, site->id, a));
}

void dc_event2(struct dc_site *site, uint32_t odd, uint64_t a, uint64_t b)
{
	struct dc_thread_ *t = dc_thread_self;
	struct dc_when_ w;
	if (!dc_take_(t, odd, &w)) {
		event2_slow(site, a, b);
		return;
	}
	uint8_t *body = dc_head_(t, t->at, site->kind, &w);
	event_commit(t, w.units, dc_body2_(body, site->id, a, b));
}

/* ---- stacks ---- */

uint64_t dc_stack_put(struct dc_site *site, uint16_t id, const uint64_t *addresses, unsigned count)
{
	struct draft d = { .site = site, .id = id };
	struct dc_thread_ *t = dc_enter();
	while (t && !(has_room(t, &d) && d.left > 8 * count))
		if (!next_chunk(t))
			return 0;
	if (!t)
		return 0;
	const uint64_t now = dc_units(t);
	uint8_t *p = put_body(put_head(t, DC_KIND_STACK, now), &d);
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	*p++ = (uint8_t)count;
	memcpy(p, addresses, 8u * count);
	commit(t, p + 8u * count);
	return now;
}

uint64_t dc_stack_record(struct dc_site *site, const uint64_t *addresses, unsigned count)
{
	uint16_t id;
	return known(site, &id) && admit(site) ? dc_stack_put(site, id, addresses, count) : 0;
}

/* ---- ends that are not what the fast path expects ---- */

static uint64_t end_at(struct dc_thread_ *t, uint32_t depth, bool implied)
{
	const uint64_t now = dc_units(t);
	uint8_t *p = put_head(t, implied ? DC_KIND_END_TO : DC_KIND_END, now);
	if (implied) {
		p[0] = (uint8_t)depth;
		p[1] = (uint8_t)(depth >> 8);
		p += 2;
	}
	t->token -= (uint32_t)t->token - --depth;
	dc_line_(t->line, now, depth);
	if (depth && depth <= DC_DEPTH_MAX_)
		dc_line_open_(t->line, t->open[depth - 1].site, t->since[depth - 1]);
	commit(t, p);
	return now;
}

/* The innermost span of those that are tracked, with its duration. */
static void end_innermost(struct dc_thread_ *t)
{
	const uint32_t depth = (uint32_t)t->token;
	const uint16_t site = t->open[depth - 1].site;
	const uint64_t since = t->since[depth - 1];
	/* read before the commit: once idle, the page may be wiped by a fork in a signal handler */
	uint64_t threshold = __atomic_load_n(&t->threshold[site], __ATOMIC_RELAXED), sum; /* a setting */
	uint64_t units = end_at(t, depth, false) - since;
	if (__builtin_add_overflow(units, threshold, &sum))
		dc_span_over(site, units);
}

/* Deeper than is tracked: an ordinary end without a duration. Shallower: closes what lies above. */
static void end_odd(struct dc_thread_ *t, dc_span_t span)
{
	uint32_t depth = (uint32_t)(span.token & ~TOKEN_ODD);
	if (span.token >> 32 != t->token >> 32 || depth > (uint32_t)t->token || !depth) {
		((struct dc_thread *)t)->misplaced++;
		t->busy = t->idle;
	} else if (depth == (uint32_t)t->token) {
		end_at(t, depth, false);
	} else if (depth <= UINT16_MAX) {
		end_at(t, depth, true);
	} else {
		t->busy = t->idle;
	}
}

void dc_end_slow(dc_span_t span)
{
	struct dc_thread_ *t;
	if (!span.token || !(t = dc_enter()))
		return;
	if (span.token == t->token)
		end_innermost(t);
	else
		end_odd(t, span);
}

/* ---- events without a site ---- */

static bool on(void)
{
	if (dc_recorder_on())
		return true;
	dc_missed();
	return false;
}

/* @bytes behind a head and nothing else. */
static void put_plain(unsigned kind, const void *body, unsigned bytes)
{
	struct dc_thread_ *t;
	if (!on() || !(t = dc_enter()))
		return;
	uint8_t *p = put_head(t, kind, dc_units(t));
	__atomic_store_n(&t->line->last_units, t->last, __ATOMIC_RELAXED); /* a hint */
	memcpy(p, body, bytes);
	commit(t, p + bytes);
}

void dc_flow(unsigned kind, uint64_t id)
{
	put_plain(kind, &id, sizeof id);
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool hex_bytes(const char *text, uint8_t *bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int high = hex(text[2 * i]);
		int low = high < 0 ? -1 : hex(text[2 * i + 1]);
		if (low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* https://www.w3.org/TR/trace-context/ section 3.2: version-trace id-parent id-flags; version ff is invalid */
static bool traceparent_parse(const char *text, uint8_t ret[25])
{
	uint8_t version;
	if (!text || strnlen(text, 55) < 55 || !hex_bytes(text, &version, 1) || version == 0xff || text[2] != '-' ||
	    text[35] != '-' || text[52] != '-')
		return false;
	return hex_bytes(text + 3, ret + 1, 16) && hex_bytes(text + 36, ret + 17, 8) && hex_bytes(text + 53, ret, 1);
}

void dc_trace_context(const char *traceparent)
{
	uint8_t bytes[25];
	if (traceparent_parse(traceparent, bytes))
		put_plain(DC_KIND_CONTEXT, bytes, sizeof bytes);
}
