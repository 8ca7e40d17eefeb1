/* SPDX-License-Identifier: MIT */
/* A rule in a sentence, for people who did not write it. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "trigger/rules/rule.h"

#define LEFT_OUT_SAID 3u

/* What is written so far; what does not fit is cut. */
struct sentence {
	char *at;
	size_t left; /* with the NUL */
	const struct dc_rule_expression *expression;
};

__attribute__((format(printf, 2, 3))) static void say(struct sentence *s, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(s->at, s->left, format, args);
	va_end(args);
	if (n < 0)
		return;
	if ((size_t)n >= s->left)
		n = (int)s->left - 1;
	s->at += n;
	s->left -= (size_t)n;
}

static void say_scaled(struct sentence *s, double v, const double *scales, const char *const *units, unsigned count)
{
	unsigned i = 0;

	while (i + 1 < count && v >= scales[i + 1])
		i++;
	say(s, "%.6g %s", v / scales[i], units[i]);
}

static void say_time(struct sentence *s, double ns)
{
	static const double scales[] = {1, 1e3, 1e6, 1e9, 60e9, 3600e9};
	static const char *const units[] = {"ns", "µs", "ms", "s", "min", "h"};
	unsigned count = 6;

	/* 90s is better said as 90 s than as 1.5 min. */
	while (count > 4 && fmod(ns, scales[count - 1]) > 0)
		count--;
	say_scaled(s, ns, scales, units, count);
}

static void say_bytes(struct sentence *s, double bytes)
{
	static const double scales[] = {1, 0x1p10, 0x1p20, 0x1p30, 0x1p40};
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};

	say_scaled(s, bytes, scales, units, 5);
}

/* The largest unit in which it is at least one. */
static const char *rate_unit(double per_s, double *ret_factor)
{
	*ret_factor = per_s >= 1 || per_s <= 0 ? 1 : per_s * 60 >= 1 - 1e-9 ? 60 : 3600;
	return *ret_factor <= 1 ? "a second" : *ret_factor <= 60 ? "a minute" : "an hour";
}

static const char *than(enum dc_rule_compare c)
{
	static const char *const words[] = {"", "more than", "at least", "less than", "at most", "exactly", "other than"};

	return words[c];
}

static const char *above(enum dc_rule_compare c)
{
	static const char *const words[] = {"", "above", "at least", "below", "at most", "", "other than"};

	return words[c];
}

/* "is above 1000", "is 0", "is not 0" */
static void say_is(struct sentence *s, enum dc_rule_compare c)
{
	say(s, " is %s%s", c == DC_RULE_NE ? "not" : above(c), c == DC_RULE_EQ ? "" : " ");
}

static void say_where(struct sentence *s, const struct dc_rule_node *n)
{
	for (unsigned i = 0; i < n->where_count; i++) {
		const struct dc_rule_where *w = &s->expression->where[n->where + i];

		say(s, "%s %s %s%s", i == 0 ? " with" : " and", w->key, above(w->compare), w->compare == DC_RULE_EQ ? "" : " ");
		if (w->is_text)
			say(s, "'%s'", w->text);
		else
			say(s, "%.10g", w->number);
	}
}

/* "!(a|b)": the first few; a rule that leaves out more than people read says so of the rest. */
static void say_left_out(struct sentence *s, const char *what, const char *pattern)
{
	const size_t length = strlen(pattern);
	unsigned said = 0, more = 0;

	say(s, "%s but for", what);
	for (size_t at = 2, bytes; at < length; at += bytes + 1) {
		bytes = strcspn(&pattern[at], "|)");
		if (said == LEFT_OUT_SAID) {
			more++;
		} else {
			say(s, "%s '%.*s'", said ? "," : "", (int)bytes, &pattern[at]);
			said++;
		}
	}
	if (more)
		say(s, " and %u more", more);
}

static void say_named(struct sentence *s, const char *what, const struct dc_rule_node *n)
{
	const size_t length = strlen(n->name);

	if (strncmp(n->name, "!(", 2) == 0 && strcspn(n->name, ")") + 1 == length) { /* what fnmatch(3) leaves out */
		say_left_out(s, what, n->name);
	} else if (strcmp(n->name, "*") == 0) {
		say(s, "%s", what);
	} else {
		say(s, "%s '%s'", what, n->name);
	}
	say_where(s, n);
}

/* "more than 10 times a second, over 1 s" */
static void say_times(struct sentence *s, const struct dc_rule_node *n)
{
	double factor;
	const char *unit = rate_unit(n->number, &factor);

	if (n->unusual) {
		say(s, " far more often than they lately did");
		return;
	}
	say(s, " %s %.6g times %s over ", than(n->compare), n->number * factor, unit);
	say_time(s, (double)n->over_ns);
}

