/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "persist/unit.h"
#include "trigger/rules/rule.h"

static struct dc_rule_expression parsed;
static struct dc_rule_error error;

/* Every construct of the language, and the sentence it is. */
static const char *const sentences[][2] = {
	{"span \"http.request\" > 250ms", "when one span 'http.request' lasts longer than 250 ms"},
	{"span \"a\">=1m30s", "when one span 'a' lasts at least 90 s"},
	{"span \"a\" < 2h", "when one span 'a' lasts less than 2 h"},
	{"span \"a\" <= 10us", "when one span 'a' lasts at most 10 µs"},
	{"span \"a\" == 7ns", "when one span 'a' lasts exactly 7 ns"},
	{"span \"a\" != 0", "when one span 'a' lasts other than 0 ns"},
	{"span \"http.request\" where route == \"/pay\" > 250ms",
	 "when one span 'http.request' with route '/pay' lasts longer than 250 ms"},
	{"span \"r\" where route != \"/pay\", bytes >= 4096, \"user id\" == -7 unusual",
	 "when one span 'r' with route other than '/pay' and bytes at least 4096 and user id -7 lasts far longer than its like "
	 "lately do"},
	{"span \"db.*\" p99 > 50ms over 10s", "when the 99th percentile of spans 'db.*' over 10 s is above 50 ms"},
	{"span \"a\" p99.95 >= 1s over 5m", "when the 99.95th percentile of spans 'a' over 5 min is at least 1 s"},
	{"span \"job\" open > 30s", "when one span 'job' has not ended after 30 s"},
	{"span \"job\" open unusual", "when one span 'job' stays open far longer than its like ever did"},
	{"span \"a\" unusual", "when one span 'a' lasts far longer than its like lately do"},
	{"span \"a\" slower", "when one span 'a' lasts far longer than those of its kind did, as many do"},
	{"span \"a\" where k == 3 slower > 50ms",
	 "when one span 'a' with k 3 lasts far longer than those of its kind did, as many do, and more than 50 ms"},
	{"span \"a\" unusual 1 in 10000", "when one span 'a' lasts longer than all but one in 10000 lately do"},
	{"span \"a\" rate > 1000/s", "when spans 'a' end more than 1000 times a second over 1 s"},
	{"span \"a\" where ok == 0 rate < 3/min over 5m", "when spans 'a' with ok 0 end less than 3 times a minute over 5 min"},
	{"span \"a\" rate unusual", "when spans 'a' end far more often than they lately did"},
	{"span \"!(a|b*)\" > 1s", "when one span but for 'a', 'b*' lasts longer than 1 s"},
	{"span \"!(a|b|c|d|e)\" > 1s", "when one span but for 'a', 'b', 'c' and 2 more lasts longer than 1 s"},
	{"span \"*\" > 1s", "when one span lasts longer than 1 s"},
	{"event \"cache.miss\"", "when an event 'cache.miss' happens"},
	{"event \"cache.miss\" where key == \"k*\"", "when an event 'cache.miss' with key 'k*' happens"},
	{"event \"cache.miss\" rate > 1000/s over 5s", "when events 'cache.miss' happen more than 1000 times a second over 5 s"},
	{"event \"e\" rate >= 5/h", "when events 'e' happen at least 5 times an hour over 1 h"},
	{"event \"e\" where k == 3 rate unusual", "when events 'e' with k 3 happen far more often than they lately did"},
	{"log", "when a message is logged"},
	{"log >= error", "when a message of level error or above is logged"},
	{"log == info", "when a message of level info is logged"},
	{"log != debug", "when a message not of level debug is logged"},
	{"log > warn", "when a message above level warn is logged"},
	{"log < fatal", "when a message below level fatal is logged"},
	{"log <= trace", "when a message of level trace or below is logged"},
	{"log >= error rate > 10/s", "when messages of level error or above are logged more than 10 times a second over 1 s"},
	{"log rate unusual", "when messages are logged far more often than they lately did"},
	{"log >= warn rate unusual and log rate > 5/s",
	 "when messages of level warn or above are logged far more often than they lately did and messages are logged more than 5 "
	 "times a second over 1 s"},
	{"counter \"queue.depth\" unusual", "when counter 'queue.depth' grows far beyond where it lately stood"},
	{"counter \"queue.depth\" > 1000", "when counter 'queue.depth' is above 1000"},
	{"counter \"t\" <= -1.5", "when counter 't' is at most -1.5"},
	{"counter \"workers.idle\" == 0 for 1s", "when for 1 s without a break counter 'workers.idle' is 0"},
	{"counter \"c\" != 3", "when counter 'c' is not 3"},
	{"silent", "when the process that always records has recorded nothing for far longer than ever"},
	{"silent for 5s", "when the process that always records has recorded nothing for 5 s"},
	{"thread silent", "when a thread that always records has recorded nothing for far longer than ever"},
	{"thread silent for 250ms", "when a thread that always records has recorded nothing for 250 ms"},
	{"stopped", "when the process is stopped"},
	{"D state for 10s", "when for 10 s without a break a thread is in uninterruptible sleep"},
	{"exit signal", "when the process dies by a signal"},
	{"exit code != 0", "when the process exits and its code is not 0"},
	{"exec", "when the process calls exec"},
	{"restart > 3 in 60s", "when processes of its name are started again more than 3 times in 1 min"},
	{"cpu > 95% for 5s", "when for 5 s without a break it uses more than 95 % of a core"},
	{"rss > 2GiB", "when its resident memory is above 2 GiB"},
	{"rss grows > 100MiB/min", "when its resident memory grows by more than 100 MiB a minute over 1 min"},
	{"rss grows >= 1MiB/s over 30s", "when its resident memory grows by at least 1 MiB a second over 30 s"},
	{"fds > 900", "when it has more than 900 descriptors open"},
	{"fds > 90% of limit", "when it has more than 90 % of the allowed descriptors open"},
	{"threads >= 80% of limit", "when it has at least 80 % of the allowed threads"},
	{"rss > 90% of limit", "when its resident memory is above 90 % of what its cgroup may have"},
	{"threads > 500", "when it has more than 500 threads"},
	{"major-faults rate > 100/s", "when it reads pages from disk (major faults) more than 100 times a second over 1 s"},
	{"throttled > 20% over 10s", "when its cgroup is throttled in more than 20 % of its periods over 10 s"},
	{"memory.events oom", "when its cgroup runs out of memory"},
	{"psi memory some > 20% over 10s", "when some tasks of its cgroup wait for memory more than 20 % of the time over 10 s"},
	{"psi io full >= 5%", "when all tasks of its cgroup wait for I/O at least 5 % of the time over 10 s"},
	{"psi cpu some > 1.5%", "when some tasks of its cgroup wait for a CPU more than 1.5 % of the time over 10 s"},
	{"cpu > 90% and rss > 1GiB or fds > 9",
	 "when (it uses more than 90 % of a core and its resident memory is above 1 GiB) or it has more than 9 descriptors open"},
	{"cpu > 90% and (rss > 1GiB or fds > 9)",
	 "when it uses more than 90 % of a core and (its resident memory is above 1 GiB or it has more than 9 descriptors open)"},
	{"not stopped for 5s", "when it is not so that for 5 s without a break the process is stopped"},
	{"(not stopped) for 5s", "when for 5 s without a break it is not so that the process is stopped"},
	{"not (stopped or fds > 1)", "when it is not so that (the process is stopped or it has more than 1 descriptors open)"},
	{"event \"a\" within 5s and cpu > 50%",
	 "when at some moment of the last 5 s an event 'a' happens and it uses more than 50 % of a core"},
	{"event \"e\" every 10-th", "when an event 'e' happens, each 10th time"},
	{"event \"e\" every 2nd probability 5%", "when an event 'e' happens, each 2nd time, with a probability of 5 %"},
	{"event \"e\" every 13th", "when an event 'e' happens, each 13th time"},
	{"event \"e\" probability 0.1%", "when an event 'e' happens, with a probability of 0.1 %"},
	{"exit code != 0 and not exit signal",
	 "when the process exits and its code is not 0 and it is not so that the process dies by a signal"},
	{" \n( ( stopped ) )\t", "when the process is stopped"},
	{"event \"with \\\"quotes\\\" and \\\\\"", "when an event 'with \"quotes\" and \\' happens"},
};

