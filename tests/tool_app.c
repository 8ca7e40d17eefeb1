/* SPDX-License-Identifier: MIT */
/*
 * A program for e2e_tools.sh to record: every kind of event once, with text that is hard to print, from two
 * threads; then it does what its arguments say: "wait" (until stdin ends), "trigger", "kill", "exit N".
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <dashcam.h>

#define HARD "quote\" back\\ nl\n esc\x1b[2J bad\xff\xfe cut\xe2\x82"

static void *other_thread(void *arg)
{
	(void)arg;
	dc_thread_name("other");
	DC_FLOW_IN(0x1234567890abcdefu);
	{
		DC_SPAN("other.work", "n", 1);
		DC_SPAN("other.inner", "password", "hunter2-secret");
		usleep(2000);
	}
	return NULL;
}

static void record(void)
{
	static const char nothing[1];
	const char *null = NULL;
	pthread_t t;
	dc_span_t left_open;

	dc_thread_name("main-lane");
	DC_TRACE_CONTEXT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	DC_INSTANT("types", "u", 18446744073709551615u, "i", -9223372036854775807 - 1, "f", 0.1, "b", (bool)1,
		   "p", (void *)0x7f00dead, "s", HARD, "null", null, "secret", DC_SECRET("hidden-from-all"));
	DC_INSTANT("floats", "nan", 0.0 / nothing[0], "inf", 1e308 * 10);
	DC_INSTANT("same keys", "k", 1, "k", 2);
	DC_INSTANT("login", "user", "alice", "password", "hunter2-secret");
	DC_COUNTER("depth", 42);
	DC_LOG(DC_WARN, "conn %d closed after %s", 7, "timeout");
	DC_ASYNC_BEGIN("job", 99, "size", 5);
	DC_FLOW_OUT(0x1234567890abcdefu);
	pthread_create(&t, NULL, other_thread, NULL);
	pthread_join(t, NULL);
	DC_ASYNC_END("job", 99);
	DC_STACK("here");
	{
		DC_SPAN("outer", "a", 1);
		DC_SPAN("inner");
		usleep(1000);
	}
	left_open = DC_BEGIN("left.open", "why", "never ended");
	(void)left_open;
}

int main(int argc, char **argv)
{
	const char *then = argc > 1 ? argv[1] : "exit";

	record();
	if (strcmp(then, "trigger") == 0)
		DC_TRIGGER("asked for it", "order", 4711);
	if (strcmp(then, "kill") == 0)
		raise(SIGKILL);
	puts("recorded");
	fflush(stdout);
	if (strcmp(then, "wait") == 0 || strcmp(then, "trigger") == 0)
		while (getchar() != EOF)
			;
	return argc > 2 ? atoi(argv[2]) : 0;
}