static void say_percentile(struct sentence *s, const struct dc_rule_node *n)
{
	say(s, "the %.6gth percentile of ", n->percentile);
	say_named(s, "spans", n);
	say(s, " over ");
	say_time(s, (double)n->over_ns);
	say_is(s, n->compare);
	say_time(s, n->number);
}

static const char *lasts(enum dc_rule_compare c)
{
	static const char *const words[] = {"",		      "lasts longer than", "lasts at least", "lasts less than", "lasts at most",
					    "lasts exactly", "lasts other than"};

	return words[c];
}

static void say_span(struct sentence *s, const struct dc_rule_node *n)
{
	if (n->op == DC_RULE_SPAN_PERCENTILE) {
		say_percentile(s, n);
		return;
	}
	say_named(s, n->op == DC_RULE_SPAN_RATE ? "spans" : "one span", n);
	switch (n->op) {
	case DC_RULE_SPAN_LASTS:
		say(s, " %s ", lasts(n->compare));
		say_time(s, n->number);
		break;
	case DC_RULE_SPAN_UNUSUAL:
		if (n->number > 0)
			say(s, " lasts longer than all but one in %.0f lately do", n->number);
		else
			say(s, " lasts far longer than its like lately do");
		break;
	case DC_RULE_SPAN_SLOWER:
		say(s, " lasts far longer than those of its kind did, as many do");
		if (n->number > 0) {
			say(s, ", and %s ", than(n->compare));
			say_time(s, n->number);
		}
		break;
	case DC_RULE_SPAN_OPEN:
		say(s, " has not ended after ");
		say_time(s, n->number);
		break;
	case DC_RULE_SPAN_OPEN_UNUSUAL:
		say(s, " stays open far longer than its like ever did");
		break;
	default: /* DC_RULE_SPAN_RATE */
		say(s, " end");
		say_times(s, n);
	}
}

static void say_level(struct sentence *s, const struct dc_rule_node *n)
{
	static const char *const names[] = {"trace", "debug", "info", "warn", "error", "fatal"};
	static const char *const before[] = {"", "above", "of", "below", "of", "of", "not of"};
	const char *after = n->level_compare == DC_RULE_GE ? " or above" : n->level_compare == DC_RULE_LE ? " or below" : "";

	if (n->level_compare != DC_RULE_GE || n->level > 0)
		say(s, " %s level %s%s", before[n->level_compare], names[n->level], after);
}

static void say_log(struct sentence *s, const struct dc_rule_node *n)
{
	bool rate = n->op == DC_RULE_LOG_RATE;

	say(s, rate ? "messages" : "a message");
	say_level(s, n);
	say(s, rate ? " are logged" : " is logged");
	if (rate)
		say_times(s, n);
}

static void say_event(struct sentence *s, const struct dc_rule_node *n)
{
	bool rate = n->op == DC_RULE_EVENT_RATE;

	say_named(s, rate ? "events" : "an event", n);
	say(s, rate ? " happen" : " happens");
	if (rate)
		say_times(s, n);
}

static void say_counter(struct sentence *s, const struct dc_rule_node *n)
{
	say_named(s, "counter", n);
	if (n->unusual) {
		say(s, " grows far beyond where it lately stood");
		return;
	}
	say_is(s, n->compare);
	say(s, "%.10g", n->number);
}

static void say_silent(struct sentence *s, const struct dc_rule_node *n)
{
	const char *who = n->op == DC_RULE_SILENT ? "the process" : "a thread";

	if (n->number > 0) {
		say(s, "%s that always records has recorded nothing for ", who);
		say_time(s, n->number);
	} else {
		say(s, "%s that always records has recorded nothing for far longer than ever", who);
	}
}

static void say_growth(struct sentence *s, const struct dc_rule_node *n)
{
	double factor = n->over_ns >= 60 * INT64_C(1000000000) ? 60 : 1;

	say(s, "its resident memory grows by %s ", than(n->compare));
	say_bytes(s, n->number * factor);
	say(s, " a %s over ", factor > 1 ? "minute" : "second");
	say_time(s, (double)n->over_ns);
}

static void say_percent(struct sentence *s, const char *what, const struct dc_rule_node *n, const char *of)
{
	say(s, "%s %s %.6g %% %s", what, than(n->compare), n->number, of);
	if (n->over_ns) {
		say(s, " over ");
		say_time(s, (double)n->over_ns);
	}
}

static void say_psi(struct sentence *s, const struct dc_rule_node *n)
{
	static const char *const what[] = {"", "a CPU", "memory", "I/O"};
	char text[64];

	snprintf(text, sizeof(text), "%s tasks of its cgroup wait for %s", n->full ? "all" : "some", what[n->pressure]);
	say_percent(s, text, n, "of the time");
}

