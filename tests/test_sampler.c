/* SPDX-License-Identifier: MIT */
/* Programs that are sampled are forked here; what was sampled is read back from a capture's SAMPLES blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "ipc/now.h"
#include "ipc/registers.h"
#include "persist/writer.h"
#include "trigger/sampler.h"

#define MS INT64_C(1000000)

static void sleep_ns(int64_t ns)
{
	const struct timespec ts = {ns / 1000000000, ns % 1000000000};

	nanosleep(&ts, NULL);
}

static int64_t cpu_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* --- what was sampled --- */

struct samples {
	uint8_t *bytes;
	size_t used;
	struct dc_sampler_totals totals;
};

static void samples_free(struct samples *s)
{
	free(s->bytes);
}

static void samples_cleanup(struct samples *s)
{
	samples_free(s);
}

static const struct dc_sample *next_of(const struct samples *all, const struct dc_sample *s)
{
	const uint8_t *at = s ? (const uint8_t *)s + s->bytes : all->bytes;

	return at < all->bytes + all->used ? (const void *)at : NULL;
}

#define each_sample(s, all) (const struct dc_sample *s = next_of(all, NULL); s; s = next_of(all, s))

static unsigned count_of(const struct samples *all, unsigned kind, uint32_t tid)
{
	unsigned n = 0;

	for
		each_sample(s, all) n += s->kind == kind && (tid == 0 || s->tid == tid);
	return n;
}

static void take_blocks(int fd, struct samples *all)
{
	struct dc_block_header h;
	uint64_t at = 0;

	while (pread(fd, &h, sizeof(h), (off_t)at) == sizeof(h) && h.magic == DC_BLOCK_MAGIC) {
		if (h.type == DC_BLOCK_SAMPLES) {
			assert_int_equal(h.process, 7);
			all->bytes = realloc(all->bytes, all->used + h.stored_bytes);
			assert_int_equal(pread(fd, all->bytes + all->used, h.stored_bytes, (off_t)(at + sizeof(h))),
					 h.stored_bytes);
			all->used += h.stored_bytes;
		}
		at += h.next;
	}
}

static struct samples write_samples(struct dc_sampler *s, uint32_t pid, int64_t from_ns, int64_t to_ns)
{
	static const uint8_t id[16] = {1};
	char dir[] = "/tmp/dashcam-sampler-XXXXXX";
	CLEANUP(close_fd) int dir_fd = -1, fd = -1;
	struct samples all = {0};
	struct dc_writer *w;

	assert_non_null(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(dc_writer_open(dir_fd, "a.dcap", DC_WRITER_PWRITE, 4, id, &w), 0);
	assert_int_equal(dc_sampler_write(s, pid, 7, from_ns, to_ns, w, &all.totals), 0);
	assert_int_equal(dc_writer_close(w, true), 0);
	fd = openat(dir_fd, "a.dcap", O_RDONLY | O_CLOEXEC);
	take_blocks(fd, &all);
	unlinkat(dir_fd, "a.dcap", 0);
	rmdir(dir);
	return all;
}

/* What every sample must be, whoever made it. */
static void check(const struct samples *all, int64_t from_ns, int64_t to_ns)
{
	int64_t before = 0;
	uint64_t samples = 0, switches = 0;

	for
		each_sample(s, all)
		{
			const bool stack = s->kind == DC_SAMPLE_CPU || s->kind == DC_SAMPLE_OFF;

			assert_int_equal(s->bytes, sizeof(*s) + s->ip_count * 8 + s->reg_count * 8 +
							   ((s->stack_bytes + 7) & ~7u));
			assert_in_range(s->monotonic_ns, from_ns, to_ns);
			assert_true(s->monotonic_ns >= before);
			assert_true(stack || (s->kind >= DC_SAMPLE_SWITCH_OUT && s->kind <= DC_SAMPLE_SWITCH_IN));
			before = s->monotonic_ns;
			samples += stack;
			switches += !stack;
		}
	assert_int_equal(all->totals.samples, samples);
	assert_int_equal(all->totals.switches, switches);
}

/* --- who is sampled --- */

static void spin_ns(int64_t ns)
{
	const int64_t until = cpu_ns(CLOCK_THREAD_CPUTIME_ID) + ns;

	while (cpu_ns(CLOCK_THREAD_CPUTIME_ID) < until)
		for (volatile int i = 0; i < 10000; i++)
			;
}

/* Shared with the processes that are sampled. */
struct shared {
	_Atomic int32_t tids[8];
	_Atomic int64_t used_ns[8]; /* of CPU time */
	_Atomic int go;
};
static struct shared *shared;

static void tell_tid(int slot)
{
	atomic_store(&shared->tids[slot], (int32_t)syscall(SYS_gettid));
}

static void tell_used(int slot)
{
	atomic_store(&shared->used_ns[slot], cpu_ns(CLOCK_THREAD_CPUTIME_ID));
}

static void wait_go(void)
{
	while (!atomic_load(&shared->go))
		sleep_ns(MS);
}

static pid_t start(void (*body)(void))
{
	pid_t pid;

	*shared = (struct shared){0};
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
		alarm(60); /* nor does one that failed before we came here */
		body();
		_exit(0);
	}
	assert_true(pid > 0);
	return pid;
}

