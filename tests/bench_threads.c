/* SPDX-License-Identifier: MIT */
/*
 * What many threads cost each other: events/s against what the floor itself scales to, how long the slowest
 * events take, what a thousand quiet threads lose, and what one runaway thread takes from the quiet ones.
 *
 *     bench_threads [--json] [--rounds N] [--seconds N]        seconds: of the thousand threads, 30
 *
 * Bars: 2 threads ≥ 0.95 × what the floor scales; 64 threads ≥ 0.95 × 2 threads (on two CPUs); one event
 * p99.9 ≤ 0.1 µs, p99.99 ≤ 0.5 µs on a populated ring; 1,000 threads at 1 event/s: 0 lost; 20 quiet threads
 * beside one runaway keep ≥ 0.9 of the window.
 *
 * Rates are events by wall clock between two marks that all threads run through, so neither their start nor
 * the wait for the last one counts. The same by CPU time is printed beside it: on a machine that others use
 * it is the steadier one.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/bench.h"
#include "tests/bench_ring.h"

#define RING_BYTES ((size_t)64 << 20)
#define ROUNDS_MAX 101
#define THREADS_MAX 64u
#define BATCH 1000
#define RUN_MS 40

static uint8_t *floor_memory;

/* ---- a team: threads that do the same until told to stop ---- */

struct team;

struct member {
	struct team *team;
	unsigned index;
	_Alignas(64) _Atomic uint64_t turns; /* one writer; the marks read it */
};

struct team {
	unsigned count;
	void (*batch)(struct member *m);
	_Atomic unsigned running;
	_Atomic bool stop;
	struct member members[THREADS_MAX];
};

