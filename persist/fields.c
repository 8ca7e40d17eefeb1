/* SPDX-License-Identifier: MIT */
#include "persist/fields.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* One line per member: the tables below are the format, packing and unpacking walk them. */
struct member {
	uint16_t key;
	uint16_t type;
	uint32_t offset;
	uint32_t size;
};

#define MEMBER(s, k, t, m)                                                                                   \
	{                                                                                                    \
		.key = k, .type = t, .offset = offsetof(s, m), .size = sizeof(((s *)0)->m)                   \
	}
#define I(k, t, m) MEMBER(struct dc_incident, k, t, m)
#define P(k, t, m) MEMBER(struct dc_process, k, t, m)

/* Not in the table: their lengths are anchor_count, cause.neighbour_count and cause.waiting_count. */
#define KEY_ANCHORS 19u
#define KEY_NEIGHBOURS 30u
#define KEY_WAITING 34u
#define KEY_BOOT_ID 21u /* of incidents: written also where it is zero, as it always was */

static const struct member incident_members[] = {
	I(1, DC_FIELD_U64, reason),          I(2, DC_FIELD_TEXT, text),
	I(3, DC_FIELD_TEXT, rule),           I(4, DC_FIELD_U64, severity),
	I(5, DC_FIELD_U64, coalesced),       I(6, DC_FIELD_U64, suppressed),
	I(7, DC_FIELD_U64, trigger_pid),     I(8, DC_FIELD_U64, trigger_tid),
	I(9, DC_FIELD_U64, signal),          I(10, DC_FIELD_I64, at_realtime_ns),
	I(11, DC_FIELD_U64, at_units),       I(12, DC_FIELD_U64, from_units),
	I(13, DC_FIELD_U64, to_units),       I(14, DC_FIELD_I64, asked_last_ns),
	I(15, DC_FIELD_I64, asked_after_ns), I(16, DC_FIELD_U64, clock),
	I(17, DC_FIELD_U64, tick_shift),     I(18, DC_FIELD_TEXT, host),
	I(20, DC_FIELD_TEXT, kernel),        I(21, DC_FIELD_BYTES, boot_id),
	I(22, DC_FIELD_TEXT, cause.expression), I(23, DC_FIELD_TEXT, cause.sentence),
	I(24, DC_FIELD_TEXT, cause.name),       I(25, DC_FIELD_TEXT, cause.thread),
	I(26, DC_FIELD_F64, cause.value),       I(27, DC_FIELD_F64, cause.threshold),
	I(28, DC_FIELD_U64, cause.unit),        I(29, DC_FIELD_BYTES, cause.trace_id),
	I(31, DC_FIELD_F64, cause.amount),      I(32, DC_FIELD_F64, cause.allowed),
	I(33, DC_FIELD_U64, cause.amount_unit), I(35, DC_FIELD_U64, cause.sample_hz),
	I(36, DC_FIELD_I64, cause.sample_for_ns),
};

