/* SPDX-License-Identifier: MIT */
/*
 * What the recorder of one process image holds. Inside of libdashcam; nobody else includes it.
 *
 *   dc_recorder   one page, MADV_WIPEONFORK: after any fork, raw clone included, the child finds zeros, which is the
 *                 state before the first event, and starts a ring of its own; behind it, in the same mapping,
 *   threads       a page of struct dc_thread per lane, wiped likewise, touched only when used
 *   mirrors       plain memory that a child inherits: sites, strings and modules (sites.c, modules.c), so that ids stay
 *                 what they were, and the address of the control mapping (switches.c), so that enable words stay readable
 *                 and the child's own goes to the same place
 *
 * PHASES   none -> starting -> on <-> stopped        failed start: off (dc_start() may try again)
 *          one thread starts (compare-exchange); first events of others wait for it, a few starts long at most; those
 *          of handlers on top of it, and of who waited in vain, are counted in lost_early.
 *
 * ATOMICS. Table of pairs, beside those of the chunk protocol (ipc/ring.h):
 *   [phase]          release when `on` is stored; acquire in dc_enter_slow(): who sees `on` sees the maps
 *   [site-control]   release of the site's pointer to its word, [site-known] of the mark beside it, in dc_site_register();
 *                    acquire in dc_control_of_() and known(): who sees either sees the id
 *   [table-publish]  release of an entry's `published` (and header counts); readers of the ring pread afterwards
 *   [lane-free]      release when an exiting thread sets its bit; acquire of who takes the lane: sees its writer state
 *   [trigger-slot]   release of the slot's seq; pairs with the reader's second look at it
 *   [ring-magic]     release store of the magic; pairs with the reader's pread of the header
 *   [crash-slot]     release of crash.seq; pairs with the reader's pread, and with the acquire of threads that wait for it
 */
#pragma once

#include <limits.h>

#include "ipc/event.h"
#include "ipc/ring.h"
#include "ipc/samples.h"
#define DC_INSIDE_
#include "recorder/dashcam.h"

/* event.c: behind the fast path */
#define DC_NOINLINE __attribute__((noinline))
DC_NOINLINE uint64_t dc_begin0_slow(struct dc_site *site, uint32_t odd);
DC_NOINLINE uint64_t dc_begin1_slow(struct dc_site *site, uint32_t odd, uint64_t a);
DC_NOINLINE uint64_t dc_begin2_slow(struct dc_site *site, uint32_t odd, uint64_t a, uint64_t b);
DC_NOINLINE void dc_end_slow(dc_span_t span);

#include "recorder/dashcam_inline.h"
#include "recorder/sys.h"

/* Of stacks: where frame pointers lead nowhere, never, always. */
enum dc_copies { DC_COPIES_AUTO, DC_COPIES_NONE, DC_COPIES_ALL };

enum dc_phase { DC_PHASE_NONE, DC_PHASE_STARTING, DC_PHASE_ON, DC_PHASE_STOPPED, DC_PHASE_OFF };

/* What a lane knows of its own chunks: see own.c. */
#define DC_OWN_KEPT 352u
#define DC_OWN_FOUND 64u
#define DC_OWN_MARKS 16u
struct dc_own {
	uint32_t next; /* what it will most likely claim next */
	uint32_t claimed; /* its claims so far */
	uint32_t first, count; /* of @claims: where the oldest is, round the end */
	uint32_t found_first, found_count; /* of @found, likewise */
	uint32_t hand; /* where the search for forgotten ones goes on */
	uint32_t unseen; /* entries of the table that it has yet to pass; 0: all that are forgotten are found */
	uint32_t marked; /* marks so far; the youngest is the one before */
	struct {
		uint32_t claimed, time; /* coarse */
	} marks[DC_OWN_MARKS]; /* when the lane had claimed how many */
	uint32_t found[DC_OWN_FOUND]; /* old ones, met by the hand */
	uint32_t claims[DC_OWN_KEPT]; /* the youngest */
};

