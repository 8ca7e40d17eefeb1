/* SPDX-License-Identifier: MIT */
/* dashcam info: what a capture is about, as text and as JSON. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "persist/unit.h"
#include "tools/advice.h"
#include "tools/cause.h"
#include "tools/commands.h"
#include "tools/info_stacks.h"
#include "tools/json.h"
#include "tools/lanes.h"
#include "tools/open.h"
#include "tools/text.h"
#include "tools/trace.h"
#include "tools/words.h"
#include "trigger/rings.h"

#define SECOND 1e9
#define INDENT "                 "

struct info_options {
	bool json;
};

static const struct option info_option_table[] = {
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct info_options, json),
	 .help = "print JSON"},
	{0},
};

/* Why less than the window is there. */
enum limit {
	LIMIT_NONE,
	LIMIT_START,  /* it began to record inside the window: nothing is missing */
	LIMIT_WINDOW, /* it was told to keep less, and reused what was older */
	LIMIT_TMPFS,  /* its ring could not grow to its cap */
	LIMIT_CAP,    /* its ring had grown to its cap */
};

/* One process, counted. */
struct part {
	const struct dc_process *process;
	const struct dc_ring_header *ring;
	struct dc_capture_totals totals;
	int64_t covered_ns; /* how far before the window's right edge everything is there */
	int64_t lived_ns;   /* of the window, so long did it record */
	enum limit limit;
};

struct info {
	struct dc_capture *capture;
	const char *path;
	const struct dc_incident *incident;
	unsigned count;
	struct part *parts;
	uint64_t events, overwritten, dropped, discarded;
	int64_t from_ns, to_ns; /* the window as the capture states it */
	int64_t covered_ns;     /* the longest of the parts */
};

static int64_t ns_of(const struct info *i, uint64_t units)
{
	return dc_clock_realtime_ns(dc_capture_clock(i->capture), units);
}

static enum limit limit_of(const struct info *i, const struct part *p, bool late)
{
	const struct dc_ring_header *ring = p->ring;

	if (p->totals.overwritten == 0)
		return late ? LIMIT_START : LIMIT_NONE;
	if (!ring || ring->chunks_grown >= ring->chunk_cap)
		return LIMIT_CAP;
	if (ring->grow_failed)
		return LIMIT_TMPFS;
	return ring->window_ns && (int64_t)ring->window_ns < i->incident->asked_last_ns ? LIMIT_WINDOW : LIMIT_CAP;
}

/*
 * Where a process's evidence begins: at the left edge when nothing before its first event was lost, else at
 * that event; later still when it had only just begun to record.
 */
static void cover(const struct info *i, struct part *p)
{
	const uint64_t started = p->ring ? p->ring->started_tick >> p->ring->tick_shift : 0;
	const bool late = started > i->incident->from_units && started <= i->incident->to_units;
	const uint64_t edge = late ? started : i->incident->from_units;
	uint64_t from = edge;

	if (p->totals.overwritten > 0 && p->totals.first_units <= p->totals.last_units &&
	    p->totals.first_units > from)
		from = p->totals.first_units;
	p->covered_ns = i->to_ns - ns_of(i, from);
	p->lived_ns = i->to_ns - ns_of(i, edge);
	p->limit = limit_of(i, p, late);
}

static int part_count(struct info *i, unsigned at)
{
	struct part *p = &i->parts[at];
	int r;

	p->process = dc_capture_process(i->capture, at);
	p->ring = dc_capture_ring(i->capture, at);
	r = dc_capture_totals(i->capture, at, &p->totals);
	if (r < 0)
		return r;
	cover(i, p);
	i->events += p->totals.events;
	i->overwritten += p->totals.overwritten;
	i->dropped += p->totals.dropped;
	i->discarded += p->totals.discarded;
	if (p->covered_ns > i->covered_ns)
		i->covered_ns = p->covered_ns;
	return 0;
}

static int info_count(struct info *i)
{
	int r = 0;

	i->incident = dc_capture_incident(i->capture);
	i->from_ns = ns_of(i, i->incident->from_units);
	i->to_ns = ns_of(i, i->incident->to_units);
	for (unsigned p = 0; p < i->count && r >= 0; p++)
		r = part_count(i, p);
	return r;
}

static double bytes_per_event(const struct info *i)
{
	return i->events > 0 ? (double)dc_capture_bytes(i->capture) / (double)i->events : 0;
}

static void json_lost(struct json *j, uint64_t overwritten, uint64_t dropped, uint64_t discarded)
{
	json_object(j, "lost");
	json_u64(j, "overwritten", overwritten);
	json_u64(j, "dropped", dropped);
	json_u64(j, "discarded", discarded);
	json_end(j);
}