static void end(pid_t pid, int signal)
{
	int status;

	if (signal)
		kill(pid, signal);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(signal ? WTERMSIG(status) : WEXITSTATUS(status), signal);
}

/* A sampler of whatever scope the kernel lets us have, or the test is skipped. */
static struct dc_sampler *sampler(const struct dc_sampler_config *config)
{
	const struct dc_sampler_config defaults = {.hz = 499};
	struct dc_sample_mode mode;
	struct dc_sampler *s;

	assert_int_equal(dc_sampler_new(config ? config : &defaults, &s), 0);
	dc_sampler_mode(s, 1, &mode);
	if (dc_sampler_fd(s) < 0) {
		print_message("[  SKIPPED ] sampling is refused here: %s\n", mode.why);
		dc_sampler_free(s);
		skip();
	}
	return s;
}

static bool has_kernel(struct dc_sampler *s, uint32_t pid)
{
	struct dc_sample_mode mode;

	dc_sampler_mode(s, pid, &mode);
	return mode.kernel;
}

/* As the watcher's loop does. */
static void run_for(struct dc_sampler *s, int64_t ns)
{
	const int64_t until = dc_now_ns() + ns;
	struct pollfd p = {.fd = dc_sampler_fd(s), .events = POLLIN};
	int64_t tick = 0;

	while (dc_now_ns() < until) {
		if (poll(&p, 1, 20) > 0)
			dc_sampler_dispatch(s);
		if (dc_now_ns() - tick > 250 * MS) {
			dc_sampler_tick(s);
			tick = dc_now_ns();
		}
	}
}

/* --- the claims --- */

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
	pid_t pid = start(one_busy_one_asleep);
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
	check(&all, from, to);
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
	end(pid, SIGKILL);
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

static void sleeper(void)
{
	tell_tid(0);
	for (;;)
		sleep_ns(2 * MS);
}

