/* SPDX-License-Identifier: MIT */
/* dashcam report: tables out of the samples of a capture. */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/grow.h"
#include "tools/calls.h"
#include "tools/commands.h"
#include "tools/cut.h"
#include "tools/json.h"
#include "tools/lanes.h"
#include "tools/open.h"
#include "tools/samples.h"
#include "tools/syscalls.h"
#include "tools/text.h"
#include "tools/words.h"

#define STACKS_SHOWN 8u /* of off-cpu */
#define FRAMES_SHOWN 12u
#define FUNCTION_SHOWN 80

struct report_options {
	uint64_t top;
	bool no_inlines;
	bool json;
	struct cut_options cut;
};

static const struct option report_option_table[] = {
	{.name = "top",
	 .letter = 'n',
	 .type = OPTION_COUNT,
	 .at = offsetof(struct report_options, top),
	 .value = "N",
	 .fallback = "30",
	 .help = "at most N rows",
	 .min = 1,
	 .max = 1000000},
	{.name = "no-inlines",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct report_options, no_inlines),
	 .help = "hot-functions: what was inlined counts for the function it is in"},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct report_options, json),
	 .help = "print JSON"},
	CUT_OPTION_ROWS(report_options),
	{0},
};

struct report {
	const struct report_options *o;
	struct dc_capture *c;
	struct dc_stacks *stacks;
	unsigned process;
	struct samples samples;
	struct json json;
};

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* --- hot-functions --- */

struct function {
	char *name;
	char *module;
	uint64_t self, total, self_samples;
	uint32_t last; /* tally in which it was counted last: recursion counts once */
};

struct functions {
	struct function *items;
	uint32_t count, room;
	const struct tally *tally;
	uint32_t number;
	bool innermost;
	bool no_inlines;
};

static int by_name(const void *left, const void *right)
{
	const struct function *a = left, *b = right;
	const int r = strcmp(a->name, b->name);

	return r ? r : strcmp(a->module, b->module);
}

/* Sorted by name; profiles have some thousand functions. */
static struct function *function_of(struct functions *f, const struct call *c)
{
	const struct function key = {.name = (char *)c->function, .module = (char *)c->module};
	uint32_t low = 0, high = f->count;

