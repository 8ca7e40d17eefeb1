/* SPDX-License-Identifier: MIT */
/*
 * The watcher: one loop per ring directory that notices reasons to save and hands incidents to its worker.
 *
 *     roster    rings come (inotify), are looked at (timer, 4 Hz; doorbell), die (lock, pidfd)
 *     control   `dashcam trigger`, `dashcam status`
 *     signals   SIGUSR1: everything now; SIGTERM, SIGINT: finish and end
 *     worker    copies and writes (a thread); settler: makes captures small (a thread at SCHED_IDLE)
 *
 * `dashcam watch` is dc_watcher_open(), _loop(), _close(); `dashcam run` (run.h) the same around one command. A
 * watcher keeps nothing that its rings and captures do not hold: killed and started again it goes on where it was.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/signalfd.h>

#include "trigger/budget.h"
#include "trigger/rules/rule.h"
#include "trigger/sampler.h"
#include "trigger/save.h"

/* Filled by the command line from flags and configuration, from dc_watcher_defaults(). Strings are borrowed. */
struct dc_watcher_config {
	const char *dir; /* ring directory */
	struct dc_save_output output;
	int64_t last_ns;                /* how far back a capture goes when nobody says; 0: all there is */
	int64_t after_ns;               /* how long it goes on after a trigger of the app */
	int64_t window_ns;              /* asked of every guest; 0: its own */
	int64_t grace_ns;               /* how long the ring of an unknown death is kept */
	struct dc_budget_limits budget; /* cooldown: triggers of apps; per hour: these and deaths */
	uint64_t disk_bytes;            /* captures may take so much; 0: no bound */
	bool on_death;                  /* save when a process dies by a signal */
	bool sweep; /* remove ring files of processes that are gone when their grace is over */
	bool threads; /* stop the threads of a process at a trigger for as long as their stacks take to copy */
	bool settle;
	const char *metrics; /* where to serve them (trigger/http.h); NULL: nowhere */
	uint32_t sample_hz; /* 0: off (trigger/sampler.h) */
	enum dc_sample_stacks sample_stacks;
	uint64_t sample_bytes; /* of stacks, per CPU; 0: what the sampler thinks right */
	bool sample_bare; /* also processes that a sampled one makes and that have no ring */
	bool stop_alone;  /* end when no process is left alive */
	bool sample_host; /* the whole host, where that is allowed: a third of the price to what is sampled */
	int zstd_level;
	/*
	 * What to notice besides (trigger/rules/rule.h); NULL: nothing. On SIGHUP the watcher asks @reload for them anew, and
	 * then owns what it got; on error, which @reload has said, the old ones stay. NULL: nothing to read again.
	 */
	const struct dc_rules *rules;
	int (*reload)(void *arg, struct dc_rules *ret_rules);
	void *reload_arg;
	/* What a command that a rule runs gets on its standard input; NULL: nothing. */
	void (*describe)(const struct dc_incident *incident, const char *process, FILE *out);
	/* One line, lower case, no newline. */
	void (*log)(void *arg, const char *line);
	void *log_arg;
	/*
	 * Signals besides the watcher's own, blocked by the caller before any thread starts; dashcam run's.
	 * Return: true when the watcher need not look at it.
	 */
	const sigset_t *signals;
	bool (*on_signal)(void *arg, const struct signalfd_siginfo *info);
	void *on_signal_arg;
	/* Called for every ring found and every capture saved; may be NULL. */
	void (*on_found)(void *arg, const struct dc_ring *ring);
	void (*on_saved)(void *arg, const char *path);
	void *on_arg;
};

void dc_watcher_defaults(struct dc_watcher_config *config);

struct dc_watcher;

/*
 * dc_watcher_open() - take over a ring directory
 * Blocks the signals it handles in the calling thread. Return: 0; -EBUSY: another watcher is there (@ret_why
 * names its pid); -errno of the directory.
 */
int dc_watcher_open(const struct dc_watcher_config *config, struct dc_watcher **ret_watcher,
		    char ret_why[static DC_WHY_BYTES]);

/* Until SIGTERM or SIGINT, or dc_watcher_stop(). Return: 0, -errno. */
int dc_watcher_loop(struct dc_watcher *w);
void dc_watcher_stop(struct dc_watcher *w);

/*
 * dc_watcher_close() - judge what has died, save what is under way, let go of everything
 * @drain: also wait for captures to be settled; else the next watcher does it.
 * Return: how many incidents could not be saved, deaths of unknown kind included.
 */
unsigned dc_watcher_close(struct dc_watcher *w, bool drain);

/* dc_watcher_exited() - the caller knows how a process ended: its child, and this is its wait status. */
void dc_watcher_exited(struct dc_watcher *w, uint32_t pid, int status);

/*
 * dc_watcher_save_all() - one incident of all rings known (@alive_only: of living processes), one per uid
 * Return: how many captures are under way for it, 0: there was nothing to save.
 */
int dc_watcher_save_all(struct dc_watcher *w, enum dc_reason reason, const char *text, bool alive_only);

/*
 * dc_watcher_sample() - watch and sample process @pid though it has no ring; nothing is done where it has one
 * Where sampling is off and no rule is about what is seen from outside it is not watched: there would be no reason.
 * Return: 0; -ESRCH; -EPERM: of another user; -ENOSPC, -ENOMEM. That the kernel refuses to sample it is no error:
 * dc_watcher_sampled() says so.
 */
int dc_watcher_sample(struct dc_watcher *w, uint32_t pid);
/* Only the kernel's part of it: for a child that has yet to call exec, whose name and code are not those that matter. */
void dc_watcher_sample_early(struct dc_watcher *w, uint32_t pid);
void dc_watcher_sampled(struct dc_watcher *w, uint32_t pid, struct dc_sample_mode *ret_mode);

uint32_t dc_watcher_rings(const struct dc_watcher *w);
/* Captures saved so far, those of running saves not counted. */
uint64_t dc_watcher_captures(const struct dc_watcher *w);
