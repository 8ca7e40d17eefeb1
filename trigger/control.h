/* SPDX-License-Identifier: MIT */
/*
 * Talking to a watcher: <ring directory>/watch.sock, one datagram a request, one or more back (SOCK_SEQPACKET).
 *
 * The structs below are the protocol: fixed widths, native byte order (both ends are on one host), versioned;
 * a watcher refuses a version it does not know with a reply that says so. Who asks is what the kernel says of
 * the peer (SO_PEERCRED), never what the request says: a user triggers own processes only, root all.
 *
 *   TRIGGER   replies: one per capture (an incident over several users is several), `more` counts down to 0.
 *             With DC_CONTROL_WAIT a reply comes when its capture is durable, else when it is under way.
 *   STATUS    one reply.
 *   SAMPLING  one reply per process of the peer that has no ring or is not sampled as it should be, at most
 *             DC_CONTROL_SAMPLING_MAX; pid 0: there is none.
 *   FOLLOWED  one reply per process of the peer that rules follow and of which the watcher left out or lost something, at most
 *             DC_CONTROL_SAMPLING_MAX; pid 0: there is none.
 *   LIVE      one reply per row of live statistics (trigger/live.h), from row @first on and at most DC_CONTROL_LIVE_MAX: of
 *             each process one of its own, then one per site; reply.events is how many there are in all, pid 0: none.
 *             The watcher keeps them for DC_CONTROL_LIVE_NS after a request, so the first one is told of nothing yet.
 *   RULES     one reply per rule; one with an empty name: there is none.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "trigger/rings.h"

#define DC_CONTROL_VERSION 1u
#define DC_CONTROL_TRIGGER 1u
#define DC_CONTROL_STATUS 2u
#define DC_CONTROL_SAMPLING 3u
#define DC_CONTROL_LIVE 5u
#define DC_CONTROL_RULES 4u
#define DC_CONTROL_FOLLOWED 6u

#define DC_CONTROL_ALL 1u /* every recorded process the peer may have */
#define DC_CONTROL_WAIT 2u

#define DC_CONTROL_DEFAULT INT64_C(-1) /* last_ns, after_ns: as the watcher is configured */

struct dc_control_request {
	uint32_t version;
	uint32_t op;
	uint32_t pid; /* 0: by name, or all */
	uint32_t flags;
	int64_t last_ns; /* 0: all there is */
	union {
		int64_t after_ns;
		int64_t first; /* LIVE */
	};
	char name[64]; /* glob on the process's name; empty: by pid, or all */
	char reason[256];
};

struct dc_control_status {
	uint32_t pid;   /* the watcher's */
	uint32_t rings; /* recorded images seen, and how many of them live */
	uint32_t alive;
	uint32_t jobs;    /* captures under way */
	uint32_t pending; /* of these, waiting for room on the disk */
	uint32_t reserved;
	uint64_t captures; /* saved since the watcher started */
	uint64_t failed;
	uint64_t suppressed;     /* triggers refused by budgets */
	uint64_t unknown_deaths; /* processes that are gone without anybody knowing how; see `dashcam recover` */
	int64_t started_ns;      /* CLOCK_REALTIME */
	char out[512];           /* where captures go */
};

#define DC_CONTROL_SAMPLING_MAX 64u

struct dc_control_process {
	uint32_t pid; /* 0: this reply is of none */
	uint32_t uid;
	uint32_t ring; /* 1: it has one */
	uint32_t scope; /* DC_SAMPLE_SCOPE_* */
	uint32_t hz;
	uint32_t copy_bytes; /* 0: frame pointers */
	char name[64];
	char why[96]; /* it is not sampled, or not all of it is seen */
	uint32_t usual_hz;
	uint32_t reserved;
	int64_t raised_for_ns; /* so long by now it is sampled more often, because a rule asked for it; 0: it is not */
};

/* A process of which the watcher did not hear all. */
struct dc_control_followed {
	uint32_t pid; /* 0: this reply is of none */
	uint32_t uid;
	uint64_t events; /* heard */
	uint64_t left_out_events, left_out_bytes, left_out_chunks; /* to stay within the budget; what was heard stands for them */
	uint64_t lost_chunks; /* overwritten before they were read */
	uint64_t given_up; /* async spans that were open, and are not followed any more */
	char name[64];
};