static void pin_to(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *member_main(void *arg)
{
	struct member *m = arg;
	struct team *t = m->team;

	if (t->count <= (unsigned)sysconf(_SC_NPROCESSORS_ONLN))
		pin_to(m->index);
	t->batch(m);
	atomic_fetch_add_explicit(&t->running, 1, memory_order_relaxed); /* a count, publishes nothing */
	while (!atomic_load_explicit(&t->stop, memory_order_relaxed)) {
		t->batch(m);
		/* one writer; relaxed, because the marks want the number only */
		atomic_store_explicit(&m->turns,
				      atomic_load_explicit(&m->turns, memory_order_relaxed) + BATCH,
				      memory_order_relaxed);
	}
	return NULL;
}

struct mark {
	double wall_ns;
	double cpu_ns;
	double turns;
};

static struct mark mark_now(struct team *t)
{
	struct timespec cpu;
	struct mark m = {.wall_ns = bench_now_ns()};

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	m.cpu_ns = (double)cpu.tv_sec * 1e9 + (double)cpu.tv_nsec;
	for (unsigned i = 0; i < t->count; i++)
		m.turns += (double)atomic_load_explicit(&t->members[i].turns,
							memory_order_relaxed); /* a number */
	return m;
}

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

struct rate {
	double wall; /* turns per second */
	double cpu;  /* turns per second of CPU time */
};

static struct rate team_rate(unsigned count, void (*batch)(struct member *m))
{
	static struct team t;
	pthread_t threads[THREADS_MAX];

	t.count = count;
	t.batch = batch;
	atomic_store(&t.running, 0);
	atomic_store(&t.stop, false);
	for (unsigned i = 0; i < count; i++) {
		t.members[i] = (struct member){.team = &t, .index = i};
		pthread_create(&threads[i], NULL, member_main, &t.members[i]);
	}
	while (atomic_load(&t.running) < count)
		sleep_ms(1);
	struct mark a = mark_now(&t);
	sleep_ms(RUN_MS);
	struct mark b = mark_now(&t);
	atomic_store(&t.stop, true);
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	return (struct rate){(b.turns - a.turns) / (b.wall_ns - a.wall_ns) * 1e9,
			     (b.turns - a.turns) / (b.cpu_ns - a.cpu_ns) * 1e9};
}

static void batch_events(struct member *m)
{
	for (int i = 0; i < BATCH / 2; i++) {
		dc_span_t s = DC_BEGIN("bench.pair", "a", i, "b", m->index);
		DC_END(s);
	}
}

/* All threads together walk memory of the ring's size, as they do with events. */
static void batch_floor(struct member *m)
{
	size_t slice = RING_BYTES / (m->team->count > 4 ? 64 : m->team->count);
	size_t at = (size_t)atomic_load_explicit(&m->turns, memory_order_relaxed) * 8 %
		    slice; /* own number */

	bench_floor_ns(floor_memory + m->index * slice + (at & ~(size_t)16383) % slice, 16384, BATCH);
}

static const unsigned counts[] = {1, 2, 4, 64};
#define COUNTS (sizeof counts / sizeof counts[0])

struct rates {
	struct rate events[COUNTS][ROUNDS_MAX];
	struct rate floor[COUNTS][ROUNDS_MAX];
};

static void rates_measure(struct rates *r, int rounds)
{
	for (int round = 0; round < rounds; round++) {
		for (size_t i = 0; i < COUNTS; i++) {
			r->events[i][round] = team_rate(counts[i], batch_events);
			r->floor[i][round] = team_rate(counts[i], batch_floor);
		}
	}
}

/* Median over the rounds of what @n threads do against what @base threads do, per round. */
static double scale(struct rate (*v)[ROUNDS_MAX], int rounds, size_t n, size_t base, bool by_cpu)
{
	double ratio[ROUNDS_MAX];

	for (int i = 0; i < rounds; i++)
		ratio[i] = by_cpu ? v[n][i].cpu / v[base][i].cpu : v[n][i].wall / v[base][i].wall;
	return bench_quantile(ratio, (size_t)rounds, 0.5);
}

static double median_rate(const struct rate *v, int rounds)
{
	double wall[ROUNDS_MAX];

	for (int i = 0; i < rounds; i++)
		wall[i] = v[i].wall;
	return bench_quantile(wall, (size_t)rounds, 0.5);
}

/* ---- how long one event takes: histograms of ticks, quantiles of each round, medians over the rounds ---- */

#define BINS (1u << 16)
#define TURN 262144 /* of one kind, before it is the turn of another, which leaves the caches full of its own */
#define TURNS 4     /* a round */
#define PROBE_ROUNDS 9

static const struct {
	const char *name;
	double q;
} quantiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p99_9", 0.999}, {"p99_99", 0.9999}, {"max", 1}};
#define QUANTILES (sizeof quantiles / sizeof quantiles[0])

/* Counted at once: what is kept for later would push what is measured out of the caches. */
struct latency {
	uint32_t bins[BINS]; /* the last one holds everything longer */
	uint64_t count;
	uint64_t longest;
	double ns[QUANTILES][PROBE_ROUNDS];
};

struct prober {
	struct latency event, noise, floor;
	uint8_t *memory; /* RING_BYTES / 2 for the floor */
	size_t at;
	unsigned cpu;
};

static double ticks_per_ns;

static inline void latency_add(struct latency *l, uint64_t ticks)
{
	l->bins[ticks < BINS ? ticks : BINS - 1]++;
	l->longest = ticks > l->longest ? ticks : l->longest;
	l->count++;
}

static double latency_ns(const struct latency *l, double q)
{
	uint64_t below = 0, want = (uint64_t)((double)l->count * q);

	for (uint32_t i = 0; i + 1 < BINS; i++) {
		below += l->bins[i];
		if (below > want)
			return i / ticks_per_ns;
	}
	return (double)l->longest / ticks_per_ns;
}

static void latency_round(struct latency *l, int round)
{
	for (size_t i = 0; i < QUANTILES; i++)
		l->ns[i][round] = latency_ns(l, quantiles[i].q);
	memset(l->bins, 0, sizeof l->bins);
	l->count = l->longest = 0;
}

static void probe_noise(struct prober *p)
{
	for (int i = 0; i < TURN; i++) {
		uint64_t a = bench_ticks();
		__asm__ volatile("");
		latency_add(&p->noise, bench_ticks() - a);
	}
}

/* A store that goes on through memory: it waits for memory as events do. */
static void probe_floor(struct prober *p)
{
	for (int i = 0; i < TURN; i++) {
		uint64_t a = bench_ticks();
		*(volatile uint64_t *)(p->memory + p->at) = a;
		latency_add(&p->floor, bench_ticks() - a);
		p->at = (p->at + 8) % (RING_BYTES / 2);
	}
}

static void probe_events(struct prober *p)
{
	for (int i = 0; i < TURN; i += 2) {
		uint64_t a = bench_ticks();
		dc_span_t s = DC_BEGIN("bench.probe", "a", i & 1023, "b", i & 15);
		uint64_t b = bench_ticks();
		latency_add(&p->event, b - a);
		a = bench_ticks();
		DC_END(s);
		b = bench_ticks();
		latency_add(&p->event, b - a);
	}
}

static void *prober_main(void *arg)
{
	struct prober *p = arg;

	pin_to(p->cpu);
	for (int round = 0; round < PROBE_ROUNDS; round++) {
		for (int turn = 0; turn < TURNS; turn++) {
			probe_noise(p);
			probe_floor(p);
			probe_events(p);
		}
		latency_round(&p->noise, round);
		latency_round(&p->floor, round);
		latency_round(&p->event, round);
	}
	return NULL;
}

/* The first of @count probers, one per CPU, all at once. */
static struct prober *probe(unsigned count)
{
	static struct prober p[2];
	pthread_t threads[2];

	memset(p, 0, sizeof p);
	for (unsigned i = 0; i < count; i++) {
		p[i].cpu = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) - 1 - i;
		p[i].memory = floor_memory + i * (RING_BYTES / 2);
		pthread_create(&threads[i], NULL, prober_main, &p[i]);
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	return &p[0];
}

static void calibrate(void)
{
	double t = bench_now_ns();
	uint64_t k = bench_ticks();

	sleep_ms(50);
	ticks_per_ns = (double)(bench_ticks() - k) / (bench_now_ns() - t);
}

/* Medians of the rounds, but of the longest the longest. */
static void report_latency(struct bench_report *r, const char *who, struct latency *l, const char *what)
{
	for (size_t i = 0; i < QUANTILES; i++) {
		char key[64];

		snprintf(key, sizeof key, "%s_%s_ns", who, quantiles[i].name);
		bench_figure(r, key, bench_quantile(l->ns[i], PROBE_ROUNDS, quantiles[i].q < 1 ? 0.5 : 1), "ns",
			     what);
	}
}

/* ---- a thousand threads, an event a second each ---- */

struct outcome {
	double recorded;
	double found;
	double dropped;
	double kept; /* the worst lane's part of the window */
	double runaway_per_s;
};

#define CROWD 1000

static int crowd_seconds = 30;

static void *crowd_main(void *arg)
{
	unsigned index = (unsigned)(uintptr_t)arg;
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	next.tv_nsec += index * (1000000000L / CROWD);
	for (int i = 0; i < crowd_seconds; i++) {
		if (next.tv_nsec >= 1000000000)
			next.tv_nsec -= 1000000000, next.tv_sec++;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
		DC_COUNTER("bench.crowd", i);
		next.tv_sec++;
	}
	return NULL;
}

static int count_event(void *arg, const struct dc_event *e)
{
	*(double *)arg += e->kind == DC_KIND_COUNTER;
	return 0;
}

static void finish_ring(struct bench_ring *ring, struct outcome *o)
{
	o->dropped = (double)bench_ring_dropped(ring);
	unlink(ring->stats.ring);
	bench_ring_close(ring);
}

static void crowd(struct outcome *o)
{
	static pthread_t threads[CROWD];
	pthread_attr_t small;
	struct bench_ring ring;

	if (dc_start(NULL)) /* else events of others during the start are counted, not kept: that is not the
			       claim */
		exit(1);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	for (unsigned i = 0; i < CROWD; i++)
		if (pthread_create(&threads[i], &small, crowd_main, (void *)(uintptr_t)i))
			exit(1);
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	o->recorded = (double)CROWD * crowd_seconds;
	bench_ring_open(&ring);
	bench_ring_each(&ring, count_event, &o->found);
	finish_ring(&ring, o);
}

/* ---- one thread runs away beside twenty quiet ones ---- */

#define QUIET 20
#define QUIET_HZ 1000
#define WINDOW_S 3
#define QUIET_EVENTS (QUIET_HZ * WINDOW_S * 5 / 2)

struct quiet {
	uint64_t units[QUIET_EVENTS]; /* when each was recorded, by the recorder's clock */
	double in_window;
	double found;
};

static struct quiet quiet[QUIET];
static uint64_t window_from;
static _Atomic bool runaway_stop;

static void *quiet_main(void *arg)
{
	struct quiet *q = arg;
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	for (int i = 0; i < QUIET_EVENTS; i++) {
		DC_COUNTER("bench.quiet", (q - quiet) * 1000000 + i);
		q->units[i] = bench_ticks() >> 3;
		next.tv_nsec += 1000000000 / QUIET_HZ;
		if (next.tv_nsec >= 1000000000)
			next.tv_nsec -= 1000000000, next.tv_sec++;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	return NULL;
}

static void *runaway_main(void *arg)
{
	uint64_t *count = arg;

	for (; !atomic_load_explicit(&runaway_stop, memory_order_relaxed); *count += BATCH) /* a flag */
		for (int i = 0; i < BATCH; i++)
			DC_INSTANT("bench.runaway", "i", i);
	return NULL;
}

static int find_quiet(void *arg, const struct dc_event *e)
{
	(void)arg;
	if (e->kind != DC_KIND_COUNTER)
		return 0;
	uint64_t who = e->args[0].u / 1000000, which = e->args[0].u % 1000000;
	if (who < QUIET && which < QUIET_EVENTS && quiet[who].units[which] >= window_from)
		quiet[who].found++;
	return 0;
}

static void judge_quiet(struct outcome *o)
{
	o->kept = 1;
	for (int i = 0; i < QUIET; i++) {
		for (int k = 0; k < QUIET_EVENTS; k++)
			quiet[i].in_window += quiet[i].units[k] >= window_from;
		if (quiet[i].found < o->kept * quiet[i].in_window)
			o->kept = quiet[i].found / quiet[i].in_window;
	}
}

static void runaway(struct outcome *o)
{
	struct dc_opts opts = DC_OPTS_INIT;
	pthread_t threads[QUIET], wild;
	struct bench_ring ring;
	uint64_t count = 0;

	opts.window_ns = WINDOW_S * UINT64_C(1000000000);
	if (dc_start(&opts))
		exit(1);
	double began = bench_now_ns();
	pthread_create(&wild, NULL, runaway_main, &count);
	for (int i = 0; i < QUIET; i++)
		pthread_create(&threads[i], NULL, quiet_main, &quiet[i]);
	for (int i = 0; i < QUIET; i++)
		pthread_join(threads[i], NULL);
	window_from = (bench_ticks() - (uint64_t)(WINDOW_S * 1e9 * ticks_per_ns)) >> 3;
	atomic_store(&runaway_stop, true);
	pthread_join(wild, NULL);
	o->runaway_per_s = (double)count / (bench_now_ns() - began) * 1e9;
	bench_ring_open(&ring);
	bench_ring_each(&ring, find_quiet, NULL);
	judge_quiet(o);
	finish_ring(&ring, o);
}

/* In a process of its own: a ring that holds nothing else. */
static struct outcome in_child(void (*body)(struct outcome *o))
{
	struct outcome *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		body(shared);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (status) {
		fprintf(stderr, "bench_threads: a part of it failed\n");
		exit(1);
	}
	return *shared;
}

/* ---- */

static int option(int argc, char **argv, const char *name, int fallback, int most)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0 && atoi(argv[i + 1]) > 0 && atoi(argv[i + 1]) <= most)
			return atoi(argv[i + 1]);
	return fallback;
}

