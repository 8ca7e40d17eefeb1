/* SPDX-License-Identifier: MIT */
/*
 * What a capture knows of its incident and of each process. All of it was a peer's: the ring header is
 * checked as that of a live ring is, counts are checked against the payload, texts are ended.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/cleanup.h"
#include "ipc/ring_check.h"
#include "ipc/round.h"
#include "persist/capture_inside.h"
#include "persist/fields.h"

/* Where the parts of a TABLES payload are. */
struct layout {
	struct dc_tables_block count;
	size_t sites;
	size_t strings;
	size_t modules;
	size_t lanes;
};

/* Counts are within the bounds of the ring's format, so nothing here can overflow. */
static int layout_of(const uint8_t *payload, size_t bytes, struct layout *ret)
{
	struct dc_tables_block *n = &ret->count;
	if (bytes < sizeof *n)
		return -EBADMSG;
	memcpy(n, payload, sizeof *n);
	if (n->site_count > DC_SITE_MAX || n->strings_bytes > DC_STRINGS_BYTES ||
	    n->module_count > DC_MODULE_MAX || n->lane_count > DC_LANE_MAX ||
	    n->trigger_count > DC_TRIGGER_SLOTS)
		return -EBADMSG;
	ret->sites = sizeof *n + sizeof(struct dc_ring_header);
	ret->strings = ret->sites + n->site_count * sizeof(struct dc_ring_site);
	ret->modules = ret->strings + dc_round8(n->strings_bytes);
	ret->lanes = ret->modules + n->module_count * sizeof(struct dc_ring_module);
	size_t triggers = ret->lanes + n->lane_count * sizeof(struct dc_ring_lane);
	return triggers + n->trigger_count * sizeof(struct dc_ring_trigger) <= bytes ? 0 : -EBADMSG;
}

/* A copy of @bytes, with a NUL behind. NULL: no memory. */
static void *copy_of(const void *from, size_t bytes)
{
	char *copy = malloc(bytes + 1);
	if (copy) {
		memcpy(copy, from, bytes);
		copy[bytes] = 0;
	}
	return copy;
}

static int copy_tables(struct dc_capture_process *p, const uint8_t *payload, const struct layout *l)
{
	const struct dc_tables_block *n = &l->count;

	p->lanes = copy_of(payload + l->lanes, n->lane_count * sizeof *p->lanes);
	p->modules = copy_of(payload + l->modules, n->module_count * sizeof *p->modules);
	p->strings = copy_of(payload + l->strings, n->strings_bytes);
	CLEANUP(free) struct dc_ring_site *sites = copy_of(payload + l->sites, n->site_count * sizeof *sites);
	if (!p->lanes || !p->modules || !p->strings || !sites)
		return -ENOMEM;
	p->lane_count = n->lane_count;
	p->module_count = n->module_count;
	p->strings_bytes = n->strings_bytes;
	for (uint32_t i = 0; i < p->lane_count; i++)
		p->lanes[i].comm[sizeof p->lanes[i].comm - 1] = 0;
	for (uint32_t i = 0; i < p->module_count; i++)
		if (p->modules[i].build_id_bytes > sizeof p->modules[i].build_id)
			p->modules[i].build_id_bytes = 0;
	return dc_schema_new(sites, n->site_count, p->strings, n->strings_bytes, &p->schema);
}

