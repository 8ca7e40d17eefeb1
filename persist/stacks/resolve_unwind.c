/* SPDX-License-Identifier: MIT */
/*
 * The work of the child that unwinds: opens the modules, walks the stacks of all samples of the job, and sends each frame
 * and each stack once.
 *
 * Most processes have one list of mappings for all their life. Where mappings overlap (something was unmapped and something
 * else came to lie there) each moment has its own: of two that overlap the one counts that was there then; else the one
 * that came next, since both coming and going are only seen when somebody looks.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "ipc/grow.h"
#include "persist/stacks/feed.h"
#include "persist/stacks/message.h"
#include "persist/stacks/resolve_inside.h"
#include "persist/stacks/sample.h"
#include "persist/stacks/sandbox.h"
#include "persist/stacks/unwind.h"

#define SEND_BYTES (256u << 10)
#define LOOK_AT_CLOCK 64u /* samples */
#define RECENT_FRAMES 4096u /* a power of two */

struct recent { /* a frame that was added */
	uint64_t address;
	uint32_t flags;
	uint32_t number; /* 0: none */
};

struct placed { /* a mapping in the list */
	uint32_t map;
	uint64_t distance; /* in time, see distance() */
};

struct unwinding {
	const struct dc_unwind_job *job;
	const struct dc_resolver *r;
	int out_fd;
	struct dc_module **modules; /* by map; at the canonical one */
	int64_t *bases; /* by map: virtual address less address, or less offset in the file */
	bool *in_file; /* by map: the latter */
	uint32_t kernel; /* map, ~0: none */
	/* The list of now. */
	struct dc_unwind_map *list;
	uint32_t *list_map; /* by place in the list */
	struct placed *order;
	uint32_t list_count;
	int64_t valid_from_ns;
	int64_t valid_until_ns;
	struct dc_unwinder *unwinder;
	struct dc_unwound *unwound;
	struct dc_intern frames;
	struct recent *recent; /* of the list of now, by their addresses: nearly all frames are among them */
	struct dc_intern stacks;
	uint32_t numbers[DC_STACKS_DEPTH_MAX]; /* frames of the stack at hand */
	uint32_t depth;
	struct dc_message_sample *results; /* that are not sent yet */
	uint32_t result_count;
	uint32_t result_room;
	uint32_t sample_count; /* by now */
	uint32_t frames_sent;
	uint32_t stacks_sent;
	uint32_t *found; /* frames of the addresses */
};

static void unwinding_cleanup(struct unwinding *u)
{
	for (uint32_t i = 0; u->modules && i < u->r->map_count; i++)
		dc_module_close(u->modules[i]);
	dc_unwinder_free(u->unwinder);
	dc_intern_fini(&u->stacks);
	dc_intern_fini(&u->frames);
	free(u->recent);
	free(u->found);
	free(u->results);
	free(u->unwound);
	free(u->order);
	free(u->list_map);
	free(u->list);
	free(u->in_file);
	free(u->bases);
	free(u->modules);
}

/* --- faults --- */

/* What we are at. For the handlers. */
static struct {
	int out_fd;
	struct dc_message_fault at;
	volatile uint32_t steps; /* samples and modules begun */
	volatile bool busy; /* with one of them, not with what comes or goes through a pipe */
	uint32_t steps_seen; /* at the last tick */
	unsigned ticks; /* that have passed since then */
} here;

static void tell_fault(void)
{
	dc_message_send(here.out_fd, DC_MESSAGE_FAULT, &here.at, sizeof here.at);
}

static void at_module(uint32_t map)
{
	here.at.map = map;
	here.steps++;
	here.busy = true;
}

static void at_sample(uint32_t sample)
{
	here.at.sample = sample;
	here.steps++;
	here.busy = true;
}

/* One sample or module for two whole ticks: we shall never be done with it. Then SIGALRM ends us, as a fault would. */
static void on_tick(int signal)
{
	const bool same = here.busy && here.steps == here.steps_seen;

	here.steps_seen = here.steps;
	here.ticks = same ? here.ticks + 1 : 0;
	if (here.ticks < 2)
		return;
	sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	tell_fault();
	raise(signal); /* when we return */
}

