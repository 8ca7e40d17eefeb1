/* SPDX-License-Identifier: MIT */
/*
 * After its start the recorder asks the system for next to nothing: it goes on when all descriptors are
 * closed, the root directory is another, privileges are gone, and under a seccomp filter that kills on
 * anything but what DESIGN.md lists.
 */
#include "tests/guests.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "recorder/dashcam.h"

static void everything(int n)
{
	for (int i = 0; i < n; i++) {
		DC_SPAN("span", "i", i, "s", "text", "d", 1.5);
		DC_BEGIN("left open", "i", i);
		DC_INSTANT("instant");
		DC_LOG(DC_INFO, "%d", i);
		DC_COUNTER("counter", i);
		DC_ASYNC_BEGIN("async", i);
		DC_ASYNC_END("async", i);
		DC_FLOW_OUT(i);
		DC_TRACE_CONTEXT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	}
}

static void rare(void)
{
	DC_STACK("stack");
	DC_TRIGGER("trigger", "n", 1);
	dc_thread_name("name");
	dc_instant(dc_site_new(DC_SITE_INSTANT, "runtime"));
}

static void *thread(void *arg)
{
	(void)arg;
	everything(10);
	rare();
	return NULL;
}

static struct guest_ring *check(struct guest_rings *rings, size_t spans)
{
	struct guest_ring *r = guest_only(rings);
	assert_int_equal(r->dropped, 0);
	assert_int_equal(guest_count(r, DC_KIND_BEGIN, "span"), spans);
	return r;
}

static void no_descriptors(void *arg)
{
	(void)arg;
	everything(1);
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	everything(10000);
	rare();
}

/* Claim: a program that closes every descriptor it does not know goes on recording, and its ring stays alive. */
static void test_closed(void **state)
{
	static struct guest_rings rings;
	(void)state;
	assert_int_equal(guest_run(no_descriptors, NULL), 0);
	check(&rings, 10001);
	guest_rings_free(&rings);
}

static void opens_nothing(void *arg)
{
	(void)arg;
	int before = dup(0);
	close(before);
	everything(1000);
	rare();
	int after = dup(0);
	NEED(before == after);
}

/* Claim: the recorder holds no descriptor. */
static void test_no_descriptor(void **state)
{
	(void)state;
	assert_int_equal(guest_run(opens_nothing, NULL), 0);
}

static void other_root(void *arg)
{
	(void)arg;
	everything(1);
	NEED(chroot("/proc/self/fdinfo") == 0 && chdir("/") == 0);
	NEED(setresuid(54321, 54321, 54321) == 0);
	everything(10000);
	rare();
	pid_t pid = fork();
	if (pid == 0) { /* no place for a ring here, so none */
		everything(10);
		rare();
		_exit(0);
	}
	NEED(guest_wait(pid) == 0);
	everything(10);
}

/* Claim: another root directory and another user change nothing; a child there does without. */
static void test_other_root(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (geteuid() != 0 || GUEST_SANITIZED) {
		print_message("chroot needs root, and sanitizers need /proc\n");
		skip();
	}
	assert_int_equal(guest_run(other_root, NULL), 0);
	check(&rings, 10011);
	guest_rings_free(&rings);
}

/* Everything but @allowed kills, in all threads. */
static void allow(const int *allowed, size_t count)
{
	static struct sock_filter f[64];
	size_t n = 0;
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < count; i++) {
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog program = {(unsigned short)n, f};
	NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	NEED(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0);
}

static void filtered(void *arg)
{
	static const int listed[] = {SYS_madvise, SYS_gettid, SYS_mmap,  SYS_sigaltstack,
				     SYS_socket,  SYS_sendto, SYS_close, SYS_exit_group};
	(void)arg;
	everything(1);
	allow(listed, sizeof listed / sizeof *listed);
	everything(100000);
	rare();
	DC_INSTANT("a new site");
	_exit(0);
}

static pthread_barrier_t go;

