/* SPDX-License-Identifier: MIT */
/* One condition: from its first word on, the words and figures that belong to it. */
#include <errno.h>
#include <string.h>

#include "ipc/event.h"
#include "trigger/rules/parse_inside.h"

#define SECOND_NS INT64_C(1000000000)
#define CPU_PERCENT_MOST 1e6 /* ten thousand cores */

/* Each function below: the next token is the one after the word that chose it. */
#define TRY(call)                                                                                                      \
	do {                                                                                                           \
		int r_ = (call);                                                                                       \
		if (r_ < 0)                                                                                            \
			return r_;                                                                                     \
	} while (0)

static int compare_number(struct parser *p, struct dc_rule_node *n)
{
	TRY(dc_rule_comparison(p, &n->compare));
	return dc_rule_number(p, &n->number);
}

static int compare_time(struct parser *p, struct dc_rule_node *n)
{
	int64_t ns;

	TRY(dc_rule_comparison(p, &n->compare));
	TRY(dc_rule_time(p, &ns));
	n->number = (double)ns;
	return 0;
}

static int compare_percent(struct parser *p, struct dc_rule_node *n, double most)
{
	const struct token *at = &p->token;

	TRY(dc_rule_comparison(p, &n->compare));
	TRY(dc_rule_percent(p, most, &n->number));
	if (n->compare == DC_RULE_GT && n->number >= most)
		return dc_rule_wrong(p, at, "it is never more than %g%%", most);
	return 0;
}

/* [ "over" TIME ]: else @usual_ns. */
static int over(struct parser *p, struct dc_rule_node *n, int64_t usual_ns)
{
	int r = dc_rule_take(p, "over");

	n->over_ns = usual_ns;
	return r > 0 ? dc_rule_length(p, &n->over_ns) : r;
}

/* Rates are counted over the unit they are said in, when nobody says otherwise. */
static int compare_rate(struct parser *p, struct dc_rule_node *n)
{
	int64_t unit_ns;

	TRY(dc_rule_comparison(p, &n->compare));
	TRY(dc_rule_rate(p, &n->number, &unit_ns));
	return over(p, n, unit_ns);
}

/* "unusual", or what @compare takes after a comparison. */
static int unusual_or(struct parser *p, struct dc_rule_node *n, int (*compare)(struct parser *p, struct dc_rule_node *n))
{
	int r = dc_rule_take(p, "unusual");

	n->unusual = r > 0;
	if (r != 0)
		return r < 0 ? r : 0;
	if (p->token.kind != TOKEN_COMPARE)
		return dc_rule_expected_word(p, "a comparison or 'unusual'", (const char *const[]){"unusual", NULL});
	return compare(p, n);
}

static int one_where(struct parser *p, struct dc_rule_node *n)
{
	struct dc_rule_expression *e = p->expression;
	struct dc_rule_where *w = &e->where[e->where_count];
	const struct token at = p->token;

	if (e->where_count == DC_RULE_WHERE_MAX)
		return dc_rule_wrong(p, &at, "one condition on arguments too many, at most %u are taken", DC_RULE_WHERE_MAX);
	if (at.kind != TOKEN_WORD && at.kind != TOKEN_TEXT)
		return dc_rule_expected(p, "the name of an argument");
	if (strlen(at.text) >= sizeof(w->key))
		return dc_rule_wrong(p, &at, "this name is too long, at most %zu bytes are taken", sizeof(w->key) - 1);
	strcpy(w->key, at.text);
	TRY(dc_rule_advance(p));
	TRY(dc_rule_comparison(p, &w->compare));
	w->is_text = p->token.kind == TOKEN_TEXT;
	if (w->is_text && w->compare != DC_RULE_EQ && w->compare != DC_RULE_NE)
		return dc_rule_expected(p, "a number: texts are compared by == and != only");
	if (!w->is_text)
		TRY(dc_rule_number(p, &w->number));
	else
		TRY(dc_rule_quoted(p, "a text", w->text, sizeof(w->text)));
	e->where_count++;
	n->where_count++;
	return 0;
}

static int where(struct parser *p, struct dc_rule_node *n)
{
	int r = dc_rule_take(p, "where");

	if (r <= 0)
		return r;
	n->where = p->expression->where_count;
	do {
		TRY(one_where(p, n));
		if (p->token.kind != TOKEN_COMMA)
			return 0;
	} while ((r = dc_rule_advance(p)) == 0);
	return r;
}

