/* SPDX-License-Identifier: MIT */
/*
 * The program behind format-1.*.dcap and version-1.ring: one event of every kind and type, by the recorder that first
 * wrote these formats. Those files are kept for good, and every later reader must read them (test_golden.c). They were
 * made by
 *
 *     cc -O2 -Irecorder tests/golden/format-1.make.c -ldashcam -o make
 *     DASHCAM_DIR=rings DASHCAM_MEMORY=1MiB DASHCAM_NAME=golden ./make
 *     dashcam recover rings/NAME.ring -o format-1.raw.dcap        and a copy of it, settled
 */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "dashcam.h"

static void *worker(void *arg)
{
	(void)arg;
	dc_thread_name("worker");
	for (int i = 0; i < 3; i++) {
		DC_SPAN("worker.step", "i", i);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread;
	DC_SPAN("golden.outer", "u", 7u, "i", -7, "d", 1.5, "b", (_Bool)1, "p", (void *)0x1234, "s", "text", "null",
		(const char *)NULL, "secret", DC_SECRET("hidden"));
	DC_INSTANT("golden.instant");
	DC_COUNTER("golden.counter", -42);
	DC_LOG(DC_WARN, "conn %d closed after %s", 5, "timeout");
	DC_ASYNC_BEGIN("golden.async", 99, "why", "because");
	DC_ASYNC_END("golden.async", 99);
	DC_FLOW_OUT(0x1122334455667788);
	DC_FLOW_IN(0x1122334455667788);
	DC_TRACE_CONTEXT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	DC_STACK("golden.stack");
	dc_span_t forgotten = DC_BEGIN("golden.below");
	(void)DC_BEGIN("golden.above");
	DC_END(forgotten); /* closes what lies above, as implied */
	pthread_create(&thread, NULL, worker, NULL);
	pthread_join(thread, NULL);
	DC_TRIGGER("golden", "order", 42);
	usleep(500000);
	return 0;
}
