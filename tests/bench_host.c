/* SPDX-License-Identifier: MIT */
/*
 * How much others disturb this machine: without hardware counters, where a virtual machine sees neither them nor its
 * hyperthreads. Two small loops on each CPU in turns, most of the time asleep, so that a look hardly is a load itself:
 *
 *   chain   adds that wait for each other: as long as no cycle is taken from us, a cycle each
 *   wide    as many that do not: as fast as the core is wide. A busy hyperthread beside takes half of that
 *
 * A slice of them is disturbed where its chain took a third longer than the best (something else ran), or where four adds
 * side by side took more than half of four in a row: a core of four alone needs 0.38 with the loop's own, wider ones less.
 *
 *   bench_host [--wait SECONDS] [--json]     a look; with --wait until one finds it quiet, at most so long
 */
#include "tests/bench.h"

#define SLICES 50u /* of a CPU and look */
#define TURNS 100000u /* some 0.1 ms */
#define PAUSE_NS 10000000
#define CPUS_MAX 256
#define CHAIN_MAX 1.33
#define WIDE_MAX 0.5
#define DISTURBED_MAX 0.25 /* of the slices, of a quiet machine: medians over rounds hold */

#if defined(__x86_64__)
#define ADD(x) "add $1, %" #x "\n\t"
#else
#define ADD(x) "add %" #x ", %" #x ", #1\n\t"
#endif

struct slice {
	double chain_ns, wide_ns;
};

static struct slice slices[SLICES * CPUS_MAX];

static double chain_ns(void)
{
	double began = bench_now_ns();
	uint64_t a = 0;
	for (uint32_t i = 0; i < TURNS; i++)
		__asm__ volatile(ADD(0) ADD(0) ADD(0) ADD(0) : "+r"(a));
	return bench_now_ns() - began;
}

static double wide_ns(void)
{
	double began = bench_now_ns();
	uint64_t a = 0, b = 0, c = 0, d = 0;
	for (uint32_t i = 0; i < TURNS; i++)
		__asm__ volatile(ADD(0) ADD(1) ADD(2) ADD(3) : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
	return bench_now_ns() - began;
}

/* Return: the part of the slices that was disturbed. */
static double look(const cpu_set_t *cpus)
{
	double best = 1e18;
	uint32_t n = 0, disturbed = 0;
	for (uint32_t round = 0; round < SLICES; round++) {
		for (uint32_t cpu = 0; cpu < CPUS_MAX; cpu++) {
			if (!CPU_ISSET(cpu, cpus))
				continue;
			bench_pin((int)cpu);
			chain_ns(); /* a CPU that wakes up is slow */
			slices[n] = (struct slice){ chain_ns(), wide_ns() };
			best = slices[n].chain_ns < best ? slices[n].chain_ns : best;
			n++;
		}
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	}
	for (uint32_t i = 0; i < n; i++)
		disturbed += slices[i].chain_ns > CHAIN_MAX * best || slices[i].wide_ns > WIDE_MAX * slices[i].chain_ns;
	return (double)disturbed / n;
}

int main(int argc, char **argv)
{
	struct bench_report r;
	cpu_set_t cpus;
	double wait_s = 0, began = bench_now_ns(), disturbed;

	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], "--wait") == 0)
			wait_s = atof(argv[i + 1]);
	sched_getaffinity(0, sizeof cpus, &cpus);
	bench_begin(&r, "bench_host", argc, argv);
	while ((disturbed = look(&cpus)) > DISTURBED_MAX && bench_now_ns() - began < wait_s * 1e9)
		;
	bench_figure(&r, "disturbed", disturbed, "x", "of the slices");
	bench_figure(&r, "quiet", disturbed <= DISTURBED_MAX, "", "1: a quarter of them at most");
	bench_figure(&r, "waited_s", (bench_now_ns() - began) / 1e9, "s", "until that look was over");
	bench_end(&r);
	return 0;
}
