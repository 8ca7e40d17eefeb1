/* SPDX-License-Identifier: MIT */
/*
 * What unwinding a sample costs, as a capture of 50,000 of them does it: registers and a copy of the stack in, return
 * addresses out. The samples are of a child that formats and sorts, or of `--pid N`; it is stopped by ptrace at
 * random moments, so that idle threads are not what is measured. Unwound are all samples in turns until there are 50,000:
 *
 *   cold_us     a sample of the first 500 of a process: each place's description is read
 *   warm_us     a sample of 50,000: every place is known
 *   to_root     share of them that was unwound to the outermost frame; `--lost` prints the others
 *
 * And what reading one place's description costs, beside libunwind asked for the same rows (unwind_peer.h), in turns over
 * the functions of that module of the process which has the most.
 */
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "persist/stacks/rules.h"
#include "tests/bench.h"
#include "tests/unwind_peer.h"
#include "tests/unwinding.h"

#define SAMPLES 500u
#define UNWOUND 50000u
#define STACK_BYTES 16384u
#define ROUNDS 5
#define PLACES_MAX 4000u

struct taken {
	uint64_t regs[DC_REGS];
	uint32_t bytes;
	uint8_t stack[STACK_BYTES];
};

static struct taken *samples;
static unsigned sample_count;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_unwind: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static __attribute__((noreturn)) void child(void)
{
	static char lines[1000][64];
	struct timespec t;

	for (unsigned n = 0;; n++) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		for (unsigned i = 0; i < 1000; i++) {
			char *copy = strdup(lines[i]);
			snprintf(lines[i], sizeof lines[i], "%.9g %zu", (double)t.tv_nsec / (i + 1), strlen(copy));
			free(copy);
		}
		qsort(lines, 1000, sizeof lines[0], by_text);
	}
}

#if defined(__x86_64__)
static void regs_take(const struct user_regs_struct *r, uint64_t *ret_regs)
{
	const uint64_t in_order[DC_REGS] = {r->rax, r->rdx, r->rcx, r->rbx, r->rsi, r->rdi, r->rbp, r->rsp, r->r8,
					    r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15, r->rip};

	memcpy(ret_regs, in_order, sizeof in_order);
}
#else
static void regs_take(const struct user_regs_struct *r, uint64_t *ret_regs)
{
	memcpy(ret_regs, r, DC_REGS * sizeof *ret_regs);
}
#endif

static void sample_take(pid_t pid)
{
	struct taken *s = &samples[sample_count];
	struct user_regs_struct regs;
	struct iovec whole = {&regs, sizeof regs};
	int status;

	must(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0 && waitpid(pid, &status, __WALL) == pid, "stop it");
	must(ptrace(PTRACE_GETREGSET, pid, (void *)(uintptr_t)NT_PRSTATUS, &whole) == 0, "its registers");
	regs_take(&regs, s->regs);
	/* Page by page: what lies above a stack is not mapped. */
	for (s->bytes = 0; s->bytes < STACK_BYTES;) {
		uint64_t from = s->regs[DC_REG_SP] + s->bytes;
		struct iovec to = {s->stack + s->bytes, 4096 - from % 4096};
		if (to.iov_len > STACK_BYTES - s->bytes)
			to.iov_len = STACK_BYTES - s->bytes;
		struct iovec there = {(void *)(uintptr_t)from, to.iov_len};
		if (process_vm_readv(pid, &to, 1, &there, 1, 0) != (ssize_t)to.iov_len)
			break;
		s->bytes += (uint32_t)to.iov_len;
	}
	sample_count++;
	must(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0, "let it go");
}

static void samples_take(pid_t pid)
{
	unsigned seed = 1;

	must(ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0, "attach");
	while (sample_count < SAMPLES) {
		usleep(200 + (unsigned)rand_r(&seed) % 2000);
		sample_take(pid);
	}
}

struct result {
	uint64_t frames;
	uint64_t to_root;
	uint32_t used;
};

static double all_us(struct dc_unwinder *u, unsigned n, struct result *ret_result)
{
	static struct dc_unwound w;
	double start = cpu_ns();

	*ret_result = (struct result){0};
	for (unsigned i = 0; i < n; i++) {
		const struct taken *s = &samples[i % sample_count];
		must(dc_unwind(u, s->regs, DC_REGS, s->stack, s->bytes, &w) == 0, "unwind");
		ret_result->frames += w.count;
		ret_result->to_root += w.to_root;
		if (ret_result->used < w.stack_used)
			ret_result->used = w.stack_used;
	}
	return (cpu_ns() - start) / 1000 / n;
}

static void print_lost(const struct scene *scene)
{
	static struct dc_unwound w;

	for (unsigned i = 0; i < sample_count; i++) {
		const struct taken *s = &samples[i];
		dc_unwind(scene->unwinder, s->regs, DC_REGS, s->stack, s->bytes, &w);
		if (w.to_root)
			continue;
		fprintf(stderr, "sample %u, sp %#lx, %u bytes:\n", i, s->regs[DC_REG_SP], s->bytes);
		for (unsigned k = 0; k < w.count; k++)
			fprintf(stderr, "  %#lx %s\n", w.addresses[k], scene_name(scene, w.addresses[k]));
	}
}