static void test_sentences(void **state)
{
	char text[1024];

	(void)state;
	for (unsigned i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++) {
		if (dc_rule_parse(sentences[i][0], &parsed, &error) < 0)
			fail_msg("%s: column %u: %s", sentences[i][0], error.column, error.why);
		dc_rule_explain(&parsed, text, sizeof(text));
		if (strcmp(text, sentences[i][1]) != 0)
			fail_msg("%s: '%s'", sentences[i][0], text);
		assert_string_equal(parsed.text, sentences[i][0]);
		assert_int_equal(parsed.root, parsed.count - 1);
	}
}

/* What is wrong, exactly where (column and length), and what would have been right. */
static const struct {
	const char *text;
	unsigned column, length;
	const char *why;
} errors[] = {
	{"", 1, 1, "expected a condition such as span, event, counter, silent, exit or cpu, found the end"},
	{"spam \"a\" > 5ms", 1, 4, "found 'spam' (did you mean 'span'?)"},
	{"span http.request > 5ms", 6, 12, "expected the name of a span in double quotes, found 'http.request'"},
	{"span \"\" > 5ms", 6, 2, "found nothing between the quotes"},
	{"span \"a > 5ms", 6, 8, "no closing quote"},
	{"span \"a\"", 9, 1, "expected what about the span: > TIME, p99, open, unusual, slower or rate, found the end"},
	{"span \"a\" unusal", 10, 6, "(did you mean 'unusual'?)"},
	{"span \"a\" > 250", 12, 3, "expected a time such as 250ms or 30s, found '250'"},
	{"span \"a\" > fast", 12, 4, "expected a time"},
	{"span \"a\" > -5ms", 12, 4, "sensible time"},
	{"span \"a\" = 5ms", 10, 1, "'=' compares nothing, expected '=='"},
	{"span \"a\" ! 5ms", 10, 1, "expected '!=' or the word 'not'"},
	{"span \"a\" p99 > 5ms", 19, 1, "expected 'over', found the end"},
	{"span \"a\" p99 > 5ms ovr 3s", 20, 3, "expected 'over', found 'ovr' (did you mean 'over'?)"},
	{"span \"a\" p99 > 5ms over 0s", 25, 2, "expected a time from 1ms to 7d, found '0s'"},
	{"span \"a\" p99 > 5ms over 8d", 25, 2, "from 1ms to 7d"},
	{"span \"a\" p100 > 5ms over 1s", 10, 4, "expected a percentile from p1 to p99.9999, found 'p100'"},
	{"span \"a\" p0 > 5ms over 1s", 10, 2, "expected a percentile"},
	{"span \"a\" open < 5s", 15, 1, "only ever gets older"},
	{"span \"a\" slower < 5ms", 17, 1, "expected > or >="},
	{"span \"a\" slower > 5", 19, 1, "expected a time"},
	{"span \"a\" slow", 10, 4, "expected what about the span"},
	{"span \"a\" open unusually", 15, 9, "(did you mean 'unusual'?)"},
	{"span \"a\" unusual 1 in 3", 23, 1, "whole number from 10 to 1000000000"},
	{"span \"a\" unusual 1 of 100", 20, 2, "expected 'in', found 'of'"},
	{"span \"a\" where == 3 unusual", 16, 2, "expected the name of an argument, found '=='"},
	{"span \"a\" where k > \"x\" unusual", 20, 3, "texts are compared by == and != only"},
	{"span \"a\" where k == x unusual", 21, 1, "expected a number"},
	{"span \"a\" where k == 1, unusual", 31, 1, "expected a comparison"},
	{"span \"a\" rate > 5", 17, 1, "expected a rate such as 1000/s or 3/min, found '5'"},
	{"span \"a\" rate > -5/s", 17, 4, "expected a rate"},
	{"span \"a\" rate > 5/day", 17, 5, "expected a rate"},
	{"event cache.miss", 7, 10, "expected the name of an event in double quotes"},
	{"event \"a\" rat > 5/s", 11, 3, "expected 'and', 'or', 'for', 'within' or the end, found 'rat'"},
	{"log >= eror", 8, 4, "fatal, found 'eror' (did you mean 'error'?)"},
	{"counter \"a\" > 1GiB", 15, 4, "expected a number such as 1000, found '1GiB'"},
	{"counter \"a\" > 0x10", 15, 4, "expected a number"},
	{"counter \"a\" > nan", 15, 3, "expected a number"},
	{"counter \"a\" > 1e300", 15, 5, "expected a smaller number"},
	{"counter \"a\" 5", 13, 1, "expected a comparison or 'unusual', found '5'"},
	{"counter \"a\" unusal", 13, 6, "(did you mean 'unusual'?)"},
	{"log rate unusually", 10, 9, "(did you mean 'unusual'?)"},
	{"event \"a\" rate unusual over 5s", 24, 4, "expected 'and', 'or', 'for', 'within' or the end, found 'over'"},
	{"major-faults rate unusual", 19, 7, "expected a comparison"},
	{"thread quiet", 8, 5, "expected 'silent', found 'quiet'"},
	{"D stat", 3, 4, "expected 'state', found 'stat' (did you mean 'state'?)"},
	{"exit sinal", 6, 5, "expected 'signal' or 'code', found 'sinal' (did you mean 'signal'?)"},
	{"exit code 0", 11, 1, "expected a comparison"},
	{"restart > 3", 12, 1, "expected 'in', found the end"},
	{"cpu > 95", 7, 2, "expected a percentage such as 95%, found '95'"},
	{"cpu > -1%", 7, 3, "expected a percentage from 0%"},
	{"throttled > 120% over 1s", 13, 4, "expected a percentage from 0% to 100%, found '120%'"},
	{"psi disk some > 5%", 5, 4, "expected 'cpu', 'memory' or 'io', found 'disk'"},
	{"psi io most > 5%", 8, 4, "expected 'some' or 'full', found 'most'"},
	{"fds > -3", 7, 2, "expected a number from 0 on such as 900, found '-3'"},
	{"rss > lots", 7, 4, "expected a size such as 2GiB"},
	{"rss grow > 1MiB/s", 5, 4, "(did you mean 'grows'?)"},
	{"rss grows > 1MiB", 13, 4, "expected a growth such as 100MiB/min, found '1MiB'"},
	{"rss > 99999999999TiB", 7, 14, "sensible size"},
	{"major-fault rate > 5/s", 1, 11, "(did you mean 'major-faults'?)"},
	{"memory.events", 14, 1, "expected 'oom', found the end"},
	{"(stopped", 9, 1, "expected 'and', 'or', 'for', 'within' or ')', found the end"},
	{"stopped)", 8, 1, "or the end, found ')'"},
	{"stopped adn exec", 9, 3, "found 'adn' (did you mean 'and'?)"},
	{"stopped and", 12, 1, "expected a condition"},
	{"not", 4, 1, "expected a condition"},
	{"stopped for ever", 13, 4, "expected a time"},
	{"event \"a\" every", 16, 1, "expected a number such as 10-th"},
	{"event \"a\" every 10", 17, 2, "expected a number such as 10-th, found '10'"},
	{"event \"a\" probability 5", 23, 1, "expected a percentage"},
	{"event \"a\" probability 101%", 23, 4, "from 0% to 100%"},
	{"event \"a\" for 5s", 1, 9, "'for' needs something that lasts"},
	{"not event \"a\"", 1, 13, "true nearly always"},
	{"stopped or not exec", 12, 8, "true nearly always"},
	{"span \"a\" > 5ms and event \"b\"", 20, 9, "never happens at the same moment as what stands before"},
	{"exit signal and exec", 17, 4, "never happens at the same moment"},
	{"not event \"a\" within 5s and not log", 1, 35, "true nearly always"},
};

