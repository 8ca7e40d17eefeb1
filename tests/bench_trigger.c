/* SPDX-License-Identifier: MIT */
/*
 * From something that goes wrong to the watcher's decision, and what a storm of it costs:
 *
 *     bench_trigger [--json] [--seconds N]        of the storm, 10
 *
 *   first_*      end of a span that was too long → the rule is decided, the first of a burst. Bar: p99 ≤ 1 ms
 *   stall_*      last event of a process that is stopped, deadlocked, spinning → decided, in periods of `silent`. Bar: ≤ 2
 *   storm_*      1,000 triggers a second: captures within the budget, every one counted, and the program's throughput in
 *                intervals with it against intervals whose spans are of a site that no rule is about, in turns. Bar: 2 %
 *   threshold_ns what a span costs more where the watcher has told its guest what to compare it with. Bar: 0.5 ns
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>

#include "recorder/dashcam.h"
#include "tests/bench.h"
#include "tests/bench_watching.h"
#include "trigger/control.h"
#include "trigger/rules/rule.h"

#define FIRSTS 60
#define STALLS 3
#define INTERVALS_MAX 2400
#define INTERVAL_NS 250e6
#define STORM_COOLDOWN_NS INT64_C(2000000000)
#define PAIRS 2000000L
#define ROUNDS 15

static struct shared {
	_Atomic int decided;
	_Atomic long long decided_ns;
	_Atomic long long last_event_ns[STALLS];
	_Atomic long long stall_ns[STALLS];
	_Atomic int go[STALLS];
	pid_t stalling[STALLS];
	double latencies[FIRSTS];
	double units[2][INTERVALS_MAX / 2]; /* cold, hot */
	long hot_spans;
	double threshold_ns;
} * shared;

static void busy_ns(double ns)
{
	for (double until = bench_now_ns() + ns; bench_now_ns() < until;)
		continue;
}

/* --- the watcher --- */

/* A rule that does not save says so at once: "rule 'silent': NAME[PID]: ..." */
static void on_log(void *arg, const char *line)
{
	const long long now = (long long)bench_now_ns();
	const char *pid = strchr(line, '[');

	bench_watching_log(arg, line);
	if (strncmp(line, "rule '", 6) != 0)
		return;
	for (int i = 0; pid && i < STALLS; i++)
		if (strncmp(line, "rule 'silent'", 13) == 0 && atoi(pid + 1) == shared->stalling[i] && !shared->stall_ns[i])
			atomic_store(&shared->stall_ns[i], now);
	atomic_store(&shared->decided_ns, now);
	atomic_fetch_add(&shared->decided, 1);
}

static void add_rule(struct dc_rules *rules, const char *name, const char *when, bool capture)
{
	struct dc_rule_error error;
	struct dc_rule rule;

	dc_rule_defaults(&rule);
	if (dc_rule_parse(when, &rule.when, &error) < 0)
		bench_die(error.why);
	snprintf(rule.name, sizeof rule.name, "%s", name);
	rule.capture = capture;
	rule.cooldown_ns = capture ? STORM_COOLDOWN_NS : 0;
	rule.per_hour = capture ? 60 : 0;
	if (dc_rules_add(rules, &rule) < 0)
		bench_die("no memory");
}

static void start_watcher(void)
{
	struct dc_watcher_config config;
	struct dc_rules rules = {0};

	bench_watching_begin("bench_trigger");
	shared = bench_shared(sizeof *shared);
	add_rule(&rules, "first", "span \"bench.slow\" > 1ms", false);
	add_rule(&rules, "silent", "silent for 1s", false);
	add_rule(&rules, "storm", "span \"bench.hot\" > 1us", true);
	dc_watcher_defaults(&config);
	config.rules = &rules;
	config.on_death = false;
	config.sample_hz = 0;
	config.log = on_log;
	bench_watching_start(&config);
	dc_rules_cleanup(&rules);
}

static pid_t start(void (*body)(int), int arg)
{
	const int found = atomic_load(&bench_watching->found);
	const pid_t pid = bench_watching_record(16u << 20, body, arg);

	bench_watching_wait(&bench_watching->found, found + 1, "the watcher does not find a ring");
	return pid;
}

/* --- the first of a burst --- */

static double slow_ended_ns(void)
{
	dc_span_t s = DC_BEGIN("bench.slow");
	double ended;

	busy_ns(1.2e6);
	ended = bench_now_ns();
	DC_END(s);
	return ended;
}

