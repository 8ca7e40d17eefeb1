/* SPDX-License-Identifier: MIT */
#include "persist/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "persist/uring.h"

#define NONE UINT32_MAX

enum slot_state { FREE, WAITING, FLYING };

struct slot {
	uint64_t offset;
	size_t bytes;
	enum slot_state state;
};

struct dc_output {
	int fd;
	int error;
	bool direct;
	bool hurry;
	unsigned count;   /* buffers there always, and at most in flight */
	unsigned spare;   /* how many more there are for a hurry; 0 also: not asked yet */
	unsigned current; /* being filled; NONE: none */
	unsigned flying;
	unsigned waiting;       /* sent, not in flight yet */
	unsigned first_waiting; /* place in @queue */
	uint64_t offset;        /* where the next buffer goes */
	uint64_t allocated;     /* blocks are there up to here */
	void *memory;
	void *spare_memory;
	struct iovec *buffers; /* those behind the first @count are spare */
	struct slot *slots;
	unsigned *queue;        /* round: slots that wait, in the order of the file */
	struct dc_uring *uring; /* NULL: pwrite */
};

/*
 * Blocks are allocated ahead in growing steps. It is not only faster to allocate: a write inside the file's
 * size may run beside others, while ext4 and xfs let writes that extend it through one at a time. Each step
 * waits for what is in flight, so who knows how much will come says so first.
 */
#define ALLOCATE_MIN (4u << 20)
#define ALLOCATE_MAX (64u << 20)

static int fail(struct dc_output *o, int error)
{
	if (!o->error)
		o->error = error;
	return o->error;
}

/* Not for direct I/O after all (the file system, or an odd remainder): the page cache takes everything. */
static bool drop_direct(struct dc_output *o)
{
	int flags = fcntl(o->fd, F_GETFL);

	if (!o->direct || flags < 0 || fcntl(o->fd, F_SETFL, flags & ~O_DIRECT) < 0)
		return false;
	o->direct = false;
	return true;
}

static int write_all(struct dc_output *o, const uint8_t *from, size_t bytes, uint64_t offset)
{
	while (bytes) {
		ssize_t n = pwrite(o->fd, from, bytes, (off_t)offset);

		if (n > 0) {
			from += n;
			bytes -= (size_t)n;
			offset += (uint64_t)n;
		} else if (n == 0) {
			return fail(o, -EIO);
		} else if (errno != EINTR && !(errno == EINVAL && drop_direct(o))) {
			return fail(o, -errno);
		}
	}
	return 0;
}

static bool half_done(int result)
{
	return result >= 0 || result == -EINTR || result == -EAGAIN || result == -EINVAL;
}

/* @index holds nothing that is wanted any more. */
static void release(struct dc_output *o, unsigned index)
{
	o->slots[index].state = FREE;
	if (index < o->count || o->hurry)
		return;
	madvise(o->buffers[index].iov_base, DC_OUTPUT_BUFFER_BYTES, MADV_DONTNEED);
}

static int write_slot(struct dc_output *o, unsigned index, size_t done)
{
	const struct slot *slot = &o->slots[index];

	return write_all(o, (uint8_t *)o->buffers[index].iov_base + done, slot->bytes - done,
			 slot->offset + done);
}

/* One write has ended; finish what it left. */
static int land(struct dc_output *o)
{
	unsigned index;
	int result;
	int r = dc_uring_wait(o->uring, &index, &result);

	if (r < 0) {
		o->flying = 0; /* nothing can be known of them any more */
		return fail(o, r);
	}
	o->flying--;
	if (half_done(result))
		r = write_slot(o, index, result > 0 ? (size_t)result : 0);
	else
		r = fail(o, result);
	release(o, index);
	return r;
}

static unsigned slots_most(const struct dc_output *o)
{
	return o->count + DC_OUTPUT_SPARE_MAX;
}