static int span_open(struct parser *p, struct dc_rule_node *n)
{
	const struct token at = p->token;
	int r = dc_rule_take(p, "unusual");

	n->op = r > 0 ? DC_RULE_SPAN_OPEN_UNUSUAL : DC_RULE_SPAN_OPEN;
	if (r != 0)
		return r;
	if (at.kind != TOKEN_COMPARE)
		return dc_rule_expected_word(p, "> and a time, or 'unusual'", (const char *const[]){"unusual", NULL});
	TRY(compare_time(p, n));
	if (n->compare != DC_RULE_GT && n->compare != DC_RULE_GE)
		return dc_rule_wrong(p, &at, "an open span only ever gets older: expected > or >=");
	return 0;
}

static int span_unusual(struct parser *p, struct dc_rule_node *n)
{
	uint64_t one_in;
	int r = dc_rule_take(p, "1");

	n->op = DC_RULE_SPAN_UNUSUAL;
	if (r <= 0)
		return r;
	TRY(dc_rule_demand(p, "in"));
	TRY(dc_rule_whole(p, 10, 1000000000, &one_in));
	n->number = (double)one_in;
	return 0;
}

/* [ ( ">" | ">=" ) TIME ]: what is below that is not slow. */
static int span_slower(struct parser *p, struct dc_rule_node *n)
{
	const struct token at = p->token;

	n->op = DC_RULE_SPAN_SLOWER;
	n->compare = DC_RULE_GT;
	if (at.kind != TOKEN_COMPARE)
		return 0;
	TRY(compare_time(p, n));
	if (n->compare != DC_RULE_GT && n->compare != DC_RULE_GE)
		return dc_rule_wrong(p, &at, "slow is what takes long: expected > or >=");
	return 0;
}

/* "p99.9", of which nothing has been taken. Return: 0: it is none. */
static int percentile_of(const struct parser *p, double *ret_percentile)
{
	const char *s = p->token.text;
	double v = 0, scale = 1;

	if (p->token.kind != TOKEN_WORD || *s++ != 'p' || *s < '0' || *s > '9')
		return 0;
	for (; *s >= '0' && *s <= '9'; s++)
		v = v * 10 + (*s - '0');
	if (*s == '.')
		for (s++; *s >= '0' && *s <= '9'; s++)
			v += (*s - '0') * (scale /= 10);
	*ret_percentile = v;
	return *s ? 0 : 1;
}

static int span_percentile(struct parser *p, struct dc_rule_node *n)
{
	if (n->percentile < 1 || n->percentile > 99.9999)
		return dc_rule_expected(p, "a percentile from p1 to p99.9999");
	n->op = DC_RULE_SPAN_PERCENTILE;
	TRY(dc_rule_advance(p));
	TRY(compare_time(p, n));
	TRY(dc_rule_demand(p, "over"));
	return dc_rule_length(p, &n->over_ns);
}

static int leaf_span(struct parser *p, struct dc_rule_node *n)
{
	static const char *const next[] = {"where", "open", "unusual", "slower", "rate", "p99", NULL};
	int r;

	TRY(dc_rule_quoted(p, "the name of a span in double quotes", n->name, sizeof(n->name)));
	TRY(where(p, n));
	if (p->token.kind == TOKEN_COMPARE) {
		n->op = DC_RULE_SPAN_LASTS;
		return compare_time(p, n);
	}
	if (percentile_of(p, &n->percentile))
		return span_percentile(p, n);
	if ((r = dc_rule_take(p, "open")) != 0)
		return r < 0 ? r : span_open(p, n);
	if ((r = dc_rule_take(p, "unusual")) != 0)
		return r < 0 ? r : span_unusual(p, n);
	if ((r = dc_rule_take(p, "slower")) != 0)
		return r < 0 ? r : span_slower(p, n);
	if ((r = dc_rule_take(p, "rate")) != 0) {
		n->op = DC_RULE_SPAN_RATE;
		return r < 0 ? r : unusual_or(p, n, compare_rate);
	}
	return dc_rule_expected_word(p, "what about the span: > TIME, p99, open, unusual, slower or rate", next);
}

