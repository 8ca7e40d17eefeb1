/* SPDX-License-Identifier: MIT */
/*
 * The chunk protocol of ipc/ring.h, all of its interleavings, on a machine that reorders stores and loads.
 * x86 and qemu do not show these reorderings, so a missing fence passes every other test; here it does not.
 *
 * THE MACHINE. One memory that all see alike (as x86-64 and aarch64 have: multi-copy atomic), and
 *
 *   stores   go into their thread's buffer and leave it for memory in any order, except that stores to one place keep
 *            their order, a release store leaves after everything before it, and nothing behind a release fence leaves
 *            before all that stands in front of it. No bound on how late.
 *   cas      reads memory, and its own store goes through the buffer too: an acquire orders what follows after the *read*
 *            only (ldaxr/stxr, casa). Until it has left, nobody else's compare-exchange gets at that place.
 *   loads    of the reader that no acquire fence separates happen in any order, whatever the program text says.
 *
 * A store is issued as early as its program allows, which only adds behaviours: what others see is when it
 * leaves. A thread may stop for ever at any point (no fairness is assumed), so "killed here" is among the
 * paths; its buffer may or may not have drained.
 *
 * THE PROGRAM. Two writers with a pool of two or three chunks; each claims, writes header, copy of an open span,
 * events of two words and their commits, claims the next, seals the old one: dc_chunk_claim(), install(),
 * dc_commit_(). One reader comes at any moment and copies chunk 0, as snapshot.c does. State words are built with the
 * functions of ipc/ring.h. Chunks are alike until somebody claims one, so what holds for chunk 0 holds for all; of
 * the others only claim and seal are simulated, which is all that anybody but their owner ever sees of them.
 *
 * THE CLAIMS, checked in every reachable state
 *   exact      what the reader keeps is byte for byte what was committed under that generation
 *   one owner  a chunk is claimed only after its last owner let go of it
 *   no loss    what was committed before the reader came is kept by it, or its chunk was claimed again
 *   times      a sealed chunk is never taken for older than it is (the reader skips what is older than the window)
 *   numbers    when all is quiet, header and event count of each writer's last chunk add up to all it ever committed,
 *              and every chunk holds what its last owner put there
 *
 * And each rule of the protocol is broken once, to see that the checker notices: a check that cannot fail
 * proves nothing. States seen are remembered by 64-bit fingerprints; at some 10^6 states one is mistaken for
 * another with a chance of 10^-7.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/ring.h"

#define WRITERS 2u
#define CHUNKS 3u
#define WORDS 2u                   /* of an event */
#define EVENTS 2u                  /* of a chunk, at most */
#define SLOTS (2 + EVENTS * WORDS) /* header, copy, events: what `bytes` counts here */
#define GENERATIONS 12u
#define BUFFER 40u
#define NONE 255u

/* Which rule is broken. */
enum broken {
	NOTHING,
	COMMIT_RELAXED, /* [chunk-commit] without release */
	REUSE_UNFENCED, /* [chunk-reuse] without the writer's release fence */
	CLAIM_RELAXED,  /* [chunk-claim] without acquire: a store of the new owner may come before it */
	SEAL_RELAXED, /* [chunk-seal] without release: loads and stores of the old owner may come after it */
	CLAIM_BY_STORE,      /* a load and a store instead of a compare-exchange */
	CLAIM_OWNED,         /* the owned bit is not looked at */
	NO_GENERATION,       /* a claim does not count up */
	READER_UNFENCED_1,   /* no acquire fence between the first look and the payload */
	READER_UNFENCED_2,   /* none between the payload and the second look */
	READER_LOOKS_ONCE,   /* no second look */
	READER_TIME_EARLY,   /* `sealed` read together with the state word, unordered */
	READER_IGNORES_SIZE, /* generations are compared, sizes are not */
};

struct setting {
	unsigned chunks;    /* in the pool */
	unsigned per_chunk; /* events */
	unsigned events;    /* each writer tries to record */
	enum broken broken;
};

/* Places in memory. */
#define WATCHED 0u /* the chunk the reader copies */
enum { STATE, SEALED = CHUNKS, PAYLOAD, PLACES = PAYLOAD + SLOTS };
#define FENCE 254u /* in a buffer: no place, a release fence */

