/* SPDX-License-Identifier: MIT */
/*
 * How long it takes from a trigger until the past is on disk, what that costs the program that is recorded, and what
 * is lost. Captures are made as the watcher makes them (trigger/save.h), each in a process of its own.
 *
 *     bench_capture [--json] [--rounds N] [--dir DIR]        dir: where captures and dd write, /var/tmp
 *
 * Bars: 256 MiB of full ring are durable within 1.3 × `dd bs=1M oflag=direct conv=fsync` of 256 MiB, in turns
 * with it; nothing lost at 5 M events/s; flat out ≤ 15 % of the chunks discarded, all of it stated in the
 * capture; the producer keeps ≥ 97 % of its rate meanwhile; ≤ 64 MiB for who captures (more only for the copy
 * buffer, flat out); a stopped process is captured within 300 ms.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "persist/capture.h"
#include "recorder/dashcam.h"
#include "tests/bench.h"
#include "trigger/save.h"

#define MIB ((double)(1 << 20))
#define RING_MEMORY "277MiB"  /* its chunks alone, all but the sixteenth for samples, are more than 256 MiB */
#define RING_EVENTS 100000000u /* more than fit: the ring is full */
#define ROUNDS_MAX 51
#define BATCH 1000u

/* ---- the program that is recorded ---- */

enum { IDLE, FLAT_OUT, PACED, QUIT };

#define LANES 2u
#define PACE_HZ 1000u /* wake-ups; 5 M events/s over the lanes */
#define PACE_EVENTS (5000000u / PACE_HZ / LANES)

struct producer {
	_Atomic int mode;
	_Atomic unsigned lanes; /* how many of the threads take part */
	struct {
		_Alignas(64) _Atomic uint64_t events;
	} done[LANES];
	char ring[128]; /* path */
	bool failed;
};

static struct producer *producer; /* shared with the child */
static pid_t producer_pid;

static void record(unsigned lane, unsigned events)
{
	for (unsigned i = 0; i < events / 2; i++) {
		dc_span_t s = DC_BEGIN("bench.pair", "a", i & 1023, "b", i & 15);
		DC_END(s);
	}
	atomic_fetch_add_explicit(&producer->done[lane].events, events, memory_order_relaxed); /* a count */
}

static void *lane_main(void *arg)
{
	unsigned lane = (unsigned)(uintptr_t)arg;
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		int mode = atomic_load_explicit(&producer->mode, memory_order_relaxed); /* a switch */

		if (mode == QUIT)
			return NULL;
		if (mode == FLAT_OUT && lane < atomic_load_explicit(&producer->lanes, memory_order_relaxed)) {
			record(lane, BATCH);
			clock_gettime(CLOCK_MONOTONIC, &next);
			continue;
		}
		if (mode == PACED)
			record(lane, PACE_EVENTS);
		next.tv_nsec += 1000000000 / PACE_HZ;
		if (next.tv_nsec >= 1000000000)
			next.tv_nsec -= 1000000000, next.tv_sec++;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}

static void producer_main(void)
{
	pthread_t threads[LANES];
	struct dc_stats s = {.size = sizeof s};

	setenv("DASHCAM_MEMORY", RING_MEMORY, 1);
	producer->failed = dc_start(NULL) != 0 || dc_stats(&s) != 0;
	if (producer->failed)
		_exit(1);
	memcpy(producer->ring, s.ring, sizeof s.ring);
	for (unsigned i = 0; i < LANES; i++)
		pthread_create(&threads[i], NULL, lane_main, (void *)(uintptr_t)i);
	for (unsigned i = 0; i < LANES; i++)
		pthread_join(threads[i], NULL);
	unlink(s.ring);
	_exit(0);
}

static void die(const char *what)
{
	fprintf(stderr, "bench_capture: %s\n", what);
	if (producer_pid > 0)
		kill(producer_pid, SIGKILL);
	exit(1);
}

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static uint64_t produced(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < LANES; i++)
		n += atomic_load_explicit(&producer->done[i].events, memory_order_relaxed); /* a count */
	return n;
}

