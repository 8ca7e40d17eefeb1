/* SPDX-License-Identifier: MIT */
/*
 * What following a ring costs whoever follows: decoding what a process recorded since the last look, and looking at one that
 * recorded nothing. It records itself, two million spans in portions that fit its ring.
 */
#include "recorder/dashcam.h"
#include "tests/bench.h"
#include "trigger/tail.h"

#include <fcntl.h>
#include <sys/wait.h>

#define ROUNDS 20
#define SPANS 100000
#define IDLE_LOOKS 20000
#define PLENTY INT64_C(100000000000)

static char rings[] = "/dev/shm/bench_tail.XXXXXX";

static void hear(void *arg, const struct dc_event *event, double weight)
{
	*(double *)arg += weight * (double)(event->units & 1);
}

static const struct dc_tail_handler handler = {.event = hear};

static void die(const char *what)
{
	fprintf(stderr, "bench_tail: %s\n", what);
	exit(1);
}

static void record(void)
{
	for (int i = 0; i < SPANS; i++) {
		DC_SPAN("bench.span", "fd", i, "bytes", 4096);
	}
}

static struct dc_tail *follow(void)
{
	struct dc_opts opts = DC_OPTS_INIT;
	struct dc_stats stats = {.size = sizeof stats};
	struct dc_ring *ring = NULL;
	struct dc_tail *tail = NULL;
	char why[DC_WHY_BYTES];

	opts.dir = rings;
	if (!mkdtemp(rings) || dc_start(&opts) || dc_stats(&stats) || dc_ring_open(AT_FDCWD, stats.ring, &ring, why))
		die("no ring on /dev/shm");
	unlink(stats.ring);
	rmdir(rings);
	record();
	if (dc_tail_new(ring, &tail))
		die("cannot follow it");
	dc_ring_unref(ring);
	return tail;
}

/* Of this thread: the rest of the machine is none of its cost. */
static double cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double look_ns(struct dc_tail *t, double *sum, int times)
{
	const double start = cpu_ns();

	for (int i = 0; i < times; i++)
		if (dc_tail_look(t, PLENTY, &handler, sum))
			die("a look failed");
	return (cpu_ns() - start) / times;
}

int main(int argc, char **argv)
{
	struct bench_report r;
	double each[ROUNDS], sum = 0;
	struct dc_tail *t = follow();
	uint64_t events = 0;

	for (int i = 0; i < ROUNDS; i++) {
		record();
		const double took = look_ns(t, &sum, 1);

		each[i] = took / (double)(dc_tail_totals(t)->events - events);
		events = dc_tail_totals(t)->events;
	}
	const double idle = look_ns(t, &sum, IDLE_LOOKS);

	bench_begin(&r, "bench_tail", argc, argv);
	bench_figure(&r, "events", (double)events, "", "followed");
	bench_figure(&r, "missed", (double)(2.0 * ROUNDS * SPANS - (double)events), "", "of those recorded; bar 0");
	bench_figure(&r, "event_ns", bench_quantile(each, ROUNDS, 0.5), "ns",
		     "an event, read and decoded to a callback");
	bench_figure(&r, "idle_look_ns", idle, "ns", "a look at a ring where nothing happened");
	bench_figure(&r, "idle_percent", idle * 4 * 100 / 1e9 * 100, "%",
		     "of a core, 100 of them 4 times a second; bar 0.05");
	bench_end(&r);
	dc_tail_free(t);
	return sum < 0;
}