static void firsts(int arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++) {
		DC_SPAN("bench.slow"); /* known, quick */
	}
	bench_sleep_ms(800); /* by now its guest has been told */
	for (int i = 0; i < FIRSTS; i++) {
		const int before = atomic_load(&shared->decided);
		const double ended = slow_ended_ns();

		while (atomic_load(&shared->decided) == before && bench_now_ns() < ended + 1e9)
			bench_sleep_ms(1);
		shared->latencies[i] = atomic_load(&shared->decided) == before ? 1e9 : (double)shared->decided_ns - ended;
		bench_sleep_ms(300); /* what comes within a quarter of a second is the rest of a burst */
	}
}

/* --- stalls --- */

static void stalls(int i)
{
	for (int k = 0; !atomic_load(&shared->go[i]); k++) {
		DC_INSTANT("bench.beat", "k", k);
		atomic_store(&shared->last_event_ns[i], (long long)bench_now_ns());
		bench_sleep_ms(10);
	}
	if (i == 1) /* deadlocked: waits for what nobody will do */
		for (;;)
			pause();
	for (;;) /* spinning, or about to be stopped */
		if (i == 0)
			bench_sleep_ms(1);
}

static double stall_periods(void)
{
	double worst = 0;

	for (int i = 0; i < STALLS; i++)
		shared->stalling[i] = start(stalls, i);
	bench_sleep_ms(7000); /* silence is only noticed of what has recorded for a while */
	for (int i = 0; i < STALLS; i++) {
		if (i == 0)
			kill(shared->stalling[i], SIGSTOP);
		atomic_store(&shared->go[i], 1);
	}
	bench_sleep_ms(3500);
	for (int i = 0; i < STALLS; i++) {
		const double took = shared->stall_ns[i] ? (double)(shared->stall_ns[i] - shared->last_event_ns[i]) : 99e9;

		bench_watching_stop(shared->stalling[i], SIGKILL);
		worst = took > worst ? took : worst;
	}
	return worst / 1e9;
}

/* --- the storm --- */

static void hot_span(double ns)
{
	DC_SPAN("bench.hot");
	busy_ns(ns);
}

static void cold_span(void)
{
	DC_SPAN("bench.cold");
	busy_ns(2e3);
}

static uint64_t work(uint64_t x)
{
	for (int i = 0; i < 256; i++)
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
	return x;
}

static void storm(int intervals)
{
	uint64_t x = 88172645463325252u;

	bench_pin(0);
	hot_span(0); /* known, quick */
	bench_sleep_ms(800);
	for (int i = 0; i < intervals; i++) {
		const double until = bench_now_ns() + INTERVAL_NS;
		double now, next = 0, units = 0;

		while ((now = bench_now_ns()) < until) {
			if (now >= next) {
				i & 1 ? hot_span(2e3) : cold_span();
				shared->hot_spans += i & 1;
				next = (next > 0 ? next : now) + 1e6;
			}
			x = work(x);
			units++;
		}
		shared->units[i & 1][i / 2] = units;
	}
	shared->threshold_ns = (double)(x & 1); /* so that the work is done */
	bench_sleep_ms(1000);
}

struct told {
	uint64_t fired, suppressed;
};

static void each_rule(void *arg, const struct dc_control_reply *reply)
{
	struct told *t = arg;

	if (reply->op == DC_CONTROL_RULES && strcmp(reply->rule.name, "storm") == 0)
		*t = (struct told){reply->rule.fired, reply->rule.suppressed};
}

static struct told ask_storm(void)
{
	const struct dc_control_request q = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_RULES};
	struct told t = {0};
	char why[DC_WHY_BYTES];

	if (dc_control_ask(bench_rings, &q, each_rule, &t, why) < 0)
		bench_die(why);
	return t;
}

/* Medians of neighbours: what else runs on the machine changes slowly, or only for some of them. */
static double kept(int intervals)
{
	static double ratios[INTERVALS_MAX / 2];
	const int n = intervals / 2;

	for (int i = 0; i < n; i++)
		ratios[i] = shared->units[1][i] / shared->units[0][i];
	return bench_quantile(ratios, (size_t)n, 0.5);
}

/* --- what a threshold costs the guest --- */

