/* SPDX-License-Identifier: MIT */
/* Rings that events write into, one of each kind per CPU: those of all processes, or of one that handed its events over. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "ipc/cleanup.h"
#include "trigger/sampler_inside.h"

#define RING_BYTES_MIN (16u << 10)
#define CHANGES_BYTES_MAX (128u << 10)

static void close_ring(struct cpu *c, enum ring_of ring)
{
	dc_perf_ring_unmap(&c->ring[ring]);
	if (c->anchor[ring] >= 0)
		close(TAKE_FD(c->anchor[ring]));
}

static void close_cpu(struct cpu *c)
{
	for (unsigned ring = 0; ring < RINGS; ring++)
		close_ring(c, (enum ring_of)ring);
}

static void close_all(struct cpus *c)
{
	for (uint32_t i = 0; i < c->count; i++)
		close_cpu(&c->at[i]);
	c->count = 0;
}

void dc_cpus_close(struct cpus *c)
{
	close_all(c);
	free(TAKE(c->at));
}

static int open_ring(const struct dc_sampler *s, struct cpu *c, enum ring_of ring, uint64_t bytes)
{
	const bool overwritten = ring != RING_CHANGES;
	/* What nobody waits for must not wake: an interrupt for every record was most of the price of a switch. */
	const bool eager = ring == RING_CHANGES && (!s->config.host || s->config.forked);
	const struct dc_perf_shape shape = {.backward = overwritten, .wakeup_bytes = eager ? 1 : (uint32_t)bytes / 2};
	uint64_t id;
	int r = dc_perf_open(DC_PERF_ANCHOR, &shape, 0, c->cpu, &c->anchor[ring], &id);

	return r < 0 ? r : dc_perf_ring_map(c->anchor[ring], bytes, overwritten, &c->ring[ring]);
}

static uint64_t ring_bytes(enum ring_of ring, uint64_t stacks)
{
	const uint64_t bytes = ring == RING_STACKS ? stacks : ring == RING_SWITCHES ? stacks / 2 : stacks / 16;

	if (ring == RING_CHANGES && bytes > CHANGES_BYTES_MAX)
		return CHANGES_BYTES_MAX;
	return bytes < RING_BYTES_MIN ? RING_BYTES_MIN : bytes;
}

/* The rings of all CPUs, or none. */
static int try_rings(const struct dc_sampler *s, unsigned rings, uint64_t stacks, struct cpus *c)
{
	const long cpus = sysconf(_SC_NPROCESSORS_CONF);
	int r = 0;

	for (long cpu = 0; r == 0 && cpu < cpus; cpu++) {
		struct cpu *one = &c->at[c->count];

		*one = (struct cpu){.cpu = (uint32_t)cpu, .anchor = {-1, -1, -1}};
		c->count++;
		for (unsigned ring = 0; r == 0 && ring < rings; ring++)
			r = open_ring(s, one, (enum ring_of)ring, ring_bytes((enum ring_of)ring, stacks));
		if (r == -ENODEV) { /* offline */
			close_cpu(one);
			c->count--;
			r = 0;
		}
	}
	if (r == 0 && c->count == 0)
		r = -ENODEV;
	if (r < 0)
		close_all(c);
	return r;
}

/* Halved until they may be locked; those of a watcher then once more, so that this user's next one finds some room, too. */
int dc_cpus_open(const struct dc_sampler *s, unsigned rings, uint64_t wanted, struct cpus *ret_cpus)
{
	const long cpus = sysconf(_SC_NPROCESSORS_CONF);
	struct cpus c = {.at = calloc(cpus > 0 ? (size_t)cpus : 1, sizeof(*c.at))};
	uint64_t bytes = RING_BYTES_MIN;
	bool halved = false;
	int r;

	if (!c.at)
		return -ENOMEM;
	while (bytes * 2 <= wanted)
		bytes *= 2;
	while (((r = try_rings(s, rings, bytes, &c)) == -EPERM || r == -ENOMEM) && bytes > RING_BYTES_MIN) {
		bytes /= 2;
		halved = true;
	}
	if (r == 0 && halved && rings == RINGS && bytes > 4 * RING_BYTES_MIN) {
		close_all(&c);
		r = try_rings(s, rings, bytes / 2, &c);
	}
	if (r < 0)
		dc_cpus_close(&c);
	else
		*ret_cpus = c;
	return r;
}
