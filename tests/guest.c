/* SPDX-License-Identifier: MIT */
/*
 * A small program with the recorder inside, told by its arguments what to do, in order:
 *
 *   burst N       N spans      tick MS [N]   a span every MS milliseconds, N times (0: for ever)
 *   triggers N    DC_TRIGGER N times, as fast as it goes
 *   async N       N async spans that do not end
 *   trigger TEXT  DC_TRIGGER   hang          begin a span and wait for ever
 *   signal N      die of it    exit N        exit with N         fork       go on in a child, wait for it
 *   crash N       the same, with the recorder's handler where there is one
 *   say WORD      print it     sleep MS              exec       go on in a new image of this program
 *   slow MS       a span "slow" that lasts so long   count N    a counter "level"    trace ID   a trace context
 *   group PID    join its process group, 0: one of its own
 *   storm MS [N]  a span "slow" of one millisecond every MS milliseconds, N times
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <dashcam.h>

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void burst(long n)
{
	for (long i = 0; i < n; i++) {
		DC_SPAN("burst", "i", i);
	}
}

static void tick(long ms, long n)
{
	for (long i = 0; n == 0 || i < n; i++) {
		{
			DC_SPAN("tick", "i", i);
		}
		sleep_ms(ms);
	}
}

static void slow(long ms)
{
	DC_SPAN("slow", "ms", ms);
	sleep_ms(ms);
}

static void storm(long ms, long n)
{
	for (long i = 0; i < n; i++) {
		slow(1);
		sleep_ms(ms);
	}
}

static void async(long n)
{
	for (long i = 0; i < n; i++)
		DC_ASYNC_BEGIN("job", i);
}

static void triggers(long n)
{
	for (long i = 0; i < n; i++)
		DC_TRIGGER("again", "i", i);
}

static void trace(const char *id)
{
	char traceparent[64];

	snprintf(traceparent, sizeof(traceparent), "00-%.32s-b7ad6b7169203331-01", id);
	DC_TRACE_CONTEXT(traceparent);
}

static void hang(void)
{
	DC_SPAN("hang", "why", "asked to");
	for (;;)
		pause();
}

static void go_on_in_child(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		return;
	waitpid(pid, &status, 0);
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* One word and what follows it. Return: how many further arguments it took. */
static int obey(const char *word, const char *a, const char *b)
{
	if (!strcmp(word, "hang"))
		hang();
	if (!strcmp(word, "fork"))
		go_on_in_child();
	if (!strcmp(word, "exit"))
		exit(atoi(a));
	if (!strcmp(word, "hang") || !strcmp(word, "fork"))
		return 0;
	if (!strcmp(word, "burst"))
		burst(atol(a));
	if (!strcmp(word, "trigger"))
		DC_TRIGGER("guest", "text", a);
	if (!strcmp(word, "async"))
		async(atol(a));
	if (!strcmp(word, "triggers"))
		triggers(atol(a));
	if (!strcmp(word, "signal")) {
		signal(atoi(a), SIG_DFL); /* a sanitizer's own handler would make an exit of it */
		raise(atoi(a));
	}
	if (!strcmp(word, "crash"))
		raise(atoi(a));
	if (!strcmp(word, "sleep"))
		sleep_ms(atol(a));
	if (!strcmp(word, "say"))
		puts(a);
	if (!strcmp(word, "slow"))
		slow(atol(a));
	if (!strcmp(word, "count"))
		DC_COUNTER("level", atol(a));
	if (!strcmp(word, "group") && setpgid(0, atoi(a)) < 0)
		perror("setpgid");
	if (!strcmp(word, "trace"))
		trace(a);
	if (!strcmp(word, "storm"))
		storm(atol(a), atol(b));
	if (!strcmp(word, "tick"))
		tick(atol(a), atol(b));
	fflush(stdout);
	return strcmp(word, "tick") && strcmp(word, "storm") ? 1 : 2;
}

int main(int argc, char **argv)
{
	signal(SIGSEGV, SIG_DFL); /* a sanitizer's own handler would make an exit of it */
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "exec")) {
			argv[i] = argv[0];
			execv("/proc/self/exe", argv + i);
		}
		i += obey(argv[i], i + 1 < argc ? argv[i + 1] : "0", i + 2 < argc ? argv[i + 2] : "0");
	}
	return 0;
}
