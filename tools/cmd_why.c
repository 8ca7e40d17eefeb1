/* SPDX-License-Identifier: MIT */
/* dashcam why: why a capture was saved, in five lines. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "persist/unit.h"
#include "tools/calls.h"
#include "tools/cause.h"
#include "tools/commands.h"
#include "tools/instant.h"
#include "tools/json.h"
#include "tools/lanes.h"
#include "tools/open.h"
#include "tools/samples.h"
#include "tools/text.h"
#include "tools/trace.h"
#include "tools/words.h"

#define CALLS_SHOWN 5u
#define NEIGHBOURS_SHOWN 3u

struct why_options {
	bool json;
};

static const struct option why_option_table[] = {
	{.name = "json", .type = OPTION_FLAG, .at = offsetof(struct why_options, json), .help = "print JSON"},
	{0},
};

struct why {
	struct dc_capture *capture;
	const char *path;
	const struct dc_incident *incident;
	unsigned process; /* who it is about */
	const struct dc_process *of;
	uint32_t tid; /* 0: none in particular */
	struct instant instant;
	const struct instant_thread *thread; /* NULL: it recorded nothing */
	struct dc_stacks *stacks;
	struct samples samples;
	uint32_t stack; /* 0: not there */
	uint64_t overwritten, dropped, discarded;
	bool damaged; /* what is not there may have been in what is lost of the file */
};

static void why_fini(struct why *w)
{
	instant_fini(&w->instant);
	samples_fini(&w->samples);
	dc_stacks_close(w->stacks);
}

/* The process that fired, else the first: captures of one process have no other. */
static void find_process(struct why *w)
{
	for (unsigned i = 0; i < dc_capture_process_count(w->capture); i++)
		if (process_pid(dc_capture_process(w->capture, i)) == w->incident->trigger_pid) {
			w->process = i;
			break;
		}
	w->of = dc_capture_process(w->capture, w->process);
}

static uint32_t busiest(const struct samples *s)
{
	const struct thread_tally *best = NULL;

	for (uint32_t i = 0; i < s->thread_count; i++) {
		const struct thread_tally *t = &s->threads[i];

		if (t->crashed)
			return t->tid;
		if (t->cpu_ns && (!best || t->cpu_ns > best->cpu_ns))
			best = t;
	}
	return best ? best->tid : 0;
}

static uint32_t longest_open(const struct why *w)
{
	for (uint32_t i = 0; i < w->instant.count; i++)
		if (w->instant.threads[i].process == w->process)
			return w->instant.threads[i].tid;
	return 0;
}

/* Whoever fired, else who crashed, else who used most CPU time, else who has had a span open for longest. */
static void find_thread(struct why *w)
{
	w->tid = w->incident->trigger_tid;
	if (!w->tid)
		w->tid = busiest(&w->samples);
	if (!w->tid)
		w->tid = longest_open(w);
	if (w->tid)
		w->thread = instant_thread(&w->instant, w->process, w->tid);
}

static void find_stack(struct why *w)
{
	const struct thread_tally *t = samples_thread(&w->samples, w->tid);

	if (t)
		w->stack = t->crash_stack ? t->crash_stack : t->stack;
}

static int count_losses(struct why *w)
{
	struct dc_capture_totals totals;
	int r = 0;

	for (unsigned i = 0; i < dc_capture_process_count(w->capture) && r == 0; i++) {
		r = dc_capture_totals(w->capture, i, &totals);
		if (r < 0)
			break;
		w->overwritten += totals.overwritten;
		w->dropped += totals.dropped;
		w->discarded += totals.discarded;
	}
	return r;
}

