/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "persist/stacks/stacks.h"
#include "ipc/now.h"
#include "watching.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define SECOND INT64_C(1000000000)
#define WAITING "burst", "1", "say", "ready", "tick", "20", "0"

static struct watching t;

static int setup(void **state)
{
	(void)state;
	watching_begin(&t);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	watching_end(&t);
	return 0;
}

static struct dc_control_status status_of(struct watching *w)
{
	const struct dc_control_request q = {.version = DC_CONTROL_VERSION, .op = DC_CONTROL_STATUS};
	struct watching_reply r = watching_ask(w, &q);

	assert_int_equal(r.count, 1);
	return r.last.status;
}

/* Until the watcher has seen so many living processes; one that dies before leaves an unknown death. */
static void until_alive(uint32_t count)
{
	for (unsigned i = 0; i < 1000 && status_of(&t).alive != count; i++)
		usleep(10000);
	assert_int_equal(status_of(&t).alive, count);
}

static uint64_t events_of(struct dc_capture *c, unsigned process)
{
	struct dc_capture_totals totals;

	assert_int_equal(dc_capture_totals(c, process, &totals), 0);
	return totals.events;
}

static void test_trigger_of_the_app(void **state)
{
	/* DC_TRIGGER saves that process, with its words, and not the one beside it. */
	struct dc_capture *c;
	pid_t pid;

	(void)state;
	watching_start(&t);
	GUEST(&t, true, WAITING);
	pid = GUEST(&t, true, "burst", "500", "trigger", "help", WAITING);
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_API);
	assert_string_equal(dc_capture_incident(c)->text, "guest");
	assert_int_equal(dc_capture_incident(c)->trigger_pid, pid);
	assert_int_equal(dc_capture_process_count(c), 1);
	assert_int_equal(dc_capture_process(c, 0)->pid, pid);
	assert_int_equal(dc_capture_process(c, 0)->verified, 1);
	assert_int_equal(dc_capture_process(c, 0)->alive, 1);
	assert_non_null(strstr(dc_capture_process(c, 0)->cmdline, "trigger help"));
	assert_true(events_of(c, 0) >= 1000);
	assert_true(dc_capture_complete(c));
	dc_capture_close(c);
}

static void test_deaths(void **state)
{
	/* SIGKILL and SIGSEGV of processes the watcher has seen are saved with the signal known; an orderly
	 * exit is not. */
	struct dc_capture *c;
	pid_t pid;

	(void)state;
	watching_start(&t);
	pid = GUEST(&t, true, "burst", "300", WAITING);
	until_alive(1);
	watching_kill(&t, pid, SIGKILL);
	assert_int_equal(watching_captures(&t, 1), 1);
	watching_kill(&t, GUEST(&t, false, "burst", "300", "exit", "3"), 0); /* waits for its end */
	until_alive(0);
	pid = GUEST(&t, true, "burst", "400", "say", "ready", "sleep", "60000");
	until_alive(1);
	watching_kill(&t, pid, SIGSEGV);
	assert_int_equal(watching_captures(&t, 2), 2);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_DEATH);
	assert_int_equal(dc_capture_incident(c)->signal, SIGKILL);
	assert_int_equal(dc_capture_process(c, 0)->alive, 0);
	assert_true(events_of(c, 0) >= 600);
	dc_capture_close(c);
	c = watching_capture(&t, 1);
	assert_int_equal(dc_capture_incident(c)->signal, SIGSEGV);
	assert_int_equal(events_of(c, 0), 800);
	dc_capture_close(c);
}

static void test_reaped_before_it_is_seen(void **state)
{
	/*
	 * A process that lived, died and was reaped before the watcher got to look is saved where the kernel tells how it
	 * died; where it does not the death is counted as unknown, not guessed.
	 */
	const bool told = watching_connector_tells();
	struct dc_capture *c;
	pid_t pid;

	(void)state;
	watching_start(&t);
	kill(t.watcher, SIGSTOP);
	pid = GUEST(&t, false, "burst", "300", "signal", "11");
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	kill(t.watcher, SIGCONT);
	assert_int_equal(watching_captures(&t, told), told);
	if (!told) {
		usleep(1000000);
		assert_int_equal(status_of(&t).unknown_deaths, 1);
		return;
	}
	assert_int_equal(status_of(&t).unknown_deaths, 0);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_incident(c)->signal, SIGSEGV);
	assert_int_equal(events_of(c, 0), 600);
	dc_capture_close(c);
}