struct store {
	uint64_t value;
	uint8_t place;
	uint8_t release;
	uint8_t exchange; /* the store of a compare-exchange */
	uint8_t unused[5];
};

enum step { CLAIM, CLAIM_FORESEEN, COPY_LATE, DONE };

struct writer {
	struct store buffer[BUFFER];
	uint64_t state;     /* of the chunk, as stored last */
	uint64_t old_state; /* of the chunk before, while the next one is set up */
	uint8_t buffered;
	uint8_t step;
	uint8_t chunk; /* owned; NONE */
	uint8_t old;   /* NONE: there was none before */
	uint8_t tried; /* events recorded or dropped */
	uint8_t committed;
	uint8_t dropped;
	uint8_t foreseen; /* the next event's first word is stored already */
};

enum { LOOK_1, LOOK_SEALED, LOOK_PAYLOAD, LOOK_2 = LOOK_PAYLOAD + SLOTS, LOOKS };

struct reader {
	uint64_t seen[LOOKS];
	uint64_t before; /* the state word in memory when the reader came */
	uint64_t done;   /* bit mask of LOOK_*; 0: not come yet */
};

/* Who claimed a chunk under a generation, and with which running number it begins: what readers should find. */
struct claim {
	uint8_t writer;
	uint8_t first;
};

struct model {
	uint64_t memory[PLACES];
	struct writer writers[WRITERS];
	struct reader reader;
	struct claim claims[GENERATIONS]; /* of the watched chunk */
	uint8_t owner[CHUNKS];            /* by the program text; NONE */
	uint8_t unused[8 - (GENERATIONS * 2 + CHUNKS) % 8];
};

/* ---- values ---- */

static uint64_t header_value(unsigned writer, unsigned first, uint64_t generation)
{
	return UINT64_C(1) << 32 | writer << 16 | first << 8 | generation;
}

static uint64_t event_value(unsigned writer, unsigned number, unsigned word)
{
	return UINT64_C(2) << 32 | writer << 16 | number << 8 | word;
}

static uint64_t expected(const struct model *m, uint64_t state, unsigned slot)
{
	const struct claim *c = &m->claims[dc_state_generation(state)];
	if (slot == 0)
		return header_value(c->writer, c->first, dc_state_generation(state));
	if (slot == 1)
		return c->first ? event_value(c->writer, c->first - 1u, 0) : 0;
	return event_value(c->writer, c->first + (slot - 2) / WORDS, (slot - 2) % WORDS);
}

/* ---- store buffers ---- */

static void push(struct writer *w, unsigned place, uint64_t value, bool release, bool exchange)
{
	if (w->buffered == BUFFER)
		abort(); /* a longer one would show more: make it longer */
	w->buffer[w->buffered++] = (struct store){
		.value = value, .place = (uint8_t)place, .release = release, .exchange = exchange};
}

/* Of chunks that are not watched nobody sees the payload. */
static void store_payload(struct writer *w, unsigned chunk, unsigned slot, uint64_t value)
{
	if (chunk == WATCHED)
		push(w, PAYLOAD + slot, value, false, false);
}

static void store_commit(struct writer *w, const struct setting *t)
{
	if (w->chunk == WATCHED)
		push(w, STATE + WATCHED, w->state, t->broken != COMMIT_RELAXED, false);
}

static void fence_release(struct writer *w)
{
	if (w->buffered)
		push(w, FENCE, 0, false, false);
}

static bool may_leave(const struct writer *w, unsigned i)
{
	const struct store *s = &w->buffer[i];
	if (s->place == FENCE || (s->release && i))
		return false;
	for (unsigned k = 0; k < i; k++)
		if (w->buffer[k].place == FENCE || w->buffer[k].place == s->place)
			return false;
	return true;
}

static void buffer_remove(struct writer *w, unsigned i)
{
	w->buffered--;
	memmove(&w->buffer[i], &w->buffer[i + 1], (w->buffered - i) * sizeof(struct store));
	memset(&w->buffer[w->buffered], 0, sizeof(struct store));
}

static void leave(struct model *m, struct writer *w, unsigned i)
{
	m->memory[w->buffer[i].place] = w->buffer[i].value;
	buffer_remove(w, i);
	while (w->buffered && w->buffer[0].place == FENCE)
		buffer_remove(w, 0);
}