static int take_tables(struct dc_capture *c, const struct dc_block_ref *b)
{
	struct dc_capture_process *p = &c->processes[b->process];
	const uint8_t *payload;
	struct layout l;
	char name[DC_BLOCK_NAME_BYTES];
	const char *why = "its counts do not fit its size";
	struct dc_ring_header ring;
	int r = dc_capture_payload(c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	r = layout_of(payload, b->plain_bytes, &l);
	if (r == 0) {
		memcpy(&ring, payload + sizeof l.count, sizeof ring);
		r = dc_ring_check(&ring, ring.file_bytes, &why);
	}
	/* What a process costs here: its tables, and a schema of about three times its sites. */
	size_t cost = 4 * (size_t)b->plain_bytes;
	if (r == 0 && cost > DC_CAPTURE_TABLES_BYTES_MAX - c->tables_bytes) {
		why = "the tables of all processes are larger than this reader takes";
		r = -E2BIG;
	}
	if (r < 0) {
		dc_capture_fault(c, b->offset, "%s: %s, not used", dc_block_name(b, name), why);
		return 0;
	}
	c->tables_bytes += cost;
	p->ring = ring;
	p->has_tables = true;
	p->tables_block = (uint32_t)(b - c->blocks);
	return copy_tables(p, payload, &l);
}

static int take_process(struct dc_capture *c, const struct dc_block_ref *b)
{
	const uint8_t *payload;
	char name[DC_BLOCK_NAME_BYTES];
	int r = dc_capture_payload(c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	if (dc_process_unpack(payload, b->plain_bytes, &c->processes[b->process].fields) < 0)
		dc_capture_fault(c, b->offset, "%s: a field runs past its end", dc_block_name(b, name));
	return 0;
}

static int take_incident(struct dc_capture *c, const struct dc_block_ref *b)
{
	const uint8_t *payload;
	char name[DC_BLOCK_NAME_BYTES];
	int r = dc_capture_payload(c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	if (dc_incident_unpack(payload, b->plain_bytes, &c->incident) < 0)
		dc_capture_fault(c, b->offset, "%s: a field runs past its end", dc_block_name(b, name));
	c->has_incident = true;
	return 0;
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static int take_loss(struct dc_capture *c, const struct dc_block_ref *b)
{
	struct dc_capture_process *p = &c->processes[b->process];
	const uint8_t *payload;
	int r = dc_capture_payload(c, b, &payload);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	p->lost_overwritten = p->lost_dropped = p->lost_discarded = 0; /* the last block counts */
	for (size_t at = 0; b->plain_bytes - at >= sizeof(struct dc_loss_entry);
	     at += sizeof(struct dc_loss_entry)) {
		struct dc_loss_entry e;
		memcpy(&e, payload + at, sizeof e);
		p->lost_overwritten = add_capped(p->lost_overwritten, e.overwritten);
		p->lost_dropped = add_capped(p->lost_dropped, e.dropped);
		p->lost_discarded = add_capped(p->lost_discarded, e.discarded_chunks);
	}
	return 0;
}

static bool names_process(const struct dc_block_ref *b)
{
	return (b->type >= DC_BLOCK_PROCESS && b->type <= DC_BLOCK_LOSS) ||
	       (b->type >= DC_BLOCK_MAPS && b->type <= DC_BLOCK_NAMES);
}

static int make_processes(struct dc_capture *c)
{
	unsigned count = 0;
	char name[DC_BLOCK_NAME_BYTES];

	for (uint32_t i = 0; i < c->block_count; i++) {
		const struct dc_block_ref *b = &c->blocks[i];
		if (!names_process(b) || b->process < count)
			continue;
		if (b->process >= DC_CAPTURE_PROCESS_MAX)
			dc_capture_fault(c, b->offset, "%s: belongs to process number %" PRIu32 ", skipped",
					 dc_block_name(b, name), b->process);
		else
			count = b->process + 1;
	}
	c->processes = calloc(count ? count : 1, sizeof *c->processes);
	if (!c->processes)
		return -ENOMEM;
	c->process_count = count;
	return 0;
}

static int take_one(struct dc_capture *c, const struct dc_block_ref *b)
{
	if (b->type == DC_BLOCK_INCIDENT) /* the last whole one counts, as for processes */
		return take_incident(c, b);
	if (!names_process(b) || b->process >= c->process_count)
		return 0;
	if (b->type == DC_BLOCK_PROCESS)
		return take_process(c, b);
	return b->type == DC_BLOCK_LOSS ? take_loss(c, b) : 0;
}

/* The last whole tables of each process; earlier ones are only looked at when the later ones are bad, or to
 * check them. */
static int take_last_tables(struct dc_capture *c)
{
	int r = 0;

	for (uint32_t i = c->block_count; i-- && r == 0;) {
		const struct dc_block_ref *b = &c->blocks[i];
		if (b->type != DC_BLOCK_TABLES || b->process >= c->process_count)
			continue;
		if (!c->processes[b->process].has_tables)
			r = take_tables(c, b);
		else
			r = dc_capture_check(c, b);
	}
	return r;
}

/* What only a process with a ring has. One without was sampled, and knows nothing of dashcam. */
static void note_rings(struct dc_capture *c)
{
	for (unsigned i = 0; i < c->process_count; i++)
		c->processes[i].has_ring = c->processes[i].fields.ring[0] != 0;
	for (uint32_t i = 0; i < c->block_count; i++) {
		const struct dc_block_ref *b = &c->blocks[i];
		if (b->type >= DC_BLOCK_TABLES && b->type <= DC_BLOCK_LOSS && b->process < c->process_count)
			c->processes[b->process].has_ring = true;
	}
}

/* Events of a process without tables cannot be named, but the reader must not fall over them. */
static int complete_processes(struct dc_capture *c)
{
	int r = 0;

	note_rings(c);
	for (unsigned i = 0; i < c->process_count && r == 0; i++) {
		struct dc_capture_process *p = &c->processes[i];
		if (!p->has_tables && p->has_ring)
			dc_capture_fault(c, c->bytes,
					 "process %u: no whole tables, its events cannot be read", i);
		if (!p->schema)
			r = dc_schema_new(NULL, 0, NULL, 0, &p->schema);
		if (r == 0 && !p->strings && !(p->strings = copy_of("", 0)))
			r = -ENOMEM;
	}
	return r;
}

/* The incident's own window and clock, else what the rings say. */
static void make_clock(struct dc_capture *c)
{
	struct dc_incident *incident = &c->incident;
	const struct dc_ring_header *first = NULL;

	for (unsigned i = 0; i < c->process_count && !first; i++)
		if (c->processes[i].has_tables)
			first = &c->processes[i].ring;
	if (!c->has_incident) {
		dc_capture_fault(c, c->bytes,
				 "no whole incident block: why it was saved and its window are not known");
		incident->clock = first ? first->clock : DC_CLOCK_MONOTONIC;
		incident->tick_shift = first ? first->tick_shift : 0;
		incident->to_units = UINT64_MAX;
	}
	if (incident->tick_shift > 16)
		incident->tick_shift = 16;
	dc_clock_init(&c->clock, incident->clock, incident->tick_shift);
	for (uint32_t i = 0; i < incident->anchor_count; i++)
		dc_clock_add(&c->clock, &incident->anchors[i]);
	for (unsigned i = 0; i < c->process_count; i++) {
		const struct dc_capture_process *p = &c->processes[i];
		uint32_t used = p->ring.anchors_used < DC_ANCHOR_MAX ? p->ring.anchors_used : DC_ANCHOR_MAX;
		for (uint32_t k = 0; p->has_tables && p->ring.clock == incident->clock && k < used; k++)
			if (p->ring.anchors[k].tick) /* 0: just being written */
				dc_clock_add(&c->clock, &p->ring.anchors[k]);
	}
}

int dc_capture_read_tables(struct dc_capture *c)
{
	int r = make_processes(c);

	for (uint32_t i = 0; i < c->block_count && r == 0; i++)
		r = take_one(c, &c->blocks[i]);
	if (r == 0)
		r = take_last_tables(c);
	if (r == 0)
		r = complete_processes(c);
	if (r == 0)
		make_clock(c);
	return r;
}

static uint64_t shift_units(uint64_t units, uint32_t from, uint32_t to)
{
	if (units == UINT64_MAX || to >= from)
		return units == UINT64_MAX ? units : units >> (to - from);
	return units > UINT64_MAX >> (from - to) ? UINT64_MAX : units << (from - to);
}

uint64_t dc_capture_to_process(const struct dc_capture *c, unsigned process, uint64_t units)
{
	return shift_units(units, c->incident.tick_shift, c->processes[process].ring.tick_shift);
}

uint64_t dc_capture_from_process(const struct dc_capture *c, unsigned process, uint64_t units)
{
	return shift_units(units, c->processes[process].ring.tick_shift, c->incident.tick_shift);
}

void dc_capture_window(const struct dc_capture *c, unsigned process, uint64_t *ret_from, uint64_t *ret_to)
{
	*ret_from = dc_capture_to_process(c, process, c->incident.from_units);
	*ret_to = dc_capture_to_process(c, process, c->incident.to_units);
}

void dc_capture_process_fini(struct dc_capture_process *p)
{
	dc_schema_free(p->schema);
	free(p->strings);
	free(p->modules);
	free(p->lanes);
}

unsigned dc_capture_process_count(const struct dc_capture *c)
{
	return c->process_count;
}

const struct dc_process *dc_capture_process(const struct dc_capture *c, unsigned i)
{
	return &c->processes[i].fields;
}

const struct dc_schema *dc_capture_schema(const struct dc_capture *c, unsigned i)
{
	return c->processes[i].schema;
}

const struct dc_ring_header *dc_capture_ring(const struct dc_capture *c, unsigned i)
{
	return &c->processes[i].ring;
}

const struct dc_ring_lane *dc_capture_lanes(const struct dc_capture *c, unsigned i, uint32_t *ret_count)
{
	*ret_count = c->processes[i].lane_count;
	return c->processes[i].lanes;
}

const struct dc_ring_module *dc_capture_modules(const struct dc_capture *c, unsigned i, uint32_t *ret_count)
{
	*ret_count = c->processes[i].module_count;
	return c->processes[i].modules;
}

const char *dc_capture_string(const struct dc_capture *c, unsigned i, uint32_t offset)
{
	const struct dc_capture_process *p = &c->processes[i];
	return offset < p->strings_bytes ? p->strings + offset : "?";
}
