/* SPDX-License-Identifier: MIT */
/* Threads that sample themselves (recorder/sample.c): only when asked, only as long, and nobody else's signal. */
#include "tests/guests.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ipc/registers.h"
#include "ipc/samples.h"
#include "recorder/dashcam.h"

#define HZ 199u
#define SPIN_NS 300000000

static struct dc_ring_header header;
static int ring_fd = -1;

static void ring_open(void)
{
	struct dc_stats s = {.size = sizeof s};
	NEED(dc_stats(&s) == 0);
	if (ring_fd >= 0)
		close(ring_fd);
	ring_fd = open(s.ring, O_RDWR);
	NEED(pread(ring_fd, &header, sizeof header, 0) == sizeof header);
	NEED(header.samples_off);
}

/* As a watcher does. @from_now: in units of the ring's clock, which are nanoseconds or longer; < 0: it is over. */
static void ask(uint32_t hz, int64_t from_now)
{
	struct dc_ring_control c = {0};
	struct dc_ring_lane lane;
	const off_t at = (off_t)(header.control_off + offsetof(struct dc_ring_control, sample_hz));
	DC_INSTANT("now");
	NEED(pread(ring_fd, &lane, sizeof lane, (off_t)header.lanes_off) == sizeof lane);
	c.sample_hz = hz;
	c.sample_until_units = lane.last_units + (uint64_t)from_now;
	c.sample_copy_bytes = 4096;
	NEED(pwrite(ring_fd, (uint8_t *)&c + offsetof(struct dc_ring_control, sample_hz), 16, at) == 16);
}

#define LONG (INT64_C(1) << 35)

static void notice(bool on)
{
	const uint8_t byte = on;
	NEED(pread(ring_fd, &header, sizeof header, 0) == sizeof header);
	for (uint32_t i = 1; i < header.sites_used; i++)
		NEED(pwrite(ring_fd, &byte, 1, (off_t)(header.control_off + offsetof(struct dc_ring_control, enable) + 4 * i + 2)) == 1);
}

static struct dc_ring_samples state_now(void)
{
	struct dc_ring_samples s;
	NEED(pread(ring_fd, &s, sizeof s, (off_t)header.samples_off) == sizeof s);
	return s;
}

static int64_t cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* So much time on the CPU. */
static void spin(int64_t ns)
{
	for (const int64_t until = cpu_ns() + ns; cpu_ns() < until;)
		;
}

/* Whether the process has a timer; 0 also where the kernel does not say (CONFIG_CHECKPOINT_RESTORE). */
static int timers(void)
{
	char text[4096];
	int fd = open("/proc/self/timers", O_RDONLY), n = 0;
	ssize_t bytes = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	text[bytes > 0 ? bytes : 0] = 0;
	for (const char *p = text; (p = strstr(p, "ClockID:")); p++)
		n++;
	close(fd);
	return n;
}

static void handler(int signal_number)
{
	(void)signal_number;
}

static int signals_taken(void)
{
	int n = 0;
	for (int i = SIGRTMIN; i <= SIGRTMAX; i++) {
		struct sigaction act;
		n += sigaction(i, NULL, &act) == 0 && act.sa_handler != SIG_DFL;
	}
	return n;
}

static void record(void)
{
	DC_INSTANT("here");
}

static void not_asked(void *arg)
{
	(void)arg;
	record();
	ring_open();
	notice(true);
	for (int i = 0; i < 10000; i++)
		record();
	spin(SPIN_NS / 4);
	NEED(signals_taken() == 0 && timers() == 0);
	NEED(state_now().written == 0 && state_now().signal == 0);
}

/* Claim: a process that nobody asks takes no signal and no timer, whatever else its sites are told. */
static void test_not_asked(void **state)
{
	(void)state;
	assert_int_equal(guest_run(not_asked, NULL), 0);
}

/* The records, front to back; the ring has not gone round. @ret_periods: of the timer that they stand for. */
static unsigned check_records(uint32_t tid, unsigned *ret_periods)
{
	static uint64_t bytes[DC_SAMPLE_BYTES_MAX / 8];
	struct dc_ring_sample *s = (void *)bytes;
	unsigned count = 0;
	*ret_periods = 0;
	for (uint64_t at = 0, end = state_now().written; at < end; at += s->bytes, count++) {
		const off_t place = (off_t)(header.samples_off + sizeof(struct dc_ring_samples) + at);
		NEED(pread(ring_fd, s, sizeof *s, place) == sizeof *s && s->bytes <= sizeof bytes);
		NEED(pread(ring_fd, s, s->bytes, place) == (ssize_t)s->bytes);
		NEED(s->at == at && s->check == dc_ring_sample_check(s, s->bytes));
		NEED(s->kind == DC_RING_SAMPLE_CPU && s->hz == HZ && s->periods >= 1);
		NEED(s->reg_count == DC_REGS && s->stack_bytes > 64 && s->stack_bytes <= 4096);
		NEED(tid == 0 || s->tid == tid);
		const uint64_t *regs = (const uint64_t *)(s + 1);
		uintptr_t here = (uintptr_t)__builtin_frame_address(0);
		NEED(regs[DC_REG_SP] - here + (4u << 20) < (8u << 20)); /* the stack of main */
		*ret_periods += s->periods;
	}
	return count;
}