/* --- places, beside libunwind --- */

/* In the middle of as many functions of the module that has the most. */
static const struct dc_module *places_find(const struct scene *scene, uint64_t *ret_places, uint32_t *ret_count)
{
	const struct dc_module *found = NULL;
	uint32_t most = 0;

	for (uint32_t i = 0; i < scene->count; i++) {
		CLEANUP(free) uint64_t *begins = NULL;
		uint32_t count = scene->modules[i] ? functions_of(scene->modules[i], &begins) : 0;
		if (count <= most)
			continue;
		found = scene->modules[i];
		most = count;
		*ret_count = count - 1 < PLACES_MAX ? count - 1 : PLACES_MAX;
		for (uint32_t k = 0; k < *ret_count; k++) {
			uint64_t at = (uint64_t)k * (count - 1) / *ret_count;
			ret_places[k] = begins[at] + (begins[at + 1] - begins[at]) / 2;
		}
	}
	return found;
}

/* @peer: NULL: by ours. */
static double places_us(struct peer *peer, const struct dc_place *place, const uint64_t *places, uint32_t count)
{
	double start = cpu_ns();
	struct dc_row row;

	for (uint32_t i = 0; i < count; i++) {
		if (peer)
			peer_row(peer, place, places[i], &row);
		else
			dc_rules_row(place, places[i], &row);
		__asm__ volatile("" : : "r"(&row) : "memory");
	}
	return (cpu_ns() - start) / 1000 / count;
}

static void places_report(struct bench_report *report, const struct scene *scene)
{
	static uint64_t places[PLACES_MAX];
	CLEANUP(peer) struct peer *peer = NULL;
	struct dc_fde_index index;
	struct dc_place place = {.end = UINT64_MAX, .index = &index};
	double ours[ROUNDS], theirs[ROUNDS], ratios[ROUNDS];
	uint32_t count = 0;

	place.module = places_find(scene, places, &count);
	must(count > 0, "a module with a search table");
	dc_fde_index_init(&index, place.module);
	int r = peer_new(&peer);
	must(r == 0 || r == -ENOSYS, "libunwind");
	places_us(NULL, &place, places, count); /* brings the file into memory */
	for (int i = 0; i < ROUNDS; i++) {
		ours[i] = places_us(NULL, &place, places, count);
		theirs[i] = peer ? places_us(peer, &place, places, count) : 0;
		ratios[i] = theirs[i] / ours[i];
	}
	dc_fde_index_fini(&index);
	bench_figure(report, "place_us", bench_quantile(ours, ROUNDS, 0.5), "us", "a place's description");
	if (peer) {
		bench_figure(report, "peer_place_us", bench_quantile(theirs, ROUNDS, 0.5), "us",
			     "the same by libunwind, asked twice");
		bench_figure(report, "place_ratio", bench_quantile(ratios, ROUNDS, 0.5), "x", "as long by libunwind");
	} else {
		bench_text(report, "peer", "skipped: built without libunwind (package libunwind-dev)");
	}
}

int main(int argc, char **argv)
{
	struct bench_report report;
	double cold[ROUNDS], warm[ROUNDS];
	static struct scene scene;
	struct result result;
	pid_t pid = 0, ours = 0;
	bool lost = false;

	bench_begin(&report, "bench_unwind", argc, argv);
	for (int i = 1; i < argc; i++) {
		lost |= strcmp(argv[i], "--lost") == 0;
		if (strcmp(argv[i], "--pid") == 0 && i + 1 < argc)
			pid = atoi(argv[i + 1]);
	}
	must((samples = malloc(SAMPLES * sizeof *samples)) != NULL, "memory");
	if (!pid && (pid = ours = fork()) == 0)
		child();
	must(pid > 0, "fork");
	usleep(50000);
	samples_take(pid);
	for (int i = 0; i < ROUNDS; i++) {
		scene_open(&scene, pid);
		cold[i] = all_us(scene.unwinder, SAMPLES, &result);
		warm[i] = all_us(scene.unwinder, UNWOUND, &result);
		if (i + 1 < ROUNDS)
			scene_close(&scene);
	}
	if (lost)
		print_lost(&scene);
	if (ours)
		kill(ours, SIGKILL);
	bench_figure(&report, "cold_us", bench_quantile(cold, ROUNDS, 0.5), "us",
		     "a sample, the first 500 of a process");
	bench_figure(&report, "warm_us", bench_quantile(warm, ROUNDS, 0.5), "us", "a sample, 50,000 of them");
	bench_figure(&report, "frames", (double)result.frames / UNWOUND, "", "of a sample");
	bench_figure(&report, "to_root", (double)result.to_root / UNWOUND, "",
		     "share that reached the outermost frame");
	bench_figure(&report, "stack_used", result.used, "bytes", "the most that one of them needed");
	places_report(&report, &scene);
	scene_close(&scene);
	bench_end(&report);
	return 0;
}
