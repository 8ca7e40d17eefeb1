/* SPDX-License-Identifier: MIT */
/* Rules in a watcher: what comes true is saved, once, with what made it true; of whom, how often, and what else is done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/death.h"
#include "trigger/rules/rule.h"
#include "watching.h"

#define SECOND INT64_C(1000000000)
#define MS INT64_C(1000000)

static struct watching t;
static struct dc_rules rules;
static char path[192]; /* a file in the captures' directory */

static int setup(void **state)
{
	(void)state;
	watching_begin(&t);
	t.config.rules = &rules;
	t.config.threads = false;
	t.config.sample_hz = 0;
	t.config.on_death = false;
	t.config.last_ns = 30 * SECOND;
	snprintf(path, sizeof(path), "%s/file", t.out);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	watching_end(&t);
	dc_rules_cleanup(&rules);
	return 0;
}

static struct dc_rule *when(struct dc_rules *to, const char *name, const char *expression)
{
	struct dc_rule_error error = {0};
	struct dc_rule rule;

	dc_rule_defaults(&rule);
	if (dc_rule_parse(expression, &rule.when, &error) < 0)
		fail_msg("'%s': %u: %s", expression, error.column, error.why);
	snprintf(rule.name, sizeof(rule.name), "%s", name);
	assert_int_equal(dc_rules_add(to, &rule), 0);
	return &to->rules[to->count - 1];
}

static struct dc_incident incident_of(unsigned index)
{
	struct dc_capture *c = watching_capture(&t, index);
	struct dc_incident in = *dc_capture_incident(c);

	dc_capture_close(c);
	return in;
}

static unsigned processes_of(unsigned index)
{
	struct dc_capture *c = watching_capture(&t, index);
	const unsigned count = dc_capture_process_count(c);

	dc_capture_close(c);
	return count;
}

static struct dc_control_rule ask_rule(void)
{
	const struct dc_control_request q = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_RULES};
	const struct watching_reply r = watching_ask(&t, &q);

	assert_int_equal(r.count, 1);
	return r.last.rule;
}

static void test_span(void **state)
{
	/* A span beyond its threshold is saved as it ends, with what it was, who did it in which trace; shorter ones are not. */
	static const uint8_t id[16] = {0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c};
	struct dc_incident in;
	pid_t pid;

	(void)state;
	when(&rules, "slow-one", "span \"slow\" > 100ms");
	watching_start(&t);
	assert_string_equal(ask_rule().waits_for, "slow");
	GUEST(&t, true, "say", "ready", "hang");
	pid = GUEST(&t, true, "slow", "1", "sleep", "600", "slow", "5", "say", "ready", "trace",
		    "0af7651916cd43dd8448eb211c80319c", "slow", "150", "sleep", "5000");
	assert_int_equal(watching_captures(&t, 1), 1);
	in = incident_of(0);
	assert_int_equal(in.reason, DC_REASON_RULE);
	assert_string_equal(in.rule, "slow-one");
	assert_string_equal(in.cause.expression, "span \"slow\" > 100ms");
	assert_non_null(strstr(in.cause.sentence, "100 ms"));
	assert_string_equal(in.cause.name, "slow");
	assert_int_equal(in.cause.unit, DC_UNIT_NS);
	assert_true(in.cause.value >= 150e6 && in.cause.value < 2e9);
	assert_true(in.cause.threshold > 99e6 && in.cause.threshold < 101e6);
	assert_int_equal(in.trigger_pid, pid);
	assert_int_equal(in.trigger_tid, pid);
	assert_string_equal(in.cause.thread, "guest");
	assert_memory_equal(in.cause.trace_id, id, 16);
	assert_int_equal(in.severity, 2);
	assert_int_equal(processes_of(0), 1);
	assert_string_equal(ask_rule().waits_for, "");
	assert_int_equal(ask_rule().fired, 1);
	assert_int_equal(ask_rule().suppressed, 0);
}

