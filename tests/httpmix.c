/* SPDX-License-Identifier: MIT */
#include "tests/httpmix.h"

#include <math.h>

#define UNITS_PER_NS (2.6 / 8)
#define LANES 4

static uint64_t seed;

static uint64_t random_number(void)
{
	seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
	return seed;
}

static double uniform(void)
{
	return (double)(random_number() >> 11) * 0x1p-53;
}

static double gauss(void)
{
	return sqrt(-2 * log(uniform() + 1e-18)) * cos(6.283185307179586 * uniform());
}

static uint64_t log_normal(double median, double sigma)
{
	return (uint64_t)(median * exp(sigma * gauss()));
}

struct thread {
	struct ring_maker *ring;
	uint32_t lane;
	double now_ns;
};

/* The recorder cuts off the low bits of each stamp, so what is below a unit carries over. */
static uint64_t pass(struct thread *t, double median_ns, double sigma)
{
	t->now_ns += median_ns * exp(sigma * gauss());
	return (uint64_t)(t->now_ns * UNITS_PER_NS);
}

static void begin(struct thread *t, double median_ns, double sigma, uint16_t site, const uint64_t *values,
		  unsigned count)
{
	struct maker_arg args[DC_ARG_MAX];

	for (unsigned i = 0; i < count; i++)
		args[i] = (struct maker_arg)MAKE_U64(values[i]);
	ring_maker_event(t->ring, t->lane, DC_KIND_BEGIN, pass(t, median_ns, sigma), site, args, count);
}

static void end(struct thread *t, double median_ns, double sigma)
{
	ring_maker_end(t->ring, t->lane, pass(t, median_ns, sigma));
}

static uint16_t site(struct ring_maker *ring, const char *name, uint8_t kind, unsigned count, const char *a,
		     const char *b, const char *c, const char *d)
{
	struct maker_site s = {.name = name,
			       .file = "mix.c",
			       .kind = kind,
			       .arg_count = (uint8_t)count,
			       .keys = {a, b, c, d}};

	for (unsigned i = 0; i < count; i++)
		s.types[i] = DC_TYPE_U64;
	return ring_maker_site(ring, &s);
}

static void pairs(struct thread *t, uint64_t events, double median_ns, double sigma)
{
	uint16_t pair = site(t->ring, "pair", DC_KIND_BEGIN, 2, "i", "j", NULL, NULL);

	for (uint64_t i = 0; i < events / 2; i++) {
		begin(t, median_ns, sigma, pair, (uint64_t[]){i & 1023, i & 15}, 2);
		end(t, median_ns, sigma);
	}
}

/* --- requests --- */

struct http {
	uint16_t request, parse, lock, query, io_read, depth, reply;
	uint64_t number;
};

static void http_sites(struct http *h, struct ring_maker *ring)
{
	h->request = site(ring, "http.request", DC_KIND_BEGIN, 4, "conn", "route", "bytes", "number");
	h->parse = site(ring, "http.parse", DC_KIND_BEGIN, 1, "headers", NULL, NULL, NULL);
	h->lock = site(ring, "lock.wait", DC_KIND_BEGIN, 1, "lock", NULL, NULL, NULL);
	h->query = site(ring, "db.query", DC_KIND_BEGIN, 2, "id", "rows", NULL, NULL);
	h->io_read = site(ring, "io.read", DC_KIND_BEGIN, 2, "fd", "bytes", NULL, NULL);
	h->depth = site(ring, "queue.depth", DC_KIND_COUNTER, 1, "value", NULL, NULL, NULL);
	h->reply = site(ring, "http.reply", DC_KIND_BEGIN, 2, "status", "bytes", NULL, NULL);
}

static void query(struct http *h, struct thread *t)
{
	begin(t, 250, .4, h->query, (uint64_t[]){h->number * 7, random_number() % 100}, 2);
	for (uint64_t reads = 1 + random_number() % 3; reads; reads--) {
		begin(t, 800, .6, h->io_read, (uint64_t[]){7 + random_number() % 4, 4096}, 2);
		end(t, 9000, 1);
	}
	end(t, 2000, .8);
}

static void queue_depth(struct http *h, struct thread *t)
{
	struct maker_arg depth = MAKE_U64(random_number() % 64);

	ring_maker_event(t->ring, t->lane, DC_KIND_COUNTER, pass(t, 150, .4), h->depth, &depth, 1);
}

static void request(struct http *h, struct thread *t)
{
	uint64_t conn = 10 + random_number() % 50, route = random_number() % 12, bytes = log_normal(400, .7);

	begin(t, 15000, 1.2, h->request, (uint64_t[]){conn, route, bytes, ++h->number}, 4);
	begin(t, 300, .4, h->parse, (uint64_t[]){20 + random_number() % 40}, 1);
	end(t, 1500, .5);
	begin(t, 200, .4, h->lock, (uint64_t[]){random_number() % 8}, 1);
	end(t, 400, 1.5);
	query(h, t);
	queue_depth(h, t);
	begin(t, 300, .4, h->reply, (uint64_t[]){200, log_normal(3000, 1)}, 2);
	end(t, 3000, .5);
	end(t, 200, .5);
}

/* Whoever is furthest behind serves the next request. */
static void requests(struct thread *threads, uint64_t events)
{
	struct http http = {.number = 1000000};

	http_sites(&http, threads->ring);
	while (ring_maker_events(threads->ring) < events) {
		struct thread *next = threads;

		for (unsigned i = 1; i < LANES; i++)
			if (threads[i].now_ns < next->now_ns)
				next = &threads[i];
		request(&http, next);
	}
}

struct ring_maker *mix_ring(enum mix mix, uint64_t events)
{
	struct ring_maker *ring = ring_maker_new(8192, (uint32_t)(events / 1000 + 64), LANES);
	unsigned lanes = mix == MIX_HTTP ? LANES : 1;
	struct thread threads[LANES];

	seed = 88172645463325252u;
	for (unsigned i = 0; i < lanes; i++)
		threads[i] = (struct thread){ring, ring_maker_lane(ring, 100 + i, "worker"), 1e12};
	if (mix == MIX_TIGHT)
		pairs(threads, events, 9, .1);
	else if (mix == MIX_PAIR_1US)
		pairs(threads, events, 1000, 1);
	else
		requests(threads, events);
	for (unsigned i = 0; i < lanes; i++)
		ring_maker_seal(ring, threads[i].lane);
	return ring;
}