/* A sample or module has as much of the time that is left as lets others that hang have theirs, and the rest be done. */
static void tick(int64_t left_ns)
{
	const struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART | SA_ONSTACK};
	const int64_t us = left_ns > 0 ? left_ns / (DC_UNWIND_TRIES + 2) / 2 / 1000 + 1 : 1;
	const struct timeval time = {us / 1000000, us % 1000000};

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &(struct itimerval){time, time}, NULL);
}

static void begin(const struct dc_unwind_job *job, int out_fd)
{
	here.out_fd = out_fd;
	here.at = (struct dc_message_fault){UINT32_MAX, UINT32_MAX};
	dc_sandbox_before_end(tell_fault);
	tick(job->deadline_ns - dc_resolve_now_ns());
}

static bool of_user(const struct dc_map_entry *m)
{
	return !(m->flags & DC_MAP_KERNEL) && m->start < m->end;
}

static void open_modules(struct unwinding *u)
{
	for (uint32_t i = 0; i < u->r->map_count; i++) {
		const struct dc_map_entry *m = &u->r->maps[i];
		const uint32_t canon = u->r->canon[i];
		uint64_t vaddr = m->offset;
		int fd = -1;

		if (m->flags & DC_MAP_KERNEL)
			u->kernel = u->kernel == UINT32_MAX ? i : u->kernel;
		at_module(i);
		if (of_user(m) && canon == i && !u->r->spoilt[i])
			fd = dc_resolve_open(u->r, i, &u->modules[i]);
		if (fd >= 0)
			close(fd);
		u->in_file[i] = !u->modules[canon] || !dc_module_vaddr(u->modules[canon], m->offset, &vaddr);
		u->bases[i] = (int64_t)(vaddr - m->start);
	}
	here.at.map = UINT32_MAX;
	here.busy = false;
}

/* --- the list of mappings --- */

/* 0: it was there; then those to come, the next one first; then those gone, the last one first. */
static uint64_t distance(const struct dc_map_entry *m, int64_t at_ns)
{
	if (m->from_ns && at_ns < m->from_ns)
		return ((uint64_t)m->from_ns - (uint64_t)at_ns) / 2;
	if (m->until_ns && at_ns >= m->until_ns)
		return UINT64_MAX / 2 + ((uint64_t)at_ns - (uint64_t)m->until_ns) / 2;
	return 0;
}

static int by_distance(const void *left, const void *right)
{
	const struct placed *a = left, *b = right;

	if (a->distance != b->distance)
		return a->distance < b->distance ? -1 : 1;
	return a->map > b->map ? -1 : a->map < b->map; /* the later one */
}