static void produce(int mode, unsigned lanes)
{
	atomic_store(&producer->lanes, lanes);
	atomic_store(&producer->mode, mode);
	sleep_ms(20);
}

static void producer_start(void)
{
	producer = mmap(NULL, sizeof *producer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (producer == MAP_FAILED)
		die("no memory");
	producer_pid = fork();
	if (producer_pid == 0)
		producer_main();
	produce(FLAT_OUT, LANES);
	while (produced() < RING_EVENTS && !producer->failed)
		sleep_ms(10);
	if (producer->failed)
		die("no ring of 260 MiB; is there room for four times as much on the tmpfs?");
	produce(IDLE, 0);
}

static void producer_stop(void)
{
	produce(QUIT, 0);
	waitpid(producer_pid, NULL, 0);
}

/* ---- captures ---- */

struct result {
	double durable_ms;
	double copy_ms;
	double written_mib;
	double rss_mib;
	struct dc_snapshot_totals snapshot;
	struct dc_capture_totals read; /* what the file itself says */
	char method[64];
	bool ok;
};

static char dir[256];

static struct dc_ring *ring_open(void)
{
	char why[DC_WHY_BYTES];
	struct dc_ring *ring;

	if (dc_ring_open(AT_FDCWD, producer->ring, &ring, why) < 0)
		die(why);
	return ring;
}

static void read_back(const char *path, struct result *r)
{
	char why[160];
	struct dc_capture *c;

	r->ok = r->ok && dc_capture_open(path, &c, why) == 0;
	if (!r->ok)
		return;
	r->ok = dc_capture_complete(c) && dc_capture_totals(c, 0, &r->read) == 0;
	dc_capture_close(c);
}

/* From the trigger to durable. */
static void save(struct dc_ring *ring, uint32_t flags, int64_t last_ns, struct result *r, char *path,
		 size_t size)
{
	const struct dc_save_output output = {.dir = dir, .writer_flags = flags};
	struct dc_incident incident;
	struct dc_save *s;
	double began = bench_now_ns();

	dc_incident_init(&incident, DC_REASON_COMMAND, "benchmark");
	r->ok = dc_incident_window(&incident, ring, &(struct dc_window){.last_ns = last_ns}) == 0 &&
		dc_save_new(&incident, &output, &s) == 0;
	if (!r->ok)
		return;
	r->ok = dc_save_add(s, ring) == 0 && dc_save_first(s) == 0;
	if (r->ok)
		snprintf(r->method, sizeof r->method, "%s", dc_writer_method(s->writer));
	r->ok = r->ok && dc_save_last(s, false) == 0;
	r->durable_ms = (bench_now_ns() - began) / 1e6;
	r->copy_ms = (double)s->totals.copy_ns / 1e6;
	r->written_mib = (double)s->written_bytes / MIB;
	r->snapshot = s->totals;
	dc_save_path(s, path, size);
	dc_save_free(s);
}

/* In a child, so that its memory is that of one capture. @check: read the file afterwards, in yet another one. */
static struct result capture(uint32_t flags, int64_t last_ns, bool check)
{
	static struct result *shared;
	static char *path;
	struct rusage usage;
	int status;

	if (!shared) {
		shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		path = (char *)(shared + 1);
	}
	*shared = (struct result){0};
	pid_t pid = fork();
	if (pid == 0) {
		save(ring_open(), flags, last_ns, shared, path, DC_SAVE_PATH_BYTES);
		_exit(!shared->ok);
	}
	if (wait4(pid, &status, 0, &usage) < 0 || status)
		die("a capture failed; is there room on the disk?");
	shared->rss_mib = (double)usage.ru_maxrss / 1024;
	if (check) {
		read_back(path, shared);
		if (!shared->ok)
			die("a capture cannot be read back");
	}
	unlink(path);
	return *shared;
}

/* What dd itself says it took, in ms. */
static double dd_ms(void)
{
	char command[600], line[256];
	double s = 0;

	snprintf(command, sizeof command,
		 "LC_ALL=C dd if=/dev/zero of='%s/dd' bs=1M count=256 oflag=direct conv=fsync 2>&1", dir);
	FILE *f = popen(command, "r");
	while (f && fgets(line, sizeof line, f)) {
		const char *at = strstr(line, "copied, ");
		if (at)
			s = atof(at + 8);
	}
	if (!f || pclose(f) || s <= 0)
		die("dd failed; does the file system take O_DIRECT? try --dir");
	snprintf(command, sizeof command, "%s/dd", dir);
	unlink(command);
	return s * 1000;
}

/* ---- the measurements ---- */

struct series {
	double v[ROUNDS_MAX];
	int n;
};

static void add(struct series *s, double value)
{
	s->v[s->n++] = value;
}

static double median(struct series *s)
{
	return bench_quantile(s->v, (size_t)s->n, 0.5);
}

/* A full ring at rest: dd and both ways of writing in turns. */
static void measure_durable(struct bench_report *r, int rounds)
{
	static struct series dd, uring, pwrites, ratio, ratio_pwrite, rss;
	struct result c = {0};

	dd_ms();
	capture(0, 0, false); /* once each unmeasured: the file system warms up */
	for (int i = 0; i < rounds; i++) {
		add(&dd, dd_ms());
		struct result p = capture(DC_WRITER_PWRITE, 0, false);
		c = capture(0, 0, i == 0);
		add(&uring, c.durable_ms);
		add(&pwrites, p.durable_ms);
		add(&ratio, c.durable_ms / dd.v[i]);
		add(&ratio_pwrite, p.durable_ms / dd.v[i]);
		add(&rss, c.rss_mib);
	}
	bench_text(r, "method", c.method);
	bench_figure(r, "written_mib", c.written_mib, "MiB", "a capture of the full ring");
	bench_figure(r, "dd_ms", median(&dd), "ms", "dd bs=1M oflag=direct conv=fsync of 256 MiB");
	bench_figure(r, "durable_ms", median(&uring), "ms", "trigger to durable");
	bench_figure(r, "ratio_dd", median(&ratio), "x", "of dd, in turns; bar 1.3");
	bench_figure(r, "durable_pwrite_ms", median(&pwrites), "ms", "the same by pwrite");
	bench_figure(r, "ratio_dd_pwrite", median(&ratio_pwrite), "x", "of dd");
	bench_figure(r, "rss_mib", median(&rss), "MiB", "of the process that captures; bar 64");
}

static void measure_stopped(struct bench_report *r)
{
	struct series s = {.n = 0};

	for (int i = 0; i < 3; i++) {
		produce(FLAT_OUT, LANES);
		kill(producer_pid, SIGSTOP);
		add(&s, capture(0, 0, true).durable_ms);
		kill(producer_pid, SIGCONT);
	}
	bench_figure(r, "stopped_ms", median(&s), "ms", "capture of a SIGSTOPped process; bar 300");
}

/* Two threads at 5 M events/s together. The window asked for is one the ring holds: all of it must be there. */
static void measure_paced(struct bench_report *r, int rounds)
{
	static struct series rss;
	uint64_t lost = 0, discarded = 0;
	double rate = 0;

	produce(PACED, LANES);
	sleep_ms(9000); /* the ring's 10 s are of this pace now */
	for (int i = 0; i < rounds; i++) {
		uint64_t before = produced();
		double began = bench_now_ns();
		struct result c = capture(0, INT64_C(8000000000), true);
		sleep_ms(100);
		rate = (double)(produced() - before) / (bench_now_ns() - began) * 1e9;
		lost += c.read.overwritten + c.read.dropped;
		discarded += c.snapshot.discarded_chunks;
		add(&rss, c.rss_mib);
	}
	bench_figure(r, "paced_per_s", rate, "/s", "events of two threads");
	bench_figure(r, "paced_lost", (double)lost, "", "events lost inside the window, all captures; bar 0");
	bench_figure(r, "paced_discarded", (double)discarded, "",
		     "chunks recycled while being copied; bar 0");
	bench_figure(r, "paced_rss_mib", median(&rss), "MiB", "of the process that captures; bar 64");
}

static void measure_flat_out(struct bench_report *r, int rounds)
{
	static struct series part, rss, rate;
	bool stated = true;

	produce(FLAT_OUT, LANES);
	for (int i = 0; i < rounds; i++) {
		uint64_t before = produced();
		double began = bench_now_ns();
		sleep_ms(200);
		add(&rate, (double)(produced() - before) / (bench_now_ns() - began) * 1e9);
		struct result c = capture(0, 0, true);
		double discarded = (double)c.snapshot.discarded_chunks;
		add(&part, discarded / (discarded + (double)c.snapshot.chunks));
		add(&rss, c.rss_mib);
		stated = stated && c.read.discarded == c.snapshot.discarded_chunks;
	}
	bench_figure(r, "flat_per_s", median(&rate), "/s", "events of two threads, flat out");
	bench_figure(r, "flat_discarded", median(&part), "",
		     "part of the chunks recycled while being copied; bar 0.15");
	bench_figure(r, "flat_stated", stated, "", "1: the captures say so");
	bench_figure(r, "flat_rss_mib", median(&rss), "MiB",
		     "of the process that captures, copy buffer included");
}

struct moment {
	double wall_ns, cpu_ns, events;
};

static struct moment moment_now(void)
{
	struct timespec cpu;
	clockid_t clock;

	if (clock_getcpuclockid(producer_pid, &clock) || clock_gettime(clock, &cpu))
		die("the producer is gone");
	return (struct moment){bench_now_ns(), (double)cpu.tv_sec * 1e9 + (double)cpu.tv_nsec,
			       (double)produced()};
}

/* One thread flat out, a CPU left for who captures: its rate during captures against just before and after. */
static void measure_kept(struct bench_report *r, int rounds)
{
	static struct series wall, cpu;

	produce(FLAT_OUT, 1);
	for (int i = 0; i < rounds; i++) {
		struct moment m[4];

		m[0] = moment_now();
		sleep_ms(150);
		m[1] = moment_now();
		capture(0, 0, false);
		m[2] = moment_now();
		sleep_ms(150);
		m[3] = moment_now();
		double without = m[1].events - m[0].events + m[3].events - m[2].events;
		double with = m[2].events - m[1].events;
		double idle_wall = m[1].wall_ns - m[0].wall_ns + m[3].wall_ns - m[2].wall_ns;
		double idle_cpu = m[1].cpu_ns - m[0].cpu_ns + m[3].cpu_ns - m[2].cpu_ns;
		add(&wall, with / (m[2].wall_ns - m[1].wall_ns) / (without / idle_wall));
		add(&cpu, with / (m[2].cpu_ns - m[1].cpu_ns) / (without / idle_cpu));
	}
	bench_figure(r, "producer_kept", median(&wall), "x", "of its rate while captured; bar 0.97");
	bench_figure(r, "producer_kept_cpu", median(&cpu), "x", "the same by its CPU time");
}

static const char *option(int argc, char **argv, const char *name, const char *fallback)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return argv[i + 1];
	return fallback;
}

int main(int argc, char **argv)
{
	struct bench_report r;
	int rounds = atoi(option(argc, argv, "--rounds", "9"));

	if (rounds < 1 || rounds > ROUNDS_MAX)
		rounds = 9;
	snprintf(dir, sizeof dir, "%s/bench_capture.XXXXXX", option(argc, argv, "--dir", "/var/tmp"));
	if (!mkdtemp(dir))
		die("cannot make a directory; try --dir");
	producer_start();
	bench_begin(&r, "bench_capture", argc, argv);
	measure_durable(&r, rounds);
	measure_stopped(&r);
	measure_kept(&r, rounds);
	measure_flat_out(&r, rounds);
	measure_paced(&r, 3);
	bench_end(&r);
	producer_stop();
	rmdir(dir);
	return 0;
}