/* One thread, from the ABI part on. One page, so a fork wipes whole threads and neighbours share no line. */
struct dc_thread {
	struct dc_thread_ fast; /* must be first */
	struct dc_thread *nested; /* for handlers that interrupt an event; NULL until needed */
	struct dc_thread *outer; /* of a nested one: whose */
	uint32_t lane;
	uint32_t chunk; /* index of the open chunk, ~0: none */
	uint32_t before; /* the one filled before it, kept until this one has an event (chunk.c); ~0: none */
	uint32_t before_sealed; /* coarse time of its last event */
	uint32_t exit_rounds; /* TSD destructor rounds seen */
	uint32_t switching; /* between two chunks: who leaves here leaves a lane that nobody can go on with */
	uint64_t events; /* of the lane before the current chunk */
	uint64_t misplaced;
	uint32_t timer; /* of its CPU time: id + 1; 0: none (sample.c) */
	uint32_t timer_hz;
	uint32_t timer_tried; /* coarse time; 0: never */
	bool timer_refused; /* and counted */
	uintptr_t stack_seen; /* lowest stack pointer known to be on this thread's own stack; 0: none yet */
	struct dc_own own;
};
static_assert(sizeof(struct dc_thread) <= DC_PAGE_BYTES, "a thread is one page");

struct dc_recorder {
	uint32_t phase; /* enum dc_phase */
	uint32_t pages_taken; /* whether this page and those of the threads are of this image: pages.c */
	uint8_t *map; /* the ring */
	uint64_t map_bytes;
	struct dc_ring_header *header;
	struct dc_ring_control *control; /* the writable view, for reading and DC_ENABLE_STOPPED only; no child has it */
	const struct dc_ring_control *switches; /* the view that children inherit: what sites point to */
	struct dc_ring_site *sites;
	char *strings;
	struct dc_ring_module *modules;
	struct dc_ring_lane *lanes;
	struct dc_ring_trigger *triggers;
	struct dc_ring_crash *crash;
	struct dc_ring_samples *samples; /* NULL: none in a ring so small */
	struct dc_chunk_entry *entries;
	uint8_t *chunks;
	struct dc_thread *threads; /* lane_cap pages */
	uint32_t lane_cap;
	uint32_t chunk_cap;
	uint32_t chunk_bytes;
	uint32_t slow_clock;
	uint32_t allocated; /* 1: all memory was there at the start, nothing is populated later */
	uint32_t pid;
	uint32_t chunks_fresh; /* next chunk never used; < header->chunks_grown: there are some */
	uint32_t chunks_reserved; /* chunks that some thread has made or is making */
	uint32_t growing; /* 1 while one thread takes a large step */
	uint32_t grow_step; /* chunks of the next large step; of who is growing */
	uint32_t grow_refused; /* coarse time of the last growth that failed */
	uint32_t recycled; /* coarse time of the youngest event that was recycled; 0: none was */
	uint32_t lanes_live;
	uint32_t lanes_holding; /* lanes with more than one chunk, those of threads that are gone included */
	uint32_t stamps; /* source of span token stamps */
	uint32_t doorbell_rung; /* low half of the trigger_seq that last rang */
	uint64_t window_ns;
	uint64_t window_units; /* 0 until the tick rate is known, see dc_window_calibrate() */
	uint64_t next_anchor_units;
	uint64_t misplaced; /* of threads that are gone */
	uint64_t lanes_free[DC_LANE_MAX / 64]; /* [lane-free] bit set: lane waits for a thread */
	uint64_t lost_early; /* before there was a header to count in */
	uint64_t samples_populated[2]; /* which 64 KiB of that part */
	uint32_t samples_room; /* bytes for records */
	uint32_t copies; /* enum dc_copies */
	uint32_t copies_due; /* coarse time up to which copies of stacks have been made in advance (stack_copy.c) */
	uint32_t pages[(4u << 20) / DC_PAGE_BYTES / 32]; /* which 4 KiB pages of the tables are populated */
	char ring[112]; /* path */
	char doorbell[108]; /* path; empty: off */
};
static_assert(sizeof(struct dc_recorder) <= DC_PAGE_BYTES, "wiped as one page");