static int leaf_event(struct parser *p, struct dc_rule_node *n)
{
	int r;

	TRY(dc_rule_quoted(p, "the name of an event in double quotes", n->name, sizeof(n->name)));
	TRY(where(p, n));
	r = dc_rule_take(p, "rate");
	n->op = r > 0 ? DC_RULE_EVENT_RATE : DC_RULE_EVENT;
	return r > 0 ? unusual_or(p, n, compare_rate) : r;
}

static int level(struct parser *p, struct dc_rule_node *n)
{
	static const char *const names[] = {"trace", "debug", "info", "warn", "error", "fatal", NULL};
	int r;

	for (uint8_t i = 0; names[i]; i++) {
		r = dc_rule_take(p, names[i]);
		n->level = i;
		if (r != 0)
			return r;
	}
	return dc_rule_expected_word(p, "a level: trace, debug, info, warn, error or fatal", names);
}

static int leaf_log(struct parser *p, struct dc_rule_node *n)
{
	int r;

	if (p->token.kind == TOKEN_COMPARE) {
		TRY(dc_rule_comparison(p, &n->level_compare));
		TRY(level(p, n));
	} else {
		n->level_compare = DC_RULE_GE;
	}
	r = dc_rule_take(p, "rate");
	n->op = r > 0 ? DC_RULE_LOG_RATE : DC_RULE_LOG;
	return r > 0 ? unusual_or(p, n, compare_rate) : r;
}

static int leaf_counter(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_COUNTER;
	TRY(dc_rule_quoted(p, "the name of a counter in double quotes", n->name, sizeof(n->name)));
	return unusual_or(p, n, compare_number);
}

/* `silent for 5s` is a condition of its own: what silence is depends on how long is asked for. */
static int silent(struct parser *p, struct dc_rule_node *n)
{
	int64_t ns;
	int r = dc_rule_take(p, "for");

	if (r <= 0)
		return r;
	TRY(dc_rule_length(p, &ns));
	n->number = (double)ns;
	return 0;
}

static int leaf_silent(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_SILENT;
	return silent(p, n);
}

static int leaf_thread(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_THREAD_SILENT;
	TRY(dc_rule_demand(p, "silent"));
	return silent(p, n);
}

static int leaf_stopped(struct parser *p, struct dc_rule_node *n)
{
	(void)p;
	n->op = DC_RULE_STOPPED;
	return 0;
}

static int leaf_d(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_D_STATE;
	return dc_rule_demand(p, "state");
}

static int leaf_exit(struct parser *p, struct dc_rule_node *n)
{
	int r = dc_rule_take(p, "signal");

	n->op = r > 0 ? DC_RULE_EXIT_SIGNAL : DC_RULE_EXIT_CODE;
	if (r != 0)
		return r;
	if ((r = dc_rule_take(p, "code")) == 0)
		return dc_rule_expected_word(p, "'signal' or 'code'", (const char *const[]){"signal", "code", NULL});
	return r < 0 ? r : compare_number(p, n);
}

static int leaf_exec(struct parser *p, struct dc_rule_node *n)
{
	(void)p;
	n->op = DC_RULE_EXEC;
	return 0;
}

static int leaf_restart(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_RESTART;
	TRY(compare_number(p, n));
	TRY(dc_rule_demand(p, "in"));
	return dc_rule_length(p, &n->over_ns);
}

static int leaf_cpu(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_CPU;
	return compare_percent(p, n, CPU_PERCENT_MOST);
}

/* "90% of limit", where that is said. Return: 1 and it is taken, 0. */
static int percent_of_limit(struct parser *p, struct dc_rule_node *n)
{
	if (p->token.kind != TOKEN_WORD || !strchr(p->token.text, '%'))
		return 0;
	TRY(dc_rule_percent(p, 100, &n->number));
	TRY(dc_rule_demand(p, "of"));
	TRY(dc_rule_demand(p, "limit"));
	n->of_limit = true;
	return 1;
}

static int compare_to_limit(struct parser *p, struct dc_rule_node *n)
{
	int r;

	TRY(dc_rule_comparison(p, &n->compare));
	r = percent_of_limit(p, n);
	if (r != 0)
		return r < 0 ? r : 0;
	if (p->token.text[0] == '-') /* it would be true for ever, or never */
		return dc_rule_expected(p, "a number from 0 on such as 900");
	return dc_rule_number(p, &n->number);
}

