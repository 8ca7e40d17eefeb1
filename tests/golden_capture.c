/* SPDX-License-Identifier: MIT */
/*
 * golden_capture DIR: writes DIR/golden.dcap, the same every time, for e2e_golden.sh: two processes on one
 * clock whose unit is the nanosecond, 1795000000 s being unit 10^9; the trigger is at unit 3 * 10^9, the
 * window one second before it.
 */
#include <stdio.h>
#include <string.h>

#include "tests/capturemaker.h"

#define S UINT64_C(1000000000)
#define MS UINT64_C(1000000)
#define AT (3 * S)

static const struct dc_anchor anchors[] = {
	{1 * S, 1795000000 * (int64_t)S, 1 * S, 1 * S},
	{5 * S, 1795000004 * (int64_t)S, 5 * S, 5 * S},
};

static struct dc_incident incident(void)
{
	struct dc_incident i = {
		.reason = DC_REASON_API,
		.text = "checkout failed",
		.trigger_pid = 1000,
		.trigger_tid = 101,
		.severity = 1,
		.coalesced = 2,
		.at_realtime_ns = 1795000002 * (int64_t)S,
		.at_units = AT,
		.from_units = AT - S,
		.to_units = AT + 10 * MS,
		.asked_last_ns = (int64_t)S,
		.asked_after_ns = 10 * (int64_t)MS,
		.clock = DC_CLOCK_MONOTONIC,
		.anchor_count = 2,
		.host = "golden",
		.kernel = "6.1",
	};

	memcpy(i.anchors, anchors, sizeof(anchors));
	return i;
}

/* A span whose name is in no table, as of one met while another thread registers it. */
static void put_unlisted(struct ring_maker *m, uint32_t lane, uint64_t from, uint64_t to)
{
	chunk_maker_inline(ring_maker_open_chunk(m, lane, from), DC_KIND_BEGIN, from, "db.\001connect",
			   (struct maker_arg[]){MAKE_I64(5)}, 1);
	ring_maker_put(m, lane);
	chunk_maker_end(ring_maker_open_chunk(m, lane, to), to);
	ring_maker_put(m, lane);
}

static struct ring_maker *shop(void)
{
	struct ring_maker *m = ring_maker_new(4096, 16, 4);
	uint16_t request = ring_maker_site(m, &(struct maker_site){.name = "http.request",
								   .arg_count = 2,
								   .types = {DC_TYPE_U64, DC_TYPE_STR},
								   .keys = {"conn", "path"}});
	uint16_t query = ring_maker_site(
		m, &(struct maker_site){
			   .name = "db.query", .arg_count = 1, .types = {DC_TYPE_I64}, .keys = {"id"}});
	uint16_t depth = ring_maker_site(m, &(struct maker_site){.name = "queue.depth",
								 .kind = DC_KIND_COUNTER,
								 .arg_count = 1,
								 .types = {DC_TYPE_U64},
								 .keys = {"value"}});
	uint16_t warn = ring_maker_site(m, &(struct maker_site){.name = "conn %d closed after %s",
								.kind = DC_KIND_LOG,
								.level = DC_LEVEL_WARN,
								.arg_count = 2,
								.types = {DC_TYPE_I64, DC_TYPE_STR},
								.format = "conn %d closed after %s"});
	uint16_t fired = ring_maker_site(m, &(struct maker_site){.name = "checkout failed",
								 .kind = DC_KIND_TRIGGER,
								 .arg_count = 1,
								 .types = {DC_TYPE_U64},
								 .keys = {"order"}});
	uint32_t main_lane = ring_maker_lane(m, 100, "main"), worker = ring_maker_lane(m, 101, "worker");

	ring_maker_event(m, worker, DC_KIND_BEGIN, AT - 2 * S, request,
			 (struct maker_arg[]){MAKE_U64(1), MAKE_STR("/hung")}, 2);
	ring_maker_event(m, worker, DC_KIND_BEGIN, AT - 900 * MS, query, (struct maker_arg[]){MAKE_I64(-7)},
			 1);
	ring_maker_event(m, main_lane, DC_KIND_COUNTER, AT - 800 * MS, depth,
			 (struct maker_arg[]){MAKE_U64(3)}, 1);
	ring_maker_event(m, main_lane, DC_KIND_BEGIN, AT - 700 * MS, request,
			 (struct maker_arg[]){MAKE_U64(2), MAKE_STR("/a b\"\x1b[1m\xff")}, 2);
	ring_maker_event(m, main_lane, DC_KIND_LOG, AT - 600 * MS, warn,
			 (struct maker_arg[]){MAKE_I64(9), MAKE_STR("timeout")}, 2);
	ring_maker_end(m, main_lane, AT - 500 * MS + 1234);
	put_unlisted(m, worker, AT - 450 * MS, AT - 430 * MS);
	put_unlisted(m, worker, AT - 420 * MS, AT - 410 * MS);
	ring_maker_end(m, worker, AT - 400 * MS);
	ring_maker_event(m, worker, DC_KIND_TRIGGER, AT, fired, (struct maker_arg[]){MAKE_U64(4711)}, 1);
	ring_maker_event(m, main_lane, DC_KIND_COUNTER, AT + 5 * MS, depth, (struct maker_arg[]){MAKE_U64(0)},
			 1);
	return m;
}

static struct ring_maker *database(void)
{
	struct ring_maker *m = ring_maker_new(4096, 16, 4);
	uint16_t job = ring_maker_site(m, &(struct maker_site){.name = "job",
							       .kind = DC_KIND_ASYNC_BEGIN,
							       .arg_count = 1,
							       .types = {DC_TYPE_U64},
							       .keys = {"id"}});
	uint32_t lane = ring_maker_lane(m, 200, "db");

	ring_maker_event(m, lane, DC_KIND_ASYNC_BEGIN, AT - 850 * MS, job, (struct maker_arg[]){MAKE_U64(99)},
			 1);
	ring_maker_event(m, lane, DC_KIND_ASYNC_END, AT - 450 * MS, job, (struct maker_arg[]){MAKE_U64(99)},
			 1);
	return m;
}

int main(int argc, char **argv)
{
	const struct dc_incident i = incident();
	struct ring_maker *rings[] = {shop(), database()};
	struct capture_maker m = {
		.dir = argv[1], .name = "golden.dcap", .incident = &i, .rings = rings, .ring_count = 2};
	int r = argc == 2 ? capture_maker_write(&m) : -1;

	ring_maker_free(rings[0]);
	ring_maker_free(rings[1]);
	if (r < 0)
		fprintf(stderr, "golden_capture: %d\n", r);
	return r < 0;
}