/* start.c */
extern uint8_t dc_image; /* 1..255: counts the rings of this line of processes, so that a child knows its parent's marks */
bool dc_recorder_on(void); /* starts it if nobody has; true: record */
void dc_missed(void); /* dc_recorder_on() said no: counts the event, unless recording is off on purpose */
void dc_lost_early(struct dc_recorder *r);

/* pages.c */
extern struct dc_recorder *dc_recorder; /* NULL until the first event; then for good */
struct dc_recorder *dc_recorder_page(void); /* of this image; made if there is none yet. NULL: no memory */
void dc_pages_keep(struct dc_recorder *r); /* in a child: nobody has a lane in them any more */
bool dc_pages_locked(void); /* mlockall(MCL_FUTURE): every page that is mapped is resident */
uint32_t dc_pages_threads(void); /* pages behind the recorder's */
size_t dc_recorder_bytes(void); /* of its page and those of the threads */
#define DC_TURNS 6000u /* a few starts long: 4,000 of ten-odd ns, as long as one takes; the rest yields the CPU */
void dc_turn(uint32_t i); /* the @i-th, while another thread is at it */

/*
 * fork.c: around everything that works with the recorder, not just with a thread's page.
 * dc_slow_leave(): true in a child that was forked meanwhile and goes on here: there is nothing any more to record with.
 */
void dc_slow_enter(void);
bool dc_slow_leave(void);

/* layout.c: sizes of a ring under a cap */
void dc_layout_fill(struct dc_ring_header *h, uint64_t cap_bytes, uint32_t sites, uint32_t strings_bytes);

/* populate.c */
int dc_populate(struct dc_recorder *r, const void *at, size_t bytes); /* table pages: before their first touch */
int dc_populate_chunks(struct dc_recorder *r, uint32_t first, uint32_t count);

/* grow.c */
#define DC_CHUNK_NONE UINT32_MAX
uint32_t dc_grow(struct dc_recorder *r, uint32_t now); /* a new chunk, the caller's to take; NONE: no room; @now coarse */
void dc_chunk_ready(struct dc_recorder *r, uint32_t i);

/* claim.c */
uint32_t dc_chunk_claim(struct dc_recorder *r, struct dc_thread *t, uint64_t now, uint32_t *ret_generation);
#define DC_EXPECTED_LINES 8u /* of a page: behind those the CPU has seen where writing goes, and runs ahead by itself */
void dc_chunk_expect(const struct dc_recorder *r, const struct dc_thread *t); /* asks the CPU for what it will claim next */

/* own.c */
void dc_own_push(const struct dc_recorder *r, struct dc_thread *t, uint32_t i, uint32_t generation, uint32_t now);
uint32_t dc_own_oldest(const struct dc_recorder *r, struct dc_thread *t, uint64_t *ret_state); /* forgotten by this; NONE: no more */
uint32_t dc_own_expected(const struct dc_own *own); /* what that will most likely be next time */

/* chunk.c */
int dc_chunk_switch(struct dc_recorder *r, struct dc_thread *t); /* 0, -ENOSPC: none to be had, counted */
void dc_chunk_seal_before(struct dc_recorder *r, struct dc_thread *t);
/* Of a thread that is busy: does so if its chunk has an event. false: forked meanwhile, the thread's page may be another's. */
bool dc_chunk_begun(struct dc_thread_ *t);

/* thread.c: the slow way into an event */
struct dc_thread_ *dc_enter_slow(struct dc_thread_ *t, unsigned taken); /* busy, with room; NULL: not now, counted */

static inline struct dc_thread_ *dc_enter(void)
{
	struct dc_thread_ *t = dc_thread_self;
	if (DC_UNLIKELY_(t->busy == DC_BUSY_))
		return dc_enter_slow(t, 0);
	t->busy = DC_BUSY_;
	DC_BARRIER_();
	if (DC_UNLIKELY_(t->at >= t->limit)) /* also of a page wiped since the line before the last */
		return dc_enter_slow(t, 1);
	return t;
}

