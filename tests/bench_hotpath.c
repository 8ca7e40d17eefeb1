/* SPDX-License-Identifier: MIT */
/*
 * What an event costs, against the floor (read the clock, store 8 bytes), everything in turns in one run:
 *
 *     bench_hotpath [--json] [--peer lttng] [--rounds N]
 *
 * Bars: pair ≤ 1.6 × floor out of line, ≤ 1.5 inline; log ≤ 2.5; disabled ≤ 0.4 ns; start ≤ 100 µs; ≤ 5 bytes an event
 * in the tight loop, ≤ 6 at 1 µs gaps; ≤ 64 bytes of text a span; DC_STACK ≤ 30 ns + 3 ns a frame.
 *
 * The inline form is assembled as the library is, with -mbranches-within-32B-boundaries where there is that: in a program
 * without it costs 7 % more on Intel's CPUs before 2020 (1.56 instead of 1.45 × floor). The check of a disabled site is
 * measured as programs have it.
 */
#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ipc/ring.h"
#include "recorder/dashcam.h"
#include "tests/bench.h"
#include "tests/bench_hotpath.h"

#define ROUNDS_MAX 101
#define RING_BYTES ((size_t)64 << 20)
#define TURNS 2000000L

static uint8_t *floor_memory;

double hot_pair_ns(long n)
{
	double start = bench_now_ns();
	for (long i = 0; i < n; i++) {
		dc_span_t s = DC_BEGIN("bench.pair", "a", (int)(i & 1023), "b", (int)(i & 15));
		DC_END(s);
	}
	return (bench_now_ns() - start) / (2.0 * (double)n);
}

static double instant_ns(long n)
{
	double start = bench_now_ns();
	for (long i = 0; i < n; i++)
		DC_INSTANT("bench.instant");
	return (bench_now_ns() - start) / (double)n;
}

static double counter_ns(long n)
{
	double start = bench_now_ns();
	for (long i = 0; i < n; i++)
		DC_COUNTER("bench.counter", i & 4095);
	return (bench_now_ns() - start) / (double)n;
}

static double log_ns(long n)
{
	char text[9] = "timeout!";
	__asm__ volatile("" ::"r"(text) : "memory");
	double start = bench_now_ns();
	for (long i = 0; i < n; i++)
		DC_LOG(DC_WARN, "conn %d closed after %s", (int)(i & 1023), text);
	return (bench_now_ns() - start) / (double)n;
}

static double loop_ns(long n)
{
	double start = bench_now_ns();
	for (long i = 0; i < n; i++)
		__asm__ volatile("" ::"r"(i));
	return (bench_now_ns() - start) / (double)n;
}

/* Switched off from outside, as `dashcam sites` does it: by a write to the ring's control part. */
static double disabled_ns(long n)
{
	double start = bench_now_ns();
	for (long i = 0; i < n; i++) {
		DC_INSTANT("bench.disabled", "i", (int)i);
		__asm__ volatile("" ::"r"(i));
	}
	return (bench_now_ns() - start) / (double)n;
}

/* ---- the ring, looked at from outside ---- */

struct ring_view {
	struct dc_ring_header *header;
	uint8_t *map;
	size_t bytes;
};

