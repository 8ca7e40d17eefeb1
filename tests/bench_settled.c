/* SPDX-License-Identifier: MIT */
/*
 * How large captures are: the traffic of httpmix.h, written as a raw capture and settled. Bytes per event
 * count the whole file. The settled file is at zstd level 3, as the watcher makes it.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "persist/writer.h"
#include "tests/bench.h"
#include "tests/capturemaker.h"
#include "tests/httpmix.h"

#define EVENTS 4000000

static const struct {
	enum mix mix;
	const char *key;
	const char *what;
} mixes[] = {
	{MIX_TIGHT, "tight", "tight pair (begin with two integers, end)"},
	{MIX_PAIR_1US, "pair_1us", "pair with log-normal gaps, median 1 us"},
	{MIX_HTTP, "http", "HTTP mix, four threads"},
};

static double file_bytes(int dir_fd)
{
	struct stat st;

	if (fstatat(dir_fd, "x.dcap", &st, 0) < 0)
		abort();
	return (double)st.st_size;
}

static void figure(struct bench_report *r, const char *key, const char *suffix, double value,
		   const char *unit, const char *what)
{
	char name[64];

	snprintf(name, sizeof name, "%s_%s", key, suffix);
	bench_figure(r, name, value, unit, what);
}

static void measure(struct bench_report *r, unsigned i, char *dir, int dir_fd)
{
	struct ring_maker *ring = mix_ring(mixes[i].mix, EVENTS);
	struct capture_maker m = {
		.dir = dir, .name = "x.dcap", .rings = &ring, .ring_count = 1, .chunks_per_block = 120};
	double events = (double)ring_maker_events(ring), raw, start;

	if (capture_maker_write(&m) < 0)
		abort();
	ring_maker_free(ring);
	raw = file_bytes(dir_fd);
	start = bench_now_ns();
	if (dc_settle(dir_fd, "x.dcap", NULL, NULL) != 0)
		abort();
	figure(r, mixes[i].key, "settle_ns", (bench_now_ns() - start) / events, "ns", "to settle, per event");
	figure(r, mixes[i].key, "raw_bytes_per_event", raw / events, "B", "raw capture");
	figure(r, mixes[i].key, "bytes_per_event", file_bytes(dir_fd) / events, "B", mixes[i].what);
	unlinkat(dir_fd, "x.dcap", 0);
}

int main(int argc, char **argv)
{
	char *dir = capture_maker_mkdir();
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	struct bench_report r;

	bench_begin(&r, "settled", argc, argv);
	for (unsigned i = 0; i < 3; i++)
		measure(&r, i, dir, dir_fd);
	bench_end(&r);
	close(dir_fd);
	capture_maker_rmdir(dir);
	return 0;
}