static int leaf_rss(struct parser *p, struct dc_rule_node *n)
{
	int64_t unit_ns;
	int r = dc_rule_take(p, "grows");

	if (r < 0)
		return r;
	n->op = r > 0 ? DC_RULE_RSS_GROWS : DC_RULE_RSS;
	if (r == 0 && p->token.kind != TOKEN_COMPARE)
		return dc_rule_expected_word(p, "a comparison or 'grows'", (const char *const[]){"grows", NULL});
	TRY(dc_rule_comparison(p, &n->compare));
	if (r == 0) {
		r = percent_of_limit(p, n);
		return r == 0 ? dc_rule_bytes(p, &n->number) : r < 0 ? r : 0;
	}
	TRY(dc_rule_bytes_rate(p, &n->number, &unit_ns));
	return over(p, n, unit_ns > 10 * SECOND_NS ? unit_ns : 10 * SECOND_NS);
}

static int leaf_fds(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_FDS;
	return compare_to_limit(p, n);
}

static int leaf_threads(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_THREADS;
	return compare_to_limit(p, n);
}

static int leaf_faults(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_MAJOR_FAULTS;
	TRY(dc_rule_demand(p, "rate"));
	return compare_rate(p, n);
}

static int leaf_throttled(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_THROTTLED;
	TRY(compare_percent(p, n, 100));
	TRY(dc_rule_demand(p, "over"));
	return dc_rule_length(p, &n->over_ns);
}

static int leaf_oom(struct parser *p, struct dc_rule_node *n)
{
	n->op = DC_RULE_OOM;
	return dc_rule_demand(p, "oom");
}

static int leaf_psi(struct parser *p, struct dc_rule_node *n)
{
	static const char *const of[] = {"cpu", "memory", "io", NULL};
	int r = 0;

	n->op = DC_RULE_PSI;
	for (unsigned i = 0; of[i] && r == 0; i++) {
		r = dc_rule_take(p, of[i]);
		n->pressure = (enum dc_rule_pressure)(i + 1);
	}
	if (r == 0)
		return dc_rule_expected_word(p, "'cpu', 'memory' or 'io'", of);
	if (r < 0)
		return r;
	r = dc_rule_take(p, "full");
	n->full = r > 0;
	if (r == 0 && (r = dc_rule_take(p, "some")) == 0)
		return dc_rule_expected_word(p, "'some' or 'full'", (const char *const[]){"some", "full", NULL});
	if (r < 0)
		return r;
	TRY(compare_percent(p, n, 100));
	return over(p, n, 10 * SECOND_NS);
}

static const struct {
	const char *word;
	int (*parse)(struct parser *p, struct dc_rule_node *n);
} leaves[] = {
	{"span", leaf_span},	   {"event", leaf_event},     {"log", leaf_log},
	{"counter", leaf_counter}, {"silent", leaf_silent},   {"thread", leaf_thread},
	{"stopped", leaf_stopped}, {"D", leaf_d},	      {"exit", leaf_exit},
	{"exec", leaf_exec},	   {"restart", leaf_restart}, {"cpu", leaf_cpu},
	{"rss", leaf_rss},	   {"fds", leaf_fds},	      {"threads", leaf_threads},
	{"major-faults", leaf_faults}, {"throttled", leaf_throttled}, {"memory.events", leaf_oom},
	{"psi", leaf_psi},
};
#define LEAVES (sizeof(leaves) / sizeof(leaves[0]))

int dc_rule_leaf(struct parser *p)
{
	const char *words[LEAVES + 1] = {0};
	int at, r;

	for (unsigned i = 0; i < LEAVES; i++) {
		words[i] = leaves[i].word;
		if (!dc_rule_is_word(p, leaves[i].word))
			continue;
		at = dc_rule_node_new(p, 0);
		if (at < 0)
			return at;
		r = dc_rule_advance(p);
		if (r == 0)
			r = leaves[i].parse(p, &p->expression->nodes[at]);
		return r < 0 ? r : at;
	}
	return dc_rule_expected_word(p, "a condition such as span, event, counter, silent, exit or cpu", words);
}