static const char *word_limit(enum limit limit)
{
	static const char *const words[] = {[LIMIT_START] = "start",
					    [LIMIT_WINDOW] = "window",
					    [LIMIT_TMPFS] = "tmpfs",
					    [LIMIT_CAP] = "memory_cap"};

	return words[limit];
}

static int json_process(struct json *j, const struct info *i, unsigned number)
{
	const struct part *p = &i->parts[number];
	const struct dc_process *process = p->process;
	int r;

	json_object(j, NULL);
	json_u64(j, "pid", process_pid(process));
	json_text(j, "name", process->name);
	json_u64(j, "lanes", p->totals.lanes);
	json_u64(j, "events", p->totals.events);
	json_fixed(j, "window_s", (double)p->covered_ns / SECOND, 6);
	if (p->limit != LIMIT_NONE)
		json_text(j, "limited_by", word_limit(p->limit));
	json_u64(j, "ns_pid", process->ns_pid);
	json_u64(j, "uid", process->uid);
	json_bool(j, "verified", process->verified);
	json_bool(j, "alive", process->alive);
	if (process->exit_known) {
		json_i64(j, "exit_code", process->exit_code);
		json_u64(j, "exit_signal", process->exit_signal);
	}
	json_text(j, "exe", process->exe);
	json_text(j, "cmdline", process->cmdline);
	json_text(j, "ring", process->ring);
	json_u64(j, "memory_bytes", process->memory_bytes);
	json_u64(j, "cap_bytes", process->cap_bytes);
	json_u64(j, "ring_bytes", p->totals.raw_bytes);
	json_i64(j, "took_ns", process->took_ns);
	json_lost(j, p->totals.overwritten, p->totals.dropped, p->totals.discarded);
	r = info_stacks_json(i->capture, number, j);
	json_end(j);
	return r;
}

static void json_faults(struct json *j, const struct dc_capture *c)
{
	const struct dc_fault *faults;
	unsigned count = dc_capture_faults(c, &faults);

	json_array(j, "faults");
	for (unsigned i = 0; i < count; i++)
		json_text(j, NULL, faults[i].text);
	json_end(j);
}

static void json_incident(struct json *j, const struct info *i)
{
	const struct dc_incident *in = i->incident;

	json_text(j, "file", i->path);
	json_text(j, "reason", *in->text ? in->text : word_cause(in->reason));
	json_text(j, "cause", word_cause(in->reason));
	json_text(j, "time", text_rfc3339(in->at_realtime_ns).s);
	json_i64(j, "time_ns", in->at_realtime_ns);
	json_fixed(j, "window_s", (double)i->covered_ns / SECOND, 6);
	json_i64(j, "from_ns", i->from_ns);
	json_i64(j, "to_ns", i->to_ns);
	json_i64(j, "asked_last_ns", in->asked_last_ns);
	json_i64(j, "asked_after_ns", in->asked_after_ns);
	json_text(j, "rule", in->rule);
	json_u64(j, "severity", in->severity);
	json_u64(j, "coalesced", in->coalesced);
	json_u64(j, "suppressed", in->suppressed);
	json_u64(j, "trigger_pid", in->trigger_pid);
	json_u64(j, "trigger_tid", in->trigger_tid);
	json_u64(j, "signal", in->signal);
	json_cause(j, &in->cause);
	json_text(j, "host", in->host);
	json_text(j, "kernel", in->kernel);
	json_text(j, "clock", word_clock(in->clock));
}

static int info_json(const struct info *i)
{
	struct json j;
	int r = 0;

	json_init(&j, stdout, true);
	json_object(&j, NULL);
	json_incident(&j, i);
	json_array(&j, "processes");
	for (unsigned p = 0; p < i->count && r == 0; p++)
		r = json_process(&j, i, p);
	json_end(&j);
	json_u64(&j, "events", i->events);
	json_u64(&j, "bytes", dc_capture_bytes(i->capture));
	json_fixed(&j, "bytes_per_event", bytes_per_event(i), 3);
	json_lost(&j, i->overwritten, i->dropped, i->discarded);
	json_bool(&j, "settled", dc_capture_settled(i->capture));
	json_bool(&j, "complete", dc_capture_complete(i->capture));
	json_faults(&j, i->capture);
	json_end(&j);
	return r;
}

static void print(const char *text)
{
	text_print(stdout, text, strlen(text));
}

static const struct dc_process *find(const struct info *i, uint32_t pid)
{
	for (unsigned p = 0; p < i->count; p++)
		if (process_pid(i->parts[p].process) == pid)
			return i->parts[p].process;
	return NULL;
}

