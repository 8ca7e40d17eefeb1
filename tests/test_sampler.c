/* SPDX-License-Identifier: MIT */
/* trigger/sampler*.c: what is sampled, how often, and what it stands for. Whom: test_sampler_who.c. */
#include "tests/sampling.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/registers.h"
#include "trigger/handover.h"

static void *busy_thread(void *arg)
{
	tell_tid(1);
	wait_go();
	spin_ns(600 * MS);
	tell_used(1);
	return arg;
}

static void one_busy_one_asleep(void)
{
	pthread_t t;

	tell_tid(0);
	pthread_create(&t, NULL, busy_thread, NULL);
	wait_go();
	pthread_join(t, NULL);
	tell_used(0);
	pause();
}

static void check_busy(const struct dc_sampler_config *config)
{
	struct dc_sampler *s = sampler(config);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = sampled_start(one_busy_one_asleep);
	int64_t from, to;
	uint64_t weight = 0;

	while (!shared->tids[1])
		sleep_ns(MS);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0); /* twice is once */
	from = dc_now_ns();
	atomic_store(&shared->go, 1);
	while (!shared->used_ns[0])
		run_for(s, 20 * MS);
	to = dc_now_ns();
	all = write_samples(s, (uint32_t)pid, from, to);
	samples_check(&all, from, to);
	for
		each_sample(x, &all)
		{
			assert_true(x->tid == (uint32_t)shared->tids[0] || x->tid == (uint32_t)shared->tids[1]);
			if (x->kind != DC_SAMPLE_CPU)
				continue;
			weight += x->tid == (uint32_t)shared->tids[1] ? x->weight_ns : 0;
			if (config->stacks == DC_STACKS_COPY) {
				assert_true(x->reg_count == DC_REGS);
				assert_in_range(x->stack_bytes, 64, 8192);
			} else
				assert_true(x->reg_count == 0 && x->stack_bytes == 0 && x->ip_count >= 2);
		}
	assert_in_range(weight, shared->used_ns[1] * 8 / 10, shared->used_ns[1] * 11 / 10);
	assert_int_equal(all.totals.samples_from_ns, from);
	assert_int_equal(all.totals.switches_from_ns, from);
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void test_busy_thread(void **state)
{
	/* A thread that computes gets hz samples a second of CPU time, by its tid, inside the window and in order. */
	(void)state;
	check_busy(&(struct dc_sampler_config){.hz = 499, .stacks = DC_STACKS_COPY});
	check_busy(&(struct dc_sampler_config){.hz = 499, .stacks = DC_STACKS_FRAME_POINTERS});
	check_busy(&(struct dc_sampler_config){.hz = 49, .stacks = DC_STACKS_COPY});
}