/* A load of the thread's own: its latest store to the place, else memory. */
static uint64_t load(const struct model *m, const struct writer *w, unsigned place)
{
	for (unsigned i = w->buffered; i-- > 0;)
		if (w->buffer[i].place == place)
			return w->buffer[i].value;
	return m->memory[place];
}

static bool pending(const struct writer *w, unsigned place, bool exchange_only)
{
	for (unsigned i = 0; i < w->buffered; i++)
		if (w->buffer[i].place == place && (!exchange_only || w->buffer[i].exchange))
			return true;
	return false;
}

/* ---- writers ---- */

/* One event: dc_put8_() ..., dc_commit_() */
static void record(const struct setting *t, struct writer *w, unsigned writer)
{
	unsigned slot = dc_state_bytes(w->state);
	for (unsigned k = w->foreseen; k < WORDS; k++)
		store_payload(w, w->chunk, slot + k, event_value(writer, w->committed, k));
	w->foreseen = 0;
	w->state += DC_CHUNK_EVENT_ONE + WORDS;
	store_commit(w, t);
	w->committed++;
	w->tried++;
}

/* The end of install(), and all events until the next claim. */
static void install(const struct setting *t, struct writer *w, unsigned writer, uint64_t copied)
{
	store_payload(w, w->chunk, 1, copied);
	w->state += 2;
	store_commit(w, t);
	while (w->tried < t->events && dc_state_events(w->state) < t->per_chunk)
		record(t, w, writer);
	w->step = w->tried < t->events ? CLAIM : DONE;
}

/* A span still open: its begin is the last event of the old chunk. */
static uint64_t copy_open(const struct model *m, const struct writer *w, unsigned writer)
{
	if (w->old == NONE)
		return 0;
	if (w->old != WATCHED)
		return event_value(writer, w->committed - 1u, 0);
	return load(m, w, PAYLOAD + dc_state_bytes(w->old_state) - WORDS);
}

static void seal(const struct setting *t, struct model *m, struct writer *w)
{
	if (w->old == NONE)
		return;
	if (w->old == WATCHED)
		push(w, SEALED, dc_state_generation(w->old_state), false,
		     false); /* rises with each owner: a time */
	push(w, STATE + w->old, w->old_state & ~DC_CHUNK_OWNED, t->broken != SEAL_RELAXED, false);
	m->owner[w->old] = NONE;
}

static uint64_t claimed(const struct setting *t, uint64_t seen)
{
	uint64_t next = dc_state_claimed(seen);
	return t->broken == NO_GENERATION ? next - (UINT64_C(1) << 32) : next;
}

/* From the compare-exchange to the next place where other threads matter. Return: what is wrong, or NULL. */
static const char *claim(const struct setting *t, struct model *m, unsigned writer, unsigned chunk)
{
	struct writer *w = &m->writers[writer];
	if (m->owner[chunk] != NONE)
		return "two owners of one chunk";
	m->owner[chunk] = (uint8_t)writer;
	w->old = w->chunk;
	w->old_state = w->state;
	w->chunk = (uint8_t)chunk;
	w->state = claimed(t, m->memory[STATE + chunk]);
	push(w, STATE + chunk, w->state, false, t->broken != CLAIM_BY_STORE);
	if (chunk == WATCHED)
		m->claims[dc_state_generation(w->state)] = (struct claim){(uint8_t)writer, w->committed};
	if (t->broken != REUSE_UNFENCED)
		fence_release(w);
	store_payload(w, chunk, 0, header_value(writer, w->committed, dc_state_generation(w->state)));
	if (t->broken == SEAL_RELAXED) {
		seal(t, m, w);
		w->step = COPY_LATE;
		return NULL;
	}
	uint64_t copied = copy_open(m, w, writer);
	seal(t, m, w);
	install(t, w, writer, copied);
	return NULL;
}

static bool claimable(const struct setting *t, const struct model *m, unsigned writer, unsigned chunk)
{
	if (chunk >= t->chunks || chunk == m->writers[writer].chunk)
		return false;
	if (m->memory[STATE + chunk] & DC_CHUNK_OWNED && t->broken != CLAIM_OWNED)
		return false;
	return !pending(&m->writers[writer], STATE + chunk, false) &&
	       !pending(&m->writers[1 - writer], STATE + chunk, true);
}

static bool none_claimable(const struct setting *t, const struct model *m, unsigned writer)
{
	for (unsigned c = 0; c < t->chunks; c++)
		if (claimable(t, m, writer, c) || pending(&m->writers[writer], STATE + c, false))
			return false;
	return true;
}

