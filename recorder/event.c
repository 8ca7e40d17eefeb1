/* SPDX-License-Identifier: MIT */
/*
 * The functions behind the macros. Integers only: the inline fast path of dashcam_inline.h, out of line once per shape.
 * Everything else (strings, doubles, more than two arguments, throttled or nameless sites) takes the general way:
 * measure, get room, encode by the site's types.
 */
#include <string.h>

#include "recorder/recorder.h"

dc_span_t dc_begin0(struct dc_site *site)
{
	return dc_begin0_inline(site);
}

dc_span_t dc_begin1(struct dc_site *site, uint64_t a)
{
	return dc_begin1_inline(site, a);
}

dc_span_t dc_begin2(struct dc_site *site, uint64_t a, uint64_t b)
{
	return dc_begin2_inline(site, a, b);
}

void dc_end(dc_span_t span)
{
	dc_end_inline(span);
}

/* ---- the general way ---- */

#define FIXED 40u /* tag, delta, TIME before it, site id, slack of the last word store */
#define SITE_NAME_MAX 200u
#define TOKEN_ODD (UINT64_C(1) << 31) /* in a span's token: it has no site, so no threshold; ended by dc_end_odd() */

struct draft {
	struct dc_site *site;
	const uint64_t *args;
	unsigned count;
	uint16_t id; /* the site's, or DC_SITE_INLINE */
	uint16_t lengths[DC_ARG_MAX]; /* of strings */
	uint16_t cut; /* bit i: string i was cut */
	size_t bytes; /* at most, with FIXED */
};