static struct ring_view ring_open(int writable)
{
	struct dc_stats s = { .size = sizeof s };
	if (dc_stats(&s)) {
		fprintf(stderr, "bench_hotpath: not recording; is there room on the tmpfs?\n");
		exit(1);
	}
	struct ring_view v = { .bytes = s.cap_bytes };
	int fd = open(s.ring, writable ? O_RDWR : O_RDONLY);
	v.map = mmap(NULL, v.bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	close(fd);
	v.header = (void *)v.map;
	return v;
}

static void site_switch_off(const char *name)
{
	struct ring_view v = ring_open(1);
	const struct dc_ring_site *sites = (void *)(v.map + v.header->sites_off);
	struct dc_ring_control *c = (void *)(v.map + v.header->control_off);
	for (uint32_t i = 1; i < v.header->sites_used; i++)
		if (strcmp((char *)v.map + v.header->strings_off + sites[i].name, name) == 0)
			c->enable[i] = DC_ENABLE_OFF;
	munmap(v.map, v.bytes);
}

/* Bytes per event of what is in the ring now. */
static double ring_bytes_per_event(void)
{
	struct ring_view v = ring_open(0);
	const struct dc_chunk_entry *e = (void *)(v.map + v.header->states_off);
	double bytes = 0, events = 0;
	for (uint32_t i = 0; i < v.header->chunks_grown; i++) {
		if (dc_state_events(e[i].state)) {
			bytes += dc_state_bytes(e[i].state);
			events += dc_state_events(e[i].state);
		}
	}
	munmap(v.map, v.bytes);
	return events > 0 ? bytes / events : 0;
}

/* In a process of its own, so the ring holds nothing else. @body records; returns what @measure says. */
static double in_child(double (*body)(void))
{
	double *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();
	if (pid == 0) {
		*shared = body();
		struct dc_stats s = { .size = sizeof s };
		if (dc_stats(&s) == 0)
			unlink(s.ring);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	double v = *shared;
	munmap(shared, 4096);
	return v;
}

/* Frames of the stacks of hot_stack_ns(): 8 bytes each, and an event of 5 or 6 around them. */
static double body_stack_frames(void)
{
	hot_stack_ns(80000);
	return floor(ring_bytes_per_event() / 8);
}

/* A fresh process is a fresh image: this program again, which starts, says how long it took, and goes. */
static int start_and_tell(void)
{
	double start = bench_now_ns();
	int err = dc_start(NULL);
	double us = (bench_now_ns() - start) / 1000;
	struct dc_stats s = { .size = sizeof s };
	if (!err && dc_stats(&s) == 0)
		unlink(s.ring);
	return err || dprintf(STDOUT_FILENO, "%.3f", us) < 0;
}

static double body_start(void)
{
	char text[32] = { 0 };
	FILE *f = popen("exec /proc/$PPID/exe --start", "r");
	if (!f || !fgets(text, sizeof text, f))
		return 0;
	pclose(f);
	return atof(text);
}

static double body_ten_events(void)
{
	for (int i = 0; i < 10; i++)
		DC_INSTANT("bench.ten", "i", i);
	struct dc_stats s = { .size = sizeof s };
	struct stat st = { 0 };
	dc_stats(&s);
	stat(s.ring, &st);
	return (double)st.st_blocks * 512 / 1024;
}

static double body_tight(void)
{
	hot_pair_ns(4000000);
	return ring_bytes_per_event();
}

/* Lognormal gaps around 1 µs, spun, not slept: a sleeping loop would measure the scheduler. */
static double body_gaps(void)
{
	uint64_t x = 88172645463325252u;
	double hz = 0;
	for (double t0 = bench_now_ns(), k0 = (double)bench_ticks(); hz <= 0;)
		if (bench_now_ns() - t0 > 2e6)
			hz = ((double)bench_ticks() - k0) / (bench_now_ns() - t0);
	for (long i = 0; i < 400000; i++) {
		for (int half = 0; half < 2; half++) {
			double gauss = -6;
			for (int k = 0; k < 12; k++) {
				x ^= x << 13;
				x ^= x >> 7;
				x ^= x << 17;
				gauss += (double)(x >> 11) * 0x1p-53;
			}
			uint64_t until = bench_ticks() + (uint64_t)(1000 * hz * exp(gauss));
			while (bench_ticks() < until)
				;
			static dc_span_t s;
			if (half == 0)
				s = DC_BEGIN("bench.pair", "a", (int)(i & 1023), "b", (int)(i & 15));
			else
				DC_END(s);
		}
	}
	return ring_bytes_per_event();
}

static double child_median(double (*body)(void), int times)
{
	double v[31];
	for (int i = 0; i < times; i++)
		v[i] = in_child(body);
	return bench_quantile(v, (size_t)times, 0.5);
}

/* In a directory of its own: in the user's, a start may find dead rings beyond their bound and remove some first. */
static double start_median_us(int times)
{
	const char *before = getenv("DASHCAM_DIR");
	char dir[] = "/dev/shm/dashcam-bench.XXXXXX", *kept = before ? strdup(before) : NULL;
	if (!mkdtemp(dir)) {
		perror("bench_hotpath: mkdtemp /dev/shm/dashcam-bench.XXXXXX");
		exit(1);
	}
	setenv("DASHCAM_DIR", dir, 1);
	double us = child_median(body_start, times);
	if (kept)
		setenv("DASHCAM_DIR", kept, 1);
	else
		unsetenv("DASHCAM_DIR");
	free(kept);
	rmdir(dir);
	return us;
}

/* ---- text bytes of a span: the same small function with and without one, each in a section of its own ---- */

__attribute__((noinline, section("bench_text_with"))) int text_with(int fd, int n)
{
	DC_SPAN("bench.text", "fd", fd, "bytes", n);
	int got = hot_work(fd, n);
	if (got < n)
		got += hot_work(fd, n - got);
	return got;
}

__attribute__((noinline, section("bench_text_without"))) int text_without(int fd, int n)
{
	int got = hot_work(fd, n);
	if (got < n)
		got += hot_work(fd, n - got);
	return got;
}

extern const char __start_bench_text_with[], __stop_bench_text_with[];
extern const char __start_bench_text_without[], __stop_bench_text_without[];

static double span_text_bytes(void)
{
	return (double)(__stop_bench_text_with - __start_bench_text_with) -
	       (double)(__stop_bench_text_without - __start_bench_text_without);
}

/* ---- */

struct series {
	const char *key;
	double (*run)(long n);
	double v[ROUNDS_MAX];
};

static double floor_ns(long n)
{
	return bench_floor_ns(floor_memory, RING_BYTES, n);
}

enum { FLOOR, PAIR, PAIR_INLINE, INSTANT, COUNTER, LOG, STACK, LOOP, DISABLED, SERIES };

static int option(int argc, char **argv, const char *name, int fallback)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return atoi(argv[i + 1]);
	return fallback;
}

static bool peer_asked(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], "--peer") == 0 && strcmp(argv[i + 1], "lttng") == 0)
			return true;
	return false;
}

