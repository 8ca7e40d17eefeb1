/* SPDX-License-Identifier: MIT */
/*
 * Folded stacks, as flame graph programs read them: process;thread;outermost;...;innermost WEIGHT. The weight is in
 * microseconds. Semicolons and ends of lines in names become other characters.
 */
#include <errno.h>
#include <inttypes.h>
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

static void fold(struct dc_stacks *stacks, const struct samples *s, const struct tally *t, const char *process, bool off_cpu,
		 FILE *out)
{
	static struct folding f;
	const struct thread_tally *thread = samples_thread(s, t->tid);
	const uint64_t us = (off_cpu ? t->off_ns : t->cpu_ns) / 1000;
	char name[32];

	if (!us)
		return;
	f.at = sizeof(f.text);
	if (!t->stack)
		prepend(&f, "[not unwound]");
	calls_each(stacks, t->stack, fold_call, &f);
	snprintf(name, sizeof(name), "%.15s/%u", thread && thread->name[0] ? thread->name : "thread", t->tid);
	prepend(&f, name);
	prepend(&f, *process ? process : "process");
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