static int note_crash(void *arg, const struct dc_sample_view *sample)
{
	struct dc_crash_state *crash = arg;

	if (!sample->crash)
		return 0;
	*crash = *sample->crash;
	assert_true(sample->head.reg_count > 0 && sample->head.stack_bytes > 0);
	return 1;
}

static void test_crash(void **state)
{
	/* A crash is saved while the process stands, as one incident, and how it ended is in it. */
	struct dc_crash_state crash = {0};
	const struct dc_cut all = {.everything = true};
	struct dc_stacks *stacks;
	struct dc_capture *c;
	pid_t pid;

	(void)state;
	t.config.settle = false;
	watching_start(&t);
	pid = GUEST(&t, true, "burst", "300", "say", "ready", "sleep", "300", "crash", "6");
	assert_int_equal(status_of(&t).alive, 1);
	watching_kill(&t, pid, 0); /* waits for it */
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_DEATH);
	assert_int_equal(dc_capture_incident(c)->signal, SIGABRT);
	assert_int_equal(dc_capture_process(c, 0)->alive, 1);
	assert_int_equal(dc_capture_process(c, 0)->exit_known, 1);
	assert_int_equal(dc_capture_process(c, 0)->exit_signal, SIGABRT);
	assert_int_equal(events_of(c, 0), 600);
	assert_int_equal(dc_stacks_open(c, 0, &stacks), 0);
	assert_int_equal(dc_stacks_each(stacks, &all, note_crash, &crash), 1);
	assert_int_equal(crash.signal, SIGABRT);
	assert_int_equal(crash.sender_pid, pid); /* abort() and raise() send it */
	assert_int_equal(dc_capture_process(c, 0)->threads_taken, 1); /* it stood until we had it */
	dc_stacks_close(stacks);
	dc_capture_close(c);
}

static void test_captures_do_not_drain(void **state)
{
	/* Two captures one second apart overlap: the second has what the first had, and more. */
	struct dc_capture *a, *b;
	struct watching_reply r;

	(void)state;
	watching_start(&t);
	GUEST(&t, true, "burst", "1000", WAITING);
	r = watching_trigger_all(&t, "one", 0, 0);
	assert_int_equal(r.count, 1);
	assert_int_equal(r.last.error, 0);
	assert_int_equal(access(r.last.path, R_OK), 0);
	usleep(1000000);
	assert_int_equal(watching_trigger_all(&t, "two", 0, 0).count, 1);
	assert_int_equal(watching_captures(&t, 2), 2);
	a = watching_capture(&t, 0);
	b = watching_capture(&t, 1);
	assert_int_equal(dc_capture_incident(a)->reason, DC_REASON_COMMAND);
	assert_string_equal(dc_capture_incident(a)->text, "one");
	assert_true(events_of(a, 0) >= 2000);
	assert_true(events_of(b, 0) >= events_of(a, 0) + 60);
	dc_capture_close(a);
	dc_capture_close(b);
}

static void *trigger_later(void *arg)
{
	struct watching_reply *r = arg;

	usleep(300000);
	*r = watching_trigger_all(&t, "second", 5 * SECOND, SECOND);
	return NULL;
}