static void test_budget(void **state)
{
	/* A storm is one capture per cool-down; what was held back is counted exactly and told by the next one. */
	struct dc_rule *rule = when(&rules, "storm", "span \"slow\" > 500us");
	struct dc_control_rule r;

	(void)state;
	rule->cooldown_ns = 1500 * MS;
	rule->per_hour = 10;
	watching_start(&t);
	GUEST(&t, true, "slow", "0", "say", "ready", "sleep", "600", "storm", "1", "100", "sleep", "1700", "slow", "2", "tick", "20", "0");
	assert_int_equal(watching_captures(&t, 1), 1);
	assert_int_equal(watching_captures(&t, 2), 2);
	r = ask_rule();
	assert_int_equal(r.fired, 2);
	/* and of its spans of no length those two that may be preempted for so long */
	if (r.suppressed < 95 || r.suppressed > 101)
		fail_msg("%llu were held back, expected 99", (unsigned long long)r.suppressed);
	assert_int_equal(incident_of(0).suppressed, 0);
	assert_int_equal(incident_of(1).suppressed, r.suppressed);
}

static void test_scope(void **state)
{
	/* Of one process, or of all: as the rule says; and others' spans beside it are named. */
	struct dc_incident in;

	(void)state;
	when(&rules, "everybody", "span \"slow\" > 100ms")->scope = DC_RULE_SCOPE_ALL;
	watching_start(&t);
	GUEST(&t, true, "say", "ready", "sleep", "10", "hang");
	GUEST(&t, true, "slow", "0", "say", "ready", "sleep", "800", "slow", "150", "tick", "20", "0");
	assert_int_equal(watching_captures(&t, 1), 1);
	in = incident_of(0);
	assert_int_equal(processes_of(0), 2);
	assert_int_equal(in.cause.neighbour_count, 1);
	assert_string_equal(in.cause.neighbours[0].name, "hang");
	assert_true(in.cause.neighbours[0].open_ns > 500000000u);
}

static void test_without_its_help(void **state)
{
	/* A process that is stopped, one that hangs in a span, one that records no more: noticed from outside, each once. */
	unsigned stopped = 0, open = 0;
	pid_t pid;

	(void)state;
	when(&rules, "stopped", "stopped");
	when(&rules, "open", "span \"hang\" open > 500ms");
	watching_start(&t);
	pid = GUEST(&t, true, "burst", "10", "say", "ready", "tick", "20", "0");
	GUEST(&t, true, "burst", "10", "say", "ready", "hang");
	kill(pid, SIGSTOP);
	assert_int_equal(watching_captures(&t, 2), 2);
	for (unsigned i = 0; i < 2; i++) {
		const struct dc_incident in = incident_of(i);

		stopped += strcmp(in.rule, "stopped") == 0 && in.trigger_pid == (uint32_t)pid;
		open += strcmp(in.rule, "open") == 0 && in.cause.value >= 500e6 && strcmp(in.cause.name, "hang") == 0;
	}
	assert_int_equal(stopped, 1);
	assert_int_equal(open, 1);
}

static void test_exit_code(void **state)
{
	/* An end that was no success is saved, with the code; a success is not. */
	struct dc_incident in;

	(void)state;
	if (!dc_death_supported())
		skip();
	when(&rules, "failed", "exit code != 0");
	watching_start(&t);
	watching_kill(&t, GUEST(&t, true, "burst", "10", "say", "ready", "sleep", "300", "exit", "0"), 0);
	watching_kill(&t, GUEST(&t, true, "burst", "10", "say", "ready", "sleep", "300", "exit", "3"), 0);
	assert_int_equal(watching_captures(&t, 1), 1);
	in = incident_of(0);
	assert_string_equal(in.rule, "failed");
	assert_true(in.cause.value > 2.5 && in.cause.value < 3.5);
}

static void until_file(void)
{
	struct stat st;

	for (int i = 0; i < 300 && (stat(path, &st) < 0 || st.st_size == 0); i++)
		usleep(10000);
}

/* The watcher has seen them. */
static void until_alive(unsigned count)
{
	const struct dc_control_request q = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_STATUS};

	for (int i = 0; i < 300 && watching_ask(&t, &q).last.status.alive < count; i++)
		usleep(10000);
}

static const char *text_of(pid_t pid)
{
	static char text[16];

	snprintf(text, sizeof(text), "%d", (int)pid);
	return text;
}

