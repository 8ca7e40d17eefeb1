/* SPDX-License-Identifier: MIT */
/* Payloads of MAPS, SAMPLES, STACKS, FRAMES and NAMES, put together by hand, for tests of what reads and writes them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "persist/format.h"
#include "persist/writer.h"

/* A payload that grows; free it with blob_free(). */
struct blob {
	uint8_t *bytes;
	size_t size;
};

void blob_add(struct blob *b, const void *bytes, size_t size);
void blob_free(struct blob *b);
/* Writes it as a block and frees it. */
int blob_write(struct blob *b, struct dc_writer *w, uint16_t type, uint32_t process);

struct maker_map {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	const char *path;
	const uint8_t *build_id; /* of @build_id_bytes */
	uint8_t build_id_bytes;
	uint8_t flags;
	int64_t from_ns;
	int64_t until_ns;
};
void maker_maps(struct blob *b, uint32_t first, const struct maker_map *maps, uint32_t count);

struct maker_sample {
	uint16_t kind;
	uint16_t flags;
	uint32_t tid;
	int64_t at_ns;
	uint64_t weight_ns;
	uint32_t stack;
	const uint64_t *ips;
	uint32_t ip_count;
	const uint64_t *regs;
	uint16_t reg_count;
	const void *bytes; /* of the stack */
	uint32_t byte_count;
	const void *extra;
	uint16_t extra_bytes;
};
void maker_sample(struct blob *b, const struct maker_sample *sample);

/* @numbers: stacks one behind the other, each ended by 0. */
void maker_stacks(struct blob *b, uint32_t first, const uint32_t *numbers, uint32_t count);
void maker_frames(struct blob *b, uint32_t first, const struct dc_frame *frames, uint32_t count);

struct maker_name {
	const char *function;
	const char *file;
	uint32_t line;
	uint32_t outer;
	uint64_t start;
};
void maker_names(struct blob *b, uint32_t first, const struct maker_name *names, uint32_t count);
