/* SPDX-License-Identifier: MIT */
/* dashcam status: who records, how far back it goes, what it costs. Looks at each ring twice, for the rates. */
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "tools/advice.h"
#include "ipc/now.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/ringlist.h"
#include "tools/status_rules.h"
#include "tools/text.h"
#include "tools/words.h"
#include "trigger/control.h"

struct status_options {
	struct ring_filter rings;
	int64_t interval;
	bool json;
};

static const struct option status_option_table[] = {
	RING_OPTION_ROWS(status_options),
	{.name = "interval",
	 .type = OPTION_TIME,
	 .at = offsetof(struct status_options, interval),
	 .value = "TIME",
	 .help = "time between the two looks that give events per second",
	 .fallback = "300ms",
	 .min = 1000000,
	 .max = UINT64_C(3600000000000)},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct status_options, json),
	 .help = "print JSON"},
	{0},
};

struct seen {
	const struct listed_ring *listed;
	struct dc_ring_usage now;
	double events_per_s;
	int error; /* -errno of the look; the ring may be truncated */
};

static void sleep_until(int64_t at_ns)
{
	struct timespec t = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		continue;
}

static void look_twice(const struct ring_list *list, int64_t interval, struct seen *seen)
{
	int64_t start = dc_now_ns();

	for (unsigned i = 0; i < list->count; i++) {
		seen[i].listed = &list->rings[i];
		seen[i].error = dc_ring_usage(list->rings[i].ring, &seen[i].now);
	}
	if (list->count > 0)
		sleep_until(start + interval);
	for (unsigned i = 0; i < list->count; i++) {
		struct dc_ring_usage before = seen[i].now;

		if (seen[i].error == 0)
			seen[i].error = dc_ring_usage(list->rings[i].ring, &seen[i].now);
		if (seen[i].error == 0 && seen[i].now.at_ns > before.at_ns &&
		    seen[i].now.events > before.events)
			seen[i].events_per_s = (double)(seen[i].now.events - before.events) * 1e9 /
					       (double)(seen[i].now.at_ns - before.at_ns);
	}
}

static const char *state_of(const struct seen *s)
{
	if (s->error)
		return "damaged";
	if (!s->listed->alive)
		return s->now.flags & DC_RING_GOODBYE ? "ended" : "died";
	return s->now.flags & DC_RING_STOPPED ? "stopped" : "recording";
}

/* The cap is too small for the window when something inside the window had to go. */
static bool window_short(const struct seen *s)
{
	return !s->error && s->listed->alive && !s->now.whole && s->now.window_ns < s->now.wanted_window_ns;
}

static uint64_t needed(const struct seen *s)
{
	return cap_needed(s->now.cap_bytes, s->now.window_ns, s->now.wanted_window_ns);
}

static void json_ring(struct json *j, const struct seen *s)
{
	const struct dc_ring *ring = s->listed->ring;
	const struct dc_ring_usage *u = &s->now;

	json_object(j, NULL);
	json_u64(j, "pid", ring_pid(ring));
	json_text(j, "name", ring->header.name);
	json_text(j, "state", state_of(s));
	json_u64(j, "uid", ring->uid);
	json_bool(j, "verified", ring->verified);
	json_u64(j, "watcher_pid", s->listed->watcher);
	json_text(j, "ring", ring->name);
	if (s->error == 0) {
		if (s->listed->alive)
			json_fixed(j, "window_s", (double)u->window_ns / 1e9, 3);
		if (u->wanted_window_ns) /* 0: an older recorder, which has not said yet */
			json_fixed(j, "wanted_window_s", (double)u->wanted_window_ns / 1e9, 3);
		json_bool(j, "whole", u->whole);
		json_fixed(j, "events_per_s", s->events_per_s, 1);
		json_u64(j, "events", u->events);
		json_u64(j, "memory_bytes", u->memory_bytes);
		json_u64(j, "cap_bytes", u->cap_bytes);
		if (window_short(s))
			json_u64(j, "cap_needed_bytes", needed(s));
		json_u64(j, "lanes", u->lanes);
		json_u64(j, "open_spans", u->open_spans);
		json_u64(j, "dropped", u->dropped);
		json_u64(j, "grow_failed", u->grow_failed);
		json_text(j, "clock", word_clock(ring->header.clock));
	}
	json_end(j);
}

