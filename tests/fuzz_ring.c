/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a ring: opened, looked at, copied. The input is a list of pokes {offset:4, length:1, bytes} into a good
 * little ring with some chunks in it, so that most inputs get past the header's checks; one that begins with 0xff is
 * the file as it stands; a tail sees good bytes turn into these and back. Held to: no crash and no read outside (the
 * sanitizer), counts clamped, a capture never larger than the ring, every copied chunk inside its block.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory_writer.h"
#include "ringfile.h"
#include "ipc/registers.h"
#include "trigger/crash.h"
#include "trigger/guest_samples.h"
#include "trigger/incident.h"
#include "trigger/snapshot.h"
#include "trigger/tail.h"

static struct dc_writer out;
static uint8_t *good;
static size_t good_bytes;

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void crash(struct ringfile *f)
{
	struct dc_ring_crash *c = (void *)(f->map + f->header->crash_off);

	*c = (struct dc_ring_crash){
		.seq = 1, .claimed = 7, .tid = 7, .signal = 11, .code = 1, .reg_count = DC_REGS_X86, .stack_bytes = 1000};
	f->header->flags |= DC_RING_CRASHED;
}

static void make_good(void)
{
	struct ringfile f;
	struct ringfile_writer w[3];
	char dir[SCRATCH_BYTES];

	scratch_memory("dctest", dir);
	ringfile_make(&f, dir, 8, 4096);
	for (unsigned i = 0; i < 3; i++)
		ringfile_writer_init(&w[i], &f, i);
	for (unsigned i = 0; i < 3000; i++)
		ringfile_event(&w[i % 3]);
	ringfile_trigger(&f, "fuzz");
	crash(&f);
	for (unsigned i = 0; i < 20; i++)
		ringfile_sample(&f, i, f.header->started_tick, 2000);
	good_bytes = f.map_bytes;
	good = malloc(good_bytes);
	must(good != NULL);
	memcpy(good, f.map, good_bytes);
	ringfile_remove(&f);
	scratch_remove(dir);
}

static void poke(int fd, const uint8_t *data, size_t size)
{
	must(pwrite(fd, good, good_bytes, 0) == (ssize_t)good_bytes);
	while (size >= 5) {
		uint32_t offset;
		size_t n = data[4];

		memcpy(&offset, data, 4);
		data += 5;
		size -= 5;
		n = n < size ? n : size;
		must(pwrite(fd, data, n, (off_t)(offset % good_bytes)) == (ssize_t)n);
		data += n;
		size -= n;
	}
}

static void check_samples(const struct memory_block *b)
{
	struct dc_sample s;

	for (size_t at = 0; at < b->bytes; at += s.bytes) {
		must(b->bytes - at >= sizeof(s));
		memcpy(&s, b->payload + at, sizeof(s));
		must(s.bytes <= b->bytes - at && s.bytes % 8 == 0 && s.stack_bytes <= s.bytes &&
		     s.reg_count * 8u + s.stack_bytes + s.extra_bytes + sizeof(s) <= s.bytes);
		must(s.kind == DC_SAMPLE_CPU || s.kind == DC_SAMPLE_EVENT || (s.kind == DC_SAMPLE_CRASH && s.bytes == b->bytes));
	}
}

static void check_capture(void)
{
	size_t bytes = 0;

	for (unsigned i = 0; i < out.count; i++) {
		const struct memory_block *b = &out.blocks[i];
		struct dc_chunks_block head;
		struct dc_chunk_copy c;

		bytes += b->bytes;
		if (b->type == DC_BLOCK_SAMPLES)
			check_samples(b);
		if (b->type != DC_BLOCK_CHUNKS)
			continue;
		memcpy(&head, b->payload, sizeof(head));
		must(sizeof(head) + head.count * sizeof(c) <= head.data_offset &&
		     head.data_offset <= b->bytes);
		for (uint32_t k = 0; k < head.count; k++) {
			memcpy(&c, b->payload + sizeof(head) + k * sizeof(c), sizeof(c));
			must(dc_state_bytes(c.state) <= head.chunk_bytes);
			must((uint64_t)head.data_offset + c.offset + dc_state_bytes(c.state) <= b->bytes);
		}
	}
	must(bytes < 8u << 20);
}

