/* SPDX-License-Identifier: MIT */
/*
 * A program that records a little and computes a lot, for e2e_guest: two threads spend three quarters of their time in
 * function_that_computes() and one quarter in function_that_helps(), until a capture is asked for.
 *
 *   sampled [MILLISECONDS [closed|filtered]]   closed: not dumpable, so nobody else of its user may look into it
 *                                              filtered: any system call that it does not need kills it
 *   sampled noperf COMMAND...                  that command where perf_event_open() is refused
 *   sampled stacks                             DC_STACK() below five functions without frame pointers, in main and in a thread
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <dashcam.h>

#define JUMP_IF(call, other) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, other)

static int64_t until_ms, least_cpu_ms, patience_ms;

__attribute__((noinline)) static void function_that_computes(void)
{
	for (volatile int i = 0; i < 3000000; i++)
		;
}

__attribute__((noinline)) static void function_that_helps(void)
{
	for (volatile int i = 0; i < 1000000; i++)
		;
}

static int64_t clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static int64_t now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

/* Samples are of CPU time: where others have most of it, it takes longer. */
static bool goes_on(void)
{
	return now_ms() < until_ms || (clock_ms(CLOCK_PROCESS_CPUTIME_ID) < least_cpu_ms && now_ms() < patience_ms);
}

static void *work(void *arg)
{
	do {
		DC_SPAN("work");
		function_that_computes();
		function_that_helps();
	} while (goes_on());
	return arg;
}

static void install(struct sock_filter *f, unsigned short count, unsigned flags)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &(struct sock_fprog){count, f}) < 0)
		_exit(77);
}

static int run_without_perf(char **command)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		JUMP_IF(SYS_perf_event_open, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	install(f, sizeof f / sizeof *f, 0);
	execvp(command[0], command);
	return 127;
}

/* What the threads need to end by, and the recorder as DESIGN.md lists it; anything else kills. */
static void filter(void)
{
	static const int allowed[] = {SYS_madvise, SYS_gettid, SYS_mmap,      SYS_sigaltstack,    SYS_socket,
				      SYS_sendto,  SYS_close,  SYS_exit,      SYS_futex,          SYS_munmap,
				      SYS_write,   SYS_rseq,   SYS_exit_group, SYS_clock_gettime, SYS_set_robust_list,
				      SYS_rt_sigprocmask, SYS_clock_nanosleep, SYS_restart_syscall};
	static struct sock_filter f[64] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
	unsigned short n = 1;

	for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
		f[n++] = (struct sock_filter)JUMP_IF((unsigned)allowed[i], 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	install(f, n, SECCOMP_FILTER_FLAG_TSYNC);
}

static volatile int calls; /* so that none is the last thing its caller does */

#define CALLS(function, what)                                                                                          \
	__attribute__((noinline)) static void function(void)                                                           \
	{                                                                                                              \
		what;                                                                                                  \
		calls++;                                                                                               \
	}
CALLS(fifth, DC_STACK("deep"))
CALLS(fourth, fifth())
CALLS(third, fourth())
CALLS(second, third())
CALLS(first, second())

static void *in_thread(void *arg)
{
	first();
	return arg;
}

static int take_stacks(void)
{
	pthread_t t;

	first();
	if (pthread_create(&t, NULL, in_thread, NULL))
		return 1;
	pthread_join(t, NULL);
	DC_TRIGGER("enough");
	nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	return 0;
}

int main(int argc, char **argv)
{
	const int ms = argc > 1 ? atoi(argv[1]) : 2000;
	pthread_t t;

	if (argc > 2 && strcmp(argv[1], "noperf") == 0)
		return run_without_perf(argv + 2);
	if (argc > 1 && strcmp(argv[1], "stacks") == 0)
		return take_stacks();
	if (argc > 2 && strcmp(argv[2], "closed") == 0)
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	until_ms = now_ms() + ms;
	patience_ms = until_ms + 5 * ms;
	least_cpu_ms = ms / 2;
	DC_INSTANT("begin");
	if (pthread_create(&t, NULL, work, NULL))
		return 1;
	if (argc > 2 && strcmp(argv[2], "filtered") == 0)
		filter();
	work(NULL);
	pthread_join(t, NULL);
	DC_TRIGGER("enough");
	nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL); /* for the watcher to look */
	return 0;
}