static void say_outside(struct sentence *s, const struct dc_rule_node *n)
{
	switch (n->op) {
	case DC_RULE_STOPPED:
		say(s, "the process is stopped");
		break;
	case DC_RULE_D_STATE:
		say(s, "a thread is in uninterruptible sleep");
		break;
	case DC_RULE_EXIT_SIGNAL:
		say(s, "the process dies by a signal");
		break;
	case DC_RULE_EXIT_CODE:
		say(s, "the process exits and its code");
		say_is(s, n->compare);
		say(s, "%.10g", n->number);
		break;
	case DC_RULE_EXEC:
		say(s, "the process calls exec");
		break;
	case DC_RULE_RESTART:
		say(s, "processes of its name are started again %s %.10g times in ", than(n->compare), n->number);
		say_time(s, (double)n->over_ns);
		break;
	case DC_RULE_CPU:
		say_percent(s, "it uses", n, "of a core");
		break;
	case DC_RULE_RSS:
		say(s, "its resident memory");
		say_is(s, n->compare);
		if (n->of_limit)
			say(s, "%.10g %% of what its cgroup may have", n->number);
		else
			say_bytes(s, n->number);
		break;
	case DC_RULE_RSS_GROWS:
		say_growth(s, n);
		break;
	case DC_RULE_FDS:
		say(s, "it has %s %.10g%s descriptors open", than(n->compare), n->number,
		    n->of_limit ? " % of the allowed" : "");
		break;
	case DC_RULE_THREADS:
		say(s, "it has %s %.10g%s threads", than(n->compare), n->number, n->of_limit ? " % of the allowed" : "");
		break;
	case DC_RULE_MAJOR_FAULTS:
		say(s, "it reads pages from disk (major faults)");
		say_times(s, n);
		break;
	case DC_RULE_THROTTLED:
		say_percent(s, "its cgroup is throttled in", n, "of its periods");
		break;
	case DC_RULE_OOM:
		say(s, "its cgroup runs out of memory");
		break;
	default: /* DC_RULE_PSI */
		say_psi(s, n);
	}
}

static void say_node(struct sentence *s, unsigned i);

/* A part of another: in parentheses where it would be read otherwise. */
static void say_part(struct sentence *s, const struct dc_rule_node *of, unsigned i)
{
	enum dc_rule_op op = s->expression->nodes[i].op;
	bool row = op == DC_RULE_AND || op == DC_RULE_OR;
	bool apart = row && op != of->op;

	if (apart)
		say(s, "(");
	say_node(s, i);
	if (apart)
		say(s, ")");
}

static void say_timed(struct sentence *s, const struct dc_rule_node *n, const char *before, const char *after)
{
	say(s, "%s ", before);
	say_time(s, (double)n->over_ns);
	say(s, "%s", after);
	say_part(s, n, n->left);
}

static void say_node(struct sentence *s, unsigned i)
{
	const struct dc_rule_node *n = &s->expression->nodes[i];

	switch (n->op) {
	case DC_RULE_AND:
	case DC_RULE_OR:
		say_part(s, n, n->left);
		say(s, n->op == DC_RULE_AND ? " and " : " or ");
		say_part(s, n, n->right);
		break;
	case DC_RULE_NOT:
		say(s, "it is not so that ");
		say_part(s, n, n->left);
		break;
	case DC_RULE_FOR:
		say_timed(s, n, "for", " without a break ");
		break;
	case DC_RULE_WITHIN:
		say_timed(s, n, "at some moment of the last", " ");
		break;
	case DC_RULE_SPAN_LASTS:
	case DC_RULE_SPAN_UNUSUAL:
	case DC_RULE_SPAN_SLOWER:
	case DC_RULE_SPAN_PERCENTILE:
	case DC_RULE_SPAN_OPEN:
	case DC_RULE_SPAN_OPEN_UNUSUAL:
	case DC_RULE_SPAN_RATE:
		say_span(s, n);
		break;
	case DC_RULE_EVENT:
	case DC_RULE_EVENT_RATE:
		say_event(s, n);
		break;
	case DC_RULE_LOG:
	case DC_RULE_LOG_RATE:
		say_log(s, n);
		break;
	case DC_RULE_COUNTER:
		say_counter(s, n);
		break;
	case DC_RULE_SILENT:
	case DC_RULE_THREAD_SILENT:
		say_silent(s, n);
		break;
	default:
		say_outside(s, n);
	}
}

void dc_rule_explain(const struct dc_rule_expression *e, char *ret_text, size_t size)
{
	struct sentence s = {.at = ret_text, .left = size, .expression = e};

	if (size == 0)
		return;
	*ret_text = '\0';
	say(&s, "when ");
	say_node(&s, e->root);
	if (e->every > 1)
		say(&s, ", each %u%s time", e->every,
		    e->every % 100 / 10 == 1 ? "th" : e->every % 10 == 1 ? "st" : e->every % 10 == 2 ? "nd" : e->every % 10 == 3 ? "rd" : "th");
	if (e->probability < 1)
		say(&s, ", with a probability of %.6g %%", 100 * e->probability);
}