static void test_errors(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		parsed.count = 77;
		if (dc_rule_parse(errors[i].text, &parsed, &error) != -EINVAL)
			fail_msg("'%s' is taken", errors[i].text);
		if (error.column != errors[i].column || error.length != errors[i].length || !strstr(error.why, errors[i].why))
			fail_msg("'%s': column %u, %u long: %s", errors[i].text, error.column, error.length, error.why);
		assert_int_equal(parsed.count, 77); /* untouched */
	}
}

/* or binds weaker than and, that weaker than not, that weaker than for and within; rows lean to the left. */
static void test_precedence(void **state)
{
	const struct dc_rule_node *n = parsed.nodes;

	(void)state;
	assert_int_equal(dc_rule_parse("stopped or fds > 1 and not threads > 2 for 3s", &parsed, &error), 0);
	assert_int_equal(parsed.count, 7);
	assert_int_equal(n[6].op, DC_RULE_OR);
	assert_int_equal(n[n[6].left].op, DC_RULE_STOPPED);
	assert_int_equal(n[n[6].right].op, DC_RULE_AND);
	assert_int_equal(n[n[n[6].right].right].op, DC_RULE_NOT);
	assert_int_equal(n[n[n[n[6].right].right].left].op, DC_RULE_FOR);
	assert_int_equal(dc_rule_parse("stopped and fds > 1 and threads > 2", &parsed, &error), 0);
	assert_int_equal(n[4].op, DC_RULE_AND);
	assert_int_equal(n[n[4].left].op, DC_RULE_AND);
	assert_int_equal(n[n[4].right].op, DC_RULE_THREADS);
	assert_int_equal(n[n[4].right].column, 25);
	assert_int_equal(n[n[4].right].length, 11);
	assert_int_equal(n[4].column, 1);
	assert_int_equal(n[4].length, 35);
}

