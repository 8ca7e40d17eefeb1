/* SPDX-License-Identifier: MIT */
/*
 * The rings a watcher knows: found by reading the directory once and by inotify from then on, looked at four
 * times a second, kept open until their evidence is of no more use.
 *
 *     found ──► alive ──(lock gone)──► gone ──(how is known, or nobody knows)──► judged ──(grace over)──► removed
 *
 * A look at a living ring is a glance at its counters; only what that shows to have changed is looked at
 * closer. Bounded: so many rings in all and of one user; what is beyond is not opened and is said once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "trigger/passed.h"
#include "trigger/ring.h"

#define DC_ROSTER_MAX 4096u
#define DC_ROSTER_PER_UID_MAX 1024u /* of users; root may use all */

/* A rule's wish for more stacks (trigger/raising.c). */
#define DC_RAISES_MAX 4u
struct dc_raise {
	uint32_t hz; /* 0: none */
	int64_t until_ns; /* CLOCK_MONOTONIC */
};

struct dc_entry {
	struct dc_ring *ring;
	uint64_t trigger_seq; /* handled up to here */
	uint64_t stuck_seq;   /* a slot seen half written at the look before */
	struct dc_passed passed; /* those of DC_TRIGGER() */
	struct dc_ring_trigger like; /* the last of those told of one by one */
	bool unacked;         /* not all of these were acknowledged: it does not ring for the next one */
	bool storm;           /* nothing followed from the last one, so that need not be done at once */
	int64_t acked_ns;
	uint32_t modules;     /* its guest knew at the look before */
	bool descendant;      /* bare, and only watched because a process that is watched made it */
	bool superseded;      /* bare, and the process has a ring now */
	bool goodbye;         /* orderly exit */
	bool gone;            /* the image that recorded is no more */
	bool replaced;        /* ... but its process lives on: exec */
	bool judged;          /* how it ended has been dealt with */
	int crashed;          /* fatal signal for which an incident was made already, 0: none */
	bool exit_known;
	int exit_status;
	int64_t ask_samples_ns; /* when it is; 0: not at all */
	bool asked_samples; /* to sample itself (trigger/guest_samples.h) */
	bool noticed;       /* ... and all its sites say so */
	uint32_t sample_ticks; /* looks since */
	struct dc_raise raises[DC_RAISES_MAX];
	uint32_t raised_hz; /* the highest of them, as it was told; 0: as all others */
	int64_t raised_ns; /* since then */
	int pidfd;       /* -1: none */
	uint32_t asked;  /* looks since it was gone and how was not known */
	int64_t gone_ns; /* CLOCK_MONOTONIC */
	int64_t known_due_ns; /* when /proc is asked about the process again (trigger/known.h) */
	int64_t known_step_ns;
	uint32_t group; /* its process group, as last seen; 0: not known */
	struct ruled *ruled; /* what rules see of it (trigger/ruling.h); NULL: nothing */
};

struct dc_roster;

/* What happens; all are called from dc_roster_scan(), _event(), _tick(). */
struct dc_roster_handler {
	void (*found)(void *arg, struct dc_entry *e);
	void (*trigger)(void *arg, struct dc_entry *e, const struct dc_ring_trigger *t);
	/*
	 * So many more of DC_TRIGGER() whose slots others were written over, more than DC_TRIGGER_SLOTS in a look. What they said
	 * is not known; @like is the last one that is, NULL: none is.
	 */
	void (*overwritten)(void *arg, struct dc_entry *e, uint64_t count, const struct dc_ring_trigger *like);
	void (*gone)(void *arg, struct dc_entry *e); /* lock released, goodbye or not; process may live on */
	void (*forgotten)(void *arg, struct dc_entry *e); /* the entry goes; also from dc_roster_free() */
	void (*log)(void *arg, const char *line);
};

int dc_roster_new(int dir_fd, const char *dir, const struct dc_roster_handler *handler, void *arg,
		  struct dc_roster **ret_roster);
void dc_roster_free(struct dc_roster *r);

/* Readable when files came; then dc_roster_event(). */
int dc_roster_fd(const struct dc_roster *r);
void dc_roster_event(struct dc_roster *r);

/* dc_roster_scan() - look at the whole directory: at the start, and when inotify lost events. */
void dc_roster_scan(struct dc_roster *r);
/* dc_roster_move() - the directory is another one of the same name; those known stay. Return: 0, -errno. */
int dc_roster_move(struct dc_roster *r, const char *dir);

/*
 * dc_roster_retry() - look again at files that were not complete; to be called every DC_ROSTER_UNREADY_MS
 * while dc_roster_unready() says so
 */
#define DC_ROSTER_UNREADY_MS 20
void dc_roster_retry(struct dc_roster *r);
bool dc_roster_unready(const struct dc_roster *r);

/* dc_roster_tick() - one look at every living ring. @now_ns: CLOCK_MONOTONIC. */
void dc_roster_tick(struct dc_roster *r, int64_t now_ns);

/* dc_roster_look() - one entry, now: its doorbell rang, or its pidfd says it ended. */
void dc_roster_look(struct dc_roster *r, struct dc_entry *e, int64_t now_ns);

/*
 * dc_roster_expire() - let go of rings that are of no more use, and with @sweep remove their files
 * @grace_ns: for how long one is kept whose end nobody explained; @known_ns: one that said goodbye, or whose
 * end is known (and saved, where it was worth it). One whose file somebody removed to make room is let go
 * after 10 s: it is our descriptor that would keep the memory.
 */
void dc_roster_expire(struct dc_roster *r, int64_t now_ns, int64_t grace_ns, int64_t known_ns, bool sweep);

/*
 * dc_roster_add_bare() - a process without a ring (dc_ring_bare()), unless it is known already
 * Return: 0; 1: it is known; -ENOSPC: as many as are watched of one user; -errno of dc_ring_bare().
 */
int dc_roster_add_bare(struct dc_roster *r, uint32_t pid, bool descendant);

uint32_t dc_roster_count(const struct dc_roster *r);
struct dc_entry *dc_roster_at(const struct dc_roster *r, uint32_t index);
/* Whether the two are images of one process. */
bool dc_entry_same(const struct dc_entry *a, const struct dc_entry *b);