/* The compiler may move a store of the new owner before a relaxed compare-exchange that is going to succeed. */
static void foresee(struct model *m, unsigned writer, unsigned chunk)
{
	struct writer *w = &m->writers[writer];
	store_payload(w, chunk, 2, event_value(writer, w->committed, 0));
	w->foreseen = 1;
	w->old = (uint8_t)chunk; /* claim() finds it here */
	w->step = CLAIM_FORESEEN;
}

/* ---- the reader ---- */

static unsigned phase(const struct setting *t, unsigned look)
{
	if (look == LOOK_1)
		return 0;
	if (look == LOOK_2)
		return t->broken == READER_UNFENCED_2 ? 1 : 2;
	if (look == LOOK_SEALED && t->broken == READER_TIME_EARLY)
		return 0;
	return t->broken == READER_UNFENCED_1 ? 0 : 1;
}

static unsigned place_of(unsigned look)
{
	if (look == LOOK_1 || look == LOOK_2)
		return STATE + WATCHED;
	return look == LOOK_SEALED ? (unsigned)SEALED : PAYLOAD + look - LOOK_PAYLOAD;
}

static bool may_look(const struct setting *t, const struct reader *r, unsigned look)
{
	if (r->done >> look & 1)
		return false;
	for (unsigned k = 0; k < LOOKS; k++)
		if (!(r->done >> k & 1) && phase(t, k) < phase(t, look))
			return false;
	return true;
}

#define ALL_LOOKS ((UINT64_C(1) << LOOKS) - 1)

static void look(struct model *m, unsigned which)
{
	struct reader *r = &m->reader;
	if (!r->done)
		r->before = m->memory[STATE + WATCHED];
	r->seen[which] = m->memory[place_of(which)];
	r->done |= UINT64_C(1) << which;
	if (which != LOOK_1)
		return;
	for (unsigned slot = dc_state_bytes(r->seen[LOOK_1]); slot < SLOTS; slot++)
		r->done |= UINT64_C(1) << (LOOK_PAYLOAD + slot); /* not committed: of no interest any more */
}

/* keep_chunk() of the snapshot. */
static bool keeps(const struct setting *t, const struct reader *r)
{
	uint64_t s1 = r->seen[LOOK_1], s2 = t->broken == READER_LOOKS_ONCE ? s1 : r->seen[LOOK_2];
	return dc_state_bytes(s1) && dc_state_generation(s1) == dc_state_generation(s2) &&
	       (t->broken == READER_IGNORES_SIZE || dc_state_bytes(s1) <= dc_state_bytes(s2));
}

/* Everything is read: was it right? */
static const char *judge(const struct setting *t, const struct model *m)
{
	const struct reader *r = &m->reader;
	uint64_t s1 = r->seen[LOOK_1], now = m->memory[STATE + WATCHED];
	bool kept = keeps(t, r);
	for (unsigned slot = 0; kept && slot < dc_state_bytes(s1); slot++)
		if (r->seen[LOOK_PAYLOAD + slot] != expected(m, s1, slot))
			return "kept bytes that were not committed under this generation";
	if (dc_state_bytes(s1) && !(s1 & DC_CHUNK_OWNED) && r->seen[LOOK_SEALED] < dc_state_generation(s1))
		return "a sealed chunk taken for older than it is";
	if (dc_state_bytes(r->before) && dc_state_generation(r->before) == dc_state_generation(now) &&
	    (!kept || dc_state_bytes(s1) < dc_state_bytes(r->before)))
		return "committed events lost without recycling";
	return NULL;
}

/* ---- all of it ---- */

static bool quiet(const struct model *m)
{
	for (unsigned i = 0; i < WRITERS; i++)
		if (m->writers[i].step != DONE || m->writers[i].buffered)
			return false;
	return true;
}

static const char *judge_quiet(const struct setting *t, const struct model *m)
{
	uint64_t at_rest = m->memory[STATE + WATCHED];
	for (unsigned slot = 0; slot < dc_state_bytes(at_rest); slot++)
		if (m->memory[PAYLOAD + slot] != expected(m, at_rest, slot))
			return "at rest a chunk holds what its last owner did not put there";
	for (unsigned i = 0; i < WRITERS; i++) {
		const struct writer *w = &m->writers[i];
		if (w->committed + w->dropped != t->events)
			return "events neither recorded nor counted as dropped";
		if (w->chunk == WATCHED &&
		    (at_rest != w->state ||
		     (m->memory[PAYLOAD] >> 8 & 255) + dc_state_events(w->state) != w->committed))
			return "running numbers do not add up";
	}
	return NULL;
}

