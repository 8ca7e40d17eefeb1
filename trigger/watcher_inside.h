/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the watcher share; nobody else includes it.
 *
 *   watcher.c   open, loop, close           fire.c    from a reason to incidents in the worker
 *   judge.c     how processes ended         serve.c   requests of the control socket, and what became of captures
 *   sampling.c  which of them are sampled   living.c  what they do right now, while somebody asks
 *   ruling.c    what rules see (_look.c)    act.c     what follows from it
 *   raising.c   more often, for a while
 *   home.c      the directory it watches, and how it is found there
 *   metrics.c   the same as text for a collector
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "trigger/control.h"
#include "trigger/roster.h"
#include "trigger/ruling.h"
#include "trigger/watcher.h"
#include "trigger/worker.h"

#define SECOND_NS INT64_C(1000000000)
#define WAITERS_MAX 64u
#define THREADS_NS (SECOND_NS / 4) /* of an incident, for the stacks of all threads of all its processes */
#define EXITS_MAX 1024u
#define REASONS_MAX 16u
#define SEVERITY_ASKED 1u
#define SEVERITY_APP 2u
#define SEVERITY_DEATH 3u

enum source {
	SOURCE_ROSTER = 1,
	SOURCE_DOORBELL,
	SOURCE_CONTROL,
	SOURCE_SIGNAL,
	SOURCE_TIMER,
	SOURCE_WORKER,
	SOURCE_SETTLER,
	SOURCE_SAMPLER,
	SOURCE_METRICS,
	SOURCE_HANDOVER,
};

/* A client of the control socket that wants to hear of a job. */
struct waiter {
	uint64_t client;
	uint64_t job;
	bool used;
};

/* An exit somebody told us of; its ring may be found only afterwards. */
struct exit_seen {
	uint32_t pid;
	int status;
	int64_t at_ns; /* CLOCK_BOOTTIME, as start times of processes */
};

struct dc_watcher {
	struct dc_watcher_config config;
	int dir_fd;
	int lock_fd;
	int epoll_fd;
	int doorbell_fd;
	int signal_fd;
	int timer_fd;
	int connector_fd; /* -1: not allowed */
	struct dc_roster *roster;
	struct dc_worker *worker;
	struct dc_settler *settler;
	struct dc_sampler *sampler;
	struct dc_handover_socket *handover; /* NULL: we may open what we want, or sample nothing */
	bool ready; /* processes without a ring are worth watching even where nothing is sampled: rules are about them */
	uint32_t starting_pid; /* a child whose next exec is its first, and no news; 0: none */
	uint32_t sampling_said; /* bits: what was told of processes that are not sampled, or not by the kernel */
	struct dc_budget *budget; /* of apps' triggers */
	struct dc_budget *deaths;
	struct dc_http *metrics; /* NULL: nobody wanted them */
	struct dc_living *living; /* NULL: nobody asked so far */
	struct dc_ruling *ruling; /* NULL: no rules */
	struct dc_control *control;
	struct waiter waiters[WAITERS_MAX];
	struct exit_seen exits[EXITS_MAX]; /* the last ones; slot = pid % EXITS_MAX */
	bool stop;
	bool homeless; /* the ring directory was removed; said */
	bool look_now; /* a doorbell rang */
	uint64_t captures;
	uint64_t captures_of[REASONS_MAX]; /* of them, by reason */
	uint64_t failed;
	uint64_t unknown_deaths;
	int64_t started_ns; /* CLOCK_REALTIME */
	int64_t watchdog_ns;
	int64_t watchdog_last_ns;
};

/* A reason to save, before it is known which captures it makes. */
struct firing {
	enum dc_reason reason;
	const char *text;
	uint32_t severity;
	uint32_t pid; /* who fired */
	uint32_t tid;
	uint32_t signal;
	bool budgeted; /* not asked for by a person: counts against the budgets */
	uint32_t suppressed; /* before it, where a rule has counted them itself */
	const char *rule; /* NULL: none */
	const struct dc_cause *cause; /* NULL: none */
	struct dc_window window;
};

/* Rings that an incident is to cover. */
struct selection {
	uint32_t count;
	struct dc_ring *rings[DC_ROSTER_MAX];
};

int64_t dc_watcher_now_ns(void); /* CLOCK_MONOTONIC */
__attribute__((format(printf, 2, 3))) void dc_watcher_say(struct dc_watcher *w, const char *format, ...);

int dc_watcher_listen(struct dc_watcher *w, int fd, enum source source);

/* The ring directory, locked; then the sockets in it. Return: 0, -errno; of the former with @why. */
int dc_home_open(struct dc_watcher *w, char why[static DC_WHY_BYTES]);
int dc_home_listen(struct dc_watcher *w);
/* With each look: whether it is still there. Where somebody else watches what is there now, the watcher ends. */
void dc_home_look(struct dc_watcher *w);

/*
 * dc_watcher_fire() - one incident per uid of the selection, folded into one under way where that covers it
 * @each, when given, hears of every job. Return: jobs; 0: suppressed, or nothing selected; -errno when none
 * was possible.
 */