uint64_t dc_clock_slow(void); /* clock.c */

static inline uint64_t dc_units(const struct dc_thread_ *t)
{
	return (DC_LIKELY_(!t->idle) ? dc_ticks_() : dc_clock_slow()) >> DC_TICK_SHIFT_;
}

/* The state word of the open chunk as the writer has it: see dc_thread_.base. */
static inline uint64_t dc_thread_state(const struct dc_thread_ *t)
{
	return t->base + (uint64_t)t->at;
}

static inline void dc_thread_restate(struct dc_thread_ *t, uint64_t state)
{
	t->base = state - (uint64_t)t->at;
}

static inline struct dc_thread *dc_page_of(const struct dc_recorder *r, uint32_t lane)
{
	return (struct dc_thread *)((uint8_t *)r->threads + (size_t)lane * DC_PAGE_BYTES);
}

/*
 * Whether @t is a page of @r. Ask in a slow section: a handler that forks just before one leaves its child an event in
 * flight in a page of the parent's recorder (fork.c), and a recorder that is none, or one of the child's own.
 */
static inline bool dc_page_is_of(const struct dc_recorder *r, const struct dc_thread_ *t)
{
	return r && (uintptr_t)t - (uintptr_t)r->threads < (size_t)r->lane_cap * DC_PAGE_BYTES;
}

void dc_chunk_seal(struct dc_recorder *r, uint32_t i, uint32_t sealed); /* the caller's own; coarse time of its last event */
void dc_thread_forget(void); /* the calling thread has no lane */
void dc_thread_record(struct dc_recorder *r, struct dc_thread *t); /* writes a THREAD record; busy, with room */

/* sites.c */
extern uint32_t dc_control_off; /* control word of sites met while the recorder is off: 3 then, else DC_ODD_ */
int dc_site_register(struct dc_recorder *r, struct dc_site *site);
int dc_sites_restore(struct dc_recorder *r); /* into a fresh ring: those the process (or its parent) had */
uint32_t dc_sites_count(void); /* what that takes */
uint32_t dc_strings_bytes(void);
uint32_t dc_string_add(struct dc_recorder *r, const char *text, size_t max);

/* event.c: return the event's time; 0: there is none */
uint64_t dc_stack_record(struct dc_site *site, const uint64_t *addresses, unsigned count);
uint64_t dc_stack_put(struct dc_site *site, uint16_t id, const uint64_t *addresses, unsigned count); /* the same, switches not asked */

/* stack.c */
uintptr_t dc_stack_top(const struct dc_thread *t, uintptr_t sp); /* where the stack that @sp may be on ends; 0: nobody knows */
uintptr_t dc_stack_own_top(uintptr_t sp); /* the same, 0 also on alternate stacks and others that are not the thread's own */
void dc_stack_of_site(struct dc_site *site, uint16_t id); /* a STACK event of another site, before its own */

/* stack_copy.c */
void dc_stack_copy(uint64_t units); /* of a STACK event just recorded at that time, whose addresses are not all there are */

/* modules.c */
/* /proc/self/maps into the mirror, and into the ring of @r unless NULL. @here: in a module just loaded, or NULL */
void dc_modules_scan(struct dc_recorder *r, const void *here);
int dc_modules_restore(struct dc_recorder *r); /* into a fresh ring, from the mirror */

/* host.c */
struct dc_host {
	uint32_t clock; /* DC_CLOCK_* */
	uint8_t boot_id[16];
};
const struct dc_host *dc_host(void);
struct dc_self {
	uint32_t pid;
	uint64_t start_time; /* field 22 of /proc/self/stat */
	uint64_t pid_namespace; /* inode number */
};
struct dc_self dc_self(void);
void dc_self_name(char name[16]); /* the kernel's name of the process, whichever thread asks */
uint32_t dc_clock_usable(void); /* DC_CLOCK_* */
extern uint32_t dc_ticks_forbidden; /* PR_SET_TSC: even the vDSO must not be called */
long dc_slurp(const char *path, char *text, size_t size); /* a small file, NUL-terminated; bytes read or -errno */