/* Figures arrive in the units of the header. */
static void test_figures(void **state)
{
	(void)state;
	assert_int_equal(dc_rule_parse("span \"x\" p99.9 > 50ms over 10s", &parsed, &error), 0);
	assert_true(fabs(parsed.nodes[0].percentile - 99.9) < 1e-9);
	assert_true(fabs(parsed.nodes[0].number - 50e6) < 1e-3);
	assert_int_equal(parsed.nodes[0].over_ns, 10000000000);
	assert_int_equal(dc_rule_parse("rss grows > 60MiB/min", &parsed, &error), 0);
	assert_true(fabs(parsed.nodes[0].number - 0x1p20) < 1e-3);
	assert_int_equal(dc_rule_parse("log >= error rate > 3/min", &parsed, &error), 0);
	assert_true(fabs(parsed.nodes[0].number - 0.05) < 1e-9);
	assert_int_equal(parsed.nodes[0].over_ns, 60000000000);
	assert_int_equal(parsed.nodes[0].level, 4);
	assert_int_equal(dc_rule_parse("silent for 5s", &parsed, &error), 0);
	assert_int_equal(parsed.count, 1);
	assert_true(fabs(parsed.nodes[0].number - 5e9) < 1e-3);
	assert_int_equal(dc_rule_parse("exec every 3rd probability 25%", &parsed, &error), 0);
	assert_int_equal(parsed.every, 3);
	assert_true(fabs(parsed.probability - 0.25) < 1e-9);
	assert_int_equal(dc_rule_parse("exec", &parsed, &error), 0);
	assert_true(parsed.probability >= 1);
}