static void report_rates(struct bench_report *r, struct rates *v, int rounds)
{
	for (size_t i = 0; i < COUNTS; i++) {
		char key[64];

		snprintf(key, sizeof key, "events_per_s_%u", counts[i]);
		bench_figure(r, key, median_rate(v->events[i], rounds), "/s",
			     "begin(2 ints) and end, out of line");
		snprintf(key, sizeof key, "floor_per_s_%u", counts[i]);
		bench_figure(r, key, median_rate(v->floor[i], rounds), "/s",
			     "the floor with as many threads");
	}
	for (size_t n = 1; n < COUNTS; n += 2) { /* 2 threads to 1, 64 threads to 2 */
		const size_t base = n == 1 ? 0 : 1;
		const double events = scale(v->events, rounds, n, base, false);
		const double floor = scale(v->floor, rounds, n, base, false);
		const double cpu = scale(v->events, rounds, n, base, true) /
				   scale(v->floor, rounds, n, base, true);
		char key[64], what[96];

		snprintf(key, sizeof key, "scaling_%u", counts[n]);
		snprintf(what, sizeof what, "%u threads to %u, of what the floor scales; bar 0.95", counts[n],
			 counts[base]);
		bench_figure(r, key, events / floor, "x", what);
		snprintf(key, sizeof key, "scaling_%u_cpu", counts[n]);
		bench_figure(r, key, cpu, "x", "the same by CPU time");
		snprintf(key, sizeof key, "scaling_%u_plain", counts[n]);
		bench_figure(r, key, events, "x", "not divided by the floor's");
	}
}