static void test_sleeping_thread(void **state)
{
	/* A thread that only sleeps has off-CPU stacks, whose counts are its switches; each switch out is followed by one in. */
	struct dc_sampler *s = sampler(NULL);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = start(sleeper);
	const int64_t from = dc_now_ns();
	unsigned outs, ins;
	uint64_t stands_for = 0;

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	run_for(s, 1500 * MS);
	all = write_samples(s, (uint32_t)pid, from, INT64_MAX);
	check(&all, from, dc_now_ns());
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
	end(pid, SIGKILL);
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
	pid_t pid = start(ping_pong);
	int64_t from;
	double seconds;

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	if (!has_kernel(s, (uint32_t)pid)) {
		end(pid, SIGKILL);
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
	end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void *late_thread(void *arg)
{
	tell_tid(1);
	spin_ns(200 * MS);
	return arg;
}

static void makes_threads_and_children(void)
{
	pthread_t t;
	pid_t child;

	tell_tid(0);
	wait_go();
	pthread_create(&t, NULL, late_thread, NULL);
	pthread_join(t, NULL);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		tell_tid(2);
		while (shared->go < 2)
			sleep_ns(MS);
		spin_ns(200 * MS);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	atomic_store(&shared->go, 3);
	pause();
}

static uint32_t forked_pid, mapped_pid;

static void on_forked(void *arg, uint32_t parent, uint32_t pid)
{
	(void)arg;
	(void)parent;
	forked_pid = pid;
}

static void on_mapped(void *arg, uint32_t pid)
{
	(void)arg;
	mapped_pid = pid;
}

static void test_new_threads_and_children(void **state)
{
	/* Threads and processes made later are sampled, each once, without a word; the watcher is told of the process. */
	const struct dc_sampler_config config = {.hz = 499, .forked = on_forked, .mapped = on_mapped};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples own = {0}, child = {0};
	pid_t pid = start(makes_threads_and_children);
	const int64_t from = dc_now_ns();

	(void)state;
	forked_pid = 0;
	while (!shared->tids[0])
		sleep_ns(MS);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	atomic_store(&shared->go, 1);
	for (int i = 0; i < 200 && !(forked_pid && shared->tids[2]); i++) /* we may hear of it before it says who it is */
		run_for(s, 20 * MS);
	assert_int_equal(forked_pid, shared->tids[2]);
	assert_int_equal(dc_sampler_add(s, forked_pid), 0); /* is sampled already: no second set of events */
	atomic_store(&shared->go, 2);
	while (shared->go != 3)
		run_for(s, 20 * MS);
	own = write_samples(s, (uint32_t)pid, from, INT64_MAX);
	child = write_samples(s, forked_pid, from, INT64_MAX);
	check(&own, from, dc_now_ns());
	check(&child, from, dc_now_ns());
	assert_in_range(count_of(&own, DC_SAMPLE_CPU, (uint32_t)shared->tids[1]), 70, 115); /* 200 ms at 499 Hz */
	assert_in_range(count_of(&child, DC_SAMPLE_CPU, (uint32_t)shared->tids[2]), 70, 115);
	end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void maps_code(void)
{
	int fd;

	wait_go();
	fd = open("/proc/self/exe", O_RDONLY);
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		_exit(1);
	pause();
}

static void test_mappings_are_told(void **state)
{
	/* A library that is loaded is heard of at once, not at the next trigger. */
	const struct dc_sampler_config config = {.hz = 49, .mapped = on_mapped};
	struct dc_sampler *s = sampler(&config);
	struct pollfd p = {.fd = dc_sampler_fd(s), .events = POLLIN};
	pid_t pid = start(maps_code);

	(void)state;
	mapped_pid = 0;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	atomic_store(&shared->go, 1);
	for (int i = 0; i < 100 && mapped_pid == 0; i++) {
		assert_true(poll(&p, 1, 5000) == 1);
		dc_sampler_dispatch(s);
	}
	assert_int_equal(mapped_pid, pid);
	assert_int_equal(poll(&p, 1, 50), 0); /* and it is quiet again */
	end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void spinner(void)
{
	tell_tid(0);
	for (;;)
		spin_ns(100 * MS);
}

static void test_overwritten_ring_keeps_the_newest(void **state)
{
	/* A ring that is far too small holds the last samples, and says since when it does. */
	const struct dc_sampler_config config = {
		.hz = 999, .stacks = DC_STACKS_COPY, .copy_bytes = 8192, .ring_bytes = 65536};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = start(spinner);
	const int64_t from = dc_now_ns();
	int64_t to, newest = 0;

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	run_for(s, 800 * MS);
	kill(pid, SIGSTOP);
	run_for(s, 50 * MS);
	to = dc_now_ns();
	all = write_samples(s, (uint32_t)pid, 0, INT64_MAX);
	check(&all, from, to);
	for
		each_sample(x, &all) newest = x->kind == DC_SAMPLE_CPU ? x->monotonic_ns : newest;
	assert_in_range(all.totals.samples, 2, 40); /* 7 of 8 KiB a CPU */
	assert_true(all.totals.samples_from_ns > from + 300 * MS);
	assert_true(newest > to - 400 * MS);
	end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void test_killed_process(void **state)
{
	/* What was sampled of a process survives SIGKILL, for as long as the watcher said. */
	struct dc_sampler *s = sampler(NULL);
	CLEANUP(samples) struct samples all = {0}, gone = {0};
	pid_t pid = start(spinner);
	struct dc_sample_mode mode;
	clockid_t used;
	int64_t died;

	(void)state;
	assert_int_equal(clock_getcpuclockid(pid, &used), 0);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	for (int i = 0; i < 500 && cpu_ns(used) < 200 * MS; i++) /* samples are of CPU time, and the host may have little */
		run_for(s, 20 * MS);
	end(pid, SIGKILL);
	died = dc_now_ns();
	dc_sampler_remove(s, (uint32_t)pid, 2000 * MS);
	run_for(s, 200 * MS);
	all = write_samples(s, (uint32_t)pid, 0, INT64_MAX);
	check(&all, 0, died);
	assert_true(count_of(&all, DC_SAMPLE_CPU, (uint32_t)pid) > 30);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_true(mode.scope != 0 && mode.hz == 499);
	run_for(s, 3100 * MS);
	gone = write_samples(s, (uint32_t)pid, 0, INT64_MAX);
	assert_int_equal(gone.totals.samples, 0);
	dc_sampler_free(s);
}

static void test_host(void **state)
{
	/* One set of events for the whole host gives each process its own samples, and nobody else's. */
	const struct dc_sampler_config config = {.hz = 499, .stacks = DC_STACKS_FRAME_POINTERS, .host = true};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	struct dc_sample_mode mode;
	pid_t pid = start(one_busy_one_asleep);
	int64_t from = dc_now_ns();

	(void)state;
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	if (mode.scope != 1) {
		end(pid, SIGKILL);
		dc_sampler_free(s);
		skip();
	}
	atomic_store(&shared->go, 1);
	while (!shared->used_ns[0])
		run_for(s, 20 * MS);
	all = write_samples(s, (uint32_t)pid, from, INT64_MAX);
	check(&all, from, dc_now_ns());
	for
		each_sample(x, &all)
		{
			assert_true(x->tid == (uint32_t)shared->tids[0] || x->tid == (uint32_t)shared->tids[1]);
		}
	assert_in_range(count_of(&all, DC_SAMPLE_CPU, (uint32_t)shared->tids[1]), 200, 330); /* 600 ms at 499 Hz */
	assert_true(count_of(&all, DC_SAMPLE_SWITCH_OUT, 0) > 0);
	end(pid, SIGKILL);
	dc_sampler_free(s);
}

/* Exit status: 0, or the line that failed. */
static int as_nobody(void)
{
	const struct dc_sampler_config config = {.hz = 499, .host = true};
	struct dc_sample_mode mode;
	struct dc_sampler *s;
	pid_t pid;

	if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
		return __LINE__;
	if (dc_sampler_new(&config, &s) < 0 || dc_sampler_fd(s) < 0)
		return __LINE__;
	if (dc_sampler_add(s, 1) != -EACCES) /* init is not ours */
		return __LINE__;
	dc_sampler_mode(s, 1, &mode);
	if (mode.scope != 0 || !mode.why[0])
		return __LINE__;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60); /* its parent may have failed before this */
		prctl(PR_SET_DUMPABLE, 1); /* changing the uid took it away */
		spinner();
	}
	sleep_ns(50 * MS);
	if (dc_sampler_add(s, (uint32_t)pid) < 0)
		return __LINE__;
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	if (mode.scope != 2 || (!mode.kernel && !mode.why[0]))
		return __LINE__;
	run_for(s, 400 * MS);
	{
		CLEANUP(samples) struct samples all = write_samples(s, (uint32_t)pid, 0, INT64_MAX);

		kill(pid, SIGKILL);
		if (count_of(&all, DC_SAMPLE_CPU, (uint32_t)pid) < 30)
			return __LINE__;
	}
	dc_sampler_free(s);
	return 0;
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

static void check_raised(uint32_t hz, bool host)
{
	const struct dc_sampler_config config = {
		.hz = hz, .ready = true, .host = host, .stacks = DC_STACKS_FRAME_POINTERS, .ring_bytes = 1 << 20};
	struct dc_sampler *s = sampler(&config);
	CLEANUP(samples) struct samples all = {0};
	pid_t pid = start(computes);
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
	end(pid, SIGKILL);
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

static void test_ordinary_user(void **state)
{
	/* Somebody without any privilege samples own processes (perf_event_paranoid 2); others' end in one line. */
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	dc_sampler_free(sampler(NULL));
	*shared = (struct shared){0};
	pid = fork();
	if (pid == 0)
		_exit(as_nobody() & 0xff);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_off(void **state)
{
	/* hz 0 opens nothing, refuses nothing, and says why there are no samples. */
	const struct dc_sampler_config config = {0};
	struct dc_sample_mode mode;
	struct dc_sampler *s;
	CLEANUP(samples) struct samples all = {0};

	(void)state;
	assert_int_equal(dc_sampler_new(&config, &s), 0);
	assert_int_equal(dc_sampler_fd(s), -1);
	assert_int_equal(dc_sampler_add(s, (uint32_t)getpid()), 0);
	dc_sampler_dispatch(s);
	dc_sampler_tick(s);
	dc_sampler_mode(s, (uint32_t)getpid(), &mode);
	assert_int_equal(mode.scope, 0);
	assert_string_equal(mode.why, "switched off");
	all = write_samples(s, (uint32_t)getpid(), 0, INT64_MAX);
	assert_int_equal(all.used, 0);
	dc_sampler_remove(s, (uint32_t)getpid(), 0);
	dc_sampler_free(s);
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
	pid_t pid = start(spinner);
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
	end(pid, SIGKILL);
	dc_sampler_free(s);
}

static void test_descriptors_run_out(void **state)
{
	/* With too few descriptors a process is sampled without switches, then not at all; either way it is said. */
	struct dc_sampler *s = sampler(NULL);
	struct dc_sample_mode mode;
	pid_t pid = start(sleeper);
	struct rlimit old, few;
	int next;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &old);
	next = dup(0);
	close(next);
	few = (struct rlimit){(rlim_t)next + 2, old.rlim_max};
	setrlimit(RLIMIT_NOFILE, &few);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), -EMFILE);
	setrlimit(RLIMIT_NOFILE, &old);
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_int_equal(mode.scope, 0);
	assert_non_null(strstr(mode.why, "open files"));
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0); /* and again when there are more */
	dc_sampler_mode(s, (uint32_t)pid, &mode);
	assert_int_equal(mode.scope, 2);
	end(pid, SIGKILL);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), 0); /* it is still known */
	dc_sampler_remove(s, (uint32_t)pid, 0);
	assert_int_equal(dc_sampler_add(s, (uint32_t)pid), -ESRCH);
	dc_sampler_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_busy_thread),        cmocka_unit_test(test_sleeping_thread),
		cmocka_unit_test(test_switches_are_tuned), cmocka_unit_test(test_new_threads_and_children),
		cmocka_unit_test(test_mappings_are_told),  cmocka_unit_test(test_overwritten_ring_keeps_the_newest),
		cmocka_unit_test(test_killed_process),     cmocka_unit_test(test_host),
		cmocka_unit_test(test_raised),             cmocka_unit_test(test_ordinary_user),      cmocka_unit_test(test_off),
		cmocka_unit_test(test_copies_are_tuned),   cmocka_unit_test(test_descriptors_run_out),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
