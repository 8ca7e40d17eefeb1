/* SPDX-License-Identifier: MIT */
/*
 * Folded stacks, as flame graph programs read them: process;thread;outermost;...;innermost WEIGHT. The weight is in
 * microseconds; of events it is how many there were. Semicolons and ends of lines in names become other characters.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/calls.h"
#include "tools/export.h"
#include "tools/samples.h"
#include "tools/text.h"

#define TEXT_MAX (64u << 10)

struct folding {
	char text[TEXT_MAX]; /* filled from its end: calls come innermost first */
	size_t at;
};

static void prepend(struct folding *f, const char *name)
{
	size_t n = strlen(name);

	if (n + 1 > f->at)
		return; /* deeper than anybody draws */
	f->at -= n + 1;
	f->text[f->at] = ';';
	memcpy(f->text + f->at + 1, name, n);
	for (char *p = f->text + f->at + 1; n--; p++)
		if (*p == ';' || (unsigned char)*p < ' ' || *p == 127)
			*p = *p == ';' ? ':' : ' ';
}

static int fold_call(void *arg, const struct call *c)
{
	prepend(arg, c->function);
	return 0;
}

/* In front of all calls. */
static void prepend_thread(struct folding *f, const char *process, const char *thread, uint32_t tid)
{
	char name[32];

	snprintf(name, sizeof(name), "%.15s/%u", *thread ? thread : "thread", tid);
	prepend(f, name);
	prepend(f, *process ? process : "process");
}

static void fold(struct dc_stacks *stacks, const struct samples *s, const struct tally *t, const char *process, bool off_cpu,
		 FILE *out)
{
	static struct folding f;
	const struct thread_tally *thread = samples_thread(s, t->tid);
	const uint64_t us = (off_cpu ? t->off_ns : t->cpu_ns) / 1000;

	if (!us)
		return;
	f.at = sizeof(f.text);
	if (!t->stack)
		prepend(&f, "[not unwound]");
	calls_each(stacks, t->stack, fold_call, &f);
	prepend_thread(&f, process, thread ? thread->name : "", t->tid);
	text_print(out, f.text + f.at + 1, sizeof(f.text) - f.at - 1);
	fprintf(out, " %" PRIu64 "\n", us);
}

int export_folded(struct dc_capture *c, const struct dc_cut *cut, bool off_cpu, FILE *out)
{
	int r = 0;

	for (unsigned p = 0; p < dc_capture_process_count(c) && r == 0; p++) {
		CLEANUP(dc_stacks) struct dc_stacks *stacks = NULL;
		struct samples s;

		if (cut->pid && process_pid(dc_capture_process(c, p)) != cut->pid)
			continue;
		r = dc_stacks_open(c, p, &stacks);
		if (r == 0)
			r = samples_count(c, stacks, p, cut, &s);
		for (uint32_t i = 0; r == 0 && i < s.count; i++)
			fold(stacks, &s, &s.tallies[i], dc_capture_process(c, p)->name, off_cpu, out);
		if (r == 0)
			samples_fini(&s);
	}
	return r;
}

/* --- of events --- */

struct lines {
	struct dc_capture *c;
	const struct export_stacks *stacks;
	char **list;
	size_t count, room;
};

static int add_event(void *arg, const struct dc_cursor_event *e, const char *thread)
{
	static struct folding f;
	struct lines *l = arg;

	if (l->count == l->room) {
		const size_t room = l->room ? 2 * l->room : 256;
		char **more = reallocarray(l->list, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->list = more;
		l->room = room;
	}
	f.at = sizeof(f.text);
	event_stacks_calls(&l->stacks->of_events[e->process], &e->event, fold_call, &f);
	prepend_thread(&f, dc_capture_process(l->c, e->process)->name, thread, e->event.tid);
	l->list[l->count] = strndup(f.text + f.at + 1, sizeof(f.text) - f.at - 1);
	return l->list[l->count] ? (l->count++, 0) : -ENOMEM;
}

static int by_text(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

int export_folded_events(struct dc_capture *c, const struct dc_cut *cut, FILE *out)
{
	CLEANUP(export_stacks) struct export_stacks stacks = {0};
	struct lines l = {.c = c, .stacks = &stacks};
	int r = export_stacks_open(c, &stacks);

	if (r == 0)
		r = export_stacks_each(c, cut, add_event, &l);
	if (l.count)
		qsort(l.list, l.count, sizeof(*l.list), by_text);
	for (size_t i = 0, first = 0; i < l.count; i++)
		if (i + 1 == l.count || strcmp(l.list[i + 1], l.list[i]) != 0) {
			text_print(out, l.list[i], strlen(l.list[i]));
			fprintf(out, " %zu\n", i + 1 - first);
			first = i + 1;
		}
	while (l.count)
		free(l.list[--l.count]);
	free(l.list);
	return r;
}
