/* SPDX-License-Identifier: MIT */
/* dashcam top: what recorded processes do right now, by span and event, in a terminal that is refreshed. */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/top.h"

struct top_options {
	struct ring_filter rings;
	int64_t interval;
	const char *sort;
	bool once;
	bool json;
};

static const struct option top_option_table[] = {
	RING_OPTION_ROWS(top_options),
	{.name = "interval",
	 .letter = 'i',
	 .type = OPTION_TIME,
	 .at = offsetof(struct top_options, interval),
	 .value = "TIME",
	 .help = "time between two pages; with --once how long to listen first",
	 .fallback = "1s",
	 .min = 100000000,
	 .max = UINT64_C(20000000000)},
	{.name = "sort",
	 .letter = 's',
	 .type = OPTION_CHOICE,
	 .at = offsetof(struct top_options, sort),
	 .value = TOP_SORTS,
	 .help = "what comes first; the keys r 5 p 9 m o e n change it",
	 .choices = TOP_SORTS,
	 .fallback = "rate"},
	{.name = "once",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct top_options, once),
	 .help = "print one page and end; so it does where it has no terminal"},
	{.name = "json",
	 .type = OPTION_FLAG,
	 .at = offsetof(struct top_options, json),
	 .help = "print JSON once and end"},
	{0},
};

static int load(const struct top_options *o, struct top_rows *t)
{
	int r = top_load(&o->rings, o->sort, t);

	if (r == -ENOENT)
		return failure("%s", t->why);
	return r < 0 ? failure("out of memory") : EXIT_OK;
}

/* Rates need two looks: the first request makes the watcher listen. */
static int once(const struct top_options *o)
{
	struct timespec left = {.tv_sec = o->interval / 1000000000, .tv_nsec = o->interval % 1000000000};
	struct top_rows t = {0};
	int r = load(o, &t);

	top_rows_cleanup(&t);
	if (r != EXIT_OK)
		return r;
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
	r = load(o, &t);
	if (r == EXIT_OK && t.count == 0 && (o->rings.pid || o->rings.name))
		r = failure("no such process of yours records under a watcher");
	else if (r == EXIT_OK && o->json)
		top_json(stdout, &t);
	else if (r == EXIT_OK)
		top_page(stdout, &t, o->sort, 0, 0);
	top_rows_cleanup(&t);
	return r;
}

static int top_run(const void *options, const struct operands *operands)
{
	const struct top_options *o = options;

	(void)operands;
	if (o->once || o->json || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return once(o);
	return top_screen(&o->rings, o->sort, o->interval);
}

const struct command cmd_top = {
	.name = "top",
	.summary = "show what recorded processes do right now",
	.usage = "",
	.about = "Shows processes that a watcher watches, then their spans and other events: how many a second, how "
		 "long they "
		 "last (median, 99 %, 99.9 %, longest), how many are open, and errors a second, of the last ten "
		 "seconds. Nothing "
		 "is recorded extra: the watcher reads along, from the first page until half a minute after the "
		 "last.\n\n"
		 "ERR/S counts log lines of level error and above, in their own row and in that of the span around "
		 "them. WINDOW is "
		 "how far back a capture would reach now. Counters show their last value. Where events come faster "
		 "than 1 % of a "
		 "core can read, a random part of them is counted; such rows carry a ~.\n\n"
		 "Keys: q ends; r, 5, p, 9, m, o, e and n sort by rate, p50, p99, p99.9, longest, open, errors and "
		 "name.",
	.examples =
		"dashcam top --once --sort max\tone page, the longest first\n"
		"dashcam top --json | jq '.sites[] | select(.p99_us > 1000)'\tspans with a 99 % beyond a millisecond\n",
	.see_also = "report status watch",
	.options = top_option_table,
	.options_size = sizeof(struct top_options),
	.run = top_run,
};