static void test_overlapping_triggers_are_one(void **state)
{
	/* A trigger within another's `after` becomes part of it; both are told the same file; its window
	 * reaches further. */
	struct watching_reply first, second;
	struct dc_capture *c;
	pthread_t thread;
	const struct dc_incident *i;
	int64_t began, ended, length;

	(void)state;
	watching_start(&t);
	GUEST(&t, true, WAITING);
	began = dc_now_ns();
	assert_int_equal(pthread_create(&thread, NULL, trigger_later, &second), 0);
	first = watching_trigger_all(&t, "first", 5 * SECOND, SECOND);
	pthread_join(thread, NULL);
	ended = dc_now_ns();
	assert_int_equal(first.last.error, 0);
	assert_string_equal(first.last.path, second.last.path);
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	i = dc_capture_incident(c);
	assert_int_equal(i->coalesced, 1);
	assert_string_equal(i->text, "first");
	length = dc_clock_duration_ns(dc_capture_clock(c), i->to_units - i->at_units);
	assert_in_range(length, SECOND + 50000000, ended - began);
	dc_capture_close(c);
}

static void test_after_is_in_the_capture(void **state)
{
	/* Events of the time after the trigger are in the capture, each once. */
	struct dc_capture *c;
	const int64_t began = dc_now_ns();

	(void)state;
	watching_start(&t);
	GUEST(&t, true, WAITING); /* 100 events a second */
	usleep(200000);
	assert_int_equal(watching_trigger_all(&t, "x", 0, SECOND).last.error, 0);
	assert_true(dc_now_ns() - began > SECOND);
	c = watching_capture(&t, 0);
	assert_in_range(events_of(c, 0), 80, 160);
	dc_capture_close(c);
}

static void test_stopped_process(void **state)
{
	/* A SIGSTOPped process is captured at once, with its open span. */
	struct dc_capture *c;
	pid_t pid;
	int64_t began;

	(void)state;
	watching_start(&t);
	pid = GUEST(&t, true, "burst", "100", "say", "ready", "hang");
	usleep(100000);
	kill(pid, SIGSTOP);
	began = dc_now_ns();
	assert_int_equal(watching_trigger_all(&t, "stuck", 0, 0).last.error, 0);
	assert_true(dc_now_ns() - began < 300 * SECOND / 1000);
	c = watching_capture(&t, 0);
	assert_int_equal(events_of(c, 0), 201);
	dc_capture_close(c);
}

static int note_thread(void *arg, const struct dc_sample_view *sample)
{
	struct dc_sample_view *thread = arg;

	if (sample->thread) {
		thread->head = sample->head;
		assert_int_equal(sample->thread->taken, 1);
		assert_int_equal(sample->thread->state, 'S');
		assert_non_null(sample->regs);
	}
	return 0;
}

static void test_threads_and_maps(void **state)
{
	/* A capture says where every thread stands, and what code lay there; the process notices nothing. */
	const struct dc_cut all = {.everything = true};
	struct dc_sample_view thread = {0};
	struct dc_stacks_totals totals;
	struct dc_stacks *stacks;
	const char *exe = NULL;
	struct dc_capture *c;
	pid_t pid;

	(void)state;
	t.config.settle = false;
	watching_start(&t);
	pid = GUEST(&t, true, "burst", "100", "say", "ready", "hang");
	usleep(50000);
	assert_int_equal(watching_trigger_all(&t, "where is it", 0, 0).last.error, 0);
	c = watching_capture(&t, 0);
	assert_string_equal(dc_capture_process(c, 0)->threads_why, "");
	assert_int_equal(dc_capture_process(c, 0)->threads_taken, 1);
	assert_int_equal(dc_capture_process(c, 0)->threads_refused, 0);
	assert_true(dc_capture_process(c, 0)->stopped_median_ns > 0);
	assert_int_equal(dc_stacks_open(c, 0, &stacks), 0);
	assert_int_equal(dc_stacks_totals(stacks, &totals), 0);
	assert_int_equal(totals.samples[DC_SAMPLE_THREAD], 1);
	assert_int_equal(dc_stacks_each(stacks, &all, note_thread, &thread), 0);
	assert_int_equal(thread.head.tid, pid);
	assert_true(thread.head.stack_bytes > 0);
	for (uint32_t i = 0; i < dc_stacks_map_count(stacks) && !exe; i++)
		if (strstr(dc_stacks_map(stacks, i).path, "tests/guest"))
			exe = dc_stacks_map(stacks, i).path;
	assert_non_null(exe);
	assert_int_equal(events_of(c, 0), 201);
	dc_stacks_close(stacks);
	dc_capture_close(c);
	assert_int_equal(kill(pid, 0), 0);
}

