/* SPDX-License-Identifier: MIT */
/*
 * A ring seen from outside: opened once, validated once, kept open for as long as anybody wants its evidence.
 *
 * The process inside may be hostile, dying, stopped or gone, and none of that may matter: the file is opened without
 * blocking and without following links, is read with pread() (a file truncated under a mapping would be a SIGBUS; what
 * is looked at all the time goes through trigger/glance.h, which knows that), and the header's layout is copied,
 * checked and from then on taken from the copy. What the guest keeps changing (counters, tables, chunks) is read as
 * hints and clamped by the copy. What we tell the guest goes by pwrite().
 *
 *     dc_ring_open(dir_fd, name, &ring, why)     -EAGAIN: being created, look again soon
 *     dc_ring_look(ring, &look)                  one small pread: flags, trigger_seq, counters
 *     dc_ring_glance(ring, &look)                the same without a system call, for who looks many times a second
 *     dc_ring_alive(ring)                        does the owner still hold its lock?
 *     dc_ring_tables(ring, &tables)              names, lanes, modules, triggers, for a capture or for status
 *
 * A process that records nothing itself, and is only sampled, is kept as a ring without a file (dc_ring_bare()): so it can be
 * watched, selected, judged and saved as all others are. It has no events and no tables; its clock is CLOCK_MONOTONIC.
 *
 * A ring is counted (ref/unref) because the watcher's loop and its capture thread both hold it. Everything in
 * struct dc_ring is constant after open, except what says otherwise.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ipc/cleanup.h"
#include "ipc/clock.h"
#include "ipc/ring.h"
#include "trigger/known.h"
#include "trigger/maps.h"
#include "persist/format.h"
#include "trigger/rings.h"

struct dc_ring {
	int fd;
	bool writable;  /* the control part may be written */
	bool verified;  /* the owner of the file is the process: see dc_ring_open() */
	bool bare;      /* there is no ring: fd is -1, of the header only who and which clock is filled */
	bool elsewhere; /* recorded before a reboot or on another host: its clock is not ours */
	uint32_t pid;   /* in our pid namespace; 0: not visible from here */
	uint32_t uid;   /* owner of the file: whose evidence this is */
	uint32_t gid;
	dev_t dev;
	ino_t ino;
	char name[DC_RING_NAME_BYTES * 2]; /* file name, for people */
	struct dc_ring_header header; /* as validated at open; the layout in it is the one used for ever */
	struct dc_known *known; /* of its process, for captures; NULL where it is not ours to look at */
	struct dc_maps *maps;   /* the same */
	int pidfd; /* of a bare one; -1: the kernel has none */
	const void *counters, *first_lanes; /* pages that glances copy from (dc_ring_watch()); NULL: none */
	_Atomic uint32_t refs;
};

/*
 * dc_ring_open() - open a ring file
 * @dir_fd, @name: as for openat()
 * @ret_why: on error one line for people
 *
 * verified: the file belongs to root or to one of the process's uids, or the process maps the file. Anything else may
 * have been put there by somebody who wants the watcher to look at a process of others; it is readable, no more.
 *
 * Return: 0; -EAGAIN: still being set up; -ELOOP, -ENXIO, -EINVAL: a link, a FIFO, not a regular file;
 * -EBADMSG: not a ring or sizes that lie; -EPROTONOSUPPORT: a newer, incompatible version; or -errno.
 */
int dc_ring_open(int dir_fd, const char *name, struct dc_ring **ret_ring, char ret_why[static DC_WHY_BYTES]);

/*
 * dc_ring_bare() - a process without a ring
 * Its owner is who owns /proc/PID: root where the process may not be looked into. Return: 0; -ESRCH; -EPERM: of another
 * user, and we are not root; -ENOMEM.
 */
int dc_ring_bare(uint32_t pid, struct dc_ring **ret_ring);
/* It called exec: its name is another one. By the thread that made it. */
void dc_ring_bare_rename(struct dc_ring *ring);

struct dc_ring *dc_ring_ref(struct dc_ring *ring);
void dc_ring_unref(struct dc_ring *ring);
DC_DEFINE_CLEANUP(dc_ring, struct dc_ring *, dc_ring_unref)

/* dc_ring_alive() - Return: 1 while the owner's image lives, 0 when it is gone, -errno. Works across pid namespaces. */
int dc_ring_alive(const struct dc_ring *ring);

/*
 * Any range of the file, for who copies chunks (snapshot.c, tail_decode.c): what cannot be read is zero, which commits nothing and
 * claims nothing. Return: whether all was there; if not, the file was cut by its owner, or by somebody.
 */
bool dc_ring_read(const struct dc_ring *ring, void *to, size_t bytes, uint64_t offset);
/* The same of the dense table: entries @first and following. Within chunk_cap. */
bool dc_ring_states(const struct dc_ring *ring, struct dc_chunk_entry *to, uint32_t first, uint32_t count);
/* Whether what was committed at @before is still what it was at @later: the reader's rule of ipc/ring.h. */
static inline bool dc_ring_state_kept(uint64_t before, uint64_t later)
{
	return dc_state_generation(before) == dc_state_generation(later) && dc_state_bytes(before) <= dc_state_bytes(later);
}