/* The first place whose mapping ends behind @address. */
static uint32_t place_of(const struct unwinding *u, uint64_t address)
{
	uint32_t low = 0, high = u->list_count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (u->list[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool list_insert(struct unwinding *u, uint32_t map)
{
	const struct dc_map_entry *m = &u->r->maps[map];
	const uint32_t at = place_of(u, m->start);

	if (at < u->list_count && u->list[at].start < m->end)
		return false;
	memmove(u->list + at + 1, u->list + at, (u->list_count - at) * sizeof *u->list);
	memmove(u->list_map + at + 1, u->list_map + at, (u->list_count - at) * sizeof *u->list_map);
	u->list[at] = (struct dc_unwind_map){.start = m->start,
					     .end = m->end,
					     .offset = m->offset,
					     .module = u->modules[u->r->canon[map]]};
	u->list_map[at] = map;
	u->list_count++;
	return true;
}

/* The next moment after @at_ns when a mapping came or went. */
static int64_t next_change(const struct unwinding *u, int64_t at_ns)
{
	int64_t next = INT64_MAX;

	for (uint32_t i = 0; i < u->r->map_count; i++) {
		const struct dc_map_entry *m = &u->r->maps[i];

		next = m->from_ns > at_ns && m->from_ns < next ? m->from_ns : next;
		next = m->until_ns > at_ns && m->until_ns < next ? m->until_ns : next;
	}
	return next;
}

static int make_list(struct unwinding *u, int64_t at_ns)
{
	uint32_t count = 0;
	bool varies = false; /* some do not get in: at another time it is another list */

	for (uint32_t i = 0; i < u->r->map_count; i++)
		if (of_user(&u->r->maps[i]))
			u->order[count++] = (struct placed){i, distance(&u->r->maps[i], at_ns)};
	qsort(u->order, count, sizeof *u->order, by_distance);
	u->list_count = 0;
	for (uint32_t i = 0; i < count; i++)
		varies |= !list_insert(u, u->order[i].map);
	u->valid_from_ns = varies ? at_ns : INT64_MIN;
	u->valid_until_ns = varies ? next_change(u, at_ns) : INT64_MAX;
	memset(u->recent, 0, RECENT_FRAMES * sizeof *u->recent);
	dc_unwinder_free(u->unwinder);
	u->unwinder = NULL;
	return dc_unwinder_new(u->list, u->list_count, &u->unwinder);
}

/* --- frames --- */

static int make_frame(struct unwinding *u, uint64_t address, uint32_t flags, uint32_t *ret_number)
{
	const uint64_t at = flags & DC_FRAME_CALL ? address - 1 : address; /* a call may be the last of its mapping */
	struct dc_frame f = {.address = address, .map = UINT32_MAX, .flags = flags};
	int r;

	if (flags & DC_FRAME_KERNEL) {
		f.map = u->kernel;
		f.offset = address;
	} else {
		const uint32_t place = place_of(u, at);

		if (place < u->list_count && u->list[place].start <= at) {
			f.map = u->list_map[place];
			f.offset = address + (uint64_t)u->bases[f.map];
			f.flags |= u->in_file[f.map] ? DC_FRAME_FILE : 0;
		}
	}
	r = dc_intern_put(&u->frames, &f, sizeof f, ret_number);
	return r < 0 ? r : 0;
}

static int add_frame(struct unwinding *u, uint64_t address, uint32_t flags, uint32_t *ret_number)
{
	struct recent *known = &u->recent[(address ^ address >> 12) % RECENT_FRAMES];
	int r = 0;

	if (!known->number || known->address != address || known->flags != flags) {
		r = make_frame(u, address, flags, ret_number);
		*known = r < 0 ? (struct recent){0} : (struct recent){address, flags, *ret_number};
	}
	*ret_number = known->number;
	return r;
}

static int push(struct unwinding *u, uint64_t address, uint32_t flags)
{
	if (u->depth == DC_STACKS_DEPTH_MAX)
		return 0;
	return add_frame(u, address, flags, &u->numbers[u->depth++]);
}

/*
 * Of the addresses that the kernel or the guest walked: those of the user, or those of the kernel. The first of either is
 * where it was, the others are return addresses.
 */
static int push_ips(struct unwinding *u, const struct dc_sample_parts *p, bool kernel)
{
	bool in_kernel = p->head.flags & DC_SAMPLE_KERNEL, known = true, first = true;
	int r = 0;

	for (uint32_t i = 0; i < p->head.ip_count && r == 0; i++) {
		if (p->ips[i] >= DC_IP_MARKER_MIN) {
			in_kernel = p->ips[i] == DC_IP_KERNEL;
			known = in_kernel || p->ips[i] == DC_IP_USER;
		} else if (known && in_kernel == kernel && p->ips[i]) {
			r = push(u, p->ips[i], (kernel ? DC_FRAME_KERNEL : 0) | (first ? 0 : DC_FRAME_CALL));
			first = false;
		}
	}
	return r;
}

static int push_unwound(struct unwinding *u)
{
	int r = 0;

	for (uint32_t i = 0; i < u->unwound->count && r == 0; i++)
		r = push(u, u->unwound->addresses[i], u->unwound->flags[i]);
	return r;
}

/* Return: 0, also when there is nothing to unwind; -ENOMEM. */
static int walk(struct unwinding *u, const struct dc_sample_parts *p, struct dc_message_sample *result)
{
	int r = push_ips(u, p, true);

	if (r < 0)
		return r;
	if (p->head.reg_count && dc_unwind(u->unwinder, p->regs, p->head.reg_count, p->stack, p->head.stack_bytes, u->unwound) == 0) {
		result->end = u->unwound->to_root ? DC_MESSAGE_END_ROOT : DC_MESSAGE_END_BEFORE;
		result->stack_used = u->unwound->stack_used;
		return push_unwound(u);
	}
	result->end = DC_MESSAGE_END_UNKNOWN;
	return push_ips(u, p, false);
}

/* Only samples that were taken all the time say what their copies should be like. */
static uint32_t used_of(const struct dc_sample *s, const struct dc_message_sample *result)
{
	if (!s->stack_bytes || (s->kind != DC_SAMPLE_CPU && s->kind != DC_SAMPLE_OFF))
		return UINT32_MAX;
	if (result->end == DC_MESSAGE_END_BEFORE && (s->flags & DC_SAMPLE_STACK_CUT))
		return s->stack_bytes < UINT32_MAX / 2 ? 2 * s->stack_bytes : UINT32_MAX - 1; /* more than there was */
	return result->stack_used;
}

static int resolve_sample(struct unwinding *u, const struct dc_sample_parts *p, struct dc_message_sample *result)
{
	int r = 0;

	if (p->head.monotonic_ns >= u->valid_until_ns || p->head.monotonic_ns < u->valid_from_ns)
		r = make_list(u, p->head.monotonic_ns);
	u->depth = 0;
	if (r == 0)
		r = walk(u, p, result);
	if (r == 0 && u->depth)
		r = dc_intern_put(&u->stacks, u->numbers, u->depth * 4, &result->stack);
	result->stack_used = used_of(&p->head, result);
	return r < 0 ? r : 0;
}

static struct dc_message_sample *next_result(struct unwinding *u)
{
	if (GROW(u->results, u->result_count, u->result_room, 4096) < 0)
		return NULL;
	u->results[u->result_count] = (struct dc_message_sample){0};
	return &u->results[u->result_count++];
}

static bool is_skipped(const struct unwinding *u, uint32_t sample)
{
	for (uint32_t i = 0; i < u->job->skip_count; i++)
		if (u->job->skips[i] == u->job->first + sample)
			return true;
	return false;
}

/* Return: 0, 1: the time is over, -ENOMEM, -EBADMSG. */
static int resolve_piece(struct unwinding *u, const uint8_t *bytes, size_t size)
{
	struct dc_sample_parts p;

	for (size_t at = 0; at < size; at += p.head.bytes) {
		int r = dc_sample_at(bytes + at, size - at, &p);
		struct dc_message_sample *result = r < 0 ? NULL : next_result(u);

		at_sample(u->sample_count++);
		if (r == 0 && !result)
			r = -ENOMEM;
		if (r == 0 && !is_skipped(u, here.at.sample))
			r = resolve_sample(u, &p, result);
		if (r < 0)
			return r;
		if (u->sample_count % LOOK_AT_CLOCK == 0 && dc_resolve_now_ns() >= u->job->deadline_ns)
			return 1;
	}
	return 0;
}

/* --- sending --- */

/* Those behind @sent. */
static int send_items(const struct unwinding *u, uint32_t type, const struct dc_intern *t, uint32_t sent, bool counted)
{
	CLEANUP(free) uint8_t *buffer = sent < t->count ? malloc(SEND_BYTES + 4 + 4 * DC_STACKS_DEPTH_MAX) : NULL;
	size_t used = 0;
	int r = buffer || sent == t->count ? 0 : -ENOMEM;

	for (uint32_t n = sent + 1; n <= t->count && r == 0; n++) {
		uint32_t size;
		const void *item = dc_intern_get(t, n, &size);

		if (counted) {
			const uint32_t count = size / 4;

			memcpy(buffer + used, &count, 4);
			used += 4;
		}
		memcpy(buffer + used, item, size);
		used += size;
		if (used >= SEND_BYTES || n == t->count) {
			r = dc_message_send(u->out_fd, type, buffer, used);
			used = 0;
		}
	}
	return r;
}

/* What came of the samples by now, so that a fault costs the piece at hand, which the next child gets again. */
static int send_news(struct unwinding *u)
{
	int r = send_items(u, DC_MESSAGE_FRAMES, &u->frames, u->frames_sent, false);

	if (r == 0)
		r = send_items(u, DC_MESSAGE_STACKS, &u->stacks, u->stacks_sent, true);
	if (r == 0 && u->result_count)
		r = dc_message_send(u->out_fd, DC_MESSAGE_SAMPLES, u->results, u->result_count * sizeof *u->results);
	u->frames_sent = u->frames.count;
	u->stacks_sent = u->stacks.count;
	u->result_count = 0;
	return r;
}

static int resolve_samples(struct unwinding *u)
{
	char why[160];
	const uint8_t *bytes;
	size_t size;
	int r = 0, sent;

	while (r == 0 && u->job->feed && (r = dc_feed_take(u->job->feed, &bytes, &size)) > 0) {
		r = resolve_piece(u, bytes, size);
		here.busy = false;
		sent = r < 0 ? 0 : send_news(u);
		r = sent < 0 ? sent : r;
	}
	here.at.sample = UINT32_MAX;
	if (r == 0)
		r = dc_resolve_tell_cut("unwinding", u->out_fd);
	if (r < 1)
		return r;
	snprintf(why, sizeof why, "unwinding: the time was over after %u samples", u->sample_count);
	return dc_message_send(u->out_fd, DC_MESSAGE_WHY, why, strlen(why));
}

static int resolve_addresses(struct unwinding *u)
{
	for (uint32_t i = 0; i < u->job->address_count; i++) {
		int r = add_frame(u, u->job->addresses[i], DC_FRAME_CALL, &u->found[i]);

		if (r < 0)
			return r;
	}
	if (!u->job->address_count)
		return 0;
	const int r = send_news(u);
	return r < 0 ? r : dc_message_send(u->out_fd, DC_MESSAGE_ADDRESSES, u->found, 4 * (size_t)u->job->address_count);
}

static int allocate(struct unwinding *u)
{
	const size_t maps = (size_t)u->r->map_count + 1;

	u->modules = calloc(maps, sizeof(*u->modules));
	u->bases = calloc(maps, sizeof *u->bases);
	u->in_file = calloc(maps, sizeof *u->in_file);
	u->list = calloc(maps, sizeof *u->list);
	u->list_map = calloc(maps, sizeof *u->list_map);
	u->order = calloc(maps, sizeof *u->order);
	u->unwound = calloc(1, sizeof *u->unwound);
	u->recent = calloc(RECENT_FRAMES, sizeof *u->recent);
	u->found = calloc((size_t)u->job->address_count + 1, sizeof *u->found);
	return u->modules && u->bases && u->in_file && u->list && u->list_map && u->order && u->unwound && u->recent && u->found
		       ? 0
		       : -ENOMEM;
}

int dc_resolve_unwind_work(void *arg, int out_fd)
{
	const struct dc_unwind_job *job = arg;
	CLEANUP(unwinding) struct unwinding u = {.job = job, .r = job->resolver, .out_fd = out_fd, .kernel = UINT32_MAX};
	int r = allocate(&u);

	begin(job, out_fd);
	if (r == 0) {
		open_modules(&u);
		r = make_list(&u, INT64_MAX);
	}
	if (r == 0)
		r = resolve_samples(&u);
	return r < 0 ? r : resolve_addresses(&u);
}