static void test_threads_are_left_alone(void **state)
{
	/* Where nobody is to be stopped nobody is; nor is there anything of a process that is gone. */
	struct dc_stacks_totals totals;
	struct dc_stacks *stacks;
	struct dc_capture *c;

	(void)state;
	t.config.settle = false;
	t.config.threads = false;
	watching_start(&t);
	GUEST(&t, true, "burst", "100", "say", "ready", "hang");
	assert_int_equal(watching_trigger_all(&t, "leave it", 0, 0).last.error, 0);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_process(c, 0)->threads_taken, 0);
	assert_int_equal(dc_stacks_open(c, 0, &stacks), 0);
	assert_int_equal(dc_stacks_totals(stacks, &totals), 0);
	assert_int_equal(totals.samples[DC_SAMPLE_THREAD], 0);
	dc_stacks_close(stacks);
	dc_capture_close(c);
}

static void test_signal_saves_all(void **state)
{
	/* SIGUSR1 to the watcher saves every recorded process, in one incident on one clock. */
	struct dc_capture *c;

	(void)state;
	watching_start(&t);
	GUEST(&t, true, WAITING);
	GUEST(&t, true, WAITING);
	GUEST(&t, true, WAITING);
	usleep(100000);
	kill(t.watcher, SIGUSR1);
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_SIGNAL);
	assert_int_equal(dc_capture_process_count(c), 3);
	for (unsigned i = 0; i < 3; i++)
		assert_true(events_of(c, i) >= 2);
	dc_capture_close(c);
}

static void test_second_watcher_is_refused(void **state)
{
	/* One watcher per directory; the second is told who is there. After a kill -9 the next one gets in. */
	struct dc_watcher *w = NULL;
	char why[DC_WHY_BYTES], pid[32];

	(void)state;
	watching_start(&t);
	assert_int_equal(dc_watcher_open(&t.config, &w, why), -EBUSY);
	snprintf(pid, sizeof(pid), "process %d", (int)t.watcher);
	assert_non_null(strstr(why, pid));
	watching_stop(&t, SIGKILL);
	watching_start(&t);
	assert_int_equal(status_of(&t).pid, t.watcher);
}

static void test_restart_loses_nothing(void **state)
{
	/* What a process triggered while no watcher was there is saved by the next one, once. */
	struct dc_capture *c;

	(void)state;
	watching_start(&t);
	GUEST(&t, true, "say", "ready", "sleep", "500", "trigger", "alone", WAITING);
	watching_stop(&t, SIGKILL);
	usleep(1000000);
	watching_start(&t);
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_incident(c)->reason, DC_REASON_API);
	dc_capture_close(c);
	watching_stop(&t, SIGKILL);
	watching_start(&t);
	assert_int_equal(watching_captures(&t, 1), 1);
}

static void test_budget_is_counted(void **state)
{
	/* Triggers within the cool-down make no capture; status counts them, the next capture names their number. */
	struct dc_capture *c;

	(void)state;
	t.config.budget.cooldown_ns = 2 * SECOND;
	watching_start(&t);
	GUEST(&t, true, "say", "r", "trigger", "1", "sleep", "600", "trigger", "2", "sleep", "400", "trigger",
	      "3", "sleep", "1500");
	usleep(1500000);
	assert_int_equal(watching_captures(&t, 1), 1);
	assert_int_equal(status_of(&t).suppressed, 2);
	assert_int_equal(status_of(&t).captures, 1);
	usleep(700000);
	GUEST(&t, true, "trigger", "4", WAITING);
	assert_int_equal(watching_captures(&t, 2), 2);
	c = watching_capture(&t, 1);
	assert_int_equal(dc_capture_incident(c)->suppressed, 2);
	dc_capture_close(c);
}

