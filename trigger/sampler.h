/* SPDX-License-Identifier: MIT */
/*
 * Continuous sampling by the kernel into rings that it overwrites and nobody reads until a trigger: perf events with
 * write_backward, mapped PROT_READ. Two rings a CPU: context switches without stacks (cheap, a long window), and stacks at
 * so many Hz of CPU time, and off-CPU at a period that is tuned to about as many a second.
 *
 *   scope    host     one set of events per CPU, of all processes (CAP_PERFMON); filtered when captured
 *            process  one set per CPU and process, inherited by its threads and children, while memlock lasts
 *            none     refused; why is kept and told
 *
 * The price is paid at context switches: 0.6 µs each where the host is sampled, 1.8 µs where a process is, whose events the
 * kernel has to switch as well. So the host is the better choice wherever it is allowed.
 *
 * All events of a CPU write into its few rings, so memory is bounded by CPUs, not by processes. New executable mappings,
 * exec and fork come from a small ring of their own, which is read all the time.
 *
 * What one event reports is the time spent in user code and, where the kernel lets us, in the kernel (perf_event_paranoid
 * below 2, or CAP_PERFMON); where not, neither off-CPU stacks nor time in system calls are seen, and the mode's why says so.
 *
 * Times are CLOCK_MONOTONIC. Used by the watcher's loop; dc_sampler_write() by the capture worker: one lock inside, which
 * is held while rings are walked (some ms), not while anything is written. Callbacks come from _dispatch() and _tick().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "persist/writer.h"

struct dc_handed;
struct dc_sampler;

#define DC_SAMPLER_COPY_FIRST (8u << 10) /* of a stack, where nobody says and nothing is known yet */

enum dc_sample_stacks { /* how stacks are taken */
			DC_STACKS_AUTO = 0,
			DC_STACKS_FRAME_POINTERS = 1,
			DC_STACKS_COPY = 2, /* registers and a copy of the stack */
			DC_STACKS_GUEST = 3, /* not by the kernel: processes that record sample themselves (guest_samples.h) */
};

struct dc_sampler_config {
	uint32_t hz; /* 0: off */
	enum dc_sample_stacks stacks;
	uint32_t copy_bytes; /* of the stack, 0: begins at 8 KiB, tuned to what unwinding used (4 to 60 KiB) */
	uint64_t ring_bytes; /* of stacks, per CPU and scope; 0: 8 MiB, less where memlock says so */
	bool host; /* try the whole host first */
	bool ready; /* where hz is 0, too: tell of fork and exec, and of stacks when dc_sampler_raise() says so */
	void (*log)(void *arg, const char *line);
	void *log_arg;
	/* A sampled process mapped something executable, or became another program. */
	void (*mapped)(void *arg, uint32_t pid);
	/* It became another program: once for each time. */
	void (*execed)(void *arg, uint32_t pid);
	/* A sampled process made another one, which is sampled as well. */
	void (*forked)(void *arg, uint32_t parent, uint32_t pid);
	void *arg; /* of all three */
};

/* Return: 0, also when the kernel refuses everything: dc_sampler_why() says so. -ENOMEM. */
int dc_sampler_new(const struct dc_sampler_config *config, struct dc_sampler **ret_sampler);
void dc_sampler_free(struct dc_sampler *s);

/* Readable when a mapping event waits; -1: nothing to wait for. Then dc_sampler_dispatch(). */
int dc_sampler_fd(const struct dc_sampler *s);
void dc_sampler_dispatch(struct dc_sampler *s);
/* A few times a second: tunes how many switches a stack is taken at. */
void dc_sampler_tick(struct dc_sampler *s);

/*
 * dc_sampler_add() - sample process @pid from now on, with all its threads and those, and processes, to come
 * Return: 0 (also when the host, or its parent with its children, is sampled anyway, and when sampling is off); -EACCES,
 * -EPERM: the kernel refuses; -ENOMEM, -EMFILE; -ESRCH. dc_sampler_mode() has it for people.
 */
int dc_sampler_add(struct dc_sampler *s, uint32_t pid);
/* The process is gone; what was sampled of it stays until @keep_ns have passed (its capture may come yet). */
void dc_sampler_remove(struct dc_sampler *s, uint32_t pid, int64_t keep_ns);

/*
 * dc_sampler_raise() - stacks of @pid, and of those sampled together with it, @hz a second; 0: as often as all others
 * Of several wishes about one set of events the highest counts. What was sampled at which rate stays known.
 * Return: 0; -ESRCH: it is not sampled at all; -errno: the kernel refuses, and all is as it was.
 */
int dc_sampler_raise(struct dc_sampler *s, uint32_t pid, uint32_t hz);
/* Whether its forks and calls of exec are told of. */
bool dc_sampler_follows(struct dc_sampler *s, uint32_t pid);

/*
 * dc_sampler_adopt() - sample a process with events that it opened and hands over, with its threads to come
 * Those of @handed that are taken are -1 afterwards. Return: 0; -EALREADY: we sample it; -EOPNOTSUPP: we would not have it;
 * -EPERM: no memory may be locked for its rings; -ENOSPC: of too many; -ESRCH, -errno: of what it handed over nothing is used.
 */
int dc_sampler_adopt(struct dc_sampler *s, struct dc_handed *handed);
/* How they are wished for; hz 0: not at all. */
struct dc_sampler_offer {
	uint32_t hz;
	uint32_t copy_bytes;
	bool kernel;
	uint32_t cpus; /* the highest and one */
};
struct dc_sampler_offer dc_sampler_offer(const struct dc_sampler *s);

/* How a process is sampled, for status and captures. */
struct dc_sample_mode {
	uint32_t scope; /* DC_SAMPLE_SCOPE_*: 0 none, 1 host, 2 process, 3 by the guest itself, 4 by what it handed over */
	uint32_t hz;
	uint32_t copy_bytes; /* 0: frame pointers */
	bool kernel; /* kernel frames too */
	bool switches;
	bool off_cpu; /* stacks where threads leave the CPU */
	char why[96]; /* of scope 0, or of what is missing */
	uint32_t raised_hz; /* the last time it was sampled more often; 0: it never was */
	int64_t raised_from_ns; /* CLOCK_MONOTONIC */
	int64_t raised_to_ns; /* 0: it still is */
};
void dc_sampler_mode(struct dc_sampler *s, uint32_t pid, struct dc_sample_mode *ret_mode);

struct dc_sampler_totals {
	uint64_t samples;
	uint64_t switches;
	int64_t samples_from_ns; /* CLOCK_MONOTONIC: everything since then is there; 0: none */
	int64_t switches_from_ns;
	uint64_t lost; /* by the kernel, of all processes; these are few: mostly while rings were read */
};

/*
 * dc_sampler_write() - SAMPLES blocks of process @pid (all its threads), oldest first, of [@from_ns, @to_ns]
 * Pauses the rings, walks them newest first, resumes. Return: 0, the writer's error, -ENOMEM.
 */
int dc_sampler_write(struct dc_sampler *s, uint32_t pid, uint32_t process, int64_t from_ns, int64_t to_ns,
		     struct dc_writer *w, struct dc_sampler_totals *ret_totals);

/* What unwinding found it needed of the stacks' copies: the next ones are sized by it. */
void dc_sampler_tune(struct dc_sampler *s, uint32_t stack_used);