static void copy(struct dc_ring *ring)
{
	CLEANUP(dc_snapshot) struct dc_snapshot *s = NULL;
	const struct dc_window window = {.last_ns = 1000000000, .at_tick = ring->header.started_tick};
	struct dc_sampler_totals totals;
	struct dc_guest_state guest;
	struct dc_incident incident;
	struct dc_process process;
	uint64_t from = 0, to = UINT64_MAX;

	dc_incident_init(&incident, DC_REASON_RECOVER, NULL);
	dc_process_fill(&process, ring);
	if (dc_incident_window(&incident, ring, &window) == 0)
		dc_incident_edges(&incident, ring, &from, &to);
	for (unsigned i = 0; i < 2; i++) {
		must(dc_snapshot_new(ring, 0, i ? 0 : from, i ? UINT64_MAX : to, &s) == 0);
		if (dc_snapshot_pass(s, &out) == 0 && dc_snapshot_pass(s, &out) == 0)
			dc_snapshot_loss(s, &out);
		dc_snapshot_free(TAKE(s));
	}
	must(dc_crash_write(ring, &out, 0) >= 0);
	dc_crash_ack(ring);
	must(dc_guest_write(ring, 0, from, to, &out, &totals) >= 0);
	if (dc_guest_state(ring, &guest) == 0)
		must(guest.threads <= guest.live && guest.refused <= guest.live && guest.live <= ring->header.lane_cap);
	check_capture();
	memory_writer_reset(&out);
}

static void hear(void *arg, const struct dc_event *event, double weight)
{
	must(weight >= 1 && (!event->info || event->info->name) && event->arg_count <= DC_ARG_MAX);
	(*(uint64_t *)arg)++;
}

static void lane(void *arg, uint32_t index, const struct dc_ring_lane *entry)
{
	(void)arg;
	must(index < DC_LANE_MAX && memchr(entry->comm, 0, sizeof(entry->comm)));
}

static void follow(struct dc_ring *ring, int fd, const uint8_t *data, size_t size)
{
	static const struct dc_tail_handler handler = {.lane = lane, .event = hear};
	CLEANUP(dc_tail) struct dc_tail *t = NULL;
	uint64_t events = 0;

	if (dc_tail_new(ring, &t) < 0)
		return;
	must(pwrite(fd, good, good_bytes, 0) == (ssize_t)good_bytes);
	dc_tail_look(t, INT64_MAX / 8, &handler, &events);
	poke(fd, data, size);
	dc_tail_look(t, INT64_MAX / 8, &handler, &events);
	must(events <= 3 * good_bytes * 64); /* an END_TO closes many, in few bytes */
}

static char place[SCRATCH_BYTES], path[SCRATCH_BYTES + 8];

static void remove_file(void)
{
	scratch_remove(place);
}

static int open_file(void)
{
	int fd;

	if (!path[0]) {
		make_good();
		scratch_memory("fuzz_ring", place);
		snprintf(path, sizeof(path), "%s/ring", place);
		atexit(remove_file);
	}
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(close_fd) int fd = open_file();
	CLEANUP(dc_ring) struct dc_ring *ring = NULL;
	struct dc_ring_trigger trigger;
	struct dc_ring_usage usage;
	struct dc_ring_look look;
	char why[DC_WHY_BYTES];

	if (size && data[0] == 0xff)
		must(pwrite(fd, data + 1, size - 1, 0) == (ssize_t)(size - 1));
	else
		poke(fd, data, size);
	if (dc_ring_open(AT_FDCWD, path, &ring, why) < 0)
		return 0;
	dc_ring_usage(ring, &usage);
	if (dc_ring_look(ring, &look) == 0) {
		must(look.lanes_used <= ring->header.lane_cap && look.chunks_grown <= ring->header.chunk_cap);
		dc_ring_trigger(ring, look.trigger_seq, &trigger);
	}
	copy(ring);
	follow(ring, fd, data, size);
	return 0;
}
