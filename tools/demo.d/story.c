/* SPDX-License-Identifier: MIT */
/*
 * story CAPTURE: what happened in the seconds before it was saved, in a dozen lines. The demo's own small
 * report, and an example of a program on top of the reader (persist/capture.h).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "tools/demo.d/spans.h"

DC_DEFINE_CLEANUP(capture, struct dc_capture *, dc_capture_close)
DC_DEFINE_CLEANUP(spans, struct spans *, spans_free)

struct story {
	const struct spans *spans;
	const struct dc_ring_lane *lanes;
	uint32_t lane_count;
};

/* A duration in three digits and its unit; returns @text. */
static const char *duration(uint64_t ns, char text[static 16])
{
	static const char *const units[] = {"ns", "µs", "ms", "s"};
	double value = (double)ns;
	unsigned unit = 0;

	for (; value >= 1000 && unit < 3; unit++)
		value /= 1000;
	snprintf(text, 16, "%.*f %s", value < 10 && unit ? 1 : 0, value, units[unit]);
	return text;
}

static const char *thread_name(const struct story *s, uint32_t lane)
{
	return lane < s->lane_count && s->lanes[lane].comm[0] ? s->lanes[lane].comm : "?";
}

/* µ is two bytes: widths are padded here, not by printf. */
static void print_padded(const char *text, int width)
{
	int columns = 0;
	for (const char *p = text; *p; p++)
		columns += (*p & 0xc0) != 0x80;
	printf("%*s%s", width > columns ? width - columns : 0, "", text);
}

static void print_second(const char *label, const struct span_second *second)
{
	char slowest[16];
	printf("  %-17s %9" PRIu64, label, second->count);
	print_padded(second->count ? duration(second->slowest_ns, slowest) : "-", 11);
	putchar('\n');
}

static void print_seconds(const struct spans *s)
{
	char label[32];

	puts("before the trigger    requests    slowest");
	for (unsigned i = SPANS_SECONDS; i-- > 0;) {
		snprintf(label, sizeof(label), "%u s to %u s ago", i + 1, i);
		print_second(label, &s->seconds[i]);
	}
	print_second("after it", &s->after);
}

static const struct span_name *slowest_below(const struct spans *s, uint64_t below_ns)
{
	const struct span_name *best = NULL;
	for (unsigned i = 0; i < s->name_count; i++) {
		uint64_t ns = s->names[i].slowest.duration_ns;
		if (ns < below_ns && (!best || ns > best->slowest.duration_ns))
			best = &s->names[i];
	}
	return best;
}

static void print_spans(const struct story *s)
{
	uint64_t below = UINT64_MAX;

	puts("slowest spans          count     median        99 %    slowest");
	for (unsigned i = 0; i < 5; i++) {
		const struct span_name *n = slowest_below(s->spans, below);
		char text[16];
		if (!n)
			return;
		below = n->slowest.duration_ns;
		printf("  %-17s %9" PRIu64, n->name, n->count);
		print_padded(duration(span_percentile_ns(n, 50), text), 11);
		print_padded(duration(span_percentile_ns(n, 99), text), 12);
		print_padded(duration(n->slowest.duration_ns, text), 11);
		printf("  %s %.40s\n", thread_name(s, n->slowest.lane), n->slowest.args);
	}
}

static void print_holder(const struct story *s)
{
	const struct span_hold *h = &s->spans->hold;
	char text[16];

	printf("who held what\n  %s held the lock (%s) for %s", thread_name(s, h->note.lane), h->note.args,
	       duration(h->note.duration_ns, text));
	if (h->inner[0])
		printf(", %s of it in %s", duration(h->inner_ns, text), h->inner);
	printf("\n  inside of ");
	for (unsigned i = 0; i < h->chain_count; i++)
		printf("%s%s", i ? " > " : "", h->chain[i]);
	putchar('\n');
}

static void print_waiters(const struct story *s)
{
	uint64_t total = 0;
	char text[16];

	for (unsigned i = 0; i < s->spans->wait_count; i++)
		total += s->spans->waits[i].duration_ns;
	printf("  meanwhile others waited %s in all:", duration(total, text));
	for (unsigned i = 0; i < s->spans->wait_count && i < 4; i++) {
		const struct span_note *w = &s->spans->waits[i];
		printf("%s %s %s", i ? "," : "", thread_name(s, w->lane), duration(w->duration_ns, text));
	}
	putchar('\n');
}

static uint32_t pid_of(const struct dc_capture *c)
{
	const struct dc_incident *incident = dc_capture_incident(c);
	return incident->trigger_pid ? incident->trigger_pid : dc_capture_process(c, 0)->pid;
}

static int tell(struct dc_capture *c)
{
	CLEANUP(spans) struct spans *spans = NULL;
	int r = spans_gather(c, pid_of(c), &spans);
	if (r < 0)
		return r;

	struct story s = {.spans = spans};
	for (unsigned i = 0; i < dc_capture_process_count(c); i++) {
		if (dc_capture_process(c, i)->pid == pid_of(c))
			s.lanes = dc_capture_lanes(c, i, &s.lane_count);
	}
	print_seconds(spans);
	print_spans(&s);
	if (spans->hold.note.duration_ns)
		print_holder(&s);
	if (spans->wait_count)
		print_waiters(&s);
	return 0;
}

int main(int argc, char **argv)
{
	CLEANUP(capture) struct dc_capture *c = NULL;
	char why[160] = "";

	if (argc != 2) {
		fprintf(stderr, "usage: story CAPTURE\n");
		return 2;
	}
	int r = dc_capture_open(argv[1], &c, why);
	if (r >= 0 && !dc_capture_process_count(c))
		snprintf(why, sizeof(why), "it holds no process");
	else if (r >= 0)
		r = tell(c);
	if (r < 0 || why[0])
		fprintf(stderr, "story: capture '%s': %s\n", argv[1], why[0] ? why : strerror(-r));
	return r < 0 || why[0];
}