/* --- what watchers say of sampling; processes without a ring are known to them only --- */

struct sampling {
	const struct ring_filter *wanted;
	uint32_t count;
	struct dc_control_process processes[4 * DC_CONTROL_SAMPLING_MAX];
	uint32_t followed_count;
	struct dc_control_followed followed[4 * DC_CONTROL_SAMPLING_MAX];
};

static bool is_wanted(const struct ring_filter *wanted, uint32_t pid, const char *name)
{
	return (!wanted->pid || wanted->pid == pid) && (!wanted->name || fnmatch(wanted->name, name, 0) == 0);
}

static void each_sampled(void *arg, const struct dc_control_reply *reply)
{
	struct sampling *s = arg;
	struct dc_control_process *p = &s->processes[s->count];

	if (reply->error || reply->op != DC_CONTROL_SAMPLING || !reply->process.pid ||
	    s->count == sizeof(s->processes) / sizeof(s->processes[0]))
		return;
	*p = reply->process;
	p->name[sizeof(p->name) - 1] = p->why[sizeof(p->why) - 1] = '\0';
	s->count += is_wanted(s->wanted, p->pid, p->name);
}

static void each_followed(void *arg, const struct dc_control_reply *reply)
{
	struct sampling *s = arg;
	struct dc_control_followed *f = &s->followed[s->followed_count];

	if (reply->error || reply->op != DC_CONTROL_FOLLOWED || !reply->followed.pid ||
	    s->followed_count == sizeof(s->followed) / sizeof(s->followed[0]))
		return;
	*f = reply->followed;
	f->name[sizeof(f->name) - 1] = '\0';
	s->followed_count += is_wanted(s->wanted, f->pid, f->name);
}

static int ask_sampling(void *arg, uint32_t pid, const char *dir)
{
	struct dc_control_request request = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_SAMPLING};
	char why[DC_WHY_BYTES];

	(void)pid;
	if (dc_control_ask(dir, &request, each_sampled, arg, why) == -ETIMEDOUT)
		say("%s", why); /* no watcher: nobody is sampled, and nobody says so */
	request.op = DC_CONTROL_FOLLOWED;
	dc_control_ask(dir, &request, each_followed, arg, why);
	return 0;
}

static void followed_json(struct json *j, const struct sampling *s)
{
	json_array(j, "heard_in_part");
	for (uint32_t i = 0; i < s->followed_count; i++) {
		const struct dc_control_followed *f = &s->followed[i];

		json_object(j, NULL);
		json_u64(j, "pid", f->pid);
		json_text(j, "name", f->name);
		json_u64(j, "events", f->events);
		json_u64(j, "left_out", f->left_out_events);
		json_u64(j, "left_out_bytes", f->left_out_bytes);
		json_u64(j, "left_out_chunks", f->left_out_chunks);
		json_u64(j, "lost_chunks", f->lost_chunks);
		json_u64(j, "async_given_up", f->given_up);
		json_end(j);
	}
	json_end(j);
}

static void followed_text(const struct sampling *s)
{
	for (uint32_t i = 0; i < s->followed_count; i++) {
		const struct dc_control_followed *f = &s->followed[i];

		putchar('\n');
		text_print(stdout, f->name, strlen(f->name));
		printf("[%u]: its watcher heard %s events", f->pid, text_count(f->events).s);
		if (f->left_out_chunks)
			printf("; left out %s (%s), for which those stand", text_count(f->left_out_events).s,
			       text_bytes(f->left_out_bytes).s);
		if (f->lost_chunks)
			printf("; %s chunks were overwritten before it read them", text_count(f->lost_chunks).s);
		if (f->given_up)
			printf("; gave up %s async spans that were open", text_count(f->given_up).s);
		putchar('\n');
	}
}