/*
 * Transition number @n of a state: each writer's stores leaving, claims, the late copy; the reader's looks.
 * Return: whether it can happen; then *@m is the state after it and *@ret_wrong what that violates, or NULL.
 */
#define WRITER_MOVES (BUFFER + CHUNKS + 1)
#define MOVES (WRITERS * WRITER_MOVES + LOOKS)

static bool writer_moves(const struct setting *t, struct model *m, unsigned writer, unsigned n,
			 const char **ret_wrong)
{
	struct writer *w = &m->writers[writer];
	if (n < BUFFER) {
		if (n >= w->buffered || !may_leave(w, n))
			return false;
		leave(m, w, n);
		return true;
	}
	n -= BUFFER;
	if (n < CHUNKS && w->step == CLAIM_FORESEEN) {
		if (n != w->old || !claimable(t, m, writer, n))
			return false;
		*ret_wrong = claim(t, m, writer, n);
		return true;
	}
	if (n < CHUNKS && w->step == CLAIM && t->broken == CLAIM_RELAXED) {
		if (n >= t->chunks || n == w->chunk)
			return false;
		foresee(m, writer, n);
		return true;
	}
	if (n < CHUNKS && w->step == CLAIM) {
		if (!claimable(t, m, writer, n))
			return false;
		*ret_wrong = claim(t, m, writer, n);
		return true;
	}
	if (n == CHUNKS && w->step == COPY_LATE) {
		install(t, w, writer, copy_open(m, w, writer));
		return true;
	}
	if (n == CHUNKS && w->step == CLAIM && none_claimable(t, m, writer)) {
		w->dropped++;
		if (++w->tried == t->events)
			w->step = DONE;
		return true;
	}
	return false;
}

static bool reader_moves(const struct setting *t, struct model *m, unsigned n, const char **ret_wrong)
{
	if (!may_look(t, &m->reader, n))
		return false;
	look(m, n);
	if (m->reader.done == ALL_LOOKS)
		*ret_wrong = judge(t, m);
	return true;
}

static bool moves(const struct setting *t, struct model *m, unsigned n, const char **ret_wrong)
{
	*ret_wrong = NULL;
	bool can = n < WRITERS * WRITER_MOVES
			   ? writer_moves(t, m, n / WRITER_MOVES, n % WRITER_MOVES, ret_wrong)
			   : reader_moves(t, m, n - WRITERS * WRITER_MOVES, ret_wrong);
	if (can && !*ret_wrong && !m->reader.done && quiet(m))
		*ret_wrong = judge_quiet(t, m);
	return can;
}

/* ---- the search ---- */

struct seen {
	uint64_t *prints; /* 0: free */
	size_t slots;
	size_t count;
};

