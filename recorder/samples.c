/* SPDX-License-Identifier: MIT */
/* Records of the ring's samples part (ipc/samples.h). In any context, a handler on top of a record half written included. */
#include <errno.h>
#include <sys/mman.h>

#include "recorder/recorder.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define BLOCK_BYTES (64u << 10)
#define TRIES 16u
static_assert(DC_SAMPLES_BYTES_MAX / BLOCK_BYTES <= 128, "a bit for each block");

/* Relaxed: a bit only says that a system call was made, whose effect every thread sees. */
static bool populated(struct dc_recorder *r, uint32_t block)
{
	uint64_t *word = &r->samples_populated[block / 64], bit = UINT64_C(1) << (block % 64);
	if (r->allocated || __atomic_load_n(word, __ATOMIC_RELAXED) & bit)
		return true;
	uint64_t bytes = r->header->samples_bytes, at = (uint64_t)block * BLOCK_BYTES;
	if (bytes > sizeof *r->samples + r->samples_room) /* the header is in shared memory */
		bytes = sizeof *r->samples + r->samples_room;
	bytes = bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES;
	if (dc_sys(SYS_madvise, (uint8_t *)r->samples + at, bytes, MADV_POPULATE_WRITE) < 0)
		return false;
	__atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
	return true;
}

static bool ready(struct dc_recorder *r, uint32_t from, uint32_t bytes)
{
	for (uint32_t block = from / BLOCK_BYTES; block <= (from + bytes - 1) / BLOCK_BYTES; block++)
		if (!populated(r, block))
			return false;
	return true;
}

bool dc_samples_ready(struct dc_recorder *r)
{
	return r->samples && populated(r, 0);
}

/* @written is in shared memory: whatever it says, the place is inside. */
static uint32_t place_of(const struct dc_recorder *r, uint64_t at)
{
	return (uint32_t)(at % r->samples_room) & ~(DC_SAMPLE_ALIGN - 1);
}

struct dc_ring_sample *dc_sample_reserve(struct dc_recorder *r, uint32_t bytes, uint64_t *ret_at)
{
	struct dc_ring_samples *s = r->samples;
	if (!dc_samples_ready(r) || bytes > r->samples_room)
		return NULL;
	uint64_t at = __atomic_load_n(&s->written, __ATOMIC_RELAXED), start = at; /* the exchange decides */
	for (unsigned i = 0; i < TRIES; i++) {
		uint32_t place = place_of(r, at);
		start = place + bytes > r->samples_room ? at - place + r->samples_room : at;
		if (__atomic_compare_exchange_n(&s->written, &at, start + bytes, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
			place = sizeof *s + place_of(r, start);
			if (place + bytes > sizeof *s + r->samples_room || !ready(r, place, bytes))
				break;
			*ret_at = start;
			return (struct dc_ring_sample *)((uint8_t *)s + place);
		}
	}
	__atomic_fetch_add(&s->lost, 1, __ATOMIC_RELAXED); /* a count */
	return NULL;
}

/* Registers and stack are there. Readers believe the check, so the order of these stores means nothing. */
void dc_sample_commit(struct dc_recorder *r, struct dc_ring_sample *to, const struct dc_ring_sample *head)
{
	*to = *head;
	to->check = dc_ring_sample_check(to, head->bytes);
	__atomic_fetch_add(&r->samples->taken, 1, __ATOMIC_RELAXED); /* a count */
}