static double pairs_ns(void)
{
	const double start = bench_now_ns();

	for (long i = 0; i < PAIRS; i++) {
		dc_span_t s = DC_BEGIN("bench.compared", "i", (int)i);

		DC_END(s);
	}
	return (bench_now_ns() - start) / (double)PAIRS;
}

/* Our own ring from outside. Return: the site of the spans, 0: not found. */
static uint32_t find_site(struct dc_ring **ret_ring)
{
	struct dc_ring_tables t = {0};
	char why[DC_WHY_BYTES], name[SCRATCH_BYTES + 64];
	int dir = open(bench_rings, O_RDONLY | O_DIRECTORY), r = -ENOENT;
	uint32_t site = 0;
	FILE *list;

	snprintf(name, sizeof name, "ls '%s' | grep '^%d[.].*ring$'", bench_rings, getpid());
	list = popen(name, "r");
	if (list && fgets(name, sizeof name, list)) {
		name[strcspn(name, "\n")] = '\0';
		r = dc_ring_open(dir, name, ret_ring, why);
	}
	if (list)
		pclose(list);
	if (r == 0)
		r = dc_ring_tables(*ret_ring, &t);
	for (uint32_t i = 1; r == 0 && i < t.counts.site_count; i++)
		if (strcmp(dc_ring_tables_strings(&t) + dc_ring_tables_sites(&t)[i].name, "bench.compared") == 0)
			site = i;
	free(t.bytes);
	close(dir);
	return site;
}

/* The same spans of the same site, in turns. */
static void threshold(int arg)
{
	static double with[ROUNDS], without[ROUNDS];
	struct dc_ring *ring = NULL;
	uint32_t site;

	(void)arg;
	pairs_ns();
	site = find_site(&ring);
	for (int i = 0; i < 2 * ROUNDS; i++) {
		if (!site || dc_ring_set_threshold(ring, site, i & 1 ? UINT64_C(1) << 50 : 0) < 0)
			_exit(1);
		(i & 1 ? with : without)[i / 2] = pairs_ns();
	}
	shared->threshold_ns = bench_quantile(with, ROUNDS, 0) - bench_quantile(without, ROUNDS, 0);
}

int main(int argc, char **argv)
{
	struct bench_report r;
	int seconds = 10, intervals;

	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], "--seconds") == 0 && atoi(argv[i + 1]) > 0)
			seconds = atoi(argv[i + 1]);
	intervals = seconds * 8 < INTERVALS_MAX ? seconds * 8 : INTERVALS_MAX; /* every other one is the storm */
	start_watcher();
	bench_sleep_ms(300);
	bench_watching_stop(start(firsts, 0), 0);
	const double periods = stall_periods();
	bench_watching_stop(start(storm, intervals), 0);
	const struct told told = ask_storm();
	const int saved = atomic_load(&bench_watching->saved);
	const double took_s = intervals * INTERVAL_NS / 1e9;
	bench_watching_stop(start(threshold, 0), 0);

	bench_begin(&r, "bench_trigger", argc, argv);
	bench_figure(&r, "first_p50_ms", bench_quantile(shared->latencies, FIRSTS, 0.5) / 1e6, "ms", "end of the span to the decision");
	bench_figure(&r, "first_p99_ms", bench_quantile(shared->latencies, FIRSTS, 0.99) / 1e6, "ms", "the same; bar 1");
	bench_figure(&r, "stall_periods", periods, "x", "of `silent for 1s`: stopped, deadlocked, spinning; bar 2");
	bench_figure(&r, "storm_triggers", (double)shared->hot_spans, "", "1,000 a second, every other quarter of a second");
	bench_figure(&r, "storm_counted", (double)(told.fired + told.suppressed) / (double)shared->hot_spans, "x", "of them; bar 1");
	bench_figure(&r, "storm_miscounted", fabs((double)(told.fired + told.suppressed) - (double)shared->hot_spans), "",
		     "the difference; bar 0");
	bench_figure(&r, "storm_captures", saved, "", "made");
	bench_figure(&r, "storm_over_budget", saved - (1 + took_s * 1e9 / (double)STORM_COOLDOWN_NS), "", "bar 0");
	bench_figure(&r, "storm_kept", kept(intervals), "x", "of the throughput; bar 0.98");
	bench_figure(&r, "threshold_ns", shared->threshold_ns, "ns", "a span with a threshold against one without; bar 0.5");
	bench_end(&r);
	bench_watching_end();
	return 0;
}
