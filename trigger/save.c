/* SPDX-License-Identifier: MIT */
#include "trigger/save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "ipc/now.h"
#include "trigger/crash.h"
#include "trigger/guest_samples.h"

#define QUEUE 8u /* 1 MiB buffers in flight */
#define NAME_TRIES 10u
#define CRASH_WAITS_NS 30000000 /* of the 50 ms that a dying process gives us */
#define THREADS_FEW 64u /* stopped and copied within some milliseconds */

int dc_save_new(const struct dc_incident *incident, const struct dc_save_output *output,
		struct dc_save **ret_save)
{
	struct dc_save *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->incident = *incident;
	s->output = *output;
	s->dir_fd = -1;
	*ret_save = s;
	return 0;
}

void dc_save_abort(struct dc_save *s)
{
	if (s->writer)
		dc_writer_close(TAKE(s->writer), false);
	for (uint32_t i = 0; i < s->count; i++) {
		dc_snapshot_free(TAKE(s->members[i].snapshot));
		s->members[i].maps_mark = (struct dc_maps_mark){0};
		s->members[i].threads_asked = s->members[i].threads != NULL;
	}
	if (s->dir_fd >= 0)
		close(TAKE_FD(s->dir_fd));
}

void dc_save_free(struct dc_save *s)
{
	if (!s)
		return;
	dc_save_abort(s);
	for (uint32_t i = 0; i < s->count; i++) {
		dc_threads_free(s->members[i].threads);
		dc_ring_unref(s->members[i].ring);
	}
	free(s->members);
	free(s);
}

int dc_save_add(struct dc_save *s, struct dc_ring *ring)
{
	struct dc_member *members;

	if (s->count == 0) {
		s->uid = ring->uid;
		s->gid = ring->gid;
	} else if (ring->uid != s->uid) {
		return -EPERM;
	}
	members = reallocarray(s->members, s->count + 1, sizeof(*members));
	if (!members)
		return -ENOMEM;
	s->members = members;
	members[s->count] = (struct dc_member){.ring = dc_ring_ref(ring)};
	dc_process_fill(&members[s->count].process, ring);
	s->count++;
	return 0;
}

bool dc_save_has(const struct dc_save *s, uint32_t ns_pid, uint64_t start_time)
{
	for (uint32_t i = 0; i < s->count; i++) {
		const struct dc_ring_header *h = &s->members[i].ring->header;

		if (h->pid == ns_pid && h->start_time == start_time)
			return true;
	}
	return false;
}

void dc_save_path(const struct dc_save *s, char *ret_path, size_t size)
{
	snprintf(ret_path, size, "%s/%s", s->dir, s->name);
}

/* What the file's name says besides time and process: the app's own word for it, the rule's name, else the kind of trigger. */
static const char *name_reason(const struct dc_save *s)
{
	const struct dc_incident *i = &s->incident;

	if (i->reason == DC_REASON_RULE && i->rule[0])
		return i->rule;
	return i->reason == DC_REASON_API && i->text[0] ? i->text : dc_reason_name(i->reason);
}

/* <dir>/<uid> is that user's and closed to others; without per_uid all go into <dir>, which is ours. */
static int open_dir(struct dc_save *s)
{
	const uint32_t uid = s->output.per_uid ? s->uid : geteuid();

	if (s->output.per_uid)
		snprintf(s->dir, sizeof(s->dir), "%.480s/%u", s->output.dir, s->uid);
	else
		snprintf(s->dir, sizeof(s->dir), "%.500s", s->output.dir);
	s->why[0] = '\0';
	return dc_store_open(uid, s->dir, &s->dir_fd, s->why);
}

/* Between choosing a name and making the file another watcher may take it. */
static int open_writer(struct dc_save *s)
{
	const struct dc_process *p = &s->members[0].process;
	int r = -EEXIST;

	for (unsigned tries = 0; r == -EEXIST && tries < NAME_TRIES; tries++) {
		if (s->output.name)
			snprintf(s->name, sizeof(s->name), "%s", s->output.name);
		else if (!s->name[0] || tries)
			r = dc_store_name(s->dir_fd, s->incident.at_realtime_ns, p->name, name_reason(s),
					  s->name);
		if (r == 0 || r == -EEXIST)
			r = dc_writer_open(s->dir_fd, s->name, s->output.writer_flags, QUEUE, s->capture_id,
					   &s->writer);
		if (s->output.name)
			break;
	}
	if (r == 0 && s->output.per_uid && s->uid != geteuid())
		r = dc_writer_owner(s->writer, s->uid, s->gid);
	return r;
}