static int why_find(struct why *w)
{
	const struct dc_cut all = {.everything = true};
	const struct dc_fault *faults;
	int r;

	w->incident = dc_capture_incident(w->capture);
	w->damaged = dc_capture_faults(w->capture, &faults) > 0 || !dc_capture_complete(w->capture);
	if (dc_capture_process_count(w->capture) == 0)
		return -ENODATA;
	find_process(w);
	r = dc_stacks_open(w->capture, w->process, &w->stacks);
	if (r == 0)
		r = samples_count(w->capture, w->stacks, w->process, &all, &w->samples);
	if (r == 0)
		r = instant_find(w->capture, &w->instant);
	if (r == 0)
		r = count_losses(w);
	if (r < 0)
		return r;
	instant_sort(&w->instant);
	find_thread(w);
	find_stack(w);
	return 0;
}

static void print(const char *text)
{
	text_print(stdout, text, strlen(text));
}

/* --- five lines --- */

static void which_rule(const struct why *w)
{
	const struct dc_incident *in = w->incident;
	char because[96];

	words_because(in, because);
	if (*in->cause.sentence) {
		printf("rule '");
		print(in->rule);
		printf("': ");
		print(in->cause.sentence);
	} else {
		print(because);
		if (*in->text) {
			printf(": '");
			print(in->text);
			putchar('\'');
		}
	}
	putchar('\n');
}

static void which_value(const struct why *w)
{
	const struct dc_cause *c = &w->incident->cause;

	if (c->unit != DC_UNIT_NONE) {
		if (*c->name) {
			print(c->name);
			fputs(": ", stdout);
		}
		printf("%s, ", dc_cause_text(c).s);
	}
	printf("at %s in ", text_when(w->incident->at_realtime_ns).s);
	print(w->of->name);
	printf("[%u] on ", process_pid(w->of));
	print(*w->incident->host ? w->incident->host : "an unknown host");
	putchar('\n');
}

static const char *thread_name(const struct why *w)
{
	const struct thread_tally *t = samples_thread(&w->samples, w->tid);

	if (w->thread && w->thread->name[0])
		return w->thread->name;
	if (t && t->name[0])
		return t->name;
	return w->incident->cause.thread[0] ? w->incident->cause.thread : "thread";
}

static void spans(const struct instant_thread *t)
{
	for (uint32_t i = 0; i < t->depth && i < INSTANT_SPANS_MAX; i++) {
		if (i)
			fputs(" > ", stdout);
		print(t->spans[i].name);
		if (t->spans[i].open_ns >= 0)
			printf(" (%s)", text_span(t->spans[i].open_ns).s);
	}
}

static void which_thread(const struct why *w)
{
	if (!w->tid) {
		puts("no thread of it recorded or was sampled");
		return;
	}
	print(thread_name(w));
	printf("/%u ", w->tid);
	if (w->thread && w->thread->depth) {
		fputs("was in ", stdout);
		spans(w->thread);
	} else {
		fputs(w->damaged ? "had no span open as far as is known" : "had no span open", stdout);
	}
	if (w->stack) {
		fputs("; its stack: ", stdout);
		calls_line(stdout, w->stacks, w->stack, CALLS_SHOWN);
	}
	putchar('\n');
}

static bool is_neighbour(const struct why *w, const struct instant_thread *t)
{
	return t->depth && t != w->thread;
}

static unsigned neighbours(const struct why *w)
{
	unsigned shown = 0, more = 0;

	for (uint32_t i = 0; i < w->instant.count; i++) {
		const struct instant_thread *t = &w->instant.threads[i];

		if (!is_neighbour(w, t))
			continue;
		if (shown == NEIGHBOURS_SHOWN) {
			more++;
			continue;
		}
		fputs(shown++ ? ", " : "meanwhile ", stdout);
		print(t->name[0] ? t->name : "thread");
		printf("/%u in ", t->tid);
		print(t->spans[0].name);
		if (t->spans[0].open_ns >= 0)
			printf(" for %s", text_span(t->spans[0].open_ns).s);
	}
	if (more)
		printf(" and %u more", more);
	return shown;
}