static void *filtered_thread(void *arg)
{
	pthread_barrier_wait(&go);
	thread(arg);
	return NULL;
}

static void filtered_threads(void *arg)
{
	static const int listed[] = {SYS_madvise,         SYS_gettid,    SYS_mmap,           SYS_sigaltstack,
				     SYS_socket,          SYS_sendto,    SYS_close,          SYS_exit,
				     SYS_futex,           SYS_munmap,    SYS_rt_sigprocmask, SYS_rseq,
				     SYS_set_robust_list, SYS_exit_group};
	pthread_t t[3];
	(void)arg;
	everything(1);
	pthread_barrier_init(&go, NULL, 4);
	for (int i = 0; i < 3; i++)
		NEED(pthread_create(&t[i], NULL, filtered_thread, NULL) == 0);
	allow(listed, sizeof listed / sizeof *listed);
	pthread_barrier_wait(&go);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	_exit(0);
}

/* Claim: after start the recorder makes only the calls that DESIGN.md lists; new threads, new sites, triggers
 * included. */
static void test_filter(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (GUEST_SANITIZED)
		skip();
	if (prctl(PR_GET_SECCOMP) < 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) == 0 ||
	    errno != EFAULT) {
		print_message("no seccomp here\n");
		skip();
	}
	assert_int_equal(guest_run(filtered, NULL), 0);
	check(&rings, 100001);
	assert_int_equal(guest_count(&rings.ring[0], 0, "a new site"), 1);
	guest_rings_free(&rings);
	guest_clean();
	assert_int_equal(guest_run(filtered_threads, NULL), 0);
	check(&rings, 31);
	guest_rings_free(&rings);
}

static void traced(void *arg)
{
	(void)arg;
	setenv("DASHCAM_MEMORY", "1MiB", 1);
	everything(20000); /* the ring is as large as it gets */
	NEED(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	raise(SIGSTOP);
	everything(100000);
	_exit(0);
}

/* Claim: in steady state, the ring at its cap, recording makes no system call at all. */
static void test_silent(void **state)
{
	int status, calls = 0;
	(void)state;
	if (GUEST_SANITIZED)
		skip();
	pid_t pid = guest_start(traced, NULL);
	waitpid(pid, &status, 0);
	if (!WIFSTOPPED(status)) {
		print_message("no ptrace here\n");
		skip();
	}
	while (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid &&
	       WIFSTOPPED(status))
		calls++;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_true(calls <= 16); /* what is left of raise(), and exit_group; the ring turned over a few times meanwhile */
}

static void small_pages(void *arg)
{
	(void)arg;
	/* a kernel before 5.14: MADV_POPULATE_WRITE is unknown */
	static struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 23, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof f / sizeof *f, f};
	struct dc_stats stats = {.size = sizeof stats};
	NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	NEED(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
	everything(100000);
	rare();
	NEED(dc_stats(&stats) == 0 && stats.dropped == 0);
	NEED(stats.cap_bytes <= 8 << 20 && stats.cap_bytes > 4 << 20);
	NEED(stats.memory_bytes > 4 << 20 && stats.memory_bytes <= stats.cap_bytes);
}

/* Claim: on kernels that cannot populate by madvise() all memory is taken at the start, and less of it. */
static void test_old_kernel(void **state)
{
	static struct guest_rings rings;
	(void)state;
	if (prctl(PR_GET_SECCOMP) < 0) {
		print_message("no seccomp here\n");
		skip();
	}
	assert_int_equal(guest_run(small_pages, NULL), 0);
	guest_only(&rings);
	guest_rings_free(&rings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_closed, guest_teardown),
		cmocka_unit_test_teardown(test_no_descriptor, guest_teardown),
		cmocka_unit_test_teardown(test_other_root, guest_teardown),
		cmocka_unit_test_teardown(test_filter, guest_teardown),
		cmocka_unit_test_teardown(test_silent, guest_teardown),
		cmocka_unit_test_teardown(test_old_kernel, guest_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
