/* SPDX-License-Identifier: MIT */
/* Rules about what can be seen of a process from outside: how it does, how it ends, how often it is started again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <string.h>

#include "evaluating.h"

static struct dc_vitals vitals;

static void vital(int64_t ns)
{
	now += ns;
	vitals.at_ns = now;
	dc_evaluate_vitals(evaluate, subject, &vitals, now);
	dc_evaluate_tick(evaluate, now);
}

static void begin_vitals(const char *when)
{
	begin(when);
	vitals = (struct dc_vitals){.known = UINT32_MAX, .state = 'S'};
	vital(0);
	assert_int_equal(since(), 0);
}

static void test_vitals(void **state)
{
	(void)state;
	begin_vitals("cpu > 95%");
	assert_int_equal(dc_evaluate_wants(evaluate), DC_VITALS_CPU);
	vitals.cpu_ns += 950 * MS;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.cpu_ns += 960 * MS;
	vital(SECOND);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 96) < 1e-6);
	vitals.cpu_ns += 960 * MS;
	vital(SECOND);
	assert_int_equal(since(), 1); /* an edge */

	begin_vitals("rss > 2GiB or fds > 900 or threads >= 500");
	assert_int_equal(dc_evaluate_wants(evaluate), DC_VITALS_MEMORY | DC_VITALS_FDS | DC_VITALS_THREADS);
	vitals.rss_bytes = UINT64_C(2) << 30;
	vitals.fds = 900;
	vitals.threads = 499;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.fds = 901;
	vital(SECOND);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].leaf->op, DC_RULE_FDS);
	since();
	vitals.threads = 500;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.threads = vitals.fds = 0;
	vital(SECOND);
	vitals.rss_bytes++;
	vital(SECOND);
	assert_int_equal(since(), 1);

	begin_vitals("fds > 90% of limit");
	assert_int_equal(dc_evaluate_wants(evaluate), DC_VITALS_FDS | DC_VITALS_LIMITS);
	vitals.fds = 900;
	vital(SECOND); /* no limit at all */
	vitals.fds_limit = 1000;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.fds++;
	vital(SECOND);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 90.1) < 1e-9 && fabs(fired[0].threshold - 90) < 1e-9);
	assert_true(fabs(fired[0].amount - 901) < 1e-9 && fabs(fired[0].allowed - 1000) < 1e-9);

	begin_vitals("stopped");
	vitals.state = 'T';
	vitals.known = DC_VITALS_STATE;
	vital(SECOND);
	assert_int_equal(since(), 1);
	vitals.known = 0; /* not known any more is not true any more */
	vital(SECOND);
	vitals.known = DC_VITALS_STATE;
	vital(SECOND);
	assert_int_equal(since(), 1);

	begin_vitals("D state for 10s");
	vitals.d_tid = 77;
	for (unsigned i = 0; i < 10; i++)
		vital(SECOND);
	assert_int_equal(since(), 0);
	vital(SECOND);
	assert_int_equal(firings, 1);
	assert_int_equal(fired[0].tid, 77);
}

static void test_vitals_over_time(void **state)
{
	(void)state;
	begin_vitals("rss grows > 60MiB/min");
	for (unsigned i = 0; i < 120; i++) {
		vitals.rss_bytes += 1 << 20;
		vital(SECOND);
	}
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 60; i++) {
		vitals.rss_bytes += 3 << 19;
		vital(SECOND);
	}
	assert_int_equal(since(), 1);

	begin_vitals("major-faults rate > 100/s");
	vitals.major_faults = 100;
	vital(SECOND);
	assert_int_equal(since(), 0);
	vitals.major_faults = 201;
	vital(SECOND);
	assert_int_equal(since(), 1);

	begin_vitals("throttled > 20% over 10s");
	for (unsigned i = 0; i < 30; i++) {
		vitals.cgroup_periods += 10;
		vitals.cgroup_throttled += 2;
		vital(SECOND);
	}
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 10; i++) {
		vitals.cgroup_periods += 10;
		vitals.cgroup_throttled += 9;
		vital(SECOND);
	}
	assert_int_equal(since(), 1);

	begin_vitals("psi memory some > 20% over 10s");
	for (unsigned i = 0; i < 11; i++) {
		vitals.psi_us[1][0] += 190000;
		vitals.psi_us[0][0] += 900000;
		vital(SECOND);
	}
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 11; i++) {
		vitals.psi_us[1][0] += 250000;
		vital(SECOND);
	}
	assert_int_equal(since(), 1);

	begin_vitals("memory.events oom");
	vital(SECOND);
	vitals.cgroup_oom = 1;
	vital(SECOND);
	vital(SECOND);
	assert_int_equal(since(), 1);
}

static void test_ends(void **state)
{
	(void)state;
	begin("exit signal");
	dc_evaluate_ended(evaluate, subject, W_EXIT(1), now);
	assert_int_equal(since(), 0);
	dc_evaluate_ended(evaluate, subject, SIGSEGV, now);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - SIGSEGV) < 1e-9);
	begin("exit code != 0 and not exit signal");
	dc_evaluate_ended(evaluate, subject, W_EXIT(0), now);
	dc_evaluate_ended(evaluate, subject, SIGTERM, now);
	assert_int_equal(since(), 0);
	dc_evaluate_ended(evaluate, subject, W_EXIT(3), now);
	assert_int_equal(since(), 1);
	begin("exec");
	dc_evaluate_exec(evaluate, subject, now);
	assert_int_equal(since(), 1);
}

static void test_restart(void **state)
{
	/* A pool of processes that starts is no restart; one that ends and starts again and again is; other names are others. */
	struct dc_subject *all[9];

	(void)state;
	begin("restart > 3 in 60s");
	for (unsigned i = 0; i < 9; i++)
		all[i] = dc_evaluate_process(evaluate, "server", 1e9, NULL, now);
	assert_int_equal(since(), 0);
	for (unsigned i = 0; i < 4; i++) {
		dc_evaluate_ended(evaluate, all[i], W_EXIT(1), now);
		dc_evaluate_forget(evaluate, all[i]);
		assert_int_equal(since(), 0);
		now += 5 * SECOND;
		dc_evaluate_process(evaluate, i % 2 ? "other" : "server", 1e9, NULL, now);
	}
	assert_int_equal(since(), 0);
	dc_evaluate_process(evaluate, "server", 1e9, NULL, now);
	dc_evaluate_process(evaluate, "server", 1e9, NULL, now);
	assert_int_equal(firings, 1);
	assert_true(fabs(fired[0].value - 4) < 1e-9);
	dc_evaluate_process(evaluate, "server", 1e9, NULL, now); /* nobody ended for this one */
	assert_int_equal(since(), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vitals),
		cmocka_unit_test(test_vitals_over_time),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_restart),
	};

	return cmocka_run_group_tests(tests, NULL, evaluating_end);
}
