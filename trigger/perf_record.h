/* SPDX-License-Identifier: MIT */
/*
 * Records of perf as the events of trigger/perf_event.h shape them, made into struct dc_sample. Pure: bytes in, bytes out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/format.h"

struct perf_event_header;

/* What every sample and every switch begins with, or ends with. */
struct dc_perf_who {
	uint64_t id; /* of a sample's event; 0: a switch has none */
	uint32_t pid;
	uint32_t tid;
	int64_t time_ns;
	uint32_t cpu;
};

/* Return: 0, -ENODATA: another kind of record, -EBADMSG. */
int dc_perf_record_who(const struct perf_event_header *record, size_t bytes, struct dc_perf_who *ret_who);

/* How many records a PERF_RECORD_LOST says are missing; 0: it is another. */
uint64_t dc_perf_record_lost(const struct perf_event_header *record, size_t bytes);

#define DC_PERF_SAMPLE_MAX (sizeof(struct dc_sample) + 65536u)

/*
 * dc_perf_record_sample() - a PERF_RECORD_SAMPLE of DC_PERF_CPU or DC_PERF_OFF
 * @copied: its event was opened with copy_bytes. @kind, @weight: of what is made of it.
 * @ret_sample: DC_PERF_SAMPLE_MAX bytes, of which ret_sample->bytes are filled. Return: 0, -EBADMSG.
 */
int dc_perf_record_sample(const struct perf_event_header *record, size_t bytes, bool copied, uint16_t kind,
			  uint64_t weight, struct dc_sample *ret_sample);

/* A PERF_RECORD_SWITCH or PERF_RECORD_SWITCH_CPU_WIDE. Return: 0, -EBADMSG. */
int dc_perf_record_switch(const struct perf_event_header *record, size_t bytes, struct dc_sample *ret_sample);