/* The oldest one that waits goes to the disk. */
static void start(struct dc_output *o)
{
	unsigned index = o->queue[o->first_waiting];
	int r;

	o->first_waiting = (o->first_waiting + 1) % slots_most(o);
	o->waiting--;
	if (!o->uring) {
		write_slot(o, index, 0);
		release(o, index);
		return;
	}
	r = dc_uring_write(o->uring, index, o->slots[index].bytes, o->slots[index].offset);
	if (r < 0) {
		fail(o, r);
		release(o, index);
		return;
	}
	o->slots[index].state = FLYING;
	o->flying++;
}

/* Keeps the disk busy without waiting for it. pwrite always waits: so one for each that was sent, and one more. */
static void pump(struct dc_output *o)
{
	if (!o->uring) {
		for (int i = 0; i < 2 && o->waiting && !o->hurry && !o->error; i++)
			start(o);
		return;
	}
	while (o->flying && dc_uring_ready(o->uring))
		land(o);
	while (o->waiting && o->flying < o->count && !o->error)
		start(o);
}

/* Until one more buffer is free. */
static void wait_for_one(struct dc_output *o)
{
	if (o->flying)
		land(o);
	else
		start(o);
	if (o->uring)
		pump(o);
}

/* Refused (no room, not supported): the writes themselves will tell whether that matters. */
static void allocate(struct dc_output *o, uint64_t until)
{
	if (!o->direct || until <= o->allocated)
		return;
	if (fallocate(o->fd, 0, (off_t)o->allocated, (off_t)(until - o->allocated)) == 0)
		o->allocated = until;
	else
		o->allocated = UINT64_MAX;
}

static void allocate_ahead(struct dc_output *o, uint64_t until)
{
	uint64_t step = o->allocated < ALLOCATE_MIN ? ALLOCATE_MIN : o->allocated;

	if (until > o->allocated)
		allocate(o, o->allocated + (step < ALLOCATE_MAX ? step : ALLOCATE_MAX));
}

void dc_output_expect(struct dc_output *o, uint64_t bytes)
{
	if (o->allocated != UINT64_MAX)
		allocate(o, o->offset + bytes);
}

void dc_output_free(struct dc_output *o)
{
	if (!o)
		return;
	while (o->flying)
		land(o);
	dc_uring_free(o->uring);
	if (o->spare_memory)
		munmap(o->spare_memory, (size_t)o->spare * DC_OUTPUT_BUFFER_BYTES);
	if (o->memory)
		munmap(o->memory, (size_t)o->count * DC_OUTPUT_BUFFER_BYTES);
	free(o->buffers);
	free(o->slots);
	free(o->queue);
	free(o);
}

static int map_buffers(struct dc_output *o)
{
	o->buffers = calloc(slots_most(o), sizeof *o->buffers);
	o->slots = calloc(slots_most(o), sizeof *o->slots);
	o->queue = calloc(slots_most(o), sizeof *o->queue);
	if (!o->buffers || !o->slots || !o->queue)
		return -ENOMEM;
	o->memory = mmap(NULL, (size_t)o->count * DC_OUTPUT_BUFFER_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (o->memory == MAP_FAILED) {
		o->memory = NULL;
		return -ENOMEM;
	}
	for (unsigned i = 0; i < o->count; i++)
		o->buffers[i] = (struct iovec){(uint8_t *)o->memory + (size_t)i * DC_OUTPUT_BUFFER_BYTES,
					       DC_OUTPUT_BUFFER_BYTES};
	return 0;
}

/*
 * O_DIRECT is set afterwards: with it, open() of a file system that refuses would leave an empty file behind. Without
 * it io_uring has nothing to give: its buffered writes that would block go to a thread of the kernel's.
 */
static void choose_method(struct dc_output *o, uint32_t flags)
{
	int file_flags = fcntl(o->fd, F_GETFL);

	if (flags & DC_OUTPUT_DIRECT && file_flags >= 0)
		o->direct = fcntl(o->fd, F_SETFL, file_flags | O_DIRECT) == 0;
	if (flags & DC_OUTPUT_URING && o->direct && dc_uring_new(o->fd, o->buffers, o->count, &o->uring) < 0)
		o->uring = NULL;
}

int dc_output_new(int fd, uint32_t flags, unsigned count, struct dc_output **ret_output)
{
	struct dc_output *o = calloc(1, sizeof *o);
	int r;

	if (!o)
		return -ENOMEM;
	o->fd = fd;
	o->count = count < 2 ? 2 : count;
	o->current = NONE;
	r = map_buffers(o);
	if (r < 0) {
		dc_output_free(o);
		return r;
	}
	choose_method(o, flags);
	*ret_output = o;
	return 0;
}

/* What the kernel could give without swapping, in buffers. */
static unsigned available(void)
{
	char line[128];
	unsigned long kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && kib == 0 && fgets(line, sizeof line, f))
		if (sscanf(line, "MemAvailable: %lu", &kib) != 1)
			kib = 0;
	if (f)
		fclose(f);
	return (unsigned)(kib / (DC_OUTPUT_BUFFER_BYTES / 1024));
}