/* Who fired: one of the recorded, or whoever typed the command. */
static void who(const struct info *i)
{
	const struct dc_incident *in = i->incident;
	const struct dc_process *process = find(i, in->trigger_pid);

	if (in->trigger_pid && process) {
		fputs(": ", stdout);
		print(process->name);
		printf("[%u]", in->trigger_pid);
		if (in->trigger_tid)
			printf(", thread %u", in->trigger_tid);
	} else if (in->trigger_pid) {
		printf(" (process %u)", in->trigger_pid);
	}
}

static void cause(const struct dc_incident *in)
{
	const struct dc_cause *c = &in->cause;
	char id[33];

	if (*c->sentence) {
		fputs(INDENT, stdout);
		print(c->sentence);
		if (c->unit != DC_UNIT_NONE)
			printf("; it was %s", dc_cause_value(c).s);
		putchar('\n');
	}
	if (trace_text(c->trace_id, id))
		printf(INDENT "trace %s ('dashcam show --trace' follows it)\n", id);
}

static void why(const struct info *i)
{
	const struct dc_incident *in = i->incident;
	char because[96];

	print(*in->text ? in->text : word_cause(in->reason));
	fputs("\n\n  saved because  ", stdout);
	words_because(in, because);
	fputs(because, stdout);
	who(i);
	if (*in->rule) {
		fputs(", rule ", stdout);
		print(in->rule);
	}
	putchar('\n');
	cause(in);
	if (in->coalesced)
		printf("                 %u further triggers belong to the same incident\n", in->coalesced);
	if (in->suppressed)
		printf("                 %u triggers before it were not saved (budgets)\n", in->suppressed);
}

static const struct part *most_limited(const struct info *i)
{
	const struct part *most = &i->parts[0];

	for (unsigned p = 1; p < i->count; p++)
		if (i->parts[p].limit > most->limit)
			most = &i->parts[p];
	return most;
}

/* A capture may have been carried here: of another host only the bound that holds everywhere is known. */
static uint64_t most_here(const struct info *i)
{
	char dir[DC_RINGS_PATH_BYTES], host[sizeof(i->incident->host)] = "";

	gethostname(host, sizeof(host) - 1);
	return cap_most(strcmp(host, i->incident->host) == 0 && dc_rings_dir(dir) == 0 ? dir : NULL);
}

static void limited_by_cap(const struct info *i, const struct part *p)
{
	const int64_t asked = i->incident->asked_last_ns + (i->to_ns - i->incident->at_realtime_ns);
	const int64_t wanted = i->incident->asked_last_ns && asked < p->lived_ns ? asked : p->lived_ns;

	fputs(" the memory cap of ", stdout);
	print(p->process->name);
	printf(", %s", text_bytes(p->process->cap_bytes).s);
	if (wanted > p->covered_ns && p->process->cap_bytes) {
		fputs(":\n" INDENT, stdout);
		cap_advice(stdout, cap_needed(p->process->cap_bytes, p->covered_ns, wanted), most_here(i), wanted);
	}
}

static void limit(const struct info *i)
{
	const struct part *p = most_limited(i);

	if (p->limit == LIMIT_NONE || (p->limit == LIMIT_START && i->count > 1))
		return;
	fputs(INDENT "limited by", stdout);
	switch (p->limit) {
	case LIMIT_START:
		fputs(" its start: it had only just begun to record", stdout);
		break;
	case LIMIT_WINDOW:
		printf(" what it was told to keep, %s (DASHCAM_WINDOW): ", text_span((int64_t)p->ring->window_ns).s);
		print(p->process->name);
		break;
	case LIMIT_TMPFS:
		fputs(" its tmpfs, which was full ('dashcam doctor' says more): ", stdout);
		print(p->process->name);
		break;
	default:
		limited_by_cap(i, p);
	}
	putchar('\n');
}

static void window(const struct info *i)
{
	const struct dc_incident *in = i->incident;
	int64_t before = i->covered_ns - (i->to_ns - in->at_realtime_ns);

	printf("  window         %s before the trigger", text_span(before > 0 ? before : 0).s);
	if (i->to_ns - in->at_realtime_ns > 1000000)
		printf(" and %s after it", text_span(i->to_ns - in->at_realtime_ns).s);
	if (in->asked_last_ns)
		printf(" (asked for: %s)", text_span(in->asked_last_ns).s);
	putchar('\n');
	if (i->count)
		limit(i);
}

static void when(const struct info *i)
{
	const struct dc_incident *in = i->incident;

	printf("  when           %s on ", text_when(in->at_realtime_ns).s);
	print(*in->host ? in->host : "an unknown host");
	putchar('\n');
}