static void wait_of(const char *name, uint64_t count, uint64_t oldest_ns, bool first, unsigned *shown)
{
	if (count == 0)
		return;
	printf("%s%" PRIu64 " %s ", first && !*shown ? "meanwhile " : *shown ? ", " : "; ", count, *shown ? "of" : "waiting of");
	print(name);
	if (oldest_ns)
		printf(" for up to %s", text_span((int64_t)oldest_ns).s);
	++*shown;
}

/* As the watcher saw it; where no rule asked for the capture, as its events say. */
static unsigned waiting(const struct why *w, bool first)
{
	const struct dc_cause *c = &w->incident->cause;
	unsigned shown = 0;

	for (uint32_t i = 0; i < c->waiting_count; i++)
		wait_of(c->waiting[i].name, c->waiting[i].count, c->waiting[i].open_ns, first, &shown);
	for (uint32_t i = 0; i < w->instant.waiting_count && !c->waiting_count; i++)
		wait_of(w->instant.waiting[i].name, (uint64_t)w->instant.waiting[i].count, 0, first, &shown);
	return shown;
}

static void meanwhile(const struct why *w)
{
	unsigned shown = neighbours(w);

	shown += waiting(w, shown == 0);
	if (!shown)
		printf("no other thread %s a span open", w->damaged ? "is known to have had" : "had");
	if (w->incident->coalesced)
		printf("; %u further triggers within it", w->incident->coalesced);
	if (w->incident->suppressed)
		printf("; %u firings before it were not saved (budget)", w->incident->suppressed);
	if (w->incident->cause.sample_hz)
		printf("; from then on %u stacks a second for %s", w->incident->cause.sample_hz,
		       text_span(w->incident->cause.sample_for_ns).s);
	else if (w->of->raised_hz)
		printf("; %u stacks a second since %s", w->of->raised_hz, text_when(w->of->raised_from_ns).s);
	if (w->overwritten + w->dropped + w->discarded)
		printf("; lost: %s events%s", text_count(w->overwritten + w->dropped).s, w->discarded ? " and some chunks" : "");
	else if (!w->damaged)
		fputs("; nothing was lost", stdout);
	puts(w->damaged ? "; the file is damaged, there was more" : "");
}

/* What shows more of just this. */
static void next_command(const struct why *w, char *text, size_t size)
{
	const int64_t longest = w->thread && w->thread->depth ? w->thread->spans[0].open_ns : 0;
	const uint8_t *trace = w->incident->cause.trace_id;
	char id[33], path[4300];

	text_word(w->path, path, sizeof(path));
	if (!trace_text(trace, id) && w->thread)
		trace = w->thread->trace_id;
	if (w->incident->reason == DC_REASON_DEATH)
		snprintf(text, size, "dashcam info %s", path);
	else if (trace_text(trace, id))
		snprintf(text, size, "dashcam show %s --trace %.16s", path, id);
	else if (!w->thread && w->samples.cpu_samples)
		snprintf(text, size, "dashcam report %s hot-functions", path);
	else if (!w->thread)
		snprintf(text, size, "dashcam report %s threads", path);
	else
		snprintf(text, size, "dashcam show %s --tid %u --from -%.3gs", path, w->tid,
			 longest > 0 ? (double)longest / 1e9 * 1.1 + 0.1 : 5.0);
}

static void why_text(const struct why *w)
{
	char next[4600];

	which_rule(w);
	which_value(w);
	which_thread(w);
	meanwhile(w);
	next_command(w, next, sizeof(next));
	fputs("next, type: ", stdout);
	print(next);
	putchar('\n');
}

/* --- JSON --- */

static void json_spans(struct json *j, const struct instant_thread *t)
{
	json_array(j, "open");
	for (uint32_t i = 0; t && i < t->depth && i < INSTANT_SPANS_MAX; i++) {
		json_object(j, NULL);
		json_text(j, "name", t->spans[i].name);
		if (t->spans[i].open_ns >= 0)
			json_i64(j, "open_ns", t->spans[i].open_ns);
		json_end(j);
	}
	json_end(j);
}

