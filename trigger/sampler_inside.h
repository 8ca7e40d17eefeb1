/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the sampler share; nobody else includes it. All of it under the sampler's lock.
 *
 *   sampler.c         rings, processes, what the watcher sees      sampler_events.c  which events are open, of which threads
 *   sampler_write.c   from rings to a capture                 sampler_raise.c   more often, for a while
 *   sampler_rings.c   rings, of all or of one                 sampler_handed.c  events that a process hands over
 *
 *   process ──► group: the events of one process that was added ──► ids: what a sample's event stood for, also when it is closed
 *      └── a process it made is in the same group: its events are inherited
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "trigger/frame_pointers.h"
#include "trigger/perf_event.h"
#include "trigger/perf_ring.h"
#include "trigger/sampler.h"

#define SECOND_NS INT64_C(1000000000)
#define PROCESSES_MAX 8192u
#define FORKS_MAX 1024u
#define NOTES_MAX 256u
#define EARLY_MAX 32u
#define OFF_SHIFT_FIRST 6u /* until it is known how often they switch */
#define OFF_SHIFT_MAX 20u

enum ring_of {
	RING_STACKS = 0,
	RING_SWITCHES = 1,
	RING_CHANGES = 2,
	RINGS = 3,
};

struct cpu {
	uint32_t cpu;
	int anchor[RINGS];
	struct dc_perf_ring ring[RINGS];
	uint64_t counted; /* bytes of the ring of switches that tuning has looked at */
};

struct cpus {
	struct cpu *at;
	uint32_t count; /* 0: no rings */
};

/* What a sample of this event is. Ids rise, and so does the array. */
struct event_id {
	uint64_t id;
	int64_t gone_ns; /* 0: open */
	uint8_t kind;
	uint8_t shift; /* DC_PERF_OFF: a stack every 2^shift switches */
	bool copied;
	bool boost; /* besides the host's own of the same kind, which then does not count */
	uint32_t hz; /* DC_PERF_CPU */
};

struct event {
	int fd;
	uint8_t kind;
	uint8_t shift; /* of event_id */
	uint64_t id;
};

struct group {
	uint32_t root; /* 0: the host */
	uint32_t hz;
	bool boost; /* of a process whose other events are the host's */
	uint32_t kinds; /* bits of enum dc_perf_kind */
	uint32_t copy_bytes;
	uint32_t shift;
	struct event *events;
	uint32_t event_count;
	uint32_t event_capacity;
	double switches; /* since the last look */
	double here; /* of these, counted on one CPU */
	uint32_t needed; /* the largest shift since window_ns */
	int64_t window_ns;
	bool settled; /* its first window is over */
	bool decide; /* it became another program */
	bool handed; /* opened by the process itself: nothing can be opened anew */
};

/* When it was sampled more often than others. */
#define RAISED_MAX 8u
struct raised {
	uint32_t hz;
	int64_t from_ns;
	int64_t to_ns; /* 0: still */
};

struct process {
	uint32_t pid;
	struct group *group; /* NULL: not sampled (any more) */
	struct group *boost; /* where that is the host's, and it is sampled more often; else NULL */
	uint32_t wish_hz; /* 0: as others */
	uint32_t raised_count; /* running; slot = count % RAISED_MAX */
	struct raised raised[RAISED_MAX];
	bool added; /* asked for, not only inherited */
	bool ended; /* said to have */
	int64_t from_ns;
	int64_t forget_ns; /* 0: alive */
	uint32_t copy_bytes; /* how it was sampled, when its group is gone */
	bool off_cpu; /* likewise */
	struct cpus own; /* it handed its events over: nobody else's write here, and no other's are believed */
	char why[96];
};

/* A thread that was made while we were opening events. */
struct fork_seen {
	uint32_t tid;
	uint32_t by;
	int64_t at_ns;
};

enum note_kind {
	NOTE_MAPPED = 1,
	NOTE_FORKED = 2,
	NOTE_EXECED = 3,
};

struct note {
	enum note_kind kind;
	uint32_t pid;
	uint32_t parent;
};