static void file(const struct info *i)
{
	printf("  file           %s, %s, %s events", dc_capture_settled(i->capture) ? "settled" : "raw",
	       text_bytes(dc_capture_bytes(i->capture)).s, text_count(i->events).s);
	if (i->events > 0)
		printf(", %.2f bytes each", bytes_per_event(i));
	putchar('\n');
}

static void fate(const struct dc_process *p, struct text *ret_fate)
{
	char signal[32];

	if (p->alive && !p->exit_known)
		*ret_fate = text_format("alive");
	else if (p->exit_known && p->exit_signal)
		*ret_fate = text_format("died by %s", word_signal(p->exit_signal, signal));
	else if (p->exit_known)
		*ret_fate = text_format("exit %d", p->exit_code);
	else
		*ret_fate = text_format("gone");
}

static int processes(const struct info *i)
{
	struct table t;
	struct text state;

	table_init(&t, "PROCESS|PID>|THREADS>|EVENTS>|WINDOW>|MEMORY>|STATE|");
	for (unsigned p = 0; p < i->count; p++) {
		const struct part *part = &i->parts[p];

		fate(part->process, &state);
		table_cell(&t, "%s", part->process->name);
		table_cell(&t, "%u", process_pid(part->process));
		table_cell(&t, "%" PRIu64, part->totals.lanes);
		table_cell(&t, "%s", text_count(part->totals.events).s);
		table_cell(&t, "%s", text_span(part->covered_ns).s);
		table_cell(&t, "%s", text_bytes(part->process->memory_bytes).s);
		table_cell(&t, "%s%s", state.s,
			   part->process->verified || !part->process->alive ? "" : ", not verified");
	}
	putchar('\n');
	return table_print(&t, stdout);
}

static void losses(const struct info *i)
{
	const struct dc_fault *faults;

	if (dc_capture_faults(i->capture, &faults) > 0)
		puts("\nThe file is damaged: events are missing that nobody can count.");
	else if (i->overwritten + i->dropped + i->discarded == 0)
		puts("\nNothing was lost.");
	if (i->overwritten + i->dropped + i->discarded == 0)
		return;
	fputs("\nLost:\n", stdout);
	if (i->overwritten)
		printf("  %s events of the window were overwritten before the trigger\n", text_count(i->overwritten).s);
	if (i->dropped)
		printf("  %s events found no room and were dropped, since the programs started\n",
		       text_count(i->dropped).s);
	if (i->discarded)
		printf("  %s chunks were overwritten while they were being copied\n",
		       text_count(i->discarded).s);
}

static int info_text(const struct info *i)
{
	char path[4300];
	int r;

	why(i);
	when(i);
	window(i);
	file(i);
	r = processes(i);
	for (unsigned p = 0; p < i->count && r == 0; p++)
		r = info_stacks_text(i->capture, p);
	if (r < 0)
		return r;
	losses(i);
	text_word(i->path, path, sizeof(path));
	fputs("\nNext:\n  dashcam show ", stdout);
	print(path);
	fputs(" --from -5s\n  dashcam export ", stdout);
	print(path);
	fputs(" -f chrome -o trace.json      # open it in ui.perfetto.dev\n", stdout);
	return 0;
}

static int info_run(const void *options, const struct operands *operands)
{
	const struct info_options *o = options;
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	CLEANUP(free) struct part *parts = NULL;
	struct info i = {.path = operands->items[0]};
	int r;

	r = capture_open(i.path, &c);
	if (r != EXIT_OK)
		return r;
	i.capture = c;
	i.count = dc_capture_process_count(c);
	i.parts = parts = calloc(i.count + 1, sizeof(*parts));
	if (!parts)
		return failure("out of memory");
	r = info_count(&i);
	if (r == 0 && o->json)
		r = info_json(&i);
	else if (r == 0)
		r = info_text(&i);
	return capture_status(c, i.path, r);
}

const struct command cmd_info = {
	.name = "info",
	.summary = "say what a capture is about: why, when, who, how much, what is missing",
	.usage = "FILE",
	.about = "Says why and when a capture was saved, how far back it really goes and what limited it, "
		 "which processes "
		 "it holds, what was lost, and what to type next.\n\n"
		 "window_s of the JSON output is the time really covered, before and after the trigger; lost "
		 "counts events "
		 "(overwritten, dropped) and chunks (discarded).",
	.exit_status = "0 when all went well, 1 when it failed, 2 when the capture is damaged (what is whole "
		       "is described), "
		       "64 when the arguments were wrong.",
	.examples = "dashcam info --json FILE | jq .lost\twhat is missing, for scripts\n",
	.see_also = "export ls show",
	.options = info_option_table,
	.options_size = sizeof(struct info_options),
	.operand = OPERAND_CAPTURE,
	.operands_min = 1,
	.operands_max = 1,
	.run = info_run,
};
