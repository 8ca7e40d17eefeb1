/* SPDX-License-Identifier: MIT */
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

#include "persist/stacks/stacks.h"
#include "ringfile.h"
#include "trigger/death.h"
#include "trigger/recover.h"
#include "trigger/run.h"
#include "watching.h"

static struct watching t;
static char guest[512], logs[256];

static int setup(void **state)
{
	const char *build = getenv("DASHCAM_BUILD");

	(void)state;
	watching_begin(&t);
	snprintf(guest, sizeof(guest), "%s/tests/guest", build ? build : ".");
	snprintf(logs, sizeof(logs), "%s/log", t.rings);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	watching_end(&t);
	return 0;
}

static void to_file(void *arg, const char *line)
{
	FILE *f = fopen(logs, "ae");

	(void)arg;
	fprintf(f, "%s\n", line);
	fclose(f);
}

/* dashcam run, as a process of its own; ends as the command did. */
static pid_t start_run(bool on_exit, const char *const *argv)
{
	struct dc_run_config c = {.watcher = t.config, .argv = (char *const *)argv, .on_exit = on_exit};
	char why[DC_WHY_BYTES];
	int status, r;
	pid_t pid = fork();

	if (pid)
		return pid;
	c.watcher.log = to_file;
	r = dc_run(&c, &status, why);
	if (r < 0) {
		to_file(NULL, why);
		_exit(1);
	}
	_exit(dc_run_end(status));
}

static int run(bool on_exit, const char *const *argv)
{
	int status = 0;
	pid_t pid = start_run(on_exit, argv);

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}
#define RUN(on_exit, ...) run(on_exit, (const char *const[]){__VA_ARGS__, NULL})

static unsigned private_dirs(void)
{
	DIR *d = opendir(t.rings);
	struct dirent *e;
	unsigned n = 0;

	while ((e = readdir(d)))
		n += dc_rings_run_parse(e->d_name) != 0;
	closedir(d);
	return n;
}

static bool said(const char *what)
{
	char text[8192] = "";
	int fd = open(logs, O_RDONLY);

	if (fd >= 0) {
		assert_true(read(fd, text, sizeof(text) - 1) >= 0);
		close(fd);
	}
	return strstr(text, what) != NULL;
}

static void test_status_comes_back(void **state)
{
	/* The command's exit status is ours; an orderly end saves nothing and leaves nothing behind. */
	(void)state;
	assert_int_equal(RUN(false, guest, "burst", "100", "exit", "3"), 3 << 8);
	assert_true(said("dashcam trigger --pid"));
	assert_int_equal(watching_captures(&t, 0), 0);
	assert_int_equal(private_dirs(), 0);
	assert_int_equal(RUN(false, "/does/not/exist"), 127 << 8);
	assert_true(said("cannot run '/does/not/exist': No such file or directory"));
	assert_int_equal(private_dirs(), 0);
}

static void test_death_by_signal(void **state)
{
	/* A command that dies by a signal is saved to its last event, and shells see the same signal. */
	struct dc_capture_totals totals;
	struct dc_capture *c;
	int status = RUN(false, guest, "burst", "5000", "signal", "11");

	(void)state;
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	status = RUN(false, guest, "burst", "7000", "signal", "9");
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(watching_captures(&t, 2), 2);
	for (unsigned i = 0; i < 2; i++) {
		c = watching_capture(&t, i);
		assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_DEATH);
		assert_int_equal(dc_capture_incident(c)->signal, i ? SIGKILL : SIGSEGV);
		assert_int_equal(dc_capture_totals(c, 0, &totals), 0);
		assert_int_equal(totals.events, i ? 14000 : 10000);
		assert_int_equal(dc_capture_process(c, 0)->exit_known, 1);
		dc_capture_close(c);
	}
	assert_int_equal(private_dirs(), 0);
}