/* clock.c */
uint64_t dc_ticks(const struct dc_recorder *r); /* raw, of the clock in use; @r NULL: none yet */
void dc_anchor_take(struct dc_recorder *r);
void dc_window_calibrate(struct dc_recorder *r);
uint64_t dc_units_of_ns(const struct dc_recorder *r, uint64_t ns); /* need the tick rate: wait for it, 1 ms at most */
uint64_t dc_ns_of_units(const struct dc_recorder *r, uint64_t units);

/* environment.c */
struct dc_settings {
	bool off;
	bool doorbell;
	bool crash; /* fatal signals are recorded */
	enum dc_copies copies;
	uint64_t memory_bytes;
	uint64_t window_ns;
	const char *dir; /* NULL: default */
	const char *name; /* NULL: the kernel's */
};
void dc_settings_read(const struct dc_opts *opts, struct dc_settings *ret_settings);

/* place.c */
struct dc_place {
	char dir[80];
	int64_t bytes; /* of the directory itself */
	uint32_t uid; /* ours */
	int fd; /* of the directory; -1: not open */
};
int dc_place_open(struct dc_place *p, const char *asked); /* @asked NULL: the default. The fd is the caller's to close */
bool dc_place_nearly_empty(const struct dc_place *p, uint64_t memory_bytes); /* nothing to sweep, at this size of ours */
int dc_place_cap(const struct dc_place *p, uint64_t memory_bytes, uint64_t *ret_cap); /* 0, -ENOSPC: too little */

/* ring.c */
struct dc_making { /* a ring that comes to be */
	struct dc_recorder *r;
	struct dc_settings settings;
	struct dc_place place;
	struct dc_ring_header layout;
	struct dc_self self;
	uint32_t clock; /* DC_CLOCK_* */
	int fd; /* of the ring, which holds the lock; -1: none yet */
};
int dc_ring_make(struct dc_making *m); /* all but the magic; on error dc_ring_undo() is due */
void dc_ring_undo(struct dc_making *m);

/* handover.c */
void dc_handover(const struct dc_making *m); /* where a watcher may not sample us: lets it */

/* switches.c */
void dc_switches_save(void); /* before a ring is made: those of the parent */
int dc_switches_map(struct dc_recorder *r, const struct dc_ring_header *layout);
void dc_switches_restore(struct dc_recorder *r);
void dc_switches_off(void); /* sites of a process that cannot record look at words that say off */
void dc_switches_stop(struct dc_recorder *r, bool stopped); /* and go on */

/* samples.c: room for a record of the ring's samples part, and what makes it one */
bool dc_samples_ready(struct dc_recorder *r); /* its head may be written */
struct dc_ring_sample *dc_sample_reserve(struct dc_recorder *r, uint32_t bytes, uint64_t *ret_at); /* NULL: counted */
void dc_sample_commit(struct dc_recorder *r, struct dc_ring_sample *to, const struct dc_ring_sample *head);

/* sample.c */
void dc_sample_look(struct dc_recorder *r, struct dc_thread *t, uint64_t now); /* whether it is to sample itself; now and then */
void dc_sample_notice(const struct dc_site *site); /* its word says that there is something to look at */
void dc_sample_leave(struct dc_recorder *r, struct dc_thread *t);

/* crash.c */
void dc_crash_watch(void); /* at start: fatal signals that nobody handles */
void dc_crash_stack_take(uint32_t lane); /* an alternate stack, where the thread has none */
void dc_crash_stack_leave(uint32_t lane);

/* trigger.c */
void dc_span_over(unsigned site, uint64_t units); /* it has just ended */
void dc_trigger_crash(struct dc_recorder *r, int signal, const char *text);

/* sweep.c */
void dc_sweep(int dir_fd, uint32_t uid);