static void test_users_are_apart(void **state)
{
	/* A user gets neither processes of others nor is told which there are; the capture belongs to the
	 * process's user. */
	struct dc_control_request q = {.version = DC_CONTROL_VERSION,
				       .op = DC_CONTROL_TRIGGER,
				       .flags = DC_CONTROL_ALL | DC_CONTROL_WAIT};
	struct watching_reply r;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(t.rings, 0755), 0);
	watching_start(&t);
	q.pid = (uint32_t)GUEST(&t, true, WAITING);
	assert_int_equal(seteuid(23456), 0);
	r = watching_ask(&t, &q);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(r.count, 1);
	assert_int_equal(r.last.error, -ESRCH);
	assert_int_equal(watching_ask(&t, &q).last.error, 0);
	assert_int_equal(watching_captures(&t, 1), 1);
}

static void test_captures_by_uid(void **state)
{
	/* System-wide: rings of two users become two captures, each in a closed directory of its user's. */
	struct watching_reply r;
	struct stat st;
	char path[512], name[256];
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	t.config.output.per_uid = true;
	watching_start(&t);
	pid = GUEST(&t, true, WAITING);
	GUEST(&t, true, WAITING);
	snprintf(name, sizeof(name), "cd %s && chown 12345:12345 %d.*.ring", t.rings, (int)pid);
	assert_int_equal(system(name), 0);
	watching_stop(&t, SIGTERM);
	watching_start(&t);
	r = watching_trigger_all(&t, "both", 0, 0);
	assert_int_equal(r.count, 2);
	assert_int_equal(r.last.error, 0);
	snprintf(path, sizeof(path), "%s/12345", t.out);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 12345);
	assert_int_equal(st.st_mode & 07777, 0700);
	snprintf(path, sizeof(path), "test $(stat -c %%u:%%a %s/12345/*.dcap) = 12345:600", t.out);
	assert_int_equal(system(path), 0);
	snprintf(path, sizeof(path), "test $(stat -c %%u:%%a %s/0/*.dcap) = 0:600", t.out);
	assert_int_equal(system(path), 0);
}

static void test_exec_is_no_death(void **state)
{
	/* exec ends an image, not a process: nothing is saved; both images are in the capture when it does die. */
	struct dc_capture *c;
	pid_t pid;

	(void)state;
	watching_start(&t);
	pid = GUEST(&t, true, "burst", "100", "exec", "burst", "200", "say", "ready", "hang");
	assert_int_equal(watching_captures(&t, 0), 0);
	usleep(2500000);
	assert_int_equal(watching_captures(&t, 0), 0);
	assert_int_equal(status_of(&t).alive, 1);
	watching_kill(&t, pid, SIGKILL);
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_int_equal(dc_capture_process_count(c), 2);
	assert_int_equal(dc_capture_process(c, 0)->pid, pid);
	assert_int_equal(dc_capture_process(c, 1)->pid, pid);
	assert_int_equal(events_of(c, 0) + events_of(c, 1), 601);
	dc_capture_close(c);
	assert_int_equal(status_of(&t).unknown_deaths, 0);
}

static void test_tells_the_service_manager(void **state)
{
	/* Ready when it serves requests, alive while it does, as sd_notify(3) has it. */
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = 5};
	char text[64] = "";
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/notify", t.out);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	setenv("WATCHDOG_USEC", "600000", 1);
	watching_start(&t);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, "READY=1");
	for (unsigned i = 0; i < 2; i++) {
		memset(text, 0, sizeof(text));
		assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
		assert_string_equal(text, "WATCHDOG=1");
	}
	close(fd);
}