static void test_sleeping_thread(void **state)
{
	/* A thread that only sleeps has off-CPU stacks, whose counts are its switches; each switch out is followed by one in. */
	struct dc_sampler *s = sampler(NULL);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = sampled_start(sleeper);
	const int64_t from = dc_now_ns();
	unsigned outs, ins;
	uint64_t stands_for = 0;

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	run_for(s, 1500 * MS);
	all = write_samples(s, (uint32_t)pid, from, INT64_MAX);
	samples_check(&all, from, dc_now_ns());
	outs = count_of(&all, DC_SAMPLE_SWITCH_OUT, (uint32_t)pid) +
	       count_of(&all, DC_SAMPLE_SWITCH_PREEMPT, (uint32_t)pid);
	ins = count_of(&all, DC_SAMPLE_SWITCH_IN, (uint32_t)pid);
	assert_true(outs > 200);
	assert_in_range(ins, outs - 3, outs + 3);
	assert_true(count_of(&all, DC_SAMPLE_CPU, 0) < outs / 2);
	if (has_kernel(s, (uint32_t)pid)) {
		assert_true(count_of(&all, DC_SAMPLE_OFF, (uint32_t)pid) > 5);
		for
			each_sample(x, &all) stands_for += x->kind == DC_SAMPLE_OFF ? x->weight_ns : 0;
		assert_in_range(stands_for, outs / 2, outs + 128);
	}
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void *ping(void *arg)
{
	const int *ends = arg;
	char c = 0;

	while (read(ends[0], &c, 1) == 1 && write(ends[1], &c, 1) == 1)
		;
	return NULL;
}

/* Two threads on one CPU that wake each other: as many switches as there can be. */
static void ping_pong(void)
{
	int there[2], back[2], ours[2];
	pthread_t t;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_setaffinity(0, sizeof(one), &one);
	if (pipe(there) < 0 || pipe(back) < 0 || write(back[1], "x", 1) != 1)
		_exit(1);
	pthread_create(&t, NULL, ping, (int[]){there[0], back[1]});
	ours[0] = back[0];
	ours[1] = there[1];
	ping(ours);
}

static void test_switches_are_tuned(void **state)
{
	/* However often threads switch, about hz stacks a second are taken of it; a weight says for how many one stands. */
	const struct dc_sampler_config config = {.hz = 49};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = sampled_start(ping_pong);
	int64_t from;
	double seconds;

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	if (!has_kernel(s, (uint32_t)pid)) {
		sampled_end(pid, SIGKILL);
		dc_sampler_free(s);
		skip();
	}
	run_for(s, 2000 * MS);
	from = dc_now_ns();
	run_for(s, 2000 * MS);
	seconds = (double)(dc_now_ns() - from) / 1e9;
	all = write_samples(s, (uint32_t)pid, from, INT64_MAX);
	assert_in_range(count_of(&all, DC_SAMPLE_OFF, 0), (unsigned)(5 * seconds), (unsigned)(100 * seconds));
	for
		each_sample(x, &all) if (x->kind == DC_SAMPLE_OFF)
			assert_true(x->weight_ns >= 16 && (x->weight_ns & (x->weight_ns - 1)) == 0);
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void test_overwritten_ring_keeps_the_newest(void **state)
{
	/* A ring that is far too small holds the last samples, and says since when it does. */
	const struct dc_sampler_config config = {
		.hz = 999, .stacks = DC_STACKS_COPY, .copy_bytes = 8192, .ring_bytes = 65536};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = sampled_start(spinner);
	const int64_t from = dc_now_ns();
	int64_t to, newest = 0;

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	run_for(s, 800 * MS);
	kill(pid, SIGSTOP);
	run_for(s, 50 * MS);
	to = dc_now_ns();
	all = write_samples(s, (uint32_t)pid, 0, INT64_MAX);
	samples_check(&all, from, to);
	for
		each_sample(x, &all) newest = x->kind == DC_SAMPLE_CPU ? x->monotonic_ns : newest;
	assert_in_range(all.totals.samples, 2, 40); /* 7 of 8 KiB a CPU */
	assert_true(all.totals.samples_from_ns > from + 300 * MS);
	assert_true(newest > to - 400 * MS);
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void test_host(void **state)
{
	/* One set of events for the whole host gives each process its own samples, and nobody else's. */
	const struct dc_sampler_config config = {.hz = 499, .stacks = DC_STACKS_FRAME_POINTERS, .host = true};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	struct dc_sample_mode mode;
	pid_t pid = sampled_start(one_busy_one_asleep);
	int64_t from = dc_now_ns();

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	if (mode.scope != 1) {
		sampled_end(pid, SIGKILL);
		dc_sampler_free(s);
		skip();
	}
	atomic_store(&shared->go, 1);
	while (!shared->used_ns[0])
		run_for(s, 20 * MS);
	all = write_samples(s, (uint32_t)pid, from, INT64_MAX);
	samples_check(&all, from, dc_now_ns());
	for
		each_sample(x, &all)
		{
			assert_true(x->tid == (uint32_t)shared->tids[0] || x->tid == (uint32_t)shared->tids[1]);
		}
	assert_in_range(count_of(&all, DC_SAMPLE_CPU, (uint32_t)shared->tids[1]), 200, 330); /* 600 ms at 499 Hz */
	assert_true(count_of(&all, DC_SAMPLE_SWITCH_OUT, 0) > 0);
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void computes(void)
{
	for (;;)
		spin_ns(50 * MS);
}

/* Until it has computed so much more. Return: how much it was. */
static int64_t compute(struct dc_sampler *s, pid_t pid, int64_t ns)
{
	clockid_t clock;
	int64_t from, used;

	assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
	for (from = cpu_ns(clock); (used = cpu_ns(clock) - from) < ns;)
		run_for(s, 10 * MS);
	return used;
}

/* --- events that others opened --- */

static void computes_and_sleeps(void)
{
	for (;;) {
		spin_ns(2 * MS);
		sleep_ns(MS / 5);
	}
}

/* One of each kind, as @pid would hand them over; @chain_only: shaped so that nothing says whose a sample is. */
static struct dc_handed parcel(pid_t pid, uint32_t cpu, bool kernel, bool chain_only)
{
	static const uint8_t kinds[] = {DC_PERF_CPU, DC_PERF_SWITCHES, DC_PERF_OFF, DC_PERF_OFF};
	struct dc_perf_shape shape = {.hz = 499, .copy_bytes = 8192, .kernel = kernel, .later = true};
	struct dc_handed h = {.pid = (uint32_t)pid, .first = cpu == 0, .cpu = cpu};

	for (unsigned i = 0; i < (kernel ? 4 : 2); i++) {
		struct perf_event_attr attr = {0};

		h.event[i].kind = kinds[i];
		h.event[i].shift = i == 3 ? 5 : 0;
		shape.off_period = UINT64_C(1) << h.event[i].shift;
		dc_perf_describe(kinds[i], &shape, &attr);
		if (chain_only)
			attr.sample_type = PERF_SAMPLE_CALLCHAIN | PERF_SAMPLE_STREAM_ID;
		h.event[i].fd = (int)syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
		assert_true(h.event[i].fd >= 0);
		h.count++;
	}
	return h;
}

static void close_parcel(struct dc_handed *h)
{
	for (uint32_t i = 0; i < h->count; i++)
		if (h->event[i].fd >= 0)
			close(h->event[i].fd);
}

static int hand_over(struct dc_sampler *s, pid_t pid, bool kernel, bool chain_only)
{
	int r = 0;

	for (uint32_t cpu = 0; r == 0 && cpu < (uint32_t)sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
		struct dc_handed h = parcel(pid, cpu, kernel, chain_only);

		r = dc_sampler_adopt(s, &h);
		close_parcel(&h);
	}
	return r;
}

static void test_handed_over(void **state)
{
	/* A process is sampled by events that it opened itself, in all ways, and what was sampled stays when it is gone. */
	const struct dc_sampler_config config = {.hz = 499, .stacks = DC_STACKS_COPY};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	const int64_t from = dc_now_ns();
	const bool kernel = dc_sampler_offer(s).kernel;
	pid_t pid = sampled_start(computes_and_sleeps);
	struct dc_sample_mode mode;
	uint64_t weight = 0;
	int64_t used;

	(void)state;
	assert_int_equal(hand_over(s, pid, kernel, false), 0);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0); /* its ring is found: nothing is opened */
	used = compute(s, pid, 200 * MS);
	assert_int_equal(dc_sampler_raise(s, (uint32_t)pid, 997), -EOPNOTSUPP);
	sampled_end(pid, SIGKILL);
	dc_sampler_remove(s, (uint32_t)pid, 1000000 * MS);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_int_equal(mode.scope, DC_SAMPLE_SCOPE_HANDED);
	assert_true(mode.copy_bytes == 8192 && mode.off_cpu == kernel && mode.why[0]);
	all = write_samples(s, (uint32_t)pid, from, dc_now_ns());
	samples_check(&all, from, dc_now_ns());
	for
		each_sample(x, &all) weight += x->kind == DC_SAMPLE_CPU ? x->weight_ns : 0;
	assert_in_range(weight, used * 5 / 10, used * 13 / 10); /* its timer is set anew at each switch */
	assert_in_range(count_of(&all, DC_SAMPLE_SWITCH_OUT, (uint32_t)pid), 10, 10000);
	if (kernel)
		assert_in_range(count_of(&all, DC_SAMPLE_OFF, (uint32_t)pid), 1, 10000);
	dc_sampler_free(s);
}

static void test_handed_over_badly(void **state)
{
	/* Events of another shape are samples of nobody, those that do not fit are refused, and of who is sampled none are taken. */
	const struct dc_sampler_config config = {.hz = 499, .stacks = DC_STACKS_COPY};
	struct dc_sampler *s = sampler(&config);
	const bool kernel = dc_sampler_offer(s).kernel;
	pid_t pid = sampled_start(computes_and_sleeps);
	CLEANUP(samples) struct samples all = {0};
	struct dc_handed h = parcel(pid, 0, kernel, false);
	struct dc_sample_mode mode;

	(void)state;
	h.first = false;
	assert_int_equal(dc_sampler_adopt(s, &h), -ESRCH);
	h.first = true;
	h.cpu = 1000;
	assert_int_equal(dc_sampler_adopt(s, &h), -ENODEV);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_int_equal(mode.scope, DC_SAMPLE_SCOPE_NONE);
	h.cpu = 0;
	h.event[1].kind = DC_PERF_CPU; /* it is one of switches: nothing can be known of that */
	assert_int_equal(dc_sampler_adopt(s, &h), 0);
	assert_true(h.event[0].fd == -1 && h.event[1].fd == -1);
	assert_int_equal(hand_over(s, pid, kernel, true), 0); /* void: what it handed over before */
	compute(s, pid, 50 * MS);
	all = write_samples(s, (uint32_t)pid, 0, INT64_MAX);
	assert_int_equal(all.totals.samples, 0);
	sampled_end(pid, SIGKILL);
	dc_sampler_remove(s, (uint32_t)pid, 0);

	pid = sampled_start(computes_and_sleeps);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	h = parcel(pid, 0, kernel, false);
	assert_int_equal(dc_sampler_adopt(s, &h), -EALREADY);
	assert_true(h.event[0].fd >= 0);
	close_parcel(&h);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_int_equal(mode.scope, DC_SAMPLE_SCOPE_PROCESS);
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void test_handed_over_by_many(void **state)
{
	/* Rings of their own are for 64 processes, those that have just ended among them; one that begins anew keeps its own. */
	const struct dc_sampler_config config = {.hz = 499, .stacks = DC_STACKS_COPY, .ring_bytes = 16384};
	struct dc_sampler *s = sampler(&config);
	int results[66];
	pid_t pid;

	(void)state;
	for (unsigned i = 0; i < 66; i++) {
		pid = sampled_start(sleeper);
		struct dc_handed h = parcel(pid, 0, false, false);

		results[i] = dc_sampler_adopt(s, &h);
		close_parcel(&h);
		if (i == 0) {
			h = parcel(pid, 0, false, false);
			assert_int_equal(dc_sampler_adopt(s, &h), results[0]);
			close_parcel(&h);
		}
		sampled_end(pid, SIGKILL);
		dc_sampler_remove(s, (uint32_t)pid, 1000000 * MS);
	}
	assert_int_equal(results[0], 0);
	assert_true(results[64] == -ENOSPC || results[64] == -EPERM); /* or less may be locked */
	assert_int_equal(results[65], results[64]);
	dc_sampler_free(s);
}

static void check_raised(uint32_t hz, bool host)
{
	const struct dc_sampler_config config = {
		.hz = hz, .ready = true, .host = host, .stacks = DC_STACKS_FRAME_POINTERS, .ring_bytes = 1 << 20};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = sampled_start(computes);
	int64_t from = dc_now_ns(), raised_from, raised_to, used[3];
	uint64_t weight = 0, raised = 0;
	struct dc_sample_mode mode;

	assert_int_equal(dc_sampler_raise(s, (uint32_t)pid, 797), -ESRCH);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_true(mode.hz == hz && !mode.raised_hz && (mode.scope != DC_SAMPLE_SCOPE_NONE) == (hz != 0));
	used[0] = compute(s, pid, 100 * MS);
	raised_from = dc_now_ns();
	assert_int_equal(dc_sampler_raise(s, (uint32_t)pid, 797), 0);
	used[1] = compute(s, pid, 200 * MS);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_true(mode.hz == 797 && mode.raised_hz == 797 && !mode.raised_to_ns && mode.raised_from_ns >= raised_from);
	assert_int_equal(dc_sampler_raise(s, (uint32_t)pid, 0), 0);
	raised_to = dc_now_ns();
	used[2] = compute(s, pid, 100 * MS);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_true(mode.hz == (hz ? hz : 797) && mode.raised_hz == 797 && mode.raised_to_ns <= raised_to);
	all = write_samples(s, (uint32_t)pid, from, dc_now_ns());
	for
		each_sample(x, &all)
		{
			if (x->kind != DC_SAMPLE_CPU)
				continue;
			weight += x->weight_ns;
			if (x->weight_ns != 1000000000 / 797)
				assert_true(hz && x->weight_ns == 1000000000 / hz);
			else
				assert_in_range(x->monotonic_ns, raised_from, raised_to);
			raised += x->weight_ns == 1000000000 / 797 ? x->weight_ns : 0;
		}
	assert_in_range(raised, used[1] * 7 / 10, used[1] * 12 / 10);
	assert_in_range(weight, (hz ? used[0] + used[1] + used[2] : used[1]) * 7 / 10, (used[0] + used[1] + used[2]) * 12 / 10);
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void test_raised(void **state)
{
	/*
	 * More often for a while: each sample has the weight of its rate, no CPU time counts twice, and before and after all is
	 * as it was; also where nothing is sampled otherwise, and where the events are the host's.
	 */
	(void)state;
	check_raised(97, false);
	check_raised(0, false);
	if (geteuid() == 0) {
		check_raised(97, true);
		check_raised(0, true);
	}
}

static uint32_t copied_now(struct dc_sampler *s, uint32_t pid)
{
	struct dc_sample_mode mode;

	run_for(s, 300 * MS); /* a tick comes by */
	dc_sampler_mode(s, pid, &mode);
	return mode.copy_bytes;
}

static void test_copies_are_tuned(void **state)
{
	/* Copies of the stack grow to what unwinding needed at once, and shrink by halves; also of who is sampled already. */
	const struct dc_sampler_config config = {.hz = 499, .stacks = DC_STACKS_COPY};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = sampled_start(spinner);
	uint32_t largest = 0;
	int64_t from;

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	assert_int_equal(copied_now(s, (uint32_t)pid), 8192);
	dc_sampler_tune(s, 20000);
	assert_int_equal(copied_now(s, (uint32_t)pid), 32768);
	dc_sampler_tune(s, 100);
	assert_int_equal(copied_now(s, (uint32_t)pid), 16384);
	for (int i = 0; i < 4; i++)
		dc_sampler_tune(s, 100);
	assert_int_equal(copied_now(s, (uint32_t)pid), 4096);
	from = dc_now_ns();
	run_for(s, 200 * MS);
	all = write_samples(s, (uint32_t)pid, from, INT64_MAX);
	for
		each_sample(x, &all) largest = x->stack_bytes > largest ? x->stack_bytes : largest;
	assert_in_range(largest, 64, 4096);
	sampled_end(pid, SIGKILL);
	dc_sampler_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_busy_thread),
		cmocka_unit_test(test_sleeping_thread),
		cmocka_unit_test(test_switches_are_tuned),
		cmocka_unit_test(test_overwritten_ring_keeps_the_newest),
		cmocka_unit_test(test_host),
		cmocka_unit_test(test_raised),
		cmocka_unit_test(test_handed_over),
		cmocka_unit_test(test_handed_over_badly),
		cmocka_unit_test(test_handed_over_by_many),
		cmocka_unit_test(test_copies_are_tuned),
	};

	return cmocka_run_group_tests(tests, sampling_set_up, NULL);
}