static bool admit(const struct dc_site *site)
{
	static __thread uint32_t throttled __attribute__((tls_model("initial-exec")));
	uint32_t word = dc_control_of_(site);
	if (DC_LIKELY_(!word))
		return true;
	if (word & (DC_ENABLE_OFF | DC_ENABLE_STOPPED))
		return false;
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
	/* [site-shape] acquire; pairs with the release in dc_site_register() */
	if (DC_LIKELY_(__atomic_load_n(&site->shape, __ATOMIC_ACQUIRE))) {
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

/* Most strings are short: a call and its set-up would cost more than looking. */
static size_t text_length(const char *text, size_t max)
{
	size_t n = 0;
	while (n < 16 && n < max && text[n])
		n++;
	return n < 16 || n == max ? n : n + strnlen(text + n, max - n);
}

/* Exactly @n bytes of @text are read; up to 16 are copied as overlapping words. */
static void text_copy(uint8_t *p, const char *text, size_t n)
{
	uint64_t head, tail;
	uint32_t head4, tail4;
	if (n > 16) {
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
		for (size_t i = 0; i < n; i++)
			p[i] = (uint8_t)text[i];
	}
}

static void measure(struct draft *d)
{
	size_t left = DC_STRINGS_PER_EVENT_BYTES;
	d->bytes = FIXED + 9u * d->count;
	for (unsigned i = 0; i < d->count; i++) {
		const char *text = (const char *)(uintptr_t)d->args[i];
		if (d->site->types[i] != DC_TYPE_STR || !text)
			continue;
		size_t n = text_length(text, left + 1);
		if (n > left) {
			n = left;
			d->cut |= (uint16_t)(1u << i);
		}
		d->lengths[i] = (uint16_t)n;
		left -= n;
		d->bytes += n + 3;
	}
	if (DC_UNLIKELY_(d->id == DC_SITE_INLINE))
		d->bytes += 2 + DC_ARG_MAX + SITE_NAME_MAX;
}

static uint8_t *put_value(uint8_t *p, uint64_t v, unsigned *ret_code)
{
	unsigned n = dc_bytes_(v);
	dc_put8_(p, v);
	*ret_code = n;
	return p + n;
}

static uint8_t *put_text(uint8_t *p, const struct draft *d, unsigned i, unsigned *ret_code)
{
	const char *text = (const char *)(uintptr_t)d->args[i];
	size_t n = d->lengths[i];
	if (!text) {
		*ret_code = DC_CODE_STR_NULL;
		return p;
	}
	*p++ = (uint8_t)n;
	*ret_code = DC_CODE_STR_8;
	if (n > 255 || d->cut >> i & 1) {
		*p++ = (uint8_t)(n >> 8);
		*ret_code = d->cut >> i & 1 ? DC_CODE_STR_CUT : DC_CODE_STR_16;
	}
	/* the text may have been changed since it was measured: at most its old length is taken */
	text_copy(p, text, n);
	return p + n;
}

static uint8_t *put_arg(uint8_t *p, const struct draft *d, unsigned i, unsigned *ret_code)
{
	uint64_t v = d->args[i];
	switch (d->site->types[i]) {
	case DC_TYPE_I64:
		return put_value(p, dc_zigzag((int64_t)v), ret_code);
	case DC_TYPE_F64:
		return put_value(p, __builtin_bswap64(v), ret_code);
	case DC_TYPE_STR:
		return put_text(p, d, i, ret_code);
	case DC_TYPE_SECRET:
		*ret_code = 0;
		return p;
	default:
		return put_value(p, v, ret_code);
	}
}

static uint8_t *put_args(uint8_t *p, const struct draft *d)
{
	for (unsigned i = 0; i < d->count; i += 2) {
		unsigned low, high = 0;
		uint8_t *code = p++;
		p = put_arg(p, d, i, &low);
		if (i + 1 < d->count)
			p = put_arg(p, d, i + 1, &high);
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

static uint8_t *put_body(uint8_t *p, const struct draft *d)
{
	memcpy(p, &d->id, 2);
	p += 2;
	if (DC_UNLIKELY_(d->id == DC_SITE_INLINE))
		p = put_inline_site(p, d->site, d->count);
	return put_args(p, d);
}

/* Enters with @bytes free, whatever the chunk's ordinary slack. */
static struct dc_thread_ *enter_room(size_t bytes)
{
	struct dc_thread_ *t = dc_enter_();
	if (!t || DC_LIKELY_((size_t)(t->limit + DC_CHUNK_SLACK - t->at) >= bytes))
		return t;
	dc_slow_enter();
	int err = dc_chunk_switch(dc_recorder, (struct dc_thread *)t);
	if (dc_slow_leave())
		return NULL;
	if (!err)
		return t;
	t->armed = 1;
	return NULL;
}

static bool draft_init(struct draft *d, struct dc_site *site, const uint64_t *args, unsigned count)
{
	*d = (struct draft){ .site = site, .args = args, .count = count };
	if (!known(site, &d->id) || !admit(site))
		return false;
	if (DC_UNLIKELY_(dc_control_of_(site) & DC_ENABLE_STACK) && site->kind != DC_KIND_STACK)
		dc_stack_of_site(site, d->id); /* switched on from outside: where each event of this site comes from */
	measure(d);
	return true;
}

dc_span_t dc_begin_general(struct dc_site *site, const uint64_t *args, unsigned count)
{
	struct draft d;
	if (!draft_init(&d, site, args, count))
		return dc_no_span_();
	struct dc_thread_ *t = enter_room(d.bytes);
	if (!t)
		return dc_no_span_();
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, DC_KIND_BEGIN, now);
	dc_span_t span = dc_opened_(t, d.id, now, body, put_body(body, &d));
	if (d.id == DC_SITE_INLINE)
		span.token |= TOKEN_ODD;
	return span;
}

static void event_general(struct dc_site *site, const uint64_t *args, unsigned count)
{
	struct draft d;
	if (!draft_init(&d, site, args, count))
		return;
	struct dc_thread_ *t = enter_room(d.bytes);
	if (!t)
		return;
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, site->kind, now);
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	dc_commit_(t, put_body(body, &d));
}

dc_span_t dc_beginv(struct dc_site *site, const uint64_t *args)
{
	return dc_begin_general(site, args, site->arg_count);
}

void dc_eventv(struct dc_site *site, const uint64_t *args)
{
	event_general(site, args, site->arg_count);
}

void dc_event0(struct dc_site *site)
{
	struct dc_thread_ *t;
	if (!dc_plain_(site)) {
		event_general(site, NULL, 0);
		return;
	}
	if (!(t = dc_enter_()))
		return;
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, site->kind, now);
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	dc_commit_(t, dc_body0_(body, site->id));
}

void dc_event1(struct dc_site *site, uint64_t a)
{
	struct dc_thread_ *t;
	if (!dc_plain_(site)) {
		event_general(site, &a, 1);
		return;
	}
	if (!(t = dc_enter_()))
		return;
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, site->kind, now);
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	dc_commit_(t, dc_body1_(body, site->id, site->signs, a));
}

