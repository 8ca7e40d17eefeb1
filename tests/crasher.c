/* SPDX-License-Identifier: MIT */
/*
 * A program that dies in the way its argument names, for e2e_crash. It records before it does, except where a way says
 * otherwise. Every function that faults is named die_WAY, and is called by call_die_WAY where its caller matters. A second
 * argument names a file: when the fault is about to happen the time is written to it (CLOCK_MONOTONIC, in nanoseconds). A
 * third one says how many milliseconds it lives before.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <dashcam.h>

#ifdef __clang__
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noinline, noclone))
#endif

static void *volatile null;
static void (*volatile null_function)(void);
static volatile int sink, zero;
static pthread_barrier_t barrier;
static int clock_fd = -1;

/* Only calls that signal handlers may make. */
static void about_to_die(void)
{
	struct timespec t;
	int64_t ns;

	if (clock_fd < 0)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	ns = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
	if (pwrite(clock_fd, &ns, sizeof(ns), 0) != sizeof(ns))
		_exit(99);
}

APART static void die_read(void)
{
	about_to_die();
	sink = *(volatile int *)null;
	sink++;
}

APART static void call_die_call(void)
{
	about_to_die();
	null_function();
	sink++;
}

APART static int die_overflow(int n)
{
	volatile char frame[512];

	frame[0] = (char)n;
	return n ? die_overflow(n + 1) + frame[0] : 0;
}

APART static void call_die_overflow(void)
{
	about_to_die();
	sink = die_overflow(1);
}

static void *overflow_thread(void *arg)
{
	DC_INSTANT("thread");
	call_die_overflow();
	return arg;
}

static void call_die_overflow_thread(void)
{
	pthread_t t;

	pthread_create(&t, NULL, overflow_thread, NULL);
	pthread_join(t, NULL);
}

APART static void call_die_free(void)
{
	static char no_block[64];
	char *volatile p = no_block + 16;

	about_to_die();
	free(p);
	sink++;
}

static void on_user(int signal_number)
{
	(void)signal_number;
	die_read();
	sink++;
}

static void call_die_in_handler(void)
{
	signal(SIGUSR1, on_user);
	raise(SIGUSR1);
}

/* The app handles SIGSEGV itself, and its handler divides by zero. */
APART static void die_divide(void)
{
	about_to_die();
	sink = (sink + 7) / zero;
	sink++;
}

static void on_fault_divide(int signal_number)
{
	(void)signal_number;
	die_divide();
	sink++;
}

static void call_die_handler_other(void)
{
	signal(SIGSEGV, on_fault_divide);
	sink = *(volatile int *)null;
}

/* The same signal again: the kernel kills, nobody is asked. */
static void on_fault_read(int signal_number)
{
	(void)signal_number;
	die_read();
	sink++;
}

static void call_die_handler_same(void)
{
	signal(SIGSEGV, on_fault_read);
	sink = *(volatile int *)null;
}

static void die_in_child(int recorded)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (recorded)
			DC_INSTANT("child");
		die_read();
	}
	waitpid(pid, &status, 0);
	exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : 98);
}

static void call_die_child_recorded(void)
{
	die_in_child(1);
}

static void call_die_child(void)
{
	die_in_child(0);
}

static void *together(void *arg)
{
	DC_INSTANT("thread");
	pthread_barrier_wait(&barrier);
	die_read();
	return arg;
}

static void call_die_eight(void)
{
	pthread_t t;

	pthread_barrier_init(&barrier, NULL, 8);
	for (int i = 0; i < 8; i++)
		pthread_create(&t, NULL, together, NULL);
	for (;;)
		pause();
}

APART static void die_computing(void)
{
	for (;;)
		sink++;
}

/* SIGSEGV from outside: a child sends it while the parent computes. */
static void call_die_sent(void)
{
	if (fork() == 0) {
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		about_to_die();
		kill(getppid(), SIGSEGV);
		_exit(0);
	}
	die_computing();
}

APART static void die_bus(volatile char *map)
{
	about_to_die();
	sink = map[5000];
	sink++;
}

static void call_die_bus(void)
{
	char name[] = "/tmp/crasher.XXXXXX";
	int fd = mkstemp(name);
	volatile char *map;

	unlink(name);
	if (ftruncate(fd, 8192) < 0)
		exit(97);
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	sink = map[5000];
	if (ftruncate(fd, 0) < 0)
		exit(97);
	die_bus(map);
}

APART static void die_illegal(void)
{
	about_to_die();
#if defined(__x86_64__)
	__asm__ volatile("ud2");
#else
	__asm__ volatile(".inst 0");
#endif
	sink++;
}

APART static void die_abort(void)
{
	about_to_die();
	abort();
}

static const struct {
	const char *name;
	void (*die)(void);
} ways[] = {
	{"read", die_read},
	{"call", call_die_call},
	{"overflow", call_die_overflow},
	{"overflow_thread", call_die_overflow_thread},
	{"free", call_die_free},
	{"abort", die_abort},
	{"in_handler", call_die_in_handler},
	{"handler_other", call_die_handler_other},
	{"handler_same", call_die_handler_same},
	{"child", call_die_child},
	{"child_recorded", call_die_child_recorded},
	{"eight", call_die_eight},
	{"sent", call_die_sent},
	{"divide", die_divide},
	{"bus", call_die_bus},
	{"illegal", die_illegal},
};

int main(int argc, char **argv)
{
	if (argc > 2)
		clock_fd = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	DC_INSTANT("main");
	if (argc > 3)
		usleep((useconds_t)atoi(argv[3]) * 1000);
	for (unsigned i = 0; argc > 1 && i < sizeof(ways) / sizeof(*ways); i++)
		if (strcmp(argv[1], ways[i].name) == 0)
			ways[i].die();
	fprintf(stderr, "usage: crasher WAY [FILE [MS]]\n");
	return 96;
}