static void test_group_of_the_dead(void **state)
{
	/* Of a process that has ended and was reaped the others of its group are still found; and nobody else. */
	struct dc_incident in;
	pid_t leader, dead;

	(void)state;
	if (!dc_death_supported())
		skip();
	when(&rules, "failed", "exit code != 0")->scope = DC_RULE_SCOPE_GROUP;
	watching_start(&t);
	leader = GUEST(&t, true, "group", "0", "burst", "10", "say", "ready", "hang");
	GUEST(&t, true, "burst", "10", "say", "ready", "hang");
	dead = GUEST(&t, true, "group", text_of(leader), "burst", "10", "say", "ready", "sleep", "200", "exit", "3");
	watching_kill(&t, dead, 0);
	assert_int_equal(watching_captures(&t, 1), 1);
	in = incident_of(0);
	assert_int_equal(in.trigger_pid, dead);
	assert_int_equal(processes_of(0), 2);
}

static void test_restarts(void **state)
{
	/* Started again too often: the one that runs now, those that ended, and who else is in their group. */
	pid_t leader;

	(void)state;
	if (!dc_death_supported())
		skip();
	when(&rules, "again", "restart > 1 in 60s")->scope = DC_RULE_SCOPE_GROUP;
	watching_start(&t);
	leader = GUEST(&t, true, "group", "0", "burst", "10", "say", "ready", "hang");
	for (unsigned i = 0; i < 2; i++) {
		watching_kill(&t, GUEST(&t, true, "group", text_of(leader), "burst", "10", "say", "ready", "sleep", "200", "exit", "1"), 0);
		usleep(150000); /* it is judged */
	}
	assert_int_equal(watching_captures(&t, 0), 0);
	GUEST(&t, true, "group", text_of(leader), "burst", "10", "say", "ready", "hang");
	assert_int_equal(watching_captures(&t, 1), 1);
	assert_string_equal(incident_of(0).rule, "again");
	assert_int_equal(processes_of(0), 4);
}

static void test_death_of_a_group(void **state)
{
	/* The rule of deaths that ships is a rule like others: it may save the group, and run a command. */
	struct dc_rule *rule = when(&rules, "default.exit-signal", "exit signal");
	pid_t leader, dead;

	(void)state;
	if (!dc_death_supported())
		skip();
	rule->scope = DC_RULE_SCOPE_GROUP;
	snprintf(rule->run, sizeof(rule->run), "echo ran >'%s'", path);
	t.config.on_death = true;
	watching_start(&t);
	leader = GUEST(&t, true, "group", "0", "burst", "10", "say", "ready", "hang");
	GUEST(&t, true, "burst", "10", "say", "ready", "hang");
	dead = GUEST(&t, true, "group", text_of(leader), "burst", "10", "say", "ready", "hang");
	until_alive(3);
	watching_kill(&t, dead, SIGABRT);
	until_file();
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(watching_captures(&t, 1), 1);
	assert_int_equal(incident_of(0).reason, DC_REASON_DEATH);
	assert_int_equal(processes_of(0), 2);
}

static void describe(const struct dc_incident *in, const char *process, FILE *out)
{
	fprintf(out, "%s of %s: %d\n", in->rule, process, in->cause.value / 1e6 > 100);
}

static void test_command(void **state)
{
	/* A rule may run a command instead of saving: it gets the incident, and no capture is made. */
	struct dc_rule *rule = when(&rules, "tell", "span \"slow\" > 100ms");
	char text[128] = "";
	int fd;

	(void)state;
	rule->capture = false;
	snprintf(rule->run, sizeof(rule->run), "cat >'%s'", path);
	t.config.describe = describe;
	watching_start(&t);
	GUEST(&t, true, "slow", "0", "say", "ready", "sleep", "600", "slow", "150", "tick", "20", "0");
	until_file();
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	assert_string_equal(text, "tell of guest: 1\n");
	assert_int_equal(watching_captures(&t, 0), 0);
}

/* In the watcher: other rules as soon as there is a file, none of which anybody could make sense as long as there is not. */
static int reload(void *arg, struct dc_rules *ret_rules)
{
	(void)arg;
	if (access(path, F_OK) < 0)
		return -EINVAL;
	when(ret_rules, "other", "span \"slow\" > 100ms");
	return 0;
}

static void test_reload(void **state)
{
	/* SIGHUP brings other rules; what cannot be read changes nothing. */
	(void)state;
	when(&rules, "first", "span \"none of this name\" > 1ms");
	t.config.reload = reload;
	watching_start(&t);
	GUEST(&t, true, "slow", "0", "say", "ready", "sleep", "900", "slow", "150", "tick", "20", "0");
	kill(t.watcher, SIGHUP);
	usleep(300000);
	assert_string_equal(ask_rule().name, "first");
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	kill(t.watcher, SIGHUP);
	assert_int_equal(watching_captures(&t, 1), 1);
	assert_string_equal(ask_rule().name, "other");
	assert_string_equal(incident_of(0).rule, "other");
}

