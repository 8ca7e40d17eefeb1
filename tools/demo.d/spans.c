/* SPDX-License-Identifier: MIT */
#include "tools/demo.d/spans.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ipc/cleanup.h"

#define DEPTH_MAX 32u
#define LONG_WAIT_NS UINT64_C(10000000)

struct open_span {
	char name[SPANS_NAME_MAX]; /* copied: one that an event brings itself goes with the event */
	char args[SPANS_TEXT_MAX];
	char inner[SPANS_NAME_MAX]; /* longest inner span so far; empty: none */
	uint64_t inner_ns;
};

struct lane {
	struct open_span open[DEPTH_MAX + 1]; /* by depth; 1 is the outermost */
};

struct gathering {
	struct spans *spans;
	const struct dc_clock *clock;
	int64_t trigger_ns;
	struct lane *lanes[DC_LANE_MAX];
};

DC_DEFINE_CLEANUP(spans, struct spans *, spans_free)
DC_DEFINE_CLEANUP(cursor, struct dc_cursor *, dc_cursor_close)

static void gathering_cleanup(struct gathering *g)
{
	for (unsigned i = 0; i < DC_LANE_MAX; i++)
		free(g->lanes[i]);
}

/* --- statistics --- */

static unsigned bin_of(uint64_t ns)
{
	if (ns < 8)
		return (unsigned)ns;
	unsigned doubling = 63u - (unsigned)__builtin_clzll(ns);
	unsigned bin = (doubling - 2) * 8 + (unsigned)(ns >> (doubling - 3) & 7);
	return bin < SPANS_BINS ? bin : SPANS_BINS - 1;
}

static uint64_t bin_ns(unsigned bin)
{
	return bin < 8 ? bin : (UINT64_C(8) + bin % 8) << (bin / 8 - 1);
}

uint64_t span_percentile_ns(const struct span_name *n, double percent)
{
	uint64_t wanted = (uint64_t)((double)n->count * percent / 100.0), seen = 0;
	unsigned bin = 0;

	for (; bin < SPANS_BINS - 1; bin++) {
		seen += n->bins[bin];
		if (seen > wanted)
			break;
	}
	return bin_ns(bin);
}

/* What a name or an argument says is anybody's: no control character of it reaches a terminal. */
static void make_plain(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '.';
}

/* Of an event, cut and plain: so are all that are kept, and compared. */
static void copy_name(char to[static SPANS_NAME_MAX], const char *name)
{
	size_t n = strnlen(name, SPANS_NAME_MAX - 1);
	memcpy(to, name, n);
	to[n] = '\0';
	make_plain(to);
}

/* NULL: there are more names than this program has use for. */
static struct span_name *name_of(struct spans *s, const char name[static SPANS_NAME_MAX])
{
	for (unsigned i = 0; i < s->name_count; i++) {
		if (!strcmp(s->names[i].name, name))
			return &s->names[i];
	}
	if (s->name_count == SPANS_NAMES_MAX)
		return NULL;
	strcpy(s->names[s->name_count].name, name);
	return &s->names[s->name_count++];
}

static void count(struct spans *s, const char name[static SPANS_NAME_MAX], const struct span_note *note)
{
	struct span_name *n = name_of(s, name);
	if (!n)
		return;
	n->count++;
	n->bins[bin_of(note->duration_ns)]++;
	if (note->duration_ns > n->slowest.duration_ns)
		n->slowest = *note;
}

static void count_second(struct gathering *g, int64_t t_ns, uint64_t duration_ns)
{
	int64_t before = g->trigger_ns - t_ns;
	if (before >= SPANS_SECONDS * INT64_C(1000000000))
		return;
	struct span_second *second = before < 0 ? &g->spans->after : &g->spans->seconds[before / 1000000000];
	second->count++;
	if (duration_ns > second->slowest_ns)
		second->slowest_ns = duration_ns;
}

static void note_wait(struct spans *s, const struct span_note *note)
{
	if (note->duration_ns >= LONG_WAIT_NS && s->wait_count < SPANS_WAITS_MAX)
		s->waits[s->wait_count++] = *note;
}