static const struct member process_members[] = {
	P(1, DC_FIELD_U64, pid),       P(2, DC_FIELD_U64, ns_pid),        P(3, DC_FIELD_U64, uid),
	P(4, DC_FIELD_U64, verified),  P(5, DC_FIELD_U64, start_time),    P(6, DC_FIELD_U64, exit_known),
	P(7, DC_FIELD_I64, exit_code), P(8, DC_FIELD_U64, exit_signal),   P(9, DC_FIELD_U64, alive),
	P(10, DC_FIELD_I64, took_ns),  P(11, DC_FIELD_U64, memory_bytes), P(12, DC_FIELD_U64, cap_bytes),
	P(13, DC_FIELD_TEXT, name),    P(14, DC_FIELD_TEXT, exe),         P(15, DC_FIELD_TEXT, cmdline),
	P(16, DC_FIELD_TEXT, ring),    P(17, DC_FIELD_U64, sample_scope), P(18, DC_FIELD_U64, sample_hz),
	P(19, DC_FIELD_U64, sample_copy_bytes), P(20, DC_FIELD_U64, sample_kernel),
	P(21, DC_FIELD_TEXT, sample_why),       P(22, DC_FIELD_I64, samples_from_ns),
	P(23, DC_FIELD_I64, switches_from_ns),  P(24, DC_FIELD_U64, samples_lost),
	P(25, DC_FIELD_U64, threads_taken),     P(26, DC_FIELD_U64, threads_refused),
	P(27, DC_FIELD_U64, stopped_median_ns), P(28, DC_FIELD_TEXT, threads_why),
	P(29, DC_FIELD_U64, raised_hz),         P(30, DC_FIELD_I64, raised_from_ns),
	P(31, DC_FIELD_I64, raised_to_ns),
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static_assert(sizeof(struct dc_incident) + sizeof(struct dc_process) + 40 * 16 < DC_FIELDS_MAX,
	      "room for all");

static uint8_t *put(uint8_t *at, uint16_t key, uint16_t type, const void *value, size_t bytes)
{
	struct dc_field f = {.key = key, .type = type, .bytes = (uint32_t)bytes};

	memcpy(at, &f, sizeof f);
	memset(at + sizeof f + bytes, 0, -bytes & 7);
	memcpy(at + sizeof f, value, bytes);
	return at + sizeof f + ((bytes + 7) & ~(size_t)7);
}

/* Numbers travel as 8 bytes, signed ones sign-extended, so that a member may grow. */
static uint64_t load_number(const struct member *m, const uint8_t *object)
{
	uint64_t wide = 0;
	int32_t narrow;

	memcpy(&wide, object + m->offset, m->size);
	if (m->type == DC_FIELD_I64 && m->size == sizeof narrow) {
		memcpy(&narrow, object + m->offset, sizeof narrow);
		wide = (uint64_t)(int64_t)narrow;
	}
	return wide;
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i])
			return false;
	return true;
}

static uint8_t *put_member(uint8_t *at, const struct member *m, const uint8_t *object)
{
	uint64_t number;
	size_t length;

	switch (m->type) {
	case DC_FIELD_TEXT:
		length = strnlen((const char *)object + m->offset, m->size);
		return length ? put(at, m->key, m->type, object + m->offset, length) : at;
	case DC_FIELD_BYTES:
		if (m->key != KEY_BOOT_ID && is_zero(object + m->offset, m->size))
			return at;
		return put(at, m->key, m->type, object + m->offset, m->size);
	default:
		number = load_number(m, object);
		return number ? put(at, m->key, m->type, &number, sizeof number) : at;
	}
}

static uint8_t *put_members(uint8_t *at, const struct member *m, size_t count, const void *object)
{
	for (size_t i = 0; i < count; i++)
		at = put_member(at, &m[i], object);
	return at;
}

static void take_member(const struct member *m, const uint8_t *value, size_t bytes, uint8_t *object)
{
	uint8_t *to = object + m->offset;

	switch (m->type) {
	case DC_FIELD_TEXT:
		memset(to, 0, m->size);
		memcpy(to, value, bytes < m->size ? bytes : m->size - 1);
		break;
	case DC_FIELD_BYTES:
		if (bytes == m->size)
			memcpy(to, value, bytes);
		break;
	default:
		if (bytes == 8)
			memcpy(to, value, m->size); /* little-endian: the low part */
	}
}

static void take_field(const struct member *m, size_t count, const struct dc_field *f, const uint8_t *value,
		       void *object)
{
	for (size_t i = 0; i < count; i++)
		if (m[i].key == f->key && m[i].type == f->type)
			take_member(&m[i], value, f->bytes, object);
}

/* As many of a list as are there and fit. Return: how many. */
static uint32_t take_list(const struct dc_field *f, const uint8_t *value, void *items, size_t size, size_t max)
{
	size_t count = f->bytes / size;

	if (f->type != DC_FIELD_BYTES)
		return 0;
	if (count > max)
		count = max;
	memcpy(items, value, count * size);
	return (uint32_t)count;
}

static void take_anchors(const struct dc_field *f, const uint8_t *value, struct dc_incident *incident)
{
	incident->anchor_count =
		take_list(f, value, incident->anchors, sizeof *incident->anchors, COUNT(incident->anchors));
}

