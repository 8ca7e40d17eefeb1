/* SPDX-License-Identifier: MIT */
#include "tests/sampling.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "persist/writer.h"

struct shared *shared;

int sampling_set_up(void **state)
{
	(void)state;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED;
}

void sleep_ns(int64_t ns)
{
	const struct timespec ts = {ns / 1000000000, ns % 1000000000};

	nanosleep(&ts, NULL);
}

int64_t cpu_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* --- what was sampled --- */

const struct dc_sample *next_of(const struct samples *all, const struct dc_sample *s)
{
	const uint8_t *at = s ? (const uint8_t *)s + s->bytes : all->bytes;

	return at < all->bytes + all->used ? (const void *)at : NULL;
}

unsigned count_of(const struct samples *all, unsigned kind, uint32_t tid)
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

struct samples write_samples(struct dc_sampler *s, uint32_t pid, int64_t from_ns, int64_t to_ns)
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

void samples_check(const struct samples *all, int64_t from_ns, int64_t to_ns)
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

void spin_ns(int64_t ns)
{
	const int64_t until = cpu_ns(CLOCK_THREAD_CPUTIME_ID) + ns;

	while (cpu_ns(CLOCK_THREAD_CPUTIME_ID) < until)
		for (volatile int i = 0; i < 10000; i++)
			;
}

void tell_tid(int slot)
{
	atomic_store(&shared->tids[slot], (int32_t)syscall(SYS_gettid));
}

void tell_used(int slot)
{
	atomic_store(&shared->used_ns[slot], cpu_ns(CLOCK_THREAD_CPUTIME_ID));
}

void wait_go(void)
{
	while (!atomic_load(&shared->go))
		sleep_ns(MS);
}

pid_t sampled_start(void (*body)(void))
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

void sampled_end(pid_t pid, int signal)
{
	int status;

	if (signal)
		kill(pid, signal);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(signal ? WTERMSIG(status) : WEXITSTATUS(status), signal);
}

struct dc_sampler *sampler(const struct dc_sampler_config *config)
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

bool has_kernel(struct dc_sampler *s, uint32_t pid)
{
	struct dc_sample_mode mode;

	dc_sampler_mode(s, pid, &mode);
	return mode.kernel;
}

void run_for(struct dc_sampler *s, int64_t ns)
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

void sleeper(void)
{
	tell_tid(0);
	for (;;)
		sleep_ns(2 * MS);
}

void spinner(void)
{
	tell_tid(0);
	for (;;)
		spin_ns(100 * MS);
}
