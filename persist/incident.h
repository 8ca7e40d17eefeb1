/* SPDX-License-Identifier: MIT */
/*
 * What a capture says about itself: one incident, and each process in it. Filled by the watcher, stored as fields (key,
 * type, length, value: an unknown key is skipped), given back by the reader. Strings are NUL-terminated, cut to fit.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#include "ipc/ring.h"

enum dc_reason { /* why the past was saved; stored, so numbers stay */
	DC_REASON_API = 1, /* DC_TRIGGER() in the app */
	DC_REASON_COMMAND = 2, /* dashcam trigger */
	DC_REASON_SIGNAL = 3, /* SIGUSR1 to the watcher */
	DC_REASON_DEATH = 4, /* the process died by a signal */
	DC_REASON_EXIT = 5, /* dashcam run --on-exit */
	DC_REASON_RECOVER = 6, /* dashcam recover: its owner was gone */
	DC_REASON_SPAN = 7, /* a span outlasted its threshold */
	DC_REASON_RULE = 8, /* a rule came true: dc_incident.cause */
};

enum dc_unit { /* of dc_cause.value and .threshold; stored, so numbers stay */
	DC_UNIT_NONE = 0, /* there is no value: it happened */
	DC_UNIT_NUMBER = 1,
	DC_UNIT_NS = 2,
	DC_UNIT_BYTES = 3,
	DC_UNIT_PERCENT = 4,
	DC_UNIT_PER_SECOND = 5,
	DC_UNIT_BYTES_PER_SECOND = 6,
	DC_UNIT_SIGNAL = 7,
	DC_UNIT_DESCRIPTORS = 8,
	DC_UNIT_THREADS = 9,
	DC_UNIT_TIMES = 10,
	DC_UNIT_EXIT_CODE = 11,
};

/* A span that was open elsewhere when the rule came true: stored as it stands here. */
struct dc_neighbour {
	uint32_t pid; /* in the watcher's pid namespace */
	uint32_t tid; /* as the ring says */
	uint64_t open_ns; /* for how long by then */
	uint32_t depth; /* of its thread's open spans it is the innermost, so many there were */
	uint32_t reserved;
	char name[48];
	char thread[16];
};
#define DC_NEIGHBOURS_MAX 16u
static_assert(sizeof(struct dc_neighbour) == 88, "stored as it stands");

/* What had been begun and waited for somebody to end it: async spans of one name; or a queue's counter: stored as it stands. */
struct dc_waiting {
	uint32_t pid; /* in the watcher's pid namespace */
	uint32_t reserved;
	uint64_t count;
	uint64_t open_ns; /* the oldest of them, for how long by then; 0: not known, it is a counter */
	char name[48];
};
#define DC_WAITING_MAX 8u
static_assert(sizeof(struct dc_waiting) == 72, "stored as it stands");

/* Why a rule came true; all empty where none did. */
struct dc_cause {
	char expression[512]; /* as somebody wrote it */
	char sentence[256]; /* the same for people */
	char name[96]; /* of the span, event or counter */
	char thread[16];
	double value; /* that made it true */
	double threshold; /* what it was compared with */
	enum dc_unit unit;
	double amount; /* of a limit: so much it was, of which @value is the part in percent ... */
	double allowed; /* ... of this; 0: no limit is compared with */
	enum dc_unit amount_unit; /* of these two */
	uint32_t sample_hz; /* stacks that the rule had sampled from then on; 0: as before ... */
	int64_t sample_for_ns; /* ... for so long */
	uint8_t trace_id[16]; /* W3C, of what the thread worked on; zeros: not known */
	uint32_t neighbour_count;
	struct dc_neighbour neighbours[DC_NEIGHBOURS_MAX]; /* those open longest first */
	uint32_t waiting_count;
	struct dc_waiting waiting[DC_WAITING_MAX];
};

struct dc_incident {
	enum dc_reason reason;
	char text[256]; /* the app's or the user's words */
	char rule[64]; /* configuration section that asked for it; empty: none */
	uint32_t severity; /* 0 lowest; eviction goes by it, then by age */
	uint32_t coalesced; /* further triggers folded into this incident */
	uint32_t suppressed; /* triggers refused by budgets since the capture before */
	uint32_t trigger_pid; /* who fired, 0: not a process */
	uint32_t trigger_tid;
	uint32_t signal; /* DC_REASON_DEATH: by which; 0: not known */
	int64_t at_realtime_ns; /* when it fired */
	uint64_t at_units;
	uint64_t from_units; /* the window is [from, to]; every reader cuts by event */
	uint64_t to_units;
	int64_t asked_last_ns; /* 0: all there is */
	int64_t asked_after_ns;
	uint32_t clock; /* DC_CLOCK_*, one for the whole incident */
	uint32_t tick_shift;
	uint32_t anchor_count;
	struct dc_anchor anchors[64]; /* the watcher's own */
	char host[65];
	char kernel[65];
	uint8_t boot_id[16];
	struct dc_cause cause;
};

struct dc_process {
	uint32_t pid; /* in the watcher's pid namespace; 0: unknown (recovered) */
	uint32_t ns_pid; /* as the ring says */
	uint32_t uid;
	uint32_t verified; /* 1: the ring is proved to belong to the process (see the watcher) */
	uint64_t start_time; /* /proc/pid/stat field 22 */
	uint32_t exit_known; /* 1: the two below are facts */
	int32_t exit_code;
	uint32_t exit_signal;
	uint32_t alive; /* 1: was alive at the snapshot */
	int64_t took_ns; /* how long copying this ring took */
	uint64_t memory_bytes; /* tmpfs bytes in use by the ring */
	uint64_t cap_bytes;
	char name[64];
	char exe[256];
	char cmdline[512]; /* values that look like secrets are masked before they get here */
	char ring[128]; /* file name of the ring; empty: it has none, it knows nothing of dashcam */

	/* Samples (trigger/sampler.h) and the threads stopped at the trigger (trigger/threads.h). */
	uint32_t sample_scope; /* DC_SAMPLE_SCOPE_* */
	uint32_t sample_hz; /* of CPU time */
	uint32_t sample_copy_bytes; /* of the stack; 0: frame pointers */
	uint32_t sample_kernel; /* 1: kernel frames too */
	uint32_t threads_taken; /* stopped and copied */
	uint32_t threads_refused;
	uint64_t samples_lost;
	uint64_t stopped_median_ns; /* how long a thread was held */
	int64_t samples_from_ns; /* CLOCK_MONOTONIC: all samples since then are here; 0: none */
	int64_t switches_from_ns;
	uint32_t raised_hz; /* it was sampled more often, by a rule's wish; 0: not within the window */
	int64_t raised_from_ns; /* CLOCK_REALTIME */
	int64_t raised_to_ns; /* 0: it still was */
	char sample_why[96]; /* why it was not sampled, or what is missing */
	char threads_why[96]; /* the first thing that did not work */
};

#define DC_SAMPLE_SCOPE_NONE 0u
#define DC_SAMPLE_SCOPE_HOST 1u /* one set of events per CPU, of all processes */
#define DC_SAMPLE_SCOPE_PROCESS 2u
#define DC_SAMPLE_SCOPE_GUEST 3u /* by the process itself */
#define DC_SAMPLE_SCOPE_HANDED 4u /* by events that the process opened and handed over */