static void json_thread(struct json *j, const struct why *w)
{
	if (!w->tid)
		return;
	json_object(j, "at");
	json_u64(j, "tid", w->tid);
	json_text(j, "thread", thread_name(w));
	json_spans(j, w->thread);
	if (w->stack)
		calls_json(j, "frames", w->stacks, w->stack);
	json_end(j);
}

static void json_meanwhile(struct json *j, const struct why *w)
{
	json_array(j, "meanwhile");
	for (uint32_t i = 0; i < w->instant.count; i++) {
		const struct instant_thread *t = &w->instant.threads[i];

		if (!is_neighbour(w, t))
			continue;
		json_object(j, NULL);
		json_u64(j, "pid", process_pid(dc_capture_process(w->capture, t->process)));
		json_u64(j, "tid", t->tid);
		json_text(j, "thread", t->name);
		json_spans(j, t);
		json_end(j);
	}
	json_end(j);
	json_object(j, "waiting");
	for (uint32_t i = 0; i < w->incident->cause.waiting_count; i++)
		json_u64(j, w->incident->cause.waiting[i].name, w->incident->cause.waiting[i].count);
	for (uint32_t i = 0; i < w->instant.waiting_count && !w->incident->cause.waiting_count; i++)
		json_i64(j, w->instant.waiting[i].name, w->instant.waiting[i].count);
	json_end(j);
}

static void why_json(const struct why *w)
{
	const struct dc_incident *in = w->incident;
	char because[96], next[4600];
	struct json j;

	words_because(in, because);
	next_command(w, next, sizeof(next));
	json_init(&j, stdout, true);
	json_object(&j, NULL);
	json_text(&j, "file", w->path);
	json_text(&j, "cause", word_cause(in->reason));
	json_text(&j, "because", because);
	json_text(&j, "reason", in->text);
	json_text(&j, "rule", in->rule);
	json_cause(&j, &in->cause);
	json_text(&j, "time", text_rfc3339(in->at_realtime_ns).s);
	json_text(&j, "process", w->of->name);
	json_u64(&j, "pid", process_pid(w->of));
	json_thread(&j, w);
	json_meanwhile(&j, w);
	json_u64(&j, "coalesced", in->coalesced);
	json_u64(&j, "suppressed", in->suppressed);
	json_u64(&j, "overwritten", w->overwritten);
	json_u64(&j, "dropped", w->dropped);
	json_u64(&j, "discarded", w->discarded);
	json_text(&j, "next", next);
	json_end(&j);
}

static int why_run(const void *options, const struct operands *operands)
{
	const struct why_options *o = options;
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	struct why w = {.path = operands->items[0]};
	int r;

	r = capture_open(w.path, &c);
	if (r != EXIT_OK)
		return r;
	w.capture = c;
	r = why_find(&w);
	if (r == 0 && o->json)
		why_json(&w);
	else if (r == 0)
		why_text(&w);
	why_fini(&w);
	return r == -ENODATA ? failure("'%s': it names no process", w.path) : capture_status(c, w.path, r);
}

const struct command cmd_why = {
	.name = "why",
	.summary = "tell in five lines why a capture was saved",
	.usage = "FILE",
	.about = "Tells why a capture was saved: which rule, in a sentence; the value against the threshold, and when; which "
		 "thread, the spans it was in and the top of its stack; what else was going on, what the budgets held back, what "
		 "was lost; and the command that shows more of it. "
		 "Captures that no rule asked for are told in the same way.",
	.exit_status = "0 when all went well, 1 when it failed, 2 when the capture is damaged (what is whole is told), 64 when "
		       "the arguments were wrong.",
	.examples = "dashcam why --json FILE | jq '.value, .threshold'\tfor scripts\n",
	.see_also = "info ls report show",
	.options = why_option_table,
	.options_size = sizeof(struct why_options),
	.operand = OPERAND_CAPTURE,
	.operands_min = 1,
	.operands_max = 1,
	.run = why_run,
};