/* More than a tree, its conditions on arguments, its parentheses or its text may hold is refused where it is too much. */
static void test_bounds(void **state)
{
	char text[DC_RULE_TEXT_BYTES + 8] = "exec";

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		strcat(text, " or exec");
	assert_int_equal(dc_rule_parse(text, &parsed, &error), -EINVAL);
	assert_non_null(strstr(error.why, "one condition too many, at most 32"));
	memset(text, '(', 100);
	strcpy(text + 100, "exec");
	assert_int_equal(dc_rule_parse(text, &parsed, &error), -EINVAL);
	assert_int_equal(error.column, 33);
	assert_non_null(strstr(error.why, "too many parentheses"));
	assert_int_equal(dc_rule_parse("event \"a\" where a==1,a==1,a==1,a==1,a==1,a==1,a==1,a==1,b==1", &parsed, &error), -EINVAL);
	assert_int_equal(error.column, 57);
	memset(text, ' ', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(dc_rule_parse(text, &parsed, &error), -EINVAL);
	assert_int_equal(error.column, DC_RULE_TEXT_BYTES);
	memset(text, 'x', 300);
	text[300] = '\0';
	assert_int_equal(dc_rule_parse(text, &parsed, &error), -EINVAL);
	assert_non_null(strstr(error.why, "word is too long"));
	memcpy(text, "event \"", 7);
	text[200] = '"';
	assert_int_equal(dc_rule_parse(text, &parsed, &error), -EINVAL);
	assert_int_equal(error.column, 7);
	assert_non_null(strstr(error.why, "at most 127 bytes"));
}

/* A sentence that has no room is cut, and ended. */
static void test_cut(void **state)
{
	char text[12];

	(void)state;
	assert_int_equal(dc_rule_parse("cpu > 5% and fds > 3", &parsed, &error), 0);
	memset(text, 'z', sizeof(text));
	dc_rule_explain(&parsed, text, 10);
	assert_string_equal(text, "when it u");
	assert_int_equal(text[10], 'z');
}

/* A condition of each kind, a value that makes it true, and how that is told. */
static const struct {
	const char *when;
	double value, amount, allowed;
	const char *told;
} causes[] = {
	{"span \"a\" > 250ms", 612e6, 0, 0, "612 ms against 250 ms"},
	{"span \"a\" unusual 1 in 5000", 612e6, 0, 0, "612 ms against 5.00 us"}, /* what is usual is the evaluator's to say */
	{"span \"a\" slower > 50ms", 612e6, 0, 0, "612 ms against 50.0 ms"},
	{"span \"a\" p99 > 50ms over 10s", 61e6, 0, 0, "61.0 ms against 50.0 ms"},
	{"span \"a\" open > 30s", 30.2e9, 0, 0, "30.2 s against 30.0 s"},
	{"span \"a\" open unusual", 9e9, 0, 0, "9.00 s against 0.00 ns"},
	{"span \"a\" rate > 3/min over 5m", 0.1, 0, 0, "6/min against 3/min"},
	{"event \"a\"", 1, 0, 0, ""},
	{"event \"a\" rate > 1000/s over 5s", 1200, 0, 0, "1200/s against 1000/s"},
	{"log >= error", 1, 0, 0, ""},
	{"log >= error rate > 10/s", 12, 0, 0, "12/s against 10/s"},
	{"counter \"c\" > 1000", 1001, 0, 0, "1001 against 1000"},
	{"silent for 5s", 5.25e9, 0, 0, "5.25 s against 5.00 s"},
	{"thread silent for 5s", 5.25e9, 0, 0, "5.25 s against 5.00 s"},
	{"stopped", 1, 0, 0, ""},
	{"D state", 77, 0, 0, ""},
	{"exit signal", 11, 0, 0, "SIGSEGV"},
	{"exit code != 0", 3, 0, 0, "exit code 3"},
	{"exec", 1, 0, 0, ""},
	{"restart > 3 in 60s", 4, 0, 0, "4 times against 3"},
	{"cpu > 95%", 99, 0, 0, "99 % against 95 %"},
	{"rss > 2GiB", 0x1p31 + 0x1p29, 0, 0, "2.50 GiB against 2.00 GiB"},
	{"rss > 90% of limit", 95, 0x1.e666p30, 0x1p31, "1.90 GiB of 2.00 GiB allowed, 95 % against 90 %"},
	{"rss grows > 60MiB/min", 0x1p21, 0, 0, "2.00 MiB/s against 1.00 MiB/s"},
	{"fds > 900", 901, 0, 0, "901 descriptors against 900"},
	{"fds > 90% of limit", 100.0 * 329 / 360, 329, 360, "329 of 360 allowed descriptors, 91.4 % against 90 %"},
	{"fds > 1% of limit", 100, 1048576, 1048576, "1048576 of 1048576 allowed descriptors, 100 % against 1 %"},
	{"threads > 500", 501, 0, 0, "501 threads against 500"},
	{"threads >= 80% of limit", 80, 80, 100, "80 of 100 allowed threads, 80 % against 80 %"},
	{"major-faults rate > 100/s", 150, 0, 0, "150/s against 100/s"},
	{"throttled > 20% over 10s", 30, 0, 0, "30 % against 20 %"},
	{"memory.events oom", 1, 0, 0, ""},
	{"psi memory some > 20% over 10s", 25.5, 0, 0, "25.5 % against 20 %"},
};

static void test_causes(void **state)
{
	/* What is told of a firing has its unit, whatever kind the condition is of; and there is no kind that is not here. */
	bool seen[DC_RULE_PSI + 1] = {false};

	(void)state;
	for (unsigned i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
		const struct dc_rule_node *leaf = &parsed.nodes[0];
		struct dc_cause cause = {.value = causes[i].value, .amount = causes[i].amount, .allowed = causes[i].allowed};

		if (dc_rule_parse(causes[i].when, &parsed, &error) < 0)
			fail_msg("%s: column %u: %s", causes[i].when, error.column, error.why);
		assert_true(leaf->op > DC_RULE_WITHIN);
		seen[leaf->op] = true;
		cause.threshold = leaf->number;
		cause.unit = dc_rule_unit(leaf);
		cause.amount_unit = leaf->of_limit ? dc_rule_amount_unit(leaf) : DC_UNIT_NONE;
		if (strcmp(dc_cause_text(&cause).s, causes[i].told) != 0)
			fail_msg("%s: '%s'", causes[i].when, dc_cause_text(&cause).s);
	}
	for (unsigned op = DC_RULE_WITHIN + 1; op <= DC_RULE_PSI; op++)
		if (!seen[op])
			fail_msg("no condition of kind %u", op);
}

static void test_compares(void **state)
{
	static const bool expected[][3] = {[DC_RULE_GT] = {0, 0, 1}, [DC_RULE_GE] = {0, 1, 1}, [DC_RULE_LT] = {1, 0, 0},
					   [DC_RULE_LE] = {1, 1, 0}, [DC_RULE_EQ] = {0, 1, 0}, [DC_RULE_NE] = {1, 0, 1}};

	/* What is no number is neither above nor below nor unequal. */
	(void)state;
	for (unsigned c = DC_RULE_GT; c <= DC_RULE_NE; c++) {
		for (int v = 0; v < 3; v++)
			assert_int_equal(dc_rule_compares((enum dc_rule_compare)c, v, 1), expected[c][v]);
		assert_false(dc_rule_compares((enum dc_rule_compare)c, NAN, 1));
	}
}

/* A set refuses a name that it has, and more than it holds. */
static void test_add(void **state)
{
	struct dc_rules rules = {0};
	struct dc_rule rule;

	(void)state;
	dc_rule_defaults(&rule);
	assert_true(rule.capture && rule.severity == 2 && rule.last_ns < 0 && rule.per_hour < 0);
	for (unsigned i = 0; i < DC_RULES_MAX; i++) {
		snprintf(rule.name, sizeof(rule.name), "r%u", i);
		assert_int_equal(dc_rules_add(&rules, &rule), 0);
	}
	assert_int_equal(dc_rules_add(&rules, &rule), -EEXIST);
	strcpy(rule.name, "another");
	assert_int_equal(dc_rules_add(&rules, &rule), -ENOSPC);
	assert_int_equal(rules.count, DC_RULES_MAX);
	assert_string_equal(rules.rules[63].name, "r63");
	dc_rules_cleanup(&rules);
	assert_int_equal(rules.count, 0);
}

/* The rules that ship: all quiet ones; what waits for work is none of their concern, what works is. */
static void test_default(void **state)
{
	static const char *const idle[] = {"worker.park", "idle", "http.accept", "epoll_wait", "queue.wait", "conn", "main"};
	static const char *const busy[] = {"http.request", "lock.wait", "db.query", "task.poll", "snapshot", "parse"};
	struct dc_rules rules;
	const char *pattern;

	(void)state;
	assert_int_equal(dc_rules_default(&rules), 0);
	assert_int_equal(rules.count, 11);
	assert_string_equal(rules.rules[0].name, "default.exit-signal");
	for (unsigned i = 0; i < rules.count; i++)
		assert_true(rules.rules[i].quiet && rules.rules[i].capture && strncmp(rules.rules[i].name, "default.", 8) == 0);
	pattern = rules.rules[4].when.nodes[0].name;
	for (unsigned i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
		if (fnmatch(pattern, idle[i], FNM_EXTMATCH) == 0)
			fail_msg("'%s' counts as work", idle[i]);
	for (unsigned i = 0; i < sizeof(busy) / sizeof(busy[0]); i++)
		if (fnmatch(pattern, busy[i], FNM_EXTMATCH) != 0)
			fail_msg("'%s' counts as idle", busy[i]);
	dc_rules_cleanup(&rules);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sentences), cmocka_unit_test(test_errors),   cmocka_unit_test(test_precedence),
		cmocka_unit_test(test_figures),	  cmocka_unit_test(test_bounds),   cmocka_unit_test(test_cut),
		cmocka_unit_test(test_causes),
		cmocka_unit_test(test_compares),  cmocka_unit_test(test_add),	   cmocka_unit_test(test_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
