/* SPDX-License-Identifier: MIT */
#include "ipc/grow.h"
#include "tools/show_stacks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/calls.h"
#include "tools/event_stacks.h"
#include "tools/lanes.h"
#include "tools/samples.h"
#include "tools/syscalls.h"
#include "tools/text.h"
#include "tools/words.h"

#define LINES_MAX (1u << 22) /* 96 MiB; samples beyond are not shown */
#define CALLS_ON_A_LINE 24u
#define CALLS_OF_A_THREAD 32u
#define INDENT "                                    "

struct part {
	struct dc_stacks *stacks;
	struct samples samples; /* for names and what belongs to the trigger */
	struct event_stacks of_events;
};

struct stack_lines {
	struct dc_capture *c;
	struct part *parts;
	unsigned count;
	struct stack_line *lines;
	uint32_t line_count, room, next;
	unsigned at; /* process being read */
};

static int add_line(void *arg, const struct dc_sample_view *v)
{
	struct stack_lines *l = arg;

	if ((v->head.kind != DC_SAMPLE_CPU && v->head.kind != DC_SAMPLE_OFF) || l->line_count == LINES_MAX)
		return 0;
	if (GROW(l->lines, l->line_count, l->room, 1024) < 0)
		return -ENOMEM;
	l->lines[l->line_count++] = (struct stack_line){.t_ns = v->t_ns,
							.tid = v->head.tid,
							.stack = v->head.stack,
							.process = (uint16_t)l->at,
							.kind = v->head.kind};
	return 0;
}

static int by_time(const void *left, const void *right)
{
	const struct stack_line *a = left, *b = right;

	if (a->t_ns != b->t_ns)
		return a->t_ns < b->t_ns ? -1 : 1;
	return a->tid < b->tid ? -1 : a->tid > b->tid;
}

static int load_part(struct stack_lines *l, unsigned process, const struct dc_cut *cut, bool sampled)
{
	struct part *p = &l->parts[process];
	int r = dc_stacks_open(l->c, process, &p->stacks);

	l->at = process;
	if (r == 0)
		r = samples_count(l->c, p->stacks, process, cut, &p->samples);
	if (r == 0)
		r = event_stacks_load(l->c, p->stacks, process, &p->of_events);
	if (r == 0 && sampled && (!cut->pid || process_pid(dc_capture_process(l->c, process)) == cut->pid))
		r = dc_stacks_each(p->stacks, cut, add_line, l);
	return r;
}

int stack_lines_new(struct dc_capture *c, const struct dc_cut *cut, bool sampled, struct stack_lines **ret_lines)
{
	struct stack_lines *l = calloc(1, sizeof(*l));
	int r = 0;

	if (!l)
		return -ENOMEM;
	l->c = c;
	l->count = dc_capture_process_count(c);
	l->parts = calloc(l->count + 1, sizeof(*l->parts));
	if (!l->parts)
		r = -ENOMEM;
	for (unsigned i = 0; i < l->count && r == 0; i++)
		r = load_part(l, i, cut, sampled);
	if (r < 0) {
		stack_lines_free(l);
		return r;
	}
	if (l->line_count)
		qsort(l->lines, l->line_count, sizeof(*l->lines), by_time);
	*ret_lines = l;
	return 0;
}

void stack_lines_free(struct stack_lines *l)
{
	if (!l)
		return;
	for (unsigned i = 0; l->parts && i < l->count; i++) {
		event_stacks_fini(&l->parts[i].of_events);
		samples_fini(&l->parts[i].samples);
		dc_stacks_close(l->parts[i].stacks);
	}
	free(l->parts);
	free(l->lines);
	free(l);
}

const struct stack_line *stack_lines_next(struct stack_lines *l, int64_t until_ns)
{
	if (l->next == l->line_count || l->lines[l->next].t_ns > until_ns)
		return NULL;
	return &l->lines[l->next++];
}

static const char *name_of(const struct part *p, uint32_t tid)
{
	const struct thread_tally *t = samples_thread(&p->samples, tid);

	return t && t->name[0] ? t->name : "thread";
}

void stack_line_print(const struct stack_lines *l, const struct stack_line *line, bool process, FILE *out)
{
	const struct part *p = &l->parts[line->process];
	const char *name = name_of(p, line->tid);
	const long start = ftell(out);
	long width = process ? 36 : 20;

	if (process) {
		const char *of = dc_capture_process(l->c, line->process)->name;

		text_print(out, of, strlen(of));
		putc(' ', out);
	}
	text_print(out, name, strlen(name));
	fprintf(out, "/%u", line->tid);
	width -= ftell(out) - start;
	fprintf(out, "%*s %-11s ", width > 0 ? (int)width : 0, "", line->kind == DC_SAMPLE_CPU ? "on-cpu" : "off-cpu");
	if (line->stack)
		calls_line(out, p->stacks, line->stack, CALLS_ON_A_LINE);
	else
		fputs("(not unwound)", out);
}

static void thread_head(FILE *out, const struct thread_tally *t, const char *doing)
{
	const char *name = t->name[0] ? t->name : "thread";

	fputs(INDENT, out);
	text_print(out, name, strlen(name));
	fprintf(out, "/%u  %s\n", t->tid, doing);
}

static void print_thread(const struct part *p, const struct thread_tally *t, FILE *out)
{
	char doing[160];

	if (t->state.syscall >= 0)
		snprintf(doing, sizeof(doing), "%c in %s", t->state.state, syscall_text(&t->state).s);
	else
		snprintf(doing, sizeof(doing), "%c", t->state.state);
	thread_head(out, t, doing);
	calls_print(out, p->stacks, t->stack, INDENT "  ", CALLS_OF_A_THREAD);
}

static void print_crash(const struct part *p, const struct thread_tally *t, FILE *out)
{
	char doing[64], signal[32];

	snprintf(doing, sizeof(doing), "crashed by %s", word_signal((uint32_t)t->crash.signal, signal));
	thread_head(out, t, doing);
	calls_print(out, p->stacks, t->crash_stack, INDENT "  ", CALLS_OF_A_THREAD);
}

void stack_lines_trigger(const struct stack_lines *l, bool threads, FILE *out)
{
	for (unsigned i = 0; i < l->count; i++) {
		const struct part *p = &l->parts[i];

		for (uint32_t k = 0; k < p->samples.thread_count; k++) {
			const struct thread_tally *t = &p->samples.threads[k];

			if (t->crashed)
				print_crash(p, t, out);
			else if (threads && t->stopped_here)
				print_thread(p, t, out);
		}
	}
}

void stack_lines_event(const struct stack_lines *l, const struct dc_cursor_event *e, FILE *out)
{
	struct calls_line line = {.out = out, .max = CALLS_ON_A_LINE};

	if (e->process < l->count)
		event_stacks_calls(&l->parts[e->process].of_events, &e->event, calls_line_add, &line);
}
