/* SPDX-License-Identifier: MIT */
/* Programs that are sampled (trigger/sampler.h) are forked here; what was sampled is read back from a capture's SAMPLES blocks. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <sys/types.h>
#include <time.h>

#include "ipc/cleanup.h"
#include "ipc/now.h"
#include "trigger/sampler.h"

#define MS INT64_C(1000000)

void sleep_ns(int64_t ns);
int64_t cpu_ns(clockid_t clock);

/* --- what was sampled --- */

struct samples {
	uint8_t *bytes;
	size_t used;
	struct dc_sampler_totals totals;
};

static inline void samples_cleanup(struct samples *s)
{
	free(s->bytes);
}

const struct dc_sample *next_of(const struct samples *all, const struct dc_sample *s);
#define each_sample(s, all) (const struct dc_sample *s = next_of(all, NULL); s; s = next_of(all, s))
unsigned count_of(const struct samples *all, unsigned kind, uint32_t tid); /* 0: of all threads */

struct samples write_samples(struct dc_sampler *s, uint32_t pid, int64_t from_ns, int64_t to_ns);
void samples_check(const struct samples *all, int64_t from_ns, int64_t to_ns); /* what every sample must be, whoever made it */

/* --- who is sampled --- */

/* With the processes that are sampled. */
struct shared {
	_Atomic int32_t tids[8];
	_Atomic int64_t used_ns[8]; /* of CPU time */
	_Atomic int go;
};
extern struct shared *shared;

int sampling_set_up(void **state); /* of the group */

void spin_ns(int64_t ns); /* of CPU time */
void tell_tid(int slot);
void tell_used(int slot);
void wait_go(void);
pid_t sampled_start(void (*body)(void));
void sampled_end(pid_t pid, int signal);
void spinner(void); /* bodies: computes for ever */
void sleeper(void); /* sleeps for ever, 2 ms at a time */

/* A sampler of whatever scope the kernel lets us have, or the test is skipped. */
struct dc_sampler *sampler(const struct dc_sampler_config *config);
bool has_kernel(struct dc_sampler *s, uint32_t pid);
void run_for(struct dc_sampler *s, int64_t ns); /* as the watcher's loop does */
