/* SPDX-License-Identifier: MIT */
#include "tests/stopping.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "ipc/registers.h"
#include "tests/memory_writer.h"
#include "trigger/proc.h"

static struct dc_writer writer;

struct shared *shared;
uint32_t found_count;
struct found found[DC_THREADS_MAX];

int stopping_set_up(void **state)
{
	(void)state;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED;
}

void nap(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

void wait_ready(uint32_t count)
{
	for (int64_t until = dc_now_ns() + INT64_C(30000000000); atomic_load(&shared->ready) < count;) {
		assert_true(dc_now_ns() < until);
		nap(1);
	}
}

uint64_t start_time_of(pid_t pid)
{
	struct dc_proc_stat st;

	assert_int_equal(dc_proc_stat((uint32_t)pid, &st), 0);
	return st.start_time;
}

pid_t child_start(void (*work)(void))
{
	pid_t pid;

	memset((void *)shared, 0, sizeof(*shared));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work();
		_exit(0);
	}
	return pid;
}

void child_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	do
		assert_int_equal(waitpid(pid, &status, 0), pid);
	while (WIFSTOPPED(status));
}

char state_of(pid_t pid)
{
	struct dc_proc_stat st;

	return dc_proc_stat((uint32_t)pid, &st) == 0 ? st.state : '?';
}

void until_state(pid_t pid, char state)
{
	for (int64_t until = dc_now_ns() + INT64_C(10000000000); state_of(pid) != state;) {
		assert_true(dc_now_ns() < until);
		nap(1);
	}
}

void *sleep_on(void *arg)
{
	STAND((uintptr_t)arg);
	for (;;)
		pause();
	return NULL;
}

static void read_samples(void)
{
	found_count = 0;
	for (unsigned b = 0; b < writer.count; b++) {
		const struct memory_block *block = &writer.blocks[b];

		assert_int_equal(block->type, DC_BLOCK_SAMPLES);
		assert_int_equal(block->process, 5);
		for (size_t at = 0; at < block->bytes;) {
			struct found *f = &found[found_count++];
			const uint8_t *p = block->payload + at;

			memcpy(&f->s, p, sizeof(f->s));
			assert_int_equal(f->s.kind, DC_SAMPLE_THREAD);
			assert_int_equal(f->s.bytes % 8, 0);
			assert_int_equal(f->s.extra_bytes, sizeof(f->state));
			assert_int_equal(f->s.bytes, sizeof(f->s) + f->s.reg_count * 8 +
							     ((f->s.stack_bytes + 7) & ~7u) + sizeof(f->state));
			f->regs = (const void *)(p + sizeof(f->s));
			f->stack = (const uint8_t *)(f->regs + f->s.reg_count);
			memcpy(&f->state, p + f->s.bytes - sizeof(f->state), sizeof(f->state));
			at += f->s.bytes;
			assert_true(at <= block->bytes);
		}
	}
}

struct dc_threads_totals take(pid_t pid)
{
	struct dc_threads_totals totals = {.threads = 77};

	assert_int_equal(take_into(0, pid, start_time_of(pid), BUDGET_NS, &totals), 0);
	assert_int_equal(found_count, totals.threads);
	return totals;
}

struct dc_threads_totals take_in_two_steps(pid_t pid)
{
	struct dc_threads_totals totals = {.threads = 77};
	struct dc_threads *threads = NULL;

	memory_writer_reset(&writer);
	assert_int_equal(dc_threads_take((uint32_t)pid, start_time_of(pid), BUDGET_NS, &threads, &totals), 0);
	assert_int_equal(dc_threads_put(threads, 5, &writer), 0);
	dc_threads_free(threads);
	read_samples();
	assert_int_equal(found_count, totals.threads);
	return totals;
}

int take_into(int error, pid_t pid, uint64_t start_time, int64_t budget_ns, struct dc_threads_totals *ret_totals)
{
	int r;

	memory_writer_reset(&writer);
	writer.error = error;
	r = dc_threads_write((uint32_t)pid, start_time, 5, budget_ns, &writer, ret_totals);
	read_samples();
	return r;
}

const struct found *found_thread(uint32_t tid)
{
	const struct found *f = NULL;

	for (uint32_t i = 0; i < found_count; i++) {
		if (found[i].s.tid != tid)
			continue;
		assert_null(f); /* each once */
		f = &found[i];
	}
	return f;
}

void assert_taken(const struct found *f, uint64_t mark_at)
{
	uint64_t sp, mark;

	assert_non_null(f);
	assert_int_equal(f->state.taken, 1);
	assert_int_equal(f->s.reg_count, DC_REGS);
	sp = f->regs[DC_REG_SP];
	assert_true(mark_at >= sp && mark_at + 8 <= sp + f->s.stack_bytes);
	memcpy(&mark, f->stack + (mark_at - sp), sizeof(mark));
	assert_int_equal(mark, MARK);
	assert_true(f->state.stopped_ns > 0);
}
