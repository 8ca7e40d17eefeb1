/* SPDX-License-Identifier: MIT */
#include "tools/info_stacks.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "tools/calls.h"
#include "tools/lanes.h"
#include "tools/samples.h"
#include "tools/text.h"
#include "tools/words.h"

#define FRAMES_SHOWN 16u
#define INDENT "                 "

struct part {
	struct dc_capture *c;
	const struct dc_process *process;
	struct dc_stacks *stacks;
	struct dc_stacks_totals totals;
	struct samples samples;
};

static void part_cleanup(struct part *p)
{
	samples_fini(&p->samples);
	dc_stacks_close(p->stacks);
}

static int part_load(struct part *p, struct dc_capture *c, unsigned process)
{
	const struct dc_cut all = {.everything = true};
	int r = dc_stacks_open(c, process, &p->stacks);

	p->c = c;
	p->process = dc_capture_process(c, process);
	if (r == 0)
		r = dc_stacks_totals(p->stacks, &p->totals);
	if (r == 0)
		r = samples_count(c, p->stacks, process, &all, &p->samples);
	return r;
}

static const struct thread_tally *crashed(const struct part *p)
{
	for (uint32_t i = 0; i < p->samples.thread_count; i++)
		if (p->samples.threads[i].crashed)
			return &p->samples.threads[i];
	return NULL;
}

static uint64_t stack_samples(const struct part *p)
{
	return p->totals.samples[DC_SAMPLE_CPU] + p->totals.samples[DC_SAMPLE_OFF];
}

static uint64_t switches(const struct part *p)
{
	return p->totals.samples[DC_SAMPLE_SWITCH_OUT] + p->totals.samples[DC_SAMPLE_SWITCH_PREEMPT];
}

static const char *word_scope(uint32_t scope)
{
	static const char *const words[] = {"not at all", "with the whole host", "by itself", "by its own timers", "by events it opened"};

	return scope < sizeof(words) / sizeof(*words) ? words[scope] : "in a way this version does not know";
}

static struct text back_to(const struct part *p, int64_t first_ns, int64_t last_ns)
{
	const int64_t at_ns = dc_capture_incident(p->c)->at_realtime_ns;

	return first_ns > last_ns ? text_format("none") : text_format("%s", text_span(at_ns - first_ns).s);
}

static void sampled(const struct part *p)
{
	const struct dc_process *process = p->process;

	printf("  sampled        %s", word_scope(process->sample_scope));
	if (process->sample_scope) {
		printf(", %u Hz, ", process->sample_hz);
		if (process->sample_copy_bytes)
			printf("copying %s of stack", text_bytes(process->sample_copy_bytes).s);
		else
			fputs("by frame pointers", stdout);
	}
	if (process->sample_why[0]) {
		fputs(process->sample_scope ? "; " : ": ", stdout);
		text_print(stdout, process->sample_why, strlen(process->sample_why));
	}
	putchar('\n');
	if (process->raised_hz) {
		printf(INDENT "%u Hz from %s on", process->raised_hz, text_when(process->raised_from_ns).s);
		if (process->raised_to_ns)
			printf(" for %s", text_span(process->raised_to_ns - process->raised_from_ns).s);
		puts(", because a rule asked for it");
	}
	if (stack_samples(p))
		printf(INDENT "%s stacks, back to %s before the trigger; %s unwound, %s to the outermost function\n",
		       text_count(stack_samples(p)).s, back_to(p, p->totals.first_ns, p->totals.last_ns).s,
		       text_count(p->totals.unwound).s, text_count(p->totals.to_root).s);
	if (switches(p))
		printf(INDENT "%s context switches, back to %s before it\n", text_count(switches(p)).s,
		       back_to(p, p->totals.first_switch_ns, p->totals.last_switch_ns).s);
	if (process->samples_lost)
		printf(INDENT "%s samples were lost\n", text_count(process->samples_lost).s);
}

static void stopped(const struct part *p)
{
	const struct dc_process *process = p->process;

	if (!process->threads_taken && !process->threads_refused && !process->threads_why[0])
		return;
	if (process->threads_taken)
		printf("  threads        %u stopped at the trigger, for %s each", process->threads_taken,
		       text_span((int64_t)process->stopped_median_ns).s);
	else
		fputs("  threads        none stopped at the trigger", stdout);
	if (process->threads_refused)
		printf("; %u could not be", process->threads_refused);
	if (process->threads_why[0]) {
		fputs(": ", stdout);
		text_print(stdout, process->threads_why, strlen(process->threads_why));
	}
	putchar('\n');
}