static void sampling_json(struct json *j, const struct sampling *s)
{
	json_array(j, "sampling");
	for (uint32_t i = 0; i < s->count; i++) {
		const struct dc_control_process *p = &s->processes[i];

		json_object(j, NULL);
		json_u64(j, "pid", p->pid);
		json_text(j, "name", p->name);
		json_bool(j, "recorder_inside", p->ring);
		json_bool(j, "sampled", p->scope != 0);
		json_u64(j, "hz", p->scope ? p->hz : 0);
		if (p->raised_for_ns > 0) {
			json_u64(j, "usual_hz", p->usual_hz);
			json_i64(j, "raised_for_ns", p->raised_for_ns);
		}
		if (p->why[0])
			json_text(j, "why", p->why);
		json_end(j);
	}
	json_end(j);
}

static void sampling_text(const struct sampling *s)
{
	for (uint32_t i = 0; i < s->count; i++) {
		const struct dc_control_process *p = &s->processes[i];

		putchar('\n');
		text_print(stdout, p->name, strlen(p->name));
		printf("[%u]: ", p->pid);
		if (!p->scope)
			fputs("is not sampled", stdout);
		else
			printf("%s at %u Hz", p->ring ? "is sampled" : "has no recorder inside, is only sampled", p->hz);
		if (p->raised_for_ns > 0)
			printf(" for %s now because a rule asked for it, else at %u", text_span(p->raised_for_ns).s, p->usual_hz);
		if (p->why[0]) {
			fputs(": ", stdout);
			text_print(stdout, p->why, strlen(p->why));
		}
		putchar('\n');
	}
}

static void status_json(const struct ring_list *list, const struct seen *seen, const struct sampling *sampling,
			const struct status_rules *rules)
{
	struct json j;

	json_init(&j, stdout, true);
	json_object(&j, NULL);
	json_text(&j, "directory", list->dir);
	if (list->watcher)
		json_u64(&j, "watcher_pid", list->watcher);
	else
		json_null(&j, "watcher_pid");
	json_array(&j, "processes");
	for (unsigned i = 0; i < list->count; i++)
		json_ring(&j, &seen[i]);
	json_end(&j);
	sampling_json(&j, sampling);
	followed_json(&j, sampling);
	status_rules_json(&j, rules);
	json_u64(&j, "refused", list->refused);
	json_end(&j);
}

static void row(struct table *t, const struct seen *s)
{
	const struct dc_ring *ring = s->listed->ring;
	const struct dc_ring_usage *u = &s->now;

	table_cell(t, "%s", ring->header.name);
	table_cell(t, "%u", ring_pid(ring));
	table_cell(t, "%s%s", state_of(s), ring->verified || !s->listed->alive ? "" : ", not verified");
	if (s->listed->alive) /* of the dead, recover knows; "until now" would say nothing */
		table_cell(t, u->wanted_window_ns ? "%s of %s" : "%s", text_span(u->window_ns).s,
			   text_span(u->wanted_window_ns).s);
	else
		table_cell(t, "-");
	table_cell(t, "%s", text_count((uint64_t)(s->events_per_s + 0.5)).s);
	table_cell(t, "%s of %s", text_bytes(u->memory_bytes).s, text_bytes(u->cap_bytes).s);
	table_cell(t, "%u", u->lanes);
	table_cell(t, "%s", text_count(u->dropped).s);
	if (s->listed->watcher)
		table_cell(t, "%u", s->listed->watcher);
	else
		table_cell(t, "none");
}

static void lead(const struct dc_ring *ring)
{
	putchar('\n');
	text_print(stdout, ring->header.name, strlen(ring->header.name));
	printf("[%u]: ", ring_pid(ring));
}