static void asked(void *arg)
{
	(void)arg;
	record();
	ring_open();
	ask(HZ, LONG);
	notice(true);
	record();
	NEED(signals_taken() == 1 && state_now().threads == 1);
	spin(SPIN_NS);
	errno = EXDEV;
	spin(SPIN_NS / 4);
	NEED(errno == EXDEV);
	unsigned periods;
	const uint64_t before = state_now().taken;
	const unsigned count = check_records((uint32_t)getpid(), &periods);
	NEED(before <= count && count <= state_now().taken); /* this thread is sampled while it looks */
	/* The kernel looks at such timers with its tick, when that finds the thread on a CPU: beside others, fewer of more each. */
	NEED(periods >= 15 && periods <= HZ * (SPIN_NS / 1000000 + 200) / 1000);
	NEED(count >= 3 && count <= periods);
	ask(0, 0);
	notice(false);
	spin(SPIN_NS / 4);
	NEED(state_now().threads == 0 && state_now().taken <= count + 2 && timers() == 0);
	const uint64_t taken = state_now().taken;
	record();
	spin(SPIN_NS / 4);
	NEED(state_now().taken == taken);
}

/* Claim: one that is asked has whole records of its thread, about as many as asked for, and ends when that is over. */
static void test_asked(void **state)
{
	(void)state;
	if (guest_emulated())
		skip();
	assert_int_equal(guest_run(asked, NULL), 0);
}

static void forgotten(void *arg)
{
	(void)arg;
	record();
	ring_open();
	ask(HZ, LONG);
	notice(true);
	record();
	NEED(state_now().threads == 1);
	ask(HZ, -1); /* the watcher died: it asks no more */
	spin(SPIN_NS / 4);
	NEED(state_now().threads == 0 && timers() == 0);
	record(); /* and its notice goes away by itself */
	uint32_t words[16] = {0};
	NEED(pread(ring_fd, words, sizeof words, (off_t)(header.control_off + offsetof(struct dc_ring_control, enable))) > 0);
	NEED((words[1] & words[2] & DC_ENABLE_NOTICE) == 0);
	ask(HZ, INT64_MAX / 2); /* nobody asks for years */
	notice(true);
	record();
	NEED(state_now().threads == 0);
}

/* Claim: who is not asked again goes on for the time that was said only. */
static void test_forgotten(void **state)
{
	(void)state;
	if (guest_emulated())
		skip();
	assert_int_equal(guest_run(forgotten, NULL), 0);
}

static void *blocking(void *arg)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	record();
	NEED(state_now().refused == 1 && state_now().error == -EPERM);
	spin(SPIN_NS / 10);
	return arg;
}

static void *passing(void *arg)
{
	record();
	NEED(state_now().threads == 2);
	spin(SPIN_NS / 10);
	return arg;
}

static void manners(void *arg)
{
	pthread_t t;
	(void)arg;
	for (int i = SIGRTMIN + 4; i <= SIGRTMAX; i++)
		NEED(i == 50 || signal(i, handler) == SIG_DFL);
	record();
	ring_open();
	ask(HZ, LONG);
	notice(true);
	record();
	NEED(state_now().threads == 1 && state_now().signal == 50);
	for (int i = 51; i <= SIGRTMAX; i++) {
		struct sigaction act;
		NEED(sigaction(i, NULL, &act) == 0 && act.sa_handler == handler);
	}
	NEED(pthread_create(&t, NULL, blocking, NULL) == 0 && pthread_join(t, NULL) == 0);
	NEED(state_now().refused == 0);
	NEED(pthread_create(&t, NULL, passing, NULL) == 0 && pthread_join(t, NULL) == 0);
	NEED(state_now().threads == 1 && timers() <= 1);
	const uint64_t taken = state_now().taken;
	pid_t pid = fork();
	if (pid == 0) {
		NEED(timers() == 0);
		record();
		spin(SPIN_NS / 10);
		_exit(0);
	}
	NEED(guest_wait(pid) == 0);
	NEED(state_now().taken <= taken + 1);
	kill(getpid(), 50); /* somebody else's: what it would have done */
	spin(SPIN_NS);
	_exit(3);
}

/* Claim: signals that somebody handles are his, threads that block ours are let be, no timer outlives its thread, no child
 * is sampled, and the signal from elsewhere kills, as it would have. */
static void test_manners(void **state)
{
	(void)state;
	if (guest_emulated() || GUEST_SANITIZED)
		skip();
	assert_int_equal(guest_run(manners, NULL), 1000 + 50);
}

static void no_signal(void *arg)
{
	(void)arg;
	for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
		NEED(signal(i, handler) == SIG_DFL);
	record();
	ring_open();
	ask(HZ, LONG);
	notice(true);
	record();
	NEED(state_now().threads == 0 && state_now().refused == 1 && state_now().error == -EBUSY && timers() == 0);
}

/* Claim: where every signal is somebody's, there are no samples, and it says why. */
static void test_no_signal(void **state)
{
	(void)state;
	if (guest_emulated()) /* keeps signals for itself */
		skip();
	assert_int_equal(guest_run(no_signal, NULL), 0);
}

static void round_and_round(void *arg)
{
	(void)arg;
	setenv("DASHCAM_MEMORY", "2MiB", 1);
	record();
	ring_open();
	NEED(header.samples_bytes <= header.file_bytes / 8);
	ask(1000, LONG);
	notice(true);
	record();
	for (int i = 0; i < 60 && state_now().written < header.samples_bytes; i++)
		spin(SPIN_NS / 6);
	NEED(state_now().written > header.samples_bytes - DC_SAMPLE_BYTES_MAX && state_now().lost == 0);
}

/* Claim: the part goes round; none is lost for want of room. */
static void test_round(void **state)
{
	(void)state;
	if (guest_emulated())
		skip();
	assert_int_equal(guest_run(round_and_round, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_not_asked, guest_teardown),
		cmocka_unit_test_teardown(test_asked, guest_teardown),
		cmocka_unit_test_teardown(test_forgotten, guest_teardown),
		cmocka_unit_test_teardown(test_manners, guest_teardown),
		cmocka_unit_test_teardown(test_no_signal, guest_teardown),
		cmocka_unit_test_teardown(test_round, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