void dc_event2(struct dc_site *site, uint64_t a, uint64_t b)
{
	struct dc_thread_ *t;
	if (!dc_plain_(site)) {
		const uint64_t args[2] = { a, b };
		event_general(site, args, 2);
		return;
	}
	if (!(t = dc_enter_()))
		return;
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, site->kind, now);
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	dc_commit_(t, dc_body2_(body, site->id, site->signs, a, b));
}

void dc_stack_put(struct dc_site *site, uint16_t id, const uint64_t *addresses, unsigned count)
{
	struct draft d = { .site = site, .id = id };
	measure(&d);
	struct dc_thread_ *t = enter_room(d.bytes + 1 + 8u * count);
	if (!t)
		return;
	uint64_t now = dc_units_(t);
	uint8_t *p = put_body(dc_head_(t, DC_KIND_STACK, now), &d);
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	*p++ = (uint8_t)count;
	memcpy(p, addresses, 8u * count);
	dc_commit_(t, p + 8u * count);
}

void dc_stack_record(struct dc_site *site, const uint64_t *addresses, unsigned count)
{
	uint16_t id;
	if (known(site, &id) && admit(site))
		dc_stack_put(site, id, addresses, count);
}

/* ---- ends that do not match the innermost span ---- */

static void end_at(struct dc_thread_ *t, uint32_t depth, bool implied)
{
	uint64_t now = dc_units_(t);
	uint8_t *p = dc_head_(t, implied ? DC_KIND_END_TO : DC_KIND_END, now);
	if (implied) {
		p[0] = (uint8_t)depth;
		p[1] = (uint8_t)(depth >> 8);
		p += 2;
	}
	t->depth = --depth;
	dc_line_(t, now, depth);
	if (depth && depth <= DC_DEPTH_MAX_)
		dc_line_open_(t, t->open[depth - 1].site, t->open[depth - 1].units);
	dc_commit_(t, p);
}

/* Called disarmed. Deeper than is tracked: an ordinary end without a duration. Shallower: closes what lies above. */
void dc_end_odd(struct dc_thread_ *t, dc_span_t span)
{
	uint32_t depth = (uint32_t)(span.token & ~TOKEN_ODD);
	if ((uint32_t)(span.token >> 32) != t->stamp || depth > t->depth || !depth) {
		((struct dc_thread *)t)->misplaced++;
		t->armed = 1;
		return;
	}
	if (depth == t->depth)
		end_at(t, depth, false);
	else if (depth <= UINT16_MAX)
		end_at(t, depth, true);
	else
		t->armed = 1;
}

/* ---- events without a site ---- */

static bool on(void)
{
	if (dc_recorder_on())
		return true;
	dc_missed();
	return false;
}

void dc_flow(unsigned kind, uint64_t id)
{
	struct dc_thread_ *t;
	if (!on() || !(t = dc_enter_()))
		return;
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, kind, now);
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	dc_put8_(body, id);
	dc_commit_(t, body + 8);
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
	struct dc_thread_ *t;
	if (!traceparent_parse(traceparent, bytes) || !on() || !(t = dc_enter_()))
		return;
	uint64_t now = dc_units_(t);
	uint8_t *body = dc_head_(t, DC_KIND_CONTEXT, now);
	__atomic_store_n(&t->line->last_units, now, __ATOMIC_RELAXED); /* a hint */
	memcpy(body, bytes, sizeof bytes);
	dc_commit_(t, body + sizeof bytes);
}