	while (low < high) {
		const uint32_t middle = (low + high) / 2;
		const int r = by_name(&f->items[middle], &key);

		if (r == 0)
			return &f->items[middle];
		if (r < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (GROW(f->items, f->count, f->room, 256) < 0)
		return NULL;
	memmove(&f->items[low + 1], &f->items[low], (f->count - low) * sizeof(*f->items));
	f->items[low] = (struct function){.name = strdup(c->function), .module = strdup(c->module)};
	f->count++;
	return f->items[low].name && f->items[low].module ? &f->items[low] : NULL;
}

static int add_call(void *arg, const struct call *c)
{
	struct functions *f = arg;
	struct function *function;

	if (c->inlined && f->no_inlines)
		return 0;
	function = function_of(f, c);
	if (!function)
		return -ENOMEM;
	if (f->innermost) {
		function->self += f->tally->cpu_ns;
		function->self_samples += f->tally->cpu_samples;
	}
	f->innermost = false;
	if (function->last != f->number)
		function->total += f->tally->cpu_ns;
	function->last = f->number;
	return 0;
}

static int add_functions(struct report *r, struct functions *f)
{
	int e = 0;

	for (uint32_t i = 0; i < r->samples.count && e == 0; i++) {
		f->tally = &r->samples.tallies[i];
		f->number = i + 1;
		f->innermost = true;
		if (f->tally->cpu_samples)
			e = calls_each(r->stacks, f->tally->stack, add_call, f);
	}
	return e;
}

static int by_self(const void *left, const void *right)
{
	const struct function *a = left, *b = right;

	if (a->self != b->self)
		return a->self > b->self ? -1 : 1;
	if (a->total != b->total)
		return a->total > b->total ? -1 : 1;
	return by_name(a, b);
}

static void functions_free(struct functions *f)
{
	for (uint32_t i = 0; i < f->count; i++) {
		free(f->items[i].name);
		free(f->items[i].module);
	}
	free(f->items);
}

static void function_json(struct json *j, const struct function *f, uint64_t whole)
{
	json_object(j, NULL);
	json_text(j, "function", f->name);
	json_text(j, "module", f->module);
	json_u64(j, "samples", f->self_samples);
	json_u64(j, "self_ns", f->self);
	json_u64(j, "total_ns", f->total);
	json_fixed(j, "self_percent", percent(f->self, whole), 2);
	json_fixed(j, "total_percent", percent(f->total, whole), 2);
	json_end(j);
}

/* A name a recorded program chose, for a table cell: no control characters, not too long. */
static void cell_text(struct table *t, const char *text)
{
	CLEANUP(free) char *safe = NULL;
	size_t size;
	FILE *f = open_memstream(&safe, &size);

	if (!f)
		return;
	text_print(f, text, strlen(text));
	fclose(f);
	table_cell(t, "%.*s%s", FUNCTION_SHOWN, safe, size > FUNCTION_SHOWN ? "..." : "");
}

static int functions_print(struct report *r, const struct functions *f)
{
	const uint64_t whole = r->samples.cpu_ns;
	struct table t;

	table_init(&t, "SELF>|TOTAL>|SAMPLES>|FUNCTION|MODULE|");
	for (uint32_t i = 0; i < f->count && i < r->o->top; i++) {
		if (r->o->json) {
			function_json(&r->json, &f->items[i], whole);
			continue;
		}
		table_cell(&t, "%.1f %%", percent(f->items[i].self, whole));
		table_cell(&t, "%.1f %%", percent(f->items[i].total, whole));
		table_cell(&t, "%s", text_count(f->items[i].self_samples).s);
		cell_text(&t, f->items[i].name);
		cell_text(&t, f->items[i].module);
	}
	return table_print(&t, r->o->json ? NULL : stdout);
}

static int hot_functions(struct report *r)
{
	struct functions f = {.no_inlines = r->o->no_inlines};
	int e = add_functions(r, &f);

	if (e == 0 && f.count)
		qsort(f.items, f.count, sizeof(*f.items), by_self);
	if (e == 0)
		e = functions_print(r, &f);
	functions_free(&f);
	return e;
}

/* --- off-cpu --- */

static int by_off(const void *left, const void *right)
{
	const struct tally *a = left, *b = right;

	if (a->off_ns != b->off_ns)
		return a->off_ns > b->off_ns ? -1 : 1;
	if (a->off_samples != b->off_samples)
		return a->off_samples > b->off_samples ? -1 : 1;
	return a->stack < b->stack ? -1 : a->stack > b->stack;
}

static const char *thread_name(const struct report *r, uint32_t tid)
{
	const struct thread_tally *t = samples_thread(&r->samples, tid);

	return t && t->name[0] ? t->name : "thread";
}

static void off_json(struct report *r, const struct tally *t)
{
	json_object(&r->json, NULL);
	json_u64(&r->json, "tid", t->tid);
	json_text(&r->json, "thread", thread_name(r, t->tid));
	json_u64(&r->json, "off_ns", t->off_ns);
	json_u64(&r->json, "longest_ns", t->off_max_ns);
	json_u64(&r->json, "samples", t->off_samples);
	calls_json(&r->json, "frames", r->stacks, t->stack);
	json_end(&r->json);
}

static void off_text(struct report *r, const struct tally *t)
{
	printf("%s  ", text_span((int64_t)t->off_ns).s);
	text_print(stdout, thread_name(r, t->tid), strlen(thread_name(r, t->tid)));
	printf("/%u, %s sample%s, longest %s\n", t->tid, text_count(t->off_samples).s, t->off_samples == 1 ? "" : "s",
	       text_span((int64_t)t->off_max_ns).s);
	calls_print(stdout, r->stacks, t->stack, "    ", FRAMES_SHOWN);
}

static void off_threads(struct report *r)
{
	struct table t;

	table_init(&t, "OFF CPU>|SWITCHES>|PREEMPTED>|LONGEST>|THREAD|");
	for (uint32_t i = 0; i < r->samples.thread_count; i++) {
		const struct thread_tally *thread = &r->samples.threads[i];

		if (!thread->switches && !thread->off_ns)
			continue;
		table_cell(&t, "%s", text_span((int64_t)thread->off_ns).s);
		table_cell(&t, "%s", text_count(thread->switches).s);
		table_cell(&t, "%s", text_count(thread->preempted).s);
		table_cell(&t, "%s", text_span((int64_t)thread->off_max_ns).s);
		table_cell(&t, "%.15s/%u", thread->name[0] ? thread->name : "thread", thread->tid);
	}
	table_print(&t, stdout);
}

static int off_cpu(struct report *r)
{
	const uint64_t rows = r->o->top < STACKS_SHOWN || r->o->json ? r->o->top : STACKS_SHOWN;
	uint64_t shown = 0;

	if (r->samples.count)
		qsort(r->samples.tallies, r->samples.count, sizeof(struct tally), by_off);
	if (!r->o->json && r->samples.switches)
		off_threads(r);
	if (!r->o->json && r->samples.off_samples)
		printf("\nwhere: each thread's time off the CPU, shared out by its sampled stacks:\n");
	for (uint32_t i = 0; i < r->samples.count && shown < rows; i++) {
		const struct tally *t = &r->samples.tallies[i];

		if (!t->off_samples)
			continue;
		if (r->o->json)
			off_json(r, t);
		else
			off_text(r, t);
		shown++;
	}
	return 0;
}

/* --- threads --- */

static void thread_json(struct report *r, const struct thread_tally *t)
{
	const struct dc_thread_state *s = &t->state;
	struct json *j = &r->json;

	json_object(j, NULL);
	json_u64(j, "tid", t->tid);
	json_text(j, "name", t->name);
	json_u64(j, "cpu_ns", t->cpu_ns);
	json_u64(j, "cpu_samples", t->cpu_samples);
	json_u64(j, "off_ns", t->off_ns);
	json_u64(j, "switches", t->switches);
	if (t->stopped_here) {
		json_text(j, "state", (const char[2]){(char)s->state, 0});
		if (s->wchan[0])
			json_text(j, "wchan", text_format("%.39s", s->wchan).s);
		if (s->syscall >= 0)
			json_text(j, "syscall", syscall_name(s->syscall).s);
		calls_json(&r->json, "frames", r->stacks, t->stack);
	}
	if (t->crashed)
		json_i64(j, "crashed_by_signal", t->crash.signal);
	json_end(j);
}

static const char *state_word(char state)
{
	switch (state) {
	case 'R':
		return "running";
	case 'S':
		return "sleeping";
	case 'D':
		return "uninterruptible";
	case 'T':
		return "stopped";
	case 't':
		return "traced";
	case 'Z':
		return "zombie";
	case 'X':
		return "dead";
	}
	return "?";
}

static void thread_doing(const struct thread_tally *t)
{
	const struct dc_thread_state *s = &t->state;
	char signal[32];

	if (t->crashed)
		printf(", crashed by %s", word_signal((uint32_t)t->crash.signal, signal));
	if (!t->stopped_here)
		return;
	printf(", %s", state_word((char)s->state));
	if (s->syscall >= 0)
		printf(" in %s", syscall_text(s).s);
	if (s->wchan[0] && strcmp(s->wchan, "0") != 0)
		printf(" (%s)", text_format("%.39s", s->wchan).s);
	if (!s->taken)
		printf(", could not be stopped");
}

static void thread_text(struct report *r, const struct thread_tally *t)
{
	text_print(stdout, t->name[0] ? t->name : "thread", strlen(t->name[0] ? t->name : "thread"));
	printf("/%u", t->tid);
	if (t->cpu_samples)
		printf(", %s of CPU", text_span((int64_t)t->cpu_ns).s);
	if (t->switches)
		printf(", %s off it in %s switch%s", text_span((int64_t)t->off_ns).s, text_count(t->switches).s,
		       t->switches == 1 ? "" : "es");
	thread_doing(t);
	putchar('\n');
	calls_print(stdout, r->stacks, t->crashed ? t->crash_stack : t->stack, "    ", FRAMES_SHOWN);
}

static int threads(struct report *r)
{
	for (uint32_t i = 0; i < r->samples.thread_count && i < r->o->top; i++)
		if (r->o->json)
			thread_json(r, &r->samples.threads[i]);
		else
			thread_text(r, &r->samples.threads[i]);
	return 0;
}

/* --- the command --- */

static const struct topic {
	const char *name;
	int (*print)(struct report *r);
} topics[] = {{"hot-functions", hot_functions}, {"off-cpu", off_cpu}, {"threads", threads}};

static const struct topic *topic_find(const char *name)
{
	for (size_t i = 0; i < sizeof(topics) / sizeof(*topics); i++)
		if (strcmp(topics[i].name, name) == 0)
			return &topics[i];
	return NULL;
}

static void head(const struct report *r)
{
	const struct dc_process *p = dc_capture_process(r->c, r->process);
	const struct samples *s = &r->samples;

	text_print(stdout, p->name, strlen(p->name));
	printf("[%u]: ", process_pid(p));
	if (!s->thread_count) {
		printf("no samples%s%s\n", p->sample_why[0] ? ": " : "", p->sample_why);
		return;
	}
	printf("%s of CPU in %s samples, %s off-CPU stacks", text_span((int64_t)s->cpu_ns).s, text_count(s->cpu_samples).s,
	       text_count(s->off_samples).s);
	if (s->unresolved)
		printf(", %s without a stack", text_count(s->unresolved).s);
	putchar('\n');
}

static int report_process(struct report *r, const struct topic *topic, const struct dc_cut *cut)
{
	int e = dc_stacks_open(r->c, r->process, &r->stacks);

	if (e == 0)
		e = samples_count(r->c, r->stacks, r->process, cut, &r->samples);
	if (e == 0 && r->o->json) {
		json_object(&r->json, NULL);
		json_u64(&r->json, "pid", process_pid(dc_capture_process(r->c, r->process)));
		json_u64(&r->json, "cpu_ns", r->samples.cpu_ns);
		json_u64(&r->json, "cpu_samples", r->samples.cpu_samples);
		json_u64(&r->json, "unresolved", r->samples.unresolved);
		json_array(&r->json, topic->name);
	} else if (e == 0) {
		head(r);
	}
	if (e == 0)
		e = topic->print(r);
	if (r->o->json) {
		json_end(&r->json);
		json_end(&r->json);
	}
	samples_fini(&r->samples);
	dc_stacks_close(TAKE(r->stacks));
	return e;
}

static int report_run(const void *options, const struct operands *operands)
{
	const struct report_options *o = options;
	const struct topic *topic = operands->count > 1 ? topic_find(operands->items[1]) : NULL;
	CLEANUP(dc_capture) struct dc_capture *c = NULL;
	struct report r = {.o = o};
	struct dc_cut cut;
	int e;

	if (operands->count < 2)
		return usage_error("which report? hot-functions, off-cpu or threads");
	if (!topic)
		return usage_error("no report is called '%s', known are hot-functions, off-cpu and threads", operands->items[1]);
	e = capture_open(operands->items[0], &c);
	if (e == EXIT_OK)
		e = cut_resolve(&o->cut, c, &cut);
	if (e != EXIT_OK)
		return e;
	r.c = c;
	json_init(&r.json, stdout, true);
	if (o->json)
		json_array(&r.json, NULL);
	for (; r.process < dc_capture_process_count(c) && e == 0; r.process++)
		if (!o->cut.pid || process_pid(dc_capture_process(c, r.process)) == o->cut.pid)
			e = report_process(&r, topic, &cut);
	if (o->json)
		json_end(&r.json);
	return capture_status(c, operands->items[0], e);
}

const struct command cmd_report = {
	.name = "report",
	.summary = "tables out of the samples of a capture: where the time went",
	.usage = "FILE hot-functions|off-cpu|threads",
	.about = "hot-functions: where CPU time was spent, by function; SELF is in the function itself, TOTAL also in what it "
		 "called. Functions that were inlined count as functions.\n\n"
		 "off-cpu: for how long threads were off the CPU, by thread from all their context switches, and where, from the "
		 "stacks of those that were sampled.\n\n"
		 "threads: every thread with what it had of the CPU, what it was doing when it was stopped at the trigger (state, "
		 "system call, where in the kernel), and its stack; of a crash the stack of the thread that was hit.",
	.exit_status = "0 when all went well, 1 when it failed, 2 when the capture is damaged and what is whole was "
		       "counted, 64 when the arguments were wrong.",
	.examples = "dashcam report FILE hot-functions --from -5s\twhat ran in the last five seconds\n"
		    "dashcam report FILE threads\twhat every thread was doing at the trigger\n",
	.see_also = "export info show symbolize",
	.options = report_option_table,
	.options_size = sizeof(struct report_options),
	.operand = OPERAND_CAPTURE,
	.operands_min = 1,
	.operands_max = 2,
	.run = report_run,
};