static void take_neighbours(const struct dc_field *f, const uint8_t *value, struct dc_cause *cause)
{
	cause->neighbour_count =
		take_list(f, value, cause->neighbours, sizeof *cause->neighbours, COUNT(cause->neighbours));
	for (uint32_t i = 0; i < cause->neighbour_count; i++) {
		struct dc_neighbour *n = &cause->neighbours[i];

		n->name[sizeof n->name - 1] = '\0';
		n->thread[sizeof n->thread - 1] = '\0';
	}
}

static void take_waiting(const struct dc_field *f, const uint8_t *value, struct dc_cause *cause)
{
	cause->waiting_count = take_list(f, value, cause->waiting, sizeof *cause->waiting, COUNT(cause->waiting));
	for (uint32_t i = 0; i < cause->waiting_count; i++)
		cause->waiting[i].name[sizeof cause->waiting[i].name - 1] = '\0';
}

/* The next field of [*at, end). Return: 1, 0 at the end, -EBADMSG. */
static int next_field(const uint8_t **at, const uint8_t *end, struct dc_field *ret_field,
		      const uint8_t **ret_value)
{
	size_t left = (size_t)(end - *at);
	size_t padded;

	if (!left)
		return 0;
	if (left < sizeof *ret_field)
		return -EBADMSG;
	memcpy(ret_field, *at, sizeof *ret_field);
	left -= sizeof *ret_field;
	if (ret_field->bytes > left)
		return -EBADMSG;
	padded = ((size_t)ret_field->bytes + 7) & ~(size_t)7;
	*ret_value = *at + sizeof *ret_field;
	*at = *ret_value + (padded < left ? padded : left);
	return 1;
}

static uint8_t *put_list(uint8_t *at, uint16_t key, const void *items, size_t size, size_t count, size_t max)
{
	return count ? put(at, key, DC_FIELD_BYTES, items, (count < max ? count : max) * size) : at;
}

size_t dc_incident_pack(const struct dc_incident *incident, void *buffer)
{
	const struct dc_cause *cause = &incident->cause;
	uint8_t *at = put_members(buffer, incident_members, COUNT(incident_members), incident);

	at = put_list(at, KEY_ANCHORS, incident->anchors, sizeof *incident->anchors, incident->anchor_count,
		      COUNT(incident->anchors));
	at = put_list(at, KEY_NEIGHBOURS, cause->neighbours, sizeof *cause->neighbours, cause->neighbour_count,
		      COUNT(cause->neighbours));
	at = put_list(at, KEY_WAITING, cause->waiting, sizeof *cause->waiting, cause->waiting_count, COUNT(cause->waiting));
	return (size_t)(at - (uint8_t *)buffer);
}

size_t dc_process_pack(const struct dc_process *process, void *buffer)
{
	return (size_t)(put_members(buffer, process_members, COUNT(process_members), process) -
			(uint8_t *)buffer);
}

int dc_incident_unpack(const void *payload, size_t bytes, struct dc_incident *ret_incident)
{
	const uint8_t *at = payload, *end = at + bytes, *value;
	struct dc_field f;
	int r;

	memset(ret_incident, 0, sizeof *ret_incident);
	while ((r = next_field(&at, end, &f, &value)) > 0) {
		if (f.key == KEY_ANCHORS)
			take_anchors(&f, value, ret_incident);
		else if (f.key == KEY_NEIGHBOURS)
			take_neighbours(&f, value, &ret_incident->cause);
		else if (f.key == KEY_WAITING)
			take_waiting(&f, value, &ret_incident->cause);
		else
			take_field(incident_members, COUNT(incident_members), &f, value, ret_incident);
	}
	return r;
}

int dc_process_unpack(const void *payload, size_t bytes, struct dc_process *ret_process)
{
	const uint8_t *at = payload, *end = at + bytes, *value;
	struct dc_field f;
	int r;

	memset(ret_process, 0, sizeof *ret_process);
	while ((r = next_field(&at, end, &f, &value)) > 0)
		take_field(process_members, COUNT(process_members), &f, value, ret_process);
	return r;
}