static const char *word_fault(const struct dc_crash_state *s)
{
	if (s->signal != SIGSEGV)
		return "";
	return s->code == SEGV_MAPERR ? ", where nothing is mapped" : s->code == SEGV_ACCERR ? ", which it may not touch that way" : "";
}

static void crash(const struct part *p)
{
	const struct thread_tally *t = crashed(p);
	char signal[32];

	if (!t)
		return;
	fputs("  crashed        ", stdout);
	text_print(stdout, t->name[0] ? t->name : "thread", strlen(t->name[0] ? t->name : "thread"));
	printf("/%u: %s", t->tid, word_signal((uint32_t)t->crash.signal, signal));
	if (t->crash.code > 0)
		printf(" at address 0x%" PRIx64 "%s", t->crash.address, word_fault(&t->crash));
	else if (t->crash.sender_pid == process_pid(p->process) || t->crash.sender_pid == p->process->ns_pid)
		fputs(", sent by itself", stdout);
	else
		printf(", sent by process %u of user %u", t->crash.sender_pid, t->crash.sender_uid);
	putchar('\n');
	calls_print(stdout, p->stacks, t->crash_stack, INDENT, FRAMES_SHOWN);
	if (!t->crash_stack)
		puts(INDENT "(its stack is not unwound yet: dashcam settle)");
}

int info_stacks_text(struct dc_capture *c, unsigned process)
{
	CLEANUP(part) struct part p = {0};
	int r = part_load(&p, c, process);

	if (r < 0)
		return r;
	if (!p.samples.thread_count && !p.process->sample_why[0] && !p.process->threads_why[0])
		return 0;
	putchar('\n');
	text_print(stdout, p.process->name, strlen(p.process->name));
	printf("[%u]\n", process_pid(p.process));
	crash(&p);
	stopped(&p);
	sampled(&p);
	return 0;
}

/* --- JSON --- */

static void json_samples(const struct part *p, struct json *j)
{
	const struct dc_process *process = p->process;

	json_object(j, "samples");
	json_u64(j, "scope", process->sample_scope);
	json_u64(j, "hz", process->sample_hz);
	json_u64(j, "copy_bytes", process->sample_copy_bytes);
	json_bool(j, "kernel", process->sample_kernel);
	json_text(j, "why", process->sample_why);
	if (process->raised_hz) {
		json_u64(j, "raised_hz", process->raised_hz);
		json_text(j, "raised_from", text_rfc3339(process->raised_from_ns).s);
		if (process->raised_to_ns)
			json_text(j, "raised_to", text_rfc3339(process->raised_to_ns).s);
	}
	json_u64(j, "cpu", p->totals.samples[DC_SAMPLE_CPU]);
	json_u64(j, "off_cpu", p->totals.samples[DC_SAMPLE_OFF]);
	json_u64(j, "switches", switches(p));
	json_u64(j, "unwound", p->totals.unwound);
	json_u64(j, "to_root", p->totals.to_root);
	json_u64(j, "lost", process->samples_lost);
	json_i64(j, "from_ns", p->totals.first_ns <= p->totals.last_ns ? p->totals.first_ns : 0);
	json_i64(j, "switches_from_ns", p->totals.first_switch_ns <= p->totals.last_switch_ns ? p->totals.first_switch_ns : 0);
	json_end(j);
}

static void json_threads(const struct part *p, struct json *j)
{
	json_object(j, "threads_stopped");
	json_u64(j, "taken", p->process->threads_taken);
	json_u64(j, "refused", p->process->threads_refused);
	json_u64(j, "median_ns", p->process->stopped_median_ns);
	json_text(j, "why", p->process->threads_why);
	json_end(j);
}

static void json_crash(const struct part *p, struct json *j)
{
	const struct thread_tally *t = crashed(p);
	char signal[32];

	if (!t)
		return;
	json_object(j, "crash");
	json_u64(j, "tid", t->tid);
	json_text(j, "thread", t->name);
	json_text(j, "signal", word_signal((uint32_t)t->crash.signal, signal));
	json_i64(j, "code", t->crash.code);
	json_u64(j, "address", t->crash.address);
	json_u64(j, "sender_pid", t->crash.sender_pid);
	calls_json(j, "frames", p->stacks, t->crash_stack);
	json_end(j);
}

int info_stacks_json(struct dc_capture *c, unsigned process, struct json *j)
{
	CLEANUP(part) struct part p = {0};
	int r = part_load(&p, c, process);

	if (r < 0)
		return r;
	json_samples(&p, j);
	json_threads(&p, j);
	json_crash(&p, j);
	return 0;
}