static void advice(const struct ring_list *list, const struct seen *seen)
{
	const uint64_t most = cap_most(list->dir);
	bool unwatched = false;

	for (unsigned i = 0; i < list->count; i++) {
		unwatched |= seen[i].listed->alive && !seen[i].listed->watcher;
		if (window_short(&seen[i])) {
			lead(list->rings[i].ring);
			fputs("its cap is too small for its window; ", stdout);
			cap_advice(stdout, needed(&seen[i]), most, seen[i].now.wanted_window_ns);
			putchar('\n');
		}
		if (!seen[i].error && seen[i].now.grow_failed) {
			lead(list->rings[i].ring);
			puts("its tmpfs is full, so its ring cannot grow; 'dashcam doctor' says more");
		}
	}
	if (unwatched)
		puts("\nWhere WATCHER says none, nothing is saved by itself: start 'dashcam watch', or "
		     "'dashcam recover' a ring.");
}

static int status_text(const struct ring_list *list, const struct seen *seen)
{
	struct table t;
	int r;

	if (list->refused)
		say("%u files are no rings one can read: %s", list->refused, list->why);
	if (list->count == 0) {
		printf("Nothing records in %s.\n", list->dir);
		if (list->watcher)
			printf("A watcher is there, pid %u.\n", list->watcher);
		return 0;
	}
	table_init(&t, "PROCESS|PID>|STATE|WINDOW>|EVENTS/S>|MEMORY>|THREADS>|DROPPED>|WATCHER|");
	for (unsigned i = 0; i < list->count; i++)
		row(&t, &seen[i]);
	r = table_print(&t, stdout);
	if (r == 0)
		advice(list, seen);
	return r;
}

static int status_run(const void *options, const struct operands *operands)
{
	const struct status_options *o = options;
	CLEANUP(ring_list) struct ring_list list = {0};
	CLEANUP(free) struct seen *seen = NULL;
	struct ring_filter filter = o->rings;
	bool none;
	static struct sampling sampling;
	int r;

	(void)operands;
	filter.dead = true;
	r = ring_list_load(&filter, &list);
	if (r != EXIT_OK)
		return r;
	none = list.count == 0 && (o->rings.pid || o->rings.name);
	seen = calloc(list.count + 1, sizeof(*seen));
	if (!seen)
		return failure("out of memory");
	if (list.count)
		look_twice(&list, o->interval, seen);
	sampling.wanted = &o->rings;
	ask_sampling(&sampling, 0, list.dir);
	dc_rings_each_run(list.dir, ask_sampling, &sampling);
	CLEANUP(status_rules) struct status_rules *rules = status_rules_ask(list.dir);
	if (!rules)
		return failure("out of memory");
	if (o->json)
		status_json(&list, seen, &sampling, rules);
	else if (!none && status_text(&list, seen) < 0)
		return failure("out of memory");
	if (none && sampling.count == 0)
		return failure("no such process records in '%s'", list.dir);
	if (!o->json) {
		sampling_text(&sampling);
		followed_text(&sampling);
		status_rules_text(rules);
	}
	return EXIT_OK;
}

const struct command cmd_status = {
	.name = "status",
	.summary = "list the processes that record, how far back each goes and what it costs",
	.usage = "",
	.about =
		"Lists each recorded process with the window it really holds and the one it should, events "
		"per second, "
		"memory in use and its cap, events dropped, and whether a watcher is there to save its past. "
		"Processes that a watcher samples without a ring, and those it cannot sample, follow with the reason; then those "
		"of which it left out events to stay within its budget, 1 % of a core, or gave up async spans, 2048 being open. "
		"Then the rules of the watcher: how often each came true, what its budget held back, what it waits for. "
		"Rings whose process has died are listed too: 'dashcam recover' reads them.\n\n"
		"'not verified' means that the ring could not be proved to belong to its process; it is "
		"read, but never a "
		"reason to look into the process.",
	.examples = "dashcam status --json | jq '.processes[] | select(.dropped > 0)'\twho lost events\n",
	.see_also = "doctor recover sites trigger",
	.options = status_option_table,
	.options_size = sizeof(struct status_options),
	.run = status_run,
};