static void test_death_behind_a_shell(void **state)
{
	/*
	 * A program that dies inside a shell is saved too, although the shell reaps it at once and its own end is orderly:
	 * the kernel's connector tells how it died, where it may; else the program must live long enough to be seen.
	 */
	const bool told = watching_connector_tells();
	char command[600];
	int status;

	(void)state;
	snprintf(command, sizeof(command), "%s burst 100 %s signal 6; exit 5", guest, told ? "" : "sleep 300");
	for (unsigned i = 1; i <= (told ? 5 : 1); i++) {
		status = RUN(false, "sh", "-c", command);
		assert_int_equal(status, 5 << 8);
		assert_int_equal(watching_captures(&t, i), i);
	}
}

static void test_on_exit(void **state)
{
	/* With on_exit an orderly end is saved as well, with the status in its words, all processes in it. */
	struct dc_capture *c;
	unsigned recorded = 0;

	(void)state;
	assert_int_equal(RUN(true, guest, "burst", "100", "fork", "burst", "50", "exit", "4"), 4 << 8);
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_EXIT);
	assert_non_null(strstr(dc_capture_incident(c)->text, "status 4"));
	for (unsigned i = 0; i < dc_capture_process_count(c); i++) /* a sanitizer makes processes of its own */
		recorded += dc_capture_process(c, i)->ring[0] != 0;
	assert_int_equal(recorded, 2);
	dc_capture_close(c);
}

static void test_no_recorder_inside(void **state)
{
	/* A program without the recorder runs as ever, and one line says so. */
	(void)state;
	assert_int_equal(RUN(false, "sh", "-c", "exit 7"), 7 << 8);
	assert_true(said("has no recorder inside"));
}

static bool perf_is_refused(void)
{
	const struct dc_sampler_config config = {.hz = 49};
	struct dc_sampler *s;
	bool refused;

	assert_int_equal(dc_sampler_new(&config, &s), 0);
	refused = dc_sampler_fd(s) < 0;
	dc_sampler_free(s);
	return refused;
}

static uint64_t cpu_samples(struct dc_capture *c, unsigned process)
{
	struct dc_stacks_totals totals;
	struct dc_stacks *s;

	assert_int_equal(dc_stacks_open(c, process, &s), 0);
	assert_int_equal(dc_stacks_totals(s, &totals), 0);
	dc_stacks_close(s);
	return totals.samples[DC_SAMPLE_CPU];
}

static void test_death_without_a_recorder(void **state)
{
	/* A program that never heard of dashcam is sampled, and saved when it dies by a signal: once, with all that is known. */
	const int64_t started = time(NULL);
	const struct dc_process *p;
	struct dc_capture *c;
	int status;

	(void)state;
	if (perf_is_refused())
		skip();
	status = RUN(false, "sh", "-c", "i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done; kill -SEGV $$");
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	assert_true(said("only sampled"));
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	p = dc_capture_process(c, 0);
	assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_DEATH);
	assert_int_equal(dc_capture_incident(c)->signal, SIGSEGV);
	assert_in_range(dc_capture_incident(c)->at_realtime_ns / 1000000000, started, time(NULL));
	assert_int_equal(dc_capture_process_count(c), 1);
	assert_string_equal(p->name, "sh");
	assert_string_equal(p->ring, "");
	assert_true(p->exit_known && p->exit_signal == SIGSEGV && p->verified);
	assert_int_equal(p->uid, geteuid());
	assert_int_equal(p->sample_scope, DC_SAMPLE_SCOPE_PROCESS);
	assert_int_equal(p->sample_hz, 49);
	assert_true(p->samples_from_ns > 0);
	assert_true(cpu_samples(c, 0) > 3);
	dc_capture_close(c);
}