/* What changes, as of one pread. Hints: any value may come from a hostile guest. */
struct dc_ring_look {
	uint32_t flags;
	uint32_t sites_used;
	uint32_t strings_used;
	uint32_t modules_used;
	uint32_t lanes_used;
	uint32_t chunks_grown;
	uint32_t anchors_used;
	uint32_t hand;
	uint64_t trigger_seq;
	uint64_t triggers_asked;
	uint64_t lost_early;
	uint64_t lost_lanes;
	uint64_t grow_failed;
};
/* Counts come back clamped to the caps of the header. Return: 0, -EBADMSG (truncated), -errno. */
int dc_ring_look(const struct dc_ring *ring, struct dc_ring_look *ret_look);

/*
 * dc_ring_watch() - from now on two pages of it are mapped: its counters, and its first lanes
 * The two that follow are then copies out of memory; before, and where nothing can be mapped, they are preads. All three by
 * one thread, which does not block SIGBUS.
 */
void dc_ring_watch(struct dc_ring *ring);
int dc_ring_glance(struct dc_ring *ring, struct dc_ring_look *ret_look);
/* The first @count entries of the lane table. Return: false: cut short; what is missing is zero. */
bool dc_ring_glance_lanes(struct dc_ring *ring, struct dc_ring_lane *ret_lanes, uint32_t count);

/*
 * dc_ring_trigger() - the slot of trigger number @seq (1, 2, ...)
 * Return: 0; -EAGAIN: being written; -ESTALE: overwritten by a later one; -errno.
 */
int dc_ring_trigger(const struct dc_ring *ring, uint64_t seq, struct dc_ring_trigger *ret_trigger);

/*
 * The tables, as the payload of a DC_BLOCK_TABLES: the header page first, with the validated layout in it.
 * Caller frees @bytes.
 */
struct dc_ring_tables {
	uint8_t *bytes;
	size_t size;
	struct dc_tables_block counts;
};
int dc_ring_tables(const struct dc_ring *ring, struct dc_ring_tables *ret_tables);
static inline void dc_ring_tables_cleanup(struct dc_ring_tables *t)
{
	free(t->bytes);
}
/* Inside @tables: the header page, and the lanes (counts.lane_count of them). */
const struct dc_ring_header *dc_ring_tables_header(const struct dc_ring_tables *tables);
struct dc_ring_lane *dc_ring_tables_lanes(const struct dc_ring_tables *tables);
const struct dc_ring_site *dc_ring_tables_sites(const struct dc_ring_tables *tables);
const char *dc_ring_tables_strings(const struct dc_ring_tables *tables);
const struct dc_ring_module *dc_ring_tables_modules(const struct dc_ring_tables *tables);

/*
 * dc_ring_clock() - a clock from the ring's anchors and, unless it is from elsewhere, one of now
 * Return: 0, -ENOTSUP, -errno.
 */
int dc_ring_clock(const struct dc_ring *ring, struct dc_clock *ret_clock);

/* dc_ring_now() - this moment in units of the ring's clock; of a ring from elsewhere its last event. */
uint64_t dc_ring_now(const struct dc_ring *ring);

/* dc_ring_last() - when the last event of any lane was, in units; 0: there is none. */
uint64_t dc_ring_last(const struct dc_ring *ring);

/* What `status` shows of one ring. Rates come from two of these. */
struct dc_ring_usage {
	int64_t at_ns;         /* CLOCK_MONOTONIC of this look */
	uint64_t memory_bytes; /* tmpfs in use */
	uint64_t cap_bytes;
	int64_t wanted_window_ns; /* what the guest was asked to keep */
	int64_t window_ns;        /* how far back everything is there */
	bool whole;       /* nothing was overwritten since the start: window_ns is the age of the recording */
	uint64_t events;  /* ever, by the lanes' running numbers */
	uint64_t dropped; /* no chunk, no lane, during start */
	uint64_t grow_failed;
	uint32_t lanes; /* in use */
	uint32_t open_spans;
	uint32_t chunks_grown;
	uint32_t chunk_cap;
	uint32_t flags;
};
int dc_ring_usage(const struct dc_ring *ring, struct dc_ring_usage *ret_usage);

/*
 * What the guest is told. All of them: 0, -EROFS when we may not write to this ring, -errno.
 */
int dc_ring_set_window(const struct dc_ring *ring, uint32_t watcher_pid, uint64_t window_units);
int dc_ring_set_hold(const struct dc_ring *ring, uint64_t from_units, uint64_t until_units);
int dc_ring_set_enable(const struct dc_ring *ring, uint32_t site, uint32_t word);          /* DC_ENABLE_* */
int dc_ring_set_threshold(const struct dc_ring *ring, uint32_t site, uint64_t span_units); /* 0: none */
int dc_ring_ack(const struct dc_ring *ring, uint64_t trigger_seq);
int dc_ring_ack_crash(const struct dc_ring *ring, uint64_t crash_seq); /* see trigger/crash.h */
/* Plain bytes of the file, for parts that have a reader of their own. Return: 0, -EBADMSG (truncated), -EROFS, -errno. */
int dc_ring_pread(const struct dc_ring *ring, void *to, size_t bytes, uint64_t at);
int dc_ring_pwrite(const struct dc_ring *ring, const void *from, size_t bytes, uint64_t at);
/* The control part as it stands (first page and enable words are what callers look at). Caller frees. */
int dc_ring_control(const struct dc_ring *ring, struct dc_ring_control **ret_control);
/* Low half of the last trigger a watcher saw. */
int dc_ring_acked(const struct dc_ring *ring, uint32_t *ret_seq);
