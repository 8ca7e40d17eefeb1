/* SPDX-License-Identifier: MIT */
/*
 * What a capture says about itself, as fields that old and new readers can exchange: a run of
 *
 *     key:2  type:2  bytes:4  value, zero-padded to a multiple of 8
 *
 * A reader skips keys it does not know, types it does not expect and values that are too long for a number; a
 * field that is absent reads as zero. A writer leaves out what is zero or empty. Keys are never reused. A
 * repeated key overwrites.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "persist/incident.h"

#define DC_FIELD_U64 1u /* 8 bytes, also for smaller unsigned members */
#define DC_FIELD_I64 2u
#define DC_FIELD_TEXT 3u  /* no NUL; cut to fit when read */
#define DC_FIELD_BYTES 4u /* fixed size, or for lists a multiple of their items' */
#define DC_FIELD_F64 5u   /* IEEE 754, 8 bytes */

/* Room that is always enough for one dc_incident or dc_process. */
#define DC_FIELDS_MAX 16384u

struct dc_field {
	uint16_t key;
	uint16_t type;
	uint32_t bytes;
};

/* Return: bytes written to @buffer of DC_FIELDS_MAX bytes. */
size_t dc_incident_pack(const struct dc_incident *incident, void *buffer);
size_t dc_process_pack(const struct dc_process *process, void *buffer);

/*
 * Every member of *@ret is set, texts end in a NUL, anchor_count is in range; what the values mean is for the
 * caller to judge. Return: 0; -EBADMSG when a field runs past the end: what came before it has been taken.
 */
int dc_incident_unpack(const void *payload, size_t bytes, struct dc_incident *ret_incident);
int dc_process_unpack(const void *payload, size_t bytes, struct dc_process *ret_process);