/* Where /proc was not to be read, or was not in time, the guest's own table of modules has to do. */
static int write_modules(struct dc_save *s, uint32_t index)
{
	CLEANUP(dc_ring_tables) struct dc_ring_tables t = {0};
	CLEANUP(dc_maps) struct dc_maps *maps = NULL;
	int r = dc_ring_tables(s->members[index].ring, &t);

	if (r < 0)
		return 0; /* the snapshot will say so */
	maps = dc_maps_of_modules(dc_ring_tables_modules(&t), t.counts.module_count, dc_ring_tables_strings(&t),
				  t.counts.strings_bytes);
	if (maps && dc_maps_count(s->members[index].ring->maps) > 0)
		dc_maps_kernel(maps);
	return dc_maps_write(maps, s->writer, index, &s->members[index].maps_mark);
}

static int write_maps(struct dc_save *s, uint32_t index)
{
	struct dc_member *m = &s->members[index];

	if (!dc_maps_of_process(m->ring->maps))
		return write_modules(s, index);
	return dc_maps_write(m->ring->maps, s->writer, index, &m->maps_mark);
}

static bool same_process(const struct dc_member *a, const struct dc_member *b)
{
	return a->process.pid == b->process.pid && a->process.start_time == b->process.start_time;
}

/* Once a process, of which there may be several rings; and only of one that is proved to be the one it says it is. */
static bool threads_wanted(const struct dc_save *s, const struct dc_member *m)
{
	if (s->threads_ns <= 0 || !m->process.alive || !m->process.verified || m->ring->elsewhere)
		return false;
	for (uint32_t i = 0; i < s->count; i++)
		if (s->members[i].threads_asked && same_process(&s->members[i], m))
			return false;
	return true;
}

static void note_threads(struct dc_save *s, struct dc_process *p, const struct dc_threads_totals *t, int error)
{
	s->threads_ns -= (int64_t)t->took_ns;
	p->threads_taken = t->taken;
	p->threads_refused = t->refused;
	p->stopped_median_ns = t->stopped_median_ns;
	snprintf(p->threads_why, sizeof(p->threads_why), "%s", error < 0 ? strerror(-error) : t->why);
}

/* That a process is gone by now, or lets nobody stop it, is no error of the capture's. Return: 0, the writer's error. */
static int write_threads(struct dc_save *s, uint32_t index)
{
	struct dc_member *m = &s->members[index];
	struct dc_threads_totals t = {0};
	int r;

	if (!threads_wanted(s, m))
		return 0;
	m->threads_asked = true;
	r = dc_threads_write(m->process.pid, m->process.start_time, index, s->threads_ns, s->writer, &t);
	note_threads(s, &m->process, &t, r);
	return dc_writer_error(s->writer);
}

static int copy_bare(struct dc_save *s, uint32_t index)
{
	int r = dc_writer_process(s->writer, index, &s->members[index].process);

	if (r == 0)
		r = write_threads(s, index);
	if (r == 0)
		r = write_maps(s, index);
	return r < 0 ? r : 1;
}

/* One ring, first pass. A ring that cannot be read takes nothing from the others. Return: 1 copied, 0 not, -errno. */
static int copy_member(struct dc_save *s, uint32_t index)
{
	struct dc_member *m = &s->members[index];
	const bool few = dc_threads_count(m->process.pid) <= THREADS_FEW;
	uint64_t from, to;
	int r;

	if (m->ring->bare)
		return copy_bare(s, index);
	r = dc_incident_edges(&s->incident, m->ring, &from, &to);
	if (r == 0)
		r = dc_snapshot_new(m->ring, index, from, to, &m->snapshot);
	if (r == 0)
		r = dc_writer_process(s->writer, index, &m->process);
	if (r == 0)
		r = write_maps(s, index);
	if (r == 0 && few) /* what they do changes at once, but so does the ring */
		r = write_threads(s, index);
	if (r == 0)
		r = dc_snapshot_pass(m->snapshot, s->writer);
	if (r == 0)
		r = write_threads(s, index);
	if (r == 0)
		return 1;
	if (dc_writer_error(s->writer) < 0)
		return dc_writer_error(s->writer);
	m->unreadable = true;
	return r == -ENOMEM ? r : 0;
}