int main(int argc, char **argv)
{
	struct series s[SERIES] = {
		[FLOOR] = { "floor_ns", floor_ns, { 0 } },
		[PAIR] = { "pair_ns", hot_pair_ns, { 0 } },
		[PAIR_INLINE] = { "pair_inline_ns", hot_pair_inline_ns, { 0 } },
		[INSTANT] = { "instant_ns", instant_ns, { 0 } },
		[COUNTER] = { "counter_ns", counter_ns, { 0 } },
		[LOG] = { "log_ns", log_ns, { 0 } },
		[STACK] = { "stack_ns", hot_stack_ns, { 0 } },
		[LOOP] = { "loop_ns", loop_ns, { 0 } },
		[DISABLED] = { "disabled_ns", disabled_ns, { 0 } },
	};
	struct bench_report r;
	if (argc > 1 && strcmp(argv[1], "--start") == 0)
		return start_and_tell();
	int rounds = option(argc, argv, "--rounds", 15);
	if (rounds < 1 || rounds > ROUNDS_MAX)
		rounds = 15;
	/* children first: they must find no recorder in their parent */
	double start_us = start_median_us(31);
	double load_us = hot_load_us();
	double ten_kib = child_median(body_ten_events, 3);
	double tight = in_child(body_tight);
	double gaps = in_child(body_gaps);
	double frames = in_child(body_stack_frames);

	bench_pin((int)sysconf(_SC_NPROCESSORS_ONLN) - 1);
	floor_memory = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(floor_memory, 1, RING_BYTES);
	disabled_ns(1);
	site_switch_off("bench.disabled");
	hot_pair_ns(20000000); /* once around the ring: what follows runs on grown, populated chunks */
	struct hot_peer *peer = peer_asked(argc, argv) ? hot_peer_open() : NULL;
	double peer_v[ROUNDS_MAX];
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < SERIES; i++)
			s[i].v[round] = s[i].run(TURNS);
		if (peer)
			peer_v[round] = hot_peer_pair_ns(peer, TURNS / 8);
	}
	bench_begin(&r, "bench_hotpath", argc, argv);
	double m[SERIES];
	for (int i = 0; i < SERIES; i++)
		m[i] = bench_quantile(s[i].v, (size_t)rounds, 0.5);
	bench_figure(&r, "floor_ns", m[FLOOR], "ns", "read the clock, store 8 bytes");
	bench_figure(&r, "pair_ns", m[PAIR], "ns", "begin(2 ints) + end, per event, out of line");
	bench_figure(&r, "ratio", m[PAIR] / m[FLOOR], "x", "of the floor; bar 1.6");
	bench_figure(&r, "pair_inline_ns", m[PAIR_INLINE], "ns", "the same with -DDC_INLINE");
	bench_figure(&r, "ratio_inline", m[PAIR_INLINE] / m[FLOOR], "x", "of the floor; bar 1.5");
	bench_figure(&r, "instant_ns", m[INSTANT], "ns", "no arguments");
	bench_figure(&r, "counter_ns", m[COUNTER], "ns", "one integer");
	bench_figure(&r, "log_ns", m[LOG], "ns", "an int and an 8-byte string");
	bench_figure(&r, "ratio_log", m[LOG] / m[FLOOR], "x", "of the floor; bar 2.5");
	bench_figure(&r, "stack_ns", m[STACK], "ns", "DC_STACK, with the frames of stack_frames");
	bench_figure(&r, "stack_frames", frames, "frames", "of that stack");
	bench_figure(&r, "stack_ratio", m[STACK] / (30 + 3 * frames), "x", "of 30 ns + 3 ns a frame; bar 1");
	bench_figure(&r, "disabled_ns", m[DISABLED] - m[LOOP], "ns", "site switched off, loop subtracted; bar 0.4");
	bench_figure(&r, "start_us", start_us, "us", "dc_start() in a fresh process and directory, median of 31; bar 100");
	bench_figure(&r, "load_us", load_us, "us", "a program that does nothing, linked with libdashcam.so, against without");
	bench_figure(&r, "ten_events_kib", ten_kib, "KiB", "tmpfs used by a process of ten events; bar 128");
	bench_figure(&r, "bytes_per_event", tight, "bytes", "in the ring, tight loop; bar 5");
	bench_figure(&r, "bytes_per_event_1us", gaps, "bytes", "in the ring, lognormal gaps of 1 us; bar 6");
	bench_figure(&r, "span_text_bytes", span_text_bytes(), "bytes", "of code a DC_SPAN with two ints adds; bar 64");
	if (peer) {
		double p = bench_quantile(peer_v, (size_t)rounds, 0.5);
		bench_figure(&r, "lttng_pair_ns", p, "ns", "the same pair through LTTng-UST, per event");
		bench_figure(&r, "lttng_ratio", p / m[FLOOR], "x", "of the floor");
		hot_peer_close(peer);
	} else if (peer_asked(argc, argv)) {
		bench_text(&r, "lttng", hot_peer_why());
	}
	bench_end(&r);
	return 0;
}