int dc_watcher_fire(struct dc_watcher *w, const struct firing *f, struct selection *s,
		    void (*each)(void *arg, uint64_t job), void *arg);
/* All images of one process. */
void dc_watcher_select_process(const struct dc_watcher *w, const struct dc_entry *of, struct selection *s);
/* ... and of all in its process group, the dead as well: they are told apart by the group they were in. */
void dc_watcher_select_group(const struct dc_watcher *w, struct dc_entry *of, struct selection *s);
/* Its group, while it can be asked for: now and then, and when it ends. */
void dc_watcher_note_group(struct dc_entry *e);
/* All that are recorded, or of these the living ones. */
void dc_watcher_select_all(const struct dc_watcher *w, bool alive_only, struct selection *s);
void dc_watcher_on_trigger(void *arg, struct dc_entry *e, const struct dc_ring_trigger *t);
void dc_watcher_on_overwritten(void *arg, struct dc_entry *e, uint64_t count, const struct dc_ring_trigger *like);

void dc_watcher_on_gone(void *arg, struct dc_entry *e);
/*
 * dc_watcher_save_death() - one incident for a process that died, or is about to, by @signal
 * Return: as dc_watcher_fire(); -EBUSY: to be tried again.
 */
int dc_watcher_save_death(struct dc_watcher *w, struct dc_entry *e, int signal, int64_t after_ns);
/* Return: whether some death is still open. */
bool dc_watcher_judge_all(struct dc_watcher *w);
/*
 * The kernel's word on every process of the host that ended, kept for those whose ring is, or will be, found. Heard with each
 * look and when a death is judged, never by itself: a host may end a thousand processes a second that are nobody's concern.
 */
void dc_watcher_hear_exits(struct dc_watcher *w);

int dc_sampling_open(struct dc_watcher *w);
/* From processes that we may not sample ourselves: listens at home, and says so to those that start (ipc/handover.h) */
int dc_sampling_listen(struct dc_watcher *w);
/* The process of a ring, from now on; when it is dead. */
void dc_sampling_add(struct dc_watcher *w, struct dc_entry *e);
/* With each look: those that sample themselves are asked again; and when we leave: no more. */
void dc_sampling_tick(struct dc_watcher *w);
void dc_sampling_close(struct dc_watcher *w);
/* How a process is sampled, by the kernel or by itself. */
void dc_sampling_mode(struct dc_watcher *w, const struct dc_ring *ring, struct dc_sample_mode *ret_mode);
/* Stacks of its process so often from now on; 0: as of all others. Return: 0, -errno: by nobody. */
int dc_sampling_rate(struct dc_watcher *w, struct dc_entry *e, uint32_t hz);
/* For a while, because rule @rule asks for it; with each look: until that is over; and a new image of the same process. */
void dc_raising_begin(struct dc_watcher *w, struct dc_entry *e, const char *rule, uint32_t hz, int64_t for_ns);
void dc_raising_tick(struct dc_watcher *w);
void dc_raising_inherit(struct dc_watcher *w, struct dc_entry *e);
/* One without a ring calls exec. */
void dc_sampling_execed(struct dc_watcher *w, struct dc_entry *e);
/* A ring was found: the process is no bare one any more. */
void dc_sampling_supersede(struct dc_watcher *w, const struct dc_ring *ring);
void dc_sampling_remove(struct dc_watcher *w, const struct dc_ring *ring);

/* Processes that @peer may hear of and @request is about. */
bool dc_watcher_asked_for(const struct dc_entry *e, const struct ucred *peer, const struct dc_control_request *request);
void dc_watcher_on_request(void *arg, uint64_t client, const struct ucred *peer,
			   const struct dc_control_request *request);
void dc_watcher_take_reports(struct dc_watcher *w);

/*
 * Live statistics (live.h) of all rings, by tails of their own where rules have none: from a request on until
 * DC_CONTROL_LIVE_NS after the last one. A row is of a process (site is empty) or of one of its sites.
 */
void dc_living_serve(struct dc_watcher *w, uint64_t client, const struct ucred *peer, const struct dc_control_request *q);
void dc_living_asked(struct dc_watcher *w, int64_t for_ns); /* without a reply */
void dc_living_look(struct dc_watcher *w, int64_t now_ns);
/* @want: NULL or which processes. Return: how many rows there are; those from @first on go to @each, at most @most. */
uint32_t dc_living_rows(struct dc_watcher *w, bool (*want)(void *arg, const struct dc_entry *e), void *arg, uint32_t first,
			uint32_t most, void (*each)(void *arg, const struct dc_control_live *row), void *each_arg);
/* Of @e, the @hint-th of the roster, for who has a tail of it; NULL: nobody asks. */
struct dc_live *dc_living_of(const struct dc_watcher *w, const struct dc_entry *e, uint32_t hint);
void dc_living_free(struct dc_living *l);

/* Listens at config.metrics, if any. Return: 0, -errno and @ret_why. */
int dc_metrics_open(struct dc_watcher *w, char ret_why[static DC_WHY_BYTES]);