static void note_hold(struct spans *s, const struct span_note *note, const struct lane *l, uint32_t depth)
{
	struct span_hold *h = &s->hold;
	if (note->duration_ns <= h->note.duration_ns)
		return;

	h->note = *note;
	strcpy(h->inner, l->open[depth].inner);
	h->inner_ns = l->open[depth].inner_ns;
	h->chain_count = 0;
	for (uint32_t d = 1; d < depth && h->chain_count < SPANS_CHAIN_MAX; d++) {
		const struct open_span *o = &l->open[d];
		snprintf(h->chain[h->chain_count++], SPANS_TEXT_MAX, "%.30s%s%.45s",
			 o->name[0] ? o->name : "?", o->args[0] ? " " : "", o->args);
	}
}

/* --- events --- */

static void format_args(const struct dc_event *e, char *text)
{
	size_t used = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < e->arg_count && used < SPANS_TEXT_MAX; i++) {
		const char *key = e->info->keys[i] ? e->info->keys[i] : "";
		char value[48];
		dc_value_format(e, i, value, sizeof(value));
		used += (size_t)snprintf(text + used, SPANS_TEXT_MAX - used, "%s%s%s%s", i ? " " : "", key,
					 *key ? "=" : "", value);
	}
	make_plain(text);
}

static void span_begins(struct lane *l, const struct dc_event *e)
{
	struct open_span *o = &l->open[e->depth];
	copy_name(o->name, e->info ? e->info->name : "");
	o->inner[0] = '\0';
	o->inner_ns = 0;
	format_args(e, o->args);
}

static void span_ends(struct gathering *g, struct lane *l, const struct dc_cursor_event *ce)
{
	const struct dc_event *e = &ce->event;
	if (!e->info || e->start_units == UINT64_MAX)
		return;

	struct span_note note = {.duration_ns = dc_clock_duration_ns(g->clock, e->units - e->start_units),
				 .lane = ce->lane,
				 .tid = e->tid};
	struct open_span *o = &l->open[e->depth];
	copy_name(o->name, e->info->name); /* the begin may be gone */
	memcpy(note.args, o->args, sizeof(note.args));
	count(g->spans, o->name, &note);

	struct open_span *outer = &l->open[e->depth - 1];
	if (note.duration_ns > outer->inner_ns) {
		strcpy(outer->inner, o->name);
		outer->inner_ns = note.duration_ns;
	}
	if (!strcmp(o->name, "http.request"))
		count_second(g, ce->t_ns, note.duration_ns);
	else if (!strcmp(o->name, "lock.wait"))
		note_wait(g->spans, &note);
	else if (!strcmp(o->name, "lock.hold"))
		note_hold(g->spans, &note, l, e->depth);
}

static int take_event(struct gathering *g, const struct dc_cursor_event *ce)
{
	const struct dc_event *e = &ce->event;
	bool begins = e->kind == DC_KIND_BEGIN || e->kind == DC_KIND_OPEN;
	if ((!begins && e->kind != DC_KIND_END) || !e->depth || e->depth > DEPTH_MAX ||
	    ce->lane >= DC_LANE_MAX)
		return 0;

	struct lane **l = &g->lanes[ce->lane];
	if (!*l && !(*l = calloc(1, sizeof(**l))))
		return -ENOMEM;
	if (begins)
		span_begins(*l, e);
	else
		span_ends(g, *l, ce);
	return 0;
}

int spans_gather(struct dc_capture *c, uint32_t pid, struct spans **ret_spans)
{
	CLEANUP(spans) struct spans *s = calloc(1, sizeof(*s));
	CLEANUP(gathering)
	struct gathering g = {.spans = s,
			      .clock = dc_capture_clock(c),
			      .trigger_ns = dc_capture_incident(c)->at_realtime_ns};
	CLEANUP(cursor) struct dc_cursor *cursor = NULL;
	if (!s)
		return -ENOMEM;

	int r = dc_cursor_open(c, &(struct dc_cut){.pid = pid}, &cursor);
	for (struct dc_cursor_event e; r >= 0 && (r = dc_cursor_next(cursor, &e)) > 0;)
		r = take_event(&g, &e);
	if (r < 0)
		return r;
	*ret_spans = TAKE(s);
	return 0;
}

void spans_free(struct spans *s)
{
	free(s);
}