static void report_latencies(struct bench_report *r)
{
	struct prober *p = probe(1);

	report_latency(r, "event", &p->event, "one event, one thread; bars p99.9 100, p99.99 500");
	report_latency(r, "noise", &p->noise, "two clock reads, nothing between");
	report_latency(r, "floor", &p->floor, "the floor: two clock reads, a store between, on through memory");
	p = probe(2);
	report_latency(r, "event2", &p->event, "one event, two threads at once");
	report_latency(r, "noise2", &p->noise, "two clock reads, nothing between, two threads");
	report_latency(r, "floor2", &p->floor, "the floor, two threads");
}

int main(int argc, char **argv)
{
	static struct rates rates;
	struct bench_report r;
	int rounds = option(argc, argv, "--rounds", 25, ROUNDS_MAX);
	crowd_seconds = option(argc, argv, "--seconds", 30, 600);

	/* children first: they must find no recorder in their parent */
	calibrate();
	struct outcome wild = in_child(runaway), many = in_child(crowd);

	floor_memory = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(floor_memory, 1, RING_BYTES);
	struct member first = {.index = 0};
	for (int i = 0; i < 20000; i++)
		batch_events(&first); /* once around the ring: what follows runs on populated chunks */
	rates_measure(&rates, rounds);

	bench_begin(&r, "bench_threads", argc, argv);
	report_rates(&r, &rates, rounds);
	report_latencies(&r);
	bench_figure(&r, "crowd_events", many.recorded, "", "recorded by 1,000 threads at 1 event/s");
	bench_figure(&r, "crowd_lost", many.recorded - many.found, "", "of them not in the ring; bar 0");
	bench_figure(&r, "runaway_per_s", wild.runaway_per_s, "/s",
		     "events of one runaway beside 20 quiet threads");
	bench_figure(&r, "quiet_window", wild.kept, "x", "of the window the worst quiet lane keeps; bar 0.9");
	bench_end(&r);

	struct dc_stats s = {.size = sizeof s};
	if (dc_stats(&s) == 0)
		unlink(s.ring);
	return 0;
}