/* Address space; memory comes with use, in huge pages where there are some: fewer faults while copying. */
static void map_spare(struct dc_output *o)
{
	unsigned spare = available() / 4;
	void *at;

	if (spare > DC_OUTPUT_SPARE_MAX)
		spare = DC_OUTPUT_SPARE_MAX;
	at = mmap(NULL, (size_t)spare * DC_OUTPUT_BUFFER_BYTES, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return;
	madvise(at, (size_t)spare * DC_OUTPUT_BUFFER_BYTES, MADV_HUGEPAGE);
	for (unsigned i = 0; i < spare; i++)
		o->buffers[o->count + i] = (struct iovec){(uint8_t *)at + (size_t)i * DC_OUTPUT_BUFFER_BYTES,
							  DC_OUTPUT_BUFFER_BYTES};
	o->spare_memory = at;
	o->spare = spare;
}

void dc_output_hurry(struct dc_output *o, bool hurry)
{
	const bool before = o->hurry;

	if (hurry && !o->spare)
		map_spare(o);
	o->hurry = hurry;
	for (unsigned i = o->count; before && !hurry && i < o->count + o->spare; i++)
		if (o->slots[i].state == FREE && i != o->current)
			release(o, i);
}

/* A free buffer without waiting for it; NONE: there is none. */
static unsigned find_free(const struct dc_output *o)
{
	const unsigned most = o->hurry ? o->count + o->spare : o->count;

	for (unsigned i = 0; i < most; i++)
		if (o->slots[i].state == FREE)
			return i;
	return NONE;
}

void *dc_output_buffer(struct dc_output *o)
{
	while (!o->error && o->current == NONE) {
		o->current = find_free(o);
		if (o->current == NONE)
			wait_for_one(o);
	}
	return o->error ? NULL : o->buffers[o->current].iov_base;
}

int dc_output_send(struct dc_output *o, size_t bytes)
{
	if (o->error)
		return o->error;
	o->slots[o->current] = (struct slot){.offset = o->offset, .bytes = bytes, .state = WAITING};
	o->queue[(o->first_waiting + o->waiting++) % slots_most(o)] = o->current;
	o->current = NONE;
	o->offset += bytes;
	allocate_ahead(o, o->offset);
	pump(o);
	return o->error;
}

int dc_output_drain(struct dc_output *o)
{
	while (o->flying || (o->waiting && !o->error))
		wait_for_one(o);
	if (!o->error && o->allocated && ftruncate(o->fd, (off_t)o->offset) < 0)
		fail(o, -errno);
	return o->error;
}

int dc_output_error(const struct dc_output *o)
{
	return o->error;
}

uint64_t dc_output_bytes(const struct dc_output *o)
{
	return o->offset;
}

const char *dc_output_method(const struct dc_output *o)
{
	if (!o->uring)
		return "pwrite";
	return dc_uring_registered(o->uring) ? "io_uring, registered buffers" : "io_uring";
}
