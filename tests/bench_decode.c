/* SPDX-License-Identifier: MIT */
/*
 * How fast a capture is read: from a settled file (checksums, zstd, columns) to a callback for every event,
 * on one core.
 *
 * The three shapes of traffic that sizes are quoted for are made into rings, written as a raw capture and
 * settled by the project's own code, then read in turns, opening and index included. A round's figure is
 * events over the CPU time of the whole round (there is one thread; what others take of a shared machine is
 * not ours); figures are medians. Beside them: the raw capture, the decoder alone (chunks in memory), and the
 * cursor, which merges lanes by time. Files are in the page cache: this measures us, not the disk.
 *
 * events_per_s is that of the pair at 1 µs gaps, the traffic that the other benchmarks take too.
 */
#include <fcntl.h>
#include <unistd.h>

#include "persist/capture.h"
#include "persist/writer.h"
#include "tests/bench.h"
#include "tests/capturemaker.h"
#include "tests/httpmix.h"

#define ROUNDS 5
#define CHUNKS_PER_BLOCK 120 /* of 8 KiB: about 1 MiB, as the snapshot makes them */

struct shape {
	enum mix mix;
	const char *key;
	const char *what;
	char raw[512];
	char settled[512];
	uint64_t events;
	uint64_t raw_bytes;
	uint64_t settled_bytes;
	double settled_rate[ROUNDS];
	double raw_rate[ROUNDS];
	double chunk_rate[ROUNDS];
	double cursor_rate[ROUNDS];
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_decode: %s\n", what);
	exit(1);
}

/* What a callback does at least: look at the event. */
struct seen {
	uint64_t events;
	uint64_t sum;
};

static __attribute__((noinline)) int look(void *arg, const struct dc_event *e)
{
	struct seen *s = arg;
	s->events++;
	s->sum += e->units + e->site;
	return 0;
}

static double cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct dc_capture *open_capture(const char *path)
{
	struct dc_capture *c;
	char why[160];
	if (dc_capture_open(path, &c, why) < 0) {
		fprintf(stderr, "bench_decode: '%s': %s\n", path, why);
		exit(1);
	}
	return c;
}

/* Million events a second from the file to look(). */
static double read_each(const char *path, uint64_t expect)
{
	struct seen s = {0};
	double start = cpu_ns();
	struct dc_capture *c = open_capture(path);
	must(dc_capture_each(c, 0, look, &s) == 0 && s.events == expect, "a capture gave back other events");
	const struct dc_fault *faults;
	must(dc_capture_faults(c, &faults) == 0, "a capture is damaged");
	dc_capture_close(c);
	return (double)s.events * 1e3 / (cpu_ns() - start);
}

static double read_cursor(const char *path, uint64_t expect)
{
	struct dc_cursor *cur;
	struct dc_cursor_event e;
	uint64_t events = 0;
	double start = cpu_ns();
	struct dc_capture *c = open_capture(path);
	must(dc_cursor_open(c, &(struct dc_cut){0}, &cur) == 0, "no cursor");
	while (dc_cursor_next(cur, &e) > 0)
		events++;
	must(events == expect, "the cursor gave other events");
	dc_cursor_close(cur);
	dc_capture_close(c);
	return (double)events * 1e3 / (cpu_ns() - start);
}

/* The decoder alone, over the chunks of the ring of which the capture was made. */
static double read_chunks(struct ring_maker *ring, const struct dc_schema *schema)
{
	static struct dc_lane_decoder d;
	const struct dc_chunk_entry *entry = ring_maker_entries(ring);
	struct seen s = {0};
	double start = cpu_ns();
	for (uint32_t i = 0; i < ring_maker_header(ring)->chunks_grown; i++) {
		dc_lane_init(&d, schema);
		must(dc_lane_decode(&d, ring_maker_chunk(ring, i), dc_state_bytes(entry[i].state), look,
				    &s) == 0,
		     "a chunk does not parse");
	}
	return (double)s.events * 1e3 / (cpu_ns() - start);
}

static uint64_t file_bytes(const char *path)
{
	struct dc_capture *c = open_capture(path);
	uint64_t bytes = dc_capture_bytes(c);
	dc_capture_close(c);
	return bytes;
}