static uint64_t fingerprint(const struct model *m)
{
	const uint64_t *words = (const uint64_t *)m;
	uint64_t h = 0x9e3779b97f4a7c15u;
	for (size_t i = 0; i < sizeof *m / 8; i++) {
		h = (h ^ words[i]) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	return h ? h : 1;
}

static void seen_grow(struct seen *s)
{
	struct seen bigger = {calloc(s->slots * 2, sizeof *s->prints), s->slots * 2, s->count};
	assert_non_null(bigger.prints);
	for (size_t i = 0; i < s->slots; i++) {
		size_t at = s->prints[i] % bigger.slots;
		while (s->prints[i] && bigger.prints[at])
			at = (at + 1) % bigger.slots;
		if (s->prints[i])
			bigger.prints[at] = s->prints[i];
	}
	free(s->prints);
	*s = bigger;
}

/* Whether the state is new. */
static bool seen_add(struct seen *s, const struct model *m)
{
	uint64_t print = fingerprint(m);
	if (s->count * 2 > s->slots)
		seen_grow(s);
	size_t at = print % s->slots;
	for (; s->prints[at]; at = (at + 1) % s->slots)
		if (s->prints[at] == print)
			return false;
	s->prints[at] = print;
	s->count++;
	return true;
}

#define DEPTH 512u

struct frame {
	struct model model;
	unsigned move;
};

static void begin(struct model *m)
{
	memset(m, 0, sizeof *m);
	memset(m->owner, NONE, sizeof m->owner);
	for (unsigned i = 0; i < WRITERS; i++)
		m->writers[i].chunk = m->writers[i].old = NONE;
}

/* All that can happen from the beginning on. Return: the first thing wrong, or NULL; and how many states. */
static const char *explore(const struct setting *t, size_t *ret_states)
{
	struct frame *path = calloc(DEPTH, sizeof *path);
	struct seen seen = {calloc(1 << 16, sizeof *seen.prints), 1 << 16, 0};
	const char *wrong = NULL;
	unsigned depth = 1;
	assert_non_null(path);
	assert_non_null(seen.prints);
	begin(&path[0].model);
	seen_add(&seen, &path[0].model);
	while (depth && !wrong) {
		struct frame *now = &path[depth - 1], *next = now + 1;
		if (now->move == MOVES || now->model.reader.done == ALL_LOOKS) {
			depth--;
			continue;
		}
		assert_true(depth < DEPTH);
		memcpy(&next->model, &now->model, sizeof next->model);
		if (moves(t, &next->model, now->move++, &wrong) && !wrong && seen_add(&seen, &next->model)) {
			next->move = 0;
			depth++;
		}
	}
	*ret_states = seen.count;
	free(seen.prints);
	free(path);
	return wrong;
}

static void explore_whole(unsigned chunks, unsigned per_chunk, unsigned events)
{
	struct setting t = {chunks, per_chunk, events, NOTHING};
	size_t states;
	const char *wrong = explore(&t, &states);
	print_message("%u chunks of %u events, %u events a writer: %zu states, %s\n", chunks, per_chunk,
		      events, states, wrong ? wrong : "all right");
	assert_null(wrong);
}

/* A pool so small that writers take each other's chunks and drop events. */
static void test_two_chunks(void **state)
{
	(void)state;
	explore_whole(2, 1, 3);
}

/* Several commits in a chunk: the reader comes between them. */
static void test_two_events_a_chunk(void **state)
{
	(void)state;
	explore_whole(2, 2, 4);
}

/* Both can always switch: chunks go from one to the other while both are busy. */
static void test_three_chunks(void **state)
{
	(void)state;
	explore_whole(3, 1, getenv("DASHCAM_LONG") ? 3 : 2);
}

/* Each rule is needed: without it the checker finds something wrong. */
static void test_broken_rules_are_found(void **state)
{
	static const char *const names[] = {
		[COMMIT_RELAXED] = "commit without release",
		[REUSE_UNFENCED] = "no release fence after the claim",
		[CLAIM_RELAXED] = "claim without acquire",
		[SEAL_RELAXED] = "seal without release",
		[CLAIM_BY_STORE] = "claim by load and store",
		[CLAIM_OWNED] = "claim of an owned chunk",
		[NO_GENERATION] = "claim without a new generation",
		[READER_UNFENCED_1] = "reader: no fence before the payload",
		[READER_UNFENCED_2] = "reader: no fence after the payload",
		[READER_LOOKS_ONCE] = "reader: no second look",
		[READER_TIME_EARLY] = "reader: time unordered with the state",
	};
	(void)state;
	for (enum broken b = COMMIT_RELAXED; b <= READER_TIME_EARLY; b++) {
		struct setting t = {2, 1, 3, b};
		size_t states;
		const char *wrong = explore(&t, &states);
		print_message("%s: %s (%zu states)\n", names[b], wrong ? wrong : "NOT FOUND", states);
		assert_non_null(wrong);
	}
}

/*
 * Under one generation the size only rises, so a writer that follows the protocol never makes it the deciding
 * comparison. The reader makes it nevertheless, against rings that lie.
 */
static void test_size_matters_only_to_liars(void **state)
{
	struct setting t = {2, 2, 3, READER_IGNORES_SIZE};
	size_t states;
	(void)state;
	assert_null(explore(&t, &states));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_chunks),
		cmocka_unit_test(test_two_events_a_chunk),
		cmocka_unit_test(test_three_chunks),
		cmocka_unit_test(test_broken_rules_are_found),
		cmocka_unit_test(test_size_matters_only_to_liars),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