static void test_descendants_without_a_recorder(void **state)
{
	/* What a command starts is watched as well, as far as it crashes; a helper that is told to end is no incident. */
	struct dc_capture *c;

	(void)state;
	if (perf_is_refused() || !dc_death_supported())
		skip();
	assert_int_equal(RUN(false, "sh", "-c", "sh -c 'sleep 0.3; kill -TERM $$'; exit 5"), 5 << 8);
	assert_int_equal(watching_captures(&t, 0), 0);
	assert_int_equal(RUN(false, "sh", "-c", "sh -c 'sleep 0.3; kill -ABRT $$'; exit 5"), 5 << 8);
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_incident(c)->signal, SIGABRT);
	dc_capture_close(c);
}

static void test_sampled_beside_its_ring(void **state)
{
	/* A program with the recorder inside is one process in its capture, with events and samples. */
	struct dc_capture_totals totals;
	struct dc_capture *c;

	(void)state;
	if (perf_is_refused())
		skip();
	RUN(false, guest, "burst", "5000000", "signal", "11");
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_process_count(c), 1);
	assert_int_equal(dc_capture_totals(c, 0, &totals), 0);
	assert_true(totals.events > 100000);
	assert_true(cpu_samples(c, 0) > 3);
	dc_capture_close(c);
}

static void test_sampling_off(void **state)
{
	/* Without sampling there is nothing to save of a program without the recorder, and that is said. */
	int status;

	(void)state;
	t.config.sample_hz = 0;
	status = RUN(false, "sh", "-c", "kill -SEGV $$");
	assert_true(WIFSIGNALED(status));
	assert_int_equal(watching_captures(&t, 0), 0);
	assert_true(said("not sampled: switched off"));
}

/* How many captures there are after a command that is watched for this alone. */
static unsigned captures_when(const char *expression, const char *const *argv)
{
	struct dc_rules rules = {0};
	struct dc_rule_error error;
	struct dc_rule rule;

	dc_rule_defaults(&rule);
	strcpy(rule.name, "r");
	assert_int_equal(dc_rule_parse(expression, &rule.when, &error), 0);
	assert_int_equal(dc_rules_add(&rules, &rule), 0);
	t.config.rules = &rules;
	run(false, argv);
	t.config.rules = NULL;
	dc_rules_cleanup(&rules);
	return watching_captures(&t, 0);
}
#define WHEN(expression, ...) captures_when(expression, (const char *const[]){__VA_ARGS__, NULL})

static void test_rules_of_any_program(void **state)
{
	/*
	 * Programs that never heard of dashcam, the command and what it starts: exec and exit codes come true, also where nothing
	 * is sampled. How a command itself begins is no exec of its.
	 */
	(void)state;
	if (perf_is_refused())
		skip();
	for (unsigned off = 0; off < 2; off++) {
		const unsigned before = off * 3;

		t.config.sample_hz = off ? 0 : 49;
		assert_int_equal(WHEN("exec", "sleep", "0.1"), before);
		assert_int_equal(WHEN("exec", "sh", "-c", "exec sleep 0.1"), before + 1);
		assert_int_equal(WHEN("exec", "sh", "-c", "sleep 0.1; true"), before + 2);
		assert_int_equal(WHEN("exit code == 7", "sh", "-c", "(sleep 0.2; exit 7); exit 5"), before + 3);
	}
}

static void test_signals_are_passed_on(void **state)
{
	/* SIGTERM to us ends the command, not the watching: its death is saved and its status ours. */
	const char *const argv[] = {guest, "burst", "10", "hang", NULL};
	pid_t pid = start_run(false, argv);
	int status;

	(void)state;
	usleep(300000);
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	assert_int_equal(watching_captures(&t, 1), 1);
}