static void make_captures(struct shape *s, const char *dir, struct ring_maker *ring)
{
	char name[64];
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int settled = 0; settled < 2; settled++) {
		snprintf(name, sizeof name, "%s-%d.dcap", s->key, settled);
		struct capture_maker m = {.dir = dir,
					  .name = name,
					  .rings = &ring,
					  .ring_count = 1,
					  .chunks_per_block = CHUNKS_PER_BLOCK};
		must(capture_maker_write(&m) == 0, "a raw capture could not be written");
		must(!settled || dc_settle(fd, name, NULL, NULL) == 0, "a capture could not be settled");
		snprintf(settled ? s->settled : s->raw, sizeof s->raw, "%s/%s", dir, name);
	}
	close(fd);
	s->raw_bytes = file_bytes(s->raw);
	s->settled_bytes = file_bytes(s->settled);
}

static void measure(struct shape *s, const char *dir, uint64_t events)
{
	struct ring_maker *ring = mix_ring(s->mix, events);
	make_captures(s, dir, ring);
	s->events = ring_maker_events(ring);
	struct dc_capture *c = open_capture(s->raw);
	for (int i = 0; i < ROUNDS; i++) {
		s->settled_rate[i] = read_each(s->settled, s->events);
		s->raw_rate[i] = read_each(s->raw, s->events);
		s->chunk_rate[i] = read_chunks(ring, dc_capture_schema(c, 0));
		s->cursor_rate[i] = read_cursor(s->settled, s->events);
	}
	dc_capture_close(c);
	ring_maker_free(ring);
}

static void report_rate(struct bench_report *r, const struct shape *s, const char *key, double rate,
			const char *what)
{
	char full[64], text[128];
	snprintf(full, sizeof full, "%s_%s", s->key, key);
	snprintf(text, sizeof text, "M events/s, %s: %s", s->what, what);
	if (r->json)
		bench_figure(r, full, rate * 1e6, "", text);
	else
		bench_figure(r, full, rate, "", text);
}

static double report_shape(struct bench_report *r, struct shape *s)
{
	double settled = bench_quantile(s->settled_rate, ROUNDS, 0.5);
	char key[64];
	report_rate(r, s, "settled", settled, "settled capture to callback");
	report_rate(r, s, "raw", bench_quantile(s->raw_rate, ROUNDS, 0.5), "raw capture to callback");
	report_rate(r, s, "chunks", bench_quantile(s->chunk_rate, ROUNDS, 0.5), "decoder alone");
	report_rate(r, s, "cursor", bench_quantile(s->cursor_rate, ROUNDS, 0.5), "settled, merged by time");
	snprintf(key, sizeof key, "%s_events", s->key);
	bench_figure(r, key, (double)s->events, "", "events");
	snprintf(key, sizeof key, "%s_raw_bytes", s->key);
	bench_figure(r, key, (double)s->raw_bytes / (double)s->events, "B", "an event, raw capture");
	snprintf(key, sizeof key, "%s_settled_bytes", s->key);
	bench_figure(r, key, (double)s->settled_bytes / (double)s->events, "B", "an event, settled");
	return settled;
}

int main(int argc, char **argv)
{
	static struct shape shapes[] = {{.mix = MIX_PAIR_1US, .key = "pair_1us", .what = "pair at 1 µs gaps"},
					{.mix = MIX_TIGHT, .key = "tight", .what = "pair in a tight loop"},
					{.mix = MIX_HTTP, .key = "http", .what = "HTTP mix"}};
	const uint64_t events = 8000000;
	struct bench_report r;
	double rates[3];
	char *dir = capture_maker_mkdir();

	bench_pin(sched_getcpu());
	for (unsigned i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
		measure(&shapes[i], dir, events);
	capture_maker_rmdir(dir);
	bench_begin(&r, "bench_decode", argc, argv);
	for (unsigned i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
		rates[i] = report_shape(&r, &shapes[i]);
	bench_figure(&r, "rounds", ROUNDS, "", "medians of, one core");
	if (r.json)
		bench_figure(&r, "events_per_s", rates[0] * 1e6, "", "");
	else
		bench_figure(&r, "events_per_s", rates[0], "M", "pair at 1 µs gaps, settled (bar: 100)");
	bench_end(&r);
	return 0;
}