static void test_settled_and_adopted(void **state)
{
	/* A capture is settled soon after it is durable, and one that a killed watcher left raw by the next watcher. */
	struct dc_capture *c;
	bool settled = false;

	(void)state;
	watching_start(&t);
	GUEST(&t, true, "burst", "20000", WAITING);
	assert_int_equal(watching_trigger_all(&t, "raw", 0, 0).last.error, 0);
	c = watching_capture(&t, 0);
	assert_false(dc_capture_settled(c));
	dc_capture_close(c);
	watching_stop(&t, SIGKILL);
	t.config.settle = true;
	watching_start(&t);
	assert_int_equal(watching_trigger_all(&t, "second", 0, 0).last.error, 0);
	for (unsigned i = 0; i < 100 && !settled; i++) {
		usleep(50000);
		settled = true;
		for (unsigned k = 0; k < 2; k++) {
			c = watching_capture(&t, k);
			settled = settled && dc_capture_settled(c);
			assert_true(events_of(c, 0) >= 40000);
			dc_capture_close(c);
		}
	}
	assert_true(settled);
}

static void test_disk_budget(void **state)
{
	/* Captures beyond the disk budget go, the oldest first, and the newest of each reason stays. */
	struct dc_capture *c;

	(void)state;
	t.config.disk_bytes = 1;
	watching_start(&t);
	GUEST(&t, true, "burst", "100", WAITING);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(watching_trigger_all(&t, i == 2 ? "last" : "one", 0, 0).last.error, 0);
	usleep(500000);
	assert_int_equal(watching_captures(&t, 1), 1);
	c = watching_capture(&t, 0);
	assert_string_equal(dc_capture_incident(c)->text, "last");
	dc_capture_close(c);
}

static void test_bad_output_is_refused(void **state)
{
	/* A place that cannot take captures is refused at the start, with the reason. */
	struct dc_watcher *w = NULL;
	char why[DC_WHY_BYTES];

	(void)state;
	t.config.output.dir = "/dev/null";
	assert_true(dc_watcher_open(&t.config, &w, why) < 0);
	assert_non_null(strstr(why, "/dev/null"));
	assert_int_equal(chmod(t.rings, 0777), 0);
	t.config.output.dir = t.out;
	assert_int_equal(dc_watcher_open(&t.config, &w, why), -EACCES);
	assert_non_null(strstr(why, "chmod"));
}

static void test_many_processes_cost_little(void **state)
{
	/* With 50 recorded processes an idle watcher takes at most 0.2 % of a core (100 by the benchmark) and
	 * 32 MiB. */
	char path[64], text[256];
	unsigned long before, after;
	long rss = 0;
	FILE *f;

	(void)state;
	if (SANITIZED)
		skip(); /* it has its own price */
	watching_start(&t);
	for (unsigned i = 0; i < 50; i++)
		GUEST(&t, true, "burst", "10", "say", "ready", "hang");
	usleep(2500000); /* past the looks at /proc that a new process gets */
	assert_int_equal(status_of(&t).alive, 50);
	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)t.watcher);
	f = fopen(path, "r");
	assert_int_equal(fscanf(f, "%lu", &before), 1);
	fclose(f);
	usleep(3000000);
	f = fopen(path, "r");
	assert_int_equal(fscanf(f, "%lu", &after), 1);
	fclose(f);
	print_message("idle with 50 processes: %.3f %% of a core\n", (double)(after - before) / 3e7);
	assert_true(after - before < 3000000000 / 500);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)t.watcher);
	f = fopen(path, "r");
	while (fgets(text, sizeof(text), f))
		if (sscanf(text, "VmRSS: %ld", &rss) == 1)
			break;
	fclose(f);
	assert_in_range(rss, 1, 32 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_trigger_of_the_app, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deaths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reaped_before_it_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
		cmocka_unit_test_setup_teardown(test_captures_do_not_drain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_overlapping_triggers_are_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_after_is_in_the_capture, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped_process, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads_and_maps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads_are_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signal_saves_all, setup, teardown),
		cmocka_unit_test_setup_teardown(test_second_watcher_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_loses_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_users_are_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_captures_by_uid, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exec_is_no_death, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tells_the_service_manager, setup, teardown),
		cmocka_unit_test_setup_teardown(test_settled_and_adopted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_output_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_processes_cost_little, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