/* A process that is about to die stands until we have its threads, though not for long: not until there is a file for them. */
static void take_dying(struct dc_save *s)
{
	if (s->incident.reason == DC_REASON_DEATH && s->threads_ns > CRASH_WAITS_NS)
		s->threads_ns = CRASH_WAITS_NS;
	for (uint32_t i = 0; i < s->count && s->incident.reason == DC_REASON_DEATH; i++) {
		struct dc_member *m = &s->members[i];
		struct dc_threads_totals t = {0};
		int r;

		if (m->threads || !threads_wanted(s, m))
			continue;
		m->threads_asked = true;
		r = dc_threads_take(m->process.pid, m->process.start_time, s->threads_ns, &m->threads, &t);
		note_threads(s, &m->process, &t, r);
	}
	for (uint32_t i = 0; i < s->count; i++)
		dc_crash_ack(s->members[i].ring); /* what we wanted of the living we have; rings stay */
}

static int write_taken(struct dc_save *s)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < s->count; i++) {
		if (!s->members[i].threads)
			continue;
		r = dc_writer_process(s->writer, i, &s->members[i].process);
		if (r == 0)
			r = dc_threads_put(s->members[i].threads, i, s->writer);
	}
	return r;
}

static int copy_all(struct dc_save *s)
{
	uint32_t copied = 0;
	int r = dc_writer_incident(s->writer, &s->incident);

	if (r == 0)
		r = write_taken(s);
	for (uint32_t i = 0; r >= 0 && i < s->count; i++) {
		r = copy_member(s, i);
		copied += r == 1;
	}
	if (r < 0)
		return r;
	return copied ? 0 : -ENODATA;
}

int dc_save_first(struct dc_save *s)
{
	int r;

	take_dying(s);
	r = open_dir(s);
	s->began_ns = dc_now_ns();
	if (s->capture_id[0] == 0 && getrandom(s->capture_id, sizeof(s->capture_id), 0) < 0)
		return -errno;
	if (r == 0)
		r = open_writer(s);
	if (r == 0)
		r = copy_all(s);
	return r;
}

static void add_totals(struct dc_snapshot_totals *sum, const struct dc_snapshot_totals *t)
{
	sum->chunks += t->chunks;
	sum->events += t->events;
	sum->bytes += t->bytes;
	sum->discarded_chunks += t->discarded_chunks;
	sum->took_ns += t->took_ns;
	sum->copy_ns += t->copy_ns;
	sum->truncated = sum->truncated || t->truncated;
}

/* The window on the kernel's clock. */
static void sample_window(const struct dc_incident *i, int64_t *ret_from_ns, int64_t *ret_to_ns)
{
	struct dc_clock clock;
	int64_t at;

	dc_clock_init(&clock, i->clock, i->tick_shift);
	for (uint32_t k = 0; k < i->anchor_count; k++)
		dc_clock_add(&clock, &i->anchors[k]);
	at = dc_clock_monotonic_ns(&clock, i->at_units);
	*ret_from_ns = i->asked_last_ns ? at - i->asked_last_ns : 0;
	*ret_to_ns = dc_clock_monotonic_ns(&clock, i->to_units);
}

static int64_t realtime_ahead_ns(void)
{
	struct timespec real;

	clock_gettime(CLOCK_REALTIME, &real);
	return real.tv_sec * INT64_C(1000000000) + real.tv_nsec - dc_now_ns();
}

static void note_mode(struct dc_sampler *sampler, const struct dc_ring *ring, int64_t from_ns, int64_t to_ns,
		      struct dc_process *p)
{
	struct dc_sample_mode mode;

	dc_sampler_mode(sampler, p->pid, &mode);
	dc_guest_mode(ring, &mode);
	p->sample_scope = mode.scope;
	p->sample_hz = mode.hz;
	p->sample_copy_bytes = mode.copy_bytes;
	p->sample_kernel = mode.kernel;
	p->raised_hz = 0;
	if (mode.raised_hz && mode.raised_from_ns < to_ns && (!mode.raised_to_ns || mode.raised_to_ns > from_ns)) {
		p->raised_hz = mode.raised_hz;
		p->raised_from_ns = mode.raised_from_ns + realtime_ahead_ns();
		p->raised_to_ns = mode.raised_to_ns ? mode.raised_to_ns + realtime_ahead_ns() : 0;
	}
	memcpy(p->sample_why, mode.why, sizeof(p->sample_why));
}