#define DC_CONTROL_LIVE_MAX 48u
#define DC_CONTROL_LIVE_NS INT64_C(30000000000)
#define DC_CONTROL_LIVE_SAMPLED 1u

struct dc_control_live {
	uint32_t pid; /* 0: this reply is of none */
	uint32_t uid;
	uint32_t kind; /* DC_KIND_* of the site; 0: this row is of the process, and site is empty */
	uint32_t flags; /* DC_CONTROL_LIVE_* */
	uint32_t open; /* spans */
	uint32_t reserved;
	double per_s; /* events; of spans ends */
	double errors_per_s;
	double p50_ns, p99_ns, p999_ns, max_ns; /* NaN: none */
	double last; /* counters; NaN: none */
	int64_t window_ns; /* process: how far back it goes, and should */
	int64_t wanted_window_ns;
	uint64_t dropped; /* process: events, ever */
	uint64_t left_out_events; /* process: by the watcher, to stay within its budget, ever */
	uint64_t left_out_bytes;
	uint64_t lost_chunks; /* ... overwritten before it read them */
	uint64_t given_up; /* process: async spans that were open, and are not followed any more */
	char name[64];
	char site[96];
};

struct dc_control_rule {
	char name[64];        /* empty: this reply is of none */
	char expression[256]; /* may be cut */
	char waits_for[96];   /* the first name in it that nobody recorded so far; empty: all are known */
	uint64_t fired;       /* and was allowed to */
	uint64_t suppressed;  /* by its budget */
};

struct dc_control_reply {
	uint32_t version;
	uint32_t op;
	int32_t error; /* 0, or -errno: then text says why */
	uint32_t more; /* replies still to come */
	uint32_t processes;
	uint32_t reserved;
	uint64_t events;
	uint64_t bytes; /* of the file */
	char path[768];
	char text[256];
	union { /* by op */
		struct dc_control_status status;
		struct dc_control_process process;
		struct dc_control_live live;
		struct dc_control_rule rule;
		struct dc_control_followed followed;
	};
};

static_assert(sizeof(struct dc_control_live) <= sizeof(struct dc_control_status), "the reply keeps its size");
static_assert(sizeof(struct dc_control_process) <= sizeof(struct dc_control_status), "the reply keeps its size");
static_assert(sizeof(struct dc_control_followed) <= sizeof(struct dc_control_status), "the reply keeps its size");
static_assert(sizeof(struct dc_control_rule) <= sizeof(struct dc_control_status), "the reply keeps its size");

/* --- clients --- */

/*
 * dc_control_ask() - send @request to the watcher of a ring directory and hand every reply to @each
 * The watcher must be root or ourselves: anybody may have put a socket into a shared directory.
 * Return: number of replies; -ENOENT, -ECONNREFUSED: no watcher there; -EPERM: not one to be believed; -ETIMEDOUT: it
 * does not answer (a capture that is waited for may take any time, once it answers); -errno.
 * @ret_why: on error one line for people.
 */
int dc_control_ask(const char *dir, const struct dc_control_request *request,
		   void (*each)(void *arg, const struct dc_control_reply *reply), void *arg,
		   char ret_why[static DC_WHY_BYTES]);

extern int64_t dc_control_patience_ns; /* how long a watcher may take to answer; tests have less */

/* --- the watcher's end --- */

struct dc_control;

/* A request and who asked. @client names the connection for later replies; it stays valid when the peer has gone. */
typedef void dc_control_handler(void *arg, uint64_t client, const struct ucred *peer,
				const struct dc_control_request *request);

/* Binds watch.sock in @dir, replacing one that is there: the caller holds watch.lock. */
int dc_control_new(const char *dir, dc_control_handler *handler, void *arg, struct dc_control **ret_control);
void dc_control_free(struct dc_control *c);
/* Its name is somebody else's by now: it goes without removing what has it. */
void dc_control_leave(struct dc_control *c);
/* Readable when there is something to do. */
int dc_control_fd(const struct dc_control *c);
void dc_control_dispatch(struct dc_control *c);
/* The connection is closed after the reply with more == 0. A peer that is gone or does not read is forgotten. */
void dc_control_reply(struct dc_control *c, uint64_t client, const struct dc_control_reply *reply);

/* A unix socket bound to @dir/@name with @mode; used for the doorbell too. Return: fd or -errno. */
int dc_control_bind(const char *dir, const char *name, int type, mode_t mode);