struct dc_sampler {
	pthread_mutex_t lock;
	struct dc_sampler_config config;
	bool on; /* the kernel lets us */
	bool kernel;
	uint32_t copy_bytes; /* of new groups in copy mode */
	char why[96];
	int epoll_fd;
	bool muted; /* too many changes: the next tick looks */
	uint32_t dispatched;
	struct cpus cpus;
	struct group *host; /* NULL: process scope */
	struct group **groups;
	uint32_t group_count;
	struct process **processes;
	uint32_t process_count;
	struct event_id *ids;
	uint32_t id_count;
	uint32_t id_capacity;
	struct fork_seen forks[FORKS_MAX];
	uint32_t fork_count; /* running */
	struct note notes[NOTES_MAX];
	uint32_t note_count;
	uint32_t early[EARLY_MAX]; /* pids that called exec before their fork was read: it waits in another CPU's ring */
	uint32_t early_count; /* running */
	bool lost_changes; /* all processes are to be looked at again */
	int64_t cleaned_ns;
	int64_t tuned_ns;
	struct dc_frame_cache frames;
};

static inline bool dc_process_alive(const struct process *p)
{
	return !p->ended && p->forget_ns == 0;
}

/* What is open all the time: without a rate only what tells of changes. */
static inline uint32_t dc_sampler_kinds(const struct dc_sampler *s, uint32_t kinds)
{
	return s->config.hz ? kinds : kinds & 1u << DC_PERF_CHANGES;
}

/* NULL: it never was. */
const struct raised *dc_process_raised(const struct process *p);
bool dc_process_raised_at(const struct process *p, int64_t time_ns);
/* A child begins as its parent is. */
void dc_process_inherit(struct process *child, const struct process *parent, int64_t now_ns);

/*
 * dc_cpus_open() - rings of each CPU, the first @rings of enum ring_of
 * @wanted: bytes of that of stacks; the others follow. Return: 0; -EPERM: beyond what may be locked; -ENOMEM, -errno.
 */
int dc_cpus_open(const struct dc_sampler *s, unsigned rings, uint64_t wanted, struct cpus *ret_cpus);
void dc_cpus_close(struct cpus *c);

int64_t dc_sampler_now_ns(void); /* CLOCK_MONOTONIC */
struct process *dc_sampler_find(const struct dc_sampler *s, uint32_t pid);
struct process *dc_process_new(struct dc_sampler *s, uint32_t pid, int64_t from_ns); /* NULL: no memory, or too many */
/* Take what waits in the rings of changes. */
void dc_sampler_drain(struct dc_sampler *s);
/* One line for people about an errno of perf_event_open(). */
void dc_sampler_explain(int error, char *ret_why, size_t size);

/* A group of @root, nothing open. NULL: no memory. */
struct group *dc_group_new(struct dc_sampler *s, uint32_t root);
/* Its events are closed. */
void dc_group_free(struct dc_sampler *s, struct group *g);
/*
 * dc_group_open() - open the events of these kinds for all threads of all its processes, instead of those that are open
 * Return: 0, -ESRCH: no thread is left; -errno: none of these kinds is open.
 */
int dc_group_open(struct dc_sampler *s, struct group *g, uint32_t kinds);
void dc_group_close(struct dc_sampler *s, struct group *g, uint32_t kinds);
/* One more that is open; its descriptor is the group's from then on. Return: 0, -ENOMEM. */
int dc_group_keep(struct dc_sampler *s, struct group *g, const struct event *e);
/* Of events handed over: how seldom, at least, off-CPU stacks can be taken; and to take them as its shift says. */
uint32_t dc_group_fit(uint32_t shift);
void dc_group_step(struct group *g);
/* Frame pointers or a copy, and how much. */
void dc_group_decide(struct dc_sampler *s, struct group *g);
/* How many switches a stack is taken at, from how many there were; and what else changed. */
void dc_group_tune_all(struct dc_sampler *s, int64_t now);
const struct event_id *dc_sampler_event(const struct dc_sampler *s, uint64_t id);