/* Once a process: of its images the first has them. */
static int write_samples(struct dc_save *s, uint32_t index)
{
	struct dc_process *p = &s->members[index].process;
	struct dc_sampler_totals totals = {0};
	int64_t from_ns, to_ns;
	int r;

	if (!s->sampler || !p->pid || !p->verified || s->incident.anchor_count == 0)
		return 0;
	for (uint32_t i = 0; i < index; i++)
		if (s->members[i].process.pid == p->pid && s->members[i].process.start_time == p->start_time)
			return 0;
	sample_window(&s->incident, &from_ns, &to_ns);
	note_mode(s->sampler, s->members[index].ring, from_ns, to_ns, p);
	r = dc_sampler_write(s->sampler, p->pid, index, from_ns, to_ns, s->writer, &totals);
	if (r < 0)
		return r;
	p->samples_lost = totals.lost;
	p->samples_from_ns = totals.samples_from_ns;
	p->switches_from_ns = totals.switches_from_ns;
	return 0;
}

/* Those that its own threads took, whoever asked them to. */
static int write_guest_samples(struct dc_save *s, uint32_t index)
{
	const struct dc_ring *ring = s->members[index].ring;
	struct dc_process *p = &s->members[index].process;
	struct dc_sampler_totals totals = {0};
	uint64_t from, to;
	int r;

	if (ring->bare || dc_incident_edges(&s->incident, ring, &from, &to) < 0)
		return 0;
	r = dc_guest_write(ring, index, from, to, s->writer, &totals);
	if (r <= 0)
		return r;
	if (p->sample_scope == DC_SAMPLE_SCOPE_NONE) {
		p->sample_scope = DC_SAMPLE_SCOPE_GUEST;
		p->samples_from_ns = totals.samples_from_ns;
	}
	p->samples_lost += totals.lost;
	return 0;
}

static int finish_ring(struct dc_save *s, struct dc_member *m, bool again)
{
	uint64_t from, to;
	int r = 0;

	if (dc_incident_edges(&s->incident, m->ring, &from, &to) == 0)
		dc_snapshot_extend(m->snapshot, to); /* further triggers may have moved it */
	if (again)
		r = dc_snapshot_pass(m->snapshot, s->writer);
	if (r < 0 && dc_writer_error(s->writer) == 0)
		r = 0; /* the ring is gone now; the first pass stands */
	if (r == 0)
		r = dc_snapshot_loss(m->snapshot, s->writer);
	add_totals(&s->totals, dc_snapshot_totals(m->snapshot));
	m->process.took_ns = (int64_t)dc_snapshot_totals(m->snapshot)->took_ns;
	return r;
}

static int finish_member(struct dc_save *s, uint32_t index, bool again)
{
	struct dc_member *m = &s->members[index];
	int r = 0;

	if (m->unreadable)
		return 0;
	if (!m->ring->bare)
		r = finish_ring(s, m, again);
	if (r == 0)
		r = dc_maps_write(m->ring->maps, s->writer, index, &m->maps_mark); /* loaded meanwhile */
	if (r == 0)
		r = dc_crash_write(m->ring, s->writer, index);
	if (r >= 0)
		r = write_samples(s, index);
	if (r == 0)
		r = write_guest_samples(s, index);
	if (r < 0)
		return r;
	return dc_writer_process(s->writer, index, &m->process);
}

/* The window ends now at the latest: its processes may have died, or the watcher stops, before `after` is over. */
static void end_window(struct dc_incident *i)
{
	struct dc_anchor now;

	if (i->anchor_count == 0)
		return; /* a ring from elsewhere: our clocks say nothing of it */
	dc_incident_anchor(i);
	if (dc_clock_now(i->clock, &now) == 0 && now.tick >> i->tick_shift < i->to_units)
		i->to_units = now.tick >> i->tick_shift;
}

int dc_save_last(struct dc_save *s, bool again)
{
	int r = 0;

	s->totals = (struct dc_snapshot_totals){0};
	end_window(&s->incident);
	for (uint32_t i = 0; r == 0 && i < s->count; i++)
		r = finish_member(s, i, again);
	if (r == 0)
		r = dc_writer_incident(s->writer, &s->incident);
	if (r < 0)
		return r;
	s->written_bytes = dc_writer_written(s->writer);
	r = dc_writer_close(TAKE(s->writer), true);
	s->durable_ns = dc_now_ns() - s->began_ns;
	dc_save_abort(
		s); /* nothing of the file is left to remove: only snapshots and the directory are let go */
	return r;
}