static void test_killed_run_leaves_evidence(void **state)
{
	/*
	 * When run itself is killed the command goes on; when that is killed too its ring is there for
	 * recover; the next run leaves it while it is young and removes it when it is not.
	 */
	const char *const argv[] = {"sh", "-c", NULL, NULL};
	const struct dc_save_output output = {.dir = t.out};
	struct dc_save *save = NULL;
	char command[700], path[700], why[DC_WHY_BYTES];
	struct stat said;
	FILE *f;
	int status;
	pid_t pid;

	(void)state;
	snprintf(command, sizeof(command), "cd %s; echo $$ > pid; exec %s burst 4000 say recorded hang >said", t.out, guest);
	((const char **)argv)[2] = command;
	pid = start_run(false, argv);
	snprintf(path, sizeof(path), "%s/said", t.out);
	for (int i = 0; i < 1500 && (stat(path, &said) < 0 || said.st_size == 0); i++)
		usleep(20000);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	snprintf(path, sizeof(path), "%s/pid", t.out);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &pid), 1);
	fclose(f);
	assert_int_equal(kill(pid, SIGKILL), 0);
	usleep(200000);
	dc_run_sweep(t.rings, INT64_C(600000000000));
	assert_int_equal(private_dirs(), 1);
	snprintf(command, sizeof(command),
		 "cd %s/run.* && mv *.ring %s/it.ring && cp %s/it.ring %d.1.00000000.ring", t.rings, t.out,
		 t.out, (int)pid);
	assert_int_equal(system(command), 0);
	snprintf(path, sizeof(path), "%s/it.ring", t.out);
	assert_int_equal(dc_recover(path, &output, &save, why), 0);
	assert_int_equal(save->totals.events, 8001);
	assert_int_equal(save->incident.reason, DC_REASON_RECOVER);
	dc_save_free(save);
	dc_run_sweep(t.rings, 0);
	assert_int_equal(private_dirs(), 0);
}

static void test_recover_refuses(void **state)
{
	/* A living ring, and a file that is none, are refused with what to do. */
	const struct dc_save_output output = {.dir = t.out};
	struct dc_save *save = NULL;
	struct ringfile f;
	char why[DC_WHY_BYTES];

	(void)state;
	ringfile_make(&f, t.rings, 16, 4096);
	assert_int_equal(dc_recover(f.path, &output, &save, why), -EBUSY);
	assert_non_null(strstr(why, "dashcam trigger"));
	f.header->magic = 0;
	ringfile_unlock(&f);
	assert_int_equal(dc_recover(f.path, &output, &save, why), -ENODATA);
	assert_int_equal(dc_recover("/dev/null", &output, &save, why), -EINVAL);
	ringfile_remove(&f);
}

static void test_ring_of_another_boot(void **state)
{
	/* A ring kept over a reboot is saved whole; its own anchors tell when its last event was. */
	const struct dc_save_output output = {.dir = t.out};
	struct dc_save *save = NULL;
	struct ringfile f;
	struct ringfile_writer w;
	char why[DC_WHY_BYTES];
	int64_t real;

	(void)state;
	ringfile_make(&f, t.rings, 16, 4096);
	ringfile_writer_init(&w, &f, 0);
	for (unsigned i = 0; i < 100; i++)
		ringfile_event(&w);
	f.lanes[0].last_units = ringfile_now(&f) + 1000000;
	memset(f.header->boot_id, 7, 16);
	f.header->anchors[0].realtime_ns -= INT64_C(86400000000000);
	real = f.header->anchors[0].realtime_ns;
	ringfile_unlock(&f);
	assert_int_equal(dc_recover(f.path, &output, &save, why), 0);
	assert_int_equal(save->totals.events, 100);
	assert_true(save->incident.at_realtime_ns > real &&
		    save->incident.at_realtime_ns < real + 60000000000);
	assert_int_equal(save->incident.boot_id[0], 7);
	dc_save_free(save);
	ringfile_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_status_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death_by_signal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death_behind_a_shell, setup, teardown),
		cmocka_unit_test_setup_teardown(test_on_exit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_recorder_inside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death_without_a_recorder, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descendants_without_a_recorder, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sampled_beside_its_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sampling_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rules_of_any_program, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signals_are_passed_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed_run_leaves_evidence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_recover_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ring_of_another_boot, setup, teardown),
	};

	return watching_run_group(tests);
}