static struct dc_control_process ask_sampling(void)
{
	const struct dc_control_request q = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_SAMPLING};

	return watching_ask(&t, &q).last.process;
}

/* For at most three seconds. */
static bool until_rate(uint32_t hz)
{
	for (int i = 0; i < 300; i++) {
		const struct dc_control_process p = ask_sampling();

		if ((p.raised_for_ns > 0 ? p.hz : 0) == hz)
			return true;
		usleep(10000);
	}
	return false;
}

static void test_raised(void **state)
{
	/* More stacks for a while: of two wishes the higher one first, though rules are read anew; then it is over, and told. */
	struct dc_rule *rule;
	struct dc_incident in;

	(void)state;
	rule = when(&rules, "much", "counter \"level\" > 5");
	rule->sample_hz = 499;
	rule->sample_for_ns = 400 * MS;
	rule = when(&rules, "longer", "counter \"level\" > 6");
	rule->sample_hz = 199;
	rule->sample_for_ns = 1200 * MS;
	rule->capture = false;
	t.config.reload = reload;
	watching_start(&t);
	GUEST(&t, true, "count", "1", "say", "ready", "sleep", "300", "count", "9", "tick", "20", "0");
	for (int i = 0; i < 300 && !ask_sampling().raised_for_ns; i++)
		usleep(10000);
	if (!ask_sampling().raised_for_ns)
		skip(); /* neither the kernel nor the guest takes stacks here, and the watcher has said so */
	assert_int_equal(ask_sampling().hz, 499);
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	kill(t.watcher, SIGHUP);
	assert_true(until_rate(199));
	assert_string_equal(ask_rule().name, "other");
	assert_true(until_rate(0));
	assert_int_equal(watching_captures(&t, 1), 1);
	in = incident_of(0);
	assert_string_equal(in.rule, "much");
	assert_int_equal(in.cause.sample_hz, 499);
	assert_int_equal(in.cause.sample_for_ns, 400 * MS);
}

/* How many sites the guest compares the spans of. */
static unsigned thresholds(void)
{
	unsigned count = 0;
	DIR *d = opendir(t.rings);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		CLEANUP(dc_ring) struct dc_ring *ring = NULL;
		CLEANUP(free) struct dc_ring_control *control = NULL;
		char why[DC_WHY_BYTES];

		if (!strstr(e->d_name, ".ring") || dc_ring_open(dirfd(d), e->d_name, &ring, why) < 0)
			continue;
		assert_int_equal(dc_ring_control(ring, &control), 0);
		for (unsigned i = 0; i < DC_SITE_MAX; i++)
			count += control->threshold[i] != 0;
	}
	if (d)
		closedir(d);
	return count;
}

static void test_thresholds(void **state)
{
	/* Guests compare what rules want for as long as a watcher is there; one that was killed is cleared up after. */
	(void)state;
	when(&rules, "slow-one", "span \"slow\" > 10s");
	watching_start(&t);
	GUEST(&t, true, "slow", "0", "say", "ready", "tick", "20", "0");
	for (int i = 0; i < 200 && thresholds() == 0; i++)
		usleep(10000);
	assert_int_equal(thresholds(), 1);
	watching_stop(&t, SIGKILL);
	assert_int_equal(thresholds(), 1);
	dc_rules_cleanup(&rules);
	when(&rules, "other", "span \"tick\" > 10s");
	watching_start(&t);
	usleep(800000);
	assert_int_equal(thresholds(), 1);
	watching_stop(&t, SIGTERM);
	assert_int_equal(thresholds(), 0);
	assert_int_equal(watching_captures(&t, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_span, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scope, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_its_help, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exit_code, setup, teardown),
		cmocka_unit_test_setup_teardown(test_group_of_the_dead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restarts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death_of_a_group, setup, teardown),
		cmocka_unit_test_setup_teardown(test_command, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reload, setup, teardown),
		cmocka_unit_test_setup_teardown(test_raised, setup, teardown),
		cmocka_unit_test_setup_teardown(test_thresholds, setup, teardown),
	};

	return watching_run_group(tests);
}
