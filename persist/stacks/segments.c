/* SPDX-License-Identifier: MIT */
#include "persist/stacks/segments.h"

#include <errno.h>

#include "ipc/cleanup.h"

struct layout {
	struct dc_segment *segments;
	size_t count;
	const struct dc_range *
		*open; /* a heap, smallest rank on top: what we are inside of, and below the top what is over */
	size_t open_count;
};

static int by_start(const void *left, const void *right)
{
	const struct dc_range *a = left, *b = right;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	return a->rank < b->rank ? -1 : a->rank > b->rank;
}

static void push(struct layout *l, const struct dc_range *range)
{
	size_t i = l->open_count++;

	for (; i && l->open[(i - 1) / 2]->rank > range->rank; i = (i - 1) / 2)
		l->open[i] = l->open[(i - 1) / 2];
	l->open[i] = range;
}

static void pop(struct layout *l)
{
	const struct dc_range *last = l->open[--l->open_count];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < l->open_count) {
		if (child + 1 < l->open_count && l->open[child + 1]->rank < l->open[child]->rank)
			child++;
		if (l->open[child]->rank >= last->rank)
			break;
		l->open[i] = l->open[child];
		i = child;
	}
	l->open[i] = last;
}

static void emit(struct layout *l, uint64_t start)
{
	uint32_t owner = l->open_count ? l->open[0]->owner : DC_SEGMENT_NONE;

	if (l->count && l->segments[l->count - 1].start == start)
		l->count--;
	if ((l->count ? l->segments[l->count - 1].owner : DC_SEGMENT_NONE) != owner)
		l->segments[l->count++] = (struct dc_segment){.start = start, .owner = owner};
}

/* What counts until @limit, each time the one that did is over. */
static void leave(struct layout *l, uint64_t limit)
{
	while (l->open_count && l->open[0]->end <= limit) {
		uint64_t end = l->open[0]->end;

		while (l->open_count && l->open[0]->end <= end)
			pop(l);
		emit(l, end);
	}
}

int dc_segments_build(struct dc_range *ranges, size_t count, struct dc_segment **ret_segments, size_t *ret_count)
{
	CLEANUP(free) struct dc_segment *segments = calloc(2 * count + 1, sizeof *segments);
	CLEANUP(free) const struct dc_range **open = calloc(count + 1, sizeof *open);
	struct layout l = {.segments = segments, .open = open};
	struct dc_segment *fitted;

	if (!segments || !open)
		return -ENOMEM;
	if (count)
		qsort(ranges, count, sizeof *ranges, by_start);
	for (size_t i = 0; i < count; i++) {
		if (ranges[i].start >= ranges[i].end)
			continue;
		leave(&l, ranges[i].start);
		push(&l, &ranges[i]);
		emit(&l, ranges[i].start);
	}
	leave(&l, UINT64_MAX);
	fitted = realloc(segments, (l.count + 1) * sizeof *segments);
	if (fitted)
		segments = fitted;
	*ret_segments = TAKE(segments);
	*ret_count = l.count;
	return 0;
}

uint32_t dc_segments_at(const struct dc_segment *segments, size_t count, uint64_t address)
{
	size_t low = 0, high = count; /* the answer is before @high */

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (segments[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? segments[low - 1].owner : DC_SEGMENT_NONE;
}
